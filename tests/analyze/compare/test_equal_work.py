"""Unequal work is not compared as if it were equal, and what may stand between two runs is told."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.compare.compare import compare
from loadbench.core.errors import BadInput
from loadbench.plan.gate import parse_gate
from loadbench.report.formats import render_comparison
from loadbench.results.run import Reason, WorkerHealth
from tests.analyze.comparing import LUCK, a_side, figures

USUAL = {"seed": 0, "max_tokens": 16, "temperature": 0.0, "prompt": "why?"}


def side(name: str, *, work: dict | None = None, prompt: int = 50, answer: int = 11, runs: int = 6, **over):
    """Runs whose prompts and answers have so many tokens on average; `over` is of their levels."""
    usual = figures(1)
    counted = msgspec.structs.replace(usual.tokens, input=400 * prompt, output=400 * answer)
    levels = ([msgspec.structs.replace(figures(1, tokens=100 * luck), tokens=counted, **over)] for luck in LUCK[:runs])
    return a_side(*levels, name=name, scenario={"load": {"users": [1]}, "work": USUAL | (work or {})})


def figures_of(comparison):
    """What is compared, without points."""
    return {row.metric.rpartition("_p")[0] if "_p5" in row.metric else row.metric for row in comparison.comparisons}


def codes(comparison):
    """Of what is left out, and of caveats."""
    return {one.code for one in comparison.left_out}, {one.code for one in comparison.caveats}


def test_equal_work_is_compared_in_full():
    """Every figure, and nothing to be said but that the runs are not in turns and of one target."""
    found = compare(side("a"), side("b"))
    assert codes(found) == (set(), {"not_in_turns", "same_target"})
    assert {"ttft", "tpot", "e2e", "output_tokens_per_s", "requests_per_s"} <= figures_of(found)


@pytest.mark.parametrize("runs", [1, 6])
def test_longer_answers_are_compared_per_token(runs):
    """Time to the first token, per token, and tokens per second stand; whole answers and answers per second do not."""
    found = compare(side("a", runs=runs), side("b", answer=12, runs=runs), gates=[parse_gate("e2e_p95>5%")])
    assert {"ttft", "tpot", "e2e_per_token", "output_tokens_per_s"} <= figures_of(found)
    assert not {"e2e", "requests_per_s"} & figures_of(found)
    assert codes(found)[0] - {"too_few_requests"} == {"answer_lengths"}
    message = "the responses of B are 9.1% longer on average than those of A"
    advice = " (--exact-output requests responses of exactly --max-tokens)"
    assert message + advice in {one.message for one in found.left_out}
    assert found.gates[0].passed is None


def test_prompts_that_were_requested_alike_may_be_a_little_longer():
    """4 % more tokens is how generated texts come out; of prompts that were requested otherwise it is a difference."""
    assert {"ttft", "e2e"} <= figures_of(compare(side("a"), side("b", prompt=52)))
    assert not {"ttft", "e2e"} & figures_of(compare(side("a"), side("b", prompt=53)))
    other = compare(side("a"), side("b", prompt=52, work={"prompt": "why not?"}))
    assert not {"ttft", "e2e"} & figures_of(other)


@pytest.mark.parametrize("runs", [1, 6])
def test_steadiness_is_part_of_the_spread_of_several_runs(runs):
    """A caveat that it is unknown is of interest where there is one run a side."""
    unknown = [Reason("steadiness_unknown", "too few", "measure for longer")]
    found = compare(side("a", runs=runs, caveats=unknown), side("b", runs=runs, caveats=unknown))
    assert ("steadiness_unknown" in codes(found)[1]) == (runs == 1)


def test_longer_prompts_leave_only_decoding():
    """Time per output token is all that is left."""
    found = compare(side("a"), side("b", prompt=60))
    assert {"tpot"} <= figures_of(found)
    assert not {"ttft", "e2e", "requests_per_s", "output_tokens_per_s"} & figures_of(found)
    assert "in TPOT p50" in found.conclusion


def test_lengths_within_two_per_cent_are_alike():
    """As for the verdict on a level."""
    assert codes(compare(side("a", prompt=100), side("b", prompt=101)))[0] == set()


def test_two_models_may_cut_the_same_text_into_other_tokens():
    """The prompts are the same: their first tokens are compared, and that tokens differ is said."""
    found = compare(side("a"), side("b", prompt=60, model="other"))
    assert "ttft" in figures_of(found)
    assert "two_models" in codes(found)[1]


@pytest.mark.parametrize(
    ("work", "code"), [({"prompt": "how?"}, "other_prompts"), ({"max_tokens": 32}, "other_lengths")]
)
def test_what_was_asked_must_be_the_same(work, code):
    """Whatever the lengths came to; both settings are named."""
    found = compare(side("a"), side("b", work=work))
    assert code in codes(found)[0]
    ((name, value),) = work.items()
    assert any(f"work.{name} ({USUAL[name]} and {value})" in one.message for one in found.left_out)
    assert "settings" in codes(found)[1]


def test_a_prompt_file_may_lie_elsewhere():
    """It is the same file by its name; its lengths are measured."""
    a, b = side("a", work={"prompts": "/here/chat.json"}), side("b", work={"prompts": "/there/chat.json"})
    assert codes(compare(a, b))[0] == set()


def test_settings_of_a_later_version_are_no_difference():
    """An older run does not know them."""
    assert "settings" not in codes(compare(side("a"), side("b", work={"new": 1})))[1]


@pytest.mark.parametrize(
    ("a", "b", "code"),
    [
        ({}, {"work": {"seed": 1}}, "seeds"),
        ({}, {"work": {"temperature": 1.0}}, "settings"),
        ({"finish_reasons": {"length": 400}}, {"finish_reasons": {"length": 300, "stop": 100}}, "finish_reasons"),
    ],
)
def test_what_may_stand_between_is_told(a, b, code):
    """And does not keep the rest from being compared."""
    found = compare(side("a", **a), side("b", **b))
    assert code in codes(found)[1]
    assert found.left_out == []


def test_users_who_gave_up_are_told_once_for_both_sides():
    """With the share of each side: the slower one lacks more of its slow responses. A few change nothing."""
    message = Reason("gave_up", "40 of 440 users gave up", "of one level")
    left = {"outcomes": {"ok": 400, "gave_up": 40}, "caveats": [message]}
    found = compare(side("a"), side("b", **left))
    (caveat,) = (one for one in found.caveats if one.code == "gave_up")
    assert caveat.message == "users gave up 0.0% of A's requests and 9.1% of B's"
    assert "failures" not in codes(found)[1]
    few = compare(side("a"), side("b", outcomes={"ok": 400, "gave_up": 4}, caveats=[message]))
    assert "gave_up" not in codes(few)[1]


def test_tokens_counted_or_cached_otherwise_are_told():
    """By usage and by events; from the cache."""
    a, b = side("a"), side("b")
    changed = [msgspec.structs.replace(b[0].levels[0].tokens, source={"events": 400}, cached_requests=7)] * len(b)
    b = [
        msgspec.structs.replace(run, levels=[msgspec.structs.replace(run.levels[0], tokens=tokens)])
        for run, tokens in zip(b, changed, strict=True)
    ]
    assert {"token_source", "cached"} <= codes(compare(a, b))[1]


@pytest.mark.parametrize(("key", "value"), [("host", "other"), ("cpu", "another"), ("stamp_source", "kernel")])
def test_another_client_is_told(key, value):
    """Its machine, its processor, its stamps."""
    b = [msgspec.structs.replace(run, environment={**run.environment, key: value}) for run in side("b")]
    assert key in codes(compare(side("a"), b))[1]


CLUSTER = {"address": "auto", "nodes": 2, "workers": [{"host": "n1"}, {"host": "n2"}]}
ON_CLUSTER = "3 workers on 2 nodes of the Ray cluster auto (n1, n2)"


@pytest.mark.parametrize(
    ("a", "b", "made"),
    [
        ({"workers": 1}, {"workers": 1}, ("", "")),
        ({"workers": 2}, {"workers": 2}, ("2 worker processes", "2 worker processes")),
        ({"workers": 1}, {"workers": 3, "cluster": CLUSTER}, ("", ON_CLUSTER)),
        ({"workers": 3}, {"workers": 3, "cluster": CLUSTER}, ("3 worker processes", ON_CLUSTER)),
        ({"workers": 3, "cluster": CLUSTER}, {"workers": 3, "cluster": CLUSTER}, (ON_CLUSTER, ON_CLUSTER)),
        ({"workers": 2}, {}, ("2 worker processes", "")),
    ],
)
def test_a_comparison_says_which_workers_made_the_load(a, b, made):
    """Of each side, in every form; other workers on the other side are a difference, where both are known."""
    sides = [
        [msgspec.structs.replace(run, environment={**run.environment, **about}) for run in side(name)]
        for name, about in (("a", a), ("b", b))
    ]
    found = compare(*sides)
    assert (found.a.load_from, found.b.load_from) == made
    told = [one.message for one in found.caveats if one.code == "load_from"]
    differ = f"different workers made the load: of A {made[0] or 'one process'}; of B {made[1] or 'one process'}"
    assert told == ([differ] if made[0] != made[1] and b else [])
    for form in ("text", "markdown", "json"):
        text = " ".join(render_comparison(found, form).split()).replace("\\", "")
        assert all(name in text for name in made)
        assert ("load from" in text or "load_from" in text) is (any(made) or form == "json")


@pytest.mark.parametrize(
    ("a", "b", "differ"),
    [
        ({"address": "auto", "head": "10.0.0.1:6379"}, {"address": "10.0.0.1:6379", "head": "10.0.0.1:6379"}, False),
        ({"address": "auto", "head": "10.0.0.1:6379"}, {"address": "auto", "head": "10.0.0.2:6379"}, True),
        ({"address": "auto", "nodes": 2}, {"address": "auto", "nodes": 8, "workers": [{"host": "n8"}]}, False),
        ({"address": "local:2", "head": "127.0.0.1:1"}, {"address": "local:4", "head": "127.0.0.1:2"}, False),
        ({"address": "local:2"}, {"address": "ray://10.0.0.1:10001"}, True),
    ],
)
def test_a_cluster_is_the_same_by_its_head(a, b, differ):
    """However it was named, and however many of its nodes have workers: how many make each load is compared, too."""
    sides = [
        [
            msgspec.structs.replace(run, environment={**run.environment, "workers": 2, "cluster": about})
            for run in side(name)
        ]
        for name, about in (("a", a), ("b", b))
    ]
    assert ("load_from" in codes(compare(*sides))[1]) is differ


def test_a_load_that_only_one_side_has_is_no_difference_in_who_made_it():
    """A small load has fewer workers: those of the loads that both have are compared."""
    both = []
    for loads in ((1,), (1, 4)):
        levels = []
        for users in loads:
            one = figures(users)
            health = [WorkerHealth(name="w", requests=9)] * min(users, 3)
            client = msgspec.structs.replace(one.client, workers=health)
            levels.append(msgspec.structs.replace(one, client=client))
        (run,) = a_side(levels, name="a")
        about = {**run.environment, "workers": 3, "cluster": CLUSTER}
        both.append([msgspec.structs.replace(run, environment=about)])
    found = compare(*both)
    assert found.b.load_from == f"1 worker (users=1), 3 workers (users=4); when last started {ON_CLUSTER}"
    assert "load_from" not in codes(found)[1]
    fewer = [msgspec.structs.replace(both[1][0].levels[0], client=both[1][0].levels[1].client)]
    assert "load_from" in codes(compare(both[0], [msgspec.structs.replace(both[1][0], levels=fewer)]))[1]


def test_a_side_of_which_runs_were_made_by_others_names_each():
    """A cluster and one process, for example."""
    a = side("a", runs=2)
    for at, about in enumerate(({"workers": 1}, {"workers": 3, "cluster": CLUSTER})):
        a[at] = msgspec.structs.replace(a[at], environment={**a[at].environment, **about})
    assert compare(a, side("b")).a.load_from == f"one process, and {ON_CLUSTER}"


def test_runs_of_one_side_that_were_asked_other_things_are_no_side():
    """16 tokens in one and 256 in the next: which of them would B be compared with?"""
    a = [*side("a", runs=3), *side("a", work={"max_tokens": 256}, runs=3)]
    with pytest.raises(
        BadInput, match=r"the runs of side a did not request the same work: work.max_tokens \(16 and 256\)"
    ):
        compare(a, side("b"))


def test_runs_of_one_side_that_differ_otherwise_are_told():
    """In how they were measured, and of which server."""
    a = side("a")
    a[1] = msgspec.structs.replace(a[1], scenario={**a[1].scenario, "load": {"users": [1], "warm_up": "9s"}})
    a[0] = msgspec.structs.replace(a[0], scenario={**a[0].scenario, "load": {"users": [1], "warm_up": "2s"}})
    moved = msgspec.structs.replace(a[2].levels[0], target="http://127.0.0.1:2/v1")
    a[2] = msgspec.structs.replace(a[2], levels=[moved])
    told = {one.code: one.message for one in compare(a, side("b")).caveats}
    assert "load.warm_up" in told["settings_within"]
    assert told["mixed_side"] == "A is 2 servers: m at http://127.0.0.1:1/v1, m at http://127.0.0.1:2/v1"


def test_latencies_of_survivors_are_told_to_be_that():
    """Where more fail than the usual limit allows, a quick answer is one that was given at all."""
    found = compare(side("a"), side("b", outcomes={"ok": 360, "http_error": 40}))
    told = {one.code: one.message for one in found.caveats}
    assert told["failures"].startswith("0.0% of A's requests failed and 10.0% of B's")
    usual = {"outcomes": {"ok": 396, "http_error": 4}}
    assert "failures" not in codes(compare(side("a", **usual), side("b", **usual)))[1]
    assert "failures" in codes(compare(side("a", **usual), side("b", outcomes={"ok": 395, "http_error": 5})))[1]


def test_caveats_of_levels_stay_with_them():
    """Heat that held one side down is said once, with how often."""
    hot = Reason("throttled_heat", "heat held the clocks of gpu0 down for 40% of the window", "cool it")
    told = [one for one in compare(side("a"), side("b", caveats=[hot])).caveats if one.code == "throttled_heat"]
    assert [one.message for one in told] == [f"B: {hot.message} (also at 5 more of 6 levels)"]
    told = [one for one in compare(side("a", caveats=[hot]), side("b", caveats=[hot])).caveats if one.code == hot.code]
    assert [one.message for one in told] == [f"A and B: {hot.message} (also at 11 more of 12 levels)"]


def test_the_number_of_servers_and_the_models_of_a_mix_are_told():
    """Two servers that share a load are one target; against one of them alone, that is what is compared."""
    both = ["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"]
    shared, alone = side("a", targets=both), side("b")
    comparison = compare(shared, alone)
    assert (comparison.a.targets, comparison.b.targets) == (both, [])
    assert f"m at {both[0]}, {both[1]}, " in render_comparison(comparison, "text")
    told = {one.code: one.message for one in comparison.caveats}
    assert told["servers"] == "the number of servers that shared the load differs: 2 and 1"
    assert not {"same_target", "mixed_side"} & set(told)
    same = {one.code: one.message for one in compare(shared, side("b", targets=both)).caveats}
    assert same["same_target"] == f"both sides are m at {both[0]} + {both[1]}"
    assert "servers" not in same
    mixed = [
        msgspec.structs.replace(run, scenario={**run.scenario, "target": {"mix_models": [f"m={weight}", "n=1"]}})
        for weight, of_side in ((3, side("a")), (1, side("b")))
        for run in of_side
    ]
    differ = {one.code: one.message for one in compare(mixed[:6], mixed[6:]).caveats}
    assert "target.mix_models" in differ["settings"]
