"""Numbers of the first requests of a level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    Numbers = np.ndarray[Any, np.dtype[Any]]


class FirstNumbers:
    """As many numbers as there is room for; `add` beyond that raises `IndexError`.

    The room is set aside at once: an array that grows moves, and what it leaves behind are holes in the memory of a
    process that runs for hours. Of the room beyond `expected` numbers only the addresses are set aside.
    """

    __slots__ = ("_numbers", "count", "most")

    def __init__(self, most: int, code: Literal["q", "d", "f"], *, expected: int | None = None) -> None:
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
