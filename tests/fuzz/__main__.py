"""The longer fuzz: `python -m tests.fuzz [MINUTES] [READER ...]`; ten minutes for all readers if nothing is named.

Each reader gets an equal share of the time. hypothesis changes the values and the bytes of what the reader can read;
where there is atheris, which has no wheels for every interpreter, half of the time goes to bytes guided by what they
reach. An input that breaks a reader, or takes it more than `_SLOW_S`, is kept in `tests/fuzz/corpus/READER/`, where the
suite reads it from then on. An input that reaches what none before it did is kept in `.fuzz/READER/`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
import traceback
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

try:
    import atheris
except ImportError:
    atheris = None

# Only of what is imported here atheris knows what is reached. It names each module on stderr.
with (
    nullcontext() if atheris is None else atheris.instrument_imports(include=["loadbench"]),
    redirect_stderr(StringIO()),
):
    from loadbench.core.errors import LoadbenchError
    from tests.fuzz.inputs import inputs, seeds
    from tests.fuzz.readers import CORPUS, READERS

ROOT = Path(__file__).parents[2]
# Of CPU time: others may be at work on this machine.
_SLOW_S = 5.0
# Beyond this an input is taken for one that never ends.
_ENDLESS_S = 60
_BATCH = 50


class Attempts:
    """What was tried of one reader, and what broke it: each place in the code once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tried = 0
        self.broken: dict[str, str] = {}

    def attempt(self, data: bytes) -> None:
        """Have the reader take an input; keep it if that breaks the reader."""
        self.tried += 1
        wrong = ""
        began_s = time.process_time()
        try:
            READERS[self.name].read(data)
        except LoadbenchError as error:
            if "\n" in error.message:
                wrong = f"a message of several lines: {error.message!r}"
        except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
            wrong = traceback.format_exc()
        took_s = time.process_time() - began_s
        if not wrong and took_s > _SLOW_S:
            wrong = f"slow: {took_s:.1f} s for {len(data)} bytes"
        place = "\n".join(line for line in wrong.splitlines() if line.startswith("  File"))[-200:]
        if wrong and (place := place or wrong.partition(":")[0]) not in self.broken:
            path = CORPUS / self.name / hashlib.sha256(data).hexdigest()[:16]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self.broken[place] = f"{path.relative_to(ROOT)}: {wrong}"

    def report(self, how: str, seconds: float) -> None:
        """A line with the figures, and what was found."""
        sys.stdout.write(f"{self.name} ({how}): {self.tried} inputs in {seconds:.0f} s, {len(self.broken)} broke it\n")
        sys.stdout.write("".join(f"{wrong}\n" for wrong in self.broken.values()))
        sys.stdout.flush()


def by_hypothesis(name: str, seconds: float) -> bool:
    """Fuzz one reader; whether it held."""
    began_s = time.monotonic()
    attempts, ends_s = Attempts(name), began_s + seconds
    while time.monotonic() < ends_s:

        @seed(time.time_ns())
        @settings(max_examples=_BATCH, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(st.data())
        def batch(drawn: st.DataObject) -> None:
            data = drawn.draw(inputs(name))
            if time.monotonic() < ends_s:
                attempts.attempt(data)

        batch()
    attempts.report("hypothesis", time.monotonic() - began_s)
    return not attempts.broken


def by_atheris(name: str, seconds: float) -> bool:
    """Fuzz one reader in a process of its own, since libFuzzer ends the process; whether it held."""
    folder = ROOT / ".fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    for data in seeds(name):
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code not in {0, 1}:
            sys.stdout.write(f"{name} (atheris): ended with {code}, see {folder}.log and {folder}-*\n")
        return code == 0
    log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 2)
    began_s = time.monotonic()
    attempts = Attempts(name)

    def one(data: bytes) -> None:
        if time.monotonic() >= began_s + seconds:
            attempts.report("atheris", time.monotonic() - began_s)
            os._exit(bool(attempts.broken))
        attempts.attempt(data)

    longest = 2 * max(map(len, seeds(name)), default=0) + 1000
    options = [f"-max_len={longest}", f"-timeout={_ENDLESS_S}", f"-artifact_prefix={folder}-", str(folder)]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()
    os._exit(2)  # it does not return


def main() -> int:
    """Fuzz each reader for its share of the time; 1 if one broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("minutes", type=float, nargs="?", default=10)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"some of {', '.join(READERS)}")
    options = parser.parse_args()
    names = options.readers or list(READERS)
    ways = [by_hypothesis] if atheris is None else [by_hypothesis, by_atheris]
    share_s = 60 * options.minutes / len(names) / len(ways)
    held = [way(name, share_s) for name in names for way in ways]
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())
