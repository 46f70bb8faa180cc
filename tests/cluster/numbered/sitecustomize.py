"""Gives worker processes the client of `tests.cluster.numbered.client`, where this folder is in PYTHONPATH."""

import sys
from pathlib import Path

if "loadbench.engine.worker" in sys.orig_argv:
    sys.path.append(str(Path(__file__).parents[3]))
    from loadbench.core.clock import MonotonicClock
    from loadbench.targets import clients
    from tests.cluster.numbered.client import NumberedClient

    clients.make_client = lambda *_, **__: NumberedClient(MonotonicClock())
