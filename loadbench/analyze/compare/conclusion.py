"""The one sentence that the numbers support.

It speaks of output tokens per second, or where those cannot be compared of the first of a few figures that can; of an
open loop, whose throughput is what was asked for, of its latency. Neighbouring levels with the same decision are told
together, by the geometric mean over them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from loadbench.analyze.compare.effect import WithinRun, mean_over_levels
from loadbench.plan.gate import COST, ENERGY
from loadbench.plan.objective import RATES
from loadbench.results.compare import NOT_COMPARED
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.analyze.compare.effect import FigureData
    from loadbench.results.compare import Compared, Crossover, LeftOut, Speed
    from loadbench.results.run import OpenLoad

_OF_CLOSED = {
    "output_tokens_per_s": "in output tokens/s",
    "tpot_p50": "in TPOT p50",
    "itl_p50": "in ITL p50",
    "ttft_p50": "in TTFT p50",
}
_OF_OPEN = {
    "e2e_response_p50": "in E2E p50",
    "tpot_p50": "in TPOT p50",
    "ttft_response_p50": "in TTFT p50",
}

# What is before the first token and after it, and what a token takes beside time.
_PHASES = {
    "ttft_p50": "TTFT p50",
    "ttft_response_p50": "TTFT p50",
    "tpot_p50": "TPOT p50",
    ENERGY: "energy per token",
    COST: "cost per token",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A level, its rows and what they are made from."""

    load: ClosedLoad | OpenLoad
    rows: Sequence[Compared]
    evidence: Mapping[str, FigureData]

    def decision(self, metric: str) -> Speed:
        """Of one figure."""
        return next((row.decision for row in self.rows if row.metric == metric), "~")


def conclude(
    levels: Sequence[Shown], crossing: Crossover | None, left_out: Sequence[LeftOut], *, confidence: float
) -> str:
    """One sentence."""
    if not levels:
        reasons = dict.fromkeys(f"{one.level} is {NOT_COMPARED[one.code]}" for one in left_out if not one.metric)
        return "nothing can be compared: " + (", ".join(reasons) or "the sides have no level in common")
    names = _OF_CLOSED if isinstance(levels[0].load, ClosedLoad) else _OF_OPEN
    metric = next((name for name in names if all(name in level.evidence for level in levels)), None)
    if metric is None:
        return "no figure can be compared at every level: the sides did not do the same work"
    levels = sorted(levels, key=lambda level: _amount(level.load))
    parts = [_about(levels, metric, names[metric], confidence)]
    if crossing is not None:
        parts.append(f"they cross at {crossing.users:.3g} users ({crossing.low:.3g} to {crossing.high:.3g})")
    parts += [told for name in _PHASES if name != metric and (told := _phase(levels, name, confidence))]
    alone = any(isinstance(level.evidence[metric], WithinRun) for level in levels)
    return "; ".join(parts) + (", as far as one run a side can tell" if alone else "")


def _about(levels: Sequence[Shown], metric: str, name: str, confidence: float) -> str:
    """Who is faster, where; or that nothing is seen."""
    groups = _groups(levels, metric)
    if {decision for decision, _ in groups} == {"~"}:
        return _none(levels, metric, name)
    told = [
        _part(decision, same, metric, _where(same, levels), confidence) for decision, same in groups if decision != "~"
    ]
    unsure = [_where(same, levels) for decision, same in groups if decision == "~"]
    return f"{', '.join(told)} {name}" + (f"; {' and '.join(unsure)} no difference is seen" if unsure else "")


def _phase(levels: Sequence[Shown], metric: str, confidence: float) -> str:
    """`B's TTFT p50 is 1.10x (1.09-1.11) A's at every level`; nothing where that is not compared, or alike."""
    found = []
    for decision, same in _groups([level for level in levels if metric in level.evidence], metric):
        effect = mean_over_levels([level.evidence[metric] for level in same]).effect()
        if decision != "~" and effect is not None:
            low, high = effect.interval(confidence)
            where = _where(same, levels)
            found.append(f"{_times(effect.value)}x ({_times(low)}-{_times(high)}) A's" + (f" {where}" if where else ""))
    return f"B's {_PHASES[metric]} is {' and '.join(found)}" if found else ""


def _groups(levels: Sequence[Shown], metric: str) -> list[tuple[Speed, list[Shown]]]:
    """Neighbours with one decision; each for itself where no two runs have them all, so that no mean can be made."""
    found: list[tuple[Speed, list[Shown]]] = []
    for decision, group in groupby(levels, key=lambda level: level.decision(metric)):
        same = list(group)
        whole = decision == "~" or mean_over_levels([level.evidence[metric] for level in same]).effect() is not None
        found += [(decision, same)] if whole else [(decision, [level]) for level in same]
    return found


def _part(decision: Speed, same: Sequence[Shown], metric: str, where: str, confidence: float) -> str:
    """`B is 1.42x (1.31-1.55) as fast as A from 4 users on`."""
    effect = mean_over_levels([level.evidence[metric] for level in same]).effect()
    assert effect is not None  # noqa: S101 - without one nothing would have been decided
    # The quicker one is told by how much it is quicker.
    effect = effect if metric in RATES else effect.turned()
    first, second = ("B", "A") if decision == "faster" else ("A", "B")
    effect = effect if decision == "faster" else effect.turned()
    low, high = effect.interval(confidence)
    reach = f"{_times(low)}-{_times(high)}"
    return f"{first} is {_times(effect.value)}x ({reach}) as fast as {second}" + (f" {where}" if where else "")


def _times(log_ratio: float) -> str:
    ratio = math.exp(log_ratio)
    # Near 1 the second digit is what is asked after.
    return f"{ratio:.3f}" if 0.1 <= ratio < 1.1 else f"{ratio:#.3g}".removesuffix(".")


def _none(levels: Sequence[Shown], metric: str, name: str) -> str:
    rows = [row for level in levels for row in level.rows if row.metric == metric]
    refused = next((row.note for row in rows if row.note), "")
    if refused:
        return f"no difference {name} can be told: {refused}"
    least = [row.detectable for row in rows if row.detectable is not None]
    if len(least) < len(rows) or max(least) > 1:
        return f"no difference {name} is seen, and too little was measured to see any"
    would = f"at each level one of {100 * max(least):.2g} % or more would have been, most likely"
    return f"no difference {name} is seen ({would})"


def _where(same: Sequence[Shown], levels: Sequence[Shown]) -> str:
    """`from 4 users on`, `up to 2 users`, `at 4 users`, `from 2 to 4 users`; nothing where it is all there is."""
    first, last = same[0], same[-1]
    if len(same) == len(levels):
        return "" if len(levels) == 1 else "at every level"
    if first is last:
        return f"at {_named(first)}"
    if last is levels[-1]:
        return f"from {_named(first)} on"
    return f"up to {_named(last)}" if first is levels[0] else f"from {_amount(first.load):g} to {_named(last)}"


def _named(level: Shown) -> str:
    if isinstance(level.load, ClosedLoad):
        return f"{level.load.users} user" + ("s" if level.load.users > 1 else "")
    return f"{level.load.rate_per_s:g}/s"


def _amount(load: ClosedLoad | OpenLoad) -> float:
    return load.users if isinstance(load, ClosedLoad) else load.rate_per_s
