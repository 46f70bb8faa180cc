"""A sampler of a machine with a meter, for tests: `package0` draws 40 W, told ten times in its interval.

Takes the arguments of `python -m loadbench.telemetry` and speaks as it does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

WATTS = 40.0


def main() -> None:
    """Tell readings until standard input ends."""
    threading.Thread(target=end_with_stdin, daemon=True).start()
    say({"process": None, "host": None, "boards": None, "packages": ["package0"]})
    while True:
        at_ns = time.perf_counter_ns()
        say({"at_ns": at_ns, "values": {"package0_energy_j_total": WATTS * at_ns / 1e9}})
        time.sleep(0.01)


def say(record: object) -> None:
    """One line."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def end_with_stdin() -> None:
    """Wait for it."""
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
