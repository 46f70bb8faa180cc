"""B: making the load. Each test has the figure that the wrong way gives beside ours; all of it in virtual time."""

from __future__ import annotations

import math
import random
import statistics
from itertools import accumulate, islice, pairwise

import pytest

from loadbench.core.virtual import VirtualClock
from loadbench.engine.level import LevelSpec, level_plan
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.distribution import Constant
from loadbench.plan.load import Closed, Open, Phase, Shard
from loadbench.plan.scenario import Scenario
from loadbench.record.histogram import Histogram
from loadbench.report.formats import render
from tests.building import a_level, a_run, verdict_of
from tests.engine.scripted import MS, Act, S, run_scripted

CONSTANT, POISSON = parse_arrivals("constant"), parse_arrivals("poisson")


class Sluggish(VirtualClock):
    """Every sleep lasts this much longer than asked for, as timers do."""

    over_ns = 400_000

    async def sleep_until(self, when_ns, stop):
        """Wait, and oversleep; what is gone by comes at once."""
        if when_ns <= self.now_ns():
            return not stop.is_set()
        return await super().sleep_until(when_ns + self.over_ns, stop)


def codes(ran, load) -> set[str]:
    """The reasons of the level's verdict."""
    return {reason.code for reason in verdict_of(ran.recording, load, failure_limit=1).reasons}


def test_b1_late_timers_do_not_slow_the_schedule():
    """Asked for 200 a second with timers that are 0.4 ms late, 200 a second are sent: lateness does not add up.

    Seen to fail when the next arrival is taken from the moment at which the last one was sent: 185 a second.
    """
    ran = run_scripted(Open(200, CONSTANT), Act(), clock=Sluggish, duration_ns=5 * S)
    relative, at_ns = 0, 0
    while at_ns < 5 * S:
        at_ns, relative = at_ns + 5 * MS + Sluggish.over_ns, relative + 1
    assert [sample.due_ns for sample in ran.by_number()] == [number * 5 * MS for number in range(1000)]
    assert max(sample.sent_ns - sample.due_ns for sample in ran.samples) == Sluggish.over_ns
    assert ran.recording.arrivals_sent / ran.recording.arrivals_due >= 0.99 > relative / 1000


def test_b2_a_stalled_server_is_followed_by_no_burst():
    """While a server stands still for 5 s, requests go on leaving every 100 ms; none is held back to leave with others.

    Seen to fail when at most four may be out and the rest wait: as the stall ends, dozens leave within one moment.
    """
    ran = run_scripted(
        Open(10, CONSTANT), lambda n: Act(first_ns=5 * S if n == 20 else 50 * MS), workers=1, duration_ns=20 * S
    )
    sent = [sample.sent_ns for sample in ran.by_number()]
    assert {later - earlier for earlier, later in pairwise(sent)} == {100 * MS}
    held, ends = [], []
    for number in range(200):
        held.append(max(number * 100 * MS, ends[number - 4] if number > 3 else 0))
        begins_ns = max(held[-1], ends[-1] if ends else 0)
        ends.append(begins_ns + (5 * S if number == 20 else 50 * MS))
    assert min(later - earlier for earlier, later in pairwise(held)) < 100 * MS


def test_b3_arrivals_without_room_are_counted():
    """Beyond the most in flight, arrivals are missed: each is counted, as due, and the level is invalid.

    Seen to fail when only what was started is counted: then all that was offered has been sent.
    """
    load = Open(50, CONSTANT)
    ran = run_scripted(load, Act(first_ns=S), plan={"most_in_flight": 10}, duration_ns=10 * S)
    recording = ran.recording
    assert recording.arrivals_due == 500
    assert recording.missed == 500 - len(ran.samples)
    assert recording.missed == 400
    assert "missed_arrivals" in codes(ran, load)
    assert recording.arrivals_sent / recording.arrivals_due == 0.2


