"""Whether a server stopped responding during a level: failures that lasted to its end, and since when."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from heapq import merge
from sys import intern
from typing import TYPE_CHECKING

from loadbench.record.failure_counts import FailureCounts
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.record.sample import Sample

# A server that fails now and then ends so by chance in one of this many levels.
_CHANCE = 1e-4
_FEWEST = 3
# So many failures are kept by their time, each by itself. Of more, neighbours share a place.
_MOST_PLACES = 1_000
# A silence of this many times the longest response counts as a request that failed.
_LONG = 4
# These end when the client, or the connection, has waited long enough: the server was silent before.
_SILENT = frozenset(
    {Outcome.TIMEOUT_CONNECT, Outcome.TIMEOUT_FIRST_TOKEN, Outcome.TIMEOUT_IDLE, Outcome.TIMEOUT_TOTAL}
    | {Outcome.ABANDONED, Outcome.RESET, Outcome.TRUNCATED}
)
_CUT = frozenset({Outcome.ABANDONED} | {outcome for outcome in _SILENT if outcome.value.startswith("timeout")})


@dataclass(slots=True, order=True)
class _Failures:
    """Failures that follow each other in time, mostly one: since when the first of them counts, from when to when it,
    or they, waited without a gap, and what they said."""

    first_ns: int
    waits_ns: int
    end_ns: int
    words: tuple[Outcome, str]  # of one alone, by which two of one moment have their order
    counts: FailureCounts = field(compare=False)


@dataclass(slots=True)
class Outage:
    """Takes the requests of all phases as they end, or in any order.

    A failure counts from when it ended, and one that ended in silence from the last that the server had sent for it.
    The outage is made of the failures that count from after the last request was sent that succeeded, or whose response
    had begun when the client cut it. What was sent before an outage may still succeed, as with a server that drains.
    Requests that were waited for in vain prove nothing by their number, as they may wait in a queue; the time does in
    which others would have succeeded.

    What the parts of a load saw is together what one would have seen of all (`absorb`), exactly up to `_MOST_PLACES`
    failures after the last success. Of more, up to four thousandths share a place, and of waits with gaps between them
    the longest counts. Its beginning and its failures are still exact, unless a success that is seen later was sent
    between those of one place: then all of these count as before the outage. So it may be seen to begin later, and
    never where there is none.
    """

    _ok: int = 0
    _failed: int = 0  # and a later request succeeded
    _longest_ok_ns: int = 1
    _last_ok_ns: tuple[int, int] | None = None  # when the latest that had a response was sent, and when one ended
    _since: list[_Failures] = field(default_factory=list)  # the others, in the order of time

    def add(self, sample: Sample) -> None:
        """Add one request."""
        outcome = sample.outcome
        sent_ns = sample.due_ns if sample.sent_ns is None else sample.sent_ns
        if outcome is Outcome.OK:
            self._ok += 1
            self._longest_ok_ns = max(self._longest_ok_ns, sample.end_ns - sent_ns)
            self._responded(sent_ns, sample.end_ns)
        elif not outcome.failed:  # the client cut it, or its user left
            if sample.last_token_ns is not None:
                self._responded(sent_ns, sample.last_token_ns)
        else:
            at_ns = sample.end_ns
            if outcome in _SILENT:
                marks = (sent_ns, sample.headers_ns, sample.last_token_ns)
                at_ns = max(mark_ns for mark_ns in marks if mark_ns is not None)
            if self._last_ok_ns is not None and at_ns <= self._last_ok_ns[0]:
                self._failed += 1
                return
            counts, words = FailureCounts(), intern(sample.detail)  # equal texts are kept, and sent, once
            counts.add(outcome, words)
            insort(self._since, _Failures(at_ns, at_ns, sample.end_ns, (outcome, words), counts))
            self._share_places()

    def absorb(self, other: Outage) -> None:
        """Add what another part of the load saw: a success of either ends the outage that the other saw until then."""
        self._ok += other._ok
        self._failed += other._failed
        self._longest_ok_ns = max(self._longest_ok_ns, other._longest_ok_ns)
        self._since = list(merge(self._since, other._since))
        for last_ns in (self._last_ok_ns, other._last_ok_ns):
            if last_ns is not None:
                self._responded(*last_ns)
        self._share_places()

    def _responded(self, sent_ns: int, end_ns: int) -> None:
        """A request that was sent then had a response until then: earlier failures are no part of the outage."""
        sent_last_ns, ended_last_ns = self._last_ok_ns or (sent_ns, end_ns)
        self._last_ok_ns = sent_ns, _ = max(sent_last_ns, sent_ns), max(ended_last_ns, end_ns)
        over = 0
        while over < len(self._since) and self._since[over].first_ns <= sent_ns:
            self._failed += self._since[over].counts.total
            over += 1
        del self._since[:over]

    def _share_places(self) -> None:
        """Put neighbours together where there are too many, into half as many places at most."""
        if len(self._since) <= _MOST_PLACES:
            return
        most, shared = 4 * sum(one.counts.total for one in self._since) // _MOST_PLACES, self._since[:1]
        for one in self._since[1:]:
            last = shared[-1]
            if last.counts.total + one.counts.total > most:
                shared.append(one)
                continue
            if max(last.waits_ns, one.waits_ns) <= min(last.end_ns, one.end_ns):
                last.waits_ns, last.end_ns = min(last.waits_ns, one.waits_ns), max(last.end_ns, one.end_ns)
            elif one.end_ns - one.waits_ns > last.end_ns - last.waits_ns:
                last.waits_ns, last.end_ns = one.waits_ns, one.end_ns
            last.counts.absorb(one.counts)
        self._since = shared

    @property
    def began_ns(self) -> int | None:
        """Since when every request failed; `None` if one succeeded later, none ever did, or it may be chance."""
        if not self._since or not self._ok:
            return None
        count = sum(number for (outcome, _), number in self.failures.items() if outcome not in _CUT)
        count = max(count, self.silent_ns // (_LONG * self._longest_ok_ns))
        share = (self._failed + 1) / (self._ok + self._failed + 2)
        return self._since[0].first_ns if count >= _FEWEST and share**count < _CHANCE else None

    @property
    def silent_ns(self) -> int:
        """For how long any of those that failed waited, after the last response that succeeded had ended."""
        silent_ns, until_ns = 0, self._last_ok_ns[1] if self._last_ok_ns else 0
        for one in sorted(self._since, key=lambda one: one.waits_ns):
            silent_ns += max(0, one.end_ns - max(one.waits_ns, until_ns))
            until_ns = max(until_ns, one.end_ns)
        return silent_ns

    @property
    def failures(self) -> Mapping[tuple[Outcome, str], int]:
        """Those since then, by what they said, the most frequent first."""
        counts = FailureCounts()
        for one in self._since:
            counts.absorb(one.counts)
        return counts.by_words
