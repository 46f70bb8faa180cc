"""Failures that last to the end of a level: a server that ended, hung or drained, and since when."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.load import Phase
from loadbench.record.outage import Outage
from loadbench.record.outcome import Outcome
from loadbench.record.request import Destination
from tests.building import S, a_failure, a_level, a_recording, a_sample, make_sample

OK = [a_sample(n, due_ns=n * S) for n in range(40)]


def failures(outcome: Outcome, *, since_s: int = 40, count: int = 10, detail: str = "") -> list:
    """A failure a second, each of which takes a second."""
    return [a_failure(outcome, due_ns=(since_s + n) * S, detail=detail) for n in range(count)]


def cut(sent_s: float, *, end_s: float, last_s: float | None = None):
    """A request that was in flight when the drain ended; `last_s` is when its last token came."""
    last_ns = None if last_s is None else round(last_s * S)
    fields = {"sent_ns": round(sent_s * S), "due_ns": round(sent_s * S), "end_ns": round(end_s * S)}
    return make_sample(number=0, phase=Phase.MEASURED, outcome=Outcome.ABANDONED, last_token_ns=last_ns, **fields)


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
        # A response that broke off, or that was waited for in vain, had its last sign of life before.
        ([*OK, *failures(Outcome.RESET)], 40),
        ([*OK, *failures(Outcome.TIMEOUT_IDLE)], 40),
        ([*OK, cut(40, last_s=47, end_s=90)], 47),
        # Two users who wait until the end of the drain.
        ([*OK, cut(40, end_s=70), cut(40.5, end_s=70)], 40),
        # Requests that were sent before succeed; one that is sent later shows that the server is there.
        ([*OK, *failures(Outcome.REFUSED), *OK[-3:]], 41),
        ([*OK, *failures(Outcome.REFUSED), a_sample(due_ns=43 * S)], None),
        ([*OK, *failures(Outcome.TIMEOUT_IDLE, since_s=30), *failures(Outcome.REFUSED)], 41),
        # A queue: each waits longer than the one before, until those that are left are cut.
        (
            [
                *(a_sample(n, due_ns=n * S, ttft_ns=2 * n * S) for n in range(20)),
                *(cut(n, end_s=62) for n in range(20, 60)),
            ],
            None,
        ),
        # Long responses that go on until they are cut.
        ([*OK, *(cut(30 + n, last_s=59.9 + n / 100, end_s=60) for n in range(8))], None),
        # Now and then one fails, at the end too.
        ([*OK, *failures(Outcome.REFUSED, count=2)], None),
        ([*OK[:3], *failures(Outcome.REFUSED, count=3, since_s=3)], None),
        ([*(one for n in range(20) for one in (OK[n], *failures(Outcome.HTTP_ERROR, since_s=n, count=1)))], None),
        # It never responded, or its users left.
        (failures(Outcome.REFUSED), None),
        ([*OK, *failures(Outcome.GAVE_UP)], None),
    ],
)
def test_outage_begins_with_the_first_of_the_failures_that_last(samples, since_s):
    """Later successes end it; a few failures are chance."""
    assert began_s(*samples) == since_s


@given(st.lists(st.booleans(), max_size=60), st.integers(0, 30))
def test_no_success_follows_an_outage(ends, lasting):
    """Whatever came before, it begins after the last success."""
    mixed = [
        a_sample(due_ns=n * S) if is_ok else a_failure(Outcome.HTTP_ERROR, due_ns=n * S) for n, is_ok in enumerate(ends)
    ]
    since_s = began_s(*mixed, *failures(Outcome.REFUSED, since_s=len(ends), count=lasting))
    if since_s is not None:
        assert not any(ends[int(since_s) :])
        assert any(ends)
    if len(ends) >= 20 and all(ends) and lasting >= 3:
        assert since_s == len(ends) + 1


@pytest.mark.parametrize(
    ("before_s", "words"), [(-9, "9.0 s before the measurement"), (40, "40.0 s into the measurement"), (120, None)]
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


A, B = "http://a/v1", "http://b/v1"
TO = {(model, server): Destination(n, model, server) for n, (model, server) in enumerate(product("mn", (A, B)))}


def stopped(gone: set[tuple[str, str]], *, from_s: int = 30) -> str:
    """What the verdict says of a level of 50 s in which these are gone from some time on."""
    samples = []
    for n in range(200):
        for to in TO.values():
            due_ns, is_gone = n * S // 4, to[1:] in gone and n >= 4 * from_s
            sample = a_sample(due_ns=due_ns, destination=to)
            samples.append(a_failure(Outcome.REFUSED, due_ns=due_ns, destination=to) if is_gone else sample)
    reasons = {reason.code: reason.message for reason in a_level(samples).verdict.reasons}
    return reasons.get("server_stopped", "")


@pytest.mark.parametrize(
    ("gone", "whose"),
    [
        (set(), []),
        ({("m", A), ("n", A)}, [f" at {A}"]),
        ({("n", A), ("n", B)}, [" to n"]),
        ({("n", B)}, [f" to n at {B}"]),
        ({("m", A), ("n", A), ("n", B)}, [f" at {A}", " to n"]),
        (set(TO), [f" at {A}", f" at {B}"]),
    ],
)
def test_a_server_or_a_model_that_stopped_is_named(gone, whose):
    """While the others go on, so that one of them responds at any time."""
    said = stopped(gone)
    assert [part.split(" succeeded")[0] for part in said.split("; ") if part] == [f"no request{one}" for one in whose]
    assert said.count("succeeded from 31.0 s into the measurement on") == len(whose)


def test_a_dead_server_does_not_make_the_others_dead():
    """Refusals are quick, so the last requests of a level are often all at the dead server."""
    samples = [a_sample(due_ns=n * S // 2, destination=TO["m", A]) for n in range(200)]
    dead = TO["m", B]
    samples += [a_sample(due_ns=n * S // 2, destination=dead) for n in range(100)]
    samples += [a_failure(Outcome.REFUSED, due_ns=(n + 100) * S // 2, destination=dead) for n in range(140)]
    reasons = {reason.code: reason.message for reason in a_level(samples).verdict.reasons}
    assert reasons["server_stopped"].startswith(f"no request at {B} succeeded from 51.0 s")
    assert A not in reasons["server_stopped"]


QUICK = [a_sample(n, due_ns=n * S) for n in range(200)]
# As many failed as did not.
OFTEN = [*QUICK[:20], QUICK[30], *failures(Outcome.HTTP_ERROR, since_s=0, count=20)]
# One that took twenty seconds and ended last, though another was sent after it.
LASTING = [a_sample(due_ns=241 * S), a_sample(due_ns=240 * S, ttft_ns=20 * S, gaps_ns=0)]


@pytest.mark.parametrize(
    ("samples", "since_s"),
    [
        # Three in a row end one of ten thousand levels by chance, if one in 22 fails; two prove nothing.
        ([*QUICK[:20], *failures(Outcome.REFUSED, since_s=20, count=3)], 21),
        ([*QUICK[:19], *failures(Outcome.REFUSED, since_s=19, count=3)], None),
        ([*QUICK, *failures(Outcome.REFUSED, since_s=200, count=2)], None),
        # Three whom the client cut after a second prove nothing by their number, three whom the server cut do.
        ([*QUICK, *[a_failure(Outcome.RESET, due_ns=200 * S)] * 3], 200),
        ([*QUICK, *[a_failure(Outcome.TIMEOUT_IDLE, due_ns=200 * S)] * 3], None),
        # Two who wait at the same time wait no longer than one.
        ([*QUICK, *[cut(200, end_s=202.5)] * 2], None),
        ([*QUICK, *[cut(200, end_s=203.7)] * 2], 200),
        # It is silent from the end of the last response on, whenever that was sent.
        ([*QUICK, *LASTING, cut(242, end_s=260 + 235)], None),
        ([*QUICK, *LASTING, cut(242, end_s=260 + 241)], 242),
        # Others that had failed before say that it often fails.
        *(([*OFTEN, *failures(Outcome.REFUSED, count=count)], 41) for count in (13, 14)),
        ([*OFTEN, *failures(Outcome.REFUSED, count=12)], None),
    ],
)
def test_failures_prove_an_outage_by_their_number_or_by_their_time(samples, since_s):
    """Just so many, or just so long, as would hardly be chance."""
    assert began_s(*samples) == since_s
