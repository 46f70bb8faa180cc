"""Makes a Python process on Linux look like one on Windows or macOS, to loadbench and to its tests, and to nobody else.

Python imports this module at its start where this folder is in PYTHONPATH; child processes inherit both variables. The
system is that of `PYTHON_OTHER_SYSTEM`: win32 or darwin. Hidden is what missing.json names and what else such a system
lacks. On Windows, as there: the event loop watches no descriptors and wakes at ticks, a file that is open is neither
replaced nor removed, names of files have their rules, text has its code page and line ends, a process that is ended has
no time to clean up. What cannot be seen this way: whether Windows' own calls do what we believe of them.
"""

from __future__ import annotations

import asyncio.selector_events
import asyncio.unix_events
import builtins
import codecs
import encodings.cp850
import errno
import io
import json
import os
import platform
import select
import selectors
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil

SYSTEM = os.environ["PYTHON_OTHER_SYSTEM"]
WINDOWS = SYSTEM == "win32"
MISSING = {
    name: frozenset(names.split())
    for name, names in json.loads(Path(__file__).with_name("missing.json").read_bytes())[SYSTEM].items()
}
# Whose code sees the other system.
OURS = ("loadbench", "tests", "conftest")

_TICK_S = 1 / 64
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "123456789")}
_linux_stat, _linux_open, _linux_import = os.stat, io.open, builtins.__import__


# Modules as our code sees them.


class View(ModuleType):
    """A module without what the system lacks, and with what it has instead; what is set is set in the real one."""

    def __init__(self, module: ModuleType, **instead: object) -> None:
        super().__init__(module.__name__, module.__doc__)
        self.__dict__.update(instead, _module=module, _before={}, _missing=MISSING.get(module.__name__, frozenset()))

    def __getattr__(self, name: str) -> object:
        if name in self._missing:
            raise AttributeError(f"{SYSTEM} has no {self.__name__}.{name}", name=name, obj=self)
        return getattr(self._module, name)

    def __setattr__(self, name: str, value: object) -> None:
        self._before.setdefault(name, getattr(self._module, name, None))
        setattr(self._module, name, value)

    def __delattr__(self, name: str) -> None:
        # So does pytest undo what it has set: here no name seems to be the module's own.
        setattr(self._module, name, self._before.pop(name))


def is_ours(module: dict[str, object] | None) -> bool:
    """Whether a module, by its globals, is loadbench's or its tests'."""
    spec = (module or {}).get("__spec__")
    name = spec.name if spec is not None else (module or {}).get("__name__") or ""
    return name.split(".")[0] in OURS and "other_systems" not in name


def seen_import(name, module=None, local=None, fromlist=(), level=0):
    """`import` as our code has it."""
    if level == 0 and is_ours(module):
        if name.split(".")[0] in MISSING[""]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        view = VIEWS.get(name if fromlist else name.split(".")[0])
        if view is not None:
            return view
    return _linux_import(name, module, local, fromlist, level)


# Files.


