"""The sentence of a comparison: what it says of a side that is better, of a crossover, of no difference; and of what it
does not know."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from loadbench.analyze.compare.compare import compare
from loadbench.analyze.compare.in_folder import comparison_in
from loadbench.plan.gate import COST, ENERGY
from loadbench.results.compare import DECODE, PREFILL
from loadbench.results.run import OpenLoad, Reason, Verdict
from tests.analyze.comparing import LUCK, a_side, figures, lucky, resourced

RESULTS = Path(__file__).parents[3] / "results"
NO_PRICES = "energy and cost per token"


def priced(by_users, joules, money, *, name, currency="EUR"):
    """Six runs of these tokens per second by users, whose tokens took so many joules and so much money, by users too
    where that differs."""
    return a_side(
        *(
            [
                resourced(
                    figures(users, tokens=tokens * luck, ttft=1 / luck),
                    joules=(joules[users] if isinstance(joules, dict) else joules) / luck,
                    money=(money[users] if isinstance(money, dict) else money) / luck,
                    currency=currency,
                )
                for users, tokens in by_users.items()
            ]
            for luck in LUCK
        ),
        name=name,
    )


def paired(a, b, **more):
    return compare(a, b, paired=True, **more)


def test_a_side_that_is_faster_for_less_than_it_gains_is_worth_it():
    """Three times the tokens for 1.8 times the energy and half the cost."""
    found = paired(priced({1: 20, 4: 40}, 1.0, 2.0, name="a"), priced({1: 60, 4: 120}, 1.8, 1.0, name="b"))
    assert found.summary.sentence == (
        "B is worth it at every load that is compared (1 to 4 users): 3 times the tokens/s at 4 users, for 1.8 times "
        "the energy and 0.5 times the cost per token."
    )
    summary = found.summary
    assert (summary.faster, summary.from_level, summary.worth_it, summary.unknown) == ("b", "users=1", True, [])
    assert found.currency == "EUR"


def test_a_side_that_takes_more_than_it_gains_is_only_faster():
    """1.2 times the tokens for twice the energy."""
    found = paired(priced({1: 20}, 1.0, 1.0, name="a"), priced({1: 24}, 2.0, 1.0, name="b"))
    assert found.summary.sentence == (
        "B is faster at 1 user: 1.2 times the tokens/s, for 2 times the energy per token, with no difference shown in "
        "cost per token."
    )
    assert found.summary.worth_it is False


def test_a_better_a_is_named_as_such():
    """A is three times as fast: the price is that of A against B."""
    found = paired(priced({1: 60}, 1.0, 1.0, name="a"), priced({1: 20}, 2.0, 4.0, name="b"))
    assert found.summary.sentence.startswith("A is worth it at 1 user: 3 times the tokens/s, for ")
    assert found.summary.sentence.endswith("for 0.5 times the energy and 0.25 times the cost per token.")
    assert (found.summary.faster, found.winner) == ("a", "a")


def test_energy_and_cost_cross_elsewhere_than_the_speed():
    """B is faster from 2 users on, takes less energy from about 4 on, and costs more throughout."""
    a = priced({1: 20, 2: 20, 8: 20}, 4.0, 1.0, name="a")
    b = priced({1: 10, 2: 40, 8: 80}, {1: 16.0, 2: 8.0, 8: 2.0}, 3.0, name="b")
    found = paired(a, b)
    assert found.crossover.users == pytest.approx(2**0.5, rel=0.05)
    energy = found.price_crossovers["joules_per_output_token"]
    assert (energy.users, energy.beyond) == (pytest.approx(4, rel=0.05), "b")
    assert energy.low <= energy.users <= energy.high
    assert [*found.price_crossovers] == ["joules_per_output_token"]
    between = f"{energy.users:.3g} users ({energy.low:.3g} to {energy.high:.3g})"
    assert f"; A takes less energy per token up to about {between}, B beyond" in found.summary.sentence
    assert f"; the crossover of energy per token is at users={energy.users:.3g} (" in found.conclusion
    # The cost alone, the other way round.
    c = priced({1: 20, 2: 20, 8: 20}, 4.0, {1: 1.0, 2: 2.0, 8: 8.0}, name="c")
    found = paired(a, c)
    assert (found.crossover, [*found.price_crossovers]) == (None, [])
    c = priced({1: 20, 2: 20, 8: 20}, 4.0, {1: 0.5, 2: 0.8, 8: 8.0}, name="c")
    found = paired(a, c)
    assert [(metric, one.beyond) for metric, one in found.price_crossovers.items()] == [(COST, "a")]
    assert "; B costs less per token up to about 2.29 users" in found.summary.sentence


def test_a_crossover_has_both_sides():
    """A answers sooner at one user, B has more from four on."""
    a = lucky({1: 30, 2: 58, 4: 100, 8: 120}, name="before")
    b = lucky({1: 25, 2: 57.8, 4: 130, 8: 200}, name="after")
    found = compare(a, b)
    assert found.summary.sentence == (
        "B is faster from 4 to 8 users (the highest load that is compared): 1.63 to 1.7 times the tokens/s at 8 users; "
        "A is faster at 1 user (1.18 to 1.23 times the tokens/s); no difference is shown at 2 users; the two are "
        "equally fast at about 2.02 "
        f"users (1.89 to 2.11); not known: {NO_PRICES}, what else changed between the runs of A and of B."
    )
    assert (found.summary.faster, found.summary.from_level) == ("b", "users=4")


def test_nothing_is_said_of_loads_beyond_those_that_were_measured():
    """A side that wins at the higher loads wins up to the highest; one that wins at the lower ones from the lowest."""
    found = paired(lucky({2: 30, 4: 60, 8: 90}), lucky({2: 30, 4: 90, 8: 200}))
    assert found.summary.sentence.startswith("B is faster from 4 to 8 users (the highest load that is compared): ")
    found = paired(lucky({2: 30, 4: 60, 8: 90}), lucky({2: 90, 4: 200, 8: 90}))
    assert found.summary.sentence.startswith("B is faster from 2 to 4 users: ")
    found = paired(lucky({1: 30, 4: 60}), lucky({1: 30, 4: 90}))
    assert found.summary.sentence.startswith("B is faster at 4 users (the highest load that is compared): ")


def test_worth_it_is_said_of_the_loads_at_which_it_is():
    """Twice the speed for three times the energy at one user, and for half of it at four."""
    a = priced({1: 20, 4: 40}, 1.0, 1.0, name="a")
    b = priced({1: 40, 4: 80}, {1: 3.0, 4: 0.5}, 1.0, name="b")
    summary = paired(a, b).summary
    assert summary.sentence.startswith(
        "B is faster at every load that is compared (1 to 4 users): 2 times the tokens/s"
    )
    assert "; the speed is worth its price at 4 users alone" in summary.sentence
    assert summary.worth_it is False


def test_no_difference_says_how_large_one_may_be():
    """The same figures on both sides, of which one takes less energy."""
    found = paired(priced({1: 20}, 2.0, 1.0, name="a"), priced({1: 20}, 1.0, 1.0, name="b"))
    assert found.summary.sentence == (
        "No difference in tokens/s is shown at 1 user: B may have 1.000 times A's; B takes 0.5 times the "
        "energy per token."
    )
    assert found.summary.faster is None


def test_one_run_a_side_does_not_know_the_drift():
    """A ratio of 1.42 may be the machine's."""
    found = compare(a_side([figures(1)]), a_side([figures(1, tokens=142)]))
    assert found.summary.sentence.startswith(
        "Undecided at 1 user: B measured 1.42 times A's tokens/s, but too few sessions: a change of this size may be "
        "drift of the machine: measure both sides in turns"
    )
    assert "how much the machine drifts (a drift was assumed)" in found.summary.unknown


