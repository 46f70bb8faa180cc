"""Gates on a change: is B worse than A by more than a bound?

A check is one rule at one level. The interval of the change, with "worse" as the positive direction, decides:

    PASS        the whole interval is within the bound: B is shown not to be worse by more
    FAIL        the whole interval is beyond the bound: B is shown to be worse by more
    UNDECIDED   the interval contains the bound, or the work differed

The change alone never decides. The probability that a gate fails although nothing is beyond its bound is at most
(1 - confidence) / 2 over all checks together, by Holm's method; with no true change and a bound above 0 it is smaller.
The interval that is shown is that of the decision.
A pass needs no such adjustment, because all checks have to pass (Berger, *Multiparameter hypothesis testing and
acceptance sampling*, 1982).

A gate fails where its rule cannot be checked: no run has the level, or some run lacks the figure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from loadbench.analyze.compare.effect import holm
from loadbench.plan.objective import FAILURES
from loadbench.results.compare import NO_SAMPLES, NOT_COMPARED, Gate, GateCheck

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.analyze.compare.effect import Effect
    from loadbench.plan.gate import GateRule
    from loadbench.results.compare import LeftOut
    from loadbench.results.run import Decision

Standing: TypeAlias = Literal["passed", "failed", "undecided", "invalid"]
_NOTHING_MEASURED = "nothing was measured that this rule could check"
_NEAR = "the change is too close to the bound: measure more runs, or longer ones"
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class MeasuredChange:
    """The change of a figure at a level; `refused` says why nothing may be decided from it.

    `advice` says what decides a change that is not clear. Values that are `meaningless` have no ratio either.
    """

    effect: Effect | None
    refused: str = ""
    advice: str = ""
    meaningless: bool = False


def decide(
    rules: Sequence[GateRule],
    changes: Mapping[tuple[str, str], MeasuredChange],
    left_out: Sequence[LeftOut],
    *,
    levels: Sequence[str],
    confidence: float,
) -> list[Gate]:
    """The gate of each rule; `changes` are by level and metric, `levels` are those of either side."""
    p_values = {}
    for rule in rules:
        for level in levels:
            change = changes.get((level, rule.metric))
            if rule.applies(level) and change is not None and change.effect is not None and not change.refused:
                p_values[rule, level] = _worsening(rule, change.effect).p_beyond(_bound(rule))
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    gates = []
    for rule in rules:
        checks = [
            _check(rule, level, changes.get((level, rule.metric)), left_out, adjusted.get((rule, level)), confidence)
            for level in levels
            if rule.applies(level)
        ]
        checks = checks or [GateCheck(level=rule.at, decision="FAIL", note=_NOTHING_MEASURED)]
        decisions = {check.decision for check in checks}
        passed = False if "FAIL" in decisions else None if "UNDECIDED" in decisions else True
        gates.append(Gate(rule=rule.rule, passed=passed, checks=checks))
    return gates


def standing(gate: Gate, left_out: Sequence[LeftOut]) -> Standing:
    """What a gate means for the exit code and for a build server: "invalid" is one that could not be decided because
    a level is INVALID, and "undecided" one that could not for another reason."""
    if gate.passed is not None:
        return "passed" if gate.passed else "failed"
    invalid = {one.level for one in left_out if one.code == "invalid" and not one.run}
    undecided = {check.level for check in gate.checks if check.decision == "UNDECIDED"}
    return "invalid" if undecided & invalid else "undecided"


def _check(
    rule: GateRule,
    level: str,
    change: MeasuredChange | None,
    left_out: Sequence[LeftOut],
    p_value: float | None,
    confidence: float,
) -> GateCheck:
    """One rule at one level; `p_value` is adjusted, `None` where nothing may be decided."""
    if change is None:
        of_level = (gap for gap in left_out if gap.level == level and not gap.run and gap.metric in {"", rule.metric})
        why = next(of_level, None)
        if why is None:
            return GateCheck(level=level, decision="FAIL", note=_NOTHING_MEASURED)
        note = why.message if why.metric else f"the level is {NOT_COMPARED[why.code]}"
        return GateCheck(level=level, decision="FAIL" if why.code == NO_SAMPLES else "UNDECIDED", note=note)
    effect = change.effect
    if effect is None or change.meaningless:
        return GateCheck(level=level, decision="UNDECIDED", note=change.refused)
    # On the scale of the effect; an interval that excludes the bound has the confidence of the decision.
    bound = -_bound(rule) if rule.more_is_better else _bound(rule)
    of_failures = rule.metric == FAILURES

    def shown(confidence: float) -> tuple[float | None, tuple[float, float] | None]:
        if of_failures:
            return None, effect.interval(confidence, bound)
        return math.exp(effect.estimate(confidence, bound)[0]), effect.ratio_interval(confidence, bound)

    if p_value is None:
        ratio, interval = shown(confidence)
        return GateCheck(level=level, decision="UNDECIDED", ratio=ratio, interval=interval, note=change.refused)
    # Two equal sides have no change, although the rounding of their logarithms may say otherwise.
    low, high = effect.interval(confidence, bound)
    decision: Decision = "UNDECIDED"
    alone = _worsening(rule, effect).p_beyond(_bound(rule))
    if p_value <= (1 - confidence) / 2:
        decision = "FAIL"
    elif (-low if rule.more_is_better else high) - _ROUNDING <= _bound(rule):
        decision = "PASS"
    if decision != "PASS" and alone:
        confidence = 1 - (1 - confidence) * alone / p_value
    ratio, interval = shown(confidence)
    note = (change.advice or _NEAR) if decision == "UNDECIDED" else ""
    return GateCheck(level=level, decision=decision, ratio=ratio, interval=interval, p_value=p_value, note=note)


def _bound(rule: GateRule) -> float:
    """On the scale of the effect: a share for failures, else a logarithm."""
    return rule.bound if rule.metric == FAILURES else rule.log_bound


def _worsening(rule: GateRule, effect: Effect) -> Effect:
    """The effect with "worse" as the positive direction."""
    return effect.reversed() if rule.more_is_better else effect
