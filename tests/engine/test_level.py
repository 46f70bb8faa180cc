"""One level in virtual time: what the queues' theory says must be measured, to the nanosecond.

Nothing here takes real time, and nothing is nearly so: a moment is when it must be, or the test fails.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.distribution import Constant, Uniform
from loadbench.plan.load import Closed, Open, Phase
from loadbench.plan.prompt_source import prompt_source
from loadbench.plan.settings import WorkSettings
from loadbench.plan.sim_profile import PROFILES
from loadbench.record.outcome import Outcome
from loadbench.sim.transport import SimTransport
from tests.building import verdict_of
from tests.engine.scripted import MS, PATIENT, Act, Ran, S, fire_one, run_level, run_scripted
from tests.sim.steady_state import capacity, steady_state

CONSTANT, POISSON = parse_arrivals("constant"), parse_arrivals("poisson")
PROMPT_TOKENS = 7  # three words and the simulated chat template
ANSWER_TOKENS = 11  # ten decode steps: a request's TPOT is then a whole number of ns


def run_simulated(load, profile, *, plan=None, timeouts=PATIENT, **extent) -> Ran:
    """One level against the simulated server."""

    async def main() -> Ran:
        clock = VirtualClock()
        async with SimTransport(profile, clock=clock).serving() as transport:
            endpoint = Endpoint(base_url="http://simulated/v1", model=profile.model)
            client = Client(endpoint, transport, clock=clock, timeouts=timeouts)
            settings = {"max_tokens": ANSWER_TOKENS} | (plan or {})
            return await run_level(client, load, clock=clock, plan=settings, **extent)

    return run_virtual(main)


# Against the server whose truth is known.


@pytest.mark.parametrize("name", sorted(PROFILES))
@pytest.mark.parametrize("users", [1, 2, 4, 8, 16])
def test_level_measures_the_simulated_servers_truth_exactly(name, users):
    """Throughput, TTFT, TPOT and E2E of a closed loop are those of the formulas, to the nanosecond.

    Users who begin together go in batches of `m`, one every `T`, and come round every `users / m` batches. A window of
    whole rounds that opens after the first round holds whole batches only, so that nothing is cut by its bounds; the
    recorder's means come from exact sums; and each TPOT is a whole number of nanoseconds. So equality is exact, up to
    the floats that the formulas are written in.
    """
    profile = PROFILES[name].exact()
    batch = min(users, capacity(profile, input_tokens=PROMPT_TOKENS, output_tokens=ANSWER_TOKENS))
    in_slot_ns = batch * profile.prefill_ns(PROMPT_TOKENS) + (ANSWER_TOKENS - 1) * profile.decode_ns(batch)
    round_ns = in_slot_ns * (users // batch)
    ran = run_simulated(Closed(users), profile, warm_up_ns=round_ns, duration_ns=6 * round_ns)
    truth = steady_state(profile, users, input_tokens=PROMPT_TOKENS, output_tokens=ANSWER_TOKENS)
    recording, exactly = ran.recording, lambda value: pytest.approx(value, rel=1e-12)
    assert recording.outcomes == {Outcome.OK: 6 * users}
    assert recording.production.answers == 6 * users
    assert recording.production.answers / recording.window_s == exactly(truth.requests_per_s)
    assert recording.production.output_tokens / recording.window_s == exactly(truth.output_tokens_per_s)
    assert recording.histograms["ttft"].mean / S == exactly(truth.ttft_mean_s)
    assert recording.histograms["e2e"].mean / S == exactly(truth.e2e_mean_s)
    assert recording.histograms["tpot"].mean / S == exactly(truth.tpot_s)
    assert recording.in_flight_mean == recording.in_flight_peak == users
    assert verdict_of(recording, Closed(users), failure_limit=0).status == "VALID"


def test_minutes_of_load_take_less_time_than_they_last():
    """Ten minutes of a slow server take a small part of them, in CPU time: others may use this machine too."""
    began = time.process_time()
    ran = run_simulated(Closed(1), PROFILES["cpu-laptop"].exact(), duration_ns=600 * S)
    assert ran.end_ns >= 600 * S
    assert (time.process_time() - began) * 20 < 600


def test_same_seed_gives_the_same_samples_and_another_seed_others():
    """A noisy server, random arrivals, drawn prompts: all of it is repeated by the seed, sample by sample."""
    work = WorkSettings(input_tokens=Uniform(10, 50), output_tokens=Uniform(1, 20))

    def samples(seed: int) -> list:
        prompts = prompt_source(replace(work, seed=seed), key="level", calibration=None)
        plan = {"seed": seed, "prompts": prompts}
        return run_simulated(Open(5, POISSON), PROFILES["slot-server"], plan=plan, duration_ns=10 * S).samples

    assert samples(1) == samples(1)
    assert samples(1) != samples(2)


# The queue: so many workers, constant arrivals, constant service.


def queued(number: int, *, rate: int, workers: int, service_ns: int) -> int:
    """When the request is served to its end, in ns: it begins when it has come, and the one `workers` before is over.

    Lindley's recursion for D/D/c: over capacity each worker goes on without a pause, and it can be written down.
    """
    if workers * S <= rate * service_ns:
        return (number % workers) * S // rate + (number // workers + 1) * service_ns
    return number * S // rate + service_ns


@pytest.mark.parametrize(("rate", "workers"), [(10, 1), (10, 4), (20, 3), (5, 1), (2, 4)])
@pytest.mark.parametrize("unseen", [False, True])
def test_response_times_are_those_of_the_queue(rate, workers, unseen):
    """A1, B5, B6: over capacity, response times from `due` grow exactly as the queue does; below it they stay.

    Where the server is slow to accept, the service from `sent` stays what it is, and only the response shows the queue.
    """
    service_ns = 400 * MS
    act = Act(first_ns=service_ns)
    ran = run_scripted(Open(rate, CONSTANT), act, workers=workers, unseen=unseen, duration_ns=20 * S, drain_ns=200 * S)
    samples = ran.by_number()
    assert len(samples) == 20 * rate
    for sample in samples:
        ends_ns = queued(sample.number, rate=rate, workers=workers, service_ns=service_ns)
        assert sample.due_ns == sample.number * S // rate
        assert sample.last_token_ns == ends_ns
        assert sample.since_sent(sample.last_token_ns) == (service_ns if unseen else ends_ns - sample.due_ns)
    slowest_ns = max(sample.since_due(sample.last_token_ns) for sample in samples)
    assert ran.recording.histograms["e2e_response"].max == slowest_ns
    assert (slowest_ns > service_ns) == (rate * service_ns > workers * S)


def test_one_stall_is_felt_by_all_who_come_during_it_and_counted_once():
    """B5: a server that stands still for 10 s shows in the response of each request due meanwhile, by what was left."""
    ran = run_scripted(
        Open(10, CONSTANT),
        lambda number: Act(first_ns=10 * S if number == 100 else 10 * MS),
        workers=1,
        duration_ns=60 * S,
    )
    free_ns, expected = 0, []
    for number in range(600):
        free_ns = max(free_ns, number * S // 10) + (10 * S if number == 100 else 10 * MS)
        expected.append(free_ns - number * S // 10)
    assert [sample.since_due(sample.end_ns) for sample in ran.by_number()] == expected
    assert ran.recording.histograms["e2e_response"].count == 600
    assert ran.recording.histograms["e2e_response"].sum == sum(expected)


# Schedules.


@pytest.mark.parametrize(
    ("rate", "seconds"), [(0.2, 100), (0.3, 100), (1, 50), (3, 30), (33.3, 10), (200, 3), (500, 2)]
)
def test_constant_arrivals_are_sent_exactly_when_due(rate, seconds):
    """B1, B2: the n-th request leaves at n / rate, at whatever rate, and nothing adds up on the way."""
    ran = run_scripted(Open(rate, CONSTANT), Act(), duration_ns=seconds * S)
    due = [round(number * S / rate) for number in range(len(ran.samples))]
    assert [sample.due_ns for sample in ran.by_number()] == due
    assert [sample.sent_ns for sample in ran.by_number()] == due
    assert len(due) == ran.recording.arrivals_due == ran.recording.arrivals_sent
    assert round(len(due) * S / rate) >= seconds * S


def test_less_than_one_request_per_second_for_an_hour():
    """I2: 12 requests a minute are 720 in an hour, each exactly in its place."""
    ran = run_scripted(Open(0.2, CONSTANT), Act(), duration_ns=3600 * S)
    assert [sample.sent_ns for sample in ran.by_number()] == [5 * S * number for number in range(720)]
    assert ran.recording.production.answers == 720


def test_late_timer_shifts_nothing_that_follows():
    """B1: who wakes late sends late, and says so; the next is due, and sent, as if nothing had been."""

    class Late(VirtualClock):
        async def sleep_until(self, when_ns, stop):
            late_ns = 130 * MS if when_ns == 3 * S else 0
            return await super().sleep_until(when_ns + late_ns, stop)

    ran = run_scripted(Open(20, CONSTANT), Act(first_ns=7 * MS), clock=Late, duration_ns=5 * S)
    late = {60: 130 * MS, 61: 80 * MS, 62: 30 * MS}
    for sample in ran.by_number():
        assert sample.due_ns == sample.number * 50 * MS
        assert sample.lateness() == late.get(sample.number, 0)
    assert ran.recording.histograms["lateness"].sum == sum(late.values())
    assert ran.recording.histograms["e2e"].max == 7 * MS
    assert ran.recording.histograms["e2e_response"].max == 137 * MS


def test_arrivals_beyond_the_limit_are_missed_and_counted():
    """B3, B4: with all places taken an arrival is not made, counted as missed, and the level is invalid for it."""
    load = Open(10, CONSTANT)
    ran = run_scripted(load, Act(first_ns=S), plan={"most_in_flight": 4}, duration_ns=10 * S)
    # Four are taken in 0.3 s and answered one second after each: 4 of every 10, and the next round likewise.
    assert ran.taken == len(ran.samples) == 40
    assert (ran.recording.arrivals_due, ran.recording.missed) == (100, 60)
    assert ran.recording.in_flight_peak == 4
    reasons = verdict_of(ran.recording, load, failure_limit=1).reasons
    assert "60 of 100" in {reason.code: reason.message for reason in reasons}["missed_arrivals"]


@pytest.mark.parametrize("arrivals", ["gamma:30", "poisson"])
def test_burst_keeps_to_the_limit(arrivals):
    """Requests that become due in one and the same moment count against the limit like any others."""
    load = Open(100_000, parse_arrivals(arrivals))
    ran = run_scripted(load, Act(first_ns=S), plan={"most_in_flight": 5}, duration_ns=10 * MS)
    assert ran.recording.in_flight_peak == ran.taken == 5
    assert ran.recording.arrivals_due == ran.recording.missed + 5


def test_late_client_still_keeps_to_the_limit_and_to_the_schedule():
    """B2: what is overdue after a pause of the client leaves at once, within the limit; the rest is missed."""

    class Paused(VirtualClock):
        async def sleep_until(self, when_ns, stop):
            return await super().sleep_until(S if 0 < when_ns < S else when_ns, stop)

    ran = run_scripted(
        Open(100, CONSTANT), Act(first_ns=10 * S), clock=Paused, plan={"most_in_flight": 20}, duration_ns=3 * S
    )
    assert ran.recording.in_flight_peak == ran.taken == 20
    assert ran.recording.missed == 280


def test_what_was_due_while_the_client_slept_past_the_end_is_missed():
    """B3, B4: arrivals that the client overslept are owed: they are counted as due, and as missed."""

    class Asleep(VirtualClock):
        async def sleep_until(self, when_ns, stop):
            return await super().sleep_until(when_ns + 10 * S * (1500 * MS < when_ns < 2 * S), stop)

    ran = run_scripted(Open(100, CONSTANT), Act(), clock=Asleep, duration_ns=2 * S)
    assert ran.taken == 151
    assert (ran.recording.arrivals_due, ran.recording.missed) == (200, 49)


# The closed loop.


def test_users_ask_again_when_they_have_thought():
    """B7: each user's next request is due one think time after the end of his answer."""
    load = Closed(3, Constant(250 * MS))
    ran = run_scripted(load, Act(first_ns=100 * MS), duration_ns=7 * S)
    for user in range(3):
        mine = [sample for sample in ran.by_number() if sample.request.user == user]
        assert [sample.due_ns for sample in mine] == [350 * MS * turn for turn in range(20)]
        assert all(sample.sent_ns == sample.due_ns for sample in mine)
    assert ran.recording.in_flight_mean == pytest.approx(3 * 100 / 350, rel=1e-12)


