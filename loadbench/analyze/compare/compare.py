"""Two sides compared, level by level and figure by figure: `loadbench.compare/1`.

For each level that both have, and each figure for which both did the same work (`equal_work`), stands the ratio b over
a with its interval (`effect`). A difference is stated where two things hold: the interval's own p, adjusted for the
number of figures at that level by Holm, is within 1 - confidence; and there are so many runs that the exact rank test
(`ranks`) could have come to as little. The p of that test stands beside. One run a side cannot ask it: there the
difference is one between two runs, and whether it is one between two servers is left open: no gate is decided by it.

Levels that are INVALID or were cut short are never compared; each is listed with its reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from loadbench.analyze.compare import equal_work
from loadbench.analyze.compare.comparison_rows import counted, rows, too_few
from loadbench.analyze.compare.conclusion import Shown, conclude
from loadbench.analyze.compare.crossover import crossover
from loadbench.analyze.compare.effect import mean_over_levels
from loadbench.analyze.compare.figure_data import counts, evidence, failures_by_run, not_in_every_run, too_few_requests
from loadbench.analyze.compare.gates import MeasuredChange, decide
from loadbench.analyze.compare.hardware import device, place_caveats
from loadbench.analyze.level.output_equality import compare_outputs
from loadbench.core.errors import BadInput
from loadbench.plan.gate import COST, ENERGY
from loadbench.plan.objective import FAILURES, RATES
from loadbench.results.compare import NO_SAMPLES, TOO_FEW_REQUESTS, Compared, Comparison, Crossover, LeftOut, Side
from loadbench.results.run import ClosedLoad, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.analyze.compare.effect import FigureData
    from loadbench.analyze.compare.equal_work import Unequal
    from loadbench.analyze.compare.figure_data import Levels
    from loadbench.plan.gate import GateRule
    from loadbench.results.compare import Speed
    from loadbench.results.run import LevelResult, OpenLoad, Run

ALL = "all"
_POINTS = ("p50", "p95", "p99")
# An open loop's latency counts from when a request was due: what waited for a connection has waited.
_CLOSED = ("ttft", "tpot", "itl", "e2e")
_OPEN = ("ttft_response", "ttft", "tpot", "itl", "e2e_response", "e2e")
# Why no gate is decided by one run a side.
ONE_RUN = "one run a side does not tell by how much runs differ: measure several"
TOKENS = "output_tokens_per_s"


@dataclass(slots=True)
class _Found:
    """One level, compared."""

    load: ClosedLoad | OpenLoad
    evidence: dict[str, FigureData] = field(default_factory=dict)
    seen: dict[str, MeasuredChange] = field(default_factory=dict)
    rows: list[Compared] = field(default_factory=list)

    def decision(self, metric: str) -> Speed:
        return next((row.decision for row in self.rows if row.metric == metric), "~")


def compare(
    a: Sequence[Run],
    b: Sequence[Run],
    *,
    paired: bool = False,
    gates: Sequence[GateRule] = (),
    confidence: float = 0.95,
    caveats: Sequence[Reason] = (),
) -> Comparison:
    """The runs of one side against those of the other; each run has one model. Paired, a[i] was measured with b[i].

    Nothing in it is drawn by chance: the same runs give the same comparison. `caveats` are put before those found here.
    Raises `BadInput` for a side without runs or of several models, and for pairs of unequal number.
    """
    a, b = _checked(a, b, paired=paired)
    left_out: list[LeftOut] = []
    found = [
        _level(load, _at(a, load), _at(b, load), (a[0], b[0]), gates, left_out, paired=paired, confidence=confidence)
        for load in _loads(a, b, left_out)
        if _comparable(load, a, b, left_out, paired=paired)
    ]
    inside = len(a) == len(b) == 1
    seen = {
        (one.load.label, metric): MeasuredChange(kept.effect, ONE_RUN if inside else kept.refused)
        for one in found
        for metric, kept in one.seen.items()
    }
    labels = list(dict.fromkeys(level.load.label for run in (*a, *b) for level in run.levels))
    crossing = _crossing(found, confidence)
    overall = _overall(found, confidence)
    sides = (_side(a, "a"), _side(b, "b"))
    told = [*caveats, *_basis(a, b, paired=paired), *equal_work.caveats(a, b, paired=paired)]
    told += place_caveats(a, b, _tokens_row(found, overall))
    return Comparison(
        a=sides[0],
        b=sides[1],
        paired=paired,
        basis="inside" if inside else "runs",
        confidence=confidence,
        comparisons=[row for one in found for row in one.rows],
        overall=overall,
        crossover=crossing,
        winner=_winner(found),
        gates=decide(gates, seen, left_out, levels=labels, confidence=confidence),
        left_out=left_out,
        caveats=told,
        answers=compare_outputs(a, b),
        conclusion=conclude(
            [Shown(one.load, one.rows, one.evidence) for one in found], crossing, left_out, confidence=confidence
        ),
    )


def _checked(a: Sequence[Run], b: Sequence[Run], *, paired: bool) -> tuple[Sequence[Run], Sequence[Run]]:
    """Raises `BadInput` for sides that cannot be compared as they are."""
    for name, side in (("a", a), ("b", b)):
        if not side:
            raise BadInput(f"side {name} has no run", hint="name at least one run a side")
        models = sorted({level.model for run in side for level in run.levels})
        if len(models) > 1:
            found = f"{len(models)} models: {', '.join(models)}"
            raise BadInput(f"side {name} has {found}", hint=f"choose one with --{name}-model")
        mixed = equal_work.mixed(side)
        if mixed:
            raise BadInput(
                f"the runs of side {name} were not asked for the same: {mixed}", hint="name runs of one kind"
            )
    if paired and len(a) != len(b):
        raise BadInput(f"{len(a)} and {len(b)} runs make no pairs", hint="name as many runs of each side, in order")
    return a, b


def _loads(a: Sequence[Run], b: Sequence[Run], left_out: list[LeftOut]) -> list[ClosedLoad | OpenLoad]:
    """Those of both sides, in a's order; those of one are left out."""
    ours, theirs = ({level.load: None for run in side for level in run.levels} for side in (a, b))
    for load in [load for load in (*ours, *theirs) if (load in ours) != (load in theirs)]:
        side = "a" if load in ours else "b"
        left_out.append(LeftOut(level=load.label, code="one_side", message=f"only {side} has this level"))
    return [load for load in ours if load in theirs]


