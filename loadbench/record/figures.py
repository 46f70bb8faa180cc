"""The figures of one request by name, each as `loadbench.record.sample.Sample` defines it; durations in ns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.record.sample import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Figures of which a request has one value, or none where it is undefined.
FIGURES: Mapping[str, Callable[[Sample], float | None]] = {
    "ttft": lambda sample: sample.since_sent(sample.first_token_ns),
    "ttft_response": lambda sample: sample.since_due(sample.first_token_ns),
    "ttfo": lambda sample: sample.since_sent(sample.first_visible_ns),
    "ttfb": lambda sample: sample.since_sent(sample.first_byte_ns),
    "e2e": lambda sample: sample.since_sent(sample.last_token_ns),
    "e2e_response": lambda sample: sample.since_due(sample.last_token_ns),
    "stream_end": lambda sample: sample.since_sent(sample.end_ns),
    "tpot": Sample.tpot,
    "tpot_classic": Sample.tpot_classic,
    "e2e_per_token": Sample.e2e_per_token,
}


def weighted(sample: Sample, name: str) -> Sequence[tuple[float, int]]:
    """(value in ns, weight) pairs of a figure of one request: one, none where it is undefined, or one per event."""
    if name == "event_gap":
        return [(gap, 1) for gap in sample.event_gaps()]
    if name == "itl":
        return sample.inter_token_latencies()
    value = FIGURES[name](sample)
    return [] if value is None else [(value, 1)]


# Figures of which a request has many values, which are correlated.
MANY_A_REQUEST = frozenset({"event_gap", "itl"})
