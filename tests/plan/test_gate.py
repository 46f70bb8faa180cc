"""Gates as people write them."""

from __future__ import annotations

import math

import pytest

from loadbench.plan.gate import METRICS, GateRule, parse_gate
from loadbench.plan.objective import RATES


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ("ttft_p95>5%", GateRule("ttft_p95", 0.05)),
        (" e2e_p50 > +10 % @ users = 8 ", GateRule("e2e_p50", 0.1, "users=8")),
        ("output_tokens_per_s<-5%", GateRule("output_tokens_per_s", -0.05)),
        ("requests_per_s<-2.5%@rate=0.50", GateRule("requests_per_s", -0.025, "rate=0.5")),
        ("requests_per_s<-2.5%@rate=30/min", GateRule("requests_per_s", -0.025, "rate=0.5")),
        ("failures>1%", GateRule("failures", 0.01)),
        ("failures>0.00001%", GateRule("failures", 1e-5 / 100)),
        ("requests_per_s<-1E-5%@rate=1e+06", GateRule("requests_per_s", -1e-5 / 100, "rate=1e+06")),
        ("tpot_p99>0%", GateRule("tpot_p99", 0.0)),
    ],
)
def test_rules_are_read_and_shown_in_one_form(written, rule):
    """What is shown is read back as the same."""
    assert parse_gate(written) == rule
    assert parse_gate(rule.rule) == rule


def test_every_figure_that_is_compared_can_be_a_gate():
    """Latencies rise, throughputs fall."""
    for metric in METRICS:
        assert parse_gate(f"{metric}<-5%" if metric in RATES else f"{metric}>5%").metric == metric


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("ttft_p95>5", "want a rule such as"),
        ("ttft_p95", "want a rule such as"),
        ("ttft>5%", "not a figure that is compared"),
        ("ttft_p90>5%", "not a figure that is compared"),
        ("ttft_p95<-5%", "rises, with >"),
        ("output_tokens_per_s>5%", "falls, with <"),
        ("output_tokens_per_s<5%", "worse side of no change, as in 'output_tokens_per_s<-5%'"),
        ("ttft_p95>-5%", "worse side of no change"),
        ("requests_per_s<-100%", "nothing falls by 100 %"),
        ("failures>100%", "nothing can be worse"),
        (f"ttft_p95>{'9' * 400}%", "nothing can be worse"),
        ("ttft_p95>5%@users=0", "want the level as users=8"),
        ("ttft_p95>5%@users=1.5", "want the level as users=8"),
        ("ttft_p95>5%@rate=0", "want the level as users=8"),
        ("ttft_p95>5%@users=1.2.3", "want the level as users=8"),
        (5, "want a rule such as"),
    ],
)
def test_what_is_no_rule_is_refused_with_what_is_wanted(written, said):
    """Each with its reason."""
    with pytest.raises(ValueError, match=said):
        parse_gate(written)


def test_bounds_are_on_the_ratio_turned_so_that_up_is_worse():
    """5 % more time is log 1.05; 5 % fewer tokens is -log 0.95."""
    assert parse_gate("ttft_p95>5%").log_bound == pytest.approx(math.log(1.05))
    assert parse_gate("output_tokens_per_s<-5%").log_bound == pytest.approx(-math.log(0.95))
