"""The report as Markdown, fit for a file, a pull request or a chat."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.report import machine, table
from loadbench.report.quality import quality_markdown

if TYPE_CHECKING:
    from loadbench.results.quality import Quality
    from loadbench.results.run import Run


def markdown(run: Run, *, quality: Quality | None = None) -> str:
    """Title, a table per model, notes, and the quality of the answers where it is known."""
    parts = [f"# {escaped(table.title(run))}"]
    if run.question:
        parts.append(escaped(run.question))
    for model, levels in table.by_model(run).items():
        cells = [[escaped(cell) for cell in row] for row in table.rows(levels)]
        names = table.headers(levels)
        align = ("right",) * (len(names) - 1) + ("left",)
        body = tabulate(cells, headers=names, tablefmt="pipe", colalign=align, disable_numparse=True)
        parts.append(f"## {escaped(model)}\n\n{body}")
        for names, beside in machine.tables(levels):
            cells = [[escaped(cell) for cell in row] for row in beside]
            align = ("right",) * len(names)
            parts.append(tabulate(cells, headers=names, tablefmt="pipe", colalign=align, disable_numparse=True))
    notes = [f"- {escaped(note)}" for note in [*table.notes(run), *machine.notes(run)]]
    if notes:
        parts.append("\n".join(notes))
    if quality is not None and (shown := quality_markdown(quality, escaped)):
        parts.append(shown.rstrip())
    parts.append(escaped(table.environment_line(run)))
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Foreign text as text: nothing in it may become a table, a link, code, a tag or a heading."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", plain)
