"""A process that works for a given share of the time, by its own account of its CPU time, with a child that does too.

    python tests/telemetry/burner.py SHARE PORT

Prints `READY PORT` once it listens, then on each line of its standard input its CPU seconds so far, its own and its
child's; ends with its input.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time


def burn(share: float) -> None:
    """Work until the CPU time is this share of the time that has passed, again and again."""
    began_s, spent_s = time.perf_counter(), time.process_time()
    while True:
        if time.process_time() - spent_s < share * (time.perf_counter() - began_s):
            sum(range(1000))
        else:
            time.sleep(0.005)


def main() -> None:
    """Parent or child, as the arguments say."""
    share = float(sys.argv[1])
    threading.Thread(target=burn, args=(share,), daemon=True).start()
    if len(sys.argv) > 2:
        parent(share, int(sys.argv[2]))
    else:
        answer([])


def parent(share: float, port: int) -> None:
    """Listen, and have a child do the same work."""
    with (
        socket.create_server(("127.0.0.1", port)) as listener,
        subprocess.Popen(
            [sys.executable, __file__, str(share)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child,
    ):
        sys.stdout.write(f"READY {listener.getsockname()[1]} {child.pid}\n")
        sys.stdout.flush()
        answer([child])
        child.kill()


def answer(children: list[subprocess.Popen[str]]) -> None:
    """Tell the CPU seconds of this process, as the system counts them, and of its children, at each line."""
    for line in sys.stdin:
        spent = sum(os.times()[:2])
        for child in children:
            child.stdin.write(line)
            child.stdin.flush()
            spent += float(child.stdout.readline())
        sys.stdout.write(f"{spent}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
