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
ADVICE = "check whether the server holds back small writes (TCP_NODELAY is not set)"
# A timer of the kernel has a resolution of 4 ms, and a response may be read a little late.
_SPREAD_NS = 10_000_000
# A prompt of at least this share of another's length takes about as long to process.
_SAME_LENGTH = 0.8


@dataclass(slots=True)
class KeptConnections:
    """Requests that ended ok, by their connection: all those on new ones, and the measured ones on kept ones."""

    new: int = 0
    slowest_new_ns: int = 0  # the longest time to first token on a new connection
    kept: int = 0
    quick: int = 0  # on kept connections, whose first token came quickly and alone in its read
    held_with_more: int = 0  # held ones, in one read with more
    held: Histogram = field(default_factory=Histogram)  # their time to first token

    def add(self, sample: Sample) -> None:
        """Add one request."""
        ttft_ns = sample.since_sent(sample.first_token_ns)
        if ttft_ns is None:
            return
        if not sample.reused:
            self.new += 1
            self.slowest_new_ns = max(self.slowest_new_ns, ttft_ns)
            return
        self.kept += 1
        head_ns, with_more = sample.since_sent(sample.headers_ns), _comes_with_more(sample)
        if ttft_ns < QUICK_NS:
            self.quick += not with_more
        elif head_ns is not None and head_ns < QUICK_NS and DELAY_NS[0] <= ttft_ns - head_ns <= DELAY_NS[1]:
            self.held.record(ttft_ns)
            self.held_with_more += with_more

    def add_first(self, sample: Sample, prompt_tokens: float) -> None:
        """Add a request that was sent before the level, on a new connection that the level then has.

        If its prompt is much shorter than the level's, it was quicker anyway, and shows only how quick responses come.
        """
        ttft_ns = sample.since_sent(sample.first_token_ns)
        if (sample.input_tokens or 0) >= _SAME_LENGTH * prompt_tokens:
            self.add(sample)
        elif ttft_ns is not None:
            self.quick += ttft_ns < QUICK_NS and not _comes_with_more(sample)

    @property
    def delay_ns(self) -> int | None:
        """The time to first token of responses that were held; `None` if there is no proof of any.

        The proof is either that all were quick on new connections, and at least half are not on kept ones; or that on
        kept connections some are quick, and others come with all that was held. In both, the delay is always the same.
        """
        low, typical, high = (self.held.percentile(share) for share in (10, 50, 90))
        if self.held.count < 2 or low is None or typical is None or high is None or high - low > _SPREAD_NS:
            return None
        quick_when_new = self.new > 0 and self.slowest_new_ns < min(QUICK_NS, typical - DELAY_NS[0])
        in_two_groups = self.quick > 0 and self.held_with_more > self.held.count / 2
        enough = self.held.count >= self.kept / 2 if quick_when_new else self.held.count >= self.kept / 10
        return typical if enough and (quick_when_new or in_two_groups) else None


def _comes_with_more(sample: Sample) -> bool:
    """Whether the first event came in one read with the next."""
    return len(sample.event_ns) > 1 and sample.event_ns[0] == sample.event_ns[1]
