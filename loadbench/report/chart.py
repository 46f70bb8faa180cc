"""Charts as SVG: figures over the load or over time, each with its interval, and heat maps.

`svg` makes a file that stands alone, `drawing` a picture for a page, which has the title, the legend and the style, and
reads values from the points. There is no other code that draws.

Series differ in marker and dashes as well as in colour, and the description has the figures as text. Colours follow the
reader's choice of light or dark. Text is escaped, and ids are unique, so that several charts fit on one page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from loadbench.core.text import digest
from loadbench.report.document import Chart, HeatMap, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_LEFT, _RIGHT, _BOTTOM = 84, 24, 56
_TITLE, _ROW, _CAPTION = 34, 22, 18
# The mean width of a letter in the requested fonts, at 13 px, and that of a digit in the widest of them.
_LETTER, _DIGIT = 7.2, 8.3
# On a narrow screen the letters of a page are so much larger beside what is drawn (`page.css`).
_NARROW = 20 / 13
# The room of the turned name of an axis, and between labels and their axis.
_NAME, _GAP = 26, 8
_MOST_LETTERS, _MOST_TITLE = 60, 74
_MOST_TICKS = 12
# So many fit a narrow screen too, where of more every other one is left out.
_FEW_TICKS = 3
_HEADROOM = 1.05
_MOST_DECIMALS = 9
# Contrast of 3 or more with the background, and distinct in most kinds of colour blindness (Okabe and Ito, 2008).
LIGHT = ("#0072b2", "#c04a00", "#007a5a", "#9c4a7c", "#806400", "#555555")
DARK = ("#56b4e9", "#f0903c", "#3fcf9e", "#e59ac0", "#e6d84a", "#c0c0c0")
# For series that have an order, from low to high load: from blue to red, all with the same contrast.
LIGHT_SHADES = ("#1f78b4", "#3f6fb5", "#5f63b3", "#7d54aa", "#984399", "#ad3380", "#ba2860", "#bf2a3a")
DARK_SHADES = ("#6cb8f0", "#8aabf5", "#a79cf5", "#c08fee", "#d884dd", "#ea7fc3", "#f37fa3", "#f58480")
# From few to many, for the cells of a heat map.
LIGHT_HEAT = ("#deebf7", "#c3daee", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b")
DARK_HEAT = ("#14273d", "#173a5c", "#1b507f", "#2369a6", "#3185c9", "#58a4e0", "#8cc4f0", "#cfe6fb")
# What a point is whose marker has a dot inside.
DOTTED = "INCONCLUSIVE level"
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 5", "4 4")
_SHADES = len(LIGHT_SHADES)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The size of a picture, and whether it has its title and its legend in it."""

    width: int
    height: int
    alone: bool


