"""The report of a capacity search: the answer, what it rests on, and its probes; and its lines while it runs."""

from __future__ import annotations

import math
import shlex
from operator import attrgetter
from typing import TYPE_CHECKING

from loadbench.analyze.capacity.curve import fit_of_all_objectives
from loadbench.analyze.capacity.fitted_curve import fitted_curve
from loadbench.analyze.capacity.prediction import FEWEST_LEVELS
from loadbench.analyze.capacity.sequential import FEWEST_PER_USER
from loadbench.analyze.level.knee import WORTHWHILE
from loadbench.analyze.level.machine import why_late
from loadbench.analyze.level.verdict import CLIENT_CODES
from loadbench.core.text import some
from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.search import FAVOURS, SAME_LOAD, Purpose
from loadbench.plan.server_url import UNVERIFIED
from loadbench.record.figures import MANY_A_REQUEST
from loadbench.report.document import Block, Document, Notes, Table, Text
from loadbench.report.run import BY_OBJECTIVES, start_text
from loadbench.report.values import counted, duration, percent, reason_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.analyze.capacity.fitted_curve import FittedCurve
    from loadbench.results.capacity import Capacity, CapacityAnswer, CurveLevel, HitShare, ProbeResult, Verification
    from loadbench.results.prediction import FleetSize, PredictedCapacity
    from loadbench.results.run import LevelResult

# The name of each phase, and what its probes are for.
_PHASES = {
    Purpose.BRACKET: ("bracketing", "doubles or halves the load until one probe leans to PASS and another to FAIL"),
    Purpose.REFINE: ("refining", "measures the load whose requests narrow the likely range most"),
    Purpose.TEST: ("test", "measures loads below and above the estimate until they are proven to pass or to fail"),
    Purpose.REPEAT: ("repeat test", "briefly measures an end again, and is decided by its own requests alone"),
    Purpose.VERIFY: (
        "verification",
        "measures the low end of the likely range, to see whether it meets the objectives",
    ),
}

# The bottleneck in a word, where throughput stays and neither prompts nor decoding take most of the time.
SPEED = "the server's speed"
# From this share of responses on, their own lengths decide the load that they make.
_MANY_SHORTER = 0.1


def capacity_document(
    capacity: Capacity, levels: Sequence[LevelResult] = (), *, resume: str = "", made_by: str = ""
) -> Document:
    """The whole report, also of a search that is under way; `levels` are those of its run, if they are at hand.
    `resume` is the command that goes on with it, where it is not `loadbench capacity`. `made_by` are the workers that
    made the load, where the report of the run does not follow."""
    fit = fit_of_all_objectives(capacity.prediction, getattr(capacity.answer, "think_s", None))
    curve = fitted_curve(capacity) if capacity.status == "found" else None
    title = f"Capacity of model {capacity.model}" if capacity.model else "Capacity"
    blocks: list[Block] = [
        Text([*_answer_lines(capacity, fit, curve, resume), *trust_lines(capacity, levels)]),
        *_claims(capacity),
    ]
    if curve is not None and capacity.answer is not None:
        lower = "limit lower: how likely the limit is below this load, by the curves of all objectives"
        if capacity.answer.range[0] == capacity.answer.likely_low:
            tail = percent((1 - capacity.answer.confidence) / 2)
            lower += f"; plan with the highest load at which that is at most {tail}, also where a higher one passed"
        met = "objective columns: by the fitted curve, the share of requests that meets each, as likely more as less, "
        met += f"with its {100 * capacity.answer.confidence:g} % range; near the best estimate, the first one falls "
        met += "to the share that is needed"
        blocks.append(curve_table(capacity, curve))
        blocks.append(Notes([lower, met]))
    if capacity.verification is not None:
        blocks += _verification(capacity, capacity.verification, fit, curve)
    if capacity.at_think_times or capacity.prediction is not None:
        blocks += _think_times(capacity)
    steps = [
        [f"users={step.users}", f"{step.requests_per_s:.3g}", "-" if step.answer_s is None else duration(step.answer_s)]
        for step in sorted(capacity.curve, key=lambda step: step.users)
    ]
    blocks.append(Table(("load without think time", "responses/s", "median response time"), steps, "lrr"))
    probes = []
    some_gave_up = any(probe.gave_up for probe in capacity.probes)
    for probe in capacity.probes:
        state = "aborted" if probe.aborted else "queue grows" if probe.overloaded else ""
        shares = [state or _share(probe.attainment[rule]) for rule in capacity.objectives]
        gave_up = [str(probe.gave_up)] * some_gave_up
        last = [str(probe.requests), *gave_up, duration(probe.window_s), phase_of(probe)]
        probes.append([probe.label, side_of(probe), *shares, *last])
    further = ("gave up",) * some_gave_up
    headers = ("probe at", "decision", *capacity.objectives, "requests", *further, "measured for", "phase")
    rank = "00" + "0" * len(capacity.objectives) + "1" * (1 + some_gave_up) + "23"
    blocks.append(Table(headers, probes, "ll" + "r" * (len(headers) - 3) + "l", rank=rank))
    by = [f"load from {made_by}"] if made_by else []
    notes = Notes([*_notes(capacity), *_why_that_ceiling(capacity, levels), *by])
    return Document(title + (" on the simulated server" if capacity.simulated else ""), [*blocks, notes])


