"""Counts failures by what they said, and words of the server. Where only the numbers and ids of failures differ, the
first stands for all of its kind."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from loadbench.record.outcome import Outcome

# Numbers of two digits and more, and words with a digit, as ids have; a status says something else.
_VARYING = re.compile(r"(?<!HTTP )(?<![\w.,:-])(?=[\w.,:-]*\d)[\w.,:-]{2,}")
# A server that writes something new into each message must not fill the memory, or the result.
_MOST_KINDS = 50
_OTHERS = "(others)"


def count_word(counts: Counter[str], word: str) -> None:
    """Count a word of the server by itself, or with all others if there are many already."""
    counts[word if word in counts or len(counts) < _MOST_KINDS else _OTHERS] += 1


def count_words(counts: Counter[str], others: Counter[str]) -> None:
    """Count words of the server that were counted elsewhere."""
    for word, times in others.items():
        counts[word if word in counts or len(counts) < _MOST_KINDS else _OTHERS] += times


@dataclass(slots=True)
class FailureCounts:
    """Failures by outcome and words."""

    _kinds: dict[tuple[Outcome, str], tuple[str, bool]] = field(default_factory=dict)  # the first words, whether alone
    _counts: dict[tuple[Outcome, str], int] = field(default_factory=dict)

    def add(self, outcome: Outcome, detail: str) -> None:
        """Count one."""
        self._count((outcome, intern(_VARYING.sub("0", detail))), detail, 1, is_alone=True)

    def absorb(self, other: FailureCounts) -> None:
        """Count what was counted elsewhere."""
        for kind, times in other._counts.items():
            words, is_alone = other._kinds[kind]
            self._count(kind, words, times, is_alone=is_alone)

    def _count(self, kind: tuple[Outcome, str], words: str, times: int, *, is_alone: bool) -> None:
        """Count so many of a kind, whose first said this; `is_alone` if all did."""
        known = self._kinds.get(kind)
        if known is not None:
            self._kinds[kind] = known[0], known[1] and is_alone and known[0] == words
        elif len(self._kinds) < _MOST_KINDS:
            self._kinds[kind] = words, is_alone
        else:
            kind = kind[0], _OTHERS
            self._kinds.setdefault(kind, (_OTHERS, True))
        self._counts[kind] = self._counts.get(kind, 0) + times

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self._counts.values())

    @property
    def by_words(self) -> Mapping[tuple[Outcome, str], int]:
        """The number of each kind, the most frequent first."""
        counts = {}
        for kind, count in sorted(self._counts.items(), key=lambda item: (-item[1], item[0])):
            first, is_alone = self._kinds[kind]
            counts[kind[0], first if is_alone else f"{first}, and others like it"] = count
        return counts
