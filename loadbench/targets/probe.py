"""Probes one model: short responses through the measuring client, its context length, and its device.

The second response shows what the first one cost in addition: a cold start. Further ones show what kept connections
cost. All requests are short and sequential.
"""

from __future__ import annotations

import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import LoadbenchError
from loadbench.record.kept_connections import ADVICE, DELAY_NS, QUICK_NS, KeptConnections
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.targets import adapt
from loadbench.targets.check_result import Check
from loadbench.targets.clients import make_client, make_transport
from loadbench.targets.error_hints import advice_for, known_error
from loadbench.targets.openai import first_response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from loadbench.client.client import Client
    from loadbench.record.sample import Sample
    from loadbench.targets.machine import Machine
    from loadbench.targets.prepare import Prepared

_PROBE = "Say in one sentence what a load test is."
_SECOND_PROBE = "Say in one sentence what a benchmark is."
_PROBE_TOKENS = 16
# No context is this long: a server that checks lengths first says what its limit is.
_TOO_MANY_TOKENS = 10_000_000
_LIMIT_WITHIN_S = 10.0
_LIMIT = re.compile(r"(?:context (?:length|window|size)|n_ctx)\D{0,20}?(\d{2,9})", re.IGNORECASE)
# A cold start is reported if the first token took this many times as long, and this much longer.
_COLD_TIMES, _COLD_NS = 3, 500_000_000
# Requests on the kept connection: so many show whether a delay is possible, all of them whether there is one; and those
# on new connections.
_KEPT_FIRST, _KEPT, _NEW = 3, 10, 3
# The server of a GPU keeps one core busy, or two that spin; a server that computes on the CPU uses all it can get. With
# one core the two look the same.
_BUSY_SHARE, _BUSY_CORES = 0.75, 2.5
# A shorter response shows nothing: CPU time is counted in hundredths of a second.
_LEAST_WALL_S = 0.3
_IDLE_GPU = 0.05
_FALLBACK = "it may have fallen back to the CPU: look for its execution provider in the server's log, and at its driver"


