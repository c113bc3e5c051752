"""Addresses for people and for tools: the page of links, the OpenAPI document, the API pages, the list of problems.

Everything comes from this server: no page loads anything from another host, and none holds an inline script or style, so the strict
Content-Security-Policy of middleware.CSP holds. Without the files that the build fetches (static/vendor) the API page shows where the document is.
"""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

import msgspec
from starlette.responses import HTMLResponse, RedirectResponse, Response

from xzepr import __version__, errors
from xzepr.auth.permissions import PUBLIC
from xzepr.errors import XzeprError
from xzepr.web.call import Call
from xzepr.web.openapi import build_document
from xzepr.web.problems import title_of
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
    Link("/docs/problems", "what each problem code means"),
    Link("/openapi.json", "OpenAPI document"),
    Link("/health", "health"),
    Link("/api/v1/status", "status"),
    Link("/api/v1/stream", "live stream"),
]


def routes(documented: Sequence[Route]) -> list[Route]:
    """Public routes that describe the given ones and themselves. The pages are made once, here."""
    home = msgspec.json.encode(Home(service="xzepr", version=__version__, links=_LINKS))
    home_page = _page("home.html", version=__version__, links="".join(f'<li><a href="{link.href}">{link.title}</a></li>' for link in _LINKS))
    api_page = _page("docs.html")
    problem_page = _page("problems.html", rows=_problem_rows())

    async def show_home(call: Call[Any]) -> Response:
        # The same address gives two things: what keeps an answer must know.
        vary = {"Vary": "Accept"}
        if prefers_html(call.headers.get("accept", "")):
            return HTMLResponse(home_page, headers=vary)
        return Response(home, media_type="application/json", headers=vary)

    async def show_document(_call: Call[Any]) -> Response:
        return Response(document, media_type="application/json")

    async def show_api_page(_call: Call[Any]) -> Response:
        return HTMLResponse(api_page)

    async def show_problem_page(_call: Call[Any]) -> Response:
        return HTMLResponse(problem_page)

    async def show_favicon(_call: Call[Any]) -> Response:
        return RedirectResponse("/static/icon.svg", 301)

    own = [
        _route("/", show_home, Home, "What is here: a page of links for a browser, JSON for a program", "application/json", has_page=True),
        _route("/openapi.json", show_document, dict, "This document", "application/json"),
        _route("/docs", show_api_page, str, "API pages", "text/html"),
        _route("/docs/problems", show_problem_page, str, "What each problem code means", "text/html"),
        _route("/favicon.ico", show_favicon, str, "Icon", "image/svg+xml", in_document=False),
    ]
    document = msgspec.json.encode(build_document([*documented, *own]))
    return own


def failure_page(title: str, reason: str, request_id: str, *, again: str) -> str:
    """For a person whose browser was sent here and cannot go on. again: the path to begin anew."""
    return _page("failure.html", title=escape(title), reason=escape(reason), again=escape(again), request_id=escape(request_id))


def prefers_html(accept: str) -> bool:
    """Whether an Accept header ranks a page above JSON. A bare `*/*` is a program."""
    ranks = {"text/html": 0.0, "application/json": 0.0}
    for part in accept.split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if media_type in ranks:
            ranks[media_type] = _quality(parameters)
    return ranks["text/html"] > ranks["application/json"]


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _route(path: str, handler: Any, answer: Any, summary: str, media_type: str, *, in_document: bool = True, has_page: bool = False) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        permission=PUBLIC,
        answer=answer,
        media_type=media_type,
        tag="service",
        summary=summary,
        in_document=in_document,
        has_page=has_page,
    )


def _page(name: str, **parts: str) -> str:
    """The template with each `<!-- name -->` replaced."""
    page = _TEMPLATES.joinpath(name).read_text("utf-8")
    for part, html in parts.items():
        page = page.replace(f"<!-- {part} -->", html)
    return page


def _problem_rows() -> str:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, XzeprError)]
    return "".join(
        f'<tr id="{kind.code}"><td>{kind.status}</td><td><code>{kind.code}</code></td><td>{escape(title_of(kind))}.</td></tr>'
        for kind in sorted(kinds, key=lambda kind: (kind.status, kind.code))
    )