def _answer_lines(
    capacity: Capacity, fit: PredictedCapacity | None, curve: FittedCurve | None, resume: str
) -> list[str]:
    """The answer in a few sentences that anyone can act on."""
    answer, verified, fleet = capacity.answer, capacity.verification, capacity.devices
    lines = [capacity.conclusion]
    if not capacity.conclusion and not capacity.probes:
        so_far = counted(len(capacity.curve), "load") if capacity.curve else "no loads"
        lines = [f"Under way: {so_far} without think time so far, and none with it."]
    elif not capacity.conclusion:
        probes = sorted(capacity.probes, key=attrgetter("amount"))
        low = next((probe.label for probe in reversed(probes) if probe.decision == "PASS"), "no load")
        high = next((probe.label for probe in probes if probe.decision == "FAIL"), "no load")
        spent = f"{duration(capacity.spent_s)} of {duration(capacity.budget_s)} spent"
        lines = [f"Under way, {spent}: {low} is proven to pass, {high} is proven to fail."]

    if curve is not None and (more := _passed_above(capacity)):
        lines.append(_why_not(capacity, curve, more))

    # Why there is no sure answer, and what to do next.
    if answer is not None and (capacity.require, answer.strength, capacity.complete) == ("proven", "likely", True):
        lines.append("The likely answer is verified, but --require proven asks for a proven one.")
    lines += [f"{text[0].upper()}{text[1:]}." for text in capacity.contradictions if text not in capacity.conclusion]
    if capacity.contradictions:
        cause = "the server, or other load on its machine, changed during the search"
        if verified is not None and not verified.agrees:
            cause += f", or performance drops sharply near {kind_of(capacity)}={verified.amount:g}"
        lines.append(f"Possible causes: {cause}. Search again to find out.")
    elif capacity.conclusion and capacity.status in {"inconclusive", "interrupted"}:
        lines.append(_next_step(capacity, resume))
    elif capacity.status == "at_least":
        lines.append("The limit was not reached. To find it, search again with a higher --at-most.")
        if answer is not None and fit is not None and fit.low and (fit.users or 0) > answer.amount:
            lines[-1] += f" The queueing model predicts {_users(fit)} users ({range_text(fit.low, fit.high)})."
    if answer is not None and answer.think_s:
        lines.append(f"Users think {duration(answer.think_s)} on average between a response and their next request.")
    if capacity.explanation is not None:
        reached = capacity.status != "at_least" and not capacity.sees_no_limit
        shown = "Bottleneck" if reached or capacity.explanation.kind == "unknown" else "Bottleneck at higher loads"
        lines.append(f"{shown}: {capacity.explanation.sentence.rstrip('.')}.{_used(capacity)}")
        if capacity.explanation.advice and reached:
            is_known = capacity.explanation.kind != "unknown" or capacity.explanation.ceiling_per_s is not None
            aim = "To raise the limit" if is_known else "To find it"
            lines.append(f"{aim}: {capacity.explanation.advice}.")
    if fleet is not None and fleet.devices is None:
        lines.append(f"Servers for {fleet.people} users: unknown, because {fleet.note}.")
    elif fleet is not None and answer is not None:
        lines.append(_fleet_line(fleet, answer, is_at_least=capacity.status == "at_least"))
    if answer is not None and (capacity.status, answer.strength, resume) == ("found", "likely", "") and capacity.run:
        lines.append(_surer(capacity))
    started = start_text(capacity.server_start)
    return [*lines, f"Started by loadbench: {started}."] if started else lines


def _used(capacity: Capacity) -> str:
    """How much of the highest throughput the best estimate already uses; by Little's law, where users think."""
    answer, explanation = capacity.answer, capacity.explanation
    ceiling = None if explanation is None else explanation.ceiling_per_s
    if answer is None or not ceiling or not capacity.probes or capacity.status != "found":
        return ""
    per_s, load = answer.amount, f"{answer.amount:g} requests/s"
    if kind_of(capacity) == "users":
        near = min(capacity.probes, key=lambda probe: abs(probe.amount - answer.amount))
        if not answer.think_s or near.answer_s is None:
            return ""
        per_s, load = answer.amount / (answer.think_s + near.answer_s), f"{answer.amount:g} users"
    return f" {load}, the best estimate, already use about {min(100, 100 * per_s / ceiling):.0f} % of that throughput."


def limit_name(capacity: Capacity) -> str:
    """The bottleneck in a word: `slots or memory`, since both look the same from outside, or `SPEED`."""
    limit = "unknown" if capacity.answer is None else capacity.answer.limit
    is_speed = limit == "unknown" and capacity.explanation is not None and capacity.explanation.ceiling_per_s
    return SPEED if is_speed else "slots or memory" if limit == "slots" else limit


def _passed_above(capacity: Capacity, *, clearly: bool = True) -> list[ProbeResult]:
    """The probes at the highest load (clearly) above the one to plan with at which every objective was met often
    enough, which is not proven for all that; none where there is no such load."""
    answer = capacity.answer
    if answer is None or answer.range[0] is None:
        return []
    ratio = SAME_LOAD if clearly else 1.0
    above = {probe.amount for probe in capacity.probes if ratio * probe.amount > answer.range[0]}
    for amount in sorted(above, reverse=True):
        probes = [probe for probe in capacity.probes if probe.amount == amount]
        is_sound = not any(probe.overloaded or probe.aborted or probe.decision == "FAIL" for probe in probes)
        met = [_met([probe.attainment for probe in probes], rule) for rule in capacity.objectives]
        if is_sound and (answer.low or 0) < amount and all(n and hits >= asked * n for hits, n, asked in met):
            return probes
    return []


def _met(attained: Sequence[Mapping[str, HitShare]], rule: str) -> tuple[int, int, float]:
    """How many of the requests of these probes met an objective, of how many, and the share that is needed."""
    shares = [shares[rule] for shares in attained]
    return sum(one.hits for one in shares), sum(one.requests for one in shares), shares[0].asked