def test_loads_that_are_not_compared_are_named():
    """An INVALID level on one side."""
    bad = Verdict("INVALID", [Reason("late", "the client was late", "use another")])
    a = a_side(*([figures(1, tokens=20 * luck), figures(16)] for luck in LUCK))
    b = a_side(*([figures(1, tokens=60 * luck), figures(16, verdict=bad)] for luck in LUCK))
    found = paired(a, b)
    assert "what happens at 16 users (INVALID; A alone: 100 tokens/s)" in found.summary.unknown
    assert "what happens at 16 users (INVALID; A alone: 100 tokens/s)" in found.summary.sentence


def test_a_side_beyond_its_limit_makes_the_ratio_a_lower_bound():
    """The load was more than A can serve."""
    beyond = Verdict("OVERLOADED", [Reason("refused", "the server refused requests", "send less")])
    a = a_side(*([figures(8, tokens=20 * luck, verdict=beyond)] for luck in LUCK))
    b = a_side(*([figures(8, tokens=60 * luck)] for luck in LUCK))
    assert "how much larger the ratio is where a side was beyond its limit" in paired(a, b).summary.unknown


def test_nothing_that_can_be_compared_is_said_as_such():
    """Every level is INVALID."""
    bad = Verdict("INVALID", [Reason("late", "the client was late", "use another")])
    found = paired(a_side([figures(1)]), a_side([figures(1, verdict=bad)]))
    assert found.summary.sentence == (
        "Undecided: nothing can be compared: users=1 is INVALID (the client was late): use another."
    )


