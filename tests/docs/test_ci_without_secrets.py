"""docs/how_to/ci_without_secrets.md: its settings are taken as they stand, and each token that it shows gets what the rules above it say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.settings_home import Home
from xzepr.auth.permissions import Role
from xzepr.auth.trusted import principal_of
from xzepr.settings.model import TrustedIssuer

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "ci_without_secrets.md").read_text("utf-8")
CLAIMS = [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)]
SETTINGS = [
    text
    for text in re.findall(r"^(?:```yaml|cat > trusted\.yaml [^\n]*)\n(.*?)^(?:```|EOF_YAML)$", PAGE, re.DOTALL | re.MULTILINE)
    if text.startswith("auth:")
]


def issuers(home: Home) -> dict[str, TrustedIssuer]:
    found: dict[str, TrustedIssuer] = {}
    for text in SETTINGS:
        home.write("page.yaml", text)
        loaded = home.load("page.yaml")
        assert loaded.warnings == []
        found |= {each.issuer: each for each in loaded.settings.auth.trusted_issuers}
    return found


def test_each_issuer_of_the_page_has_a_token_and_each_token_an_issuer(tmp_path: Path) -> None:
    assert set(issuers(Home(tmp_path))) == {claims["iss"] for claims in CLAIMS}
    assert len(CLAIMS) == 4


@pytest.mark.parametrize("claims", CLAIMS, ids=lambda claims: claims["iss"])
def test_a_token_of_the_page_gets_what_its_rule_says(tmp_path: Path, claims: dict[str, Any]) -> None:
    issuer = issuers(Home(tmp_path))[claims["iss"]]
    assert issuer.audience in claims["aud"]
    principal = principal_of(issuer, claims)
    assert principal.roles == {Role.EVENT_MANAGER}
    assert principal.event_receiver_ids == ({"01M88Q7AG504QSGMQWKDMNZ1V5"} if "github" in claims["iss"] else None)


def test_the_audience_that_the_jobs_ask_for_is_that_of_the_settings() -> None:
    asked = set(re.findall(r"audience=([^\s\"]+)", PAGE)) | set(re.findall(r"^ +aud: (\S+)$", PAGE, re.MULTILINE))
    assert asked == {yaml.safe_load(SETTINGS[0])["auth"]["trusted_issuers"][0]["audience"]}
