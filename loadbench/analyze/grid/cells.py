"""What the cells of a grid show together: the best one, if that is sure, and those that no other beats in everything.

*The best.* Of cells that did the same work, the best has the most output tokens per second at one of its loads. Cells
are measured one after another, so their levels differ by chance, and by what heat and other programs do to the machine
meanwhile: `ASSUMED_DRIFT` stands for that, beside what varies inside each level. One cell beats another if its highest
level is surely above every level of the other. A pair of levels is decided by the logarithm of their ratio at an error
of 5 % / n for n levels in all (Bonferroni), and all pairs must agree (an intersection-union test: Berger,
*Technometrics* 1982). The cells that none beats are a confidence set for the best (Gupta, *On some multiple decision
rules*, 1965; Hsu, *Multiple Comparisons*, 1996, chapter 4): it lacks the true best with a probability of at most 5 %,
and of equal cells it holds one alone in at most 5 % of all grids. If it holds one cell, that is named; otherwise they
cannot be told apart. `python -m tests.coverage.grids` measures both.

A cell whose levels above its best one do not count may be better than it shows, so that no other beats it.

*At one load.* Cells that cannot be told apart may differ at a load at which both count. Such pairs are decided by the
same ratio and drift, at an error of 5 % / n for n pairs of cells at the same load, of all loads.

*The front.* A cell is dominated by another that is at least as good in every figure that both have (throughput, TTFT,
memory, energy) at its best load, surely better in one of them there, and surely worse at no other of its loads. Figures
of different loads are not compared: more users wait longer on every server. The others are the Pareto front: each of
them is best for some purpose.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from loadbench.analyze.level.knee import (
    Rate,
    commonest_reason,
    load_rates,
    measure_again,
    named_with_verdict,
    reasons_against,
    shows_throughput,
)
from loadbench.analyze.level.machine import faster_alone
from loadbench.results.grid import BestCell, CellFigures, DepthFigures, Grid, MoreAtLoad
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.results.grid import Cell
    from loadbench.results.run import LevelResult, Metric, OpenInterval, Run

# The standard deviation of a machine's speed from cell to cell. Heat, other load and memory placement make steps of 10
# to 15 % between sessions (`loadbench.analyze.compare.effect`); a single step of 15 % between two cells is covered.
ASSUMED_DRIFT = 0.05
# Memory and energy have no interval: a smaller difference is none.
_CLEARLY = 0.05


class _Candidate(NamedTuple):
    """One model of one cell: the throughput at each of its loads that counts, its figures at the best of them, and the
    levels at higher loads, which do not count."""

    cell: int  # from 0
    rates: Sequence[Rate]
    figures: CellFigures
    beyond: Sequence[LevelResult]
    levels: Mapping[str, LevelResult]  # those that count, by load

    @property
    def best(self) -> Rate:
        return max(self.rates, key=lambda rate: rate.log)


def concluded(grid: Grid, runs: Mapping[int, Run]) -> Grid:
    """The grid with what its cells show, whose runs are given by the cell's place. Cells that failed or are not
    complete are not compared."""
    candidates: dict[str, list[_Candidate]] = {}
    cells = list(grid.cells)
    # Where each cell has one model, that may be what is varied.
    several = any(len({level.model for level in run.levels}) > 1 for run in runs.values())
    for place, run in runs.items():
        by_model: dict[str, list[LevelResult]] = {}
        for level in run.levels:
            by_model.setdefault(level.model, []).append(level)
        for model, levels in by_model.items():
            candidate = _candidate(place, model, levels)
            if candidate is not None:
                candidates.setdefault(model if several else "", []).append(candidate)
        not_counted, why = _not_counted(run.levels)
        cells[place] = msgspec.structs.replace(
            cells[place],
            levels=len(run.levels),
            verdicts=dict(Counter(level.verdict.status for level in run.levels)),
            figures=[],
            depth=[depth for levels in by_model.values() for depth in _depth(levels)],
            uncounted=None
            if any(map(shows_throughput, run.levels))
            else commonest_reason(map(reasons_against, run.levels)),
            not_counted=not_counted,
            why_not_counted=why,
        )
    compared = [one for of_model in candidates.values() for one in of_model if _is_compared(grid, one)]
    # Beyond so many standard errors one pair of levels differs for sure.
    error = (1 - grid.confidence) / max(1, sum(len(one.rates) for one in compared))
    sure = NormalDist().inv_cdf(1 - error / 2)
    best: list[BestCell] = []
    work = [one.name for one in grid.vary if one.changes_work]
    same_load = Counter(
        (model, *(grid.cells[one.cell].values[name] for name in work), rate.load.label)
        for model, of_model in candidates.items()
        for one in of_model
        if _is_compared(grid, one)
        for rate in one.rates
    )
    pairs = sum(math.comb(number, 2) for number in same_load.values())
    sure_at_load = NormalDist().inv_cdf(1 - (1 - grid.confidence) / 2 / max(1, pairs))
    for model, of_model in candidates.items():
        groups: dict[tuple[str, ...], list[_Candidate]] = {}
        for one in of_model:
            if _is_compared(grid, one):
                groups.setdefault(tuple(grid.cells[one.cell].values[name] for name in work), []).append(one)
            else:
                cells[one.cell] = _with(cells[one.cell], one.figures)
        for values, group in groups.items():
            found = _best_of(group, sure)
            more = _more_at_load([one for one in group if one.cell + 1 in found.candidates], sure_at_load)
            its_work = dict(zip(work, values, strict=True))
            best.append(msgspec.structs.replace(found, model=model, work=its_work, more_at_load=more))
            for one in group:
                figures = msgspec.structs.replace(
                    one.figures,
                    may_be_best=len(group) > 1 and one.cell + 1 in found.candidates,
                    on_front=len(group) > 1 and not any(_dominates(other, one, sure) for other in group),
                )
                cells[one.cell] = _with(cells[one.cell], figures)
    # The levels for which a cell may be better than it shows, and those of cells of which none counts; then all others
    # that do not count, and those of which it is not known whether they were steady: one remedy is for all of them.
    lost = [level for one in compared for level in one.beyond]
    lost += [level for place, run in runs.items() if cells[place].uncounted is not None for level in run.levels]
    complete = [run for place, run in runs.items() if cells[place].status == "complete"]
    below = [level for run in complete for level in run.levels if not shows_throughput(level) and level not in lost]
    unsteady = [level for run in complete for level in run.levels if level not in lost and _is_unsteady(level)]
    open_ = bool(lost or below) or any(found.best is None and len(found.candidates) > 1 for found in best)
    reason = commonest_reason(map(reasons_against, lost or below))
    advice, flags = measure_again([*lost, *below, *(unsteady if open_ else [])])
    return msgspec.structs.replace(
        grid,
        cells=cells,
        best=best,
        assumed_drift=ASSUMED_DRIFT,
        unknown=None if reason is None else Reason(reason.code, reason.message, advice),
        again=flags,
    )


def _not_counted(levels: Sequence[LevelResult]) -> tuple[str, str]:
    """The levels that do not count, with the code of the commonest reason, and that one's message."""
    out = [level for level in levels if not shows_throughput(level)]
    reason = commonest_reason(level.verdict.reasons for level in out)
    if reason is None:
        return named_with_verdict(out) if out else "", ""
    return f"{named_with_verdict(out)} ({reason.code})", reason.message