def test_a_pair_that_counts_alone_leaves_it_undecided_for_the_reason_of_the_others():
    """6.7 times as fast in the one pair of three that counts: not alike, and more repeats are not the remedy."""
    bad = Verdict("INVALID", [Reason("late", "others kept it waiting: 9 ms", "end the other programs")])
    a = a_side(*([figures(1, tokens=10.0)] for _ in range(3)))
    b = a_side([figures(1, tokens=67.0)], *([figures(1, tokens=67.0, verdict=bad)] for _ in range(2)))
    found = paired(a, b)
    why = "only 1 of 3 pairs of runs counts (2 INVALID: others kept it waiting): end the other programs"
    assert found.summary.sentence.startswith(f"Undecided at 1 user: B measured 6.7 times A's tokens/s, but {why}; ")
    assert found.conclusion == f"undecided in output tokens/s: {why}"
    (left, _) = [left for left in found.left_out if left.run]
    assert left.message == "B: INVALID: others kept it waiting: 9 ms (late); end the other programs"


def test_runs_that_differ_too_much_leave_it_undecided():
    """Two pairs, of which one says 0.5 and the other 2."""
    a, b = a_side([figures(1)], [figures(1)]), a_side([figures(1, tokens=50)], [figures(1, tokens=200)])
    assert paired(a, b).summary.sentence.startswith(
        "Undecided at 1 user: B measured 1.000 times A's tokens/s, but the 2 pairs of runs differ too much: measure "
        "more repeats, or for longer; "
    )


def test_energy_of_one_side_alone_is_not_known():
    """A has no meter."""
    a = lucky({1: 20})
    b = [
        msgspec.structs.replace(
            run, levels=[resourced(one, joules=1.0, money=None, currency=None) for one in run.levels]
        )
        for run in lucky({1: 60})
    ]
    found = paired(a, b)
    assert found.summary.unknown[:2] == ["energy per token (only B has it: 1 J)", "cost per token"]
    (figure,) = found.b.alone
    assert (figure.level, figure.metric, figure.value, figure.runs) == ("users=1", ENERGY, pytest.approx(1.0), 6)
    assert found.a.alone == []
    assert found.summary.worth_it is None


def test_a_side_that_wins_twice_wins_nowhere_for_sure():
    """B at 1 and 8 users, A at 4: no load from which on one is faster."""
    found = compare(lucky({1: 20, 4: 60, 8: 80}), lucky({1: 30, 4: 40, 8: 120}))
    assert found.summary.sentence.startswith(
        "Neither side is faster throughout: B is faster at 1 and 8 users, A is faster at 4 users; "
    )
    assert found.summary.faster is None


