"""The report as Markdown, fit for a file, a pull request or a chat."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.report import table

if TYPE_CHECKING:
    from loadbench.results.run import Run


def markdown(run: Run) -> str:
    """Title, a table per model, notes."""
    parts = [f"# {_escaped(table.title(run))}"]
    if run.question:
        parts.append(_escaped(run.question))
    for model, levels in table.by_model(run).items():
        cells = [[_escaped(cell) for cell in row] for row in table.rows(levels)]
        names = table.headers(levels)
        align = ("right",) * (len(names) - 1) + ("left",)
        body = tabulate(cells, headers=names, tablefmt="pipe", colalign=align, disable_numparse=True)
        parts.append(f"## {_escaped(model)}\n\n{body}")
    notes = [f"- {_escaped(note)}" for note in table.notes(run)]
    if notes:
        parts.append("\n".join(notes))
    parts.append(_escaped(table.environment_line(run)))
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    """Foreign text as text: nothing in it may become a table, a link, code, a tag or a heading."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", plain)
