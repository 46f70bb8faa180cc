"""A server that loadbench starts by a command of the user's, and ends with everything that it has started.

The command runs under a guard (`loadbench.core.guard`), a process that ends it however loadbench ends. Its output goes
to a file, which moves into the run folder as soon as there is one. The server is ready when the URL of --ready-url
responds, or else its list of models; while it then still says that it is loading, the first request is repeated.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import re
import secrets as tokens
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import chain, count
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import anyio
import msgspec

from loadbench.core.alongside import run_alongside
from loadbench.core.children import child_environment, find_program, python_command
from loadbench.core.errors import BadInput, TargetEnded, TargetUnavailable
from loadbench.core.guard import MARK, Order, kill_marked
from loadbench.core.secrets import SHORTEST_SECRET, Secrets, is_secret
from loadbench.core.text import beginning, printable, some
from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.server_command import DEFAULT_URL, MOST_SHOWN, chooses_port, fill, secrets_of_command, shown_command
from loadbench.plan.server_url import PORT, ServerUrl, origin_of, shown_url
from loadbench.record.outcome import Outcome
from loadbench.results.folder import RESULTS, slug
from loadbench.results.run import ServerStart
from loadbench.targets.error_hints import advice_for
from loadbench.targets.http_get import SECRET_PIECE, NoConnection, get, parse_json
from loadbench.targets.model_list import entries_of
from loadbench.targets.openai import target_at
from loadbench.telemetry.process import owners
from loadbench.telemetry.sampler import is_local
from loadbench.telemetry.sources import library
from loadbench.wire.openai import Api

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from loadbench.plan.scenario import Scenario
    from loadbench.record.sample import Sample
    from loadbench.results.folder import RunFolder

# Whoever ended the run waits for no longer than this without a word.
_SAID_AFTER_S = 1.0
# As `docker stop`: a server that serves many requests may finish them, and write what it has to.
GRACE_S = 10.0
# After the grace, what is left is killed; a driver that holds a process longer than this may hold it for good.
_KILLED_WITHIN_S = 10.0
# Ten times a cold start of Python on a slow disk.
_GUARD_WITHIN_S = 20.0
# How a broken connection, or the end of the process that listens, and the report of the command's end race; most
# supervisors have started the next server by then.
_REPORTED_WITHIN_S = 1.5
# How often it is looked whether the process that listens is still the same.
_LOOKS_EVERY_S = 0.5
# A server that loads is asked after each 2 % of the time that it has taken so far: its start is known that exactly.
_ASK_AGAIN, _SOONEST_S, _LATEST_S = 0.02, 0.01, 0.5
# A request with a prompt is more work than a list.
_REPEATED_S = 0.05
# A server that does not answer such a small request has not got to it yet.
_PROBE_WITHIN_S = 10.0
# It says that it is there, and not yet able to.
_LOADING = frozenset({425, 429, 502, 503, 504})
# Of a secret, every piece of so much of it is hidden in what is shown; of more, the whole.
_MOST_SECRET = 1 << 16
LOG = "server.log"
# Of a log, for a message.
_TAIL_BYTES, _TAIL_LINES, _LONGEST_LINE = 16_384, 10, 300
# What programs write of the error that ends them, and so many lines from there on for a message.
_ERROR_LINE = re.compile(r"(?<!\bno )(?<!\b0 )\b\w*(?:error|exception)\b(?!s)|\b(?:fatal|panicked)\b", re.IGNORECASE)
_LAST_WORDS = 3
# Below those that Linux (32768), and macOS and Windows (49152), give to connections, unless that was changed, and above
# those of services.
_OWN_PORTS, _MOST_TRIED = range(20_000, 32_000), 20
_OWN_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
_USUAL_CAUSE = ", of which too little memory is the usual cause"
# Their exit code of a program that a signal has ended is the number of that, and this.
_SHELLS_ADD = 128
# What Windows calls the usual crashes.
_WINDOWS_CODES = {
    0xC0000005: "access violation",
    0xC0000017: "out of memory",
    0xC00000FD: "stack overflow",
    0xC0000135: "a library was not found",
    0xC0000409: "stack buffer overrun",
}


class ServerEnd(NamedTuple):
    """How the command of a server ended: by an exit code, or by a signal."""

    code: int | None = None
    signal: str = ""
    oom_kills: int = 0  # of the kernel since its start
    reason: str = ""  # where it is known otherwise

    def __str__(self) -> str:
        """As after "the server ended": `with exit code 3`, `by SIGSEGV`."""
        if self.reason:
            return self.reason
        if self.signal == "SIGKILL":
            if self.oom_kills:
                return "by SIGKILL: the kernel had no memory left"
            return f"by SIGKILL{_USUAL_CAUSE}"
        after = ", after the kernel had killed a process for lack of memory" if self.oom_kills else ""
        if self.signal:
            return f"by {self.signal}{after}"
        word = _WINDOWS_CODES.get(self.code or 0)
        number = (self.code or 0) - _SHELLS_ADD
        if number in {*signal.Signals}:
            # As a shell and `docker run` report that their program was killed.
            name = signal.Signals(number).name
            word = f"{_SHELLS_ADD} + {number}: {'killed' if name == 'SIGKILL' else name}"
            if name == "SIGKILL":
                word += ": the kernel had no memory left" if self.oom_kills else _USUAL_CAUSE
                after = ""
        return f"with exit code {self.code}" + (f" ({word})" if word else "") + after


def port_of(scenario: Scenario) -> int:
    """The port at which the server is to listen: that of its URL, or one that is free.

    By preference it is one that the system gives to no connection: while the server is restarted, a connection could
    get its port, and the server could not have it again.
    """
    url = scenario.url
    if url is not None and f":{PORT}" not in url:
        return origin_of(url)[2]
    for port in (*random.sample(_OWN_PORTS, _MOST_TRIED), 0):
        with socket.socket() as taken, suppress(OSError):
            taken.bind(("127.0.0.1", port))
            found: int = taken.getsockname()[1]
            return found
    raise TargetUnavailable("no port is free for the server", hint="give one with --url")


def free_log(folder: Path) -> Path:
    """Where in a folder the log of one more server has its place: `server.log`, `server-2.log` …"""
    names = chain([LOG], (f"server-{number}.log" for number in count(2)))
    return next(folder / name for name in names if not (folder / name).exists())


def url_with(scenario: Scenario, port: int) -> str:
    """The URL of the server, with its port."""
    return (scenario.url or DEFAULT_URL).replace(PORT, str(port))


def check_command(scenario: Scenario, environment: Mapping[str, str]) -> None:
    """Refuse a server command that cannot run, or of which nobody knows where its server listens; raises `BadInput`."""
    command, url = scenario.target.server_cmd, scenario.url
    place, variables = scenario.place("target.server_cmd"), scenario.target.server_env
    if command is None:
        if url is not None and f":{PORT}" in url:
            hint = "give the port, or the command that starts it with --server-cmd"
            raise BadInput(f"{scenario.place('target.url')}: {PORT} is for a server that loadbench starts", hint=hint)
        return
    for key, texts in (("server_cmd", command), ("server_env", [value for _, value in variables])):
        for text in texts:
            try:
                fill(text, {"port": "1"})
            except ValueError as error:
                raise BadInput(f"{scenario.place(f'target.{key}')}: {error}") from None
    if url is not None and not is_local(url):
        hint = "leave out the command to measure that server, or give a URL of this machine, as http://127.0.0.1:8080"
        raise BadInput(f"{scenario.place('target.url')}: {place} starts a server here, not on another host", hint=hint)
    ready_url = scenario.target.ready_url
    if ready_url is not None and not is_local(ready_url):
        ready_place, hint = scenario.place("target.ready_url"), "give a URL of the server that is started"
        raise BadInput(f"{ready_place}: {shown_url(ready_url)} is not on this machine", hint=hint)
    if (url is None or f":{PORT}" in url) and not chooses_port(command, variables):
        hint = f"write {PORT} in it where the port belongs, as in --port {PORT}; or give the URL with --url"
        raise BadInput(f"{place}: it does not say at which port its server listens", hint=hint)
    _program(scenario, environment)


def _program(scenario: Scenario, environment: Mapping[str, str]) -> str:
    """The path of the command's program; raises `BadInput` if it cannot be run."""
    words, place = scenario.target.server_cmd or (), scenario.place("target.server_cmd")
    name, given = words[0], dict(scenario.target.server_env)
    shown = printable(name[:_LONGEST_LINE])
    if os.path.basename(name) == name:  # noqa: PTH119 - of any system's paths
        path = find_program(name, {**environment, **given})
        if path is None:
            hint = f"write ./{shown} for one in this folder" if os.path.isfile(name) else "install it, or give its path"  # noqa: PTH113
            raise BadInput(f"{place}: {shown}: there is no such program on the PATH", hint=hint)
        return path
    path = shutil.which(name) or name
    if not os.path.exists(path):  # noqa: PTH110
        raise BadInput(f"{place}: {shown}: no such file", hint="give the path of a program")
    if os.path.isdir(path):  # noqa: PTH112
        raise BadInput(f"{place}: {shown}: is a folder", hint="give the path of a program")
    if not os.access(path, os.X_OK):
        raise BadInput(f"{place}: {shown}: is not a program that you may run", hint=f"chmod +x {shown}")
    return os.path.abspath(path)  # noqa: PTH100