def _is_unsteady(level: LevelResult) -> bool:
    return any(caveat.code == "steadiness_unknown" for caveat in level.caveats)


def _is_compared(grid: Grid, one: _Candidate) -> bool:
    return one.figures.counts and grid.cells[one.cell].status == "complete"


def _candidate(place: int, model: str, levels: Sequence[LevelResult]) -> _Candidate | None:
    """`None` where nothing was received. Where there are objectives, only levels count that do not miss one."""
    counting = [level for level in levels if shows_throughput(level) and _meets(level)]
    rates = load_rates(counting)
    level = max(counting or levels, key=lambda one: one.throughput.output_tokens_per_s)
    if level.throughput.output_tokens_per_s <= 0:
        return None
    beyond = [one for one in levels if rates and one.load.amount > level.load.amount and not shows_throughput(one)]
    ttft, itl, tpot = (level.metrics.get(key) for key in ("ttft_s", "itl_s", "tpot_s"))
    memory = [used for one in levels if (used := memory_bytes(one)) is not None]
    figures = CellFigures(
        model=model,
        load=level.load.label,
        verdict=level.verdict.status,
        output_tokens_per_s=level.throughput.output_tokens_per_s,
        ttft_p95_s=None if ttft is None else ttft.p95,
        itl_p50_s=None if itl is None else itl.p50,
        tpot_p50_s=None if tpot is None else tpot.p50,
        memory_bytes=max(memory, default=None),
        joules_per_output_token=None if level.energy is None else level.energy.joules_per_output_token,
        interval={
            "output_tokens_per_s": level.throughput.interval.get("output_tokens_per_s"),
            "ttft_p95_s": None if ttft is None else ttft.interval.get("p95"),
        },
        unknown=", ".join(f"{one.load.label} is {one.verdict.status}" for one in beyond),
        counts=bool(rates),
        steadiness_unknown=_is_unsteady(level),
        faster_alone=faster_alone(level),
    )
    return _Candidate(place, rates, figures, beyond, {one.load.label: one for one in counting})


