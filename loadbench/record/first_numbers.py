"""Numbers of the first requests of a level, and of those of its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Numbers = np.ndarray[Any, np.dtype[Any]]


class FirstNumbers:
    """As many numbers as there is room for; `add` beyond that raises `IndexError`.

    The room is set aside at once: an array that grows moves, and what it leaves behind are holes in the memory of a
    process that runs for hours. Of the room beyond `expected` numbers only the addresses are set aside.
    """

    __slots__ = ("_numbers", "count", "most")

    def __init__(self, most: int, code: str, *, expected: int | None = None) -> None:
        self.most, self.count = most, 0
        self._numbers: Numbers = np.empty(most, code)
        self._numbers[:expected] = 0

    def add(self, number: float) -> None:
        """Add one."""
        self._numbers[self.count] = number
        self.count += 1

    @property
    def is_full(self) -> bool:
        """Whether there is room for no more."""
        return self.count == self.most

    @property
    def numbers(self) -> Numbers:
        """Those added so far."""
        return self._numbers[: self.count]


# Of very many parts each has room for a few requests.
_FEWEST = 64


def room_of(most: int, parts: int) -> int:
    """How many of `most` one of so many parts has room for: twice its share, as parts may differ."""
    return most if parts == 1 else min(most, max(_FEWEST, 2 * most // parts))


class FirstRows:
    """Some numbers of each of the requests that ended first; of a level in `parts`, as many as these have room for.

    What several parts have is the first of all: those that ended before one of the parts had no more room.
    """

    def __init__(self, most: int, codes: str, *, parts: int = 1) -> None:
        self._most = most
        self._columns = [FirstNumbers(room_of(most, parts), code) for code in ("q", *codes)]
        self._has_all = True
        self._others: list[tuple[list[Numbers], bool]] = []

    @property
    def is_full(self) -> bool:
        """Whether there is room for no more."""
        return self._columns[0].is_full

    def add(self, end_ns: int, *row: float) -> None:
        """Add a request that ended then, if there is room."""
        if self.is_full:
            self._has_all = False
            return
        for column, number in zip(self._columns, (end_ns, *row), strict=True):
            column.add(number)

    def absorb(self, other: FirstRows) -> None:
        """Add those of a part."""
        self._others += other._others or [([column.numbers for column in other._columns], other._has_all)]

    def __getstate__(self) -> tuple[object, ...]:
        numbers = [column.numbers for column in self._columns]
        codes = "".join("q" if each.dtype == np.int64 else "d" for each in numbers)
        rows = [each if code == "q" else each.astype("d").view("q") for code, each in zip(codes, numbers, strict=True)]
        return self._most, codes, np.stack(rows), self._has_all

    def __setstate__(self, state: tuple[int, str, Numbers, bool]) -> None:
        self._most, codes, rows, has_all = state
        columns = [row.view(code) for code, row in zip(codes, rows, strict=True)]
        self._columns, self._has_all, self._others = [], True, [(columns, has_all)]

    def columns(self) -> list[Numbers]:
        """The numbers of these requests, one array for each of a row."""
        if not self._others:
            return [column.numbers for column in self._columns[1:]]
        ends, *columns = (np.concatenate(parts) for parts in zip(*(one for one, _ in self._others), strict=True))
        order = np.argsort(ends, kind="stable")[: self._most]
        complete = min((int(one[0].max(initial=0)) for one, has_all in self._others if not has_all), default=None)
        if complete is not None:
            order = order[ends[order] <= complete]
        return [column[order] for column in columns]
