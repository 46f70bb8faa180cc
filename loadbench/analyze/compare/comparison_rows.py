"""The rows of a comparison: for each figure of a level its ratio, interval and decision, or why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadbench.analyze.compare.effect import WithinRun, holm
from loadbench.analyze.stats import ranks
from loadbench.plan.objective import FAILURES, RATES
from loadbench.results.compare import ComparedFigure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.analyze.compare.effect import Effect, FigureData
    from loadbench.analyze.compare.gates import MeasuredChange
    from loadbench.results.compare import Speed
    from loadbench.results.run import ClosedLoad, OpenLoad

# A detectable change beyond this is no use to a reader.
_UNBOUNDED = 100.0


@dataclass(slots=True)
class ComparedLevel:
    """One level of both sides: by metric, the data and the change made from it; and the rows."""

    load: ClosedLoad | OpenLoad
    data: dict[str, FigureData] = field(default_factory=dict)
    changes: dict[str, MeasuredChange] = field(default_factory=dict)
    rows: list[ComparedFigure] = field(default_factory=list)

    def decision(self, metric: str) -> Speed:
        """The decision of one figure; "~" where it is not compared."""
        return next((row.decision for row in self.rows if row.metric == metric), "~")


def too_few_runs(data: FigureData, confidence: float) -> str:
    """Why the runs are too few to show any difference; empty where they are enough, or where each side has one."""
    if isinstance(data, WithinRun):
        return ""
    a, b = run_counts(data)
    if min(a, b) == 1 and not data.paired:
        return "one side has a single run, which shows no spread: run both sides equally often"
    if not data.too_few(confidence):
        return ""
    need = next(n for n in range(2, 100) if ranks.smallest_p(n, n, paired=data.paired) <= 1 - confidence)
    runs = f"{a} pair{'s' if a > 1 else ''} of runs" if data.paired else f"{a} runs against {b}"
    best = ranks.smallest_p(a, b, paired=data.paired)
    return f"{runs} reach a p of {best:.3g} at best; {need} runs a side are enough to show a difference"


def run_counts(data: FigureData) -> tuple[int, int]:
    """How many runs of each side have the figure."""
    if isinstance(data, WithinRun):
        return 1, 1
    a, b = data.usable()
    return len(a), len(b)


def make_rows(
    level: str,
    data: Mapping[str, FigureData],
    by_run: Mapping[str, FigureData],
    changes: Mapping[str, MeasuredChange],
    confidence: float,
) -> list[ComparedFigure]:
    """A row for each figure, with the p values of the level adjusted together.

    `by_run` is the data that the rank test uses; it differs from `data` for failures, which are pooled.
    """
    p_values = {metric: change.effect.p_value() for metric, change in changes.items() if change.effect is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    rows = []
    for metric, values in data.items():
        effect, refused, logs = changes[metric].effect, changes[metric].refused, metric != FAILURES
        p_adjusted = adjusted.get(metric)
        decision: Speed = "~"
        if effect is not None and p_adjusted is not None and p_adjusted <= 1 - confidence and not refused:
            decision = "faster" if (effect.value > 0) == (metric in RATES) else "slower"

        ranked, p_value, note = by_run[metric], None, refused
        if not isinstance(ranked, WithinRun):
            p_value = ranked.p_exact()
            if not note and decision != "~" and p_value is not None and p_value > 1 - confidence:
                note = f"the rank test alone shows no difference: p {p_value:.2g}"
        if isinstance(values, WithinRun):
            a, b, shift, shift_interval = values.a[1], values.b[1], None, None
        else:
            of_a, of_b = values.usable()
            a, b = float(of_a.mean()), float(of_b.mean())
            # The Hodges-Lehmann ratio; with few runs it has no interval.
            middle, ends = ranks.shift(of_a, of_b, paired=values.paired, confidence=confidence)
            shift = math.exp(middle)
            shift_interval = None if ends is None else (math.exp(ends[0]), math.exp(ends[1]))

        detectable = None
        if effect is not None and not refused:
            # For this figure alone: with the p that Holm requires of the smallest one.
            detectable = effect.detectable(1 - (1 - confidence) / max(1, len(p_values)))
            detectable = math.expm1(detectable) if logs and detectable < _UNBOUNDED else detectable
        rows.append(
            ComparedFigure(
                level=level,
                metric=metric,
                a=math.exp(a) if logs else a,
                b=math.exp(b) if logs else b,
                a_interval=_interval(values.side_mean(0), confidence, logs=logs),
                b_interval=_interval(values.side_mean(1), confidence, logs=logs),
                ratio=math.exp(b - a) if logs else None,
                interval=_interval(effect, confidence, logs=logs),
                decision=decision,
                p_value=p_value,
                p_adjusted=p_adjusted,
                n=run_counts(ranked),
                shift=shift,
                shift_interval=shift_interval,
                detectable=detectable if detectable is not None and detectable < _UNBOUNDED else None,
                note=note,
            )
        )
    return rows


def _interval(effect: Effect | None, confidence: float, *, logs: bool) -> tuple[float, float] | None:
    if effect is None:
        return None
    return effect.ratio_interval(confidence) if logs else effect.interval(confidence)
