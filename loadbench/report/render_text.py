"""A document for a terminal."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

from loadbench.core.text import display_width, printable
from loadbench.report.document import Heading, Table, padded

if TYPE_CHECKING:
    from loadbench.report.document import Document

# A narrower terminal breaks lines as it likes.
_NARROWEST = 40
# With fewer columns of figures a table is wide because of its texts, and parts of it would be no narrower.
_FEWEST_FIGURES = 4
# A percentile whose metric is named in the column before it.
_CONTINUES = re.compile(r"p\d+")


def render_text(document: Document, *, width: int | None = None) -> str:
    """The document as lines without control characters, its blocks separated by empty lines.

    With a width, in columns of a terminal, sentences are wrapped, and a table of figures that is wider is shown in
    parts, one below the other.
    """
    if width is not None and width < _NARROWEST:
        width = None
    parts = [printable(document.title)]
    for block in document.blocks:
        if isinstance(block, Heading):
            parts.append(printable(block.text))
        elif isinstance(block, Table):
            if block.rows:
                parts += [printable(block.summary), _table(block, width)]
        else:
            parts.append("\n".join(_wrapped(printable(line), width) for line in block.lines))
    return "\n\n".join(part for part in parts if part) + "\n"


def _wrapped(line: str, width: int | None) -> str:
    if width is None or len(line) <= width or line[:1].isspace():
        return line
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _table(table: Table, width: int | None) -> str:
    rows = [[printable(cell) for cell in row] for row in (table.headers, *table.rows) if row]
    lines = padded(rows, table.align)
    if table.headers:
        lines.insert(1, ["-" * len(cell) for cell in lines[0]])
    parts = [[*range(len(table.align))]]
    if width is not None and table.headers and table.align.count("r") >= _FEWEST_FIGURES:
        parts = _parts(table, [display_width(cell) + 2 for cell in lines[0]], width + 2)
    return "\n\n".join(
        "\n".join("  ".join(line[column] for column in part).rstrip() for line in lines) for part in parts
    )


def _parts(table: Table, widths: list[int], width: int) -> list[list[int]]:
    """The columns of each part of a table that fits into the width; all parts begin with those that name the row."""
    names = [0, 1] if table.align.startswith("rl") else [0]
    # Percentiles stay with the one that names their metric.
    units: list[list[int]] = []
    for column in range(len(names), len(table.align)):
        if units and _CONTINUES.fullmatch(table.headers[column]):
            units[-1].append(column)
        else:
            units.append([column])
    chosen: list[list[int]] = []
    for most in range(width, 0, -1):
        parts: list[list[int]] = []
        for unit in units:
            if not parts or sum(widths[column] for column in (*parts[-1], *unit)) > most:
                parts.append([*names])
            parts[-1] += unit
        # As few parts as there have to be, and of these the most equal ones.
        if chosen and len(parts) > len(chosen):
            break
        chosen = parts
    return chosen
