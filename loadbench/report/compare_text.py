"""A comparison for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.core.text import printable
from loadbench.report import compare_table as table

if TYPE_CHECKING:
    from loadbench.results.compare import Comparison


def compare_text(comparison: Comparison) -> str:
    """The sides, the conclusion, a table a kind of figure, gates, notes."""
    parts = [f"{table.side_line('A', comparison.a)}\n{table.side_line('B', comparison.b)}", comparison.conclusion]
    for block in table.blocks(comparison):
        align = ("right", "left", "right", "right", "right", "left", "left")
        body = tabulate(block.rows, headers=table.HEADERS, tablefmt="simple", colalign=align, disable_numparse=True)
        parts.append(f"{block.title}\n\n{body}")
    gates = [line for gate in comparison.gates for line in table.gate_lines(gate)]
    if gates:
        parts.append("Gates\n\n" + "\n".join(gates))
    parts.append("\n".join(table.notes(comparison)))
    return "\n\n".join("\n".join(map(printable, part.split("\n"))) for part in parts) + "\n"
