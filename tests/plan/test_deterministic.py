"""Deterministic runs: what the one setting means for the others."""

from __future__ import annotations

import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.prompt_source import prompt_source
from loadbench.plan.prompts import Prompt
from loadbench.plan.sources import resolve

ASKED = {"deterministic": True, "prompt": "hello"}


def test_deterministic_run_asks_the_same_each_time():
    """The prompt as it is, at every level, at temperature 0, with the seed sent along."""
    scenario = resolve(flags=ASKED, environment={})
    assert (scenario.work.temperature, scenario.work.unique, scenario.keeps_answers) == (0.0, False, True)
    for key in ("a/0", "b/1"):
        source = prompt_source(scenario.work, key=key, calibration=None)
        assert source.next(7, 3) == Prompt("hello", position=0)


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [
        ("temperature", "0.7", "--temperature and --deterministic"),
        ("unique", True, "--unique and --deterministic"),
        ("output_tokens", "uniform:1,9", "--output-tokens and --deterministic"),
    ],
)
def test_contradiction_is_told(flag, value, says):
    """What was asked for in the same breath and cannot be is no default that may be overridden."""
    with pytest.raises(BadInput) as raised:
        resolve(flags={**ASKED, flag: value}, environment={})
    assert says in raised.value.message


def test_nearer_source_decides():
    """A flag overrides a variable's temperature; a flag's temperature overrides a variable's deterministic run."""
    assert resolve(flags=ASKED, environment={"LOADBENCH_TEMPERATURE": "0.7"}).work.temperature == 0
    scenario = resolve(flags={"temperature": "0.7", "prompt": "hello"}, environment={"LOADBENCH_DETERMINISTIC": "1"})
    assert (scenario.work.temperature, scenario.work.deterministic, scenario.work.unique) == (0.7, False, True)
    assert [str(value) for value in scenario.unused] == ["LOADBENCH_DETERMINISTIC: overridden by --temperature"]


def test_made_prompts_cannot_be_compared():
    """Without given prompts there is nothing whose answers were to be the same."""
    with pytest.raises(BadInput, match="there are no given prompts"):
        resolve(flags={"deterministic": True}, environment={})


def test_other_runs_keep_no_answer():
    """The text of an answer is only wanted where it is asked for."""
    assert not resolve(flags={"prompt": "hello"}, environment={}).keeps_answers
    assert resolve(flags={"prompt": "hello", "keep_texts": True}, environment={}).keeps_answers
