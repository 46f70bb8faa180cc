"""The charts of a run: over the load, of distributions, and of a level in time."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import TYPE_CHECKING

from loadbench.analyze.level.knee import knee
from loadbench.record.histogram import Histogram
from loadbench.report.chart import band_note
from loadbench.report.document import Block, Chart, Choice, HeatMap, Mark, Series, Table, Text
from loadbench.report.run import UNSURE
from loadbench.report.run import quantile as shown_quantile
from loadbench.report.values import duration
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.analyze.level.over_time import OverTime
    from loadbench.results.run import LevelResult, Metric

# What a reader looks at, in this order: the key of a metric, its short name, and what it is.
FIGURES = (
    ("ttft_s", "TTFT", "Time to first token"),
    ("tpot_s", "TPOT", "Time per output token"),
    ("itl_s", "ITL", "Time between tokens"),
    ("e2e_s", "E2E", "Whole responses"),
)
_QUANTILES = ("p50", "p95", "p99")
# Of more levels than this, a chart of distributions shows so many at first; the reader may add others.
_MOST_SHOWN = 6
# Places on the axis of percentiles: each unit is one more nine.
_NINES = [(0.0, "0 %"), (math.log10(2), "50 %"), *((float(n), f"{100 - 10 ** (2 - n):.6g} %") for n in range(1, 6))]
_STEP = 0.1
# A logarithmic axis of a distribution begins at this part of the lowest median.
_BELOW_MEDIAN = 20
_BOARD_USE = re.compile(r"(gpu|npu)(\d+)_(process_)?use")
# The captions of more knees would lie on each other.
_MOST_MARKED = 2
# From this ratio of the largest to the smallest value on, a linear axis hides the smaller distributions.
_WIDE = 10


# Figures of INVALID levels decide nothing, and those of INCONCLUSIVE ones rest on too little. They are shown, and
# charts tell them apart.
_HOLLOW = " Hollow points: INVALID levels, whose figures decide nothing."
_DOTTED = " Points with a dot inside: INCONCLUSIVE levels, of which too little was measured."
_FAINT = " Thin lines: INVALID levels, whose figures decide nothing, and INCONCLUSIVE ones."
_DOUBTFUL = ("INVALID", "INCONCLUSIVE")
_NO_INTERVAL = " ITL has no interval: the gaps of one response depend on each other."


def _line(
    name: str,
    levels: Sequence[LevelResult],
    points: Sequence[tuple[float, float | None]],
    band: Sequence[tuple[float, float, float]] = (),
    *,
    judged: bool,
    labels: Sequence[str] = (),
    arrows: bool = True,
) -> Series:
    """A point for each level; it tells those of a doubtful verdict apart where levels are `judged` one by one: the
    probes of a search are not."""
    pairs = list(zip(levels, points, strict=True)) if judged else []
    hollow, dotted = ([point for level, point in pairs if level.verdict.status == status] for status in _DOUBTFUL)
    return Series(name, points, band, labels=labels, hollow=hollow, dotted=dotted, arrows=arrows)


def _ends(metric: Metric, quantile: str) -> tuple[float, float]:
    """The ends of a quantile's interval; one that is not known is infinite."""
    low, high = metric.interval.get(quantile) or (None, None)
    return -math.inf if low is None else low, math.inf if high is None else high


def _marks(series: Sequence[Series]) -> str:
    """What the markers mean that are not filled."""
    return _HOLLOW * any(line.hollow for line in series) + _DOTTED * any(line.dotted for line in series)


def load_axis(levels: Sequence[LevelResult]) -> str:
    """What the loads are counted in."""
    closed = not levels or isinstance(levels[0].load, ClosedLoad)
    return "users" if closed else "requests per second, as scheduled"


def throughput_chart(by_model: Mapping[str, Sequence[LevelResult]], *, judged: bool = True) -> Chart:
    """Output tokens per second over the load, a line for each model, with intervals and the knee."""
    series, marks = [], []
    for model, levels in by_model.items():
        ordered = _by_load(levels)
        band = []
        for level in ordered:
            interval = level.throughput.interval.get("output_tokens_per_s")
            if interval is not None:
                band.append((level.load.amount, *interval))
        points = [(level.load.amount, level.throughput.output_tokens_per_s) for level in ordered]
        series.append(_line(model, ordered, points, band, judged=judged))
        at = knee(levels)
        if at is not None and at.high is not None:
            marks.append(Mark(at.high.amount, "knee" + (f" of {model}" if len(by_model) > 1 else "")))
    first = next(iter(by_model.values()), [])
    marks = marks if len(by_model) <= _MOST_MARKED else []
    note = "Dashed: the knee, the lowest load that no higher one clearly exceeds by more than 5 %." if marks else ""
    return Chart(
        name="throughput",
        title="Throughput",
        series=series,
        x=load_axis(first),
        y="output tokens/s",
        down=marks,
        switches="xy",
        note=f"{band_note(series)} {note}".strip() + _marks(series),
    )


