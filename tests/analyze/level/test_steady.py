"""Steady state: drift is found where there is one, and steady queues are left in peace."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.level.steady import Steadiness, Unjudged, change_in, mann_kendall, mser5, series_trend
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.distribution import Exponential
from loadbench.plan.load import Closed, Open
from loadbench.plan.pattern import Patterned, parse_pattern
from tests.analyze.queues import closed, course, recorded, single
from tests.building import MS, S, a_level, a_recording, a_sample
from tests.coverage import steadiness as study
from tests.coverage.systems import batching, exponential, queue, sharing

OPEN = Open(1.0, parse_arrivals("poisson"))
WARM_S = 10.0


def judged(rng, *, rate: float, served: float, window_s: float = 60.0, constant: bool = True) -> list:
    """What is said of an open level at `rate` times the capacity of one server that serves so many a second."""
    n = round(1.3 * rate * served * (window_s + WARM_S)) + 50
    arrivals, waits, services = single(rng, rate=rate, n=n, warm=0, constant=constant)
    dues = arrivals / served - WARM_S
    early = dues < window_s
    dues, took = dues[early], ((waits + services) / served)[early]
    went = course(dues, took, dues + took, window_s=window_s)
    ends = np.histogram(dues + took, np.arange(0, window_s + 0.05, 0.1))[0]
    made = replace(level(went, arrivals=int((dues >= 0).sum())), answers_by_slice=tuple(map(float, ends)))
    return list(Steadiness(made, OPEN).reasons())


def level(went, *, arrivals: int = 0):
    """The recording of a level that went like this."""
    return replace(a_recording([]), timeline=went, arrivals_sent=arrivals, warm_up_ns=10 * S)


# The statistics.


def test_trend_of_known_series():
    """Ten values that rise: S = 45, variance 125, z = 44 / √125; fallen, the opposite; one pair alike: 44 and 124."""
    assert mann_kendall(range(10)) == pytest.approx(44 / math.sqrt(125))
    assert mann_kendall(range(10, 0, -1)) == pytest.approx(-44 / math.sqrt(125))
    assert mann_kendall([0, 0, *range(2, 10)]) == pytest.approx(43 / math.sqrt(124))
    assert mann_kendall([3.0] * 10) == 0.0


@given(st.lists(st.integers(0, 9), min_size=3, max_size=30))
def test_trend_is_of_ranks_and_has_a_direction(values):
    """Backwards it is the opposite, and no change of scale that keeps the order matters."""
    assert mann_kendall(values[::-1]) == pytest.approx(-mann_kendall(values))
    assert mann_kendall([math.exp(value) for value in values]) == pytest.approx(mann_kendall(values))


def test_trend_of_noise_is_as_rare_as_its_normal_says():
    """Of 2000 series without a trend about 5 % are beyond 1.96."""
    rng = np.random.default_rng(1)
    found = np.mean([abs(mann_kendall(rng.normal(size=20))) > 1.96 for _ in range(2000)])
    assert 0.05 - 3 * 0.0049 < found < 0.05 + 3 * 0.0049


@given(st.floats(-100, 100), st.floats(-1000, 1000), st.integers(3, 40))
def test_drift_of_a_line_is_the_line(slope, start, count):
    """Without noise the median line is the line itself, end to end."""
    found = series_trend([start + slope * position for position in range(count)])
    assert found.first == pytest.approx(start, abs=1e-6)
    assert found.rise == pytest.approx(slope * (count - 1), abs=1e-6)


def test_a_walk_is_no_rise():
    """Random walks have trends in most cases, and wander off in at most 1 %."""
    walks = np.random.default_rng(2).normal(size=(2000, 20, 30)).reshape(2000, 600).cumsum(axis=1)
    found = [series_trend(walk.reshape(20, 30).mean(axis=1)) for walk in walks]
    assert np.mean([abs(one.z) > 1.96 for one in found]) > 0.5
    assert np.mean([one.exceeds_random_walk for one in found]) <= 0.01


@given(st.lists(st.floats(0, 1000), min_size=20, max_size=200))
def test_cut_leaves_the_mean_of_fives_most_certain(values):
    """The cut is the best of all possible ones, by the definition; `None` when that is the middle."""
    fives = [sum(values[begin : begin + 5]) / 5 for begin in range(0, len(values) - 4, 5)]

    def error(cut: int) -> float:
        rest = np.array(fives[cut:])
        return float(((rest - rest.mean()) ** 2).sum()) / len(rest) ** 2

    found = mser5(values)
    errors = [error(cut) for cut in range(len(fives) // 2 + 1)]
    chosen = len(fives) // 2 if found is None else found // 5
    assert errors[chosen] == pytest.approx(min(errors), abs=1e-6)


def test_cut_of_known_series():
    """A transient of 30 values is left out; a steady series is left whole; one that never settles has no cut."""
    noise = np.random.default_rng(3).normal(size=300)
    assert mser5([50.0] * 30 + [1.0] * 270) == 30
    assert mser5(noise + np.concatenate((np.linspace(50, 5, 30), np.zeros(270)))) in range(25, 60)
    assert (mser5(noise) or 0) < 60
    assert mser5([1.0] * 300) == 0
    assert mser5(np.arange(300.0, 0, -1)) is None
    assert mser5([1.0] * 19) is None


def batches(*runs: tuple[int, float]) -> np.ndarray:
    """Logarithms of batches: so many at each factor of the usual value, in turn 1 % above and below."""
    levels = np.concatenate([np.full(count, math.log(factor)) for count, factor in runs])
    return levels + 0.01 * (-1.0) ** np.arange(len(levels))


@pytest.mark.parametrize(("runs", "changed"), [([(4, 2), (16, 1)], True), ([(3, 2), (17, 1)], False)])
def test_a_head_has_four_batches(runs, changed):
    """All of them above all later ones; three are too few."""
    assert (change_in(batches(*runs), steps=3) is not None) is changed


def test_a_step_counts_by_its_score():
    """Of 20 batches, the last six are above all others: 3.46, as the sums of ranks have it. With two of a pair in the
    other order it is 3.38, which is by chance once in a thousand."""
    logs = batches((14, 1), (6, 1.5))
    assert change_in(logs, steps=3) == pytest.approx((0, math.log(1.5)), abs=0.02)
    # The lowest of the six falls below the highest of the others, and no further.
    logs[0], logs[15] = 0.02, 0.015
    assert np.sign(logs[None, 14:] - logs[:14, None]).sum() == 82
    assert change_in(logs, steps=3) is None


# Levels.


def test_rate_above_capacity_is_found():
    """Constant service, Poisson arrivals, 130 % of the capacity for 60 s: found, and so said, in 95 % of levels."""
    found = [judged(np.random.default_rng(seed), rate=1.3, served=10) for seed in range(100)]
    assert sum(bool(reasons) for reasons in found) >= 95
    reason = found[0][0]
    assert reason.code == "not_steady"
    assert reason.message.startswith("the offered rate is above capacity: requests in flight grew from ")
    assert "TTFT from" in reason.message
    assert reason.advice == "reduce the rate"


def test_short_level_far_above_capacity_is_found():
    """Constant service, 10 s, 100 responses: even completions show what is lost in the walk of the arrivals."""
    found = [judged(np.random.default_rng(seed), rate=1.5, served=10, window_s=10.0) for seed in range(60)]
    assert sum(bool(reasons) for reasons in found) >= 50


@pytest.mark.parametrize("constant", [True, False])
def test_short_level_below_capacity_is_not_called_above(constant):
    """At 90 % for 10 s, at most 2 of 200."""
    found = [
        judged(np.random.default_rng(seed), rate=0.9, served=12, window_s=10.0, constant=constant)
        for seed in range(200)
    ]
    assert sum("above capacity" in reason.message for reasons in found for reason in reasons) <= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "level",
    [
        partial(queue, 120, load=0.9, servers=4, prefill=0.05),
        partial(queue, 120, load=0.95),
        partial(queue, 120, load=0.95, prefill=1.0),
        partial(sharing, 120, load=0.9),
    ],
)
def test_what_a_busy_queue_shows_is_no_change_of_the_server(level):
    """At most 1 of 40 short levels, with responses that are all first token or mostly tokens after it."""
    found = [list(Steadiness(study.recorded(level(seed=seed)), OPEN).reasons()) for seed in range(40)]
    assert sum(bool(reasons) for reasons in found) <= 1


@pytest.mark.parametrize(("users", "slots"), [(4, 8), (12, 32), (24, 32), (8, 4)])
def test_steady_batches_can_be_judged_at_the_default_length(users, slots):
    """Responses of one length, 10 s: neither unsteady nor a caveat."""
    for seed in range(5):
        recording = study.recorded(batching(users, slots=slots, seed=seed))
        assert not list(Steadiness(recording, Closed(users)).reasons())
        assert Steadiness(recording, Closed(users)).unjudged().level is None


def test_a_rate_that_changes_as_planned_is_not_judged():
    """What the server shows then follows the rate: neither a reason nor a caveat."""
    load = Open(5.0, Patterned(parse_arrivals("poisson"), parse_pattern("0s:1,120s:3")))
    recording = a_recording(drifting(lambda at: 5 * at), window_ns=120 * S)
    assert list(Steadiness(recording, OPEN).reasons())
    shown = Steadiness(recording, load)
    assert (list(shown.reasons()), shown.changes, shown.queue_growth, shown.unjudged()) == ([], [], None, Unjudged())


@pytest.mark.parametrize("longer", [None, "input_tokens", "output_tokens"])
def test_tokens_per_second_are_judged_only_if_the_lengths_of_requests_stay(longer):
    """They double within the level; where prompts or responses became longer, that need not be the server."""
    recording = study.recorded(batching(12, slots=32, seed=1))
    rises = np.linspace(1, 2, len(recording.tokens_by_slice))
    starts = recording.timeline.starts
    if longer is not None:
        factors = np.linspace(1, 2, len(starts)).tolist()
        starts = tuple(
            start._replace(**{longer: getattr(start, longer) * factor})
            for start, factor in zip(starts, factors, strict=True)
        )
    made = replace(
        recording,
        tokens_by_slice=tuple((np.asarray(recording.tokens_by_slice) * rises).tolist()),
        timeline=replace(recording.timeline, starts=starts),
    )
    changes = Steadiness(made, Closed(12)).changes
    assert any(change.startswith("output tokens/s") for change in changes) is (longer is None)


def test_slower_prefill_is_found_however_many_prompts_wait_for_each_other():
    """12 users whose prompts are computed one after another: TTFT doubles, and E2E hardly changes."""
    for seed in range(5):
        recording = study.recorded(
            batching(12, slots=32, seed=seed, slower=lambda moment: (2.0 if moment > 5 else 1.0, 1.0))
        )
        (reason,) = Steadiness(recording, Closed(12)).reasons()
        assert reason.message.count("TTFT went from") == 1


@pytest.mark.parametrize("changes", [False, True])
def test_all_of_a_long_level_is_judged(monkeypatch, changes):
    """First tokens take five times as long when far more requests were sent than are kept one by one."""
    monkeypatch.setattr("loadbench.record.timeline._MOST_KEPT", 400)
    monkeypatch.setattr("loadbench.record.timeline._MOST_CHANGES", 1600)
    monkeypatch.setattr("loadbench.record.stretches._GATHERED", 50)
    rng, window_s, samples = np.random.default_rng(1), 100, []
    for number, due in enumerate(np.sort(rng.uniform(0, window_s, 2000)).tolist()):
        ttft_ns = round(4 * MS * rng.uniform(0.9, 1.1) * (5 if changes and due > 60 else 1))
        samples.append(a_sample(number, due_ns=round(due * S), ttft_ns=ttft_ns, gaps_ns=MS // 2))
    recording = a_recording(samples, window_ns=window_s * S)
    load = Open(20.0, parse_arrivals("poisson"))
    assert recording.timeline.succeeded == 2000
    assert 100 < len(recording.timeline.starts) <= 400
    reasons = list(Steadiness(recording, load).reasons())
    assert ["TTFT went from 4" in reason.message for reason in reasons] == [True] * changes


def test_part_of_the_response_time_that_hardly_matters_raises_no_caveat():
    """TTFT that varies too much is 3 % of E2E. One of 100 % would have the caveat."""
    load, made = Closed(20, think=Exponential(2.0)), []
    for seed in range(10):
        recording, rng = study.recorded(batching(20, think=exponential(2.0), seed=seed)), np.random.default_rng(seed)
        factors = np.exp(rng.normal(0, 2, len(recording.timeline.starts))).tolist()
        starts = tuple(
            start._replace(ttft_ns=start.ttft_ns * factor, prefill_ns=start.prefill_ns * factor)
            for start, factor in zip(recording.timeline.starts, factors, strict=True)
        )
        made.append(replace(recording, timeline=replace(recording.timeline, starts=starts)))
    found = [Steadiness(recording, load).unjudged() for recording in made]
    assert any(one.ttft is not None for one in found)
    assert all(one.level is None for one in found)
    for recording, one in zip(made, found, strict=True):
        kept = {**recording.timeline.kept, "e2e_response": recording.timeline.kept["ttft_response"]}
        whole = replace(recording, timeline=replace(recording.timeline, kept=kept))
        assert (Steadiness(whole, load).unjudged().level is not None) >= (one.ttft is not None)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "constant"), [(0.5, True), (0.8, False), (0.9, True), (0.9, False), (0.95, False)])
def test_steady_queue_is_left_in_peace(rate, constant):
    """However busy the server and however much its queue wanders: at most 1 % of 300 levels are called unsteady."""
    found = [judged(np.random.default_rng(seed), rate=rate, served=10, constant=constant) for seed in range(300)]
    assert sum(bool(reasons) for reasons in found) <= 3


@pytest.mark.slow
@pytest.mark.parametrize(("users", "slots"), [(8, 4), (4, 8), (1, 1)])
def test_steady_closed_loop_is_left_in_peace(users, slots):
    """At most 1 % of 100 levels of users who queue for slots are called unsteady."""
    found = [closed_level(np.random.default_rng(seed), users=users, slots=slots) for seed in range(100)]
    assert sum(bool(reasons) for reasons in found) <= 1


def closed_level(rng, *, users: int, slots: int, grows: float = 0.0) -> list:
    """What is said of a closed level of 300 s whose requests are served in 1 s, with the first token after a tenth."""
    made = np.array(closed(rng, users=users, slots=slots, until=300.0, begin=-10.0, grows=grows))
    dues, waits, services = made.T
    went = course(dues, waits + services / 10, dues + waits + services, window_s=300.0)
    return list(Steadiness(level(went), Closed(users)).reasons())


def test_server_that_slows_down_is_found():
    """Services that come to take twice as long within the level: the server changed, whatever the cause."""
    found = [closed_level(np.random.default_rng(seed), users=8, slots=8, grows=1.0) for seed in range(20)]
    assert all(reasons for reasons in found)
    assert all("the server changed during the level: TTFT went from" in reasons[0].message for reasons in found)


def drifting(change, *, count: int = 600) -> list:
    """Answers five a second whose TTFT is 100 ms and what `change` adds, by their due time in seconds."""
    return [a_sample(n, due_ns=n * S // 5, ttft_ns=100 * MS + round(change(n / 5) * MS)) for n in range(count)]


def verdict(samples: list, *, load=None, window_s: int = 120) -> list:
    """The level's reasons for not being steady."""
    made = a_level(recording=a_recording(samples, window_ns=window_s * S), load=load or Closed(8))
    return [reason for reason in made.verdict.reasons if reason.code == "not_steady"]


