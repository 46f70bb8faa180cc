"""The longer fuzz: `python -m tests.fuzz [MINUTES] [READER ...]`; ten minutes for all readers if nothing is named.

Each reader gets an equal share of the time. With atheris, which has no wheels for every interpreter, the input is
guided by what it reaches; without it hypothesis changes what the reader can read. An input that breaks a reader, or
takes it more than `_SLOW_S`, is kept in `tests/fuzz/corpus/READER/`, where the suite reads it from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
import traceback
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from loadbench.core.errors import LoadbenchError
from tests.fuzz.inputs import inputs, seeds
from tests.fuzz.readers import CORPUS, READERS

ROOT = Path(__file__).parents[2]
_SLOW_S = 5.0
_BATCH = 50


def read(name: str, data: bytes) -> str:
    """What is wrong with how a reader takes this input; empty if nothing is."""
    began_s = time.perf_counter()
    try:
        READERS[name].read(data)
    except LoadbenchError as error:
        if "\n" in error.message:
            return f"a message of several lines: {error.message!r}"
    except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
        return traceback.format_exc()
    took_s = time.perf_counter() - began_s
    return f"it took {took_s:.1f} s for {len(data)} bytes" if took_s > _SLOW_S else ""


def keep(name: str, data: bytes, wrong: str) -> str:
    """Keep an input, and say where and why."""
    path = CORPUS / name / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"{path.relative_to(ROOT)}: {wrong}"


def by_hypothesis(name: str, seconds: float) -> tuple[int, list[str]]:
    """(inputs tried, what they broke), each place in the code once."""
    ends_s = time.monotonic() + seconds
    found: dict[str, str] = {}
    tried = 0
    while time.monotonic() < ends_s:

        @seed(time.time_ns())
        @settings(max_examples=_BATCH, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(st.data())
        def batch(drawn: st.DataObject) -> None:
            nonlocal tried
            data = drawn.draw(inputs(name))
            tried += 1
            wrong = read(name, data)
            place = "\n".join(line for line in wrong.splitlines() if line.startswith("  File"))[-200:]
            if wrong and place not in found:
                found[place] = keep(name, data, wrong)

        batch()
    return tried, list(found.values())


def by_atheris(name: str, seconds: float) -> None:
    """Fuzz one reader in this process, which ends with the first input that breaks it."""
    import atheris  # noqa: PLC0415 - not on every interpreter

    folder = ROOT / ".fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    for data in seeds(name):
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)

    def one(data: bytes) -> None:
        wrong = read(name, data)
        if wrong:
            sys.stdout.write(keep(name, data, wrong) + "\n")
            raise SystemExit(1)

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}", "-max_len=20000", str(folder)], one)
    atheris.Fuzz()


def main() -> int:
    """Fuzz each reader for its share of the time; 1 if one broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("minutes", type=float, nargs="?", default=10)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"some of {', '.join(READERS)}")
    parser.add_argument("--atheris", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    names = options.readers or list(READERS)
    share_s = 60 * options.minutes / len(names)
    if options.atheris:
        by_atheris(names[0], share_s)
        return 0
    try:
        import atheris  # noqa: F401, PLC0415 - only whether there is one
    except ImportError:
        guided = False
    else:
        guided = True
    broken = 0
    for name in names:
        if guided:
            command = [sys.executable, "-m", "tests.fuzz", "--atheris", str(share_s / 60), name]
            broken += subprocess.run(command, cwd=ROOT, check=False).returncode != 0
            continue
        tried, found = by_hypothesis(name, share_s)
        broken += bool(found)
        sys.stdout.write(f"{name}: {tried} inputs, {len(found)} broke it\n" + "".join(f"{one}\n" for one in found))
        sys.stdout.flush()
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
