"""The report that sets another tool's figures beside ours: per level a table, and at its end why they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.core.text import printable
from loadbench.report import table
from loadbench.report.other_tools import NAMES, compared

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadbench.report.tool_figures import ToolFigure
    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import Run

UNKNOWN = "unknown"


def tool_comparison(run: Run, tool: str, requests: Iterable[RequestRecord]) -> str:
    """The levels of a run as `tool` would tell them; `requests` are those of the run."""
    of_level: dict[int, list[RequestRecord]] = {}
    for request in requests:
        of_level.setdefault(request.level, []).append(request)
    parts = [f"{printable(table.title(run))}\n{_population(tool)}"]
    reasons: dict[str, str] = {}
    for number, level in enumerate(run.levels):
        found = compared(tool, level, of_level.get(number, []))
        reasons.update(found.reasons)
        rows = [_row(figure) for figure in found.figures]
        body = tabulate(rows, headers=("figure", tool, "here"), tablefmt="simple", disable_numparse=True)
        parts.append(f"model {printable(level.model)}, {table.load_text(level)}\n\n{body}")
    names: dict[str, list[str]] = {}
    for name, why in reasons.items():
        names.setdefault(why, []).append(name)
    parts.append("\n".join(f"{', '.join(same)}: {why}" for why, same in names.items()))
    return "\n\n".join(part for part in parts if part) + "\n"


def _population(tool: str) -> str:
    return f"as {NAMES[tool]} would tell it, had the measured requests that ended ok been its whole benchmark"


def _row(figure: ToolFigure) -> list[str]:
    name = f"{figure.name} {figure.point}".strip()
    return [name, _shown(figure.theirs, figure.unit), _shown(figure.ours, figure.unit)]


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return UNKNOWN
    return table.duration(value) if unit == "s" else table.significant(value) + unit
