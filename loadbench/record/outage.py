"""Whether a server stopped responding during a level: failures that lasted to its end, and since when."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.record.sample import Sample

# A server that fails now and then ends so by chance in one of this many levels.
_CHANCE = 1e-4
_FEWEST = 3
_TIMEOUTS = frozenset(
    {Outcome.TIMEOUT_CONNECT, Outcome.TIMEOUT_FIRST_TOKEN, Outcome.TIMEOUT_IDLE, Outcome.TIMEOUT_TOTAL}
)


@dataclass(slots=True)
class Outage:
    """Takes the requests of all phases as they end.

    A failure counts from when it showed; one by a time limit from when its request was sent. What was sent before an
    outage may still succeed, as with a server that drains.
    """

    _ok: int = 0
    _failed: int = 0  # and a later request succeeded
    _last_ok_ns: int | None = None  # when the latest of those that succeeded was sent
    _began_ns: int | None = None
    _failures: Counter[tuple[Outcome, str]] = field(default_factory=Counter)

    def add(self, sample: Sample) -> None:
        """Add one request."""
        outcome, began_ns = sample.outcome, self._began_ns
        sent_ns = sample.due_ns if sample.sent_ns is None else sample.sent_ns
        if outcome is Outcome.OK:
            self._ok += 1
            if self._last_ok_ns is None or sent_ns > self._last_ok_ns:
                self._last_ok_ns = sent_ns
            if began_ns is not None and sent_ns >= began_ns:
                self._failed += self._failures.total()
                self._failures.clear()
                self._began_ns = None
        elif outcome.failed:
            at_ns = sent_ns if outcome in _TIMEOUTS else sample.end_ns
            if began_ns is None and self._last_ok_ns is not None and at_ns <= self._last_ok_ns:
                self._failed += 1
                return
            self._began_ns = at_ns if began_ns is None else min(began_ns, at_ns)
            self._failures[outcome, sample.detail] += 1

    @property
    def began_ns(self) -> int | None:
        """Since when every request failed; `None` if one succeeded later, none ever did, or it may be chance."""
        count = self._failures.total()
        by_chance = ((self._failed + 1) / (self._ok + self._failed + 2)) ** count
        return self._began_ns if self._ok and count >= _FEWEST and by_chance < _CHANCE else None

    @property
    def failures(self) -> Mapping[tuple[Outcome, str], int]:
        """Those since then, by what they said."""
        return self._failures
