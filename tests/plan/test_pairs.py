"""Sides, order and budget of a comparison, before anything is measured."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.core.errors import BadInput
from loadbench.plan.pairs import (
    Pairing,
    a_first,
    at_repeat,
    blocks,
    check_budget,
    is_target,
    order_text,
    planned_ns,
    sides,
)
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import CompareSettings, LoadSettings, TargetSettings
from loadbench.plan.sources import resolve

S = 1_000_000_000
A, B = "http://127.0.0.1:1", "http://127.0.0.1:2"


def a_scenario(*, a_model=None, b_model=None, same=False, **target) -> Scenario:
    """The defaults, but for the target and what names the sides."""
    compare = CompareSettings(a_model=a_model, b_model=b_model, same=same)
    return Scenario(command="compare", target=TargetSettings(**target), compare=compare)


@given(repeats=st.integers(1, 16), levels=st.integers(1, 6), seed=st.integers(0, 1000))
def test_each_block_comes_once_and_pairs_stay_together(repeats, levels, seed):
    """Every level is measured once on each side in every repeat, the two one right after the other."""
    for repeat in range(repeats):
        found = list(blocks(repeat, levels, seed=seed))
        assert Counter((one.level, one.side) for one in found) == Counter(
            {(level, side): 1 for level in range(levels) for side in (0, 1)}
        )
        for first, second in zip(found[::2], found[1::2], strict=True):
            assert (first.level, first.repeat) == (second.level, repeat)
            assert {first.side, second.side} == {0, 1}


@given(level=st.integers(0, 50), seed=st.integers(0, 2**53))
def test_order_is_balanced(level, seed):
    """Over 2 repeats A is as often first as B; over 8, rises that are steady or curved come to the same on both."""
    first = [1 if a_first(repeat, level, seed=seed) else -1 for repeat in range(8)]
    assert [first[n] + first[n + 1] for n in range(0, 8, 2)] == [0] * 4
    assert sum(sign * repeat for repeat, sign in enumerate(first)) == 0
    assert sum(sign * repeat**2 for repeat, sign in enumerate(first)) == 0


def test_seed_decides_who_begins():
    """Some seeds begin with A, some with B, each always with the same."""
    begins = [order_text(4, 0, seed=seed) for seed in range(50)]
    assert set(begins) == {"AB BA BA AB", "BA AB AB BA"}
    assert begins == [order_text(4, 0, seed=seed) for seed in range(50)]


def test_repeats_have_seeds_of_their_own():
    """Repeat r has the scenario's seed plus r, and all else as it was."""
    scenario = a_scenario(url=A)
    found = at_repeat(scenario, 3)
    assert found.work.seed == scenario.work.seed + 3
    assert found.load == scenario.load


def test_budget_counts_what_is_spent():
    """A repeat as long as what is left just fits."""
    pairing = Pairing(budget_ns=100)
    assert pairing.fits(spent_ns=60, repeat_ns=40)
    assert not pairing.fits(spent_ns=61, repeat_ns=40)
    assert Pairing().fits(spent_ns=10**20, repeat_ns=1)


@pytest.mark.parametrize(
    ("given_", "most"), [({}, 8), ({"repeats": 9}, 9), ({"budget_ns": 1}, 20), ({"repeats": 2, "budget_ns": 1}, 2)]
)
def test_most_repeats(given_, most):
    """Eight unless it is said otherwise; what a budget buys is limited too."""
    assert Pairing(**given_).most == most


def test_planned_time_has_rests_and_warm_ups():
    """Two levels of 10 s after 5 s of warm-up and 1 s of rest, on both sides: 64 s; by number it is not known."""
    load = LoadSettings(users=(1, 2), duration=10 * S, warm_up=5 * S)
    assert planned_ns(Scenario(load=load), Pairing()) == 64 * S
    counted = LoadSettings(users=(1, 2), duration=None, requests=10)
    assert planned_ns(Scenario(load=counted), Pairing()) is None


def test_budget_too_small_for_one_repeat_is_refused():
    """What cannot hold one repeat is said before anything is started; what just can is taken."""
    plan = Scenario(load=LoadSettings(users=(1, 2), duration=10 * S, warm_up=5 * S))
    check_budget(plan, Pairing(budget_ns=64 * S))
    check_budget(plan, Pairing())
    with pytest.raises(BadInput, match="--budget 1m3s: one repeat takes 1m4s") as caught:
        check_budget(plan, Pairing(budget_ns=63 * S))
    assert "8 take 8m32s" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("http://127.0.0.1:8080", True),
        ("url=http://x,model=y", True),
        ("model=y", True),
        ("profile=small-gpu", True),
        ("127.0.0.1:8080", True),
        ("my-box:8080/v1", True),
        ("results/20260101T120000Z-sweep", False),
        ("run.json", False),
        ("a=b", False),
        ("runs/a:1", False),
    ],
)
def test_targets_are_told_from_saved_runs(text, target):
    """A URL, or a setting of the target, is measured; everything else is the path of a run."""
    assert is_target(text) is target


