"""Whether a run's users were served alike: a table of its closed levels, and who was starved beneath."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.core.text import printable
from loadbench.report.table import duration, load_text, title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.prediction import Fairness, Starved
    from loadbench.results.run import Interval, Run

HEADERS = ("level", "users", "answers", "fair by answers", "95 %", "fair by TTFT", "95 %", "starved")
# Lines that name users, of each level.
_MOST_NAMED = 5


def by_user_text(run: Run, levels: Sequence[Fairness]) -> str:
    """The report for a terminal; says so where there are no users."""
    parts = [printable(title(run))]
    if levels:
        body = tabulate(
            [_row(run, one) for one in levels],
            headers=HEADERS,
            tablefmt="simple",
            stralign="right",
            disable_numparse=True,
        )
        parts += [body, "\n".join(printable(note) for note in _notes(run, levels))]
    else:
        parts.append("no level of this run has users: requests that come at a rate are nobody's")
    return "\n\n".join(parts) + "\n"


def _where(run: Run, one: Fairness) -> str:
    if one.level >= len(run.levels):
        return f"level {one.level}"  # killed before it was summed up
    level = run.levels[one.level]
    several = len({other.model for other in run.levels}) > 1
    return load_text(level) + (f" of {level.model}" if several else "")


def _row(run: Run, one: Fairness) -> list[str]:
    return [
        _where(run, one),
        str(one.users),
        str(one.answers),
        _index(one.throughput),
        _between(one.throughput_interval),
        _index(one.ttft),
        _between(one.ttft_interval),
        str(len(one.starved)),
    ]


def _index(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _between(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"


def _notes(run: Run, levels: Sequence[Fairness]) -> list[str]:
    found = ["Jain's index: 1 where all users had the same, 1/n where one of n had everything"]
    for one in levels:
        found += [f"{_where(run, one)}: {_starved(user)}" for user in one.starved[:_MOST_NAMED]]
        if len(one.starved) > _MOST_NAMED:
            found.append(f"{_where(run, one)}: {len(one.starved) - _MOST_NAMED} more were starved")
        if one.note:
            found.append(f"{_where(run, one)}: {one.note}")
    return found


def _starved(one: Starved) -> str:
    wait = "" if one.mean_ttft_s is None else f", mean TTFT {duration(one.mean_ttft_s)}"
    return f"user {one.user} was starved, with {one.answers} answers{wait}: {one.rule}"