def by_us() -> bool:
    """Whether our code uses a file, through whatever part of the standard library."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if is_ours(frame.f_globals):
            return True
        foreign = name.split(".")[0] not in sys.stdlib_module_names and name != __name__
        if foreign or frame.f_code is open_files.__code__:
            return False
        frame = frame.f_back
    return False


def is_linux_only(path: object) -> bool:
    """Whether a path leads to what the kernel shows of itself."""
    with suppress(TypeError):
        return os.fsdecode(path).startswith(("/proc", "/sys", "/dev/shm"))
    return False


def seen_stat(path, *rest, **options):
    """`os.stat` without what the kernel shows."""
    if is_linux_only(path) and by_us():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return _linux_stat(path, *rest, **options)


def open_files() -> set[str]:
    """The files that this process, its parent and its children have open or mapped."""
    found = set()
    waiting = [os.getpid(), os.getppid()]
    for pid in waiting:
        with suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with suppress(FileNotFoundError):  # closed in the meantime, as that of this list
                    found.add(os.readlink(f"/proc/{pid}/fd/{number}"))
            with _linux_open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
                found |= {line.split(maxsplit=5)[-1].strip() for line in maps if "/" in line}
            if pid != os.getppid():
                with _linux_open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
                    waiting += map(int, children.read().split())
    return found


def check_use(event: str, arguments: tuple[object, ...]) -> None:
    """Raise what the system would for this use of a file; sees what anybody in this process does."""
    if event not in _USES or not arguments or isinstance(arguments[0], int):
        return
    path = arguments[0]
    if is_linux_only(path):
        if by_us():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return
    # A temporary file is opened and removed in another way there.
    frame = sys._getframe().f_back
    callers = [caller.f_code.co_name for caller in (frame, frame and frame.f_back) if caller]
    if not WINDOWS or path is None or "TemporaryFile" in callers:
        return
    target = os.path.abspath(os.fsdecode(arguments[1] if event in {"os.rename", "os.symlink"} else path))
    if event in {"open", "os.mkdir", "os.rename"}:
        for part in target.split("/")[1:]:
            if set(part) & set('<>:"|?*\\') or part != part.rstrip(". ") or part.split(".")[0].lower() in _DEVICES:
                raise OSError(errno.EINVAL, "Invalid argument: a name that Windows refuses", target)
    if event in {"os.rename", "os.remove", "os.rmdir"}:
        moved = os.path.abspath(os.fsdecode(path))
        for file in open_files():
            if file in {moved, target} or file.startswith(f"{moved}/"):
                raise PermissionError(errno.EACCES, f"Permission denied: {file} is open", moved)


def check_no_folder(path: object) -> None:
    """A folder cannot be opened, not even to sync it."""
    if not isinstance(path, int) and os.path.isdir(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def seen_open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *rest, **options):
    """`open` with Windows' code page, and its ends of lines."""
    if "opener" not in options:
        check_no_folder(file)
    if "b" not in mode:
        encoding = encoding or "cp1252"
        newline = "\r\n" if newline is None and set(mode) & set("wax+") else newline
    return _linux_open(file, mode, buffering, encoding, errors, newline, *rest, **options)


class SeenTextIOWrapper(io.TextIOWrapper):
    """A stream of text with Windows' ends of lines."""

    def __init__(self, buffer, encoding=None, errors=None, newline=None, *rest, **options) -> None:
        newline = "\r\n" if newline is None and buffer.writable() else newline
        super().__init__(buffer, encoding or "cp1252", errors, newline, *rest, **options)


_BINARY = 0x8000  # which Linux ignores on machines of 64 bits
_texts: set[int] = set()


def seen_os_open(path, flags, *rest, **options):
    """`os.open`: without `O_BINARY` a file is text, which the C library changes."""
    check_no_folder(path)
    number = os.open(path, flags, *rest, **options)
    (_texts.discard if flags & _BINARY or not stat.S_ISREG(os.fstat(number).st_mode) else _texts.add)(number)
    return number


def seen_transfer(call):
    """`os.read` or `os.write` of a file that is not text."""

    def checked(number, *rest):
        assert number not in _texts, "opened without O_BINARY: Windows would change the ends of lines"
        return call(number, *rest)

    return checked


def seen_locking(number: int, mode: int, size: int) -> None:
    """`msvcrt.locking`, for a single try or to unlock."""
    import fcntl  # noqa: PLC0415

    assert (mode in {0, 2}, size) == (True, 1)
    assert os.lseek(number, 0, os.SEEK_CUR) < 1 << 31, "more than the C library can lock"
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB if mode else fcntl.LOCK_UN)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


# Processes, signals, sockets, time.


def seen_signal(number, handler):
    """`signal.signal` of the few signals that Windows has."""
    assert number in {signal.SIGINT, signal.SIGTERM, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, SIGBREAK}
    return signal.signal(number, handler)


def seen_kill(pid: int, number: int) -> None:
    """`os.kill`: whatever the signal, 0 included, it ends the process."""
    os.kill(pid, signal.SIGKILL)


def seen_select(reading, writing, failing, timeout=None):
    """`select.select`: of sockets only."""
    for entry in (*reading, *writing, *failing):
        number = entry if isinstance(entry, int) else entry.fileno()
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise OSError(10038, "An operation was attempted on something that is not a socket")
    return select.select(reading, writing, failing, timeout)


