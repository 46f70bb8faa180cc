"""A server beyond its limit apart from a faulty measurement, in whatever order the loads were measured."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.analyze.level.overload import judge_overload, limit_sentence, status_of
from loadbench.plan.arrivals import Arrivals, Spacing
from loadbench.plan.load import Closed, Open
from loadbench.record.outcome import Outcome
from loadbench.results.run import Reason, Verdict
from tests.building import MS, S, a_failure, a_level, a_sample

OPEN = a_level([a_sample()], load=Open(1.0, Arrivals(Spacing.CONSTANT)))
FIVE = "rate=16 and rate=17 and rate=18 and rate=19 and rate=20"
CROWD = msgspec.structs.replace(a_level([a_sample()], load=Closed(200)), verdict=Verdict("OVERLOADED", []))
BUSY = [
    (Outcome.HTTP_ERROR, 503),
    (Outcome.HTTP_ERROR, 429),
    (Outcome.HTTP_ERROR, 504),
    (Outcome.REFUSED, None),
    (Outcome.TIMEOUT_CONNECT, None),
    (Outcome.TIMEOUT_FIRST_TOKEN, None),
    (Outcome.TIMEOUT_IDLE, None),
    (Outcome.TIMEOUT_TOTAL, None),
]
BROKEN = [(Outcome.HTTP_ERROR, 500), (Outcome.HTTP_ERROR, 404), (Outcome.RESET, None), (Outcome.TRUNCATED, None)]


def failing(users, *kinds, ok=20, each=5):
    """A level with this many successes, and failures of each kind spread among them."""
    samples = [a_sample(n, due_ns=n * S, ttft_ns=50 * MS) for n in range(ok)]
    for index, (outcome, status) in enumerate(kinds):
        for n in range(each):
            due_ns = (n * ok // each) * S + (index + 1) * 10 * MS
            samples.append(a_failure(outcome, number=1000 + 100 * index + n, due_ns=due_ns, status=status))
    samples.append(a_sample(999, due_ns=ok * S, ttft_ns=50 * MS))
    return a_level(samples, load=Closed(users))


def at_rate(rate, status, *codes, evidence=()):
    """An open level with this status, and reasons of these codes."""
    level = msgspec.structs.replace(OPEN, load=msgspec.structs.replace(OPEN.load, rate_per_s=rate))
    verdict = Verdict(status, [Reason(code, code, "") for code in codes], list(evidence))
    return msgspec.structs.replace(level, verdict=verdict)


def statuses(levels):
    """Those of a run with these levels."""
    return [level.verdict.status for level in judge_overload(levels)]


@pytest.mark.parametrize("kind", BUSY)
def test_refused_load_above_a_valid_level_is_an_overload(kind):
    """The same failures at the only level are those of a server that does not work."""
    good, refusing = failing(1), failing(8, kind)
    assert (good.verdict.status, refusing.verdict.status) == ("VALID", "INVALID")
    assert [reason.code for reason in refusing.verdict.reasons] == ["failures"]
    assert statuses([good, refusing]) == ["VALID", "OVERLOADED"]
    assert statuses([refusing]) == ["INVALID"]
    assert statuses([refusing, failing(16, kind)]) == ["INVALID", "INVALID"]


@pytest.mark.parametrize("kind", BROKEN)
def test_other_failures_are_no_overload(kind):
    """Alone, and where they are more than the limit allows beside refusals of load."""
    assert statuses([failing(1), failing(8, kind)]) == ["VALID", "INVALID"]
    assert statuses([failing(1), failing(8, kind, (Outcome.HTTP_ERROR, 503))]) == ["VALID", "INVALID"]


def test_few_other_failures_leave_an_overload():
    """One reset among 121 is within the limit of 1 %."""
    level = failing(8, (Outcome.HTTP_ERROR, 503), ok=120, each=20)
    reset = a_failure(Outcome.RESET, number=5000, due_ns=3 * S + 20 * MS)
    samples = [a_sample(n, due_ns=n * S, ttft_ns=50 * MS) for n in range(150)]
    samples += [a_failure(Outcome.HTTP_ERROR, number=2000 + n, due_ns=n * S + MS, status=503) for n in range(20)]
    mixed = a_level([*samples, reset], load=Closed(8))
    assert statuses([failing(1), level, mixed]) == ["VALID", "OVERLOADED", "OVERLOADED"]


def test_server_that_only_fails_is_invalid_at_every_level():
    """Whatever its lower levels were: nothing was measured."""
    only = a_level(
        [a_failure(Outcome.HTTP_ERROR, number=n, due_ns=n * S, status=503) for n in range(30)], load=Closed(8)
    )
    assert statuses([failing(1), only]) == ["VALID", "INVALID"]


def test_growing_queue_needs_no_lower_level():
    """But failures at the lowest level are never an overload."""
    grows = at_rate(16, "INVALID", "not_steady", "short_warm_up", evidence=["not_steady"])
    assert statuses([grows]) == ["OVERLOADED"]
    cut = at_rate(16, "INVALID", "not_steady", "failures", evidence=["not_steady", "failures"])
    assert statuses([cut]) == ["INVALID"]
    assert statuses([at_rate(8, "INCONCLUSIVE"), cut]) == ["INCONCLUSIVE", "OVERLOADED"]


@pytest.mark.parametrize(
    "code", ["late_start", "late_reads", "loop_lag", "lost_worker", "rate_not_reached", "audit", "server_stopped"]
)
def test_faulty_measurement_is_invalid_and_says_both(code):
    """A client that is late, or a server that is gone, is not excused by an overload."""
    level = at_rate(16, "INVALID", "not_steady", code, evidence=["not_steady"])
    (judged,) = judge_overload([level])
    assert judged.verdict.status == "INVALID"
    assert [reason.code for reason in judged.verdict.reasons] == ["not_steady", code]


def test_not_steady_without_a_growing_queue_is_invalid():
    """The same code says that TTFT drifted."""
    assert status_of([Reason("not_steady", "", "")], []) == "INVALID"


KINDS = {
    "good": ("VALID", (), ()),
    "refuses": ("INVALID", ("failures",), ("failures",)),
    "fails": ("INVALID", ("failures",), ()),
    "grows": ("OVERLOADED", ("not_steady",), ("not_steady",)),
    "grows, cut": ("INVALID", ("not_steady", "failures"), ("not_steady", "failures")),
    "late": ("INVALID", ("not_steady", "late_start"), ("not_steady",)),
    "undecided": ("INCONCLUSIVE", ("undecided",), ()),
}


@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(sorted(KINDS))), max_size=7), st.randoms())
def test_order_and_resuming_change_nothing(kinds, rng):
    """Levels in any order, judged one by one as they end or all at once, have the same statuses in the end."""
    levels = [at_rate(rate, KINDS[kind][0], *KINDS[kind][1], evidence=KINDS[kind][2]) for rate, kind in kinds]
    order = list(range(len(levels)))
    rng.shuffle(order)
    one_by_one = []
    for index in order:
        one_by_one = judge_overload([*one_by_one, levels[index]])
    at_once = judge_overload(levels)
    assert [level.verdict for level in one_by_one] == [at_once[index].verdict for index in order]
    assert judge_overload(at_once) == at_once
    for level in at_once:
        lower = {other.verdict.status for other in at_once if other.load.rate_per_s < level.load.rate_per_s}
        if level.verdict.status == "OVERLOADED" and "not_steady" not in level.verdict.load_evidence:
            assert "VALID" in lower


def test_other_models_and_kinds_of_load_are_other_runs():
    """A valid level of another model, or with think time, says nothing about this one."""
    refusing = failing(8, (Outcome.HTTP_ERROR, 503))
    other = msgspec.structs.replace(failing(1), model="other")
    assert statuses([other, refusing]) == ["VALID", "INVALID"]
    assert statuses([at_rate(1, "VALID"), refusing]) == ["VALID", "INVALID"]


@pytest.mark.parametrize(
    ("levels", "sentence"),
    [
        ([at_rate(8, "VALID")], ""),
        (
            [at_rate(16, "OVERLOADED"), at_rate(8, "VALID"), at_rate(4, "VALID")],
            "the server keeps up with rate=8; rate=16 is beyond its limit",
        ),
        (
            [at_rate(8, "VALID"), at_rate(16, "OVERLOADED"), at_rate(32, "OVERLOADED")],
            "the server keeps up with rate=8; rate=16 and rate=32 are beyond its limit",
        ),
        (
            [at_rate(16, "OVERLOADED")],
            "rate=16 is beyond the server's limit; no level shows a load that it keeps up with",
        ),
        (
            [at_rate(16, "OVERLOADED"), at_rate(32, "VALID")],
            "rate=16 was beyond the server's limit, though rate=32 was not: the server changed between these levels",
        ),
        (
            [at_rate(8, "VALID"), *(at_rate(16 + n, "OVERLOADED") for n in range(6))],
            f"the server keeps up with rate=8; {FIVE} and 1 more are beyond its limit",
        ),
        (  # the VALID one is of the kind of the lowest that is too much
            [at_rate(8, "VALID"), at_rate(16, "OVERLOADED"), CROWD],
            "the server keeps up with rate=8; rate=16 and users=200 are beyond its limit",
        ),
    ],
)
def test_sentence_says_where_the_limit_is(levels, sentence):
    """In the words of the levels, from the lowest load on."""
    assert limit_sentence(levels) == sentence
