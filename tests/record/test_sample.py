"""Sample: the figures of one request, each as its definition says, and their identities exactly."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.load import Phase
from loadbench.record.outcome import Outcome
from loadbench.record.usage_check import UsageCheck
from tests.building import make_sample as sample_of

if TYPE_CHECKING:
    from loadbench.record.sample import Sample

BARE = sample_of(number=0, phase=Phase.MEASURED, outcome=Outcome.REFUSED, due_ns=100, end_ns=200)


def make_sample(
    stamps: list[int],
    *,
    tokens: list[int] | None = None,
    output_tokens: int | None = None,
    due_ns: int = 0,
    sent_ns: int | None = 0,
    end_ns: int | None = None,
    **more: object,
) -> Sample:
    """A request whose token-bearing events came at `stamps`; each held one token unless `tokens` says how many."""
    return sample_of(
        **{
            "number": 0,
            "phase": Phase.MEASURED,
            "outcome": Outcome.OK,
            "due_ns": due_ns,
            "sent_ns": sent_ns,
            "first_byte_ns": stamps[0] if stamps else None,
            "first_token_ns": stamps[0] if stamps else None,
            "first_visible_ns": stamps[0] if stamps else None,
            "last_token_ns": stamps[-1] if stamps else None,
            "end_ns": end_ns if end_ns is not None else (stamps[-1] if stamps else 0),
            "event_ns": array("q", stamps),
            "event_tokens": None if tokens is None else array("q", tokens),
            "output_tokens": output_tokens if output_tokens is not None or tokens is None else sum(tokens),
            **more,
        }
    )


STAMPS = st.lists(st.integers(0, 10**12), min_size=1, max_size=50).map(sorted)


@given(STAMPS, st.integers(-(10**9), 0), st.integers(-(10**9), 0))
def test_e2e_minus_ttft_is_the_sum_of_the_gaps(stamps: list[int], sent_ns: int, due_ns: int) -> None:
    """In nanoseconds and exactly, both as service and as response time; k events have k - 1 gaps."""
    sample = make_sample(stamps, sent_ns=sent_ns, due_ns=min(due_ns, sent_ns))
    gaps = sample.event_gaps()
    assert len(gaps) == len(stamps) - 1
    for since in (sample.since_sent, sample.since_due):
        first, last = since(sample.first_token_ns), since(sample.last_token_ns)
        assert first is not None
        assert last is not None
        assert last - first == sum(gaps)


@given(STAMPS, st.data())
def test_tpot_is_the_token_weighted_mean_of_itl(stamps: list[int], data: st.DataObject) -> None:
    """The time after the first event over the tokens after it, whichever way it is summed: to the ITLs' rounding."""
    tokens = data.draw(st.lists(st.integers(1, 9), min_size=len(stamps), max_size=len(stamps)))
    sample = make_sample(stamps, tokens=tokens)
    itl, tpot = sample.inter_token_latencies(), sample.tpot()
    if len(stamps) == 1:
        assert (itl, tpot) == ([], None)
        return
    assert [weight for _, weight in itl] == tokens[1:]
    if stamps[0] == stamps[-1]:
        assert tpot is None  # all in one read: at what pace, nobody knows
        return
    assert tpot == pytest.approx(sum(ns * weight for ns, weight in itl) / sum(tokens[1:]), abs=0.5001)


def test_hidden_reasoning_was_over_when_the_first_event_came() -> None:
    """Of 12 tokens 8 were reasoned unseen: the time after the first event went into the other three."""
    hidden = make_sample([1000, 1300, 1600, 1900], sent_ns=0, output_tokens=12, usage=UsageCheck(hidden=8))
    assert hidden.tpot() == 900 / 3
    assert hidden.tpot_classic() == 900 / 11


def test_hidden_tokens_of_unknown_number_leave_no_time_per_token() -> None:
    """A pace over tokens that nobody saw would be too fast; where the events' own tokens are known, it is theirs."""
    stamps = [1000, 1300, 1600]
    assert make_sample(stamps, sent_ns=0, output_tokens=400, usage=UsageCheck(hidden=None)).tpot() is None
    counted = make_sample(stamps, tokens=[398, 1, 1], sent_ns=0, usage=UsageCheck(hidden=None))
    assert counted.tpot() == 300


def test_reasoning_that_the_first_event_has_is_not_taken_off_twice() -> None:
    """Where usage tells that the first event held the reasoning, what is left is the rest."""
    told = make_sample([0, 100, 200], tokens=[501, 1, 1], output_tokens=503, reasoning_tokens=500)
    assert told.tpot() == 100


