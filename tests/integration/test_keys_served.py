"""A running installation: it makes its keys, publishes their public halves, and takes rotated files up without a restart."""

import stat
import time
from pathlib import Path
from typing import Any

import httpx2
import jwt

from support.installation import Installation
from support.signing import settings_with
from xzepr import ids
from xzepr.auth.key_files import KeyFiles, generate, rotate
from xzepr.auth.keys import SigningKeys
from xzepr.auth.tokens import AccessTokens

TAKEN_UP_S = 60.0


def files_of(running: Installation) -> KeyFiles:
    directory = Path(running.environ["XZEPR__SERVER__STATE_DIR"]) / "keys"
    return KeyFiles(directory / "signing.pem", directory / "public.pem")


def published(http: httpx2.Client) -> list[dict[str, Any]]:
    answer = http.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=300"
    keys: list[dict[str, Any]] = answer.json()["keys"]
    assert all(set(key) == {"kty", "use", "alg", "kid", "n", "e"} for key in keys), "public parts only"
    return keys


def test_a_start_makes_keys_and_publishes_them_to_whoever_checks_our_tokens(shared_installation: Installation, http: httpx2.Client) -> None:
    files = files_of(shared_installation)
    assert stat.S_IMODE(files.private.stat().st_mode) == 0o600
    tokens = AccessTokens(settings_with(files), SigningKeys(files))
    token, _ = tokens.issue(user_id=ids.mint(ids.UserId), username="alice", roles=[], permissions=[], epoch=1, family_id=None)
    # As somebody else's program would: by the published keys alone.
    found = jwt.PyJWKSet.from_dict({"keys": published(http)})[jwt.get_unverified_header(token)["kid"]]
    told = jwt.decode(token, found, ["RS256"], audience="xzepr-api", issuer="xzepr.io")
    assert told["name"] == "alice"


def test_every_worker_takes_a_rotated_key_up_within_a_minute(shared_installation: Installation, http: httpx2.Client) -> None:
    before = [key["kid"] for key in published(http)]
    new = rotate(files_of(shared_installation), bits=None, keep=1).valid[0].kid
    deadline = time.monotonic() + TAKEN_UP_S
    in_a_row = 0
    while in_a_row < 20:
        assert time.monotonic() < deadline, "some worker still publishes the old keys alone"
        # A connection of its own, so that each worker gets some of them.
        answer = httpx2.get(f"{shared_installation.url}/.well-known/jwks.json", headers={"Connection": "close"}).json()
        kids = [key["kid"] for key in answer["keys"]]
        in_a_row = in_a_row + 1 if kids == [new, before[0]] else 0
        time.sleep(0.05)
    assert len(shared_installation.children("web")) == 2, "nobody was started again for it"
    assert any("keys.taken_up" in line for line in shared_installation.lines)


def test_a_key_that_cannot_be_used_is_one_clear_line_at_the_start(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "private.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    (tmp_path / "private.pem").chmod(0o600)
    running = Installation({"XZEPR__DATABASE__URL": database_url, "XZEPR__JWT__PRIVATE_KEY_PATH": str(tmp_path / "private.pem")})
    assert running.process.wait(40) == 1
    assert running.wait_for(r"^error: jwt\.private_key_path: the key in .*private\.pem cannot be read$")
    assert not any("Traceback" in line for line in running.lines)
    running.stop()


def test_children_get_the_configured_files(tmp_path: Path, database_url: str) -> None:
    made = KeyFiles(tmp_path / "private.pem", tmp_path / "public.pem")
    kid = generate(made, bits=2048).kid
    running = Installation(
        {
            "XZEPR__DATABASE__URL": database_url,
            "XZEPR__SERVER__WORKERS": "1",
            "XZEPR__JWT__PRIVATE_KEY_PATH": str(made.private),
            "XZEPR__JWT__PUBLIC_KEY_PATH": str(made.public),
        }
    ).ready()
    with httpx2.Client(base_url=running.url) as http:
        assert [key["kid"] for key in published(http)] == [kid]
    assert not files_of(running).private.exists(), "nothing is made beside configured files"
    assert running.stop() == 0
