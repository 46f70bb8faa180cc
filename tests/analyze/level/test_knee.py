"""Where throughput stops growing, as a range by load."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.level.knee import commonest_reason, knee, knee_sentence, knee_tile, unsound_sentence
from loadbench.plan.load import Closed
from loadbench.results.run import ClosedLoad, LevelResult, OpenLoad, Reason, Throughput, Verdict
from tests.building import a_level
from tests.coverage.knee import SERVERS, outcome

SOUND = msgspec.structs.replace(a_level(load=Closed(1)), verdict=Verdict("VALID"))


def level(
    users: float, rate: float, *, reach: float | None = 0.01, status="VALID", ok=100, by_rate=False
) -> LevelResult:
    """A level with these output tokens/s, give or take this share of them."""
    interval = None if reach is None else (rate * (1 - reach), rate * (1 + reach))
    throughput = Throughput(
        requests_per_s=1.0,
        output_tokens_per_s=rate,
        total_tokens_per_s=rate,
        interval={"output_tokens_per_s": interval},
    )
    load = OpenLoad(users, "poisson") if by_rate else ClosedLoad(int(users))
    return msgspec.structs.replace(
        SOUND, load=load, throughput=throughput, verdict=Verdict(status), outcomes={"ok": ok, "http_error": 2}
    )


def ends(levels: list[LevelResult]) -> tuple[float | None, float | None] | None:
    """The range as numbers of users."""
    found = knee(levels)
    return found and tuple(None if end is None else end.users for end in (found.low, found.high))


def swept(rates: dict[int, float], **each) -> list[LevelResult]:
    """Levels of these output tokens/s by users."""
    return [level(users, rate, **each) for users, rate in rates.items()]


@pytest.mark.parametrize(
    ("rates", "range_"),
    [
        ({1: 100.0, 2: 200.0, 4: 300.0, 8: 301.0}, (2, 4)),  # flat from the third on
        ({1: 100.0, 2: 200.0, 4: 400.0, 8: 800.0}, (4, None)),  # still grows
        ({1: 100.0, 2: 200.0, 4: 150.0}, (1, 2)),  # falls again
        ({1: 100.0, 2: 100.0, 4: 100.0}, (None, 1)),  # never grew
        ({1: 100.0, 2: 200.0, 4: 203.0, 8: 201.0}, (1, 2)),  # within 5 % of the most
        ({1: 100.0, 2: 100.0, 4: 150.0, 8: 150.0}, (2, 4)),  # first no faster with two
        ({1: 100.0}, None),  # one level shows nothing
        ({}, None),
        ({1: 0.0, 2: 0.0}, None),  # nothing was produced
    ],
)
def test_the_knee_lies_between_two_loads(rates, range_):
    """Above the highest load that another clearly beats, and at the lowest that none beats, at the latest."""
    assert ends(swept(rates)) == range_


def test_it_grows_up_to_the_highest_load():
    """Then the knee is beyond."""
    assert knee(swept({1: 100.0, 2: 200.0})).grows
    assert not knee(swept({1: 100.0, 2: 200.0, 4: 201.0})).grows


@given(st.permutations([1, 2, 4, 8, 16, 32]))
def test_loads_are_taken_in_their_order(order):
    """In whatever order the levels ran."""
    assert ends(swept({users: 100.0 * min(users, 8) for users in order})) == (4, 8)


def test_only_sound_levels_count():
    """An INVALID level says nothing; a server beyond its limit shows what it can."""
    rates = {1: 100.0, 2: 200.0, 4: 400.0, 8: 402.0}
    assert ends([level(32, 90.0, status="INVALID"), *swept(rates)]) == (2, 4)
    few = Verdict("INCONCLUSIVE", [Reason("too_few_answers", "", "")])
    assert ends([*swept(rates), msgspec.structs.replace(level(16, 800.0), verdict=few)]) == (2, 4)
    assert ends([*swept(rates), level(16, 800.0, status="INCONCLUSIVE")]) == (8, None)  # for a gate
    assert ends([*swept(rates), level(16, 800.0, status="OVERLOADED")]) == (8, None)


def test_a_few_responses_say_nothing():
    """Three responses at one user, and the table shows half as many tokens again at two."""
    levels = [level(1, 100.0, reach=0.6, ok=3), level(2, 150.0, reach=0.4, ok=3)]
    assert knee(levels) is None


def test_without_an_interval_only_much_is_clear():
    """How much of the difference is chance is not known: twice as much still is more."""
    found = ends(swept({1: 100.0, 2: 200.0, 4: 400.0, 8: 404.0}, reach=None))
    assert found == (2, None)


def test_a_noisy_end_stays_open():
    """With 20 % either way, no growth of 5 % can be excluded."""
    assert ends(swept({1: 100.0, 2: 200.0, 4: 400.0, 8: 404.0}, reach=0.2)) == (2, None)


def test_levels_of_one_load_are_combined():
    """Sixteen measurements of each of two loads tell what one cannot."""
    once = swept({1: 100.0, 2: 101.0}, reach=0.08)
    assert ends(once) == (None, None)
    assert ends(once * 16) == (None, 1)
    apart = [level(users, rate) for users in (1, 2) for rate in (80.0, 125.0)]
    assert ends(apart) == (None, None)  # each is certain of itself, and they contradict each other


def test_rates_have_a_knee_too():
    """In an open loop it is where more requests bring no more tokens."""
    found = knee([level(rate, 100.0 * min(rate, 4), by_rate=True) for rate in (1.0, 2.0, 4.0, 8.0)])
    assert (found.low.rate_per_s, found.high.rate_per_s, found.unit) == (2.0, 4.0, "requests/s")


def test_think_times_are_not_mixed():
    """A search measures some loads without think time; they are another curve."""
    thinking = [
        msgspec.structs.replace(one, load=ClosedLoad(one.load.users, "30s")) for one in swept({40: 100.0, 80: 200.0})
    ]
    assert ends([*swept({1: 100.0, 2: 200.0, 4: 201.0}), *thinking]) == (1, 2)


@pytest.mark.parametrize(
    ("of_knee", "others", "said"),
    [(None, "4s", " without think time"), ("4s", None, " with think time 4s"), (None, None, "")],
)
def test_the_sentence_says_of_which_loads_it_speaks_where_there_are_others(of_knee, others, said):
    """A load with another think time may be faster, and is on another curve."""
    bend = [
        msgspec.structs.replace(one, load=ClosedLoad(one.load.users, of_knee))
        for one in swept({1: 100.0, 2: 200.0, 4: 201.0})
    ]
    faster = [] if of_knee == others else [msgspec.structs.replace(level(9, 250.0), load=ClosedLoad(9, others))]
    text = knee_sentence([*bend, *faster])
    assert f"no higher load{said} is more than 5 % faster than users=2" in text


@pytest.mark.parametrize("noise", [0.02, 0.1])
@pytest.mark.parametrize("server", SERVERS)
def test_the_range_holds(server, noise):
    """In 95 of 100 sweeps the true knee lies in it; 200 sweeps may show 182 (once in 200 times by chance)."""
    rng = np.random.default_rng(7)
    right = sum(outcome(SERVERS[server], noise, rng, known=True)[0] for _ in range(200))
    assert right >= 200 * 0.95 - 2.6 * math.sqrt(200 * 0.95 * 0.05)


def test_a_higher_level_that_does_not_count_leaves_the_growth_unknown():
    """Twice as fast at 8 users as at 4, and 16 users INVALID: nobody knows whether it still grows."""
    text = knee_sentence([*swept({4: 522.0, 8: 773.0}), level(16, 779.0, status="INVALID")])
    assert text == (
        "whether throughput still grows after users=8 is unknown: users=16 is INVALID; see the reasons, and "
        "measure again"
    )
    assert "still grows at users=8" in knee_sentence(swept({4: 522.0, 8: 773.0}))
    assert "still grows at users=8" in knee_sentence([level(1, 9.0, status="INVALID"), *swept({4: 522.0, 8: 773.0})])


@pytest.mark.parametrize(
    ("rates", "reach", "sentence", "tile"),
    [
        ({1: 137.0, 8: 146.0}, 0.05, "grows with the load is not certain", "may still grow: measure longer"),
        ({1: 100.0, 8: 150.0}, 0.01, "still grows at users=8: even with the noise", "still grows at users=8"),
        ({1: 100.0, 4: 200.0, 8: 215.0}, 0.1, "grows beyond users=1; where it stops", "grows beyond users=1: measure"),
        ({1: 100.0, 2: 100.0}, 0.001, "is at most 1 user", "throughput stops growing there"),
    ],
)
def test_sentence_and_tile_say_the_same(rates, reach, sentence, tile):
    """That it still grows only where that is clear: intervals that overlap do not show it."""
    levels = swept(rates, reach=reach)
    assert sentence in knee_sentence(levels)
    assert tile in " ".join(knee_tile(levels))


def test_where_other_programs_were_the_cause_the_advice_is_an_idle_machine():
    """Rather than to read the reasons."""
    busy = Verdict("INVALID", [Reason("late_reads", "", ""), Reason("busy_machine", "", "")])
    top = msgspec.structs.replace(level(16, 779.0), verdict=busy)
    assert knee_sentence([*swept({4: 522.0, 8: 773.0}), top]).endswith("; measure again on an idle machine")


@pytest.mark.parametrize("more", [[], [Reason("busy_machine", "", "")]])
def test_where_the_server_ended_that_comes_first(more):
    """No idle machine keeps it running, unless another level needs one."""
    ended = Verdict("INVALID", [Reason("server_ended", "the server ended by SIGSEGV", ""), *more])
    top = msgspec.structs.replace(level(16, 779.0), verdict=ended)
    remedy = "; see in its log why the server ended, and measure again"
    assert knee_sentence([*swept({4: 522.0, 8: 773.0}), top]).endswith(remedy)
    busy = msgspec.structs.replace(level(32, 779.0), verdict=Verdict("INVALID", [Reason("busy_machine", "", "")]))
    assert knee_sentence([*swept({4: 522.0, 8: 773.0}), top, busy]).endswith(f"{remedy} on an idle machine")


def test_a_knee_below_a_level_that_does_not_count_says_so():
    """It is the knee of the loads that count."""
    text = knee_sentence([*swept({1: 100.0, 2: 200.0, 4: 201.0}), level(8, 90.0, status="INVALID")])
    assert text.startswith(
        "the knee, where throughput stops growing, is above 1 and at most 2 users: even with the noise"
    )
    assert "no higher load that counts" in text
    assert "users=8 is INVALID" in text


def test_too_few_levels_that_count_leave_the_knee_undetermined():
    """The sentence says how many do not count, and why."""
    few = Verdict("INCONCLUSIVE", [Reason("too_few_answers", "", "")])
    levels = [msgspec.structs.replace(level(1, 178.0), verdict=few), level(16, 779.0)]
    levels[1:1] = [level(users, 300.0, status="INVALID") for users in (2, 4)]
    assert knee_sentence(levels) == (
        "the knee, where throughput stops growing, cannot be determined: 3 of 4 levels do not count "
        "(users=1 is INCONCLUSIVE, users=2, 4 are INVALID); see the reasons, and measure again"
    )
    assert knee_sentence(levels[-1:]) == ""


def test_with_think_times_growth_says_nothing():
    """More users who pause always send more, until the knee: only a knee is worth a sentence."""
    growing, flat = (
        [msgspec.structs.replace(one, load=ClosedLoad(one.load.users, "6s")) for one in swept(rates)]
        for rates in ({50: 500.0, 100: 990.0}, {50: 500.0, 100: 990.0, 200: 991.0})
    )
    assert knee_sentence(growing) == ""
    assert "stops growing, is above 50 and at most 100 users" in knee_sentence(flat)


def test_the_commonest_reason_is_counted_by_its_code():
    """Whatever its figures, once a level; of equally frequent ones other programs, which cause others."""
    few = [Reason("too_few_answers", f"only {count}", "measure longer") for count in (3, 4)]
    busy, late = Reason("busy_machine", "other programs", "end them"), Reason("late_reads", "late", "a core")
    assert commonest_reason([[late, late, late], few[:1], few[1:]]) == few[0]
    assert commonest_reason([[late, busy], [late, busy]]) == busy
    assert commonest_reason([[], []]) is None


def test_a_longer_warm_up_is_part_of_what_to_do():
    """The longest that a level asks for, next to what else would make it count."""
    advices = ["use --warm-up 12s, and more", "use --warm-up 1m30s", "use --duration 8s or longer"]
    reasons = [Reason("short", "it was short", advice) for advice in advices]
    levels = [
        msgspec.structs.replace(level(users, 10.0), verdict=Verdict("INVALID", [reason]))
        for users, reason in zip((1, 2, 4), reasons, strict=True)
    ]
    assert unsound_sentence(levels).endswith("; measure again with --duration 8s or longer and --warm-up 1m30s")
