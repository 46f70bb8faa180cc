"""Whether a run's users were served alike: a row for each closed level, and who was starved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.report.document import Document, Notes, Table, Text
from loadbench.report.run import level_place, title
from loadbench.report.values import counted, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.prediction import Fairness
    from loadbench.results.run import Interval, Run

_HEADERS = (
    *("level", "users", "responses", "Jain responses", "Jain responses 95 %", "Jain TTFT", "Jain TTFT 95 %"),
    "starved",
)
_RANK = "04302130"
# Users named for each level.
_MOST_NAMED = 5


def by_user_document(run: Run, levels: Sequence[Fairness]) -> Document:
    """The fairness of each closed level; says so where the run has none."""
    if not levels:
        why = "an open loop sends requests at a rate" if run.levels else "none was measured"
        return Document(title(run), [Text([f"no level of this run has users: {why}"])])
    rows, notes = (
        [],
        ["Jain: Jain's index of fairness, 1 if all users had the same, 1/n if one of n users had everything"],
    )
    for level in levels:
        where = level_place(run, level.level)
        rows.append(
            [
                where,
                str(level.users),
                str(level.answers),
                *_index(level.throughput, level.throughput_interval),
                *_index(level.ttft, level.ttft_interval),
                str(len(level.starved)),
            ]
        )
        for user in level.starved[:_MOST_NAMED]:
            wait = "" if user.mean_ttft_s is None else f", mean TTFT {duration(user.mean_ttft_s)}"
            responses = counted(user.answers, "response")
            notes.append(f"{where}: user {user.user} was starved, with {responses}{wait}: {user.rule}")
        if len(level.starved) > _MOST_NAMED:
            notes.append(f"{where}: {len(level.starved) - _MOST_NAMED} more users were starved")
        if level.note:
            notes.append(f"{where}: {level.note}")
    return Document(title(run), [Table(_HEADERS, rows, "r" * len(_HEADERS), rank=_RANK), Notes(notes)])


def _index(value: float | None, interval: Interval | None) -> tuple[str, str]:
    between = "-" if interval is None else f"{interval[0]:.3f}–{interval[1]:.3f}"
    return "-" if value is None else f"{value:.3f}", between
