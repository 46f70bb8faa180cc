"""Whether responses on kept connections wait for a delayed acknowledgement.

A server that does not set TCP_NODELAY sends its head at once, and holds what follows until the client has acknowledged
it. On a new connection the client does so immediately, later only after 40 ms (Linux; macOS 100, Windows 200 ms). So
such a response has an early head, a first token that much later, and in one read with it all that was held.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadbench.record.histogram import Histogram

if TYPE_CHECKING:
    from loadbench.record.sample import Sample

# A server whose first token takes longer than this hides the delay; RFC 1122 allows one of 500 ms.
QUICK_NS = 20_000_000
DELAY_NS = (30_000_000, 220_000_000)
ADVICE = (
    "the server does not seem to set TCP_NODELAY: set it there, or put a proxy before it that opens a new connection "
    "for each request; until then every client that keeps its connections has this delay"
)
# A timer of the kernel has a resolution of 4 ms, and a response may be read a little late.
_SPREAD_NS = 10_000_000
# The percentile of new connections that must be quick. Of users who begin together and then wait for each other, the
# later half waits more than half as long as all of them do from then on: no queue looks like a delay.
_MOST_NEW = 66


@dataclass(slots=True)
class KeptConnections:
    """Requests that ended ok, by their connection: all those on new ones, and the measured ones on kept ones."""

    new: Histogram = field(default_factory=Histogram)  # time to first token on new connections
    kept: int = 0
    quick: int = 0  # on kept connections, whose first token came quickly and alone in its read
    held_with_more: int = 0  # held ones, in one read with more
    held: Histogram = field(default_factory=Histogram)  # of held ones, the time from the head to the first token

    def add(self, sample: Sample) -> None:
        """Add one request."""
        ttft_ns = sample.since_sent(sample.first_token_ns)
        if ttft_ns is None:
            return
        if not sample.reused:
            self.new.record(ttft_ns)
            return
        self.kept += 1
        head_ns, with_more = sample.since_sent(sample.headers_ns), _comes_with_more(sample)
        if ttft_ns < QUICK_NS:
            self.quick += not with_more
        elif head_ns is not None and head_ns < QUICK_NS and DELAY_NS[0] <= ttft_ns - head_ns <= DELAY_NS[1]:
            self.held.record(ttft_ns - head_ns)
            self.held_with_more += with_more

    def add_first(self, sample: Sample, prompt_tokens: float) -> None:
        """Add a request that was sent before the level, on a new connection that the level then has.

        If its prompt is shorter than the level's, theirs would have taken longer; at most by the square of the lengths.
        """
        ttft_ns, tokens = sample.since_sent(sample.first_token_ns), sample.input_tokens
        if ttft_ns is None or tokens is None:
            return
        shorter = prompt_tokens / max(1, tokens - (sample.cached_tokens or 0))
        self.new.record(round(ttft_ns * max(1, shorter) ** 2))
        self.quick += shorter > 1 and ttft_ns < QUICK_NS and not _comes_with_more(sample)

    @property
    def delay_ns(self) -> int | None:
        """By how much the first token of the responses that were held came after the head; `None` without any proof.

        The proof is either that most were quick on new connections, and at least half are not on kept ones; or that on
        kept connections some are quick, and others come with all that was held. In both, the delay is always the same.
        """
        low, typical, high = (self.held.percentile(share) for share in (10, 50, 90))
        if self.held.count < 2 or low is None or typical is None or high is None or high - low > _SPREAD_NS:
            return None
        new_ns = self.new.percentile(_MOST_NEW)
        quick_when_new = new_ns is not None and new_ns < min(QUICK_NS, typical - DELAY_NS[0])
        in_two_groups = self.quick > 0 and self.held_with_more > self.held.count / 2
        enough = self.held.count >= self.kept / 2 if quick_when_new else self.held.count >= self.kept / 10
        return typical if enough and (quick_when_new or in_two_groups) else None


def _comes_with_more(sample: Sample) -> bool:
    """Whether the first event came in one read with the next."""
    return len(sample.event_ns) > 1 and sample.event_ns[0] == sample.event_ns[1]
