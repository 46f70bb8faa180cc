"""What the server says of itself: its histograms from their buckets, and its time to the first token beside ours."""

from __future__ import annotations

import dataclasses

import pytest

from loadbench.analyze.level.server_side import bucket_quantile, contradictions, first_token, server_histograms
from loadbench.analyze.level.summary import summarize
from loadbench.plan.load import Closed
from loadbench.record.timings import Timings
from tests.building import MS, S, a_recording, a_sample

INF = float("inf")
TTFT = "vllm:time_to_first_token_seconds"


@pytest.mark.parametrize(
    ("buckets", "p", "expected"),
    [
        # (upper bound, how many at or below)
        ([(1.0, 10), (2.0, 10), (INF, 10)], 0.5, 0.5),
        ([(1.0, 0), (2.0, 10), (INF, 10)], 0.5, 1.5),
        ([(1.0, 5), (2.0, 10), (INF, 10)], 0.9, 1.8),
        ([(1.0, 10), (INF, 10)], 1.0, 1.0),
        # The last bucket has no end: whatever lies in it is above its beginning.
        ([(1.0, 5), (INF, 10)], 0.9, None),
        ([(1.0, 0), (INF, 0)], 0.5, None),
        ([], 0.5, None),
    ],
)
def test_quantile_is_on_the_straight_line_through_its_bucket(buckets, p, expected):
    """As Prometheus does it."""
    assert bucket_quantile(buckets, p) == expected


def rose(name: str, *buckets: tuple[str, float], total: float, count: float) -> dict[str, float]:
    """What a histogram rose by, as it is scraped."""
    return {f'{name}{{le="{le}"}}': value for le, value in buckets} | {
        f"{name}{{sum}}": total,
        f"{name}{{count}}": count,
    }


def test_histograms_are_named_by_what_they_measure():
    """vLLM's and SGLang's names for the same; the mean is exact; other families and empty ones are left out."""
    told = rose(TTFT, ("0.1", 50), ("0.5", 100), ("+Inf", 100), total=20.0, count=100)
    told |= rose("sglang:queue_time_seconds", ("+Inf", 4), total=1.0, count=4)
    told |= rose("vllm:e2e_request_latency_seconds", ("+Inf", 0), total=0.0, count=0)
    told |= rose("vllm:iteration_tokens_total", ("+Inf", 9), total=77.0, count=9)
    found = server_histograms(told | {"vllm:generation_tokens_total": 5.0})
    assert found.keys() == {"first_token_s", "queue_s"}
    first = found["first_token_s"]
    assert (first.source, first.count, first.mean) == (TTFT, 100, 0.2)
    assert (first.p50, first.p90, first.p99) == pytest.approx((0.1, 0.42, 0.492))
    assert (found["queue_s"].mean, found["queue_s"].p50) == (0.25, None)


def test_newer_name_wins_over_the_older():
    """A server that tells both tells the same twice."""
    told = rose("vllm:inter_token_latency_seconds", total=3.0, count=10)
    told |= rose("vllm:time_per_output_token_seconds", total=9.0, count=10)
    assert server_histograms(told)["inter_token_s"].mean == 0.3


def test_no_page_has_no_histograms():
    """Nothing scraped, nothing told."""
    assert server_histograms(None) == server_histograms({}) == {}


def recording(*timings: Timings | None, ttft_ns: int = 100 * MS):
    """A level of answers with these timings."""
    return a_recording(a_sample(n, due_ns=n * S, ttft_ns=ttft_ns, timings=one) for n, one in enumerate(timings))


def test_rest_is_what_queue_and_prefill_leave_of_the_clients_time():
    """100 ms were seen, 10 ms of queue and 70 ms of prefill told: 20 ms are network and client."""
    told = [Timings(queue_ns=10 * MS, prefill_ns=70 * MS, decode_ns=200 * MS)] * 5
    found = first_token(recording(*told), {})
    assert found is not None
    assert (found.source, found.count) == ("timings", 5)
    assert (found.client_s, found.queue_s, found.prefill_s) == pytest.approx((0.1, 0.01, 0.07), rel=1e-3)
    assert found.rest_s == pytest.approx(0.02, rel=1e-2)


