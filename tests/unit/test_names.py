"""Ids and artifacts: what names a thing, in the text and bytes that the contract promises."""

import itertools
import re
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xzepr import ids
from xzepr.ids import EventId, is_ulid
from xzepr.nvrpp import Nvrpp

FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=255)


@given(st.tuples(FIELDS, FIELDS, FIELDS, FIELDS, FIELDS) | st.tuples(*[st.text("ab.-1", max_size=400)] * 5))
def test_an_artifact_is_known_by_the_hash_of_its_fields_behind_their_lengths(fields: tuple[str, str, str, str, str]) -> None:
    told = b"".join(len(field.encode()).to_bytes(4, "big") + field.encode() for field in fields)
    assert Nvrpp(*fields).artifact_id == sha256(told).digest()[:16]


def test_ids_rise_also_while_the_clock_stands_or_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # Put back afterwards: what this process mints next would go on from the time that is made up here.
    for name in ("_last", "_last_ms", "_head"):
        monkeypatch.setattr(ids, name, getattr(ids, name))
    now_ms = 4_000_000_000_000
    minted = []
    for step_ms in (0, 0, -5_000, 1, 1):
        now_ms += step_ms
        monkeypatch.setattr(ids, "unix_ms", lambda now_ms=now_ms: now_ms)
        # More than the last two characters can tell apart.
        minted += [ids.mint(EventId) for _ in range(2_500)]
    assert minted == sorted(set(minted))
    assert all(is_ulid(each) and re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", each) for each in minted)
    # As numbers they are neighbours, so none was written wrongly.
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    numbers = [sum(alphabet.index(character) << 5 * place for place, character in enumerate(reversed(each))) for each in minted[:7_500]]
    assert {later - earlier for earlier, later in itertools.pairwise(numbers)} == {1}
