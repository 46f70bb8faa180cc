"""The totals by which a level audits itself.

Each side of an identity is summed where it arises, independently of the other side, so that
`loadbench.analyze.level.audit` can compare them. What crosses a bound of the window is kept too: the two sides may
differ by that much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.record.joining import plus
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from loadbench.plan.load import Phases
    from loadbench.record.sample import Sample


@dataclass(slots=True)
class AuditTotals:
    """Sums over a level; times in ns."""

    swept_ns: int = 0  # request time in flight inside the window, by the moments at which requests began and ended
    ended: int = 0  # requests that had been sent and ended inside it
    residence_ns: int = 0  # time from sent to end of these
    edge_ns: int = 0  # of all that were sent: the part inside, or before, of those that cross a bound
    unsent_ns: int = 0  # inside, from due to sent or, where nothing was sent, to the end
    outside_tokens: int = 0  # tokens of measured ok requests that arrived outside
    foreign_tokens: int = 0  # tokens of all other requests that arrived inside
    sliced_tokens: float = 0.0  # tokens in all slices
    shared_out: int = 0  # responses whose tokens were spread evenly over slices and window
    paced_ns: int = 0  # from first to last token, of requests whose every gap has an ITL
    paced_tokens: int = 0  # their tokens after the first event
    unpaced: int = 0  # requests with an ITL for some gaps only


class AuditTotalsBuilder:
    """Sums them up; `phases` says where the window lies."""

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        self._totals = AuditTotals()
        self._before = self._standing = self._moments_ns = 0

    def change(self, at_ns: int, change: int) -> None:
        """The number in flight changes; the area below it is `closes x changes - moments x changes`."""
        closes_ns = self._phases.closes_ns
        if at_ns <= self._phases.opens_ns:
            self._before += change  # those change it as the window opens
        elif closes_ns is None or at_ns < closes_ns:
            self._standing += change
            self._moments_ns += change * at_ns

    def add_span(self, sample: Sample) -> None:
        """Add a request that ended; its residence time counts where its end lies, as in Little's law."""
        totals, opens_ns, closes_ns = self._totals, self._phases.opens_ns, self._phases.closes_ns
        closes_ns = sample.end_ns if closes_ns is None else closes_ns
        sent_ns = sample.end_ns if sample.sent_ns is None else sample.sent_ns
        totals.unsent_ns += max(0, min(sent_ns, closes_ns) - max(sample.due_ns, opens_ns))
        if sample.sent_ns is None:
            return
        if opens_ns < sample.end_ns <= closes_ns:
            totals.ended += 1
            totals.residence_ns += sample.end_ns - sent_ns
            totals.edge_ns += max(0, opens_ns - sent_ns)
        else:
            totals.edge_ns += max(0, min(sample.end_ns, closes_ns) - max(sent_ns, opens_ns))

    def add_tokens(self, sample: Sample, inside: int, *, is_measured: bool) -> None:
        """Add the tokens of a request, of which `inside` arrived inside the window."""
        self._totals.shared_out += bool(inside) and sample.event_tokens is None
        if is_measured and sample.outcome is Outcome.OK:
            self._totals.outside_tokens += (sample.output_tokens or 0) - inside
        else:
            self._totals.foreign_tokens += inside

    def add_paced(self, sample: Sample, gaps: int, latencies: int) -> None:
        """Add a request with so many gaps and inter-token latencies."""
        if not latencies:
            return
        if latencies < gaps or sample.event_tokens is None or sample.output_tokens is None:
            self._totals.unpaced += 1
            return
        self._totals.paced_ns += (sample.last_token_ns or 0) - (sample.first_token_ns or 0)
        self._totals.paced_tokens += sample.output_tokens - sample.event_tokens[0]

    def absorb(self, other: AuditTotalsBuilder) -> None:
        """Add the sums of a part of the load."""
        self._totals = plus(self._totals, other._totals)
        self._before += other._before
        self._standing += other._standing
        self._moments_ns += other._moments_ns

    def close(self, closes_ns: int, *, sliced_tokens: float) -> AuditTotals:
        """The totals of a level whose window closed then."""
        before_ns = self._before * (closes_ns - self._phases.opens_ns)
        self._totals.swept_ns = before_ns + self._standing * closes_ns - self._moments_ns
        self._totals.sliced_tokens = sliced_tokens
        return self._totals
