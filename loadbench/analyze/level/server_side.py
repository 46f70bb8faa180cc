"""What the server says of itself, and whether it agrees with what was seen from outside.

A histogram of a server comes as what its buckets rose by. Its mean is exact; a quantile is interpolated in a straight
line inside the bucket that holds it, as Prometheus' `histogram_quantile` does, and is no better than that bucket is
wide.

The time to the first token is the server's queue and prefill, and a rest: network, client, and whatever of the queue
the server does not tell. The rest cannot be below 0; where it is, one of the two is mistaken, and the level says so.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from loadbench.record.outcome import Outcome
from loadbench.results.run import Reason
from loadbench.results.telemetry import FirstToken, GaugeSpread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadbench.record.recorder import LevelRecording

# By what they measure, in seconds: the names that servers give it, newer ones first.
HISTOGRAMS = {
    "first_token_s": ("vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds"),
    "queue_s": ("vllm:request_queue_time_seconds", "sglang:queue_time_seconds", "tgi_request_queue_duration"),
    "prefill_s": ("vllm:request_prefill_time_seconds",),
    "decode_s": ("vllm:request_decode_time_seconds",),
    "inference_s": ("vllm:request_inference_time_seconds", "tgi_request_inference_duration"),
    "inter_token_s": (
        "vllm:inter_token_latency_seconds",
        "sglang:inter_token_latency_seconds",
        "vllm:time_per_output_token_seconds",
        "sglang:time_per_output_token_seconds",
    ),
    "time_per_token_s": (
        "vllm:request_time_per_output_token_seconds",
        "tgi_request_mean_time_per_token_duration",
    ),
    "e2e_s": ("vllm:e2e_request_latency_seconds", "sglang:e2e_request_latency_seconds", "tgi_request_duration"),
}
_BUCKET = re.compile(r'(.+)\{le="(.+)"\}')
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
# Where a client is late to note that it has sent, what it sees is too short: of more than a few that is no accident.
_MOST_CONTRADICTED = 0.05
# The server's histograms are of all requests, the warm-up's too: a mean may differ by this much and prove nothing.
_MEANS_WITHIN = 0.2
_MEANS_WITHIN_S = 0.001


def server_histograms(rose: Mapping[str, float] | None) -> dict[str, GaugeSpread]:
    """The histograms among what the server's page rose by, by what they measure."""
    found = {}
    for what, names in HISTOGRAMS.items():
        name = next((name for name in names if (rose or {}).get(f"{name}{{count}}")), None)
        if rose is not None and name is not None:
            found[what] = _spread(rose, name)
    return found


def _spread(rose: Mapping[str, float], name: str) -> GaugeSpread:
    count = rose[f"{name}{{count}}"]
    buckets = sorted(_buckets(rose, name))
    points = {point: bucket_quantile(buckets, p) for point, p in _QUANTILES.items()}
    return GaugeSpread(source=name, count=round(count), mean=rose.get(f"{name}{{sum}}", 0.0) / count, **points)


def _buckets(rose: Mapping[str, float], name: str) -> Iterator[tuple[float, float]]:
    """(upper bound, how many are at or below it)."""
    for key, count in rose.items():
        match = _BUCKET.fullmatch(key)
        if match is not None and match[1] == name:
            try:
                yield float(match[2]), count
            except ValueError:
                continue


def bucket_quantile(buckets: Sequence[tuple[float, float]], p: float) -> float | None:
    """The p-quantile by cumulative buckets in order; `None` in the last one, which is open, and without any."""
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank = p * buckets[-1][1]
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            return low + (bound - low) * (rank - below) / (count - below) if math.isfinite(bound) else None
        low, below = bound, count
    return None


def first_token(recording: LevelRecording, told: Mapping[str, GaugeSpread]) -> FirstToken | None:
    """Where the mean time to the first token went; `None` where the server does not tell enough of it."""
    client_ns = recording.histograms["ttft"].mean
    if client_ns is None:
        return None
    return _by_timings(recording, client_ns / 1e9) or _by_histograms(told, client_ns / 1e9)


def _by_timings(recording: LevelRecording, client_s: float) -> FirstToken | None:
    """Only where every answer told of itself: else the means would be of different requests."""
    prefill, queue = (recording.histograms.get(name) for name in ("server_prefill", "server_queue"))
    if prefill is None or prefill.mean is None or prefill.count != recording.histograms["ttft"].count:
        return None
    queue_ns = queue.mean if queue is not None and queue.count == prefill.count else None
    server_s = (prefill.mean + (queue_ns or 0)) / 1e9
    return FirstToken(
        source="timings",
        count=prefill.count,
        client_s=client_s,
        queue_s=None if queue_ns is None else queue_ns / 1e9,
        prefill_s=prefill.mean / 1e9,
        rest_s=client_s - server_s,
    )


def _by_histograms(told: Mapping[str, GaugeSpread], client_s: float) -> FirstToken | None:
    """These servers count the time to the first token from when the request came in, so their queue is part of it."""
    whole, queue = told.get("first_token_s"), told.get("queue_s")
    if whole is None:
        return None
    return FirstToken(
        source=whole.source,
        count=whole.count,
        client_s=client_s,
        queue_s=None if queue is None else queue.mean,
        prefill_s=whole.mean - (0.0 if queue is None else queue.mean),
        rest_s=client_s - whole.mean,
    )


def contradictions(recording: LevelRecording, found: FirstToken | None) -> list[Reason]:
    """The caveat of a level whose server tells of a longer way to the first token than was seen from outside."""
    answered = recording.outcomes.get(Outcome.OK, 0)
    advice = "one of the two counts otherwise, or other requests than these, or the client is late: see the verdict"
    if recording.contradicted > _MOST_CONTRADICTED * answered:
        what = f"of {recording.contradicted} of {answered} answers the server tells a longer way to the first token"
        return [Reason("server_contradicts", f"{what} than was seen", advice)]
    if found is None or found.source == "timings":
        return []
    if -found.rest_s > _MEANS_WITHIN_S + _MEANS_WITHIN * found.client_s:
        server_s = found.client_s - found.rest_s
        what = f"the server tells {server_s:.3g} s to the first token on average, and {found.client_s:.3g} s were seen"
        return [Reason("server_contradicts", what, advice)]
    return []
