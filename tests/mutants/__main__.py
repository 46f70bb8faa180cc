"""Mutation testing: change one thing in a module, and see whether a test fails. `nox -s mutants -- MODULE… [N]`.

A module is a file or a folder of the package, such as `wire/usage.py` or `record`. N changes of each file are drawn at
random by `--seed`; without N, all are made. The tests run in a copy of the project, first those of the module's own
test file, then those of its package (not with `--own`) and of the files that `--tests` names; of these those that run
the changed line, without slow ones. A change that no test notices is a survivor: it is listed, unless `PACKAGE.toml`
here explains why it makes no difference. Linux and macOS only.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import coverage
import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.mutants.changes import Change, all_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

ROOT = Path(__file__).parents[2]
# Loaded once: each change is tested in a fork of this process, which imports the package anew.
HEAVY = (
    *("_hypothesis_pytestplugin", "anyio.pytest_plugin", "asyncio", "hdrh.histogram", "httpx", "jsonschema", "msgspec"),
    *("numpy.random", "orjson", "pdb", "platformdirs", "pytest_timeout", "xdist.looponfail", "xdist.plugin"),
    *("xdist.workermanage", "xml.etree.ElementTree"),
)
# Times what the tests take undisturbed, and a little: far more than a change that only makes them slower.
CPU_FACTOR, CPU_S, WALL_FACTOR, WALL_S = 4, 10, 10, 60
MOST_BYTES = 4 << 30
UNKNOWN_S = 1200
KILLED, SURVIVED, TIMED_OUT, NOT_RUN = "killed", "survived", "timed out", "not run"


class Watching:
    """Notes which lines of some modules each test runs, and how long the test takes."""

    def __init__(self, root: Path, modules: list[Path], notes: Path) -> None:
        self.root, self.modules, self.notes = root, modules, notes
        self.coverage = coverage.Coverage(data_file=None, include=[str(root / within) for within in modules])
        self.took_s: dict[str, float] = {}
        self.coverage.start()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self.coverage.switch_context(item.nodeid)
        began = time.perf_counter()
        try:
            return (yield)
        finally:
            self.took_s[item.nodeid] = time.perf_counter() - began
            self.coverage.switch_context("")

    def pytest_unconfigure(self) -> None:
        self.coverage.stop()
        data = self.coverage.get_data()
        lines: dict[str, dict[str, list[int]]] = {name: {} for name in self.took_s}
        for within in self.modules:
            for line, names in data.contexts_by_lineno(str(self.root / within)).items():
                for name in names:
                    if name in lines:
                        lines[name].setdefault(str(within), []).append(line)
        self.notes.write_text(json.dumps({name: (took, lines[name]) for name, took in self.took_s.items()}), "utf-8")


class Choosing:
    """Only some tests, the quick ones first."""

    def __init__(self, chosen: dict[str, float]) -> None:
        self.chosen = chosen

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.chosen), key=lambda item: self.chosen[item.nodeid]
        )


@dataclass
class Copy:
    """A copy of the project in which one change at a time is tested."""

    place: Path
    pid: int = 0
    ends_by: float = 0
    stages: list[dict[str, float]] = field(default_factory=list)
    change: Change | None = None

    @property
    def log(self) -> Path:
        return self.place.with_suffix(".log")

    def start(self, tests: list[str], plugin: Callable[[], object], took_s: float = UNKNOWN_S) -> None:
        """Run tests, which took so long without a change, in a process of their own."""
        self.ends_by = time.monotonic() + WALL_S + WALL_FACTOR * took_s
        self.pid = os.fork()
        if self.pid:
            return
        code = 99
        try:
            os.setsid()
            os.chdir(self.place)
            for stream in (1, 2):
                os.dup2(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
            cpu_s = round(CPU_S + CPU_FACTOR * took_s)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
            resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
            # Two changes within a second may leave two texts of one size: bytecode would be taken for both.
            sys.dont_write_bytecode = took_s != UNKNOWN_S
            os.environ["PYTHONPATH"] = str(self.place)
            # What tests leave behind goes with the copies.
            os.environ["TMPDIR"], tempfile.tempdir = str(self.place.parent), None
            sys.path[:] = [str(self.place), *(path for path in sys.path if path not in {"", str(ROOT)})]
            for name in [name for name in sys.modules if name.partition(".")[0] in {"tests", "loadbench"}]:
                del sys.modules[name]
            options = ["-x", "-q", "-n0", "-pno:cacheprovider", "-m", "not slow and not engine", "--tb=short"]
            options += ["-Wignore::pytest.PytestAssertRewriteWarning", "--hypothesis-profile=mutants"]
            code = int(pytest.main([*options, *tests], [plugin()]))
        finally:
            if sys.exc_info()[0]:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def ended(self) -> str | None:
        """How the tests ended, or None while they run."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid and time.monotonic() < self.ends_by:
            return None
        self.stop()
        if not pid or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in {signal.SIGXCPU, signal.SIGKILL}):
            return TIMED_OUT
        return SURVIVED if status == 0 else KILLED

    def stop(self) -> None:
        """End what is left of the tests, and what they started."""
        if self.pid:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        self.pid = 0