class StartedServer:
    """One server, which can be started again after it was stopped; `url` and `port` stay the same.

    `log` is the file of its output, which moves into the first run's folder unless it is given, and `record` what is
    known of the latest start. `ended` says how the server ended if it did so by itself. `say` reports to the user,
    `doing` has a word about what may take a while.
    """

    def __init__(
        self,
        scenario: Scenario,
        environment: Mapping[str, str],
        *,
        port: int,
        say: Callable[[str], None],
        doing: Callable[[str], None] = lambda _: None,
        grace_s: float = GRACE_S,
        log: Path | None = None,
    ) -> None:
        target = scenario.target
        values = {"port": str(port)}
        self.port, self.url = port, url_with(scenario, port)
        self.ended: ServerEnd | None = None
        self.log = log
        self._scenario, self._environment = scenario, environment
        self._say, self._doing, self._grace_s = say, doing, grace_s
        self._words = [fill(word, values) for word in target.server_cmd or ()]
        self._variables = {name: fill(value, values) for name, value in target.server_env}
        self._ready_url = None if target.ready_url is None else target.ready_url.replace(PORT, str(port))
        inherited = [value for name, value in environment.items() if is_secret(name)]
        hidden = [*self._variables.values(), *secrets_of_command(self._words), *inherited]
        self._hidden = [text for text in hidden if len(text) >= SHORTEST_SECRET]
        self._secrets = Secrets([text[:_MOST_SECRET] for text in self._hidden], piece=SECRET_PIECE)
        self._guard: subprocess.Popen[bytes] | None = None
        self._token = ""
        self._pid: int | None = None
        self._guard_pid: int | None = None  # on Linux the started process is that of its keeper
        self._began_ns = 0
        self._from_byte = 0  # of the log, since when it is the latest start's
        self._is_responding = self._was_loading = self._stopping = False
        self._in_folder = log is not None
        self._told = self._over = self._gone = asyncio.Event()
        self._failed: Mapping[str, Any] | None = None
        self._listeners: list[Any] = []  # psutil's processes
        self.record = ServerStart(
            command=self._secrets.hide(beginning(shown_command(self._words), MOST_SHOWN)),
            variables=[*self._variables],
            url=shown_url(self.url),
            ready_by="list" if self._ready_url is None else "url",
        )

    @property
    def pid(self) -> int | None:
        """The process of the command; `None` if none runs."""
        return self._pid

    @property
    def why_ended(self) -> str:
        """How the server ended, if it did so by itself; empty if not."""
        return "" if self.ended is None else f"the server ended {self.ended}"

    # Start and stop.

    async def start(self) -> ServerStart:
        """Start the command, and wait until the server is ready.

        Raises `TargetUnavailable` with the end of its output and the place of that: at once if the process ends, else
        at the time limit; also where something listens at its port already.
        """
        if self._guard is not None:
            raise RuntimeError("the server runs already: stop it first")
        self._refuse_taken_port()
        program = _program(self._scenario, self._environment)
        self._open_log()
        self._token = tokens.token_hex(8)
        self._told, self._over, self._gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.ended, self._failed, self._pid, self._guard_pid = None, None, None, None
        self._is_responding = self._was_loading = self._stopping = False
        self.record = msgspec.structs.replace(
            self.record,
            **dict.fromkeys(
                ("ready_s", "first_response_s", "cold_ttft_s", "warm_ttft_s", "memory_loaded_bytes", "processes")
            ),
            ended="",
        )
        own = {name: value for name, value in self._environment.items() if not name.startswith("LOADBENCH_")}
        order = Order(
            command=[program, *self._words[1:]],
            environment={**own, **self._variables, MARK: self._token},
            log=str(self.log),
            hidden=[form for text in self._hidden for form in {text, json.dumps(text)[1:-1], quote(text, safe="")}],
            grace_s=self._grace_s,
        )
        self._doing("starting the server")
        try:
            self._launch(order)
            with anyio.move_on_after(_GUARD_WITHIN_S):
                await self._told.wait()
            await self._until_ready()
        except BaseException:
            await self.stop()
            raise
        self.record = msgspec.structs.replace(self.record, ready_s=self._seconds())
        self._listeners = self._listening()
        return self.record

    async def stop(self) -> None:
        """End the server with all that it has started, gently and then surely; does nothing if none runs."""
        guard = self._guard
        if guard is None:
            return
        self.look_at_memory()
        self._stopping, self._guard, self._listeners = True, None, []
        self._doing("ending the server")
        with anyio.CancelScope(shield=True):
            if guard.stdin is not None:
                with suppress(OSError):
                    guard.stdin.close()
            grace = format_duration(round(self._grace_s * NS_PER_S))
            ends = f"the server (process {self._pid}) is still being ended: what is left of it after {grace} is killed"
            try:
                with anyio.move_on_after(_SAID_AFTER_S):
                    await self._gone.wait()
                if not self._gone.is_set():
                    self._say(ends)
                with anyio.move_on_after(self._grace_s + _KILLED_WITHIN_S):
                    await self._gone.wait()
            except asyncio.CancelledError:  # a further Ctrl-C: loadbench leaves, and the guard does not
                self._say(f"{ends}, also when loadbench has left")
                raise
            if not self._gone.is_set():
                self._say(f"the server (process {self._pid}) does not end, not even when it is killed")
                with suppress(OSError):
                    if sys.platform == "win32" or self._guard_pid is None:
                        guard.kill()
                    else:
                        os.kill(self._guard_pid, signal.SIGKILL)
                # What it leaves is killed then.
                with anyio.move_on_after(_KILLED_WITHIN_S):
                    await self._gone.wait()
            await anyio.to_thread.run_sync(self._close_log)
        self._pid = None

    def keep_in(self, folder: RunFolder) -> None:
        """Move the log into the folder of a run; the first one has it for good."""
        if self.log is None or self._in_folder:
            return
        place = free_log(folder.path)
        # Windows moves no open file: there it moves when the server has ended.
        self._moves_to = place
        with suppress(OSError):
            self.log.rename(place)
            self.log, self._in_folder = place, True

    _moves_to: Path | None = None

    # While it runs.

    async def until_ended(self) -> None:
        """Wait until the server has ended by itself; for ever if it is stopped first."""
        while self.ended is None:
            with anyio.move_on_after(_LOOKS_EVERY_S):
                await self._over.wait()
                if self.ended is None:
                    await anyio.sleep_forever()
            await self.look()

    async def look(self) -> None:
        """Notice that the process that listened is gone while its command goes on: what restarts it hides a crash."""
        running = [process for process in self._listeners if _runs(process)]
        if self.ended is not None or not self._listeners:
            return
        if running:
            # Of several, those that are replaced one by one, as workers are, are no other server.
            if len(running) < len(self._listeners):
                listeners = await anyio.to_thread.run_sync(self._listening)
                self._listeners = listeners if self._listeners else []
            return
        # Mostly it is the command itself, or its last process, and its guard knows how it ended.
        with anyio.move_on_after(_REPORTED_WITHIN_S):
            await self._over.wait()
        if self._listeners and not self.why_ended:  # it was not stopped either
            before, self._listeners = _pids(self._listeners), self._listening()
            now = f"; {_pids(self._listeners)} does now" if self._listeners else ""
            again = " and was started again by its command" if now else ", while its command goes on"
            self._has_ended(ServerEnd(reason=f"by itself{again}: {before} listened at its port{now}"))

    async def raise_if_ended(self, *, soon: bool = False) -> None:
        """Raise `TargetEnded` if the server has ended by itself; with `soon`, a moment is left for this to be known."""
        if soon:
            with anyio.move_on_after(_REPORTED_WITHIN_S):
                await self._over.wait()
        await self.look()
        if self.ended is not None:
            raise self.end_error()

    @asynccontextmanager
    async def or_its_end(self) -> AsyncIterator[None]:
        """A context in which the end of the server is raised instead of what it makes fail: of a server that is gone a
        connection says only that it was refused."""
        try:
            yield
        except TargetUnavailable as error:
            if not isinstance(error, TargetEnded):
                await self.raise_if_ended(soon=True)
            raise

    def end_error(self) -> TargetEnded:
        """The error of a server that has ended by itself, with the last line of its output."""
        lines = self.tail()
        last = f": {lines[-1]}" if lines else ""
        return TargetEnded(f"{self.why_ended}{last}", hint=self._log_hint(lines))

    async def still_loads(self, sample: Sample) -> bool:
        """Whether a failed first request should be sent again, since the server says that it is still loading; waits a
        moment then. Raises `TargetEnded` if it has ended.
        """
        if self._is_responding or self._guard is None:
            return False
        refused = sample.outcome in {Outcome.REFUSED, Outcome.RESET}
        await self.raise_if_ended(soon=refused)
        within_ns = self._scenario.target.ready_timeout
        if not (refused or sample.status in _LOADING) or (within_ns and self._seconds() * NS_PER_S > within_ns):
            return False
        why = f"HTTP {sample.status}" if sample.status else sample.outcome.value
        self._doing(f"waiting until the server has loaded its model ({': '.join(filter(None, [why, sample.detail]))})")
        self._was_loading = True
        await self._pause(least_s=_REPEATED_S)
        return True

    def responded(self, sample: Sample) -> None:
        """A request has succeeded: after the first one since the start, the model is loaded."""
        if self._is_responding or self._guard is None:
            return
        self._is_responding = True
        # loadbench prepares itself between the two. A server that was still loading did not wait for that.
        took_s = (sample.end_ns - sample.due_ns) / NS_PER_S
        first_s = self._seconds() if self._was_loading else (self.record.ready_s or 0.0) + took_s
        self.record = msgspec.structs.replace(self.record, first_response_s=first_s)
        self.look_at_memory(is_loaded=True)
        self._listeners = self._listening()

    def first_tokens(self, cold_s: float | None, warm_s: float | None) -> None:
        """The times to first token of the model that responded first since the start."""
        if self.record.cold_ttft_s is None:
            self.record = msgspec.structs.replace(self.record, cold_ttft_s=cold_s, warm_ttft_s=warm_s)

    def look_at_memory(self, *, is_loaded: bool = False, seen_bytes: float = 0.0) -> None:
        """Read the resident memory of all processes of the server; where the system keeps the peak, that too. Somebody
        else may have `seen_bytes` of it meanwhile."""
        psutil = library("psutil")
        if psutil is None or self._guard is None or self._guard_pid is None:
            return
        gone: type[Exception] = psutil.Error
        resident = peak = count = 0
        with suppress(gone):
            for process in psutil.Process(self._guard_pid).children(recursive=True):
                with suppress(gone, OSError):
                    memory = process.memory_info()
                    count += 1
                    resident += memory.rss
                    peak += max(memory.rss, getattr(memory, "peak_wset", 0), _high_water(process.pid))
        if not resident:
            return
        most = max(peak, round(seen_bytes), self.record.memory_peak_bytes or 0)
        self.record = msgspec.structs.replace(self.record, memory_peak_bytes=most)
        if is_loaded:
            self.record = msgspec.structs.replace(self.record, memory_loaded_bytes=resident, processes=count)

    def tail(self) -> list[str]:
        """The last lines of the latest start's output, fit for the terminal and without secrets."""
        if self.log is None:
            return []
        with suppress(OSError), self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            since = self._from_byte if self._from_byte <= size else 0  # the guard has cut it
            begins = max(since, size - _TAIL_BYTES)
            file.seek(begins)
            # A line ends with a return as well: progress bars are drawn over each other.
            lines = re.split(r"[\r\n]+", file.read(_TAIL_BYTES).decode("utf-8", "replace"))
            lines = [_plain(line) for line in lines]
            whole = lines if begins == since else lines[1:]
            lines = whole if any(map(str.strip, whole)) else lines  # a line may be longer than what was read
            shown = [beginning(self._secrets.hide(line).rstrip(), _LONGEST_LINE) for line in lines if line.strip()]
            return shown[-_TAIL_LINES:]
        return []

    # Inside.

    def _launch(self, order: Order) -> None:
        """Start the guard with this order, and a thread that listens to it."""
        try:
            self._guard = subprocess.Popen(  # noqa: S603 - our own module
                python_command("loadbench.core.guard"),
                env=child_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                creationflags=_OWN_GROUP,
            )
        except OSError as error:
            raise TargetUnavailable(f"the server cannot be started: {error.strerror or error}") from None
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, args=(self._guard, loop), daemon=True).start()
        pipe = self._guard.stdin
        assert pipe is not None  # noqa: S101 - it is a pipe
        with suppress(OSError):  # the guard has ended: its listener says so
            pipe.write(json.dumps(order).encode() + b"\n")
            pipe.flush()

    def _seconds(self) -> float:
        """Since the command was started."""
        return (time.perf_counter_ns() - self._began_ns) / NS_PER_S

    async def _pause(self, least_s: float = _SOONEST_S) -> None:
        await anyio.sleep(min(_LATEST_S, max(least_s, _ASK_AGAIN * self._seconds())))

    def _refuse_taken_port(self) -> None:
        """Raises `TargetUnavailable` if something listens at the port already: it would be measured instead."""
        _, host, _ = origin_of(self.url)
        with suppress(OSError), socket.create_connection((host, self.port), timeout=1.0):
            psutil, who = library("psutil"), ""
            if psutil is not None:
                for pid in sorted(owners(psutil, self.port, None)):
                    with suppress(psutil.Error):
                        who = f" (process {pid}, {printable(psutil.Process(pid).name())})"
            raise TargetUnavailable(
                f"{shown_url(self.url)}: something listens at port {self.port} already{who}",
                hint="end it, or leave out the server command to measure it",
            )

    def _open_log(self) -> None:
        """The file for the output; a start after the first one is marked in it."""
        report, now = self._scenario.report, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        if self.log is None:
            out = report.out or RESULTS
            name = f"{now}-{slug(report.name)}-{self.port}.{LOG}"
            try:
                out.mkdir(parents=True, exist_ok=True)
                (out / name).touch(mode=0o600)
            except OSError as error:
                hint = "name another folder with --out"
                raise BadInput(f"{out / name}: cannot be written: {error.strerror or error}", hint=hint) from None
            self.log = out / name
        with suppress(OSError), self.log.open("ab") as file:
            if file.tell():
                file.write(f"\n--- started again by loadbench, {now} ---\n".encode())
            self._from_byte = file.tell()

    def _close_log(self) -> None:
        """Move the log where it belongs."""
        if self.log is None:
            return
        with suppress(OSError):
            if self._moves_to is not None and not self._in_folder:
                shutil.move(self.log, self._moves_to)
                self.log, self._in_folder = self._moves_to, True

    def _listen(self, guard: subprocess.Popen[bytes], loop: asyncio.AbstractEventLoop) -> None:
        """Read what the guard reports, in a thread, until it ends."""
        said_gone = False
        assert guard.stdout is not None  # noqa: S101 - it is a pipe
        with suppress(OSError, ValueError), guard.stdout:
            for line in guard.stdout:
                record = json.loads(line)
                said_gone = said_gone or record["event"] in {"gone", "failed"}
                with suppress(RuntimeError):  # the event loop has closed
                    loop.call_soon_threadsafe(self._on_report, record)
        if not said_gone and sys.platform != "win32":
            kill_marked(self._token, self._pid)
        guard.wait()
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._on_report, {"event": "left", "said_gone": said_gone})

    def _on_report(self, record: Mapping[str, Any]) -> None:
        match record["event"]:
            case "started":
                self._pid, self._began_ns, self._guard_pid = record["pid"], record["at_ns"], record["guard"]
                self._told.set()
            case "failed":
                self._failed = record
                self._told.set()
            case "exited":
                end = ServerEnd(record["code"], record["signal"], record["oom_kills"])
                went_on = end.code == 0 and record["left"] and not self._is_responding
                if not went_on:
                    self._has_ended(end)
            case "gone":
                self._has_ended(ServerEnd(reason="by itself: its last process has ended"))
            case "left":
                if not record["said_gone"]:
                    self._has_ended(ServerEnd(reason="when the process that guards it was killed"))
                self._told.set()
                self._gone.set()

    def _has_ended(self, end: ServerEnd) -> None:
        if self.ended is None and not self._stopping:
            self.ended = end
            self.record = msgspec.structs.replace(self.record, ended=self.why_ended)
        self._over.set()

    async def _until_ready(self) -> None:
        """Wait until the server is ready. Raises `TargetUnavailable` if it ends first or the time is up, `BadInput` if
        it could not be started at all."""
        if self._pid is None:
            reason = "its guard did not start" if self._failed is None else self._failed["reason"]
            place = self._scenario.place("target.server_cmd")
            hints = {
                errno.ENOEXEC: "a script begins with a line that names its shell, as #!/bin/sh",
                errno.E2BIG: "put what is long into a file",
            }
            hint = hints.get((self._failed or {}).get("errno", 0), "try the command in a shell")
            raise BadInput(f"{place}: cannot be run: {printable(str(reason))}", hint=hint)
        doing = f"waiting for the server, process {self._pid}"
        self._doing(doing)
        within_ns = self._scenario.target.ready_timeout
        seen = "nothing listens at its port"

        async def wait() -> None:
            nonlocal seen
            while seen := await self._why_not_ready():
                self._doing(f"{doing} ({seen.rpartition(': ')[2]})")  # without the URL
                await self._pause()

        with anyio.move_on_after(None if within_ns is None else within_ns / NS_PER_S) as limit:
            with anyio.CancelScope() as scope:

                async def watch() -> None:
                    await self.until_ended()
                    scope.cancel()

                await run_alongside(wait, watch)
        if self.ended is None and not limit.cancelled_caught:
            return
        lines = self.tail()
        words = _last_words(lines)
        before = [line for line in lines if line not in words]
        if before:
            self._say("the last lines of the server's output before what the error says:")
            for line in before:
                self._say(f"  {line}")
        said = " / ".join(map(str.strip, words))
        last = f": {said[:_LONGEST_LINE]}{'…' * (len(said) > _LONGEST_LINE)}" if lines else "; it has written nothing"
        if self.ended is not None:
            raise TargetEnded(f"{self.why_ended} before it was ready{last}", hint=self._log_hint(lines))
        if (places := self._listens_at()) and not self._listening():
            seen += f"; it listens at {some(places)}"
        limit_text = format_duration(within_ns or 0)
        hint = f"give it more time with --ready-timeout, or another sign with --ready-url; {self._log_hint(lines)}"
        last = f"; the end of its output{last}" if lines else last
        raise TargetUnavailable(f"the server was not ready within {limit_text}: {seen}{last}", hint=hint)

    def _listens_at(self) -> list[str]:
        """Where the server's processes listen, as far as the system says it."""
        found = {(address, port) for _, address, port in self._sockets()}
        return sorted(f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address, port in found)

    def _listening(self) -> list[Any]:
        """The server's processes that listen at its port, as far as the system says it."""
        return [process for process, _, port in self._sockets() if port == self.port]

    def _sockets(self) -> list[tuple[Any, str, int]]:
        """Each socket at which a process of the server listens: the process, the address and the port."""
        psutil, found = library("psutil"), []
        if psutil is None or self._guard_pid is None:
            return []
        with suppress(psutil.Error):
            for process in psutil.Process(self._guard_pid).children(recursive=True):
                with suppress(psutil.Error, OSError):
                    listening = (one for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN)
                    found += [(process, *one.laddr) for one in listening if one.laddr]
        return found

    def _log_hint(self, lines: Sequence[str]) -> str:
        advice = next(filter(None, (advice_for(line) for line in reversed(lines))), "")
        place = f"its output is in {self.log}"
        return f"{advice}; {place}" if advice else place

    async def _why_not_ready(self) -> str:
        """Why the server is not ready; empty if it is."""
        scenario = self._scenario
        target = target_at(scenario, self._environment, url=self.url)
        given = ServerUrl.parse(self.url)
        urls = [f"{base}/models" for base in given.bases]
        if scenario.target.api == Api.OLLAMA:
            urls.append(re.sub(r"/v\d+$", "", given.base) + "/api/tags")
        async with target.http(scenario.limits) as http:
            for url in urls if self._ready_url is None else [self._ready_url]:
                try:
                    response = await get(http, url, within_s=_PROBE_WITHIN_S)
                except NoConnection as error:
                    return "nothing listens at its port" if self._ready_url is None else error.message
                except TargetUnavailable as error:
                    return error.message
                status, shown = response.status_code, shown_url(url)
                if self._ready_url is not None:
                    return "" if status < 400 else f"{shown}: HTTP {status}"
                if status in _LOADING:
                    return f"{shown}: HTTP {status}"
                # An Ollama without models will have none later either.
                may_come = scenario.target.model is None and scenario.target.api != Api.OLLAMA
                if status == HTTPStatus.OK and may_come and entries_of(parse_json(response)) == []:
                    return f"{shown}: its list of models is empty"
        return ""


def _runs(process: Any) -> bool:
    """Whether this very process of psutil's still runs."""
    psutil: Any = library("psutil")
    with suppress(psutil.Error, OSError):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _pids(processes: Sequence[Any]) -> str:
    """`process 12`, `processes 12 and 13`."""
    pids = [str(pid) for pid in sorted({process.pid for process in processes})]
    return f"process{'es' * (len(pids) > 1)} {some(pids)}"


def _plain(line: str) -> str:
    """The line without escape sequences, and without what else a terminal would obey."""
    return printable(
        re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])", "", line).expandtabs(4)
    )


def _last_words(lines: Sequence[str]) -> Sequence[str]:
    """Of the last lines of a server that did not start: from the last one with an error, as what to do may follow it,
    or the last alone."""
    at = next((at for at in range(len(lines) - 1, -1, -1) if _ERROR_LINE.search(lines[at])), len(lines) - 1)
    return lines[max(0, at) : at + _LAST_WORDS]


def _high_water(pid: int) -> int:
    """The most resident memory that a process has had, as far as the system says it; else 0."""
    if sys.platform == "linux":
        with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith(b"VmHWM:")), 0)
    return 0
