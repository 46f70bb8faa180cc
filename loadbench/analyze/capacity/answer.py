"""What people are told at the end of a capacity search: how many fit, how sure that is, what is in the way.

An answer is *found* when both ends of its range are proven and no farther than a factor of two apart, and *at least* so
many when the search came to its cap. *None* says that even the least load surely fails. Everything else is
*inconclusive*, and told with what is known: an end that could not be proven in the time, or a server that did not do
the same twice.

*Other think times by proportion.* Who thinks longer asks less often: as many users as ask at the rate of those of the
answer find the same server. By the interactive law (`N = X (R + Z)`) these are `N (R + Z') / (R + Z)` for a think time
Z' in place of Z. It is a rule of proportion, told with "about": more users at the same rate arrive a little more
unevenly. Beside it stands what the model says (`loadbench.analyze.capacity.curve`), which rests on other levels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from loadbench.analyze.capacity.bottleneck import find_bottleneck
from loadbench.analyze.capacity.curve import (
    ITL_ONLY_CODES,
    curve_levels,
    ignoring_itl,
    predict_from_curve,
    predicted_hit_shares,
    think_times,
)
from loadbench.analyze.capacity.fleet_size import fleet_size
from loadbench.analyze.capacity.search_evidence import Range, SearchEvidence, proven
from loadbench.analyze.stats.intervals import share_interval
from loadbench.plan.search import Purpose, Users
from loadbench.record.figures import MANY_A_REQUEST
from loadbench.results.capacity import AtThinkTime, Capacity, CapacityAnswer, Verification

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.analyze.capacity.search_evidence import Expected
    from loadbench.plan.objective import Objective
    from loadbench.plan.scenario import Scenario
    from loadbench.plan.search import Grid, Search
    from loadbench.results.capacity import Shared, Status
    from loadbench.results.prediction import Devices, Limit, LimitKind, Prediction
    from loadbench.results.run import LevelResult

# With which the verification must contradict what was expected.
_AGREEMENT = 0.99
# A range wider than this is no answer.
_WIDEST = 2.0
# What says of a level that the client was its limit (`loadbench.analyze.level.verdict`).
_CLIENT_CODES = frozenset({"late_start", "loop_lag", "rate_not_reached", "lost_worker"})


def client_limited(level: LevelResult, objectives: Sequence[Objective]) -> str:
    """Why a probe says more of the client than of the server; empty where it does not."""
    codes = _CLIENT_CODES | (ITL_ONLY_CODES if any(one.metric in MANY_A_REQUEST for one in objectives) else frozenset())
    return next((reason.message for reason in level.verdict.reasons if reason.code in codes), "")


def conclude(
    account: SearchEvidence,
    search: Search | None,
    scenario: Scenario,
    levels: Sequence[LevelResult],
    *,
    so_far: Capacity,
    client_limited: bool = False,
    stopped: bool = False,
) -> Capacity:
    """The search as it stands, with its answer; `so_far` has what does not change."""
    if search is None or not account.probes:
        return msgspec.structs.replace(so_far, **_nothing(client_limited=client_limited, stopped=stopped))
    verified = verification(account, search.grid, _hit_shares(account, scenario, levels))
    found = _with_verification(proven(search, account.probes), verified)
    told = answer(account, search, confidence=scenario.capacity.confidence, think_s=_think_s(scenario))
    status = _status(search, found, told, client_limited=client_limited, stopped=stopped)
    rule = _breaks_first(account, search)
    limit = _explained(levels, scenario, rule)
    if told is not None:
        told = msgspec.structs.replace(told, limit="client" if status == "client" else limit.kind)
    return msgspec.structs.replace(
        so_far,
        status=status,
        answer=told,
        probes=list(account.probes),
        monotone=search.monotone,
        contradictions=list(found.contradictions),
        explanation=limit,
        prediction=_prediction(scenario, levels),
        verification=verified,
        at_think_times=_at_think_times(told, account),
        devices=_devices(told, scenario),
        conclusion=conclusion(status, told, search, found, limit=limit),
    )


def _with_verification(found: Range, verified: Verification | None) -> Range:
    """A verification that surely differs says that the server did not do the same twice."""
    if verified is None or verified.agrees:
        return found
    said = f"at {verified.amount:g} the verification surely differs from what the search saw there"
    return found._replace(contradictions=(*found.contradictions, said))


def _nothing(*, client_limited: bool, stopped: bool) -> dict[str, str]:
    """Of a search without a probe that counts."""
    if client_limited:
        return {"status": "client", "conclusion": "The client, not the server, was the limit: no probe counts."}
    why = "Stopped before" if stopped else "The time was too short for"
    return {"status": "interrupted" if stopped else "inconclusive", "conclusion": f"{why} the first probe."}


def _think_s(scenario: Scenario) -> float | None:
    if scenario.capacity.by == "rate":
        return None
    return 0.0 if scenario.think is None else scenario.think.mean / 1e9


def answer(
    account: SearchEvidence, search: Search, *, confidence: float, think_s: float | None
) -> CapacityAnswer | None:
    """The answer as far as it goes; `None` where nothing is known, or where not even the least load passes."""
    found, grid = proven(search, account.probes), search.grid
    at = account.best_estimate(search)
    if at is None or found.failed == grid.least:
        return None
    users = isinstance(grid, Users)
    low = None if found.passed is None else grid.amount(found.passed)
    high = None if found.failed is None else grid.amount(found.failed - 1 if users else found.failed)
    if users:
        return CapacityAnswer(users=at, low=low, high=high, confidence=confidence, think_s=think_s)
    return CapacityAnswer(rate_per_s=grid.amount(at), low=low, high=high, confidence=confidence)


def _status(
    search: Search, found: Range, told: CapacityAnswer | None, *, client_limited: bool, stopped: bool
) -> Status:
    if stopped or client_limited:
        return "interrupted" if stopped else "client"
    if found.contradictions:
        return "inconclusive"
    if found.failed == search.grid.least:
        return "none"
    if found.passed == search.grid.most:
        return "at_least"
    return "found" if told is not None and _is_narrow(told) else "inconclusive"


def _is_narrow(told: CapacityAnswer) -> bool:
    return told.low is not None and told.high is not None and told.high <= max(_WIDEST * told.low, told.low + 1)


def _breaks_first(account: SearchEvidence, search: Search) -> str:
    """The objective whose share falls lowest against what is asked for, at the least load that fails or leans so."""
    at = search.failed if search.failed is not None else search.border.fails
    probes = [probe for probe in account.probes if probe.at == at and probe.purpose is not Purpose.VERIFY]
    if not probes:
        return ""
    return min(probes[-1].attainment.items(), key=lambda item: _margin(item[1]))[0]


def _margin(shared: Shared) -> float:
    return math.inf if shared.share is None else (shared.share - shared.asked) / (1 - shared.asked)


def _prediction(scenario: Scenario, levels: Sequence[LevelResult]) -> Prediction | None:
    """By the model, from the levels without think time; `None` where the search had none."""
    think_s = _think_s(scenario)
    if think_s is None:
        return None
    settings, times = scenario.capacity, think_times(think_s)
    return predict_from_curve(
        levels, scenario.objectives, think_s=times, confidence=settings.confidence, seed=scenario.work.seed
    )


def _explained(levels: Sequence[LevelResult], scenario: Scenario, rule: str) -> Limit:
    """By the levels without think time, where there are enough of them; they show it best."""
    usable = [ignoring_itl(one) for one in levels if not one.interrupted]
    by_curve = find_bottleneck(curve_levels(usable, ()), rule=rule) if scenario.think is not None else None
    return by_curve if by_curve is not None and by_curve.kind != "unknown" else find_bottleneck(usable, rule=rule)


def verification(
    account: SearchEvidence, grid: Grid, predicted_shares: Mapping[str, float] | None = None
) -> Verification | None:
    """What the verification measured, beside what was to be expected there; `None` where there was none."""
    probes = [probe for probe in account.probes if probe.purpose is Purpose.VERIFY]
    if not probes:
        return None
    probe = probes[-1]
    expected = account.expected(grid, probe.amount, _AGREEMENT)
    return Verification(
        amount=probe.amount,
        expected={rule: one.share for rule, one in expected.items()},
        predicted=dict(predicted_shares) if predicted_shares else None,
        measured=probe.attainment,
        agrees=all(_agree(expected[rule], shared) for rule, shared in probe.attainment.items()),
    )


def _agree(expected: Expected, measured: Shared) -> bool:
    """Whether a share may be both what was expected and what was measured, each at 99 %."""
    n = int(measured.effective)
    if measured.share is None or not n:
        return True
    low, high = share_interval(round(n * measured.share), n, _AGREEMENT)
    return low <= expected.high and expected.low <= high


def _hit_shares(account: SearchEvidence, scenario: Scenario, levels: Sequence[LevelResult]) -> dict[str, float]:
    """What the model expects of the verification."""
    think_s = _think_s(scenario)
    at = [probe.amount for probe in account.probes if probe.purpose is Purpose.VERIFY]
    if think_s is None or not at:
        return {}
    return predicted_hit_shares(levels, scenario.objectives, users=round(at[-1]), think_s=think_s)


def _at_think_times(told: CapacityAnswer | None, account: SearchEvidence) -> list[AtThinkTime]:
    if told is None or told.think_s is None or not told.think_s:
        return []
    near = min(account.probes, key=lambda probe: abs(probe.amount - told.amount))
    if near.answer_s is None:
        return []
    cycle_s = told.think_s + near.answer_s
    return [
        AtThinkTime(
            think_s=think_s,
            users=_scaled(told.amount, (think_s + near.answer_s) / cycle_s) or 0,
            low=_scaled(told.low, (think_s + near.answer_s) / cycle_s),
            high=_scaled(told.high, (think_s + near.answer_s) / cycle_s),
        )
        for think_s in think_times(told.think_s)
        if think_s != told.think_s
    ]


def _scaled(amount: float | None, factor: float) -> int | None:
    return None if amount is None else math.floor(amount * factor + 1e-9)


def _devices(told: CapacityAnswer | None, scenario: Scenario) -> Devices | None:
    people, headroom = scenario.capacity.devices_for, scenario.capacity.headroom
    if people is None or told is None or scenario.capacity.by == "rate":
        return None
    high = None if told.high is None else math.floor(told.high)
    return fleet_size(people, math.floor(told.low or 0), headroom=headroom, capacity_high=high)


# The sentence.


def conclusion(
    status: Status, told: CapacityAnswer | None, search: Search, found: Range, *, limit: Limit | None = None
) -> str:
    """In a sentence or two, what came of it."""
    unit = isinstance(search.grid, Users)
    match status:
        case "found":
            assert told is not None  # noqa: S101 - it was found
            what = "can use this at once" if unit else "can be served"
            return f"{_counted(told.amount, unit=unit)} {what} ({_range(told)}){_next(limit) if unit else ''}."
        case "at_least":
            assert told is not None  # noqa: S101
            return f"At least {_counted(search.grid.amount(search.grid.most), unit=unit)}: the search went no further."
        case "none":
            return f"Not even {_counted(search.grid.amount(search.grid.least), unit=unit)}: there it surely fails."
        case "client":
            proven_to = "" if told is None or told.low is None else f" At least {_counted(told.low, unit=unit)} fit."
            return f"The client, not the server, was the limit: the search ended there.{proven_to}"
        case "interrupted" | "inconclusive":
            return _open_end(status, told, found, unit=unit)


_WITH_MORE: dict[LimitKind, str] = {
    "prefill": "reading prompts takes too long",
    "decode": "answers come too slowly",
    "memory": "the server's memory is too small",
    "queue": "requests wait too long for each other, one at a time",
}


def _next(limit: Limit | None) -> str:
    """What is in the way of more; empty where it is not known."""
    if limit is None:
        return ""
    what = _WITH_MORE.get(limit.kind, "")
    if limit.kind == "slots":
        several = "" if limit.slots is None else f" one of about {limit.slots.value:.0f}"
        what = f"too many wait for{several} slots" if several else "too many wait for a slot"
    return f"; with more, {what}" if what else ""


def _open_end(status: Status, told: CapacityAnswer | None, found: Range, *, unit: bool) -> str:
    why = "Stopped" if status == "interrupted" else "Not sure" if found.contradictions else "The time was too short"
    if told is None:
        return f"{why}: nothing is proven."
    low = "nothing is proven to pass" if told.low is None else f"{_counted(told.low, unit=unit)} surely pass"
    high = (
        "nothing is proven to fail" if told.high is None else f"more than {_counted(told.high, unit=unit)} surely fail"
    )
    return f"{why}: {low}, {high}; the best estimate is {_counted(told.amount, unit=unit)}."


def _counted(amount: float, *, unit: bool) -> str:
    if not unit:
        return f"{amount:g}/s"
    return "1 person" if amount == 1 else f"{amount:g} people"


def _range(told: CapacityAnswer) -> str:
    ends = f"{told.low:g}" if told.low == told.high else f"{told.low:g} to {told.high:g}"
    return f"{ends}, {100 * told.confidence:g} % sure"
