"""Moments of a level: all of them in a short one; in a long one those of stretches that are spread evenly over it.

What a request met is known only where every start and every end around it is, so single requests cannot be picked. Once
there is no room for more, the time is divided into stretches, of which every second is kept, later every fourth, and so
on. Of the other stretches only the number of moments is kept, so the rank of a kept moment stays exact.

The parts of a load divide the time each by itself. Their stretches are a power of two long, so that those which all of
them keep can be found: they are kept of the whole, and every rank among all stays exact.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Integers = np.ndarray[Any, np.dtype[np.int64]]

# When they are first divided. Half of these are left: two for each of the batches that are judged, each long beside a
# usual wait.
_STRETCHES = 80
# A level that becomes much slower would have ever more groups.
_MOST_GROUPS = 4096
_GATHERED = 2048


class Stretches:
    """How the window is divided: a *group* is a stretch that is kept and those after it that are not.

    `opens_ns` is when the window opens. Of moments before it only the number is kept. With `is_part` others divide the
    same time.
    """

    def __init__(self, opens_ns: int, *, is_part: bool = False) -> None:
        self._is_part = is_part
        self.opens_ns = opens_ns
        self.width_ns = 0  # of a stretch; 0 as long as all is kept
        self.every = 1  # how many stretches a group has
        self.members: list[SpreadMoments] = []

    def places(self, at_ns: Integers) -> tuple[Integers, np.ndarray[Any, np.dtype[np.bool_]]]:
        """The group of each moment, and whether its stretch is kept."""
        stretch = np.maximum(at_ns - self.opens_ns, 0) // (self.width_ns or 1 << 62)
        return stretch // self.every, stretch % self.every == 0

    def open(self, at_ns: int) -> None:
        """The window opens then; all that was added came before."""
        for member in self.members:
            member.open()
        self.opens_ns, self.width_ns, self.every = at_ns, 0, 1

    def divide(self, latest_ns: int) -> None:
        """Keep half as many stretches, of the time until then."""
        latest_ns = max(latest_ns, *(int(member.rows[0].max(initial=0)) for member in self.members))
        if not self.width_ns:
            self.width_ns = max(1, -(-(latest_ns - self.opens_ns) // _STRETCHES))
            if self._is_part:
                self.width_ns = 1 << (self.width_ns.bit_length() - 1)
        self.every *= 2
        for member in self.members:
            member.divide()

    def absorb(self, parts: Sequence[Stretches]) -> None:
        """Have what all these parts have, whose window opened at one time; there is nothing here yet."""
        for part in parts:
            part.settle()
        widths = [part.width_ns for part in parts if part.width_ns]
        if widths:
            width_ns, latest_ns = min(widths), max(part.latest_ns for part in parts)
            every = max(part.width_ns * part.every // width_ns for part in parts)
            while latest_ns - self.opens_ns >= _MOST_GROUPS * width_ns * every:
                every *= 2
            for part in parts:
                part.keep(width_ns, every)
            self.width_ns, self.every = width_ns, every
        for place, member in enumerate(self.members):
            member.absorb([part.members[place] for part in parts])
        while any(member.count > member.most for member in self.members):
            if self.every > _STRETCHES * _MOST_GROUPS:
                for member in self.members:
                    member.is_full = True
                break
            self.divide(self.latest_ns)

    def settle(self) -> None:
        """Find a place for all that has been gathered; for one kind, another may have to leave some out."""
        for member in self.members:
            member.settle()

    def __getstate__(self) -> dict[str, object]:
        self.settle()  # which may divide the time
        return self.__dict__

    def keep(self, width_ns: int, every: int) -> None:
        """Keep no more than this of every so many stretches, whose groups are as long as those so far, or longer."""
        if not self.width_ns:
            self.width_ns, self.every = width_ns, every
        else:
            self.every, self.width_ns = self.every * (self.width_ns // width_ns), width_ns
        for member in self.members:
            member.leave_out()
        while self.every < every:
            self.every *= 2
            for member in self.members:
                member.divide()

    @property
    def latest_ns(self) -> int:
        """The last moment that is kept."""
        return max(int(member.rows[0].max(initial=self.opens_ns)) for member in self.members)


class SpreadMoments:
    """Moments in ns, in any order, each with as many other integers as there are `columns` beside it."""

    def __init__(
        self,
        stretches: Stretches,
        most: int,
        *,
        columns: int = 0,
        expected: int | None = None,
        whole: int | None = None,
    ) -> None:
        self._stretches, self.most = stretches, most
        self._whole = most if whole is None else whole  # of the level that this is a part of
        self._rows: Integers = np.empty((1 + columns, most), np.int64)
        self._rows[:, :expected] = 0  # these are set aside at once, as by `FirstRows`
        self._gathered = array("q")
        self._left_out: Integers = np.zeros(_MOST_GROUPS, np.int64)  # by group
        self.before = self.count = 0
        self.is_full = False  # nearly all came in the first stretch, so no division made room: nothing is known
        stretches.members.append(self)

    def add(self, *row: int) -> None:
        """Add one moment and what stands beside it."""
        self._gathered.extend(row)
        if len(self._gathered) >= _GATHERED * len(row):
            self.settle()

    def settle(self) -> None:
        """Find a place for what has been gathered."""
        added = np.frombuffer(self._gathered, np.int64).reshape(-1, len(self._rows)).T.copy()
        self._gathered = array("q")
        stretches, inside = self._stretches, added[0] >= self._stretches.opens_ns
        self.before += int(np.count_nonzero(~inside))
        added = added[:, inside]
        while added.size:
            groups, kept = stretches.places(added[0])
            until = self.count + int(np.count_nonzero(kept))
            if until <= self.most and groups.max() < _MOST_GROUPS:
                self._left_out += np.bincount(groups[~kept], minlength=_MOST_GROUPS)
                self._rows[:, self.count : until] = added[:, kept]
                self.count = until
                break
            if stretches.every > _STRETCHES * _MOST_GROUPS:
                self.is_full = True
                break
            stretches.divide(int(added[0].max()))

    def open(self) -> None:
        """The window opens after all that was added."""
        self.settle()
        self.before += self.count + int(self._left_out.sum())
        self.count = self._left_out[:] = 0

    def divide(self) -> None:
        """Leave out what is not kept any longer; of two old groups the first stretch of the first is kept."""
        groups, kept = self._stretches.places(self._rows[0, : self.count])
        left_out = self._left_out.reshape(-1, 2).sum(axis=1)
        self._left_out = np.concatenate((left_out, np.zeros_like(left_out)))
        self._leave_out(groups, kept)

    def leave_out(self) -> None:
        """Leave out what is not kept any longer, of the same groups."""
        self._leave_out(*self._stretches.places(self._rows[0, : self.count]))

    def _leave_out(self, groups: Integers, kept: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
        self._left_out += np.bincount(groups[~kept], minlength=_MOST_GROUPS)
        staying = self._rows[:, : self.count][:, kept]
        self.count = staying.shape[1]
        self._rows[:, : self.count] = staying

    def absorb(self, parts: Sequence[SpreadMoments]) -> None:
        """Have what all these parts have, which keep the same stretches."""
        self.most = self._whole
        self._rows = np.concatenate([part.rows for part in parts], axis=1) if parts else self.rows
        self.count = self._rows.shape[1]
        self.before = sum(part.before for part in parts)
        self.is_full = any(part.is_full for part in parts)
        if self._stretches.width_ns:
            for part in parts:
                self._left_out += part.left_out

    def __getstate__(self) -> dict[str, object]:
        self._stretches.settle()
        left_out = self._left_out[: int(np.flatnonzero(self._left_out).max(initial=-1)) + 1]
        return {**self.__dict__, "_rows": self.rows.copy(), "_gathered": b"", "_left_out": left_out.tobytes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        left_out = np.frombuffer(state["_left_out"], np.int64)
        self.__dict__.update(state, _gathered=array("q"), _left_out=np.zeros(_MOST_GROUPS, np.int64))
        self._left_out[: len(left_out)] = left_out

    @property
    def left_out(self) -> Integers:
        """How many moments are not kept, by group."""
        return self._left_out

    @property
    def rows(self) -> Integers:
        """Those kept: moments, and what stands beside them."""
        return self._rows[:, : self.count]

    def ranked(self) -> RankedMoments:
        """Those kept, in order, with their ranks among all; all members have been settled."""
        moments = np.sort(self.rows[0])
        kept = np.bincount(self._stretches.places(moments)[0], minlength=_MOST_GROUPS)
        return RankedMoments(self._stretches, moments, self.before, kept, self._left_out)


class RankedMoments:
    """The moments that are kept, in order, and the ranks of moments in the stretches that are kept among all."""

    def __init__(
        self, stretches: Stretches, moments: Integers, before: int, kept: Integers, left_out: Integers
    ) -> None:
        self.moments = moments
        self._stretches, self._kept = stretches, kept
        # Of all and of those kept, how many came before each group; one value more than groups.
        self._all = before + np.concatenate(([0], np.cumsum(kept + left_out)))
        self._first = np.concatenate(([0], np.cumsum(kept)))

    def rank(self, at_ns: Integers, side: Literal["left", "right"]) -> Integers:
        """How many of all came before these moments of kept stretches; with "right", or at them."""
        group = self._stretches.places(at_ns)[0]
        return self._all[group] + np.searchsorted(self.moments, at_ns, side) - self._first[group]

    def at(self, rank: Integers, due_ns: Integers) -> np.ndarray[Any, np.dtype[np.float64]]:
        """When those of these ranks came. -inf before the window, or where it is only known that it was before
        `due_ns`; NaN where it is not known."""
        group = np.clip(np.searchsorted(self._all, rank, "right") - 1, 0, _MOST_GROUPS - 1)
        place = rank - self._all[group]
        is_kept = (place >= 0) & (place < self._kept[group])
        ends_ns = self._stretches.opens_ns + (group + 1) * (self._stretches.every * self._stretches.width_ns)
        is_earlier = (place < 0) | ((place < self._all[group + 1] - self._all[group]) & (ends_ns <= due_ns))
        at_ns = np.where(is_earlier, -np.inf, np.nan)
        at_ns[is_kept] = self.moments[(self._first[group] + place)[is_kept]]
        return at_ns

    def knows(self, at_ns: Integers) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether these moments lie in stretches that are kept."""
        return self._stretches.places(at_ns)[1]

    def lasting(self, at_ns: Integers) -> Integers:
        """The time from each of these ordered moments to the next; 0 to one of another stretch, and after the last."""
        lasting, group = np.diff(at_ns, append=at_ns[-1:]), self._stretches.places(at_ns)[0]
        return np.where(np.diff(group, append=group[-1:]), 0, lasting)
