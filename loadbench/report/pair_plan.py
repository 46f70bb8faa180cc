"""What measuring two sides in turn would do, before it does it: both sides, the order, the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.core.units import format_duration
from loadbench.plan.pairs import FEWEST_DECIDING, order_text, planned_ns
from loadbench.report.plan import level_cells, plain_table, printable_lines, settings_table, work_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.pairs import Pairing
    from loadbench.plan.scenario import Scenario

_MOST_ORDERED = 8


def pair_plan_text(sides: Sequence[Scenario], pairing: Pairing) -> str:
    """The plan for people. Nothing was sent to make it."""
    a, b = sides
    head = [
        *([a.question] if a.question else []),
        f"A        {_where(a)}",
        f"B        {_where(b)}",
        f"work     {work_text(a)}, the same on both sides",
        f"repeats  {repeats_text(a, pairing)}",
    ]
    seed, shown = a.work.seed, min(pairing.most, _MOST_ORDERED)
    more = " …" if pairing.most > shown else ""
    levels = plain_table(
        [
            [number, *level_cells(a, load), order_text(shown, number - 1, seed=seed) + more]
            for number, load in enumerate(a.loads, start=1)
        ],
        ("level", "load", "measured", "requests", "time on each side", "order by repeat"),
    )
    parts = ["\n".join(head), levels, _time(a, pairing), settings_table(a)]
    differing = _differing(a, b)
    if differing:
        parts.append(f"B has its own {differing}")
    return "\n\n".join(printable_lines(part) for part in parts) + "\n"


def repeats_text(scenario: Scenario, pairing: Pairing) -> str:
    """How many repeats there will be, as far as can be known, and whether that can decide anything."""
    most = pairing.most
    if pairing.budget_ns is None:
        text = str(most)
    else:
        text = f"as many as fit into {format_duration(pairing.budget_ns)}, at most {most}"
        one_ns = planned_ns(scenario, pairing)
        if one_ns is not None:
            most = max(1, min(most, pairing.budget_ns // one_ns))
            text += f": about {most}"
    return text if most >= FEWEST_DECIDING else f"{text}; fewer than {FEWEST_DECIDING} decide little"


def _where(scenario: Scenario) -> str:
    (model,) = scenario.target.model or ("",)
    if scenario.simulated:
        return f"the simulated server {scenario.target.profile}"
    return f"{scenario.target.url}, {f'model {model}' if model else 'the model that it lists'}"


def _time(scenario: Scenario, pairing: Pairing) -> str:
    one_ns = planned_ns(scenario, pairing)
    blocks = 2 * len(scenario.loads)
    settle = f"{format_duration(pairing.settle_ns)} of rest before each block"
    if one_ns is None:
        return f"{blocks} blocks a repeat, {settle}; the time is that of the requests"
    whole_ns = one_ns * pairing.most if pairing.budget_ns is None else min(pairing.budget_ns, one_ns * pairing.most)
    drain = f"each block's drain, at most {format_duration(scenario.extent.drain_ns)}, comes on top"
    return (
        f"{blocks} blocks a repeat, {settle}: {format_duration(one_ns)} a repeat, {format_duration(whole_ns)} in all; "
        f"{drain}"
    )


def _differing(a: Scenario, b: Scenario) -> str:
    """The settings that the sides do not share, with B's values."""
    ours, theirs = a.effective()["target"], b.effective()["target"]
    return ", ".join(f"target.{name} {_shown(theirs[name])}" for name in ours if ours[name] != theirs[name])


def _shown(value: object) -> str:
    return "-" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