def _met_text(capacity: Capacity, attained: Sequence[Mapping[str, HitShare]]) -> str:
    """`all 194 requests met every objective (worth 50 independent ones)`."""
    counts = [_met(attained, rule) for rule in capacity.objectives]
    requests = max(n for _, n, _ in counts)
    text = f"{'enough of' if any(hits < n for hits, n, _ in counts) else 'all'} {requests} requests met every objective"
    # The intervals are those of so many; the objective whose requests tell least decides.
    sizes = {rule: sum(shares[rule].effective for shares in attained) for rule in capacity.objectives}
    least = min(sizes, key=lambda rule: sizes[rule])
    if sizes[least] >= requests - 1:
        return text
    whose = f"for {least} " if max(sizes.values()) > sizes[least] + 1 else ""
    return f"{text} ({whose}worth {counted(max(1, round(sizes[least])), 'independent one')})"


def _why_not(capacity: Capacity, curve: FittedCurve, probes: Sequence[ProbeResult]) -> str:
    """Why a load that passed in its requests is none to plan with: how likely the limit is lower, and what each
    objective lacks for a proof."""
    amount, low = probes[0].amount, 0.0 if capacity.answer is None else capacity.answer.range[0] or 0.0
    unit = "users" if kind_of(capacity) == "users" else "requests/s"
    met, above, below = (
        _met_text(capacity, [one.attainment for one in probes]),
        _chance(curve, amount),
        _chance(curve, low),
    )
    line = f"Why not {amount:g} {unit}, where {met}? They are too few to prove it: by the fitted curve, the limit is "
    line += f"below {amount:g} with a probability of {above}, and below {low:g} with {below}."
    if curve.chance_below(amount) > 1 / 2:
        return f"{line} A longer probe there would most likely miss an objective."
    needed = {rule: curve.requests_to_pass(rule, amount) for rule in capacity.objectives}
    known = {rule: count for rule, count in needed.items() if count is not None}
    if known:
        had = max(probe.requests for probe in probes)
        rules: dict[str, list[str]] = {}
        for rule, count in known.items():
            rules.setdefault(f"{float(f'{count:.2g}'):.0f} requests", []).append(rule)
        counts = [f"{count} for {' and '.join(of)}" for count, of in rules.items()]
        line += f" A proof takes one probe there of about {' and of '.join(counts)}"
        line += f" ({FEWEST_PER_USER} of each user at least)" * (unit == "users") + f"; it had {had}."
    return line


def _chance(curve: FittedCurve, amount: float) -> str:
    """How likely the limit is below a load."""
    chance = curve.chance_below(amount)
    return "under 0.1 %" if chance < 0.001 else "over 99.9 %" if chance > 0.999 else f"{100 * chance:.2g} %"


def curve_table(capacity: Capacity, curve: FittedCurve) -> Table:
    """What the fitted curve says of the loads that matter, lowest first."""
    answer, verified, kind = capacity.answer, capacity.verification, kind_of(capacity)
    found: dict[float, list[str]] = {}
    passed: list[float | None] = [probe.amount for probe in _passed_above(capacity, clearly=False)[:1]]
    checked = verified.amount if verified is not None and verified.agrees else None
    roles: list[tuple[str, Sequence[float | None]]] = [("verified", [checked])]
    roles.append(("passed, unproven", passed))
    if answer is not None:
        roles.insert(1, ("plan with it", [answer.range[0]]))
        roles += [("best estimate", [answer.amount]), ("end of the range", [answer.range[1]])]
    for role, amounts in roles:
        for amount in amounts:
            if amount is not None:
                found.setdefault(amount, []).append(role)
    rows = []
    for amount in sorted(found):
        shares = []
        for rule in capacity.objectives:
            one = curve.share(rule, amount)
            shares.append(f"{percent(one.share)} ({100 * one.low:.3g} to {percent(one.high)})")
        rows.append([f"{kind}={amount:g}", ", ".join(found[amount]), _chance(curve, amount), *shares])
    ranks = "".join(str(min(8, place)) for place in range(2, 2 + len(capacity.objectives)))
    headers = ("load", "what it is", "limit lower", *capacity.objectives)
    return Table(headers, rows, "llr" + "r" * len(capacity.objectives), rank=f"010{ranks}")


def _fleet_line(fleet: FleetSize, answer: CapacityAnswer, *, is_at_least: bool) -> str:
    """How many servers the people need; no more than so many where the limit of one is not known."""
    (low, most), people, devices = answer.range, f"{fleet.people} users", fleet.devices or 0
    least = low or 0
    sure = "proven" if answer.range == (answer.low, answer.high) else "likely"
    free = f"with {percent(fleet.headroom)} kept free" if fleet.headroom else ""
    each = f"{fleet.per_device} users each"
    of = f"{percent(1 - fleet.headroom)} of the {sure} {least:g}"
    if most is not None:
        line = f"{people} need {counted(devices, 'such server')} with at most {each} ({of})"
        if fleet.least not in {None, devices}:
            kept = math.floor((1 - fleet.headroom) * most + 1e-9)
            line += f"; {fleet.least} would be enough if each can serve {most:g}"
            line += f" (at most {kept} each)" if free else ""
        return f"{line}."
    higher = "; a search with a higher --at-most can tell" if is_at_least else ""
    without_reserve = math.ceil(fleet.people / math.floor(least))
    if devices == 1:
        return f"{people} need 1 such server{', also ' if free else ''}{free} ({of})."
    if without_reserve == devices:
        line = f"{people} need at most {devices} such servers with at most {each} ({of}), and maybe fewer"
        return f"{line}, because the limit of one is not known{higher}."
    enough = f"{without_reserve} such {'server is' if without_reserve == 1 else 'servers are'} enough for {people}"
    line = f"{enough} with nothing kept free. {free[0].upper()}{free[1:]}, {devices} are enough"
    return f"{line} (at most {each}: {of}); whether fewer are is not known{higher}."


