"""How a level went in time, from its requests: requests in flight, tokens per second, and the gaps between events.

All requests count here, also those of the warm-up and the cool-down: a chart over time shows what led to a figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loadbench.core.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import LevelResult

    Floats = NDArray[np.float64]

# More spans would show the noise of single requests, and make large pages.
SPANS = 60
# Gaps from 0.1 ms, below which they are events of one read, to 100 s; five rows for each power of ten.
_GAP_LOW, _GAP_HIGH, _GAP_ROWS = -4.0, 2.0, 30
# How much of the time before and after the window is shown, as a share of the window.
_AROUND = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class OverTime:
    """One level in time. `edges_s` are the ends of its spans, in seconds since its window opened, and so may be
    negative; the other lists have a value for each span. `gap_counts` has a row for each span between `gap_edges_s`,
    and in it a count for each span of time."""

    level: int
    window_s: float
    edges_s: list[float]
    in_flight: list[float]
    output_tokens_per_s: list[float]
    failed: list[int]
    ttft_mean_s: list[float | None]
    gap_edges_s: list[float]
    gap_counts: list[list[int]]


class _Sums:
    """What is added up for one level."""

    def __init__(self, begin_ns: float, end_ns: float) -> None:
        self.edges = np.linspace(begin_ns, end_ns, SPANS + 1)
        self.busy_ns, self.tokens, self.failed, self.ttft_ns, self.first = (np.zeros(SPANS) for _ in range(5))
        self.gaps = np.zeros((_GAP_ROWS, SPANS), np.int64)

    def place(self, at_ns: NDArray[Any] | Sequence[int]) -> NDArray[np.int64]:
        """The span of each time; -1 or `SPANS` for those outside."""
        return np.searchsorted(self.edges, at_ns, side="right") - 1

    def add(self, record: RequestRecord) -> None:
        if record.sent_ns is not None:
            self.busy_ns += np.diff(np.clip(self.edges, record.sent_ns, record.end_ns))
        ended = int(self.place([record.end_ns])[0])
        if record.outcome.failed and 0 <= ended < SPANS:
            self.failed[ended] += 1
        if record.first_token_ns is None:
            return
        times = record.first_token_ns + np.concatenate(([0], np.cumsum(record.event_gaps_ns, dtype=np.int64)))
        places = self.place(times)
        weights = np.ones(len(times)) if record.event_tokens is None else np.asarray(record.event_tokens, float)
        if record.event_tokens is None and record.output_tokens:
            weights *= record.output_tokens / len(times)
        known = min(len(weights), len(times))
        inside = (places >= 0) & (places < SPANS)
        self.tokens += np.bincount(places[:known][inside[:known]], weights[:known][inside[:known]], SPANS)[:SPANS]
        if record.sent_ns is not None and inside[0]:
            self.ttft_ns[places[0]] += record.first_token_ns - record.sent_ns
            self.first[places[0]] += 1
        if record.event_gaps_ns:
            seconds = np.maximum(np.asarray(record.event_gaps_ns, float) / NS_PER_S, 10**_GAP_LOW)
            rows = ((np.log10(seconds) - _GAP_LOW) / (_GAP_HIGH - _GAP_LOW) * _GAP_ROWS).astype(np.int64)
            np.add.at(self.gaps, (np.minimum(rows, _GAP_ROWS - 1)[inside[1:]], places[1:][inside[1:]]), 1)


def over_time(requests: Iterable[RequestRecord], levels: Sequence[LevelResult]) -> list[OverTime]:
    """How each level went that has a window and at least one request."""
    sums: dict[int, _Sums] = {}
    for record in requests:
        window = levels[record.level].window_ns if record.level < len(levels) else None
        if window is None or window[0] >= window[1]:
            continue
        if record.level not in sums:
            around = _AROUND * (window[1] - window[0])
            sums[record.level] = _Sums(window[0] - around, window[1] + around)
        sums[record.level].add(record)
    made = []
    for index, found in sorted(sums.items()):
        window = levels[index].window_ns
        assert window is not None  # noqa: S101 - those without were left out
        span_ns = float(found.edges[1] - found.edges[0])
        rows = np.flatnonzero(found.gaps.sum(axis=1))
        low, high = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        made.append(
            OverTime(
                level=index,
                window_s=(window[1] - window[0]) / NS_PER_S,
                edges_s=((found.edges - window[0]) / NS_PER_S).tolist(),
                in_flight=(found.busy_ns / span_ns).tolist(),
                output_tokens_per_s=(found.tokens / span_ns * NS_PER_S).tolist(),
                failed=[int(count) for count in found.failed],
                ttft_mean_s=[
                    total / count / NS_PER_S if count else None
                    for total, count in zip(found.ttft_ns.tolist(), found.first.tolist(), strict=True)
                ],
                gap_edges_s=[
                    10 ** (_GAP_LOW + (_GAP_HIGH - _GAP_LOW) * row / _GAP_ROWS) for row in range(low, high + 1)
                ],
                gap_counts=found.gaps[low:high].tolist(),
            )
        )
    return made
