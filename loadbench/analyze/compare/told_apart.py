"""What tells the two sides of a comparison apart, for people who see "A" and "B" and have to know which is which.

Of servers that loadbench started it is the words in which their commands differ; of all the name that a side's runs
were given, the program and version that the server says it is, and how many requests it runs at once, where it reports
that others wait. Models, devices and addresses are shown next to each side anyway.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import Run

# More words than these do not tell two commands apart at a glance.
_MOST_WORDS = 4
# What a comparison adds to the name of each run.
_TURN = re.compile(r" [AB]\d+$")


def without_turn(name: str) -> str:
    """The name that the runs of a comparison have in common: without the side and the number of the repeat."""
    return _TURN.sub("", name)


def told_apart(a: Sequence[Run], b: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Of each side what it is and the other is not, as far as is known: `["--parallel 4", "4 requests at once"]`."""
    apart: tuple[list[str], list[str]] = ([], [])
    # A run that is named "a" is no easier to recognise.
    names = [{without_turn(run.name) for run in side} - {"a", "b"} for side in (a, b)]
    programs = [{server.program for run in side for server in run.servers} for side in (a, b)]
    for of_sides in (names, programs):
        if len(of_sides[0]) == len(of_sides[1]) == 1 and of_sides[0] != of_sides[1] and all(map(all, of_sides)):
            for texts, known in zip(apart, of_sides, strict=True):
                texts.extend(known)
    commands = [[words for run in side if (words := _words(run))] for side in (a, b)]
    if all(commands):
        of_a, of_b = (side[0] for side in commands)
        only = [[word for word in one if word not in other] for one, other in ((of_a, of_b), (of_b, of_a))]
        if max(map(len, only)) <= _MOST_WORDS:
            flags = [{word.split(" ")[0] for word in words} for words in only]
            for texts, words, others in zip(apart, only, (flags[1] - flags[0], flags[0] - flags[1]), strict=True):
                texts.extend([*words, *(f"no {flag}" for flag in sorted(others) if flag.startswith("-"))])
    (most_a, waited_a), (most_b, waited_b) = _at_once(a), _at_once(b)
    # A side that had nobody waiting may run more than was ever asked of it.
    if most_a != most_b and (waited_a if most_a < most_b else waited_b):
        for texts, most, waited in zip(apart, (most_a, most_b), (waited_a, waited_b), strict=True):
            texts.append(f"{'' if waited else 'at least '}{most} requests at once")
    return apart


def _words(run: Run) -> list[str]:
    """The words of the command that started the server, a flag with its value; a port is another at each start."""
    start = run.server_start
    if start is None or not start.command:
        return []
    try:
        parts = shlex.split(start.command)
    except ValueError:
        parts = start.command.split()
    words: list[str] = []
    for part in parts:
        if words and words[-1].startswith("-") and " " not in words[-1] and not part.startswith("-"):
            words[-1] = f"{words[-1]} {part}"
        else:
            words.append(part.replace("=", " ", 1) if part.startswith("--") else part)
    port = str(urlsplit(start.url).port)
    return [word for word in words if port not in word]


def _at_once(runs: Sequence[Run]) -> tuple[int, bool]:
    """The most requests at once that the server reported, and whether others waited then; 0 if it reports none."""
    most: dict[int, bool] = {}
    for level in (level for run in runs for level in run.levels):
        gauges = {} if level.telemetry is None else level.telemetry.gauges
        if "server_running" in gauges:
            running = round(gauges["server_running"].max)
            waited = "server_queued" in gauges and gauges["server_queued"].max >= 1
            most[running] = most.get(running, False) or waited
    highest = max(most, default=0)
    return highest, most.get(highest, False)
