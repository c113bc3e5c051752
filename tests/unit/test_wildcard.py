"""Patterns with a star."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xzepr.wildcard import covers, matches

PATTERNS = st.text("ab.*", max_size=8)
TEXTS = st.text("ab.", max_size=10)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("artifact.*", "artifact.signed", True),
        ("artifact.*", "artifact.", True),
        ("artifact.*", "artifact", False),
        ("artifact.*", "my.artifact.signed", False),
        ("*", "", True),
        ("*.signed", "a.signed", True),
        ("a*a", "a", False),
        ("artifact.signed", "artifactXsigned", False),
        ("", "", True),
        ("a*b*c", "a\nbc", True),
    ],
)
def test_a_star_matches_any_text(pattern: str, text: str, expected: bool) -> None:
    assert matches(pattern, text) is expected


@given(PATTERNS, TEXTS)
def test_it_agrees_with_a_regular_expression(pattern: str, text: str) -> None:
    as_regex = ".*".join(re.escape(piece) for piece in pattern.split("*"))
    assert matches(pattern, text) == (re.fullmatch(as_regex, text, re.DOTALL) is not None)


@given(PATTERNS, PATTERNS, TEXTS)
def test_what_is_covered_matches_nothing_else(pattern: str, other: str, text: str) -> None:
    if covers(pattern, other) and matches(other, text):
        assert matches(pattern, text)
