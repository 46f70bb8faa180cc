"""The report of a capacity search: the answer, what it rests on, and its probes; and its lines while it runs."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from loadbench.analyze.capacity.curve import fit_of_all_objectives
from loadbench.plan.search import Purpose
from loadbench.report.document import Block, Document, Notes, Table, Text
from loadbench.report.values import duration, percent

if TYPE_CHECKING:
    from loadbench.results.capacity import Capacity, CurveLevel, HitShare, ProbeResult, Verification
    from loadbench.results.prediction import PredictedCapacity

_PHASES = {
    Purpose.BRACKET: "bracketing",
    Purpose.REFINE: "refining",
    Purpose.TEST: "test",
    Purpose.REPEAT: "repeat test",
    Purpose.VERIFY: "verification",
}


def capacity_document(capacity: Capacity) -> Document:
    """The whole report, also of a search that is under way."""
    title = f"Capacity of {capacity.model}" if capacity.model else "Capacity"
    blocks: list[Block] = [Text(_answer_lines(capacity))]
    if capacity.verification is not None:
        blocks.append(_verification_table(capacity, capacity.verification))
    if capacity.at_think_times or capacity.prediction is not None:
        blocks.append(_think_time_table(capacity))
    steps = [
        [f"users={step.users}", f"{step.requests_per_s:.3g}", "-" if step.answer_s is None else duration(step.answer_s)]
        for step in sorted(capacity.curve, key=lambda step: step.users)
    ]
    blocks.append(Table(("without think time", "responses/s", "median response time"), steps, "lrr"))
    probes = []
    for probe in capacity.probes:
        shares = ["queue grows" if probe.overloaded else _share(probe.attainment[rule]) for rule in capacity.objectives]
        time, phase = duration(probe.window_s), _PHASES[probe.purpose]
        probes.append([probe.label, probe.decision, *shares, str(probe.requests), time, phase])
    headers = ("load", "decision", *capacity.objectives, "requests", "time", "phase")
    blocks.append(Table(headers, probes, "ll" + "r" * len(capacity.objectives) + "rrl"))
    where = ", simulated server, not a real one" if capacity.simulated else ""
    return Document(title + where, [*blocks, Notes(_notes(capacity))])


def _answer_lines(capacity: Capacity) -> list[str]:
    """The answer in a few sentences that anyone can act on."""
    lines = [capacity.conclusion]
    if not capacity.conclusion and not capacity.probes:
        lines = [f"Under way: {len(capacity.curve) or 'no'} loads without think time so far, and none with it."]
    elif not capacity.conclusion:
        amount = attrgetter("amount")
        passed = max((probe for probe in capacity.probes if probe.decision == "PASS"), key=amount, default=None)
        failed = min((probe for probe in capacity.probes if probe.decision == "FAIL"), key=amount, default=None)
        low = "no load is proven to pass" if passed is None else f"{passed.label} is proven to pass"
        high = "no load is proven to fail" if failed is None else f"{failed.label} is proven to fail"
        spent = f"{duration(capacity.spent_s)} of {duration(capacity.budget_s)} spent"
        lines = [f"Under way, {spent}: {low}, {high}."]
    if capacity.answer is not None and capacity.answer.think_s:
        think = duration(capacity.answer.think_s)
        lines.append(f"Users think {think} on average between a response and their next request.")
    if capacity.verification is not None and not capacity.verification.agrees:
        lines.append(
            "The verification disagrees with the search: the server, or other load on its machine, changed meanwhile."
        )
    if capacity.explanation is not None:
        lines.append(f"Bottleneck: {capacity.explanation.sentence.rstrip('.')}.")
    fleet = capacity.devices
    if fleet is not None and fleet.devices is None:
        lines.append(f"Devices: {fleet.note}")
    elif fleet is not None:
        each = f"{fleet.per_device} people each, which leaves {percent(fleet.headroom)} of the proven capacity free"
        fewer = (
            ""
            if fleet.least in {None, fleet.devices}
            else f"; {fleet.least} are enough if each serves the high end of its range"
        )
        lines.append(f"For {fleet.people} people: {fleet.devices} devices with {each}{fewer}.")
    return lines


def _verification_table(capacity: Capacity, verified: Verification) -> Table:
    """The capacity, and the shares at the verified load: by the model, by the search and as measured."""
    answer = capacity.answer
    fit = fit_of_all_objectives(capacity.prediction, None if answer is None else answer.think_s)
    model = "-" if fit is None else f"{_users(fit)} ({_range(fit.low, fit.high)})"
    search = "-" if answer is None else f"{answer.amount:g} ({_range(answer.low, answer.high)})"
    rows = [["capacity", model, search, "-"]]
    kind = "rate" if answer is not None and not isinstance(answer.users, int) else "users"
    for rule, measured in verified.measured.items():
        cells = ["-" if measured.share is None else percent(measured.share)]
        if measured.share is not None and measured.interval is not None:
            low, high = measured.interval
            cells = [f"{percent(measured.share)} ({100 * low:.3g} to {percent(high)})"]
        for share in (verified.expected[rule], (verified.predicted or {}).get(rule)):
            cells.insert(0, "-" if share is None else percent(share))
        rows.append([f"{rule} at {kind}={verified.amount:g}", *cells])
    return Table(("", "by the model", "by the search", "verified"), rows, "llll")


def _think_time_table(capacity: Capacity) -> Table:
    """Other think times, in proportion to the answer, and by the model from the levels without think time."""
    scaled = {at.think_s: [str(at.users), _range(at.low, at.high)] for at in capacity.at_think_times}
    answer = capacity.answer
    if scaled and answer is not None and answer.think_s:
        scaled[answer.think_s] = [f"{answer.amount:g} (the answer)", _range(answer.low, answer.high)]
    if capacity.prediction is None:
        rows = [[duration(think_s), *scaled[think_s]] for think_s in sorted(scaled)]
        return Table(("think time", "users, about", "range"), rows, "rll")
    rows = []
    for fit in capacity.prediction.fits:
        if fit.rule:
            continue
        # The objective that allows the fewest users.
        limits = [
            other
            for other in capacity.prediction.fits
            if other.rule and other.think_s == fit.think_s and other.users is not None
        ]
        bound = min(limits, key=lambda other: (other.users or 0, other.at_least)).rule if limits else ""
        cells = [duration(fit.think_s), _users(fit), _range(fit.low, fit.high), bound]
        rows.append(cells + (scaled.get(fit.think_s, ["-", "-"]) if scaled else []))
    headers = ("think time", "by the model", "range", "bound by", "in proportion", "range")
    width = 6 if scaled else 4
    return Table(headers[:width], rows, "rlllll"[:width])


def _users(fit: PredictedCapacity) -> str:
    return f"at least {fit.users}" if fit.at_least else str(fit.users)


def _range(low: float | None, high: float | None) -> str:
    return f"{'?' if low is None else f'{low:g}'} to {'?' if high is None else f'{high:g}'}"


def _share(hits: HitShare) -> str:
    """The share of hits; with the effective n where the requests are not independent."""
    if hits.share is None:
        return "-"
    dependent = hits.effective < hits.requests - 1
    return percent(hits.share) + (f" (effective n {hits.effective:.0f})" if dependent else "")


def _notes(capacity: Capacity) -> list[str]:
    notes = []
    if capacity.probes:
        required = ", ".join(percent(hits.asked) for hits in capacity.probes[0].attainment.values())
        notes = [
            f"below each objective: the share of requests within its bound; required: {required}",
            "effective n: how many independent requests carry as much information",
            "decision: by the search, from all its probes together; the report of the run decides each level by itself",
        ]
    if capacity.verification is not None:
        word = "agrees with" if capacity.verification.agrees else "clearly differs from"
        notes.append(f"the verification {word} what the search measured; its intervals are 95 %")
    notes += capacity.contradictions
    if capacity.explanation is not None and capacity.explanation.advice:
        notes.append(capacity.explanation.advice)
    if capacity.at_think_times:
        notes.append("in proportion: as many users as send the same number of requests per second")
    if capacity.prediction is not None:
        notes.append("by the model: from the levels without think time alone (docs/capacity-models.md)")
        notes += [f"model: {reason.message}" for reason in capacity.prediction.caveats]
    notes.append(f"spent {duration(capacity.spent_s)} of {duration(capacity.budget_s)}")
    if capacity.status == "inconclusive" and not capacity.contradictions:
        notes.append("continue with --resume and a larger --budget, or use less --confidence or a lower quantile")
    return notes


def plot_data(capacity: Capacity) -> list[dict[str, float | str | None]]:
    """A row for each probe and objective: the share of hits with its interval over the load, to be drawn."""
    return [
        {
            "load": probe.amount,
            "rule": rule,
            "share": shared.share,
            "low": None if shared.interval is None else shared.interval[0],
            "high": None if shared.interval is None else shared.interval[1],
            "asked": shared.asked,
            "decision": probe.decision,
        }
        for probe in capacity.probes
        for rule, shared in probe.attainment.items()
    ]


# Lines for the moment something ends.


def probe_line(probe: ProbeResult) -> str:
    """A probe in one line."""
    shares = ", ".join(f"{rule} {_share(hits)}" for rule, hits in probe.attainment.items())
    why = ", the queue grows: the rate is above capacity" if probe.overloaded else ""
    leans = "" if probe.decision != "UNDECIDED" else f" (leans to {'PASS' if probe.leaning > 0 else 'FAIL'})"
    phase = _PHASES[probe.purpose]
    return f"{probe.label}: {probe.decision}{leans}{why}: {shares} of {probe.requests} requests, {phase}"


def step_line(step: CurveLevel) -> str:
    """A step of the throughput curve in one line."""
    return f"without think time, users={step.users}: {step.requests_per_s:.3g} responses/s"
