"""One small GET to the server that is tested, with the headers and the TLS of the requests to come.

Its body and its time are limited, and every way to fail ends in `TargetUnavailable` with cause and remedy.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import httpx
import orjson

from loadbench.client.faults import explain
from loadbench.core.errors import TargetUnavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence

# A list of models is short; a server that sends more than this sends something else.
_MOST_BYTES = 8 * 1024 * 1024
_WITHIN_S = 30.0
# What is asked only to learn whether it is there: a server that is well answers at once.
_GLANCE_S = 5.0


@asynccontextmanager
async def http_client(
    headers: Sequence[tuple[str, str]], *, tls: ssl.SSLContext | None, connect_ns: int | None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client for such questions; proxies of the environment are none of its business."""
    timeout = httpx.Timeout(_WITHIN_S, connect=connect_ns / 1e9 if connect_ns else None)
    async with httpx.AsyncClient(verify=tls or False, trust_env=False, timeout=timeout, headers=list(headers)) as http:
        yield http


async def get(http: httpx.AsyncClient, url: str, *, within_s: float | None = None) -> httpx.Response:
    """The answer, whatever its status. Raises `TargetUnavailable` where there is none within the time."""
    patience_s = _WITHIN_S if within_s is None else within_s
    # httpx limits the time of each read, and a server can make many of one answer.
    connect_s = http.timeout.connect
    timeout = httpx.Timeout(patience_s if math.isfinite(patience_s) else None, connect=connect_s)
    try:
        with anyio.fail_after(patience_s + (math.inf if connect_s is None else connect_s)):
            return await _read(http, url, timeout)
    except (httpx.TimeoutException, TimeoutError) as error:
        what = "no connection" if isinstance(error, httpx.ConnectTimeout) else "no answer"
        raise TargetUnavailable(f"{url}: {what} in time", hint="check the address; is the server hung?") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        what, hint = explain(error)
        if isinstance(error, httpx.RemoteProtocolError):
            what, hint = f"it does not answer in HTTP ({what})", "is this the right port? does it expect https://?"
        raise TargetUnavailable(f"{url}: {what}", hint=hint) from None


async def get_json(http: httpx.AsyncClient, url: str) -> object:
    """The JSON there, or `None` for whatever else there may be: nothing, an error, a page."""
    try:
        response = await get(http, url, within_s=_GLANCE_S)
    except TargetUnavailable:
        return None
    return parse_json(response) if response.status_code == httpx.codes.OK else None


def parse_json(response: httpx.Response) -> object:
    """The JSON in an answer; `None` where it is none."""
    try:
        found: object = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None
    return found


async def _read(http: httpx.AsyncClient, url: str, timeout: httpx.Timeout) -> httpx.Response:
    async with http.stream("GET", url, timeout=timeout) as response:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > _MOST_BYTES:
                raise TargetUnavailable(f"{url}: the answer has no end", hint="is this the right address?")
        return httpx.Response(response.status_code, headers=_plain(response.headers), content=bytes(body))


def _plain(headers: httpx.Headers) -> dict[str, str]:
    """Without what described the body's coding, which has been undone."""
    return {name: text for name, text in headers.items() if name not in {"content-encoding", "transfer-encoding"}}