@given(users=st.integers(1, 40), service_ms=st.integers(20, 500), workers=st.integers(1, 40))
@settings(max_examples=12, deadline=None)
def test_as_many_are_in_flight_as_there_are_users(users, service_ms, workers):
    """B10: without thinking, each user has exactly one request in flight, always: peak and mean are the users."""
    ran = run_scripted(Closed(users), Act(first_ns=service_ms * MS), workers=workers, duration_ns=S)
    assert ran.recording.in_flight_peak == ran.recording.in_flight_mean == users


def test_ramp_spreads_the_first_requests():
    """B9: the users begin one after another over the ramp, evenly, the first at once."""
    ran = run_scripted(Closed(4), Act(first_ns=50 * MS), plan={"ramp_ns": 2 * S}, warm_up_ns=2 * S, duration_ns=S)
    first = {sample.request.user: sample.due_ns for sample in reversed(ran.by_number())}
    assert first == {0: 0, 1: 500 * MS, 2: S, 3: 1500 * MS}
    assert ran.recording.in_flight_mean == 4


@pytest.mark.parametrize(("users", "requests"), [(1, 1), (1, 7), (4, 4), (4, 10), (8, 3)])
def test_number_of_requests_is_measured_exactly(users, requests):
    """By number, exactly so many are measured, and the window closes with the first user who is left without work."""
    ran = run_scripted(Closed(users), Act(), workers=2, warm_up_ns=450 * MS, requests=requests)
    measured = [sample for sample in ran.samples if sample.phase is Phase.MEASURED]
    assert len(measured) == requests == ran.recording.outcomes[Outcome.OK] == ran.recording.arrivals_due
    assert min(sample.due_ns for sample in measured) >= 450 * MS == ran.recording.window[0]
    assert ran.recording.window[1] <= max(sample.end_ns for sample in measured)
    assert not ran.recording.interrupted


