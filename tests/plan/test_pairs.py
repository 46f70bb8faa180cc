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


def a_scenario(*, a_model=None, b_model=None, a_cmd=None, same=False, **target) -> Scenario:
    """The defaults, but for the target and what names the sides."""
    compare = CompareSettings(a_model=a_model, b_model=b_model, a_cmd=a_cmd, same=same)
    urls = {"url": (target.pop("url"),)} if "url" in target else {}
    return Scenario(command="compare", target=TargetSettings(**target, **urls), compare=compare)


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
    assert (a.url, a.target.model, a.target.api) == (A, ("x",), "completions")
    assert (b.url, b.target.model, b.target.api) == (f"{B}/v1", ("y",), "chat")
    assert str(a.origins["target.model"]) == "flag --a: model"
    assert "target.url" not in a.origins
    assert str(b.origins["target.url"]) == "flag --b: url"


def test_two_models_of_one_server():
    """`--url` with `--a-model` and `--b-model` is enough."""
    a, b = sides(a_scenario(url=A, a_model="x", b_model="y"))
    assert (a.url, a.target.model) == (A, ("x",))
    assert (b.url, b.target.model) == (A, ("y",))


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


def test_side_without_a_server_is_told_how_the_other_got_its_own():
    """By a command, if that has one."""
    with pytest.raises(BadInput) as caught:
        sides(a_scenario(a_cmd="serve --port {port}"))
    assert caught.value.message == "--b: names no server"
    assert caught.value.hint == "--b-cmd COMMAND starts one; or --b URL, or --url where both are at one"


def test_several_models_are_no_side():
    """One model is compared with one other."""
    with pytest.raises(BadInput, match="--model: one model"):
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


def resolved(flags=None, environment=None, file=None) -> Scenario:
    """The scenario that `compare` reads from these sources."""
    return resolve(flags=flags or {}, environment=environment or {}, file=file, command="compare")


@pytest.mark.parametrize(
    ("name", "value", "a", "b"),
    [
        ("url", "http://127.0.0.1:3", A, B),
        ("url", "http://127.0.0.1:3", "profile=slot-server", "profile=small-gpu"),
        ("profile", "cpu-laptop", A, B),
        ("profile", "cpu-laptop", "profile=slot-server", "profile=small-gpu"),
        ("model", ["z"], f"url={A},model=x", f"url={A},model=y"),
        ("api", "chat", f"url={A},api=responses", f"url={A},api=ollama"),
        ("api_key_env", "K", f"url={A},api_key_env=K1", f"url={B},api_key_env=K2"),
        ("cacert", "ca.pem", "url=https://h:1,insecure=true", "url=https://h:2,cacert=b.pem"),
        ("insecure", True, A, B),
    ],
)
def test_a_shared_setting_that_no_side_uses_is_not_in_force(name, value, a, b):
    """A flag is refused with the reason; a variable is listed as not used, and recorded on neither side."""
    with pytest.raises(BadInput, match=f"--{name.replace('_', '-')}: has no effect on either side: "):
        sides(resolved({name: value}), a=a, b=b)
    variable = f"LOADBENCH_{name.upper()}"
    text = "true" if value is True else value if isinstance(value, str) else value[0]
    both = sides(resolved(environment={variable: text}), a=a, b=b)
    for side in both:
        assert [entry.origin.where for entry in side.unused] == [variable]
        assert variable not in str(side.recorded_origins())


def test_each_side_has_its_own_price_and_power():
    """Two machines cost and draw what each of them does; what both share is given once."""
    shared = resolved({"kwh_price": "0.3", "watts": "100"})
    a, b = sides(shared, a="profile=cpu-laptop,watts=20..30,purchase=900,lifetime=4", b="profile=small-gpu,hourly=2")
    assert (a.cost.watts, a.cost.purchase, a.cost.lifetime, a.cost.hourly) == ((20, 30), 900, 4, None)
    assert (b.cost.watts, b.cost.purchase, b.cost.hourly) == ((100, 100), None, 2)
    assert a.cost.kwh_price == b.cost.kwh_price == 0.3
    with pytest.raises(BadInput, match="--b: lifetime: has no effect: there is no price to spread"):
        sides(resolved(), a=A, b=f"url={B},lifetime=4")


def test_models_of_a_file_that_no_side_uses_are_listed_once(tmp_path):
    """`--models` is refused where each side has its model; a scenario file's is listed by its line."""
    models = tmp_path / "m.json"
    models.write_text('["p", "q"]', encoding="utf-8")
    named = {"url": A, "a_model": "x", "b_model": "y"}
    with pytest.raises(BadInput, match="--models: has no effect on either side: --a-model sets model"):
        sides(resolved({**named, "model_set": str(models)}))
    file = tmp_path / "s.toml"
    file.write_text(f"[target]\nmodel_set = '{models}'\n", encoding="utf-8")
    a, b = sides(resolved(named, file=file))
    assert [str(entry).split(":")[0] for entry in a.unused] == [f"target.model_set ({file}"]
    assert (a.target.model, b.target.model, b.target.model_set) == (("x",), ("y",), None)


