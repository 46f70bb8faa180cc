"""Mutation testing: change one thing in a module, and see whether a test fails. `nox -s mutants -- MODULE… [N]`.

A module is a file or a folder of the package, such as `wire/usage.py` or `record`. N changes of each file are drawn at
random by `--seed`; without N, all are made. The tests run in a copy of the project, first those of the module's own
test file, then those of its package and the ones that import it; those over sockets and processes do not, unless
`--tests` names them. A change that no test notices is a survivor: it is listed, unless `PACKAGE.toml` here explains
why it makes no difference. Linux and macOS only.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.mutants.changes import Change, all_changes

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
# Tests here need no socket and no other process, and are quick.
QUICK = ("record", "wire", "plan", "analyze", "results", "report")
# Loaded once: each change is tested in a fork of this process, which imports the package anew.
HEAVY = (
    "anyio",
    "httpx",
    "msgspec",
    "numpy",
    "orjson",
    "hdrh.histogram",
    "xdist.plugin",
    "pytest_timeout",
    "jsonschema",
)
# Times what the tests take undisturbed: far more than a change that only makes them slower.
CPU_FACTOR, WALL_FACTOR, AT_LEAST_S = 4, 10, 10
MOST_BYTES = 4 << 30
KILLED, SURVIVED, TIMED_OUT = "killed", "survived", "timed out"


@dataclass
class Copy:
    """A copy of the project in which one change at a time is tested."""

    place: Path
    pid: int = 0
    ends_by: float = 0
    stage: int = 0
    change: Change | None = None
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.place.with_suffix(".log")

    def start(self, tests: list[str], cpu_s: float, wall_s: float, *, keep_bytecode: bool = False) -> None:
        """Run tests in a process of their own."""
        shutil.rmtree(self.place / ".hypothesis", ignore_errors=True)
        self.ends_by = time.monotonic() + wall_s
        self.pid = os.fork()
        if self.pid:
            return
        code = 99
        try:
            os.setsid()
            os.chdir(self.place)
            for stream in (1, 2):
                os.dup2(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1, int(cpu_s) + 2))
            resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
            sys.dont_write_bytecode = not keep_bytecode
            os.environ["PYTHONPATH"] = str(self.place)
            sys.path[:] = [str(self.place), *(path for path in sys.path if path not in {"", str(ROOT)})]
            for name in [name for name in sys.modules if name.partition(".")[0] in {"tests", "loadbench"}]:
                del sys.modules[name]
            options = ["-x", "-q", "-n0", "-pno:cacheprovider", "-m", "not slow and not engine", "--tb=short"]
            options += ["-Wignore::pytest.PytestAssertRewriteWarning", "--hypothesis-profile=mutants"]
            code = int(pytest.main([*options, *tests]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def ended(self) -> str | None:
        """How the tests ended, or None while they run."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            if time.monotonic() < self.ends_by:
                return None
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            return TIMED_OUT
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if os.WIFSIGNALED(status):
            return TIMED_OUT if os.WTERMSIG(status) in {signal.SIGXCPU, signal.SIGKILL} else KILLED
        return SURVIVED if os.WEXITSTATUS(status) == 0 else KILLED


def stages_of(module: Path, more: list[str]) -> list[list[str]]:
    """The test files of a module: its own, then those of its package and those that name it."""
    package = module.parent.relative_to(ROOT / "loadbench")
    own = ROOT / "tests" / package / f"test_{module.stem}.py"
    dotted = ".".join(module.relative_to(ROOT).with_suffix("").parts)
    folder, _, stem = dotted.rpartition(".")
    wide = sorted((ROOT / "tests" / package).glob("test_*.py"))
    for name in QUICK:
        for file in sorted((ROOT / "tests" / name).rglob("test_*.py")):
            text = file.read_text("utf-8")
            if f"{dotted} import" in text or (f"from {folder} import" in text and stem in text):
                wide.append(file)
    first = [str(own.relative_to(ROOT))] if own.exists() else []
    rest = [str(file.relative_to(ROOT)) for file in wide]
    rest = [file for file in dict.fromkeys([*rest, *more]) if file not in first]
    return [stage for stage in (first, rest) if stage]


def explained_of(module: Path) -> dict[tuple[str, str], str]:
    """The survivors of a module that make no difference, by their lines before and after: why."""
    package = module.relative_to(ROOT / "loadbench").parts[0]
    file = HERE / f"{package}.toml"
    known = tomllib.loads(file.read_text("utf-8")) if file.exists() else {}
    within = str(module.relative_to(ROOT / "loadbench" / package))
    return {(entry["before"], entry["after"]): entry["why"] for entry in known.get(within, [])}


def wait(copy: Copy) -> str:
    while (how := copy.ended()) is None:
        time.sleep(0.02)
    return how