def test_number_of_requests_at_a_rate_is_measured_exactly():
    """An open loop by number closes its window at the arrival after the last."""
    ran = run_scripted(Open(4, CONSTANT), Act(first_ns=S), warm_up_ns=S, requests=8)
    assert [sample.phase for sample in ran.by_number()] == [Phase.WARM_UP] * 4 + [Phase.MEASURED] * 8
    assert ran.recording.window == (S, 3 * S)


# Phases.


def test_warm_up_is_handed_over_without_draining():
    """F1, B9: an answer from the warm-up that ends in the window counts its tokens there, and not its latencies."""
    # One user; answers of 10 tokens, one each 100 ms: they end at 1, 2, 3 … s. The window is [1.55 s, 3.55 s).
    act = Act(first_ns=100 * MS, gap_ns=100 * MS, tokens=10)
    ran = run_scripted(Closed(1), act, warm_up_ns=1550 * MS, duration_ns=2 * S)
    recording = ran.recording
    assert [sample.phase for sample in ran.by_number()] == [Phase.WARM_UP] * 2 + [Phase.MEASURED] * 2
    assert [sample.sent_ns for sample in ran.by_number()] == [0, S, 2 * S, 3 * S]
    assert recording.histograms["e2e"].count == recording.outcomes[Outcome.OK] == 2
    assert recording.production.output_tokens == 20  # those at 1.6 … 3.5 s
    assert recording.production.answers == 2  # those at 2 s and 3 s
    assert recording.in_flight_mean == recording.in_flight_peak == 1