def test_variables_name_the_models_of_the_sides():
    """The record names the variable; a model in `--a` overrides it, and `--a-model` beside that is refused."""
    variables = {"LOADBENCH_A_MODEL": "p", "LOADBENCH_B_MODEL": "q", "LOADBENCH_URL": A}
    a, b = sides(resolved(environment=variables))
    assert (a.target.model, str(a.origins["target.model"])) == (("p",), "environment LOADBENCH_A_MODEL")
    assert (b.target.model, str(b.origins["target.model"])) == (("q",), "environment LOADBENCH_B_MODEL")
    a, b = sides(resolved(environment=variables), a="model=r")
    assert (a.target.model, b.target.model, b.compare.a_model) == (("r",), ("q",), None)
    assert [str(entry) for entry in a.unused] == ["LOADBENCH_A_MODEL: --a names a model already"]
    with pytest.raises(BadInput, match="LOADBENCH_B_MODEL: one model is compared"):
        sides(resolved(environment=variables | {"LOADBENCH_B_MODEL": "q,r"}))


def test_what_has_no_effect_on_a_side_is_checked_there(tmp_path):
    """Load and prompts are the same on both sides; what only one can use is refused, or overridden if it is weaker."""
    ours, theirs = "profile=small-gpu", "profile=small-gpu,api=completions"
    with pytest.raises(BadInput, match="--turns: has no effect on side B: the completions endpoint"):
        sides(resolved({"turns": "2"}), a=ours, b=theirs)
    with pytest.raises(BadInput, match="--system: has no effect on either side: the completions endpoint"):
        sides(resolved({"system": "s"}), a=theirs, b=theirs)
    for side in sides(resolved(environment={"LOADBENCH_TURNS": "2"}), a=ours, b=theirs):
        assert (side.work.turns, side.unused[0].origin.where) == (None, "LOADBENCH_TURNS")
    own = {"a": f"url={A},api=chat", "b": f"url={B},api=responses"}
    assert sides(resolved({"turns": "2"}, {"LOADBENCH_API": "completions"}), **own)[0].work.turns is not None
    file = tmp_path / "s.toml"
    file.write_text('[target]\napi = "completions"\n[work]\nturns = 2\n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"s.toml:4: work.turns: has no effect on either side"):
        sides(resolved(file=file), a=A, b=B)


def test_certificates_of_a_side():
    """A side has one setting of certificates, as a sweep has; one that is off excludes nothing."""
    with pytest.raises(BadInput, match="--b: cacert and insecure exclude each other"):
        sides(resolved(), a=A, b="url=https://h:1,cacert=f.pem,insecure=true")
    a, b = sides(resolved({"insecure": True}), a="https://h:1", b=B)
    assert (a.target.insecure, b.target.insecure, b.effective()["target"]["insecure"]) == (True, False, None)
    a, b = sides(resolved(), a=f"url={A},insecure=false", b="url=https://h:1,cacert=f.pem,insecure=false")
    assert (a.target.insecure, str(b.target.cacert)) == (False, "f.pem")
    with pytest.raises(BadInput, match="--a: insecure: has no effect: only a connection over TLS"):
        sides(resolved(), a=f"url={A},insecure=true", b=B)


def test_same_with_two_servers_is_without_effect():
    """As a flag it is refused, from a variable it is listed; nothing says that both sides are the same."""
    with pytest.raises(BadInput, match="--same: has no effect: the two sides differ"):
        sides(resolved({"same": True}), a=A, b=B)
    a, _ = sides(resolved(environment={"LOADBENCH_SAME": "true"}), a=A, b=B)
    assert (a.compare.same, [str(entry) for entry in a.unused]) == (
        False,
        ["LOADBENCH_SAME: has no effect: the two sides differ"],
    )
    assert sides(resolved({"same": True}), a=A, b=A)[1].compare.same


def test_a_rule_for_a_load_that_is_not_measured_is_refused():
    """A gate at a level that the comparison lacks would never be decided; a search chooses its loads."""
    with pytest.raises(BadInput, match="no level has rate=2"):
        resolved({"users": "2", "fail_on": ["e2e_p95>5%@rate=2"]})
    assert resolved({"users": "2,3", "fail_on": ["e2e_p95>5%@users=3"]}).compare.fail_on
    search = {"objectives": ["ttft_p95<1s"], "at_most": "5"}
    for rule in ("failures>20%@users=6", "failures>20%@rate=2", "failures>20%@users=5"):
        with pytest.raises(BadInput, match=f"--abort-on: {rule}: the search chooses the loads itself"):
            resolve(flags={**search, "abort_on": [rule]}, environment={}, command="capacity")