def test_queue_that_is_not_told_is_null_and_in_the_rest():
    """llama.cpp's timings begin when the slot does."""
    found = first_token(recording(*[Timings(prefill_ns=70 * MS)] * 3), {})
    assert found is not None
    assert found.queue_s is None
    assert found.rest_s == pytest.approx(0.03, rel=1e-2)


def test_timings_of_some_answers_only_make_no_account():
    """Means of different requests cannot be subtracted."""
    assert first_token(recording(Timings(prefill_ns=70 * MS), None, None), {}) is None


def test_histograms_serve_where_there_are_no_timings():
    """Of vLLM's 80 ms to the first token 30 ms were its queue."""
    told = server_histograms(
        rose(TTFT, total=0.8, count=10) | rose("vllm:request_queue_time_seconds", total=0.3, count=10)
    )
    found = first_token(recording(None, None), told)
    assert found is not None
    assert (found.source, found.count) == (TTFT, 10)
    assert (found.queue_s, found.prefill_s, found.rest_s) == pytest.approx((0.03, 0.05, 0.02), rel=1e-2)


def test_server_that_tells_nothing_has_no_account():
    """Nor has a level without answers."""
    assert first_token(recording(None), {}) is None
    assert first_token(recording(), server_histograms(rose(TTFT, total=0.8, count=10))) is None


@pytest.mark.parametrize(
    ("prefills_ms", "codes"),
    [
        ([90] * 20, []),
        ([100] * 20, []),
        # A millisecond is rounding; of one in twenty the client may have been late to note that it sent.
        ([100.9] * 20, []),
        ([150, *[90] * 19], []),
        ([150, 150, *[90] * 18], ["server_contradicts"]),
        ([150] * 20, ["server_contradicts"]),
    ],
)
def test_server_that_tells_a_longer_way_than_was_seen(prefills_ms, codes):
    """Inside cannot take longer than from outside: of more than a few answers that is a caveat of the level."""
    made = recording(*(Timings(prefill_ns=round(ms * MS)) for ms in prefills_ms))
    assert [reason.code for reason in contradictions(made, first_token(made, {}))] == codes


@pytest.mark.parametrize(("server_s", "codes"), [(0.09, []), (0.1205, []), (0.1215, ["server_contradicts"])])
def test_histograms_may_be_of_other_requests(server_s, codes):
    """Their mean holds the warm-up too: a fifth and 1 ms above what was seen prove nothing, more does."""
    made = recording(None, None)
    found = first_token(made, server_histograms(rose(TTFT, total=server_s * 10, count=10)))
    assert [reason.code for reason in contradictions(made, found)] == codes


def test_level_has_the_servers_times_as_metrics():
    """Queue, prefill, decode and rest have distributions where they are told, and are not there where not."""
    told = recording(*[Timings(queue_ns=10 * MS, prefill_ns=70 * MS, decode_ns=200 * MS)] * 8)
    level = summarize(told, target="t", model="m", load=Closed(1), failure_limit=0.01)
    means = {name: metric.mean for name, metric in level.metrics.items() if metric and name.startswith("server")}
    assert means == pytest.approx(
        {"server_queue_s": 0.01, "server_prefill_s": 0.07, "server_decode_s": 0.2, "server_rest_s": 0.02}, rel=1e-2
    )
    silent = summarize(recording(None), target="t", model="m", load=Closed(1), failure_limit=0.01)
    assert not [name for name in silent.metrics if name.startswith("server")]


def test_level_keeps_counters_and_histograms_apart():
    """`server` has what was counted, and no bucket; the histograms have their own place."""
    told = rose(TTFT, ("+Inf", 10), total=0.8, count=10) | {"vllm:generation_tokens_total": 50.0}
    made = dataclasses.replace(recording(None), server=told)
    level = summarize(made, target="t", model="m", load=Closed(1), failure_limit=0.01)
    assert level.server == {"vllm:generation_tokens_total": 50.0}
    assert level.server_histograms.keys() == {"first_token_s"}
    assert level.first_token is not None
