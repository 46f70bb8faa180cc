"""Gives worker processes the client of `tests.cluster.numbered.client` for the server that is none (`parts.TARGET`),
where this folder is in PYTHONPATH."""

import sys
from pathlib import Path

if "loadbench.engine.worker" in sys.orig_argv:
    sys.path.append(str(Path(__file__).parents[3]))
    from loadbench.core.clock import MonotonicClock
    from loadbench.engine import level
    from loadbench.targets import clients
    from tests.cluster.numbered.client import NumberedClient, NumberedLevel

    real = clients.make_client

    def make_client(scenario, target, *rest, **more):
        """As the real one, for all servers that are."""
        if target.base_url == "http://127.0.0.1:9/v1":
            return NumberedClient(MonotonicClock())
        return real(scenario, target, *rest, **more)

    clients.make_client = make_client
    level.Level = NumberedLevel
