"""A model on trial: two first answers by the client that measures, the context it takes, and on what it computes.

The second answer tells what the first one cost beside itself: a cold start. All are short, and one after another.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import anyio

from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import LoadbenchError
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.targets.check_result import Check
from loadbench.targets.clients import make_client, make_transport
from loadbench.targets.error_hints import advice_for, known_error
from loadbench.targets.openai import first_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.client.client import Client
    from loadbench.plan.scenario import Scenario
    from loadbench.record.sample import Sample
    from loadbench.results.models import Model
    from loadbench.targets.machine import Machine
    from loadbench.targets.openai import Target

_PROBE = "Say in one sentence what a load test is."
_AGAIN = "Say in one sentence what a benchmark is."
_PROBE_TOKENS = 16
# No context is so long: a server that checks lengths beforehand says what it has.
_TOO_MANY_TOKENS = 10_000_000
_SAYS_WITHIN_S = 10.0
_LIMIT = re.compile(r"(?:context (?:length|window|size)|n_ctx)\D{0,20}?(\d{2,9})", re.IGNORECASE)
# A cold start is worth a word where the first answer took both so many times and so much longer.
_COLD_TIMES, _COLD_NS = 3, 500_000_000
# Linux delays an acknowledgement by 40 ms, Windows and macOS by up to 200 and 100 (RFC 1122 allows 500); a new
# connection is spared that at first.
_QUICK_NS, _ACK_NS = 20_000_000, (30_000_000, 220_000_000)
# A GPU's server keeps one core busy, or two that spin; one that computes on the CPU takes what it gets. Of one core
# nothing can be told: both keep it busy.
_BUSY_SHARE, _BUSY_CORES = 0.75, 2.5
# A shorter answer does not tell: CPU time is counted in hundredths of a second.
_LEAST_WALL_S = 0.3
_IDLE_GPU = 0.05


class ModelProbe:
    """The trial of one model; `known` is what the catalogue says of it."""

    def __init__(
        self, scenario: Scenario, target: Target, *, model: str, known: Model | None, machine: Machine
    ) -> None:
        self._scenario = scenario
        self._target = target
        self._model = model
        self._known = known
        self._machine = machine

    async def run(self, *, asks_limit: bool) -> list[Check]:
        """Probe, cold start, context, device; `asks_limit` where a request that is too long costs nothing."""
        clock = MonotonicClock()
        transport = make_transport(self._scenario, self._target, clock)
        client = make_client(self._scenario, self._target, transport, model=self._model, clock=clock)
        try:
            return await self._checks(client, asks_limit=asks_limit)
        finally:
            await transport.aclose()

    async def _checks(self, client: Client, *, asks_limit: bool) -> list[Check]:
        name = f"probe {self._model}"
        try:
            first = await first_response(client, prompt=_PROBE, max_tokens=_PROBE_TOKENS)
        except LoadbenchError as error:
            known = known_error(error.message)
            message = f"{known}: {error.message}" if known else error.message
            return [Check(name, "fail", message, error.hint or advice_for(error.message))]
        checks = [judge(name, first, self._model)]
        before, began_s = self._machine.read(), time.perf_counter()
        try:
            second = await first_response(client, prompt=_AGAIN, max_tokens=_PROBE_TOKENS)
        except LoadbenchError as error:
            return [*checks, Check(f"again {self._model}", "fail", error.message, error.hint)]
        wall_s, after = time.perf_counter() - began_s, self._machine.read()
        checks += self._cold(first, second) + await self._held_up(client, first, second)
        checks += await self._context(client, asks=asks_limit)
        return checks + self._device(before, after, wall_s=wall_s)

    def _cold(self, first: Sample, second: Sample) -> list[Check]:
        """Only said where it is so."""
        cold_ns, warm_ns = first.since_sent(first.first_token_ns) or 0, second.since_sent(second.first_token_ns) or 0
        if cold_ns < _COLD_TIMES * warm_ns or cold_ns - warm_ns < _COLD_NS:
            return []
        return [
            Check(
                f"cold start {self._model}",
                "warn",
                f"the first token came after {cold_ns / 1e6:.0f} ms, the second time after {warm_ns / 1e6:.0f} ms",
                "a sweep warms up before it measures; whoever is alone with it will meet this after each pause",
            )
        ]

    async def _held_up(self, client: Client, first: Sample, second: Sample) -> list[Check]:
        """Only said where a kept connection is slower than a new one by what a delayed acknowledgement takes, twice."""
        if not acknowledgement_delayed(first, second):
            return []
        third = await client.send_prompt(_PROBE, max_tokens=_PROBE_TOKENS)
        if not acknowledgement_delayed(first, third):
            return []
        new_ns, kept_ns = first.since_sent(first.first_token_ns) or 0, third.since_sent(third.first_token_ns) or 0
        return [
            Check(
                f"kept connection {self._model}",
                "warn",
                f"first token after {new_ns / 1e6:.0f} ms on a new connection, {kept_ns / 1e6:.0f} ms on a kept one",
                "a delayed acknowledgement takes as long: does the server hold small writes back (no TCP_NODELAY)?",
            )
        ]

    async def _context(self, client: Client, *, asks: bool) -> list[Check]:
        """How long prompt and answer may be together: by the server where it says so at once, else by the catalogue."""
        name = f"context {self._model}"
        told = None if self._known is None else self._known.context_length
        limit = await self._limit(client) if asks else None
        if limit is not None and told is not None and limit < told:
            advice = f"keep prompt and answer within {limit:,} tokens together"
            return [Check(name, "warn", f"{limit:,} tokens, though the catalogue says {told:,}", advice)]
        if limit is not None:
            return [Check(name, "ok", f"{limit:,} tokens, as the server says")]
        return [] if told is None else [Check(name, "ok", f"{told:,} tokens by the catalogue, not tried")]

    async def _limit(self, client: Client) -> int | None:
        """What it says when asked for more than any model can; one that sets about it instead is cut off."""
        with anyio.move_on_after(_SAYS_WITHIN_S):
            sample = await client.send_prompt(_PROBE, max_tokens=_TOO_MANY_TOKENS)
            found = None if sample.outcome is Outcome.OK else _LIMIT.search(sample.detail)
            return int(found[1]) if found else None
        return None

    def _device(self, before: Mapping[str, float], after: Mapping[str, float], *, wall_s: float) -> list[Check]:
        """Whether it computes where its catalogue says; of a server elsewhere only that is known."""
        device = None if self._known is None else self._known.device
        if device is None:
            return []
        name, machine = f"device {self._model}", self._machine
        if device == "CPU" or not machine.local:
            return [Check(name, "ok", f"{device} by the catalogue")]
        spent_s = after.get("process_cpu_s_total", 0.0) - before.get("process_cpu_s_total", 0.0)
        busy = spent_s / wall_s
        idle = any(key.startswith("gpu") and key.endswith("_use") for key in after) and all(
            max(before.get(key, 0.0), use) < _IDLE_GPU
            for key, use in after.items()
            if key.startswith("gpu") and key.endswith("_use")
        )
        if machine.cores > 1 and wall_s >= _LEAST_WALL_S and busy > min(_BUSY_CORES, _BUSY_SHARE * machine.cores):
            seen = f"{device} by the catalogue, yet the server kept {busy:.1f} of {machine.cores} cores busy"
            return [Check(name, "warn", seen + (" and the GPU idle" if idle else ""), _FALLBACK)]
        if device == "GPU" and not machine.gpus:
            return [Check(name, "warn", "GPU by the catalogue, and no GPU is seen here", _FALLBACK)]
        return [Check(name, "ok", f"{device} by the catalogue")]


def acknowledgement_delayed(new: Sample, kept: Sample) -> bool:
    """Whether the answer on a kept connection came later by as much as an acknowledgement may be delayed."""
    new_ns, kept_ns = new.since_sent(new.first_token_ns), kept.since_sent(kept.first_token_ns)
    if new_ns is None or kept_ns is None or not kept.reused:
        return False
    return new_ns < _QUICK_NS and _ACK_NS[0] <= kept_ns - new_ns <= _ACK_NS[1]


_FALLBACK = "it may have fallen back to the CPU: see the server's log for its execution provider, and its driver"


def judge(name: str, sample: Sample, model: str) -> Check:
    """What a first answer says of the server beside that it answers."""
    ttft_ns = sample.since_sent(sample.first_token_ns) or 0
    message = f"{sample.output_tokens} tokens, the first after {ttft_ns / 1e6:.0f} ms"
    if sample.model not in {None, model}:
        return Check(name, "warn", f"{message}; answered as {sample.model!r}", "is that the model you meant?")
    if sample.token_source is not TokenSource.USAGE:
        return Check(
            name,
            "warn",
            f"{message}; the server does not report usage, tokens are counted by {sample.token_source}",
            "let it report usage (stream_options.include_usage), or read tokens as events",
        )
    return Check(name, "ok", message)
