"""Small GET requests to the server under test, with the headers and the TLS context of the measured requests.

Size and time of a response are limited. Every failure raises `TargetUnavailable` with its cause and remedy.
"""

from __future__ import annotations

import math
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import orjson

from loadbench.client.faults import explain
from loadbench.client.lean_httpx import httpx
from loadbench.core import bounded
from loadbench.core.errors import TargetUnavailable
from loadbench.core.secrets import Secrets
from loadbench.core.units import NS_PER_S
from loadbench.plan.server_url import origin_of, shown_url, with_query
from loadbench.wire.openai import clean

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Sequence

    from loadbench.plan.settings import LimitSettings

# A list of models is short; a server that sends more than this sends something else.
_MOST_BYTES = 8 * 1024 * 1024
_WITHIN_S = 30.0
# For a route that may not exist: a healthy server responds at once.
_QUICK_S = 5.0
# gzip, which may have several members, and deflate, which some servers send without the frame that it should have.
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS

# A shorter piece of a secret may be part of a model's name by chance, and such a name must stay whole.
SECRET_PIECE = 16


class HttpClient(httpx.AsyncClient):
    """A client that knows what nothing may show of what it sends."""

    secrets = Secrets()


class NoConnection(TargetUnavailable):
    """There is no server at the address, or none that can be reached."""


def http_transport(tls: ssl.SSLContext | None, source: str | None) -> httpx.AsyncHTTPTransport:
    """The transport of such a client, from the local address `source`; `None`: the system chooses."""
    return httpx.AsyncHTTPTransport(verify=tls or False, trust_env=False, local_address=source)


@asynccontextmanager
async def http_client(
    url: str,
    headers: Sequence[tuple[str, str]],
    *,
    query: str = "",
    secrets: Sequence[str] = (),
    tls: ssl.SSLContext | None,
    source: str | None = None,
    limits: LimitSettings,
) -> AsyncIterator[HttpClient]:
    """A client for such requests to the server of `url`, which alone gets the headers and the query, from the local
    address `source`, within the scenario's time limits; proxies of the environment are ignored. Responses come without
    the `secrets`, should the server repeat them.
    """

    async def add_own(request: httpx.Request) -> None:
        if origin_of(str(request.url)) == origin_of(url):
            request.headers.update(headers)
            request.url = httpx.URL(with_query(str(request.url), query))

    connect_s = limits.connect_timeout / NS_PER_S if limits.connect_timeout else None
    within_s = min(_WITHIN_S, limits.timeout / NS_PER_S) if limits.timeout else _WITHIN_S
    timeout = httpx.Timeout(within_s, connect=connect_s)
    async with HttpClient(transport=http_transport(tls, source), trust_env=False, timeout=timeout) as http:
        http.secrets = Secrets(secrets, piece=SECRET_PIECE)
        http.event_hooks = {"request": [add_own]}
        yield http


async def get(http: HttpClient, url: str, *, within_s: float | None = None) -> httpx.Response:
    """The response, whatever its status. Raises `TargetUnavailable` if there is none within the time, `NoConnection` if
    not even a connection is made.
    """
    shown = shown_url(url)
    connect_s, limit_s = http.timeout.connect, within_s if within_s is not None else http.timeout.read or math.inf
    # httpx limits the time of each read, and a response may need many.
    timeout = httpx.Timeout(limit_s if math.isfinite(limit_s) else None, connect=connect_s)
    try:
        with anyio.fail_after(limit_s + (math.inf if connect_s is None else connect_s)):
            async with http.stream("GET", url, timeout=timeout, headers={"accept-encoding": "identity"}) as response:
                body = bytearray()
                # Some servers code it all the same, and few bytes may then become many. Other words mean no coding.
                coding, received = response.headers.get("content-encoding", "").strip().lower(), 0
                plain = _Decoder(coding) if coding in {"gzip", "x-gzip", "deflate"} else None
                async for chunk in response.aiter_raw():
                    received += len(chunk)
                    body += chunk if plain is None else plain.decode(chunk, _MOST_BYTES + 1 - len(body))
                    if max(len(body), received) > _MOST_BYTES:
                        raise TargetUnavailable(f"{shown}: the response is too long", hint="check the address")
                # The body is decoded, so the headers that describe its coding no longer apply.
                codings = {"content-encoding", "transfer-encoding"}
                hide = http.secrets.hide
                headers = {name: hide(text) for name, text in response.headers.items() if name not in codings}
                # In a thread: a long one takes seconds, and Ctrl-C does not wait for it.
                content = await anyio.to_thread.run_sync(http.secrets.hide_bytes, bytes(body), abandon_on_cancel=True)
                return httpx.Response(response.status_code, headers=headers, content=content)
    except zlib.error as error:
        raise TargetUnavailable(f"{shown}: a body that cannot be decoded ({error})", hint="check the address") from None
    except (httpx.TimeoutException, TimeoutError) as error:
        hint = "check the address, and whether the server hangs"
        if isinstance(error, httpx.ConnectTimeout):
            raise NoConnection(f"{shown}: no connection in time", hint=hint) from None
        raise TargetUnavailable(f"{shown}: no response in time", hint=hint) from None
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last is a host name that cannot exist
        what, hint = explain(error)
        what = clean(http.secrets.hide(what))
        if isinstance(error, httpx.RemoteProtocolError):
            hint = "check the port, and whether it needs https://"
            raise TargetUnavailable(f"{shown}: no valid HTTP response ({what})", hint=hint) from None
        kind = TargetUnavailable if isinstance(error, (httpx.ReadError, httpx.WriteError)) else NoConnection
        raise kind(f"{shown}: {what}", hint=hint) from None


class _Decoder:
    """A coded body in pieces; raises `zlib.error` for one that is damaged."""

    def __init__(self, coding: str) -> None:
        self._wbits = _ZLIB if coding == "deflate" else _GZIP
        self._object = zlib.decompressobj(self._wbits)
        self._start: bytes | None = b""  # until it is known whether it has the frame
        self._members = 0  # that are complete

    def decode(self, chunk: bytes, most: int) -> bytes:
        """What this piece adds, cut at so many bytes."""
        if self._start is not None:
            chunk = self._start + chunk
            self._start = chunk if len(chunk) < 2 else None
            if self._start is not None:
                return b""
            # The first byte says deflate, and both are a multiple of 31 (RFC 1950).
            if self._wbits == _ZLIB and (chunk[0] & 15 != 8 or int.from_bytes(chunk[:2]) % 31):
                self._object = zlib.decompressobj(_RAW)
        body = bytearray()
        while chunk and len(body) < most:
            if self._object.eof:
                if self._wbits == _ZLIB:
                    break
                self._object, self._members = zlib.decompressobj(_GZIP), self._members + 1
            try:
                body += self._object.decompress(chunk, most - len(body))
            except zlib.error:
                if not self._members:
                    raise
                break  # after the last member; other readers pass it over, too
            chunk = self._object.unused_data
        return bytes(body)


async def get_json(http: HttpClient, url: str) -> object:
    """The JSON at a URL that may not exist; `None` for everything else: no response, an error, a page."""
    try:
        response = await get(http, url, within_s=_QUICK_S)
    except TargetUnavailable:
        return None
    return parse_json(response) if response.status_code == httpx.codes.OK else None


def parse_json(response: httpx.Response) -> object:
    """The JSON of a response; `None` if it is none."""
    try:
        document: object = bounded.parse_json(response.content, bounded.MOST_LIST_COST)
    except orjson.JSONDecodeError:
        return None
    return document
