"""Numbers of the first requests of a level, and of those of its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Numbers = np.ndarray[Any, np.dtype[Any]]

# Of very many parts each has room for a few requests.
_FEWEST = 64


def room_of(most: int, parts: int) -> int:
    """How many of `most` one of so many parts has room for: twice its share, as parts may differ."""
    return most if parts == 1 else min(most, max(_FEWEST, 2 * most // parts))


class FirstRows:
    """Some numbers of each of the requests that ended first; of a level in `parts`, as many as these have room for.

    `codes` are those of numpy: `q` for integers, `d` and `f` for others. What several parts have is the first of all:
    those that ended before one of the parts had no more room. The room is set aside at once: an array that grows moves,
    and what it leaves behind are holes in the memory of a process that runs for hours.
    """

    def __init__(self, most: int, codes: str, *, parts: int = 1) -> None:
        self._most = most
        self._room, self._count, self._has_all = room_of(most, parts), 0, True
        self._columns: list[Numbers] = [np.empty(self._room, code) for code in ("q", *codes)]
        for column in self._columns:
            column[:] = 0
        self._others: list[tuple[list[Numbers], bool]] = []

    @property
    def is_full(self) -> bool:
        """Whether there is room for no more."""
        return self._count == self._room

    def add(self, end_ns: int, *row: float) -> None:
        """Add a request that ended then, if there is room."""
        count = self._count
        if count == self._room:
            self._has_all = False
            return
        for column, number in zip(self._columns, (end_ns, *row), strict=True):
            column[count] = number
        self._count = count + 1

    def absorb(self, other: FirstRows) -> None:
        """Add those of a part."""
        self._others += other._others or [([column[: other._count] for column in other._columns], other._has_all)]

    def __getstate__(self) -> tuple[object, ...]:
        columns = [column[: self._count] for column in self._columns]
        codes = "".join("q" if column.dtype == np.int64 else "d" for column in columns)
        rows = [one if code == "q" else one.astype("d").view("q") for code, one in zip(codes, columns, strict=True)]
        return self._most, codes, np.stack(rows), self._has_all

    def __setstate__(self, state: tuple[int, str, Numbers, bool]) -> None:
        self._most, codes, rows, has_all = state
        columns = [row.view(code) for code, row in zip(codes, rows, strict=True)]
        self._room = self._count = 0
        self._columns, self._has_all, self._others = [], True, [(columns, has_all)]

    def columns(self) -> list[Numbers]:
        """The numbers of these requests, one array for each of a row."""
        if not self._others:
            return [column[: self._count] for column in self._columns[1:]]
        ends, *columns = (np.concatenate(parts) for parts in zip(*(one for one, _ in self._others), strict=True))
        order = np.argsort(ends, kind="stable")[: self._most]
        complete = min((int(one[0].max(initial=0)) for one, has_all in self._others if not has_all), default=None)
        if complete is not None:
            order = order[ends[order] <= complete]
        return [column[order] for column in columns]
