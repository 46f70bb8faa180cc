"""A worker process: runs its part of each level, and reports to the main process.

    python -m loadbench.engine.worker COUNTER

Commands come on standard input, reports go to standard output, both as frames (`loadbench.engine.worker_link`).
Judging and writing are up to the main process, and on one machine recording too; a worker opens connections, sends,
stamps, and reports samples in batches. On a cluster it records its part itself (`loadbench.engine.part_recorder`). It
ends when its input ends, so that no worker outlives the run. COUNTER is a file of whoever has
started it, in which each request is counted as it is sent: if this process is killed, what it had not reported is known
by number. Where the main process is on another machine, this one's clock is ahead of the run's by what each order says;
every time that comes in or goes out is one of the run's clock, and no duration changes.
"""

from __future__ import annotations

import asyncio
import ctypes
import io
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from tempfile import mkdtemp
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, overload

import anyio
import anyio.lowlevel

from loadbench.client.addresses import keep_addresses
from loadbench.client.descriptors import ensure_descriptors
from loadbench.client.tls import tls_context
from loadbench.core import event_loop
from loadbench.core.alongside import run_alongside
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput
from loadbench.core.signals import ending_signals
from loadbench.engine.health import LoopHealth
from loadbench.engine.lease import Lease
from loadbench.engine.level import Level, level_plan
from loadbench.engine.part_recorder import PartRecorder
from loadbench.engine.worker_link import HEAD_BYTES, LEFT, SENT, body_bytes, pack, unpack
from loadbench.engine.workers import (
    Batch,
    Begin,
    Close,
    Done,
    Finish,
    GiveLease,
    GiveLines,
    Lines,
    MoveWindow,
    Prepare,
    Ready,
    Stop,
    TakeBack,
)
from loadbench.plan.load import Closed
from loadbench.results.append_log import lock, unlock
from loadbench.results.folder import RunFolder
from loadbench.results.recorded_prompts import prompt_hash
from loadbench.results.requests import RequestLog
from loadbench.targets.clients import make_client, make_transport

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from loadbench.client.client import Client
    from loadbench.engine.level import LevelPlan
    from loadbench.engine.part_recorder import RecordOrder
    from loadbench.plan.prompts import Prompt
    from loadbench.record.request import Request
    from loadbench.record.sample import Sample
    from loadbench.targets.clients import MeasuringTransport

# Often enough for a progress line, seldom enough to cost nothing; the loop's lag, which takes counting, is reported
# with every tenth batch.
_BATCH_S, _BATCHES_FOR_LAG = 0.1, 10
# Of a log that is gathered.
_MOST_LINES_BYTES = 4 << 20
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


class Outbox:
    """Stands where a recorder does, and keeps requests and samples until they are reported: in the run's clock, which
    this machine's is ahead of."""

    def __init__(self, counter: mmap.mmap, *, keep_texts: bool, ahead_ns: int) -> None:
        self.in_flight = self._sent = 0
        self._ahead_ns = ahead_ns
        self._counter = counter
        self._keep_texts = keep_texts
        self._started: list[tuple[int, Request]] = []
        self._ended: list[Sample] = []

    def started(self, at_ns: int, request: Request) -> None:
        """A request is in flight from now on."""
        self.in_flight += 1
        self._sent += 1
        SENT.pack_into(self._counter, 0, self._sent)
        self._started.append((at_ns, request))

    def add(self, sample: Sample) -> None:
        """A request has ended."""
        self.in_flight -= 1
        # The response text is for the user who continues the conversation, and that user is in this process.
        unused = sample.text is not None and not self._keep_texts
        self._ended.append(replace(sample, text=None) if unused else sample)

    def take(self, *, closes_ns: int | None, until_ns: int, tokens_in_flight: int, lag_ns: int | None = None) -> Batch:
        """All that was kept."""
        ahead_ns, started, ended = self._ahead_ns, self._started, self._ended
        if ahead_ns:
            started = [(at_ns - ahead_ns, request.earlier_by(ahead_ns)) for at_ns, request in started]
            ended = [sample.earlier_by(ahead_ns) for sample in ended]
        batch = Batch(
            started=started,
            ended=ended,
            closes_ns=None if closes_ns is None else closes_ns - ahead_ns,
            until_ns=until_ns - ahead_ns,
            tokens_in_flight=tokens_in_flight,
            lag_ns=lag_ns,
        )
        self._started, self._ended = [], []
        return batch


