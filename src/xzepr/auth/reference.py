"""`make reference`: docs/reference/roles_and_permissions.md, written from the routing table and the roles.

A test compares the page with what this writes, and another sends a request for each cell of its table to a real application.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Final

from xzepr.app import ROUTES
from xzepr.auth.permissions import ROLE_PERMISSIONS, Permission, Role
from xzepr.auth.principal import Principal
from xzepr.errors import XzeprError
from xzepr.ids import UserId
from xzepr.web import pages
from xzepr.web.routes import Route, Whose

ALLOWED: Final = "yes"
_ONLY_OWN: Final = {Whose.ANYBODY: "", Whose.OWNER: "its owner", Whose.MEMBER: "its owner, members of the group"}
_HEAD: Final = """# Roles and permissions

<!-- Written by `make reference` from the code; do not edit. -->

Every route names the permission that it needs, is for everybody who is known (*to be known*), or is public; one that says nothing stops the start.
A caller has the permissions of all its roles. An API key narrows them further to its scopes: it can never do more than its owner may at that moment.
The routes themselves are described in the [REST API](api.md).

## What each role may do

{roles}

## What each route needs

In a cell: what a caller of that role meets. *yes*: it is let in; *401*: credentials are needed; *403*: its role is not enough. *Anonymous* is a
caller without credentials and without `auth.anonymous_roles`; with them, such a caller is what those roles are. Where the last column names somebody,
the object must also be theirs, or the answer is 403; administrators are not bound by that.

{routes}

## Rules beside the table

- **Restricted event receivers.** Only the receiver's owner, members of its groups and administrators may post to it, one by one, in batches and as
  CloudEvents. *Its groups* are those into which its owner or an administrator put it; only they may. Anybody else meets 403.
  [How to](../how_to/restrict_a_receiver.md).
- **API keys and trusted issuers' tokens for some event receivers.** Posting to any other receiver is 403 and names it. What they may read is not
  limited by it.
- **Reading** is not bound to owners: who has `event:read` reads all events. Payloads that should never have been there are taken away by a
  [redaction](api.md#post-apiv1eventsidredactions).
- **Deleting** receivers and groups, and redacting, is for administrators: no other role has the permission, and being the owner does not give it.
"""


def reference_page() -> str:
    """`docs/reference/roles_and_permissions.md`."""
    return _HEAD.format(roles=_roles(), routes=routes_table(table()))


def table() -> Sequence[Route]:
    """All routes of the server, its pages included."""
    return [*ROUTES, *pages.routes(ROUTES)]


def routes_table(routes: Iterable[Route]) -> str:
    """A row each: what is needed, what anonymous callers and each role meet, and whose the object must be."""
    callers = {"anonymous": Principal(), **{f"`{role}`": Principal(id=_SOMEBODY, roles=frozenset({role})) for role in Role}}
    rows = [f"| route | permission | {' | '.join(callers)} | and only |", "|---|---|" + "---|" * len(callers) + "---|"]
    for route in routes:
        needs = " and ".join(f"`{permission}`" for permission in route.permissions) or ("public" if route.is_public else "to be known")
        met = " | ".join(_met(route, principal) for principal in callers.values())
        rows.append(f"| `{route.method} {route.path}` | {needs} | {met} | {_ONLY_OWN[route.whose]} |")
    return "\n".join(rows)


_SOMEBODY: Final = UserId("0" * 26)


def _met(route: Route, principal: Principal) -> str:
    try:
        route.require(principal)
    except XzeprError as error:
        return str(error.status)
    return ALLOWED


def _roles() -> str:
    rows = ["| permission | " + " | ".join(f"`{role}`" for role in Role) + " |", "|---|" + "---|" * len(Role)]
    for permission in Permission:
        given = " | ".join(ALLOWED if permission in ROLE_PERMISSIONS[role] else "" for role in Role)
        rows.append(f"| `{permission}` | {given} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(reference_page())
