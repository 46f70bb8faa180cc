"""Failures that last to the end of a level: a server that ended, hung or drained, and since when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.record.outage import Outage
from loadbench.record.outcome import Outcome
from tests.building import S, a_failure, a_level, a_recording, a_sample

OK = [a_sample(n, due_ns=n * S) for n in range(40)]


def failures(outcome: Outcome, *, since_s: int = 40, count: int = 10, detail: str = "") -> list:
    """A failure a second, each of which takes a second."""
    return [a_failure(outcome, due_ns=(since_s + n) * S, detail=detail) for n in range(count)]


def began_s(*samples) -> float | None:
    """Since when every request failed, where they are given in the order of their ends."""
    outage = Outage()
    for sample in samples:
        outage.add(sample)
    return None if outage.began_ns is None else outage.began_ns / S


@pytest.mark.parametrize(
    ("samples", "since_s"),
    [
        ([*OK, *failures(Outcome.REFUSED)], 41),
        ([*OK, *failures(Outcome.HTTP_ERROR)], 41),
        # What a time limit ended was sent when the server had stopped already.
        ([*OK, *failures(Outcome.TIMEOUT_IDLE)], 40),
        # Requests that were sent before succeed; one that is sent later shows that the server is there.
        ([*OK, *failures(Outcome.REFUSED), *OK[-3:]], 41),
        ([*OK, *failures(Outcome.REFUSED), a_sample(due_ns=43 * S)], None),
        ([*OK, *failures(Outcome.TIMEOUT_IDLE, since_s=30), *failures(Outcome.REFUSED)], 41),
        # Now and then one fails, at the end too.
        ([*OK, *failures(Outcome.REFUSED, count=2)], None),
        ([*OK[:3], *failures(Outcome.REFUSED, count=3, since_s=3)], None),
        ([*(one for n in range(20) for one in (OK[n], *failures(Outcome.RESET, since_s=n, count=1)))], None),
        # It never responded, or its users left, or the drain cut them.
        (failures(Outcome.REFUSED), None),
        ([*OK, *failures(Outcome.GAVE_UP)], None),
        ([*OK, *failures(Outcome.ABANDONED)], None),
    ],
)
def test_outage_begins_with_the_first_of_the_failures_that_last(samples, since_s):
    """Later successes end it; a few failures are chance."""
    assert began_s(*samples) == since_s


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 30))
def test_no_success_follows_an_outage(ends, lasting):
    """Whatever came before, it begins after the last success."""
    mixed = [
        a_sample(due_ns=n * S) if is_ok else a_failure(Outcome.RESET, due_ns=n * S) for n, is_ok in enumerate(ends)
    ]
    since_s = began_s(*mixed, *failures(Outcome.REFUSED, since_s=len(ends), count=lasting))
    if since_s is not None:
        assert not any(ends[int(since_s) :])
        assert any(ends)
    if len(ends) >= 20 and all(ends) and lasting >= 3:
        assert since_s == len(ends) + 1


@pytest.mark.parametrize(
    ("before_s", "words"), [(-9, "8.0 s before the measurement"), (40, "41.0 s into the measurement"), (120, None)]
)
def test_a_level_says_when_the_server_stopped(before_s, words):
    """Before or in the window; not after it."""
    first = min(0, before_s - 20)
    ok = [a_sample(n, due_ns=n * S) for n in range(first, before_s)]
    broken = [*failures(Outcome.RESET, since_s=before_s, count=2), *failures(Outcome.REFUSED, since_s=before_s + 1)]
    level = a_level(recording=a_recording([*ok, *broken], window_ns=100 * S, warm_up_ns=40 * S))
    reasons = {reason.code: reason for reason in level.verdict.reasons}
    assert ("server_stopped" in reasons) is (words is not None)
    if words is not None:
        assert reasons["server_stopped"].message == f"no request succeeded from {words} on: 10 × refused, and 2 others"
        assert level.verdict.status == "INVALID"
