"""What the live view costs: `python -m tests.bench.live [ROUNDS]`.

The same sweep of the simulated server on a terminal of its own, with the view and with --no-live by turns. Shown are
the ratios of both: of the client's CPU time per event, and of the 99th percentile of its event loop's lag.
"""

from __future__ import annotations

import json
import os
import pty
import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench.running import say
from tests.cli.running import COMMAND, environment

_SWEEP = ["sweep", "--users=64", "--workers=1", "--duration=8s", "--warm-up=1s", "--telemetry=off", "--out"]


def measured(*flags: str) -> tuple[float, float]:
    """(CPU time per event, lag's p99), both in seconds, of one level."""
    with tempfile.TemporaryDirectory() as folder:
        pid, terminal = pty.fork()
        if not pid:
            os.execve(sys.executable, [*COMMAND, *_SWEEP, folder, *flags], environment(TERM="xterm", COLUMNS="100"))
        try:
            while os.read(terminal, 65536):
                pass
        except OSError:
            pass  # the end of a pty
        os.waitpid(pid, 0)
        os.close(terminal)
        (run,) = Path(folder).glob("*/run.json")
        client = json.loads(run.read_text(encoding="utf-8"))["levels"][0]["client"]
    return client["cpu_per_event_s"], client["loop_lag_s"]["p99"]


def main() -> None:
    """Measure by turns, and print the ratios."""
    cpu, lag = [], []
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 6):
        turns = [(), ("--no-live",)]
        found = {flags: measured(*flags) for flags in (turns if number % 2 else turns[::-1])}
        for ratios, figure in ((cpu, 0), (lag, 1)):
            ratios.append(found[()][figure] / found["--no-live",][figure])
        say(f"round {number + 1}: CPU time per event x {cpu[-1]:.3f}, lag p99 x {lag[-1]:.3f}")
    for name, ratios in (("CPU time per event", cpu), ("lag p99", lag)):
        say(f"{name}: median x {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
