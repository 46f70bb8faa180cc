"""When tokens arrived, in slices of a tenth of a second: enough to see how steady the throughput was.

A level of an hour has 36,000 slices, whatever its throughput.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

SLICE_NS = 100_000_000
# Stamps are gathered up to this number and then counted all at once.
_GATHERED = 8192


class Slices:
    """Tokens by slice, from `opens_ns` on, which may be moved until there are any."""

    def __init__(self, opens_ns: int) -> None:
        self.opens_ns = opens_ns
        self._stamps = array("q")
        self._weights = array("d")
        self._counts: np.ndarray[Any, np.dtype[np.float64]] = np.zeros(0)

    def add(self, stamps: array[int], tokens: array[int] | None, total: float) -> None:
        """Add tokens by the stamps of their events, all after `opens_ns`; spread evenly if `tokens` is unknown."""
        self._stamps.extend(stamps)
        self._weights.extend(list(tokens) if tokens is not None else [total / len(stamps)] * len(stamps))
        if len(self._stamps) >= _GATHERED:
            self._count()

    def _count(self) -> None:
        if not self._stamps:
            return
        places = (np.frombuffer(self._stamps, np.int64) - self.opens_ns) // SLICE_NS
        weights = np.frombuffer(self._weights, np.float64)
        counts = np.bincount(places, weights=weights, minlength=len(self._counts)).astype(np.float64)
        counts[: len(self._counts)] += self._counts
        self._counts = counts
        self._stamps, self._weights = array("q"), array("d")

    def until(self, closes_ns: int) -> tuple[float, ...]:
        """Tokens of each whole slice before that moment."""
        self._count()
        whole = max(0, (closes_ns - self.opens_ns) // SLICE_NS)
        counts = np.zeros(whole)
        known = self._counts[:whole]
        counts[: len(known)] = known
        return tuple(counts.tolist())

    def total(self) -> float:
        """Tokens of all slices, including one that the window's end cuts."""
        self._count()
        return float(self._counts.sum())
