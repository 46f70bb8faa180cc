"""`--otlp` and `--prometheus`: what a collector receives, and what a scrape finds, while a run goes on."""

from __future__ import annotations

import gzip
import json
import signal
import sys
import threading
import time
import urllib.request
from base64 import b64decode
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from loadbench.results.folder import read_run
from tests.cli.running import loadbench, started
from tests.cli.typed import typed
from tests.live.test_otlp import Collector, slow_head

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

SHORT = ("sweep", "--users", "2", "--requests", "20", "--warm-up", "0s")


@contextmanager
def collector(status: int = 200) -> Iterator[tuple[str, list[tuple[str, dict[str, str], ExportMetricsServiceRequest]]]]:
    """(its URL, what it was sent: path, headers, the decoded message)."""
    received = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            received.append((self.path, dict(self.headers), ExportMetricsServiceRequest.FromString(body)))
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def metrics_of(message: ExportMetricsServiceRequest) -> dict[str, object]:
    """Its metrics by name."""
    return {
        one.name: one
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for one in scope.metrics
    }


def test_a_collector_receives_what_the_run_measured(tmp_path: Path) -> None:
    """Decoded as protobuf: as many requests, tokens and seconds as in the run's own figures."""
    with collector() as (url, received):
        done = loadbench(
            *SHORT,
            "--otlp",
            url,
            cwd=tmp_path,
            OTEL_EXPORTER_OTLP_HEADERS="x-team=blue",
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        )
    assert "saved in" in done.stderr
    assert f"metrics are sent to {url}" in done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    (level,) = read_run(folder).levels
    path, headers, message = received[-1]
    assert path == "/v1/metrics"
    assert headers["x-team"] == "blue"
    (resource,) = message.resource_metrics
    about = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (about["service.name"], about["loadbench.simulated"]) == ("loadbench", "true")
    found = metrics_of(message)
    duration = found["gen_ai.client.operation.duration"]
    assert duration.unit == "s"
    (point,) = duration.histogram.data_points
    assert point.count == sum(level.outcomes.values()) == sum(point.bucket_counts)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1 == 15
    (first,) = found["loadbench.time_to_first_token"].histogram.data_points
    assert first.sum / first.count == pytest.approx(level.metrics["ttft_s"].mean, rel=1e-6)
    usage = {
        next(one.value.string_value for one in point.attributes if one.key == "gen_ai.token.type"): point.sum
        for point in found["gen_ai.client.token.usage"].histogram.data_points
    }
    assert usage["output"] == level.tokens.output
    requests = found["loadbench.requests"].sum
    assert requests.is_monotonic
    assert sum(point.as_int for point in requests.data_points) == 20


@pytest.mark.parametrize("status", [400, None])
def test_a_collector_that_takes_nothing_is_reported_once(tmp_path: Path, status: int | None) -> None:
    """The measurement goes on, and its exit code is its own."""
    with collector(status or 200) as (url, _):
        where = url if status else "http://127.0.0.1:1"
        done = loadbench(*SHORT, "--otlp", where, cwd=tmp_path, OTEL_METRIC_EXPORT_INTERVAL="100")
    assert "saved in" in done.stderr
    assert done.stderr.count("the run goes on without it") == 1
    assert "Traceback" not in done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    assert read_run(folder).complete


@pytest.mark.parametrize("status", [200, 401])
def test_a_password_for_the_collector_goes_there_and_nowhere_else(tmp_path: Path, status: int) -> None:
    """Neither into a message nor into a file; what the library says of a failure is cleaned, too."""
    password = "tulip-bicycle-candle"
    with collector(status) as (url, received):
        where = url.replace("http://", f"http://ops:{password}@") + "/v1/metrics?tenant=blue"
        done = loadbench(*SHORT, "--otlp", where, cwd=tmp_path)
    assert "saved in" in done.stderr
    path, headers, _ = received[-1]
    assert path == "/v1/metrics?tenant=blue"
    assert b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == f"ops:{password}"
    kept = [file.read_text("utf-8") for file in (tmp_path / "results").rglob("*") if file.is_file()]
    assert not [text for text in (done.stdout, done.stderr, *kept) if password in text]
    assert ("goes on without it" in done.stderr) is (status != 200)


