"""When to abort a level: the rules of `--abort-on`, compared once per second with all requests that have ended.

Warm-up requests count too, since a server that fails at once need not be warmed up first; requests in flight do not. A
share, a quantile or a mean is compared from 20 ended requests on, so that a first failure is not taken for a trend; a
maximum from the first. A failed request counts as infinitely slow in a quantile, and is left out of means and maxima:
how often requests fail has a rule of its own. A request whose user gave up is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import anyio

from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.objective import FAILURES
from loadbench.record.figures import MANY_A_REQUEST, weighted
from loadbench.record.histogram import Histogram, permille_rank
from loadbench.record.outcome import Outcome, failed_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.core.clock import Clock
    from loadbench.plan.load import Load, Phases
    from loadbench.plan.objective import Objective
    from loadbench.plan.scenario import Scenario
    from loadbench.record.sample import Sample

_PERIOD_NS = NS_PER_S
_FEWEST = 20


class AbortedLevel(Protocol):
    """What a rule needs of a level that runs."""

    phases: Phases

    def stop(self) -> None:
        """End the load now."""
        ...


class AbortPart(NamedTuple):
    """What one of several workers has seen since it last said so."""

    histograms: list[Histogram]  # by rule
    ended: int
    failed: int


class AbortWatch:
    """Takes the samples of one level as they end; `broken` is the rule that aborted it, with what was seen."""

    def __init__(self, rules: Sequence[Objective]) -> None:
        self.rules = rules
        self.broken = ""
        self._histograms = {rule: Histogram() for rule in rules}
        self._ended = self._failed = 0

    @staticmethod
    def of(scenario: Scenario, load: Load) -> AbortWatch:
        """The rules of a scenario for a level with this load."""
        return AbortWatch([rule for rule in scenario.slo.abort_on or () if rule.applies(load.label)])

    def take(self) -> AbortPart:
        """What has been seen since it was last taken; it is forgotten here."""
        seen = AbortPart(list(self._histograms.values()), self._ended, self._failed)
        self._histograms = {rule: Histogram() for rule in self.rules}
        self._ended = self._failed = 0
        return seen

    def absorb(self, part: AbortPart) -> None:
        """Add what a worker has seen."""
        for histogram, more in zip(self._histograms.values(), part.histograms, strict=True):
            histogram.merge(more)
        self._ended += part.ended
        self._failed += part.failed

    def add(self, sample: Sample) -> None:
        """Add a request that ended, in any phase."""
        failed, ended = failed_of({sample.outcome: 1})
        self._failed += failed
        self._ended += ended
        if sample.outcome is not Outcome.OK:
            return
        for rule, histogram in self._histograms.items():
            if rule.is_latency:
                for value, weight in weighted(sample, rule.metric):
                    histogram.record(round(value), weight)

    async def watch(self, level: AbortedLevel, clock: Clock) -> None:
        """Stop the level once a rule is broken; ends with its load, or when cancelled."""
        while True:
            await clock.sleep_until(clock.now_ns() + _PERIOD_NS, anyio.Event())
            ends_ns = level.phases.load_ends_ns
            if ends_ns is not None and clock.now_ns() >= ends_ns:
                return
            self.broken = self.check()
            if self.broken:
                level.stop()
                return

    def check(self) -> str:
        """The first rule that is broken now, with what was seen; empty if there is none."""
        for rule, histogram in self._histograms.items():
            if rule.point != "max" and self._ended < _FEWEST:
                continue
            seen = self._seen(rule, histogram)
            if seen:
                return f"{rule.rule}: {seen}"
        return ""

    def _seen(self, rule: Objective, histogram: Histogram) -> str:
        """How the rule is broken; empty if it is not."""
        failures = f"{self._failed} of the {self._ended} requests that had ended failed"
        if rule.metric == FAILURES:
            return failures if self._failed > rule.bound * self._ended else ""
        value_ns: float | None
        if rule.point == "mean":
            value_ns = histogram.mean
        else:
            failed = 0 if rule.metric in MANY_A_REQUEST or rule.point == "max" else self._failed
            rank = permille_rank(rule.permille, histogram.count + failed)
            if rank > histogram.count:
                return f"{failures}, and it was infinite"
            value_ns = histogram.value_at_rank(rank) if rank else None
        if value_ns is None or value_ns <= rule.bound:
            return ""
        return f"it was {format_duration(round(value_ns / 1e6) * 1_000_000)} over {self._ended} ended requests"
