"""The conclusion of a capacity search: how many users fit, how certain that is, and what the bottleneck is.

The status is *found* when the likely range is narrow and its verification agrees, or when the proven range is narrow;
where proof is required, when both ends are proven and at most a factor of two apart. It is *at_least* when the highest
load that the search may test passes. *None* means that even the lowest load fails. Everything else is *inconclusive*:
the range was still too wide when the time was over, or the server did not behave the same way twice.

*Other think times* are scaled. By the interactive response time law (`N = X (R + Z)`), `N (R + Z') / (R + Z)` users
with a think time Z' send as many requests per second as the answer's N with Z. This is approximate: more users at the
same rate arrive slightly more unevenly. The model (`loadbench.analyze.capacity.curve`) gives a second estimate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from loadbench.analyze.capacity.bottleneck import BEFORE_FIRST_TOKEN, BETWEEN_TOKENS, find_bottleneck, whole_ends
from loadbench.analyze.capacity.client_delay import without_client_reasons
from loadbench.analyze.capacity.curve import (
    curve_levels,
    ignoring_itl,
    predict_from_curve,
    predicted_hit_shares,
    think_times,
)
from loadbench.analyze.capacity.fleet_size import fleet_size
from loadbench.analyze.level.machine import why_late
from loadbench.plan.curve import CurveStep, ThroughputCurve
from loadbench.plan.search import CONTRADICTS, FAVOURS, Purpose, Users
from loadbench.results.capacity import AtThinkTime, Capacity, CapacityAnswer, Needed, Verification
from loadbench.results.prediction import Bottleneck

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadbench.analyze.capacity.search_evidence import SearchEvidence
    from loadbench.plan.scenario import Scenario
    from loadbench.plan.search import Search
    from loadbench.results.capacity import HitShare, ProbeResult, Status, Strength
    from loadbench.results.prediction import BottleneckKind
    from loadbench.results.run import LevelResult

# A proven range no wider than this factor answers as it is; where proof is required, one of a factor of two does.
_NARROW, _WIDEST = 1.3, 2.0
# Fewer requests verify nothing.
_FEWEST_VERIFY = 10
# A likely range wider than this factor is no answer, however much time there was.
_LIKELY_WIDEST = 1.6
# What a likely range is narrowed to, as a factor, and how many times as many requests a proof of the same takes.
_LIKELY_TARGET, _FOR_PROOF = 1.4, 5.0
# What is needed is enough in at least nine of ten cases if it is this many times what it would be on average.
_FOR_SURE = 2.0
_WITH_MORE: dict[BottleneckKind, str] = {
    "prefill": "reading prompts takes too long",
    "decode": "output tokens come too slowly",
    "memory": "the server runs out of memory",
    "queue": "requests wait too long, because the server runs one at a time",
}
# What is seen above the limit, by the objective that fails first.
_MISSES = {
    BEFORE_FIRST_TOKEN: "first tokens come too late",
    BETWEEN_TOKENS: "output tokens come too slowly",
    ("failures",): "too many requests fail",
}


def conclude(
    evidence: SearchEvidence,
    search: Search | None,
    scenario: Scenario,
    levels: Sequence[LevelResult],
    *,
    so_far: Capacity,
    client_limited: bool = False,
    stopped: str = "",
) -> Capacity:
    """The search with its answer and conclusion; `so_far` has the fields that do not change.

    A search that did not come to its end has in `stopped` the first words of its conclusion, such as `Stopped`.
    """
    if search is None and stopped and so_far.conclusion:
        # A resumed search, which has the answer of the earlier one.
        conclusion = f"{stopped} before another probe ended. Until then: {so_far.conclusion}"
        return msgspec.structs.replace(so_far, status="interrupted", conclusion=conclusion)
    if search is None or not evidence.probes:
        status: Status = "client" if client_limited else "interrupted" if stopped else "inconclusive"
        sentence = {
            "client": "The load generator was the bottleneck, not the server: no probe counts.",
            "interrupted": f"{stopped} before the first probe ended.",
        }.get(status, "The time was too short for the first probe: use a larger --budget.")
        return msgspec.structs.replace(so_far, status=status, conclusion=sentence)
    settings, objectives, grid = scenario.capacity, scenario.objectives, search.grid
    think_s = None if settings.by == "rate" else 0.0 if scenario.think is None else scenario.think.mean / 1e9

    verify = next((probe for probe in reversed(evidence.probes) if probe.purpose is Purpose.VERIFY), None)
    verified, shares = None, {}
    if verify is not None:
        if think_s is not None:
            shares = predicted_hit_shares(levels, objectives, users=round(verify.amount), think_s=think_s)
        verified = verification(evidence, shares)
    standing = search.standing
    contradictions = []
    if not standing.monotone:
        contradictions.append("a higher load passed and a lower one failed: more load is not always worse here")
    if verify is not None and verified is not None and verified.agrees is False:
        # Then the server did not behave the same way twice.
        contradictions.append(f"the verification at {verify.label} contradicts the search")

    found = answer(search, settings.confidence, think_s, agrees=verified is not None and bool(verified.agrees))
    if stopped or client_limited:
        status = "interrupted" if stopped else "client"
    elif standing.failed == grid.lowest:
        status = "none"
    elif standing.passed == grid.highest:
        status = "at_least"
    else:
        enough = {"proven"} if settings.require == "proven" else {"proven", "likely"}
        is_answer = not contradictions and found is not None and found.strength in enough
        status = "found" if is_answer else "inconclusive"

    end_reason = "the time left was too short for another probe" if status == "inconclusive" else ""
    if stopped or client_limited or contradictions:
        end_reason = ""  # the conclusion gives it
    elif status == "at_least":
        end_reason = f"{settings.by}={grid.amount(grid.highest):g}, the highest load allowed, passed"
    elif status == "none":
        end_reason = "the lowest load failed"
    elif status == "found":
        widest = _LIKELY_WIDEST if found is None or found.strength == "likely" else _NARROW
        widest = _WIDEST if settings.require == "proven" else widest
        enough_all_the_same = f"its range, at most a factor of {widest:g} wide, is an answer all the same"
        end_reason = search.narrowed_to or f"no further probe was possible; {enough_all_the_same}"

    # The objective that fails first: at the lowest load that fails, or likely fails, the one that misses its required
    # share by most. Levels without think time show the bottleneck best, where there are enough of them.
    failing = [probe for probe in evidence.probes if probe.leaning < 0 or probe.decision == "FAIL"]
    failing = sorted(failing, key=lambda probe: -probe.at)
    rule = min(failing[-1].attainment.items(), key=lambda item: _margin(item[1]))[0] if failing else ""
    # Where the load generator's delay changed nothing, it was no bottleneck either.
    counted = {probe.level for probe in evidence.probes} | {step.level for step in so_far.curve}
    usable = [
        without_client_reasons(level) if number in counted else ignoring_itl(level)
        for number, level in enumerate(levels)
        if not level.interrupted
    ]
    aborted = f"{failing[-1].label} ({failing[-1].aborted})" if failing and failing[-1].aborted else ""
    bottleneck = _bottleneck(usable, failing, rule, thinks=scenario.think is not None)
    if bottleneck.kind == "client" and status != "client":
        # The objectives were decided all the same: it only hid what the server can do without think time.
        late = why_late(reason for level in levels for reason in level.verdict.reasons)
        hidden = f"not known: {late}, so the server's bare throughput could not be measured"
        bottleneck = msgspec.structs.replace(bottleneck, kind="unknown", sentence=hidden)
    if aborted:
        ended = f"not known: an abort rule ended {aborted}"
        bottleneck = Bottleneck(kind="unknown", sentence=ended, evidence=[], advice="leave out --abort-on")
    if found is not None:
        found = msgspec.structs.replace(found, limit="client" if status == "client" else bottleneck.kind)

    prediction = devices = None
    if think_s is not None:
        times, seed = think_times(think_s), scenario.work.seed
        prediction = predict_from_curve(levels, objectives, think_s=times, confidence=settings.confidence, seed=seed)
        if settings.devices_for is not None and found is not None:
            low, high = found.range
            devices = fleet_size(
                settings.devices_for,
                math.floor(low or 0),
                headroom=settings.headroom,
                capacity_high=None if high is None else math.floor(high),
            )
    answered = sum(level.outcomes.get("ok", 0) for level in levels)
    known = msgspec.structs.replace(so_far, status=status, answer=found, probes=list(evidence.probes))
    no_limit = known.looked_up_to if known.sees_no_limit else ""
    return msgspec.structs.replace(
        known,
        shorter_share=sum(level.tokens.shorter for level in levels) / answered if answered else None,
        monotone=standing.monotone,
        contradictions=contradictions,
        explanation=bottleneck,
        prediction=prediction,
        verification=verified,
        at_think_times=_at_think_times(found, evidence),
        devices=devices,
        needed=needed(found, so_far, evidence, search, has_curve=scenario.measures_curve)
        if status in {"inconclusive", "interrupted"}
        else None,
        conclusion=_conclusion(status, found, search, contradictions, bottleneck, rule, aborted, no_limit, stopped),
        end_reason=end_reason,
    )


def _bottleneck(
    usable: Sequence[LevelResult], failing: Sequence[ProbeResult], rule: str, *, thinks: bool
) -> Bottleneck:
    """What limits the load, by the levels and by the objective that fails first, if some probe fails for sure enough:
    one that leans so little that reports call it unclear shows nothing."""
    clear = any(probe.decision == "FAIL" or probe.leaning <= -FAVOURS for probe in failing)
    rule = rule if clear else ""
    bottleneck = find_bottleneck(curve_levels(usable, ()) if thinks else usable, rule=rule)
    if bottleneck.kind == "unknown" and bottleneck.ceiling_per_s is None and thinks:
        bottleneck = find_bottleneck(usable, rule=rule)
    if bottleneck.kind == "unknown" and failing and not clear:
        little = "not known: too little was measured, and no load clearly misses an objective"
        return Bottleneck(kind="unknown", sentence=little, evidence=[], advice="give the search more time")
    return bottleneck


def answer(search: Search, confidence: float, think_s: float | None, *, agrees: bool) -> CapacityAnswer | None:
    """The answer as far as it is known; `None` where nothing is known, or where even the lowest load fails.

    `agrees` says that the verification does; it counts where it was at the low end of the likely range. The numbers are
    floors: loads of the search's grid.
    """
    grid, standing = search.grid, search.standing
    if standing.estimate is None or standing.failed == grid.lowest or not search.visits:
        return None
    users, step = isinstance(grid, Users), int(isinstance(grid, Users))

    def load(at: int | None, amount: Callable[[int], float]) -> float | None:
        return None if at is None or at < grid.lowest else amount(at)

    failed = None if standing.failed is None else standing.failed - 1
    low, high = load(standing.passed, grid.amount), load(failed, grid.top)
    likely_low, likely_high = load(standing.low, grid.amount), load(standing.high, grid.top)
    # The curve ends with the grid: where the capacity may be its last load, it may also be beyond.
    is_open = standing.high is not None and standing.high >= grid.highest

    def within(low: float | None, high: float | None, widest: float) -> bool:
        return low is not None and high is not None and high <= max(widest * low, low + step)

    strength: Strength = "estimate"
    if within(low, high, _WIDEST if search.require == "proven" else _NARROW):
        strength = "proven"
    elif agrees and search.verifies_low and search.bracketed and within(likely_low, likely_high, _LIKELY_WIDEST):
        strength = "likely"
    amount = grid.amount(max(standing.estimate, grid.lowest))
    return CapacityAnswer(
        users=round(amount) if users else msgspec.UNSET,
        rate_per_s=msgspec.UNSET if users else amount,
        low=low,
        high=high,
        likely_low=likely_low,
        likely_high=None if is_open else likely_high,
        strength=strength,
        confidence=confidence,
        think_s=think_s if users else None,
    )


def _margin(shared: HitShare) -> float:
    """How far a share is above the required one, in units of the allowed misses; below 0 the objective is missed."""
    return math.inf if shared.share is None else (shared.share - shared.asked) / (1 - shared.asked)


def verification(evidence: SearchEvidence, predicted: Mapping[str, float] | None = None) -> Verification:
    """The last verification probe and the shares that were expected there; `predicted` are those of the model.

    It agrees unless the 95 % interval of a measured share lies below the required one, or an abort rule ended it.
    Requests that could not have contradicted say nothing.
    """
    probe = [probe for probe in evidence.probes if probe.purpose is Purpose.VERIFY][-1]
    expected = evidence.expected(probe.amount, evidence.confidence)
    contradicts = bool(probe.aborted) or probe.leaning <= -CONTRADICTS
    silent = probe.requests < _FEWEST_VERIFY or not (probe.informed or contradicts)
    return Verification(
        amount=probe.amount,
        expected={rule: one.share for rule, one in expected.items()},
        predicted=dict(predicted) if predicted else None,
        measured=probe.attainment,
        agrees=None if silent else not contradicts,
    )


def needed(
    found: CapacityAnswer | None, so_far: Capacity, evidence: SearchEvidence, search: Search, *, has_curve: bool = False
) -> Needed | None:
    """About how much more an answer takes, enough in most cases; `None` where nothing says.

    Where nothing failed, that is one probe at the highest load with all that a proof takes. Else the width of a range
    falls with the square root of the number of requests, and a proof takes several times as many as a range of the same
    width by a fitted curve. With `has_curve` the loads without think time that there was no time for come first.
    """
    grid, probes = search.grid, evidence.probes
    proof = per_s = None
    requests = sum(probe.requests for probe in probes)
    if found is None or not requests:
        return None
    fails = any(probe.leaning < 0 or probe.decision == "FAIL" for probe in probes)
    if found.likely_high is None and found.high is None and not fails:
        proof = evidence.requests_to_pass(grid.highest)
        if proof is None:
            return None
        more = math.ceil(_FOR_SURE * proof)
        last = max(probes, key=lambda probe: (probe.amount, probe.window_s))
        top = grid.amount(grid.highest)
        # Warm-ups, and the loads up to the highest one.
        each_s = (so_far.spent_s - sum(step.took_s for step in so_far.curve)) / len(probes)
        further = math.ceil(math.log2(top / last.amount)) if last.amount < top else 0
        per_s = max(1, last.requests) / last.window_s * top / last.amount
        seconds = more / per_s + (1 + further) * each_s
        # An eighth of the time stays reserved, as `loadbench.plan.search.Budget` has it.
        seconds = (so_far.spent_s + seconds) * 8 / 7 - so_far.spent_s
    else:
        high = grid.top(grid.highest) if found.likely_high is None else found.likely_high
        low = found.likely_low or grid.amount(grid.lowest) / 2
        is_narrow = found.users is not msgspec.UNSET and high - low <= 1
        factor = 1.0 if is_narrow else max(1.0, (math.log(high / low) / math.log(_LIKELY_TARGET)) ** 2)
        factor *= _FOR_PROOF if so_far.require == "proven" else 1.0
        # The verification takes an eighth of the time.
        factor = _FOR_SURE * (max(factor - 1, 0.0) + 1 / 2)
        more, seconds = math.ceil(factor * requests), factor * so_far.spent_s

    # With what is left of the throughput curve, which takes up to a quarter of the whole time.
    measured = {step.users: CurveStep(step.requests_per_s, step.missed) for step in so_far.curve}
    if has_curve and ThroughputCurve(round(grid.amount(grid.highest)), measured).next() is not None:
        spent_on_it = sum(step.took_s for step in so_far.curve)
        seconds = max(seconds, (so_far.spent_s + seconds - spent_on_it) * 4 / 3 - so_far.spent_s)
    return Needed(requests=more, seconds=seconds, proof=proof, per_s=per_s)


def _at_think_times(found: CapacityAnswer | None, evidence: SearchEvidence) -> list[AtThinkTime]:
    """The answer for other think times, by proportion."""
    if found is None or not found.think_s:
        return []
    near = min(evidence.probes, key=lambda probe: abs(probe.amount - found.amount))
    if near.answer_s is None:
        return []
    rows = []
    for think_s in think_times(found.think_s):
        if think_s == found.think_s:
            continue
        factor = (think_s + near.answer_s) / (found.think_s + near.answer_s)
        users, low, high = (
            None if amount is None else math.floor(amount * factor + 1e-9) for amount in (found.amount, *found.range)
        )
        rows.append(AtThinkTime(think_s=think_s, users=users or 0, low=low, high=high))
    return rows


def _conclusion(
    status: Status,
    found: CapacityAnswer | None,
    search: Search,
    contradictions: Sequence[str],
    bottleneck: Bottleneck,
    rule: str,
    aborted: str,
    no_limit: str,
    stopped: str,
) -> str:
    """The conclusion in one to three sentences; `rule` is the objective that fails first, `aborted` what ended it,
    `no_limit` the load up to which nothing failed, and `stopped` what ended the search early."""
    grid, of_users = search.grid, isinstance(search.grid, Users)

    def counted(amount: float) -> str:
        return f"{amount:g} " + (("user" if amount == 1 else "users") if of_users else "requests/s")

    def are(at: int | None) -> str:
        if at is None:
            return "no load is"
        return f"{counted(grid.amount(at))} {'is' if of_users and at == 1 else 'are'}"

    if status == "found":
        assert found is not None  # noqa: S101 - a found answer is one
        low, high = found.amount if found.range[0] is None else found.range[0], found.range[1]
        sure, best = f"{100 * found.confidence:g} % confidence", f"best estimate {found.amount:g}"
        with_more = _WITH_MORE.get(bottleneck.kind, "")
        if bottleneck.ceiling_per_s is not None and bottleneck.kind in {"prefill", "decode", "unknown"}:
            misses = next((text for names, text in _MISSES.items() if rule.startswith(names)), "requests take too long")
            with_more = (
                f"{misses}, because the server completes no more than about {bottleneck.ceiling_per_s:.3g} requests/s"
            )
        if bottleneck.slots is not None and bottleneck.kind == "slots":
            few, many = whole_ends(bottleneck.slots)
            at_once = f"{few} to {many}" if few < many else f"{bottleneck.slots.value:.0f}"
            with_more = f"too many requests wait, because the server runs about {at_once} at once"
        lies = "is likely" if found.strength == "likely" else "is proven to be"
        where = f"{low:g} or more" if high is None else f"between {low:g} and {high:g}" if high > low else f"{high:g}"
        sentence = f"Plan with at most {counted(low)}: the limit {lies} {where} ({sure}; {best})"
        return f"{sentence}. Above the limit, {with_more}." if with_more else f"{sentence}."
    if status == "at_least":
        most = counted(grid.amount(grid.highest))
        return f"The server meets the objectives with {most}, the highest load that --at-most allows, and maybe more."
    if status == "none":
        missed = f"The server misses {rule or 'an objective'} even with {counted(grid.amount(grid.lowest))}."
        return f"An abort rule ended even {aborted}." if aborted else missed
    if status == "client":
        proof = "" if search.passed is None else f" {are(search.passed)} proven to meet the objectives."
        return f"The load generator was the bottleneck, not the server, so the search stopped.{proof}"
    why = stopped or f"Inconclusive: {'; '.join(contradictions) or 'the time was too short'}"
    meets = are(search.passed)
    fails = f"an abort rule ended {aborted}" if aborted else f"{are(search.failed)} proven not to"
    proof = f"{meets[0].upper()}{meets[1:]} proven to meet the objectives; {fails}"
    if search.passed is None and search.failed is None:
        proof = "Nothing is proven yet"
    if no_limit:
        likely = found is not None and found.likely_low is not None and f"; {found.likely_low:g} or more are likely"
        return f"{why}. No limit was found up to {no_limit}{likely or ''}. {proof}."
    # A best estimate is no help where the probes contradict each other.
    best = f" The best estimate is {counted(found.amount)}" if found and not contradictions else ""
    if best and found is not None and found.likely_low is not None:
        end = "or more" if found.likely_high is None else f"to {found.likely_high:g}"
        best += f" (likely range {found.likely_low:g} {end})"
    return f"{why}. {proof}.{best}" + "." * bool(best)
