"""A report as data: a title and blocks. Each report makes one `Document`; a renderer for each medium shows it.

Texts and cells are plain and may hold anything that a server or a file said: the renderers escape them. Numbers are
formatted already (`loadbench.report.values`). A table says how its columns are aligned and which of them matter most,
not how wide they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from loadbench.core.text import display_width

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Heading:
    """The title of the blocks that follow."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """Sentences for the reader, each a line or a paragraph."""

    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Notes:
    """A list of remarks, each an entry. Several of them follow each other by what matters most to the reader."""

    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells. `align` has a letter for each column, `l` or `r`; without headers the columns have no names.

    A table with a summary may be folded, so that only the summary shows at first. `rank` has a digit for each column,
    for media that are too narrow for all: 0 stays, and of the others those with the highest digit are left out first;
    `DETAIL` marks what a terminal shows only with --wide. Without ranks no column is left out.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str
    summary: str = ""
    rank: str = ""


Block: TypeAlias = Heading | Text | Notes | Table


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report. Blocks without content are allowed, and are not shown."""

    title: str
    blocks: Sequence[Block]


DETAIL: Final = "9"
Tone: TypeAlias = Literal["good", "doubtful", "bad", ""]
# Columns whose cells are a state, and the states that a reader should see at once.
_STATES: Final = {"verdict", "decision", "status", "B is", "answer"}
_TONES: Final[dict[str, Tone]] = {
    **dict.fromkeys(("VALID", "PASS", "ok", "faster", "better", "proven"), "good"),
    **dict.fromkeys(("INCONCLUSIVE", "OVERLOADED", "UNDECIDED", "undecided", "warn", "inconclusive"), "doubtful"),
    **dict.fromkeys(("INVALID", "FAIL", "fail", "failed", "slower", "worse"), "bad"),
}


def tone(header: str, cell: str) -> Tone:
    """What the cell of a column means for the reader: a verdict, the state of a check, or a number of failures."""
    if header == "failed":
        return "bad" if cell.strip("-0") else ""
    words = cell.rstrip("*").split(maxsplit=1)
    return _TONES.get(words[0], "") if header in _STATES and words else ""


def padded(rows: Sequence[Sequence[str]], align: str) -> list[list[str]]:
    """The cells of each column made equally wide, for renderers of plain text."""
    widths = [max(map(display_width, column)) for column in zip(*rows, strict=True)]
    padding = [[" " * (width - display_width(cell)) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return [
        [
            space + cell if letter == "r" else cell + space
            for cell, space, letter in zip(row, spaces, align, strict=True)
        ]
        for row, spaces in zip(rows, padding, strict=True)
    ]
