"""What the whole suite shares: how properties are tried, how tests share the cores, and the real engine.

The engine is llama.cpp's server with a model made on the spot.

The whole suite runs in several processes, test files in parallel, in two phases: first the files that may share the
machine, then those of `SERIAL`, one test at a time. Tests named on the command line run in one process.
"""

from __future__ import annotations

import atexit
import gc
import importlib.util
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

# A busy machine is slow, and that says nothing of the code.
settings.register_profile("anywhere", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("anywhere")

# Signals are tested. A shell that starts the suite in the background makes it and its children ignore this one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# So does `nohup` with this one, which the suite outlives here, and its children do not.
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

# Who runs the suite may like colours, or not; tests that are about them say so themselves.
for _name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE"):
    os.environ.pop(_name, None)
os.environ["TERM"] = "xterm"

# The history of runs is the tests' own, one for all processes of the suite.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="loadbench-state-")
    atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

ROOT = Path(__file__).parents[1]

# Files, folders and tests that run one at a time: they measure time over real sockets or CPU shares, stop processes, or
# load the machine themselves.
SERIAL = (
    "tests/cli/test_overload.py",
    "tests/cli/test_selfcheck.py",
    "tests/cli/test_signals.py",
    "tests/client/test_stamping.py",
    "tests/engine/test_selfcheck.py",
    "tests/engine/test_workers.py::test_workers_give_the_figures_of_one_process",
    "tests/gpu/",
    "tests/llamacpp/test_paired.py",
    "tests/llamacpp/test_telemetry.py",
    "tests/pitfalls/test_a_clocks.py",
    "tests/pitfalls/test_machine.py",
    "tests/telemetry/",
)
# Folders whose files run in one process, because they share servers that are expensive to start.
TOGETHER = ("tests/llamacpp/",)
# Files of minutes: the tests of each command or document, which is their first parameter, make a part of their own.
DIVIDED = ("tests/docs/test_commands.py::test_commands_run", "tests/settings/test_walk.py")
# More processes would gain nothing: by then the serial phase is most of the time.
_MOST_PROCESSES = 8
_WANTED = ("gguf", "tokenizers", "xllamacpp")
# Set where the suite must not pass by leaving the engine out.
_REQUIRED = "LOADBENCH_TEST_NEEDS_ENGINE"
# Not for the commands that tests run: to them it would be a setting, and an unknown one.
_NEEDED = os.environ.pop(_REQUIRED, "") == "1"
# Killed if it has not gone by then.
_GOODBYE_S = 10
# What is let go only after so many levels is some megabytes.
_LEVELS_KEPT = 25
_unfreeze, _levels = gc.unfreeze, itertools.count(1)


def _let_go() -> None:
    """A level freezes what is alive, and lets it go when it ends. With the thousands of tests among it, the collector
    would walk through them all once a level, for a quarter of a second: it is let go now and then."""
    if next(_levels) % _LEVELS_KEPT == 0:
        _unfreeze()
        gc.collect()
        gc.freeze()


def pytest_collection_finish() -> None:
    """No collection visits the tests."""
    gc.collect()
    gc.freeze()
    gc.unfreeze = _let_go


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three processes for two cores for the whole suite, since tests wait a third of their time; this one for some."""
    if config.option.file_or_dir not in ([], ["tests"]) or fcntl is None:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores * 3 // 2, _MOST_PROCESSES) if cores > 1 else 0


class _TwoPhases(LoadFileScheduling):
    """Hand out the files in the order of collection, and all serial ones together as the last."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(SERIAL):
            return "serial"
        if nodeid.startswith(DIVIDED):
            return "{} {}".format(*re.match(r"(.*?)::.*?\[(\w+)", nodeid).groups())
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling | None:
    """Two phases, unless another way was given by `--dist`."""
    return _TwoPhases(config, log) if config.option.dist == "loadfile" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several processes collect the serial tests last: that is the order in which files are handed out."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.nodeid.startswith(SERIAL))


# Outside of the timer of pytest-timeout: waiting here is no part of the test.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Where several processes test, a serial test waits until no other test runs, and others wait for it."""
    if fcntl is None or not hasattr(item.config, "workerinput"):
        return (yield)
    with Path(__file__).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if item.nodeid.startswith(SERIAL) else fcntl.LOCK_SH)
        return (yield)


@pytest.fixture(scope="module")
def llamacpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """`llamacpp(parallel=4, ctx=8192, …)`: the URL of a llama.cpp server, started at the first call with these options.

    Its options are those of `tests.llamacpp.serve`; with `ends` its model ends its responses by itself. The tests of
    a module share a server, so they compare its counters with what they were before; those of the whole suite do not,
    since the server writes counters with six digits. Skips where the engine is not installed; fails
    there if LOADBENCH_TEST_NEEDS_ENGINE is 1.
    """
    _need_engine()
    from tests.llamacpp.tiny_gguf import Shape, write_tiny_gguf  # noqa: PLC0415 - needs what was just looked for

    folder = tmp_path_factory.mktemp("llamacpp")
    with ExitStack() as servers:

        @cache
        def start(*, ends: bool = False, **options: object) -> str:
            model = folder / f"tiny{ends:d}.gguf"
            if not model.exists():
                write_tiny_gguf(model, Shape(ends=ends))
            return servers.enter_context(_serving(model, log=folder / "server.log", **options))

        yield lambda **options: start(**{"parallel": 4, "threads": 1, **options})


def _need_engine() -> None:
    missing = [name for name in _WANTED if importlib.util.find_spec(name) is None]
    if not missing:
        return
    reason = f"no real engine here, {', '.join(missing)} missing: pip install -e '.[engine]' (Linux on x86-64)"
    if _NEEDED:
        pytest.fail(f"{_REQUIRED} is set, and there is {reason}", pytrace=False)
    pytest.skip(reason)


@contextmanager
def _serving(model: Path, *, log: Path, **options: object) -> Iterator[str]:
    """The server as a process, which ends when its standard input does."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "tests.llamacpp.serve", str(model), "--port=0", *flags]
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        ready = server.stdout.readline().split()
        if ready[:1] != ["READY"]:
            pytest.fail(f"llama.cpp did not start:\n{log.read_text('utf-8', 'replace')[-2000:]}", pytrace=False)
        yield ready[1]
        server.stdin.close()
        try:
            server.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            server.kill()
