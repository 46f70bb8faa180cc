"""JSON that users write or download: one value, or the values of a long text one after another.

`NaN` and `Infinity`, which Python writes, are read as `null`; a number that no float can hold is refused. Half of a
surrogate pair, which cannot be sent, becomes U+FFFD.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from loadbench.core import bounded
from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PIECE_BYTES = 1 << 20
# One value, such as a row with a video in it, or a document that is no array of rows. An object takes a few times that.
_LONGEST_VALUE = 256 << 20
_SOLID = re.compile(r"[^ \t\n\r]")
# A word that the text's end cuts off is not known as a word: `fals`, `-Infinit`, `\uD83`.
_LONGEST_WORD = 9
_MOST_DIGITS = 18  # beyond, a number may not fit into 64 bits, and orjson has a float


def _float(digits: str) -> float:
    """A number; one that no float can hold would be sent as null."""
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {digits[:20]}{'…' * (len(digits) > 20)} is too large")
    return value


_DECODER = json.JSONDecoder(
    parse_constant=lambda _: None,
    parse_float=_float,
    parse_int=lambda digits: int(digits) if len(digits) <= _MOST_DIGITS else _float(digits),
)


def parse_json(text: str | bytes, path: Path, first_line: int = 1) -> Any:
    """The value of a JSON text that begins at a line of the file; raises `BadInput` with the line of the error."""
    try:
        return bounded.parse_json(text, sys.maxsize)  # the user's own file, which has a bound of its own
    except orjson.JSONDecodeError as error:
        try:
            written = text if isinstance(text, str) else text.decode()
            return _paired(_shallow(_DECODER.decode(written), written), written)
        except UnicodeDecodeError:
            raise BadInput(f"{path}, line {first_line}: this is not UTF-8", hint="save the file as UTF-8") from None
        except (ValueError, RecursionError) as again:
            line = first_line + written.count("\n", 0, error.pos)
            own = type(again) is ValueError
            raise _not_json(path, line, str(again) if own else error.msg) from None


def _not_json(path: Path, line: int, problem: str) -> BadInput:
    return BadInput(f"{path}, line {line}: this is not JSON: {problem}", hint="fix the file at this line")


def _shallow(value: Any, written: str) -> Any:
    """The value; raises `RecursionError` for one that is nested too deeply."""
    if bounded.is_deep(written, value):
        raise RecursionError
    return value


def _paired(value: Any, written: str) -> Any:
    """The value without halves of surrogate pairs, which only escapes can have put into it."""
    if "\\u" not in written or ("\\ud" not in written and "\\uD" not in written):
        return value
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {_paired(name, written): _paired(part, written) for name, part in value.items()}
        case list():
            return [_paired(part, written) for part in value]
        case _:
            return value


class JsonStream:
    """The values of a text, one after another. Memory holds one of them and a piece of the text.

    `head` was read from the file already; it begins in this `line`.
    """

    def __init__(self, file: BinaryIO, head: bytes, path: Path, line: int) -> None:
        self._file = file
        self._path = path
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text = ""
        self._at = self._counted = 0
        self._line = line
        self._add(head)

    @property
    def line(self) -> int:
        """The line of what is next."""
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def next_character(self) -> str:
        """The next character that is no space, which stays the next; empty at the end."""
        while True:
            solid = _SOLID.search(self._text, self._at)
            self._at = len(self._text) if solid is None else solid.start()
            if solid is not None or not self._more():
                return self._text[self._at : self._at + 1]

    def value(self) -> Any:
        """The next value; raises `BadInput` with the line where there is none."""
        self.next_character()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                _shallow(value, self._text[self._at : end])
            except (ValueError, RecursionError) as error:
                problem = (
                    "it is nested too deeply"
                    if isinstance(error, RecursionError)
                    else getattr(error, "msg", str(error))
                )
                distance = getattr(error, "pos", self._at) - self._at
                is_cut = problem.startswith("Unterminated") or distance + self._at > len(self._text) - _LONGEST_WORD
                if is_cut and self._more():
                    continue
                line = self.line + self._text.count("\n", self._at, self._at + distance)
                raise _not_json(self._path, line, problem) from None
            value = _paired(value, self._text[self._at : end])
            self._at = end
            return value

    def values(self) -> Iterator[tuple[int, Any]]:
        """All that follow, with their lines."""
        while character := self.next_character():
            if character == ",":
                raise _not_json(self._path, self.line, "a comma follows a row, as it does only in an array")
            yield self.line, self.value()

    def items(self) -> Iterator[Any]:
        """The items of the array that is next, after which nothing may follow."""
        self.next_character()
        self._at += 1
        more = self.next_character() != "]"
        self._at += not more
        while more:
            yield self.value()
            mark = self.next_character()
            if mark not in (",", "]"):
                raise _not_json(self._path, self.line, "a comma or the end of the array is missing")
            self._at += 1
            more = mark == ","
        if self.next_character():
            raise _not_json(self._path, self.line, "there is more after the end of the array")

    def _more(self) -> bool:
        """Read on, as much as there is of the value at least, so that a long one is not parsed again and again."""
        left = len(self._text) - self._at
        if left > _LONGEST_VALUE:
            raise BadInput(
                f"{self._path}, line {self.line}: this value is longer than {_LONGEST_VALUE >> 20} MiB",
                hint="write an array of rows, or a row in each line: these are read one by one",
            )
        return self._add(self._file.read(max(_PIECE_BYTES, left)))

    def _add(self, data: bytes) -> bool:
        line, self._text = self.line, self._text[self._at :]
        self._at = self._counted = 0
        try:
            self._text += self._decode(data, not data)
        except UnicodeDecodeError as error:
            line += self._text.count("\n") + error.object[: error.start].count(b"\n")
            raise BadInput(f"{self._path}, line {line}: this is not UTF-8", hint="save the file as UTF-8") from None
        return bool(data)
