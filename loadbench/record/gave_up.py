"""Users who gave up, and the tokens of all requests of a level, with which the server's counter is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.plan.load import Phase
from loadbench.record.outcome import Outcome, TokenSource

if TYPE_CHECKING:
    from loadbench.record.sample import Sample


@dataclass(slots=True)
class GaveUpStats:
    """Sums over a level, of measured requests and of all; output tokens are those that were received."""

    # Measured requests.
    impatient: int = 0  # whose user would give up
    gave_up: int = 0
    before_first_token: int = 0  # of them
    received: int = 0  # output tokens of those that were given up

    # All requests, of every phase: the server's counters do not know phases.
    all_received: int = 0  # output tokens
    ok: int = 0
    ok_received: int = 0
    ok_events: int = 0  # that brought them
    ok_limit: int = 0  # the sum of their limits, `max_tokens`
    ok_uncounted: int = 0  # whose tokens the server did not count
    left: int = 0  # given up
    left_received: int = 0
    left_assumed: int = 0  # tokens of these that are only known as events
    left_limit: int = 0
    cut: int = 0  # sent, and ended in another way

    def add(self, sample: Sample) -> None:
        """Add a request that ended, in any phase."""
        request, outcome, received = sample.request, sample.outcome, sample.output_tokens or 0
        gave_up = outcome is Outcome.GAVE_UP
        if request.phase is Phase.MEASURED:
            self.impatient += request.patience is not None
            self.gave_up += gave_up
            self.before_first_token += gave_up and sample.first_token_ns is None
            self.received += received if gave_up else 0
        self.all_received += received
        if outcome is Outcome.OK:
            self.ok += 1
            self.ok_received += received
            self.ok_events += len(sample.event_ns)
            self.ok_limit += request.max_tokens
            self.ok_uncounted += sample.token_source not in {TokenSource.USAGE, TokenSource.IDS}
        elif gave_up:
            self.left += sample.sent_ns is not None
            self.left_received += received
            self.left_assumed += received if sample.token_source is TokenSource.EVENTS else 0
            self.left_limit += request.max_tokens if sample.sent_ns is not None else 0
        else:
            self.cut += sample.sent_ns is not None
