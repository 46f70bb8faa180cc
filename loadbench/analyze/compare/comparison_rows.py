"""From what two sides tell of a figure to its row in a comparison: ratio, interval, decision, and its reasons."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.analyze.compare.effect import BetweenRuns, WithinRun, holm
from loadbench.analyze.stats import ranks
from loadbench.plan.objective import FAILURES, RATES
from loadbench.results.compare import Compared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.analyze.compare.effect import Effect, FigureData
    from loadbench.analyze.compare.gates import MeasuredChange
    from loadbench.results.compare import Speed

# A change that no measurement would see is none to speak of.
_WITHOUT_LIMIT = 100.0


def too_few(kept: FigureData, confidence: float) -> str:
    """Why so many runs cannot tell any difference; empty where they can, or where one a side is all there is."""
    if isinstance(kept, WithinRun):
        return ""
    a, b = (len(side) for side in kept.kept())
    if min(a, b) == 1 and not kept.paired:
        return "a single run beside several has no spread of its own: measure both sides as often"
    if not kept.too_few(confidence):
        return ""
    need = next(n for n in range(2, 100) if ranks.smallest_p(n, n, paired=kept.paired) <= 1 - confidence)
    pairs = f"{a} pair{'s' if a > 1 else ''} of runs"
    least = f"a p of {ranks.smallest_p(a, b, paired=kept.paired):.3g} at the least"
    return f"{pairs if kept.paired else f'{a} against {b} runs'}: {least}; {need} a side can tell"


def rows(
    level: str,
    kept: Mapping[str, FigureData],
    by_run: Mapping[str, FigureData],
    seen: Mapping[str, MeasuredChange],
    confidence: float,
) -> list[Compared]:
    """A row a figure; the p values of one level are adjusted together."""
    p_values = {metric: one.effect.p_value() for metric, one in seen.items() if one.effect is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return [
        _row(level, metric, kept[metric], by_run[metric], seen[metric], adjusted.get(metric), confidence, len(p_values))
        for metric in kept
    ]


def _row(
    level: str,
    metric: str,
    kept: FigureData,
    by_run: FigureData,
    seen: MeasuredChange,
    p_adjusted: float | None,
    confidence: float,
    family: int,
) -> Compared:
    effect, logs = seen.effect, metric != FAILURES
    a, b = _centre(kept, 0), _centre(kept, 1)
    p_value = by_run.p_exact() if isinstance(by_run, BetweenRuns) else None
    decision: Speed = "~"
    if effect is not None and p_adjusted is not None and p_adjusted <= 1 - confidence and not seen.refused:
        decision = "faster" if (effect.value > 0) == (metric in RATES) else "slower"
    moved = _shift(kept, confidence) if isinstance(kept, BetweenRuns) else None
    return Compared(
        level=level,
        metric=metric,
        a=math.exp(a) if logs else a,
        b=math.exp(b) if logs else b,
        a_interval=_side_interval(kept, 0, confidence, logs=logs),
        b_interval=_side_interval(kept, 1, confidence, logs=logs),
        ratio=math.exp(b - a) if logs else None,
        interval=_interval(effect, confidence, logs=logs),
        decision=decision,
        p_value=p_value,
        p_adjusted=p_adjusted,
        n=counted(by_run),
        shift=None if moved is None else moved[0],
        shift_interval=None if moved is None else moved[1],
        detectable=None if seen.refused else _detectable(effect, 1 - (1 - confidence) / max(1, family), logs=logs),
        note=seen.refused or _note(decision, p_value, confidence),
    )


def _note(decision: Speed, p_value: float | None, confidence: float) -> str:
    if decision != "~" and p_value is not None and p_value > 1 - confidence:
        return f"the rank test alone would not tell: p {p_value:.2g}"
    return ""


def _centre(kept: FigureData, side: int) -> float:
    if isinstance(kept, WithinRun):
        return (kept.a, kept.b)[side][1]
    return float(kept.kept()[side].mean())


def counted(kept: FigureData) -> tuple[int, int]:
    if isinstance(kept, WithinRun):
        return 1, 1
    a, b = kept.kept()
    return len(a), len(b)


def _side_interval(kept: FigureData, side: int, confidence: float, *, logs: bool) -> tuple[float, float] | None:
    return _interval(kept.alone(side), confidence, logs=logs)


def _interval(effect: Effect | None, confidence: float, *, logs: bool) -> tuple[float, float] | None:
    if effect is None:
        return None
    return effect.ratio_interval(confidence) if logs else effect.interval(confidence)


def _detectable(effect: Effect | None, confidence: float, *, logs: bool) -> float | None:
    """By this figure alone: what Holm asks of the first to be stated."""
    if effect is None:
        return None
    least = effect.detectable(confidence)
    least = math.expm1(least) if logs and least < _WITHOUT_LIMIT else least
    return least if least < _WITHOUT_LIMIT else None


def _shift(kept: BetweenRuns, confidence: float) -> tuple[float, tuple[float, float] | None]:
    """The Hodges-Lehmann ratio, and its interval if so few runs have one."""
    a, b = kept.kept()
    middle, interval = ranks.shift(a, b, paired=kept.paired, confidence=confidence)
    return math.exp(middle), None if interval is None else (math.exp(interval[0]), math.exp(interval[1]))