def latency_charts(levels: Sequence[LevelResult], *, judged: bool = True, of: str = "", name: str = "") -> list[Chart]:
    """Percentiles of each latency over the load, for one model."""
    charts = []
    ordered = _by_load(levels)
    for key, short, title in FIGURES:
        series = []
        for quantile in _QUANTILES:
            points, band = [], []
            for level in ordered:
                metric = level.metrics.get(key)
                points.append((level.load.amount, None if metric is None else float(getattr(metric, quantile))))
                if metric is not None and key != "itl_s":
                    band.append((level.load.amount, *_ends(metric, quantile)))
            # The long tails have open intervals nearly everywhere: their arrows would hide the lines.
            series.append(_line(quantile, ordered, points, band, judged=judged, arrows=quantile == "p95"))
        if any(y is not None for line in series for _, y in line.points):
            charts.append(
                Chart(
                    name=f"{short.lower()}{name}",
                    title=f"{title} ({short}){of}",
                    series=series,
                    x=load_axis(levels),
                    y=short,
                    seconds=True,
                    switches="xy",
                    note=(band_note(series) + _marks(series) + _NO_INTERVAL * (key == "itl_s")).strip(),
                )
            )
    return charts


def median_charts(by_line: Mapping[str, Sequence[LevelResult]], *, judged: bool = True) -> list[Chart]:
    """The median of each latency over the load, a line for each of several runs or models."""
    charts = []
    for key, short, title in FIGURES:
        series = []
        for name, levels in by_line.items():
            ordered = _by_load(levels)
            found = [(level.load.amount, level.metrics.get(key)) for level in ordered]
            points = [(at, None if metric is None else metric.p50) for at, metric in found]
            band = [(at, *_ends(metric, "p50")) for at, metric in found if metric is not None and key != "itl_s"]
            series.append(_line(name, ordered, points, band, judged=judged))
        if any(y is not None for line in series for _, y in line.points):
            axis = load_axis(next(iter(by_line.values())))
            name = f"{short.lower()}-medians"
            charts.append(
                Chart(
                    name=name,
                    title=f"{title} ({short}): median",
                    series=series,
                    x=axis,
                    y=f"{short} p50",
                    seconds=True,
                    switches="xy",
                    note=(band_note(series) + _marks(series) + _NO_INTERVAL * (key == "itl_s")).strip(),
                )
            )
    return charts


def trade_off_chart(by_model: Mapping[str, Sequence[LevelResult]], *, judged: bool = True) -> Chart:
    """What each load gives and costs: the time to first token over the throughput."""
    series = []
    for model, levels in by_model.items():
        found = [(level, level.metrics.get("ttft_s")) for level in _by_load(levels)]
        known = [(level, metric) for level, metric in found if metric is not None]
        points = [(level.throughput.output_tokens_per_s, metric.p95) for level, metric in known]
        shown = [level for level, _ in known]
        labels = [f"{level.load.amount:g}" for level in shown]
        series.append(_line(model, shown, points, judged=judged, labels=labels))
    first = next(iter(by_model.values()), [])
    unit = "users" if load_axis(first) == "users" else "requests/s"
    return Chart(
        name="trade-off",
        title="Throughput against latency",
        series=series,
        x="output tokens/s",
        y="TTFT p95",
        log_x=False,
        seconds=True,
        scatter=True,
        label_unit=unit,
        switches="y",
        note=f"Each point is a load, in {unit}. Best is to the right and low; beyond the knee a line turns upwards."
        + _marks(series),
    )