def test_side_says_what_the_scenario_does_not():
    """A side has the scenario's target but for what it says itself, and its origins tell so."""
    a, b = sides(a_scenario(url=A, api="completions"), a="model=x", b=f"url={B}/v1,model=y,api=chat")
    assert (a.target.url, a.target.model, a.target.api) == (A, ("x",), "completions")
    assert (b.target.url, b.target.model, b.target.api) == (f"{B}/v1", ("y",), "chat")
    assert str(a.origins["target.model"]) == "flag --a"
    assert "target.url" not in a.origins
    assert str(b.origins["target.url"]) == "flag --b"


def test_two_models_of_one_server():
    """`--url` with `--a-model` and `--b-model` is enough."""
    a, b = sides(a_scenario(url=A, a_model="x", b_model="y"))
    assert (a.target.url, a.target.model) == (A, ("x",))
    assert (b.target.url, b.target.model) == (A, ("y",))


def test_one_thing_on_both_sides_must_be_meant():
    """The same server and model twice is refused unless `same` says that it is meant."""
    with pytest.raises(BadInput, match="same server and model"):
        sides(a_scenario(), a=A, b=A)
    a, b = sides(a_scenario(same=True), a=A, b=A)
    assert a.target == b.target


@pytest.mark.parametrize("spelling", ["http://localhost:8080", "http://LocalHost:8080/"])
def test_spellings_of_one_server_are_one(spelling):
    """`localhost` and 127.0.0.1 are the same machine's; another port or host is another server."""
    with pytest.raises(BadInput, match="same server and model"):
        sides(a_scenario(), a="http://127.0.0.1:8080", b=spelling)
    for other in ("http://localhost:8081", "http://localhost.example:8080"):
        sides(a_scenario(), a="http://127.0.0.1:8080", b=other)


def test_side_that_rests_is_not_kept_warm():
    """Only one side is loaded at a time, so that `--keep-warm` is refused rather than ignored."""
    with pytest.raises(BadInput, match="--keep-warm: it would load the side that rests"):
        resolve(flags={"keep_warm": "1s"}, environment={}, command="compare")


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"a": "nonsense", "b": B}, "--a: url: found 'nonsense', want a URL"),
        ({"a": A, "b": "url=x"}, "--b: url: found 'x'"),
        ({"a": A, "b": f"url={B},modle=x"}, "--b: 'modle=x': want settings as in url=URL,model=ID"),
        ({"a": A, "b": f"url={B},url={B}"}, "--b: url is given twice"),
        ({"a": A, "b": f"url={B},insecure=perhaps"}, "--b: insecure: found 'perhaps', want true or false"),
        ({"a": f"url={A},model=x", "a_model": "y", "b": B}, "--a-model: --a names a model already"),
        ({"a": f"url={A},profile=small-gpu", "b": B}, "--a: url and profile"),
        ({"a": "127.0.0.1:8080", "b": B}, "--a: url: found '127.0.0.1:8080', want a URL"),
        ({"a": A}, "--b: names no server"),
        ({"b": A}, "--a: names no server"),
    ],
)
def test_unusable_side_is_refused(written, message):
    """The message names the flag, what was found there and what is wanted."""
    with pytest.raises(BadInput) as caught:
        sides(a_scenario(a_model=written.pop("a_model", None)), **written)
    assert message in caught.value.message


def test_several_models_are_no_side():
    """One model is compared with one other."""
    with pytest.raises(BadInput, match="--a: one model"):
        sides(a_scenario(url=A, model=("x", "y")), b=B)


def test_pairing_is_read_as_people_write_it():
    """Durations have units; what cannot be is refused by its flag."""
    flags = {"repeats": "4", "budget": "2m", "settle": "0s"}
    scenario = resolve(flags=flags, environment={}, command="compare")
    assert Pairing.of(scenario) == Pairing(repeats=4, budget_ns=120 * S, settle_ns=0)
    assert Pairing.of(resolve(flags={}, environment={}, command="compare")) == Pairing()
    for bad in ({"repeats": "0"}, {"repeats": "101"}, {"budget": "20"}, {"settle": "-1s"}):
        (flag,) = bad
        with pytest.raises(BadInput, match=f"--{flag}: "):
            resolve(flags=bad, environment={}, command="compare")
