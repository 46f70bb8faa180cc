"""The server's own metrics, in Prometheus' text format at `/metrics`.

Before and after each level its counters are read, summed over all labels, because a family has one line for each
engine, model and reason. The buckets of histograms are counters as well: their keys are `family{le="0.1"}`,
`family{sum}` and `family{count}`, so that a brace tells them from other counters, and their increase is the level's own
histogram.

During a level the gauges are read, if the page is fast: the running and the waiting requests, and the use of KV memory.
Only these lines are parsed, so that the load's event loop is blocked for less than a millisecond. A page that is large
or slow is not read before the level is over.

Many servers have no such page. That is not an error, and nothing is reported.
"""

from __future__ import annotations

import re
import zlib
from contextlib import AsyncExitStack, aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import anyio
import orjson

from loadbench.client.fast_transport import FastTransport
from loadbench.client.transport import HttpRequest, TransportError
from loadbench.core.bounded import parse_json
from loadbench.core.secrets import Secrets
from loadbench.core.units import NS_PER_S
from loadbench.targets.http_get import SECRET_PIECE, ResponseSink, TooLongError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadbench.core.clock import Clock
    from loadbench.targets.target import Target

# A server with many engines and histograms sends a few hundred kB.
_MOST_BYTES = 4 * 1024 * 1024
# The load waits for the page, which takes milliseconds to make.
_TIMEOUT_S = 2.0
# A name, its labels (whose values may contain any character) and a number; a time may follow. Nothing is tried twice.
_SAMPLE = re.compile(r'\s*([a-zA-Z_:][\w:]{0,199})(?:\{(?:[^"}]++|"(?:[^"\\]++|\\.)*+")*+\})?[ \t]+([^\s]+)', re.ASCII)
_TYPE = re.compile(r"#[ \t]+TYPE[ \t]+(\S+)[ \t]+(\w+)", re.ASCII)
# The declared type decides, not the name: there are gauges and histograms that end in `_total`.
_COUNTED = frozenset({"counter", "untyped", "unknown"})
_HISTOGRAM = re.compile(r"(.+)_(bucket|sum|count)")
_BOUND = re.compile(r'[{,]\s*le="([^"]+)"')
# Gauges by the names that servers use, newer ones first, and how those of several engines are combined.
GAUGES: Mapping[str, tuple[Callable[[list[float]], float], tuple[str, ...]]] = {
    "server_running": (
        sum,
        (
            "vllm:num_requests_running",
            "sglang:num_running_reqs",
            "tgi_batch_current_size",
            "llamacpp:requests_processing",
        ),
    ),
    "server_queued": (
        sum,
        ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "tgi_queue_size", "llamacpp:requests_deferred"),
    ),
    # A share: of several engines the fullest one runs out first.
    "server_kv_use": (
        max,
        (
            "vllm:kv_cache_usage_perc",
            "vllm:gpu_cache_usage_perc",
            "sglang:token_usage",
            "llamacpp:kv_cache_usage_ratio",
        ),
    ),
    "server_kv_tokens": (sum, ("sglang:num_used_tokens", "llamacpp:kv_cache_tokens")),
}
_GAUGE_LINES = re.compile(
    rf"^({'|'.join(re.escape(name) for _, names in GAUGES.values() for name in names)})"
    r'(?:\{(?:[^"}\n]++|"(?:[^"\\\n]++|\\.)*+")*+\})?[ \t]+([^\s]+)',
    re.ASCII | re.MULTILINE,
)
# A page that takes longer than this, or is larger, is not read during a level.
_QUICK_NS = 100_000_000
_QUICK_BYTES = 512 * 1024
# A busy server responds later: the pause is at least this multiple of the time that the page took.
_REST = 10
# TGI's counters, whose names do not end in `_total`. A declaration alone is not enough: llama.cpp declares an average,
# `n_busy_slots_per_decode`, as a counter.
_BARE = frozenset({"tgi_request_count", "tgi_request_success", "tgi_request_failure"})
# Counters of one process, of several that may respond.
_OF_A_PROCESS = ("python_", "process_")
# No count comes near this; sums and differences of smaller values stay finite.
_MOST = 1e30


async def counters(target: Target) -> dict[str, float] | None:
    """The server's counters; `None` if it has none. The request has the headers and TLS context of the target."""
    async with _transport(target) as transport:
        text = await _page(transport, target)
    secrets = Secrets(target.all_secrets, piece=SECRET_PIECE)
    found = {} if text is None else parse_metrics(text) | parse_histograms(text)
    return {secrets.hide(name): value for name, value in found.items()} or None


