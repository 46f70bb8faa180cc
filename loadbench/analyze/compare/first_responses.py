"""What the first responses of a comparison show: whether both sides obey the requested length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadbench.results.run import Reason

if TYPE_CHECKING:
    from loadbench.record.sample import Sample

# Those of the caveats here.
LENGTH_CODES: Final = frozenset({"max_tokens_ignored", "ends_early"})


def length_caveats(side: str, sample: Sample, *, most: int) -> list[Reason]:
    """Whether a side obeys the requested length; if not, the two sides may do unequal work."""
    tokens = sample.output_tokens
    if tokens is not None and tokens > most:
        return [
            Reason(
                "max_tokens_ignored",
                f"{side} was limited to {most} tokens, and its response has {tokens}",
                "let it obey max_tokens, or compare time per token only",
            )
        ]
    if tokens is not None and tokens < most and sample.finish_reason != "length":
        return [
            Reason(
                "ends_early",
                f"{side} ended its first response by itself after {tokens} of {most} tokens",
                "use --exact-output, or compare time per token",
            )
        ]
    return []
