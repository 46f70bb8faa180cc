"""`loadbench` as the documents' commands call it in tests: the same command on a quick simulated server, for a moment.

    SIMULATED="URL URL URL URL" python tests/docs/shortened.py sweep --url http://127.0.0.1:8080

Servers on this machine and in private networks are replaced by simulated ones: the first that a command names by the
first of them, every other by the second; where a command names models, by the third and fourth, which have them all.
So is the server of a file, and the one that a command would simulate by itself.

Times and counts are cut, given by a flag or not. A measurement that was cut this short may be unsound or undecided: the
exit codes 3, 4 and 5 become 0. `serve` has been started already.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHORT = {
    "budget": "4s",
    "drain": "5s",
    "duration": "100ms",
    "max-total": "10s",
    "prometheus": "0",
    "ramp": "50ms",
    "repeats": "1",
    "requests": "5",
    "settle": "0s",
    "telemetry": "off",
    "think": "10ms",
    "warm-up": "50ms",
}
# Of these the defaults, or a file's values, are longer than a test may take.
_LEVEL = ("duration", "telemetry", "think", "warm-up")
DEFAULTS = {
    "capacity": ("budget", "telemetry", "think", "warm-up"),
    "compare": (*_LEVEL, "repeats", "settle"),
    "replay": ("telemetry", "warm-up"),
    "sweep": _LEVEL,
}
# A collector of metrics is no server under test.
SERVER = re.compile(
    r"(?<![\w.])http://(?:127\.0\.0\.1|localhost|10\.\d+\.\d+\.\d+|192\.168\.\d+\.\d+)(?!:4318)(?::\d+)?\b"
)
FLAG = re.compile(rf"--({'|'.join(SHORT.keys() - {'telemetry'})})(?:=(.*))?")


def places(arguments: list[str], simulated: list[str]) -> list[str]:
    """The two servers of a command."""
    models = arguments[0] == "score" or re.search(r"--(?:\w+-)?models?[ =](?!all\b)", " ".join(arguments))
    return simulated[2:] if models else simulated[:2]


def shortened(arguments: list[str], simulated: list[str]) -> list[str]:
    """The command line with other servers, times and counts."""
    named = list(dict.fromkeys(SERVER.findall(" ".join(arguments))))
    servers = places(arguments, simulated)
    short: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if flag := FLAG.fullmatch(argument):
            # The value is in the same word, or it is the next one.
            if flag[2] is None:
                next(rest)
            # That of a grid is for many levels, each of which is short by itself.
            is_grids = (arguments[0], flag[1]) == ("sweep", "budget")
            short.append(f"--{flag[1]}={'5m' if is_grids else SHORT[flag[1]]}")
        elif argument == "--profile":
            next(rest)
            short.append(f"--url={servers[0]}")
        else:
            short.append(SERVER.sub(lambda server: servers[min(named.index(server[0]), 1)], argument))
    return short


def main() -> int:
    """Do what the shortened command does."""
    simulated = os.environ.pop("SIMULATED", "").split()
    # A server that a shortened command starts is the real one.
    arguments = shortened(sys.argv[1:], simulated) if simulated else sys.argv[1:]
    if simulated and arguments[:1] == ["serve"] and "--list" not in arguments:
        sys.stdout.write(f"READY {simulated[0]}\n")
        return 0
    measures = arguments[0] in {"capacity", "replay", "sweep", "workshop"}
    if measures and not {"--from", "--server-cmd", "--yes-run"} & set(arguments):
        os.environ["LOADBENCH_URL"] = places(arguments, simulated)[0]
    for name in DEFAULTS.get(arguments[0], ()):
        os.environ[f"LOADBENCH_{name.upper().replace('-', '_')}"] = SHORT[name]
    sys.argv[1:] = arguments
    from loadbench.cli import main as loadbench  # noqa: PLC0415 - as a user's command begins

    try:
        loadbench()
    except SystemExit as end:
        return 0 if end.code in {3, 4, 5} else end.code
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
