"""The report for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.core.text import printable
from loadbench.report import machine, table
from loadbench.report.quality import quality_text

if TYPE_CHECKING:
    from loadbench.results.quality import Quality
    from loadbench.results.run import Run


def text(run: Run, *, quality: Quality | None = None) -> str:
    """Title, a table per model, notes, and the quality of the answers where it is known."""
    parts = [printable(table.title(run))]
    if run.question:
        parts.append(printable(run.question))
    for model, levels in table.by_model(run).items():
        cells = table.rows(levels)
        body = tabulate(
            cells, headers=table.headers(levels), tablefmt="simple", stralign="right", disable_numparse=True
        )
        parts.append(f"model {printable(model)}\n\n{body}")
        for names, beside in machine.tables(levels):
            parts.append(tabulate(beside, headers=names, tablefmt="simple", stralign="right", disable_numparse=True))
    notes = [printable(note) for note in [*table.notes(run), *machine.notes(run)]]
    if notes:
        parts.append("\n".join(notes))
    if quality is not None and (shown := quality_text(quality)):
        parts.append(shown.rstrip())
    parts.append(printable(table.environment_line(run)))
    return "\n\n".join(parts) + "\n"
