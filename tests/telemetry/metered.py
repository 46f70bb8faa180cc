"""A sampler of a machine with a meter, for tests: `package0` draws 40 W, told ten times in its interval.

Takes the arguments of `python -m loadbench.telemetry` and speaks as it does. Ends after METERED_ENDS_AFTER readings, if
that is set; has no meter where METERED_PACKAGE is empty.
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
    packages = ["package0"] if os.environ.get("METERED_PACKAGE", "package0") else None
    say({"process": None, "host": None, "boards": None, "packages": packages})
    most = int(os.environ.get("METERED_ENDS_AFTER", sys.maxsize))
    for _ in range(most):
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
