"""The sampler process: reads every source at intervals and writes a line for each reading.

    python -m loadbench.telemetry --port 8080 --host 127.0.0.1 --interval-ns 1000000000

It is separate from the load generator, so that even a slow driver never blocks the event loop or the interpreter that
stamps responses. The first line says what is read. `at_ns` is from `time.perf_counter_ns`, which is one clock for all
processes of a machine. Its own CPU time is among the readings. It ends when its standard input ends, and at once if
there is nothing to read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from loadbench.core.children import end_with_parent
from loadbench.telemetry.sources import about_all, read_all, sources

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample until the parent process ends."""
    parser = argparse.ArgumentParser(prog="python -m loadbench.telemetry", description="Sample this machine.")
    parser.add_argument("--port", type=int, help="the server's port")
    parser.add_argument("--host", help="the address that the server listens on")
    parser.add_argument("--pid", type=int, help="the server's process, if it is known")
    parser.add_argument("--interval-ns", type=int, default=1_000_000_000)
    options = parser.parse_args(arguments)
    end_with_parent(lambda: os._exit(0))
    readable = sources(port=options.port, host=options.host, pid=options.pid, root=Path("/"))
    _write(about_all(readable))

    # At fixed times; a missed one is skipped.
    due_ns = time.perf_counter_ns()
    while readable:
        at_ns = time.perf_counter_ns()
        _write({"at_ns": at_ns, "values": read_all(readable) | {"sampler_cpu_s_total": time.process_time()}})
        now_ns = time.perf_counter_ns()
        due_ns += options.interval_ns * (1 + max(0, now_ns - due_ns) // options.interval_ns)
        time.sleep((due_ns - now_ns) / 1e9)


def _write(record: object) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
