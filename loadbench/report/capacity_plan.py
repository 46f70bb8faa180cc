"""What a capacity search would do, before it starts. No request was sent to make it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.curve import MAX_STEPS
from loadbench.plan.objective import FAILURES
from loadbench.plan.scenario import LEAST_WARM_UP_NS
from loadbench.plan.search import Budget
from loadbench.report.document import Document, Notes, Table
from loadbench.report.plan import not_used, settings_table

if TYPE_CHECKING:
    from loadbench.plan.scenario import Scenario


def capacity_plan_document(scenario: Scenario) -> Document:
    """The plan of `--dry-run`. It cannot say how long a response takes."""
    settings, budget = scenario.capacity, Budget(scenario.capacity.budget)
    by_users = settings.by == "users"
    unit = "users" if by_users else "requests/s"
    think = f", think time {scenario.think}" if scenario.think else ""
    facts = [
        ["target", "the simulated server" if scenario.simulated else str(scenario.target.url)],
        ["objectives", ", ".join(rule.rule for rule in scenario.objectives)],
        ["loads", f"up to {settings.at_most:g} {unit}{think}"],
        ["confidence", f"{100 * settings.confidence:g} %; a range of {100 * settings.precision:g} % is narrow enough"],
        ["time", time_line(scenario)],
    ]

    end_ns = budget.total_ns - budget.reserved_ns
    end = f"minute {end_ns / 60e9:.0f}" if end_ns > 120e9 else f"second {end_ns / 1e9:.0f}"
    # A user's cycle is a response and the think time after it.
    cycle = ", one user's cycle at least" if by_users else ""
    steps = [
        ("bracketing", "about 8 at most", f"{_rounded(budget.total_ns // 30)} each{cycle}"),
        ("test of both ends", "2 or more", f"at most two thirds of the rest each, until {end}"),
        ("repeat test of both", "2", f"{_rounded(budget.reserved_ns // 4)} each"),
        ("verification", "1", _rounded(budget.reserved_ns // 2)),
    ]
    if scenario.measures_curve and budget.step_ns > LEAST_WARM_UP_NS:
        each = f"{_rounded(budget.step_ns)} each"
        steps.insert(0, ("throughput without think time", f"{MAX_STEPS} at most", each))
    warm_up = "one response and think time" if scenario.think else "one response"
    return Document(
        "capacity search, planned: nothing was sent",
        [
            Table((), facts, "ll"),
            Table(("step", "probes", "time"), steps, "lll"),
            Notes([f"a probe is one measurement at one load after a warm-up ({warm_up}); it ends once it has decided"]),
            settings_table(scenario),
            not_used(scenario),
        ],
    )


def time_line(scenario: Scenario) -> str:
    """How long the search takes, in one line."""
    needed = []
    for rule in scenario.objectives:
        # The requests without one miss that prove the objective if a dozen loads are visited.
        share = 1 - rule.bound if rule.metric == FAILURES else rule.permille / 1000
        evidence = math.log(12 / (1 - scenario.capacity.confidence)) + math.log(2 / 0.3)
        needed.append(f"{rule.rule} takes {math.ceil(evidence / -math.log(share))} requests")
    budget = format_duration(scenario.capacity.budget)
    return f"at most {budget} and the drain of the last probe; proving {', '.join(needed)} if none misses it, else more"


def _rounded(ns: int) -> str:
    """To whole seconds."""
    return format_duration(round(ns / NS_PER_S) * NS_PER_S)
