"""Tokens by slices of time."""

from __future__ import annotations

import pickle
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.record import slices as slices_module
from loadbench.record.slices import SLICE_NS, Slices

OPENS = 5 * SLICE_NS


@given(st.lists(st.lists(st.integers(0, 50 * SLICE_NS), min_size=1, max_size=9).map(sorted), max_size=60))
def test_every_token_is_in_the_slice_of_its_stamp(answers):
    """However many answers there are, each token counts once, where its event arrived."""
    slices = Slices(OPENS)
    expected = [0.0] * 51
    for stamps in answers:
        tokens = array("q", range(1, len(stamps) + 1))
        slices.add_tokens(array("q", [OPENS + at for at in stamps]), tokens, sum(tokens))
        for at, held in zip(stamps, tokens, strict=True):
            expected[at // SLICE_NS] += held
    assert list(slices.until(OPENS + 51 * SLICE_NS)) == expected


def test_many_events_are_all_counted():
    """What is gathered and counted in batches is counted whole."""
    slices = Slices(0)
    for number in range(3000):
        slices.add_tokens(array("q", [number * SLICE_NS // 100] * 8), None, 8.0)
    assert sum(slices.until(30 * SLICE_NS)) == 24_000
    assert set(slices.until(30 * SLICE_NS)) == {800.0}


def test_unknown_tokens_are_shared_out_evenly():
    """Four tokens in two events are two each."""
    slices = Slices(0)
    slices.add_tokens(array("q", [1, SLICE_NS + 1]), None, 4.0)
    assert slices.until(2 * SLICE_NS) == (2.0, 2.0)


def test_only_whole_slices_are_told():
    """A window that ends within a slice leaves that one out; one that is longer than the tokens has empty ones."""
    slices = Slices(0)
    slices.add_tokens(array("q", [1]), None, 1.0)
    assert slices.until(SLICE_NS - 1) == ()
    assert slices.until(3 * SLICE_NS + 5) == (1.0, 0.0, 0.0)


def test_a_slice_is_a_tenth_of_a_second():
    """Before its first one there is none; what is counted later is added to what was."""
    slices = Slices(OPENS)
    stamps = array("q", [OPENS + at for at in (10_000_000, 60_000_000, 110_000_000)])
    slices.add_tokens(stamps, array("q", [1, 2, 4]), 7)
    assert slices.total() == 7
    assert slices.until(OPENS - 1) == ()
    assert slices.until(OPENS + 300_000_000) == (3, 4, 0)
    slices.add_tokens(array("q", [OPENS + 20_000_000]), array("q", [8]), 8)
    assert slices.until(OPENS + 300_000_000) == (11, 4, 0)
    assert slices.total() == 15


@given(st.lists(st.tuples(st.integers(0, 799), st.integers(-3, 3)), max_size=60))
def test_a_long_window_has_longer_slices(changes):
    """Merged by two as often as needed: sums and levels are those of slices that were so long from the beginning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices_module, "_MOST_SLICES", 8)
        patch.setattr(slices_module, "_GATHERED", 5)
        slices = Slices(OPENS, changes=True)
        for at, value in sorted(changes):
            slices.add(OPENS + at * SLICE_NS // 10, value)
        width_ns = slices.count()
        closes_ns = OPENS + 80 * SLICE_NS
        rows, levels = slices.rows(closes_ns), slices.levels(closes_ns)
        assert slices.until(closes_ns) == tuple(rows[0])
    latest = max((at for at, _ in changes), default=0) * SLICE_NS // 10
    assert latest < 8 * width_ns
    assert width_ns == SLICE_NS or latest >= 4 * width_ns
    times = [(at * SLICE_NS // 10, value) for at, value in changes]
    for number, (total, count, mean) in enumerate(zip(rows[0], rows[1], levels, strict=True)):
        begins, ends = number * width_ns, (number + 1) * width_ns
        inside = [value for at, value in times if begins <= at < ends]
        assert (total, count) == (sum(inside), len(inside))
        assert abs(mean - sum(value * max(0, ends - max(at, begins)) for at, value in times) / width_ns) < 1e-9


@given(st.lists(st.lists(st.tuples(st.integers(0, 799), st.integers(-3, 3)), max_size=9), min_size=1, max_size=4))
def test_slices_of_parts_are_those_of_the_whole(parts):
    """Whichever part has the longer ones, and whichever comes first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices_module, "_MOST_SLICES", 8)
        whole, joined = Slices(OPENS, changes=True), Slices(OPENS, changes=True)
        for changes in parts:
            part = Slices(OPENS, changes=True)
            for at, value in changes:
                part.add(OPENS + at * SLICE_NS // 10, value)
                whole.add(OPENS + at * SLICE_NS // 10, value)
            joined.absorb(pickle.loads(pickle.dumps(part)))
        assert joined.count() == whole.count()
        np.testing.assert_allclose(joined.rows(OPENS + 80 * SLICE_NS), whole.rows(OPENS + 80 * SLICE_NS), atol=1e-9)


def test_slices_are_merged_after_seven_minutes():
    """As soon as there would be more than 4096."""
    slices = Slices(OPENS)
    slices.add(OPENS + 4096 * SLICE_NS - 1, 1)
    assert slices.count() == SLICE_NS
    slices.add(OPENS + 4096 * SLICE_NS, 1)
    assert slices.count() == 2 * SLICE_NS


def test_few_values_wait_to_be_counted():
    """A level of many hours takes no more memory."""
    values, tokens = Slices(OPENS), Slices(OPENS)
    for number in range(5000):
        values.add(OPENS + number, 1)
        tokens.add_tokens(array("q", [OPENS + number] * 2), None, 2)
        assert max(len(values._moments), len(tokens._moments)) < 3000
    assert (values.total(), tokens.total()) == (5000, 10_000)
