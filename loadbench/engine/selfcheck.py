"""Is it the server or the tool? This machine's own client, measured against a server that says when it sent what.

The client and the transport are those of every measurement, and the answers take the same way through them; beside it
a tee keeps their bytes, in which the truth server (`loadbench.sim.truth`) wrote its stamps. After the run the two are
held against each other (`loadbench.engine.stamp_errors`).

First at the load that was asked for; then with more and more users until the client no longer holds: the last load that
it held is the ceiling. A load has failed when it has failed twice: any machine is disturbed now and then.
"""

from __future__ import annotations

import math
import os
import sys
import time
from array import array
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import anyio
import msgspec

from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.client.descriptors import descriptor_limit, ensure_descriptors
from loadbench.client.fast_transport import FastTransport
from loadbench.core.clock import MonotonicClock
from loadbench.core.units import NS_PER_S
from loadbench.engine.health import LoopHealth
from loadbench.engine.stamp_errors import (
    MOST_MERGED,
    AnsweredStream,
    CheckLoad,
    ErrorQuantiles,
    LoadCheck,
    Recording,
    check,
)
from loadbench.record.outcome import Outcome
from loadbench.sim.process import TruthProcess
from loadbench.sim.truth import Pace, read_true_times

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from loadbench.client.transport import HttpRequest, Sink, Transport
    from loadbench.record.sample import Sample

SCHEMA = "loadbench.selfcheck/1"
# An answer of the usual measurements, and the longest step of the climb.
_EVENTS = 64
_STEP_NS = 1_500_000_000
# The climb ends when the next load differs from a known one by less.
_FINE = 1.1
# More streams than a Python client holds, fewer than the limits on open files usually are; select on Windows takes 512.
_MOST_USERS = 480 if sys.platform == "win32" else 4096
# One truth server paces some 50,000 events a second; more of them than cores are in each other's way.
_MOST_SERVERS = 4
_CONNECTIONS = 16
_CPU_EVERY_S = 0.02

Ends = Literal["client", "server", "budget", "users"]


