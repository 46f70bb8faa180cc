"""Any faults, in any order and any company, over connections that earlier faults have used: the books balance.

The fault table says how each request must end; the machine asks, and checks that it did. One event loop, one server and
one transport live through all steps of an example, so that what one fault leaves behind meets the next.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from loadbench.analyze.level.summary import summarize
from loadbench.engine.level import Level, LevelPlan
from loadbench.plan.arrivals import Arrivals, Spacing
from loadbench.plan.load import Closed, LevelDuration, Open
from loadbench.plan.prompts import Prompt
from loadbench.record.outcome import Outcome
from tests.engine.no_health import NoHealth
from tests.faults.connection_faults import DISRUPTIVE
from tests.faults.server import FAULTS, FaultServer
from tests.pitfalls.playing import CLOCK, KINDS, S, Timeouts, ask, client_of, transport_of

# Long enough for an answer on a busy machine; few faults are waited out.
_LIMITS = Timeouts(connect_ns=10 * S, first_token_ns=2 * S, idle_ns=2 * S, total_ns=20 * S)
_SPEED = 100
_HANG_S = 60
_ALL = tuple(FAULTS)
_LIVELY = tuple(
    name
    for name, fault in FAULTS.items()
    if not fault.outcomes & {Outcome.TIMEOUT_IDLE, Outcome.TIMEOUT_FIRST_TOKEN} and name not in DISRUPTIVE
)
# Three in four are not about waiting: the machine is to see many, not to wait.
_NAMES = st.one_of(*[st.sampled_from(_LIVELY)] * 3, st.sampled_from(sorted(set(_ALL) - DISRUPTIVE)))
# What a restart of the server may do to whoever meets it: a break, or no connection.
_DISRUPTED = {Outcome.TRUNCATED, Outcome.RESET, Outcome.REFUSED}


class Scripted:
    """`loadbench.plan.prompts.PromptSource` that asks for these faults by the request's number, over and over.

    More may be given than are asked for: a request is made before it is due, and may never be.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.given: dict[int, str] = {}  # by the number of the request

    def next(self, number: int, user: int | None) -> Prompt:
        """The number's fault."""
        self.given[number] = self._names[number % len(self._names)]
        return Prompt(f"{number}: fault:{self.given[number]}", output_tokens=1 + number % 5)

    def calibration_prompts(self) -> list[Prompt]:
        """None is needed."""
        return []

    def calibrate(self, tokens: object) -> None:
        """Nothing to find out."""


