"""Patterns in settings: `*` matches any text, also none; everything else matches itself. No pattern takes long."""


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text is of the pattern."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *middle, last = others
    if not text.startswith(first):
        return False
    place = len(first)
    for piece in middle:
        found = text.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    return len(text) - place >= len(last) and text.endswith(last)


def covers(pattern: str, other: str) -> bool:
    """Whether every text of the other pattern is of this one, too: a `*` of the other can only fall to a `*` of this."""
    return matches(pattern, other)