class ModelProbe:
    """The probe of one model."""

    def __init__(self, prepared: Prepared, *, model: str, machine: Machine) -> None:
        self._prepared = prepared
        self._model = model
        self._known = prepared.entry(model)
        self._machine = machine

    async def run(self, *, ask_limit: bool) -> list[Check]:
        """Probe, cold start, context and device; `ask_limit` if a request that is too long costs the server nothing."""
        async with self._connections() as connect:
            return await self._checks(connect, ask_limit=ask_limit)

    @asynccontextmanager
    async def _connections(self) -> AsyncIterator[Callable[[str], Client]]:
        """What makes the clients of one transport: their connections are new ones, and are closed at the end."""
        clock, prepared = MonotonicClock(), self._prepared
        transport = make_transport(prepared.scenario, prepared.target, clock)
        try:
            yield lambda model: make_client(prepared.scenario, prepared.target, transport, model=model, clock=clock)
        finally:
            await transport.aclose()

    async def _checks(self, connect: Callable[[str], Client], *, ask_limit: bool) -> list[Check]:
        name, prepared = f"response {self._model}", self._prepared
        before_all = len(prepared.adapted)
        try:
            first = await adapt.first_response(prepared, self._model, connect, _PROBE, max_tokens=_PROBE_TOKENS)
        except LoadbenchError as error:
            known = known_error(error.message)
            message = f"{known}: {error.message}" if known else error.message
            return [Check(name, "fail", message, error.hint or advice_for(error.message))]
        ttft_ns = first.since_sent(first.first_token_ns) or 0
        message, advice = f"{first.output_tokens} tokens, the first after {ttft_ns / 1e6:.0f} ms", ""
        if first.model not in {None, self._model}:
            message, advice = f"{message}; the response is from {first.model!r}", "check that this is the right model"
        elif first.token_source is not TokenSource.USAGE:
            message += f"; the server does not report usage, so tokens are counted by {first.token_source}"
            advice = "let it report usage (stream_options.include_usage), or read tokens as events"
        checks = [Check(name, "warn" if advice else "ok", message, advice)]
        changed = [adapt.describe(decision) for decision in prepared.adapted[before_all:]]
        advice = "a measurement does the same and records it; --strict-request forbids it"
        checks += [Check(f"request {self._model}", "warn", message, advice) for message in changed]

        client = connect(self._model)
        before, began_s = self._machine.read(), time.perf_counter()
        try:
            second = await first_response(client, prompt=_SECOND_PROBE, max_tokens=_PROBE_TOKENS)
        except LoadbenchError as error:
            return [*checks, Check(f"again {self._model}", "fail", error.message, error.hint)]
        wall_s, after = time.perf_counter() - began_s, self._machine.read()
        checks += self._cold_start(first, second)
        checks += await self._kept_connection(client, second)
        checks += await self._context(client, ask_limit=ask_limit)
        return checks + self._device(before, after, wall_s=wall_s)

    def _cold_start(self, first: Sample, second: Sample) -> list[Check]:
        """A warning, if there was a cold start."""
        cold_ns, warm_ns = first.since_sent(first.first_token_ns) or 0, second.since_sent(second.first_token_ns) or 0
        if cold_ns < _COLD_TIMES * warm_ns or cold_ns - warm_ns < _COLD_NS:
            return []
        message = f"first token after {cold_ns / 1e6:.0f} ms, and after {warm_ns / 1e6:.0f} ms the second time"
        advice = "a sweep warms up before it measures, but a single user sees this after every pause"
        return [Check(f"cold start {self._model}", "warn", message, advice)]

    async def _kept_connection(self, client: Client, second: Sample) -> list[Check]:
        """A warning, if first tokens on a kept connection wait for delayed acknowledgements.

        The rule is that of a measurement.
        """
        if not DELAY_NS[0] <= (second.since_sent(second.first_token_ns) or 0) <= QUICK_NS + DELAY_NS[1]:
            return []  # there is none, or it is hidden by a first token that takes longer
        kept = KeptConnections()
        for number in range(_KEPT):
            if number == _KEPT_FIRST and kept.held.count < 2:
                return []
            sample = await client.send_prompt(_PROBE, max_tokens=_PROBE_TOKENS)
            if sample.reused and sample.outcome is Outcome.OK:
                kept.add(sample)
        for _ in range(_NEW):
            async with self._connections() as connect:
                sample = await connect(self._model).send_prompt(_PROBE, max_tokens=_PROBE_TOKENS)
            if sample.outcome is Outcome.OK:
                kept.add(sample)
        new_ns = kept.new.percentile(50)
        if kept.delay_ns is None or new_ns is None:
            return []
        message = (
            f"first token after {new_ns / 1e6:.0f} ms on a new connection; on a kept one it comes "
            f"{kept.delay_ns / 1e6:.0f} ms after the head of the response, as with delayed acknowledgements"
        )
        return [Check(f"kept connection {self._model}", "warn", message, ADVICE)]

    async def _context(self, client: Client, *, ask_limit: bool) -> list[Check]:
        """The limit on prompt and response together: by the server if it says so at once, else by the catalogue."""
        name = f"context {self._model}"
        listed = None if self._known is None else self._known.context_length
        source = "the list of models" if self._prepared.service is None else "the catalogue"
        limit = None
        if ask_limit:
            # A server that starts to generate instead is cut off.
            with anyio.move_on_after(_LIMIT_WITHIN_S):
                sample = await client.send_prompt(_PROBE, max_tokens=_TOO_MANY_TOKENS)
                match = None if sample.outcome is Outcome.OK else _LIMIT.search(sample.detail)
                limit = int(match[1]) if match else None
        if limit is not None and listed is not None and limit < listed:
            advice = f"keep prompt and response within {limit:,} tokens together"
            return [Check(name, "warn", f"{limit:,} tokens, although {source} says {listed:,}", advice)]
        if limit is not None:
            return [Check(name, "ok", f"{limit:,} tokens, as the server reports")]
        return [] if listed is None else [Check(name, "ok", f"{listed:,} tokens by {source}, not tested")]

    def _device(self, before: Mapping[str, float], after: Mapping[str, float], *, wall_s: float) -> list[Check]:
        """Whether the model runs on the device of the catalogue; for a remote server only that device is known."""
        device = None if self._known is None else self._known.device
        if device is None:
            return []
        name, machine = f"device {self._model}", self._machine
        if device == "CPU" or not machine.local:
            return [Check(name, "ok", f"{device} by the catalogue")]
        spent_s = after.get("process_cpu_s_total", 0.0) - before.get("process_cpu_s_total", 0.0)
        busy = spent_s / wall_s
        uses = [
            max(before.get(key, 0.0), use)
            for key, use in after.items()
            if key.startswith("gpu") and key.endswith("_use")
        ]
        idle = bool(uses) and max(uses) < _IDLE_GPU
        if machine.cores > 1 and wall_s >= _LEAST_WALL_S and busy > min(_BUSY_CORES, _BUSY_SHARE * machine.cores):
            message = f"{device} by the catalogue, but the server kept {busy:.1f} of {machine.cores} cores busy"
            return [Check(name, "warn", message + (" and the GPU idle" if idle else ""), _FALLBACK)]
        if device == "GPU" and not machine.gpus:
            return [Check(name, "warn", "GPU by the catalogue, but no GPU was found here", _FALLBACK)]
        return [Check(name, "ok", f"{device} by the catalogue")]
