"""The cells of a grid as they are planned: the scenario of each, what identifies it, and how a budget is shared.

Pure: nothing is measured here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput
from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.cells import cell_text, values_of_cell, with_command_filled
from loadbench.plan.conditions import conditions, content_hash
from loadbench.plan.scenario import with_entries
from loadbench.plan.settings import Entry, Origin, Source, setting_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.scenario import Scenario

# What passes before a cell's first level: its server is asked for its models, and sent its first requests.
_OPENING_NS = 2 * NS_PER_S
# A server that loadbench starts, until a start was seen.
START_NS = 5 * NS_PER_S
# From one level's load to the next one's, with a usual drain.
_BETWEEN_NS = NS_PER_S
# Twenty batches of a shorter window have hardly a response each.
_SHORTEST_NS = 3 * NS_PER_S


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell to be measured: its values by name, its scenario, and the hash of what decides its result."""

    values: dict[str, str]
    scenario: Scenario
    content_hash: str

    @property
    def command(self) -> tuple[object, ...] | None:
        """What starts its server; `None` if nothing does."""
        target = self.scenario.target
        return None if target.server_cmd is None else (target.server_cmd, target.server_env, target.url)

    @property
    def levels(self) -> int:
        """The number of its levels; of one that finds them itself the fewest that show anything."""
        return self.scenario.fewest_levels * len(self.scenario.target.model or "1")

    @property
    def least_ns(self) -> int:
        """What it takes at least."""
        extent = self.scenario.extent
        window_ns = extent.duration_ns or 0
        if self.scenario.waits_for_answers:
            window_ns = _SHORTEST_NS
        return _OPENING_NS + self.levels * (extent.warm_up_ns + window_ns + extent.cool_down_ns + _BETWEEN_NS)


def planned_cells(scenarios: Sequence[Scenario]) -> list[PlannedCell]:
    """The cells of the scenarios that `resolve` makes of a grid, in the order in which they are measured."""
    cells = []
    for place, scenario in enumerate(scenarios):
        values = {one.name: value for one, value in values_of_cell(scenario.grid.vary or (), place)}
        # A cell by itself is no grid: it can be continued and reported as any other run.
        own = with_command_filled(with_entries(scenario, {"grid.vary": None, "grid.budget": None}), values)
        name = f"{scenario.report.name} {cell_text(values)}"
        own = dataclasses.replace(own, report=dataclasses.replace(own.report, name=name))
        loads: list[object] = [load.label for load in own.loads]
        cells.append(PlannedCell(values, own, content_hash({**conditions(own), "loads": loads, "values": values})))
    # Those with one command follow each other, so that the server is started once for them.
    commands = list(dict.fromkeys(cell.command for cell in cells))
    return sorted(cells, key=lambda cell: commands.index(cell.command))


def starts_of(cells: Sequence[PlannedCell]) -> int:
    """How often a server is started for these cells."""
    return len({cell.command for cell in cells} - {None})


def check_grid_budget(cells: Sequence[PlannedCell], budget_ns: int | None, place: str) -> None:
    """Raise `BadInput` for a budget into which the cells do not fit, however short their levels."""
    least_ns = sum(cell.least_ns for cell in cells) + starts_of(cells) * START_NS
    if budget_ns is not None and least_ns > budget_ns:
        levels = sum(cell.levels for cell in cells)
        whole = f"{levels} levels in {len(cells)} cells take {format_duration(least_ns)} at least"
        hint = "allow more time, vary fewer values, measure fewer levels, or make them shorter with --duration"
        raise BadInput(f"{place} {format_duration(budget_ns)}: {whole}", hint=hint)


def within(cell: PlannedCell, left_ns: int, later: Sequence[PlannedCell]) -> Scenario:
    """The scenario of a cell whose levels are as long as its share of the time that is left allows; those that come
    `later` need theirs."""
    scenario = cell.scenario
    if not scenario.waits_for_answers:
        return scenario
    levels = cell.levels
    share_ns = left_ns * levels // (levels + sum(one.levels for one in later)) - _OPENING_NS - levels * _BETWEEN_NS
    extent, origin = scenario.extent, Origin(Source.COMMAND, "--budget")
    least_ns = levels * (extent.warm_up_ns + (extent.duration_ns or 0) + extent.cool_down_ns)
    if share_ns >= least_ns:
        most_ns = min(share_ns, scenario.load.max_total)
        return with_entries(scenario, {"load.max_total": Entry(setting_of("load.max_total"), most_ns, origin)})
    window_ns = max(_SHORTEST_NS, share_ns // levels - extent.warm_up_ns - extent.cool_down_ns)
    window_ns = window_ns // (NS_PER_S // 10) * (NS_PER_S // 10)
    return with_entries(scenario, {"load.duration": Entry(setting_of("load.duration"), window_ns, origin)})
