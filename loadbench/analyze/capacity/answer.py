"""The conclusion of a capacity search: how many users fit, how certain that is, and what the bottleneck is.

The status is *found* when both ends of the range are proven and at most a factor of two apart, and *at_least* when the
highest load that the search may test passes. *None* means that even the lowest load fails. Everything else is
*inconclusive*: an end could not be proven in the time, or the server did not behave the same way twice.

*Other think times* are scaled. By the interactive response time law (`N = X (R + Z)`), `N (R + Z') / (R + Z)` users
with a think time Z' send as many requests per second as the answer's N with Z. This is approximate: more users at the
same rate arrive slightly more unevenly. The model (`loadbench.analyze.capacity.curve`) gives a second estimate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from loadbench.analyze.capacity.bottleneck import find_bottleneck
from loadbench.analyze.capacity.curve import (
    curve_levels,
    ignoring_itl,
    predict_from_curve,
    predicted_hit_shares,
    think_times,
)
from loadbench.analyze.capacity.fleet_size import fleet_size
from loadbench.analyze.capacity.search_evidence import proven
from loadbench.analyze.stats.intervals import share_interval
from loadbench.plan.search import Purpose, Users
from loadbench.results.capacity import AtThinkTime, Capacity, CapacityAnswer, Verification
from loadbench.results.prediction import Bottleneck

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.analyze.capacity.search_evidence import ProvenRange, SearchEvidence
    from loadbench.plan.scenario import Scenario
    from loadbench.plan.search import Grid, Search
    from loadbench.results.capacity import HitShare, Status
    from loadbench.results.prediction import BottleneckKind
    from loadbench.results.run import LevelResult

# The confidence at which the verification must contradict what was expected.
_AGREEMENT = 0.99
# A range wider than this factor is no answer.
_WIDEST = 2.0
_WITH_MORE: dict[BottleneckKind, str] = {
    "prefill": "reading prompts takes too long",
    "decode": "output tokens come too slowly",
    "memory": "the server runs out of memory",
    "queue": "requests wait too long, because the server runs one at a time",
}


def conclude(
    evidence: SearchEvidence,
    search: Search | None,
    scenario: Scenario,
    levels: Sequence[LevelResult],
    *,
    so_far: Capacity,
    client_limited: bool = False,
    stopped: bool = False,
) -> Capacity:
    """The search with its answer and conclusion; `so_far` has the fields that do not change."""
    if search is None or not evidence.probes:
        status: Status = "client" if client_limited else "interrupted" if stopped else "inconclusive"
        sentence = {
            "client": "The load generator was the bottleneck, not the server: no probe counts.",
            "interrupted": "Stopped before the first probe ended.",
        }.get(status, "The time was too short for the first probe: use a larger --budget.")
        return msgspec.structs.replace(so_far, status=status, conclusion=sentence)
    settings, objectives, grid = scenario.capacity, scenario.objectives, search.grid
    think_s = None if settings.by == "rate" else 0.0 if scenario.think is None else scenario.think.mean / 1e9

    verify = next((probe for probe in reversed(evidence.probes) if probe.purpose is Purpose.VERIFY), None)
    verified, shares = None, {}
    if verify is not None:
        if think_s is not None:
            shares = predicted_hit_shares(levels, objectives, users=round(verify.amount), think_s=think_s)
        verified = verification(evidence, grid, shares)
    known = proven(search, evidence.probes)
    if verify is not None and verified is not None and not verified.agrees:
        # Then the server did not behave the same way twice.
        differs = f"the verification at {verify.label} contradicts the search"
        known = known._replace(contradictions=(*known.contradictions, differs))

    found = answer(evidence, search, confidence=settings.confidence, think_s=think_s)
    if stopped or client_limited:
        status = "interrupted" if stopped else "client"
    elif known.contradictions:
        status = "inconclusive"
    elif known.failed == grid.lowest:
        status = "none"
    elif known.passed == grid.highest:
        status = "at_least"
    elif found is None or found.low is None or found.high is None:
        status = "inconclusive"
    else:
        status = "found" if found.high <= max(_WIDEST * found.low, found.low + 1) else "inconclusive"

    end_reason = "no further test was possible, or likely to decide anything, in the time left"
    if stopped or client_limited or not search.monotone:
        end_reason = ""  # the conclusion gives it
    elif search.passed == grid.highest:
        end_reason = f"{settings.by}={grid.amount(grid.highest):g}, the highest load allowed, passed"
    elif search.narrow:
        end_reason = "the lowest load failed" if search.failed == grid.lowest else "the range is narrow enough"

    # The objective that fails first: at the lowest load that fails, or likely fails, the one that misses its required
    # share by most. Levels without think time show the bottleneck best, where there are enough of them.
    at = search.failed if search.failed is not None else search.threshold.fails
    failing = [probe for probe in evidence.probes if probe.at == at and probe.purpose is not Purpose.VERIFY]
    rule = min(failing[-1].attainment.items(), key=lambda item: _margin(item[1]))[0] if failing else ""
    usable = [ignoring_itl(level) for level in levels if not level.interrupted]
    bottleneck = find_bottleneck(usable if scenario.think is None else curve_levels(usable, ()), rule=rule)
    if bottleneck.kind == "unknown" and scenario.think is not None:
        bottleneck = find_bottleneck(usable, rule=rule)
    aborted = f"{failing[-1].label} ({failing[-1].aborted})" if failing and failing[-1].aborted else ""
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
            devices = fleet_size(
                settings.devices_for,
                math.floor(found.low or 0),
                headroom=settings.headroom,
                capacity_high=None if found.high is None else math.floor(found.high),
            )
    answered = sum(level.outcomes.get("ok", 0) for level in levels)
    return msgspec.structs.replace(
        so_far,
        status=status,
        answer=found,
        shorter_share=sum(level.tokens.shorter for level in levels) / answered if answered else None,
        probes=list(evidence.probes),
        monotone=search.monotone,
        contradictions=list(known.contradictions),
        explanation=bottleneck,
        prediction=prediction,
        verification=verified,
        at_think_times=_at_think_times(found, evidence),
        devices=devices,
        conclusion=_conclusion(status, found, search, known, bottleneck, rule, aborted),
        end_reason=end_reason,
    )


def answer(
    evidence: SearchEvidence, search: Search, *, confidence: float, think_s: float | None
) -> CapacityAnswer | None:
    """The answer as far as it is known; `None` where nothing is known, or where even the lowest load fails."""
    known, grid = proven(search, evidence.probes), search.grid
    at = evidence.best_estimate(search)
    if at is None or known.failed == grid.lowest:
        return None
    users = isinstance(grid, Users)
    low = None if known.passed is None else grid.amount(known.passed)
    high = None if known.failed is None else grid.amount(known.failed - 1 if users else known.failed)
    if users:
        return CapacityAnswer(users=at, low=low, high=high, confidence=confidence, think_s=think_s)
    return CapacityAnswer(rate_per_s=grid.amount(at), low=low, high=high, confidence=confidence)


def _margin(shared: HitShare) -> float:
    """How far a share is above the required one, in units of the allowed misses; below 0 the objective is missed."""
    return math.inf if shared.share is None else (shared.share - shared.asked) / (1 - shared.asked)


def verification(evidence: SearchEvidence, grid: Grid, predicted: Mapping[str, float] | None = None) -> Verification:
    """The last verification probe and the shares that were expected there; `predicted` are those of the model.

    They agree where the interval of the expected share and that of the measured one overlap, each at 99 %, and no abort
    rule ended it.
    """
    probe = [probe for probe in evidence.probes if probe.purpose is Purpose.VERIFY][-1]
    expected = evidence.expected(grid, probe.amount, _AGREEMENT)
    agrees = not probe.aborted
    for rule, shared in probe.attainment.items():
        n = int(shared.effective)
        if shared.share is not None and n:
            low, high = share_interval(round(n * shared.share), n, _AGREEMENT)
            agrees = agrees and low <= expected[rule].high and expected[rule].low <= high
    return Verification(
        amount=probe.amount,
        expected={rule: one.share for rule, one in expected.items()},
        predicted=dict(predicted) if predicted else None,
        measured=probe.attainment,
        agrees=agrees,
    )


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
            None if amount is None else math.floor(amount * factor + 1e-9)
            for amount in (found.amount, found.low, found.high)
        )
        rows.append(AtThinkTime(think_s=think_s, users=users or 0, low=low, high=high))
    return rows


def _conclusion(
    status: Status,
    found: CapacityAnswer | None,
    search: Search,
    known: ProvenRange,
    bottleneck: Bottleneck,
    rule: str,
    aborted: str,
) -> str:
    """The conclusion in one to three sentences; `rule` is the objective that fails first, `aborted` what ended it."""
    grid, of_users = search.grid, isinstance(search.grid, Users)

    def counted(amount: float) -> str:
        return f"{amount:g} " + (("user" if amount == 1 else "users") if of_users else "requests/s")

    def are(at: int | None) -> str:
        if at is None:
            return "no load is"
        return f"{counted(grid.amount(at))} {'is' if of_users and at == 1 else 'are'}"

    if status == "found":
        assert found is not None  # noqa: S101 - a found answer is one
        ends = f"{found.low:g}" if found.low == found.high else f"{found.low:g} to {found.high:g}"
        with_more = _WITH_MORE.get(bottleneck.kind, "")
        if bottleneck.slots is not None and bottleneck.kind == "slots":
            with_more = f"too many requests wait, because the server runs about {bottleneck.slots.value:.0f} at once"
        sentence = f"The server meets the objectives with up to {counted(found.amount)}"
        sentence += f" ({ends}, {100 * found.confidence:g} % confidence)"
        return f"{sentence}; with more, {with_more}." if with_more else f"{sentence}."
    if status == "at_least":
        most = counted(grid.amount(grid.highest))
        return f"The server meets the objectives with {most}, the highest load that --at-most allows, and maybe more."
    if status == "none":
        missed = f"The server misses {rule or 'an objective'} even with {counted(grid.amount(grid.lowest))}."
        return f"An abort rule ended even {aborted}." if aborted else missed
    if status == "client":
        proof = "" if known.passed is None else f" {are(known.passed)} proven to meet the objectives."
        return f"The load generator was the bottleneck, not the server, so the search stopped.{proof}"
    why = f"Inconclusive: {'; '.join(known.contradictions) or 'the time was too short'}"
    why = "Stopped" if status == "interrupted" else why
    meets = are(known.passed)
    fails = f"an abort rule ended {aborted}" if aborted else f"{are(known.failed)} proven not to"
    proof = f"{meets[0].upper()}{meets[1:]} proven to meet the objectives; {fails}"
    if known.passed is None and known.failed is None:
        proof = "Nothing is proven yet"
    # A best estimate is no help where the probes contradict each other.
    best = f" The best estimate is {counted(found.amount)}." if found and not known.contradictions else ""
    return f"{why}. {proof}.{best}"
