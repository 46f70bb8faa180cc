"""The measuring transport over real sockets: what `test_client.py`, which runs over both transports, does not reach."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from dataclasses import dataclass, field

import pytest
import trustme

from loadbench.client.fast_transport import FastTransport
from loadbench.client.stamping import stamp_source
from loadbench.client.transport import HttpRequest, TransportError
from loadbench.record.outcome import Outcome
from tests.client.server import ANSWER, ASK, CLOSE, GONE, head, serving, whole


@dataclass
class Log:
    """A sink that keeps what it gets."""

    status: int = 0
    marks: list[int] = field(default_factory=list)
    body: bytes = b""

    def reconnecting(self) -> None:
        """Not looked at."""

    def connected(self, at_ns: int, *, reused: bool, connect_ns: int | None, **_: object) -> None:
        assert reused is (connect_ns is None)
        self.marks.append(at_ns)

    def sent(self, at_ns: int) -> None:
        self.marks.append(at_ns)

    def headers(self, at_ns: int, status: int, headers) -> None:
        self.status = status
        self.marks.append(at_ns)

    def data(self, at_ns: int, chunk: bytes) -> None:
        self.marks.append(at_ns)
        self.body += chunk


@contextlib.asynccontextmanager
async def transport_with(tls: ssl.SSLContext | None = None):
    """A transport that is closed at the end."""
    transport = FastTransport(tls=tls)
    try:
        yield transport
    finally:
        await transport.aclose()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_ipv6_host():
    """An address in brackets is connected to, and named in brackets to the server."""

    async def main() -> tuple[str, int]:
        async with serving([ASK, ANSWER, GONE], host="::1") as server, transport_with() as transport:
            await transport.exchange(HttpRequest("POST", server.url(host="[::1]")), Log())
            return server.requests[0].headers["host"], server.port

    host, port = asyncio.run(main())
    assert host == f"[::1]:{port}"


def test_host_name_that_cannot_exist_is_refused():
    """A label of more than 63 letters cannot even be looked up; it is an outcome all the same."""

    async def main() -> None:
        async with transport_with() as transport:
            with pytest.raises(TransportError) as caught:
                await transport.exchange(HttpRequest("GET", f"http://{'a' * 70}.invalid/"), Log())
            assert caught.value.outcome is Outcome.REFUSED

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a reset discards what had arrived")
def test_refusal_of_an_upload_is_heard():
    """A server that refuses a large request early and closes has responded, though it never read the rest."""
    refusal = whole("413 Too Large", b"no", more=b"connection: close\r\n")

    async def main() -> list[Log]:
        logs = [Log() for _ in range(10)]
        async with serving([0.01, refusal, CLOSE]) as server, transport_with() as transport:
            for log in logs:
                await transport.exchange(HttpRequest("POST", server.url(), body=bytes(16 * 2**20)), log)
        return logs

    assert [(log.status, log.body) for log in asyncio.run(main())] == [(413, b"no")] * 10


def test_closing_the_transport_ends_what_is_under_way():
    """An exchange in the middle of its response ends; nobody waits for ever."""

    async def main() -> None:
        async with serving([ASK, head(), GONE]) as server, transport_with() as transport:
            log = Log()
            under_way = asyncio.create_task(transport.exchange(HttpRequest("POST", server.url()), log))
            while not log.status:
                await asyncio.sleep(0.001)
            await transport.aclose()
            with pytest.raises(asyncio.CancelledError):
                await under_way
            while not server.gone:
                await asyncio.sleep(0.001)

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="receive stamps are Linux's")
def test_kernel_stamps_under_tls():
    """TLS takes no stamp away, and the marks are in the order of what happened."""
    authority = trustme.CA()
    serves, trusts = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("127.0.0.1").configure_cert(serves)
    authority.configure_trust(trusts)

    async def main() -> None:
        exchanges = [step for _ in range(2000) for step in (ASK, ANSWER)]
        async with serving([*exchanges, GONE], tls=serves) as server, transport_with(trusts) as transport:
            assert transport.stamp_source == stamp_source() == "kernel"
            stamped = 0
            # The kernel begins to stamp a little after the first socket of the machine has asked for it.
            while not stamped:
                log = Log()
                await transport.exchange(HttpRequest("POST", server.url("https")), log)
                assert log.marks == sorted(log.marks)
                assert len(log.marks) >= 4
                stamped = transport.take_stamp_stats().delays.count

    asyncio.run(main())
