"""The settings in force for a command, with where each comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.plan.scenario import NOT_USED
from loadbench.plan.settings import setting_of, settings
from loadbench.report.document import DETAIL, Document, Heading, Notes, Table, Text
from loadbench.report.plan import setting_text
from loadbench.report.values import clipped, counted
from loadbench.results.history import history_file
from loadbench.results.run_list import results_folder, runs_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from loadbench.plan.scenario import Scenario

_LONGEST_VALUE = 120


def config_json(scenario: Scenario, command: str) -> dict[str, object]:
    """Every setting of the command with its value, as people write it, and its origin."""
    return {
        "schema": "loadbench.config/1",
        "command": command,
        "settings": {
            key: {"value": value, "origin": origin, "flag": setting_of(key).flag, "variable": setting_of(key).variable}
            for key, value, origin in _in_force(scenario)
        },
        "personas": scenario.effective().get("personas", {}),
        "not_used": [str(unused) for unused in scenario.unused],
    }


def config_document(scenario: Scenario, command: str, *, every: bool, environment: Mapping[str, str]) -> Document:
    """The settings that somebody chose, or `every` one; what is given and not used; and the places that are read."""
    rows = []
    for key, value, origin in _in_force(scenario):
        if every or origin not in {"default", NOT_USED}:
            setting = setting_of(key)
            rows.append([key, clipped(setting_text(value), _LONGEST_VALUE), origin, setting.flag, setting.variable])
    names = ["setting", "value", "from", "flag", "variable"] if every else ["setting", "value", "from"]
    rows = [row[: len(names)] for row in rows]
    blocks: list[Heading | Text | Notes | Table] = []
    if rows:
        blocks.append(Table(names, rows, "l" * len(names), rank=f"0001{DETAIL}"[: len(names)]))
    else:
        blocks.append(Text(["every setting has its default"]))
    if scenario.unused:
        blocks += [Heading("Given and not used"), Notes([str(unused) for unused in scenario.unused])]
    results, own = results_folder(environment), history_file()
    places = [
        ("runs", f"{results.absolute()} ({counted(len(runs_in(results)), 'run')})"),
        ("history of your own runs", f"{own}" + ("" if own.exists() else " (not there yet)")),
    ]
    blocks += [Heading("Places"), Table([], places, "ll")]
    if not every:
        count = sum(origin in {"default", NOT_USED} for _, _, origin in _in_force(scenario))
        blocks.append(Notes([f"{counted(count, 'setting')} at the default: --all shows them"]))
    return Document(f"settings of `loadbench {command}`", blocks)


def _in_force(scenario: Scenario) -> Iterator[tuple[str, object, str]]:
    """(key, value, origin) of each setting that the command takes."""
    values, origins = scenario.effective(), scenario.recorded_origins()
    for setting in settings(scenario.command):
        value = values.get(setting.section, {}).get(setting.name)
        yield setting.key, value, origins.get(setting.key, "default")
