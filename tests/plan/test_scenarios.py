"""The scenario files that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadbench.plan.sources import resolve
from loadbench.report.plan import plan_text

FOLDER = Path(__file__).parents[2] / "scenarios"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.toml")), ids=lambda file: file.name)
def test_shipped_scenario_can_be_used(file, monkeypatch):
    """Each reads without an error, asks its question on its first line, names itself in its command, and has a plan."""
    # Files that they name are named from where the commands in them are typed.
    monkeypatch.chdir(FOLDER.parent)
    scenario = resolve(flags={}, environment={}, file=file)
    assert scenario.question.endswith("?")
    assert scenario.loads
    assert all(load.label in plan_text(scenario) for load in scenario.loads)
    assert f"loadbench sweep scenarios/{file.name}" in file.read_text()


def test_there_are_scenarios():
    """The folder is where it is looked for."""
    assert len(list(FOLDER.glob("*.toml"))) >= 4
