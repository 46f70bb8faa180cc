"""How a level went over time: whether it was steady, and how its requests are correlated.

Requests in flight, responses being generated and times to first token are kept by slices, as tokens are. Of single
requests the figures of the first `_MOST_KEPT` are kept, in the order in which they were due: enough to see how much one
says about the next. What a request met is kept of as many, spread over the whole level (`loadbench.record.stretches`):
enough to see whether the later ones fared like the earlier. So a level takes no more memory from then on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from loadbench.record.first_numbers import FirstRows, room_of
from loadbench.record.slices import Slices
from loadbench.record.stretches import SpreadMoments, Stretches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.record.sample import Sample

    Row = np.ndarray[Any, np.dtype[np.float64]]
    from loadbench.record.stretches import Integers, RankedMoments

# The figures that are kept request by request.
KEPT: Final = ("ttft_response", "e2e_response", "tpot")
_MOST_KEPT = 16_384
# Starts and ends of requests, failed ones among them: enough for the requests kept.
_MOST_CHANGES = 4 * _MOST_KEPT
# A number of responses counts as generated together if it is for this share of the time.
_TOGETHER = 0.002
_UNKNOWN = -1  # tokens


class RequestStart(NamedTuple):
    """What a request met, and what it asked for; unknown is NaN."""

    ttft_ns: float  # since due
    in_flight: float  # other requests as it was sent
    input_tokens: float
    output_tokens: float
    prefill_ns: float = math.nan  # TTFT without the wait for a place; see `_prefill`


@dataclass(frozen=True, slots=True)
class Timeline:
    """By whole slices of the window, and request by request; times in ns."""

    in_flight: tuple[float, ...] = ()  # mean of each slice
    ttft_ns: tuple[float, ...] = ()  # sum of the response TTFTs of the measured requests due in each slice
    ttft_count: tuple[float, ...] = ()
    decoding: tuple[float, ...] = ()  # mean number of responses between their first and last token
    context: tuple[float, ...] = ()  # mean of the sum of their input tokens; 0 where the server reports none
    starts: tuple[RequestStart, ...] = ()  # as they were due, of the whole level
    succeeded: int = 0  # requests that `starts` stand for
    kept: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by name in KEPT, as they were due


class TimelineBuilder:
    """Makes a timeline of what happens, in any order; `opens_ns` is when the window opens, as far as it is known."""

    def __init__(self, opens_ns: int, *, parts: int = 1) -> None:
        self._parts: list[Stretches] = []
        self._in_flight, self._ttft, self._decoding, self._context = self.series = tuple(
            Slices(opens_ns, changes=True) for _ in range(4)
        )
        self._stretches = Stretches(opens_ns, is_part=parts > 1)
        most, changes = room_of(_MOST_KEPT, parts), room_of(_MOST_CHANGES, parts)
        # Moments at which requests started and ended, and those of the first and the last token of all responses.
        self._changes, self._tokens = (
            [SpreadMoments(self._stretches, changes, expected=most, whole=_MOST_CHANGES) for _ in range(2)]
            for _ in range(2)
        )
        # When a request was sent and due, its TTFT, and its lengths in tokens.
        self._sent = SpreadMoments(self._stretches, most, columns=4, whole=_MOST_KEPT)
        self._succeeded = 0
        self._first = FirstRows(_MOST_KEPT, "q" + "d" * len(KEPT), parts=parts)  # when it was due, its figures

    def opens(self, at_ns: int) -> None:
        """The window opens then; all that was added came before."""
        for by_slice in self.series:
            by_slice.opens_ns = at_ns
        self._stretches.open(at_ns)

    def change(self, at_ns: int, change: int) -> None:
        """The number of requests in flight changes by this much."""
        self._in_flight.add(at_ns, change)
        self._changes[change < 0].add(at_ns)

    def decode(self, sample: Sample) -> None:
        """A response was generated between its first and its last token."""
        if sample.first_token_ns is None or sample.last_token_ns is None:
            return
        for at_ns, change, moments in zip(
            (sample.first_token_ns, sample.last_token_ns), (1, -1), self._tokens, strict=True
        ):
            self._decoding.add(at_ns, change)
            self._context.add(at_ns, change * (sample.input_tokens or 0))
            moments.add(at_ns)

    def add(self, sample: Sample) -> None:
        """Add a measured request; its TTFT counts if it had a token, however it ended."""
        ttft_ns = sample.since_due(sample.first_token_ns)
        if ttft_ns is not None:
            self._ttft.add(sample.due_ns, ttft_ns)

    def keep(self, sample: Sample) -> None:
        """Keep the figures of a measured request that ended ok."""
        ttft_ns, sent_ns = sample.since_due(sample.first_token_ns), sample.sent_ns
        if ttft_ns is not None and sent_ns is not None:
            self._succeeded += 1
            tokens = (_UNKNOWN if each is None else each for each in (sample.input_tokens, sample.output_tokens))
            self._sent.add(sent_ns, sample.due_ns, ttft_ns, *tokens)
        if self._first.is_full:
            self._first.add(sample.end_ns)  # it is not all any more
            return
        figures = (ttft_ns, sample.since_due(sample.last_token_ns), sample.tpot())
        values = (math.nan if value_ns is None else value_ns for value_ns in figures)
        self._first.add(sample.end_ns, sample.due_ns, *values)

    def absorb(self, other: TimelineBuilder) -> None:
        """Add what a part of the load had, whose window opened then too; `combine` once all have been added."""
        for own, theirs in zip(self.series, other.series, strict=True):
            own.absorb(theirs)
        self._parts.append(other._stretches)
        self._first.absorb(other._first)
        self._succeeded += other._succeeded

    def combine(self, closes_ns: int) -> int:
        """Put the moments of all parts together; the most requests that were in flight in the window.

        Where not every moment was kept, it is the most in the stretches that were, and in the mean of any slice.
        """
        self._stretches.absorb(self._parts)
        started, ended = self._changes
        moments = np.concatenate((ended.rows[0], started.rows[0]))
        order = np.argsort(moments, kind="stable")  # ends come before starts of the same moment
        moments = moments[order]
        inside = (moments > self._stretches.opens_ns) & (moments < closes_ns)
        ranks = [one.ranked() for one in (started, ended)]
        if len(moments):
            changes = np.where(order < len(ended.rows[0]), -1, 1)
            met = started.before - ended.before + np.cumsum(changes)
            if self._stretches.width_ns:
                met = ranks[0].rank(moments, "right") - ranks[1].rank(moments, "right")
            first = started.before - ended.before + int(changes[moments <= self._stretches.opens_ns].sum())
            most = max(first, int(met[inside].max(initial=0)))
        else:
            most = started.before - ended.before
        if self._stretches.width_ns:
            most = max(most, math.ceil(round(max(self._in_flight.levels(closes_ns), default=0.0), 6)))
        return most

    def close(self, closes_ns: int) -> Timeline:
        """The timeline up to that moment."""
        sums, counts, _ = self._ttft.rows(closes_ns)
        due_ns, *figures = self._first.columns()
        order = np.argsort(due_ns, kind="stable")
        values = {name: row[order] for name, row in zip(KEPT, figures, strict=True)}
        kept = {name: tuple(row[~np.isnan(row)].tolist()) for name, row in values.items()}
        # Ends come before starts of the same moment.
        self._stretches.settle()
        started, ended, firsts, lasts = (moments.ranked() for moments in (*self._changes, *self._tokens))
        sent, due, ttft, *lengths = self._sent.rows[:, np.lexsort(self._sent.rows[[2, 0, 1]])]
        met = started.rank(sent, "left") - ended.rank(sent, "right")
        prefill = _prefill(due, due + ttft, firsts, lasts)
        starts = [ttft, met, *(np.where(row == _UNKNOWN, math.nan, row) for row in lengths), prefill]
        is_known = not any(moments.is_full for moments in self._stretches.members)
        return Timeline(
            in_flight=self._in_flight.levels(closes_ns),
            ttft_ns=tuple(sums.tolist()),
            ttft_count=tuple(counts.tolist()),
            decoding=self._decoding.levels(closes_ns),
            context=self._context.levels(closes_ns),
            starts=tuple(map(RequestStart._make, np.stack(starts, axis=1).tolist())) if is_known else (),
            succeeded=self._succeeded,
            kept=kept,
        )


def _prefill(due: Integers, first: Integers, firsts: RankedMoments, lasts: RankedMoments) -> Row:
    """The time to the first token of requests since they were due and a place was free.

    A server that generates c responses at once, and takes requests in turn, takes the k-th as soon as k - c responses
    have ended, or it is due. c is the largest number of responses that were generated together for a five-hundredth of
    the time. Where it is no limit, this is TTFT. `firsts` and `lasts` are the moments of the first and last tokens of
    all responses. NaN where the first token came sooner than the place: the server has more of them; and where it is
    not known when that was.
    """
    if not len(firsts.moments):
        return np.full(len(due), math.nan)
    moments = np.unique(np.concatenate((lasts.moments, firsts.moments)))
    together = firsts.rank(moments, "right") - lasts.rank(moments, "right")
    lasting = np.bincount(np.maximum(together, 0), weights=firsts.lasting(moments))
    at_least = np.cumsum(lasting[::-1])[::-1]
    busy = at_least[1] if len(at_least) > 1 else 0.0
    places = max(1, int(np.flatnonzero(at_least >= _TOGETHER * busy)[-1]))
    own = first - np.maximum(due, lasts.at(firsts.rank(first, "left") - places, due))
    return np.where((own > 0) & firsts.knows(first), own, math.nan)
