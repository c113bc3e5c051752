"""Text for a terminal."""


def shown(text: str) -> str:
    """On one line, and without what steers a terminal: names and descriptions come from anybody who may post."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def when(moment: str | None) -> str:
    """An RFC 3339 time in UTC, to the second; empty for none."""
    return shown(moment[:19].replace("T", " ")) if moment else ""
