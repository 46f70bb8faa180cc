"""A server's own counters, as it tells them in Prometheus' text format at `/metrics`: read before and after a level.

Only what counts up is taken, summed over all labels: a family has one line for each engine, model and reason. Gauges
and histograms say how it is at the moment or how it was spread, and neither is wanted here. Many servers have no such
page; that is no failure, and nothing is said about it. The page is never asked for while a level runs.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit, urlunsplit

import anyio
import httpx
import orjson

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

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
# TGI's counters, whose names do not end as a counter's should. A declaration alone is not enough: llama.cpp declares an
# average, `n_busy_slots_per_decode`, as a counter.
_BARE = frozenset({"tgi_request_count", "tgi_request_success", "tgi_request_failure"})
# Of the process that happens to answer, where there are several.
_OF_A_PROCESS = ("python_", "process_")
# No count, nor a sum of some, comes near this; sums and differences of what is below stay finite.
_MOST = 1e30


async def counters(target: Target) -> dict[str, float] | None:
    """The counters of the server by family, asked for as a request is, with its headers and TLS; `None` for none."""
    parts = urlsplit(target.base_url)
    url = urlunsplit((parts.scheme, parts.netloc, "/metrics", "", ""))
    headers = [*target.headers, ("accept", "text/plain"), ("accept-encoding", "identity")]
    with anyio.move_on_after(_TIMEOUT_S):
        try:
            async with httpx.AsyncClient(
                verify=target.tls or False, trust_env=False, timeout=_TIMEOUT_S, headers=headers
            ) as http:
                body = await _page(http, url)
        except (httpx.HTTPError, httpx.InvalidURL):
            return None
        return parse_metrics(body.decode(errors="replace")) or None
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
