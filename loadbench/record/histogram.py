"""Durations counted in buckets: how loadbench keeps more than a few of them.

An HdrHistogram of 3 significant digits in nanoseconds, the same for every figure, so that any two can be merged. Its
lowest buckets are 512 ns wide (the power of two below 1 µs); from about 1 ms on a bucket is 0.05 to 0.1 % wide:

    0 .. 2^20 ns          2048 buckets of 512 ns
    2^20 .. 2^21 ns       1024 buckets of 1024 ns, and so on, twice as wide in each octave, up to 24 h

`hdrh` writes and reads the interchange format that HdrHistogram viewers open. The counts are kept here, in a numpy
array, with the exact minimum, maximum and sum, which buckets cannot keep: `hdrh` rounds the rank of a percentile to the
nearest instead of up, drops what is out of range, and reports the edge of a bucket as the maximum.

A level records millions of values, one event at a time. `record` and `record_many` therefore only buffer them, and they
are counted some thousands at once, which costs a twentieth per value. Every read counts the buffer first.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
import sys
import zlib
from array import array
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from hdrh.codec import HdrLengthException
from hdrh.histogram import HdrHistogram

from loadbench.core.errors import BadInput
from loadbench.core.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Values: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]
    Counts: TypeAlias = NDArray[np.int64]

LOWEST_NS: Final = 1_000
HIGHEST_NS: Final = 24 * 3600 * NS_PER_S
DIGITS: Final = 3

# What follows from these: HdrHistogram's "unit magnitude", and 2^11 >= 2 * 10^3 sub-buckets, half of them per octave.
_UNIT = 9
_HALF = 10
_LENGTH = 29_696

# Values buffered before they are counted: enough to hide numpy's fixed cost per call, a few 100 µs of work.
_MOST_PENDING = 4_096
# The same of values that come one by one, which are few: a level has many such histograms, and their buffers would grow
# for minutes.
_MOST_SINGLE = 512
_ONCE = array("q", (1,))
# Far above any weight; sums of weights stay within 64 bits.
_MOST_WEIGHT = 1 << 40
# Corrections that are computed at once.
_CHUNK = 65_536

# The interchange format, V2: two headers, each with its cookie.
_OUTER = struct.Struct(">II")
_OUTER_COOKIE = 0x1C849314
_INNER = struct.Struct(">IIiiqqd")
_INNER_COOKIE = 0x1C849313
# A count takes 9 bytes at most, and zlib adds almost nothing to what it cannot compress.
_MOST_BYTES = _INNER.size + 9 * _LENGTH
_MOST_TEXT = 2 * _MOST_BYTES
# Far above any count, and far enough below 2^63 that sums of many histograms cannot overflow.
_MOST_COUNTED = 1 << 53


class Histogram:
    """Counts of durations in ns from 0 to 24 h; longer ones are counted as 24 h, and in `clipped`."""

    __slots__ = ("_clipped", "_counts", "_found", "_max", "_min", "_sum", "_total", "_values", "_weights")

    def __init__(self) -> None:
        self._counts: Counts | None = None  # 232 KiB, made when something has to be counted
        self._values = array("q")  # the buffer, with as many weights
        self._weights = array("q")
        self._total = self._sum = self._clipped = self._max = 0
        self._min = sys.maxsize
        self._found: tuple[Counts, Counts] | None = None  # of `_filled`, until something is counted

    def record(self, value_ns: int, count: int = 1) -> None:
        """Count `value_ns`, `count` times. Raises `ValueError` for a negative value or a count below 1."""
        if value_ns < 0 or count < 1:
            raise ValueError(f"cannot record {value_ns} ns {count} times")
        if value_ns > HIGHEST_NS:
            self._clipped += count
            value_ns = HIGHEST_NS
        self._values.append(value_ns)
        self._weights.append(count)
        if len(self._values) >= _MOST_SINGLE:
            self._settle()

    def record_many(self, values: Values, weights: Values | None = None) -> None:
        """Count each value in ns `weight` times, or once; the same as recording one by one.

        Raises `ValueError` for negative values, weights below 1, or if there are not as many weights as values, and
        `TypeError` for fractions.
        """
        if isinstance(values, np.ndarray) or isinstance(weights, np.ndarray):
            if weights is None and isinstance(values, np.ndarray) and self._buffers(values):
                return
            self._record_array(np.asarray(values), np.ones(len(values), np.int64) if weights is None else weights)
            return
        if weights is not None and len(weights) != len(values):
            raise ValueError(f"{len(values)} values cannot have {len(weights)} weights")
        if not values:
            return
        if min(values) < 0 or (weights is not None and min(weights) < 1):
            raise ValueError("cannot record a negative value, nor less often than once")
        if max(values) > HIGHEST_NS:
            bounded = np.array([min(value, HIGHEST_NS + 1) for value in values])  # fits 64 bits, and is still too long
            self._record_array(bounded, weights or _ONCE * len(values))
            return
        # Arrays first: they refuse fractions, before anything is recorded.
        fresh, often = array("q", values), _ONCE * len(values) if weights is None else array("q", weights)
        self._values.extend(fresh)
        self._weights.extend(often)
        if len(self._values) >= _MOST_PENDING:
            self._settle()

    def _buffers(self, values: NDArray[np.integer[Any]]) -> bool:
        """Buffer values of 64 bits as they are, if there are not very many, and all of them are in range."""
        if values.dtype != np.int64 or values.ndim != 1 or not 0 < values.size < _MOST_PENDING:
            return False
        if values.min() < 0 or values.max() > HIGHEST_NS:
            return False
        self._values.frombytes(values.tobytes())
        self._weights.extend(_ONCE * len(values))
        if len(self._values) >= _MOST_PENDING:
            self._settle()
        return True

    def _record_array(self, values: NDArray[np.integer[Any]], weights: Values) -> None:
        often = np.asarray(weights)
        if values.shape != often.shape or values.ndim != 1:
            raise ValueError(f"{values.size} values cannot have {often.size} weights")
        if not values.size:
            return
        if values.dtype.kind not in "iu" or often.dtype.kind not in "iu":
            raise TypeError(f"cannot record {values.dtype} values, {often.dtype} times; both are whole")
        if values.min() < 0 or often.min() < 1:
            raise ValueError("cannot record a negative value, nor less often than once")
        often = often.astype(np.int64)
        self._clipped += int(often[values > HIGHEST_NS].sum())
        # As 64 bits: a narrower array cannot hold the bound.
        self._fold(np.minimum(values, np.int64(HIGHEST_NS)).astype(np.int64), often)

    def record_corrected(self, value_ns: int, interval_ns: int) -> None:
        """Count `value_ns` and the values that it displaced: `v - i`, `v - 2i`, ... down to the interval `i`.

        The correction for coordinated omission as HdrHistogram (Java) defines it: one value was seen where there would
        have been one every `interval_ns`. An estimate, for measurements that have no schedule of their own.
        """
        if interval_ns < 1:
            raise ValueError(f"an interval of {interval_ns} ns corrects nothing")
        self.record(value_ns)
        first_ns = min(value_ns, HIGHEST_NS)
        steps = first_ns // interval_ns
        for step in range(1, steps, _CHUNK):
            displaced = first_ns - interval_ns * np.arange(step, min(step + _CHUNK, steps), dtype=np.int64)
            self._fold(displaced, np.ones_like(displaced))

    def _settle(self) -> None:
        """Count the buffer."""
        if self._values:
            values, weights, self._values, self._weights = self._values, self._weights, array("q"), array("q")
            self._fold(np.frombuffer(values, np.int64), np.frombuffer(weights, np.int64))

    def _fold(self, values: Counts, weights: Counts) -> None:
        if weights.max() > _MOST_WEIGHT:
            raise OverflowError(f"a value cannot be recorded {weights.max()} times at once")
        np.add.at(self._writable(), _index(values), weights)
        total, least, greatest = int(weights.sum()), int(values.min()), int(values.max())
        self._total += total
        self._min = min(self._min, least)
        self._max = max(self._max, greatest)
        # In 64 bits if the sum certainly fits, else in Python's integers: exact in both.
        exact = values if greatest * total < 1 << 63 else values.astype(object)
        self._sum += int((exact * weights).sum())

    def _writable(self) -> Counts:
        counts, self._found = self._dense(), None
        self._counts = counts
        return counts

    def _dense(self) -> Counts:
        """The count of every bucket; a histogram that came from another process has those that are not empty."""
        if self._counts is not None:
            return self._counts
        counts = np.zeros(_LENGTH, np.int64)
        if self._found is not None:
            counts[self._found[0]] = self._found[1]
        return counts

    def merge(self, other: Histogram) -> None:
        """Add all that `other` has counted, as if it had been recorded here."""
        other._settle()
        if not other._total:
            return
        counts = self._writable()
        if other._counts is None and other._found is not None:
            counts[other._found[0]] += other._found[1]
        else:
            counts += other._dense()
        self._total += other._total
        self._sum += other._sum
        self._clipped += other._clipped
        self._min = min(self._min, other._min)
        self._max = max(self._max, other._max)

    # Reading.

    @property
    def count(self) -> int:
        """How many values were recorded."""
        self._settle()
        return self._total

    @property
    def clipped(self) -> int:
        """How many of them were longer than 24 h."""
        return self._clipped

    @property
    def min(self) -> int | None:
        """The exact minimum in ns; `None` when empty."""
        return self._min if self.count else None

    @property
    def max(self) -> int | None:
        """The exact maximum in ns; `None` when empty."""
        return self._max if self.count else None

    @property
    def sum(self) -> int:
        """The exact sum of all values in ns."""
        self._settle()
        return self._sum

    @property
    def mean(self) -> float | None:
        """The mean in ns, from the exact sum; `None` when empty."""
        return self.sum / self._total if self.count else None

    @property
    def stddev(self) -> float | None:
        """The standard deviation in ns of the middles of the values' buckets, as HdrHistogram defines it."""
        mean = self.mean
        if mean is None:
            return None
        index, counts = self._filled()
        low, high = _bounds(index)
        return math.sqrt(float(((((low + high + 1) / 2 - mean) ** 2) * counts).sum()) / self._total)

    @property
    def counts(self) -> Counts:
        """The count of every bucket, read-only."""
        self._settle()
        view = self._dense().view()
        view.flags.writeable = False
        return view

    def nonzero(self) -> tuple[Counts, Counts]:
        """(values in ns, counts) of the buckets that are not empty, ascending; values as from `value_at_rank`."""
        index, counts = self._filled()
        return np.minimum(_bounds(index)[1], self._max), counts

    def _filled(self) -> tuple[Counts, Counts]:
        """The buckets that are not empty, and their counts: looked for once for all percentiles of a report."""
        self._settle()
        if self._found is None:
            counts = self._dense()
            index = np.flatnonzero(counts)
            self._found = index, counts[index]
        return self._found

    def count_above(self, value_ns: int) -> int:
        """The number of values above this one, to the precision of a bucket."""
        values, counts = self.nonzero()
        return int(counts[values > value_ns].sum())

    def value_at_rank(self, rank: int, *, lowest: bool = False) -> int:
        """The `rank`-th smallest value in ns, from 1: the top of its bucket, and `max` at most.

        It exceeds the true value by 0.1 % or 511 ns at most. With `lowest` it is the bottom of the bucket, and `min` at
        least. Raises `ValueError` for a rank that does not exist.
        """
        if not 1 <= rank <= self.count:
            raise ValueError(f"there is no rank {rank} among {self.count} values")
        index, counts = self._filled()
        place = index[[np.searchsorted(np.cumsum(counts), rank)]]
        return int(np.clip(_bounds(place)[0 if lowest else 1], self._min, self._max)[0])

    def percentile(self, p: float) -> int | None:
        """The value in ns that `p` % of all values do not exceed, which has rank `ceil(p/100 n)`; `None` when empty.

        `p` is taken as a decimal: 99.9 of 1000 values is rank 999, though the float is slightly above 99.9.
        """
        if not 0 <= p <= 100:
            raise ValueError(f"a percentile lies between 0 and 100, not at {p}")
        if not self.count:
            return None
        return self.value_at_rank(max(1, math.ceil(Fraction(str(p)) * self._total / 100)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return self._facts() == other._facts() and bool(np.array_equal(self.counts, other.counts))

    __hash__ = None  # type: ignore[assignment] # it changes

    def _facts(self) -> tuple[int | None, ...]:
        return (self.count, self.sum, self.clipped, self.min, self.max)

    def __repr__(self) -> str:
        return f"Histogram(count={self.count}, min={self.min}, max={self.max})"

    # Between processes.

    def __getstate__(self) -> tuple[object, ...]:
        """Only the buckets that are not empty, as small as they can be."""
        index, counts = self._filled()
        kind = np.min_scalar_type(int(counts.max(initial=0)))
        facts = (self._total, self._sum, self._clipped, self._min, self._max)
        return index.astype(np.uint16).tobytes(), counts.astype(kind).tobytes(), kind.char, facts

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        index, counts, kind, facts = state
        self._counts, self._values, self._weights = None, array("q"), array("q")
        self._found = np.frombuffer(index, np.uint16).astype(np.int64), np.frombuffer(counts, kind).astype(np.int64)
        self._total, self._sum, self._clipped, self._min, self._max = facts

    # The interchange format.

    def encode(self) -> str:
        """HdrHistogram's V2 compressed form in base64, `HISTF...`: the counts, without `min`, `max` and `sum`."""
        inner = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
        np.frombuffer(inner.counts, np.int64)[:] = self.counts
        inner.total_count, inner.max_value = self._total, self._max
        return str(inner.encode(), "ascii")

    @staticmethod
    def decode(text: str) -> Histogram:
        """The histogram that `encode` wrote; `min`, `max` and `sum` are those of its buckets.

        Raises `BadInput` for any other text, or other parameters. It never takes more memory than a histogram.
        """
        try:
            _check(text)
            histogram = Histogram()
            histogram._take(np.frombuffer(HdrHistogram.decode(text).counts, np.int64))
        except (ValueError, IndexError, OverflowError, zlib.error, HdrLengthException) as error:
            raise BadInput(
                f"this is not a histogram that loadbench can read: {error}",
                hint="copy the whole text, HISTF..., as loadbench wrote it",
            ) from None
        return histogram

    def _take(self, counts: Counts) -> None:
        """Take these counts into an empty histogram, with minimum, maximum and sum from the buckets."""
        index = np.flatnonzero(counts)
        held = counts[index].tolist()
        if not held:
            return
        if min(held) < 0 or sum(held) > _MOST_COUNTED:
            raise ValueError("its counts are beyond reason")
        low, high = _bounds(index)
        self._counts, self._found = counts.copy(), None
        self._total = sum(held)
        self._min, self._max = int(low[0]), min(int(high[-1]), HIGHEST_NS)
        self._sum = sum(middle * count for middle, count in zip(((low + high + 1) // 2).tolist(), held, strict=True))


def permille_rank(permille: int, total: int) -> int:
    """The rank, from 1, of the value that `permille` of `total` values do not exceed; 0 if there are none."""
    return -(-permille * total // 1000)


def _index(values: Counts) -> Counts:
    """The bucket of each value: its octave, and its place in it."""
    _, bits = np.frexp(values.astype(np.float64))  # exact: values are below 2^53
    octave = np.maximum(bits, _UNIT + _HALF + 1).astype(np.int64) - (_UNIT + _HALF + 1)
    return (octave << _HALF) + (values >> (octave + _UNIT))


def _bounds(index: Counts) -> tuple[Counts, Counts]:
    """(smallest, largest) value in ns of each bucket."""
    octave = np.maximum((index >> _HALF) - 1, 0)
    width = octave + _UNIT
    place = index - (octave << _HALF)
    return place << width, ((place + 1) << width) - 1


def _check(text: str) -> None:
    """Raise `ValueError` unless this is a histogram with our parameters that stays small when unpacked."""
    if len(text) > _MOST_TEXT:
        raise ValueError(f"{len(text)} characters are more than any has")
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its base64 is damaged, {error}") from None
    if len(raw) < _OUTER.size or _OUTER.unpack_from(raw) != (_OUTER_COOKIE, len(raw) - _OUTER.size):
        raise ValueError("its header is not that of a V2 histogram, or it has been cut")
    unpacker = zlib.decompressobj()
    body = unpacker.decompress(raw[_OUTER.size :], _MOST_BYTES)
    if not unpacker.eof or unpacker.unused_data or len(body) < _INNER.size:
        raise ValueError("its content is too long or too short")
    cookie, length, *parameters = _INNER.unpack_from(body)
    if cookie != _INNER_COOKIE or length != len(body) - _INNER.size:
        raise ValueError("its content is not that of a V2 histogram")
    if parameters != [0, DIGITS, LOWEST_NS, HIGHEST_NS, 1.0]:
        raise ValueError(f"it has other parameters: {parameters[1]} digits from {parameters[2]} to {parameters[3]}")
