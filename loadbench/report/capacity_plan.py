"""What a capacity search would do, before it starts. No request was sent to make it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.analyze.capacity.sequential import FEWEST_PER_USER, required_share
from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.curve import MAX_STEPS
from loadbench.plan.scenario import LEAST_WARM_UP_NS
from loadbench.plan.search import Budget
from loadbench.report.data_set import data_set_lines
from loadbench.report.document import Block, Document, Notes, Table, Text
from loadbench.report.plan import not_used, settings_table, target_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.scenario import Scenario


def capacity_plan_document(scenario: Scenario, request: Sequence[str] = ()) -> Document:
    """The plan of `--dry-run`, with the lines of its first request. It cannot say how long a response takes."""
    models = scenario.target.model or ()
    settings, budget = scenario.capacity, Budget(scenario.capacity.budget // max(1, len(models)))
    unit = "users" if settings.by == "users" else "requests/s"
    think = f", think time {scenario.think}" if scenario.think else ""
    facts = [
        ["target", target_text(scenario)],
        ["objectives", ", ".join(rule.rule for rule in scenario.objectives)],
        ["loads", f"up to {settings.at_most:g} {unit}{think}"],
        ["confidence", f"{100 * settings.confidence:g} %"],
        [
            "answer",
            f"exit code 0 for an answer that is {'likely and verified, or ' * (settings.require == 'likely')}proven",
        ],
        ["precision", f"the search ends when the range is at most {100 * settings.precision:g} % wide"],
        ["time", time_line(scenario, models=len(models))],
    ]

    bracket, refine = _rounded(budget.total_ns // 30), _rounded(budget.total_ns // 10)
    steps = [
        ("bracketing", "about 4", f"{bracket} each, or twice the warm-up if that is longer"),
        (
            "refining",
            "until the likely range is narrow",
            f"{refine} each, until {_rounded(budget.total_ns - budget.reserved_ns)}",
        ),
        ("verification", "1 or more", f"at least {_rounded(budget.reserved_ns)}"),
    ]
    if settings.require == "proven":
        steps.append(("proving", "until both ends are proven", "each at most half of the time left"))
    if scenario.measures_curve and budget.step_ns > LEAST_WARM_UP_NS:
        steps.insert(0, ("throughput without think time", f"{MAX_STEPS} at most", f"{_rounded(budget.step_ns)} each"))
    warm_up = "one response and think time" if scenario.think else "one response"
    return Document(
        "capacity search, planned: nothing was sent",
        [
            Table((), facts, "ll"),
            *_of_models(models, budget),
            Table(("step", "probes", "time"), steps, "lll"),
            Notes([f"a probe is one measurement at one load after a warm-up ({warm_up}); most can end early"]),
            Text(data_set_lines(scenario)),
            settings_table(scenario),
            not_used(scenario),
            Text(request),
        ],
    )


def _of_models(models: Sequence[str], budget: Budget) -> list[Block]:
    """When each of several models is searched; `budget` is that of each."""
    if models == ("all",):
        return [Text(["each model that the server lists is searched in turn; these times are for a single one"])]
    rows = [
        [
            model,
            _rounded(budget.total_ns),
            f"{_rounded(number * budget.total_ns)} to {_rounded((number + 1) * budget.total_ns)}",
        ]
        for number, model in enumerate(models if len(models) > 1 else ())
    ]
    return [Table(("model", "part of the budget", "searched from"), rows, "lrl")]


def time_line(scenario: Scenario, *, models: int) -> str:
    """How long the search takes, in one line; several models share the budget."""
    # The requests without one miss that prove the objective if a dozen loads are visited.
    evidence = math.log(12 / (1 - scenario.capacity.confidence)) + math.log(2 / 0.3)
    counts = {rule.rule: math.ceil(evidence / -math.log(required_share(rule))) for rule in scenario.objectives}
    needed = [f"about {count} requests for {rule}" for rule, count in counts.items()]
    needed += [f"and {FEWEST_PER_USER} per user"] * (scenario.capacity.by == "users")
    budget, drain = scenario.capacity.budget, format_duration(scenario.load.drain)
    whole = f"at most {format_duration(budget)}"
    if models > 1:
        whole += f" for {models} models, {_rounded(budget // models)} for each"
    return f"{whole}, plus {drain} for the last responses; to be proven, a load needs at least {', '.join(needed)}"


def _rounded(ns: int) -> str:
    """To whole seconds."""
    return format_duration(round(ns / NS_PER_S) * NS_PER_S)
