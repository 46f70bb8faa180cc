"""Is it the server or the tool? This machine's own client, measured against a server that says when it sent what.

Client and transport are those of every measurement. A wrapper around the transport keeps the bytes of the responses, in
which the truth server (`loadbench.sim.truth`) wrote its own stamps; `loadbench.engine.stamp_errors` compares the two.

The check runs the requested load first, then more and more users until the client no longer keeps up: the last load
that it kept up with is its ceiling. A load counts as failed when it has failed twice, for any machine is disturbed now
and then.
"""

from __future__ import annotations

import math
import os
import sys
import time
from array import array
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import anyio
import msgspec

from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.client.descriptors import descriptor_limit, ensure_descriptors
from loadbench.client.fast_transport import FastTransport
from loadbench.core import event_loop
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
    from collections.abc import Callable, Sequence

    from loadbench.client.transport import HttpRequest, Sink, Transport
    from loadbench.record.sample import Sample

SCHEMA: Final = "loadbench.selfcheck/1"
# A response as in a usual measurement, and the longest step of the climb.
_EVENTS = 64
_STEP_NS = 1_500_000_000
# The climb ends when the next load is closer than this to one that is known.
_FINE = 1.1
# More streams than a Python client keeps up with, fewer than the usual limits on open files; select on Windows takes
# 512.
_MOST_USERS = 480 if sys.platform == "win32" else 4096
# One truth server paces some 50,000 events a second; more servers than cores disturb each other.
_MOST_SERVERS = 4
_CONNECTIONS = 16
_CPU_EVERY_S = 0.02

Ends = Literal["client", "server", "budget", "users"]


class SelfCheck(msgspec.Struct, frozen=True, kw_only=True):
    """The result, as `selfcheck --json` prints it."""

    schema: Literal["loadbench.selfcheck/1"] = SCHEMA
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
    """The number of users to try next: double or halve, then between the two; `None` when they are close enough."""
    if lost is None:
        users = min(most, (held or 1) * 2)
        return None if users == held else users
    if held is None:
        return lost // 2 or None
    users = round(math.sqrt(held * lost))
    return users if held * _FINE < lost and held < users < lost else None


# A load against the truth server.


class _KeepingTransport:
    """A transport that keeps the bytes of the responses that go through it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._chunks: list[bytes] = []

    async def exchange(self, exchange: HttpRequest, sink: Sink) -> None:
        await self._transport.exchange(exchange, _KeepingSink(sink, self._chunks))

    async def aclose(self) -> None:
        await self._transport.aclose()

    def take(self) -> bytes:
        """The bytes since the last call."""
        body = b"".join(self._chunks)
        self._chunks.clear()
        return body


class _KeepingSink:
    """A sink that passes everything on, and keeps the bytes."""

    def __init__(self, sink: Sink, chunks: list[bytes]) -> None:
        self.reconnecting = sink.reconnecting
        self.connected = sink.connected
        self.sent = sink.sent
        self.headers = sink.headers
        self._data = sink.data
        self._keep = chunks.append

    def data(self, at_ns: int, chunk: bytes) -> None:
        """The stamp has been taken; the client goes first."""
        self._data(at_ns, chunk)
        self._keep(chunk)


class _User:
    """Sends requests to one of the servers, one after another; `kept` are its samples with the responses' bytes."""

    def __init__(self, number: int, load: CheckLoad, *, url: str, transport: Transport) -> None:
        self.number = number
        self.kept: list[tuple[Sample, bytes]] = []
        self._load = load
        self._transport = _KeepingTransport(transport)
        endpoint = Endpoint(base_url=f"{url}/v1", model="truth")
        self._client = Client(endpoint, self._transport, clock=MonotonicClock(), timeouts=Timeouts(total_ns=None))

    async def run(self, begins_s: float) -> None:
        """Start then, and read as many responses as the load says."""
        await anyio.sleep(begins_s)
        for _ in range(self._load.responses):
            await self.send()

    async def send(self) -> None:
        """Send one request and read its response."""
        pace = self._load.pace
        sample = await self._client.send_prompt(pace.prompt, max_tokens=pace.events)
        self.kept.append((sample, self._transport.take()))

    def streams(self) -> list[AnsweredStream]:
        """Each complete response, as the client and as the server saw it."""
        streams = []
        for sample, body in self.kept:
            if sample.outcome is Outcome.OK:
                assert sample.sent_ns is not None  # noqa: S101 - it was answered
                arrived_ns, server_ns = read_true_times(body)
                streams.append(
                    AnsweredStream(
                        user=self.number,
                        sent_ns=sample.sent_ns,
                        arrived_ns=arrived_ns,
                        event_ns=sample.event_ns,
                        server_ns=array("q", server_ns),
                    )
                )
        return streams