def _at(side: Sequence[Run], load: ClosedLoad | OpenLoad) -> Levels:
    """Each run's level of this load, if it may be compared."""
    return [
        next((level for level in run.levels if level.load == load and _why_not(level) is None), None) for run in side
    ]


def _why_not_at(run: Run, load: ClosedLoad | OpenLoad) -> tuple[str, str] | None:
    level = next((level for level in run.levels if level.load == load), None)
    return ("missing", "it has no such level") if level is None else _why_not(level)


def _why_not(level: LevelResult) -> tuple[str, str] | None:
    if level.verdict.status == "INVALID":
        reasons = ", ".join(reason.message for reason in level.verdict.reasons)
        return "invalid", f"INVALID: {reasons}"
    if level.interrupted:
        return "interrupted", "it was cut short"
    return None if counts(level)[1] else ("empty", "no request was measured")


def _comparable(
    load: ClosedLoad | OpenLoad, a: Sequence[Run], b: Sequence[Run], left_out: list[LeftOut], *, paired: bool
) -> bool:
    """Whether each side, or a pair, has a level of this load that may be compared; those that may not are listed."""
    refused = [
        (name, run, why)
        for name, side in (("a", a), ("b", b))
        for run in side
        if (why := _why_not_at(run, load)) is not None
    ]
    refused.sort(key=lambda one: one[2][0] == "missing")  # what is wrong with a level that is there comes first
    kept = (_at(a, load), _at(b, load))
    if all(any(level is not None for level in side) for side in kept) and (not paired or _pairs(*kept)):
        left_out += [
            LeftOut(level=load.label, run=run_name(run), code=code, message=f"{name}: {message}")
            for name, run, (code, message) in refused
        ]
        return True
    messages = dict.fromkeys(f"{name}: {message}" for name, _, (_, message) in refused)
    code = refused[0][2][0] if refused else "one_side"
    left_out.append(LeftOut(level=load.label, code=code, message="; ".join(messages) or "no pair has it on both sides"))
    return False


def _pairs(a: Levels, b: Levels) -> bool:
    """Whether any pair is whole."""
    return any(one is not None and other is not None for one, other in zip(a, b, strict=True))


def run_name(run: Run) -> str:
    """As a comparison names a run."""
    return f"{run.name} {run.started_at}"