_ALONE = _Frame(720, 420, alone=True)
_IN_PAGE = _Frame(560, 330, alone=False)
# A chart over time is one of several below each other.
_DENSE_IN_PAGE = _Frame(560, 200, alone=False)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture for a page. `points` has for each series (x px, y px, x in words, y in words)."""

    svg: str
    width: int
    height: int
    points: list[list[tuple[float, float, str, str]]]


def svg(chart: Chart | HeatMap) -> str:
    """The chart as a file: with title, legend and style.

    Raises `ValueError` for a value on a logarithmic axis that is not above 0.
    """
    if isinstance(chart, HeatMap):
        parts, described = _heat(chart, _ALONE)
        return _alone(chart.title, described, parts)
    shown = replace(chart, series=[_known(line) for line in chart.series if not line.hidden])
    plot = _plot(shown, _ALONE)
    if plot is None:
        nothing = _text(_ALONE.width / 2, _ALONE.height / 2, "nothing to show", "middle")
        return _alone(chart.title, "There is nothing to show.", [nothing])
    sentences = [f"{chart.y} over {chart.x}."]
    for line in shown.series:
        values = ", ".join(
            f"{_value(value, chart)} at {_at(at, chart)}" for at, value in line.points if value is not None
        )
        sentences.append(f"{line.name}: {values or 'nothing'}.")
    return _alone(chart.title, " ".join(sentences), [*_parts(shown, plot), *_legend(shown)])


def drawing(chart: Chart | HeatMap, *, log_x: bool | None = None, log_y: bool | None = None) -> Drawing:
    """The chart for a page, with other axes than its own if they are given; what has no place on them is left out."""
    if isinstance(chart, HeatMap):
        parts, _ = _heat(chart, _DENSE_IN_PAGE)
        return Drawing(_for_page(chart.title, parts, _DENSE_IN_PAGE), _IN_PAGE.width, _DENSE_IN_PAGE.height, [])
    log_x = chart.log_x if log_x is None else log_x
    log_y = chart.log_y if log_y is None else log_y
    lines = []
    for line in map(_known, chart.series):
        points = [(x, None if log_y and y is not None and y <= 0 else y) for x, y in line.points if x > 0 or not log_x]
        band = [end for end in line.band if (end[0] > 0 or not log_x) and (not -math.inf < end[1] <= 0 or not log_y)]
        lines.append(replace(line, points=points, band=band))
    marks = [mark for mark in chart.across if mark.at > 0 or not log_y]
    shown = replace(chart, series=lines, log_x=log_x, log_y=log_y, across=marks)
    frame = _DENSE_IN_PAGE if chart.dense and not chart.x_ticks else _IN_PAGE
    plot = _plot(shown, frame)
    if plot is None:
        nothing = _text(frame.width / 2, frame.height / 2, "nothing to show", "middle")
        return Drawing(_for_page(chart.title, [nothing], frame), frame.width, frame.height, [])
    read = []
    for line in lines:
        ends = {x: (low, high) for x, low, high in line.band}
        texts = []
        for place, (x, y) in enumerate(line.points):
            if y is None:
                continue
            text = _value(y, chart) + _between(ends.get(x), chart)
            at = _label(line, place, chart) or _at(x, chart)
            texts.append((round(plot.x(x), 1), round(plot.y(y), 1), at, text))
        read.append(texts)
    return Drawing(_for_page(chart.title, _parts(shown, plot), frame), frame.width, frame.height, read)


def class_of(line: Series, place: int) -> str:
    """The end of the class names that give a series its colour."""
    if line.shade is not None:
        return f"s{min(_SHADES - 1, max(0, round(line.shade * (_SHADES - 1))))}"
    return str(_look(line, place) % len(LIGHT))


def _look(line: Series, place: int) -> int:
    """The number of its colour, marker and dashes."""
    return place if line.look is None else line.look


def sample(line: Series | None, place: int = 0, *, dense: bool = False, dotted: bool = False) -> str:
    """The line and marker of a series, for the legend of a page; of none, a point that is hollow or `dotted`."""
    drawn = _hollow(16.0, 8.0, dotted=dotted) if line is None else _sample(line, place, 2.0, 8.0, dense=dense)
    return f'<svg class="lb-chart lb-key" viewBox="0 0 32 16" width="32" height="16" aria-hidden="true">{drawn}</svg>'


def table_rows(chart: Chart) -> tuple[list[str], list[list[str]]]:
    """(headers, rows) with the figures of the chart as text, a row for each x."""
    headers = [chart.x, *(line.name for line in chart.series)]
    if chart.scatter:
        rows = []
        for line in chart.series:
            for place, (x, y) in enumerate(line.points):
                figures = [_at(x, chart), "-" if y is None else _value(y, chart)]
                rows.append([line.name, _label(line, place, chart), *figures])
        return ["series", "point", chart.x, chart.y], rows
    places: dict[float, list[str]] = {}
    for number, line in enumerate(map(_known, chart.series)):
        ends = {x: (low, high) for x, low, high in line.band}
        for x, y in line.points:
            row = places.setdefault(x, ["-"] * len(chart.series))
            if y is not None:
                row[number] = _value(y, chart) + _between(ends.get(x), chart)
    return headers, [[_at(x, chart), *places[x]] for x in sorted(places)]


def _known(line: Series) -> Series:
    """The series without infinite values; an interval keeps its open ends."""
    points = [(x, y if y is not None and math.isfinite(y) else None) for x, y in line.points]
    band = [end for end in line.band if math.isfinite(end[0]) and end[1] < math.inf and end[2] > -math.inf]
    return replace(line, points=points, band=band)


def band_note(series: Sequence[Series], of: str = "the 95 % interval") -> str:
    """What bands and arrows mean, as far as any is drawn."""
    closed = any(all(map(math.isfinite, end)) for line in series for end in line.band)
    arrows = any(
        line.arrows and math.isfinite(low) and math.isinf(high) and x in {x for x, y in line.points if y is not None}
        for line in series
        for x, low, high in line.band
    )
    if not closed:
        return f"Arrow: nothing bounds {of} from above." if arrows else ""
    return f"Band: {of}{'; an arrow where nothing bounds it from above' if arrows else ''}."


# Scales.


@dataclass(frozen=True, slots=True)
class _Axis:
    """From a value to its position: `begin` px for `low`, `end` px for `high`."""

    low: float
    high: float
    begin: float
    end: float
    log: bool

    def __call__(self, value: float) -> float:
        turn: Callable[[float], float] = math.log2 if self.log else float
        low, high = turn(self.low), turn(self.high)
        return self.begin + (turn(min(max(value, self.low), self.high)) - low) / (high - low) * (self.end - self.begin)


@dataclass(frozen=True, slots=True)
class _Plot:
    """`left` is where the plot begins: right of the name and the labels of the axis of y."""

    x: _Axis
    y: _Axis
    frame: _Frame
    left: float


def _plot(chart: Chart, frame: _Frame) -> _Plot | None:
    xs = [x for line in chart.series for x, y in line.points if y is not None]
    ys = [y for line in chart.series for _, y in line.points if y is not None]
    if not xs:
        return None
    xs += [mark.at for mark in chart.down] + [*(chart.span or ())]
    ends = [end for line in chart.series for _, *ends in line.band for end in ends if math.isfinite(end)]
    ys += ends + [mark.at for mark in chart.across]
    top = _TITLE + _ROW * len(_rows(_legend_names(chart))) + 6 if frame.alone else 12
    top += _caption_row(frame) * sum(bool(mark.text) for mark in chart.down)
    x_low, x_high = _ends(xs, log=chart.log_x)
    y_low, y_high = _ends(ys, log=True) if chart.log_y else (min(0.0, *ys), max(0.0, *ys) * _HEADROOM)
    if chart.log_y and chart.floor is not None:
        y_low = max(y_low, min(chart.floor, y_high / 2))
    if y_low == y_high:
        y_high = y_low + 1.0
    y = _Axis(y_low, y_high, frame.height - _BOTTOM, top, chart.log_y)
    left = _left([_tick(tick, chart) for tick in _y_ticks(chart, y)])
    inset = 0 if chart.dense else 16
    x = _Axis(x_low, x_high, left + inset, frame.width - _RIGHT - inset, chart.log_x)
    return _Plot(x, y, frame, left)


def _caption_row(frame: _Frame) -> int:
    """How far captions above a plot are apart: in a page also in the larger letters of a narrow screen."""
    return _CAPTION if frame.alone else _CAPTION + 4


def _left(labels: Iterable[str]) -> float:
    """Where a plot with these labels beside it begins: wide, with the name of the axis; narrow, in larger letters."""
    wide = _DIGIT * max(map(len, labels), default=0)
    return round(max(_LEFT, _NAME + wide + _GAP, wide * _NARROW + _GAP))


def _y_ticks(chart: Chart, y: _Axis) -> list[float]:
    ticks = _ticks(y, decimal=chart.seconds, most=_MOST_TICKS if y.begin - y.end > 160 else 5)
    # Nobody serves half a user.
    return [tick for tick in ticks if chart.y != "users" or tick == int(tick)]


def _ends(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """The smallest and the largest value, moved apart so that a single value is in the middle."""
    low, high = min(values), max(values)
    if log and low <= 0:
        raise ValueError(f"{low:g} cannot be on a logarithmic axis: it is not above 0")
    if low < high:
        return (low / _HEADROOM, high * _HEADROOM) if log else (low, high)
    return (low / 2, high * 2) if log else (low - 1, high + 1)


def _ticks(axis: _Axis, *, decimal: bool = False, most: int = _MOST_TICKS) -> list[float]:
    """Round numbers along an axis: 1, 2 or 5 times a power of ten, or powers of two unless `decimal`."""
    if axis.log and decimal:
        decades = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
        for times in ((1, 2, 5), (1,)):
            ticks = [time * 10.0**power for power in decades for time in times]
            ticks = [tick for tick in ticks if axis.low <= tick <= axis.high]
            if 2 < len(ticks) <= most:
                return ticks
    elif axis.log:
        powers = range(math.ceil(math.log2(axis.low)), math.floor(math.log2(axis.high)) + 1)
        ticks = [2.0**power for power in powers[:: -(-len(powers) // _MOST_TICKS) or 1]]
        if len(ticks) > 2:
            return ticks
    raw = (axis.high - axis.low) / (5 if most >= _MOST_TICKS else 3)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= raw * 0.99)
    first = math.ceil(axis.low / step - 1e-9)
    return [number * step for number in range(first, math.floor(axis.high / step + 1e-9) + 1)]


class _Room:
    """Where captions may stand: on no point and on no other caption, and if there is a choice on no line or band."""

    def __init__(self, chart: Chart, plot: _Plot) -> None:
        self._frame = plot.frame
        # The labels of the axis are left of the plot.
        self._left = plot.left
        # In a page also in the larger letters of a narrow screen.
        self._scale = 1.0 if plot.frame.alone else _NARROW
        self._taken: list[tuple[float, float, float, float]] = []
        self._lines: list[tuple[float, float, float, float]] = []
        self._bands: list[tuple[float, float, float, float]] = []
        for line in chart.series:
            spots = [None if y is None else (plot.x(x), plot.y(y)) for x, y in line.points]
            marked = not chart.dense and line.drawn != "curve"
            self._taken += [(x - 5, y - 5, x + 5, y + 5) for x, y in filter(None, spots) if marked]
            self._lines += [(*one, *other) for one, other in pairwise(spots) if one and other and line.joined]
            ends = [(plot.x(x), plot.y(high), plot.y(low)) for x, low, high in line.band if math.isfinite(low - high)]
            ends = ends if line.joined else []
            self._bands += [
                (x, min(high, next_high), next_x, max(low, next_low))
                for (x, high, low), (next_x, next_high, next_low) in pairwise(ends)
            ]
        right = plot.frame.width - _RIGHT
        self._lines += [(plot.left, plot.y(mark.at), right, plot.y(mark.at)) for mark in chart.across]
        self._lines += [(plot.x(mark.at), plot.y.begin, plot.x(mark.at), plot.y.end) for mark in chart.down]

    def width(self, text: str) -> float:
        """How wide a caption is, about."""
        return _LETTER * len(text) * self._scale

    def place(
        self, text: str, spots: Iterable[tuple[float, float, str]], *, narrow: bool = True
    ) -> tuple[float, float, str] | None:
        """The first of these spots (x, y, anchor) that crosses the fewest lines; `None` where none is free, also in the
        letters of a `narrow` screen."""
        scale = self._scale if narrow else 1.0
        wide, high, deep = _LETTER * len(text) * scale, 10 * scale, 3 * scale
        best = None
        for x, y, anchor in spots:
            begin = x - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
            left, top, right, bottom = begin, y - high, begin + wide, y + deep
            if left < self._left or right > self._frame.width or top < 0 or bottom > self._frame.height - _BOTTOM:
                continue
            if any(left < b and right > a and top < d and bottom > c for a, c, b, d in self._taken):
                continue
            crossed = sum(_crosses((left, top, right, bottom), line) for line in self._lines)
            crossed += any(left < c and right > a and top < d and bottom > b for a, b, c, d in self._bands)
            if best is None or crossed < best[0]:
                best = crossed, (left, top, right, bottom), (x, y, anchor)
        if best is None:
            return None
        self._taken.append(best[1])
        return best[2]


def _crosses(box: tuple[float, float, float, float], line: tuple[float, float, float, float]) -> bool:
    """Whether a straight line runs through a box (Liang and Barsky, 1984)."""
    left, top, right, bottom = box
    x, y, end_x, end_y = line
    begin, end = 0.0, 1.0
    for step, room in ((x - end_x, x - left), (end_x - x, right - x), (y - end_y, y - top), (end_y - y, bottom - y)):
        if step == 0:
            if room < 0:
                return False
        elif step < 0:
            begin = max(begin, room / step)
        else:
            end = min(end, room / step)
    return begin <= end


# Parts.


def _parts(chart: Chart, plot: _Plot) -> Iterator[str]:
    """Everything inside the axes. What belongs to one series is one group, which a page may hide."""
    room = _Room(chart, plot)
    yield from _grid(chart, plot)
    lines, captions = _marks(chart, plot, room)
    yield from lines
    for place, line in enumerate(chart.series):
        yield f'<g class="lb-series{" lb-off" * line.hidden}">'
        yield from _band(plot, line, place)
        yield from _line(plot, line, place, dense=chart.dense, room=room)
        yield "</g>"
    # On the bands, which would cover them.
    yield from captions


def _grid(chart: Chart, plot: _Plot) -> Iterator[str]:
    left, right = plot.left, plot.frame.width - _RIGHT
    for number, tick in enumerate(_y_ticks(chart, plot.y)):
        at = plot.y(tick)
        yield f'<path class="lb-grid" d="M{left} {at:.1f}H{right}"/>'
        yield _text(left - _GAP, at + 4, _tick(tick, chart), "end", "lb-odd" if number % 2 else "")
    # The loads themselves, if they are few and far enough apart.
    loads = sorted({load for line in chart.series for load, value in line.points if value is not None})
    apart = all(plot.x(after) - plot.x(before) >= _LETTER * 5 for before, after in pairwise(loads))
    few = apart and len(loads) <= _MOST_TICKS and not chart.scatter and not chart.dense
    ticks = _named(loads if few else _ticks(plot.x))
    ticks = [tick for tick in chart.x_ticks if plot.x.low <= tick[0] <= plot.x.high] or ticks
    for number, (tick, name) in enumerate(ticks):
        at = plot.x(tick)
        yield f'<path class="lb-axis" d="M{at:.1f} {plot.y.begin}v5"/>'
        is_odd = number % 2 == 1 and len(ticks) > _FEW_TICKS
        is_last = at + _DIGIT * _NARROW * len(name) / 2 > plot.frame.width
        yield _text(at, plot.y.begin + 20, name, "middle", "lb-x" + " lb-odd" * is_odd + " lb-end" * is_last)
    yield f'<path class="lb-axis" d="M{left} {plot.y.begin}H{right}"/>'
    yield _text((left + right) / 2, plot.frame.height - 12, chart.x, "middle")
    yield _name(chart.y, plot.y)


def _name(text: str, axis: _Axis) -> str:
    """The name of the axis of y, along it."""
    turned = f"translate(18 {(axis.begin + axis.end) / 2:.1f}) rotate(-90)"
    return f'<g class="lb-name" transform="{turned}">{_text(0, 0, text, "middle")}</g>'


def _marks(chart: Chart, plot: _Plot, room: _Room) -> tuple[list[str], list[str]]:
    """(lines, captions)"""
    lines, captions = [], []
    left, right = plot.left, plot.frame.width - _RIGHT
    # Above the plot, each in a row of its own.
    height = plot.y.end - 5
    for mark in chart.down:
        at = plot.x(mark.at)
        lines.append(f'<path class="lb-mark" d="M{at:.1f} {plot.y.begin}V{height if mark.text else plot.y.end:.1f}"/>')
        if mark.text:
            wide, beside = room.width(mark.text), plot.frame.width - at - 5
            side, anchor = (5, "start") if wide < beside or beside > at - left else (-5, "end")
            text = _clipped(mark.text, int(max(beside, at - 5 - left) / room.width("x")))
            room.place(text, [(at + side, height, anchor)])
            captions.append(_text(at + side, height, text, anchor))
            height -= _caption_row(plot.frame)
    for mark in chart.across:
        at, text = plot.y(mark.at), _clipped(mark.text)
        lines.append(f'<path class="lb-mark" d="M{left} {at:.1f}H{right}"/>')
        between = ((left + part * (right - left), "middle") for part in (0.5, 0.35, 0.65, 0.2, 0.8))
        sides = ((right - 4, "end"), (left + 4, "start"), *between)
        spots = [(x, at + away, anchor) for away in (-5, 16) for x, anchor in sides]
        x, y, anchor = room.place(text, spots) or room.place(text, spots, narrow=False) or spots[0]
        captions.append(_text(x, y, text, anchor))
    return lines, captions


def _band(plot: _Plot, line: Series, place: int) -> Iterator[str]:
    """An area for neighbouring intervals, or a bar for a single one; an arrow where nothing bounds it from above."""
    color = class_of(line, place)
    closed = [end for end in line.band if all(map(math.isfinite, end))]
    for run in _runs(line, {x for x, _, _ in closed}):
        ends = [end for end in closed if end[0] in run]
        if len(ends) == 1:
            ((x, low, high),) = ends
            path = f"M{plot.x(x):.1f} {plot.y(low):.1f}V{plot.y(high):.1f}"
            yield f'<path class="lb-bar lb-line{color}" d="{path}"/>'
            continue
        upper = [f"{plot.x(x):.1f} {plot.y(high):.1f}" for x, _, high in ends]
        lower = [f"{plot.x(x):.1f} {plot.y(low):.1f}" for x, low, _ in reversed(ends)]
        yield f'<path class="lb-band lb-fill{color}" d="M{"L".join(upper + lower)}Z"/>'
    values = {x: y for x, y in line.points if y is not None}
    for x, low, high in line.band:
        if line.arrows and math.isfinite(low) and math.isinf(high) and x in values:
            top = max(plot.y(max(values[x], low)) - 14, plot.y.end)
            arrow = f"M{plot.x(x):.1f} {plot.y(low):.1f}V{top:.1f}m-3 5l3 -5l3 5"
            yield f'<path class="lb-open lb-line{color}" d="{arrow}"/>'


def _line(plot: _Plot, line: Series, place: int, *, dense: bool, room: _Room) -> Iterator[str]:
    """A line between neighbouring points; it is interrupted where a value is missing."""
    color, dash = class_of(line, place), _dash(_look(line, place))
    run: list[str] = []
    for x, y in [*line.points, (0.0, None)] if line.joined else []:
        if y is not None:
            run.append(f"{plot.x(x):.1f} {plot.y(y):.1f}")
        elif len(run) == 1 and dense:
            # One alone, between bins without a value, has nothing that it is joined to.
            across, _, down = run.pop().partition(" ")
            yield f'<circle class="lb-fill{color} lb-point" cx="{across}" cy="{down}" r="2"/>'
        elif run:
            dashes = f' stroke-dasharray="{dash}"' if dash else ""
            faint = " lb-faint" * line.faint
            yield f'<path class="lb-line lb-line{color}{faint}"{dashes} d="M{"L".join(run)}"/>'
            run = []
    for number, (x, y) in enumerate(line.points):
        if y is None:
            continue
        at, high = plot.x(x), plot.y(y)
        if not dense and line.drawn != "curve":
            hollow = line.drawn == "rings" or (x, y) in (*line.hollow, *line.dotted)
            yield _marker(at, high, color, _look(line, place), hollow=hollow)
            if (x, y) in line.dotted:
                yield f'<circle class="lb-fill{color} lb-point" cx="{at:.1f}" cy="{high:.1f}" r="2.4"/>'
        if number >= len(line.labels):
            continue
        text = line.labels[number]
        sides = ((7, -7, "start"), (-7, -7, "end"), (0, -11, "middle"), (7, 17, "start"), (-7, 17, "end"))
        spots = [(at + right, high + down, anchor) for right, down, anchor in (*sides, (0, 22, "middle"))]
        spots += [(at + 10, high + 4, "start"), (at - 10, high + 4, "end")]
        spot = room.place(text, spots)
        if spot is None:  # farther away, with a line to its point
            spot = room.place(text, [(at + 4 * right, high + 4 * down, anchor) for right, down, anchor in sides])
            if spot is not None:
                yield f'<path class="lb-axis" d="M{at:.1f} {high:.1f}L{spot[0]:.1f} {spot[1] - 4:.1f}"/>'
        # One for which there is no room at all can be read from its point.
        if spot is not None:
            yield _text(*spot[:2], text, spot[2])


def _dash(place: int) -> str:
    """Another one for each series of a colour, as well as for each of the first six."""
    return _DASHES[(place + place // len(LIGHT)) % len(_DASHES)]


def _runs(line: Series, known: Iterable[float]) -> list[list[float]]:
    """The loads of neighbouring points that are known, run by run; of points that are not joined, one by one."""
    runs: list[list[float]] = [[]]
    wanted = set(known)
    for x, y in line.points:
        if y is not None and x in wanted:
            runs[-1].append(x)
        if runs[-1] and (y is None or x not in wanted or not line.joined):
            runs.append([])
    return [run for run in runs if run]


def _marker(x: float, y: float, color: str, place: int, *, hollow: bool = False) -> str:
    """A disc, a square, a triangle or a diamond."""
    shapes = (
        "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
        "m-4 -4h8v8h-8Z",
        "m0 -5l5 9h-10Z",
        "m0 -5.5l5 5.5l-5 5.5l-5 -5.5Z",
    )
    drawn = f"lb-line lb-line{color}" if hollow else f"lb-fill{color}"
    return f'<path class="{drawn} lb-point" d="M{x:.1f} {y:.1f}{shapes[place % len(shapes)]}"/>'


def _hollow(x: float, y: float, *, dotted: bool) -> str:
    disc = "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z"
    dot = f'<path class="lb-line lb-hollow" d="M{x - 0.8:.1f} {y:.1f}h1.6"/>' if dotted else ""
    return f'<path class="lb-line lb-hollow" d="M{x:.1f} {y:.1f}{disc}"/>{dot}'


def _legend_names(chart: Chart) -> list[str]:
    return [*(line.name for line in chart.series), *doubtful_marks(chart)]


def doubtful_marks(chart: Chart) -> list[str]:
    """The entries of the legend for markers that are not filled."""
    hollow, dotted = any(line.hollow for line in chart.series), any(line.dotted for line in chart.series)
    return [*[chart.hollow] * hollow, *[DOTTED] * dotted]


def _legend(chart: Chart) -> Iterator[str]:
    place = 0
    for number, row in enumerate(_rows(_legend_names(chart))):
        x, y = float(_LEFT), _TITLE + 14 + number * _ROW
        for name in row:
            known = place < len(chart.series)
            if known:
                yield _sample(chart.series[place], place, x, y - 4, dense=chart.dense)
            else:
                yield _hollow(x + 14, y - 4, dotted=name == DOTTED)
            yield _text(x + 36, y, name, "start")
            x += _width(name)
            place += 1


def _sample(line: Series, place: int, x: float, y: float, *, dense: bool) -> str:
    color, look = class_of(line, place) + " lb-faint" * line.faint, _look(line, place)
    dashes = f' stroke-dasharray="{_dash(look)}"' if _dash(look) else ""
    marker = _marker(x + 14, y, class_of(line, place), look, hollow=line.drawn == "rings")
    marker = "" if dense or line.drawn == "curve" else marker
    if not line.joined:
        return marker
    return f'<path class="lb-line lb-line{color}"{dashes} d="M{x:.1f} {y}h28"/>{marker}'


def _rows(names: Iterable[str]) -> list[list[str]]:
    """The entries of the legend, as many in a row as fit."""
    rows: list[list[str]] = []
    used = math.inf
    for name in map(_clipped, names):
        if used + _width(name) > _ALONE.width - _LEFT - _RIGHT:
            rows.append([])
            used = 0.0
        rows[-1].append(name)
        used += _width(name)
    return rows


def _width(name: str) -> float:
    return 36 + _LETTER * len(name) + 24


def _clipped(text: str, most: int = _MOST_LETTERS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _heat(chart: HeatMap, frame: _Frame) -> tuple[list[str], str]:
    """(parts, description): cells by the logarithm of their count, so that rare long values are seen too."""
    top = _TITLE + 10 if frame.alone else 12
    y = _Axis(chart.y_edges[0], chart.y_edges[-1], frame.height - _BOTTOM, top, log=True)
    left = _left(map(_tick_s, _ticks(y, decimal=True, most=6)))
    x = _Axis(chart.x_edges[0], chart.x_edges[-1], left, frame.width - _RIGHT, log=False)
    most = max((count for row in chart.counts for count in row), default=0)
    if not most:
        return [_text(frame.width / 2, frame.height / 2, "nothing to show", "middle")], "There is nothing to show."
    cells: dict[int, list[str]] = {}
    for row, (low, high) in zip(chart.counts, pairwise(chart.y_edges), strict=True):
        for count, (begin, end) in zip(row, pairwise(chart.x_edges), strict=True):
            if count:
                shade = round(math.log1p(count) / math.log1p(most) * (_SHADES - 1))
                wide, tall = x(end) - x(begin), y(low) - y(high)
                cells.setdefault(shade, []).append(f"M{x(begin):.1f} {y(high):.1f}h{wide:.1f}v{tall:.1f}h-{wide:.1f}z")
    parts = [f'<path class="lb-heat{shade}" d="{"".join(found)}"/>' for shade, found in sorted(cells.items())]
    for tick in _ticks(y, decimal=True, most=6):
        parts.append(f'<path class="lb-grid" d="M{left} {y(tick):.1f}H{frame.width - _RIGHT}"/>')
        parts.append(_text(left - _GAP, y(tick) + 4, _tick_s(tick), "end"))
    for tick in _ticks(x):
        parts.append(f'<path class="lb-axis" d="M{x(tick):.1f} {y.begin}v5"/>')
        parts.append(_text(x(tick), y.begin + 20, _number(tick), "middle", "lb-x"))
    parts.append(f'<path class="lb-axis" d="M{left} {y.begin}H{frame.width - _RIGHT}"/>')
    parts.append(_text((left + frame.width - _RIGHT) / 2, frame.height - 12, chart.x, "middle"))
    parts.append(_name(chart.y, y))
    total = sum(map(sum, chart.counts))
    return parts, f"{chart.y} over {chart.x}: {total:,} values from {_tick_s(y.low)} to {_tick_s(y.high)}."


# Words.


def _number(value: float) -> str:
    """As people write it; an axis needs three digits."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{float(f'{value:.3g}'):g}"


