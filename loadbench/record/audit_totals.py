"""Double entry: what must agree about a level, whichever way it is counted.

Each side of an identity is added up where it arises, apart from the other, so that `loadbench.analyze.level.audit`
can lay
them side by side. What crosses a bound of the window is kept too: by so much the sides may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.load import Phases
    from loadbench.record.sample import Sample


@dataclass(frozen=True, slots=True)
class AuditTotals:
    """Sums over a level; times in ns."""

    swept_ns: int = 0  # requests in flight, by the moments at which they began and ended, over the window
    ended: int = 0  # requests that had been sent and ended inside it
    residence_ns: int = 0  # how long these had been on their way since they were sent
    edge_ns: int = 0  # of all that were sent: what of their way inside, or before, goes across a bound
    unsent_ns: int = 0  # inside, from due to sent or, where nothing was sent, to the end
    outside_tokens: int = 0  # of measured requests that ended ok: tokens that came outside
    foreign_tokens: int = 0  # of all others: tokens that came inside
    sliced_tokens: float = 0.0  # tokens in all slices
    shared_out: int = 0  # answers whose tokens were shared out evenly among slices and window
    paced_ns: int = 0  # from first to last token, of requests whose every gap has an ITL
    paced_tokens: int = 0  # and their tokens after the first event
    unpaced: int = 0  # requests with some other ITL


class AuditTotalsBuilder:
    """Adds the books up; `phases` says where the window lies."""

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        self._standing = self._moments_ns = 0
        self._ended = self._residence_ns = self._edge_ns = self._unsent_ns = 0
        self._outside = self._foreign = self._shared_out = 0
        self._paced_ns = self._paced_tokens = self._unpaced = 0

    def change(self, at_ns: int, change: int) -> None:
        """So many more, or less, are in flight; the area below is `closes x changes - moments x changes`."""
        closes_ns = self._phases.closes_ns
        if closes_ns is None or at_ns < closes_ns:
            self._standing += change
            self._moments_ns += change * max(at_ns, self._phases.opens_ns)

    def span(self, sample: Sample) -> None:
        """A request that ended; its residence counts where its end lies, as in Little's law."""
        opens_ns, closes_ns = self._phases.opens_ns, self._phases.closes_ns
        closes_ns = sample.end_ns if closes_ns is None else closes_ns
        sent_ns = sample.end_ns if sample.sent_ns is None else sample.sent_ns
        self._unsent_ns += max(0, min(sent_ns, closes_ns) - max(sample.due_ns, opens_ns))
        if sample.sent_ns is None:
            return
        if opens_ns < sample.end_ns <= closes_ns:
            self._ended += 1
            self._residence_ns += sample.end_ns - sent_ns
            self._edge_ns += max(0, opens_ns - sent_ns)
        else:
            self._edge_ns += max(0, min(sample.end_ns, closes_ns) - max(sent_ns, opens_ns))

    def tokens(self, sample: Sample, inside: int, *, measured: bool) -> None:
        """Tokens of a request, of which so many came inside the window."""
        self._shared_out += bool(inside) and sample.event_tokens is None
        if measured and sample.outcome is Outcome.OK:
            self._outside += (sample.output_tokens or 0) - inside
        else:
            self._foreign += inside

    def paced(self, sample: Sample, gaps: Sequence[int], itl: Sequence[tuple[int, int]]) -> None:
        """A request with its gaps, and what they are to each token."""
        if not itl:
            return
        if len(itl) < len(gaps) or sample.event_tokens is None or sample.output_tokens is None:
            self._unpaced += 1
            return
        self._paced_ns += (sample.last_token_ns or 0) - (sample.first_token_ns or 0)
        self._paced_tokens += sample.output_tokens - sample.event_tokens[0]

    def books(self, closes_ns: int, *, sliced_tokens: float) -> AuditTotals:
        """The books of a level whose window closed then."""
        return AuditTotals(
            swept_ns=self._standing * closes_ns - self._moments_ns,
            ended=self._ended,
            residence_ns=self._residence_ns,
            edge_ns=self._edge_ns,
            unsent_ns=self._unsent_ns,
            outside_tokens=self._outside,
            foreign_tokens=self._foreign,
            sliced_tokens=sliced_tokens,
            shared_out=self._shared_out,
            paced_ns=self._paced_ns,
            paced_tokens=self._paced_tokens,
            unpaced=self._unpaced,
        )
