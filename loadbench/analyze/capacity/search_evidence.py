"""The evidence of a capacity search: what its probes prove, and the best estimate.

`SearchEvidence` collects the probes as they end. The range is what the sequential test proves
(`loadbench.analyze.capacity.sequential`). The point estimate carries no guarantee: it is the median of the likely
borders (`loadbench.analyze.capacity.border`), the lowest of several objectives. The conclusion for the reader is made
in `loadbench.analyze.capacity.answer`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from loadbench.analyze.capacity.border import FittedBorder, LoadPoint, aim
from loadbench.analyze.capacity.sequential import HitCount, SequentialMonitor, SequentialTest, required_share
from loadbench.analyze.stats.intervals import share_interval
from loadbench.core.errors import BadInput
from loadbench.plan.load import Closed, Load, Open
from loadbench.plan.objective import FAILURES
from loadbench.plan.search import Purpose
from loadbench.record.outcome import Outcome
from loadbench.results.capacity import HitShare, ProbeResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.plan.objective import Objective
    from loadbench.plan.search import Finding, Grid, Probe, Search
    from loadbench.record.recorder import LevelRecording

# Fewer requests say little about their correlation: until then a request counts as about half an independent one.
_FEW = 50
# An undecided probe that an abort rule ended leans to FAIL as clearly as bracketing asks for: 20 to 1, as a logarithm.
_ABORTED_LEANING = -3.0


def refuse_objectives(objectives: Sequence[Objective]) -> None:
    """Raises `BadInput` for objectives that a capacity search cannot test."""
    if not objectives:
        raise BadInput(
            "a capacity search needs an objective",
            hint="give one, as in --slo 'ttft_p95<1s'; with --resume, repeat the flags of the first run",
        )
    for objective in objectives:
        if objective.sense == ">":
            raise BadInput(
                f"{objective.rule}: throughput rises with the load, so it sets no upper limit on the load",
                hint="use an objective on a latency or on failures",
            )
        if objective.point in {"mean", "max"}:
            raise BadInput(
                f"{objective.rule}: a {objective.point} cannot be proven, because a single slow request can change it",
                hint=f"use a percentile, as in {objective.metric}_p95 or {objective.metric}_p99",
            )


class ExpectedShare(NamedTuple):
    """A share of hits and its interval."""

    share: float
    low: float
    high: float


class SearchEvidence:
    """The probes of a search and what they prove; all loads that it may visit share the error probability."""

    def __init__(self, objectives: Sequence[Objective], *, confidence: float, closed: bool = True) -> None:
        self.probes: list[ProbeResult] = []
        self.alpha = 0.0
        self._closed = closed
        self._objectives = tuple(objectives)
        self._confidence = confidence
        self._test = SequentialTest(objectives, alpha=1.0, closed=closed)

    def start(self, *, most_loads: int) -> None:
        """The search starts, or resumes with the probes that it has; it visits at most this many loads."""
        self.alpha = (1 - self._confidence) / most_loads
        self._test = SequentialTest(self._objectives, alpha=self.alpha, closed=self._closed)
        for probe in self.probes:
            if probe.purpose is not Purpose.VERIFY:
                shares = [probe.attainment[objective.rule] for objective in self._objectives]
                counts = [HitCount(share.requests, share.hits, share.effective) for share in shares]
                self._test.add(probe.amount, counts)

    def monitor(self, load: Load, *, opens_ns: int) -> SequentialMonitor:
        """The monitor of a new probe at this load, whose window opens at `opens_ns`."""
        return SequentialMonitor(self._test, amount_of(load), opens_ns=opens_ns, is_open=isinstance(load, Open))

    def add_probe(
        self, probe: Probe, load: Load, recording: LevelRecording, monitor: SequentialMonitor, *, level: int
    ) -> Finding:
        """Add a finished probe; `level` is its position among the levels of the run.

        Raises `BadInput` where an objective names a figure that no request has.
        """
        counts = monitor.counts()
        for objective, count in zip(self._objectives, counts, strict=True):
            if monitor.known > monitor.left_out[objective] and not count.n:
                raise BadInput(
                    f"{objective.rule}: none of {monitor.known} requests has a {objective.metric}",
                    hint="request longer responses (--max-tokens), or find out why all requests fail",
                )
        finding = monitor.finding(recording.window[1])
        if recording.aborted:
            # By the user's own rule this load is too high, whatever its requests show.
            finding = finding._replace(decision="FAIL", leaning=min(finding.leaning, _ABORTED_LEANING))
        if probe.purpose is not Purpose.VERIFY:
            self._test.add(amount_of(load), counts)

        # Repeat tests and the verification are reported by their own requests alone.
        reported = finding
        if probe.purpose in {Purpose.REPEAT, Purpose.VERIFY} and not (monitor.overloaded or recording.aborted):
            alone = SequentialTest(self._objectives, alpha=self.alpha, closed=self._closed)
            reported = alone.assess(amount_of(load), counts)
        attainment = {}
        for objective, count in zip(self._objectives, counts, strict=True):
            n = int(count.effective_n)
            attainment[objective.rule] = HitShare(
                share=count.share,
                asked=required_share(objective),
                requests=count.n,
                hits=count.hits,
                effective=count.effective_n,
                interval=share_interval(round(n * (count.share or 0.0)), n) if n else None,
            )
        usual_ns = recording.histograms["e2e_response"].percentile(50)
        size = {"users": load.users} if isinstance(load, Closed) else {"rate_per_s": load.rate_per_s}
        self.probes.append(
            ProbeResult(
                **size,
                decision=reported.decision,
                attainment=attainment,
                requests=monitor.known,
                gave_up=recording.outcomes.get(Outcome.GAVE_UP, 0),
                purpose=probe.purpose,
                visit=probe.visit,
                level=level,
                at=probe.at,
                leaning=max(-1e6, min(1e6, reported.leaning)),
                window_s=recording.window_s,
                answer_s=None if usual_ns is None else usual_ns / 1e9,
                overloaded=monitor.overloaded,
                aborted=recording.aborted,
            )
        )
        return finding

    def best_estimate(self, search: Search) -> int | None:
        """The position of the best estimate, within the proven range; `None` where no load passes."""
        if search.threshold.passes is None:
            return None
        at = min(_floor(search.grid, border.median()) for border in self._borders(search.grid))
        at = max(at, search.grid.lowest)
        at = max(at, search.passed) if search.passed is not None else at
        return min(at, search.failed - 1) if search.failed is not None else at

    def aim(self, search: Search, requests: Callable[[float], float], *, passes: bool) -> int | None:
        """The position where a test is worth its time; `requests` says how many a load gets in that time."""
        grid, low, high = search.grid, search.passed, search.failed
        borders = self._borders(grid)
        middle = min(_floor(grid, border.median()) for border in borders)
        bottom, top = grid.lowest if low is None else low + 1, grid.highest if high is None else high - 1
        first = bottom if passes else max(middle + 1, bottom)
        last = min(max(middle, grid.lowest), top) if passes else top
        shares = [share for probe in self.probes for share in probe.attainment.values()]
        independent = _FEW / 2 + sum(share.effective for share in shares)
        per_request = independent / (_FEW + sum(share.requests for share in shares))
        loads = [(grid.amount(at), per_request * requests(grid.amount(at))) for at in range(first, last + 1)]
        evidence = math.log((1 if passes else len(self._objectives)) / self.alpha)
        amount = aim(borders, loads, evidence=evidence, passes=passes)
        return None if amount is None else grid.nearest(amount)

    def _borders(self, grid: Grid) -> list[FittedBorder]:
        """The fitted border of each objective."""
        borders = []
        for objective in self._objectives:
            points = []
            for probe in self.probes:
                if probe.purpose is Purpose.VERIFY:
                    continue
                shared = probe.attainment[objective.rule]
                hits, misses = HitCount(shared.requests, shared.hits, shared.effective).independent
                if probe.aborted or (probe.overloaded and objective.metric != FAILURES):
                    # In a growing queue all later requests would miss.
                    hits, misses = 0.0, max(hits + misses, 1.0)
                points.append(LoadPoint(probe.amount, hits, misses))
            least, most = grid.amount(grid.lowest), grid.amount(grid.highest)
            borders.append(FittedBorder(points, required_share(objective), least=least, most=most))
        return borders

    def expected(self, grid: Grid, amount: float, confidence: float) -> dict[str, ExpectedShare]:
        """The expected share of hits at a load, by rule."""
        return {
            objective.rule: ExpectedShare(border.share(amount), *border.share_interval(amount, confidence))
            for objective, border in zip(self._objectives, self._borders(grid), strict=True)
        }


def amount_of(load: Load) -> float:
    """Users, or requests per second."""
    return load.users if isinstance(load, Closed) else load.rate_per_s


def _floor(grid: Grid, amount: float) -> int:
    """The last position at or below a load; one below the grid where there is none."""
    at = grid.nearest(amount)
    return at - 1 if grid.amount(at) > amount * (1 + 1e-9) else at


class ProvenRange(NamedTuple):
    """What is proven, as positions: the last that passes and the first that fails; and any contradictions."""

    passed: int | None
    failed: int | None
    contradictions: tuple[str, ...]


def proven(search: Search, probes: Sequence[ProbeResult]) -> ProvenRange:
    """The proven range, widened where an end did not repeat."""
    passed, failed, contradictions = search.passed, search.failed, []
    if not search.monotone:
        contradictions.append("a higher load passed and a lower one failed: more load is not always worse here")
    again = {probe.at: probe for probe in probes if probe.purpose is Purpose.REPEAT}
    decided = sorted((at, known.decision) for at, known in search.known.items())
    if passed in again and again[passed].decision == "FAIL":
        contradictions.append(f"{again[passed].label} passed its test and failed its repeat test")
        passed = max((at for at, decision in decided if decision == "PASS" and at < passed), default=None)
    if failed in again and again[failed].decision == "PASS":
        contradictions.append(f"{again[failed].label} failed its test and passed its repeat test")
        failed = min((at for at, decision in decided if decision == "FAIL" and at > failed), default=None)
    return ProvenRange(passed, failed, tuple(contradictions))
