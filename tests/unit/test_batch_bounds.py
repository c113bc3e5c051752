"""A batch that has too many items is refused before they are made."""

import time
import tracemalloc

import pytest

from xzepr.errors import BodyTooLarge, InvalidInput, MalformedBody
from xzepr.events.posted import BATCH_EVENTS_MAX, split_array, split_lines

BODY_BYTES = 16 << 20
# What is refused at once costs far less; items cost a gigabyte and seconds.
MEMORY_MAX_BYTES = 20 << 20
TIME_MAX_S = 1.0


@pytest.mark.parametrize(
    ("split", "body", "refusal"),
    [
        (split_array, b"[" + b"1," * (BODY_BYTES // 2 - 1) + b"1]", BodyTooLarge),
        (split_array, b"[" + b"{}," * (BODY_BYTES // 3) + b"{}]", BodyTooLarge),
        (split_array, b" \n[" + b'"",' * (BODY_BYTES // 3) + b'""]', BodyTooLarge),
        (split_array, b'{"a":[' + b"[]," * (BODY_BYTES // 3) + b"[]]}", InvalidInput),
        (split_array, b"[" * BODY_BYTES, MalformedBody),
        (split_array, b'{"a":' * (BODY_BYTES // 5), MalformedBody),
        (split_lines, b"11\n" * (BODY_BYTES // 3), BodyTooLarge),
        (split_lines, b"\n" * (BODY_BYTES - 30_000) + b"1\n" * 15_000, BodyTooLarge),
        (split_lines, b" \n" * (BODY_BYTES // 2), None),
        (split_lines, b"\n" * 20_000 + b" " * (BODY_BYTES - 20_000), None),
    ],
    ids=["numbers", "objects", "texts", "no array", "deep array", "deep object", "lines", "empty lines first", "empty lines", "one long line"],
)
def test_a_batch_is_refused_before_its_items_are_made(split, body, refusal) -> None:  # type: ignore[no-untyped-def]
    tracemalloc.start()
    began_s = time.process_time()
    try:
        if refusal is None:
            assert split(body) == []
        else:
            with pytest.raises(refusal):
                split(body)
        took_s, (_, peak_bytes) = time.process_time() - began_s, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < MEMORY_MAX_BYTES
    assert took_s < TIME_MAX_S


@pytest.mark.parametrize("count", [1, 9_999, BATCH_EVENTS_MAX])
@pytest.mark.parametrize("item", [b"7", b'{"a":[1,2],"b":"x,y"}', b"[[],[]]"])
def test_a_batch_of_up_to_ten_thousand_comes_as_it_is(item: bytes, count: int) -> None:
    assert split_array(b"[" + b", ".join([item] * count) + b" ]") == [item] * count
    assert split_lines(b"\n\n".join([b"  " + item + b" \r"] * count)) == [item] * count
    assert split_lines(b"\n" * 12_000 + b"\n".join([b"\t" + item] * count)) == [item] * count


def test_one_more_is_too_many() -> None:
    for split, body in ((split_array, b"[" + b",".join([b"{}"] * 10_001) + b"]"), (split_lines, b"{}\n" * 10_001)):
        with pytest.raises(BodyTooLarge, match="a batch has at most 10000 events"):
            split(body)
