"""What a capacity search would do, before it starts. No request was sent to make it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.analyze.capacity.sequential import FEWEST_PER_USER, required_share
from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.curve import MAX_STEPS
from loadbench.plan.scenario import LEAST_WARM_UP_NS
from loadbench.plan.search import Budget, narrow_text
from loadbench.report.cluster_plan import cluster_facts, cluster_warnings
from loadbench.report.data_set import data_set_lines
from loadbench.report.document import Block, Document, Notes, Table, Text
from loadbench.report.plan import closing_blocks, target_text, work_text
from loadbench.report.values import counted
from loadbench.results.folder import RESULTS
from loadbench.results.space import speed_text, usual_cycle_s

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadbench.plan.scenario import Scenario
    from loadbench.results.capacity import Capacity


def capacity_plan_document(
    scenario: Scenario,
    request: Sequence[str] = (),
    *,
    verbose: bool = False,
    resume: Path | None = None,
    earlier: Sequence[Capacity] = (),
) -> Document:
    """The plan of `--dry-run`; when verbose with every setting and the lines of its first request. It cannot say how
    long a response takes. A search that goes on in the folder `resume` has the `earlier` ones already.
    """
    models = scenario.target.model or ()
    settings, budget = scenario.capacity, Budget(scenario.capacity.budget // max(1, len(models)))
    unit = "users" if settings.by == "users" else "requests/s"
    narrow = narrow_text(settings.precision, proven=settings.require == "proven")
    think = f", think time {scenario.think}" if scenario.think else ""
    facts = [
        ["target", target_text(scenario)],
        ["work", work_text(scenario)],
        ["objectives", ", ".join(rule.rule for rule in scenario.objectives)],
        ["loads", f"up to {settings.at_most:g} {unit}{think}"],
        ["confidence", f"{100 * settings.confidence:g} %"],
        [
            "answer",
            f"exit code 0 for an answer that is {'likely and verified, or ' * (settings.require == 'likely')}proven",
        ],
        ["precision", f"the search ends when {narrow}"],
        ["time", time_line(scenario, models=len(models))],
        *map(list, cluster_facts(scenario)),
        [
            "saved in",
            f"{(scenario.report.out or RESULTS) / f'<time>-{scenario.report.name}'}: capacity.json, and a run",
        ],
    ]

    if resume is not None:
        facts[-1:] = [["resumes", str(resume)], *(["already there", so_far(search)] for search in earlier)]
        facts.append(["saved in", f"{resume}: further probes are added to those that are there"])
    bracket, refine = _rounded(budget.total_ns // 30), _rounded(budget.total_ns // 10)
    steps = [
        ("bracketing", "about 4", f"at most {bracket} each, or twice the warm-up if longer"),
        (
            "refining",
            "until the likely range is narrow",
            f"at most {refine} each, until {_rounded(budget.total_ns - budget.reserved_ns)}",
        ),
        ("verification", "1 or more", f"at least {_rounded(budget.reserved_ns)}"),
    ]
    if settings.require == "proven":
        steps.append(("test", "until both ends are proven", "each at most half of the time left"))
    if scenario.measures_curve and budget.step_ns > LEAST_WARM_UP_NS:
        steps.insert(
            0, ("throughput without think time", f"{MAX_STEPS} at most", f"at most {_rounded(budget.step_ns)} each")
        )
    warm_up = "three responses" + " and half a think time" * bool(scenario.think)
    if scenario.load.warm_up is not None:
        warm_up = format_duration(scenario.load.warm_up)
    warnings = [*_short_budget(scenario, budget), *cluster_warnings(scenario)]
    return Document(
        "capacity search, planned: nothing was sent",
        [
            Table((), facts, "ll"),
            *_of_models(models, budget),
            Table(("step", "probes", "time"), steps, "lll"),
            Notes([f"a probe is one measurement at one load after a warm-up ({warm_up}); most can end early"]),
            Text(data_set_lines(scenario)),
            *closing_blocks(scenario, request, verbose=verbose, warnings=warnings),
        ],
    )


def so_far(search: Capacity) -> str:
    """What a search has measured already, in a line."""
    has = [counted(len(search.curve), "load") + " without think time"] * bool(search.curve)
    has.append(counted(len(search.probes), "probe"))
    line = f"{' and '.join(has)} in {_rounded(round(search.spent_s * NS_PER_S))}, which counts towards --budget"
    model = f"{search.model}: " if search.model else ""
    return f"{model}{line}; {search.status.replace('_', ' ')} so far"


def _short_budget(scenario: Scenario, budget: Budget) -> list[str]:
    """Whether the time for one model is too short for a search, even with a server that answers quickly."""
    warm_up_ns = scenario.load.warm_up or 0
    probe_ns = 2 * max(warm_up_ns, round(usual_cycle_s(scenario) * NS_PER_S))
    # Four loads to bracket, two to refine, and a verification in which each user has enough responses.
    least_ns = probe_ns * (4 + 2) + probe_ns // 2 * (1 + FEWEST_PER_USER)
    if least_ns <= budget.total_ns:
        return []
    given, models = scenario.capacity.budget, max(1, len(scenario.target.model or ()))
    enough = format_duration(-(-least_ns * models // (60 * NS_PER_S)) * 60 * NS_PER_S)
    short = f"{scenario.place('capacity.budget')} {format_duration(given)} is too short: {speed_text(scenario)}"
    short += f" a search takes about {_rounded(least_ns)} a model"
    return [f"{short}; give {enough} or more, shorter responses, or less think time"]


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
    needed = [
        f"about {count} requests for {' and '.join(rule for rule in counts if counts[rule] == count)}"
        for count in dict.fromkeys(counts.values())
    ]
    needed += [f"and {FEWEST_PER_USER} per user"] * (scenario.capacity.by == "users")
    budget, drain = scenario.capacity.budget, format_duration(scenario.load.drain)
    whole = f"the search takes at most {format_duration(budget)}"
    if models > 1:
        whole += f" for {models} models, {_rounded(budget // models)} for each"
    proof = f"a proof that a load passes takes at least {', '.join(needed)}"
    return f"{whole}, plus {drain} for the last responses; {proof}"


def _rounded(ns: int) -> str:
    """To whole seconds."""
    return format_duration(round(ns / NS_PER_S) * NS_PER_S)
