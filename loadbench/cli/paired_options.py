"""The flags of measuring two sides in turn; what they mean, `loadbench.plan.pairs` says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

_OPTIONS = (
    click.option("--a-model", metavar="ID", default="", help="A's model, where --a does not name it."),
    click.option("--b-model", metavar="ID", default="", help="B's model, where --b does not name it."),
    click.option("--repeats", metavar="N", help="Measure every level so many times on each side.  [default: 8]"),
    click.option("--budget", "most_time", metavar="TIME", help="Begin no repeat that would not fit in, as in 20m."),
    click.option("--settle", metavar="TIME", help="Rest before each level of a side.  [default: 1s]"),
    click.option("--same", is_flag=True, help="Both sides may be one: how much do two measurements of it differ?"),
)


def paired_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add them: `a_model`, `b_model`, `repeats`, `most_time`, `settle`, `same`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
