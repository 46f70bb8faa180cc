"""The metrics of a run as a page that Prometheus scrapes while the run goes on.

Names follow OpenTelemetry's rules for Prometheus: dots are underscores, the unit and `_total` come last.
"""

from __future__ import annotations

import math
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from loadbench.core.errors import CANNOT_LISTEN, BadInput, why_not_listening
from loadbench.live.metrics_feed import Distribution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.live.metrics_feed import Attributes, Metric

KIND = "text/plain; version=0.0.4; charset=utf-8"
# A client that sends its request this slowly is let go.
_SLOW_S = 5.0
_UNITS = {"s": "_seconds"}


def page(metrics: Sequence[Metric]) -> str:
    """The page, in Prometheus' text format."""
    lines = []
    for metric in metrics:
        instrument = metric.instrument
        name = re.sub(r"[^a-zA-Z0-9_]", "_", instrument.name) + _UNITS.get(instrument.unit, "")
        name += "_total" * (metric.kind == "counter")
        lines += [f"# HELP {name} {instrument.help}", f"# TYPE {name} {metric.kind}"]
        for attributes, value in metric.points:
            if not isinstance(value, Distribution):
                lines.append(f"{name}{_labels(attributes)} {value}")
                continue
            up_to = 0
            for bound, count in zip((*value.bounds, math.inf), value.counts, strict=True):
                up_to += count
                edge = "+Inf" if bound == math.inf else f"{bound:.10g}"
                lines.append(f"{name}_bucket{_labels((*attributes, ('le', edge)))} {up_to}")
            lines += [f"{name}_sum{_labels(attributes)} {value.sum!r}", f"{name}_count{_labels(attributes)} {up_to}"]
    return "\n".join(lines) + "\n"


def _labels(attributes: Attributes) -> str:
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
    pairs = (
        f'{name.replace(".", "_")}="{"".join(escapes.get(sign, sign) for sign in str(value))}"'
        for name, value in attributes
    )
    return f"{{{','.join(pairs)}}}"


class PrometheusEndpoint:
    """Serves the page at `/metrics` of this address; `loadbench.live.metrics_feed.Exporter`.

    Raises `BadInput` if nothing can listen there. Port 0 is any free port; `url` has it.
    """

    def __init__(self, host: str, port: int) -> None:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _SLOW_S
            server_version, sys_version = "loadbench", ""

            def do_GET(self) -> None:
                """The page as it was a second ago, at most."""
                found = self.path.partition("?")[0] == "/metrics"
                content = endpoint.content if found else b"the metrics are at /metrics\n"
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", KIND if found else "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Scrapes are no news."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

            def handle_error(self, *_: object) -> None:
                """A client that went away is no news either."""

        self.content = b""
        shown = f"[{host}]" if ":" in host else host
        self.name = f"--prometheus {shown}:{port}"
        try:
            self._server = Server((host, port), Handler)
        except CANNOT_LISTEN as error:
            raise BadInput(f"{self.name}: {why_not_listening(error)}", hint="name a port that is free") from None
        self.url = f"http://{shown}:{self._server.server_address[1]}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, name="prometheus", daemon=True)
        self._thread.start()

    def export(self, metrics: Sequence[Metric], *, last: bool) -> None:  # noqa: ARG002 - the page stays until `close`
        """Show these from now on."""
        self.content = page(metrics).encode()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
