"""Metrics for other programs while a command measures (`--otlp`, `--prometheus`)."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from loadbench import __version__
from loadbench.plan.server_url import shown_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from loadbench.live.metrics_feed import Exporter, MetricsFeed
    from loadbench.plan.scenario import Scenario

# Both sides of a comparison are seen at one place.
_shared: dict[tuple[str | None, tuple[str, int] | None], MetricsFeed] = {}


@contextmanager
def metrics_feed(
    scenario: Scenario, environment: Mapping[str, str], *, say: Callable[[str], None]
) -> Iterator[MetricsFeed | None]:
    """What exports the metrics of the command's runs; `None` if nobody wants them.

    Raises `BadInput` for a port that cannot be used, and without the library for OTLP.
    """
    wanted = scenario.report.otlp, scenario.report.prometheus
    if not any(wanted) or wanted in _shared:
        yield _shared.get(wanted)
        return
    from loadbench.live.metrics_feed import MetricsFeed  # noqa: PLC0415 - few runs are exported

    exporters: list[Exporter] = []
    otlp, prometheus = wanted
    about = {
        "service.version": __version__,
        "loadbench.run": scenario.report.name,
        "loadbench.simulated": str(scenario.simulated).lower(),
    }
    with ExitStack() as stack, ExitStack() as opened:
        if otlp is not None:
            from loadbench.live.otlp import OtlpExporter  # noqa: PLC0415 - likewise

            exporters.append(OtlpExporter(otlp, about=about, environment=environment))
            opened.callback(exporters[-1].close)
            say(f"metrics are sent to {shown_url(otlp)}")
        if prometheus is not None:
            from loadbench.live.prometheus import PrometheusEndpoint  # noqa: PLC0415 - likewise

            exporters.append(endpoint := PrometheusEndpoint(*prometheus))
            opened.callback(endpoint.close)
            say(f"metrics for Prometheus are at {endpoint.url}")
        opened.pop_all()  # the feed closes them
        feed = stack.enter_context(MetricsFeed(exporters, environment, about=about, say=say))
        _shared[wanted] = feed
        stack.callback(_shared.pop, wanted)
        yield feed
