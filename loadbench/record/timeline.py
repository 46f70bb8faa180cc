"""How a level went over time: whether it was steady, and how its requests are correlated.

Requests in flight, responses being generated and times to first token are kept by slices, as tokens are. Single
requests are kept up to `_MOST_KEPT`, in the order in which they were due: enough to see how much one says about the
next. What is kept of others ends with them, so a level takes no more memory from then on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from loadbench.record.first_numbers import FirstNumbers
from loadbench.record.slices import Slices

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
_UNKNOWN_NS = -(1 << 63)


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
    starts: tuple[RequestStart, ...] = ()  # of the requests in `kept`, in the same order
    kept: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by name in KEPT, as they were due


class TimelineBuilder:
    """Makes a timeline of what happens, in any order; `opens_ns` is when the window opens, as far as it is known."""

    def __init__(self, opens_ns: int) -> None:
        self._in_flight, self._ttft, self._decoding, self._context = self.series = tuple(
            Slices(opens_ns, changes=True) for _ in range(4)
        )
        # Moments at which requests started and ended, and those of the first and the last token of all responses.
        self._changes = {change: FirstNumbers(_MOST_CHANGES, "q", expected=_MOST_KEPT) for change in (1, -1)}
        self._tokens = tuple(FirstNumbers(_MOST_CHANGES, "q", expected=_MOST_KEPT) for _ in range(2))
        # Of the requests kept: when each was due and sent, its figures, and its lengths.
        self._due, self._sent = FirstNumbers(_MOST_KEPT, "q"), FirstNumbers(_MOST_KEPT, "q")
        self._values = {name: FirstNumbers(_MOST_KEPT, "d") for name in KEPT}
        self._lengths = tuple(FirstNumbers(_MOST_KEPT, "f") for _ in range(2))  # exact up to 16 million tokens
        # Those kept need nothing of what began later than the last of them was sent, and had its first token.
        self._last_sent_ns = self._last_first_ns = -math.inf

    def opens(self, at_ns: int) -> None:
        """The window opens then; all that was added came before."""
        for by_slice in self.series:
            by_slice.opens_ns = at_ns

    def change(self, at_ns: int, change: int) -> None:
        """The number of requests in flight changes by this much."""
        self._in_flight.add(at_ns, change)
        if not self._changes[change].is_full and (not self._due.is_full or at_ns <= self._last_sent_ns):
            self._changes[change].add(at_ns)

    def decode(self, sample: Sample) -> None:
        """A response was generated between its first and its last token."""
        if sample.first_token_ns is None or sample.last_token_ns is None:
            return
        keeps = not self._due.is_full or sample.first_token_ns <= self._last_first_ns
        for at_ns, change, moments in zip(
            (sample.first_token_ns, sample.last_token_ns), (1, -1), self._tokens, strict=True
        ):
            self._decoding.add(at_ns, change)
            self._context.add(at_ns, change * (sample.input_tokens or 0))
            if keeps and not moments.is_full:
                moments.add(at_ns)

    def add(self, sample: Sample) -> None:
        """Add a measured request; its TTFT counts if it had a token, however it ended."""
        ttft_ns = sample.since_due(sample.first_token_ns)
        if ttft_ns is not None:
            self._ttft.add(sample.due_ns, ttft_ns)

    def keep(self, sample: Sample) -> None:
        """Keep the figures of a measured request that ended ok."""
        if self._due.is_full:
            return
        ttft_ns, sent_ns = sample.since_due(sample.first_token_ns), sample.sent_ns
        self._due.add(sample.due_ns)
        self._sent.add(_UNKNOWN_NS if sent_ns is None else sent_ns)
        if sent_ns is not None:
            self._last_sent_ns = max(self._last_sent_ns, sent_ns)
        if sample.first_token_ns is not None:
            self._last_first_ns = max(self._last_first_ns, sample.first_token_ns)
        figures = (ttft_ns, sample.since_due(sample.last_token_ns), sample.tpot())
        for name, value_ns in zip(KEPT, figures, strict=True):
            self._values[name].add(math.nan if value_ns is None else value_ns)
        for lengths, tokens in zip(self._lengths, (sample.input_tokens, sample.output_tokens), strict=True):
            lengths.add(math.nan if tokens is None else tokens)

    def close(self, closes_ns: int) -> Timeline:
        """The timeline up to that moment."""
        sums, counts, _ = self._ttft.rows(closes_ns)
        due, sent = self._due.numbers, self._sent.numbers
        values = {name: values.numbers for name, values in self._values.items()}
        order = np.argsort(due, kind="stable")
        kept = {name: tuple(row[order][~np.isnan(row[order])].tolist()) for name, row in values.items()}
        # Ends come before starts of the same moment.
        started, ended = (np.sort(moments.numbers) for moments in self._changes.values())
        known_ns = min((moments[-1] for moments in (started, ended) if len(moments) >= _MOST_CHANGES), default=math.inf)
        order = np.lexsort((values["ttft_response"], sent, due))
        is_known = ~np.isnan(values["ttft_response"]) & (sent != _UNKNOWN_NS) & (sent <= known_ns)
        order = order[is_known[order]]
        due, sent, ttft = due[order], sent[order], values["ttft_response"][order]
        given, made = (lengths.numbers[order] for lengths in self._lengths)
        met = np.searchsorted(started, sent, "left") - np.searchsorted(ended, sent, "right")
        prefill = _prefill(due, due + ttft, *(np.sort(moments.numbers) for moments in self._tokens))
        return Timeline(
            in_flight=self._in_flight.levels(closes_ns),
            ttft_ns=tuple(sums.tolist()),
            ttft_count=tuple(counts.tolist()),
            decoding=self._decoding.levels(closes_ns),
            context=self._context.levels(closes_ns),
            starts=tuple(map(RequestStart._make, np.stack((ttft, met, given, made, prefill), axis=1).tolist())),
            kept=kept,
        )


def _prefill(due: Moments, first: Row, firsts: Moments, lasts: Moments) -> Row:
    """The time to the first token of requests since they were due and a place was free.

    A server that generates c responses at once, and takes requests in turn, takes the k-th as soon as k - c responses
    have ended, or it is due. c is the largest number of responses that were generated together for a five-hundredth of
    the time. Where it is no limit, this is TTFT. `firsts` and `lasts` are the moments of the first and last tokens of
    all responses, each in order. NaN where the first token came sooner than the place: the server has more of them; and
    where it came after all that are known.
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
    free = np.where(rank >= 0, lasts[np.maximum(rank, 0)], due)
    own = first - np.maximum(due, free)
    return np.where((own > 0) & (first <= firsts[-1]), own, math.nan)
