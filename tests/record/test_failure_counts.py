"""Failures are counted by their kind: numbers and ids in a server's words do not make another one."""

from __future__ import annotations

import random

import pytest

from loadbench.record.failure_counts import FailureCounts
from loadbench.record.outcome import Outcome


def counted(*words: str) -> dict[str, int]:
    """The number of each kind of these failures."""
    counts = FailureCounts()
    for detail in words:
        counts.add(Outcome.HTTP_ERROR, detail)
    assert counts.total == len(words)
    return {detail: count for (_, detail), count in counts.by_words.items()}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTP 400: request (2989 tokens) exceeds 2048", "HTTP 400: request (2991 tokens) exceeds 2048"),
        ("request 0e849804-f651-4323-b1c0-bc22feed4daa: no", "request 164d01ea-d1ef-4c82-921f-61fd43c9d7c8: no"),
        ("retry in 1.25s (req_8fK2x)", "retry in 12s (req_Zz91a)"),
        ("connection from 127.0.0.1:4711 lost", "connection from 127.0.0.1:80 lost"),
    ],
)
def test_numbers_and_ids_make_no_other_kind(one, other):
    """The first stands for all, and says that they differ."""
    assert counted(one, other, one) == {f"{one}, and others like it": 3}
    assert counted(one, one) == {one: 2}


@pytest.mark.parametrize(
    ("one", "other"),
    [("HTTP 400: busy", "HTTP 503: busy"), ("kind 1", "kind 2"), ("no such model", "no such route"), ("", "busy")],
)
def test_another_status_or_another_word_is_another_kind(one, other):
    """The most frequent comes first."""
    assert list(counted(one, other, other).items()) == [(other, 2), (one, 1)]


def test_kinds_without_end_are_counted_together():
    """A server whose words are always new fills neither the memory nor the result."""
    kinds = counted(*(chr(0x4E00 + n) for n in range(70)), *"\u4e00" * 5)
    assert len(kinds) == 51
    assert list(kinds.items())[:2] == [("(others)", 20), ("\u4e00", 6)]


def test_kinds_of_the_same_number_stand_in_order():
    """Of their words: the same failures make the same report, whichever came first."""
    assert list(counted("no b", "no a", "no c")) == ["no a", "no b", "no c"]


@pytest.mark.parametrize("kinds", [3, 50, 70])
def test_failures_that_parts_counted_add_up(kinds):
    """Each kind as one would have counted it, and whether others were like it. Of more kinds than are counted apart,
    the number of all."""
    rng = random.Random(kinds)
    words = [f"{chr(0x4E00 + rng.randrange(kinds))} {rng.randrange(10, 40)}" for _ in range(1_000)]
    joined, whole = FailureCounts(), FailureCounts()
    for part in (words[::3], [], words[1::3], words[2::3]):
        counts = FailureCounts()
        for detail in part:
            counts.add(Outcome.HTTP_ERROR, detail)
            whole.add(Outcome.HTTP_ERROR, detail)
        joined.absorb(counts)
    assert joined.total == whole.total == 1_000
    assert len(joined.by_words) == len(whole.by_words) == min(kinds, 51)
    if kinds <= 50:
        counted_by_kind, truth = (
            {(text[0], text.endswith("others like it")): count for (_, text), count in one.by_words.items()}
            for one in (joined, whole)
        )
        assert counted_by_kind == truth
