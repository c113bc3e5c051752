"""What the benchmark says of its figures: percentiles, ratios that fell, bars, quarters."""

from pathlib import Path

import jsonschema_rs
import msgspec
import pytest

from benchmarks.compare import compare
from benchmarks.fill import PAYLOAD, SCHEMA, event_count, names_of
from benchmarks.load import NUMBER, Outcome
from benchmarks.report import Guide, Report, Row, bars_of, percentile, read, save
from benchmarks.requests import BATCH_EVENTS, batch, posts
from benchmarks.rows import errors_of
from benchmarks.trials import quarters
from xzepr.events.model import NewEvent


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([7.0], 0.5, 7.0),
        ([7.0], 0.99, 7.0),
        ([1, 2], 0.5, 1),
        ([1, 2, 3], 0.5, 2),
        (range(1, 101), 0.99, 99),
        (range(1, 101), 1.0, 100),
        ([1, 2], 0.0, 1),
    ],
)
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def report(**ratios: float | None) -> Report:
    return Report(rows=[Row(name=name, ratio=ratio) for name, ratio in ratios.items()])


@pytest.mark.parametrize(
    ("before", "after", "fell"),
    [(1.0, 0.85, False), (1.0, 0.84, True), (0.4, 0.5, False), (0.5, 0.42, True), (None, None, False), (None, 0.5, False)],
)
def test_a_ratio_fell_when_it_lost_more_than_15_percent_of_what_it_was(before: float | None, after: float | None, fell: bool) -> None:
    (change,) = compare(report(a=before), report(a=after))
    assert change.fell is fell


def test_a_ratio_that_is_no_longer_there_fell_and_a_new_row_did_not() -> None:
    changes = compare(report(gone=0.5, null=0.5, without=None), report(null=None, new=0.1))
    assert {change.name: change.fell for change in changes} == {"gone": True, "null": True, "without": False, "new": False}


def test_a_saved_report_is_read_back(tmp_path: Path) -> None:
    told = Report(rows=[Row(name="a", ratio=None, throughput=1.5, errors=2)], machine={"cores": "2"})
    save(told, tmp_path / "results" / "latest.json")
    assert read(tmp_path / "results" / "latest.json") == told


def rows(**changes: float) -> list[Row]:
    single = Row(name="post c=64 no group 10k", ratio=0.4, throughput=1000, p50_ms=5, p99_ms=24.9, pending=1000)
    for field, value in changes.items():
        setattr(single, field, value)
    return [single, Row(name="status 10k", p50_ms=1.0), Row(name="status 1m", p50_ms=1.31)]


def held(bars: list[Row], sizes: list[str] | None = None, guide: Guide | None = None) -> dict[str, bool | None]:
    return {bar.name: bar.held for bar in bars_of(bars, sizes or ["10k", "1m"], guide)}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("post c=64 no group 10k: ratio", {"ratio": 0.39}),
        ("post c=64 no group 10k: p99", {"p99_ms": 25}),
        ("post c=64 no group 10k: seconds of pending facts", {"pending": 1001}),
    ],
)
def test_a_bar_is_held_up_to_its_limit(name: str, change: dict[str, float]) -> None:
    assert held(rows())[name] is True
    assert held(rows(**change))[name] is False


def test_a_read_that_grows_with_what_is_stored_misses_its_bar_and_what_was_not_measured_has_no_verdict() -> None:
    verdicts = held(rows())
    assert verdicts["status: p50 at 1m by that at 10k"] is False
    assert verdicts["timeline: p50 at 1m by that at 10k"] is None
    assert verdicts["batch 1000 1m: ratio"] is None
    assert not any("by that at" in name for name in held(rows(), ["10k"]))


def test_the_guide_wants_more_than_1000_a_second() -> None:
    guide = Guide(offered=1010, throughput=1000, p50_ms=1, p95_ms=1, p99_ms=1, answers=1000, errors=1, cpu=0.7, memory=0.1)
    verdicts = held([], ["10k"], guide)
    assert [verdicts[f"guide: {name}"] for name in ("requests/s", "errors", "CPU", "memory")] == [False, True, False, True]


@pytest.mark.parametrize(
    ("outcome", "stored", "errors"),
    [
        (Outcome(answered=10), 10, 0),
        (Outcome(answered=10), 9, 1),
        (Outcome(answered=10), 12, 2),
        (Outcome(answered=10, unanswered=2), 11, 2),
        (Outcome(answered=10, unanswered=2), 13, 3),
        (Outcome(answered=10, bad=1, repeated_ids=1), 10, 2),
        (Outcome(answered=10), None, 0),
    ],
)
def test_answers_and_stored_rows_must_agree(outcome: Outcome, stored: int | None, errors: int) -> None:
    assert errors_of(outcome, stored) == errors
    assert errors_of(Outcome(answered=2), 2_500, each=1_000) == 500


def test_quarters_go_by_progress() -> None:
    samples = [(progress, 100 if progress < 60 else 200) for progress in range(101)]
    assert quarters(samples) == (100, 200)
    assert quarters([]) == (0, 0)


def test_sizes() -> None:
    assert [event_count(size) for size in ("10k", "1m", "10m")] == [10_000, 1_000_000, 10_000_000]
    assert [names_of(count) for count in (10_000, 1_000_000)] == [100, 1_000]
    for wrong in ("", "10", "k", "1g", "-1k", "0k"):
        with pytest.raises(ValueError, match="is no size"):
            event_count(wrong)


def test_what_is_posted_is_what_the_contract_asks_for() -> None:
    receiver_id = "01M88Q7AG504QSGMQWKDMNZ1V5"
    (request,) = batch(1, receiver_id)
    head, _, body = request.replace(NUMBER, b"0000000001").partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/events/batch HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    events = msgspec.json.decode(body, type=list[NewEvent])
    assert (len(events), len({event.nvrpp for event in events})) == (BATCH_EVENTS, BATCH_EVENTS / 5)
    single = [request.replace(NUMBER, b"0000000001").partition(b"\r\n\r\n")[2] for request in posts(1, [receiver_id] * 3)]
    assert len({msgspec.json.decode(each, type=NewEvent).nvrpp for each in single}) == len(single) / 3
    assert msgspec.json.encode({"data": ["x"] * BATCH_EVENTS}).count(b'","') == BATCH_EVENTS - 1


def test_the_schema_has_at_least_ten_constraints_and_the_payload_meets_them() -> None:
    properties = SCHEMA["properties"]
    constraints = len(SCHEMA["required"]) + sum(len(rules) for rules in properties.values())
    assert constraints >= 10
    assert sum(len(set(rules) - {"type"}) for rules in properties.values()) >= 10
    assert jsonschema_rs.is_valid(SCHEMA, PAYLOAD)
    assert not any(jsonschema_rs.is_valid(SCHEMA, {**PAYLOAD, name: None}) for name in PAYLOAD)
