"""Users who give up, in virtual time: who leaves, when, and what becomes of the load."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import anyio
import pytest

from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.engine.abort import AbortWatch
from loadbench.engine.level import LevelSpec, level_plan
from loadbench.plan.abandonment import Abandonment, Patience
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.distribution import Constant
from loadbench.plan.load import Closed, LevelDuration, Open, Shard
from loadbench.plan.objective import parse_abort
from loadbench.plan.setting_types import ABANDON
from loadbench.plan.sim_profile import PROFILES
from loadbench.plan.sources import resolve
from loadbench.record.outcome import Outcome
from loadbench.sim.transport import SimTransport
from tests.building import a_failure, a_sample, verdict_of
from tests.engine.scripted import MS, Act, S, run_scripted
from tests.engine.sharded import run_shards

CONSTANT = parse_arrivals("constant")
# Ten tokens: the first after 500 ms, the last after 1400 ms.
SLOW = Act(first_ns=500 * MS, gap_ns=100 * MS, tokens=10)


def giving_up(written: str) -> dict[str, object]:
    """The settings of a level with these users."""
    return {"abandon": ABANDON.read(written), "abandon_key": "k"}


def test_a_user_leaves_when_patience_ends_and_sends_the_next_request_after_thinking():
    """Each request is ended 1050 ms after it was due, with what had arrived; the next one is due after the pause."""
    think = Constant(200 * MS)
    ran = run_scripted(Closed(1, think), SLOW, plan=giving_up("100%@1050ms"), duration_ns=5 * S)
    assert [sample.due_ns for sample in ran.samples] == [0, 1250 * MS, 2500 * MS, 3750 * MS]
    for sample in ran.samples:
        assert sample.outcome is Outcome.GAVE_UP
        assert sample.end_ns == sample.due_ns + 1050 * MS
        assert len(sample.event_ns) == sample.output_tokens == 6  # at 500 … 1000 ms
        assert sample.detail == "no complete response within 1.05s"
    assert ran.recording.outcomes == {Outcome.GAVE_UP: 4}


def test_the_outcome_is_neither_a_success_nor_a_failure():
    """It has no latencies and no entry among the failures; its tokens were delivered, and count as throughput."""
    ran = run_scripted(Closed(1), SLOW, plan=giving_up("100%@1050ms"), duration_ns=5 * S, drain_ns=5 * S)
    recording = ran.recording
    assert not Outcome.GAVE_UP.failed
    assert recording.details == {}
    assert recording.histograms["ttft"].count == recording.histograms["e2e"].count == 0
    assert recording.production.answers == 0
    assert recording.output_tokens == 0  # of complete responses
    assert recording.production.output_tokens == 28  # 6 of each of 4, and those of the fifth at 4.7, … 5.0 s
    assert recording.gave_up.received == 30
    assert recording.in_flight_mean == 1


def test_a_response_in_time_is_a_success_like_any_other():
    """Patience that is long enough changes nothing, not even by a nanosecond."""
    impatient = run_scripted(Closed(2), SLOW, plan=giving_up("100%@1401ms"), duration_ns=5 * S)
    patient = run_scripted(Closed(2), SLOW, duration_ns=5 * S)
    assert {sample.outcome for sample in impatient.samples} == {Outcome.OK}
    assert [replace(one, request=replace(one.request, patience=None)) for one in impatient.samples] == patient.samples
    assert impatient.recording.gave_up.impatient == 8
    assert impatient.recording.gave_up.gave_up == 0


@pytest.mark.parametrize(
    ("act", "written", "outcome", "end_ms"),
    [
        # For the first token only: a slow rest is no reason to leave.
        (SLOW, "100%@first:501ms", Outcome.OK, 1400),
        (SLOW, "100%@first:499ms", Outcome.GAVE_UP, 499),
        (Act(first_ns=0, gap_ns=300 * MS, tokens=4), "100%@first:1ms", Outcome.OK, 900),
        # Waiting begins when the request is due, not when a slow server accepts it.
        (Act(connect_ns=400 * MS, first_ns=200 * MS), "100%@500ms", Outcome.GAVE_UP, 500),
        (Act(connect_ns=400 * MS, first_ns=200 * MS), "100%@first:500ms", Outcome.GAVE_UP, 500),
        (Act(connect_ns=400 * MS, first_ns=200 * MS), "100%@first:300ms", Outcome.GAVE_UP, 300),
        (Act(connect_ns=400 * MS, first_ns=200 * MS), "100%@first:700ms", Outcome.OK, 600),
        # What a server says before that is an outcome of its own.
        (Act(status=503, first_ns=100 * MS), "100%@500ms", Outcome.HTTP_ERROR, 100),
        (Act(tokens=3, breaks=Outcome.RESET), "100%@500ms", Outcome.RESET, 100),
        (Act(tokens=3, gap_ns=100 * MS, stalls_after=2), "100%@first:150ms", Outcome.TIMEOUT_IDLE, 3200),
        (Act(tokens=3, gap_ns=100 * MS, stalls_after=2), "100%@2s", Outcome.GAVE_UP, 2000),
    ],
)
def test_patience_is_for_the_whole_response_or_for_the_first_token(act, written, outcome, end_ms):
    """It ends a request to the nanosecond, or not at all."""
    timeouts = Timeouts(connect_ns=5 * S, first_token_ns=5 * S, idle_ns=3 * S, total_ns=60 * S)
    ran = run_scripted(
        Open(1, CONSTANT), act, plan=giving_up(written), timeouts=timeouts, duration_ns=900 * MS, drain_ns=60 * S
    )
    (sample,) = ran.samples
    assert (sample.outcome, sample.end_ns) == (outcome, end_ms * MS)
    if outcome is Outcome.GAVE_UP:
        assert ran.recording.gave_up.before_first_token == (sample.first_token_ns is None)


@pytest.mark.parametrize("limits", [{"first_token_ns": 300 * MS}, {"total_ns": 300 * MS}, {"idle_ns": 50 * MS}])
@pytest.mark.parametrize("written", ["100%@800ms", "100%@first:400ms"])
def test_a_time_limit_that_ends_earlier_is_a_failure(limits, written):
    """A server that is too slow for the limits is to blame, though the user would have left a little later."""
    ran = run_scripted(
        Open(1, CONSTANT), SLOW, plan=giving_up(written), timeouts=Timeouts(**limits), duration_ns=900 * MS
    )
    (sample,) = ran.samples
    by_limit = written != "100%@first:400ms" or "idle_ns" not in limits
    assert sample.outcome.failed is by_limit
    assert sample.outcome is not Outcome.OK


def test_the_drain_cuts_users_who_still_wait():
    """What had not ended by then is abandoned, as without patience."""
    ran = run_scripted(Closed(1), Act(first_ns=9 * S), plan=giving_up("100%@5s"), duration_ns=S, drain_ns=2 * S)
    assert [(sample.outcome, sample.end_ns) for sample in ran.samples] == [(Outcome.ABANDONED, 3 * S)]


def simulated(shards: list[Shard], load, written: str, *, seed: int = 0, **flags: str):
    """A level in parts against the simulated server: the samples by number, and the recorder's recording."""

    async def main():
        clock = VirtualClock()
        profile = PROFILES["slot-server"].exact()
        given = {"abandon": written, "duration": "20s", "warm_up": "1s", "ramp": "0s", "seed": str(seed), **flags}
        if isinstance(load, Open) or load.users == 1:
            del given["ramp"]
        given["users" if isinstance(load, Closed) else "rate"] = str(getattr(load, "users", None) or load.rate_per_s)
        scenario = resolve(flags=given, environment={}, command="sweep")
        async with SimTransport(profile, clock=clock).serving() as transport:
            client = Client(
                Endpoint(base_url="http://s/v1", model=profile.model), transport, clock=clock, timeouts=Timeouts()
            )
            spec = LevelSpec(load=load, key="m/0")
            samples, _, _ = await run_shards(scenario, spec, shards, client=client, clock=clock)
            counts = transport.service.engine.counts
            return sorted(samples, key=lambda sample: sample.number), counts

    return run_virtual(main)


