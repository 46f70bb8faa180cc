"""What a collector can do to a run: take its metrics, or not, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from loadbench.live import otlp
from loadbench.live.conventions import IN_FLIGHT
from loadbench.live.metrics_feed import ExportError, Metric, MetricsFeed, Point
from loadbench.live.otlp import OtlpExporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

METRICS = [Metric(IN_FLIGHT, "gauge", [Point((("a", "b"),), 1.0)])]
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\n"


class Collector:
    """Accepts connections, and sends what `sends` says on each until that is done or the connection ends."""

    def __init__(self, sends: Callable[[Collector], Iterator[bytes]]) -> None:
        self.connections = 0
        self.ended, self.over = threading.Event(), threading.Event()
        self._sends = sends
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self.ended.set)
            stack.enter_context(connection)
            stack.enter_context(contextlib.suppress(OSError))
            while True:
                data = b""
                while b"\r\n\r\n" not in data:
                    if not (new := connection.recv(65_536)):
                        return
                    data += new
                head, _, body = data.partition(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                while len(body) < size:
                    if not (new := connection.recv(65_536)):
                        return
                    body += new
                for part in self._sends(self):
                    connection.sendall(part)

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._listener.close()


def silent(collector: Collector) -> Iterator[bytes]:
    """Nothing, for as long as the test takes."""
    collector.over.wait()
    yield b""


def slow_head(collector: Collector) -> Iterator[bytes]:
    """A header without an end, a byte now and then."""
    yield OK + b"x-slow: "
    while not collector.over.wait(0.02):
        yield b"x"


def slow_body(collector: Collector) -> Iterator[bytes]:
    """As many bytes as were announced would take hours."""
    yield OK + b"content-length: 1000000\r\n\r\n"
    while not collector.over.wait(0.02):
        yield b"x"


def slow_chunks(collector: Collector) -> Iterator[bytes]:
    """Chunks without an end."""
    yield OK + b"transfer-encoding: chunked\r\n\r\n"
    while not collector.over.wait(0.02):
        yield b"1\r\nx\r\n"


def slow_continue(collector: Collector) -> Iterator[bytes]:
    """One interim response after another."""
    while not collector.over.wait(0.02):
        yield b"HTTP/1.1 100 Continue\r\n\r\n"


SLOW = [silent, slow_head, slow_body, slow_chunks, slow_continue]


@pytest.fixture
def exporter_to():
    """An exporter to a URL; closed in the end."""
    with contextlib.ExitStack() as stack:

        def made(url: str) -> OtlpExporter:
            exporter = OtlpExporter(url, about={}, environment={})
            stack.callback(exporter.close)
            return exporter

        yield made


@pytest.mark.parametrize("sends", SLOW)
def test_slow_bytes_do_not_extend_the_time_of_an_export(exporter_to, sends, monkeypatch) -> None:
    """It ends while the collector still sends, whatever part of a response that is; the next one is tried."""
    monkeypatch.setattr(otlp, "_WAIT_S", 0.3)
    with Collector(sends) as collector:
        exporter = exporter_to(collector.url)
        for turn in (1, 2):
            with pytest.raises(ExportError):
                exporter.export(METRICS, last=True)
            assert not collector.over.is_set()
            assert collector.connections == turn


@pytest.mark.parametrize("sends", SLOW)
def test_closing_ends_an_export(exporter_to, sends) -> None:
    """In another thread, which is free then, and the connection is closed."""
    with Collector(sends) as collector:
        exporter = exporter_to(collector.url)

        def export() -> None:
            with contextlib.suppress(ExportError):
                exporter.export(METRICS, last=True)

        thread = threading.Thread(target=export)
        thread.start()
        while not collector.connections:
            assert thread.is_alive()
        exporter.close()
        thread.join(60)
        assert not thread.is_alive()
        assert sends is silent or collector.ended.wait(60)


def test_the_status_with_which_a_collector_refuses_is_named(exporter_to, monkeypatch) -> None:
    """Also where the library tries again for as long as it may."""
    monkeypatch.setattr(otlp, "_WAIT_S", 0.5)
    for status in ("503 Service Unavailable", "429 Too Many Requests", "404 Not Found"):
        head = f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n".encode()
        with Collector(lambda _, head=head: iter([head])) as collector:
            exporter = exporter_to(collector.url)
            with pytest.raises(ExportError, match=f"^HTTP {status}$"):
                exporter.export(METRICS, last=True)


def test_connections_are_used_again(exporter_to) -> None:
    """A usual collector sees one."""
    with Collector(lambda _: iter([OK + b"content-length: 2\r\n\r\n\x0a\x00"])) as collector:
        exporter = exporter_to(collector.url)
        for _ in range(3):
            exporter.export(METRICS, last=True)
        assert collector.connections == 1


def test_a_response_without_an_end_is_not_kept(exporter_to) -> None:
    """Its status is all that is needed: the export is done, and the connection is closed."""

    def endless(collector: Collector) -> Iterator[bytes]:
        yield OK + b"\r\n"
        while not collector.over.is_set():
            yield bytes(1 << 16)

    with Collector(endless) as collector:
        exporter_to(collector.url).export(METRICS, last=True)
        assert collector.ended.wait(60)


@pytest.mark.parametrize("host", ["x" * 64, "a..b", "ß" * 64])
def test_a_host_that_cannot_exist_is_a_reason(exporter_to, host) -> None:
    """Whatever the libraries raise for it."""
    with pytest.raises(ExportError):
        exporter_to(f"http://{host}:4318").export(METRICS, last=True)


def test_the_end_of_a_run_does_not_wait_for_a_collector(exporter_to, monkeypatch) -> None:
    """It waits for a moment, says that the last metrics were not taken, and closes what there is."""
    monkeypatch.setattr("loadbench.live.metrics_feed._END_S", 0.1)
    said: list[str] = []
    with Collector(slow_head) as collector:
        exporter = exporter_to(collector.url)
        with MetricsFeed([exporter], {}, about={"x": "y"}, say=said.append):
            pass
        assert collector.ended.wait(60)
    assert [text for text in said if "were not taken" in text] == said
    assert len(said) == 1
    assert said[0].startswith(f"--otlp {collector.url}/v1/metrics: ")
