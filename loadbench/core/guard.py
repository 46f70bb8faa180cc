"""The guard: a small process that starts the server under test, and ends it with everything that it has started.

    python -P -m loadbench.core.guard

loadbench holds a pipe to the guard's standard input. Its first line is an `Order` in JSON; the line `kill` ends the
server at once. However loadbench ends, the system closes the pipe, and then the guard ends the server: gently at first
(SIGTERM), and what is left after the grace surely (SIGKILL). It writes what happens as lines of JSON on its standard
output:

    {"event": "started", "pid": 4711, "at_ns": 123, "guard": 4710}
    {"event": "failed", "errno": 2, "reason": "…"}       instead of it
    {"event": "exited", "code": 3, "signal": "", "oom_kills": 0, "left": 0}
    {"event": "gone"}

`exited` is about the command itself: `oom_kills` are the processes that the kernel has killed since its start for lack
of memory, and `left` those of the command that go on. `gone` says that none is left, and the guard ends. The server has
a session of its own, so that Ctrl-C in the terminal reaches only loadbench.

What the server writes comes by a pipe: the guard hides the secrets in it before it writes the log, so that none is ever
on the disk, and keeps the log short.

On Linux the guard is a *subreaper*: whoever loses its parent below it becomes its child, so that no descendant escapes
by a double fork or a session of its own; and the command ends with the guard, if that is killed. The parent of the
guard is another one, the *keeper*, which kills what a guard that was killed has left, also if loadbench has ended at
the same moment. Both have a name without "loadbench" in lists of processes: `pkill -9 -f loadbench` does not end them,
and they end the server. On Windows a job object holds the guard and all below it, and ends with it. On macOS these are
the process group, and the descendants that can be listed when the server is ended.
"""

from __future__ import annotations

import json
import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# In the server's environment, and so in that of all its descendants: by it they are found if the guard was killed.
MARK = "LOADBENCH_GUARDED"
# After SIGKILL a process is gone at once; one that waits for a device may take a while.
_KILLS_EVERY_S = 0.1
# Where processes have to be listed by a program.
_LISTS_EVERY_S = 0.5
# The options of prctl(2).
_SET_PDEATHSIG, _SET_NAME, _SET_CHILD_SUBREAPER = 1, 15, 36
# Where in /proc/self/stat, after the name of the program, the addresses of the command line are.
_ARGUMENTS_BEGIN, _ARGUMENTS_END = 45, 46
# As other processes see the two.
GUARD, KEEPER = "server-guard", "server-keeper"
# Of a job object: its class of information, and the flag by which it ends its processes when it is closed.
_EXTENDED_LIMITS, _KILL_ON_JOB_CLOSE = 9, 0x2000
# A log of more bytes than the first loses its middle: so many at its beginning and at its end stay.
_MOST_LOG, _LOG_PART = 64 << 20, 8 << 20
# What is read of the server's output at once, and how often at the end of its process: a pipe holds a MiB at most.
_CHUNK, _CHUNKS_AT_END = 1 << 16, 17
# Elsewhere than on Linux, a process that goes on may hold the pipe.
_LAST_WORDS_S = 1.0
_MASK = b"***"
_OWN_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)


class Order(TypedDict):
    """What loadbench wants to be started: the output is appended to the file `log`, with `***` for what is `hidden`."""

    command: list[str]
    environment: dict[str, str]
    log: str
    hidden: list[str]
    grace_s: float