class SeenSelector(selectors.SelectSelector):
    """Waits for sockets; without one until a tick of the system's clock."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0 and WINDOWS:
            timeout += _TICK_S - (time.monotonic() + timeout) % _TICK_S
        return super().select(timeout)


def not_there(*_: object, **__: object) -> None:
    """What Windows' event loop does not implement."""
    raise NotImplementedError


def not_allowed(*_: object, **__: object) -> None:
    """What macOS shows root only: who listens where, on the whole machine."""
    raise psutil.AccessDenied


def start(self: subprocess.Popen, *rest: object, creationflags: int = 0, **options: object) -> None:
    """`Popen` with the flag of its own, and without what only POSIX has."""
    assert creationflags in {0, 0x200}
    assert not options.get("preexec_fn"), "preexec_fn is not supported on Windows"
    assert not options.get("pass_fds"), "pass_fds is not supported on Windows"
    _linux_popen(self, *rest, **options)


_linux_popen = subprocess.Popen.__init__
SIGBREAK = signal.SIGUSR1  # so that a test can press Ctrl-Break
_clocks = {}
if not WINDOWS:
    # macOS has the same two clocks under other names: one that runs on while the machine is suspended, one that stops.
    _clocks = {"CLOCK_MONOTONIC": time.CLOCK_BOOTTIME, "CLOCK_UPTIME_RAW": time.CLOCK_MONOTONIC}
_mac_or_windows = {
    "system": lambda: "Windows" if WINDOWS else "Darwin",
    "platform": lambda: "Windows-11-10.0.26100-SP0" if WINDOWS else "macOS-26.1-arm64-arm-64bit",
}
VIEWS = {
    "sys": View(sys, platform=SYSTEM),
    "time": View(time, **_clocks),
    "platform": View(platform, **_mac_or_windows),
    **{name: View(__import__(name)) for name in ("os", "errno", "mmap", "select", "selectors", "signal", "socket")},
}
MISSING["socket"] |= {"SO_TIMESTAMPNS", "SO_TIMESTAMPING"}
builtins.__import__ = seen_import
os.stat = os.lstat = seen_stat
selectors.DefaultSelector = SeenSelector
_USES = {"open", "os.listdir", "os.scandir"}
for _name in ("sensors_temperatures", "sensors_fans"):
    delattr(psutil, _name)
for _name in ("num_fds",) if WINDOWS else ("io_counters", "cpu_affinity"):
    delattr(psutil.Process, _name)
if not WINDOWS:
    psutil.net_connections = not_allowed
else:
    codecs.register(lambda name: encodings.cp850.getregentry() if name == "oem" else None)
    VIEWS["os"] = View(os, name="nt", linesep="\r\n", O_BINARY=_BINARY, open=seen_os_open, kill=seen_kill)
    VIEWS["os"].__dict__.update(read=seen_transfer(os.read), write=seen_transfer(os.write))
    VIEWS["signal"] = View(signal, SIGBREAK=SIGBREAK, signal=seen_signal)
    VIEWS["select"] = View(select, select=seen_select)
    VIEWS["subprocess"] = View(subprocess, CREATE_NEW_PROCESS_GROUP=0x200)
    VIEWS["io"] = View(io, open=seen_open, TextIOWrapper=SeenTextIOWrapper)
    VIEWS["msvcrt"] = SimpleNamespace(LK_UNLCK=0, LK_NBLCK=2, locking=seen_locking)
    _USES |= {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
    subprocess.Popen.__init__ = start
    subprocess.Popen.terminate = subprocess.Popen.kill
    io.open = builtins.open = seen_open
    for _loop in (asyncio.selector_events.BaseSelectorEventLoop, asyncio.unix_events.SelectorEventLoop):
        for _name in ("add_reader", "add_writer", "add_signal_handler"):
            setattr(_loop, _name, not_there)
        for _name in ("create_unix_connection", "create_unix_server"):
            setattr(_loop, _name, not_there)
    # The loop that Windows has by default, as far as this one can stand in for it.
    asyncio.ProactorEventLoop = asyncio.SelectorEventLoop
    for _stream in (sys.stdout, sys.stderr):
        if _stream is not None:
            _stream.reconfigure(newline="\r\n")
sys.addaudithook(check_use)
