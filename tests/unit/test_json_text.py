"""What survives being stored is taken, everything else is refused with its place."""

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xzepr.errors import MalformedBody
from xzepr.json_text import FAULTS_MAX, compact, parse_strict, plain_texts, read_strict

MEBIBYTE = 1 << 20
SPACES = st.text(" \t\r\n", max_size=3)


def faults_of(body: str | bytes) -> list[tuple[str, str]]:
    with pytest.raises(MalformedBody) as caught:
        parse_strict(body.encode() if isinstance(body, str) else body)
    assert caught.value.status == 400
    return [(fault.pointer, fault.message) for fault in caught.value.faults]


def filled(unit: str) -> bytes:
    """A list of about a mebibyte."""
    return b"[" + (unit + ",").encode() * ((MEBIBYTE - 10) // (len(unit.encode()) + 1)) + b"1]"


@pytest.mark.parametrize(
    ("body", "tree"),
    [
        ("1180591620717411303424", 2**70),
        ("-0", 0),
        ("1.0", 1.0),
        ("1e3", 1000.0),
        ("1E+3", 1000.0),
        ("1e308", 1e308),
        ("1e-400", 0.0),
        ("9" * 1000, int("9" * 1000)),
        ("-" + "9" * 1000, -int("9" * 1000)),
        ("1" * 400 + ".5", int("1" * 400)),
        (r'"\u00e9\/\ud83d\ude00"', "é/😀"),
        (r'"\\u0000 \\ud800"', r"\u0000 \ud800"),
        ('"\u007f\u0085\ufeff\uffff"', "\u007f\u0085\ufeff\uffff"),
        ('{"a":1,"A":2,"":3}', {"a": 1, "A": 2, "": 3}),
        ("[" * 128 + "]" * 128, None),
        ('"' + "[" * 500 + '"', "[" * 500),
        (" \t\r\n true \n", True),
        ("null", None),
    ],
)
def test_what_survives_is_taken(body: str, tree: object) -> None:
    parsed = parse_strict(body.encode())
    if tree is not None:
        assert parsed == tree
        assert type(parsed) is type(tree)


@pytest.mark.parametrize(
    ("body", "pointer", "told"),
    [
        ('{"a":{"b":1,"b":2}}', "/a/b", "twice"),
        (r'{"a":1,"\u0061":2}', "/a", "twice"),
        (r'["x","a\u0000"]', "/1", "NUL"),
        (r'{"a\u0000":1}', "/a\ufffd", "the name of the member holds NUL"),
        (r'{"a/b~c":["\ud800"]}', "/a~1b~0c/0", "lone surrogate"),
        (r'"\udc00"', "", "lone surrogate"),
        (r'"\ud83d\u0041"', "", "lone surrogate"),
        (r'"\\\ud83d"', "", "lone surrogate"),
        (r'"\ude00\ud83d"', "", "lone surrogate"),
        ('{"n":1e400}', "/n", "beyond the range of a double"),
        ("[-1E+999]", "/0", "beyond the range of a double"),
        ("1" * 300 + "e99", "", "beyond the range of a double"),
        ("[" + "1" * 1001 + "]", "/0", "more than 1000 digits"),
        ("-" + "1" * 1001, "", "more than 1000 digits"),
        ("1" * 5000, "", "more than 1000 digits"),
        ("[1,NaN]", "/1", "NaN is not JSON"),
        ('{"a":-Infinity}', "/a", "-Infinity is not JSON"),
    ],
)
def test_what_would_not_survive_is_refused_with_its_place(body: str, pointer: str, told: str) -> None:
    assert [(place, told in message) for place, message in faults_of(body)] == [(pointer, True)]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "line 1, column 1"),
        (b'{"a":1,}', "line 1, column 8"),
        (b'{\n "a" 1}', "line 2, column 6"),
        (b"[1] x", "line 1, column 5"),
        (b"01", "column 2"),
        (b"[1.]", "is not JSON"),
        (b"'a'", "is not JSON"),
        (b'"a\x00b"', "line 1, column 3"),
        (b'"a\nb"', "is not JSON"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'"\xff"', "is not UTF-8: byte 1"),
        (b'"\xed\xa0\x80"', "is not UTF-8: byte 1"),
        (b'"\xc0\x80"', "is not UTF-8: byte 1"),
        ('{"a":1}'.encode("utf-16-le"), "is not JSON"),
        ('"\u0661"'.encode() + "\u0661".encode(), "is not JSON"),
    ],
)
def test_what_is_not_json_is_refused_with_line_and_column_or_byte(body: bytes, told: str) -> None:
    [(pointer, message)] = faults_of(body)
    assert pointer == ""
    assert told in message


