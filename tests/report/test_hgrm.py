"""`.hgrm`: the rows that the Java writer of HdrHistogram would make."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.core.errors import BadInput
from loadbench.record.histogram import LOWEST_NS, Histogram
from loadbench.report.hgrm import distribution, hgrm
from loadbench.results.folder import read_run

SAMPLE = Path("results/20261124T230344Z-llamacpp-25m-8slots")


def rows(text: str) -> list[list[float]]:
    """The numbers of each line that a plotter would read, and of the last."""
    return [[float(word) for word in line.split()] for line in text.splitlines()[1:] if line and line[0] != "#"]


@given(st.lists(st.integers(LOWEST_NS, 60_000_000_000), min_size=1, max_size=60))
def test_each_row_tells_how_many_are_no_greater(values: list[int]) -> None:
    """To the width of a bucket; the last row is the greatest value, and all of them."""
    histogram = Histogram()
    histogram.record_many(values)
    found = rows(distribution(histogram))
    for value_ms, share, up_to, *_ in found:
        near = value_ms * 1e3 + 1000
        least, most = (sum(value <= value_ms * 1e6 + by for value in values) for by in (-near, near))
        assert least <= up_to <= most
        assert up_to >= share * len(values)
    assert found[-1] == [pytest.approx(max(values) / 1e6, abs=1e-3), 1.0, len(values)]


def test_every_line_but_the_last_has_four_columns() -> None:
    """Plotters skip what has not; percentiles rise, and so do values."""
    histogram = Histogram()
    histogram.record_many([1_000_000 * number for number in range(1, 1001)])
    found = rows(distribution(histogram))
    assert {len(row) for row in found[:-1]} == {4}
    ticks = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.775, 0.8, 0.825, 0.85, 0.875, 0.8875]
    assert [row[1] for row in found[: len(ticks)]] == pytest.approx(ticks)
    assert len(found[-1]) == 3
    assert [row[1] for row in found] == sorted({row[1] for row in found})
    assert [row[0] for row in found] == sorted(row[0] for row in found)
    for value_ms, share, up_to, _ in found[:-1]:
        assert value_ms == pytest.approx(max(1, up_to), rel=1e-3)
        assert up_to >= share * 1000


def test_one_distribution_is_chosen() -> None:
    """A run of several levels needs to be told which, and says which there are."""
    run = read_run(SAMPLE)
    assert "ttft_s of llama-25m at users=8" in hgrm(run, metric="ttft_s", level="users=8")
    with pytest.raises(BadInput, match="which level") as raised:
        hgrm(run, metric="ttft_s", level=None)
    assert "llama-25m@users=16" in raised.value.hint
    with pytest.raises(BadInput, match="no such level"):
        hgrm(run, metric="ttft_s", level="users=3")
    with pytest.raises(BadInput, match="this level has none") as raised:
        hgrm(run, metric="ttfb", level="users=8")
    assert "ttft_s" in raised.value.hint