async def measure(load: CheckLoad, transport: FastTransport, *, urls: Sequence[str]) -> Recording:
    """Put the load on the servers. What has no response long after it should have is cut, and counts as failed."""
    users = [_User(n, load, url=urls[n % len(urls)], transport=transport) for n in range(load.users)]
    health = LoopHealth(transport)
    cpu: list[tuple[int, int]] = []

    async def read_cpu() -> None:
        while True:
            cpu.append((time.perf_counter_ns(), time.process_time_ns()))
            await anyio.sleep(_CPU_EVERY_S)

    async with health.watching(), anyio.create_task_group() as meter:
        meter.start_soon(read_cpu)
        with anyio.move_on_after(1 + 1.5 * (load.ramp_ns + load.responses * load.response_ns) / NS_PER_S):
            async with anyio.create_task_group() as group:
                for user in users:
                    group.start_soon(user.run, load.begins_ns(user.number) / NS_PER_S)
        meter.cancel_scope.cancel()
    streams = [stream for user in users for stream in user.streams()]
    failed = load.users * load.responses - len(streams)
    return Recording(load=load, streams=streams, failed=failed, cpu=cpu, read_delay=health.close().read_delay)


async def requests_per_s(transport: FastTransport, *, urls: Sequence[str], for_ns: int) -> float:
    """Responses of one event a second, over 16 connections on each of which one request follows another."""
    load = CheckLoad(users=_CONNECTIONS, pace=Pace(ttft_ns=0, events=1))
    users = [_User(n, load, url=urls[n % len(urls)], transport=transport) for n in range(load.users)]

    async def send_until(end_ns: int) -> int:
        """Keep every user busy until then, for one request at least; the responses so far."""

        async def keep_sending(user: _User) -> None:
            await user.send()
            while time.perf_counter_ns() < end_ns:
                await user.send()

        async with anyio.create_task_group() as group:
            for user in users:
                group.start_soon(keep_sending, user)
        return sum(sample.outcome is Outcome.OK for user in users for sample, _ in user.kept)

    before = await send_until(0)  # connects
    begin_ns = time.perf_counter_ns()
    responses = await send_until(begin_ns + for_ns) - before
    return responses * NS_PER_S / (time.perf_counter_ns() - begin_ns)


# The self-check.


def selfcheck(
    *, users: int, gap_ns: int, ttft_ns: int, budget_ns: int, say: Callable[[str], None] = lambda _: None
) -> SelfCheck:
    """Check the client with this many users, then search for its ceiling; `say` reports progress.

    Takes about `budget_ns`, but at least as long as one load takes. Raises `BadInput` if the limit on open files
    does not allow as many users, `LoadbenchError` if the truth server does not start.
    """
    ensure_descriptors(max(users, _most_users()))
    servers = max(1, min(_MOST_SERVERS, (os.cpu_count() or 2) - 1))  # one core is the client's
    with ExitStack() as stack:
        urls = [stack.enter_context(TruthProcess()).url for _ in range(servers)]
        return event_loop.run(_Check(urls, budget_ns=budget_ns, say=say).run, users, ttft_ns, gap_ns)