def trust_lines(capacity: Capacity, levels: Sequence[LevelResult]) -> list[str]:
    """What may weaken the answer: what disturbed the probes, and which of those count that a sweep calls INVALID."""
    lines, probes = [], [probe for probe in capacity.probes if probe.level < len(levels)]
    codes = {probe.level: {reason.code for reason in levels[probe.level].verdict.reasons} for probe in probes}
    late = sum(not found.isdisjoint(CLIENT_CODES) for found in codes.values())
    disturbed = [probe for probe in capacity.probes if probe.caveats]
    # Where a probe at no higher load, which nothing disturbed, misses too often, others hardly count.
    clean = [probe for probe in capacity.probes if not probe.caveats]
    fails = min((probe.amount for probe in clean if side_of(probe).endswith("FAIL")), default=math.inf)
    means: dict[str, list[str]] = {}
    known = "answer" if capacity.status in {"found", "at_least"} else "likely range"
    for probe in disturbed:
        if probe.amount >= fails:
            other = f"{kind_of(capacity)}={fails:g}, which nothing disturbed, misses an objective too"
            follows = f"but {other}: the {known} is hardly lower for that"
        elif probe.leaning < 0 or any(one.hits < one.requests for one in probe.attainment.values()):
            follows = f"which may have caused misses: the {known} may be too low; see the notes below"
        else:
            follows = f"but no request missed an objective there: the {known} is no lower for that"
        means.setdefault(follows, []).append(f"{probe.amount:g}")
    for follows, loads in means.items():
        which = f"the probe{'s' * (len(loads) > 1)} at {kind_of(capacity)}={some([*dict.fromkeys(loads)], most=8)}"
        lines.append(f"Something else used this machine during {which}, {follows}.")
    if late:
        line = f"{'This probably made loadbench' if disturbed else 'loadbench was'} late in {late}"
        line += f" of {counted(len(probes), 'probe')}, by too little to change a result"
        lines.append(f"{line}; probes whose results it could have changed do not count.")
    used = {*codes, *(step.level for step in capacity.curve)}
    refused = [
        level
        for place, level in enumerate(levels)
        if place not in used and not CLIENT_CODES.isdisjoint(reason.code for reason in level.verdict.reasons)
    ]
    if refused:
        thinks = any(getattr(level.load, "think", None) for level in levels)
        without = {level.load.label for level in refused if thinks and not getattr(level.load, "think", None)}
        named = dict.fromkeys(
            level.load.label + (" without think time" if level.load.label in without else "") for level in refused
        )
        late_for = why_late(reason for level in refused for reason in level.verdict.reasons)
        lines.append(f"Not counted, because {late_for}: {some([*named], most=8)}.")
    doubtful = dict.fromkeys(probe.label for probe in probes if codes[probe.level] - BY_OBJECTIVES)
    if doubtful:
        where = some([*doubtful], most=8)
        lines.append(
            f"Something else is wrong with the measurement at {where}, which may change the answer: see below."
        )
    return lines


def _next_step(capacity: Capacity, resume: str) -> str:
    """What would give an answer: more time, as far as it can be estimated, or an easier question."""
    budget = next_budget(capacity)
    command = resume or f"loadbench capacity --resume {shlex.quote(capacity.run)} --budget {budget}"
    # The budget of a comparison is that of both of its sides.
    total = "" if resume else f" ({_total(capacity, budget)})"
    easier = "A new search with a lower --confidence or a lower percentile in --slo needs fewer requests."
    if capacity.sees_no_limit:
        easier = "To find the limit itself, start a new search with a higher --at-most."
    if capacity.needed is None:
        return f"To go on with it: `{command}`{total}. {easier}"
    more = f"about {capacity.needed.requests} more requests, which take about {duration(capacity.needed.seconds)}"
    so_far = sum(probe.requests for probe in capacity.probes)
    times = f"{capacity.needed.requests / so_far:.3g} times the {so_far} so far: " if so_far else ""
    rule = f"{times}the range narrows with the square root of the requests, and its low end is verified"
    if capacity.needed.proof is not None and capacity.needed.per_s:
        twice = f"{capacity.needed.requests / capacity.needed.proof:.3g} times"
        each = f", at least {FEWEST_PER_USER} of each user" * (kind_of(capacity) == "users")
        rule = f"{twice} the {capacity.needed.proof} that prove each objective in one probe at the highest load allowed"
        rule += each
        measured = duration(capacity.needed.requests / capacity.needed.per_s)
        rule += f"; {measured} of it at {capacity.needed.per_s:.3g} requests/s, the rest for warm-ups and other steps"
    elif capacity.sees_no_limit:
        each = " 5 of each user, and" * (kind_of(capacity) == "users")
        rule = f"in one probe at the highest load allowed,{each} as many without a miss as prove each objective"
    if capacity.require == "proven" and not capacity.sees_no_limit:
        rule = f"{times}a proof takes about 5 times as many as a likely answer"
    return f"An answer needs {more} ({rule}; enough in most cases): `{command}`{total}. {easier}"


def _surer(capacity: Capacity) -> str:
    """What makes a likely answer surer."""
    # As `loadbench.analyze.capacity.answer.needed` has it: a proof takes 5 times as many requests, and twice that is
    # enough in most cases.
    budget_s = max(capacity.budget_s, 10 * capacity.spent_s)
    budget = format_duration(math.ceil(budget_s / 60) * 60 * NS_PER_S)
    command = f"loadbench capacity --resume {shlex.quote(capacity.run)} --require proven --budget {budget}"
    more = "a proof takes about 5 times as many requests as a likely answer"
    return f"To make it surer: `{command}` ({_total(capacity, budget)}); {more}."


