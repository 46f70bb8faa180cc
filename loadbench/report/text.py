"""The report for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.core.text import printable
from loadbench.report import table

if TYPE_CHECKING:
    from loadbench.results.run import Run


def text(run: Run) -> str:
    """Title, a table per model, notes."""
    parts = [printable(table.title(run))]
    if run.question:
        parts.append(printable(run.question))
    for model, levels in table.by_model(run).items():
        cells = table.rows(levels)
        body = tabulate(
            cells, headers=table.headers(levels), tablefmt="simple", stralign="right", disable_numparse=True
        )
        parts.append(f"model {printable(model)}\n\n{body}")
    notes = [printable(note) for note in table.notes(run)]
    if notes:
        parts.append("\n".join(notes))
    parts.append(printable(table.environment_line(run)))
    return "\n\n".join(parts) + "\n"
