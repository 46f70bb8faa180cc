"""The rows of a comparison: for each figure of a level its ratio, interval and decision, or why there is none.

The word is a function of the interval that stands next to it (`decided_by`), for every row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from loadbench.analyze.compare.effect import BetweenRuns, RankTest, WithinRun, hommel
from loadbench.analyze.compare.figure_data import SPEED_OF
from loadbench.analyze.compare.undecided import lacks_data
from loadbench.plan.objective import FAILURES, RATES
from loadbench.results.compare import ComparedFigure
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.analyze.compare.effect import FigureData
    from loadbench.analyze.compare.gates import MeasuredChange
    from loadbench.results.compare import Speed
    from loadbench.results.run import OpenLoad

# What a comparison is about: the first of these that every level has.
CLOSED_HEADLINES = {
    "output_tokens_per_s": "output tokens/s",
    "tpot_p50": "TPOT p50",
    "itl_p50": "ITL p50",
    "ttft_p50": "TTFT p50",
}
OPEN_HEADLINES = {"e2e_response_p50": "E2E p50", "tpot_p50": "TPOT p50", "ttft_response_p50": "TTFT p50"}
# The parts of a response, before and after its first token: said as well where they differ.
PARTS = {"ttft_p50": "TTFT p50", "ttft_response_p50": "TTFT p50", "tpot_p50": "TPOT p50"}
# The headline's share of the probability of a difference by chance: it is the question, and the others are many.
HEADLINE_SHARE = 0.8
# A detectable change beyond this is no use to a reader.
_UNBOUNDED = 100.0


@dataclass(slots=True)
class ComparedLevel:
    """One level of both sides: by metric, the data and the change made from it; and the rows. `speeds` are prefill and
    decode as speeds: by metric, how much A and B do in the time of `SPEED_OF`."""

    load: ClosedLoad | OpenLoad
    data: dict[str, FigureData] = field(default_factory=dict)
    by_run: dict[str, FigureData] = field(default_factory=dict)
    changes: dict[str, MeasuredChange] = field(default_factory=dict)
    rows: list[ComparedFigure] = field(default_factory=list)
    speeds: dict[str, tuple[float, float]] = field(default_factory=dict)

    def decision(self, metric: str) -> Speed:
        """The decision of one figure; "~" where it is not compared."""
        return next((row.decision for row in self.rows if row.metric == metric), "~")

    def lacks_data(self, metric: str) -> bool:
        """Whether one figure is undecided because too little was measured."""
        return any(lacks_data(row) for row in self.rows if row.metric == metric)

    def confidence(self, metric: str) -> float:
        """That of the interval of one figure that is compared."""
        return next(row.confidence for row in self.rows if row.metric == metric)


def headline(levels: Sequence[ComparedLevel]) -> str | None:
    """The figure that a comparison is about, which every level has; `None` if there is none."""
    names = CLOSED_HEADLINES if isinstance(levels[0].load, ClosedLoad) else OPEN_HEADLINES
    return next((name for name in names if all(name in level.data for level in levels)), None)


def decided_by(metric: str, interval: tuple[float, float] | None) -> Speed:
    """What an interval of the ratio shows of B, or for failures one of the difference: nothing if it includes 1 (0)."""
    same = 0.0 if metric == FAILURES else 1.0
    if interval is None or interval[0] <= same <= interval[1]:
        return "~"
    return "faster" if (interval[0] > same) == (metric in {*RATES, *SPEED_OF}) else "slower"


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
    headline: str | None,
) -> list[ComparedFigure]:
    """A row for each figure; the probability that any of a level shows a difference by chance is 1 - confidence.

    The headline has `HEADLINE_SHARE` of that. The other figures are adjusted together (`hommel`) to the rest, and where
    the headline differs, to all of it (Wiens, *A fixed sequence Bonferroni procedure*, 2003: the fallback method).
    Each interval has the confidence at which its figure is decided, so that it excludes 1 where a difference is shown.

    `by_run` is the data that the rank test uses; it differs from `data` for failures, which are pooled.
    """
    alpha = 1 - confidence
    p_values = {
        metric: change.effect.p_value()
        for metric, change in changes.items()
        if change.effect is not None and not change.refused
    }
    others = [metric for metric in p_values if metric != headline]
    factors = dict(zip(others, hommel([p_values[metric] for metric in others]), strict=True))
    adjusted = {metric: min(1.0, p_values[metric] * factor) for metric, factor in factors.items()}
    if headline in p_values:
        first = min(1.0, p_values[headline] / HEADLINE_SHARE)
        for metric in others:
            alone = min(1.0, adjusted[metric] / (1 - HEADLINE_SHARE))
            adjusted[metric] = min(alone, max(first, adjusted[metric]))
            factors[metric] /= 1 if first <= alpha else 1 - HEADLINE_SHARE
        factors[headline], adjusted[headline] = 1 / HEADLINE_SHARE, first

    rows = []
    for metric, values in data.items():
        change, logs = changes[metric], metric != FAILURES
        effect, p_adjusted = change.effect, adjusted.get(metric)
        own = 1 - alpha / factors.get(metric, 1.0)
        a, b = (math.fsum(side) / len(side) for side in values.units())
        ratio, interval = b - a, None
        if effect is not None:
            ratio, interval = effect.estimate(own)
        means = (values.side_mean(0), values.side_mean(1))
        of_sides = [None if mean is None else _ends(mean.interval(confidence), logs=logs) for mean in means]
        # An interval that may decide nothing would contradict the word.
        ends = None if change.refused else _ends(interval, logs=logs)
        decision = decided_by(metric, ends)
        ranked, p_value, note = by_run[metric], None, change.refused
        shift = shift_interval = None
        if isinstance(ranked, BetweenRuns) and not change.meaningless:
            p_value = ranked.p_exact()
        if effect is not None and effect.ranks is not None and decision != "~" and p_value is not None and not note:
            if p_value > alpha:
                note = f"the rank test alone shows no difference: p {p_value:.2g}"
            elif ratio != effect.value:
                note = "by the rank test: runs that are far from the others hide this from Student's t"
        if decision == "~" and not note:
            note = change.advice
        if isinstance(values, BetweenRuns) and not change.meaningless:
            # The Hodges-Lehmann ratio; with few runs it has no interval.
            middle, of_shift = RankTest(*values.units(), values.paired).shift(confidence)
            shift = math.exp(middle)
            shift_interval = _ends(of_shift, logs=True)

        detectable = None
        if effect is not None and metric in p_values:
            # For this figure alone: with the p that is required of the smallest one.
            share = HEADLINE_SHARE if metric == headline else (1 - HEADLINE_SHARE) / max(1, len(others))
            detectable = effect.detectable(1 - alpha * share)
            detectable = math.expm1(detectable) if logs and detectable < _UNBOUNDED else detectable
        rows.append(
            ComparedFigure(
                level=level,
                metric=metric,
                a=math.exp(a) if logs else a,
                b=math.exp(b) if logs else b,
                a_interval=_closed(metric, of_sides[0]),
                b_interval=_closed(metric, of_sides[1]),
                ratio=math.exp(ratio) if logs and not change.meaningless else None,
                **_fields(metric, ends),
                confidence=own,
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


def speed_rows(level: ComparedLevel) -> list[ComparedFigure]:
    """Prefill and decode as speeds. Each is the same measurement as a time that has its row, TTFT p50 or TPOT p50: the
    amount divided by that row's figures, so that its interval is the inverse of that row's, and its word the same."""
    rows = {row.metric: row for row in level.rows}
    made = []
    for metric, (amount_a, amount_b) in level.speeds.items():
        time = rows[SPEED_OF[metric]]
        more = amount_b / amount_a
        ends = _inverse(time.ends, more)
        made.append(
            msgspec.structs.replace(
                time,
                metric=metric,
                a=amount_a / time.a,
                b=amount_b / time.b,
                a_interval=_inverse(time.a_interval, amount_a),
                b_interval=_inverse(time.b_interval, amount_b),
                ratio=None if time.ratio is None else more / time.ratio,
                decision=decided_by(metric, ends),
                **_fields(metric, ends),
                shift=None,
                shift_interval=None,
                detectable=None,
            )
        )
    return made


def _inverse(ends: tuple[float, float] | None, amount: float) -> tuple[float, float] | None:
    if ends is None:
        return None
    return amount / ends[1], amount / ends[0] if ends[0] else math.inf


def _ends(ends: tuple[float, float] | None, *, logs: bool) -> tuple[float, float] | None:
    """Both ends of an interval, as ratios if they are logarithms; an open one is 0 or infinite."""
    return (math.exp(ends[0]), math.exp(ends[1])) if ends is not None and logs else ends


def _closed(metric: str, ends: tuple[float, float] | None) -> tuple[float, float] | None:
    """An interval; `None` where an end is open: infinite, or 0 of a figure that is above 0."""
    if ends is None or not all(map(math.isfinite, ends)) or (metric != FAILURES and not ends[0]):
        return None
    return ends


def _fields(metric: str, ends: tuple[float, float] | None) -> dict[str, Any]:
    """What a row has of its interval: `interval`, or where one end is open `open_interval`."""
    closed = _closed(metric, ends)
    if closed is not None or ends is None:
        return {"interval": closed}
    known = ends[0] or None, ends[1] if math.isfinite(ends[1]) else None
    return {"interval": None, "open_interval": known if any(known) else None}
