"""Compares two sides, level by level and figure by figure: `loadbench.compare/1`.

For each level that both sides have, and each figure for which both did the same work (`equal_work`), there is the ratio
b / a with its interval (`effect`). A difference is shown where two conditions hold: the p value of the interval,
adjusted by Holm for the number of figures at that level, is at most 1 - confidence; and there are enough runs for the
exact rank test (`ranks`) to reach such a p. The p value of that test is reported as well. One run a side does not allow
the rank test: a difference is then one between two runs, which need not be one between two servers, and no gate is
decided.

INVALID and interrupted levels are never compared; each is listed with its reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.analyze.compare import equal_work
from loadbench.analyze.compare.comparison_rows import ComparedLevel, make_rows, run_counts, too_few_runs
from loadbench.analyze.compare.conclusion import conclude
from loadbench.analyze.compare.crossover import crossover
from loadbench.analyze.compare.effect import mean_over_levels
from loadbench.analyze.compare.figure_data import (
    counts,
    failures_by_run,
    figure_data,
    not_in_every_run,
    too_few_requests,
)
from loadbench.analyze.compare.gates import MeasuredChange, decide
from loadbench.analyze.compare.hardware import device, device_caveats
from loadbench.analyze.level.output_equality import compare_outputs
from loadbench.core.errors import BadInput
from loadbench.plan.gate import COST, ENERGY
from loadbench.plan.objective import FAILURES, RATES
from loadbench.results.compare import NO_SAMPLES, TOO_FEW_REQUESTS, ComparedSide, Comparison, LeftOut
from loadbench.results.run import ClosedLoad, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.gate import GateRule
    from loadbench.results.run import LevelResult, OpenLoad, Run

ALL = "all"
_POINTS = ("p50", "p95", "p99")
# In an open loop latency counts from when a request was due, so that waiting for a connection is included.
_CLOSED = ("ttft", "tpot", "itl", "e2e")
_OPEN = ("ttft_response", "ttft", "tpot", "itl", "e2e_response", "e2e")
_TOKENS = "output_tokens_per_s"
_ONE_RUN = "one run a side does not show how much runs differ: measure several"


def compare(
    a: Sequence[Run],
    b: Sequence[Run],
    *,
    paired: bool = False,
    gates: Sequence[GateRule] = (),
    confidence: float = 0.95,
    caveats: Sequence[Reason] = (),
) -> Comparison:
    """The runs of side a against those of side b; each side has one model. If `paired`, a[i] was measured with b[i].

    Deterministic: the same runs give the same comparison. `caveats` are put before those found here. Raises `BadInput`
    for a side without runs or with several models, and for pairs of unequal number.
    """
    _check_sides(a, b, paired=paired)
    left_out: list[LeftOut] = []
    loads_a, loads_b = ({level.load: None for run in side for level in run.levels} for side in (a, b))
    for load in (*loads_a, *loads_b):
        if (load in loads_a) != (load in loads_b):
            message = f"only side {'A' if load in loads_a else 'B'} has this level"
            left_out.append(LeftOut(level=load.label, code="one_side", message=message))
    levels = []
    for load in loads_a:
        if load in loads_b:
            level = _compare_level(load, a, b, gates, left_out, paired=paired, confidence=confidence)
            if level is not None:
                levels.append(level)

    # Over all levels: the geometric mean of each figure that every level has.
    overall = ComparedLevel(levels[0].load) if levels else None
    if overall is not None and len(levels) > 1:
        for metric in levels[0].data:
            if metric != FAILURES and all(metric in level.data for level in levels):
                data = mean_over_levels([level.data[metric] for level in levels])
                if all(run_counts(data)):
                    overall.data[metric] = data
                    overall.changes[metric] = MeasuredChange(data.effect(), too_few_runs(data, confidence))
        overall.rows = make_rows(ALL, overall.data, overall.data, overall.changes, confidence)

    crossing = None
    closed = [(level.load.users, level) for level in levels if isinstance(level.load, ClosedLoad)]
    closed = [(users, level) for users, level in closed if _TOKENS in level.data]
    if closed:
        data_by_level = [level.data[_TOKENS] for _, level in closed]
        decisions = [level.decision(_TOKENS) for _, level in closed]
        crossing = crossover([users for users, _ in closed], data_by_level, decisions, confidence=confidence)
    one_run = len(a) == len(b) == 1
    changes = {
        (level.load.label, metric): MeasuredChange(change.effect, _ONE_RUN if one_run else change.refused)
        for level in levels
        for metric, change in level.changes.items()
    }
    labels = list(dict.fromkeys(level.load.label for run in (*a, *b) for level in run.levels))
    rows = [row for level in levels for row in level.rows]
    mean_rows = overall.rows if overall is not None else []
    tokens = next((row for row in mean_rows or rows if row.metric == _TOKENS), None)
    faster = {level.decision(_TOKENS) for level in levels}
    return Comparison(
        a=_side(a, "a"),
        b=_side(b, "b"),
        paired=paired,
        basis="inside" if one_run else "runs",
        confidence=confidence,
        comparisons=rows,
        overall=mean_rows,
        crossover=crossing,
        winner="b" if faster == {"faster"} else "a" if faster == {"slower"} else None,
        gates=decide(gates, changes, left_out, levels=labels, confidence=confidence),
        left_out=left_out,
        caveats=[
            *caveats,
            *_basis_caveats(one_run=one_run, paired=paired),
            *equal_work.caveats(a, b, paired=paired),
            *device_caveats(a, b, tokens),
        ],
        answers=compare_outputs(a, b),
        conclusion=conclude(levels, crossing, left_out, confidence=confidence),
    )


def _check_sides(a: Sequence[Run], b: Sequence[Run], *, paired: bool) -> None:
    """Raises `BadInput` for sides that cannot be compared."""
    for name, side in (("a", a), ("b", b)):
        if not side:
            raise BadInput(f"side {name} has no run", hint="name at least one run for each side")
        models = sorted({level.model for run in side for level in run.levels})
        if len(models) > 1:
            several = f"{len(models)} models: {', '.join(models)}"
            raise BadInput(f"side {name} has {several}", hint=f"choose one with --{name}-model")
        mixed = equal_work.mixed(side)
        if mixed:
            raise BadInput(
                f"the runs of side {name} did not request the same work: {mixed}",
                hint="name runs with the same settings on each side",
            )
    if paired and len(a) != len(b):
        raise BadInput(f"{len(a)} and {len(b)} runs cannot be paired", hint="name as many runs of each side, in order")


def _usable_level(run: Run, load: ClosedLoad | OpenLoad) -> tuple[LevelResult | None, tuple[str, str]]:
    """The run's level at this load; or `None` and the code and reason why it is not compared."""
    why = ("missing", "it has no such level")
    for level in run.levels:
        if level.load != load:
            continue
        if level.verdict.status == "INVALID":
            why = ("invalid", f"INVALID: {', '.join(reason.message for reason in level.verdict.reasons)}")
        elif level.interrupted:
            why = ("interrupted", "it was interrupted")
        elif not counts(level)[1]:
            why = ("empty", "no request was measured")
        else:
            return level, why
    return None, why


