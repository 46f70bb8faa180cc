"""The charts of a capacity search: the shares that met each objective with the fitted curve, the search itself, and the
prediction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from loadbench.analyze.capacity.curve import fit_of_all_objectives
from loadbench.analyze.capacity.fitted_curve import fitted_curve
from loadbench.core.errors import BadInput
from loadbench.plan.objective import parse_objective
from loadbench.report.capacity import curve_table, kind_of, phase_of, says_nothing, side_of
from loadbench.report.document import Chart, Mark, Series, Table

if TYPE_CHECKING:
    from collections.abc import Collection

    from loadbench.results.capacity import Capacity
    from loadbench.results.run import Run

# What is known of a probe, with its colour and marker (`Series.look`), whichever others a search has: green discs pass
# and vermilion squares fail, filled where it is proven; grey diamonds are unclear.
_SIDES: dict[str, tuple[int, Literal["points", "rings"]]] = {
    "PASS": (8, "points"),
    "leans to PASS": (8, "rings"),
    "unclear": (11, "points"),
    "leans to FAIL": (1, "rings"),
    "FAIL": (1, "points"),
}
# So many places of a fitted curve are drawn.
_PLACES = 60
# Points of the model that are nearer to each other than one of so many look like a bar.
_MOST_POINTS = 24


def capacity_charts(capacity: Capacity, run: Run | None) -> list[Chart]:
    """Those that the search has data for. `run` has the levels of its probes."""
    if not capacity.probes:
        return []
    users = kind_of(capacity) == "users"
    x = "users" if users else "requests per second"
    return [_shares(capacity, x), _search(capacity, x), *_predictions(capacity, run, x)]


def _shares(capacity: Capacity, x: str) -> Chart:
    """All probes of one load are one point: their requests together. The curve is fitted to the points of all loads."""
    series: list[Series] = []
    needed: dict[float, list[str]] = {}
    curve, loads = fitted_curve(capacity), [probe.amount for probe in capacity.probes]
    shares = [share for probe in capacity.probes for share in probe.attainment.items()]
    missed = {rule for rule, share in shares if share.hits < share.requests}
    for look, rule in enumerate(capacity.objectives):
        # One without a miss lies on the upper edge, and would cover the others.
        hidden = bool(missed) and rule not in missed
        hits: dict[float, tuple[int, int]] = {}
        ends: dict[float, tuple[int, tuple[float, float]]] = {}
        for probe in capacity.probes:
            share = probe.attainment.get(rule)
            if share is None or not share.requests:
                continue
            if not hidden:
                needed.setdefault(share.asked, []).append(rule)
            met, of = hits.get(probe.amount, (0, 0))
            hits[probe.amount] = met + share.hits, of + share.requests
            if share.interval is not None and share.requests > ends.get(probe.amount, (0, None))[0]:
                ends[probe.amount] = share.requests, share.interval
        points = [(amount, 100 * met / of) for amount, (met, of) in sorted(hits.items())]
        band = [(amount, 100 * low, 100 * high) for amount, (_, (low, high)) in sorted(ends.items())]
        drawn: Literal["points", "line"] = "line" if curve is None else "points"
        series.append(Series(rule, points, band, drawn=drawn, look=look, hidden=hidden))
        if curve is not None and points:
            first, last = math.log(min(loads)), math.log(max(loads))
            places = [math.exp(first + part * (last - first) / _PLACES) for part in range(_PLACES + 1)]
            at = [(amount, curve.share(rule, amount)) for amount in places]
            fitted = [(amount, 100 * one.share) for amount, one in at]
            around = [(amount, 100 * one.low, 100 * one.high) for amount, one in at]
            series.append(Series(f"{rule}, fitted curve", fitted, around, drawn="curve", look=look, hidden=hidden))
    note = (
        "Band: the 95 % interval of the longest probe at each load. Straight lines join the loads that were "
        "measured; they say nothing about the loads between."
    )
    if curve is not None and capacity.answer is not None:
        sure = f"{100 * capacity.answer.confidence:g} %"
        note = (
            "Points: all requests at a load, with the 95 % interval of its longest probe. "
            f"Curve: fitted to the requests of all loads, the median of what they allow, with its {sure} range. "
            "The limit is where the true share falls below the dashed line. The best estimate is where the first of "
            "the curves does; where the lower edge of a range does, the limit may be reached, where the upper edge "
            "does, it is passed. The answer counts all objectives together, which may move it a little lower."
        )
    return Chart(
        name="objectives",
        title="Requests that met each objective",
        series=series,
        x=x,
        y="% of the requests",
        log_x=False,
        across=[
            Mark(100 * share, f"{100 * share:g} % needed{_whose(dict.fromkeys(rules)) * (len(needed) > 1)}")
            for share, rules in sorted(needed.items())
        ],
        down=_limits(capacity, ends=curve is not None),
        switches="x",
        note=note
        + " Struck through: an objective that no request missed; press it to add it."
        * any(one.hidden for one in series),
        table=None if curve is None else curve_table(capacity, curve),
    )


def _whose(rules: Collection[str]) -> str:
    """Short, since it stands in a chart that may be narrow."""
    return f": {len(rules)} objectives" if len(rules) > 1 else "".join(f": {rule.split('<')[0]}" for rule in rules)


def _limits(capacity: Capacity, *, ends: bool = False) -> list[Mark]:
    """The best estimate, and with `ends` those of the likely range."""
    answer = capacity.answer
    if answer is None or capacity.sees_no_limit:
        return []
    marks = [Mark(answer.amount, f"{'at least' if capacity.status == 'at_least' else 'estimate'} {answer.amount:g}")]
    if ends and answer.likely_low is not None and answer.likely_low < answer.amount:
        marks.insert(0, Mark(answer.likely_low, f"likely at least {answer.likely_low:g}"))
    if ends and answer.likely_high is not None and answer.likely_high > answer.amount:
        marks.append(Mark(answer.likely_high, f"likely at most {answer.likely_high:g}"))
    return marks


def _search(capacity: Capacity, x: str) -> Chart:
    """The loads in the order in which they were measured, by what is proven of them or what their requests favour."""
    series, rows = [], []
    for side, (look, drawn) in _SIDES.items():
        points = [(n, probe.amount) for n, probe in enumerate(capacity.probes, 1) if side_of(probe) == side]
        series += [Series(side, points, drawn=drawn, look=look)] if points else []
    for number, probe in enumerate(capacity.probes, 1):
        rows.append([str(number), probe.label, side_of(probe), str(probe.requests), phase_of(probe)])
    answer = capacity.answer
    ends = [] if answer is None else [("likely at least", answer.likely_low), ("likely at most", answer.likely_high)]
    return Chart(
        name="search",
        title="The search, probe by probe",
        series=series,
        x="probe",
        y=x,
        log_x=False,
        across=[Mark(end, f"{name} {end:g}") for name, end in ends if end is not None],
        switches="y",
        legend=True,
        note="Each point is one measurement. The search narrows the range between loads that pass and loads that fail. "
        "Filled: proven by all requests up to then, or unclear; hollow: the requests of the probe lean to it.",
        table=Table(("probe", "load", "decision", "requests", "phase"), rows, "rllrl"),
    )


def _predictions(capacity: Capacity, run: Run | None, x: str) -> list[Chart]:
    """What a queueing model predicts of each objective, beside what was measured."""
    think_s = getattr(capacity.answer, "think_s", None) or 0.0
    curves = [] if capacity.prediction is None else capacity.prediction.curves
    curve = next((curve for curve in curves if curve.think_s == think_s), None)
    fit = fit_of_all_objectives(capacity.prediction, think_s)
    if fit is not None and says_nothing(fit, None if capacity.answer is None else capacity.answer.range[0]):
        curve = None
    charts = []
    for number, rule in enumerate(capacity.objectives, 1):
        try:
            objective = parse_objective(rule)
        except BadInput:
            continue
        seconds = objective.is_latency
        scale = 1.0 if seconds else 100.0
        bound = objective.bound / 1e9 if seconds else scale * objective.bound
        measured: dict[float, float] = {}
        for probe in capacity.probes:
            levels = [] if run is None else run.levels[probe.level : probe.level + 1]
            for held in (held for level in levels for held in level.objectives if held.rule == rule):
                if held.value is not None:
                    measured[probe.amount] = scale * held.value
        series = [Series("measured by the probes", sorted(measured.items()))] if measured else []
        predicted = curve is not None and rule in curve.figures
        if curve is not None and predicted:
            figures = [None if figure is None else scale * figure for figure in curve.figures[rule]]
            known: list[tuple[float, float | None]] = []
            for n, value in zip(curve.users, figures, strict=True):
                if not known or n - known[-1][0] >= curve.users[-1] / _MOST_POINTS or n == curve.users[-1]:
                    known.append((float(n), value))
            series.append(Series("predicted by the queueing model", known))
        if series:
            name = objective.rule.split("<")[0].split(">")[0]
            charts.append(
                Chart(
                    name=f"objective-{number}",
                    title=name,
                    series=series,
                    x=x,
                    y=name if seconds else f"{name}, % of the requests",
                    log_x=False,
                    seconds=seconds,
                    across=[Mark(bound, f"objective {rule}")],
                    down=_limits(capacity),
                    switches="xy",
                    note="Straight lines join the loads that were measured; they say nothing about the loads between."
                    + " The model knows only the loads without think time; it is not used for the answer." * predicted,
                )
            )
    return charts