class Faults(RuleBasedStateMachine):
    """Asks one at a time, many at once, and as levels of either load."""

    @initialize(kind=st.sampled_from(KINDS), order=st.permutations(_LIVELY))
    def start(self, kind: str, order: list[str]) -> None:
        """A server and a client, and each fault once, in any order."""
        self.runner = asyncio.Runner()
        self.server = FaultServer(speed=_SPEED)
        self.asked = Counter()
        self.runner.run(self._start(kind))
        self.run_level(order, Open(300.0, Arrivals(Spacing.CONSTANT)))  # numbered as they come: each of them once

    async def _start(self, kind: str) -> None:
        await self.server.__aenter__()
        self.transport = transport_of(kind)
        self.client = client_of(self.server, self.transport, timeouts=_LIMITS)

    def run(self, main):
        """To its end; a hang is a failure."""
        return self.runner.run(asyncio.wait_for(main, _HANG_S))

    def check(self, name: str, sample) -> None:
        """It ended as the table says, its marks are in order, and sums close."""
        self.asked[name] += 1
        assert sample.outcome in FAULTS[name].outcomes, (name, sample.outcome, sample.detail)
        assert sample.detail or sample.outcome is Outcome.OK
        marks = (sample.due_ns, sample.sent_ns, sample.first_byte_ns, sample.first_token_ns, sample.last_token_ns)
        told = [mark for mark in (*marks, sample.end_ns) if mark is not None]
        assert told == sorted(told)
        assert sum(sample.event_gaps()) == (sample.last_token_ns or 0) - (sample.first_token_ns or 0)
        assert sample.event_tokens is None or sum(sample.event_tokens) == sample.output_tokens

    @rule(name=_NAMES, tokens=st.integers(1, 6))
    def ask_one(self, name: str, tokens: int) -> None:
        """One request alone."""
        self.check(name, self.run(ask(self.client, f"fault:{name}", max_tokens=tokens)))

    @rule(names=st.lists(_NAMES, min_size=2, max_size=8))
    def ask_many(self, names: list[str]) -> None:
        """Some at once."""

        async def main():
            return await asyncio.gather(*(ask(self.client, f"fault:{name}") for name in names))

        for name, sample in zip(names, self.run(main()), strict=True):
            self.check(name, sample)

    @rule(
        names=st.lists(_NAMES, min_size=1, max_size=12),
        load=st.sampled_from([Closed(1), Closed(3), Closed(8), Open(200.0, Arrivals(Spacing.POISSON))]),
    )
    def ask_by_level(self, names: list[str], load) -> None:
        """A short level of these."""
        self.run_level(names, load)

    def run_level(self, names: list[str], load) -> None:
        """Every request has one sample, it ended as it should, and what failed is in no figure of a success."""
        samples = []
        extent = LevelDuration(requests=len(names), drain_ns=20 * S)
        prompts = Scripted(names)
        plan = LevelPlan(load=load, duration=extent, prompts=prompts, max_tokens=4)
        level = Level(plan, client=self.client, clock=CLOCK, health=NoHealth(), on_sample=samples.append)
        recording = self.run(level.run())
        assert len({sample.number for sample in samples}) == len(samples) == len(names)
        for sample in samples:
            self.check(prompts.given[sample.number], sample)
        outcomes = Counter(sample.outcome for sample in samples)
        assert recording.outcomes == outcomes
        answered = outcomes[Outcome.OK]
        assert recording.histograms["ttft"].count == recording.histograms["e2e"].count == answered
        assert recording.output_tokens == sum(s.output_tokens or 0 for s in samples if s.outcome is Outcome.OK)
        assert sum(recording.details.values()) == len(names) - answered
        summary = summarize(recording, target="t", model="m", load=load, failure_limit=0.01)
        assert sum(summary.outcomes.values()) == len(names)
        assert answered or summary.verdict.status == "INVALID"

    @rule(names=st.lists(st.sampled_from(_LIVELY), min_size=1, max_size=4))
    def cut_all(self, names: list[str]) -> None:
        """What is cut ends at once as it was cut, or had ended as the table says."""

        async def main():
            fired = [asyncio.create_task(ask(self.client, f"fault:{name}")) for name in names]
            await asyncio.sleep(0.002)
            self.client.cut(Outcome.ABANDONED)
            return await asyncio.gather(*fired)

        for name, sample in zip(names, self.run(main()), strict=True):
            assert sample.outcome in FAULTS[name].outcomes | {Outcome.ABANDONED}

    @rule(names=st.lists(st.sampled_from(_LIVELY), max_size=4))
    def restart(self, names: list[str]) -> None:
        """The server restarts among other requests: those end as they should or break off, and later ones are well."""

        async def main():
            fired = [ask(self.client, f"fault:{name}") for name in ("restarted", *names)]
            samples = await asyncio.gather(*fired)
            while self.server._listener is None:
                await asyncio.sleep(0.002)
            return samples

        disrupted, *others = self.run(main())
        assert disrupted.outcome in FAULTS["restarted"].outcomes
        for name, sample in zip(names, others, strict=True):
            assert sample.outcome in FAULTS[name].outcomes | _DISRUPTED

    @precondition(lambda self: sum(self.asked.values()) > 0)
    @rule()
    def ask_plainly(self) -> None:
        """Whatever came before, a plain request has its plain answer."""
        sample = self.run(ask(self.client, "fault:plain", max_tokens=3))
        self.check("plain", sample)
        assert (sample.output_tokens, len(sample.event_ns)) == (3, 3)

    def teardown(self) -> None:
        """The server saw at least what was asked, committed no fault of its own, and nothing is left open."""
        if not hasattr(self, "runner"):
            return
        try:
            self.run(self._end())
            assert self.server.errors == []
            assert all(self.server.requests[name] >= count for name, count in self.asked.items())
        finally:
            self.runner.close()

    async def _end(self) -> None:
        await self.transport.aclose()
        await self.server.__aexit__(None, None, None)


Faults.TestCase.settings = settings(
    max_examples=6,
    stateful_step_count=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # A failure names its fault; to look for a smaller one would take minutes of real time.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.mark.slow
class TestFaults(Faults.TestCase):
    """Whatever faults come together: no crash, no hang, no request lost, and no failure that passes for a success."""