def test_b4_a_rate_that_was_not_reached_is_told():
    """The level says what was offered, what was achieved, and why it cannot be believed, in the report itself.

    Seen to fail when the rate that was asked for is printed as the load, and nothing else.
    """
    load = Open(50, CONSTANT)
    ran = run_scripted(load, Act(first_ns=S), plan={"most_in_flight": 10}, duration_ns=10 * S)
    level = a_level(recording=ran.recording, load=load)
    assert (level.offered_per_s, level.achieved_per_s) == (50, 10)
    assert level.verdict.status == "INVALID"
    told = render(a_run(level), "text")
    assert "400 of 500 arrivals were not sent" in told
    assert "--max-in-flight" in told


def test_b4_a_schedule_that_was_kept_late_is_told():
    """All arrivals were sent, but a client that is 20 ms late each time has made another load, and says so."""

    class Slow(Sluggish):
        over_ns = 20 * MS

    load = Open(20, CONSTANT)
    ran = run_scripted(load, Act(tokens=5, gap_ns=20 * MS), clock=Slow, duration_ns=10 * S)
    assert ran.recording.missed == 0
    assert "late_start" in codes(ran, load)


def test_b5_a_stall_is_counted_once():
    """A server stands still for 10 s; the 100 requests that come meanwhile wait 5 s on average, and so it is told.

    Seen to fail when the correction for coordinated omission is applied to what already counts from when it was due.
    """
    ran = run_scripted(
        Open(10, CONSTANT), lambda n: Act(first_ns=10 * S if n == 100 else MS), workers=1, duration_ns=60 * S
    )
    responses = [sample.since_due(sample.last_token_ns) for sample in ran.by_number()]
    free_ns, expected = 0, []
    for number in range(600):
        free_ns = max(free_ns, number * 100 * MS) + (10 * S if number == 100 else MS)
        expected.append(free_ns - number * 100 * MS)
    assert responses == expected
    histogram = ran.recording.histograms["e2e_response"]
    assert histogram.sum == sum(expected)
    twice = Histogram()
    for response in responses:
        twice.record_corrected(response, 100 * MS)
    assert twice.mean > 3 * histogram.mean


def test_b6_what_waits_for_a_worker_is_seen_by_default():
    """Ten a second on two workers of 0.4 s: the queue grows, and the response times with it, without being asked for.

    Seen to fail when latency counts from when a worker took the request up: 0.4 s, whatever the queue.
    """
    load = Open(10, CONSTANT)
    ran = run_scripted(load, Act(first_ns=400 * MS), workers=2, unseen=True, duration_ns=10 * S, drain_ns=60 * S)
    metrics = a_level(recording=ran.recording, load=load).metrics
    assert metrics["e2e_s"].max == 0.4
    # The last of 100 is the 50th of its worker, who began at 0.1 s; it came at 9.9 s.
    assert metrics["e2e_response_s"].max == pytest.approx(0.1 + 50 * 0.4 - 9.9)


def test_b7_think_time_and_mean_in_flight_are_told():
    """Four users who think for 3 s after an answer of 1 s are one request in flight on average: the result has both.

    Seen to fail when users are taken for concurrency: four, and a load that is four times as high.
    """
    load = Closed(4, Constant(3 * S, written="3s"))
    ran = run_scripted(load, Act(first_ns=S), warm_up_ns=4 * S, duration_ns=40 * S)
    level = a_level(recording=ran.recording, load=load)
    assert (level.load.users, level.load.think, level.model) == (4, "3s", "m")
    assert level.concurrency.mean == pytest.approx(1.0)
    told = render(a_run(level), "text")
    assert "users=4" in told
    assert "in flight" in told


def test_b8_arrivals_keep_their_variance():
    """Poisson arrivals in 10 s at 20 a second vary from seed to seed as a Poisson number does: variance near its mean.

    Seen to fail when the schedule is stretched so that the last of 200 arrivals comes at 10 s: no variance at all.
    """
    numbers, stretched = [], []
    for seed in range(400):
        offsets = list(islice(POISSON.offsets_ns(20, random.Random(seed)), 300))
        numbers.append(sum(offset < 10 * S for offset in offsets))
        scale = 10 * S / offsets[199]
        stretched.append(sum(round(offset * scale) < 10 * S for offset in offsets[:200]))
    # The variance of 400 Poisson numbers is within a fifth of their mean with a probability above 99 %.
    assert 0.8 < statistics.variance(numbers) / 200 < 1.25
    assert abs(statistics.mean(numbers) - 200) < 4 * math.sqrt(200 / 400)
    assert statistics.variance(stretched) < 1