def _level(
    load: ClosedLoad | OpenLoad,
    a: Levels,
    b: Levels,
    settings: tuple[Run, Run],
    gates: Sequence[GateRule],
    left_out: list[LeftOut],
    *,
    paired: bool,
    confidence: float,
) -> _Found:
    """All figures of one level; `settings` is a run of each side."""
    found = _Found(load)
    work = equal_work.unequal(a, b, *settings, paired=paired, confidence=confidence)
    by_run: dict[str, FigureData] = {}
    for metric in _metrics(load, work, gates):
        why = work.reason(metric)
        if why is not None:
            left_out.append(LeftOut(level=load.label, metric=metric, code=why[0], message=why[1]))
            continue
        kept = evidence(a, b, metric, paired=paired)
        if kept is None:
            left_out += _lacking(load, a, b, metric)
            continue
        found.evidence[metric] = kept
        # Failures are pooled; their runs serve the rank test, and say whether there are enough of them.
        pooled = metric == FAILURES and len(a) + len(b) > 2
        by_run[metric] = failures_by_run(a, b, paired=paired) if pooled else kept
        effect = None if pooled and min(counted(by_run[metric])) < 2 else kept.effect()
        found.seen[metric] = MeasuredChange(effect, too_few(by_run[metric], confidence))
    found.rows = rows(load.label, found.evidence, by_run, found.seen, confidence)
    return found


def _lacking(load: ClosedLoad | OpenLoad, a: Levels, b: Levels, metric: str) -> list[LeftOut]:
    """Why a figure of which there is something cannot be compared; nothing where there is none of it at all."""
    if too_few_requests(a, b, metric):
        message = "too few requests, or runs, for this quantile and its interval: measure for longer, or more often"
        return [LeftOut(level=load.label, metric=metric, code=TOO_FEW_REQUESTS, message=message)]
    there = not_in_every_run(a, b, metric)
    message = f"there is something of it in {there}"
    return [LeftOut(level=load.label, metric=metric, code=NO_SAMPLES, message=message)] if there else []


def _metrics(load: ClosedLoad | OpenLoad, work: Unequal, gates: Sequence[GateRule]) -> list[str]:
    """Those that are compared at a level: the usual ones, per token where answers differ, and what gates name."""
    figures = _CLOSED if isinstance(load, ClosedLoad) else _OPEN
    per_token = ("e2e_per_token",) if work.answers_differ else ()
    usual = [f"{figure}_{point}" for figure in (*figures, *per_token) for point in _POINTS]
    named = [rule.metric for rule in gates if rule.applies(load.label)]
    return list(dict.fromkeys([*RATES, *usual, ENERGY, COST, FAILURES, *named]))


def _overall(found: Sequence[_Found], confidence: float) -> list[Compared]:
    """The geometric mean over all levels, of figures that every level has; nothing for a single level."""
    if len(found) < 2:
        return []
    common = [name for name in found[0].evidence if name != FAILURES and all(name in one.evidence for one in found)]
    means = _Found(found[0].load)
    for metric in common:
        kept = mean_over_levels([one.evidence[metric] for one in found])
        if all(counted(kept)):
            means.evidence[metric] = kept
            means.seen[metric] = MeasuredChange(kept.effect(), too_few(kept, confidence))
    return rows(ALL, means.evidence, means.evidence, means.seen, confidence)


def _crossing(found: Sequence[_Found], confidence: float) -> Crossover | None:
    closed = [
        (one.load.users, one.evidence[TOKENS], one.decision(TOKENS))
        for one in found
        if isinstance(one.load, ClosedLoad) and TOKENS in one.evidence
    ]
    if not closed:
        return None
    users, kept, decisions = zip(*closed, strict=True)
    return crossover(users, kept, decisions, confidence=confidence)


def _winner(found: Sequence[_Found]) -> Literal["a", "b"] | None:
    decisions = {one.decision(TOKENS) for one in found}
    return "b" if decisions == {"faster"} else "a" if decisions == {"slower"} else None


def _side(runs: Sequence[Run], name: str) -> Side:
    levels = [level for run in runs for level in run.levels]
    return Side(
        name=name,
        target=levels[0].target if levels else "",
        model=levels[0].model if levels else "",
        runs=[run_name(run) for run in runs],
        device=device(runs),
        simulated=any(run.simulated for run in runs),
    )


def _basis(a: Sequence[Run], b: Sequence[Run], *, paired: bool) -> list[Reason]:
    """What the doubt does not hold."""
    if len(a) == len(b) == 1:
        message = (
            "one run a side: the intervals hold what happened inside of these two, and not what differs from run to "
            "run of one server, which is often more: what is stated is true of the runs, hardly of the servers"
        )
        return [Reason("one_run", message, "measure each side six times, in turns")]
    if not paired:
        message = "the runs of a and b are no pairs: what changed meanwhile, as heat or other load, may be what differs"
        return [Reason("not_in_turns", message, "measure both in turns: loadbench compare with two URLs does")]
    return []


def _tokens_row(found: Sequence[_Found], overall: Sequence[Compared]) -> Compared | None:
    """Tokens per second over all levels, or at the only one."""
    shown = overall or [row for one in found for row in one.rows]
    return next((row for row in shown if row.metric == TOKENS), None)
