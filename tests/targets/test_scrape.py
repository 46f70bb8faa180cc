"""The server's own counters: what each engine's page says, and every way not to have one."""

from __future__ import annotations

import asyncio
import ssl

import orjson
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from loadbench.client import fast_transport
from loadbench.client.tls import tls_context
from loadbench.core.clock import MonotonicClock
from loadbench.plan.sim_profile import PROFILES
from loadbench.sim.server import serve
from loadbench.targets import scrape
from loadbench.targets.scrape import counters, parse_gauges, parse_histograms, parse_metrics, poll_gauges, rise
from loadbench.targets.target import Target
from tests.client.server import ASK, CLOSE, END, GONE, RST, chunk, head, serving, whole

VLLM = """\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 10207.0
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 12.5
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.42
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="m"} 4.0
vllm:num_preemptions_total{engine="1",model_name="m"} 3.0
# TYPE vllm:num_preemptions_created gauge
vllm:num_preemptions_created{engine="0",model_name="m"} 1.75e+09
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 1.2345e+06
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 480.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 20.0
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 5.0
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="m"} 9.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 9.0
vllm:iteration_tokens_total_sum{engine="0",model_name="m"} 77.0
"""
SGLANG = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m",tp_rank="0"} 4.0
# TYPE sglang:prompt_tokens_total counter
sglang:prompt_tokens_total{model_name="m"} 8.128902e+06
# TYPE sglang:generation_tokens_total counter
sglang:generation_tokens_total{model_name="m"} 7.557572e+06
# TYPE sglang:num_retracted_requests_total counter
sglang:num_retracted_requests_total{model_name="m",tp_rank="0"} 2.0
# TYPE sglang:num_requests_total counter
sglang:num_requests_total{model_name="m"} 42.0
# TYPE sglang:time_to_first_token_seconds histogram
sglang:time_to_first_token_seconds_sum{model_name="m"} 2.3
sglang:time_to_first_token_seconds_count{model_name="m"} 42.0
"""
TGI = """\
# TYPE tgi_request_count counter
tgi_request_count 12
# TYPE tgi_request_success counter
tgi_request_success{method="batch",stop_reason="length"} 5
tgi_request_success{method="batch",stop_reason="stop_sequence"} 4
# TYPE tgi_request_failure counter
tgi_request_failure{err="validation"} 1
# TYPE tgi_queue_size gauge
tgi_queue_size 0
# TYPE tgi_request_duration histogram
tgi_request_duration_bucket{le="+Inf"} 9
tgi_request_duration_sum 31.5
tgi_request_duration_count 9
"""
LLAMACPP = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 1024
# HELP llamacpp:tokens_predicted_seconds_total Predict process time
# TYPE llamacpp:tokens_predicted_seconds_total counter
llamacpp:tokens_predicted_seconds_total 3.251
# HELP llamacpp:n_busy_slots_per_decode Average number of busy slots per llama_decode() call
# TYPE llamacpp:n_busy_slots_per_decode counter
llamacpp:n_busy_slots_per_decode 1.75
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 0
"""
OF_LLAMACPP = {"llamacpp:prompt_tokens_total": 1024, "llamacpp:tokens_predicted_seconds_total": 3.251}


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (
            VLLM,
            {
                "vllm:num_preemptions_total": 7,
                "vllm:generation_tokens_total": 1_234_500,
                "vllm:request_success_total": 500,
            },
        ),
        (
            SGLANG,
            {
                "sglang:prompt_tokens_total": 8_128_902,
                "sglang:generation_tokens_total": 7_557_572,
                "sglang:num_retracted_requests_total": 2,
                "sglang:num_requests_total": 42,
            },
        ),
        (TGI, {"tgi_request_count": 12, "tgi_request_success": 9, "tgi_request_failure": 1}),
        (LLAMACPP, OF_LLAMACPP),
        (orjson.dumps(LLAMACPP).decode(), OF_LLAMACPP),
        (LLAMACPP.replace("\n", "\r\n"), OF_LLAMACPP),
    ],
    ids=["vllm", "sglang", "tgi", "llama.cpp", "llama.cpp as a JSON string", "lines that end in CRLF"],
)
def test_counters_of_each_engine(page, expected):
    """What counts up is there, summed over engines and reasons; gauges, histograms, averages and processes are not."""
    assert parse_metrics(page) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x_total 1", {"x_total": 1}),
        ("x_total 1 1760000000000", {"x_total": 1}),
        ('x_total{a="} 9",b="\\"{"} 1', {"x_total": 1}),
        ("x_total{} 1", {"x_total": 1}),
        ("x_total{a='b'} 1", {"x_total": 1}),
        ("  x_total\t1", {"x_total": 1}),
        ("# TYPE x counter\nx_total 1\n# EOF", {"x_total": 1}),
        ("# TYPE x_total gauge\nx_total 1", {}),
        ("x_total NaN", {}),
        ("x_total +Inf", {}),
        ("x_total -1", {}),
        ("x_total 1e308", {}),
        ("x_total many", {}),
        ("x_total", {}),
        ('x_total{a="b 1', {}),
        ("9_total 1", {}),
        ("x" * 300 + "_total 1", {}),
        ("x_count 1", {}),
        ('"not closed', {}),
        ("", {}),
        ("<!doctype html>\n<p>x_total 1</p>", {}),
    ],
)
def test_line(line, expected):
    """Labels may hold every character, a time may follow; what is no count of anything is left out, alone."""
    assert parse_metrics(line) == expected
    if not line.startswith('"'):
        assert parse_metrics(f"{line}\ny_total 2\n") == expected | {"y_total": 2}


