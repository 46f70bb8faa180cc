"""A document for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.core.text import printable
from loadbench.report.document import Heading, Table, padded

if TYPE_CHECKING:
    from loadbench.report.document import Document


def render_text(document: Document) -> str:
    """The document as lines without control characters, its blocks separated by empty lines."""
    parts = [printable(document.title)]
    for block in document.blocks:
        if isinstance(block, Heading):
            parts.append(printable(block.text))
        elif isinstance(block, Table):
            if block.rows:
                parts += [printable(block.summary), _table(block)]
        else:
            parts.append("\n".join(map(printable, block.lines)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(table: Table) -> str:
    rows = [[printable(cell) for cell in row] for row in (table.headers, *table.rows) if row]
    lines = padded(rows, table.align)
    if table.headers:
        lines.insert(1, ["-" * len(cell) for cell in lines[0]])
    return "\n".join("  ".join(line).rstrip() for line in lines)
