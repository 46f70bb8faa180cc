"""The conclusion of a comparison, in one sentence.

It is about output tokens per second, or where these cannot be compared, about the first of a few figures that can. For
an open loop, whose throughput is set by the load, it is about latency. Neighbouring levels with the same decision are
reported together, by their geometric mean.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

from loadbench.analyze.compare.comparison_rows import CLOSED_HEADLINES, OPEN_HEADLINES, PARTS, headline
from loadbench.analyze.compare.effect import ASSUMED_DRIFT, mean_over_levels
from loadbench.analyze.compare.undecided import lacks_data, why_undecided
from loadbench.plan.gate import COST, ENERGY
from loadbench.plan.objective import RATES
from loadbench.results.compare import NOT_COMPARED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.analyze.compare.comparison_rows import ComparedLevel
    from loadbench.results.compare import ComparedFigure, Crossover, LeftOut, Speed
    from loadbench.results.run import Run

# Reported as well where they differ: the parts of a response, and what a token costs.
_PARTS = {**PARTS, ENERGY: "energy per token", COST: "cost per token"}


def conclude(
    levels: Sequence[ComparedLevel],
    crossings: Mapping[str, Crossover],
    left_out: Sequence[LeftOut],
    sides: tuple[Sequence[Run], Sequence[Run]],
    *,
    overall: Sequence[ComparedFigure] = (),
    paired: bool,
) -> str:
    """The sentence: which side is faster, by how much and at which levels; that no difference is shown; or that it is
    undecided, because data are missing. A ratio of one level, or of all, is that of its row, here as in the tables;
    `overall` are the rows over all levels."""
    if not levels:
        reasons = dict.fromkeys(f"{gap.level} is {NOT_COMPARED[gap.code]}" for gap in left_out if not gap.metric)
        return "nothing can be compared: " + (", ".join(reasons) or "the sides have no level in common")
    metric = headline(levels)
    if metric is None:
        return "no figure can be compared at every level: the sides did not do the same work"
    levels = sorted(levels, key=lambda level: level.load.amount)
    name, groups = {**CLOSED_HEADLINES, **OPEN_HEADLINES}[metric], _groups(levels, metric)
    if {decision for decision, _ in groups} == {"~"}:
        rows = [row for level in levels for row in level.rows if row.metric == metric]
        lacking = [row for row in rows if lacks_data(row)]
        if lacking:
            why, remedy = why_undecided(lacking, *sides, left_out, paired=paired)
            where = "" if len(lacking) == len(rows) else f" at {', '.join(row.level for row in lacking)}"
            parts = [f"undecided in {name}{where}: {why}: {remedy}"]
        else:
            least = f"{float(f'{100 * max(row.detectable or 0 for row in rows):.2g}'):g} %"
            shown = f"one of {least} or more at any level would most likely have been shown"
            parts = [f"no difference shown in {name} ({shown})"]
    else:
        parts = [_differences(groups, levels, metric, name, overall)]
    for figure, crossing in crossings.items():
        of = f" of {_PARTS[figure]}" if figure in _PARTS else ""
        parts.append(f"the crossover{of} is at users={crossing.users:.3g} ({crossing.low:.3g} to {crossing.high:.3g})")
    for other, other_name in _PARTS.items():
        if other == metric:
            continue
        ratios = []
        for decision, same in _groups([level for level in levels if other in level.data], other):
            if decision != "~":
                ratio, where = _ratio_of(same, levels, other, overall)
                ratios.append(f"{ratio} A's{where}")
        if ratios:
            parts.append(f"B's {other_name} is {' and '.join(ratios)}")
    effects = [level.data[metric].effect() for level in levels]
    if any(effect is not None and effect.assumed for effect in effects):
        parts.append(f"assuming that a machine drifts by {100 * ASSUMED_DRIFT:.0f} % between sessions")
    return "; ".join(parts)


def _differences(
    groups: Sequence[tuple[Speed, list[ComparedLevel]]],
    levels: Sequence[ComparedLevel],
    metric: str,
    name: str,
    overall: Sequence[ComparedFigure],
) -> str:
    """`B is 1.42x (1.31-1.55) as fast as A in output tokens/s at users=4 and above; no difference shown at users=1`."""
    faster: list[str] = []
    for decision, same in groups:
        if decision == "~":
            continue
        # The faster side comes first, with a ratio above 1.
        first, second = ("B", "A") if decision == "faster" else ("A", "B")
        inverse = (metric in RATES) != (decision == "faster")
        ratio, where = _ratio_of(same, levels, metric, overall, inverse=inverse)
        figure = "" if faster else f" in {name}"
        faster.append(f"{first} is {ratio} as fast as {second}{figure}{where}")
    neither: dict[bool, list[str]] = {}
    for decision, group in groups:
        if decision == "~":
            for lacks, part in groupby(group, key=lambda level: level.lacks_data(metric)):
                neither.setdefault(lacks, []).append(_where(list(part), levels))
    texts = {False: "; no difference shown", True: "; undecided"}
    return ", ".join(faster) + "".join(f"{texts[lacks]}{' and'.join(neither[lacks])}" for lacks in sorted(neither))


def _ratio_of(
    same: Sequence[ComparedLevel],
    levels: Sequence[ComparedLevel],
    metric: str,
    overall: Sequence[ComparedFigure],
    *,
    inverse: bool = False,
) -> tuple[str, str]:
    """`1.42x (1.31-1.55)`, of levels that are decided alike, and where: of one level its row's, of all levels that of
    the row over all; of some the mean over these, which has no row. A mean is called one, with the range of the
    intervals of its levels: each of these may be wider than its own. Where all say the same, that holds at each."""
    rows = [row for level in same for row in level.rows if row.metric == metric]
    where = _where(same, levels)
    row = rows[0] if len(same) == 1 else None
    if row is None and len(same) == len(levels):
        row = next((one for one in overall if (one.metric, one.decision) == (metric, rows[0].decision)), None)
    if row is not None and row.ratio is not None and row.ends is not None:
        ratio, (low, high) = row.ratio, row.ends
    else:
        effect = mean_over_levels([level.data[metric] for level in same]).effect()
        assert effect is not None  # noqa: S101 - a decision needs one, and `_groups` asks for one of the mean
        value, ends = effect.estimate(max(level.confidence(metric) for level in same))
        ratio, low, high = math.exp(value), math.exp(ends[0]), math.exp(ends[1])
    if len(same) > 1:
        ends_of_all = [end for one in rows for end in one.ends or ()]
        least, most = min(ends_of_all, default=0.0), max(ends_of_all, default=math.inf)
        each = _between(least, most, inverse=inverse) if least or not math.isinf(most) else ""
        if len(same) < len(levels):
            where = f" on average{where}"
        elif each != _between(low, high, inverse=inverse):
            where = ", averaged over the levels"
        where += f" ({each} at each)" if each and not where.startswith(" at") else ""
    return f"{_ratio(1 / ratio if inverse else ratio)}x ({_between(low, high, inverse=inverse)})", where


def _between(low: float, high: float, *, inverse: bool) -> str:
    """Both ends of a ratio, or of its inverse; one that is open has no figure."""
    if inverse:
        low, high = 1 / high, 1 / low if low else math.inf
    if math.isinf(high):
        return f"{_ratio(low)} or more"
    return f"{_ratio(low)}-{_ratio(high)}" if low else f"{_ratio(high)} or less"


def _groups(levels: Sequence[ComparedLevel], metric: str) -> list[tuple[Speed, list[ComparedLevel]]]:
    """Neighbouring levels with the same decision; separate where no two runs have all of them, so no mean exists."""
    groups: list[tuple[Speed, list[ComparedLevel]]] = []
    for decision, group in groupby(levels, key=lambda level: level.decision(metric)):
        same = list(group)
        together = decision == "~" or mean_over_levels([level.data[metric] for level in same]).effect() is not None
        groups += [(decision, same)] if together else [(decision, [level]) for level in same]
    return groups


def _ratio(ratio: float) -> str:
    # Near 1 the third decimal matters.
    return f"{ratio:.3f}" if 0.1 <= ratio < 1.1 else f"{ratio:#.3g}".removesuffix(".")


def _where(same: Sequence[ComparedLevel], levels: Sequence[ComparedLevel]) -> str:
    """` at users=4 and above`, ` from users=2 to users=4`; empty where there is only one level."""
    first, last = same[0].load.label, same[-1].load.label
    if len(same) == len(levels):
        return "" if len(levels) == 1 else " at every level"
    if len(same) == 1:
        return f" at {first}"
    if same[-1] is levels[-1]:
        return f" at {first} and above"
    return f" at {last} and below" if same[0] is levels[0] else f" from {first} to {last}"
