"""What a server tells of itself in Prometheus' text format at `/metrics`.

Read before and after each level: what counts up, summed over all labels, for a family has one line for each engine,
model and reason. Histograms count too, bucket by bucket: their keys are `family{le="0.1"}`, `family{sum}` and
`family{count}`, so that a brace tells them from counters, and their rise is the level's own histogram.

Read while levels run, if the page is a quick one: how many requests the server works on, how many wait, how full its
KV memory is. Only those lines are looked at, so that the load's event loop is held for less than a millisecond; a page
that is large or slow is left alone until the level is over.

Many servers have no such page; that is no failure, and nothing is said about it.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit, urlunsplit

import anyio
import httpx
import orjson

from loadbench.core.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from loadbench.core.clock import Clock
    from loadbench.targets.openai import Target

# A server with many engines and histograms tells some hundred kB.
_MOST_BYTES = 4 * 1024 * 1024
# The load waits for it, and a page that is made from memory takes milliseconds.
_TIMEOUT_S = 2.0
# A name, its labels (whose texts may hold every character), a number; a time may follow.
_SAMPLE = re.compile(r'\s*([a-zA-Z_:][\w:]{0,199})(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?[ \t]+([^\s]+)', re.ASCII)
_TYPE = re.compile(r"#[ \t]+TYPE[ \t]+(\S+)[ \t]+(\w+)", re.ASCII)
# Of what is declared otherwise the name says nothing: there are gauges and histograms that end in `_total`.
_COUNTED = frozenset({"counter", "untyped", "unknown"})
_HISTOGRAM = re.compile(r"(.+)_(bucket|sum|count)")
_BOUND = re.compile(r'[{,]\s*le="([^"]+)"')
# Gauges by the names that servers give them, newer ones first, and how those of several engines are put together.
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
    # A share: of several engines the fullest is the first to be short.
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
    r'(?:\{(?:[^"}\n]|"(?:[^"\\\n]|\\.)*")*\})?[ \t]+([^\s]+)',
    re.ASCII | re.MULTILINE,
)
# A page that took longer than this, or is larger, is not asked for while a level runs.
_QUICK_NS = 100_000_000
_QUICK_BYTES = 512 * 1024
# A busy server answers later: it is let alone for so many times as long as it took.
_REST = 10
# TGI's counters, whose names do not end as a counter's should. A declaration alone is not enough: llama.cpp declares an
# average, `n_busy_slots_per_decode`, as a counter.
_BARE = frozenset({"tgi_request_count", "tgi_request_success", "tgi_request_failure"})
# Of the process that happens to answer, where there are several.
_OF_A_PROCESS = ("python_", "process_")
# No count, nor a sum of some, comes near this; sums and differences of what is below stay finite.
_MOST = 1e30


async def counters(target: Target) -> dict[str, float] | None:
    """What counts up, asked for as a request is, with its headers and TLS; `None` for nothing of the kind."""
    async with _client(target) as http:
        text = await _asked(http, target)
    return None if text is None else (parse_metrics(text) | parse_histograms(text)) or None


async def poll_gauges(
    target: Target, tell: Callable[[int, Mapping[str, float]], None], *, clock: Clock, interval_ns: int
) -> None:
    """Tell the gauges at intervals, until cancelled; ends where at first there are none, or the page is not quick."""
    async with _client(target) as http:
        began_ns, text = clock.now_ns(), await _asked(http, target)
        if text is None or clock.now_ns() - began_ns > _QUICK_NS or len(text) > _QUICK_BYTES or not parse_gauges(text):
            return
        while True:
            if found := parse_gauges(text or ""):
                tell(began_ns, found)
            took_ns = clock.now_ns() - began_ns
            await anyio.sleep(max(interval_ns - took_ns, _REST * took_ns) / NS_PER_S)
            began_ns, text = clock.now_ns(), await _asked(http, target)


def _client(target: Target) -> httpx.AsyncClient:
    headers = [*target.headers, ("accept", "text/plain"), ("accept-encoding", "identity")]
    return httpx.AsyncClient(verify=target.tls or False, trust_env=False, timeout=_TIMEOUT_S, headers=headers)


async def _asked(http: httpx.AsyncClient, target: Target) -> str | None:
    """The page's text; `None` where there is none in time."""
    parts = urlsplit(target.base_url)
    url = urlunsplit((parts.scheme, parts.netloc, "/metrics", "", ""))
    with anyio.move_on_after(_TIMEOUT_S):
        try:
            body = await _page(http, url)
        except (httpx.HTTPError, httpx.InvalidURL):
            return None
        return _unquoted(body.decode(errors="replace"))
    return None


async def _page(http: httpx.AsyncClient, url: str) -> bytes:
    """The body as it was sent; empty where there is no such page, or it has no end."""
    async with http.stream("GET", url) as response:
        if response.status_code != httpx.codes.OK:
            return b""
        body = bytearray()
        async with aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > _MOST_BYTES:
                    return b""
    return bytes(body)


def parse_metrics(text: str) -> dict[str, float]:
    """The counters in a page by family, each summed over its labels; what cannot be read is left out."""
    kinds: dict[str, str] = {}
    found: dict[str, float] = {}
    for line in _unquoted(text).split("\n"):
        if declared := _TYPE.match(line):
            kinds[declared[1]] = declared[2]
        elif (sample := _SAMPLE.match(line)) and _counts(sample[1], kinds.get(sample[1], "unknown")):
            value = _number(sample[2])
            if value is not None:
                found[sample[1]] = found.get(sample[1], 0.0) + value
    return found


def parse_histograms(text: str) -> dict[str, float]:
    """The histograms in a page: what each bucket, sum and count holds, summed over all labels but the bucket's."""
    lines = _unquoted(text).split("\n")
    kinds = {declared[1]: declared[2] for declared in map(_TYPE.match, lines) if declared}
    found: dict[str, float] = {}
    for line in lines:
        sample = _SAMPLE.match(line)
        part = None if sample is None else _HISTOGRAM.fullmatch(sample[1])
        if sample is None or part is None or kinds.get(part[1]) != "histogram":
            continue
        key = _part(part[2], sample[0])
        value = _number(sample[2])
        if key is not None and value is not None:
            name = f"{part[1]}{{{key}}}"
            found[name] = found.get(name, 0.0) + value
    return found


def _part(part: str, line: str) -> str | None:
    """Which part of a histogram a line is; a bucket without its bound is none."""
    if part != "bucket":
        return part
    bound = _BOUND.search(line)
    return None if bound is None else f'le="{bound[1]}"'


def parse_gauges(text: str) -> dict[str, float]:
    """The gauges of `GAUGES` that a page has, over all engines. Only the first name that is there counts."""
    values: dict[str, list[float]] = {}
    for line in _GAUGE_LINES.finditer(text):
        value = _number(line[2])
        if value is not None:
            values.setdefault(line[1], []).append(value)
    found = {}
    for gauge, (combine, names) in GAUGES.items():
        named = next((values[name] for name in names if name in values), None)
        if named is not None:
            found[gauge] = combine(named)
    return found


def _unquoted(text: str) -> str:
    """The page itself; some builds of llama.cpp send it as a JSON string."""
    if not text.startswith('"'):
        return text
    try:
        return str(orjson.loads(text))
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
    """By how much each counter rose; `None` where one fell or all are gone: then the server began anew.

    A counter that was not there before stood at 0: many are first told when there is something to count.
    """
    if after is None or any(after.get(name, 0.0) < value for name, value in before.items()):
        return None
    return {name: value - before.get(name, 0.0) for name, value in after.items()}
