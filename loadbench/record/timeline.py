"""How a level went over time: whether it was steady, and how its requests are correlated.

Requests in flight, responses being generated and times to first token are kept by slices of a tenth of a second, as
tokens are: a level of an hour has 36,000 of them. Single requests are kept up to `_MOST_KEPT`, in the order in which
they were due: enough to see how much one says about the next.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from loadbench.record.slices import SLICE_NS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.record.sample import Sample

    Row = np.ndarray[Any, np.dtype[np.float64]]
    Moments = np.ndarray[Any, np.dtype[np.int64]]

# The figures that are kept request by request.
KEPT: Final = ("ttft_response", "e2e_response", "tpot")
_MOST_KEPT = 16_384
# Starts and ends of requests, those of the warm-up among them: enough for the requests kept.
_MOST_CHANGES = 4 * _MOST_KEPT
# A number of responses counts as generated together if it is for this share of the time.
_TOGETHER = 0.002
# Values are gathered up to this number and then counted all at once.
_GATHERED = 8192


class RequestStart(NamedTuple):
    """What a request met, and what it asked for; unknown is NaN."""

    ttft_ns: float  # since due
    in_flight: int  # other requests as it was sent
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
    starts: tuple[RequestStart, ...] = ()  # of the requests in `kept`, in the same order
    kept: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by name in KEPT, as they were due


class TimelineBuilder:
    """Makes a timeline of what happens, in any order; `opens_ns` is when the window opens, as far as it is known."""

    def __init__(self, opens_ns: int) -> None:
        self._in_flight = _BySlice(opens_ns)
        self._ttft = _BySlice(opens_ns)
        self._decoding = _BySlice(opens_ns)
        self._context = _BySlice(opens_ns)
        self._changes = {1: array("q"), -1: array("q")}  # moments at which requests started and ended
        self._tokens = array("q"), array("q")  # moments of the first and the last token of all responses
        self._starts: list[tuple[int, int, float, float, float]] = []  # due, sent, and three of `RequestStart`
        self._due = {name: array("q") for name in KEPT}
        self._values = {name: array("d") for name in KEPT}

    def opens(self, at_ns: int) -> None:
        """The window opens then; all that was added came before."""
        for by_slice in (self._in_flight, self._ttft, self._decoding, self._context):
            by_slice.opens_ns = at_ns

    def change(self, at_ns: int, change: int) -> None:
        """The number of requests in flight changes by this much."""
        self._in_flight.add(at_ns, change)
        if len(self._changes[change]) < _MOST_CHANGES:
            self._changes[change].append(at_ns)

    def decode(self, sample: Sample) -> None:
        """A response was generated between its first and its last token."""
        if sample.first_token_ns is None or sample.last_token_ns is None:
            return
        keeps = len(self._tokens[0]) < _MOST_CHANGES
        for at_ns, change, moments in zip(
            (sample.first_token_ns, sample.last_token_ns), (1, -1), self._tokens, strict=True
        ):
            self._decoding.add(at_ns, change)
            self._context.add(at_ns, change * (sample.input_tokens or 0))
            if keeps:
                moments.append(at_ns)

    def add(self, sample: Sample) -> None:
        """Add a measured request; its TTFT counts if it had a token, however it ended."""
        ttft_ns = sample.since_due(sample.first_token_ns)
        if ttft_ns is not None:
            self._ttft.add(sample.due_ns, ttft_ns)

    def keep(self, sample: Sample) -> None:
        """Keep the figures of a measured request that ended ok."""
        if len(self._due["ttft_response"]) >= _MOST_KEPT:
            return
        ttft_ns = sample.since_due(sample.first_token_ns)
        if ttft_ns is not None and sample.sent_ns is not None:
            given, made = (
                math.nan if count is None else count for count in (sample.input_tokens, sample.output_tokens)
            )
            self._starts.append((sample.due_ns, sample.sent_ns, ttft_ns, given, made))
        figures = (ttft_ns, sample.since_due(sample.last_token_ns), sample.tpot())
        for name, value_ns in zip(KEPT, figures, strict=True):
            if value_ns is not None:
                self._due[name].append(sample.due_ns)
                self._values[name].append(value_ns)

    def close(self, closes_ns: int) -> Timeline:
        """The timeline up to that moment."""
        sums, counts, _ = self._ttft.until(closes_ns)
        kept = {}
        for name in KEPT:
            order = np.argsort(np.array(self._due[name], np.int64), kind="stable")
            kept[name] = tuple(np.array(self._values[name])[order].tolist())
        # Ends come before starts of the same moment.
        started, ended = (np.sort(np.array(self._changes[change], np.int64)) for change in (1, -1))
        known_ns = min((moments[-1] for moments in (started, ended) if len(moments) >= _MOST_CHANGES), default=math.inf)
        starts = sorted(start for start in self._starts if start[1] <= known_ns)
        sent = np.array([start[1] for start in starts], np.int64)
        met = np.searchsorted(started, sent, "left") - np.searchsorted(ended, sent, "right")
        due, ttft = np.array([start[0] for start in starts], np.int64), np.array([start[2] for start in starts])
        prefill = _prefill(due, due + ttft, *(np.sort(np.array(moments, np.int64)) for moments in self._tokens))
        return Timeline(
            in_flight=self._in_flight.levels(closes_ns),
            ttft_ns=tuple(sums.tolist()),
            ttft_count=tuple(counts.tolist()),
            decoding=self._decoding.levels(closes_ns),
            context=self._context.levels(closes_ns),
            starts=tuple(
                RequestStart(ttft_ns, int(others), given, made, own)
                for (_, _, ttft_ns, given, made), others, own in zip(starts, met, prefill.tolist(), strict=True)
            ),
            kept=kept,
        )


def _prefill(due: Moments, first: Row, firsts: Moments, lasts: Moments) -> Row:
    """The time to the first token of requests since they were due and a place was free.

    A server that generates c responses at once, and takes requests in turn, takes the k-th as soon as k - c responses
    have ended, or it is due. c is the largest number of responses that were generated together for a five-hundredth of
    the time. Where it is no limit, this is TTFT. `firsts` and `lasts` are the moments of the first and last tokens of
    all responses, each in order. NaN where the first token came sooner than the place: the server has more of them.
    """
    if not len(firsts):
        return np.full(len(due), math.nan)
    moments = np.concatenate((lasts, firsts))
    order = np.argsort(moments, kind="stable")
    together = np.cumsum(np.where(order < len(lasts), -1, 1))[:-1]
    lasting = np.bincount(np.maximum(together, 0), weights=np.diff(moments[order]))
    at_least = np.cumsum(lasting[::-1])[::-1]
    busy = at_least[1] if len(at_least) > 1 else 0.0
    places = max(1, int(np.flatnonzero(at_least >= _TOGETHER * busy)[-1]))
    rank = np.searchsorted(firsts, first, "left") - places
    free = np.where(rank >= 0, lasts[np.clip(rank, 0, len(lasts) - 1)], due)
    own = first - np.maximum(due, free)
    return np.where((own > 0) & (rank < len(lasts)), own, math.nan)


class _BySlice:
    """Values by the slice that their moment lies in: their sum, their number, and their sum weighted by the rest of the
    slice. What came before the window opens counts as it opens."""

    def __init__(self, opens_ns: int) -> None:
        self.opens_ns = opens_ns
        self._moments = array("q")
        self._values = array("d")
        self._rows: Row = np.zeros((3, 0))

    def add(self, at_ns: int, value: float) -> None:
        """Add one value."""
        self._moments.append(at_ns)
        self._values.append(value)
        if len(self._moments) >= _GATHERED:
            self._count()

    def _count(self) -> None:
        if not self._moments:
            return
        since = np.maximum(np.frombuffer(self._moments, np.int64) - self.opens_ns, 0)
        values = np.frombuffer(self._values, np.float64)
        places = since // SLICE_NS
        left = 1 - (since - places * SLICE_NS) / SLICE_NS
        length = max(self._rows.shape[1], int(places.max()) + 1)
        rows = np.stack(
            [np.bincount(places, weights=weights, minlength=length) for weights in (values, None, values * left)]
        ).astype(np.float64)
        rows[:, : self._rows.shape[1]] += self._rows
        self._rows = rows
        self._moments, self._values = array("q"), array("d")

    def until(self, closes_ns: int) -> Row:
        """(sums, numbers, weighted sums) of each whole slice before that moment."""
        self._count()
        whole = max(0, closes_ns - self.opens_ns) // SLICE_NS
        rows = np.zeros((3, whole))
        known = self._rows[:, :whole]
        rows[:, : known.shape[1]] = known
        return rows

    def levels(self, closes_ns: int) -> tuple[float, ...]:
        """Where the values are changes: the mean of what they come to in each whole slice before that moment."""
        changes, _, left = self.until(closes_ns)
        return tuple((np.cumsum(changes) - changes + left).tolist())