def test_each_figure_is_its_definition() -> None:
    """Due at 100, sent at 140, five tokens in three events at 1140, 1340 and 1940."""
    sample = make_sample([1140, 1340, 1940], tokens=[2, 1, 2], due_ns=100, sent_ns=140, end_ns=2000)
    assert (sample.since_sent(sample.first_token_ns), sample.since_due(sample.first_token_ns)) == (1000, 1040)
    assert (sample.since_sent(sample.last_token_ns), sample.since_sent(sample.end_ns)) == (1800, 1860)
    assert sample.event_gaps() == [200, 600]
    assert sample.inter_token_latencies() == [(200, 1), (300, 2)]
    assert sample.tpot() == 800 / 3
    assert sample.tpot_classic() == 800 / 4
    assert sample.e2e_per_token() == 1800 / 5
    assert sample.lateness() == 40


def test_without_counts_per_event_there_is_no_itl() -> None:
    """Only the event gaps are known then, and the first event is taken to hold one token."""
    sample = make_sample([10, 20, 40], output_tokens=7)
    assert sample.inter_token_latencies() == []
    assert sample.tpot() == sample.tpot_classic() == 30 / 6


def test_events_without_tokens_have_no_itl() -> None:
    """An event that held no whole token is no later token of anything."""
    assert make_sample([10, 20, 40], tokens=[1, 0, 2]).inter_token_latencies() == [(10, 2)]


def test_d15_one_token_has_no_time_per_token() -> None:
    """The denominator is below 1: undefined, not 0 and not negative."""
    one = make_sample([10], tokens=[1])
    assert (one.tpot(), one.tpot_classic(), one.event_gaps()) == (None, None, [])
    assert one.e2e_per_token() == 10
    all_at_once = make_sample([10, 20], tokens=[5, 0])
    assert all_at_once.tpot() is None
    assert all_at_once.tpot_classic() == 10 / 4


@pytest.mark.parametrize("output_tokens", [None, 0])
def test_without_tokens_nothing_is_per_token(output_tokens: int | None) -> None:
    """An unknown count, or none, divides nothing."""
    sample = make_sample([10, 20], output_tokens=output_tokens)
    assert sample.tpot() is sample.tpot_classic() is sample.e2e_per_token() is None


def test_a_mark_that_did_not_happen_gives_no_figure() -> None:
    """A request that was never sent has no service times, no lateness, no gaps."""
    assert BARE.since_sent(150) is BARE.since_sent(None) is BARE.since_due(None) is BARE.lateness() is None
    assert BARE.since_due(150) == 50
    assert BARE.event_gaps() == BARE.inter_token_latencies() == []
    assert BARE.tpot() is BARE.e2e_per_token() is None


def test_a5_a_token_at_time_zero_is_a_token() -> None:
    """0 is a time like any other: the clock may well begin there."""
    sample = make_sample([0, 5], tokens=[1, 1], due_ns=0, sent_ns=0)
    assert sample.since_sent(sample.first_token_ns) == 0
    assert sample.tpot() == 5


@pytest.mark.parametrize(("connect_ns", "late_ns"), [(None, 400), (0, 400), (300, 100), (500, 0)])
def test_connecting_is_not_the_clients_own_delay(connect_ns: int | None, late_ns: int) -> None:
    """Lateness is due to sent without the set-up of a new connection, and never below 0."""
    assert make_sample([900], due_ns=100, sent_ns=500, connect_ns=connect_ns).lateness() == late_ns


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_what_the_server_did_is_a_failure(outcome: Outcome) -> None:
    """ok is none, and neither is what the user cut or we could not send; what the drain cut came too late."""
    not_failed = {Outcome.OK, Outcome.CLIENT_LIMIT, Outcome.CANCELLED, Outcome.GAVE_UP}
    assert outcome.failed is (outcome not in not_failed)


def test_a_request_of_which_nothing_came_counts_nothing() -> None:
    """No marks, no tokens, no events, and nothing that was not understood."""
    counts = BARE.reads, BARE.merged_reads, BARE.separate_events, BARE.censored_events, BARE.reconnects
    assert (*counts, BARE.unread_frames, BARE.keep_alives, len(BARE.event_ns)) == (0,) * 8
    assert (BARE.request.warm, BARE.request.keep_text, BARE.request.destination) == (False, False, (0, None, None))
    assert (BARE.tpot(), BARE.e2e_per_token(), BARE.lateness(), BARE.inter_token_latencies()) == (None, None, None, [])


def test_tokens_of_no_event_have_no_pace() -> None:
    """As where a server counted tokens and sent none of them."""
    assert make_sample([], tokens=[], output_tokens=5).tpot() is None
