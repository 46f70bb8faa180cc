"""Tokens by slices of time."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from loadbench.record.slices import SLICE_NS, Slices

OPENS = 5 * SLICE_NS


@given(st.lists(st.lists(st.integers(0, 50 * SLICE_NS), min_size=1, max_size=9).map(sorted), max_size=60))
def test_every_token_is_in_the_slice_of_its_stamp(answers):
    """However many answers there are, each token counts once, where its event arrived."""
    slices = Slices(OPENS)
    expected = [0.0] * 51
    for stamps in answers:
        tokens = array("q", range(1, len(stamps) + 1))
        slices.add(array("q", [OPENS + at for at in stamps]), tokens, sum(tokens))
        for at, held in zip(stamps, tokens, strict=True):
            expected[at // SLICE_NS] += held
    assert list(slices.until(OPENS + 51 * SLICE_NS)) == expected


def test_many_events_are_all_counted():
    """What is gathered and counted in batches is counted whole."""
    slices = Slices(0)
    for number in range(3000):
        slices.add(array("q", [number * SLICE_NS // 100] * 8), None, 8.0)
    assert sum(slices.until(30 * SLICE_NS)) == 24_000
    assert set(slices.until(30 * SLICE_NS)) == {800.0}


def test_unknown_tokens_are_shared_out_evenly():
    """Four tokens in two events are two each."""
    slices = Slices(0)
    slices.add(array("q", [1, SLICE_NS + 1]), None, 4.0)
    assert slices.until(2 * SLICE_NS) == (2.0, 2.0)


def test_only_whole_slices_are_told():
    """A window that ends within a slice leaves that one out; one that is longer than the tokens has empty ones."""
    slices = Slices(0)
    slices.add(array("q", [1]), None, 1.0)
    assert slices.until(SLICE_NS - 1) == ()
    assert slices.until(3 * SLICE_NS + 5) == (1.0, 0.0, 0.0)


def test_a_slice_is_a_tenth_of_a_second():
    """Before its first one there is none; what is counted later is added to what was."""
    slices = Slices(OPENS)
    slices.add(array("q", [OPENS + at for at in (10_000_000, 60_000_000, 110_000_000)]), array("q", [1, 2, 4]), 7)
    assert slices.until(OPENS - 1) == ()
    assert slices.until(OPENS + 300_000_000) == (3, 4, 0)
    slices.add(array("q", [OPENS + 20_000_000]), array("q", [8]), 8)
    assert slices.until(OPENS + 300_000_000) == (11, 4, 0)
    assert slices.total() == 15
