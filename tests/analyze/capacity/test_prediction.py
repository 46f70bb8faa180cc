"""How many people fit, against queues whose answer is known."""

from __future__ import annotations

import math
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.analyze.capacity.finite_source import met_on_arrival
from loadbench.analyze.capacity.prediction import isotonic, predict
from loadbench.analyze.level.summary import summarize
from loadbench.plan.distribution import LogNormal
from loadbench.plan.load import Closed
from loadbench.plan.objective import parse_objective
from loadbench.results.run import LevelResult, Reason
from tests.analyze.leveling import with_figures
from tests.engine.scripted import Act, S, run_scripted

SLOTS = 4
FAST = [0.1] * 200
SLOW = [3.0] * 200


def slotted(users: int, *, seconds: int, think: LogNormal | None = None) -> LevelResult:
    """A level against four workers whose service takes 1 s on average, memoryless, in virtual time."""
    rng = random.Random(f"{users}/{think}")
    load = Closed(users, think)
    ran = run_scripted(
        load,
        lambda _: Act(first_ns=int(rng.expovariate(1) * S)),
        workers=SLOTS,
        duration_ns=seconds * S,
        warm_up_ns=60 * S,
        cool_down_ns=20 * S,
        drain_ns=10_000 * S,
        plan={"ramp_ns": 20 * S},
    )
    return summarize(ran.recording, target="t", model="m", load=load, failure_limit=0.01)


def tail(others: int, t: float) -> float:
    """P(answer takes longer than t) of who meets so many others at four memoryless workers, first come first served."""
    if others < SLOTS:
        return math.exp(-t)
    ahead = others - SLOTS + 1
    waits = np.linspace(0, t, 4001)
    density = np.exp(
        ahead * math.log(SLOTS) + (ahead - 1) * np.log(np.maximum(waits, 1e-12)) - SLOTS * waits - math.lgamma(ahead)
    )
    still = sum(math.exp(j * math.log(SLOTS * t) - SLOTS * t - math.lgamma(j + 1)) for j in range(ahead))
    served = density * np.exp(-(t - waits))
    return still + float(((served[1:] + served[:-1]) / 2).sum() * (waits[1] - waits[0]))


def true_users(bound_s: float, share: float, think_s: float) -> int:
    """The most users of whom no more than `share` wait longer than the bound, by the theory of M/M/4//N."""
    tails = [tail(others, bound_s) for others in range(120)]
    for users in range(1, 120):
        weights = [1.0]
        for n in range(1, users):
            weights.append(weights[-1] * (users - n) / think_s / min(n, SLOTS))
        if sum(weight * late for weight, late in zip(weights, tails, strict=False)) > share * sum(weights):
            return users - 1
    raise AssertionError("they all fit")


@pytest.fixture(scope="module")
def levels() -> list[LevelResult]:
    """Seven levels of the four workers, without think time."""
    return [slotted(users, seconds=300) for users in (1, 2, 4, 6, 8, 12, 18)]


def fit_of(levels, rule, think_s):
    """The fit of one objective at one think time."""
    prediction = predict(levels, [parse_objective(rule)], think_s=[think_s])
    return next(fit for fit in prediction.fits if fit.rule == rule)


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "bound_s", "share"), [("ttft_p95<5s", 5.0, 0.05), ("ttft_p50<1.5s", 1.5, 0.5)])
@pytest.mark.parametrize("think_s", [5.0, 10.0])
def test_the_interval_holds_what_theory_says(levels, rule, bound_s, share, think_s):
    """From levels without think time follows how many fit with it, as the theory of the slots has it."""
    fit, truth = fit_of(levels, rule, think_s), true_users(bound_s, share, think_s)
    assert fit.low <= truth <= (fit.high or truth)
    assert abs(fit.users - truth) <= 0.05 * truth


