"""What a grid would do, before it starts: its cells in their order, with their levels and times."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.cells import shown_value
from loadbench.plan.grid import START_NS, starts_of, within
from loadbench.report.cluster_plan import cluster_facts, cluster_warnings, hardest
from loadbench.report.data_set import data_set_lines
from loadbench.report.document import Document, Table, Text
from loadbench.report.plan import closing_blocks, length_text, resume_facts, target_text, work_text
from loadbench.report.values import counted
from loadbench.results.folder import RESULTS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from loadbench.plan.grid import PlannedCell
    from loadbench.plan.scenario import Scenario


def grid_plan_document(
    base: Scenario,
    cells: Sequence[PlannedCell],
    request: Sequence[str] = (),
    *,
    verbose: bool = False,
    resume: Path | None = None,
    complete: Collection[int] = (),
) -> Document:
    """The plan of `--dry-run`; when verbose with every setting of the first cell, and its first request. Of a grid that
    goes on in the folder `resume`, these cells, by their places, are `complete`."""
    names = list(cells[0].values)
    budget, rows, whole_ns = base.grid.budget, [], 0
    to_measure = [(number, cell) for number, cell in enumerate(cells, 1) if number - 1 not in complete]
    starts = starts_of([cell for _, cell in to_measure])
    left_ns = (budget or 0) - starts * START_NS
    is_exact = True
    for place, (number, cell) in enumerate(to_measure, 1):
        later = [one for _, one in to_measure[place:]]
        scenario = cell.scenario if budget is None else within(cell, left_ns, later)
        extent = scenario.extent
        each_ns = extent.warm_up_ns + (extent.duration_ns or 0) + extent.cool_down_ns
        is_exact = is_exact and extent.duration_ns is not None and not scenario.waits_for_answers
        most_ns = max(cell.levels * each_ns, scenario.load.max_total if scenario.waits_for_answers else 0)
        left_ns -= most_ns
        whole_ns += cell.levels * each_ns
        loads = [load.label for load in scenario.loads]
        kind = loads[0].partition("=")[0]
        shown = f"{kind}={','.join(load.partition('=')[2] for load in loads)}"
        time = "as long as they take" if extent.duration_ns is None else f"{format_duration(cell.levels * each_ns)}"
        if scenario.waits_for_answers:
            time += f" to {format_duration(most_ns // NS_PER_S * NS_PER_S)}"
        rows.append([str(number), *(shown_value(cell.values[name]) for name in names), shown, time])
    levels = sum(cell.levels for _, cell in to_measure)
    total = counted(len(rows), "cell") + " left" * (resume is not None)
    total += f", {counted(levels, 'level')}, {format_duration(whole_ns)} of load"
    total += "" if is_exact else " or more"
    total += f", {counted(starts, 'start')} of the server" if starts else ""
    if budget is not None:
        total += f", within {format_duration(budget)} (--budget)"
    folder = (base.report.out or RESULTS) / f"<time>-{base.report.name}"
    facts = [
        ("target", target_text(base)),
        ("saved in", f"{folder}: grid.json, grid.md, and a run folder for each cell"),
    ]
    if resume is not None:
        there = f"{len(complete)} of {counted(len(cells), 'cell')}"
        facts[-1:] = resume_facts(resume, there if complete else "", counted(len(rows), "cell") if rows else "")
    facts.insert(1, ("work", f"{work_text(cells[0].scenario)} (cell 1)"))
    # Of all cells, what the one needs that needs the most.
    clustered = hardest([cell.scenario for _, cell in to_measure])
    if clustered is not None:
        facts[2:2] = cluster_facts(clustered)
    return Document(
        f"{base.report.name}, planned: nothing was sent",
        [
            Text([base.question] if base.question else []),
            Table((), facts, "ll"),
            Table(("cell", *names, "loads", "time"), rows, "r" + "l" * len(names) + "ll"),
            Text(
                [
                    *([f"{total}; cells are measured in this order"] if rows else []),
                    *(length_text(cells[0].scenario) if budget is None else []),
                ]
            ),
            Text(data_set_lines(base)),
            *closing_blocks(
                base, request, verbose=verbose, warnings=[] if clustered is None else cluster_warnings(clustered)
            ),
        ],
    )
