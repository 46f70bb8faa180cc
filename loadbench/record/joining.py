"""Puts together what the parts of a load counted, as if one recorder had counted all of it.

Counts, sums and histograms add up, which is exact. What does not is joined where it is kept, by a method `absorb`: the
first requests (`loadbench.record.first_numbers`), moments (`loadbench.record.stretches`), outages.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from loadbench.record.histogram import Histogram

T = TypeVar("T")


def plus(one: T, other: T) -> T:
    """`one`, changed into what both are together. Of two texts it is the first that is not empty."""
    mine: Any = one
    theirs: Any = other
    if isinstance(mine, Histogram):
        mine.merge(theirs)
    elif hasattr(mine, "absorb"):
        mine.absorb(theirs)
    elif isinstance(mine, str):
        return one or other
    elif isinstance(mine, dict):
        for key, value in theirs.items():
            mine[key] = plus(mine[key], value) if key in mine else value
    elif is_dataclass(mine):
        for each in fields(mine):
            setattr(mine, each.name, plus(getattr(mine, each.name), getattr(theirs, each.name)))
    else:
        return mine + theirs  # type: ignore[no-any-return]
    return one