def test_module(
    module: Path, copies: list[Copy], most: int | None, seed: int, more: list[str]
) -> tuple[Counter[str], list[str]]:
    """What became of the changes of a module, and the rows of those that survived."""
    source = module.read_bytes()
    changes = all_changes(source)
    explained = explained_of(module)
    counts = Counter({"changes": len(changes), "explained": 0})
    counts["explained"] = sum(change.lines(source) in explained for change in changes)
    changes = [change for change in changes if change.lines(source) not in explained]
    if most is not None and most < len(changes):
        drawn = random.Random(f"{seed} {module.name}").sample(range(len(changes)), most)
        changes = [changes[index] for index in sorted(drawn)]
    stages = stages_of(module, more)
    limits = []
    for tests in stages:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        copies[0].start(tests, 3600, 3600, keep_bytecode=True)
        if wait(copies[0]) != SURVIVED:
            sys.exit(f"{' '.join(tests)} fail without a change:\n{copies[0].log.read_text('utf-8')[-3000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        limits.append((AT_LEAST_S + CPU_FACTOR * cpu_s, AT_LEAST_S + WALL_FACTOR * (time.monotonic() - began)))
    bytecode = Path(importlib.util.cache_from_source(str(module))).relative_to(ROOT)
    rows: list[tuple[int, str]] = []
    waiting = changes[::-1]

    def run(copy: Copy) -> None:
        copy.start(stages[copy.stage], *limits[copy.stage])

    while waiting or any(copy.change for copy in copies):
        for copy in copies:
            place = copy.place / module.relative_to(ROOT)
            if copy.change is None:
                if waiting:
                    copy.change, copy.stage = waiting.pop(), 0
                    (copy.place / bytecode).unlink(missing_ok=True)
                    place.write_bytes(copy.change.of(source))
                    run(copy)
                continue
            how = copy.ended()
            if how == SURVIVED and copy.stage + 1 < len(stages):
                copy.stage += 1
                run(copy)
            elif how is not None:
                counts[how] += 1
                if how == SURVIVED:
                    before_text, after_text = copy.change.lines(source)
                    row = f"{module.relative_to(ROOT)}:{copy.change.line}\n    - {before_text}\n    + {after_text}\n"
                    rows.append((copy.change.line, row))
                copy.change = None
                place.write_bytes(source)
                done = counts[KILLED] + counts[SURVIVED] + counts[TIMED_OUT]
                if sys.stderr.isatty() or done % 50 == 0:
                    sys.stderr.write(f"{module.name}: {done} of {len(changes)}, {len(rows)} survived\n")
        time.sleep(0.02)
    return counts, [row for _, row in sorted(rows)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="nox -s mutants --", description=__doc__)
    parser.add_argument(
        "modules", nargs="+", metavar="MODULE", help="a file or folder, as record/histogram.py; a number: N"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the random sample")
    parser.add_argument("--tests", nargs="+", default=[], metavar="FILE", help="further test files")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, metavar="N", help="tested side by side")
    given = parser.parse_args()
    numbers = [int(word) for word in given.modules if word.isdecimal()]
    modules: list[Path] = []
    for word in given.modules:
        if not word.isdecimal():
            place = next((path for path in (ROOT / word, ROOT / "loadbench" / word) if path.exists()), None)
            if place is None:
                parser.error(f"there is no module {word}")
            modules += sorted(place.rglob("*.py")) if place.is_dir() else [place]
    for name in HEAVY:
        with suppress(ImportError):
            importlib.import_module(name)
    # Found is enough: no smaller example is searched for, and a run is the same each time.
    settings.register_profile(
        "mutants",
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    table, survivors = [], []
    with tempfile.TemporaryDirectory(prefix="loadbench-mutants-") as folder:
        first = Path(folder) / "0"
        files = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
        )
        for name in files.stdout.splitlines():
            if (ROOT / name).is_file():
                (first / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, first / name)
        copies = [Copy(first)]
        for number in range(1, given.at_once):
            copies.append(Copy(Path(folder) / str(number)))
            shutil.copytree(first, copies[-1].place)
        for module in modules:
            counts, rows = test_module(module, copies, min(numbers, default=None), given.seed, given.tests)
            if counts["changes"]:
                names = ("changes", "explained", KILLED, TIMED_OUT, SURVIVED)
                table.append(
                    f"| {module.relative_to(ROOT / 'loadbench')} | "
                    + " | ".join(str(counts[name]) for name in names)
                    + " |"
                )
                sys.stderr.write(f"{table[-1]}\n")
            survivors += rows
    sys.stdout.write("".join(f"{row}\n" for row in survivors))
    sys.stdout.write("| module | changes | explained | killed | timed out | survived |\n|---|--:|--:|--:|--:|--:|\n")
    sys.stdout.write("".join(f"{row}\n" for row in table))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
