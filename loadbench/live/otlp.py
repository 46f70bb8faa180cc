"""The metrics of a run to an OpenTelemetry collector: OTLP over HTTP, with the extra `otel`.

The library's own instruments would take microseconds for each value. So values are counted in `MetricsFeed`, and only
the sums go through the library, which encodes and sends them. It honours the variables `OTEL_EXPORTER_OTLP_HEADERS`,
`…_CERTIFICATE`, `…_COMPRESSION` and the like.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from loadbench import __version__
from loadbench.core.errors import BadInput
from loadbench.core.secrets import Secrets
from loadbench.core.text import printable
from loadbench.live.metrics_feed import Distribution
from loadbench.plan.server_url import ServerUrl, shown_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadbench.live.metrics_feed import Metric

# A run is short: the minute that is usual would show a handful of points. OTEL_METRIC_EXPORT_INTERVAL sets another.
_EVERY_S = 5.0
# What the end of a run waits for a collector that does not respond.
_WAIT_S = 3.0
_PATH = "/v1/metrics"
_MOST_WORDS = 300


class OtlpExporter:
    """Sends to this URL, which may be that of the collector alone; `loadbench.live.metrics_feed.Exporter`.

    `say` reports once that the collector takes nothing. Raises `BadInput` without the extra.
    """

    def __init__(
        self, url: str, *, about: Mapping[str, str], environment: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
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
        self._sdk, self._say, self._has_failed = export, say, False
        self._resource = Resource.create({"service.name": "loadbench", **about})
        self._scope = InstrumentationScope("loadbench", __version__)
        parts = urlsplit(url)
        path = parts.path.rstrip("/")
        endpoint = urlunsplit(parts._replace(path=path if path.endswith(_PATH) else path + _PATH))
        session = requests.Session()
        # As all of loadbench: no proxies and no passwords of the surroundings, and no other place than the named one.
        session.trust_env, session.max_redirects = False, 0
        # Its own words are for programmers; the first of them is reported.
        self._log = logging.getLogger("opentelemetry")
        self._log.propagate = False
        self._log.handlers = [_Words(self._failure)]
        self._exporter = metric_exporter.OTLPMetricExporter(endpoint, timeout=_WAIT_S, session=session)
        # It may hold a password.
        self.url, self._secrets = shown_url(endpoint), Secrets(ServerUrl.parse(url).secrets)
        try:
            self._every_s = float(environment["OTEL_METRIC_EXPORT_INTERVAL"]) / 1000
        except (KeyError, ValueError):
            self._every_s = _EVERY_S
        self._started_ns, self._next_s = time.time_ns(), 0.0

    def export(self, metrics: Sequence[Metric], *, last: bool) -> None:
        """Send them, if it is time or the last time."""
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
        self._exporter.export(sdk.MetricsData(resource_metrics=[resource]), timeout_millis=_WAIT_S * 1000)

    def _failure(self, words: str) -> None:
        """Report the first failure."""
        if not self._has_failed:
            self._has_failed = True
            self._say(f"--otlp {self.url}: {self._secrets.hide(words)}; the run goes on without it")

    def close(self) -> None:
        """Let the connection go."""
        self._exporter.shutdown(timeout_millis=_WAIT_S * 1000)
        self._log.handlers = []


class _Words(logging.Handler):
    """Passes on what the library says of what went wrong."""

    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """One message, without its traceback."""
        self._report(printable(record.getMessage())[:_MOST_WORDS])