def tests_of(root: Path, within: Path, *, own: bool) -> list[str]:
    """The test files of a module: its own, then those of its package, unless only its `own` is wanted."""
    beside = root / own_test(within)
    files = dict.fromkeys([beside, *([] if own else sorted(beside.parent.glob("test_*.py")))])
    return [str(file.relative_to(root)) for file in files if file.exists()]


def own_test(within: Path) -> str:
    return str(Path("tests", *within.parts[1:-1], f"test_{within.stem}.py"))


def explained_of(root: Path, within: Path) -> dict[tuple[str, str], str]:
    """The survivors of a module that make no difference, by their lines before and after: why."""
    package = within.parts[1]
    file = root / "tests/mutants" / f"{package}.toml"
    known = tomllib.loads(file.read_text("utf-8")) if file.exists() else {}
    return {(entry["before"], entry["after"]): entry["why"] for entry in known.get("/".join(within.parts[2:]), [])}


def watched(
    copy: Copy, modules: list[Path], more: list[str], *, own: bool
) -> dict[str, tuple[float, dict[str, list[int]]]]:
    """How long each test takes, and the lines of these modules that it runs."""
    notes = copy.place.with_suffix(".json")
    files = [*dict.fromkeys(file for within in modules for file in tests_of(copy.place, within, own=own)), *more]
    copy.start(files, partial(Watching, copy.place, modules, notes))
    while (how := copy.ended()) is None:
        time.sleep(0.02)
    if how != SURVIVED:
        sys.exit(f"{' '.join(files)} fail without a change:\n{copy.log.read_text('utf-8')[-3000:]}")
    return json.loads(notes.read_text("utf-8"))


