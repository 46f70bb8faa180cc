"""Compares two sides, level by level and figure by figure: `loadbench.compare/1`.

For each level that both sides have, and each figure for which both did the same work (`equal_work`), there is the ratio
b / a with its interval (`effect`). A difference is shown where the interval excludes 1; its confidence is such that a
level shows any difference by chance with a probability of 1 - confidence (`comparison_rows`). The unit is a pair of
runs, or for saved runs a session (`sessions`). With too few sessions a drift of the machine is assumed and named, and
only large ratios are shown as a difference.

INVALID and interrupted levels are never compared; each is listed with its reason. Where the load was too much for both
sides (OVERLOADED) in an open loop, waiting times grow for as long as one measures, and are left out. Where it was too
much for one side, they are compared: the ratio is then at least as large as that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from loadbench.analyze.compare import equal_work
from loadbench.analyze.compare.comparison_rows import (
    CLOSED_HEADLINES,
    HEADLINE_SHARE,
    OPEN_HEADLINES,
    ComparedLevel,
    headline,
    make_rows,
    run_counts,
    speed_rows,
)
from loadbench.analyze.compare.conclusion import conclude
from loadbench.analyze.compare.crossover import crossover
from loadbench.analyze.compare.effect import ASSUMED_DRIFT, Effect, mean_over_levels
from loadbench.analyze.compare.figure_data import (
    SPEED_OF,
    Design,
    amounts_of,
    came_together,
    failures_by_run,
    figure_data,
    not_in_every_run,
    too_few_requests,
    value,
)
from loadbench.analyze.compare.gates import MeasuredChange, decide
from loadbench.analyze.compare.hardware import device, device_caveats
from loadbench.analyze.compare.resources import cold_start, memory, met_objectives
from loadbench.analyze.compare.sessions import sessions
from loadbench.analyze.compare.summary import summarize_comparison
from loadbench.analyze.compare.told_apart import told_apart
from loadbench.analyze.compare.usable_levels import counted_text, usable_level
from loadbench.analyze.level.output_equality import compare_outputs
from loadbench.core.errors import BadInput
from loadbench.plan.gate import COST, ENERGY
from loadbench.plan.objective import FAILURES, RATES
from loadbench.plan.settings import USUAL_REPEATS
from loadbench.results.compare import (
    NO_SAMPLES,
    RULES,
    TOO_FEW_REQUESTS,
    AloneFigure,
    ComparedSide,
    Comparison,
    LeftOut,
)
from loadbench.results.run import ClosedLoad, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.gate import GateRule
    from loadbench.results.compare import Crossover
    from loadbench.results.run import OpenLoad, Run

ALL = "all"
_POINTS = ("p50", "p95", "p99")
# In an open loop latency counts from when a request was due, so that waiting for a connection is included.
_CLOSED = ("ttft", "tpot", "itl", "e2e")
_OPEN = ("ttft_response", "ttft", "tpot", "itl", "e2e_response", "e2e")
_TOKENS = "output_tokens_per_s"
# What is shown of a side that is alone at a load, or alone has it.
_ALONE = (_TOKENS, "ttft_p50", "tpot_p50", ENERGY, COST)
_DRIFT = f"{100 * ASSUMED_DRIFT:.0f} %"
_ONE_PAIR = "one pair of runs shows no spread: measure more repeats"
_ONE_SESSION = "one session does not show how much failures differ between sessions: measure several"
_ADVICE = "too few sessions: a change of this size may be drift of the machine"


def compare(
    a: Sequence[Run],
    b: Sequence[Run],
    *,
    paired: bool = False,
    gates: Sequence[GateRule] = (),
    confidence: float = 0.95,
    caveats: Sequence[Reason] = (),
    ended: str = "",
    ended_early: str = "",
) -> Comparison:
    """The runs of side a against those of side b; each side has one model. If `paired`, a[i] was measured with b[i].

    Deterministic: the same runs give the same comparison. `caveats` are put before those found here. `ended` is why
    no further pair was measured, `ended_early` what kept the measurement from its planned end. Raises `BadInput` for a
    side without runs or with several models, and for pairs of unequal number.
    """
    _check_sides(a, b, paired=paired)
    left_out: list[LeftOut] = []
    levels = _compare_levels(a, b, gates, left_out, paired=paired, confidence=confidence)
    main = headline(levels) if levels else None
    for level in levels:
        level.rows = make_rows(level.load.label, level.data, level.by_run, level.changes, confidence, main)
    # Over all levels: the geometric mean of each figure that every level has.
    overall = ComparedLevel(levels[0].load) if levels else None
    if overall is not None and len(levels) > 1:
        for metric in levels[0].data:
            if metric != FAILURES and all(metric in level.data for level in levels):
                data = mean_over_levels([level.data[metric] for level in levels])
                if all(run_counts(data)):
                    overall.data[metric] = data
                    unlike = (level.changes[metric] for level in levels if level.changes[metric].meaningless)
                    overall.changes[metric] = next(unlike, None) or _change(data.effect(), _one_pair(a))
        overall.rows = make_rows(ALL, overall.data, overall.data, overall.changes, confidence, main)

    crossings: dict[str, Crossover] = {}
    for metric in (_TOKENS, ENERGY, COST):
        closed = [
            (level.load.users, level) for level in levels if isinstance(level.load, ClosedLoad) and metric in level.data
        ]
        crossing = crossover(
            [users for users, _ in closed],
            [level.data[metric] for _, level in closed],
            [level.decision(metric) for _, level in closed],
            confidence=confidence,
        )
        if crossing is not None:
            crossings[metric] = crossing
    numbers = sessions(a, b)
    changes = {(level.load.label, metric): change for level in levels for metric, change in level.changes.items()}
    assumed = [
        change.effect
        for (_, metric), change in changes.items()
        if change.effect is not None and change.effect.assumed and metric in {main, *(gate.metric for gate in gates)}
    ]
    labels = list(dict.fromkeys(level.load.label for run in (*a, *b) for level in run.levels))
    rows = [row for level in levels for row in level.rows]
    mean_rows = overall.rows if overall is not None else []
    tokens = next((row for row in mean_rows or rows if row.metric == _TOKENS), None)
    faster = {level.decision(_TOKENS) for level in levels}
    currencies = {level.cost.currency for run in (*a, *b) for level in run.levels if level.cost is not None}
    comparison = Comparison(
        rules=RULES,
        a=_side(a, "a", len(set(numbers[0]))),
        b=_side(b, "b", len(set(numbers[1]))),
        paired=paired,
        basis="inside" if len(a) == len(b) == 1 else "runs" if paired else "sessions",
        assumed_drift=ASSUMED_DRIFT if assumed else None,
        confidence=confidence,
        comparisons=rows,
        overall=mean_rows,
        speed=[row for level in levels for row in speed_rows(level)],
        currency=next(iter(currencies)) if len(currencies) == 1 else None,
        crossover=crossings.get(_TOKENS),
        price_crossovers={metric: crossing for metric, crossing in crossings.items() if metric != _TOKENS},
        winner="b" if faster == {"faster"} else "a" if faster == {"slower"} else None,
        gates=decide(gates, changes, left_out, levels=labels, confidence=confidence),
        left_out=left_out,
        caveats=[
            *caveats,
            *_import_caveats(a, b),
            *(_until_reason(a, b, gates, confidence, ended) if paired else ()),
            *_drift_caveats(assumed, numbers, paired=paired, confidence=confidence),
            *equal_work.caveats(a, b, paired=paired),
            *device_caveats(a, b, tokens),
        ],
        answers=compare_outputs(a, b),
        conclusion=conclude(
            levels, crossings, left_out, (a, b), overall=overall.rows if overall is not None else (), paired=paired
        ),
        ended_early=ended_early,
    )
    alone, apart = _alone(a, b), told_apart(a, b)
    comparison = msgspec.structs.replace(
        comparison,
        a=msgspec.structs.replace(comparison.a, alone=alone[0], apart=apart[0]),
        b=msgspec.structs.replace(comparison.b, alone=alone[1], apart=apart[1]),
    )
    summary = summarize_comparison(comparison, a, b)
    counted = counted_text(a, b, paired=paired, said=summary.sentence)
    return msgspec.structs.replace(comparison, summary=summary, counted=counted)


def _import_caveats(a: Sequence[Run], b: Sequence[Run]) -> list[Reason]:
    """What to know of sides that other tools measured."""
    tools = [sorted({"loadbench" if run.imported is None else run.imported.tool for run in side}) for side in (a, b)]
    if tools == [["loadbench"], ["loadbench"]]:
        return []
    by = [" and ".join(names) for names in tools]
    if tools[0] == tools[1]:
        reason = f"both sides were measured by {by[0]}, whose client nobody judged"
        return [Reason("imported", reason, "measure with loadbench to know whether the client was the bottleneck")]
    reason = f"A was measured by {by[0]} and B by {by[1]}: they define TTFT, TPOT and throughput differently"
    advice = "measure both sides with one tool; the report of each imported run has its definitions"
    return [Reason("imported", reason, advice)]


def widest(
    a: Sequence[Run], b: Sequence[Run], gates: Sequence[GateRule] = (), *, confidence: float = 0.95
) -> tuple[float, str] | None:
    """How wide the intervals of pairs are that must be narrow: half the width of the widest, 0.03 for ±3 %, and which.

    Those of the headline and of the gates' ratios at every level. `None` where there is none.
    """
    levels = _compare_levels(a, b, gates, [], paired=True, confidence=confidence)
    main = headline(levels) if levels else None
    names, widths = {**CLOSED_HEADLINES, **OPEN_HEADLINES}, []
    for level in levels:
        gated = {rule.metric for rule in gates if rule.applies(level.load.label) and rule.metric != FAILURES}
        for metric, change in level.changes.items():
            effect, share = change.effect, HEADLINE_SHARE if metric == main else 1.0
            if effect is not None and not change.meaningless and (metric == main or metric in gated):
                low, high = effect.interval(1 - (1 - confidence) * share)
                widths.append((math.expm1((high - low) / 2), f"{names.get(metric, metric)} at {level.load.label}"))
    return max(widths, default=None)


def _until_reason(
    a: Sequence[Run], b: Sequence[Run], gates: Sequence[GateRule], confidence: float, ended: str
) -> list[Reason]:
    """How narrow the intervals became, where that was to decide the number of pairs."""
    until = a[0].scenario.get("compare", {}).get("until")
    if not isinstance(until, float):
        return []
    found = widest(a, b, gates, confidence=confidence)
    width, figure = found or (math.inf, "no figure")
    repeats, target = f"{len(a)} repeat{'s' if len(a) > 1 else ''}", f"--until {100 * until:.3g} %"
    if width <= until:
        message = f"{target}: reached after {repeats}: the ratio of {figure} is known to ±{100 * width:.2g} %"
        advice = "the end was decided by the spread alone, so that the intervals hold"
        return [Reason("until_reached", message, advice)]
    wide = "" if math.isinf(width) else f": the ratio of {figure} is known to ±{100 * width:.2g} %"
    message = f"{target}: not reached in {repeats}{f', {ended}' if ended else ''}{wide}"
    advice = "allow more --repeats and --budget, or measure each level for longer"
    if math.isfinite(width) and len(a) > 1:
        needed = math.ceil(len(a) * (math.log1p(width) / math.log1p(until)) ** 2)
        advice = f"about {needed} repeats reach it: {advice}"
    return [Reason("until_not_reached", message, advice)]


def _compare_levels(
    a: Sequence[Run],
    b: Sequence[Run],
    gates: Sequence[GateRule],
    left_out: list[LeftOut],
    *,
    paired: bool,
    confidence: float,
) -> list[ComparedLevel]:
    """The levels of both sides, without rows."""
    until = paired and a[0].scenario.get("compare", {}).get("until")
    design = Design(paired, None if paired else sessions(a, b), USUAL_REPEATS if until else 0)
    loads_a, loads_b = ({level.load: None for run in side for level in run.levels} for side in (a, b))
    for load in (*loads_a, *loads_b):
        if (load in loads_a) != (load in loads_b):
            message = f"only side {'A' if load in loads_a else 'B'} has this level"
            left_out.append(LeftOut(level=load.label, code="one_side", message=message))
    levels = []
    for load in loads_a:
        if load in loads_b:
            level = _compare_level(load, a, b, gates, left_out, design, confidence=confidence)
            if level is not None:
                levels.append(level)
    return levels


def _alone(a: Sequence[Run], b: Sequence[Run]) -> tuple[list[AloneFigure], list[AloneFigure]]:
    """Of each side the figures that every run of it has that counts at a load, and no run of the other side there."""
    alone: tuple[list[AloneFigure], list[AloneFigure]] = ([], [])
    for load in dict.fromkeys(level.load for run in (*a, *b) for level in run.levels):
        sides = [[level for run in side if (level := usable_level(run, load)[0]) is not None] for side in (a, b)]
        for metric in _ALONE:
            values = [[known for level in side if (known := value(level, metric))] for side in sides]
            for place, figures in enumerate(alone):
                if values[place] and len(values[place]) == len(sides[place]) and not values[1 - place]:
                    logs = [math.log(one) for one in values[place]]
                    mean = math.exp(math.fsum(logs) / len(logs))
                    figures.append(AloneFigure(level=load.label, metric=metric, value=mean, runs=len(logs)))
    return alone


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


def run_name(run: Run) -> str:
    """The name of a run in a comparison."""
    return f"{run.name} {run.started_at}"


def _compare_level(
    load: ClosedLoad | OpenLoad,
    a: Sequence[Run],
    b: Sequence[Run],
    gates: Sequence[GateRule],
    left_out: list[LeftOut],
    design: Design,
    *,
    confidence: float,
) -> ComparedLevel | None:
    """All figures of one level; `None` where a side, or every pair, lacks it. `left_out` gets what is not compared."""
    found_a, found_b = ([usable_level(run, load) for run in side] for side in (a, b))
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
    if design.paired:
        complete = any(one is not None and other is not None for one, other in zip(at_a, at_b, strict=True))
    if not complete:
        code = refused[0][2][0] if refused else "one_side"
        messages = []
        for name, runs in (("a", a), ("b", b)):
            of_side = [message for side, _, (_, message) in refused if side == name]
            others = f" (the first of {len(of_side)} of {len(runs)} runs)" if len(of_side) > 1 else ""
            messages += [f"{name.upper()}: {of_side[0]}{others}"] if of_side else []
        message = "; ".join(messages) or "no pair has it on both sides"
        left_out.append(LeftOut(level=load.label, code=code, message=message))
        return None
    left_out += [
        LeftOut(level=load.label, run=run_name(run), code=code, message=f"{name.upper()}: {message}")
        for name, run, (code, message) in refused
    ]

    # The usual figures, those per token where response lengths differ, and the figures that gates name.
    work = equal_work.unequal(at_a, at_b, a[0], b[0], paired=design.paired, confidence=confidence)
    beyond = [
        any(level is not None and level.verdict.status == "OVERLOADED" for level in side) for side in (at_a, at_b)
    ]
    if all(beyond) and not isinstance(load, ClosedLoad):
        message = "the load was too much for both sides: waiting times grow for as long as one measures"
        work.leave_out(("ttft", "e2e"), "overloaded", message)
    figures = _CLOSED if isinstance(load, ClosedLoad) else _OPEN
    per_token = ("e2e_per_token",) if work.lengths_differ else ()
    usual = [f"{figure}_{point}" for figure in (*figures, *per_token) for point in _POINTS]
    gated = [rule.metric for rule in gates if rule.applies(load.label)]
    compared = ComparedLevel(load)
    # What to do about pairs that do not count is in the summary: it depends on why they do not.
    one_pair = _one_pair(a)
    for metric in dict.fromkeys([*RATES, *usual, ENERGY, COST, FAILURES, *gated]):
        why = work.reason(metric)
        data = None if why is not None else figure_data(at_a, at_b, metric, design)
        if data is None:
            if why is None and too_few_requests(at_a, at_b, metric):
                message = "too few requests or runs for this percentile and its interval: measure longer, or more often"
                why = (TOO_FEW_REQUESTS, message)
            elif why is None and (some := not_in_every_run(at_a, at_b, metric)):
                why = (NO_SAMPLES, f"only some runs have it: {some}")
            if why is not None:
                left_out.append(LeftOut(level=load.label, metric=metric, code=why[0], message=why[1]))
            continue
        # Failures are pooled; the rank test uses the runs or sessions, whose number says whether they are enough.
        pooled = metric == FAILURES and len(a) + len(b) > 2
        compared.data[metric] = data
        compared.by_run[metric] = failures_by_run(at_a, at_b, design) if pooled else data
        change = _change(data.effect(), one_pair)
        together = came_together(at_a, at_b, metric)
        if together:
            change = MeasuredChange(change.effect, together, meaningless=True)
        if metric == FAILURES and min(map(len, compared.by_run[metric].units())) < 2:
            change = MeasuredChange(None if pooled else change.effect, one_pair if design.paired else _ONE_SESSION)
        compared.changes[metric] = change
    for metric, of_time in SPEED_OF.items():
        known = of_time in compared.data and not compared.changes[of_time].meaningless
        amounts = amounts_of(metric, at_a, at_b) if known else None
        if amounts is not None:
            compared.speeds[metric] = amounts
    return compared


def _one_pair(a: Sequence[Run]) -> str:
    """Why a single pair decides nothing."""
    return _ONE_PAIR if len(a) == 1 else f"only 1 of {len(a)} pairs of runs counts, and one shows no spread"


def _change(effect: Effect | None, one_pair: str = _ONE_PAIR) -> MeasuredChange:
    if effect is None:
        return MeasuredChange(None, one_pair)
    return MeasuredChange(effect, advice=_ADVICE if effect.assumed else "")


def _side(runs: Sequence[Run], name: str, in_sessions: int) -> ComparedSide:
    levels = [level for run in runs for level in run.levels]
    return ComparedSide(
        name=name,
        target=levels[0].target if levels else "",
        targets=levels[0].targets if levels else [],
        model=levels[0].model if levels else "",
        runs=[run_name(run) for run in runs],
        sessions=in_sessions,
        device=device(runs),
        simulated=any(run.simulated for run in runs),
        insecure=any(run.scenario.get("target", {}).get("insecure") for run in runs),
        starts_s=[start for run in runs if run.one_up for start in _start_s(run)],
        command=next((run.server_start.command for run in runs if run.server_start is not None), ""),
        memory=memory(runs),
        cold_start=cold_start(runs),
        objectives=met_objectives(runs),
        load_from=equal_work.load_from(runs),
    )


def _start_s(run: Run) -> list[float]:
    """How long it took until the server was ready, or the model loaded; nothing where it is not known."""
    starts = [status.load_s for status in run.models] if run.server_start is None else [run.server_start.ready_s]
    return [start for start in starts if start is not None]


def _drift_caveats(
    assumed: Sequence[Effect], numbers: tuple[Sequence[int], Sequence[int]], *, paired: bool, confidence: float
) -> list[Reason]:
    """That a drift had to be assumed, and from which ratio on a difference is shown."""
    if not assumed:
        message = "A and B were not measured in turns: a change in the meantime, such as an update, may be what differs"
        advice = "measure both in turns: loadbench compare with two URLs does"
        return [] if paired else [Reason("not_in_turns", message, advice)]
    least = max(max(effect.below, effect.above) for effect in assumed)
    # As if the ratio were 1.
    ratio = Effect(0.0, least, least).ratio_interval(1 - (1 - confidence) * HEADLINE_SHARE)
    shown = "no ratio" if ratio is None else f"only a ratio above {ratio[1]:.2g} or below {ratio[0]:.2g}"
    a, b = (len(set(side)) for side in numbers)
    if paired:
        known = "one pair of runs does"
    else:
        a, b = (len(set(side)) for side in numbers)
        known = "one session a side does" if a == b == 1 else f"{a} and {b} sessions of A and B do"
    message = (
        f"{known} not show how much the machine drifts: assuming {_DRIFT} between sessions, {shown} is reported as a "
        "difference"
    )
    advice = "measure several sessions of each side, or both sides live in pairs: `loadbench compare` with two URLs"
    return [Reason("assumed_drift", message, advice)]