@pytest.mark.parametrize("levels", [129, 1_000, 20_000, 1_000_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_depth_over_128_is_refused_at_any_depth(levels: int, opening: str, closing: str) -> None:
    for body in (opening * levels, opening * levels + "1" + closing * levels):
        [(pointer, message)] = faults_of(body)
        assert pointer == ""
        assert "nested deeper than 128 levels at line 1, column " in message


def test_the_place_where_it_is_too_deep_is_told_in_lines_and_columns() -> None:
    [(_, message)] = faults_of('["[[[", "\\"[",\n' + "[" * 128 + "]" * 129)
    assert message.endswith("at line 2, column 128")


def test_brackets_in_strings_have_no_depth() -> None:
    texts = ["[" * 300, '\\"[' * 300, "\\", '"' + "{" * 300]
    assert parse_strict(json.dumps(texts).encode()) == texts


def test_all_faults_are_told_at_once_up_to_a_bound() -> None:
    assert [pointer for pointer, _ in faults_of(r'{"a":"\u0000","b":[1e999,{"c":1,"c":2}]}')] == ["/a", "/b/0", "/b/1/c"]
    assert len(faults_of("[" + ",".join(["1e999"] * 10_000) + "]")) == FAULTS_MAX


def test_a_fault_never_quotes_what_cannot_be_sent_or_is_long() -> None:
    [(pointer, _)] = faults_of('{"' + "k" * 100_000 + r'\ud800":1}')
    assert pointer == "/" + "k" * 80
    pointer.encode()


@pytest.mark.parametrize(
    "body",
    [
        filled('{"a":1}'),
        filled('{"a":1,"a":2}'),
        filled("1.5"),
        filled("[]"),
        filled("NaN"),
        filled("1e400"),
        filled(r'"\ud83d\ude00"'),
        filled(r'"\\u0000"'),
        filled("1" * 1000),
        filled("1" * 400 + ".5"),
        b"[" * MEBIBYTE,
        b"[" * 200 + b'"' + rb"\"" * (MEBIBYTE // 2),
        b'["' + rb"\\" * (MEBIBYTE // 2) + b'"]',
        b"1" * MEBIBYTE,
        b"1" * MEBIBYTE + b".5",
        b"0." + b"1" * MEBIBYTE,
        b" " * MEBIBYTE,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_mebibyte_of_anything_takes_some_tens_of_milliseconds(body: bytes) -> None:
    began = time.process_time()
    with suppress(MalformedBody):
        parse_strict(body)
    # 5 to 110 ms on a quiet machine; quadratic work would take minutes.
    assert time.process_time() - began < 1.0


# Tokens as somebody may write them; the text is put together here, so that what is expected does not come from a JSON library.
TOKENS = st.one_of(
    st.sampled_from(
        [
            "1e3",
            "1.0",
            "-0",
            "1E+3",
            "1e-07",
            "0.10",
            "1180591620717411303424",
            "-0.0",
            "true",
            "null",
            r'"\u00e9"',
            r'"\/"',
            r'"\ud83d\ude00"',
            '" a  b "',
            r'"\\\" : , "',
            '"é"',
            '""',
            r'"\u0020\u002F"',
        ]
    ),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])).map(lambda text: json.dumps(text, ensure_ascii=False)),
)


@st.composite
def written(draw: st.DrawFn, levels: int = 3) -> tuple[str, str]:
    """The same JSON with and without white space between its tokens."""
    kind = draw(st.sampled_from(["token", "list", "object"] if levels else ["token"]))
    if kind == "token":
        token = draw(TOKENS)
        return token, token
    parts = draw(st.lists(written(levels - 1), max_size=3))
    spaces = [draw(SPACES) for _ in range(4)]
    if kind == "list":
        return "[" + ",".join(spaces[0] + loose + spaces[1] for loose, _ in parts) + spaces[2] + "]", f"[{','.join(tight for _, tight in parts)}]"
    names = [f'"{name}"' for name in range(len(parts), 0, -1)]
    loose_members = [spaces[0] + name + spaces[1] + ":" + spaces[2] + loose + spaces[3] for name, (loose, _) in zip(names, parts, strict=True)]
    tight_members = [f"{name}:{tight}" for name, (_, tight) in zip(names, parts, strict=True)]
    return "{" + ",".join(loose_members) + spaces[0] + "}", "{" + ",".join(tight_members) + "}"


@given(written(), SPACES, SPACES)
def test_compact_takes_away_white_space_outside_strings_and_nothing_else(texts: tuple[str, str], before: str, behind: str) -> None:
    loose, tight = texts
    assert compact(before + loose + behind) == tight
    assert compact((before + loose + behind).encode()) == tight
    assert compact(tight) == tight
    # Not a number, so that 0.0 and -0.0 differ.
    assert repr(parse_strict(tight.encode())) == repr(parse_strict((before + loose + behind).encode()))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8", exclude_characters="\x00")), lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\x00")), inner), max_leaves=20), st.booleans())  # fmt: skip