def test_without_the_library_the_extra_is_named(tmp_path: Path) -> None:
    """Before anything is measured."""
    with mock.patch.dict("sys.modules", {"opentelemetry.exporter.otlp.proto.http": None}):
        done = typed(*SHORT, "--otlp", "http://127.0.0.1:4318", cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'loadbench[otel]'" in done.stderr


def scraped(url: str) -> dict[str, dict[str, float]]:
    """The samples of a page by name and labels, as Prometheus' own parser reads them."""
    with urllib.request.urlopen(url, timeout=10) as response:
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        text = response.read().decode()
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[json.dumps(sample.labels, sort_keys=True)] = sample.value
    return found


def test_a_scrape_while_a_run_goes_on(tmp_path: Path) -> None:
    """Requests in flight, the level, and counters that rise; buckets are cumulative and end with all values."""
    process = started(*("sweep", "--users", "2", "--duration", "60s", "--prometheus", "0"), cwd=tmp_path)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "metrics for Prometheus are at" in line)
        url = line.split()[-1]
        assert url.startswith("http://127.0.0.1:")
        until = time.monotonic() + 60
        seen = []
        while len(seen) < 2 and time.monotonic() < until:
            page = scraped(url)
            total = sum(page.get("loadbench_requests_total", {}).values())
            if total > (seen[-1][0] if seen else 0):
                seen.append((total, page))
            time.sleep(0.2)
        (before, _), (after, page) = seen
        assert 0 < before < after
        assert [*page["loadbench_requests_in_flight"].values()] == [2]
        assert [*page["loadbench_level"].values()] == [1]
        assert '"loadbench_simulated": "true"' in next(iter(page["loadbench_info"]))
        (count,) = page["gen_ai_client_operation_duration_seconds_count"].values()
        assert count == after
        buckets = {
            json.loads(labels)["le"]: value
            for labels, value in page["gen_ai_client_operation_duration_seconds_bucket"].items()
        }
        in_order = [buckets[edge] for edge in sorted(buckets, key=float)]
        assert in_order == sorted(in_order)
        assert buckets["+Inf"] == count
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url.removesuffix("/metrics"), timeout=10)
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_scrape_does_not_wait_for_a_collector(tmp_path: Path) -> None:
    """One that sends a byte now and then is reported, while the page goes on; the end of the run waits for a moment."""
    with Collector(slow_head) as slow:
        arguments = ("sweep", "--users", "2", "--duration", "60s", "--prometheus", "0", "--otlp", slow.url)
        process = started(*arguments, cwd=tmp_path)
        try:
            assert process.stderr is not None
            url = next(line for line in process.stderr if "metrics for Prometheus are at" in line).split()[-1]
            until, seen = time.monotonic() + 60, [0.0]
            while len(seen) < 4 and time.monotonic() < until:
                total = sum(scraped(url).get("loadbench_requests_total", {}).values())
                seen += [total] * (total > seen[-1])
                time.sleep(0.2)
            assert len(seen) == 4
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.count("the run goes on without it") == 1
    assert slow.ended.wait(60)


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    """Before anything is measured."""
    with collector() as (url, _):
        port = url.rpartition(":")[2]
        done = loadbench(*SHORT, "--prometheus", port, cwd=tmp_path)
    assert done.returncode == 2
    assert f"--prometheus 127.0.0.1:{port}: Address already in use" in done.stderr
    assert not (tmp_path / "results").exists()
    wrong = loadbench(*SHORT, "--prometheus", "localhost:x", cwd=tmp_path)
    assert (wrong.returncode, "a port, as in 9464" in wrong.stderr) == (2, True)


def test_both_sides_of_a_comparison_are_at_one_place(tmp_path: Path) -> None:
    """One page, with a label that tells their servers apart."""
    with collector() as (url, received):
        sides = ("--a", "profile=small-gpu", "--b", "profile=slot-server")
        done = loadbench(
            "compare",
            *sides,
            "--users",
            "1",
            "--requests",
            "3",
            "--warm-up",
            "0s",
            "--repeats",
            "1",
            "--settle",
            "0s",
            "--otlp",
            url,
            cwd=tmp_path,
        )
    assert done.returncode in {0, 4, 5}, done.stderr
    points = metrics_of(received[-1][2])["loadbench.requests"].sum.data_points
    ports = {next(one.value.int_value for one in point.attributes if one.key == "server.port") for point in points}
    assert len(ports) == 2
