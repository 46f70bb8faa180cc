"""Histogram: exact where it says so, within its bucket elsewhere, and compatible with every other HdrHistogram."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.core.errors import BadInput
from loadbench.record.histogram import DIGITS, HIGHEST_NS, LOWEST_NS, Histogram

VALUES = st.one_of(st.integers(0, HIGHEST_NS), st.integers(0, 5_000_000), st.sampled_from([0, 511, 512, 2**20, 2**21]))
LISTS = st.lists(VALUES, max_size=60)


def _of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def _peer(values: list[int]) -> HdrHistogram:
    peer = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    for value in values:
        assert peer.record_value(value)
    return peer


def _blob(parameters: tuple[float, ...] = (0, DIGITS, LOWEST_NS, HIGHEST_NS, 1.0), body: bytes = b"\x02") -> str:
    inner = zlib.compress(struct.pack(">IIiiqqd", 0x1C849313, len(body), *parameters) + body)
    return base64.b64encode(struct.pack(">II", 0x1C849314, len(inner)) + inner).decode()


@settings(max_examples=40, deadline=None)
@given(LISTS)
def test_the_encoded_bytes_are_those_of_hdrhistogram_itself(values: list[int]) -> None:
    """What is written is what the reference recording one by one would have written."""
    assert _of(values).encode() == _peer(values).encode().decode()


@settings(max_examples=40, deadline=None)
@given(LISTS)
def test_recording_many_is_recording_one_by_one(values: list[int]) -> None:
    """Lists and arrays fill the same buckets as single values, and keep the same exact figures."""
    as_list, as_array = Histogram(), Histogram()
    as_list.record_many(values)
    as_array.record_many(np.array(values, dtype=np.int64))
    assert as_list == as_array == _of(values)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(VALUES, st.integers(1, 9)), max_size=40))
def test_a_weight_is_so_many_recordings(pairs: list[tuple[int, int]]) -> None:
    """A value of weight w counts as w values, however the weights are handed over."""
    values, weights = [value for value, _ in pairs], [weight for _, weight in pairs]
    weighted, counted, mixed = Histogram(), Histogram(), Histogram()
    weighted.record_many(values, weights)
    mixed.record_many(np.array(values, dtype=np.int64), weights)
    for value, weight in pairs:
        counted.record(value, weight)
    assert weighted == counted == mixed == _of([value for value, weight in pairs for _ in range(weight)])


def test_ten_thousand_values_are_counted_whenever_they_are_settled() -> None:
    """More values than are put aside at once are all counted, whether read in between or not."""
    read, unread = Histogram(), Histogram()
    for value in range(10_000):
        read.record(value * 1000)
        unread.record(value * 1000)
        assert value % 997 or read.count == value + 1
    assert read == unread
    assert unread.count == 10_000


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=60), st.floats(0, 100))
def test_percentiles_are_the_exact_ones_to_within_a_bucket(values: list[int], p: float) -> None:
    """The value of rank ceil(p/100 n) of the sorted list, or above it by 0.1 % or one lowest bucket at most."""
    exact = sorted(values)[max(1, math.ceil(Fraction(str(p)) * len(values) / 100)) - 1]
    found = _of(values).percentile(p)
    assert found is not None
    assert exact <= found <= min(max(values), exact + max(511, exact // 1000))


@pytest.mark.parametrize(
    ("n", "p", "rank"), [(160, 99, 159), (4, 60, 3), (11, 95, 11), (1000, 99.9, 999), (1000, 0, 1), (7, 100, 7)]
)
def test_g_percentile_ranks_are_rounded_up_exactly(n: int, p: float, rank: int) -> None:
    """The rank is the ceiling of p/100 n in whole numbers; rounding to nearest, or floats, would miss these."""
    histogram = _of([1_000_000_000 * value for value in range(1, n + 1)])
    assert histogram.percentile(p) == histogram.value_at_rank(rank)
    assert histogram.percentile(p) == pytest.approx(rank * 1e9, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=60))
def test_g2_no_percentile_is_above_the_greatest_value(values: list[int]) -> None:
    """Least, greatest, sum and mean are exact, and no value shown lies outside them."""
    histogram = _of(values)
    assert (histogram.min, histogram.max, histogram.sum) == (min(values), max(values), sum(values))
    assert histogram.mean == sum(values) / len(values)
    assert histogram.percentile(100) == max(values)
    shown, counts = histogram.nonzero()
    assert min(values) <= shown.min() <= shown.max() == max(values)
    assert counts.sum() == len(values) == histogram.counts.sum()


@settings(max_examples=40, deadline=None)
@given(st.lists(LISTS, max_size=4), st.randoms())
def test_g1_merged_is_pooled(parts: list[list[int]], random: object) -> None:
    """Merging is exact and in any order: the same as having recorded everything in one place."""
    histograms = [_of(part) for part in parts]
    random.shuffle(histograms)  # type: ignore[attr-defined]
    merged = Histogram()
    for histogram in histograms:
        merged.merge(histogram)
    assert merged == _of([value for part in parts for value in part])


def test_sums_beyond_64_bits_are_exact() -> None:
    """A million days are summed in whole numbers."""
    histogram = Histogram()
    histogram.record(HIGHEST_NS, 1_000_000)
    histogram.record_many([HIGHEST_NS - 1], [1_000_000])
    assert histogram.sum == 1_000_000 * (2 * HIGHEST_NS - 1) > 1 << 63


def test_an_empty_one_has_no_figures() -> None:
    """Empty is None, never 0."""
    empty = Histogram()
    assert (empty.count, empty.sum, empty.clipped) == (0, 0, 0)
    assert empty.min is empty.max is empty.mean is empty.stddev is empty.percentile(50) is None
    assert [part.size for part in empty.nonzero()] == [0, 0]
    assert Histogram.decode(empty.encode()) == empty
    with pytest.raises(ValueError, match="no rank 1 among 0"):
        empty.value_at_rank(1)


def test_merging_an_empty_one_changes_nothing() -> None:
    """The least value survives a merge with nothing: some histograms then call it 0."""
    histogram = _of([5_000_000])
    histogram.merge(Histogram())
    assert histogram == _of([5_000_000])


def test_g4_what_is_out_of_range_is_counted_at_the_bound_and_said() -> None:
    """Values above 24 h are recorded as 24 h, by every way in, and counted as clipped; 24 h itself is not."""
    one, many, array = Histogram(), Histogram(), Histogram()
    values = [10**30, HIGHEST_NS + 1, HIGHEST_NS, 1_000_000]
    for value in values:
        one.record(value, 2)
    many.record_many(values, [2] * 4)
    array.record_many(np.array([2**62, *values[1:]]), np.array([2] * 4))
    assert one == many == array
    assert (one.clipped, one.count, one.max, one.percentile(100)) == (4, 8, HIGHEST_NS, HIGHEST_NS)
    one.merge(many)
    assert one.clipped == 8


@pytest.mark.parametrize(
    ("values", "weights", "error"),
    [
        ([-1], None, ValueError),
        ([5, -1], [1, 1], ValueError),
        ([5], [0], ValueError),
        ([5, 6], [1], ValueError),
        ([5], [1, 2], ValueError),
        ([5, 1.5], None, TypeError),
        ([math.nan], None, TypeError),
        ([5], [1 << 60], OverflowError),
    ],
)
@pytest.mark.parametrize("form", [list, np.array])
def test_what_cannot_be_a_duration_is_refused_whole(
    form: type, values: list[int], weights: list[int] | None, error: type[Exception]
) -> None:
    """Negative, fractional or weightless values raise, and nothing of their batch is counted."""
    histogram = Histogram()
    with pytest.raises(error):  # noqa: PT012 - what is put aside is looked at when it is read
        histogram.record_many(form(values), weights)
        assert histogram.count
    assert histogram.count == 0


@pytest.mark.parametrize(("value", "count"), [(-1, 1), (1, 0)])
def test_a_negative_value_or_no_count_is_refused(value: int, count: int) -> None:
    """`record` refuses what cannot have happened."""
    with pytest.raises(ValueError, match="cannot record"):
        Histogram().record(value, count)


@pytest.mark.parametrize(
    ("value", "interval", "expected"),
    [
        (1000, 100, list(range(1000, 0, -100))),
        (1050, 100, list(range(1050, 100, -100))),
        (100, 100, [100]),
        (0, 100, [0]),
        (10_000_000_000, 10_000_000, list(range(10_000_000_000, 0, -10_000_000))),
        (200_000, 1, list(range(200_000, 0, -1))),
    ],
)
def test_corrected_recording_adds_what_a_stall_hid(value: int, interval: int, expected: list[int]) -> None:
    """v, v - i, v - 2i, ... down to i: 1000 at an interval of 100 makes ten values, and nothing below the interval."""
    corrected, plain = Histogram(), Histogram()
    corrected.record_corrected(value, interval)
    plain.record_many(expected)
    assert corrected == plain


def test_a_correction_needs_an_interval() -> None:
    """No interval, no correction."""
    with pytest.raises(ValueError, match="corrects nothing"):
        Histogram().record_corrected(5, 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=40))
def test_decoding_gives_the_same_counts(values: list[int]) -> None:
    """Written and read again: the same buckets, figures within them, the same bytes; and hdrhistogram reads it too."""
    written = _of(values)
    text = written.encode()
    read = Histogram.decode(text)
    assert (read.counts == written.counts).all()
    assert read.encode() == text
    assert read.count == HdrHistogram.decode(text).get_total_count() == len(values)
    assert read.mean is not None
    assert written.mean is not None
    assert abs(read.mean - written.mean) <= 256 + written.mean / 1000
    assert read.min is not None
    assert read.max is not None
    assert read.min <= min(values) <= max(values) <= read.max


def test_stddev_is_that_of_hdrhistogram() -> None:
    """The standard deviation is the reference's: over the middles of buckets."""
    values = [1_000_000 * value**2 for value in range(1, 40)]
    assert _of(values).stddev == pytest.approx(_peer(values).get_stddev(), rel=1e-6)