def _total(capacity: Capacity, budget: str) -> str:
    """What a resumed search makes of a budget."""
    return f"{budget} is the total, of which {duration(capacity.spent_s)} are spent"


def next_budget(capacity: Capacity, *, times: int = 1) -> str:
    """The whole --budget with which the search may find an answer, times so many; twice as much where nothing says."""
    whole_s = 2 * capacity.budget_s
    if capacity.needed is not None:
        whole_s = max(capacity.budget_s, capacity.spent_s + capacity.needed.seconds) + 1
    return format_duration(times * math.ceil(whole_s / 60) * 60 * NS_PER_S)


def _claims(capacity: Capacity) -> list[Block]:
    """What is likely and what is proven, each with its range and what it rests on."""
    answer, verified = capacity.answer, capacity.verification
    if answer is None or (answer.likely_low is None and answer.low is None and answer.high is None):
        return []
    proven, likely = claim_texts(capacity)
    sure, unit = f"{100 * answer.confidence:g} %", "users" if kind_of(capacity) == "users" else "requests/s"
    rows = []
    # Where nothing failed, the curve ends at the highest load allowed and says nothing about the limit.
    if likely != "-" and capacity.status != "at_least":
        said = f"the limit is here, by a curve fitted to the requests of all probes ({sure} confidence)"
        said = said if not capacity.sees_no_limit else _no_limit_text(capacity, sure)
        rows.append(["likely", likely, said])
        if verified is not None:
            rows.append(["verified", f"{verified.amount:g}", _verified_text(capacity, verified)])
        elif not capacity.sees_no_limit:
            rows.append(["verified", "-", "nothing: the low end has not been measured once more"])
    ends = [] if answer.low is None else [f"{answer.low:g} {unit} meet every objective"]
    if answer.high is not None:
        ends.append(f"{answer.high + (unit == 'users'):g} {unit} miss one")
    said = "nothing: --require proven measures long enough for a proof"
    if ends:
        said = f"{', '.join(ends)} ({sure} confidence; the curve is not needed for this)"
    rows.append(["proven", proven, said])
    return [Table(("claim", unit, "what it says"), rows, "lll")]


def _no_limit_text(capacity: Capacity, sure: str) -> str:
    """What is likely where no probe favours a miss, and why it is less than the highest load that was measured."""
    said = f"no load that was measured favours a miss ({sure} confidence)"
    low, top = None if capacity.answer is None else capacity.answer.likely_low, capacity.probes[0].amount
    top = max([top, *(probe.amount for probe in capacity.probes)])
    if low is None or low >= top:
        return said
    probes = [probe for probe in capacity.probes if probe.amount == top]
    needed = percent(max(share.asked for share in probes[0].attainment.values()))
    said += (
        f". At {probes[0].label}, {_met_text(capacity, [probe.attainment for probe in probes])}, which are too few to "
    )
    return f"{said}exclude that less than {needed} would; up to {low:g}, the curve fitted to all requests excludes it"


def _verified_text(capacity: Capacity, verified: Verification) -> str:
    """What was verified, why that is another load than the answer's, and what it means for that one."""
    low, counts = None if capacity.answer is None else capacity.answer.likely_low, [*verified.measured.values()]
    if verified.agrees is None:
        return f"nothing: {counted(counts[0].requests, 'request')} at this load were too few to tell"
    if not verified.agrees:
        return "this load, measured once more, misses an objective: that contradicts the curve"
    said = "this load, measured once more: more requests missed than may, but too few to contradict the curve"
    if all(one.hits >= one.asked * one.requests for one in counts):
        said = f"this load, measured once more: {_met_text(capacity, [verified.measured])}"
    if low is None or verified.amount == low:
        return said
    said += f". It was the low end then; its requests moved that to {low:g}"
    if all(probe.amount != low for probe in capacity.probes):
        said += f", which was not measured itself: {low:g} rests on the curve"
        if SAME_LOAD <= verified.amount / low < 1:
            said += f" and is {100 * (low / verified.amount - 1):.2g} % above {verified.amount:g}"
    return said


def _verification(
    capacity: Capacity, verified: Verification, fit: PredictedCapacity | None, curve: FittedCurve | None
) -> list[Block]:
    """The capacity, and the shares at the verified load: predicted, estimated and measured."""
    answer, kind = capacity.answer, kind_of(capacity)
    no_word = fit is not None and answer is not None and says_nothing(fit, answer.range[0])
    predicted = "-" if fit is None else f"{_users(fit)} ({_span(fit)})"
    estimated = amount_text(capacity)
    if answer is not None and capacity.status != "at_least":
        estimated += f" ({range_text(*answer.range)})"
    rows = [[f"capacity ({kind})", predicted, estimated, ""]]
    for rule, measured in verified.measured.items():
        estimate = verified.expected[rule] if curve is None else curve.share(rule, verified.amount).share
        shares = ((verified.predicted or {}).get(rule), estimate, measured.share)
        cells = ["-" if share is None else percent(share) for share in shares]
        if measured.interval is not None:
            cells[-1] += f" ({100 * measured.interval[0]:.3g} to {percent(measured.interval[1])})"
        rows.append([f"{_goal(rule, measured)} at {kind}={verified.amount:g}", *cells])
    headers = ["", "predicted (queueing model)", "estimated (search)", "measured (verification)"]
    if no_word or (fit is None and not verified.predicted):
        for row in (headers, *rows):
            del row[1]
    notes = ["measured: by the requests of the verification alone, with the 95 % interval"]
    if any(measured.interval and measured.interval[0] < measured.asked for measured in verified.measured.values()):
        notes[0] += "; it contradicts only if all of it is below the share needed, and is wide because they are few"
    loads = list(dict.fromkeys(f"{probe.amount:g}" for probe in capacity.probes if probe.purpose is Purpose.VERIFY))
    if len(loads) > 1:
        moved = "each was the low end until its own requests moved it, and the last one counts"
        notes.append(f"verified in turn: {kind}={', '.join(loads)}; {moved}")
    if fit is not None and fit.users is not None and answer is not None:
        notes.append(_agreement(fit, answer))
    notes += _no_prediction(capacity)
    return [Table(headers, rows, "l" * len(headers)), Notes(notes)]