@pytest.mark.parametrize("load", [Closed(6), Open(6.0, parse_arrivals("poisson"))], ids=["closed", "open"])
@pytest.mark.parametrize("written", ["40%@350ms", "40%@first:17ms"])
def test_the_same_users_leave_with_any_number_of_workers(load, written):
    """Workers draw by level and number. In an open loop, where nobody waits for a turn, the ends are the same, too."""

    def told(shards: list[Shard]) -> dict[int, tuple]:
        samples, _ = simulated(shards, load, written)
        assert {one.outcome for one in samples} == {Outcome.OK, Outcome.GAVE_UP}
        ends = [(one.outcome, one.end_ns) if isinstance(load, Open) else () for one in samples]
        return {one.number: (one.request.patience, end) for one, end in zip(samples, ends, strict=True)}

    alone = told([Shard()])
    for workers in (2, 3):
        together = told([Shard(index, workers) for index in range(workers)])
        both = alone.keys() & together.keys()
        assert len(both) > 0.9 * len(alone)
        assert {number: together[number] for number in both} == {number: alone[number] for number in both}


def test_another_seed_has_other_users_and_a_faster_server_the_same():
    """Who is impatient depends on the seed, and not on how long anything takes."""

    def impatient(**over) -> dict[int, bool]:
        samples, _ = simulated([Shard()], Open(4.0, CONSTANT), "30%@400ms", **over)
        return {one.number: one.request.patience is not None for one in samples}

    usual, short, reseeded = impatient(), impatient(max_tokens="3"), impatient(seed=7)
    assert usual == short
    assert usual != reseeded
    assert 0.15 < sum(usual.values()) / len(usual) < 0.45