def _bomb() -> str:
    inner = zlib.compress(struct.pack(">IIiiqqd", 0x1C849313, 1 << 24, 0, 3, 1000, HIGHEST_NS, 1.0) + bytes(1 << 24))
    return base64.b64encode(struct.pack(">II", 0x1C849314, len(inner)) + inner).decode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "header"),
        ("HISTF", "base64"),
        ("HISTFäöü", "ASCII"),
        ("A" * 600_000, "characters"),
        (_blob()[:-8], "header|base64"),
        (base64.b64encode(b"\x1c\x84\x93\x14\x00\x00\x00\x04abcd").decode(), "header|incorrect"),
        (_blob((0, 2, LOWEST_NS, HIGHEST_NS, 1.0)), "other parameters"),
        (_blob((0, 3, 1, 3600 * 10**9, 1.0)), "other parameters"),
        (_blob((0, 3, LOWEST_NS, HIGHEST_NS, 2.0)), "other parameters"),
        (_blob((1, 3, LOWEST_NS, HIGHEST_NS, 1.0)), "other parameters"),
        (_blob(body=b"\x02" * 29_697), "."),
        (_blob(body=b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"), "."),
        (_blob(body=b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" * 3), "."),
        (_bomb(), "too long"),
    ],
)
def test_rubbish_is_bad_input(text: str, reason: str) -> None:
    """What is damaged, foreign, of other parameters or too large is refused with a reason, before it is unpacked."""
    with pytest.raises(BadInput, match=reason):
        Histogram.decode(text)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_no_content_brings_decoding_down(body: bytes) -> None:
    """Any bytes under a right header are a histogram or BadInput, nothing else."""
    try:
        histogram = Histogram.decode(_blob(body=body))
    except BadInput:
        return
    assert histogram.count == histogram.counts.sum()


def test_counts_are_read_only() -> None:
    """Whoever reads the counts cannot change them."""
    with pytest.raises(ValueError, match="read-only"):
        _of([1]).counts[0] = 5


def test_a_histogram_is_no_key() -> None:
    """It changes, so that it has no hash; and it is equal to nothing else."""
    with pytest.raises(TypeError):
        hash(Histogram())
    assert Histogram() != 0
    assert repr(_of([5])) == "Histogram(count=1, min=5, max=5)"


def test_values_that_are_too_long_count_once_without_weights() -> None:
    """As with weights; and each batch adds to what was clipped before."""
    histogram = Histogram()
    histogram.record_many([10**30, 5_000])
    histogram.record_many(np.array([HIGHEST_NS + 1, HIGHEST_NS]))
    assert histogram == _of([10**30, 5_000, HIGHEST_NS + 1, HIGHEST_NS])
    assert histogram.clipped == 2


def test_weights_are_of_any_width() -> None:
    """And so are values: sums and bounds of narrow integers do not overflow."""
    histogram = Histogram()
    histogram.record_many(np.array([5, 5], np.uint16), np.array([200, 200], np.uint8))
    histogram.record_many(np.array([2**63 + 5, 5], np.uint64), np.array([1, 1], np.int8))
    assert (histogram.count, histogram.clipped, histogram.sum) == (402, 1, 2_005 + HIGHEST_NS)


def test_only_greater_values_are_above() -> None:
    """A value is not above itself, nor above others of its bucket."""
    histogram = _of([1_000, 5_000_000, 5_000_000, 9_000_000])
    shown, _ = histogram.nonzero()
    assert [histogram.count_above(int(value)) for value in shown] == [3, 1, 0]
    assert histogram.count_above(0) == 4


def test_the_lowest_value_of_a_rank_is_the_bottom_of_its_bucket() -> None:
    """And the minimum at least, which is known exactly."""
    histogram = _of([700, 3_000_001, 9_000_000])
    lowest, highest = ([histogram.value_at_rank(rank, lowest=low) for rank in (1, 2, 3)] for low in (True, False))
    assert lowest[0] == 700
    assert lowest[1] < 3_000_001 < highest[1]
    assert lowest[1] % 2_048 == 0
    assert highest[1] == lowest[1] + 2_047
    assert highest[2] == 9_000_000


@pytest.mark.parametrize("p", [-0.001, 100.001])
def test_a_percentile_lies_between_0_and_100(p: float) -> None:
    """Also of an empty histogram."""
    with pytest.raises(ValueError, match="between 0 and 100"):
        Histogram().percentile(p)


def test_histograms_differ_by_their_counts_and_by_their_exact_figures() -> None:
    """The same figures in other buckets are another histogram, and so are other figures in the same buckets."""
    ms = 1_000_000
    assert _of([0, 4 * ms, 6 * ms, 10 * ms]) != _of([0, 3 * ms, 7 * ms, 10 * ms])
    assert _of([100, 200, 300]) != _of([100, 250, 300])


def test_rank_0_does_not_exist() -> None:
    """Ranks are those of the values: from 1 to their number."""
    for rank in (0, 3):
        with pytest.raises(ValueError, match=f"no rank {rank} among 2"):
            _of([1, 2]).value_at_rank(rank)


@pytest.mark.parametrize(("counted", "is_read"), [(2**53, True), (2**53 + 1, False)])
def test_more_counts_than_can_be_summed_are_refused(counted: int, is_read: bool) -> None:
    """A file may hold up to 2^53 of them."""
    left, body = 2 * counted, b""
    while left > 127:
        body, left = body + bytes([left & 127 | 128]), left >> 7
    text = _blob(body=body + bytes([left]))
    if is_read:
        assert Histogram.decode(text).count == counted
    else:
        with pytest.raises(BadInput, match="beyond reason"):
            Histogram.decode(text)


def test_a_weight_has_a_bound() -> None:
    """2^40, whichever way it is counted; nothing above it is."""
    histogram = Histogram()
    histogram.record_many([5], [1 << 40])
    assert histogram.count == 1 << 40
    histogram.record(5, (1 << 40) + 1)
    with pytest.raises(OverflowError):
        assert histogram.count


def test_the_bound_is_a_day() -> None:
    """The last nanosecond of 24 h is kept, the next one is clipped."""
    histogram = _of([86_400 * 10**9, 86_400 * 10**9 + 1])
    assert (histogram.clipped, histogram.max) == (1, 86_400 * 10**9)


def test_the_middle_of_the_lowest_bucket_is_256_ns() -> None:
    """From which the exact mean, 0, differs by that much."""
    assert _of([0]).stddev == 256