def test_cool_down_keeps_the_load():
    """The last of the window are served under the same load as the first: requests go on until the cool-down's end."""
    ran = run_scripted(Closed(2), Act(first_ns=400 * MS), warm_up_ns=S, duration_ns=2 * S, cool_down_ns=S)
    assert Counter(sample.phase for sample in ran.samples) == ran.recording.phases
    assert ran.recording.phases == {Phase.WARM_UP: 6, Phase.MEASURED: 10, Phase.COOL_DOWN: 4}
    assert max(sample.due_ns for sample in ran.samples) == 3600 * MS
    assert ran.recording.histograms["e2e"].count == 10
    assert ran.recording.window == (S, 3 * S)


def test_drain_cuts_what_is_left():
    """E6: what has not ended when the drain is over is abandoned in that moment, and counted as such."""
    act = Act(first_ns=100 * MS, gap_ns=900 * MS, tokens=20)
    ran = run_scripted(Closed(3), act, duration_ns=2 * S, drain_ns=1500 * MS)
    assert ran.recording.outcomes == {Outcome.ABANDONED: 3}
    assert [sample.end_ns for sample in ran.samples] == [3500 * MS] * 3
    assert [len(sample.event_ns) for sample in ran.samples] == [4] * 3
    assert ran.recording.production.output_tokens == 9  # those of the first 2 s
    assert ran.end_ns == 3500 * MS


