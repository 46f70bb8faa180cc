"""The guard ends a command with everything that it has started, whoever ends first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from loadbench.core import guard
from loadbench.core.children import child_environment, python_command

if TYPE_CHECKING:
    from collections.abc import Iterator

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
# A child that ignores SIGTERM; a process that has left its parent and its session; one that ends at once.
STUBBORN = (
    "import signal,time,sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
FORKS = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {STUBBORN!r}, *sys.argv[1:]])
time.sleep(600)
"""
DETACHES = """
import os, signal, sys, time
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("up", flush=True)
time.sleep(600)
"""
BACKGROUND = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
print("up", flush=True)
time.sleep(600)
"""


def with_mark(mark: str) -> list[int]:
    """The processes that have this word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def until(condition: Any, within_s: float = 60.0) -> Any:
    """Wait until the condition holds, and return what it returned."""
    ends = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < ends, "it never came to that"
        time.sleep(0.02)
    return value


class Guarded:
    """A guard, what it reports, and the output of its command."""

    def __init__(
        self, command: list[str], log: Path, *, grace_s: float, hidden: tuple[str, ...] = (), **environment: str
    ) -> None:
        self.log = log
        self.process = subprocess.Popen(
            python_command("loadbench.core.guard"),
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        order = {"command": command, "environment": {**os.environ, **environment}, "log": str(log)}
        self.process.stdin.write(json.dumps({**order, "hidden": hidden, "grace_s": grace_s}).encode() + b"\n")
        self.process.stdin.flush()

    def report(self) -> dict[str, Any]:
        """The next line."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def let_go(self) -> None:
        """As loadbench does when it ends, or is killed."""
        assert self.process.stdin is not None
        self.process.stdin.close()


@contextmanager
def guarded(
    folder: Path, *command: str, grace_s: float = 0.3, hidden: tuple[str, ...] = (), **environment: str
) -> Iterator[Guarded]:
    """A guard with a Python command, or that of another program."""
    whole = [sys.executable, "-c", *command] if len(command) < 3 and not command[0].startswith("/") else list(command)
    made = Guarded(whole, folder / "log", grace_s=grace_s, hidden=hidden, **environment)
    try:
        yield made
    finally:
        with suppress(OSError):
            made.let_go()
        made.process.wait(60)
        assert made.process.stdout is not None
        made.process.stdout.close()


@pytest.fixture
def mark() -> str:
    """A word that no other process has."""
    return f"mark-{uuid4().hex}"


def test_the_end_of_the_command_is_reported(tmp_path):
    """Its exit code and its output are there, and the guard ends by itself."""
    with guarded(tmp_path, "print('hello'); raise SystemExit(3)") as made:
        started, exited, gone = made.report(), made.report(), made.report()
        assert (started["event"], gone) == ("started", {"event": "gone"})
        assert started["at_ns"] <= time.perf_counter_ns()
        assert (exited["code"], exited["signal"], exited["left"]) == (3, "", 0)
        assert made.process.wait(60) == 0
    assert (tmp_path / "log").read_text() == "hello\n"


@linux_only
def test_a_signal_is_named(tmp_path):
    """A command that crashes has no exit code."""
    with guarded(tmp_path, "import os; os.kill(os.getpid(), 11)") as made:
        made.report()
        exited = made.report()
        assert (exited["code"], exited["signal"]) == (None, "SIGSEGV")


def test_a_command_that_cannot_run_is_reported(tmp_path):
    """With the system's reason."""
    with guarded(tmp_path, "/nonexistent/server", "a", "b") as made:
        failed = made.report()
        assert (failed["event"], failed["errno"]) == ("failed", 2)
        assert "No such file" in failed["reason"]


@linux_only
@pytest.mark.parametrize("code", [STUBBORN, FORKS, DETACHES, BACKGROUND], ids=["stubborn", "fork", "detached", "back"])
@pytest.mark.parametrize("how", ["pipe", "term", "kill-line"])
def test_nothing_is_left(tmp_path, mark, code, how):
    """Neither a child that ignores SIGTERM, nor one that has left its parent, its group and its session."""
    with guarded(tmp_path, code, mark) as made:
        made.report()
        until(lambda: b"up" in made.log.read_bytes())
        assert with_mark(mark)
        if how == "pipe":
            made.let_go()
        elif how == "term":
            made.process.terminate()
        else:
            assert made.process.stdin is not None
            made.process.stdin.write(b"kill\n")
            made.process.stdin.flush()
        assert made.process.wait(60) == 0
        assert with_mark(mark) == []


@linux_only
def test_a_command_is_asked_first(tmp_path):
    """It has its time to end in order."""
    code = "import signal,sys,time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(print('in order', flush=True)))"
    with guarded(tmp_path, f"{code}\nprint('up', flush=True)\ntime.sleep(600)", grace_s=60) as made:
        made.report()
        until(lambda: b"up" in made.log.read_bytes())
        made.let_go()
        assert made.process.wait(60) == 0
    assert "in order" in made.log.read_text()


@linux_only
def test_a_stopped_command_ends_too(tmp_path):
    """One that is suspended sees SIGTERM only when it goes on."""
    with guarded(tmp_path, "import os,signal; os.kill(os.getpid(), signal.SIGSTOP)", grace_s=60) as made:
        pid = made.report()["pid"]
        until(lambda: Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T")
        made.let_go()
        assert made.process.wait(60) == 0


@linux_only
def test_the_rest_of_a_command_that_failed_is_ended(tmp_path, mark):
    """Nobody needs the workers of a server that has crashed."""
    code = f"import os,subprocess,sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}, sys.argv[1]]); os._exit(7)"
    with guarded(tmp_path, code, mark) as made:
        made.report()
        exited = made.report()
        assert (exited["code"], exited["left"]) == (7, 1)
        assert made.report() == {"event": "gone"}
    assert with_mark(mark) == []


@linux_only
@pytest.mark.parametrize("code", [FORKS, DETACHES], ids=["fork", "detached"])
def test_a_killed_guard_takes_the_command_with_it(tmp_path, mark, code):
    """Its keeper kills what it leaves, also where nobody else is left who could."""
    with guarded(tmp_path, code, mark) as made:
        guard_pid = made.report()["guard"]
        until(lambda: b"up" in made.log.read_bytes())
        assert len(with_mark(mark)) == 2
        os.kill(guard_pid, signal.SIGKILL)
        assert made.process.wait(60) == 0
        assert with_mark(mark) == []


@linux_only
def test_without_its_keeper_the_guard_goes_on(tmp_path, mark):
    """The one that is left ends the server, with loadbench or on its own."""
    with guarded(tmp_path, FORKS, mark) as made:
        guard_pid = made.report()["guard"]
        until(lambda: b"up" in made.log.read_bytes())
        made.process.kill()
        made.process.wait(60)
        assert len(with_mark(mark)) == 2
        made.let_go()
        until(lambda: guard_pid not in guard.linux_parents())
        assert with_mark(mark) == []


@linux_only
def test_what_is_marked_is_found_and_killed(mark):
    """Where guard and keeper were killed while loadbench was not: by the token in the environment."""
    with subprocess.Popen([sys.executable, "-c", STUBBORN], env={**os.environ, guard.MARK: mark}) as one:
        until(lambda: guard.marked(mark) == [one.pid])
        threading.Thread(target=one.wait).start()
        guard.kill_marked(mark, one.pid)
        assert one.wait(60) == -signal.SIGKILL


@linux_only
def test_neither_is_found_by_the_name_of_loadbench(tmp_path):
    """`pkill -f loadbench` is what somebody types who wants to be rid of loadbench and its server."""
    with guarded(tmp_path, "import time; time.sleep(600)") as made:
        guard_pid = made.report()["guard"]
        for pid, name in ((guard_pid, "server-guard"), (made.process.pid, "server-keeper")):
            of_process = Path(f"/proc/{pid}")
            assert (of_process / "cmdline").read_bytes().rstrip(b"\0") == name.encode()
            assert (of_process / "comm").read_text() == f"{name}\n"
            assert os.getsid(pid) == pid


SECRET = "sk-0123456789abcdef"
SPLIT = f"""
import sys
for piece in ("a {SECRET[:5]}", "{SECRET[5:]} b", " {SECRET[:7]}!", "{SECRET}" * 2, "{SECRET[:9]}"):
    sys.stdout.write(piece)
    sys.stdout.flush()
    input()
"""


@linux_only
def test_a_secret_is_never_in_the_log(tmp_path):
    """Not even for a moment, nor where it comes in pieces; what only begins like one is there in the end."""
    with guarded(tmp_path, SPLIT, hidden=(SECRET, SECRET[4:])) as made:
        pid = made.report()["pid"]
        tell = os.open(f"/proc/{pid}/fd/0", os.O_WRONLY)
        texts = []
        for text in ("a ", "a *** b", f"a *** b {SECRET[:7]}!", f"a *** b {SECRET[:7]}!******"):
            until(lambda text=text: made.log.read_text() == text)
            texts.append(text)
            os.write(tell, b"\n")
        os.write(tell, b"\n")
        made.report()
        assert made.report() == {"event": "gone"}
        os.close(tell)
    assert made.log.read_text() == f"{texts[-1]}{SECRET[:9]}"


@pytest.mark.parametrize(
    ("text", "secrets", "at"),
    [
        ("abc", ["cde"], 2),
        ("abcde", ["cde"], 5),
        ("abcd", ["cdef", "bcdx"], 1),
        ("aaaa", ["aaa"], 2),
        ("", ["a"], 0),
        ("abc", [], 3),
        ("x" * 40 + "y" * 20, ["y" * 30], 40),
    ],
)
def test_the_beginning_of_a_secret_is_found(text, secrets, at):
    """The first one that the end of the text cuts off; a whole one is none."""
    assert guard.begun(text.encode(), [one.encode() for one in secrets]) == at


@linux_only
def test_a_flood_of_output_does_not_fill_the_disk(tmp_path):
    """The log keeps its beginning and its end, also where it has been moved."""
    flood = "print('first', flush=True); input(); print('x' * (80 << 20)); print('last', flush=True); input()"
    with guarded(tmp_path, flood) as made:
        pid = made.report()["pid"]
        until(lambda: b"first" in made.log.read_bytes())
        moved = tmp_path / "moved.log"
        made.log.rename(moved)
        os.write(os.open(f"/proc/{pid}/fd/0", os.O_WRONLY), b"\n")

        def read(at: int, whence: int) -> bytes:
            with moved.open("rb") as log:  # all of it, again and again, would hold up those who write it
                log.seek(at, whence)
                return log.read(100)

        until(lambda: b"left out" in read(guard._LOG_PART, os.SEEK_SET))
        until(lambda: read(-5, os.SEEK_END) == b"last\n")
        assert moved.stat().st_size < 64 << 20
        assert moved.read_bytes().startswith(b"first\nxxx")


@pytest.mark.skipif(sys.platform == "win32", reason="logs are not cut there")
def test_the_middle_of_a_log_is_cut_out(tmp_path):
    """It says how much was, in all."""
    log = os.open(tmp_path / "log", os.O_RDWR | os.O_APPEND | os.O_CREAT)
    os.write(log, b"begin" + b"." * 90 + b"ended")
    assert guard.cut_log(log, 0, most=100, part=5) == 0
    os.write(log, b"!")
    assert guard.cut_log(log, 0, most=100, part=5) == 91
    assert (tmp_path / "log").read_bytes() == b"begin\n--- loadbench has left out 91 bytes here ---\nnded!"
    os.close(log)


@linux_only
def test_ctrl_c_in_the_terminal_reaches_neither(tmp_path):
    """They are in sessions of their own."""
    with guarded(tmp_path, "import time; time.sleep(600)") as made:
        pid = made.report()["pid"]
        assert len({os.getsid(0), os.getsid(made.process.pid), os.getsid(pid)}) == 3


def test_without_an_order_nothing_starts(tmp_path):
    """loadbench may end before it has written one."""
    with subprocess.Popen(
        python_command("loadbench.core.guard"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as made:
        assert made.communicate(b'{"command": ["tru', timeout=60)[0] == b""
        assert made.returncode == 0


@linux_only
def test_kills_for_lack_of_memory_are_counted():
    """By the control group, or else for the whole machine."""
    assert guard.oom_kills() is not None


def test_a_job_object_holds_the_guard_on_windows():
    """It ends its processes when it is closed, and nobody but the system closes it."""
    calls = []

    class Function:
        def __init__(self, name: str, result: int) -> None:
            self.name, self.result = name, result

        def __call__(self, *arguments: Any) -> int:
            calls.append((self.name, arguments))
            return self.result

    names = ("SetInformationJobObject", "AssignProcessToJobObject")
    kernel32 = SimpleNamespace(
        CreateJobObjectW=Function("CreateJobObjectW", 77),
        GetCurrentProcess=Function("GetCurrentProcess", -1 & 0xFFFFFFFFFFFFFFFF),
        **{name: Function(name, 1) for name in names},
    )
    guard.job_with_this_process(kernel32)
    assert [name for name, _ in calls] == ["CreateJobObjectW", "SetInformationJobObject", "GetCurrentProcess", names[1]]
    job, kind, limits, size = calls[1][1]
    assert (job, kind, size) == (77, 9, 144)  # the size of JOBOBJECT_EXTENDED_LIMIT_INFORMATION with 64 bits
    assert limits._obj.basic.flags == 0x2000
    assert calls[3][1] == (77, 0xFFFFFFFFFFFFFFFF)


@pytest.mark.parametrize(
    ("parents", "expected"), [({2: 1, 3: 2, 4: 3, 9: 8}, [2, 3, 4]), ({2: 1, 3: 3}, [2]), ({}, [])]
)
def test_descendants_are_found_by_their_parents(parents, expected):
    """Of any depth; a process that seems to be its own parent is nobody's."""
    assert sorted(guard.below(1, parents)) == expected


def test_signals_have_the_default_in_the_command(tmp_path):
    """It can be ended by SIGINT although the guard takes no notice of that."""
    code = "import signal; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    with guarded(tmp_path, code) as made:
        made.report()
        made.report()
    assert made.log.read_text().split() == ["True"]
    assert signal.getsignal(signal.SIGTERM) is not None
