"""Gates on a change: is B worse than A by more than a bound?

A check is one rule at one level. The interval of the change, with "worse" as the positive direction, decides:

    PASS        the whole interval is within the bound: B is shown not to be worse by more
    FAIL        the whole interval is beyond the bound: B is shown to be worse by more
    UNDECIDED   the interval contains the bound, the runs are too few (one a side always is), or the work differed

The change alone never decides. The probability that a gate fails although nothing is beyond its bound is at most
(1 - confidence) / 2 over all checks together, by Holm's method; with no true change and a bound above 0 it is smaller.
A pass needs no such adjustment, because all checks have to pass (Berger, *Multiparameter hypothesis testing and
acceptance sampling*, 1982).

A gate fails where its rule cannot be checked: no run has the level, or some run lacks the figure.
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

_NOTHING_MEASURED = "nothing was measured that this rule could check"
_NEAR = "the change is too close to the bound: measure more runs, or longer ones"
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class MeasuredChange:
    """The change of a figure at a level; `refused` says why nothing may be decided from it."""

    effect: Effect | None
    refused: str = ""


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
    if effect is None:
        return GateCheck(level=level, decision="UNDECIDED", note=change.refused)
    of_failures = rule.metric == FAILURES
    ratio = None if of_failures else math.exp(effect.value)
    interval = effect.interval(confidence) if of_failures else effect.ratio_interval(confidence)
    if p_value is None:
        return GateCheck(level=level, decision="UNDECIDED", ratio=ratio, interval=interval, note=change.refused)
    # Two equal sides have no change, although the rounding of their logarithms may say otherwise.
    worst = _worsening(rule, effect).interval(confidence)[1] - _ROUNDING
    if p_value <= (1 - confidence) / 2:
        return GateCheck(level=level, decision="FAIL", ratio=ratio, interval=interval, p_value=p_value)
    if worst <= _bound(rule):
        return GateCheck(level=level, decision="PASS", ratio=ratio, interval=interval, p_value=p_value)
    return GateCheck(level=level, decision="UNDECIDED", ratio=ratio, interval=interval, p_value=p_value, note=_NEAR)


def _bound(rule: GateRule) -> float:
    """On the scale of the effect: a share for failures, else a logarithm."""
    return rule.bound if rule.metric == FAILURES else rule.log_bound


def _worsening(rule: GateRule, effect: Effect) -> Effect:
    """The effect with "worse" as the positive direction."""
    return effect.reversed() if rule.more_is_better else effect