def _no_prediction(capacity: Capacity) -> list[str]:
    """Why the queueing model says nothing, where it could be expected to; it knows users only."""
    if capacity.prediction is not None or capacity.answer is None or kind_of(capacity) != "users":
        return []
    why, steps = "these loads and objectives do not support one", len(capacity.curve)
    if capacity.answer.think_s and steps < FEWEST_LEVELS:
        why = f"it needs {FEWEST_LEVELS} loads without think time, of which {steps or 'none'} could be counted"
        limits = "in a fortieth of the budget each user needs three responses, and loadbench must not be late"
        why += f": {limits}; --no-curve leaves them out"
    return [f"no prediction by the queueing model: {why} (docs/capacity-models.md)"]


def _agreement(fit: PredictedCapacity, answer: CapacityAnswer) -> str:
    """Whether the model and the search agree, as far as both show a limit, and which of them counts if they do not."""
    low, high = answer.range
    below = fit.high is not None and low is not None and fit.high < low
    above = high is not None and (fit.low or 0) > high
    if below or above:
        than = "fewer" if below else "more"
        return (
            f"the queueing model predicts {than} users than the search found: rely on the search, which measured them; "
            "the model knows only the loads without think time. If other programs used the machine, search again; else "
            "this server does not behave as the model assumes (docs/capacity-models.md)"
        )
    if says_nothing(fit, low):
        return (
            "no prediction by the queueing model: the loads without think time reach too little of this range, so it "
            "neither supports nor contradicts the search"
        )
    open_ended = [fit.high is None, high is None]
    if any(open_ended):
        # What is open at one end overlaps with nearly everything.
        bound = "it is only a lower bound, and not above the range of the search"
        bound = (
            bound if open_ended[0] else "the search gives only a lower bound, and it is not above the predicted range"
        )
        bound = "both are only lower bounds" if all(open_ended) else bound
        return f"the prediction does not contradict the search: {bound}"
    return "the prediction and the search agree: their ranges overlap"


def _think_times(capacity: Capacity) -> list[Block]:
    """Other think times, scaled from the answer, and predicted from the levels without think time."""
    answer, is_at_least = capacity.answer, capacity.status == "at_least" or capacity.sees_no_limit
    # Where no limit was found, the estimate is none: the low end of the range is what is known.
    amount = 0.0 if answer is None else answer.amount
    if answer is not None and capacity.sees_no_limit:
        amount = answer.range[0] or 0.0
    scaled = {
        at.think_s: [f"{(at.low or 0) if capacity.sees_no_limit else at.users} or more"]
        if is_at_least
        else ["-" if not at.low else str(at.low), str(at.users), range_text(at.low, at.high)]
        for at in (capacity.at_think_times if amount else ())
    }
    notes, heading = [], ""
    if scaled and answer is not None and answer.think_s:
        heading = f"scaled from {'at least' if is_at_least else 'the estimated'} {amount:g}"
        plan = "-" if not answer.range[0] else f"{answer.range[0]:g}"
        cells = [plan, f"{amount:g} (estimated)", range_text(*answer.range)]
        scaled[answer.think_s] = [f"{amount:g} or more"] if is_at_least else cells
        found = f"{amount:g} users who think {duration(answer.think_s)}, the only think time tested"
        notes = [f"scaled: so many users send as many requests per second as {found}"]
    predicted = _predicted_rows(capacity)
    if capacity.prediction is None or not predicted:
        rows = [[duration(think_s), *scaled[think_s]] for think_s in sorted(scaled)]
        headers = ["think time", f"users, {heading}"]
        headers = headers if is_at_least else ["think time", "plan with", f"users, {heading}", "its range"]
        fit = fit_of_all_objectives(capacity.prediction, getattr(answer, "think_s", None))
        if capacity.verification is None:
            notes += _no_prediction(capacity)
            notes += [_agreement(fit, answer)] if fit is not None and answer is not None else []
        return [Table(headers, rows, "r" + "l" * (len(headers) - 1)), Notes(notes)] if rows else [Notes(notes)]
    rows = []
    for think_s, cells in predicted.items():
        rows.append([duration(think_s), *cells])
        rows[-1] += scaled.get(think_s, ["-"] * (1 if is_at_least else 3)) if scaled else []
    span = f"its {percent(capacity.prediction.confidence)} range"
    headers = ["think time", "predicted by a queueing model", span, "limited by"]
    if all(cells[-1] == "-" for cells in predicted.values()):
        del headers[3]
        for row in rows:
            del row[3]
    if scaled:
        headers += [heading] if is_at_least else ["plan with", heading, "scaled range"]
    notes.append("predicted: by a queueing model, only from the loads without think time (docs/capacity-models.md)")
    notes += [f"prediction: {reason_text(reason.message, reason.code)}" for reason in capacity.prediction.caveats]
    left_out = {fit.rule: fit.note for fit in capacity.prediction.fits if fit.rule and fit.users is None}
    notes += [f"prediction: without {rule}, because {note}" for rule, note in left_out.items()]
    return [Table(headers, rows, "r" + "l" * (len(headers) - 1)), Notes(notes)]