def test_drain_ends_with_the_last_answer():
    """Nobody waits for the rest of a drain that has nothing left to wait for."""
    ran = run_scripted(Closed(3), Act(first_ns=700 * MS), duration_ns=S, drain_ns=3600 * S)
    assert ran.recording.outcomes == {Outcome.OK: 6}
    assert ran.end_ns == 1400 * MS


def test_no_drain_cuts_at_the_windows_end():
    """A drain of zero is none."""
    ran = run_scripted(Closed(2), Act(first_ns=700 * MS), duration_ns=S, drain_ns=0)
    assert ran.recording.outcomes == {Outcome.OK: 2, Outcome.ABANDONED: 2}
    assert ran.end_ns == S


# Stopping.


@pytest.mark.parametrize("load", [Closed(2), Open(2, CONSTANT)])
@pytest.mark.parametrize("extent", [{"duration_ns": 3600 * S}, {"requests": 10_000}])
def test_stopped_level_keeps_what_it_measured(load, extent):
    """Stopped once, the window closes in that moment, what is in flight is drained, and all of it is kept."""

    async def stop(level):
        await anyio.sleep(10.25)
        level.stop()

    ran = run_scripted(load, Act(first_ns=S), during=stop, warm_up_ns=S, **extent)
    assert ran.recording.interrupted
    assert ran.recording.window == (S, 10_250 * MS)
    assert ran.recording.outcomes == {Outcome.OK: len(ran.samples) - 2}
    assert max(sample.due_ns for sample in ran.samples) == 10 * S
    assert ran.end_ns == 11 * S


def test_second_stop_cuts():
    """Stopped twice, what is in flight ends then, cancelled: neither a success nor a failure."""

    async def stop(level):
        await anyio.sleep(10.25)
        level.stop()
        await anyio.sleep(0.25)
        level.stop()

    ran = run_scripted(Closed(3), Act(first_ns=S), during=stop, duration_ns=60 * S)
    assert ran.recording.outcomes == {Outcome.OK: 30, Outcome.CANCELLED: 3}
    assert ran.end_ns == 10_500 * MS
    assert {sample.end_ns for sample in ran.samples if sample.outcome is Outcome.CANCELLED} == {10_500 * MS}