def distribution_charts(
    levels: Sequence[LevelResult], *, judged: bool = True, of: str = "", name: str = ""
) -> list[Chart]:
    """The whole distribution of each latency, a line for each level, on HdrHistogram's axis of percentiles."""
    charts = []
    ordered, at = _by_load(levels), knee(levels)
    shown = {round(place * (len(ordered) - 1) / (_MOST_SHOWN - 1)) for place in range(_MOST_SHOWN)}
    shown |= {place for place, level in enumerate(ordered) if at is not None and level.load == at.high}
    for key, short, title in FIGURES:
        series, rows, middles = [], [], []
        for place, level in enumerate(ordered):
            metric = level.metrics.get(key)
            if metric is None or not metric.hdr:
                continue
            hidden = len(ordered) > _MOST_SHOWN and place not in shown
            shade, status = place / max(1, len(ordered) - 1), level.verdict.status
            faint = judged and status in _DOUBTFUL
            label = level.load.label + f", {status}" * faint
            series.append(Series(label, _percentiles(metric), shade=shade, hidden=hidden, faint=faint))
            middles.append(metric.p50)
            known = [shown_quantile(metric, point) for point in ("p50", "p90", "p95", "p99", "p999")]
            rows.append([label, f"{metric.count:,}", duration(metric.min), *known, duration(metric.max)])
        if not series:
            continue
        values = [y for line in series for _, y in line.points if y is not None]
        counted = "gaps" if key == "itl_s" else "responses"
        headers = ("load", counted, "min", "p50", "p90", "p95", "p99", "p99.9", "max")
        # A few events that came in one read would squash all others into the upper half of the axis.
        floor = min(middles) / _BELOW_MEDIAN
        slowest = "longest gap" if key == "itl_s" else "slowest response"
        note = f"From 90 % on, each step to the right is ten times rarer. A line ends at the {slowest} of its level."
        note += f" Values below {duration(floor)} lie on the lower edge of the logarithmic axis." * (
            min(values, default=floor) < floor
        )
        note += " Struck through: not drawn at first, since too many lines hide each other; press it to add it." * any(
            line.hidden for line in series
        )
        note += _FAINT * any(line.faint for line in series)
        note += _NO_INTERVAL * (key == "itl_s")
        note += f" {UNSURE} in the figures: too few independent requests to know this percentile to 10 %." * any(
            UNSURE in cell for row in rows for cell in row
        )
        charts.append(
            Chart(
                name=f"{short.lower()}-distribution{name}",
                title=f"{title} ({short}){of}: all percentiles",
                series=series,
                x=f"share of the {counted} that are {'shorter' if key == 'itl_s' else 'faster'}",
                y=short,
                log_x=False,
                log_y=min(values, default=0) > 0 and max(values) > _WIDE * min(values),
                seconds=True,
                dense=True,
                x_ticks=_NINES,
                switches="y",
                floor=floor if floor > 0 else None,
                legend=True,
                note=note,
                table=Table(headers, rows, "r" * len(headers)),
            )
        )
    return charts


def _percentiles(metric: Metric) -> list[tuple[float, float | None]]:
    """(nines, value in seconds), up to the largest value: all others are smaller, so it is at 1 - 1/n."""
    histogram = Histogram.decode(metric.hdr)
    total = histogram.count
    if not total:
        return []
    points: list[tuple[float, float | None]] = []
    last = math.log10(total)
    for step in range(math.ceil(last / _STEP - 1e-9)):
        nines = step * _STEP
        rank = max(1, math.ceil((1 - 10**-nines) * total - 1e-9))
        points.append((nines, min(max(histogram.value_at_rank(rank) / 1e9, metric.min), metric.max)))
    return [*points, (last, metric.max)]


