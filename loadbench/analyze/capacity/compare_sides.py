"""Two capacity searches against each other: how many users each side serves, how many times as many, what one costs.

Each search has a range that contains its capacity with its confidence c. If both do, the ratio lies between the
quotients of their ends. Both do with at least 1 - 2 (1 - c) (Bonferroni), whatever the searches have in common.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

from loadbench.analyze.compare.hardware import device
from loadbench.analyze.level.load_makers import load_makers
from loadbench.results.compare_capacity import CapacityComparison, SearchedSide

if TYPE_CHECKING:
    from loadbench.results.capacity import Capacity
    from loadbench.results.run import OpenInterval, Run

_S_PER_MONTH = 365.25 * 24 * 3600 / 12


def searched_side(
    name: Literal["a", "b"], capacity: Capacity | None, run: Run | None, problem: str = ""
) -> SearchedSide:
    """A side by its search and the run of its probes, or by why it has none."""
    levels = [] if run is None else run.levels
    about = SearchedSide(
        name=name,
        model="" if capacity is None else capacity.model,
        target=levels[0].target if levels else "",
        device=None if run is None else device([run]),
        simulated=capacity is not None and capacity.simulated,
        capacity=capacity,
        problem=problem,
        load_from="" if run is None else load_makers(run),
    )
    found = (None, None) if capacity is None else _range(capacity)
    plan = found[0]
    cost = None
    if capacity is not None and plan:
        # Of the level that is nearest on a logarithmic scale: (its distance, money per second).
        per_s = [
            (
                abs(math.log(probe.amount / plan)),
                priced.per_million_output_tokens / 1e6 * levels[probe.level].throughput.output_tokens_per_s,
            )
            for probe in capacity.probes
            if probe.level < len(levels) and probe.amount
            if (priced := levels[probe.level].cost) is not None and priced.per_million_output_tokens is not None
        ]
        cost = min(per_s)[1] * _S_PER_MONTH / plan if per_s else None
    return msgspec.structs.replace(about, plan=plan, range=found, cost_per_unit_month=cost)


def _range(capacity: Capacity) -> OpenInterval:
    """Where the capacity lies, as far as the search knows it."""
    if capacity.status == "none":
        return 0.0, 0.0
    answer = capacity.answer
    if answer is None:
        return None, None
    if capacity.status == "at_least":
        return answer.amount, None
    if capacity.status == "found":
        return answer.range
    # There is no answer, and what is proven holds all the same.
    return answer.low, answer.high


def compare_searches(a: SearchedSide, b: SearchedSide, *, currency: str | None, complete: bool) -> CapacityComparison:
    """What is known about the ratio, and a sentence."""
    searches = [side.capacity for side in (a, b) if side.capacity is not None]
    by_rate = any(probe.label.startswith("rate=") for search in searches for probe in search.probes)
    (low_a, high_a), (low_b, high_b) = a.range, b.range
    interval = (
        None if low_b is None or not high_a else low_b / high_a,
        None if high_b is None or not low_a else high_b / low_a,
    )
    amounts = [
        None if not side.plan or side.capacity is None or side.capacity.answer is None else side.capacity.answer.amount
        for side in (a, b)
    ]
    ratio = amounts[1] / amounts[0] if amounts[0] and amounts[1] else None
    decision: Literal["more", "fewer", "~"] = "~"
    if low_b is not None and high_a is not None and low_b > high_a:
        decision = "more"
    elif high_b is not None and low_a is not None and high_b < low_a:
        decision = "fewer"
    least = min((search.answer.confidence for search in searches if search.answer is not None), default=None)
    known = least is not None and interval != (None, None)
    comparison = CapacityComparison(
        a=a,
        b=b,
        unit="requests/s" if by_rate else "users",
        objectives=next((search.objectives for search in searches), []),
        ratio=ratio,
        interval=interval,
        confidence=None if least is None or not known else 1 - 2 * (1 - least),
        decision=decision,
        currency=currency,
        conclusion="",
        complete=complete,
    )
    return msgspec.structs.replace(comparison, conclusion=_sentence(comparison))


def _sentence(comparison: CapacityComparison) -> str:
    """`Plan with at most 21 users on A and 63 on B; B serves 2.25 to 3.9 times as many (at least 90 % confidence).`"""
    unit, sides = comparison.unit, (comparison.a, comparison.b)
    known = [side for side in sides if side.plan]
    parts = []
    if known:
        plans = [f"{side.plan:g}{f' {unit}' if side is known[0] else ''} on {side.name.upper()}" for side in known]
        parts.append(f"Plan with at most {' and '.join(plans)}")
    open_ended = [side.name.upper() for side in known if side.capacity and side.capacity.status == "at_least"]
    if open_ended:
        parts.append(f"the limit of {' and '.join(open_ended)} was not reached, which a higher --at-most finds")
    for side in sides:
        if side.plan == 0:
            parts.append(f"no load meets the objectives on {side.name.upper()}")
        elif side.plan is None:
            why = side.problem or "it was not searched"
            if not side.problem and side.capacity is not None:
                answer = side.capacity.answer
                estimate = "" if answer is None else f", only an estimate of {answer.amount:g}"
                if side.capacity.sees_no_limit:
                    estimate = f", and saw no limit up to {side.capacity.looked_up_to}"
                why = f"its search gave no answer{estimate}"
            parts.append(f"how many {unit} {side.name.upper()} can serve is not known: {why}")
    low, high = comparison.interval
    if comparison.confidence is not None and (comparison.decision != "~" or all(side.plan for side in sides)):
        sure = f"(at least {100 * comparison.confidence:.3g} % confidence)"
        ends = [f"{low:.3g}" if low is not None else "", f"{high:.3g}" if high is not None else ""]
        span = f"{ends[0]} to {ends[1]}" if all(ends) else f"at least {ends[0]}" if ends[0] else f"at most {ends[1]}"
        as_many = f"{span} times as many" if comparison.unit == "users" else f"{span} times the rate"
        if comparison.decision == "~":
            parts.append(f"no difference is shown: B may serve {as_many} {sure}")
        else:
            parts.append(f"B serves {as_many} {sure}")
    costs = [side for side in sides if side.cost_per_unit_month is not None]
    if costs:
        money = comparison.currency or "in the given currency"
        one = "a user costs" if unit == "users" else "a request/s costs"
        amounts = [f"{side.cost_per_unit_month:.3g} on {side.name.upper()}" for side in costs]
        parts.append(f"{one} {' and '.join(amounts)} ({money} a month, if the machine is always on)")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."
