"""The fault server: does on request what servers and proxies do wrong. `python -m tests.faults --port 0`.

A prompt with `fault:NAME` gets that fault of `FAULTS`, any other prompt a plain response. So a fault can be requested
through any client, without a special header or field. The same request gives the same bytes in the same order; only
pauses depend on the clock, and `speed` divides them all.

    loadbench sweep --url http://127.0.0.1:PORT/v1 --prompt 'fault:usage_late' --users 4

As a process it prints `READY http://127.0.0.1:PORT`, and ends like `loadbench.sim` does. In a test's own event loop it
is `async with FaultServer(speed=20) as server`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Self

import orjson

from loadbench.core.children import end_with_parent
from loadbench.core.errors import BadInput
from loadbench.sim.process import ServerProcess, from_outside, say_ready
from tests.faults import connection_faults, response_faults
from tests.faults.frames import MOST_BODY_BYTES, FaultTable, Wire

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

FAULTS = FaultTable(response_faults.FAULTS | connection_faults.FAULTS)
_NAMED = re.compile(r"\bfault:(\w+)")
_BACKLOG = 1024


class FaultServer:
    """Serves in the running event loop while its context lasts; all pauses are divided by `speed`.

    `requests` counts the requests by fault, `connections` the accepted connections. Entering raises `BadInput` if it
    cannot listen on the address.
    """

    def __init__(self, *, speed: float = 1.0, host: str = "127.0.0.1", port: int = 0) -> None:
        self.speed = speed
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self.errors: list[Exception] = []  # bugs of this server itself
        self._host = host
        self._port = port
        self._listener: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], Wire] = {}
        self._restarts: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it serves, as in `http://127.0.0.1:4711`; with no path."""
        return f"http://{self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._open, *self._restarts]
        self._stop_listening()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _listen(self) -> None:
        try:
            self._listener = await asyncio.start_server(
                self._serve, self._host, self._port, limit=MOST_BODY_BYTES, backlog=_BACKLOG
            )
        except (OSError, OverflowError) as error:
            raise BadInput(f"cannot listen on {self._host}:{self._port}: {error}", hint="--port 0") from None
        self._port = self._listener.sockets[0].getsockname()[1]

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end. An error on it must not affect other connections."""
        task = asyncio.current_task()
        assert task is not None
        wire = self._open[task] = Wire(self, reader, writer)
        self.connections += 1
        try:
            while not wire.closed:
                await self._respond(wire)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client has gone, or the server is closing
        except Exception as error:  # noqa: BLE001 - kept for the test, which asserts that there are none
            self.errors.append(error)
        finally:
            del self._open[task]
            wire.close()

    async def _respond(self, wire: Wire) -> None:
        line, body = await wire.read_request()
        if line.startswith(b"GET "):
            models = b'{"object":"list","data":[{"id":"faulty","object":"model"}]}'
            await wire.respond("200 OK" if b"/models " in line else "404 Not Found", models)
            return
        try:
            wire.take(orjson.loads(body))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            await wire.respond("400 Bad Request", orjson.dumps({"error": {"message": f"not understood: {error}"}}))
            return
        match = _NAMED.search(wire.prompt)
        name = match[1] if match else "plain"
        self.requests[name] += 1
        if name in FAULTS:
            await FAULTS[name].play(wire)
        else:
            message = f"no fault {name!r}; there are {', '.join(FAULTS)}"
            await wire.respond("400 Bad Request", orjson.dumps({"error": {"message": message}}))

    def restart(self, away_s: float) -> None:
        """Drop every connection, and listen again on the same port after this time."""
        self._stop_listening()
        for wire in tuple(self._open.values()):
            wire.reset()

        async def come_back() -> None:
            await asyncio.sleep(away_s)
            if self._listener is None:
                await self._listen()

        task = asyncio.get_running_loop().create_task(come_back())
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)


class FaultProcess(ServerProcess):
    """The fault server in a child process."""

    def __init__(self, *, speed: float = 1.0) -> None:
        super().__init__("tests.faults", ["--port=0", f"--speed={speed!r}"], name="the fault server")
        self._command.remove("-P")  # the tests are modules of the current directory


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    end_with_parent(from_outside(stop.set))
    async with FaultServer(speed=options.speed, host=options.host, port=options.port) as server:
        say_ready(server.url)
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal or the end of standard input; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="The fault server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--speed", type=float, default=1.0, help="divides all pauses")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    options = parser.parse_args(arguments)
    if options.list:
        sys.stdout.writelines(f"{name:26} {fault.description}\n" for name, fault in FAULTS.items())
        return 0
    try:
        asyncio.run(_serve(options))
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0
