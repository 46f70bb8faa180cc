"""Rules as people write them: what is read, how it is shown, and what is refused with which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.core.errors import BadInput
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Closed, Open
from loadbench.plan.objective import FAILURES, LATENCIES, POINTS, RATES, Objective, parse_abort, parse_objective
from loadbench.plan.sources import resolve
from loadbench.record.recorder import METRICS

MS, S = 1_000_000, 1_000_000_000


@pytest.mark.parametrize(
    ("written", "read", "shown"),
    [
        ("ttft_p95<1s", Objective("ttft", "p95", "<", S), "ttft_p95<1s"),
        (" ttft_response_p50 < 250 ms ", Objective("ttft_response", "p50", "<", 250 * MS), "ttft_response_p50<250ms"),
        ("tpot_mean<80ms", Objective("tpot", "mean", "<", 80 * MS), "tpot_mean<80ms"),
        ("tpot_classic_p999<1.5s", Objective("tpot_classic", "p999", "<", 1500 * MS), "tpot_classic_p999<1.5s"),
        ("event_gap_max<2m", Objective("event_gap", "max", "<", 120 * S), "event_gap_max<2m"),
        ("failures<1%", Objective("failures", "", "<", 0.01), "failures<1%"),
        ("failures<0.025", Objective("failures", "", "<", 0.025), "failures<2.5%"),
        ("requests_per_s>30/min", Objective("requests_per_s", "", ">", 0.5), "requests_per_s>0.5"),
        ("output_tokens_per_s>120", Objective("output_tokens_per_s", "", ">", 120.0), "output_tokens_per_s>120"),
        ("ttft_p95<2s@users=16", Objective("ttft", "p95", "<", 2 * S, "users=16"), "ttft_p95<2s@users=16"),
        ("e2e_p99<10s @ rate=30/min", Objective("e2e", "p99", "<", 10 * S, "rate=0.5"), "e2e_p99<10s@rate=0.5"),
    ],
)
def test_objective_is_read_and_shown(written, read, shown):
    """Name, point, sense, bound in base units and level; shown in one form that reads back the same."""
    assert parse_objective(written) == read
    assert read.rule == shown
    assert parse_objective(shown) == read


@given(
    metric=st.sampled_from(LATENCIES),
    point=st.sampled_from(POINTS),
    bound=st.integers(1, 10**6).map(lambda ms: ms * MS),
    at=st.sampled_from(["", "users=3", "rate=0.25"]),
)
def test_every_rule_reads_back_as_it_is_shown(metric, point, bound, at):
    """What a report or a result shows can be given again."""
    rule = Objective(metric, point, "<", bound, at)
    assert parse_objective(rule.rule).rule == rule.rule
    assert parse_objective(rule.rule).bound == pytest.approx(bound, rel=1e-5)


def test_names_are_those_of_the_metrics():
    """Whatever is a figure of requests can be named; only the client's own delays cannot."""
    assert set(METRICS) - set(LATENCIES) == {"lateness", "connect"}
    assert set(LATENCIES) < set(METRICS)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("tttf_p95<1s", ["did you mean ttft_p95?"]),
        ("ttft_s_p95<1s", ["did you mean ttft_p95?"]),
        ("failure<1%", ["did you mean failures?"]),
        ("weather<1s", ["'weather'", "known are failures", "tpot"]),
        ("ttft<1s", ["which of its values", "ttft_p95"]),
        ("ttft_p96<1s", ["'p96'", "p50, p90, p95"]),
        ("lateness_p99<1ms", ["lateness_p99"]),
        ("ttft_p95>1s", ["upper bound", "<"]),
        ("requests_per_s<3", ["lower bound", ">"]),
        ("ttft_p95<=1s", ["'<='", "< or >"]),
        ("ttft_p95=1s", ["'='", "< or >"]),
        ("ttft_p95<1", ["'1'", "250ms"]),
        ("ttft_p95<0", ["above 0"]),
        ("failures<0%", ["above 0"]),
        ("failures<101%", ["0% to 100%"]),
        ("failures<few", ["'few'", "1%"]),
        ("requests_per_s>fast", ["'fast'", "10/s"]),
        ("ttft_p95<1s@users=many", ["users=8"]),
        ("ttft_p95<1s@level=3", ["users=8", "rate=0.5"]),
        ("ttft_p95", ["want a rule such as"]),
        ("", ["want a rule such as"]),
        (3, ["found 3"]),
    ],
)
def test_wrong_rule_is_refused(written, words):
    """The message has what was found and what is wanted, or the nearest name."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_objective(written)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(("written", "bound"), [("failures>20%", 0.2), ("ttft_p50>30s", 30 * S)])
def test_abort_rule_is_the_other_way_round(written, bound):
    """A level is aborted by what is above a bound."""
    rule = parse_abort(written)
    assert (rule.bound, rule.rule) == (bound, written)


@pytest.mark.parametrize("written", ["failures<20%", "ttft_p50<30s", "requests_per_s>3", "requests_per_s<3"])
def test_abort_rule_of_the_wrong_kind(written):
    """What is below a bound is no reason to abort; nor is a throughput, which takes a level to know."""
    with pytest.raises(ValueError, match="aborted"):
        parse_abort(written)


def test_rule_speaks_of_one_level_or_of_all():
    """By the level's label."""
    poisson = parse_arrivals("poisson")
    everywhere, at_eight = parse_objective("ttft_p95<1s"), parse_objective("ttft_p95<1s@users=8")
    at_half = parse_objective("ttft_p95<1s@rate=0.50")
    for load in (Closed(8), Closed(80), Open(0.5, poisson), Open(8, poisson)):
        assert everywhere.applies(load.label)
        assert at_eight.applies(load.label) == (load == Closed(8))
        assert at_half.applies(load.label) == (load == Open(0.5, poisson))


