"""A worker process: makes its part of each level, and tells the main process what happened.

    python -m loadbench.engine.worker

Commands come by standard input, what is told goes to standard output, both as frames. Recording, judging and writing
are the main process's; a worker opens connections, sends, stamps, and hands on samples in batches. It ends when its
input does, so that no worker outlives the run.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import threading
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO

import anyio

from loadbench.client.httpx_transport import tls_context
from loadbench.core.clock import MonotonicClock
from loadbench.engine.frames import HEAD_BYTES, Batch, Begin, Done, Ready, Started, Stop, body_bytes, pack, unpack
from loadbench.engine.health import LoopHealth
from loadbench.engine.level import Level
from loadbench.engine.parts import level_plan
from loadbench.targets.clients import make_client, make_transport
from loadbench.targets.openai import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.client.client import Request
    from loadbench.record.sample import Sample
    from loadbench.targets.clients import MeasuringTransport

# Often enough for a progress line, seldom enough to cost nothing.
_BATCH_S = 0.1


class Outbox:
    """Stands where a recorder does, and keeps what it is told until it is sent on."""

    def __init__(self, *, keep_answers: bool = False) -> None:
        self.in_flight = 0
        self._keep_answers = keep_answers
        self._started: list[Started] = []
        self._ended: list[Sample] = []

    def started(self, at_ns: int, ask: Request) -> None:
        """A request is on its way."""
        self.in_flight += 1
        self._started.append(Started(at_ns, ask.number, ask.due_ns, ask.phase, ask.user, ask.persona, ask.turn))

    def add(self, sample: Sample) -> None:
        """A request has ended."""
        self.in_flight -= 1
        # The answer's text is for the user who goes on from it, and he is here.
        spent = sample.answer is not None and not self._keep_answers
        self._ended.append(replace(sample, answer=None) if spent else sample)

    def take(self, *, closes_ns: int | None, told_ns: int, tokens_under_way: int) -> Batch:
        """All that was kept."""
        batch = Batch(
            started=self._started,
            ended=self._ended,
            closes_ns=closes_ns,
            told_ns=told_ns,
            tokens_under_way=tokens_under_way,
        )
        self._started, self._ended = [], []
        return batch


class Worker:
    """Serves one run: one level after another."""

    def __init__(self, tell: Callable[[bytes], None]) -> None:
        self._tell = tell
        self._clock = MonotonicClock()
        self._level: Level | None = None
        self._target: Target | None = None
        self._transport: MeasuringTransport | None = None

    async def run(self, commands: asyncio.Queue[object]) -> None:
        """Do as commanded until the commands end."""
        async with anyio.create_task_group() as levels:
            while (command := await commands.get()) is not None:
                if isinstance(command, Begin):
                    levels.start_soon(self._run_level, command)
                elif isinstance(command, Stop) and self._level is not None:
                    self._level.stop()
            levels.cancel_scope.cancel()
        if self._transport is not None:
            await self._transport.aclose()

    async def _run_level(self, order: Begin) -> None:
        outbox = Outbox(keep_answers=order.scenario.keeps_answers)
        # One target for the whole run: its TLS context takes longer to make than an order has time.
        target = self._target = self._target or _target(order)
        transport = self._transport = self._transport or make_transport(order.scenario, target, self._clock)
        client = make_client(order.scenario, target, transport, model=order.model, clock=self._clock)
        health = LoopHealth(transport)
        level = self._level = Level(
            level_plan(
                order.scenario,
                order.load,
                key=order.key,
                calibration=order.calibration,
                extent=order.extent,
                shard=order.shard,
            ),
            client=client,
            clock=self._clock,
            health=health,
            begin_ns=order.begin_ns,
            recorder=outbox,
        )
        async with anyio.create_task_group() as telling:
            telling.start_soon(self._tell_batches, level, outbox)
            await level.keep()
            telling.cancel_scope.cancel()
        self._tell_batch(level, outbox)
        self._level = None
        self._tell(pack(Done(due=level.due, missed=level.missed, health=health.close())))

    async def _tell_batches(self, level: Level, outbox: Outbox) -> None:
        while True:
            await anyio.sleep(_BATCH_S)
            self._tell_batch(level, outbox)

    def _tell_batch(self, level: Level, outbox: Outbox) -> None:
        batch = outbox.take(
            closes_ns=level.phases.closes_ns,
            told_ns=self._clock.now_ns(),
            tokens_under_way=level.tokens_under_way,
        )
        self._tell(pack(batch))


def _target(order: Begin) -> Target:
    settings = order.scenario.target
    secure = order.base_url.startswith("https:")
    tls = tls_context(cacert=settings.cacert, insecure=settings.insecure) if secure else None
    return Target(base_url=order.base_url, headers=order.headers, tls=tls)


def _read_commands(stream: BinaryIO, put: Callable[[object], object]) -> None:
    """Hand on each command; `None` at their end."""
    while True:
        head = stream.read(HEAD_BYTES)
        if len(head) < HEAD_BYTES:
            put(None)
            return
        put(unpack(stream.read(body_bytes(head))))


async def _main() -> None:
    loop = asyncio.get_running_loop()
    commands: asyncio.Queue[object] = asyncio.Queue()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    # Whatever prints must not get between the frames.
    os.dup2(2, 1)

    told: SimpleQueue[bytes | None] = SimpleQueue()
    writer = threading.Thread(target=_write, args=(out, told), daemon=True)
    writer.start()

    def put(command: object) -> None:
        loop.call_soon_threadsafe(commands.put_nowait, command)

    # Not `sys.stdin`: a thread that waits in it holds a lock that the interpreter's end wants.
    pipe = io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))
    threading.Thread(target=_read_commands, args=(pipe, put), daemon=True).start()
    told.put(pack(Ready()))
    await Worker(told.put).run(commands)
    told.put(None)
    writer.join()


def _write(out: BinaryIO, told: SimpleQueue[bytes | None]) -> None:
    """A pipe that is full holds up this thread, and never the event loop."""
    while (frame := told.get()) is not None:
        view = memoryview(frame)
        while view:
            try:
                view = view[out.write(view) :]
            except OSError:
                os._exit(1)  # nobody listens any more


def main() -> None:
    """Serve until the commands end. Ctrl-C in the terminal is for the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    anyio.run(_main)


if __name__ == "__main__":
    main()
