"""Another tool's figures alongside ours: a table for each level, and why the two differ."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.report.document import Block, Document, Heading, Notes, Table, Text
from loadbench.report.other_tools import NAMES, TOOLS
from loadbench.report.run import title
from loadbench.report.tool_figures import RequestColumns
from loadbench.report.values import duration, significant

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import Run


def tool_comparison_document(run: Run, tool: str, requests: Iterable[RequestRecord]) -> Document:
    """The levels of a run as `tool` would report them; `requests` are those of the run."""
    of_level: dict[int, RequestColumns] = {}
    for request in requests:
        of_level.setdefault(request.level, RequestColumns()).add(request)
    blocks: list[Block] = [
        Text([f"as {NAMES[tool]} would report it if the measured requests that ended ok were its whole benchmark"])
    ]
    reasons: dict[str, str] = {}
    for index, level in enumerate(run.levels):
        comparison = TOOLS[tool](level, of_level.get(index, RequestColumns()))
        reasons.update(comparison.reasons)
        rows = []
        for figure in comparison.figures:
            cells = [f"{figure.name} {figure.point}".strip()]
            for value in (figure.theirs, figure.ours):
                text = "unknown" if value is None else "infinite" if math.isinf(value) else duration(value)
                cells.append(text if value is None or figure.unit == "s" else significant(value) + figure.unit)
            rows.append(cells)
        blocks += [Heading(f"model {level.model}, {level.load.label}"), Table(("figure", tool, "here"), rows, "lrr")]
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    notes = Notes([f"{', '.join(same)}: {reason}" for reason, same in names.items()])
    return Document(title(run), [*blocks, notes])
