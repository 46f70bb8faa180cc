"""A comparison as Markdown, fit for a pull request or the summary page of a build: the conclusion before the tables.

The tables fold: a reader of many checks sees first what came of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.report import compare_table as table
from loadbench.report.render_markdown import escaped

if TYPE_CHECKING:
    from loadbench.results.compare import Comparison, GateCheck

_WORDS = {True: "passed", False: "failed", None: "undecided"}


def compare_markdown(comparison: Comparison) -> str:
    """A heading that says how it went, the conclusion, gates, tables, notes."""
    parts = [f"### {_heading(comparison)}", escaped(comparison.conclusion)]
    if comparison.gates:
        parts.append(_gates(comparison))
    sides = [table.side_line("A", comparison.a), table.side_line("B", comparison.b)]
    parts.append("\n".join(f"- {escaped(line)}" for line in sides))
    for block in table.blocks(comparison):
        cells = [[escaped(cell) for cell in row] for row in block.rows]
        align = ("right", "left", "right", "right", "right", "left", "left")
        body = tabulate(cells, headers=table.HEADERS, tablefmt="pipe", colalign=align, disable_numparse=True)
        parts.append(f"<details><summary>{block.title}</summary>\n\n{body}\n\n</details>")
    parts.append("\n".join(f"- {escaped(note)}" for note in table.notes(comparison)))
    return "\n\n".join(parts) + "\n"


def _heading(comparison: Comparison) -> str:
    if not comparison.gates:
        return "loadbench compare"
    passed = {gate.passed for gate in comparison.gates}
    return f"loadbench compare: {_WORDS[False if False in passed else None if None in passed else True]}"


def _gates(comparison: Comparison) -> str:
    cells = [
        [escaped(cell) for cell in _gate_row(gate.rule, check)] for gate in comparison.gates for check in gate.checks
    ]
    names = ("gate", "load", "change", "decision", "")
    body: str = tabulate(cells, headers=names, tablefmt="pipe", disable_numparse=True)
    return body


def _gate_row(rule: str, check: GateCheck) -> list[str]:
    level = table.level_text(check.level) if check.level else ""
    return [rule, level, table.seen_text(check), check.decision, check.note]
