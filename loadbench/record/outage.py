"""Whether a server stopped responding during a level: failures that lasted to its end, and since when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadbench.record.failure_counts import FailureCounts
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.record.sample import Sample

# A server that fails now and then ends so by chance in one of this many levels.
_CHANCE = 1e-4
_FEWEST = 3
# Of an outage that one of several parts of a load saw, so many failures are kept by their time.
_MOST_FIRST = 1_000
# A silence of this many times the longest response counts as a request that failed.
_LONG = 4
# These end when the client, or the connection, has waited long enough: the server was silent before.
_SILENT = frozenset(
    {Outcome.TIMEOUT_CONNECT, Outcome.TIMEOUT_FIRST_TOKEN, Outcome.TIMEOUT_IDLE, Outcome.TIMEOUT_TOTAL}
    | {Outcome.ABANDONED, Outcome.RESET, Outcome.TRUNCATED}
)
_CUT = frozenset({Outcome.ABANDONED} | {outcome for outcome in _SILENT if outcome.value.startswith("timeout")})


@dataclass(slots=True)
class Outage:
    """Takes the requests of all phases as they end.

    A failure counts from when it ended, and one that ended in silence from the last that the server had sent for it.
    What was sent before an outage may still succeed, as with a server that drains. Requests that the client cut prove
    nothing by their number, as they may wait in a queue; the time does in which others would have succeeded.
    """

    _ok: int = 0
    _failed: int = 0  # and a later request succeeded
    _longest_ok_ns: int = 1
    _last_ok_ns: tuple[int, int] | None = None  # when the latest of those that succeeded was sent, and when one ended
    _began_ns: int | None = None
    _silent_ns: int = 0  # for how long requests waited that did not succeed
    _silent_to_ns: int | None = None  # up to when that is counted
    _failures: FailureCounts = field(default_factory=FailureCounts)
    _first: list[tuple[int, Outcome, str]] = field(default_factory=list)  # of these, and since when they count

    def add(self, sample: Sample) -> None:
        """Add one request."""
        outcome, began_ns, last_ns = sample.outcome, self._began_ns, self._last_ok_ns
        sent_ns = sample.due_ns if sample.sent_ns is None else sample.sent_ns
        if outcome is Outcome.OK:
            self._ok += 1
            self._longest_ok_ns = max(self._longest_ok_ns, sample.end_ns - sent_ns)
            sent_last_ns, ended_last_ns = last_ns or (sent_ns, sample.end_ns)
            self._last_ok_ns = max(sent_last_ns, sent_ns), max(ended_last_ns, sample.end_ns)
            if began_ns is not None and sent_ns >= began_ns:
                self._failed += self._failures.total
                self._failures.clear()
                self._first.clear()
                self._began_ns, self._silent_ns, self._silent_to_ns = None, 0, None
        elif outcome.failed:
            at_ns = sample.end_ns
            if outcome in _SILENT:
                marks = (sent_ns, sample.headers_ns, sample.last_token_ns)
                at_ns = max(mark_ns for mark_ns in marks if mark_ns is not None)
            if last_ns is not None and at_ns <= last_ns[0]:
                self._failed += 1
                return
            self._began_ns = at_ns if began_ns is None else min(began_ns, at_ns)
            counted_ns = max(at_ns, last_ns[1] if last_ns else at_ns, self._silent_to_ns or at_ns)
            self._silent_ns += max(0, sample.end_ns - counted_ns)
            self._silent_to_ns = max(sample.end_ns, counted_ns)
            self._failures.add(outcome, sample.detail)
            if len(self._first) < _MOST_FIRST:
                self._first.append((at_ns, outcome, sample.detail))

    def absorb(self, other: Outage) -> None:
        """Add what another part of the load saw: a success of either ends the outage that the other saw until then."""
        sent = [last_ns for last_ns in (self._last_ok_ns, other._last_ok_ns) if last_ns is not None]
        if sent:
            self._last_ok_ns = max(sent_ns for sent_ns, _ in sent), max(ended_ns for _, ended_ns in sent)
            self._end_until(self._last_ok_ns[0])
            other._end_until(self._last_ok_ns[0])
        self._ok += other._ok
        self._failed += other._failed
        self._longest_ok_ns = max(self._longest_ok_ns, other._longest_ok_ns)
        began = [began_ns for began_ns in (self._began_ns, other._began_ns) if began_ns is not None]
        self._began_ns = min(began, default=None)
        self._silent_ns = max(self._silent_ns, other._silent_ns)  # they waited at the same time
        self._failures.absorb(other._failures)
        self._first = (self._first + other._first)[:_MOST_FIRST]

    def _end_until(self, sent_ns: int) -> None:
        """A request that was sent then has succeeded: earlier failures are no part of the outage."""
        for at_ns, outcome, detail in self._first:
            if at_ns <= sent_ns:
                self._failed += 1
                self._failures.remove(outcome, detail)
        self._first = [one for one in self._first if one[0] > sent_ns]
        if self._began_ns is not None and self._began_ns <= sent_ns:
            self._began_ns = min((at_ns for at_ns, _, _ in self._first), default=None)
            self._silent_ns = 0 if self._began_ns is None else self._silent_ns

    @property
    def began_ns(self) -> int | None:
        """Since when every request failed; `None` if one succeeded later, none ever did, or it may be chance."""
        if self._began_ns is None or self._last_ok_ns is None:
            return None
        count = sum(number for (outcome, _), number in self.failures.items() if outcome not in _CUT)
        count = max(count, self._silent_ns // (_LONG * self._longest_ok_ns))
        share = (self._failed + 1) / (self._ok + self._failed + 2)
        return self._began_ns if count >= _FEWEST and share**count < _CHANCE else None

    @property
    def failures(self) -> Mapping[tuple[Outcome, str], int]:
        """Those since then, by what they said, the most frequent first."""
        return self._failures.by_words