def main() -> None:
    """Start the server, and end it when the standard input ends."""
    with suppress(AttributeError, OSError):  # a system without these means
        contain()
    if sys.platform == "linux":
        rename(KEEPER)
        guard = os.fork()
        if guard:
            keep(guard)
            return
        os.setsid()
        rename(GUARD)
        with suppress(AttributeError, OSError):
            contain()
    events: queue.SimpleQueue[str | int] = queue.SimpleQueue()
    on_signals(lambda: events.put("end"))
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return  # loadbench has ended already
    order: Order = json.loads(line)
    kills_before = oom_kills()
    at_ns = time.perf_counter_ns()
    try:
        output = Output(order["log"], [text.encode(errors="surrogateescape") for text in order["hidden"]])
        server = start(order, output.server_end)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        say(event="failed", errno=getattr(error, "errno", None), reason=reason)
        return
    say(event="started", pid=server.pid, at_ns=at_ns, guard=os.getpid())
    os.close(output.server_end)
    for work in (lambda: read_orders(events), lambda: await_end(server, events), output.copy):
        threading.Thread(target=work, daemon=True).start()

    ends_at: float | None = None  # when what is left is killed
    while True:
        event: str | int = "kill"
        with suppress(queue.Empty):
            event = events.get(timeout=None if ends_at is None else max(0.0, ends_at - time.monotonic()))
        if isinstance(event, int):
            output.settle()  # its last words are in the log when its end is known
            left = family(server.pid)
            kills, name = oom_kills(), ""
            kills = 0 if kills is None or kills_before is None else kills - kills_before
            if event < 0:
                name = signal.Signals(-event).name if -event in {*signal.Signals} else f"signal {-event}"
            say(event="exited", code=None if name else event, signal=name, oom_kills=kills, left=len(left))
            # A command that ends well may have gone to the background. Otherwise nobody needs what is left of it.
            if ends_at is None and (event != 0 or not left):
                events.put("end")
        elif event == "gone":
            output.ended.wait(_LAST_WORDS_S)
            say(event="gone")
            return
        elif event == "end" and ends_at is None:
            ends_at = time.monotonic() + order["grace_s"]
            end_all(family(server.pid), server, gently=True)
        elif event == "kill":
            ends_at = time.monotonic() + _KILLS_EVERY_S
            end_all(family(server.pid), server, gently=False)


def on_signals(act: Callable[[], object]) -> None:
    """Do this on each signal that ends a program. They are not ignored: the server would inherit that."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: act())


def keep(guard: int) -> None:
    """Wait until the guard has ended, and kill what it has left: nothing, unless it was killed itself."""
    if sys.platform == "linux":

        def pass_on() -> None:
            with suppress(OSError):
                os.kill(guard, signal.SIGTERM)

        on_signals(pass_on)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):  # loadbench's pipes are the guard's alone
            os.dup2(nothing, stream)
        with suppress(ChildProcessError):
            while os.waitpid(-1, 0)[0] != guard:
                pass
            while True:
                # One that is about to start another is seen the next time.
                for pid in below(os.getpid(), linux_parents()):
                    with suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
                time.sleep(_KILLS_EVERY_S)


def rename(name: str) -> None:
    """On Linux, show this name in lists of processes instead of the command line and the program's name."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only where it is needed

        with suppress(AttributeError, OSError, ValueError, IndexError):
            fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
            begin, size = int(fields[_ARGUMENTS_BEGIN]), int(fields[_ARGUMENTS_END]) - int(fields[_ARGUMENTS_BEGIN])
            if begin and size > len(name):
                ctypes.memmove(begin, name.encode().ljust(size, b"\0"), size)
            libc().prctl(_SET_NAME, name.encode(), 0, 0, 0)


def say(**record: object) -> None:
    """Report to loadbench, if that is still there."""
    with suppress(OSError, ValueError):
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()


def start(order: Order, output: int) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own; raises `OSError` if the system cannot run it."""
    before: Callable[[], object] | None = None
    if sys.platform == "linux":
        prctl = libc().prctl
        before = lambda: prctl(_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)  # noqa: E731
    return subprocess.Popen(  # noqa: S603 - the user's own command, and no shell
        order["command"],
        env=order["environment"],
        stdin=subprocess.PIPE,  # open, and silent: some servers end with their input
        stdout=output,
        stderr=output,
        start_new_session=True,
        creationflags=_OWN_GROUP,
        preexec_fn=before,  # noqa: PLW1509 - there is one thread so far
    )


def read_orders(events: queue.SimpleQueue[str | int]) -> None:
    """The line `kill`, and the end of loadbench's pipe."""
    # Read the file descriptor: a thread that waits in `sys.stdin` holds a lock that the interpreter needs to exit.
    while received := os.read(0, 4096):
        if b"kill" in received:
            events.put("kill")
    events.put("end")