class SelfCheck(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found, as `selfcheck --json` prints it."""

    schema: str = SCHEMA
    stamp_source: str
    stamp_error_s: ErrorQuantiles | None
    ttft_error_s: ErrorQuantiles | None
    gap_error_s: ErrorQuantiles | None
    events_per_s_ceiling: float | None
    requests_per_s_ceiling: float | None
    advice: list[str]
    given: LoadCheck
    ceiling_limit: Ends
    steps: list[LoadCheck]


def next_users(held: int | None, lost: int | None, *, most: int) -> int | None:
    """The number to try next: double or halve, then between the two; `None` when they are close enough."""
    if lost is None:
        users = min(most, (held or 1) * 2)
        return None if users == held else users
    if held is None:
        return lost // 2 or None
    users = round(math.sqrt(held * lost))
    return users if held * _FINE < lost and held < users < lost else None


# A load against the truth server.


class _Tee:
    """A transport that keeps the bytes of the answers that go through it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._parts: list[bytes] = []

    async def exchange(self, exchange: HttpRequest, sink: Sink) -> None:
        await self._transport.exchange(exchange, _Ear(sink, self._parts))

    async def aclose(self) -> None:
        await self._transport.aclose()

    def take(self) -> list[bytes]:
        """What was kept since this was last asked."""
        parts = self._parts.copy()
        self._parts.clear()
        return parts


class _Ear:
    """A sink that hands on all that it is told, and keeps the bytes."""

    def __init__(self, sink: Sink, parts: list[bytes]) -> None:
        self.reconnecting = sink.reconnecting
        self.connected = sink.connected
        self.sent = sink.sent
        self.headers = sink.headers
        self._data = sink.data
        self._keep = parts.append

    def data(self, at_ns: int, chunk: bytes) -> None:
        """The stamp was taken before; the client goes first."""
        self._data(at_ns, chunk)
        self._keep(chunk)


class _User:
    """Asks one of the servers again and again; `kept` are its samples with the bytes of their answers."""

    def __init__(self, number: int, load: CheckLoad, *, url: str, transport: Transport) -> None:
        self.number = number
        self.kept: list[tuple[Sample, list[bytes]]] = []
        self._load = load
        self._tee = _Tee(transport)
        endpoint = Endpoint(base_url=f"{url}/v1", model="truth")
        self._client = Client(endpoint, self._tee, clock=MonotonicClock(), timeouts=Timeouts(total_ns=None))

    async def run(self, begins_s: float) -> None:
        """Begin then, and read so many answers."""
        await anyio.sleep(begins_s)
        for _ in range(self._load.answers):
            await self.ask()

    async def ask(self) -> None:
        """One answer."""
        pace = self._load.pace
        sample = await self._client.send_prompt(pace.prompt, max_tokens=pace.events)
        self.kept.append((sample, self._tee.take()))

    def answers(self) -> list[AnsweredStream]:
        """Both sides of each whole answer."""
        return [
            _both_sides(self.number, sample, b"".join(parts))
            for sample, parts in self.kept
            if sample.outcome is Outcome.OK
        ]


def _both_sides(user: int, sample: Sample, body: bytes) -> AnsweredStream:
    assert sample.sent_ns is not None  # noqa: S101 - it was answered
    arrived_ns, told_ns = read_true_times(body)
    return AnsweredStream(
        user=user,
        sent_ns=sample.sent_ns,
        arrived_ns=arrived_ns,
        event_ns=sample.event_ns,
        told_ns=array("q", told_ns),
    )


async def measure(load: CheckLoad, transport: FastTransport, *, urls: Sequence[str]) -> Recording:
    """Put the load on the servers; what is not answered long after it should be is cut, and counts as failed."""
    users = [_User(n, load, url=urls[n % len(urls)], transport=transport) for n in range(load.users)]
    health = LoopHealth(transport)
    cpu: list[tuple[int, int]] = []
    async with health.watching(), anyio.create_task_group() as meter:
        meter.start_soon(_read_cpu, cpu)
        with anyio.move_on_after(_patience_s(load)):
            async with anyio.create_task_group() as group:
                for user in users:
                    group.start_soon(user.run, load.begins_ns(user.number) / NS_PER_S)
        meter.cancel_scope.cancel()
    answers = [answer for user in users for answer in user.answers()]
    failed = load.users * load.answers - len(answers)
    return Recording(load=load, answers=answers, failed=failed, cpu=cpu, read_delay=health.close().read_delay)


def _patience_s(load: CheckLoad) -> float:
    return 1 + 1.5 * (load.ramp_ns + load.answers * load.answer_ns) / NS_PER_S


async def _read_cpu(readings: list[tuple[int, int]]) -> None:
    while True:
        readings.append((time.perf_counter_ns(), time.process_time_ns()))
        await anyio.sleep(_CPU_EVERY_S)


async def requests_per_s(transport: FastTransport, *, urls: Sequence[str], for_ns: int) -> float:
    """Answers of one event a second, over 16 connections on each of which one follows upon the other."""
    load = CheckLoad(users=_CONNECTIONS, pace=Pace(ttft_ns=0, events=1))
    users = [_User(n, load, url=urls[n % len(urls)], transport=transport) for n in range(load.users)]
    await _ask_until(users, time.perf_counter_ns())  # once: connects
    before, begin_ns = _answered(users), time.perf_counter_ns()
    await _ask_until(users, begin_ns + for_ns)
    return (_answered(users) - before) * NS_PER_S / (time.perf_counter_ns() - begin_ns)


async def _ask_until(users: Sequence[_User], end_ns: int) -> None:
    async def keep_asking(user: _User) -> None:
        await user.ask()
        while time.perf_counter_ns() < end_ns:
            await user.ask()

    async with anyio.create_task_group() as group:
        for user in users:
            group.start_soon(keep_asking, user)


def _answered(users: Iterable[_User]) -> int:
    return sum(sample.outcome is Outcome.OK for user in users for sample, _ in user.kept)


# The self-check.


def selfcheck(
    *, users: int, gap_ns: int, ttft_ns: int, budget_ns: int, tell: Callable[[str], None] = lambda _: None
) -> SelfCheck:
    """Check the client at the load of so many users, then look for its ceiling; `tell` is told how it goes.

    Takes about `budget_ns`, with a budget that is too short for one load as long as that takes. Raises `BadInput` where
    the limit on open files forbids so many users, `LoadbenchError` where the truth server does not start.
    """
    ensure_descriptors(max(users, _most_users()))
    with ExitStack() as stack:
        urls = [stack.enter_context(TruthProcess()).url for _ in range(_servers())]
        return anyio.run(_Check(urls, budget_ns=budget_ns, tell=tell).run, users, ttft_ns, gap_ns)


def _most_users() -> int:
    """What the hard limit on open files lets us climb to."""
    limit = descriptor_limit()
    return _MOST_USERS if limit is None or limit[1] < 0 else max(1, min(_MOST_USERS, (limit[1] - 64) * 4 // 5))


def _servers() -> int:
    """One core is the client's."""
    return max(1, min(_MOST_SERVERS, (os.cpu_count() or 2) - 1))


class _Check:
    """One self-check, run once."""

    def __init__(self, urls: Sequence[str], *, budget_ns: int, tell: Callable[[str], None]) -> None:
        self._urls = urls
        self._budget_ns = budget_ns
        self._tell = tell
        self._ends_ns = time.perf_counter_ns() + budget_ns
        self._transport = FastTransport()
        self._steps: list[LoadCheck] = []

    async def run(self, users: int, ttft_ns: int, gap_ns: int) -> SelfCheck:
        """The given load, short requests, then the climb for as long as there is time."""
        load = self._load(users, ttft_ns, gap_ns)
        try:
            await requests_per_s(self._transport, urls=self._urls, for_ns=0)  # the first of all pays for all
            given = await self._given(replace(load, answers=max(2, self._budget_ns // 5 // load.answer_ns)))
            requests = await requests_per_s(self._transport, urls=self._urls, for_ns=self._budget_ns // 15)
            self._tell(f"{requests:,.0f} short requests/s")
            ceiling, limit = await self._climb(given, load)
        finally:
            await self._transport.aclose()
        source = self._transport.stamp_source
        return SelfCheck(
            stamp_source=source,
            stamp_error_s=given.stamp_error_s,
            ttft_error_s=given.ttft_error_s,
            gap_error_s=given.gap_error_s,
            events_per_s_ceiling=ceiling,
            requests_per_s_ceiling=requests or None,
            advice=advise(given, ceiling=ceiling, limit=limit, requests_per_s=requests, stamp_source=source),
            given=given,
            ceiling_limit=limit,
            steps=self._steps,
        )

    def _load(self, users: int, ttft_ns: int, gap_ns: int) -> CheckLoad:
        """Answers of the usual length, or as many events as a step has time for; short ones are repeated."""
        step_ns = min(_STEP_NS, self._budget_ns // 10)
        events = max(2, min(_EVENTS, (step_ns - ttft_ns) // gap_ns))
        load = CheckLoad(users=users, pace=Pace(ttft_ns=ttft_ns, gap_ns=gap_ns, events=events))
        return replace(load, answers=max(1, step_ns // load.answer_ns))

    async def _given(self, load: CheckLoad) -> LoadCheck:
        checked = await self._check(load)
        return checked if checked.limit is None else await self._check(load)

    async def _check(self, load: CheckLoad) -> LoadCheck:
        checked = check(await measure(load, self._transport, urls=self._urls))
        self._steps.append(checked)
        late = "" if checked.limit is None else f", the {checked.limit} did not keep up"
        self._tell(f"{load.users} users, {checked.events_per_s:,.0f} events/s{late}")
        return checked

    async def _climb(self, given: LoadCheck, load: CheckLoad) -> tuple[float | None, Ends]:
        """(the highest rate that held, what forbade more)."""
        held, lost = (given.users, None) if given.limit is None else (None, given.users)
        ceiling, limit = (None, given.limit) if given.limit else (given.events_per_s, None)
        most = max(_most_users(), given.users)
        while (users := next_users(held, lost, most=most)) is not None:
            step = await self._try(replace(load, users=users))
            if step is None:
                return ceiling, limit or "budget"
            if step.limit is None:
                held, ceiling = users, step.events_per_s
            else:
                lost, limit = users, step.limit
        return ceiling, limit or "users"

    async def _try(self, load: CheckLoad) -> LoadCheck | None:
        """A load, and once more if it was not held; `None` when there is no time for it."""
        checked = None
        for _ in range(2):
            if time.perf_counter_ns() + load.ramp_ns + load.answers * load.answer_ns > self._ends_ns:
                break
            checked = await self._check(load)
            if checked.limit is None:
                break
        return checked


# What to do about it.


def advise(
    given: LoadCheck, *, ceiling: float | None, limit: str, requests_per_s: float, stamp_source: str
) -> list[str]:
    """The findings in words, the gravest first."""
    return [*_on_given(given), *_on_ceiling(given, ceiling, limit, requests_per_s), *_on_source(stamp_source)]


def _on_given(given: LoadCheck) -> list[str]:
    at = f"{given.users} users with an event every {given.gap_s * 1000:g} ms"
    if given.server_was_late:
        late = "no answer came" if given.server_late_s is None else f"p99 {given.server_late_s.p99 * 1000:.1f} ms late"
        return [f"inconclusive: the truth server was itself not on time ({late}); end what else runs here, try again"]
    if given.stamps_hold and given.limit is None:
        return [f"at {at} this client can be trusted: what looks slow is the server"]
    found = [f"at {at} this client is too slow: measure with fewer users, or end what else runs here"]
    if not given.stamps_hold:
        found.append("more than one stamp in a hundred is wrong by over 1 ms: times at this load are the client's own")
    if (given.merged_reads or 0) > MOST_MERGED:
        found.append(f"{given.merged_reads:.1%} of the reads brought several events: their gaps cannot be told apart")
    if given.failed:
        found.append(f"{given.failed} answers failed or were cut")
    return found


def _on_ceiling(given: LoadCheck, ceiling: float | None, limit: str, requests_per_s: float) -> list[str]:
    if ceiling is None:
        return ["no load was held, down to the least that was tried"]
    streams = round(ceiling * given.gap_s)
    ends = {
        "client": "above that the client itself would be measured",
        "server": "above that the truth server was not on time: the client's own ceiling may be higher",
        "budget": "there was no time to try more: a longer --budget finds the ceiling",
        "users": "more users than that were not tried: a shorter --gap finds the ceiling",
    }
    rates = f"trust it up to {ceiling:,.0f} events/s, as of {streams:,} streams at this gap"
    return [f"{rates}, and {requests_per_s:,.0f} short requests/s; {ends[limit]}"]


def _on_source(stamp_source: str) -> list[str]:
    if stamp_source == "kernel":
        return []
    return ["stamps are taken as this process reads (user): whatever its event loop had to do first is in them"]