def test_a_measured_level_agrees_with_the_curve(levels):
    """Thirty people who think for a lognormal time see the TTFT that was said of them; the server, its throughput."""
    rule = parse_objective("ttft_p95<5s")
    curve = predict(levels, [rule], think_s=[10.0]).curves[0]
    level = slotted(30, seconds=1000, think=LogNormal(10.0 * S, 0.8, written="lognormal:10s,0.8"))
    at = curve.users.index(30)
    low, high = level.metrics["ttft_s"].interval["p95"]
    assert 0.95 * low <= curve.figures[rule.rule][at] <= 1.05 * high
    assert curve.requests_per_s[at] == pytest.approx(level.throughput.requests_per_s, rel=0.03)
    assert curve.in_flight[at] == pytest.approx(level.concurrency.mean, rel=0.08)


DRAWN_USERS = (4, 5, 6, 8, 12)


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say():
    """Over forty measurements of one server the 95 % interval holds the answer of the exact figures but for chance."""
    truth, rng, held = by_hand(exact_shares(1.1), 0.5, 10.0), np.random.default_rng(7), 0
    for _ in range(40):
        fit = fit_of(drawn_levels(rng), "ttft_p50<1.1s", 10.0)
        held += fit.low <= truth <= (fit.high or math.inf)
    # Of 40 intervals of 95 % fewer than 34 hold it once in three hundred times.
    assert held >= 34


def drawn_levels(rng: np.random.Generator) -> list[LevelResult]:
    """One measurement of the four workers: 150 answers a level, and throughput with 2 % of error."""
    return [
        with_figures(
            users,
            SLOTS * (1 + 0.02 * rng.standard_normal()),
            reach=1.96 * 0.02,
            ttft_s=rng.exponential(1.0, 150) + (rng.gamma(users - SLOTS, 1 / SLOTS, 150) if users > SLOTS else 0.0),
        )
        for users in DRAWN_USERS
    ]


def exact_shares(bound_s: float) -> list[float]:
    """Of the requests at each level, those that take longer than the bound."""
    return [tail(users - 1, bound_s) for users in DRAWN_USERS]


def by_hand(late: list[float], share: float, think_s: float) -> int:
    """One user more at a time, until too many are late."""
    each = np.interp(np.arange(1, DRAWN_USERS[-1] + 1), DRAWN_USERS, late)
    rates = np.minimum(np.arange(1.0, DRAWN_USERS[-1] + 1), SLOTS)[None]
    for people in range(1, 200):
        met = met_on_arrival(np.array([people]), rates, think_s)
        if (met.within[0] @ each) * (1 - met.beyond[0]) + met.beyond[0] > share:
            return people - 1
    raise AssertionError("they all fit")


def three(*ttft: list[float], per_s: tuple[float, ...] = (1.0, 1.8, 2.4)) -> list[LevelResult]:
    """Levels of 1, 2 and 4 users with these TTFT."""
    return [
        with_figures(users, rate, reach=0.02, ttft_s=values)
        for users, rate, values in zip((1, 2, 4), per_s, ttft, strict=True)
    ]


def test_without_thinking_the_levels_are_the_answer():
    """At Z = 0 as many fit as the last level that met the objective."""
    fit = fit_of(three(FAST, FAST, SLOW), "ttft_p95<1s", 0.0)
    assert (fit.users, fit.at_least) == (2, False)


def test_not_even_one():
    """Where one user alone is too slow, nobody fits, with whatever pauses."""
    for think_s in (0.0, 60.0):
        fit = fit_of(three(SLOW, SLOW, SLOW), "ttft_p95<1s", think_s)
        assert (fit.users, fit.low, fit.high) == (0, 0, 0)