def _most_users() -> int:
    """How far the climb may go by the hard limit on open files."""
    limit = descriptor_limit()
    return _MOST_USERS if limit is None or limit[1] < 0 else max(1, min(_MOST_USERS, (limit[1] - 64) * 4 // 5))


class _Check:
    """One self-check, run once."""

    def __init__(self, urls: Sequence[str], *, budget_ns: int, say: Callable[[str], None]) -> None:
        self._urls = urls
        self._budget_ns = budget_ns
        self._say = say
        self._ends_ns = time.perf_counter_ns() + budget_ns
        self._transport = FastTransport()
        self._steps: list[LoadCheck] = []

    async def run(self, users: int, ttft_ns: int, gap_ns: int) -> SelfCheck:
        """The requested load, short requests, then the climb for as long as there is time."""
        # Responses of the usual length, or as many events as a step has time for; short ones are repeated.
        step_ns = min(_STEP_NS, self._budget_ns // 10)
        events = max(2, min(_EVENTS, (step_ns - ttft_ns) // gap_ns))
        load = CheckLoad(users=users, pace=Pace(ttft_ns=ttft_ns, gap_ns=gap_ns, events=events))
        load = replace(load, responses=max(1, step_ns // load.response_ns))
        requested = replace(load, responses=max(2, self._budget_ns // 5 // load.response_ns))
        try:
            await requests_per_s(self._transport, urls=self._urls, for_ns=0)  # the very first requests are slower
            given = await self._check(requested)
            if given.limit is not None:
                given = await self._check(requested)
            requests = await requests_per_s(self._transport, urls=self._urls, for_ns=self._budget_ns // 15)
            self._say(f"{requests:,.0f} short requests/s")
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

    async def _check(self, load: CheckLoad) -> LoadCheck:
        checked = check(await measure(load, self._transport, urls=self._urls))
        self._steps.append(checked)
        late = "" if checked.limit is None else f", the {checked.limit} did not keep up"
        self._say(f"users={load.users}: {checked.events_per_s:,.0f} events/s{late}")
        return checked

    async def _climb(self, given: LoadCheck, load: CheckLoad) -> tuple[float | None, Ends]:
        """(the highest rate that the client kept up with, what limited it)."""
        held, lost = (given.users, None) if given.limit is None else (None, given.users)
        ceiling, limit = (None, given.limit) if given.limit else (given.events_per_s, None)
        most = max(_most_users(), given.users)
        while (users := next_users(held, lost, most=most)) is not None:
            step, tried = replace(load, users=users), None
            for _ in range(2):
                if time.perf_counter_ns() + step.ramp_ns + step.responses * step.response_ns > self._ends_ns:
                    break
                tried = await self._check(step)
                if tried.limit is None:
                    break
            if tried is None:
                return ceiling, limit or "budget"
            if tried.limit is None:
                held, ceiling = users, tried.events_per_s
            else:
                lost, limit = users, tried.limit
        return ceiling, limit or "users"


def advise(
    given: LoadCheck, *, ceiling: float | None, limit: str, requests_per_s: float, stamp_source: str
) -> list[str]:
    """The findings in words, the gravest first."""
    at = f"users={given.users} with a chunk every {given.gap_s * 1000:g} ms"
    advice = []
    if given.server_was_late:
        late = "no response" if given.server_late_s is None else f"p99 {given.server_late_s.p99 * 1000:.1f} ms late"
        advice.append(f"inconclusive: the test server itself was late ({late}); end other programs and try again")
    elif given.stamps_hold and given.limit is None:
        advice.append(f"at {at} the load generator can be trusted: what looks slow is the server")
    else:
        advice.append(f"at {at} the load generator is too slow: measure with fewer users, or end other programs")
        if not given.stamps_hold:
            advice.append("more than 1 % of the timestamps are wrong by over 1 ms: they measure the load generator")
        if (given.merged_reads or 0) > MOST_MERGED:
            advice.append(f"{given.merged_reads:.1%} of the reads had several chunks: their gaps are unknown")
        if given.failed:
            advice.append(f"{given.failed} requests failed or were cut")

    if ceiling is None:
        advice.append("the load generator kept up with no load, down to the lightest that was tried")
    else:
        beyond = {
            "client": "above that the load generator itself would be measured",
            "server": "above that the test server was late: the load generator's own limit may be higher",
            "budget": "there was no time to try more: a longer --budget finds the limit",
            "users": "more users than that were not tried: a shorter --gap finds the limit",
        }
        streams = round(ceiling * given.gap_s)
        advice.append(
            f"trust it up to {ceiling:,.0f} chunks/s, which is {streams:,} streams at this gap, "
            f"and {requests_per_s:,.0f} short requests/s; {beyond[limit]}"
        )
    if stamp_source != "kernel":
        advice.append("timestamps are taken when this process reads (user), and include the delay of its event loop")
    return advice
