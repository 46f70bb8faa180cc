"""The fault server: does on request what servers and proxies do wrong. `python -m loadbench.sim.faults --port 0`.

A prompt that holds `fault:NAME` gets that fault of `FAULTS`, any other a plain answer; so faults are asked for through
any client, without a header or a field that one would have to let pass. Same request, same bytes in the same order;
only pauses are left to the clock, and `speed` divides them all.

    loadbench sweep --url http://127.0.0.1:PORT/v1 --prompt 'fault:usage_late' --users 4

As a process it prints `READY http://127.0.0.1:PORT`, and ends like `loadbench.sim` does. In a test's own event loop it
is `async with FaultServer(speed=20) as server`.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
import struct
import sys
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import orjson

from loadbench.core.errors import BadInput
from loadbench.sim import answer_faults, wire_faults
from loadbench.sim.fault_frames import FaultTable
from loadbench.sim.process import ServerProcess, end_with_parent, from_outside, say_ready

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

FAULTS = FaultTable(answer_faults.FAULTS | wire_faults.FAULTS)
_NAMED = re.compile(r"\bfault:(\w+)")
_MOST_BODY_BYTES = 8 * 1024 * 1024
_BACKLOG = 1024
_CHUNKED = b"transfer-encoding: chunked\r\n"
# On, and no time to linger: closing sends a reset. Windows has its two numbers shorter.
_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class FaultServer:
    """Serves in the running event loop while its context lasts; all pauses are divided by `speed`.

    `asked` counts the requests by fault, `connections` those that were accepted. Entering raises `BadInput` where the
    address cannot be listened on.
    """

    def __init__(self, *, speed: float = 1.0, host: str = "127.0.0.1", port: int = 0) -> None:
        self.speed = speed
        self.asked: Counter[str] = Counter()
        self.connections = 0
        self.errors: list[Exception] = []  # faults of the server that are none of the table
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
                self._serve, self._host, self._port, limit=_MOST_BODY_BYTES, backlog=_BACKLOG
            )
        except (OSError, OverflowError) as error:
            raise BadInput(f"cannot listen on {self._host}:{self._port}: {error}", hint="--port 0") from None
        self._port = self._listener.sockets[0].getsockname()[1]

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end; whatever a client does, or a fault leaves behind, ends no other."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs this as one
        wire = self._open[task] = Wire(self, reader, writer)
        self.connections += 1
        try:
            while not wire.closed:
                await self._answer(wire)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client has gone, or the server goes
        except Exception as error:  # noqa: BLE001 - told to whoever looks, and no concern of the other connections
            self.errors.append(error)
        finally:
            del self._open[task]
            wire.close()

    async def _answer(self, wire: Wire) -> None:
        line, body = await wire.read_request()
        if line.startswith(b"GET "):
            models = b'{"object":"list","data":[{"id":"faulty","object":"model"}]}'
            await wire.whole("200 OK" if b"/models " in line else "404 Not Found", models)
            return
        try:
            wire.take(orjson.loads(body))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            await wire.whole("400 Bad Request", orjson.dumps({"error": {"message": f"not understood: {error}"}}))
            return
        named = _NAMED.search(wire.prompt)
        name = named[1] if named else "plain"
        self.asked[name] += 1
        if name in FAULTS:
            await FAULTS[name].play(wire)
        else:
            message = f"no fault {name!r}; there are {', '.join(FAULTS)}"
            await wire.whole("400 Bad Request", orjson.dumps({"error": {"message": message}}))

    def restart(self, away_s: float) -> None:
        """Drop every connection, be away for so long, and be back on the same port."""
        self._stop_listening()
        for wire in tuple(self._open.values()):
            wire.reset()
        task = asyncio.get_running_loop().create_task(self._return(away_s))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _return(self, away_s: float) -> None:
        await asyncio.sleep(away_s)
        if self._listener is None:
            await self._listen()


class Wire:
    """One connection as a fault sees it: the present request, and ways to answer it."""

    def __init__(self, server: FaultServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.closed = False
        self.asked = self.prompt_tokens = 0
        self.model = self.prompt = ""
        self._server = server
        self._reader = reader
        self._writer = writer
        self._closes_in_the_next = False

    async def read_request(self) -> tuple[bytes, bytes]:
        """The next request: its first line and its body."""
        if self._closes_in_the_next:
            await self._reader.readexactly(16)
            self.reset()
            raise ConnectionResetError
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        body = await self._reader.readexactly(min(int(length[1]), _MOST_BODY_BYTES)) if length else b""
        return head.partition(b"\r\n")[0], body

    def take(self, request: dict[str, object]) -> None:
        """Take over what the request asks for; raises what comes of one that cannot be understood."""
        messages = request.get("messages")
        prompt = messages[-1]["content"] if isinstance(messages, list) else request["prompt"]
        self.model, self.prompt = str(request.get("model", "")), str(prompt)
        self.prompt_tokens = len(self.prompt.split())
        self.asked = max(1, int(str(request.get("max_tokens") or 8)))

    async def pause(self, seconds: float) -> None:
        """Wait, by the server's own time."""
        await asyncio.sleep(seconds / self._server.speed)

    def head(self, *, more: bytes = b"", framing: bytes = _CHUNKED) -> bytes:
        """The header block of an event stream."""
        return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + framing + more + b"\r\n"

    def open(self, *, more: bytes = b"", framing: bytes = _CHUNKED) -> None:
        """Send it."""
        self._writer.write(self.head(more=more, framing=framing))

    @staticmethod
    def chunk(data: bytes) -> bytes:
        """A chunk of a chunked body."""
        return b"%x\r\n%b\r\n" % (len(data), data)

    async def send(self, *frames: bytes) -> None:
        """Write these as one chunk, if they are any bytes."""
        data = b"".join(frames)
        if data:
            await self.raw(self.chunk(data))

    async def raw(self, data: bytes) -> None:
        """Write this; raises `ConnectionError` once the client has gone."""
        self._writer.write(data)
        await self._writer.drain()
        # A write that is taken at once gives no turn to anybody.
        await asyncio.sleep(0)

    async def end(self) -> None:
        """End the chunked body; the connection is kept."""
        await self.raw(b"0\r\n\r\n")

    async def whole(self, status: str, body: bytes, *, kind: bytes = b"application/json", more: bytes = b"") -> None:
        """An answer in one piece."""
        head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n" % (status.encode(), kind, len(body))
        await self.raw(head + more + b"\r\n" + body)

    async def gone(self) -> None:
        """Wait until the client has ended the connection."""
        while await self._reader.read(4096):
            pass
        self.close()

    def close(self) -> None:
        """Close the connection in order."""
        self.closed = True
        self._writer.close()

    def reset(self) -> None:
        """Break the connection."""
        self.closed = True
        sock = self._writer.get_extra_info("socket")
        with suppress(OSError):  # it has gone already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()

    def close_in_the_next(self) -> None:
        """Break the connection when the next request has begun to come."""
        self._closes_in_the_next = True

    async def restart(self, seconds: float) -> None:
        """Have the server restart and be away for so long."""
        self._server.restart(seconds / self._server.speed)


# As a process.


class FaultProcess(ServerProcess):
    """The fault server in a child process."""

    def __init__(self, *, speed: float = 1.0) -> None:
        super().__init__("loadbench.sim.faults", ["--port=0", f"--speed={speed!r}"], name="the fault server")


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    end_with_parent(from_outside(stop.set))
    async with FaultServer(speed=options.speed, host=options.host, port=options.port) as server:
        say_ready(server.url)
        await stop.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadbench.sim.faults", description="The fault server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--speed", type=float, default=1.0, help="divides all pauses")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    options = parser.parse_args(arguments)
    if options.list:
        sys.stdout.writelines(f"{name:26} {fault.stands_for}\n" for name, fault in FAULTS.items())
        return 0
    try:
        asyncio.run(_serve(options))
    except BadInput as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