def noise(seconds: float) -> float:
    """Up to 10 ms, without a trend."""
    return 10 * math.sin(seconds * 12.9898) ** 2


def test_warm_up_that_was_too_short_is_told_with_what_is_enough():
    """A transient that dies away within 30 s: the advice is a warm-up that contains it, and not the whole window."""
    reasons = verdict(drifting(lambda at: noise(at) + 400 * math.exp(-at / 6)))
    assert [reason.code for reason in reasons] == ["not_steady"]
    wanted = reasons[0].advice.removeprefix("use --warm-up ").removesuffix("s")
    assert 10 + 20 <= int(wanted) <= 10 + 50


@pytest.mark.parametrize(
    ("change", "load"),
    [
        (noise, None),
        (noise, OPEN),
        (lambda at: noise(at) + at / 10, None),  # 12 ms in 105: significant, and too little to matter
        (lambda at: noise(at) + 200 * (50 < at < 52), None),  # one hiccup is no trend
        (lambda at: noise(at) + 30 * math.sin(at / 5), None),  # nor are waves
    ],
)
def test_what_is_no_drift(change, load):
    """Noise, trifles, a hiccup, waves: steady."""
    assert verdict(drifting(change), load=load) == []


@pytest.mark.parametrize(("ttft_ms", "gaps_ms", "is_change"), [(100, 20, True), (1000, 5, False)])
def test_first_tokens_that_queue_must_change_by_more(ttft_ms, gaps_ms, is_change):
    """They vary by a third and double. Where responses take longer after their first token than before it, nobody
    waits for a place; where waits are most of it, one is much like the one before."""
    for seed in range(4):
        factors = np.exp(np.random.default_rng(seed).normal(0, 0.3, 600)) * np.repeat([1, 2], 300)
        samples = [
            a_sample(n, due_ns=n * S // 5, ttft_ns=round(ttft_ms * MS * factor), gaps_ns=gaps_ms * MS)
            for n, factor in enumerate(factors.tolist())
        ]
        changes = Steadiness(a_recording(samples, window_ns=120 * S), OPEN).changes
        assert any(change.startswith("TTFT went from") for change in changes) is is_change


def test_wait_that_is_never_felt_does_not_matter():
    """A TTFT that doubles within a millisecond is a trend of nothing."""
    samples = [a_sample(n, due_ns=n * S // 5, ttft_ns=400_000 + n * 800) for n in range(600)]
    assert verdict(samples) == []


@pytest.mark.parametrize(("count", "users", "unknown"), [(23, 8, True), (19, 8, False), (0, 8, False)])
def test_too_few_requests_are_not_judged(count, users, unknown):
    """Fewer than three rounds of users: silence, and an unknown steadiness if there are enough to judge by at all."""
    samples = drifting(lambda at: 50 * at, count=count)
    assert verdict(samples[:19]) == []
    caveats = a_level(recording=a_recording(samples, window_ns=120 * S), load=Closed(users)).caveats
    assert ("steadiness_unknown" in {caveat.code for caveat in caveats}) is unknown


@pytest.mark.parametrize(("users", "expected"), [(200, 1), (201, 0)])
def test_first_tokens_are_judged_from_three_rounds_of_the_users_on(users, expected):
    """Before that, the order in which the users started shapes them."""
    assert len(verdict(drifting(lambda at: 5 * at), load=Closed(users))) == expected


def test_pile_without_longer_waits_is_not_steady_either():
    """Answers that take longer and longer pile up though each begins at once: more requests come than are answered."""
    samples = [a_sample(n, due_ns=n * S // 5, gaps_ns=(20 + n * 20) * MS) for n in range(600)]
    reasons = verdict(samples, load=OPEN)
    assert reasons[0].message.startswith("more requests arrived than completed: requests in flight grew from ")


@pytest.mark.parametrize(("rate", "unsteady"), [(1.5, True), (0.7, False)])
def test_whole_recording_is_judged_as_its_course(rate, unsteady):
    """Through samples, recorder and verdict: a queue above capacity, and one below."""
    n = round(rate * 700)
    arrivals, waits, services = single(np.random.default_rng(7), rate=rate, n=n, warm=0)
    recording = recorded(zip(arrivals / 10 - 5, waits / 10, services / 10, strict=True), window_s=60, warm_up_s=5)
    assert bool(list(Steadiness(recording, OPEN).reasons())) is unsteady
