"""The cells of a grid: which settings its names mean, and the values of each cell.

The first name that is varied changes least often from cell to cell, as the digits of a number do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.plan.scenario import with_entries
from loadbench.plan.server_command import fill, names_in
from loadbench.plan.settings import DEFAULT, Entry, setting_of, settings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from loadbench.plan.scenario import Scenario
    from loadbench.plan.settings import Setting
    from loadbench.plan.vary import Varied

# What decides how much is asked for, rather than how it is served: cells that differ in it did other work.
_WORK = frozenset({"work", "load"})
# Of a value that is shown.
_LONGEST = 28
# The levels of a cell: of several of them, the best counts.
_LEVELS = frozenset({"load.users", "load.rate"})


def varied_setting(name: str, in_command: Collection[str] = ()) -> Setting | None:
    """The setting of a sweep that a name means: its key, its name where no other has it, or its flag. A name that is
    `in_command` in braces is filled in there, and means no setting."""
    if name in in_command:
        return None
    taken = settings("sweep")
    named = [one for one in taken if one.key == name] or [one for one in taken if one.name == name]
    flags = [one for one in taken if one.flag_name == name or f"--{name.replace('_', '-')}" in one.aliases]
    return next((found[0] for found in (named, flags) if len(found) == 1), None)


def may_vary(setting: Setting) -> bool:
    """Whether its values make cells: not where results go, nor what only the user confirms."""
    return setting.section not in {"grid", "report"} and not setting.confirms


def changes_work(name: str, in_command: Collection[str] = ()) -> bool:
    """Whether cells with other values of this name did other work, so that none of them is better than another."""
    setting = varied_setting(name, in_command)
    return setting is not None and setting.section in _WORK and setting.key not in _LEVELS


def cell_text(values: Mapping[str, str]) -> str:
    """A cell in a sentence: `slots=4 threads=2`."""
    return " ".join(f"{name}={shown_value(value)}" for name, value in values.items())


def shown_value(value: str) -> str:
    """A value as tables and sentences have it: a longer one is a path or a URL."""
    return value if len(value) <= _LONGEST else value[: _LONGEST - 1] + "…"


def names_in_command(scenario: Scenario) -> set[str]:
    """The names in braces of the command that starts the server, and of its variables."""
    target = scenario.target
    texts = [*(target.server_cmd or ()), *(value for _, value in target.server_env)]
    return set().union(*map(names_in, texts)) if target.server_cmd is not None else set()


def with_command_filled(scenario: Scenario, values: Mapping[str, str]) -> Scenario:
    """The scenario of a cell with its values in the server's command. Where the server listens is filled in later."""
    target = scenario.target
    if target.server_cmd is None:
        return scenario
    words = tuple(fill(word, values, rest=True) for word in target.server_cmd)
    variables = tuple((name, fill(value, values, rest=True)) for name, value in target.server_env)
    entries: dict[str, Entry | None] = {
        f"target.{name}": Entry(setting_of(f"target.{name}"), value, scenario.origins.get(f"target.{name}", DEFAULT))
        for name, value in (("server_cmd", words), ("server_env", variables))
    }
    return with_entries(scenario, entries)


def number_of_cells(vary: Sequence[Varied]) -> int:
    """How many combinations there are."""
    return math.prod(len(one.values) for one in vary)


def values_of_cell(vary: Sequence[Varied], cell: int) -> list[tuple[Varied, str]]:
    """Each name of the grid with its value in a cell, which are numbered from 0."""
    values = []
    for one in reversed(vary):
        cell, place = divmod(cell, len(one.values))
        values.append((one, one.values[place]))
    return values[::-1]
