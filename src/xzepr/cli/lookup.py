"""A receiver or group that a person named: by its id, or by its name when only one bears it.

Names are not unique. Whatever is doubtful is refused with the ids to choose from; nothing is guessed.
"""

import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from xzepr.cli.connection import Failure

if TYPE_CHECKING:
    from xzepr_client import Client, EventReceiver, EventReceiverGroup

_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.IGNORECASE)
_LISTED_MAX: Final = 20


def is_id(text: str) -> bool:
    """Whether it has the form of an id."""
    return _ULID.fullmatch(text) is not None


def receiver_id_of(client: "Client", text: str) -> str:
    """Raises Failure when no receiver bears the name, or several."""
    from xzepr_client import each

    return text if is_id(text) else _only("receiver", text, each(client.search_receivers, name=text)).id


def group_id_of(client: "Client", text: str) -> str:
    """Raises Failure when no group bears the name, or several."""
    from xzepr_client import each

    return text if is_id(text) else _only("group", text, each(client.search_groups, name=text)).id


def find_receiver(client: "Client", text: str) -> "EventReceiver":
    """The object. Raises Failure as above, ProblemError for an id that is unknown."""
    return client.get_receiver(receiver_id_of(client, text))


def find_group(client: "Client", text: str) -> "EventReceiverGroup":
    """The object. Raises Failure as above, ProblemError for an id that is unknown."""
    return client.get_group(group_id_of(client, text))


def collect(search: Callable[..., Any], limit: int, *arguments: Any, **filters: Any) -> list[Any]:
    """Up to `limit` of what a search of the client finds, over as many pages as it takes."""
    from xzepr_client import Page, each

    def search_page(*inner: Any, **options: Any) -> Page[Any]:
        page: Page[Any] = search(*inner, **{**options, "limit": min(limit, options["limit"])})
        return page

    return list(islice(each(search_page, *arguments, **filters), limit))


def _only(what: str, name: str, found: Iterator[Any]) -> Any:
    candidates = list(islice(found, _LISTED_MAX + 1))
    if not candidates:
        raise Failure(f"there is no {what} named {name!r}", advice=f"`xzepr {what} list` shows what there is")
    if len(candidates) > 1:
        lines = [f"{each.id}  type {each.type}, version {each.version}" for each in candidates[:_LISTED_MAX]]
        more = ["…"] if len(candidates) > _LISTED_MAX else []
        raise Failure(f"{len(lines)}{'+' if more else ''} {what}s are named {name!r}", *lines, *more, advice="give the id of the one you mean")
    return candidates[0]
