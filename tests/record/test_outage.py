"""Failures that last to the end of a level: a server that ended, hung or drained, and since when."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from dataclasses import astuple, fields
from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import given, settings
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


def begun(sent_s: float, *, end_s: float):
    """A request that was cut when the level ended, while its response came."""
    marks = {"sent_ns": round(sent_s * S), "last_token_ns": round(end_s * S) - 1, "end_ns": round(end_s * S)}
    return make_sample(number=0, phase=Phase.MEASURED, outcome=Outcome.CANCELLED, due_ns=round(sent_s * S), **marks)


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
        # Requests that were sent before succeed; one that is sent later shows that the server was there until then.
        ([*OK, *failures(Outcome.REFUSED), *OK[-3:]], 41),
        ([*OK, *failures(Outcome.REFUSED), a_sample(due_ns=43 * S)], 44),
        ([*OK, *failures(Outcome.REFUSED), a_sample(due_ns=49 * S)], None),
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
        # Responses that had begun when a search had measured enough show that the server was there.
        ([*OK, *failures(Outcome.HTTP_ERROR), *(begun(n, end_s=52) for n in range(40, 52))], None),
        ([*OK, *failures(Outcome.HTTP_ERROR), *(begun(n, end_s=52) for n in range(36, 41))], 41),
        ([*failures(Outcome.REFUSED), begun(30, end_s=52)], None),
        # It never responded, or its users left.
        (failures(Outcome.REFUSED), None),
        ([*OK, *failures(Outcome.GAVE_UP)], None),
    ],
)
def test_outage_begins_with_the_first_of_the_failures_that_last(samples, since_s):
    """Requests that are sent later and succeed end it; a few failures are chance."""
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


def ended(*samples) -> Outage:
    """What is seen of these, in the order of their ends."""
    outage = Outage()
    for sample in sorted(samples, key=lambda one: one.end_ns):
        outage.add(sample)
    return outage


def state(outage: Outage) -> dict[str, object]:
    """All that it knows, and what it says."""
    known = {each.name: getattr(outage, each.name) for each in fields(outage)}
    known["_since"] = [(astuple(one), one.counts.by_words) for one in outage._since]
    return known | {"began_ns": outage.began_ns, "failures": dict(outage.failures)}


# How requests are divided among parts: in turn, by chance, by destination in time, and nearly all to one of them.
RULES = {
    "in turn": lambda at, _, parts: at % parts,
    "by chance": lambda at, _, parts: random.Random(at).randrange(parts),
    "by time": lambda at, count, parts: at * parts // count,
    "one has most": lambda at, _, parts: 0 if at % 10 else at // 10 % parts,
}
KINDS = (
    *(Outcome.OK, Outcome.HTTP_ERROR, Outcome.REFUSED, Outcome.TIMEOUT_IDLE, Outcome.ABANDONED),
    *(Outcome.GAVE_UP, Outcome.CANCELLED),
)


def a_request(at_ms: int, lasts_ms: int, outcome: Outcome, word: int):
    """One that was sent then, or never; its response may have begun."""
    sent_ns, end_ns = at_ms * S // 1000, (at_ms + lasts_ms) * S // 1000
    last_ns = (sent_ns + end_ns) // 2 if word % 3 else None
    unsent = outcome is Outcome.REFUSED
    return make_sample(
        number=0, phase=Phase.MEASURED, outcome=outcome, due_ns=sent_ns, sent_ns=None if unsent else sent_ns,
        end_ns=end_ns, last_token_ns=last_ns, detail=f"no {'abc'[word % 3]} {word}",
    )  # fmt: skip


class Seen(NamedTuple):
    """What is to be seen of some requests: the outage, for how long it was silent, and how many failed before it."""

    began_ns: int | None
    failures: Counter[Outcome]
    silent_ns: int
    failed: int


def by_definition(samples) -> Seen:
    """The failures that count from after the last request that succeeded was sent, looked up one by one."""

    def counts_from(one) -> int:
        silent = one.outcome in {Outcome.TIMEOUT_IDLE, Outcome.ABANDONED}
        return max(one.sent_ns, one.last_token_ns or 0) if silent else one.end_ns

    ok = [one for one in samples if one.outcome is Outcome.OK]
    failed = [one for one in samples if one.outcome.failed]
    left = [one for one in samples if one.outcome in {Outcome.GAVE_UP, Outcome.CANCELLED} and one.last_token_ns]
    until = max((one.sent_ns for one in (*ok, *left)), default=-1)
    since = [one for one in failed if counts_from(one) > until]
    waits = {ms for one in since for ms in range(counts_from(one) // 10**6, one.end_ns // 10**6)}
    ends = [*(one.end_ns for one in ok), *(one.last_token_ns for one in left)]
    silent_ms = sum(ms >= max(ends, default=0) // 10**6 for ms in waits)
    count = sum(one.outcome in {Outcome.HTTP_ERROR, Outcome.REFUSED} for one in since)
    longest_ms = max((one.end_ns - one.sent_ns for one in ok), default=0) // 10**6
    count = max(count, silent_ms // (4 * max(1, longest_ms)))
    before = len(failed) - len(since)
    is_one = ok and since and count >= 3 and ((before + 1) / (len(ok) + before + 2)) ** count < 1e-4
    began_ns = min(map(counts_from, since)) if is_one else None
    return Seen(began_ns, Counter(one.outcome for one in since), silent_ms * 10**6, before)


def seen_by(outage: Outage) -> Seen:
    """The same, as an outage has it."""
    failures: Counter[Outcome] = Counter()
    for (outcome, _), count in outage.failures.items():
        failures[outcome] += count
    return Seen(outage.began_ns, failures, outage.silent_ns, outage._failed)


A_REQUEST = st.tuples(st.integers(0, 40), st.integers(1, 20), st.sampled_from(KINDS), st.integers(0, 9))
A_FAILURE = st.tuples(st.integers(20, 60), st.integers(1, 99), st.sampled_from(KINDS[1:5]), st.integers(0, 9))


@settings(max_examples=300, deadline=None)
@given(st.lists(A_REQUEST, max_size=40), st.lists(A_FAILURE), st.integers(1, 5), st.sampled_from(sorted(RULES)))
def test_the_parts_of_a_load_see_the_outage_that_one_would_see(mixed, failing, parts, rule):
    """All of it: since when, what was said, and what else it goes by; it is what the definition says."""
    samples = sorted((a_request(2 * at, 2 * lasts, *rest) for at, lasts, *rest in (*mixed, *failing)), key=_order)
    whole = ended(*samples)
    seen = [[] for _ in range(parts)]
    for at, sample in enumerate(samples):
        seen[RULES[rule](at, len(samples), parts)].append(sample)
    joined = Outage()
    for part in seen:
        joined.absorb(pickle.loads(pickle.dumps(ended(*part))))
    assert state(joined) == state(whole)
    assert seen_by(whole) == by_definition(samples)


def _order(sample) -> tuple[int, int]:
    return sample.end_ns, sample.due_ns


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("sent_at", [None, 0.0, 0.4, 0.9])
def test_of_very_many_failures_an_outage_is_seen_not_before_it_began(sent_at, rule):
    """One that begins after the last success has its beginning and every failure. Where another request succeeds that
    was sent among the failures, at most four thousandths of them are taken to have come before it. It is silent for no
    longer than it was, nor for much less."""
    ok = [a_sample(n, due_ns=n * S // 10) for n in range(500)]
    rng = random.Random(rule)
    failing = [
        a_request(51_000 + rng.randrange(10_000), rng.randrange(1, 100), rng.choice(KINDS[1:5]), rng.randrange(9))
        for _ in range(2_000)
    ]
    failing.sort(key=_order)
    late = [] if sent_at is None else [a_request(51_000 + int(sent_at * 10_000), 11_000, Outcome.OK, 1)]
    seen = [[], [], []]
    for at, sample in enumerate([*ok, *failing]):
        seen[RULES[rule](at, len(failing) + len(ok), 3)].append(sample)
    joined = Outage()
    for part in ([*seen[0], *late], *seen[1:]):
        joined.absorb(ended(*part))
    samples = [*ok, *failing, *late]
    for outage in (joined, ended(*samples)):
        has, true = seen_by(outage), by_definition(samples)
        assert has.began_ns is not None
        assert 0 <= has.began_ns - true.began_ns <= (0 if sent_at is None else 200_000_000)
        assert 0 <= true.failures.total() - has.failures.total() <= (0 if sent_at is None else len(failing) / 250)
        assert has.failed + has.failures.total() == len(failing)
        assert 0.98 * true.silent_ns <= has.silent_ns <= true.silent_ns
        assert len(outage._since) <= 1_000