@given(st.text(alphabet=st.sampled_from('"{}\\,= \t\n#_total1TYPEx:é')), st.text())
def test_any_text_is_read_without_an_error(page, other):
    """Whatever a server says there, counters are finite numbers by name."""
    for text in (page, other, f'x_total{{a="{page}"}} 1'):
        assert all(0 <= value < 1e300 and name for name, value in parse_metrics(text).items())


COUNTS = st.dictionaries(st.sampled_from(["a_total", "b_total", "c_total"]), st.integers(0, 10).map(float))


@given(COUNTS, COUNTS)
def test_counters_that_only_rise_rise_by_what_was_added(before, added):
    """What is added to counters is their rise, of those too that were not there before; taken back it is a restart."""
    after = {name: before.get(name, 0.0) + added.get(name, 0.0) for name in before | added}
    assert rise(before, after) == {name: added.get(name, 0.0) for name in after}
    assert (rise(after, before) is None) is any(added.values())
    assert rise(before, None) is None


# Histograms and gauges.

QUEUE = """\
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{engine="0",le="0.3",model_name="m"} 5.0
vllm:request_queue_time_seconds_bucket{engine="0",le="+Inf",model_name="m"} 9.0
vllm:request_queue_time_seconds_count{engine="0",model_name="m"} 9.0
vllm:request_queue_time_seconds_sum{engine="0",model_name="m"} 7.5
vllm:request_queue_time_seconds_bucket{engine="1",le="0.3",model_name="m"} 1.0
vllm:request_queue_time_seconds_bucket{engine="1",le="+Inf",model_name="m"} 1.0
vllm:request_queue_time_seconds_count{engine="1",model_name="m"} 1.0
vllm:request_queue_time_seconds_sum{engine="1",model_name="m"} 0.1
# TYPE vllm:request_queue_time_seconds_created gauge
vllm:request_queue_time_seconds_created{engine="0",model_name="m"} 1.75e+09
"""


def test_histogram_is_summed_over_engines_bucket_by_bucket():
    """Every label but the bucket's own is added up; what is no part of a histogram is left out."""
    assert parse_histograms(QUEUE + LLAMACPP) == {
        'vllm:request_queue_time_seconds{le="0.3"}': 6,
        'vllm:request_queue_time_seconds{le="+Inf"}': 10,
        "vllm:request_queue_time_seconds{count}": 10,
        "vllm:request_queue_time_seconds{sum}": 7.6,
    }


def test_histograms_that_began_anew_are_a_restart():
    """They count as counters do."""
    before, after = parse_histograms(QUEUE), parse_histograms(QUEUE.replace("9.0", "4.0"))
    assert rise(before, before) == dict.fromkeys(before, 0.0)
    assert rise(before, after) is None


