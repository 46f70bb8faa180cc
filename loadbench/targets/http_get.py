"""Small requests to the server under test, nearly all GET, with the headers and the TLS context of measured ones.

Size and time of a response are limited. Every failure raises `TargetUnavailable` with its cause and remedy.
"""

from __future__ import annotations

import math
import zlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
import orjson

from loadbench.client.fast_transport import FastTransport
from loadbench.client.faults import explain
from loadbench.client.transport import HttpRequest, TransportError
from loadbench.core import bounded
from loadbench.core.errors import TargetUnavailable
from loadbench.core.secrets import Secrets
from loadbench.core.units import NS_PER_S
from loadbench.plan.server_url import origin_of, shown_url, with_query
from loadbench.wire.openai import clean

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping, Sequence

    from loadbench.client.transport import Header
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


class NoConnection(TargetUnavailable):
    """There is no server at the address, or none that can be reached."""


class TooLongError(Exception):
    """A body is longer than its limit."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response; names of headers are in lower case."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes


class ResponseSink:
    """Collects a response, decoded. The exchange raises `TooLongError` for more than `most` bytes, and `zlib.error` for
    a damaged body. `within` is a scope and how long the response may take once there is a connection."""

    def __init__(self, most: int, within: tuple[anyio.CancelScope, float] | None = None) -> None:
        self.status = 0
        self.headers_by_name: dict[str, str] = {}
        self.body = bytearray()
        self.is_connected = False
        self._most, self._within = most, within
        self._received = 0
        self._decoder: _Decoder | None = None

    def reconnecting(self) -> None:
        """A kept connection was closed."""

    def connected(self, *_: object, **__: object) -> None:
        """There is a connection."""
        self.is_connected = True
        if self._within is not None:
            scope, limit_s = self._within
            scope.deadline = anyio.current_time() + limit_s

    def sent(self, at_ns: int) -> None:
        """The request has left."""

    def headers(self, at_ns: int, status: int, headers: Sequence[Header]) -> None:  # noqa: ARG002 - a sink's
        """The header block; several headers of one name are one, as a list."""
        self.status = status
        for raw_name, value in headers:
            name, text = raw_name.decode("latin-1").lower(), value.decode("utf-8", "replace")
            self.headers_by_name[name] = (
                f"{self.headers_by_name[name]}, {text}" if name in self.headers_by_name else text
            )
        # Some servers code it all the same, and few bytes may then become many. Other words mean no coding.
        coding = self.headers_by_name.get("content-encoding", "").strip().lower()
        self._decoder = _Decoder(coding) if coding in {"gzip", "x-gzip", "deflate"} else None

    def data(self, at_ns: int, chunk: bytes) -> None:  # noqa: ARG002 - a sink's
        """Bytes of the body."""
        self._received += len(chunk)
        decoder, room = self._decoder, self._most + 1 - len(self.body)
        self.body += chunk if decoder is None else decoder.decode(chunk, room)
        if max(len(self.body), self._received) > self._most:
            raise TooLongError


class HttpClient:
    """A client for small requests; `secrets` are what nothing may show of what it sends."""

    def __init__(
        self,
        url: str,
        headers: Sequence[tuple[str, str]],
        *,
        query: str,
        transport: FastTransport,
        connect_s: float | None,
        within_s: float,
        secrets: Sequence[str] = (),
    ) -> None:
        self.secrets = Secrets(secrets, piece=SECRET_PIECE)
        self.transport = transport
        self.connect_s, self.within_s = math.inf if connect_s is None else connect_s, within_s
        self._origin, self._headers, self._query = origin_of(url), tuple(headers), query

    def request(self, url: str, body: bytes | None = None) -> HttpRequest:
        """The request of this URL, with a body of JSON if there is one; only its own server gets the headers and the
        query."""
        own = origin_of(url) == self._origin
        headers = (("accept", "*/*"), *(self._headers if own else ()))
        if body is None:
            return HttpRequest("GET", with_query(url, self._query) if own else url, headers)
        headers = (*headers, ("content-type", "application/json"))
        return HttpRequest("POST", with_query(url, self._query) if own else url, headers, body)


@asynccontextmanager
async def http_client(
    url: str,
    headers: Sequence[tuple[str, str]],
    *,
    query: str = "",
    secrets: Sequence[str] = (),
    tls: ssl.SSLContext | None,
    sources: Sequence[str] = (),
    limits: LimitSettings,
) -> AsyncIterator[HttpClient]:
    """A client for such requests to the server of `url`, which alone gets the headers and the query, from the first
    of the local addresses `sources` that has a port left, within the scenario's time limits; proxies of the environment
    are ignored. Responses come without the `secrets`, should the server repeat them.
    """
    transport = FastTransport(tls=tls, sources=sources)
    try:
        yield HttpClient(
            url,
            headers,
            query=query,
            transport=transport,
            connect_s=limits.connect_timeout / NS_PER_S if limits.connect_timeout else None,
            within_s=min(_WITHIN_S, limits.timeout / NS_PER_S) if limits.timeout else _WITHIN_S,
            secrets=secrets,
        )
    finally:
        await transport.aclose()


async def get(
    http: HttpClient, url: str, *, within_s: float | None = None, post: Mapping[str, object] | None = None
) -> Response:
    """The response, whatever its status, to a GET, or to a POST of this JSON. Raises `TargetUnavailable` if there is
    none within the time, `NoConnection` if not even a connection is made.
    """
    shown, hide = shown_url(url), http.secrets.hide
    with anyio.move_on_after(http.connect_s) as scope:
        sink = ResponseSink(_MOST_BYTES, (scope, http.within_s if within_s is None else within_s))
        try:
            await http.transport.exchange(http.request(url, None if post is None else orjson.dumps(post)), sink)
        except TooLongError:
            raise TargetUnavailable(f"{shown}: the response is too long", hint="check the address") from None
        except zlib.error as error:
            what = f"a body that cannot be decoded ({error})"
            raise TargetUnavailable(f"{shown}: {what}", hint="check the address") from None
        except (TransportError, ValueError) as error:  # the latter is a host name that cannot exist
            what, hint = explain(error)
            what = clean(hide(what))
            if sink.is_connected:
                hint = hint or "check the port, and whether it needs https://"
                raise TargetUnavailable(f"{shown}: no valid HTTP response ({what})", hint=hint) from None
            raise NoConnection(f"{shown}: {what}", hint=hint) from None
        # The body is decoded, so the headers that describe its coding no longer apply.
        codings = {"content-encoding", "transfer-encoding"}
        headers = {name: hide(text) for name, text in sink.headers_by_name.items() if name not in codings}
        # In a thread: a long one takes seconds, and Ctrl-C does not wait for it.
        content = await anyio.to_thread.run_sync(http.secrets.hide_bytes, bytes(sink.body), abandon_on_cancel=True)
        return Response(sink.status, headers, content)
    hint = "check the address, and whether the server hangs"
    if not sink.is_connected:
        raise NoConnection(f"{shown}: no connection in time", hint=hint)
    raise TargetUnavailable(f"{shown}: no response in time", hint=hint)


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
    return parse_json(response) if response.status_code == HTTPStatus.OK else None


def parse_json(response: Response) -> object:
    """The JSON of a response; `None` if it is none."""
    try:
        document: object = bounded.parse_json(response.content, bounded.MOST_LIST_COST)
    except orjson.JSONDecodeError:
        return None
    return document
