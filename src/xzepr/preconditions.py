"""If-Match: change only what nobody else changed meanwhile. Source: RFC 9110 §13.1.1 and contract `rest.md`."""

import re
from typing import Self

from xzepr.errors import InvalidInput, PreconditionFailed


class IfMatch:
    """The versions that a caller has seen; None: any."""

    def __init__(self, versions: frozenset[int] | None) -> None:
        self._versions = versions

    @classmethod
    def of(cls, header: str | None) -> Self:
        """From the header: versions, quoted or bare, or `*`. Raises InvalidInput for anything else."""
        if header is None or header.strip() == "*":
            return cls(None)
        versions = [re.fullmatch(r'"?(\d{1,9})"?', part.strip()) for part in header.split(",")]
        if not all(versions):
            raise InvalidInput.at("If-Match", 'must hold resource versions, such as 3 or "3"')
        return cls(frozenset(int(match[1]) for match in versions if match))

    def require(self, version: int) -> None:
        """Raises PreconditionFailed when the version in force is another."""
        if self._versions is not None and version not in self._versions:
            raise PreconditionFailed(f"it has the resource_version {version} by now", extra={"resource_version": version})
