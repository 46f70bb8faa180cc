"""What is the httpx transport's own: how it tells its sink, keeps connections, and lets go of them.

What it has in common with the other transport is stated in `test_client.py`, for both.
"""

from __future__ import annotations

import asyncio
import gc
import itertools

import pytest

from loadbench.client.httpx_transport import HttpxTransport
from loadbench.client.tls import tls_context
from loadbench.client.transport import HttpRequest, TransportError
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput
from loadbench.record.outcome import Outcome
from tests.client.server import ANSWER, ASK, END, GONE, RST, chunk, head, serving, token


class Log:
    """A sink that writes down what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.body = b""

    def reconnecting(self) -> None:
        self.told.append(("reconnecting", 0))

    def connected(self, at_ns, *, reused, connect_ns) -> None:
        self.told.append(("connected", at_ns, reused, connect_ns))

    def sent(self, at_ns) -> None:
        self.told.append(("sent", at_ns))

    def headers(self, at_ns, status, headers) -> None:
        self.told.append(("headers", at_ns, status, dict(headers)))

    def data(self, at_ns, chunk) -> None:
        self.told.append(("data", at_ns))
        self.body += chunk

    def names(self) -> list[str]:
        """What was told, each kind once in a row."""
        return [name for name, _ in itertools.groupby(event[0] for event in self.told)]


def exchanged(script: list, *others: list, times: int = 1, sink=Log, **fields):
    """Some exchanges one after another; the sinks and the server. Yields whatever the last one raised as it is."""

    async def main():
        async with serving(script, *others) as server:
            transport = HttpxTransport(MonotonicClock())
            logs = []
            try:
                for _ in range(times):
                    logs.append(sink())
                    request = {"method": "POST", "url": server.url() + "/x", "headers": (), "body": b"{}"} | fields
                    await transport.exchange(HttpRequest(**request), logs[-1])
            finally:
                await transport.aclose()
            return logs, server

    return asyncio.run(main())


def test_sink_is_told_in_the_order_of_the_wire():
    """Connected, sent, headers, data; every stamp at or after the one before; the body's bytes as they were."""
    (log,), _ = exchanged([ASK, head() + chunk(b"one ") + chunk(b"two"), 0.02, chunk(b" three") + END, GONE])
    assert log.names() == ["connected", "sent", "headers", "data"]
    stamps = [event[1] for event in log.told]
    assert stamps == sorted(stamps)
    assert log.body == b"one two three"
    connected, headers = log.told[0], log.told[2]
    assert connected[2] is False
    assert connected[3] > 0
    assert headers[2:] == (200, {b"content-type": b"text/event-stream", b"transfer-encoding": b"chunked"})


def test_compressed_body_is_handed_on_as_it_is():
    """Nothing is unpacked: what a server compresses though it was told not to is not made to look like text."""
    packed = head(headers=b"content-encoding: gzip\r\ncontent-length: 4\r\n") + b"\x1f\x8b\x08\x00"
    (log,), _ = exchanged([ASK, packed, GONE])
    assert log.body == b"\x1f\x8b\x08\x00"


def test_replaced_connection_is_told_as_a_new_beginning():
    """After `reconnecting` the sink hears of a new connection, from its beginning."""
    (_, log), server = exchanged([ASK, ANSWER, ASK, RST], [ASK, ANSWER, GONE], times=2)
    assert log.names() == ["connected", "sent", "reconnecting", "connected", "sent", "headers", "data"]
    assert [event[2] for event in log.told if event[0] == "connected"] == [True, False]
    assert server.connections == 2


def test_connection_used_last_is_used_first():
    """Of several idle connections the warmest is taken; the others are not made to go round."""

    async def main() -> list[int]:
        async with serving([ASK, lambda server: len(server.requests) >= 3, *[ANSWER, ASK] * 5]) as server:
            transport = HttpxTransport(MonotonicClock())
            request = HttpRequest("POST", server.url() + "/x", (), b"{}")
            await asyncio.gather(*(transport.exchange(request, Log()) for _ in range(3)))
            for _ in range(4):
                await transport.exchange(request, Log())
            await transport.aclose()
            return [request.connection for request in server.requests]

    first, again = asyncio.run(main())[:3], asyncio.run(main())[3:]
    assert sorted(first) == [0, 1, 2]
    assert len(set(again)) == 1


def test_fault_of_the_sink_is_raised_and_closes_the_connection():
    """An exception of ours is neither taken for the server's nor does it leave a half-read connection to others."""

    class Faulty(Log):
        def data(self, at_ns, chunk) -> None:
            raise ZeroDivisionError

    async def main() -> None:
        async with serving([ASK, head() + chunk(token()), GONE]) as server:
            transport = HttpxTransport(MonotonicClock())
            with pytest.raises(ZeroDivisionError):
                await transport.exchange(HttpRequest("POST", server.url()), Faulty())
            while not server.gone:
                await asyncio.sleep(0.005)
            assert (transport._idle, transport._busy) == ([], set())
            await transport.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    "fields",
    [{"headers": (("x-team", "blue\r\nx-evil: 1"),)}, {"url": "ftp://127.0.0.1/v1"}, {"url": "http://[::1/v1"}],
)
def test_request_that_is_no_http_is_a_protocol_error(fields):
    """What httpx refuses to send is an outcome as well, and nothing is sent."""
    with pytest.raises(TransportError) as caught:
        exchanged([ASK, ANSWER, GONE], **fields)
    assert caught.value.outcome is Outcome.PROTOCOL
    assert caught.value.detail


def test_cancelled_handshake_leaves_no_socket():
    """A connection that is given up while TLS is being set up is closed: the server sees it, and nothing leaks."""

    async def main() -> int:
        async with serving([GONE]) as server:
            transport = HttpxTransport(MonotonicClock(), tls=tls_context())
            url = server.url("https")
            under_way = asyncio.create_task(transport.exchange(HttpRequest("POST", url), Log()))
            while not server.connections:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
            under_way.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way
            await transport.aclose()
            return server.connections

    assert asyncio.run(main()) == 1
    gc.collect()  # what leaked warns now, and a warning is an error


def test_without_kernel_stamps_no_delay_is_claimed():
    """It says that its stamps are its own, and that it does not know how late they are."""
    transport = HttpxTransport(MonotonicClock())
    assert transport.stamp_source == "user"
    assert transport.take_stamp_stats().delays.count == 0


@pytest.mark.parametrize("content", [None, "no certificate", ""])
def test_bad_ca_file_is_bad_input(content, tmp_path):
    """A CA file that is missing, or holds none, is named."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match=r"--cacert .*ca\.pem"):
        tls_context(cacert=path)