def _meets(level: LevelResult) -> bool:
    return all(one.decision != "FAIL" for one in level.objectives)


def memory_bytes(level: LevelResult) -> float | None:
    """The most memory of the server at a level: its process's, and what it has of the boards, or all that is in use on
    them where the share of each process is not known."""
    gauges = {} if level.telemetry is None else level.telemetry.gauges
    own = [gauge.max for name, gauge in gauges.items() if re.fullmatch(r"gpu\d+_process_memory_bytes", name)]
    boards = own or [gauge.max for name, gauge in gauges.items() if re.fullmatch(r"gpu\d+_memory_bytes", name)]
    resident = gauges.get("process_rss_bytes")
    return None if resident is None else resident.max + sum(boards)


def _with(cell: Cell, figures: CellFigures) -> Cell:
    return msgspec.structs.replace(cell, figures=[*cell.figures, figures])


def _error(one: Rate, other: Rate) -> float:
    """The standard error of the logarithm of the ratio of two levels of different cells."""
    drift = math.log1p(ASSUMED_DRIFT)
    return math.sqrt(one.sd**2 + other.sd**2 + 2 * drift**2)


def _beats(one: _Candidate, other: _Candidate, sure: float) -> bool:
    """Whether a cell's highest throughput is surely above each of another's, and none of those is unknown."""
    best = one.best
    return not other.figures.unknown and all(best.log - rate.log > sure * _error(best, rate) for rate in other.rates)


def _best_of(group: Sequence[_Candidate], sure: float) -> BestCell:
    standing = [one for one in group if not any(_beats(other, one, sure) for other in group)]
    ratio = interval = None
    if len(group) > 1 and len(standing) == 1:
        (first,) = standing
        second = max((one.best for one in group if one is not first), key=lambda rate: rate.log)
        log, reach = first.best.log - second.log, sure * _error(first.best, second)
        ratio, interval = math.exp(log), (math.exp(log - reach), math.exp(log + reach))
    return BestCell(
        model="",
        best=standing[0].cell + 1 if ratio is not None else None,
        candidates=[one.cell + 1 for one in sorted(standing, key=lambda one: -one.best.log)],
        ratio=ratio,
        ratio_interval=interval,
    )


