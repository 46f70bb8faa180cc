"""What a server tells of one request's way through it, beside the answer: its own clock, its own words."""

from __future__ import annotations

from typing import NamedTuple


class Timings(NamedTuple):
    """Times in ns, `None` where the server does not tell; the tokens are those that the times are of."""

    queue_ns: int | None = None  # until its work began
    prefill_ns: int | None = None  # from then to the first token
    decode_ns: int | None = None  # from the first token to the last
    prompt_tokens: int | None = None  # worked off, those from the cache apart
    output_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def first_token_ns(self) -> int | None:
        """What the server tells of the time to the first token: queue, if it is told, and prefill."""
        return None if self.prefill_ns is None else self.prefill_ns + (self.queue_ns or 0)