class Output:
    """The server's output on its way from a pipe to the log. The server writes to `server_end`; `ended` is set when no
    process can write any more.

    What is hidden is never in the log, also where it comes in pieces: the beginning of a secret waits for what follows.
    """

    def __init__(self, log: str, hidden: Sequence[bytes]) -> None:
        self._log = os.open(log, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        pipe, self.server_end = os.pipe()
        if sys.platform != "win32":
            os.set_blocking(pipe, False)
        self._pipe = open(pipe, "rb", buffering=0)  # noqa: SIM115, PTH123 - as long as this process
        self._lock = threading.Lock()
        self._hidden = sorted(hidden, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._hidden)))
        self._rest, self._left_out = b"", 0
        self.ended = threading.Event()

    def copy(self) -> None:
        """Write all of it."""
        while not self.ended.is_set():
            if sys.platform != "win32":
                select.select([self._pipe], [], [])
            self._copy_chunk()

    def settle(self) -> None:
        """Write what is there by now; on Windows, all if it ends soon."""
        if sys.platform == "win32":
            self.ended.wait(_LAST_WORDS_S)
        else:
            for _ in range(_CHUNKS_AT_END):
                self._copy_chunk()

    def _copy_chunk(self) -> None:
        with self._lock, suppress(OSError):  # a full disk must not hold up the server
            data = self._pipe.read(_CHUNK)
            if data is None or self.ended.is_set():
                return
            try:
                shown = self._hide(self._rest + data, is_all=not data)
                while shown:
                    shown = shown[os.write(self._log, shown) :]
                self._left_out = cut_log(self._log, self._left_out)
            finally:
                if not data:
                    self.ended.set()

    def _hide(self, text: bytes, *, is_all: bool) -> bytes:
        """The text without secrets and, unless it is all, without the beginning of one at its end, which stays here."""
        until, at, parts = len(text) if is_all else begun(text, self._hidden), 0, []
        if any(secret in text for secret in self._hidden):
            for match in self._pattern.finditer(text):
                if match.start() >= until:
                    break
                parts += [text[at : match.start()], _MASK]
                at = match.end()
        until = max(at, until)
        self._rest = text[until:]
        return b"".join([*parts, text[at:until]])


def begun(text: bytes, secrets: Sequence[bytes]) -> int:
    """Where in this text the first of the secrets begins that its end cuts off; its length if there is none."""
    first = len(text)
    for secret in secrets:
        at = max(0, len(text) - len(secret) + 1)
        while (at := text.find(secret[:1], at, first)) >= 0:
            # Few bytes of a long one are compared before all are.
            if text.startswith(secret[: min(16, len(text) - at)], at) and secret.startswith(text[at:]):
                first = at
                break
            at += 1
    return first


def cut_log(log: int, left_out: int, *, most: int = _MOST_LOG, part: int = _LOG_PART) -> int:
    """Cut the middle out of a log of more than `most` bytes. Takes and returns how many bytes it has lost so far."""
    size = os.fstat(log).st_size
    if size <= most:
        return left_out
    os.lseek(log, size - part, os.SEEK_SET)
    end = os.read(log, part)
    left_out += size - part - len(end)
    os.ftruncate(log, part)
    os.write(log, b"\n--- loadbench has left out %d bytes here ---\n" % left_out + end)
    return left_out


def await_end(server: subprocess.Popen[bytes], events: queue.SimpleQueue[str | int]) -> None:
    """Report the command's end, and that of the last process."""
    if sys.platform == "linux":
        # All below the guard are or become its children, so that there is one as long as anything is left.
        while True:
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                break
            if pid == server.pid:
                server.returncode = os.waitstatus_to_exitcode(status)
                events.put(server.returncode)
    else:
        events.put(server.wait())
        while family(server.pid):
            time.sleep(_LISTS_EVERY_S)
    events.put("gone")


def family(pid: int) -> list[int]:
    """The processes below the guard that run: on Linux all of them, elsewhere those of the server's group and below it
    as far as the system lists them."""
    running: list[int]
    if sys.platform == "linux":
        running = below(os.getpid(), linux_parents())
    elif sys.platform == "win32":
        running = []  # the job object has them
    else:
        command = ["/bin/ps", "-axo", "pid=,ppid=,pgid=,stat="]
        listed = subprocess.run(command, capture_output=True, check=False).stdout  # noqa: S603 - the system's own
        rows = [line.split() for line in listed.splitlines()]
        known = [tuple(map(int, row[:3])) for row in rows if len(row) == 4 and not row[3].startswith(b"Z")]
        grouped = {one for one, _, group in known if group == pid}
        running = sorted({*grouped, *below(pid, {one: parent for one, parent, _ in known})})
    return running


