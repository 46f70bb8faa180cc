"""The times of one request that the server reports itself, by its own clock."""

from __future__ import annotations

from typing import NamedTuple


class Timings(NamedTuple):
    """Times in ns, `None` where the server does not report them, and the tokens that they cover."""

    queue_ns: int | None = None  # until its work began
    prefill_ns: int | None = None  # from then to the first token
    decode_ns: int | None = None  # from the first token to the last
    prompt_tokens: int | None = None  # processed, without those from the cache
    output_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def first_token_ns(self) -> int | None:
        """The time to first token as the server reports it: queue, if reported, and prefill."""
        return None if self.prefill_ns is None else self.prefill_ns + (self.queue_ns or 0)