def run_name(run: Run) -> str:
    """The name of a run in a comparison."""
    return f"{run.name} {run.started_at}"


def _compare_level(
    load: ClosedLoad | OpenLoad,
    a: Sequence[Run],
    b: Sequence[Run],
    gates: Sequence[GateRule],
    left_out: list[LeftOut],
    *,
    paired: bool,
    confidence: float,
) -> ComparedLevel | None:
    """All figures of one level; `None` where a side, or every pair, lacks it. `left_out` gets what is not compared."""
    found_a, found_b = ([_usable_level(run, load) for run in side] for side in (a, b))
    at_a, at_b = ([level for level, _ in side] for side in (found_a, found_b))
    refused = [
        (name, run, why)
        for name, runs, found in (("a", a, found_a), ("b", b, found_b))
        for run, (level, why) in zip(runs, found, strict=True)
        if level is None
    ]
    # The reason of a level that exists comes first.
    refused.sort(key=lambda entry: entry[2][0] == "missing")
    complete = any(at_a) and any(at_b)
    if paired:
        complete = any(one is not None and other is not None for one, other in zip(at_a, at_b, strict=True))
    if not complete:
        code = refused[0][2][0] if refused else "one_side"
        messages = "; ".join(dict.fromkeys(f"{name}: {message}" for name, _, (_, message) in refused))
        left_out.append(LeftOut(level=load.label, code=code, message=messages or "no pair has it on both sides"))
        return None
    left_out += [
        LeftOut(level=load.label, run=run_name(run), code=code, message=f"{name}: {message}")
        for name, run, (code, message) in refused
    ]

    # The usual figures, those per token where response lengths differ, and the figures that gates name.
    work = equal_work.unequal(at_a, at_b, a[0], b[0], paired=paired, confidence=confidence)
    figures = _CLOSED if isinstance(load, ClosedLoad) else _OPEN
    per_token = ("e2e_per_token",) if work.lengths_differ else ()
    usual = [f"{figure}_{point}" for figure in (*figures, *per_token) for point in _POINTS]
    gated = [rule.metric for rule in gates if rule.applies(load.label)]
    compared, by_run = ComparedLevel(load), {}
    for metric in dict.fromkeys([*RATES, *usual, ENERGY, COST, FAILURES, *gated]):
        why = work.reason(metric)
        data = None if why is not None else figure_data(at_a, at_b, metric, paired=paired)
        if data is None:
            if why is None and too_few_requests(at_a, at_b, metric):
                message = "too few requests or runs for this percentile and its interval: measure longer, or more often"
                why = (TOO_FEW_REQUESTS, message)
            elif why is None and (some := not_in_every_run(at_a, at_b, metric)):
                why = (NO_SAMPLES, f"only some runs have it: {some}")
            if why is not None:
                left_out.append(LeftOut(level=load.label, metric=metric, code=why[0], message=why[1]))
            continue
        # Failures are pooled over runs; the rank test uses the runs, and their number says whether they are enough.
        pooled = metric == FAILURES and len(a) + len(b) > 2
        compared.data[metric] = data
        by_run[metric] = failures_by_run(at_a, at_b, paired=paired) if pooled else data
        effect = None if pooled and min(run_counts(by_run[metric])) < 2 else data.effect()
        compared.changes[metric] = MeasuredChange(effect, too_few_runs(by_run[metric], confidence))
    compared.rows = make_rows(load.label, compared.data, by_run, compared.changes, confidence)
    return compared


def _side(runs: Sequence[Run], name: str) -> ComparedSide:
    levels = [level for run in runs for level in run.levels]
    return ComparedSide(
        name=name,
        target=levels[0].target if levels else "",
        targets=levels[0].targets if levels else [],
        model=levels[0].model if levels else "",
        runs=[run_name(run) for run in runs],
        device=device(runs),
        simulated=any(run.simulated for run in runs),
    )


def _basis_caveats(*, one_run: bool, paired: bool) -> list[Reason]:
    """What the intervals do not include."""
    if one_run:
        message = (
            "one run a side: the intervals include the variation within these two runs, but not that from run to run, "
            "which is often larger; a difference between the runs need not be one between the servers"
        )
        return [Reason("one_run", message, "measure each side six times, in turns")]
    if not paired:
        message = (
            "a and b were not measured in turns: a change in the meantime, such as heat or other load, may be what "
            "differs"
        )
        return [Reason("not_in_turns", message, "measure both in turns: loadbench compare with two URLs does")]
    return []