def linux_parents() -> dict[int, int]:
    """The parent of each process that runs, by pid."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError, ValueError, IndexError):
                # The name of the program, in parentheses, may hold anything.
                state, parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:2]
                if state not in {b"Z", b"X"}:
                    parents[int(entry.name)] = int(parent)
    return parents


def below(pid: int, parents: dict[int, int]) -> list[int]:
    """The descendants of a process, parents first."""
    children: dict[int, list[int]] = {}
    for child, parent in parents.items():
        children.setdefault(parent, []).append(child)
    found, waiting = [], [pid]
    while waiting:
        of_one = children.pop(waiting.pop(), [])
        found += of_one
        waiting += of_one
    return found


def end_all(pids: Iterable[int], server: subprocess.Popen[bytes], *, gently: bool) -> None:
    """Ask the processes to end, or kill them."""
    if sys.platform == "win32":
        if not gently:
            server.kill()
            os._exit(0)  # the job object ends with the guard, and whatever is in it
        with suppress(OSError, ValueError):
            server.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))
    else:
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM if gently else signal.SIGKILL)
                if gently:
                    os.kill(pid, signal.SIGCONT)  # one that is stopped would never see the other


def marked(token: str) -> list[int]:
    """The processes that have this token in their environment, on Linux; elsewhere none are seen."""
    found: list[int] = []
    if sys.platform == "linux":
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    if f"{MARK}={token}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
    return found


def kill_marked(token: str, pid: int | None) -> None:
    """Kill what a guard has left that was itself killed: the processes with its token, or else the server's group."""
    if sys.platform == "linux":
        # One that is about to start another is seen the next time.
        for _ in range(50):
            found = marked(token)
            if not found:
                return
            for one in found:
                with suppress(OSError):
                    os.kill(one, signal.SIGKILL)
            time.sleep(_KILLS_EVERY_S)
    elif sys.platform != "win32" and pid is not None:
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


def contain(kernel32: Any | None = None) -> None:
    """Have the system keep the descendants of this process together, where it can. Tests give a `kernel32`."""
    if sys.platform == "linux":
        libc().prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if sys.platform == "win32" or kernel32 is not None:
        job_with_this_process(kernel32)


def libc() -> Any:
    """The C library."""
    import ctypes  # noqa: PLC0415 - only where it is needed

    return ctypes.CDLL(None)


def job_with_this_process(kernel32: Any | None) -> None:
    """Make a job object that ends its processes when it is closed, and put this process into it.

    Nobody closes it: the system does, when this process ends. Processes that it starts are in the job as well. Where
    the system refuses that, the server is ended by its own process alone.
    """
    import ctypes  # noqa: PLC0415

    class BasicLimits(ctypes.Structure):
        _fields_ = (
            ("process_time", ctypes.c_int64),
            ("job_time", ctypes.c_int64),
            ("flags", ctypes.c_uint32),
            ("least_working_set", ctypes.c_size_t),
            ("most_working_set", ctypes.c_size_t),
            ("most_processes", ctypes.c_uint32),
            ("affinity", ctypes.c_size_t),
            ("priority", ctypes.c_uint32),
            ("scheduling", ctypes.c_uint32),
        )

    class Limits(ctypes.Structure):
        _fields_ = (("basic", BasicLimits), ("transfers", ctypes.c_uint64 * 6), ("memory", ctypes.c_size_t * 4))

    if kernel32 is None:
        kernel32 = getattr(ctypes, "WinDLL")("kernel32")  # noqa: B009 - only Windows has it
    pointer, number = ctypes.c_void_p, ctypes.c_uint32
    kernel32.CreateJobObjectW.restype, kernel32.CreateJobObjectW.argtypes = pointer, [pointer, pointer]
    kernel32.SetInformationJobObject.argtypes = [pointer, ctypes.c_int, pointer, number]
    kernel32.GetCurrentProcess.restype = pointer
    kernel32.AssignProcessToJobObject.argtypes = [pointer, pointer]
    limits = Limits()
    limits.basic.flags = _KILL_ON_JOB_CLOSE
    job = kernel32.CreateJobObjectW(None, None)
    if job and kernel32.SetInformationJobObject(job, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)):
        kernel32.AssignProcessToJobObject(job, kernel32.GetCurrentProcess())


def oom_kills() -> int | None:
    """How many processes the kernel has killed so far for lack of memory: of this control group, or else of the whole
    machine; `None` where the system does not say."""
    if sys.platform == "linux":
        files = ["/proc/vmstat"]
        with suppress(OSError, ValueError):
            for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
                _, controllers, path = line.split(":", 2)
                if not controllers:
                    files[:0] = [f"/sys/fs/cgroup{path}/memory.events", "/sys/fs/cgroup/memory.events"]
                elif "memory" in controllers.split(","):
                    files.insert(0, f"/sys/fs/cgroup/memory{path}/memory.oom_control")
        for name in files:
            with suppress(OSError, ValueError):
                for line in Path(name).read_text(encoding="ascii").splitlines():
                    key, _, count = line.partition(" ")
                    if key == "oom_kill":
                        return int(count)
    return None


if __name__ == "__main__":
    main()