def says_nothing(fit: PredictedCapacity, found: float | None = None) -> bool:
    """Whether a prediction is no more than "some users, or more", or less than what a search has `found`."""
    return fit.high is None and (not fit.low or (fit.at_least and (fit.users or 0) < (found or 0)))


def _predicted_rows(capacity: Capacity) -> dict[float, list[str]]:
    """By think time, the predicted users, their range, and the objective that limits them; nothing where no prediction
    says anything."""
    fits = [] if capacity.prediction is None else capacity.prediction.fits
    found = {at.think_s: at.low for at in capacity.at_think_times}
    if capacity.answer is not None and capacity.answer.think_s:
        found[capacity.answer.think_s] = math.floor(capacity.answer.range[0] or 0)
    rows = {}
    for fit in (fit for fit in fits if not fit.rule):
        # The objective that allows the fewest users; where there may be more, none has limited them.
        limits = [one for one in fits if one.rule and one.think_s == fit.think_s and one.users is not None]
        bound = min(limits, key=lambda one: (one.users or 0, one.at_least), default=None)
        rule = "-" if bound is None or bound.at_least else bound.rule
        silent = says_nothing(fit, found.get(fit.think_s))
        rows[fit.think_s] = ["-"] * 3 if silent else [_users(fit), _span(fit), rule]
    return rows if any(cells[0] != "-" for cells in rows.values()) else {}


def _goal(rule: str, hits: HitShare) -> str:
    """An objective in words: `requests with TTFT < 1s (95 % needed)`."""
    metric, bound = rule.rpartition("_")[0], rule.partition("<")[2]
    values = "values" if metric in MANY_A_REQUEST else "requests"
    goal = f"{values} with {metric.upper()} < {bound}" if metric else "requests that succeeded"
    return f"{goal} ({percent(hits.asked)} needed)"


def side_of(probe: ProbeResult) -> str:
    """What is proven of the probe's load, or else what its own requests favour."""
    if probe.decision != "UNDECIDED":
        return probe.decision
    if abs(probe.leaning) < FAVOURS:
        return "unclear"
    return "leans to PASS" if probe.leaning > 0 else "leans to FAIL"


def phase_of(probe: ProbeResult) -> str:
    """The phase of the search that a probe belongs to."""
    return _PHASES[probe.purpose][0]


def kind_of(capacity: Capacity) -> str:
    """`users` or `rate`."""
    return capacity.probes[0].label.split("=")[0]


def _users(fit: PredictedCapacity) -> str:
    return f"{fit.users} or more" if fit.at_least else str(fit.users)


def _span(fit: PredictedCapacity) -> str:
    """The range of a prediction; that it is at least 0 goes without saying."""
    return range_text(fit.low or (None if fit.high is not None else fit.low), fit.high)


def amount_text(capacity: Capacity) -> str:
    """The best estimate for a table; what it is at least where the limit was not reached."""
    if capacity.answer is None:
        return "none" if capacity.status == "none" else "-"
    if capacity.sees_no_limit:
        return range_text(*capacity.answer.range) if capacity.answer.range[0] else "-"
    return f"{capacity.answer.amount:g}" + " or more" * (capacity.status == "at_least")


def claim_texts(capacity: Capacity) -> tuple[str, str]:
    """(the proven range, the likely one), each `-` where nothing is known."""
    answer = capacity.answer
    if answer is None:
        return "-", "-"
    ranges = ((answer.low, answer.high), (answer.likely_low, answer.likely_high))
    proven, likely = ("-" if low is None and high is None else range_text(low, high) for low, high in ranges)
    return proven, likely


def range_text(low: float | None, high: float | None) -> str:
    """`22 to 26`, or the end that is known."""
    if low is None:
        return "unknown" if high is None else f"at most {high:g}"
    return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"


def _share(hits: HitShare) -> str:
    """The share of hits; with the effective n where the requests are not independent."""
    if hits.share is None:
        return "-"
    dependent = hits.effective < hits.requests - 1
    return percent(hits.share) + (f" (effective n {hits.effective:.0f})" if dependent else "")


def _why_that_ceiling(capacity: Capacity, levels: Sequence[LevelResult]) -> list[str]:
    """Why the throughput that is planned with is not the highest that a level shows, where probes show more."""
    ceiling = None if capacity.explanation is None else capacity.explanation.ceiling_per_s
    probes = {probe.level for probe in capacity.probes}
    rates = [(place, level.throughput.requests_per_s, level) for place, level in enumerate(levels)]
    of = next((level for place, rate, level in rates if rate == ceiling and place not in probes), None)
    least = (1 + WORTHWHILE) * (ceiling or 0.0)
    higher = [(rate, level) for place, rate, level in rates if place in probes and rate > least]
    if ceiling is None or of is None or not higher:
        return []
    top, level = max(higher, key=lambda pair: pair[0])
    ends = level.throughput.interval.get("requests_per_s")
    known = "with no interval" if ends is None else f"95 % interval {ends[0]:.3g} to {ends[1]:.3g}"
    line = f"{ceiling:.3g} requests/s are planned with: those of {of.load.label}, the highest load without think time "
    line += f"that counts. Probes show up to {top:.3g} ({level.load.label}, measured for "
    line += f"{duration(level.window_s)}, {known}): "
    return [f"{line}they are too short to know it better"]


