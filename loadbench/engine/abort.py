"""When to give a level up before its end: the rules of `--abort-on`, held against all that has ended so far.

Once a second, while the load goes on. Warm-up requests count too, for a server that fails at once need not be warmed
up first; requests that are still under way do not. A share, a quantile or a mean is looked at from 20 ended requests
on, so that the first failure is not taken for a trend; a maximum from the first. A failed request counts as infinitely
slow in a quantile, and is left out of means and maxima: how often requests fail has a rule of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.objective import FAILURES
from loadbench.record.figures import MANY_A_REQUEST, weighted
from loadbench.record.histogram import Histogram, permille_rank
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.core.clock import Clock
    from loadbench.engine.observers import RunningLevel
    from loadbench.plan.objective import Objective
    from loadbench.record.sample import Sample

_PERIOD_NS = NS_PER_S
_FEWEST = 20


class AbortWatch:
    """Takes the samples of one level as they end, and says which rule holds, if any."""

    def __init__(self, rules: Sequence[Objective]) -> None:
        self.rules = rules
        self._histograms = {rule: Histogram() for rule in rules}
        self._ended = self._failed = 0
        self.held = ""  # the rule by which the level was given up, and what was seen

    def add(self, sample: Sample) -> None:
        """One request has ended, in whatever phase."""
        if sample.outcome is Outcome.CANCELLED:
            return
        self._ended += 1
        if sample.outcome is not Outcome.OK:
            self._failed += 1
            return
        for rule, histogram in self._histograms.items():
            if rule.is_latency:
                for value, weight in weighted(sample, rule.metric):
                    histogram.record(round(value), weight)

    async def keep(self, level: RunningLevel, clock: Clock) -> None:
        """Stop the level once a rule holds; ends with its load, or when cancelled."""
        while True:
            await clock.sleep_until(clock.now_ns() + _PERIOD_NS, anyio.Event())
            ends_ns = level.phases.load_ends_ns
            if ends_ns is not None and clock.now_ns() >= ends_ns:
                return
            self.held = self.holds()
            if self.held:
                level.stop()
                return

    def holds(self) -> str:
        """The first rule that holds now, with what was seen; empty where none does."""
        for rule, histogram in self._histograms.items():
            seen = self._failures(rule) if rule.metric == FAILURES else self._latency(rule, histogram)
            if seen:
                return f"{rule.rule}: {seen}"
        return ""

    def _failures(self, rule: Objective) -> str:
        if self._ended < _FEWEST or self._failed <= rule.bound * self._ended:
            return ""
        return f"{self._failed} of the {self._ended} requests that had ended failed"

    def _latency(self, rule: Objective, histogram: Histogram) -> str:
        if rule.point != "max" and self._ended < _FEWEST:
            return ""
        failed = 0 if rule.metric in MANY_A_REQUEST or rule.point in {"mean", "max"} else self._failed
        value_ns, infinite = _point(rule, histogram, failed)
        if infinite:
            return f"{self._failed} of the {self._ended} requests that had ended failed, and it was infinite"
        if value_ns is None or value_ns <= rule.bound:
            return ""
        return f"it was {format_duration(round(value_ns / 1e6) * 1_000_000)} over {self._ended} ended requests"


def _point(rule: Objective, histogram: Histogram, failed: int) -> tuple[float | None, bool]:
    """(value in ns, whether it is infinite)."""
    if rule.point == "mean":
        return histogram.mean, False
    total = histogram.count + failed
    rank = permille_rank(rule.permille, total)
    if rank > histogram.count:
        return None, True
    return (histogram.value_at_rank(rank) if rank else None), False
