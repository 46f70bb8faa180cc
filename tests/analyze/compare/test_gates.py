"""Gates: decided by where the interval lies, never by the change alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from loadbench.analyze.compare.effect import BetweenRuns, Effect
from loadbench.analyze.compare.gates import MeasuredChange, decide
from loadbench.analyze.stats import student
from loadbench.plan.gate import parse_gate
from loadbench.results.compare import NO_SAMPLES, LeftOut


def an_effect(change: float, *, error: float = 0.01, freedom: float = 10) -> Effect:
    """A change of so much, 0.1 for 10 % more."""
    return Effect(math.log1p(change), error, error, freedom)


def decided(*rules: str, levels=("users=1",), left_out=(), **effects: Effect):
    """The gates, with the same effects at every level."""
    seen = {(level, metric): MeasuredChange(effect) for level in levels for metric, effect in effects.items()}
    return decide([parse_gate(rule) for rule in rules], seen, left_out, levels=levels, confidence=0.95)


@pytest.mark.parametrize(
    ("change", "error", "decision"),
    [
        (0.10, 0.01, "FAIL"),  # 7.6 % to 12.5 %: all of it beyond 5 %
        (0.10, 0.03, "UNDECIDED"),  # 2.9 % to 17.6 %: 10 % were seen, and 5 % may be true
        (0.00, 0.01, "PASS"),
        (0.04, 0.01, "UNDECIDED"),  # up to 6.3 %
        (0.03, 0.001, "PASS"),  # surely slower, and surely by less than 5 %
        (-0.20, 0.05, "PASS"),  # faster
    ],
)
def test_where_the_interval_lies_decides(change, error, decision):
    """Beyond the bound, within it, or across."""
    (gate,) = decided("ttft_p95>5%", ttft_p95=an_effect(change, error=error))
    (check,) = gate.checks
    assert check.decision == decision
    assert gate.passed is {"PASS": True, "FAIL": False, "UNDECIDED": None}[decision]
    assert check.ratio == pytest.approx(1 + change)
    assert check.interval is not None
    assert check.interval[0] <= 1 + change <= check.interval[1]


def test_a_fall_of_throughput_is_worse():
    """10 % less fails a gate at -5 %, 10 % more passes it."""
    (gate,) = decided("output_tokens_per_s<-5%", output_tokens_per_s=an_effect(-0.1))
    assert gate.passed is False
    (gate,) = decided("output_tokens_per_s<-5%", output_tokens_per_s=an_effect(0.1))
    assert gate.passed is True


def test_no_change_at_all_is_not_worse_than_none():
    """Two exact servers pass a gate at 0 %."""
    (gate,) = decided("ttft_p95>0%", ttft_p95=an_effect(0.0, error=0.0))
    assert gate.passed is True


def test_failures_are_held_against_in_percentage_points():
    """A share of 3 points more, surely, is beyond 1 point."""
    (gate,) = decided("failures>1%", failures=Effect(0.03, 0.005, 0.005))
    assert gate.passed is False
    assert gate.checks[0].ratio is None


def test_what_has_no_samples_fails():
    """A figure that was not measured, and a level that nobody has."""
    missing, elsewhere = decided("ttft_p95>5%", "tpot_p50>5%@users=16", tpot_p50=an_effect(0.0))
    assert (missing.passed, elsewhere.passed) == (False, False)
    assert "nothing was measured that this rule could check" in missing.checks[0].note
    assert elsewhere.checks[0].level == "users=16"


def test_what_was_left_out_is_undecided_with_its_reason():
    """A figure that may not be compared, and a level that is INVALID; another run's absence is no reason."""
    left_out = [
        LeftOut(level="users=1", run="b 2", code="invalid", message="b: late"),
        LeftOut(level="users=1", metric="ttft_p95", code="other_prompts", message="other prompts were asked"),
        LeftOut(level="users=4", code="invalid", message="a: late"),
    ]
    (gate,) = decided("ttft_p95>5%", levels=("users=1", "users=4"), left_out=left_out)
    assert [(check.decision, check.note) for check in gate.checks] == [
        ("UNDECIDED", "other prompts were asked"),
        ("UNDECIDED", "the level is INVALID"),
    ]


def test_refused_effects_are_shown_and_not_decided():
    """As of two runs a side."""
    seen = {("users=1", "ttft_p95"): MeasuredChange(an_effect(1.0), "too few")}
    (gate,) = decide([parse_gate("ttft_p95>5%")], seen, [], levels=["users=1"], confidence=0.95)
    assert (gate.passed, gate.checks[0].note, gate.checks[0].ratio) == (None, "too few", pytest.approx(2.0))


def test_many_checks_share_the_chance_of_a_false_alarm():
    """What one check alone would fail by a hair, it does not fail among ten; to pass needs no such care."""
    barely = an_effect(1.05 * math.exp(2.3 * 0.01) - 1)
    levels = [f"users={n}" for n in range(1, 11)]
    assert decided("ttft_p95>5%", ttft_p95=barely)[0].passed is False
    among = decided("ttft_p95>5%", levels=levels, ttft_p95=barely)[0]
    assert {check.decision for check in among.checks} == {"UNDECIDED"}
    assert decided("ttft_p95>5%", levels=levels, ttft_p95=an_effect(0.02))[0].passed is True


def test_a_gate_fails_where_any_level_does():
    """And passes where all do."""
    seen = {
        ("users=1", "ttft_p95"): MeasuredChange(an_effect(0.0)),
        ("users=4", "ttft_p95"): MeasuredChange(an_effect(0.5)),
    }
    rules = [parse_gate("ttft_p95>5%"), parse_gate("ttft_p95>5%@users=1")]
    gates = decide(rules, seen, [], levels=["users=1", "users=4"], confidence=0.95)
    assert [gate.passed for gate in gates] == [False, True]