def _named(ticks: Sequence[float]) -> list[tuple[float, str]]:
    """Ticks with their names; where three digits do not tell them apart, with the decimals that do."""
    names = [_number(tick) for tick in ticks]
    decimals = 0
    while len(set(names)) < len(names) and decimals < _MOST_DECIMALS:
        names = [f"{tick:,.{decimals}f}" for tick in ticks]
        decimals += 1
    return [*zip(ticks, names, strict=True)]


def _tick_s(value: float) -> str:
    """A duration on an axis: `200 ms`, `1.5 s`."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if value * scale >= 0.9995 or value == 0:
            return f"{_number(value * scale)} {unit}"
    return f"{_number(value * 1e6)} µs"


def _tick(value: float, chart: Chart) -> str:
    return _tick_s(value) if chart.seconds else _number(value)


def _value(value: float, chart: Chart) -> str:
    return _tick(float(f"{value:.4g}") if value >= 1000 else value, chart)


def _at(value: float, chart: Chart) -> str:
    """A value of x in words."""
    if chart.x_ticks:  # percentiles, on the scale of HdrHistogram
        return f"{float(f'{100 * (1 - 10**-value):.{int(value) + 1}f}'):.10g} %"
    return _number(value)


def _label(line: Series, place: int, chart: Chart) -> str:
    """What the label at a point says, with its unit; empty where there is none."""
    return f"{line.labels[place]} {chart.label_unit}".strip() if place < len(line.labels) else ""


def _between(ends: tuple[float, float] | None, chart: Chart) -> str:
    if ends is None:
        return ""
    low, high = ends
    if math.isinf(low):
        return " (interval unknown)" if math.isinf(high) else f" ({_value(high, chart)} or less)"
    return (
        f" ({_value(low, chart)} or more)" if math.isinf(high) else f" ({_value(low, chart)} to {_value(high, chart)})"
    )


def _clean(text: str) -> str:
    """Foreign text as text: escaped, and without characters that XML does not allow."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return escape(plain, {'"': "&quot;"})


