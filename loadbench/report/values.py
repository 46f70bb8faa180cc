"""Values as people read them: three digits and the unit that suits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import LevelResult

# An interval whose middle is further from the value than this share of the value is not read as value ± half of it.
OFF_CENTRE = 0.05
# What to know of the first tokens of a server, cold and warm.
ALONE_BEFORE = "each alone before the levels, whose prompts may be longer or shorter"
NOT_FASTER = "the warm one was not faster: nothing had to be loaded, or something else delayed it"


def significant(value: float) -> str:
    """Three significant digits, never as a power of ten."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    # The digits are those of the rounded value: 9.996 is 10.0, not 10.00.
    digits = max(0, 2 - math.floor(math.log10(float(f"{abs(value):.2e}"))))
    return f"{value:.{min(digits, 6)}f}"


def duration(seconds: float) -> str:
    """`850 µs`, `41.3 ms`, `1.62 s`."""
    unit, scale = time_unit(seconds)
    return f"{significant(seconds * scale)} {unit}"


def time_unit(seconds: float) -> tuple[str, float]:
    """The unit that suits this duration, and how many of it a second has."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 0.9995 or (unit == "s" and seconds == 0):
            return unit, scale
    return "µs", 1e6


def alone_text(factor: float | None) -> str:
    """What the interval of a rate does not hold, to stand behind it: how much other programs on the machine may have
    taken from it."""
    return "" if factor is None else f", with other programs at work: alone maybe about {factor:.2g} times as fast"


def percent(share: float) -> str:
    """A share of 1 as `98.4 %`, trailing zeros dropped."""
    return f"{100 * share:.3g} %"


def spread(value: float, low: float, high: float, *, scale: float = 1.0) -> str:
    """How well a value is known, to stand behind it: half the width of its interval as a share of the value (`±0.3 %`,
    `±12 %`; rounded up, so never 0), or the two ends, `(9.8–141)`, in a unit of which the value's own has `scale`.

    The ends stand where ± would mislead, because the middle of the interval is more than 5 % away from the value."""
    if abs((low + high) / 2 - value) > OFF_CENTRE * abs(value):
        high_text = _end(high * scale)
        high_text = significant(high * scale) if float(high_text) < value * scale else high_text
        return f"({low_end(value * scale, low * scale)}–{high_text})"
    tenths = max(1, math.ceil(1000 * (high - low) / 2 / value - 1e-6)) if value else 1
    return f"±{tenths / 10:g} %" if tenths < 10 else f"±{math.ceil(tenths / 10)} %"


def low_end(value: float, low: float) -> str:
    """The lower end of the interval of a value, as it stands behind it: not rounded to the other side of the value,
    which would look wrong: 10.3 (7.2–10)."""
    text = _end(low)
    return significant(low) if float(text) > value else text


def _end(value: float) -> str:
    """Two significant digits: an end is an estimate itself; but no digit before the decimal point is dropped."""
    if value == 0:
        return "0"
    return f"{value:.{min(6, max(0, 1 - math.floor(math.log10(float(f'{abs(value):.1e}')))))}f}"


def byte_size(amount: float) -> str:
    """Bytes in powers of two, of memory and files alike: `65.5 KiB`, `450 MiB`, `1.02 GiB`."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if amount >= 0.9995 * scale:
            return f"{significant(amount / scale)} {unit}"
    return f"{amount:.0f} B"


def counted(number: int, noun: str) -> str:
    """`1 run`, `6 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def reason_text(message: str, code: str) -> str:
    """A reason with its code, which `loadbench explain` and the documents know."""
    return f"{message} ({code})" if code else message


def clipped(text: str, most: int) -> str:
    """The first `most` letters; `…` stands for the rest."""
    return text if len(text) <= most else text[: most - 1] + "…"


def load_name(level: LevelResult, levels: Sequence[LevelResult]) -> str:
    """The load of one of these levels, in a table; in a capacity search only some of them have think times."""
    with_think = any(getattr(one.load, "think", None) for one in levels)
    return level.load.label + (", no think time" if with_think and not getattr(level.load, "think", None) else "")
