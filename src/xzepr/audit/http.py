"""`/api/v1/admin/audit`: parse, call, answer."""

from xzepr.audit.model import AuditPage, AuditRow
from xzepr.audit.search import search_acts
from xzepr.auth.permissions import Permission
from xzepr.house import House
from xzepr.page import Page
from xzepr.web.call import Answer, Call
from xzepr.web.routes import Route


async def list_acts(call: Call[House]) -> Answer:
    return Answer(await search_acts(call.house.database, call.query))


ROUTES = (
    Route(
        method="GET",
        path="/api/v1/admin/audit",
        handler=list_acts,
        permission=Permission.AUDIT_READ,
        query=AuditPage,
        answer=Page[AuditRow],
        tag="administration",
        summary="Who did what, newest first",
        description="`actor` is an id or a name; `act` with `*` at its end finds all that begin so; `from` and `to` are times of the acts.",
    ),
)