def test_stop_in_the_warm_up_measures_nothing():
    """A window that never opened is empty, and the level says that it was interrupted."""

    async def stop(level):
        await anyio.sleep(0.5)
        level.stop()

    ran = run_scripted(Closed(1), Act(first_ns=S), during=stop, warm_up_ns=5 * S, duration_ns=5 * S)
    assert ran.recording.outcomes == {}
    assert ran.recording.window == (5 * S, 5 * S)
    assert ran.recording.production.output_tokens == 0
    assert ran.recording.interrupted


# Nothing is lost.

acts = st.builds(
    Act,
    connect_ns=st.sampled_from([0, 5 * MS, 2 * S]),
    first_ns=st.integers(MS, 400 * MS),
    gap_ns=st.integers(0, 100 * MS),
    tokens=st.integers(0, 5),
    stalls_after=st.sampled_from([None, None, None, 0, 1]),
    status=st.sampled_from([200, 200, 200, 503]),
    breaks=st.sampled_from([None, None, Outcome.RESET, Outcome.TRUNCATED, Outcome.REFUSED]),
)
loads = st.one_of(
    st.builds(Closed, st.integers(1, 6), st.sampled_from([None, Uniform(0, 100 * MS)])),
    st.builds(Open, st.integers(1, 40), st.sampled_from([CONSTANT, POISSON, parse_arrivals("gamma:3")])),
)