class SharedCount:
    """A count that all workers have mapped, of what each may take one by one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file  # opened by this process: what another opening has locked is locked for this one
        self._count = mmap.mmap(file.fileno(), SENT.size)

    def take(self) -> bool:
        """Take one; false if none is left. Another worker has the lock for about a microsecond."""
        while not lock(self._file.fileno()):
            time.sleep(0.000_01)
        try:
            (left,) = SENT.unpack_from(self._count)
            SENT.pack_into(self._count, 0, left - 1 if left else 0)
        finally:
            unlock(self._file.fileno())
        return bool(left)


class _Digests(Sequence[str]):
    """Those of given prompts, each made when a request is recorded that has it."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self._prompts = prompts
        self._known: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._prompts)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[one] for one in range(len(self))[at]]
        if at not in self._known:
            self._known[at] = prompt_hash(self._prompts[at])
        return self._known[at]


class Prepared(NamedTuple):
    """A level, or a part of one, that can begin."""

    order: Prepare
    plan: LevelPlan
    client: Client
    health: LoopHealth
    keep_texts: bool


class Worker:
    """Serves one run, one level after another; `report` sends a frame, and data sets are in the folder."""

    def __init__(self, report: Callable[[bytes], None], counter: mmap.mmap, left: SharedCount, *, folder: Path) -> None:
        self._folder = folder
        self._report = report
        self._counter = counter
        self._left = left
        self._clock = MonotonicClock()
        self._level: Level | None = None
        self._tls: ssl.SSLContext | None = None
        self._transport: MeasuringTransport | None = None
        self._ahead_ns = 0
        self._closed: asyncio.Future[Close] | None = None  # of a level that is recorded here
        self._log: RequestLog | None = None
        self._log_read = 0  # bytes of it that the main process has

    async def run(self, commands: asyncio.Queue[object]) -> None:
        """Obey commands until they end."""
        async with anyio.create_task_group() as levels:
            prepared: Prepared | None = None
            while (command := await commands.get()) is not None:
                match command:
                    case Prepare() as order:
                        prepared = self._prepare(order)
                        self._report(pack(Ready()))
                    case Begin(at_ns) if prepared is not None:
                        levels.start_soon(self._run_level, prepared, at_ns + self._ahead_ns)
                        # It starts before the next command, which may stop it.
                        await anyio.lowlevel.checkpoint()
                    case MoveWindow(opens_ns, closes_ns, moves) if self._level is not None:
                        phases = self._level.phases
                        phases.opens_ns, phases.moves = opens_ns + self._ahead_ns, moves
                        phases.closes_ns = None if closes_ns is None else closes_ns + self._ahead_ns
                    case Stop(at_ns) if self._level is not None:
                        self._level.phases.close(at_ns + self._ahead_ns)
                        self._level.stop()
                    case Finish(cut, at_ns) if self._level is not None:
                        self._level.phases.close(at_ns + self._ahead_ns)
                        self._level.finish(cut=cut)
                    case GiveLease(more) if self._level is not None and self._level.lease is not None:
                        self._level.lease.add(more)
                    case TakeBack() if self._level is not None and self._level.lease is not None:
                        self._level.lease.give_back()
                    case Close() as window if self._closed is not None and not self._closed.done():
                        self._closed.set_result(window)
                    case GiveLines():
                        self._report(pack(Lines(self._next_lines())))
            levels.cancel_scope.cancel()
        if self._transport is not None:
            await self._transport.aclose()
        if self._log is not None:
            self._log.close()

    def _prepare(self, order: Prepare) -> Prepared:
        scenario, self._ahead_ns = order.scenario, order.clock_ahead_ns
        if self._transport is None:
            # One TLS context for the whole run: it takes longer to make than an order has time.
            secure = any(target.base_url.startswith("https:") for target in order.targets)
            settings = scenario.target
            self._tls = tls_context(cacert=settings.cacert, insecure=settings.insecure) if secure else None
        # What a server refuses may only show with a later model, so targets may change.
        target, *others = (replace(target, tls=self._tls) for target in order.targets)
        if self._transport is None:
            keep_addresses(order.addresses)
            self._transport = make_transport(scenario, target, self._clock, part=order.shard)
        client = make_client(
            scenario, target, self._transport, model=order.model, mix=order.mix, others=others, clock=self._clock
        )
        given = None if order.given is None else order.given.in_folder(self._folder)
        plan = level_plan(scenario, order.spec, order.shard, given=given)
        users = order.shard.share(plan.load.users) if isinstance(plan.load, Closed) else plan.most_in_flight
        with suppress(BadInput):  # then requests say that they were not sent
            ensure_descriptors(users, required=False)
        record = order.record
        log = None if record is None else record.log
        if self._log is not None and (log is None or log.origin_ns != self._log.origin_ns):
            self._log.close()
            self._log, self._log_read = None, 0
        if log is not None and self._log is None:
            # One that stays is the user's, and outlives this process; one that is gathered does not.
            kept = (
                Path(mkdtemp(prefix="requests-", dir=self._folder))
                if log.gathered
                else Path(mkdtemp(prefix="loadbench-requests-"))
            )
            digests = () if given is None else _Digests(given)
            self._log = RequestLog(RunFolder(kept), origin_ns=log.origin_ns, prompts=digests, keep_texts=log.keep_texts)
        return Prepared(order, plan, client, LoopHealth(self._transport), keep_texts=scenario.keeps_answers)

    def _next_lines(self) -> bytes:
        """Whole lines of the request log that the main process does not have yet."""
        if self._log is None:
            return b""
        self._log.flush()
        with self._log.path.open("rb") as file:
            file.seek(self._log_read)
            text = file.read(_MOST_LINES_BYTES)
            text += file.readline() if text and not text.endswith(b"\n") else b""
        self._log_read += len(text)
        return text

    async def _record_level(self, prepared: Prepared, record: RecordOrder, begin_ns: int) -> None:
        """Run a level that is recorded here."""
        order, health, ahead_ns, drained, began_ns = prepared.order, prepared.health, self._ahead_ns, False, begin_ns
        sink = PartRecorder(
            order=record,
            scenario=order.scenario,
            spec=order.spec,
            counter=self._counter,
            begin_ns=begin_ns - ahead_ns,
            ahead_ns=ahead_ns,
            keep_texts=prepared.keep_texts,
            log=self._log,
        )
        closed = self._closed = asyncio.get_running_loop().create_future()
        level = self._level = Level(
            prepared.plan, client=prepared.client, clock=self._clock, health=health, begin_ns=begin_ns, sink=sink
        )
        sink.follow(level)

        def report(lag_ns: int | None = None) -> None:
            told = sink.progress(until_ns=self._clock.now_ns(), drained=drained, lag_ns=lag_ns)
            self._report(pack(told))

        if isinstance(level.load, Closed) and level.phases.requests is not None:
            lease = level.lease = None if record.lease is None else Lease(record.lease, self._clock.now_ns, report)
            level.phases.take = self._left.take if lease is None else lease.take

        async def run() -> None:
            nonlocal drained
            await level.run_load()
            drained = True
            report(level.lag_ns)
            await closed

        async def keep_reporting() -> None:
            while True:
                await anyio.sleep(record.every_s)
                report(level.lag_ns)

        async def note_beginning() -> None:
            nonlocal began_ns
            await self._clock.sleep_until(begin_ns, anyio.Event())
            began_ns = self._clock.now_ns()

        await run_alongside(run, keep_reporting, note_beginning)
        self._level = self._closed = None
        window = closed.result()
        recorded = sink.close(window.opens_ns, window.closes_ns, began_ns=began_ns, health=health.close())
        self._report(pack(recorded))

    async def _run_level(self, prepared: Prepared, begin_ns: int) -> None:
        if prepared.order.record is not None:
            await self._record_level(prepared, prepared.order.record, begin_ns)
            return
        ahead_ns, health, began_ns = self._ahead_ns, prepared.health, begin_ns
        outbox = Outbox(self._counter, keep_texts=prepared.keep_texts, ahead_ns=ahead_ns)
        level = self._level = Level(
            prepared.plan, client=prepared.client, clock=self._clock, health=health, begin_ns=begin_ns, sink=outbox
        )
        if isinstance(level.load, Closed) and level.phases.requests is not None:
            level.phases.take = self._left.take

        def report(lag_ns: int | None = None) -> None:
            batch = outbox.take(
                closes_ns=level.phases.closes_ns,
                until_ns=self._clock.now_ns(),
                tokens_in_flight=level.tokens_in_flight,
                lag_ns=lag_ns,
            )
            self._report(pack(batch))

        async def keep_reporting() -> None:
            for number in count(1):
                await anyio.sleep(_BATCH_S)
                report(level.lag_ns if number % _BATCHES_FOR_LAG == 0 else None)

        async def note_beginning() -> None:
            nonlocal began_ns
            await self._clock.sleep_until(begin_ns, anyio.Event())
            began_ns = self._clock.now_ns()

        await run_alongside(level.run_load, keep_reporting, note_beginning)
        report()
        self._level = None
        done = Done(began_ns=began_ns - ahead_ns, due=level.due, missed=level.missed, health=health.close())
        self._report(pack(done))