def _text(x: float, y: float, text: str, anchor: str, cls: str = "") -> str:
    cls = f' class="{cls}"' if cls else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{cls}>{_clean(text)}</text>'


def _for_page(title: str, parts: Iterable[str], frame: _Frame) -> str:
    head = f'<svg viewBox="0 0 {frame.width} {frame.height}" role="img" aria-label="{_clean(title)}" class="lb-chart">'
    return head + "".join(parts) + "</svg>"


def _alone(title: str, description: str, parts: Sequence[str]) -> str:
    name = f"lb-{digest(title + description, size=6)}"
    width, height = _ALONE.width, _ALONE.height
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-labelledby="{name}-title {name}-desc" class="lb-chart">'
    )
    light = _colors("#ffffff", "#1f2328", "#d8dee4", "#6e7781", (LIGHT, LIGHT_SHADES, LIGHT_HEAT))
    dark = _colors("#0d1117", "#e6edf3", "#30363d", "#8b949e", (DARK, DARK_SHADES, DARK_HEAT))
    style = f".lb-chart{{max-width:100%;height:auto}}{_FIXED}{light}@media(prefers-color-scheme:dark){{{dark}}}"
    return "\n".join(
        [
            head,
            f'<title id="{name}-title">{_clean(title)}</title>',
            f'<desc id="{name}-desc">{_clean(description)}</desc>',
            f"<style>{style}</style>",
            f'<rect class="lb-ground" width="{width}" height="{height}"/>',
            f'<g class="lb-title">{_text(_LEFT, 22, _clipped(title, _MOST_TITLE), "start")}</g>',
            *parts,
            "</svg>\n",
        ]
    )