def test_of_rates_it_speaks_of_whole_responses():
    """In an open loop the load sets the throughput: E2E is half as long."""
    load, sides = OpenLoad(0.5, "constant"), []
    for scale in (1.0, 0.5):
        runs = []
        for luck in LUCK:
            level = figures(1, load=load)
            metric = level.metrics["e2e_response_s"]
            scaled = {name: getattr(metric, name) * scale * luck for name in ("p50", "p95", "p99")}
            metrics = {**level.metrics, "e2e_response_s": msgspec.structs.replace(metric, **scaled)}
            runs.append([msgspec.structs.replace(level, metrics=metrics)])
        sides.append(a_side(*runs))
    found = paired(*sides)
    assert found.summary.sentence.startswith("B is faster at 0.5 requests/s: 0.5 times the E2E p50; not known: ")


def test_prefill_and_decode_are_speeds_of_ttft_and_tpot():
    """50 prompt tokens: of one user prefill is 50 tokens over TTFT, of more it has queueing and is left out."""
    a, b = lucky({1: 30, 4: 60}), lucky({1: 60, 4: 90}, ttft=0.5)
    found = paired(a, b)
    rows = {(row.level, row.metric): row for row in (*found.comparisons, *found.speed)}
    assert ("users=4", PREFILL) not in rows
    prefill, ttft = rows["users=1", PREFILL], rows["users=1", "ttft_p50"]
    assert prefill.a == pytest.approx(50 / ttft.a)
    assert prefill.ratio == pytest.approx(1 / ttft.ratio) == pytest.approx(2)
    assert prefill.interval == pytest.approx((1 / ttft.interval[1], 1 / ttft.interval[0]))
    assert (prefill.decision, prefill.confidence) == ("faster", ttft.confidence)
    for label in ("users=1", "users=4"):
        decode = rows[label, DECODE]
        assert decode.b == pytest.approx(1 / rows[label, "tpot_p50"].b) == pytest.approx(50)
        assert decode.decision == "~"


def test_prompts_from_a_cache_say_nothing_about_prefill():
    """The server did not read them."""
    level = figures(1)
    cached = msgspec.structs.replace(level, tokens=msgspec.structs.replace(level.tokens, cached_requests=3))
    found = paired(a_side([level], [level]), a_side([cached], [cached]))
    assert {row.metric for row in found.speed} == {DECODE}


def test_the_speeds_change_no_interval_of_the_others():
    """They are other views of figures that are there, and no further chances of a difference."""
    a, b = lucky({1: 30}), lucky({1: 33})
    found = compare(a, b)
    level = figures(1)
    none = msgspec.structs.replace(level.tokens, cached_requests=1)

    def hidden(runs):
        return [
            msgspec.structs.replace(run, levels=[msgspec.structs.replace(one, tokens=none) for one in run.levels])
            for run in runs
        ]

    assert compare(hidden(a), hidden(b)).comparisons == found.comparisons


