"""The numbers of the first requests of a level, and the memory that is set aside for them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from loadbench.record.first_numbers import FirstNumbers

MB = 1 << 20
_TAKEN = """
import psutil
from loadbench.record.first_numbers import FirstNumbers
rss = lambda: psutil.Process().memory_info().rss
before = rss()
few = FirstNumbers(4 << 20, "q", expected=1000)
between = rss()
all_of_it = FirstNumbers(4 << 20, "q")
print(between - before, rss() - between)
"""


def test_the_first_numbers_are_kept_in_order_until_there_is_no_room():
    """It says when it is full, and takes no more then."""
    kept = FirstNumbers(3, "d")
    assert (list(kept.numbers), kept.is_full) == ([], False)
    for number in (0.5, -1.0):
        kept.add(number)
    assert (list(kept.numbers), kept.count, kept.is_full) == ([0.5, -1.0], 2, False)
    kept.add(2.0)
    assert (list(kept.numbers), kept.most, kept.is_full) == ([0.5, -1.0, 2.0], 3, True)
    with pytest.raises(IndexError):
        kept.add(4.0)
    assert list(kept.numbers) == [0.5, -1.0, 2.0]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count the memory of a process in other ways")
def test_memory_is_taken_at_once_for_what_is_expected_alone():
    """32 MB for all that there is room for, or a few pages of as much room."""

    # In a process of its own: one that has run other tests has memory to spare.
    done = subprocess.run([sys.executable, "-c", _TAKEN], capture_output=True, text=True, check=True)
    few, all_of_it = map(int, done.stdout.split())
    assert few < 8 * MB
    assert all_of_it > 24 * MB
