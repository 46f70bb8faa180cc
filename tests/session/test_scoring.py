"""Which settings a form and a judge take from a run, and what they say about the others."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.results.history import remember
from loadbench.session.scoring import judge_scenario, scoring_scenario
from tests.analyze.comparing import lucky

RUN = msgspec.structs.replace(
    lucky({1: 100})[0],
    scenario={
        "target": {"url": "http://127.0.0.1:7", "api": "chat", "header": ["X-Team: a"]},
        "work": {"prompt": "Name a river.", "max_tokens": 11},
        "limits": {"idle_timeout": "20s"},
    },
)


@pytest.fixture(autouse=True)
def _own(tmp_path, monkeypatch):
    """The run is the user's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    remember(RUN.scenario)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LOADBENCH_URL", "http://127.0.0.1:8"),
        ("LOADBENCH_MAX_TOKENS", "12"),
        ("LOADBENCH_API", "responses"),
        ("LOADBENCH_PROMPTS", "other.json"),
    ],
)
def test_a_variable_that_the_run_overrides_is_listed(variable, value):
    """The run's value stays in force, and the variable is named."""
    scenario = scoring_scenario(RUN, {}, {variable: value})
    assert (scenario.url, scenario.work.max_tokens, scenario.target.api) == ("http://127.0.0.1:7", 11, "chat")
    assert [str(value) for value in scenario.unused] == [f"{variable}: overridden by the run"]


def test_a_variable_with_the_runs_value_is_not_listed():
    """What is in force is not called unused."""
    assert not scoring_scenario(RUN, {}, {"LOADBENCH_MAX_TOKENS": "11"}).unused


def test_a_variable_is_in_force_where_the_run_says_nothing():
    """Only the run's own values override it."""
    scenario = scoring_scenario(RUN, {}, {"LOADBENCH_TIMEOUT": "3s"})
    assert (scenario.limits.timeout, scenario.unused) == (3_000_000_000, ())


def test_a_judge_lists_it_once():
    """Its settings are read twice; a judge with its own server takes none of the run's server."""
    environment = {"LOADBENCH_IDLE_TIMEOUT": "9s", "LOADBENCH_API": "responses"}
    shared = judge_scenario(RUN, {"model": "m"}, environment)
    assert sorted(value.key for value in shared.unused) == ["limits.idle_timeout", "target.api"]
    own = judge_scenario(RUN, {"model": "m", "url": "http://127.0.0.1:9"}, environment)
    assert ([value.key for value in own.unused], own.target.api) == (["limits.idle_timeout"], "responses")