def timeline(
    levels: Sequence[LevelResult],
    times: Sequence[OverTime],
    readings: Sequence[Mapping[str, float]],
    names: Sequence[str],
    *,
    judged: bool = True,
) -> list[Block]:
    """A choice of levels, each in time: requests in flight, tokens/s, the machine, and the gaps between events.

    `names` has the name of each level of the run, `readings` those of the machine and of the server's page.
    """
    options: list[tuple[str, list[Block]]] = []
    for time in times:
        middles = [(low + high) / 2 for low, high in pairwise(time.edges_s)]
        inside = _inside(levels[time.level], readings, time)
        in_flight = [_each(middles, time.in_flight, "in flight")]
        for key, name in (("server_running", "running, by the server"), ("server_queued", "queued, by the server")):
            in_flight += [Series(name, inside[key])] if key in inside else []
        shares = [
            Series(name, [(at, None if value is None else 100 * value) for at, value in inside[key]])
            for key, name in _shares(inside)
        ]
        first = [_each(middles, time.ttft_mean_s, "mean TTFT of the first tokens that came then")]
        parts = ["before the first dashed line: warm-up"] * (time.edges_s[0] < 0)
        parts.append("between the two: the window, which is measured" if parts else "up to the second: the window")
        after = "cool-down and drain, in which the last requests end"
        parts += [f"after the second: {after}"] * (time.edges_s[-1] > time.window_s)
        blocks: list[Block] = [
            Text([f"In each chart, {'; '.join(parts)}."]),
            _over_time(time, "in-flight", "Requests in flight", "requests", in_flight),
            _over_time(
                time,
                "tokens",
                "Output tokens per second",
                "tokens/s",
                [_each(middles, time.output_tokens_per_s, "tokens/s")],
            ),
            _over_time(time, "first-token", "Mean time to first token", "mean TTFT", first, seconds=True),
        ]
        if shares:
            title = "The machine, and the server's own figures"
            blocks.append(_over_time(time, "machine", title, "% in use", shares, legend=True))
        if any(time.failed):
            failed = [_each(middles, time.failed, "failed requests")]
            blocks.append(_over_time(time, "failed", "Failed requests", "failed", failed))
        if time.gap_counts:
            blocks.append(
                HeatMap(
                    name=f"gaps-{time.level + 1}",
                    title="Gaps between the events of a response",
                    x="seconds since the window opened",
                    y="gap",
                    x_edges=time.edges_s,
                    y_edges=time.gap_edges_s,
                    counts=time.gap_counts,
                    note="The darker, the more gaps of this length came then (logarithmic). "
                    "A band that rises or splits is a server that pauses between tokens.",
                )
            )
        invalid = judged and levels[time.level].verdict.status == "INVALID"
        if invalid:
            blocks.insert(0, Text(["This level is INVALID: its figures decide nothing."]))
        status = levels[time.level].verdict.status
        options.append((names[time.level] + f", {status}" * (judged and status in _DOUBTFUL), blocks))
    return [Choice("Level", options)] if options else []


def _each(middles: Sequence[float], values: Sequence[float | None], name: str) -> Series:
    return Series(name, list(zip(middles, values, strict=True)))


def _over_time(
    time: OverTime,
    name: str,
    title: str,
    y: str,
    series: Sequence[Series],
    *,
    seconds: bool = False,
    legend: bool = False,
) -> Chart:
    return Chart(
        name=f"{name}-{time.level + 1}",
        title=title,
        series=series,
        x="seconds since the window opened",
        y=y,
        log_x=False,
        dense=True,
        seconds=seconds,
        legend=legend,
        down=[Mark(0.0, "window"), Mark(time.window_s, "")],
        span=(time.edges_s[0], time.edges_s[-1]),
    )


def _shares(inside: Mapping[str, object]) -> list[tuple[str, str]]:
    """The readings that are shares, with their names."""
    known = {"host_cpu_share": "CPU of this machine", "server_kv_use": "the server's KV cache"}
    boards = {}
    for key in sorted(inside):
        if match := _BOARD_USE.fullmatch(key):
            by = ", by the server" if match[3] else ""
            boards[key] = f"{match[1].upper()} {match[2]}{by}"
    return [(key, name) for key, name in {**known, **boards}.items() if key in inside]


def _inside(
    level: LevelResult, readings: Sequence[Mapping[str, float]], time: OverTime
) -> dict[str, list[tuple[float, float | None]]]:
    """The readings of this level by name, in seconds since its window opened."""
    found: dict[str, list[tuple[float, float | None]]] = {}
    opened = 0 if level.window_ns is None else level.window_ns[0]
    for reading in readings:
        at = (reading["at_ns"] - opened) / 1e9
        if time.edges_s[0] <= at <= time.edges_s[-1]:
            for key, value in reading.items():
                of_server = {"server_kv_use", "server_running", "server_queued"}
                if key in {"host_cpu_share", *of_server} or _BOARD_USE.fullmatch(key):
                    found.setdefault(key, []).append((at, value))
    return found


def _by_load(levels: Sequence[LevelResult]) -> list[LevelResult]:
    """By rising load; of several levels at one load the last, which a search measured with what it knew by then."""
    return [level for _, level in sorted({level.load.amount: level for level in levels}.items())]
