"""A capacity search for people: its answer, what it rests on, and its plan before it begins."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.analyze.capacity.curve import fit_of_all_objectives
from loadbench.core.text import printable
from loadbench.core.units import format_duration
from loadbench.plan.ladder import MOST_RUNGS
from loadbench.plan.objective import FAILURES
from loadbench.plan.scenario import LEAST_WARM_UP_NS
from loadbench.plan.search import Budget, Purpose
from loadbench.report.values import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.objective import Objective
    from loadbench.plan.scenario import Scenario
    from loadbench.results.capacity import Capacity, ProbeResult, Rung, Shared, Verification
    from loadbench.results.prediction import Fit, Prediction

_PURPOSES = {
    Purpose.BRACKET: "looked for the border",
    Purpose.BISECT: "looked closer",
    Purpose.PROVE: "proof",
    Purpose.AGAIN: "measured again",
    Purpose.VERIFY: "verification",
}


def capacity_text(capacity: Capacity) -> str:
    """The whole report for a terminal."""
    tables = [_table(heads, cells, form="simple") for heads, cells in _tables(capacity)]
    parts = [_head(capacity), *tables, "\n".join(_notes(capacity))]
    return "\n\n".join("\n".join(map(printable, part.split("\n"))) for part in parts if part) + "\n"


def capacity_markdown(capacity: Capacity) -> str:
    """The same as Markdown."""
    tables = [_table(heads, cells, form="github") for heads, cells in _tables(capacity)]
    notes = "\n".join(f"- {printable(line)}" for line in _notes(capacity))
    return "\n\n".join(["# Capacity", *map(printable, _head(capacity).split("\n")), *tables, notes]) + "\n"


def _table(heads: Sequence[str], cells: Sequence[Sequence[str]], *, form: str = "simple") -> str:
    return str(tabulate(cells, headers=heads, tablefmt=form, disable_numparse=True))


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


def _head(capacity: Capacity) -> str:
    """The answer in a few lines that anyone can act on."""
    lines = ["simulated server, not a real one"] if capacity.simulated else []
    lines.append(capacity.conclusion or _so_far(capacity))
    told = capacity.answer
    if told is not None and told.think_s:
        lines.append(f"They think {duration(told.think_s)} on average between an answer and the next question.")
    if capacity.verification is not None and not capacity.verification.agrees:
        lines.append(
            "The verification does not agree: the server, or what else runs beside it, was not the same all along."
        )
    if capacity.explanation is not None:
        lines.append(f"Bottleneck: {capacity.explanation.sentence}.")
    if capacity.devices is not None:
        lines.append(_devices(capacity))
    return "\n".join(lines)


def _so_far(capacity: Capacity) -> str:
    """Of a search that has no conclusion yet, or was ended by force before it had one."""
    if not capacity.probes:
        return f"Under way: {len(capacity.curve) or 'no'} loads without think time so far, and none with it."
    passed = max((one.amount for one in capacity.probes if one.decision == "PASS"), default=None)
    failed = min((one.amount for one in capacity.probes if one.decision == "FAIL"), default=None)
    unit = " users" if isinstance(capacity.probes[0].users, int) else "/s"
    low = "nothing is proven to pass" if passed is None else f"{passed:g}{unit} surely pass"
    high = "nothing is proven to fail" if failed is None else f"{failed:g}{unit} surely fail"
    return f"Under way, {duration(capacity.spent_s)} of {duration(capacity.budget_s)} spent: {low}, {high}."


def _devices(capacity: Capacity) -> str:
    found = capacity.devices
    if found is None or found.devices is None:
        return f"Devices: {found.note if found is not None else ''}"
    alike = found.least in {None, found.devices}
    likely = "" if alike else f"; {found.least} would do if one serves as many as it may"
    return (
        f"For {found.people} people: {found.devices} devices of {found.per_device} each, "
        f"{found.headroom:.0%} of what one surely serves left free{likely}."
    )


def _tables(capacity: Capacity) -> list[tuple[tuple[str, ...], list[list[str]]]]:
    found = []
    if capacity.verification is not None:
        found.append(_side_by_side(capacity, capacity.verification))
    if capacity.at_think_times or capacity.prediction is not None:
        found.append(_think_times(capacity))
    if capacity.curve:
        cells = [[_users(one.users), f"{one.requests_per_s:.3g}", _seconds(one.answer_s)] for one in capacity.curve]
        found.append(
            (("without thinking", "answers/s", "usual answer"), sorted(cells, key=lambda row: int(row[0].split()[0])))
        )
    if capacity.probes:
        heads = ("load", "decision", *capacity.objectives, "requests", "time", "for")
        found.append((heads, [_row(probe, capacity.objectives) for probe in capacity.probes]))
    return found


def _side_by_side(capacity: Capacity, verified: Verification) -> tuple[tuple[str, ...], list[list[str]]]:
    """How many fit, and the shares of hits at the verified load: three ways to the same figures."""
    told = capacity.answer
    fit = fit_of_all_objectives(capacity.prediction, None if told is None else told.think_s)
    model = "-" if fit is None else f"{_people(fit)} ({_ends(fit.low, fit.high)})"
    search = "-" if told is None else f"{told.amount:g} ({_ends(told.low, told.high)})"
    cells = [["fits", model, search, "-"]]
    for rule, shared in verified.measured.items():
        shares = [(verified.predicted or {}).get(rule), verified.expected[rule]]
        cells.append(
            [
                f"{rule} at {verified.amount:g}",
                *("-" if one is None else f"{100 * one:.3g}%" for one in shares),
                _measured(shared),
            ]
        )
    return ("", "by the model", "by the search", "verified"), cells


def _think_times(capacity: Capacity) -> tuple[tuple[str, ...], list[list[str]]]:
    """Other think times, by proportion from the answer, and by the model from the levels without."""
    scaled = {one.think_s: [str(one.users), _ends(one.low, one.high)] for one in capacity.at_think_times}
    told = capacity.answer
    if scaled and told is not None and told.think_s:
        scaled[told.think_s] = [f"{told.amount:g} (the answer)", _ends(told.low, told.high)]
    if capacity.prediction is None:
        return ("thinking", "about so many people", "range"), [[duration(one), *scaled[one]] for one in sorted(scaled)]
    fits = [fit for fit in capacity.prediction.fits if not fit.rule]
    cells = [
        [
            duration(fit.think_s),
            _people(fit),
            _ends(fit.low, fit.high),
            _bound_by(capacity.prediction, fit),
            *scaled.get(fit.think_s, ["-", "-"]),
        ]
        for fit in fits
    ]
    heads = ("thinking", "by the model", "range", "bound by", "by proportion", "range")
    width = 6 if scaled else 4
    return heads[:width], [row[:width] for row in cells]


def _bound_by(prediction: Prediction, every: Fit) -> str:
    """The rule that lets the fewest in."""
    known = [fit for fit in prediction.fits if fit.rule and fit.think_s == every.think_s and fit.users is not None]
    return min(known, key=lambda fit: (fit.users or 0, fit.at_least)).rule if known else ""


def _people(fit: Fit) -> str:
    return f"at least {fit.users}" if fit.at_least else str(fit.users)


def _ends(low: float | None, high: float | None) -> str:
    return f"{'?' if low is None else f'{low:g}'} to {'?' if high is None else f'{high:g}'}"


def _row(probe: ProbeResult, rules: Sequence[str]) -> list[str]:
    shares = ["queue grows" if probe.overloaded else _share(probe.attainment[rule]) for rule in rules]
    window = duration(probe.window_s)
    return [_load(probe), probe.decision, *shares, str(probe.requests), window, _PURPOSES[probe.purpose]]


def _load(probe: ProbeResult) -> str:
    return _users(probe.users) if isinstance(probe.users, int) else f"{probe.amount:g}/s"


def _users(users: int) -> str:
    return f"{users} user" + ("s" if users > 1 else "")


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def _share(shared: Shared) -> str:
    if shared.share is None:
        return "-"
    worth = "" if shared.effective >= shared.requests - 1 else f" of {shared.effective:.0f}"
    return f"{100 * shared.share:.3g}%{worth}"


def _notes(capacity: Capacity) -> list[str]:
    notes = [
        "shares are of requests within the objective's bound"
        + (f", {_asked(capacity)} are asked for; " if capacity.probes else "; ")
        + "'of 40': as many independent requests would tell as much"
    ]
    if capacity.verification is not None:
        word = "agrees with" if capacity.verification.agrees else "surely differs from"
        notes.append(f"the verification {word} what the search saw; its intervals are of 95 %")
    notes += capacity.contradictions
    if capacity.explanation is not None and capacity.explanation.advice:
        notes.append(capacity.explanation.advice)
    if capacity.at_think_times:
        notes.append("by proportion: as many users as ask equally often")
    if capacity.prediction is not None:
        notes.append("by the model: from the loads without think time alone (docs/capacity-models.md)")
        notes += [f"model: {reason.message}" for reason in capacity.prediction.caveats]
    notes.append(f"spent {duration(capacity.spent_s)} of {duration(capacity.budget_s)}")
    if capacity.status == "inconclusive" and not capacity.contradictions:
        notes.append("go on with --resume and a larger --budget, or ask for less confidence or a lower quantile")
    return notes


def _asked(capacity: Capacity) -> str:
    return ", ".join(f"{100 * shared.asked:g}%" for shared in capacity.probes[0].attainment.values())


def _measured(shared: Shared) -> str:
    if shared.share is None or shared.interval is None:
        return "nothing"
    low, high = shared.interval
    return f"{100 * shared.share:.3g}% ({100 * low:.3g} to {100 * high:.3g})"


def probe_line(probe: ProbeResult) -> str:
    """A probe in one line, for the moment it ends."""
    seen = ", ".join(f"{rule} {_share(shared)}" for rule, shared in probe.attainment.items())
    why = ", requests pile up: the rate is above capacity" if probe.overloaded else ""
    leans = "" if probe.decision != "UNDECIDED" else f" (leans to {'PASS' if probe.leaning > 0 else 'FAIL'})"
    return (
        f"{_load(probe)}: {probe.decision}{leans}{why}: {seen} of {probe.requests} requests, {_PURPOSES[probe.purpose]}"
    )


def rung_line(rung: Rung) -> str:
    """A rung of the ladder in one line."""
    return f"without thinking, {_users(rung.users)}: {rung.requests_per_s:.3g} answers/s"


# Before it begins.


def time_line(scenario: Scenario) -> str:
    """What the search will take, in one line."""
    spoken = ", ".join(f"{rule.rule} takes {_needed(rule, scenario)}" for rule in scenario.objectives)
    return (
        f"at most {format_duration(scenario.capacity.budget)} and a drain; a proof of {spoken} requests without a miss"
    )


def _needed(rule: Objective, scenario: Scenario) -> int:
    """Requests without one miss that prove the objective, were a dozen loads to be visited."""
    share = 1 - rule.bound if rule.metric == FAILURES else rule.permille / 1000
    evidence = math.log(12 / (1 - scenario.capacity.confidence)) + math.log(2 / 0.3)
    return math.ceil(evidence / -math.log(share))


def plan_text(scenario: Scenario) -> str:
    """The plan of `--dry-run`: nothing was sent to make it, so how long an answer takes is not in it."""
    settings, budget = scenario.capacity, Budget(scenario.capacity.budget)
    glance_ns, ends = budget.total_ns // 30, _at(budget.total_ns - budget.kept_ns)
    thinking = f", thinking {scenario.think}" if scenario.think else ""
    ladder = [["throughput without thinking", f"up to {MOST_RUNGS}", f"{format_duration(_whole(budget.rung_ns))} each"]]
    cells = [
        *(ladder if scenario.climbs and budget.rung_ns > LEAST_WARM_UP_NS else []),
        ["find the border", "up to 8 or so", f"{format_duration(_whole(glance_ns))} each, a user's cycle at the least"],
        [
            "prove both ends",
            "2 and more",
            f"each at most two thirds of what is left, to {ends}",
        ],
        ["measure both again", "2", f"{format_duration(_whole(budget.kept_ns // 4))} each"],
        ["verify the answer", "1", format_duration(_whole(budget.kept_ns // 2))],
    ]
    where = "the simulated server" if scenario.simulated else str(scenario.target.url)
    unit = "users" if settings.by == "users" else "requests/s"
    head = [
        f"target      {where}",
        f"objectives  {', '.join(rule.rule for rule in scenario.objectives)}",
        f"loads       up to {settings.at_most:g} {unit}{thinking}",
        f"confidence  {100 * settings.confidence:g} %, a range of {100 * settings.precision:g} % is narrow enough",
        f"time        {time_line(scenario)}",
    ]
    table = tabulate(cells, headers=("step", "probes", "time"), tablefmt="simple", disable_numparse=True)
    tail = "a probe begins with a warm-up of an answer and the thinking, and ends when it has told what it was for"
    return "\n\n".join("\n".join(map(printable, part.split("\n"))) for part in ("\n".join(head), table, tail)) + "\n"


def _whole(ns: int) -> int:
    return round(ns / 1e9) * 1_000_000_000


def _at(ns: int) -> str:
    return f"minute {ns / 60e9:.0f}" if ns > 120e9 else f"second {ns / 1e9:.0f}"