async def _main(counter: mmap.mmap, left: SharedCount, folder: Path) -> None:
    loop = asyncio.get_running_loop()
    commands: asyncio.Queue[object] = asyncio.Queue()
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    # Whatever prints must not get between the frames.
    os.dup2(2, 1)

    reports: SimpleQueue[bytes | None] = SimpleQueue()
    writer = threading.Thread(target=_write, args=(out, reports), daemon=True)
    writer.start()

    def put(command: object) -> None:
        loop.call_soon_threadsafe(commands.put_nowait, command)

    # Not `sys.stdin`: a thread that waits in it holds a lock that the interpreter needs to exit.
    pipe = io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))
    threading.Thread(target=_read, args=(pipe, put), daemon=True).start()
    reports.put(pack(Ready()))
    await Worker(reports.put, counter, left, folder=folder).run(commands)
    reports.put(None)
    writer.join()
    out.close()


def _read(stream: BinaryIO, put: Callable[[object], object]) -> None:
    """Pass on each command, and `None` at their end."""
    while len(head := stream.read(HEAD_BYTES)) == HEAD_BYTES:
        put(unpack(stream.read(body_bytes(head))))
    put(None)


def _write(out: BinaryIO, reports: SimpleQueue[bytes | None]) -> None:
    """Write each frame. A full pipe holds up this thread, and never the event loop."""
    while (frame := reports.get()) is not None:
        view = memoryview(frame)
        while view:
            try:
                view = view[out.write(view) :]
            except OSError:
                os._exit(1)  # nobody reads any more


def main() -> None:
    """Serve until the commands end. Ctrl-C, and what else ends a whole service, is for the main process."""
    for number in ending_signals():
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":  # a worker that is stopped does not hear the end of its commands
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    path = Path(sys.argv[1])
    with path.open("r+b") as file:
        counter = mmap.mmap(file.fileno(), SENT.size)
    with path.with_name(LEFT).open("r+b") as file:
        event_loop.run(_main, counter, SharedCount(file), path.parent)


if __name__ == "__main__":
    main()
