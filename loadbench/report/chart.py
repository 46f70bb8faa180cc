"""A line chart as a self-contained SVG: figures over the load, each with the band of its interval.

The axis of the load is in powers of two, as levels of users are, unless a linear one is requested. The axis of values
begins at 0, or is logarithmic for ratios. Series differ in marker and dashes as well as in colour, and the description
has the figures as text. Colours follow the reader's choice of light or dark. Text is escaped, and ids are unique, so
that several charts fit on one page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from loadbench.core.text import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _BOTTOM = 72, 24, 56
_TITLE, _ROW = 34, 22
# The mean width of a letter in the requested fonts, at 13 px.
_LETTER = 7.2
_MOST_LETTERS, _MOST_TITLE = 60, 74
_MOST_TICKS = 12
_HEADROOM = 1.05
# Contrast of 3 or more with the background, and distinct in most kinds of colour blindness (Okabe and Ito, 2008).
_LIGHT = ("#0072b2", "#c04a00", "#007a5a", "#9c4a7c", "#806400", "#555555")
_DARK = ("#56b4e9", "#f0903c", "#3fcf9e", "#e59ac0", "#e6d84a", "#c0c0c0")
_DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 5", "4 4")


@dataclass(frozen=True, slots=True)
class Series:
    """One line: (x, y) points by rising x, `None` where there is no y; `band` has (x, low, high) where it is known."""

    name: str
    points: Sequence[tuple[float, float | None]]
    band: Sequence[tuple[float, float, float]] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A straight line across the chart at this value, and its caption."""

    at: float
    text: str


def chart(
    series: Sequence[Series],
    *,
    title: str,
    x: str = "users",
    y: str,
    log_x: bool = True,
    log_y: bool = False,
    across: Sequence[Mark] = (),
    down: Sequence[Mark] = (),
) -> str:
    """The chart; `x` and `y` name the axes with their units, `across` and `down` mark values of y and x.

    Raises `ValueError` for a value on a logarithmic axis that is not above 0.
    """
    shown = [_known(line) for line in series]
    plot = _plot(shown, across, down, log_x=log_x, log_y=log_y)
    if plot is None:
        return _svg(title, "There is nothing to show.", [_text(_WIDTH / 2, _HEIGHT / 2, "nothing to show", "middle")])
    parts = [
        *_grid(plot, shown, x, y),
        *_marks(plot, across, down),
        *(part for place, line in enumerate(shown) for part in _band(plot, line, place)),
        *(part for place, line in enumerate(shown) for part in _line(plot, line, place)),
        *_legend([line.name for line in shown]),
    ]
    described = [f"{y} over {x}."]
    for line in shown:
        values = ", ".join(f"{_number(value)} at {_number(at)}" for at, value in line.points if value is not None)
        described.append(f"{line.name}: {values or 'nothing'}.")
    return _svg(title, " ".join(described), parts)


def _known(line: Series) -> Series:
    """The series without infinite values and bands."""
    points = [(x, y if y is not None and math.isfinite(y) else None) for x, y in line.points]
    return Series(line.name, points, [end for end in line.band if all(map(math.isfinite, end))])


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
    x: _Axis
    y: _Axis


def _plot(
    series: Sequence[Series], across: Sequence[Mark], down: Sequence[Mark], *, log_x: bool, log_y: bool
) -> _Plot | None:
    xs = [x for line in series for x, y in line.points if y is not None]
    ys = [y for line in series for _, y in line.points if y is not None]
    if not xs:
        return None
    xs += [mark.at for mark in down]
    ys += [end for line in series for _, *ends in line.band for end in ends] + [mark.at for mark in across]
    top = _TITLE + _ROW * len(_rows([line.name for line in series])) + 6
    x_low, x_high = _ends(xs, log=log_x)
    y_low, y_high = _ends(ys, log=True) if log_y else (min(0.0, *ys), max(0.0, *ys) * _HEADROOM)
    if y_low == y_high:
        y_high = y_low + 1.0
    return _Plot(
        _Axis(x_low, x_high, _LEFT + 16, _WIDTH - _RIGHT - 16, log_x),
        _Axis(y_low, y_high, _HEIGHT - _BOTTOM, top, log_y),
    )


