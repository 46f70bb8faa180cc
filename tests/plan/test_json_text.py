"""JSON in pieces: every value comes out as it went in, however the text is cut, and errors name their line."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.core.errors import BadInput
from loadbench.plan import json_text
from loadbench.plan.json_text import JsonStream, parse_json

PATH = Path("p.json")
ROWS = st.lists(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-9, 9) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ).filter(lambda value: not isinstance(value, (int, float, type(None)))),
    max_size=5,
)  # fmt: skip


def stream(content: bytes, head: int = 0, line: int = 1) -> JsonStream:
    """Of a file whose first bytes were read already."""
    file = io.BytesIO(content)
    return JsonStream(file, file.read(head), PATH, line)


@given(
    rows=ROWS,
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    piece=st.integers(1, 40),
    head=st.integers(0, 9),
)
def test_values_come_out_as_they_went_in(rows, indent, ascii_only, piece, head):
    """As items of an array, and one after another, with the line of each."""
    with mock.patch.object(json_text, "_PIECE_BYTES", piece):
        text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
        array = stream(text.encode(), head)
        assert array.next_character() == "["
        assert list(array.items()) == rows
        parts = [json.dumps(row, indent=indent, ensure_ascii=ascii_only) for row in rows]
        expected = [(1 + sum(part.count("\n") + 1 for part in parts[:at]), row) for at, row in enumerate(rows)]
        assert list(stream("\n".join(parts).encode(), head).values()) == expected


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('["a",\n"b"\n"c"]', "line 3: this is not JSON: a comma"),
        ('["a",\n"b",\n]', "line 3: this is not JSON"),
        ('["a",\n{"b": 1,}]', "line 2: this is not JSON"),
        ('["a",\n// none\n"b"]', "line 2: this is not JSON"),
        ('["a"]\n["b"]', "line 2: this is not JSON: there is more after the end of the array"),
        ('["a",\n"b', "line 2: this is not JSON: Unterminated string"),
        ('["a",\n{"b": [1', "line 2: this is not JSON"),
        ('["a"', "line 1: this is not JSON"),
        ('["a\nb"]', "line 1: this is not JSON: Invalid control"),
        (b'["a",\n"\xff"]', "line 2: this is not UTF-8"),
        (b'["a",\n"\xe6\x97', "line 2: this is not UTF-8"),
        ("[" * 100_000, "line 1: this is not JSON"),
    ],
)
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_an_error_names_its_line(content, says, piece):
    """However little of the text was known when it was met."""
    data = content.encode() if isinstance(content, str) else content
    if len(data) > 10_000 and piece == 1:
        piece = 1000
    with mock.patch.object(json_text, "_PIECE_BYTES", piece), pytest.raises(BadInput, match=says) as caught:
        list(stream(data).items())
    assert caught.value.hint


def test_one_error_at_the_beginning_does_not_read_the_whole_file():
    """A value that is wrong stays wrong with more text."""
    file = io.BytesIO(b'["a", {"b": oops}, ' + b'"c", ' * 1_000_000)
    with pytest.raises(BadInput, match="Expecting value"):
        list(JsonStream(file, b"", PATH, 1).items())
    assert file.tell() <= 1 << 20


def test_a_value_that_is_too_long_says_how_rows_are_read():
    """One object around all rows cannot be read row by row."""
    with mock.patch.multiple(json_text, _LONGEST_VALUE=100, _PIECE_BYTES=10):
        assert len(stream(json.dumps(["x" * 50] * 100).encode()).next_character()) == 1
        assert len(list(stream(json.dumps(["x" * 50] * 100).encode()).items())) == 100
        with pytest.raises(BadInput, match="line 1: this value is longer") as caught:
            stream(json.dumps({"rows": ["x" * 50] * 100}).encode()).value()
    assert "a row in each line" in caught.value.hint


@pytest.mark.parametrize("read", [lambda text: parse_json(text, PATH), lambda text: stream(text.encode()).value()])
def test_what_python_writes_is_read(read: Any):
    """`NaN`, halves of surrogate pairs, numbers beyond 64 bits; whole pairs stay."""
    assert read('{"a": NaN, "b": [Infinity, -Infinity, 1]}') == {"a": None, "b": [None, None, 1]}
    assert read('{"\\ud83d": ["a\\ud83d", "\\uD83D\\uDE00", 5]}') == {"\ufffd": ["a\ufffd", "😀", 5]}
    large = read('{"a": 123456789012345678901234567890, "b": NaN, "c": 12345678901234567}')
    assert math.isclose(large["a"], 1.2345678901234568e29)
    assert (large["b"], large["c"]) == (None, 12345678901234567)


@pytest.mark.parametrize("read", [lambda text: parse_json(text, PATH), lambda text: stream(text.encode()).value()])
@pytest.mark.parametrize("number", ["1e309", "-2.5e400", "7" * 310])
def test_a_number_that_no_float_can_hold_is_refused(read: Any, number: str):
    """It would be sent as null."""
    with pytest.raises(BadInput, match=r"p\.json, line 1: this is not JSON: the number -?[0-9.e…]+ is too large"):
        read(f'{{"a": [1e308, {number}]}}')


def test_a_value_that_is_no_json_names_its_line():
    """In a text of several lines, and bytes that are no text."""
    with pytest.raises(BadInput, match="line 8: this is not JSON"):
        parse_json('{"a": 1,\n"b": }', PATH, 7)
    with pytest.raises(BadInput, match="line 7: this is not UTF-8"):
        parse_json(b'"\xff"', PATH, 7)
    with pytest.raises(BadInput, match="line 1: this is not JSON"):
        parse_json("[" * 100_000, PATH)
