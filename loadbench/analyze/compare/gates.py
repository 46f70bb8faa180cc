"""Gates on a change: does B get worse than A by more than a bound?

A check is one rule at one level. With the interval of the change, turned so that up is worse,

    PASS        it lies wholly within the bound: so much worse B surely is not
    FAIL        it lies wholly beyond the bound: B surely is worse than that
    UNDECIDED   the bound is inside, the runs are too few (one a side always is), or the work was not the same

Never is it decided by the change alone. The chance that a gate fails where nothing beyond its bound is true is kept at
(1 - confidence) / 2 over all checks together, by Holm; a true change of nothing, with a bound above that, fails less
often still. To pass needs no such adjustment: all checks have to pass, and one that should not is one too many (Berger,
*Multiparameter hypothesis testing and acceptance sampling*, 1982).

Where there is nothing to hold against the rule, because nobody has the level, or a run has nothing of the figure, it
fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.analyze.compare.effect import holm
from loadbench.plan.objective import FAILURES
from loadbench.results.compare import NO_SAMPLES, NOT_COMPARED, Gate, GateCheck

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.analyze.compare.effect import Effect
    from loadbench.plan.gate import GateRule
    from loadbench.results.compare import LeftOut
    from loadbench.results.run import Decision

_NO_SAMPLES = "there is nothing to hold against it"
_NEAR = "the bound is too near: measure more runs, or longer ones"
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class MeasuredChange:
    """The change of a figure at a level; `refused` says why it may not be decided."""

    effect: Effect | None
    refused: str = ""


def decide(
    rules: Sequence[GateRule],
    seen: Mapping[tuple[str, str], MeasuredChange],
    left_out: Sequence[LeftOut],
    *,
    levels: Sequence[str],
    confidence: float,
) -> list[Gate]:
    """Each rule; `seen` is by level and metric, `levels` are those of either side."""
    asked = [(rule, level) for rule in rules for level in levels if rule.applies(level)]
    testable = [
        (rule, level, found.effect)
        for rule, level in asked
        if (found := seen.get((level, rule.metric))) is not None and found.effect is not None and not found.refused
    ]
    p_values = holm([_worse(rule, effect).p_beyond(_bound(rule)) for rule, _, effect in testable])
    adjusted = {(rule, level): p for (rule, level, _), p in zip(testable, p_values, strict=True)}
    checks = {
        (rule, level): _check(
            rule,
            level,
            seen.get((level, rule.metric)),
            left_out=left_out,
            p_value=adjusted.get((rule, level)),
            confidence=confidence,
        )
        for rule, level in asked
    }
    return [_gate(rule, [check for (one, _), check in checks.items() if one == rule]) for rule in rules]


def _gate(rule: GateRule, checks: list[GateCheck]) -> Gate:
    if not checks:
        checks = [GateCheck(level=rule.at, decision="FAIL", note=_NO_SAMPLES)]
    decisions = {check.decision for check in checks}
    passed = False if "FAIL" in decisions else None if "UNDECIDED" in decisions else True
    return Gate(rule=rule.rule, passed=passed, checks=checks)


def _check(
    rule: GateRule,
    level: str,
    seen: MeasuredChange | None,
    *,
    left_out: Sequence[LeftOut],
    p_value: float | None,
    confidence: float,
) -> GateCheck:
    if seen is None:
        why = next((one for one in left_out if _is_of(one, level, rule.metric)), None)
        lacking = why is None or why.code == NO_SAMPLES
        return GateCheck(
            level=level, decision="FAIL" if lacking else "UNDECIDED", note=_NO_SAMPLES if why is None else _told(why)
        )
    if seen.effect is None:
        return GateCheck(level=level, decision="UNDECIDED", note=seen.refused)
    ratio, interval = _shown(rule, seen.effect, confidence)
    if seen.refused or p_value is None:
        return GateCheck(level=level, decision="UNDECIDED", ratio=ratio, interval=interval, note=seen.refused)
    decision = _decision(rule, seen.effect, p_value, confidence)
    note = _NEAR if decision == "UNDECIDED" else ""
    return GateCheck(level=level, decision=decision, ratio=ratio, interval=interval, p_value=p_value, note=note)


def _decision(rule: GateRule, effect: Effect, p_value: float, confidence: float) -> Decision:
    if p_value <= (1 - confidence) / 2:
        return "FAIL"
    # A hair's breadth for the rounding of logarithms: of two equal sides no change is not worse than no change.
    worst = _worse(rule, effect).interval(confidence)[1] - _ROUNDING
    return "PASS" if worst <= _bound(rule) else "UNDECIDED"


def _is_of(one: LeftOut, level: str, metric: str) -> bool:
    return one.level == level and not one.run and one.metric in {"", metric}


def _told(one: LeftOut) -> str:
    return one.message if one.metric else f"the level is {NOT_COMPARED[one.code]}"


def _bound(rule: GateRule) -> float:
    """On the scale of the effect: shares for failures, else logarithms."""
    return rule.bound if rule.metric == FAILURES else rule.log_bound


def _worse(rule: GateRule, effect: Effect) -> Effect:
    """Turned so that up is worse."""
    return effect.turned() if rule.more_is_better else effect


def _shown(rule: GateRule, effect: Effect, confidence: float) -> tuple[float | None, tuple[float, float] | None]:
    """The ratio, and its interval if that has ends; for failures the difference's."""
    if rule.metric == FAILURES:
        return None, effect.interval(confidence)
    return math.exp(effect.value), effect.ratio_interval(confidence)