@pytest.mark.parametrize(
    ("change", "error", "decision"),
    [(-0.10, 0.01, "FAIL"), (-0.10, 0.03, "UNDECIDED"), (-0.04, 0.01, "UNDECIDED"), (-0.03, 0.001, "PASS")],
)
def test_a_fall_of_throughput_is_decided_by_its_interval_too(change, error, decision):
    """All of it below -5 %, across, or above; the interval is that of the ratio, and excludes 0.95 where it decides."""
    (check,) = decided("output_tokens_per_s<-5%", output_tokens_per_s=an_effect(change, error=error))[0].checks
    assert check.decision == decision
    low, high = check.interval
    assert low < 1 + change < high
    assert (high < 0.95, low > 0.95) == (decision == "FAIL", decision == "PASS")


def test_the_interval_that_is_shown_is_that_of_the_decision():
    """Among ten checks it contains the bound that it excludes alone; the p value is the adjusted one."""
    barely = an_effect(1.05 * math.exp(2.3 * 0.01) - 1)
    (alone,) = decided("ttft_p95>5%", ttft_p95=barely)[0].checks
    among = decided("ttft_p95>5%", levels=[f"users={n}" for n in range(1, 11)], ttft_p95=barely)[0].checks
    assert alone.interval[0] > 1.05
    assert among[0].p_value == pytest.approx(10 * alone.p_value)
    assert all(check.interval[0] < 1.05 < check.interval[1] for check in among)
    # Just so wide that it has the confidence of its check: twice as many checks, half the chance of error.
    two = decided("ttft_p95>5%", levels=["users=1", "users=2"], ttft_p95=barely)[0].checks
    assert two[0].interval == pytest.approx(barely.ratio_interval(0.975, math.log(1.05)))


@pytest.mark.parametrize(("p_value", "decision"), [(0.0249, "FAIL"), (0.0251, "UNDECIDED")])
def test_half_of_the_chance_of_error_is_on_the_worse_side(p_value, decision):
    """2.5 % for a confidence of 95 %."""
    distance = student.quantile(1 - p_value, 10)
    (check,) = decided("ttft_p95>5%", ttft_p95=an_effect(1.05 * math.exp(distance * 0.01) - 1))[0].checks
    assert (check.p_value, check.decision) == (pytest.approx(p_value), decision)


def test_what_is_undecided_says_what_would_decide_it():
    """The advice of the change, or to measure more; what is decided needs no note."""
    near = "too close to the bound"
    for change, advice, note in ((0.04, "", near), (0.04, "run five", "run five"), (0.0, "run five", "")):
        seen = {("users=1", "ttft_p95"): MeasuredChange(an_effect(change), advice=advice)}
        (gate,) = decide([parse_gate("ttft_p95>5%")], seen, [], levels=["users=1"], confidence=0.95)
        assert (note in gate.checks[0].note, bool(gate.checks[0].note)) == (True, bool(note))


def test_a_figure_without_samples_fails_and_one_without_an_effect_is_undecided():
    """The first may be the fault of B; the second was measured."""
    message = "b has no response of two tokens"
    left_out = [
        LeftOut(level="users=1", metric="tpot_p50", code="other_lengths", message="another figure"),
        LeftOut(level="users=1", metric="ttft_p95", code=NO_SAMPLES, message=message),
    ]
    (gate,) = decided("ttft_p95>5%", left_out=left_out)
    assert (gate.passed, gate.checks[0].decision, gate.checks[0].note) == (False, "FAIL", message)
    seen = {("users=1", "ttft_p95"): MeasuredChange(None, "one pair has no spread")}
    (gate,) = decide([parse_gate("ttft_p95>5%")], seen, left_out, levels=["users=1"], confidence=0.95)
    assert (gate.passed, gate.checks[0].note) == (None, "one pair has no spread")


def test_refused_effects_take_no_part_in_the_adjustment():
    """Two checks of which one may not be decided are one."""
    barely = an_effect(1.05 * math.exp(2.3 * 0.01) - 1)
    seen = {("users=1", "ttft_p95"): MeasuredChange(barely), ("users=2", "ttft_p95"): MeasuredChange(barely, "too few")}
    (gate,) = decide([parse_gate("ttft_p95>5%")], seen, [], levels=["users=1", "users=2"], confidence=0.95)
    assert [check.decision for check in gate.checks] == ["FAIL", "UNDECIDED"]
    assert gate.checks[1].interval == pytest.approx(barely.ratio_interval(0.95, math.log(1.05)))


def test_the_rank_test_decides_and_shows_where_one_slow_run_hides_a_change():
    """Seven of eight runs of b are 15 % slower, one is 15 % faster: Student's interval contains the bound of -5 %."""
    steady = np.log(100.0) + 1e-4 * np.arange(8)
    hidden = steady + math.log(0.85)
    hidden[3] = math.log(115.0)
    effect = BetweenRuns(steady, hidden, paired=False).effect()
    alone = replace(effect, ranks=None).ratio_interval(0.95)
    assert alone[0] < 0.95 < alone[1] < 1.05
    (check,) = decided("output_tokens_per_s<-5%", output_tokens_per_s=effect)[0].checks
    assert check.decision == "FAIL"
    assert check.interval[1] < 0.95
    assert check.ratio == pytest.approx(0.85, rel=0.01)
