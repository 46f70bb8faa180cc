"""Durations and rates as people write them, converted to integers of nanoseconds and floats per second.

Inside loadbench a time is an `int` in nanoseconds and its name ends in `_ns`. Other units exist only here and in
`report`.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

NS_PER_S = 1_000_000_000

_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "min": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
    "d": 24 * 3600 * NS_PER_S,
    "w": 7 * 24 * 3600 * NS_PER_S,
}
_NUMBER_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([a-zµ]+)")
_RATE = re.compile(r"((?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:e[+-]?[0-9]+)?)\s*(?:/\s*([a-zµ]+))?")
# Longer than any test and below every overflow: more than this is a typing error.
_LONGEST_NS = 366 * 24 * 3600 * NS_PER_S


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as `250ms`, `2m`, `1m30s`, or `0`.

    Raises `ValueError` with the reason; a number without a unit is refused, except zero.
    """
    written = text.strip().lower()
    if written in {"0", "0.0"}:
        return 0
    if not re.fullmatch(rf"(?:{_NUMBER_UNIT.pattern}\s*)+", written):
        raise ValueError(f"{text!r} is not a duration; write a number with its unit, as in 250ms, 30s, 2m or 1m30s")
    total = Fraction(0)  # a float would lose the nanoseconds of long times
    for number, unit in _NUMBER_UNIT.findall(written):
        if unit not in _UNIT_NS:
            raise ValueError(f"{text!r} has the unknown unit {unit!r}; write ms, s, m, h or d, as in 250ms, 30s, 2m")
        total += Fraction(number) * _UNIT_NS[unit]
    if total > _LONGEST_NS:
        raise ValueError(f"{text!r} is longer than a year")
    return round(total)


def parse_rate(text: str) -> float:
    """Requests per second of a rate such as `10`, `0.5`, `1e-05`, `10/s` or `30/min`.

    Raises `ValueError` with the reason; a rate must be above zero.
    """
    written = text.strip().lower()
    match = _RATE.fullmatch(written)
    if match is None:
        raise ValueError(f"{text!r} is not a rate; write requests per time, as in 10/s, 0.5 or 30/min")
    number, unit = match.groups()
    if unit is not None and unit not in _UNIT_NS:
        raise ValueError(f"{text!r} has the unknown unit {unit!r}; write /s, /min, /h or /d")
    rate = float(number) * NS_PER_S / _UNIT_NS[unit or "s"]
    if not 0 < rate < math.inf:
        raise ValueError(f"{text!r} must be above 0 requests per second")
    return rate


def format_duration(ns: int) -> str:
    """A duration as `parse_duration` reads it: `90000000000` is `1m30s`."""
    if ns == 0:
        return "0s"
    if ns % 1_000_000_000 == 0:
        minutes, seconds = divmod(ns // NS_PER_S, 60)
        if minutes and seconds:
            return f"{minutes}m{seconds}s"
        return f"{minutes}m" if minutes else f"{seconds}s"
    for unit in ("ms", "us", "ns"):
        if ns % _UNIT_NS[unit] == 0 and ns < 1000 * NS_PER_S:
            value = ns // _UNIT_NS[unit]
            return f"{value / 1000:g}s" if unit == "ms" and value >= 1000 else f"{value}{unit}"
    return f"{ns}ns"