def test_every_tree_that_survives_is_read_as_it_was_written(tree: object, ascii_only: bool) -> None:
    assert repr(parse_strict(json.dumps(tree, ensure_ascii=ascii_only).encode())) == repr(tree)


@given(st.binary(max_size=60) | st.text('[]{}",:\\u0d8e19-.\n ', max_size=60).map(str.encode))
def test_what_the_decoder_of_the_standard_library_refuses_is_never_taken(body: bytes) -> None:
    try:
        tree = parse_strict(body)
    except MalformedBody as error:
        faults = error.faults
    else:
        assert json.loads(body.decode()) == tree
        json.dumps(tree, ensure_ascii=False).encode()
        return
    assert faults
    for fault in faults:
        (fault.pointer + fault.message).encode()


TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)
LINES = (
    st.builds(lambda tree, ascii_only: json.dumps(tree, ensure_ascii=ascii_only).encode(), TEXTS, st.booleans())
    | written().map(lambda texts: texts[0].encode())
    | st.text('[]{}",:\\u0d8e19-.\n ', max_size=20).map(str.encode)
    | st.binary(max_size=20)
    | st.sampled_from(
        [
            b'{"a":1,"a":2}',
            b'{"a":":","a":2}',
            b'{"a" :1,"a":2}',
            b'{"a":1,"\\u0061":2}',
            b'"\\u0000"',
            b"1e400",
            b"[" * 129 + b"]" * 129,
            b"1" * 1001,
        ]
    )
)


@given(st.lists(LINES, min_size=1, max_size=4))
def test_texts_that_are_read_together_are_what_each_is_alone(lines: list[bytes]) -> None:
    together = plain_texts(lines)
    if together is None:
        return
    array, trees = together
    assert repr(trees) == repr([parse_strict(line) for line in lines])
    assert array.decode() == "[" + ",".join(compact(line.decode()) for line in lines) + "]"


@given(LINES)
def test_a_text_is_read_as_its_compact_form_and_its_tree(line: bytes) -> None:
    try:
        tree = parse_strict(line)
    except MalformedBody:
        with pytest.raises(MalformedBody):
            read_strict(line)
        return
    read = read_strict(line)
    assert (read[0].decode(), repr(read[1])) == (compact(line.decode()), repr(tree))


def test_texts_that_are_two_or_half_a_text_are_not_read_together() -> None:
    assert plain_texts([b'{"a":1},{"b":2}']) is None
    assert plain_texts([b'{"a":[1', b"2]}", b"3,4"]) is None
    assert plain_texts([b'{"a":"' + b"b" * 2000 + b'\\n\\" c"}', b" [ 1 , 2.5 ] "]) is None, "white space around a text is not its own"
    assert plain_texts([b'{"a":"\\n\\" :"}', b"[ 1 , 2.5 ]"]) == (b'[{"a":"\\n\\" :"},[1,2.5]]', [{"a": '\n" :'}, [1, 2.5]])