# In a scenario.


def scenario(**flags):
    """The scenario of these flags, at 1 and 8 users."""
    return resolve(flags={"users": "1,8", **flags}, environment={})


def gates(made) -> dict[str, bool]:
    """The scenario's rules, and whether each is a gate."""
    return {objective.rule: objective.gate for objective in made.objectives}


def test_objectives_alone_are_no_gates():
    """--slo reports."""
    made = scenario(objectives=("ttft_p95<1s", "failures<1%"))
    assert gates(made) == {"ttft_p95<1s": False, "failures<1%": False}


def test_gate_is_an_objective_too():
    """--fail-on names an objective or adds one, each once; `slo` makes gates of all."""
    named = scenario(objectives=("ttft_p95<1s", "failures<1%"), fail_on=("failures<0.01", "e2e_max<9s"))
    assert gates(named) == {"ttft_p95<1s": False, "failures<1%": True, "e2e_max<9s": True}
    every = scenario(objectives=("ttft_p95<1s", "failures<1%"), fail_on=("slo",))
    assert gates(every) == {"ttft_p95<1s": True, "failures<1%": True}


def test_level_has_the_objectives_that_speak_of_it():
    """Those for all, and its own."""
    made = scenario(objectives=("ttft_p95<1s", "ttft_p95<2s@users=8"))
    assert [one.rule for one in made.objectives_at(Closed(1))] == ["ttft_p95<1s"]
    assert [one.rule for one in made.objectives_at(Closed(8))] == ["ttft_p95<1s", "ttft_p95<2s@users=8"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"fail_on": ("slo",)}, ["--fail-on", "no objectives", "--slo"]),
        ({"objectives": ("ttft_p95<1s@users=2",)}, ["users=2", "users=1, users=8"]),
        ({"fail_on": ("ttft_p95<1s@rate=2",)}, ["rate=2", "users=1, users=8"]),
        ({"abort_on": ("failures>20%@users=9",)}, ["users=9"]),
        ({"objectives": ("tttf_p95<1s",)}, ["--slo", "did you mean ttft_p95?"]),
        ({"objectives": ("ttft_p95<1s", "ttft_p95 < 1s")}, ["--slo", "each value once"]),
        ({"abort_on": ("failures<20%",)}, ["--abort-on", "above a bound"]),
    ],
)
def test_rule_that_nothing_is_held_against(flags, words):
    """I1: a gate that no level can miss would pass for one that is met, so it is refused beforehand."""
    with pytest.raises(BadInput) as caught:
        scenario(**flags)
    for word in words:
        assert word in str(caught.value)


def test_rules_from_a_file_and_from_the_environment(tmp_path):
    """[slo] holds lists; a variable has commas; the record shows the rules as they are written."""
    file = tmp_path / "mine.toml"
    file.write_text(
        '[slo]\nobjectives = ["ttft_p95<1s", "failures<1%"]\nfail_on = "slo"\nabort_on = ["failures>20%"]\n'
    )
    made = resolve(flags={}, environment={}, file=file)
    assert gates(made) == {"ttft_p95<1s": True, "failures<1%": True}
    assert made.effective()["slo"] == {
        "objectives": ["ttft_p95<1s", "failures<1%"],
        "fail_on": ["slo"],
        "abort_on": ["failures>20%"],
        "undecided": None,
    }
    variables = {"LOADBENCH_SLO": "e2e_p99<10s,tpot_p95<80ms", "LOADBENCH_FAIL_ON": "e2e_p99<10s"}
    assert gates(resolve(flags={}, environment=variables)) == {"e2e_p99<10s": True, "tpot_p95<80ms": False}


def test_wrong_rule_in_a_file_is_found(tmp_path):
    """By file, line and key."""
    file = tmp_path / "mine.toml"
    file.write_text('[slo]\n\nobjectives = ["tttf_p95<1s"]\n')
    with pytest.raises(BadInput, match=r"mine.toml:3: slo.objectives: .*did you mean ttft_p95"):
        resolve(flags={}, environment={}, file=file)


def test_kinds_of_names_do_not_overlap():
    """A name is a latency, a rate or the failures."""
    assert len({FAILURES, *RATES, *LATENCIES}) == 1 + len(RATES) + len(LATENCIES)