def test_b8_gaps_are_exponential_and_cv_is_of_the_gaps():
    """Kolmogorov-Smirnov at 1 % for Poisson gaps; `gamma:2` has gaps whose CV is 2, and not whose shape is 2.

    Seen to fail when 2 is taken for the shape ("burstiness"): the CV is then 0.71, and arrivals are too even.
    """
    offsets = list(islice(POISSON.offsets_ns(20, random.Random(1)), 5000))
    gaps = sorted((later - earlier) * 20 / S for earlier, later in pairwise([0, *offsets]))
    far = max(abs((rank + 0.5) / 5000 - (1 - math.exp(-gap))) for rank, gap in enumerate(gaps))
    assert far * math.sqrt(5000) < 1.63
    bursty = [b - a for a, b in pairwise(islice(parse_arrivals("gamma:2").offsets_ns(20, random.Random(2)), 20_000))]
    assert 1.85 < statistics.stdev(bursty) / statistics.mean(bursty) < 2.15
    shape = [random.Random(3).gammavariate(2, 0.5)] + [random.gammavariate(2, 0.5) for _ in range(5000)]
    assert statistics.stdev(shape) / statistics.mean(shape) < 0.8


def test_b9_warm_up_is_the_same_load_and_its_burst_is_outside():
    """From the first request on no more are out than users; who began together in the warm-up is not in the figures.

    Seen to fail when there is no warm-up: the first of three who share a worker waits a third of what is usual.
    """
    load = Closed(3)
    ran = run_scripted(load, Act(first_ns=100 * MS), workers=1, warm_up_ns=S, duration_ns=3 * S)
    changes = sorted((at, change) for one in ran.samples for at, change in ((one.sent_ns, 1), (one.end_ns, -1)))
    assert max(accumulate(change for _, change in changes)) == 3
    measured = [one for one in ran.samples if one.phase is Phase.MEASURED]
    assert min(one.due_ns for one in measured) >= ran.begin_ns + S
    assert ran.recording.histograms["ttft"].min == 300 * MS
    assert min(one.since_sent(one.first_token_ns) for one in ran.samples) == 100 * MS


def test_b10_the_peak_is_counted_from_events():
    """Forty users are forty in flight, never more.

    Seen to fail when a request counts in every second that it touches: 80 "in flight" of 40 users.
    """
    load = Closed(40)
    ran = run_scripted(load, lambda n: Act(first_ns=(700 + 7 * (n % 40)) * MS), warm_up_ns=2 * S, duration_ns=10 * S)
    assert ran.recording.in_flight_peak == 40
    buckets: dict[int, int] = {}
    for one in ran.samples:
        for second in range(one.sent_ns // S, one.end_ns // S + 1):
            buckets[second] = buckets.get(second, 0) + 1
    assert max(buckets.values()) > 60
    assert "above_users" not in codes(ran, load)


def test_b11_workers_ask_nothing_twice():
    """Four workers of one load, eight users, fifty turns: 400 prompts, all different, as one process would ask.

    Seen to fail when every worker draws from the same seed by its own count: three prompts of four are repeats.
    """
    scenario, load, workers = Scenario(), Closed(8), 4
    asked, repeated = [], []
    for index in range(workers):
        shard = Shard(index, workers)
        prompts = level_plan(scenario, LevelSpec(load=load, key="m/0"), shard).prompts
        numbers = [turn * load.users + user for turn in range(50) for user in range(load.users) if shard.holds(user)]
        asked += [prompts.next(number, None).text for number in numbers]
        repeated += [prompts.next(number, None).text for number in range(len(numbers))]
    assert len(asked) == len(set(asked)) == 400
    assert len(set(repeated)) == 100
    whole = level_plan(scenario, LevelSpec(load=load, key="m/0")).prompts
    assert set(asked) == {whole.next(number, None).text for number in range(400)}
