"""Gives worker processes the transport of `tests.cluster.inside.transport`, where this folder is in PYTHONPATH."""

import sys
from pathlib import Path

if "loadbench.engine.worker" in sys.orig_argv:
    sys.path.append(str(Path(__file__).parents[3]))
    from loadbench.targets import clients
    from tests.cluster.inside.transport import InsideTransport

    clients.make_transport = lambda *_, **__: InsideTransport()
