"""The document in docs/reference is the one that the code makes, and no client of the last release is left behind by it."""

import json
from pathlib import Path
from typing import Any

import msgspec
from click.testing import CliRunner

from support.compatibility import breaks
from xzepr.app import ROUTES
from xzepr.cli.main import main
from xzepr.web import pages
from xzepr.web.openapi import build_document

HERE = Path(__file__)
PAGE = HERE.parents[2] / "docs" / "reference" / "openapi.json"
# The document of the last release. A release takes the new one over: xzepr openapi > tests/data/openapi-released.json
RELEASED = HERE.parents[1] / "data" / "openapi-released.json"


def printed() -> str:
    answer = CliRunner().invoke(main, ["openapi"])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


def test_reference_document_is_the_one_that_the_command_prints() -> None:
    assert PAGE.read_text("utf-8") == printed(), "write it again: make reference"


def test_command_prints_what_the_server_serves() -> None:
    table = [*ROUTES, *pages.routes(ROUTES)]
    served: dict[str, Any] = json.loads(msgspec.json.encode(build_document(table)))
    shown = json.loads(printed())
    assert shown["paths"].items() <= served["paths"].items()
    assert {name for name in served["paths"] if name.startswith("/api/")} <= set(shown["paths"])
    assert shown["info"] == served["info"]


def test_no_client_of_the_last_release_breaks() -> None:
    released = json.loads(RELEASED.read_text("utf-8"))
    assert breaks(released, json.loads(printed())) == []


def test_comparison_looks_at_the_documents_that_there_are() -> None:
    """A comparison that silently passed everything over would find nothing here either."""
    released = json.loads(RELEASED.read_text("utf-8"))
    changed = json.loads(RELEASED.read_text("utf-8"))
    del changed["components"]["schemas"]["Event"]["properties"]["seq"]
    changed["components"]["schemas"]["NewEvent"]["properties"]["name"]["maxLength"] = 100
    del changed["paths"]["/api/v1/groups/{id}/status"]
    found = breaks(released, changed)
    assert "/api/v1/groups/{id}/status: the path is gone" in found
    assert "GET /api/v1/events/{id} 200.seq: the field is gone" in found
    assert "POST /api/v1/events body.name: maxLength was 255, is 100" in found
