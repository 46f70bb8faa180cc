"""The metrics of a run to an OpenTelemetry collector: OTLP over HTTP, with the extra `otel`.

The library's own instruments would take microseconds for each value. So values are counted in `MetricsFeed`, and only
the sums go through the library, which encodes and sends them. It honours the variables `OTEL_EXPORTER_OTLP_HEADERS`,
`…_CERTIFICATE`, `…_COMPRESSION` and the like.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from loadbench import __version__
from loadbench.core.errors import BadInput
from loadbench.core.secrets import Secrets
from loadbench.live.metrics_feed import Distribution, ExportError
from loadbench.plan.server_url import ServerUrl, shown_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadbench.live.metrics_feed import Metric

# A run is short: the minute that is usual would show a handful of points. OTEL_METRIC_EXPORT_INTERVAL sets another.
_EVERY_S = 5.0
# A collector has this long to take an export, however its bytes come, and this much of its response is read.
_WAIT_S = 3.0
_MOST_READ = 64 << 10
_PATH = "/v1/metrics"
_MOST_WORDS = 300


class OtlpExporter:
    """Sends to this URL, which may be that of the collector alone; `loadbench.live.metrics_feed.Exporter`.

    Raises `BadInput` without the extra.
    """

    def __init__(self, url: str, *, about: Mapping[str, str], environment: Mapping[str, str]) -> None:
        try:
            # ruff: noqa: PLC0415 - few runs need it, and few machines have it
            import requests
            from opentelemetry.exporter.otlp.proto.http import metric_exporter
            from opentelemetry.sdk.metrics import export
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError:
            raise BadInput(
                f"--otlp {shown_url(url)}: the library of OpenTelemetry is not installed",
                hint="pip install 'loadbench[otel]'",
            ) from None
        self._sdk = export
        self._resource = Resource.create({"service.name": "loadbench", **about})
        self._scope = InstrumentationScope("loadbench", __version__)
        parts = urlsplit(url)
        path = parts.path.rstrip("/")
        endpoint = urlunsplit(parts._replace(path=path if path.endswith(_PATH) else path + _PATH))
        session = requests.Session()
        # As all of loadbench: no proxies and no passwords of the surroundings, and no other place than the named one.
        session.trust_env, session.max_redirects = False, 0
        session.stream, session.hooks["response"] = True, [self._look, _read_a_little]
        self._refused = ""
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._until_s = 0.0
        for scheme in ("http://", "https://"):
            session.mount(scheme, adapter := requests.adapters.HTTPAdapter())
            manager = adapter.poolmanager
            manager.pool_classes_by_scheme = {
                name: self._with_deadline(pool) for name, pool in manager.pool_classes_by_scheme.items()
            }
        # What the library says of an export that goes wrong; the first of it has the reason.
        self._words: list[str] = []
        self._log = logging.getLogger("opentelemetry")
        self._log.propagate = False
        self._log.handlers = [_Words(self._words.append)]
        self._exporter = metric_exporter.OTLPMetricExporter(endpoint, timeout=_WAIT_S, session=session)
        # It may hold a password.
        self.name, self._secrets = f"--otlp {shown_url(endpoint)}", Secrets(ServerUrl.parse(url).secrets)
        try:
            self._every_s = float(environment["OTEL_METRIC_EXPORT_INTERVAL"]) / 1000
        except (KeyError, ValueError):
            self._every_s = _EVERY_S
        self._started_ns, self._next_s = time.time_ns(), 0.0

    def export(self, metrics: Sequence[Metric], *, last: bool) -> None:
        """Send them, if it is time or the last time. Raises `ExportError` if the collector does not take them."""
        now_s = time.monotonic()
        if not metrics or (now_s < self._next_s and not last):
            return
        self._next_s = now_s + self._every_s
        sdk, times = self._sdk, {"start_time_unix_nano": self._started_ns, "time_unix_nano": time.time_ns()}
        encoded = []
        for metric in metrics:
            data: Any
            if metric.kind == "histogram":
                points = [
                    sdk.HistogramDataPoint(
                        attributes=dict(attributes),
                        **times,
                        count=sum(value.counts),
                        sum=value.sum,
                        bucket_counts=value.counts,
                        explicit_bounds=value.bounds,
                        min=value.min,
                        max=value.max,
                    )
                    for attributes, value in metric.points
                    if isinstance(value, Distribution)
                ]
                data = sdk.Histogram(points, sdk.AggregationTemporality.CUMULATIVE)
            else:
                numbers = [
                    sdk.NumberDataPoint(dict(attributes), **times, value=value) for attributes, value in metric.points
                ]
                data = sdk.Gauge(numbers)
                if metric.kind == "counter":
                    data = sdk.Sum(numbers, sdk.AggregationTemporality.CUMULATIVE, is_monotonic=True)
            one = metric.instrument
            encoded.append(sdk.Metric(name=one.name, description=one.help, unit=one.unit, data=data))
        scope = sdk.ScopeMetrics(scope=self._scope, metrics=encoded, schema_url="")
        resource = sdk.ResourceMetrics(resource=self._resource, scope_metrics=[scope], schema_url="")
        self._until_s = time.monotonic() + _WAIT_S
        timer = threading.Timer(_WAIT_S, self._cut)
        timer.daemon = True
        timer.start()
        self._words.clear()
        self._refused = ""
        try:
            done = self._exporter.export(sdk.MetricsData(resource_metrics=[resource]), timeout_millis=_WAIT_S * 1000)
            problem = "" if done is sdk.MetricExportResult.SUCCESS else "not taken"
        except Exception as error:  # noqa: BLE001 - of three libraries; its words may have the password
            problem = f"{type(error).__name__}: {error}"
        finally:
            timer.cancel()
        # Of a collector that is busy the library says little, and then tries again until the time is over.
        if problem and self._refused:
            raise ExportError(self._secrets.hide(self._refused)[:_MOST_WORDS])
        if time.monotonic() >= self._until_s:
            raise ExportError(f"no whole response within {_WAIT_S:g} s")
        if problem:
            raise ExportError(self._secrets.hide(next(iter(self._words), problem))[:_MOST_WORDS])

    def close(self) -> None:
        """Let the connection go, and end an export that goes on in another thread."""
        # What it says from now on is said of the end, and the root's handlers would print it.
        self._log.handlers = [logging.NullHandler()]
        self._until_s = 0.0
        self._cut()
        self._exporter.shutdown(timeout_millis=_WAIT_S * 1000)

    def _look(self, response: Any, **_: object) -> None:
        """Keep the last status with which the collector refused."""
        self._refused = f"HTTP {response.status_code} {response.reason or ''}".strip() if not response.ok else ""

    def _with_deadline(self, pool: Any) -> Any:
        """The class of pools with connections for which the time of an export is over when it is over: the library's
        own limit begins anew with each byte."""
        kind = pool.ConnectionCls

        def connect(connection: Any) -> None:
            if time.monotonic() >= self._until_s:
                raise TimeoutError
            kind.connect(connection)
            self._sockets.add(connection.sock)
            if time.monotonic() >= self._until_s:  # it was closed meanwhile, and did not cut this one
                connection.close()
                raise TimeoutError

        return type(pool.__name__, (pool,), {"ConnectionCls": type(kind.__name__, (kind,), {"connect": connect})})

    def _cut(self) -> None:
        for sock in [*self._sockets]:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _read_a_little(response: Any, **_: object) -> None:
    """A whole response of the usual size, after which the connection can be used again, and no more of any other."""
    response.raw.read(_MOST_READ, decode_content=False)
    response.close()


class _Words(logging.Handler):
    """Passes on what the library says of what went wrong."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """One message, without its traceback."""
        self._report(record.getMessage())