@pytest.mark.parametrize(
    "line",
    ["x_bucket{} 1", "x_bucket 1", 'x_bucket{le="1"} NaN', 'x_bucket{xle="1"} 1', "x_sum -1", "x 1", 'x_bucket{le="'],
)
def test_line_that_is_no_part_of_a_histogram(line):
    """A bucket without its bound, a value that is no count: left out, alone."""
    assert parse_histograms(f"# TYPE x histogram\n{line}\nx_count 2\n") == {"x{count}": 2}


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (VLLM, {"server_running": 3, "server_kv_use": 0.42}),
        (SGLANG, {"server_running": 4}),
        (TGI, {"server_queued": 0}),
        (LLAMACPP, {"server_running": 0}),
        # Requests of several engines are added up; of their memories the fullest counts.
        (
            VLLM + 'vllm:num_requests_running{engine="1"} 4\nvllm:kv_cache_usage_perc{engine="1"} 0.9\n',
            {"server_running": 7, "server_kv_use": 0.9},
        ),
        # The older name serves where the newer is not there, and not beside it.
        ("vllm:gpu_cache_usage_perc 0.5\n", {"server_kv_use": 0.5}),
        ("vllm:gpu_cache_usage_perc 0.5\nvllm:kv_cache_usage_perc 0.4\n", {"server_kv_use": 0.4}),
        ("# vllm:num_requests_running 3\nxvllm:num_requests_running 3\nvllm:num_requests_running_x 3\n", {}),
        ('vllm:num_requests_running{a="} 9"} 3 1760000000\n', {"server_running": 3}),
        ("vllm:num_requests_running NaN\n", {}),
        ("", {}),
    ],
)
def test_gauges_of_each_engine(page, expected):
    """Running, queued and KV memory by whichever name the server gives them."""
    assert parse_gauges(page) == expected


@given(st.text(alphabet=st.sampled_from('"{}\\,= \t\n#_sumcountbuckletle0.1TYPEhistogramx:é')), st.text())
def test_any_text_holds_finite_histograms_and_gauges(page, other):
    """Whatever a server says there."""
    for text in (page, other, f"# TYPE x histogram\n{page}", f"vllm:num_requests_running{{{page}}} 1"):
        assert all(0 <= value < 1e300 for value in (parse_histograms(text) | parse_gauges(text)).values())


# Over sockets.


def scraped(*script, served_by=None, **over):
    """The counters of a server of this script, and the requests that it saw."""

    async def main():
        async with serving(list(script), tls=served_by) as server:
            base_url = server.url("http" if served_by is None else "https")
            return await counters(Target(base_url=base_url, **over)), server.requests

    return asyncio.run(main())


def page(text: str, *, status: str = "200 OK", more: bytes = b"") -> bytes:
    """An answer with this page."""
    return whole(status, text.encode(), kind="text/plain; version=0.0.4", more=more)


def test_page_lies_at_the_servers_root_and_is_asked_for_as_the_target_is():
    """`/metrics` of host and port, whatever the API's path, with the target's own headers."""
    found, (request,) = scraped(ASK, page(LLAMACPP), GONE, headers=(("authorization", "Bearer k"), ("x-a", "b")))
    assert found == OF_LLAMACPP
    assert request.line == "GET /metrics HTTP/1.1"
    assert (request.headers["authorization"], request.headers["x-a"]) == ("Bearer k", "b")


def test_page_in_chunks_without_a_length():
    """As servers in Python send it."""
    text = LLAMACPP.encode()
    plain = head(headers=b"content-type: text/plain\r\ntransfer-encoding: chunked\r\n")
    found, _ = scraped(ASK, plain + chunk(text[:100]), chunk(text[100:]) + END, GONE)
    assert found == OF_LLAMACPP


