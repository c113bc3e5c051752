"""Which messages a reader of the stream wants: decided for a message, and before that, as far as it goes, by the statement that looks for them."""

from typing import Any

import msgspec

from xzepr.stream.message import ABOUT_DEFINITIONS, PLATFORM_ID, Message, kinds_of_type


class Filter:
    """Exact comparisons; all have to match. query: its fields of these names, None where anything will do."""

    _COMPARED = ("type", "name", "version", "release", "platform_id", "package", "success", "event_receiver_id")

    def __init__(self, query: msgspec.Struct) -> None:
        self._values: dict[str, Any] = {field: getattr(query, field) for field in self._COMPARED}
        self._wanted = [(field, value) for field, value in self._values.items() if value is not None]

    def __call__(self, message: Message) -> bool:
        """Whether this one is among them."""
        return all(getattr(message, field) == value for field, value in self._wanted)

    @property
    def takes_all(self) -> bool:
        """Whether nothing is left out."""
        return not self._wanted

    @property
    def values(self) -> list[Any]:
        """Parameters of match_stream (stream/queries.sql), behind its first three."""
        values, type_ = self._values, self._values["type"]
        fields = [values[field] for field in ("success", "event_receiver_id", "name", "version", "release", "platform_id", "package")]
        return [*fields, type_, None if type_ is None else kinds_of_type(type_), PLATFORM_ID, *ABOUT_DEFINITIONS]