def test_beyond_the_levels_it_says_at_least():
    """Where the largest level still met the objective, the answer is what surely fits, and has no upper end."""
    fit = fit_of(three(FAST, FAST, FAST), "ttft_p95<1s", 0.0)
    assert (fit.users, fit.high, fit.at_least) == (4, None, True)
    thinking = fit_of(three(FAST, FAST, FAST), "ttft_p95<1s", 20.0)
    assert thinking.at_least
    assert thinking.high is None
    rates = np.array([[1.0, 1.8, 2.1, 2.4]])
    beyond = [met_on_arrival(np.array([n]), rates, 20.0).beyond[0] for n in (thinking.users, thinking.users + 1)]
    assert beyond[0] <= 0.05 < beyond[1]


def test_failures_are_longer_than_any_bound():
    """A level that loses a tenth of its requests misses a p95, however quick the others are; and says its share."""
    levels = [with_figures(n, float(n), reach=0.02, ttft_s=FAST, failed=n // 4 * 20) for n in (1, 2, 4)]
    assert fit_of(levels, "ttft_p95<1s", 0.0).users == 3
    assert fit_of(levels, "failures<1%", 0.0).users == 2
    assert fit_of(levels, "ttft_mean<1s", 0.0).users == 2


def test_all_objectives_together_are_bound_by_one():
    """Of several objectives the least decides, and is named."""
    rules = [parse_objective("ttft_p95<1s"), parse_objective("tpot_p50<1s")]
    every = predict(three(FAST, FAST, SLOW), rules).fits[0]
    assert (every.rule, every.users, every.note) == ("", 2, "bound by ttft_p95<1s")


@pytest.mark.parametrize("rule", ["ttft_max<1s", "requests_per_s>2", "ttft_p95<1s@users=2", "itl_p95<1s"])
def test_what_cannot_be_predicted_is_said(rule):
    """Such an objective has no number, but a reason, and does not count for all together."""
    fits = predict(three(FAST, FAST, SLOW), [parse_objective(rule), parse_objective("ttft_p95<1s")]).fits
    (fit,) = (fit for fit in fits if fit.rule == rule)
    assert fit.users is None
    assert fit.note
    assert fits[0].users == 2


def test_too_few_levels_are_refused():
    """From one level nothing follows, nor from levels of several models, of an open load or with think time."""
    level = with_figures(1, 1.0)
    assert "a prediction needs 2 valid levels" in predict([level], []).refused
    thinking = [with_figures(n, float(n), think=LogNormal(1.0 * S, 0.5)) for n in (1, 2, 4)]
    prediction = predict(thinking, [parse_objective("ttft_p95<1s")])
    assert prediction.refused
    assert prediction.fits == []
    assert "has think time" in prediction.caveats[0].message


def test_invalid_levels_are_left_out_and_named():
    """A level at which the client was the limit says nothing of the server."""
    late = [Reason("late_start", "late", "a core of its own")]
    levels = [*three(FAST, FAST, FAST), with_figures(8, 2.0, ttft_s=SLOW, reasons=late)]
    prediction = predict(levels, [parse_objective("ttft_p95<1s")])
    assert prediction.measured_users == [1, 2, 4]
    assert prediction.fits[0].at_least
    assert any(caveat.code == "left_out" and "users=8" in caveat.message for caveat in prediction.caveats)


def test_a_level_that_breaks_the_law_is_named():
    """Where N users do not take N/X for a request the level was not steady; where they do nothing is said."""
    lawful = three(FAST, FAST, SLOW)
    slow = msgspec.structs.replace(lawful[1].metrics["e2e_s"], mean=3.0)
    lawless = msgspec.structs.replace(lawful[1], metrics={**lawful[1].metrics, "e2e_s": slow})
    (told,) = (one for one in predict([lawful[0], lawless, lawful[2]], []).caveats if one.code == "interactive_law")
    assert told.message.startswith("users=2: users divided by throughput is not the response time")
    assert "interactive_law" not in {one.code for one in predict(lawful, []).caveats}


def test_a_server_that_gets_better_with_load_is_doubted():
    """Where a fuller level is served better by more than chance, they are averaged, and that is said."""
    prediction = predict(three(SLOW, FAST, FAST), [parse_objective("ttft_p95<1s")])
    assert "not_monotone" in {caveat.code for caveat in prediction.caveats}
    assert "not_monotone" not in {
        caveat.code for caveat in predict(three(FAST, FAST, SLOW), [parse_objective("ttft_p95<1s")]).caveats
    }


def test_the_same_seed_gives_the_same_prediction():
    """Resampling is by the seed alone."""
    rules = [parse_objective("ttft_p50<1s")]
    mixed = three(FAST, [0.5, 1.5] * 100, SLOW)
    assert predict(mixed, rules, think_s=[3.0], seed=1) == predict(mixed, rules, think_s=[3.0], seed=1)


def test_more_thinking_lets_more_people_in():
    """Longer pauses never make fewer fit."""
    mixed = three(FAST, [0.5] * 190 + [1.5] * 10, SLOW)
    fits = predict(mixed, [parse_objective("ttft_p95<1s")], think_s=[0.0, 1.0, 5.0, 30.0, 300.0]).fits
    users = [fit.users for fit in fits if fit.rule]
    assert users == sorted(users)


@pytest.mark.parametrize("bad", [{"confidence": 1.0}, {"think_s": [-1.0]}, {"think_s": [math.inf]}])
def test_a_slip_is_refused(bad):
    """A confidence of all, or a pause of less than nothing or without end."""
    with pytest.raises(ValueError, match="must be between"):
        predict(three(FAST, FAST, FAST), [], **bad)


@given(
    st.lists(st.tuples(st.integers(1, 64), st.floats(0.01, 1e4), st.floats(1e-6, 100), st.integers(0, 3)), max_size=4),
    st.sampled_from(["ttft_p95<1s", "tpot_mean<50ms", "ttft_p999<2s", "failures<1%"]),
)
@settings(max_examples=30, deadline=None)
def test_no_figures_are_too_odd(figures, rule):
    """Whatever the levels came to, an interval holds its number, and a longer pause is no worse."""
    levels = [with_figures(users, per_s, ttft_s=[ttft], failed=failed) for users, per_s, ttft, failed in figures]
    prediction = predict(levels, [parse_objective(rule)], think_s=[0.0, 4.0])
    known = [fit for fit in prediction.fits if fit.users is not None]
    if not prediction.refused:
        # For each think time the objective, and that of all objectives if one is known.
        by_think_s = [[fit.users is not None for fit in prediction.fits if fit.think_s == at] for at in (0.0, 4.0)]
        assert all(each in ([True, True], [False]) for each in by_think_s)
    assert all(fit.low <= fit.users <= (fit.high or fit.users) for fit in known)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.5, 100)), min_size=1, max_size=8))
def test_the_least_change_makes_it_rise(pairs):
    """The rising row is the one of pooled neighbours: it rises, keeps the weighted sum, and leaves what rises alone."""
    values, weights = (np.array(part) for part in zip(*pairs, strict=True))
    made = isotonic(values[None], weights)[0]
    assert (np.diff(made) >= -1e-12).all()
    assert (made * weights).sum() == pytest.approx((values * weights).sum(), abs=1e-9)
    assert isotonic(np.sort(values)[None], weights)[0] == pytest.approx(np.sort(values))


def test_failures_that_did_not_happen_limit_nothing():
    """Levels without a failure do not show how many users would see one: the others decide, and the note says so."""
    levels = [with_figures(users, float(users), reach=0.02, ttft_s=FAST) for users in (1, 2, 4)]
    both = predict(levels, [parse_objective("ttft_p95<1s"), parse_objective("failures<1%")], think_s=[5.0])
    alone = predict(levels, [parse_objective("ttft_p95<1s")], think_s=[5.0])
    fits = {fit.rule: fit for fit in both.fits}
    assert fits["failures<1%"].users is None
    assert fits["failures<1%"].note == "no request failed without think time"
    assert (fits[""].users, fits[""].low) == (alone.fits[0].users, alone.fits[0].low)
