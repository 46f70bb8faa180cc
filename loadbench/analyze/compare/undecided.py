"""Why a figure of a comparison is undecided, where what is missing is data, and what would decide it.

Two sides are alike as far as is known only where the interval of their ratio is narrow enough to say so. Without an
interval, or with one that leaves room for a factor of two, nothing is known: too few pairs of runs count, or the runs
differ too much, or are too few to tell a difference from the drift of the machine.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadbench.analyze.level.knee import commonest_reason, measure_again, reasons_against
from loadbench.plan.gate import COST, ENERGY
from loadbench.plan.objective import FAILURES
from loadbench.results.compare import NOT_COMPARED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.compare import ComparedFigure, LeftOut
    from loadbench.results.run import Run

# An interval of the ratio that reaches this factor, either way, says nothing: the data are too few.
_TOO_WIDE = 2.0
# What ends the first part of a reason, which says the cause; figures follow.
CLAUSE = re.compile("[:;] ")


def lacks_data(row: ComparedFigure) -> bool:
    """Whether the figure is undecided because too little was measured: by its interval, or by the note next to it."""
    if row.decision != "~":
        return False
    if row.ends is None or row.note:
        return True
    low, high = row.ends
    return row.metric != FAILURES and (high >= _TOO_WIDE or low <= 1 / _TOO_WIDE)


def word_of(row: ComparedFigure) -> str:
    """What is said of B, everywhere: `faster`, `slower`, `better`, `worse`, `no difference` or `undecided`."""
    if row.decision == "~":
        return "undecided" if lacks_data(row) else "no difference"
    if row.metric in {FAILURES, ENERGY, COST}:
        return "worse" if row.decision == "slower" else "better"
    return row.decision


def why_undecided(
    rows: Sequence[ComparedFigure], a: Sequence[Run], b: Sequence[Run], left_out: Sequence[LeftOut], *, paired: bool
) -> tuple[str, str]:
    """The cause, and what to do, of figures that lack data: `only 1 of 3 pairs of runs counts (2 INVALID: other
    programs ...)`, `end the other programs, ...`."""
    labels = {row.level for row in rows}
    counted = min(rows, key=lambda row: sum(row.n)).n
    codes = dict.fromkeys(left.code for left in left_out if left.run and not left.metric and left.level in labels)
    status = " or ".join(NOT_COMPARED[code] for code in codes)
    cause, remedy = not_counted(labels, (*a, *b))
    cause = f": {cause}" if cause and "invalid" in codes else ""
    if paired:
        lost = len(a) - counted[0]
        if lost > 0:
            count = f"only {counted[0]} of {len(a)} pairs of runs {'counts' if counted[0] == 1 else 'count'}"
            why = f"{count} ({lost} {status or 'without this figure'}{cause})"
            return why, remedy or "measure more repeats"
        if counted[0] == 1:
            return "one pair of runs shows no spread", "measure more repeats"
        return f"the {counted[0]} pairs of runs differ too much", "measure more repeats, or for longer"
    if codes:
        of = " and of ".join(
            f"{name}'s {len(side)} runs {count} {'counts' if count == 1 else 'count'}"
            for name, side, count in zip("AB", (a, b), counted, strict=True)
        )
        return f"of {of} ({status}{cause})", remedy or "measure more runs of each side"
    note = next((row.note for row in rows if row.note), "")
    if len(a) == len(b) == 1 and not note:
        return "the requests of one run differ too much", "measure longer, or both sides in turns with --repeats"
    return note or "the runs differ too much", "measure both sides in turns: loadbench compare with two URLs"


def not_counted(labels: set[str], runs: Sequence[Run]) -> tuple[str, str]:
    """The most frequent reason why levels at these loads are INVALID, in short, and what to do; empty if none is."""
    invalid = [
        level
        for run in runs
        for level in run.levels
        if level.load.label in labels and level.verdict.status == "INVALID"
    ]
    reason = commonest_reason(map(reasons_against, invalid))
    if reason is None:
        return "", ""
    # Of several levels, what is enough for all of them.
    again, flags = measure_again(invalid)
    return CLAUSE.split(reason.message)[0], again if flags else reason.advice
