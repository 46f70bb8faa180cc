"""What happened in each slice of a window: enough to see how steady it was.

A slice is a tenth of a second. Where a window would have more than `_MOST_SLICES` of them, as after seven minutes, they
are merged by two, and again as often as needed: a level of an hour takes no more memory than one of seven minutes.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    Row = np.ndarray[Any, np.dtype[np.float64]]

SLICE_NS = 100_000_000
# Even. Half as many are still a hundred for each of the twenty batches that are made of them.
_MOST_SLICES = 4096
# Values are gathered up to this number and then counted all at once.
_GATHERED = 2048


class Slices:
    """Values by the slice that their moment lies in: their sum and, with `changes`, their number and their sum weighted
    by the rest of the slice. What came before the window opens counts as it opens; `opens_ns` may be moved until then.
    """

    def __init__(self, opens_ns: int, *, changes: bool = False) -> None:
        self.opens_ns = opens_ns
        self.slice_ns = SLICE_NS
        self._moments = array("q")
        self._values = array("d")
        self._rows: Row = np.zeros((3 if changes else 1, _MOST_SLICES))

    def add(self, at_ns: int, value: float) -> None:
        """Add one value."""
        self._moments.append(at_ns)
        self._values.append(value)
        if len(self._moments) >= _GATHERED:
            self.count()

    def add_tokens(self, stamps: array[int], tokens: array[int] | None, total: float) -> None:
        """Add tokens by the stamps of their events; spread evenly if `tokens` is unknown."""
        self._moments.extend(stamps)
        if tokens is None:
            self._values += array("d", (total / len(stamps),)) * len(stamps)
        else:
            self._values.frombytes(np.asarray(tokens, np.float64).tobytes())
        if len(self._moments) >= _GATHERED:
            self.count()

    def count(self) -> int:
        """Count what has been gathered; the length of the slices that this takes, in ns."""
        if not self._moments:
            return self.slice_ns
        since = np.maximum(np.frombuffer(self._moments, np.int64) - self.opens_ns, 0)
        values = np.frombuffer(self._values, np.float64)
        latest_ns = int(since.max())
        while latest_ns >= _MOST_SLICES * self.slice_ns:
            self.merge(2 * self.slice_ns)
        places = since // self.slice_ns
        left = 1 - (since - places * self.slice_ns) / self.slice_ns
        kinds = (values, None, values * left)[: len(self._rows)]
        self._rows += np.stack([np.bincount(places, weights=kind, minlength=_MOST_SLICES) for kind in kinds])
        self._moments, self._values = array("q"), array("d")
        return self.slice_ns

    def merge(self, slice_ns: int) -> None:
        """Merge slices by two until they are this long."""
        while self.slice_ns < slice_ns:
            pairs = self._rows.reshape(len(self._rows), -1, 2)
            merged = pairs.sum(axis=2)
            if len(merged) > 1:
                # After a moment in the first half of a slice all of the second half is left as well.
                merged[2] = (merged[2] + pairs[0, :, 0]) / 2
            self._rows = np.concatenate((merged, np.zeros_like(merged)), axis=1)
            self.slice_ns *= 2

    def absorb(self, other: Slices) -> None:
        """Add what a part of the load counted, whose window opened then too."""
        slice_ns = max(self.count(), other.count())
        self.merge(slice_ns)
        other.merge(slice_ns)
        self._rows[:, : other._rows.shape[1]] += other._rows

    def __getstate__(self) -> tuple[int, int, Row]:
        self.count()
        used = int(np.flatnonzero(self._rows.any(axis=0)).max(initial=-1)) + 1
        return self.opens_ns, self.slice_ns, self._rows[:, : used + used % 2].copy()

    def __setstate__(self, state: tuple[int, int, Row]) -> None:
        self.opens_ns, self.slice_ns, self._rows = state
        self._moments, self._values = array("q"), array("d")

    def rows(self, closes_ns: int) -> Row:
        """What is known of each whole slice before that moment."""
        self.count()
        whole = max(0, closes_ns - self.opens_ns) // self.slice_ns
        rows = np.zeros((len(self._rows), whole))
        known = self._rows[:, :whole]
        rows[:, : known.shape[1]] = known
        return rows

    def until(self, closes_ns: int) -> tuple[float, ...]:
        """The sum of each whole slice before that moment."""
        return tuple(self.rows(closes_ns)[0].tolist())

    def levels(self, closes_ns: int) -> tuple[float, ...]:
        """Where the values are changes: the mean of what they come to in each whole slice before that moment."""
        changes, _, left = self.rows(closes_ns)
        return tuple((np.cumsum(changes) - changes + left).tolist())

    def all_rows(self) -> Row:
        """What is known of every slice."""
        self.count()
        return self._rows

    def total(self) -> float:
        """The sum of all slices, including one that the window's end cuts."""
        self.count()
        return float(self._rows[0].sum())
