"""A document for a terminal, a pipe or a log of a build: plain lines that fit the width.

One renderer makes them all, so that a pipe gets what a screen shows. It is our own and not rich's: a cell with a number
is never broken, so that where a table is too wide, whole columns are left out and named; and it adds nothing to the
time in which a command starts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypedDict

from loadbench.core.text import display_width, printable
from loadbench.report.document import DETAIL, PICTURES, Heading, Notes, Table, padded, tone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.report.document import Document, Tone

# The width of lines for a pipe or a file: what a page shows of a block of code, and a log of a build of a line.
PLAIN_WIDTH: Final = 100
# A narrower terminal breaks lines as it likes.
_NARROWEST = 40
# A column of words may be made as narrow as its longest word, if that is not longer than this: a path, a URL.
_LONGEST_WORD = 24
# Before a column of sentences becomes narrower than this, the columns that matter less are left out.
_READABLE = 30
# A column of names is wrapped only where nothing else helps; no column becomes narrower than this.
_LEAST = 10
# With fewer columns of figures a table is wide because of its texts, and parts of it would be no narrower.
_FEWEST_FIGURES = 4
# A percentile stays in the part of a table in which its metric begins.
_CONTINUES = re.compile(r"\S+ (?:p[59]\S*|±|min|max)( ±)?")
# Spaces where no line is broken: between a number and its unit or what it counts, before a mark of it, between a
# metric and its percentile, before the second end of a range, and after the word that a command begins with.
GLUED = re.compile(
    r"(?<=\d) (?=[%×÷/]|[^\W\d_])|(?<=\d [÷/]) |(?<=[±~≥×]) (?=\d)| (?=[±◄]|p\d|\(\d[\d.]*–|\(≥\d)|(?<= to) (?=\d)"
    r"|(?<=`loadbench) |(?<=leans) (?=to (?:PASS|FAIL))|(?<=leans to) (?=PASS|FAIL)"
)
# An option, which stays whole, and with its value.
OPTION = re.compile(r"(?<!\S)([`'\"(]?--[a-z][\w-]*) (?=[^\s-])")
_IN_OPTION = re.compile(r"--[a-z][\w-]*")
# The letters of a mark that are no sign: `(low–high)`.
_IN_MARK = re.compile(r"[\w().]")
_PART_ENDS = re.compile(r"[/_&?=<>|]|(?<=\w)-|[,;:](?!\d)")
_JOINT = "\n"  # no printable text has one
_COLORS: Final[dict[Tone, str]] = {"good": "32", "doubtful": "33", "bad": "31"}


class Look(TypedDict, total=False):
    """How a document is shown as text: `width` in columns of a terminal, `None` without a limit; `wide` also shows the
    columns that are left to --wide, below each other where they do not fit; `color` marks verdicts and failures."""

    width: int | None
    wide: bool
    color: bool


def render_text(document: Document, *, width: int | None = None, wide: bool = False, color: bool = False) -> str:
    """The document as lines without control characters, its blocks separated by empty lines; see `Look`.

    With a width no line is longer. Sentences are wrapped between words, never between a number and its unit. Of a table
    that is wider, the columns that matter least are left out, and a line says which; a table without such columns has
    its texts wrapped, or is shown row by row.
    """
    width = None if width is None else max(width, _NARROWEST)
    parts = ["\n".join(wrapped(printable(document.title), width))]
    said: set[str] = set()
    present: set[str] = set()  # the cells that are shown, and those that are not
    absent: set[str] = set()
    notes = [text for block in document.blocks if isinstance(block, Notes) for text in block.lines]
    for block in document.blocks:
        if isinstance(block, Heading):
            parts.append("\n".join(wrapped(printable(block.text), width)))
        elif isinstance(block, PICTURES):
            continue
        elif isinstance(block, Table):
            if not block.rows:
                continue
            lines, hidden = _table(block, width, wide=wide, color=color)
            parts += ["\n".join(wrapped(printable(block.summary), width)), "\n".join(lines)]
            for row in block.rows:
                for name, cell in zip(block.headers or [""] * len(row), row, strict=True):
                    (absent if name in hidden else present).add(cell)
            if hidden and not hidden <= said:
                note = f"not shown: {', '.join(name for name in block.headers if name in hidden)} (--wide shows all)"
                parts[-1] += "\n\n" + "\n".join(wrapped(printable(note), width))
                said |= hidden
        else:
            # Of several lines each begins further left than it goes on.
            indent = "  " if isinstance(block, Notes) or len(block.lines) > 1 else ""
            # A remark on a column, as in `phase: …`, goes with it, and so does that on a mark in its cells.
            texts = [
                text
                for text in block.lines
                if not isinstance(block, Notes)
                or (text.partition(": ")[0] not in said and not _is_of_hidden(text, {*present, *notes}, absent))
            ]
            parts.append("\n".join(line for text in texts for line in wrapped(printable(text), width, indent)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _is_of_hidden(text: str, present: set[str], absent: set[str]) -> bool:
    """Whether a note is on a mark, its first word, that only cells have which are not shown: `~ too few requests`, or
    `(low–high) the ends`. Another note may have it too."""
    first = text.partition(" ")[0]
    mark = "" if first[:1].isalnum() else _IN_MARK.sub("", first)
    return bool(mark) and any(mark in one for one in absent) and not any(mark in one for one in present - {text})


def wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    """The text in lines of at most `width`, the further ones behind the indent; an option stays with its value. A word
    that is longer than a line is broken."""
    if width is None or display_width(text) <= width:
        return [text]
    margin = text[: len(text) - len(text.lstrip())][: width // 2]
    lines: list[str] = []
    line, used = margin, len(margin)
    for number, word in enumerate(_glued(text.strip()).split(" ")):
        rest, size = word, display_width(word)
        if number and used + 1 + size <= width:
            line, used = f"{line} {word}", used + 1 + size
            continue
        if number:
            lines.append(line)
            line, used = margin + indent, len(margin + indent)
        while used + size > width:
            cut, room = 0, width - used
            while cut < len(rest) and (letter := display_width(rest[cut])) <= room:
                cut, room = cut + 1, room - letter
            # What is kept together is broken between its words first, then where a path or a rule has its parts.
            joint = rest.rfind(_JOINT, 1, cut + 1)
            options = [option.span() for option in _IN_OPTION.finditer(rest)]
            parts = [part.end() for part in _PART_ENDS.finditer(rest, 0, cut)]
            parts = [end for end in parts if not any(first < end < last for first, last in options)]
            cut = joint if joint > 0 else parts[-1] if parts and parts[-1] > cut // 2 else max(cut, 1)
            lines.append(line + rest[:cut])
            line, used = margin + indent, len(margin + indent)
            size -= display_width(rest[:cut]) + (rest[cut : cut + 1] == _JOINT)
            rest = rest[cut:].removeprefix(_JOINT)
        line, used = line + rest, used + size
    return [line.replace(_JOINT, " ").rstrip() for line in [*lines, line]]


def _glued(text: str) -> str:
    """The text with joints for the spaces where no line is broken."""
    return OPTION.sub(rf"\1{_JOINT}", GLUED.sub(_JOINT, text))


def _table(table: Table, width: int | None, *, wide: bool, color: bool) -> tuple[list[str], set[str]]:
    """(the lines of a table, the names of the columns that it does not show)."""
    rank = table.rank or "0" * len(table.align)
    cells = [[printable(cell) for cell in row] for row in (table.headers, *table.rows) if row]
    natural = [max(map(display_width, column)) for column in zip(*cells, strict=True)]
    least = [
        _least(column, size) if letter == "l" else size
        for column, size, letter in zip(zip(*cells, strict=True), natural, table.align, strict=True)
    ]
    shown = [column for column in range(len(table.align)) if wide or rank[column] != DETAIL]
    if width is not None and not wide:
        wanted = [
            min(size, max(low, _READABLE)) if low < size else size for low, size in zip(least, natural, strict=True)
        ]
        while _total(wanted, shown) > width and (worst := max(rank[column] for column in shown)) > "0":
            shown.remove(max(column for column in shown if rank[column] == worst))
    hidden = {table.headers[column] for column in range(len(table.align)) if column not in shown}
    if width is not None and _total(least, shown) > width:
        parts = _parts(table, natural, shown, width) if table.headers else []
        if parts:
            grids = [_grid(table, cells, part, natural, color=color) for part in parts]
            return [line for number, grid in enumerate(grids) for line in ([""] * (number > 0) + grid)], hidden
        least = [
            _longest_word(column, size) if letter == "l" else size
            for column, size, letter in zip(zip(*cells, strict=True), least, table.align, strict=True)
        ]
        if _total(least, shown) > width:
            return _row_by_row(table, cells, shown, width, color=color), hidden
    # The widest texts are wrapped first, and figures in words last.
    sizes, figures = (
        list(natural),
        [sum(any(map(str.isdigit, cell)) for cell in column) for column in zip(*cells, strict=True)],
    )
    while width is not None and (over := _total(sizes, shown) - width) > 0:
        able = [one for one in shown if sizes[one] > least[one]]
        # Without headers, the first column has the names of the rows.
        able = [one for one in able if (2 * figures[one] < len(cells) if table.headers else one != shown[0])] or able
        column = max(able, key=lambda one: sizes[one])
        others = [sizes[one] for one in able if one != column]
        sizes[column] = max(least[column], min(sizes[column] - 1, max([sizes[column] - over, *others])))
    return _grid(table, cells, shown, sizes, color=color), hidden


def _total(sizes: Sequence[int], columns: Sequence[int]) -> int:
    return sum(sizes[column] + 2 for column in columns) - 2


def _least(cells: Sequence[str], natural: int) -> int:
    """How narrow a column of words may become; one of names, values and the like stays as it is."""
    if sum(len(cell.split()) for cell in cells) < 2 * len(cells) and max(len(cell.split()) for cell in cells) < 4:
        return natural
    return _longest_word(cells, natural)


def _longest_word(cells: Sequence[str], natural: int) -> int:
    words = [word for cell in cells for word in _glued(cell).split(" ")]
    return min(natural, max(_LEAST, min(_LONGEST_WORD, max(map(display_width, words)))))


def _grid(
    table: Table, cells: Sequence[Sequence[str]], columns: Sequence[int], sizes: Sequence[int], *, color: bool
) -> list[str]:
    """These columns side by side, each at most as wide as its size."""
    align = "".join(table.align[column] for column in columns)
    lines: list[list[str]] = []
    tones: list[list[Tone]] = []
    for number, row in enumerate(cells):
        stacks = [wrapped(row[column], sizes[column]) for column in columns]
        meant: list[Tone] = [""] * len(columns)
        if table.headers and number:
            meant = [tone(table.headers[column], row[column]) for column in columns]
        for depth in range(max(map(len, stacks))):
            lines.append([stack[depth] if depth < len(stack) else "" for stack in stacks])
            tones.append(meant)
        if table.headers and not number:
            head = len(lines)
    lines = padded(lines, align)
    if table.headers:
        lines.insert(head, ["-" * display_width(cell) for cell in lines[0]])
        tones.insert(head, [""] * len(columns))
    return [
        "  ".join(_colored(cell, mood) if color else cell for cell, mood in zip(line, moods, strict=True)).rstrip()
        for line, moods in zip(lines, tones, strict=True)
    ]


def _colored(cell: str, mood: Tone) -> str:
    text = cell.strip()
    if not mood or not text:
        return cell
    before, _, after = cell.partition(text)
    return f"{before}\x1b[{_COLORS[mood]}m{text}\x1b[0m{after}"


def _row_by_row(
    table: Table, cells: Sequence[Sequence[str]], columns: Sequence[int], width: int, *, color: bool
) -> list[str]:
    """Each row as a block: what names it, then a line for each of its other cells."""
    names = cells[0] if table.headers else []
    lines: list[str] = []
    first, *others = columns
    widest = min(max((display_width(names[column]) for column in others), default=0) if names else 0, width // 2)
    for row in cells[1:] if table.headers else cells:
        lines += wrapped(f"{names[first]} {row[first]}".strip() if names else row[first], width)
        for column in others:
            if not row[column]:
                continue
            name = wrapped(names[column], widest) if names else [""]
            value = wrapped(row[column], width - widest - 4)
            if color and names and len(value) == 1:
                value = [_colored(value[0], tone(table.headers[column], row[column]))]
            for depth in range(max(len(name), len(value))):
                label = name[depth] if depth < len(name) else ""
                text = value[depth] if depth < len(value) else ""
                lines.append(f"  {label}{' ' * (widest - display_width(label))}  {text}".rstrip())
    return lines


def _parts(table: Table, sizes: Sequence[int], columns: Sequence[int], width: int) -> list[list[int]]:
    """The columns of each part of a table of figures; all parts begin with those that name the row. None where a part
    would not fit."""
    names = [column for column in columns if column < (2 if table.align.startswith("rl") else 1)]
    others = [column for column in columns if column not in names]
    if sum(table.align[column] == "r" for column in others) < _FEWEST_FIGURES:
        return []
    units: list[list[int]] = []
    for column in others:
        metric = table.headers[column].split(" ")[0]
        follows = units and table.headers[units[-1][0]].split(" ")[0] == metric
        if follows and _CONTINUES.fullmatch(table.headers[column]):
            units[-1].append(column)
        else:
            units.append([column])
    chosen: list[list[int]] = []
    for most in range(width, 0, -1):
        parts: list[list[int]] = []
        for unit in units:
            if not parts or _total(sizes, [*parts[-1], *unit]) > most:
                parts.append([*names])
            parts[-1] += unit
        # As few parts as there have to be, and of these the most equal ones.
        if chosen and len(parts) > len(chosen):
            break
        chosen = parts
    return chosen if all(_total(sizes, part) <= width for part in chosen) else []
