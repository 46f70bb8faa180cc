"""Whether the server was beyond its limit, which makes a level OVERLOADED, or the measurement is at fault: INVALID.

A level is OVERLOADED where its measurement is sound and the evidence is of load: in an open loop more requests arrived
than completed, so that the requests in flight grew; or more requests than the failure limit allows ended in ways in
which a busy server refuses load (HTTP 429 and 503, refused connections, time-outs), while a lower level of the same run
was VALID. All other failures above the limit, and any at the lowest level, are those of a server that does not work.

The second kind needs the other levels of the run, so a level's status may change when another one ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadbench.core.text import some
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from loadbench.results.run import LevelResult, Reason, Status

# The codes of reasons that can be evidence of load (`Verdict.load_evidence`).
ABOVE_CAPACITY, FAILURES = "not_steady", "failures"
# What an overload brings with it: no warm-up is long enough for a queue that grows, it fills --max-in-flight, and an
# --abort-on rule of the user ends the level.
_CONSEQUENCES = frozenset({"short_warm_up", "missed_arrivals", "aborted"})


def status_of(reasons: Sequence[Reason], evidence: Collection[str], *, lower: Collection[Status] = ()) -> Status:
    """The status of a level with these reasons; `lower` are the statuses of the levels of the run with a lower load."""
    codes = {reason.code for reason in reasons}
    if not codes:
        return "VALID"
    if codes - _CONSEQUENCES - set(evidence) or (FAILURES in codes and not lower):
        return "INVALID"
    return "OVERLOADED" if ABOVE_CAPACITY in evidence or (FAILURES in evidence and "VALID" in lower) else "INVALID"


def judge_overload(levels: Sequence[LevelResult]) -> list[LevelResult]:
    """The levels of a run with their final statuses; only INVALID and OVERLOADED ones can change."""
    judged = list(levels)
    # Lower loads first, since their statuses decide.
    for index in sorted(range(len(judged)), key=lambda index: judged[index].load.amount):
        level = judged[index]
        if not level.verdict.usable:
            lower = [other.verdict.status for other in judged if _is_lower(other, level)]
            status = status_of(level.verdict.reasons, level.verdict.load_evidence, lower=lower)
            verdict = msgspec.structs.replace(level.verdict, status=status)
            judged[index] = msgspec.structs.replace(level, verdict=verdict)
    return judged


def limit_sentence(levels: Sequence[LevelResult]) -> str:
    """Where the levels of one model show the server's limit; empty if none is OVERLOADED."""
    beyond = sorted(
        (level for level in levels if level.verdict.status == "OVERLOADED"), key=lambda level: level.load.amount
    )
    if not beyond:
        return ""
    labels = list(dict.fromkeys(level.load.label for level in beyond))
    which, many = some(labels, most=5, separator=" and "), len(labels) > 1
    valid = [level for level in levels if level.verdict.status == "VALID" and _same_kind(level, beyond[0])]
    if not valid:
        are = "are" if many else "is"
        return f"{which} {are} beyond the server's limit; no level shows a load that it keeps up with"
    most = max(valid, key=lambda level: level.load.amount)
    if most.load.amount >= beyond[0].load.amount:
        were = "were" if many else "was"
        but = f"though {most.load.label} was not: the server changed between these levels"
        return f"{which} {were} beyond the server's limit, {but}"
    return f"the server keeps up with {most.load.label}; {which} {'are' if many else 'is'} beyond its limit"


def _is_lower(other: LevelResult, level: LevelResult) -> bool:
    """Whether another level has a lower load of the same kind on the same model."""
    return _same_kind(other, level) and other.load.amount < level.load.amount


def _same_kind(one: LevelResult, other: LevelResult) -> bool:
    kinds = [
        (level.model, level.load.think if isinstance(level.load, ClosedLoad) else level.load.arrivals, type(level.load))
        for level in (one, other)
    ]
    return kinds[0] == kinds[1]
