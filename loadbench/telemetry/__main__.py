"""The sampler's own process: reads every source at intervals and writes a line for each reading.

    python -m loadbench.telemetry --port 8080 --host 127.0.0.1 --interval-ns 1000000000

It is apart from what makes the load, so that no reading, however slow a driver may be, holds an event loop or the
interpreter that has answers to stamp. The first line says what there is; `at_ns` is of `time.perf_counter_ns`, which is
one clock for all processes of a machine. What it spends itself is among what it reads. Ends when its standard input
does, and at once where there is nothing to read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from loadbench.sim.process import end_with_parent
from loadbench.telemetry.sources import about_all, read_all, sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.telemetry.sources import Source


def main(arguments: Sequence[str] | None = None) -> None:
    """Read until told to stop."""
    options = _options(arguments)
    end_with_parent(lambda: os._exit(0))
    found = sources(port=options.port, host=options.host, pid=options.pid, root=Path("/"))
    _say(about_all(found))
    if found:
        _sample(found, options.interval_ns)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadbench.telemetry", description="Sample this machine.")
    parser.add_argument("--port", type=int, help="the server's")
    parser.add_argument("--host", help="the address that it listens on")
    parser.add_argument("--pid", type=int, help="the server's process, if it is known")
    parser.add_argument("--interval-ns", type=int, default=1_000_000_000)
    return parser.parse_args(arguments)


def _sample(found: Sequence[Source], interval_ns: int) -> None:
    """At fixed moments; one that was missed is not made up for."""
    due_ns = time.perf_counter_ns()
    while True:
        at_ns = time.perf_counter_ns()
        _say({"at_ns": at_ns, "values": read_all(found) | {"sampler_cpu_s_total": time.process_time()}})
        now_ns = time.perf_counter_ns()
        due_ns += interval_ns * (1 + max(0, now_ns - due_ns) // interval_ns)
        time.sleep((due_ns - now_ns) / 1e9)


def _say(record: object) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
