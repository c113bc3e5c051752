"""Addresses for people and for tools: the page of links, the OpenAPI document, the API pages. Everything comes from this server."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import msgspec
from starlette.responses import HTMLResponse, RedirectResponse, Response

from xzepr import __version__, errors
from xzepr.auth.permissions import PUBLIC
from xzepr.errors import XzeprError
from xzepr.web.call import Call
from xzepr.web.openapi import build_document
from xzepr.web.routes import Route

STATIC_DIRECTORY = str(files("xzepr.web").joinpath("static"))
_TEMPLATES = files("xzepr.web").joinpath("templates")


class Link(msgspec.Struct, frozen=True):
    """Where something is."""

    href: str
    title: str


class Home(msgspec.Struct, frozen=True, kw_only=True):
    """What is here, for a program."""

    service: str
    version: str
    links: list[Link]


_LINKS = [
    Link("/docs", "API pages"),
    Link("/openapi.json", "OpenAPI document"),
    Link("/health", "health"),
    Link("/api/v1/status", "status"),
    Link("/api/v1/stream", "live stream"),
]


def routes(documented: Sequence[Route]) -> list[Route]:
    """Public routes that describe the others; they are not in the document themselves."""
    document = msgspec.json.encode(build_document(documented))
    api_page, problem_page, home_page = _page("docs.html"), _page("problems.html").replace("<!-- rows -->", _problem_rows()), _page("home.html")
    home_page = home_page.replace("<!-- version -->", __version__).replace(
        "<!-- links -->", "".join(f'<li><a href="{link.href}">{link.title}</a></li>' for link in _LINKS)
    )

    async def show_document(call: Call[Any]) -> Response:
        return Response(document, media_type="application/json")

    async def show_api_page(call: Call[Any]) -> Response:
        return HTMLResponse(api_page)

    async def show_problem_page(call: Call[Any]) -> Response:
        return HTMLResponse(problem_page)

    async def show_favicon(call: Call[Any]) -> Response:
        return RedirectResponse("/static/icon.svg", 301)

    async def show_home(call: Call[Any]) -> Response:
        if "text/html" in call.headers.get("accept", ""):
            return HTMLResponse(home_page)
        return Response(msgspec.json.encode(Home(service="xzepr", version=__version__, links=_LINKS)), media_type="application/json")

    return [
        _route("/", show_home, Home, "What is here", "application/json"),
        _route("/openapi.json", show_document, dict, "OpenAPI document", "application/json"),
        _route("/docs", show_api_page, str, "API pages", "text/html"),
        _route("/docs/problems", show_problem_page, str, "What each problem code means", "text/html"),
        _route("/favicon.ico", show_favicon, str, "Icon", "image/svg+xml"),
    ]


def _route(path: str, handler: Any, answer: Any, summary: str, media_type: str) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        permission=PUBLIC,
        answer=answer,
        media_type=media_type,
        tag="service",
        summary=summary,
        in_document=False,
    )


def _page(name: str) -> str:
    return _TEMPLATES.joinpath(name).read_text("utf-8")


def _problem_rows() -> str:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, XzeprError)]
    rows = []
    for kind in sorted(kinds, key=lambda kind: (kind.status, kind.code)):
        meaning = (kind.__doc__ or "").partition("\n")[0]
        rows.append(f'<tr id="{kind.code}"><td>{kind.status}</td><td><code>{kind.code}</code></td><td>{meaning}</td></tr>')
    return "".join(rows)