def tried(
    within: Path, copies: list[Copy], tests: dict[str, tuple[float, dict[str, list[int]]]], most: int | None, seed: int
) -> tuple[Counter[str], list[str]]:
    """What became of the changes of a module, and the rows of those that survived."""
    root = copies[0].place
    source = (root / within).read_bytes()
    changes = all_changes(source)
    explained = explained_of(root, within)
    counts = Counter({"changes": len(changes)})
    if most is not None and most < len(changes):
        drawn = random.Random(f"{seed} {within.name}").sample(range(len(changes)), most)
        changes = [changes[index] for index in sorted(drawn)]
    counts["tried"] = len(changes)
    changes = [change for change in changes if change.lines(source) not in explained]
    counts["explained"] = counts["tried"] - len(changes)

    def stages(change: Change) -> list[dict[str, float]]:
        """The tests that run what is changed: those of the module's own file, then the others."""
        running = {
            name: took
            for name, (took, lines_of) in tests.items()
            if (lines := lines_of.get(str(within))) and (not change.lines_run or not change.lines_run.isdisjoint(lines))
        }
        first = {name: took for name, took in running.items() if name.startswith(own_test(within))}
        rest = {name: took for name, took in running.items() if name not in first}
        return [stage for stage in (first, rest) if stage]

    bytecode = Path(importlib.util.cache_from_source(str(within)))
    rows = []
    waiting = changes[::-1]
    while waiting or any(copy.change for copy in copies):
        for copy in copies:
            if copy.change is None:
                if not waiting:
                    continue
                copy.change = waiting.pop()
                copy.stages = stages(copy.change)
                (copy.place / bytecode).unlink(missing_ok=True)
                (copy.place / within).write_bytes(copy.change.of(source))
                how = SURVIVED if copy.stages else NOT_RUN
            else:
                how = copy.ended()
            if how == SURVIVED and copy.stages:
                stage = copy.stages.pop(0)
                named = list(dict.fromkeys(name.partition("::")[0] for name in stage))
                copy.start(named, partial(Choosing, stage), sum(stage.values()))
            elif how is not None:
                counts[how] += 1
                if how in {SURVIVED, NOT_RUN}:
                    before, after = copy.change.lines(source)
                    note = " (no test runs it)" if how == NOT_RUN else ""
                    rows.append(
                        (copy.change.line, f"{within}:{copy.change.line}{note}\n    - {before}\n    + {after}\n")
                    )
                copy.change = None
                (copy.place / within).write_bytes(source)
                if (done := sum(counts[name] for name in (KILLED, SURVIVED, TIMED_OUT, NOT_RUN))) % 50 == 0:
                    sys.stderr.write(f"{within}: {done} of {len(changes)}, {len(rows)} survived\n")
        time.sleep(0.01)
    return counts, [row for _, row in sorted(rows)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="nox -s mutants --", description=__doc__)
    parser.add_argument(
        "modules", nargs="+", metavar="MODULE", help="a file or folder, as record/histogram.py; a number: N"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the random sample")
    parser.add_argument("--tests", nargs="+", default=[], metavar="FILE", help="further test files")
    parser.add_argument("--own", action="store_true", help="of the package's test files only the module's own: quicker")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, metavar="N", help="tested side by side")
    given = parser.parse_args()
    numbers = [int(word) for word in given.modules if word.isdecimal()]
    modules: list[Path] = []
    for word in given.modules:
        if not word.isdecimal():
            place = next((path for path in (ROOT / "loadbench" / word, ROOT / word) if path.exists()), None)
            if place is None:
                parser.error(f"there is no module {word}")
            modules += [file.relative_to(ROOT) for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place])]
    for name in HEAVY:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()  # no collection looks at it
    # Found is enough: no smaller example is searched for, and a run is the same each time.
    settings.register_profile(
        "mutants",
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    names = ("changes", "tried", KILLED, TIMED_OUT, "explained", SURVIVED, NOT_RUN)
    table = [f"| module | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    with tempfile.TemporaryDirectory(prefix="loadbench-mutants-") as folder:
        first = Copy(Path(folder) / "0")
        listed = ["git", "ls-files", "-co", "--exclude-standard"]
        files = subprocess.run(listed, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        for name in (name for name in files if (ROOT / name).is_file()):
            (first.place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, first.place / name)
        copies = [first]
        for number in range(1, given.at_once):
            copies.append(Copy(Path(folder) / str(number)))
            shutil.copytree(first.place, copies[-1].place)
        try:
            tests = watched(first, modules, given.tests, own=given.own)
            for module in modules:
                counts, rows = tried(module, copies, tests, min(numbers, default=None), given.seed)
                sys.stdout.write("".join(f"{row}\n" for row in rows))
                if counts["changes"]:
                    figures = " | ".join(str(counts[name]) for name in names)
                    table.append(f"| {module.relative_to('loadbench')} | {figures} |")
                    sys.stderr.write(f"{table[-1]}\n")
                sys.stdout.flush()
        finally:
            for copy in copies:
                copy.stop()
    sys.stdout.write("".join(f"{row}\n" for row in table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
