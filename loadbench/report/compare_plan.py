"""What measuring two sides in turns would do, before it starts: both sides, the order, the time.

And how many repeats it takes for gates to decide, for several guesses at how much runs differ.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.analyze.compare.comparison_rows import HEADLINE_SHARE
from loadbench.analyze.compare.effect import Effect, plan_repeats
from loadbench.core.units import format_duration
from loadbench.plan.objective import FAILURES
from loadbench.plan.pairs import one_up, order_text, planned_ns
from loadbench.plan.settings import FEWEST_DECIDING, USUAL_REPEATS
from loadbench.report.cluster_plan import cluster_facts, cluster_warnings
from loadbench.report.data_set import data_set_lines
from loadbench.report.document import Document, Notes, Table, Text
from loadbench.report.plan import (
    closing_blocks,
    level_cells,
    resume_facts,
    setting_text,
    target_text,
    trace_facts,
    traffic_facts,
    work_text,
)
from loadbench.report.values import counted
from loadbench.results.folder import RESULTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadbench.plan.gate import GateRule
    from loadbench.plan.pairs import Pairing
    from loadbench.plan.scenario import Scenario

_MOST_ORDERED = 8
# From a quiet machine to one that others use too.
_CVS = (0.01, 0.02, 0.05)
# The repeats are for a change of twice the bound, or of this.
_LEAST_EFFECT = 0.1


def compare_plan_document(
    sides: Sequence[Scenario],
    pairing: Pairing,
    gates: Sequence[GateRule] = (),
    *,
    confidence: float = 0.95,
    requests: Sequence[Sequence[str]] = (),
    verbose: bool = False,
    resume: Path | None = None,
    complete: int = 0,
) -> Document:
    """The plan of `--dry-run`, with the lines of each side's first request. No request was sent to make it.

    A comparison that goes on in the folder `resume` has so many `complete` repeats already.
    """
    a, b = sides
    left = max(0, most_repeats(a, pairing) - complete)
    facts = [
        ("A", _side_text(a)),
        ("B", _side_text(b)),
        ("work", f"{work_text(a)}, the same on both sides"),
        ("repeats", repeats_text(a, pairing)),
        *(traffic_facts(a, times=2 * left) if left else []),
        *cluster_facts(a),
        (
            "saved in",
            f"{(a.report.out or RESULTS) / f'<time>-{a.report.name}'}: compare.json, and a run for each repeat",
        ),
    ]
    if resume is not None:
        most = "" if pairing.until is None and pairing.budget_ns is None else "at most "
        there = counted(complete, "repeat") if complete else ""
        facts[-1:] = resume_facts(resume, there, f"{most}{counted(left, 'repeat')}" if left else "")
    shown = min(pairing.most, _MOST_ORDERED)
    more = " …" if pairing.most > shown else ""
    rows = [
        [
            str(number),
            *level_cells(a, load),
            order_text(shown, number - 1, seed=a.work.seed, one_up=pairing.one_up) + more,
        ]
        for number, load in enumerate(a.loads, start=1)
    ]
    headers = ("level", "load", "measured", "requests", "time on each side", "order by repeat")

    blocks = f"{2 * len(a.loads)} measurements a repeat (each level once on each side)"
    blocks += f", {format_duration(pairing.settle_ns)} of rest before each"
    repeat_ns = planned_ns(a, pairing)
    if repeat_ns is None:
        time = f"{blocks}; the time is that of the requests"
    else:
        whole_ns = repeat_ns * (pairing.most - complete)
        whole_ns = whole_ns if pairing.budget_ns is None else min(pairing.budget_ns, whole_ns)
        drain = f"and the drain of each, at most {format_duration(a.extent.drain_ns)}"
        time = f"{blocks}: {format_duration(repeat_ns)} a repeat, {format_duration(whole_ns)} in all, {drain}"

    notes = only_b(a, b)
    if not pairing.one_up and one_up(a, b) is None:
        notes.append(f"if the server is Foundry Local or Ollama, {starts_text(sides)}")
    notes += repeats_notes(gates, [load.label for load in a.loads], confidence=confidence)
    first = [
        f"{name}: {line}" if not number else line
        for name, lines in zip("AB", requests, strict=False)
        for number, line in enumerate(lines)
    ]
    warnings = cluster_warnings(a)
    if pairing.budget_ns is not None and repeat_ns is not None and pairing.budget_ns // repeat_ns < FEWEST_DECIDING:
        given, whole = format_duration(pairing.budget_ns), format_duration(FEWEST_DECIDING * repeat_ns)
        short = (
            f"{a.place('compare.budget')} {given} is too short: {FEWEST_DECIDING} repeats, which decide, take {whole}"
        )
        warnings.append(f"{short}; give more time, or measure fewer levels")
    return Document(
        "comparison, planned: nothing was sent",
        [
            Text([a.question] if a.question else []),
            Table((), facts, "ll"),
            Table((), trace_facts(a), "ll"),
            Table(headers, rows, "rlllll"),
            Text([*[time] * bool(left), *[starts_text(sides)] * pairing.one_up]),
            Text(data_set_lines(a)),
            Notes(notes),
            *closing_blocks(a, first, verbose=verbose, warnings=warnings),
        ],
    )


def only_b(a: Scenario, b: Scenario) -> list[str]:
    """What side B has and A has not, in one line, if there is anything."""
    ours, theirs = a.effective(), b.effective()
    differing = [
        f"{section}.{name} {setting_text(theirs[section][name])}"
        for section in ("target", "cost")
        for name in ours[section]
        if ours[section][name] != theirs[section][name]
    ]
    return [f"only B has {', '.join(differing)}"] if differing else []


def _side_text(scenario: Scenario) -> str:
    if scenario.simulated:
        return f"the simulated server {scenario.target.profile}"
    (model,) = scenario.target.model or ("",)
    return f"{target_text(scenario)}, {f'model {model}' if model else 'the model that the server lists'}"


def starts_text(sides: Sequence[Scenario]) -> str:
    """That only one side is up at a time, and what this adds to the time."""
    started = sum(side.target.server_cmd is not None for side in sides)
    what = "a side's server is started" if started else "a side's model is loaded"
    times = f"The {counted(started or 2, 'start')} of each repeat"
    limits = [side.target.ready_timeout for side in sides if side.target.server_cmd is not None]
    longest = max((limit for limit in limits if limit is not None), default=None)
    within = "" if longest is None or None in limits else f", at most {format_duration(longest)} each,"
    return (
        f"only one side is up at a time: in each repeat {what}, gets first requests that are not measured, and has all "
        f"levels; then it is the other side's turn. {times}{within} come on top, and count towards --budget: how long "
        "they take is known before the first level"
    )


def repeats_text(scenario: Scenario, pairing: Pairing) -> str:
    """How many repeats there will be, as far as that is known, and whether they are enough to decide anything."""
    most, text = pairing.most, str(pairing.most)
    if pairing.until is not None:
        text = f"until the ratio is known to ±{100 * pairing.until:.3g} % at every level, "
        text += f"from {min(USUAL_REPEATS, most)} to {most}" if most > 1 else "1"
    if pairing.budget_ns is not None:
        fits = f"as many as fit into {format_duration(pairing.budget_ns)}"
        text = f"{fits}, at most {most}" if pairing.until is None else f"{text}, and {fits}"
        most = most_repeats(scenario, pairing)
        text += f": about {most}" * (planned_ns(scenario, pairing) is not None)
    return text if most >= FEWEST_DECIDING else f"{text}; {few_repeats(most)}"


def most_repeats(scenario: Scenario, pairing: Pairing) -> int:
    """As many as are wanted, or as fit into the budget, where the time of one is known."""
    repeat_ns = planned_ns(scenario, pairing)
    if pairing.budget_ns is None or repeat_ns is None:
        return pairing.most
    return max(1, min(pairing.most, pairing.budget_ns // repeat_ns))


def few_repeats(repeats: int) -> str:
    """What fewer repeats than `FEWEST_DECIDING` can show."""
    if repeats < 2:
        return f"one repeat shows no spread, and only a large difference: use {FEWEST_DECIDING} or more"
    error = _CVS[1] * math.sqrt(2 / repeats)
    least = math.expm1(Effect(0.0, error, error, repeats - 1).detectable(1 - 0.05 * HEADLINE_SHARE))
    return (
        f"{repeats} repeats most likely show a difference of {100 * least:.0f} % or more, if runs differ by "
        f"{100 * _CVS[1]:.0f} %: use {FEWEST_DECIDING} or more to show smaller ones"
    )


def repeats_notes(gates: Sequence[GateRule], levels: Sequence[str], *, confidence: float = 0.95) -> list[str]:
    """A line for each gate on a ratio: the repeats that it needs. For failures this is unknown before there are any."""
    checks = max(1, sum(gate.applies(level) for gate in gates for level in levels))
    lines = []
    for gate in gates:
        effect = max(_LEAST_EFFECT, 2 * abs(gate.bound)) * (-1 if gate.more_is_better else 1)
        if gate.metric == FAILURES:
            continue
        if effect <= -1:
            lines.append(f"gate {gate.rule}: its bound leaves no change that is twice as large")
            continue
        repeats = [plan_repeats(cv, effect, 1 - confidence, bound=gate.bound, checks=checks) for cv in _CVS]
        needed = ", ".join(f"{n} if they differ by {100 * cv:.0f} %" for n, cv in zip(repeats, _CVS, strict=True))
        change = f"{100 * effect:+.0f} %"
        lines.append(f"gate {gate.rule}: to fail for {change} in nine of ten comparisons, runs needed: {needed}")
    return lines
