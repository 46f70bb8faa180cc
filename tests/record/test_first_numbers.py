"""The numbers of the first requests of a level and of its parts, and the memory that is set aside for them."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from loadbench.record.first_numbers import FirstRows, room_of

MB = 1 << 20
_TAKEN = """
import psutil
from loadbench.record.first_numbers import FirstRows
rss = lambda: psutil.Process().memory_info().rss
before = rss()
kept = FirstRows(2 << 20, "d")
print(rss() - before)
"""


def rows_of(kept):
    """The rows that it has."""
    return list(zip(*(column.tolist() for column in kept.columns()), strict=True))


def test_the_first_rows_are_kept_in_order_until_there_is_no_room():
    """It says when it is full, and takes no more then."""
    kept = FirstRows(3, "qd")
    assert (rows_of(kept), kept.is_full) == ([], False)
    for number in (0.5, -1.0):
        kept.add(9, 7, number)
    assert (rows_of(kept), kept.is_full) == ([(7, 0.5), (7, -1.0)], False)
    kept.add(9, 8, 2.0)
    kept.add(9, 9, 4.0)
    assert (rows_of(kept), kept.is_full) == ([(7, 0.5), (7, -1.0), (8, 2.0)], True)


def test_parts_have_the_first_of_all_as_far_as_no_part_is_full():
    """By their ends, whichever part they are of; what one had no more room for may have ended before others'."""
    whole, parts = FirstRows(400, "q", parts=400), [FirstRows(400, "q", parts=400) for _ in range(2)]
    assert room_of(400, 400) == 64
    for end_ns in range(0, 140, 2):  # more than there is room for
        parts[0].add(end_ns, end_ns)
    for end_ns in range(101, 161, 2):
        parts[1].add(end_ns, end_ns)
    for part in parts:
        whole.absorb(pickle.loads(pickle.dumps(part)))
    assert rows_of(whole) == [(end_ns,) for end_ns in range(127) if end_ns % 2 == 0 or end_ns > 100]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count the memory of a process in other ways")
def test_memory_is_taken_at_once():
    """For all that there is room for: 16 MB for a column, of which there is another for the ends."""
    # In a process of its own: one that has run other tests has memory to spare.
    done = subprocess.run([sys.executable, "-c", _TAKEN], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 24 * MB
