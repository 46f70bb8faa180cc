"""`compare-capacity.json`: the capacity searches of two sides against each other, as types (`compare --capacity`).

Within a version of the schema fields may be added:

    loadbench.compare-capacity/1   the first
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from loadbench.core.errors import BadInput
from loadbench.results.capacity import Capacity  # noqa: TC001 - msgspec reads the types
from loadbench.results.folder import UNREADABLE, read_plain
from loadbench.results.run import OpenInterval  # noqa: TC001

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = "loadbench.compare-capacity/1"
FILE: Final = "compare-capacity.json"
# The folder of each side's search, inside that of the comparison.
_FOLDERS: Final = ("a", "b")


class SearchedSide(msgspec.Struct, frozen=True, kw_only=True):
    """One side: its search, or why there is none (`problem`), and what a user costs.

    `plan` is the number of users, or requests per second, to plan with: the low end of `range`, which is the range of
    the answer that the search gives. An end that is not known is null; a side that no load is light enough for has 0.
    `cost_per_unit_month` is the cost of the machine in a month, always on, divided by `plan`; its electricity is that
    of the level measured nearest to it. `load_from` says which workers made its load; empty where it was one process.
    """

    name: Literal["a", "b"]
    model: str = ""
    target: str = ""
    device: str | None = None
    simulated: bool = False
    capacity: Capacity | None = None
    problem: str = ""
    plan: float | None = None
    range: OpenInterval = (None, None)
    cost_per_unit_month: float | None = None
    load_from: str = ""


class CapacityComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two sides searched one after the other. `ratio` is b over a of the best estimates of two answers, and `interval`
    contains the true one where both ranges contain theirs, which holds with at least `confidence`; an end that is not
    known is null.

    `decision` speaks of b: "more" or "fewer" where the interval excludes 1. `unit` is what is counted.
    """

    schema: Literal["loadbench.compare-capacity/1"] = SCHEMA
    a: SearchedSide
    b: SearchedSide
    unit: Literal["users", "requests/s"] = "users"
    objectives: list[str] = []
    ratio: float | None = None
    interval: OpenInterval = (None, None)
    confidence: float | None = None
    decision: Literal["more", "fewer", "~"] = "~"
    currency: str | None = None
    conclusion: str
    complete: bool = False


def searches_in(folder: Path) -> list[Path]:
    """The folders of the searches in that of a comparison. A link leads to what is no part of it."""
    parts = [folder / name for name in _FOLDERS]
    return [part for part in parts if not part.is_symlink() and (part / "run.json").is_file()]


def read_capacity_comparison(folder: Path) -> CapacityComparison:
    """The comparison in a folder; raises `BadInput` if there is none that this version can read."""
    try:
        return msgspec.json.decode(read_plain(folder / FILE), type=CapacityComparison)
    except OSError as error:
        raise BadInput(f"{folder / FILE}: {error.strerror or error}", hint="name its folder, under results/") from None
    except UNREADABLE as error:
        hint = "if the file is damaged, restore it; if another version of loadbench wrote it, use that one"
        raise BadInput(f"{folder / FILE}: not a comparison that this version can read: {error}", hint=hint) from None
