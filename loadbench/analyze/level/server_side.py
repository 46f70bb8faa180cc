"""What the server reports about itself, and whether it agrees with what was measured from outside.

A server's histogram is given as the increase of its buckets. Its mean is exact; a quantile is interpolated linearly
inside its bucket, like Prometheus' `histogram_quantile`, and is no more precise than that bucket is wide.

The time to first token is the server's queue and prefill plus a rest: network, client, and any part of the queue that
the server does not report. The rest cannot be negative; where it is, one of the two is wrong, and the level says so.
"""

from __future__ import annotations

import contextlib
import math
import re
from typing import TYPE_CHECKING

from loadbench.record.outcome import Outcome
from loadbench.results.run import Reason
from loadbench.results.telemetry import FirstTokenBreakdown, ServerHistogram

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.record.recorder import LevelRecording

# What the histograms measure, in seconds, and the names that servers use for it, newer ones first.
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
    "time_per_token_s": ("vllm:request_time_per_output_token_seconds", "tgi_request_mean_time_per_token_duration"),
    "e2e_s": ("vllm:e2e_request_latency_seconds", "sglang:e2e_request_latency_seconds", "tgi_request_duration"),
}
_BUCKET = re.compile(r'(.+)\{le="(.+)"\}')
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
# A client that stamps the sending late measures too short a time; more than a few such responses are no accident.
_MAX_CONTRADICTED = 0.05
# The server's histograms include all requests, also those of the warm-up: a smaller difference of means proves nothing.
_MEANS_WITHIN = 0.2
_MEANS_WITHIN_S = 0.001


def server_histograms(rose: Mapping[str, float] | None) -> dict[str, ServerHistogram]:
    """The histograms among the increases of a server's metrics, by what they measure."""
    result = {}
    for measure, names in HISTOGRAMS.items():
        name = next((name for name in names if (rose or {}).get(f"{name}{{count}}")), None)
        if rose is None or name is None:
            continue
        buckets = []
        for key, below in rose.items():
            match = _BUCKET.fullmatch(key)
            if match is not None and match[1] == name:
                with contextlib.suppress(ValueError):
                    buckets.append((float(match[2]), below))
        buckets.sort()
        count = rose[f"{name}{{count}}"]
        points = {point: bucket_quantile(buckets, p) for point, p in _QUANTILES.items()}
        mean = rose.get(f"{name}{{sum}}", 0.0) / count
        result[measure] = ServerHistogram(source=name, count=round(count), mean=mean, **points)
    return result


def bucket_quantile(buckets: Sequence[tuple[float, float]], p: float) -> float | None:
    """The p-quantile of cumulative buckets (upper bound, count at or below it) in order.

    `None` if it lies in the last bucket, which has no upper bound, or if there are no values.
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank = p * buckets[-1][1]
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            return low + (bound - low) * (rank - below) / (count - below) if math.isfinite(bound) else None
        low, below = bound, count
    return None


def first_token(recording: LevelRecording, histograms: Mapping[str, ServerHistogram]) -> FirstTokenBreakdown | None:
    """The parts of the mean time to first token; `None` where the server does not report enough of them."""
    client = recording.histograms["ttft"]
    if client.mean is None:
        return None
    client_s = client.mean / 1e9

    # By the timings in the responses, if every response has them: otherwise the means are of different requests.
    prefill, queue = (recording.histograms.get(name) for name in ("server_prefill", "server_queue"))
    if prefill is not None and prefill.mean is not None and prefill.count == client.count:
        queue_ns = queue.mean if queue is not None and queue.count == prefill.count else None
        return FirstTokenBreakdown(
            source="timings",
            count=prefill.count,
            client_s=client_s,
            queue_s=None if queue_ns is None else queue_ns / 1e9,
            prefill_s=prefill.mean / 1e9,
            rest_s=client_s - (prefill.mean + (queue_ns or 0)) / 1e9,
        )

    # By the server's histograms. These servers measure the time to first token from the request's arrival, so it
    # includes their queue.
    whole, waiting = histograms.get("first_token_s"), histograms.get("queue_s")
    if whole is None:
        return None
    return FirstTokenBreakdown(
        source=whole.source,
        count=whole.count,
        client_s=client_s,
        queue_s=None if waiting is None else waiting.mean,
        prefill_s=whole.mean - (0.0 if waiting is None else waiting.mean),
        rest_s=client_s - whole.mean,
    )


def contradictions(recording: LevelRecording, first: FirstTokenBreakdown | None) -> list[Reason]:
    """The caveat of a level whose server reports a longer time to first token than was measured from outside."""
    ok = recording.outcomes.get(Outcome.OK, 0)
    message = ""
    if recording.contradicted > _MAX_CONTRADICTED * ok:
        message = (
            f"for {recording.contradicted} of {ok} responses the server reports a longer time to first token "
            "than was measured"
        )
    elif first is None or first.source == "timings":
        return []
    elif -first.rest_s > _MEANS_WITHIN_S + _MEANS_WITHIN * first.client_s:
        message = (
            f"the server reports {first.client_s - first.rest_s:.3g} s to first token on average, "
            f"but {first.client_s:.3g} s were measured"
        )
    advice = "the server counts in another way: rely on the measured time, unless the verdict says loadbench read late"
    return [Reason("server_contradicts", message, advice)] if message else []
