"""The port between the client and the network: one method.

A transport carries one request and pushes what happens, stamped, to a sink. It does not retry, redirect,
decompress, time out or parse bodies. The client above it does the rest, so that the same client runs over httpx,
over a faster transport, and over a script in virtual time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.record.outcome import Outcome

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What to send: method, absolute URL, headers, body."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Sink(Protocol):
    """What a transport tells of one exchange, in this order; every stamp is of the run's clock."""

    def reconnecting(self) -> None:
        """A kept connection was found closed before any answer; the exchange begins again on a new one."""
        ...

    def connected(self, at_ns: int, *, reused: bool, connect_ns: int | None) -> None:
        """The connection is ready; a new one took `connect_ns` for dns, tcp and tls."""
        ...

    def sent(self, at_ns: int) -> None:
        """The request's last byte was handed to the socket."""
        ...

    def headers(self, at_ns: int, status: int, headers: Sequence[Header]) -> None:
        """The response's header block is complete."""
        ...

    def data(self, at_ns: int, chunk: bytes) -> None:
        """Body bytes, as they were read; `at_ns` was taken before anything else was done with them."""
        ...


class TransportError(Exception):
    """An exchange that broke, in our words: the outcome it means and what happened."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


class Transport(Protocol):
    """Carries exchanges; may carry many at once."""

    async def exchange(self, exchange: HttpRequest, sink: Sink) -> None:
        """Carry one exchange and return at the clean end of the response's body.

        Raises `TransportError` for anything that breaks on the way. Cancelled, it drops the connection.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