async def poll_gauges(
    *targets: Target, report: Callable[[int, Mapping[str, float]], None], clock: Clock, interval_ns: int
) -> None:
    """Report the gauges at intervals until cancelled, those of several servers as one server with several engines has
    them. Returns at once if one has none, or if a page is slow."""
    async with AsyncExitStack() as stack:
        transports = [await stack.enter_async_context(_transport(target)) for target in targets]

        async def pages() -> list[str]:
            return [await _page(one, target) or "" for one, target in zip(transports, targets, strict=True)]

        began_ns, texts = clock.now_ns(), await pages()
        is_slow = clock.now_ns() - began_ns > _QUICK_NS or sum(map(len, texts)) > _QUICK_BYTES
        if is_slow or not all(map(parse_gauges, texts)):
            return
        while True:
            if all(texts) and (gauges := parse_gauges("\n".join(texts))):
                report(began_ns, gauges)
            took_ns = clock.now_ns() - began_ns
            await anyio.sleep(max(interval_ns - took_ns, _REST * took_ns) / NS_PER_S)
            began_ns, texts = clock.now_ns(), await pages()


def _transport(target: Target) -> aclosing[FastTransport]:
    return aclosing(FastTransport(tls=target.tls, sources=target.sources))


async def _page(transport: FastTransport, target: Target) -> str | None:
    """The page's text; `None` if there is no page in time, empty if it is an error or too long."""
    parts = urlsplit(target.base_url)
    url = urlunsplit((parts.scheme, parts.netloc, "/metrics", target.query, ""))
    request, sink = HttpRequest("GET", url, (*target.headers, ("accept", "text/plain"))), ResponseSink(_MOST_BYTES)
    with anyio.move_on_after(_TIMEOUT_S):
        try:
            await transport.exchange(request, sink)
        except TooLongError:
            return ""
        except (TransportError, ValueError, zlib.error):
            return None
        return _unquoted(sink.body.decode(errors="replace")) if sink.status == HTTPStatus.OK else ""
    return None


def parse_metrics(text: str) -> dict[str, float]:
    """The counters of a page by family, each summed over its labels; unreadable lines are left out."""
    kinds: dict[str, str] = {}
    totals: dict[str, float] = {}
    for line in _unquoted(text).split("\n"):
        if declared := _TYPE.match(line):
            kinds[declared[1]] = declared[2]
        elif (sample := _SAMPLE.match(line)) and _counts(sample[1], kinds.get(sample[1], "unknown")):
            value = _number(sample[2])
            if value is not None:
                totals[sample[1]] = totals.get(sample[1], 0.0) + value
    return totals


def parse_histograms(text: str) -> dict[str, float]:
    """The histograms of a page: each bucket, sum and count, summed over all labels except the bucket's bound."""
    lines = _unquoted(text).split("\n")
    kinds = {declared[1]: declared[2] for declared in map(_TYPE.match, lines) if declared}
    totals: dict[str, float] = {}
    for line in lines:
        sample = _SAMPLE.match(line)
        part = None if sample is None else _HISTOGRAM.fullmatch(sample[1])
        if sample is None or part is None or kinds.get(part[1]) != "histogram":
            continue
        key, value = part[2], _number(sample[2])
        if key == "bucket":
            bound = _BOUND.search(sample[0])
            key = "" if bound is None else f'le="{bound[1]}"'
        if key and value is not None:
            name = f"{part[1]}{{{key}}}"
            totals[name] = totals.get(name, 0.0) + value
    return totals


def parse_gauges(text: str) -> dict[str, float]:
    """The gauges of `GAUGES` in a page, over all engines; the first name that the page has counts."""
    values: dict[str, list[float]] = {}
    for line in _GAUGE_LINES.finditer(text):
        value = _number(line[2])
        if value is not None:
            values.setdefault(line[1], []).append(value)
    gauges = {}
    for gauge, (combine, names) in GAUGES.items():
        of_engines = next((values[name] for name in names if name in values), None)
        if of_engines is not None:
            gauges[gauge] = combine(of_engines)
    return gauges


def _unquoted(text: str) -> str:
    """The page's text; some builds of llama.cpp send it as a JSON string."""
    if not text.startswith('"'):
        return text
    try:
        return str(parse_json(text))
    except orjson.JSONDecodeError:
        return ""


def _counts(name: str, kind: str) -> bool:
    return kind in _COUNTED and (name.endswith("_total") or name in _BARE) and not name.startswith(_OF_A_PROCESS)


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if 0 <= value < _MOST else None


def rise(before: Mapping[str, float], after: Mapping[str, float] | None) -> dict[str, float] | None:
    """The increase of each counter; `None` if one fell or all are gone, because then the server was restarted.

    A counter that is new started at 0: many first appear when there is something to count.
    """
    if after is None or any(after.get(name, 0.0) < value for name, value in before.items()):
        return None
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def total_rise(
    before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]] | None
) -> dict[str, float] | None:
    """The increase of each counter over all servers; `None` if one of them was restarted."""
    total: dict[str, float] = {}
    for number, of_server in enumerate(before):
        risen = rise(of_server, None if after is None else after[number])
        if risen is None:
            return None
        for name, amount in risen.items():
            total[name] = total.get(name, 0.0) + amount
    return total