def _more_at_load(group: Sequence[_Candidate], sure: float) -> list[MoreAtLoad]:
    """Which cells surely have more throughput than which others at the same load; of each load those first that say it
    of most pairs."""
    loads: dict[str, list[tuple[int, Rate]]] = {}
    for one in group:
        for rate in one.rates:
            loads.setdefault(rate.load.label, []).append((one.cell + 1, rate))
    found: list[MoreAtLoad] = []
    for load, rates in sorted(loads.items(), key=lambda item: item[1][0][1].load.amount):
        by_slower: dict[tuple[int, ...], list[int]] = {}
        for number, rate in rates:
            slower = tuple(other for other, its in rates if rate.log - its.log > sure * _error(rate, its))
            by_slower.setdefault(slower, []).append(number)
        at_load = [MoreAtLoad(load=load, more=more, than=[*slower]) for slower, more in by_slower.items() if slower]
        found += sorted(at_load, key=lambda one: -len(one.more) * len(one.than))
    return found


def _dominates(one: _Candidate, other: _Candidate, sure: float) -> bool:
    """Whether one cell is at least as good as another in every figure that both have at the other's best load, surely
    better in one, and surely worse at none of its loads."""
    if one is other or other.figures.unknown:
        return False
    rates = {rate.load.label: rate for rate in one.rates}
    better = False
    for its in other.rates:
        load, is_best = its.load.label, its.load.label == other.figures.load
        mine = rates.get(load)
        if mine is None:
            return False
        gain, reach = mine.log - its.log, sure * _error(mine, its)
        if gain < (0 if is_best else -reach):
            return False
        better = better or (is_best and gain > reach)
        ttft, its_ttft = one.levels[load].metrics.get("ttft_s"), other.levels[load].metrics.get("ttft_s")
        if ttft is None or its_ttft is None:
            continue
        (low, high), (its_low, its_high) = _closed(ttft), _closed(its_ttft)
        if ttft.p95 > its_ttft.p95 if is_best else low > its_high:
            return False
        better = better or (is_best and high < its_low)
    used, its_used = one.figures.memory_bytes, other.figures.memory_bytes
    joules, its_joules = (_joules(each.levels.get(other.figures.load)) for each in (one, other))
    for amount, its_amount in ((used, its_used), (joules, its_joules)):
        if amount is None or its_amount is None:
            continue
        if amount > (1 + _CLEARLY) * its_amount:
            return False
        better = better or amount < (1 - _CLEARLY) * its_amount
    return better


def _closed(ttft: Metric) -> tuple[float, float]:
    """The ends of the interval of the p95; one that is not known excludes nothing."""
    low, high = ttft.interval.get("p95") or (None, None)
    return 0.0 if low is None else low, math.inf if high is None else high


def _joules(level: LevelResult | None) -> float | None:
    return None if level is None or level.energy is None else level.energy.joules_per_output_token


def _depth(levels: Sequence[LevelResult]) -> list[DepthFigures]:
    """Prefill and decode at the lowest load that counts, where requests wait least for each other."""
    level = min(filter(shows_throughput, levels), key=lambda level: level.load.amount, default=None)
    if level is None:
        return []
    ok, ttft, tpot = level.outcomes.get("ok", 0), level.metrics.get("ttft_s"), level.metrics.get("tpot_s")
    tokens = level.tokens.input / ok if ok and not level.tokens.unknown_input else 0.0
    prefill = tokens / ttft.p50 if tokens and ttft is not None and ttft.p50 > 0 else None
    decode = 1 / tpot.p50 if tpot is not None and tpot.p50 > 0 else None
    return [
        DepthFigures(
            model=level.model,
            load=level.load.label,
            input_tokens=tokens,
            prefill_tokens_per_s=prefill,
            prefill_interval=None if prefill is None or ttft is None else _per(tokens, ttft.interval.get("p50")),
            decode_tokens_per_s=decode,
            decode_interval=None if tpot is None else _per(1.0, tpot.interval.get("p50")),
        )
    ]


def _per(amount: float, seconds: OpenInterval | None) -> OpenInterval | None:
    """The interval of an amount per second, by that of the seconds."""
    if seconds is None:
        return None
    low, high = seconds
    return (amount / high if high else None, amount / low if low else None)