def _notes(capacity: Capacity) -> list[str]:
    """What the columns of the probes mean, as far as they are used, and why the search ended."""
    notes, unverified = [], [UNVERIFIED] if capacity.insecure else []
    if capacity.probes:
        probes, purposes = capacity.probes, {probe.purpose for probe in capacity.probes}
        aims = dict(_PHASES.values())
        if capacity.require != "proven":
            aims["test"] = "measures the highest (or lowest) load allowed until it is decided, or clearly goes wrong"
        phases = "; ".join(f"{name} {aims[name]}" for purpose, (name, _) in _PHASES.items() if purpose in purposes)
        wanted = probes[0].attainment.items()
        goals = "; ".join(f"{rule}: {_goal(rule, hits)}" for rule, hits in wanted)
        confidence = "" if capacity.answer is None else f" at {100 * capacity.answer.confidence:g} % confidence"
        also = ["a queue that grows"] * (kind_of(capacity) == "rate")
        also += ["an aborted probe"] * any(probe.aborted for probe in probes)
        fails = f"; {' or '.join(also)} is a FAIL" if also else ""
        short = "probes are short on purpose: each follows a warm-up and ends once it knows enough; "
        short += "the objectives decide by the requests of all of them, so none has a verdict"
        notes = [
            "a probe is one measurement at one load",
            f"phase: {phases}",
            f"objective columns: share of the probe's requests that met it. {goals}",
            short,
            "requests: those due after the warm-up; where requests wait, the server first answered earlier ones",
        ]
        sides = {side_of(probe) for probe in probes}
        if fails or sides & {"PASS", "FAIL"}:
            notes.append(f"PASS, FAIL: proven{confidence} by all requests up to then{fails}")
        if any(side.startswith("leans to") for side in sides):
            notes.append("leans to: the requests of this probe favour it, without a proof")
        if "unclear" in sides:
            few = ", ".join(f"{math.ceil(-FAVOURS / math.log(hits.asked))} for {rule}" for rule, hits in wanted)
            notes.append(f"unclear: too few requests of this probe to favour a side; without a miss it takes {few}")
            if any(side_of(probe) == "unclear" and probe.leaning < 0 for probe in probes):
                notes[-1] += "; or a share near the one that is needed"
        if any("effective" in _share(hits) for probe in probes for hits in probe.attainment.values()):
            notes.append("effective n: requests influence each other; this many independent ones would tell as much")
    disturbed = [probe for probe in capacity.probes if probe.caveats]
    if disturbed:
        others = f" and {counted(len(disturbed) - 1, 'other probe')}" if len(disturbed) > 1 else ""
        notes.append(f"during the probe at {disturbed[0].label}{others}: {'; '.join(disturbed[0].caveats)}")
    left = [probe for probe in capacity.probes if probe.gave_up]
    if left:
        # The probe with the most requests tells most; at the answer, if there is one.
        at_answer = [probe for probe in left if capacity.answer is not None and probe.label == capacity.answer.label]
        probe = max(at_answer or left, key=attrgetter("requests"))
        share = percent(probe.gave_up / max(1, probe.requests))
        notes.append(
            f"users who gave up are part of the load and were not served: {share} of the requests at {probe.label}; "
            "the objectives hold for users who wait"
        )
    if (capacity.shorter_share or 0) >= _MANY_SHORTER:
        shorter = f"{percent(capacity.shorter_share or 0)} of the responses ended before their maximum length"
        note = f"{shorter}: the answer holds for responses of these lengths"
        exact = capacity.conditions.get("work.exact_output")
        notes.append(note if exact else f"{note}; --exact-output requests exactly the maximum")
    spent = f"{duration(capacity.spent_s)} of its budget of {duration(capacity.budget_s)}"
    notes.append(f"the search took {spent}, including warm-ups and waiting for the last responses")
    notes[-1] += f"; it ended because {capacity.end_reason}" if capacity.end_reason else ""
    at_most = capacity.conditions.get("capacity.at_most")
    if capacity.probes and isinstance(at_most, float | int):
        unit = "users" if kind_of(capacity) == "users" else "requests/s"
        notes.append(f"no load above {at_most:g} {unit} was allowed (--at-most)")
    return [*notes, *unverified]


# Lines for the moment something ends.


def answer_line(capacity: Capacity, *, of_several: bool = False) -> str:
    """The answer in one line, with the number to plan with first: `answer: plan with at most 21 users (likely 21 to 28;
    best estimate 24)`."""
    answer = capacity.answer
    head = f"answer for {capacity.model}" if of_several else "answer"
    if answer is None:
        return f"{head}: {'no load meets the objectives' if capacity.status == 'none' else 'none'}"
    proven, likely = claim_texts(capacity)
    unit = "requests/s" if kind_of(capacity) == "rate" else "users"
    if capacity.status == "at_least":
        return f"{head}: at least {answer.amount:g} {unit}, the highest load allowed"
    ranges = [f"likely {likely}"] * (likely != "-") + [f"proven {proven}"] * (proven != "-")
    if capacity.sees_no_limit:
        ranges.insert(0, f"no limit was found up to {capacity.looked_up_to}")
    else:
        ranges.append(f"best estimate {answer.amount:g}")
    if capacity.status != "found":
        return f"{head}: not certain, {capacity.status} ({'; '.join(ranges)})"
    low = answer.amount if answer.range[0] is None else answer.range[0]
    return f"{head}: plan with at most {low:g} {'user' if (low, unit) == (1, 'users') else unit} ({'; '.join(ranges)})"


def probe_line(probe: ProbeResult) -> str:
    """A probe in one line."""
    shares = ", ".join(f"{_goal(rule, hits)}: {_share(hits)}" for rule, hits in probe.attainment.items())
    requests, why = counted(probe.requests, "request"), f", aborted by {probe.aborted}" if probe.aborted else ""
    why += ", the queue grows: the rate is above capacity" if probe.overloaded else ""
    return f"{phase_of(probe)} at {probe.label}: {side_of(probe)} after {requests}{why}; {shares}"


def step_line(step: CurveLevel) -> str:
    """A step of the throughput curve in one line."""
    return f"without think time, users={step.users}: {step.requests_per_s:.3g} responses/s"
