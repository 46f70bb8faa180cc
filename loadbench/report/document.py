"""A report as data: a title and blocks. Each report makes one `Document`; a renderer for each medium shows it.

Texts and cells are plain and may hold anything that a server or a file said: the renderers escape them. Numbers are
formatted already (`loadbench.report.values`). A table says how its columns are aligned and which of them matter most,
not how wide they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from loadbench.core.text import display_width

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Heading:
    """The title of the blocks that follow. With a level of 3 it is the title of a part of a section."""

    text: str
    level: int = 2


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


@dataclass(frozen=True, slots=True)
class Tiles:
    """The few figures that matter most, for a page: (name, value, what it is of). Other media have them in tables."""

    items: Sequence[tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: (x, y) points in the order in which they are joined, `None` where there is no y.

    `band` has (x, low, high) where the interval is known; an end that is infinite is open. `labels` are written at the
    points. `shade` is the place, from 0 to 1, of a series among similar ones that have an order. A series that is
    `hidden` is shown only when the reader asks for it. The markers of points that are in `hollow` are not filled: they
    are INVALID levels. Those in `dotted` have a dot inside: INCONCLUSIVE levels. The whole of either is a line that is
    `faint`. Without `arrows`, an interval that nothing bounds from above is in the figures only.

    What is `drawn`: points that a line joins, points alone, each with its own interval (filled, or `rings`), or a
    curve without points. `look` is the place of the colour and the marker, where they mean something; else a series
    has those of its own place.
    """

    name: str
    points: Sequence[tuple[float, float | None]]
    band: Sequence[tuple[float, float, float]] = ()
    labels: Sequence[str] = ()
    shade: float | None = None
    hidden: bool = False
    hollow: Sequence[tuple[float, float | None]] = ()
    dotted: Sequence[tuple[float, float | None]] = ()
    faint: bool = False
    arrows: bool = True
    drawn: Literal["line", "points", "rings", "curve"] = "line"
    look: int | None = None

    @property
    def joined(self) -> bool:
        """Whether a line joins its points."""
        return self.drawn in {"line", "curve"}


@dataclass(frozen=True, slots=True)
class Mark:
    """A straight line across the chart at this value, and its caption."""

    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Figures as lines. `x` and `y` name the axes with their units; `across` and `down` mark values of y and x.

    `name` is what `loadbench plot` calls it. The axis of x is in powers of two, as levels of users are, unless `log_x`
    is false. With `seconds` the values of y are durations. `dense` leaves out the markers of points; `scatter` says
    that x is a figure too, so that points are read one by one. `x_ticks` names places on the axis of x. `switches` are
    the axes, `x` and `y`, that a reader may switch between linear and logarithmic. The axis of x has at least this
    `span`. A logarithmic axis of y begins at `floor`; what is lower lies on its edge. `label_unit` is what the labels
    of points count. A single series is in no legend, unless there is always a `legend`, which calls points that are not
    filled by the word `hollow`. `table` has the figures where
    the series alone would make too long a table.
    """

    name: str
    title: str
    series: Sequence[Series]
    x: str = "users"
    y: str
    log_x: bool = True
    log_y: bool = False
    across: Sequence[Mark] = ()
    down: Sequence[Mark] = ()
    seconds: bool = False
    dense: bool = False
    scatter: bool = False
    x_ticks: Sequence[tuple[float, str]] = ()
    switches: str = ""
    span: tuple[float, float] | None = None
    floor: float | None = None
    label_unit: str = ""
    legend: bool = False
    hollow: str = "INVALID level"
    note: str = ""
    table: Table | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """How many values lie in each cell: `counts` has a row for each span between `y_edges` (durations in seconds, on a
    logarithmic axis), and in it a count for each span between `x_edges`."""

    name: str
    title: str
    x: str
    y: str
    x_edges: Sequence[float]
    y_edges: Sequence[float]
    counts: Sequence[Sequence[int]]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """Alternatives, such as the levels of a run, of which a page shows one at a time: (name, blocks) each."""

    label: str
    options: Sequence[tuple[str, Sequence[Block]]]


Block: TypeAlias = Heading | Text | Notes | Table | Tiles | Chart | HeatMap | Choice
# What only a page shows. Other media have its figures in their tables.
PICTURES = (Tiles, Chart, HeatMap, Choice)


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report. Blocks without content are allowed, and are not shown."""

    title: str
    blocks: Sequence[Block]


DETAIL: Final = "9"
Tone: TypeAlias = Literal["good", "doubtful", "bad", ""]
# A command of ours in a text, which a page and Markdown show as code. Nothing in it has a meaning in either.
COMMAND: Final = re.compile(r"`(loadbench(?: (?:[\w./~-]+|…|'…'))+)`", re.ASCII)
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
