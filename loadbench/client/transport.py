"""The port between the client and the network: one method.

A transport carries one exchange (a request and its response) and pushes what happens, stamped, to a sink. It does not
redirect, decompress, time out or parse bodies, and replaces at most a dead kept connection. The client above it does
the rest, so the same client runs over httpx, over our own transport, and over a simulated server in virtual time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.record.outcome import Outcome

Header = tuple[bytes, bytes]
# Sent unless the caller has one of its own; no compression, because it would hold tokens back.
ALWAYS = (("accept", "text/event-stream, application/json"), ("accept-encoding", "identity"))
# Returns how many segments have been read together with a later one on a connection; `None` where nobody counts them.
MergedSegments: TypeAlias = "Callable[[], int | None] | None"


def sent_headers(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """All headers that a request with these is sent with, but for those of its length and of the connection."""
    own = {name.lower() for name, _ in headers}
    return [*(header for header in ALWAYS if header[0] not in own), *headers]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What to send: method, absolute URL, headers, body. Each but the first may have a secret in it."""

    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)


class Sink(Protocol):
    """Gets the events of one exchange, in this order; every stamp is of the run's clock."""

    def reconnecting(self) -> None:
        """A kept connection was closed before any response; the exchange begins again on a new one."""
        ...

    def connected(
        self, at_ns: int, *, reused: bool, connect_ns: int | None, merged_segments: MergedSegments = None
    ) -> None:
        """The connection is ready; a new one took `connect_ns` for name, TCP and TLS.

        `merged_segments` says which events of one read the server sent apart.
        """
        ...

    def sent(self, at_ns: int) -> None:
        """The last byte of the request was handed to the socket."""
        ...

    def headers(self, at_ns: int, status: int, headers: Sequence[Header]) -> None:
        """The header block of the response is complete."""
        ...

    def data(self, at_ns: int, chunk: bytes) -> None:
        """Bytes of the body as they were read; `at_ns` was taken before anything else was done with them."""
        ...


class TransportError(Exception):
    """An exchange that broke: its outcome, and what happened in one line."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


class Transport(Protocol):
    """Carries exchanges; may carry many at once."""

    async def exchange(self, request: HttpRequest, sink: Sink) -> None:
        """Carry one exchange and return at the clean end of the response's body.

        Raises `TransportError` for anything that breaks on the way. Cancelled, it drops the connection.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