def test_page_of_a_server_with_tls():
    """The target's own trust holds here, too; without it there are no counters."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trusting = tls_context()
    authority.configure_trust(trusting)
    assert scraped(ASK, page(LLAMACPP), GONE, served_by=server, tls=trusting)[0] == OF_LLAMACPP
    assert scraped(ASK, page(LLAMACPP), GONE, served_by=server, tls=tls_context())[0] is None


@pytest.mark.parametrize(
    "script",
    [
        [ASK, page(LLAMACPP, status="404 Not Found"), GONE],
        [ASK, page(LLAMACPP, status="501 Not Implemented"), GONE],
        [ASK, page(LLAMACPP, status="302 Found", more=b"location: /elsewhere\r\n"), GONE],
        [ASK, whole("200 OK", b"<!doctype html><h1>x_total 1</h1>", kind="text/html"), GONE],
        [ASK, whole("200 OK", b'{"error":"x_total 1"}'), GONE],
        [ASK, whole("200 OK", b'"x_total'), GONE],
        [ASK, whole("200 OK", b"\xff\xfe\x00"), GONE],
        [ASK, page(""), GONE],
        [ASK, CLOSE],
        [ASK, RST],
        [ASK, b"SSH-2.0-x\r\n", CLOSE],
        [ASK, page(LLAMACPP)[:-20], CLOSE],
        [CLOSE],
    ],
)
def test_server_without_such_a_page_has_no_counters(script):
    """No page, another page, half a page, a redirect: silently none, and asked for once."""
    found, requests = scraped(*script)
    assert found is None
    assert len(requests) <= 1


def watched(*script, for_s: float, interval_ns: int = 20_000_000):
    """What the gauges of a server of this script were while it was watched, and its requests."""
    told = []

    async def main():
        async with serving(list(script)) as server:
            target = Target(base_url=server.url("http"))
            with scrape.anyio.move_on_after(for_s):
                await poll_gauges(
                    target,
                    report=lambda _at, values: told.append(values),
                    clock=MonotonicClock(),
                    interval_ns=interval_ns,
                )
            return server.requests

    return told, asyncio.run(main())


def test_gauges_are_told_again_and_again_over_one_connection():
    """At intervals, until nobody listens any more; a look that brings nothing is not told, and not the end."""
    looks = [ASK, page(VLLM), ASK, page("x_total 1\n"), ASK, page(VLLM.replace("} 3.0", "} 5.0"))]
    told, requests = watched(*looks, ASK, GONE, for_s=2.0)
    assert [values["server_running"] for values in told[:2]] == [3, 5]
    assert {request.headers["accept"] for request in requests} == {"text/plain"}


@pytest.mark.parametrize(
    "script",
    [
        [ASK, page("x_total 1\n"), GONE],
        [ASK, page("", status="404 Not Found"), GONE],
        [ASK, 0.3, page(VLLM), GONE],
        [ASK, page(VLLM + "# more\n" * 80_000), GONE],
        [CLOSE],
    ],
    ids=["no gauge", "no page", "slow", "large", "gone"],
)
def test_page_without_gauges_or_that_is_not_quick_is_looked_at_once(script):
    """A server that has trouble making its page is not asked for it while it has a load to bear."""
    told, requests = watched(*script, for_s=10.0)
    assert told == []
    assert len(requests) <= 1


def test_nobody_there_has_no_counters():
    """As after a server has died."""
    assert asyncio.run(counters(Target(base_url="http://127.0.0.1:1/v1"))) is None


def test_page_without_an_end_is_given_up(monkeypatch):
    """No more is read than any page has, though each line of it was good; one that is as long as that is read."""
    monkeypatch.setattr(scrape, "_MOST_BYTES", 40_000)
    until_closed = head(headers=b"content-type: text/plain\r\n")
    assert scraped(ASK, until_closed + b"x_total 1\n" * 4_000, CLOSE)[0] == {"x_total": 4_000}
    assert scraped(ASK, until_closed + b"x_total 1\n" * 4_001, CLOSE)[0] is None


@pytest.mark.parametrize(
    "script",
    [
        [ASK, 5.0, page(LLAMACPP), GONE],
        [ASK, head() + chunk(LLAMACPP.encode()), *[0.05, chunk(b"# more\n")] * 100, END, GONE],
    ],
)
def test_server_that_dawdles_is_not_waited_for(monkeypatch, script):
    """Neither for the page's first byte nor, drop by drop, for its last: a good page that takes 5 s is not had."""
    monkeypatch.setattr(scrape, "_TIMEOUT_S", 0.2)
    found, (request,) = scraped(*script)
    assert found is None
    assert request.line == "GET /metrics HTTP/1.1"


def test_simulated_server_has_counters():
    """Its own page is read as any other's: after no request all is at 0, by outcomes as by tokens."""

    async def main():
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stop = scrape.anyio.Event()
        serving_it = asyncio.create_task(serve(PROFILES["slot-server"], on_ready=ready.set_result, stop=stop))
        found = await counters(Target(base_url=f"{await ready}/v1"))
        stop.set()
        await serving_it
        return found

    names = ("output_tokens", "prompt_tokens", "requests", "steps")
    assert asyncio.run(main()) == {f"loadbench_sim:{name}_total": 0.0 for name in names}


def test_the_page_is_asked_for_as_text_alone():
    """A server may look at the first header of a name only."""

    _, sent = fast_transport._head("GET", "http://a/metrics", (("accept", "text/plain"), ("x", "y")))
    assert sent.decode().split("\r\n")[2:] == ["accept-encoding: identity", "accept: text/plain", "x: y", ""]
    assert b"accept: text/event-stream, " in fast_transport._head("POST", "http://a/v1", ())[1]