def test_the_simulated_server_stops_when_a_user_leaves():
    """Slots are free at the next step: what it generated is what was received, and at most a token more for each."""
    samples, counts = simulated([Shard()], Closed(4), "50%@300ms")
    left = [one for one in samples if one.outcome is Outcome.GAVE_UP]
    assert counts.cancelled == len(left) > 10
    received = sum(one.output_tokens or 0 for one in samples)
    assert received <= counts.output_tokens <= received + len(left)


def test_a_conversation_ends_with_the_turn_that_was_given_up():
    """The user begins another one."""
    samples, _ = simulated([Shard()], Closed(1), "50%@300ms", turns="3", input_tokens="20", think="100ms")
    turns = [(one.request.turn, one.outcome) for one in samples]
    assert {turn for turn, _ in turns} == {1, 2, 3}
    for (turn, outcome), (following, _) in pairwise(turns):
        assert following == (turn % 3 + 1 if outcome is Outcome.OK else 1)


def test_every_arrival_counts_though_some_left_before_they_were_connected():
    """In an open loop the rate is reached: a user who leaves has arrived."""
    act = Act(connect_ns=2 * S)
    ran = run_scripted(Open(10, CONSTANT), act, plan=giving_up("100%@1s"), duration_ns=10 * S)
    assert ran.recording.outcomes == {Outcome.GAVE_UP: 100}
    assert ran.recording.arrivals_sent == ran.recording.arrivals_due == 100
    assert {sample.sent_ns for sample in ran.samples} == {None}
    verdict = verdict_of(ran.recording, Open(10, CONSTANT), failure_limit=0.01)
    assert {reason.code for reason in verdict.reasons} == {"no_answers"}


def test_a_user_who_has_the_whole_text_does_not_leave():
    """The last token has come, only the formal end is late: nobody walks out on that."""
    patience = Patience(150 * MS)
    finish = b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n'

    class LateEnd:
        async def exchange(self, _request, sink) -> None:
            clock = self.clock
            sink.connected(clock.now_ns(), reused=False, connect_ns=0)
            sink.sent(clock.now_ns())
            await clock.sleep_until(100 * MS, anyio.Event())
            sink.headers(clock.now_ns(), 200, [(b"content-type", b"text/event-stream")])
            sink.data(clock.now_ns(), finish)
            await clock.sleep_until(self.ends_ns, anyio.Event())
            sink.data(clock.now_ns(), b'data: {"choices":[],"usage":{"completion_tokens":1}}\n\ndata: [DONE]\n\n')

    def outcome(ends_ns: int, timeouts: Timeouts) -> tuple[Outcome, int]:
        async def main():
            transport = LateEnd()
            transport.clock, transport.ends_ns = VirtualClock(), ends_ns
            client = Client(
                Endpoint(base_url="http://s/v1", model="m"), transport, clock=transport.clock, timeouts=timeouts
            )
            request = replace(a_sample().request, due_ns=0, patience=patience)
            sample = await client.send(request, b"{}")
            return sample.outcome, transport.clock.now_ns()

        return run_virtual(main)

    assert outcome(400 * MS, Timeouts()) == (Outcome.OK, 400 * MS)
    # The limits of the request still hold.
    assert outcome(9 * S, Timeouts(total_ns=2 * S))[1] == 2 * S
    assert outcome(9 * S, Timeouts(idle_ns=S))[1] == 1150 * MS


def test_abort_rules_leave_them_out():
    """They are no failures, and no successes that would hide some."""
    watch = AbortWatch([parse_abort("failures>50%")])
    for number in range(40):
        watch.add(a_failure(Outcome.GAVE_UP, number=number))
    assert watch.check() == ""
    for number in range(19):
        watch.add(a_failure(Outcome.RESET, number=number))
    assert watch.check() == ""
    watch.add(a_failure(Outcome.RESET, number=19))
    assert "20 of the 20 requests" in watch.check()


def test_a_level_plan_has_no_such_users_where_none_are_wanted():
    """The throughput curve of a search is about whole responses."""
    scenario = resolve(flags={"abandon": "50%@1s", "users": "1"}, environment={}, command="sweep")
    duration = LevelDuration(duration_ns=S)
    assert level_plan(scenario, LevelSpec(load=Closed(1), key="k", duration=duration)).abandon == Abandonment(
        0.5, Constant(S)
    )
    assert level_plan(scenario, LevelSpec(load=Closed(1), key="k", duration=duration, patient=True)).abandon is None


def test_progress_counts_them_apart():
    """The running level has them under a name of their own."""
    seen = Counter()

    async def during(level) -> None:
        await anyio.sleep(4.5)
        seen.update(done=level.done, failed=level.failed, gave_up=level.gave_up)

    run_scripted(Closed(1), SLOW, plan=giving_up("100%@1s"), duration_ns=5 * S, during=during)
    assert seen == {"done": 4, "failed": 0, "gave_up": 4}
