"""The report of a capacity search: the answer, what it rests on, and its probes; and its lines while it runs."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from loadbench.analyze.capacity.curve import fit_of_all_objectives
from loadbench.plan.search import Purpose
from loadbench.report.document import Block, Document, Notes, Table, Text
from loadbench.report.values import counted, duration, percent

if TYPE_CHECKING:
    from loadbench.results.capacity import Capacity, CurveLevel, HitShare, ProbeResult, Verification
    from loadbench.results.prediction import PredictedCapacity

# The name of each phase, and what its probes are for.
_PHASES = {
    Purpose.BRACKET: ("bracketing", "doubles or halves the load until the limit lies between two loads"),
    Purpose.REFINE: ("refining", "tries a load in between"),
    Purpose.TEST: ("test", "measures a load until it is decided or the time for it is over"),
    Purpose.REPEAT: ("repeat test", "measures a decided load again"),
    Purpose.VERIFY: ("verification", "measures the best estimate"),
}


def capacity_document(capacity: Capacity) -> Document:
    """The whole report, also of a search that is under way."""
    title = f"Capacity of model {capacity.model}" if capacity.model else "Capacity"
    blocks: list[Block] = [Text(_answer_lines(capacity))]
    if capacity.verification is not None:
        blocks += _verification(capacity, capacity.verification)
    if capacity.at_think_times or capacity.prediction is not None:
        blocks += _think_times(capacity)
    steps = [
        [f"users={step.users}", f"{step.requests_per_s:.3g}", "-" if step.answer_s is None else duration(step.answer_s)]
        for step in sorted(capacity.curve, key=lambda step: step.users)
    ]
    blocks.append(Table(("load without think time", "responses/s", "median response time"), steps, "lrr"))
    probes = []
    for probe in capacity.probes:
        shares = [
            "aborted" if probe.aborted else "queue grows" if probe.overloaded else _share(probe.attainment[rule])
            for rule in capacity.objectives
        ]
        time, (phase, _) = duration(probe.window_s), _PHASES[probe.purpose]
        probes.append([probe.label, probe.decision, *shares, str(probe.requests), time, phase])
    headers = ("probe at", "decision", *capacity.objectives, "requests", "measured for", "phase")
    blocks.append(Table(headers, probes, "ll" + "r" * len(capacity.objectives) + "rrl"))
    return Document(title + (" on the simulated server" if capacity.simulated else ""), [*blocks, _notes(capacity)])


def _answer_lines(capacity: Capacity) -> list[str]:
    """The answer in a few sentences that anyone can act on."""
    answer, verified, fleet = capacity.answer, capacity.verification, capacity.devices
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

    # Why there is no sure answer, and what to do next.
    lines += [f"{text[0].upper()}{text[1:]}." for text in capacity.contradictions if text not in capacity.conclusion]
    if capacity.contradictions:
        cause = "the server, or other load on its machine, changed during the search"
        if verified is not None and not verified.agrees:
            cause += f", or performance drops sharply near {_kind(capacity)}={verified.amount:g}"
        lines.append(f"Possible causes: {cause}. Search again to find out.")
    elif capacity.conclusion and capacity.status in {"inconclusive", "interrupted"}:
        fewer = "A new search with a lower --confidence or a lower percentile in --slo needs fewer requests."
        lines.append(f"To get an answer, continue with --resume {capacity.run} and a larger --budget. {fewer}")

    if answer is not None and answer.think_s:
        lines.append(f"Users think {duration(answer.think_s)} on average between a response and their next request.")
    if capacity.explanation is not None:
        lines.append(f"Bottleneck: {capacity.explanation.sentence.rstrip('.')}.")
        if capacity.explanation.advice:
            aim = "To find it" if capacity.explanation.kind == "unknown" else "To raise the limit"
            lines.append(f"{aim}: {capacity.explanation.advice}.")
    if fleet is not None and fleet.devices is None:
        lines.append(f"Servers for {fleet.people} users: unknown, because {fleet.note}.")
    elif fleet is not None and answer is not None:
        line = f"{fleet.people} users need {counted(fleet.devices or 0, 'such server')} with at most "
        line += f"{fleet.per_device} users each ({percent(1 - fleet.headroom)} of the proven {answer.low:g})"
        if fleet.least not in {None, fleet.devices}:
            line += f"; {fleet.least} would be enough if each can serve {answer.high:g}"
            line += f", also with {percent(fleet.headroom)} kept free" if fleet.headroom else ""
        lines.append(f"{line}.")
    return lines


def _verification(capacity: Capacity, verified: Verification) -> list[Block]:
    """The capacity, and the shares at the verified load: predicted, estimated and measured."""
    answer = capacity.answer
    fit = fit_of_all_objectives(capacity.prediction, None if answer is None else answer.think_s)
    predicted = "-" if fit is None else f"{_users(fit)} ({_range(fit.low, fit.high)})"
    estimated = "-" if answer is None else f"{answer.amount:g} ({_range(answer.low, answer.high)})"
    kind = _kind(capacity)
    rows = [[f"capacity ({kind})", predicted, estimated, ""]]
    for rule, measured in verified.measured.items():
        cells = ["-" if measured.share is None else percent(measured.share)]
        if measured.share is not None and measured.interval is not None:
            low, high = measured.interval
            cells = [f"{percent(measured.share)} ({100 * low:.3g} to {percent(high)})"]
        for share in (verified.expected[rule], (verified.predicted or {}).get(rule)):
            cells.insert(0, "-" if share is None else percent(share))
        rows.append([f"share that met {rule} at {kind}={verified.amount:g}", *cells])
    headers = ["", "predicted (queueing model)", "estimated (search)", "measured (verification)"]
    if fit is None and not verified.predicted:
        for row in (headers, *rows):
            del row[1]
    note = "measured: by the requests of the verification alone, with the 95 % interval"
    note += "; the estimate agrees with it" if verified.agrees else ""
    return [Table(headers, rows, "l" * len(headers)), Notes([note])]


def _think_times(capacity: Capacity) -> list[Block]:
    """Other think times, in proportion to the answer, and predicted from the levels without think time."""
    scaled = {at.think_s: [str(at.users), _range(at.low, at.high)] for at in capacity.at_think_times}
    notes, answer = [], capacity.answer
    if scaled and answer is not None and answer.think_s:
        scaled[answer.think_s] = [f"{answer.amount:g} (as found)", _range(answer.low, answer.high)]
        rule = "as many users as send the same number of requests per second"
        notes = [
            f"only {duration(answer.think_s)} was measured; the other think times are calculated in proportion: {rule}"
        ]
    if capacity.prediction is None:
        rows = [[duration(think_s), *scaled[think_s]] for think_s in sorted(scaled)]
        return [Table(("think time", "users (approx.)", "range"), rows, "rll"), Notes(notes)]
    rows = []
    fits = capacity.prediction.fits
    for fit in (fit for fit in fits if not fit.rule):
        # The objective that allows the fewest users.
        limits = [other for other in fits if other.rule and other.think_s == fit.think_s and other.users is not None]
        bound = min(limits, key=lambda other: (other.users or 0, other.at_least)).rule if limits else ""
        cells = [duration(fit.think_s), _users(fit), _range(fit.low, fit.high), bound]
        rows.append(cells + (scaled.get(fit.think_s, ["-", "-"]) if scaled else []))
    headers = ("think time", "users predicted", "range", "limited by", "users in proportion", "range")
    width = 6 if scaled else 4
    notes.append("predicted: by a queueing model, from the loads without think time alone (docs/capacity-models.md)")
    notes += [f"prediction: {reason.message}" for reason in capacity.prediction.caveats]
    return [Table(headers[:width], rows, "rlllll"[:width]), Notes(notes)]


def _kind(capacity: Capacity) -> str:
    return capacity.probes[0].label.split("=")[0]


def _users(fit: PredictedCapacity) -> str:
    return f"at least {fit.users}" if fit.at_least else str(fit.users)


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return "unknown" if high is None else f"at most {high:g}"
    return f"{low:g} or more" if high is None else f"{low:g} to {high:g}"


def _share(hits: HitShare) -> str:
    """The share of hits; with the effective n where the requests are not independent."""
    if hits.share is None:
        return "-"
    dependent = hits.effective < hits.requests - 1
    return percent(hits.share) + (f" (effective n {hits.effective:.0f})" if dependent else "")


def _notes(capacity: Capacity) -> Notes:
    """What the columns of the probes mean, as far as they are used, and why the search ended."""
    notes = []
    if capacity.probes:
        probes, purposes = capacity.probes, {probe.purpose for probe in capacity.probes}
        phases = "; ".join(f"{name} {aim}" for purpose, (name, aim) in _PHASES.items() if purpose in purposes)
        shares = ", ".join(f"{percent(hits.asked)} ({rule})" for rule, hits in probes[0].attainment.items())
        confidence = "" if capacity.answer is None else f" at {100 * capacity.answer.confidence:g} % confidence"
        fewest = "FAIL takes at least 20 requests, and one from each user; PASS takes five from each user"
        if _kind(capacity) == "rate":
            fewest = "both take at least 20 requests, or a queue that grows: the server cannot keep up with the rate"
        notes = [
            f"a probe is one measurement at one load; its phase: {phases}",
            f"objective columns: share of the probe's requests that met it; at least {shares} must",
            f"PASS, FAIL: decided{confidence} by this probe and the earlier ones; {fewest}",
            "UNDECIDED: not enough requests yet. Bracketing and refining end as soon as they clearly lean to one side",
        ]
        if purposes & {Purpose.REPEAT, Purpose.VERIFY}:
            notes.append("repeat tests and the verification are decided by their own requests alone")
        if any("effective" in _share(hits) for probe in probes for hits in probe.attainment.values()):
            notes.append(
                "effective n: the requests depend on each other, and carry as much information as this many that do not"
            )
    spent = f"{duration(capacity.spent_s)} of its budget of {duration(capacity.budget_s)}"
    notes.append(f"the search took {spent}, including warm-ups and waiting for the last responses")
    notes[-1] += f"; it ended because {capacity.end_reason}" if capacity.end_reason else ""
    return Notes(notes)


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
    shares = ", ".join(f"{_share(hits)} met {rule}" for rule, hits in probe.attainment.items())
    why = f", aborted by {probe.aborted}" if probe.aborted else ""
    why += ", the queue grows: the rate is above capacity" if probe.overloaded else ""
    leans = "" if probe.decision != "UNDECIDED" else f", leans to {'PASS' if probe.leaning > 0 else 'FAIL'}"
    phase = _PHASES[probe.purpose][0]
    return f"{phase} at {probe.label}: {probe.decision}{leans}{why}; of {probe.requests} requests {shares}"


def step_line(step: CurveLevel) -> str:
    """A step of the throughput curve in one line."""
    return f"without think time, users={step.users}: {step.requests_per_s:.3g} responses/s"
