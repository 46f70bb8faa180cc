"""The workshop's benchmark as a scenario: who says what, and who is heard first."""

from __future__ import annotations

import json

import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.load import Closed
from loadbench.plan.workshop import shows_first_token, workshop_scenario

WHY = "the workshop's benchmark is one user who sends given prompts in rounds; use `loadbench sweep`"
BENCH = {
    "BENCH_MODELS": "phi-4-mini, ,qwen2.5-0.5b,",
    "BENCH_ROUNDS": "5",
    "BENCH_PROMPT": "Say hello.",
    "BENCH_MAX_TOKENS": "150",
    "BENCH_TEMPERATURE": "0.5",
}


def test_defaults_are_the_workshops():
    """One user, three rounds of its prompt, 120 tokens, temperature 0.2, one untimed call and no other warm-up."""
    scenario = workshop_scenario(flags={}, environment={})
    assert scenario.loads == (Closed(1),)
    assert (scenario.load.requests, scenario.extent.warm_up_ns) == (3, 0)
    assert scenario.work.prompt == "Explain retrieval augmented generation briefly."
    assert (scenario.work.max_tokens, scenario.work.temperature) == (120, 0.2)
    assert str(scenario.origins["work.max_tokens"]) == "workshop"


def test_its_variables_are_honoured():
    """Each one sets what it sets in the workshop, blank models dropped, and is told as the origin."""
    scenario = workshop_scenario(flags={}, environment=BENCH)
    assert scenario.target.model == ("phi-4-mini", "qwen2.5-0.5b")
    assert (scenario.work.prompt, scenario.work.max_tokens, scenario.work.temperature) == ("Say hello.", 150, 0.5)
    assert scenario.load.requests == 5
    assert str(scenario.origins["target.model"]) == "environment BENCH_MODELS"
    assert str(scenario.origins["load.requests"]) == "environment BENCH_ROUNDS: 5 × 1 prompt"


def test_flag_wins_over_ours_over_theirs_over_the_file(tmp_path):
    """Flag, LOADBENCH_…, BENCH_…, scenario file, default: the first that speaks."""
    path = tmp_path / "s.toml"
    path.write_text("[work]\nmax_tokens = 1\nseed = 9\ntemperature = 0.9\nprompt = 'file'\n", encoding="utf-8")
    ours = {"LOADBENCH_MAX_TOKENS": "3", "LOADBENCH_TEMPERATURE": "0.3"}
    scenario = workshop_scenario(flags={"max_tokens": "4"}, environment={**BENCH, **ours}, file=path)
    assert (scenario.work.max_tokens, scenario.work.temperature) == (4, 0.3)
    assert (scenario.work.prompt, scenario.work.seed) == ("Say hello.", 9)
    assert workshop_scenario(flags={}, environment={}, file=path).work.prompt == "file"


def test_alias_names_the_model_where_nothing_else_does():
    """FOUNDRY_LOCAL_ALIAS comes after BENCH_MODELS."""
    alias = {"FOUNDRY_LOCAL_ALIAS": "phi-4-mini"}
    assert workshop_scenario(flags={}, environment=alias).target.model == ("phi-4-mini",)
    assert workshop_scenario(flags={}, environment={**BENCH, **alias}).target.model == ("phi-4-mini", "qwen2.5-0.5b")
    blank = {**alias, "BENCH_MODELS": " , "}
    assert workshop_scenario(flags={}, environment=blank).target.model == ("phi-4-mini",)


def test_rounds_are_for_each_prompt(tmp_path):
    """A set of prompts is asked in whole, so many times over."""
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(["a", "b", "c", "d"]), encoding="utf-8")
    scenario = workshop_scenario(flags={"prompts": str(path), "rounds": "2"}, environment=BENCH)
    assert scenario.load.requests == 8
    assert scenario.work.prompt is None
    assert str(scenario.origins["load.requests"]) == "flag --rounds: 2 × 4 prompts"


@pytest.mark.parametrize(
    ("rounds", "variable", "says"),
    [("0", "", "--rounds: found 0"), ("x", "", "--rounds: found 'x'"), (None, "-1", "BENCH_ROUNDS: found -1")],
)
def test_rounds_that_cannot_be_are_told(rounds, variable, says):
    """At least one, and a whole number."""
    with pytest.raises(BadInput, match=says):
        workshop_scenario(flags={} if rounds is None else {"rounds": rounds}, environment={"BENCH_ROUNDS": variable})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOADBENCH_USERS", "1,8"),
        ("LOADBENCH_RATE", "3"),
        ("LOADBENCH_DURATION", "10s"),
        ("LOADBENCH_INPUT_TOKENS", "64"),
    ],
)
def test_other_load_is_refused(name, value):
    """The benchmark is one user and its rounds: a flag for another load is refused, a variable is not used."""
    made = workshop_scenario(flags={}, environment={name: value})
    assert [str(one) for one in made.unused] == [f"{name}: {WHY}"]
    assert made.loads == (Closed(1),)
    flag = name.removeprefix("LOADBENCH_").lower()
    with pytest.raises(BadInput, match=f"--{flag.replace('_', '-')}: the workshop's benchmark is one user") as raised:
        workshop_scenario(flags={flag: value}, environment={})
    assert "sweep" in raised.value.message


@pytest.mark.parametrize(("text", "shown"), [(None, True), ("", True), ("1", True), ("0", False), ("false", False)])
def test_first_token_is_shown_unless_it_is_not_wanted(text, shown):
    """BENCH_STREAM=0 leaves it out of the files; it is measured all the same."""
    assert shows_first_token({} if text is None else {"BENCH_STREAM": text}) is shown


def test_deterministic_overrides_the_workshops_temperature():
    """Neither its default nor its variable stands against the flag."""
    for environment in ({}, BENCH):
        scenario = workshop_scenario(flags={"deterministic": True}, environment=environment)
        assert (scenario.work.temperature, scenario.work.unique) == (0.0, False)
        assert str(scenario.origins["work.temperature"]) == "flag --deterministic"
