"""What happens between the bounds of the window: tokens and responses that arrive, requests in flight."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from loadbench.plan.load import Phase
from loadbench.record.audit_totals import AuditTotalsBuilder
from loadbench.record.joining import plus
from loadbench.record.outcome import Outcome
from loadbench.record.slices import SLICE_NS, Slices
from loadbench.record.timeline import TimelineBuilder

if TYPE_CHECKING:
    from loadbench.plan.load import Phases
    from loadbench.record.sample import Sample

# A start or an end that is reported up to this late still finds its place among the others. A load generator that is
# later than this has been found invalid long before.
_HORIZON_NS = 5_000_000_000


@dataclass(slots=True)
class Production:
    """What arrived inside the window."""

    answers: int = 0  # requests that ended ok
    output_tokens: int = 0
    input_tokens: int = 0


class WindowTally:
    """Counts what lies inside the window, exactly.

    Starts and ends are put in order before they count, since they are reported late: an end by the client's delay in
    reading it, and those of worker processes in batches. What is older than `_HORIZON_NS` is taken as complete,
    counted from `complete_ns` where that is earlier: until then, all worker processes have reported.

    A bound of the window that is not known yet lies in the time to come, and everything that is counted lies wholly
    before it: so everything can be counted at once.
    """

    def __init__(self, phases: Phases, *, parts: int = 1) -> None:
        self.phases = phases
        self._is_joined = False
        self.tokens = Slices(phases.opens_ns)
        self.answers = Slices(phases.opens_ns)
        self.timeline = TimelineBuilder(phases.opens_ns, parts=parts)
        self.audit = AuditTotalsBuilder(phases)
        self.slice_ns = SLICE_NS  # of all of them, at the end
        self.arrivals = 0  # requests sent inside
        self.in_flight_ns = 0  # request time inside
        self.peak = 0
        self._waiting: list[tuple[int, int, int, Sample | None]] = []
        self._reported = 0
        self._latest_ns = 0
        self.complete_ns: int | None = None
        self._in_flight = self._changed_ns = 0
        self.production = Production()
        self.by_group: dict[tuple[str, str], Production] = {}

    def started(self, at_ns: int) -> None:
        """One request more is in flight."""
        self._put(at_ns, 1, None)

    def ended(self, sample: Sample) -> None:
        """One request less. Ends come before starts of the same moment, as of a user who sends the next at once."""
        self._put(sample.end_ns, 0, sample)

    def _put(self, at_ns: int, rank: int, sample: Sample | None) -> None:
        self._reported += 1
        heappush(self._waiting, (at_ns, rank, self._reported, sample))
        self._latest_ns = max(self._latest_ns, at_ns)
        latest_ns = self._latest_ns if self.complete_ns is None else min(self._latest_ns, self.complete_ns)
        self._count_until(latest_ns - _HORIZON_NS)

    def finish(self) -> None:
        """Nothing more will be reported: count what waits."""
        self._count_until(self._latest_ns)
        if self._is_joined:
            self.peak = self.timeline.combine(self.phases.closes_ns or self._latest_ns)
        series = (self.tokens, self.answers, *self.timeline.series)
        self.slice_ns = max(one.count() for one in series)
        for one in series:
            one.merge(self.slice_ns)

    def absorb(self, other: WindowTally) -> None:
        """Add what a part of the load counted, all of whose requests have ended: `finish` was called there."""
        self._is_joined = True
        self.tokens.absorb(other.tokens)
        self.answers.absorb(other.answers)
        self.timeline.absorb(other.timeline)
        self.audit.absorb(other.audit)
        self.arrivals += other.arrivals
        self.in_flight_ns += other.in_flight_ns
        self.production = plus(self.production, other.production)
        self.by_group = plus(self.by_group, other.by_group)

    def _count_until(self, until_ns: int) -> None:
        if self.tokens.opens_ns != self.phases.opens_ns:
            self.tokens.opens_ns = self.answers.opens_ns = self.phases.opens_ns
            self.timeline.opens(self.phases.opens_ns)
        while self._waiting and self._waiting[0][0] <= until_ns:
            at_ns, _, _, sample = heappop(self._waiting)
            opens_ns, closes_ns = self.phases.opens_ns, self.phases.closes_ns
            change = 1 if sample is None else -1
            if at_ns > opens_ns and (closes_ns is None or self._changed_ns < closes_ns):
                # So many were in flight since the last change, which may lie before the window, and this one after it.
                self.peak = max(self.peak, self._in_flight)
            self._in_flight += change
            self._changed_ns = at_ns
            self.timeline.change(at_ns, change)
            self.audit.change(at_ns, change)
            if sample is not None:
                self._add(sample, opens_ns, closes_ns)

    def _add(self, sample: Sample, opens_ns: int, closes_ns: int | None) -> None:
        """Count what lies inside. A failed request produced nothing; one that was cut on purpose did."""
        is_measured, sent_ns = sample.phase is Phase.MEASURED, sample.sent_ns
        if sent_ns is None:
            # A request that was refused, or cut or given up before it was sent, was started all the same.
            self.arrivals += is_measured and not sample.outcome.left_out
        else:
            self.arrivals += opens_ns <= sent_ns and (closes_ns is None or sent_ns < closes_ns)
            ends_ns = sample.end_ns if closes_ns is None else min(sample.end_ns, closes_ns)
            self.in_flight_ns += max(0, ends_ns - max(sent_ns, opens_ns))
        self.audit.add_span(sample)
        if sample.outcome.failed and sample.outcome is not Outcome.ABANDONED:
            return

        def arrived(at_ns: int) -> bool:
            """Whether this was produced inside: after the window opened, and at its close at the latest."""
            return opens_ns < at_ns and (closes_ns is None or at_ns <= closes_ns)

        answers = input_tokens = 0
        if sample.outcome is Outcome.OK and arrived(sample.end_ns):
            answers = 1
            self.answers.add(sample.end_ns, 1.0)
        # A prompt counts when it has been processed: at the first token.
        if sample.first_token_ns is not None and arrived(sample.first_token_ns):
            input_tokens = sample.input_tokens or 0

        # Output tokens count by the stamps of their events; spread evenly where an event's own number is unknown.
        inside, stamps, total = 0, sample.event_ns, sample.output_tokens
        if stamps and total is not None:
            self.timeline.decode(sample)
            first = bisect_right(stamps, opens_ns)
            last = len(stamps) if closes_ns is None else bisect_right(stamps, closes_ns)
            if first < last:
                events = len(stamps)
                tokens = None if sample.event_tokens is None else sample.event_tokens[first:last]
                self.tokens.add_tokens(stamps[first:last], tokens, total * (last - first) / events)
                inside = total * last // events - total * first // events if tokens is None else sum(tokens)
        self.audit.add_tokens(sample, inside, is_measured=is_measured)
        groups = sample.request.groups
        for production in (self.production, *(self.by_group.setdefault(group, Production()) for group in groups)):
            production.answers += answers
            production.output_tokens += inside
            production.input_tokens += input_tokens
