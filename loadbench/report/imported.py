"""What an imported run's figures mean: as the other tool wrote them, with its definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.report.document import Heading, Notes, Table
from loadbench.report.values import significant

if TYPE_CHECKING:
    from loadbench.report.document import Block
    from loadbench.results.imported import Imported
    from loadbench.results.run import Run

_POINTS = ("value", "mean", "median", "p50", "p90", "p95", "p99")


def imported_blocks(run: Run, imported: Imported) -> list[Block]:
    """The figures of each level in the tool's words, and what each name means there."""
    tool = f"{imported.tool} {imported.version}".strip()
    points = [point for point in _POINTS if any(point in one.points for one in imported.figures)]
    rows = [
        [
            run.levels[one.level].load.label if one.level < len(run.levels) else str(one.level),
            one.name,
            one.unit,
            *(significant(one.points[point]) if point in one.points else "-" for point in points),
            one.metric or "-",
        ]
        for one in imported.figures
    ]
    meanings = {one.name: one.meaning for one in imported.figures}
    lines = [
        f"measured by {tool} and not by loadbench: no level is VALID, since nothing is known of the client",
        *(f"{name} of {imported.tool}: {meaning}" for name, meaning in meanings.items()),
        *(f"not in the file: {text}" for text in imported.missing),
    ]
    table = Table(["load", "figure", "unit", *points, "in run.json"], rows, "lll" + "r" * len(points) + "l")
    heading = f"as {tool} wrote it" if rows else f"measured by {tool}"
    return [Heading(heading), *([table] if rows else []), Notes(lines)]