def test_the_comparison_of_a_cpu_with_a_gpu_that_is_kept_with_the_code():
    """Its figures, read from its runs: 64 prompt tokens, TTFT 75.3 and 12.5 ms; 16 users were too many for the CPU."""
    found = comparison_in(RESULTS / "20261128T044037Z-cpu-against-gpu")
    assert found.summary.sentence == (
        "B is faster at every load that is compared (1 to 4 users): 12.3 to 16.9 times the tokens/s at 4 users; not "
        "known: energy per token (only B has it: 0.0944 to 0.473 J), cost per token, what happens at 16 users "
        "(INVALID; B alone: 1,718 tokens/s), which responses are better."
    )
    rows = {(row.level, row.metric): row for row in found.speed}
    assert set(rows) == {("users=1", PREFILL), ("users=1", DECODE), ("users=4", DECODE)}
    assert rows["users=1", PREFILL].a == pytest.approx(64 / 0.0753, rel=0.01)
    assert rows["users=1", PREFILL].b == pytest.approx(64 / 0.0125, rel=0.01)
    assert rows["users=1", DECODE].ratio == pytest.approx(15.2, rel=0.01)
    assert found.a.memory.process_bytes == pytest.approx(2.19 * 2**30, rel=0.01)
    assert (found.a.memory.board_bytes, found.b.memory.board_of) == (None, "process")
    assert found.b.memory.board_bytes == 2678063104
    assert found.a.cold_start.cold_ttft_s == pytest.approx(0.0512, rel=0.01)
    # One figure has one interval: that of the table, in the sentence too.
    (over_all,) = (row for row in found.overall if row.metric == "ttft_p50")
    assert f"{over_all.ratio:.3f}x ({over_all.interval[0]:.3f}-{over_all.interval[1]:.3f}) A's" in found.conclusion
    # An older version had another rule for the means over the loads.
    assert "recomputed" in {caveat.code for caveat in found.caveats}
    assert found.conclusion.startswith("B is 14.4x (12.3-16.9) as fast as A in output tokens/s at every level; ")
    assert "; B's TTFT p50 is 0.143x (0.122-0.167) A's, averaged over the levels (0.0554-0.271 at" in found.conclusion


def uneven_tpot(factor, *, ttft, name):
    """Six runs whose times per token are so many times the usual on average, and differ by half from run to run."""
    runs = lucky({1: 100, 8: 400}, ttft=ttft, name=name)
    for place, (run, luck) in enumerate(zip(runs, (1.5, 0.6, 1.4, 0.7, 1.6, 0.55), strict=True)):
        levels = []
        for level in run.levels:
            metric = level.metrics["tpot_s"]
            p50 = metric.p50 * (factor * luck if level.load.users == 8 else 1.0)
            metrics = {**level.metrics, "tpot_s": msgspec.structs.replace(metric, p50=p50)}
            levels.append(msgspec.structs.replace(level, metrics=metrics))
        runs[place] = msgspec.structs.replace(run, levels=levels)
    return runs


@pytest.mark.parametrize(("side", "place"), [("B", 0), ("A", 1)])
def test_what_a_side_may_pay_for_being_sooner_is_said_where_it_is_not_ruled_out(side, place):
    """First tokens come in half the time, and tokens perhaps in 1.5 times, which the runs do not decide."""
    sides = [uneven_tpot(1.0, ttft=1.0, name="a"), uneven_tpot(1.5, ttft=0.5, name="b")]
    slow = uneven_tpot(1.0, ttft=1.0, name="a")
    sides = [[slow[turn] for turn in (1, 0, 3, 2, 5, 4)], sides[1]]
    found = paired(sides[place], sides[1 - place])
    (row,) = (row for row in found.comparisons if (row.level, row.metric) == ("users=8", "tpot_p50"))
    low, high = row.interval
    assert (row.decision, low < 1 < high) == ("~", True)
    said = f"it is not ruled out that {side}'s TPOT p50 is longer at 8 users (B measured {row.ratio:.3g} times A's; "
    assert f"; {said}the interval is {low:.3g} to {high:.3g})" in found.summary.sentence


def test_a_loss_that_is_small_or_ruled_out_is_not_mentioned():
    """The times per token of both sides are the same; and twice as long on a side is a difference, not a doubt."""
    assert "ruled out" not in paired(lucky({1: 100}), lucky({1: 100}, ttft=0.5, name="b")).summary.sentence
    a, b = lucky({1: 100, 8: 400}), lucky({1: 100, 8: 400}, ttft=2.0, name="b")
    assert "ruled out" not in paired(a, b).summary.sentence


def test_eight_slots_may_make_each_token_slower():
    """Of the comparison that is kept with the code: TTFT is better at 8 users, and TPOT is not decided there."""
    found = comparison_in(RESULTS / "20261125T004812Z-llamacpp-4-against-8-slots")
    assert (
        "; it is not ruled out that B's TPOT p50 is longer at 8 users (B measured 1.92 times A's; the interval is "
        "0.955 to 3.85); "
    ) in found.summary.sentence