@given(
    script=st.lists(acts, min_size=1, max_size=8),
    load=loads,
    extent=st.sampled_from([{"duration_ns": 2 * S}, {"requests": 15}, {"duration_ns": S, "cool_down_ns": S // 2}]),
    stop_at_s=st.sampled_from([None, 0.3, 1.1]),
)
@settings(max_examples=40, deadline=None)
def test_every_request_has_one_outcome_and_is_in_the_recording(script, load, extent, stop_at_s):
    """E4, E6: whatever happens, each request that was admitted ends in one sample, in one phase, in one outcome."""

    async def stop(level):
        if stop_at_s is not None:
            await anyio.sleep(stop_at_s)
            level.stop()

    ran = run_scripted(
        load,
        lambda number: script[number % len(script)],
        workers=5,
        timeouts=Timeouts(connect_ns=S, first_token_ns=S, idle_ns=S // 2, total_ns=3 * S),
        during=stop,
        plan={"most_in_flight": 8, "ramp_ns": 100 * MS},
        warm_up_ns=300 * MS,
        drain_ns=S,
        **extent,
    )
    recording, samples = ran.recording, ran.by_number()
    measured = [sample for sample in samples if sample.phase is Phase.MEASURED]
    assert recording.phases == Counter(sample.phase for sample in samples)
    assert recording.outcomes == Counter(sample.outcome for sample in measured)
    assert recording.arrivals_due == len(measured) + recording.missed
    assert len({sample.number for sample in samples}) == len(samples) == ran.taken
    assert recording.histograms["e2e"].count + recording.undefined.get("e2e", 0) == recording.outcomes.get("ok", 0)
    assert ran.end_ns >= max((sample.end_ns for sample in samples), default=0)
    assert recording.in_flight_peak <= (load.users if isinstance(load, Closed) else 8)


# One request's deadlines.

LIMITS = Timeouts(connect_ns=5 * S, first_token_ns=60 * S, idle_ns=30 * S, total_ns=600 * S)


@pytest.mark.parametrize(
    ("act", "outcome", "end_ns", "detail"),
    [
        (Act(connect_ns=5 * S + 1), Outcome.TIMEOUT_CONNECT, 5 * S, "no connection within 5s"),
        (Act(connect_ns=4 * S, first_ns=60 * S + 1), Outcome.TIMEOUT_FIRST_TOKEN, 64 * S, "no token within 1m"),
        (Act(first_ns=S, gap_ns=30 * S + 1, tokens=2), Outcome.TIMEOUT_IDLE, 31 * S, "nothing more came within 30s"),
        (Act(first_ns=S, gap_ns=S, tokens=9, stalls_after=3), Outcome.TIMEOUT_IDLE, 33 * S, "nothing more came"),
        (Act(first_ns=0, gap_ns=29 * S, tokens=99), Outcome.TIMEOUT_TOTAL, 600 * S, "not finished within 10m"),
    ],
)
def test_each_timeout_is_its_own_outcome_at_its_own_moment(act, outcome, end_ns, detail):
    """C10, C11: to be connected, to the first token, from read to read, and on the whole: each ends as what it is."""
    sample = fire_one(act, timeouts=LIMITS)
    assert (sample.outcome, sample.end_ns) == (outcome, end_ns)
    assert sample.detail.startswith(detail)


@pytest.mark.parametrize(
    "act", [Act(connect_ns=5 * S - 1, first_ns=60 * S - 1), Act(first_ns=S, gap_ns=30 * S - 1, tokens=15)]
)
def test_what_comes_a_nanosecond_before_its_deadline_comes_in_time(act):
    """A deadline does not ring early."""
    assert fire_one(act, timeouts=LIMITS).outcome is Outcome.OK


def test_partial_answer_of_a_timeout_is_kept():
    """C10: tokens that came before the time was up are in the sample."""
    sample = fire_one(Act(first_ns=S, gap_ns=S, tokens=9, stalls_after=3), timeouts=LIMITS)
    assert list(sample.event_ns) == [S, 2 * S, 3 * S]
    assert (sample.first_token_ns, sample.last_token_ns) == (S, 3 * S)


def test_token_at_time_zero_is_a_token():
    """A5: a first token at 0 ns is the first token, and a TTFT of 0 is a figure, not a gap."""
    sample = fire_one(Act(first_ns=0, gap_ns=S, tokens=3))
    assert (sample.first_token_ns, sample.first_visible_ns, list(sample.event_ns)) == (0, 0, [0, S, 2 * S])
    assert (sample.since_sent(sample.first_token_ns), sample.tpot()) == (0, S)
    ran = run_scripted(Closed(1), Act(first_ns=0, gap_ns=S, tokens=3), duration_ns=2 * S)
    ttft = ran.recording.histograms["ttft"]
    assert (ttft.count, ttft.max, ran.recording.undefined.get("ttft")) == (1, 0, None)


def test_sums_close():
    """A2: from the first token to the last is the sum of the gaps, of every request."""
    profile = PROFILES["slot-server"]
    for sample in run_simulated(Open(20, POISSON), profile, duration_ns=3 * S).samples:
        assert sample.last_token_ns - sample.first_token_ns == sum(sample.event_gaps())


def test_client_fault_is_raised_and_not_recorded():
    """An exception that is nobody's outcome is a fault of ours and ends the level loudly."""

    def act(number):
        raise ZeroDivisionError

    with pytest.raises(BaseExceptionGroup) as caught:
        run_scripted(Closed(1), act, duration_ns=S)
    assert caught.group_contains(ZeroDivisionError)


def test_user_who_is_refused_at_once_asks_ten_times_a_second():
    """A server that fails in no time is asked at a bearable pace; one that fails slowly is asked again at once."""
    quick = run_scripted(Closed(1), Act(breaks=Outcome.REFUSED, first_ns=0), duration_ns=2 * S)
    assert quick.recording.outcomes[Outcome.REFUSED] == 20
    slow = run_scripted(Closed(1), Act(breaks=Outcome.RESET, first_ns=250 * MS), duration_ns=2 * S)
    assert slow.recording.outcomes[Outcome.RESET] == 8