def _ends(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    """The smallest and the largest value, moved apart so that a single value is in the middle."""
    low, high = min(values), max(values)
    if log and low <= 0:
        raise ValueError(f"{low:g} cannot be on a logarithmic axis: it is not above 0")
    if low < high:
        return (low / _HEADROOM, high * _HEADROOM) if log else (low, high)
    return (low / 2, high * 2) if log else (low - 1, high + 1)


def _ticks(axis: _Axis) -> list[float]:
    """Round numbers along an axis: 1, 2 or 5 times a power of ten, or powers of two."""
    if axis.log:
        powers = range(math.ceil(math.log2(axis.low)), math.floor(math.log2(axis.high)) + 1)
        ticks = [2.0**power for power in powers[:: -(-len(powers) // _MOST_TICKS) or 1]]
        if len(ticks) > 2:
            return ticks
    raw = (axis.high - axis.low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= raw * 0.99)
    first = math.ceil(axis.low / step - 1e-9)
    return [number * step for number in range(first, math.floor(axis.high / step + 1e-9) + 1)]


# Parts.


def _grid(plot: _Plot, series: Sequence[Series], x: str, y: str) -> Iterator[str]:
    left, right = _LEFT, _WIDTH - _RIGHT
    for tick in _ticks(plot.y):
        at = plot.y(tick)
        yield f'<path class="lb-grid" d="M{left} {at:.1f}H{right}"/>'
        yield _text(left - 8, at + 4, _number(tick), "end")
    # The loads themselves, if they are few and far enough apart.
    loads = sorted({load for line in series for load, value in line.points if value is not None})
    apart = all(plot.x(after) - plot.x(before) >= _LETTER * 5 for before, after in pairwise(loads))
    for tick in loads if apart and len(loads) <= _MOST_TICKS else _ticks(plot.x):
        at = plot.x(tick)
        yield f'<path class="lb-axis" d="M{at:.1f} {plot.y.begin}v5"/>'
        yield _text(at, plot.y.begin + 20, _number(tick), "middle")
    yield f'<path class="lb-axis" d="M{left} {plot.y.begin}H{right}"/>'
    yield _text((left + right) / 2, _HEIGHT - 12, x, "middle")
    middle = (plot.y.begin + plot.y.end) / 2
    yield f'<g transform="translate(18 {middle:.1f}) rotate(-90)">{_text(0, 0, y, "middle")}</g>'


def _marks(plot: _Plot, across: Sequence[Mark], down: Sequence[Mark]) -> Iterator[str]:
    for mark in across:
        at = plot.y(mark.at)
        yield f'<path class="lb-mark" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>'
        yield _text(_WIDTH - _RIGHT - 4, at - 5, _clipped(mark.text), "end")
    for mark in down:
        at = plot.x(mark.at)
        side, anchor = (-5, "end") if at > _WIDTH / 2 else (5, "start")
        yield f'<path class="lb-mark" d="M{at:.1f} {plot.y.begin}V{plot.y.end}"/>'
        yield _text(at + side, plot.y.end + 12, _clipped(mark.text), anchor)


def _band(plot: _Plot, line: Series, place: int) -> Iterator[str]:
    """An area for neighbouring intervals, or a bar for a single one."""
    for run in _runs(line, {x for x, _, _ in line.band}):
        ends = [end for end in line.band if end[0] in run]
        if len(ends) == 1:
            ((x, low, high),) = ends
            path = f"M{plot.x(x):.1f} {plot.y(low):.1f}V{plot.y(high):.1f}"
            yield f'<path class="lb-bar lb-line{place % len(_LIGHT)}" d="{path}"/>'
            continue
        upper = [f"{plot.x(x):.1f} {plot.y(high):.1f}" for x, _, high in ends]
        lower = [f"{plot.x(x):.1f} {plot.y(low):.1f}" for x, low, _ in reversed(ends)]
        yield f'<path class="lb-band lb-fill{place % len(_LIGHT)}" d="M{"L".join(upper + lower)}Z"/>'


def _line(plot: _Plot, line: Series, place: int) -> Iterator[str]:
    """A line between neighbouring points; it is interrupted where a value is missing."""
    color, dash = place % len(_LIGHT), _DASHES[place % len(_DASHES)]
    values = {x: y for x, y in line.points if y is not None}
    for run in _runs(line, values):
        path = "L".join(f"{plot.x(x):.1f} {plot.y(values[x]):.1f}" for x in run)
        yield f'<path class="lb-line lb-line{color}" stroke-dasharray="{dash or "none"}" d="M{path}"/>'
    for x, y in values.items():
        yield _marker(plot.x(x), plot.y(y), place)


def _runs(line: Series, known: Iterable[float]) -> list[list[float]]:
    """The loads of neighbouring points that are known, run by run."""
    runs: list[list[float]] = [[]]
    wanted = set(known)
    for x, y in line.points:
        if y is not None and x in wanted:
            runs[-1].append(x)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _marker(x: float, y: float, place: int) -> str:
    """A disc, a square, a triangle or a diamond."""
    shapes = (
        "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z",
        "m-4 -4h8v8h-8Z",
        "m0 -5l5 9h-10Z",
        "m0 -5.5l5 5.5l-5 5.5l-5 -5.5Z",
    )
    return f'<path class="lb-fill{place % len(_LIGHT)}" d="M{x:.1f} {y:.1f}{shapes[place % len(shapes)]}"/>'


def _legend(names: Sequence[str]) -> Iterator[str]:
    place = 0
    for number, row in enumerate(_rows(names)):
        x, y = float(_LEFT), _TITLE + 14 + number * _ROW
        for name in row:
            dash = _DASHES[place % len(_DASHES)] or "none"
            color = place % len(_LIGHT)
            yield f'<path class="lb-line lb-line{color}" stroke-dasharray="{dash}" d="M{x:.1f} {y - 4}h28"/>'
            yield _marker(x + 14, y - 4, place)
            yield _text(x + 36, y, name, "start")
            x += _width(name)
            place += 1


def _rows(names: Sequence[str]) -> list[list[str]]:
    """The entries of the legend, as many in a row as fit."""
    rows: list[list[str]] = []
    used = math.inf
    for name in map(_clipped, names):
        if used + _width(name) > _WIDTH - _LEFT - _RIGHT:
            rows.append([])
            used = 0.0
        rows[-1].append(name)
        used += _width(name)
    return rows


def _width(name: str) -> float:
    return 36 + _LETTER * len(name) + 24


def _clipped(text: str, most: int = _MOST_LETTERS) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


# Words.


def _number(value: float) -> str:
    """As people write it; an axis needs three digits."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{float(f'{value:.3g}'):g}"


def _clean(text: str) -> str:
    """Foreign text as text: escaped, and without characters that XML does not allow."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return escape(plain, {'"': "&quot;"})


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_clean(text)}</text>'


def _svg(title: str, description: str, parts: Sequence[str]) -> str:
    name = f"lb-{digest(title + description, size=6)}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" aria-labelledby="{name}-title {name}-desc" class="lb-chart">'
    )
    return "\n".join(
        [
            head,
            f'<title id="{name}-title">{_clean(title)}</title>',
            f'<desc id="{name}-desc">{_clean(description)}</desc>',
            f"<style>{_style()}</style>",
            f'<rect class="lb-ground" width="{_WIDTH}" height="{_HEIGHT}"/>',
            f'<g class="lb-title">{_text(_LEFT, 22, _clipped(title, _MOST_TITLE), "start")}</g>',
            *parts,
            "</svg>\n",
        ]
    )


def _style() -> str:
    """Light, and dark for readers who prefer it."""
    fixed = (
        ".lb-chart{max-width:100%;height:auto}"
        ".lb-chart text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
        ".lb-title text{font-size:15px;font-weight:600}"
        ".lb-line,.lb-bar{fill:none;stroke-width:2;stroke-linejoin:round}"
        ".lb-bar{stroke-width:6;stroke-opacity:.3}.lb-band{fill-opacity:.18}"
        ".lb-grid,.lb-axis,.lb-mark{fill:none;stroke-width:1}.lb-mark{stroke-dasharray:4 3}"
    )
    light = _colors("#ffffff", "#1f2328", "#d8dee4", "#6e7781", _LIGHT)
    dark = _colors("#0d1117", "#e6edf3", "#30363d", "#8b949e", _DARK)
    return f"{fixed}{light}@media(prefers-color-scheme:dark){{{dark}}}"


def _colors(ground: str, ink: str, grid: str, axis: str, lines: Sequence[str]) -> str:
    rules = (
        f".lb-ground{{fill:{ground}}}.lb-chart text{{fill:{ink}}}.lb-grid{{stroke:{grid}}}"
        f".lb-axis,.lb-mark{{stroke:{axis}}}"
    )
    return rules + "".join(
        f".lb-line{place}{{stroke:{color}}}.lb-fill{place}{{fill:{color}}}" for place, color in enumerate(lines)
    )