_FIXED = (
    ".lb-chart text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
    ".lb-title text{font-size:15px;font-weight:600}"
    ".lb-line,.lb-bar,.lb-open{fill:none;stroke-width:2;stroke-linejoin:round}"
    ".lb-line.lb-faint{stroke-width:1}.lb-bar{stroke-width:6;stroke-opacity:.3}.lb-band{fill-opacity:.18}.lb-open{stroke-width:1;stroke-opacity:.8}"
    ".lb-grid,.lb-axis,.lb-mark{fill:none;stroke-width:1}.lb-mark{stroke-dasharray:4 3}"
)


def page_style() -> str:
    """The rules of charts in a page, whose colours are the page's variables."""
    names = [[f"var(--{kind}{place})" for place in range(len(colors))] for kind, colors in _KINDS]
    return _FIXED + _colors("var(--card)", "var(--ink)", "var(--line)", "var(--mute)", names)


def page_colors(*, dark: bool) -> str:
    """The declarations of these variables."""
    palettes = (DARK, DARK_SHADES, DARK_HEAT) if dark else (LIGHT, LIGHT_SHADES, LIGHT_HEAT)
    return "".join(
        f"--{kind}{place}:{color};"
        for (kind, _), palette in zip(_KINDS, palettes, strict=True)
        for place, color in enumerate(palette)
    )


_KINDS = (("c", LIGHT), ("s", LIGHT_SHADES), ("h", LIGHT_HEAT))


def _colors(ground: str, ink: str, grid: str, axis: str, palettes: Sequence[Sequence[str]]) -> str:
    lines, shades, heat = palettes
    rules = (
        f".lb-ground{{fill:{ground}}}.lb-chart text{{fill:{ink}}}.lb-grid{{stroke:{grid}}}"
        f".lb-axis,.lb-mark{{stroke:{axis}}}.lb-hollow{{stroke:{ink}}}"
        f".lb-chart text{{paint-order:stroke;stroke:{ground};stroke-width:3px;stroke-linejoin:round}}"
    )
    for beginning, palette in (("", lines), ("s", shades)):
        for place, color in enumerate(palette):
            rules += f".lb-line{beginning}{place}{{stroke:{color}}}.lb-fill{beginning}{place}{{fill:{color}}}"
    return rules + "".join(f".lb-heat{place}{{fill:{color}}}" for place, color in enumerate(heat))
