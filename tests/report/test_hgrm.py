"""`.hgrm`: the rows that the Java writer of HdrHistogram would make."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.record.histogram import LOWEST_NS, Histogram
from loadbench.report.hgrm import distribution
from loadbench.results.folder import read_run
from loadbench.results.run import to_json
from tests.cli.running import loadbench
from tests.report.golden import empty

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


def test_every_distribution_is_printed_under_its_tag() -> None:
    """`--format hgrm` prints a section for each metric of each level, with the values of its histogram."""
    run = read_run(SAMPLE)
    done = loadbench("report", str(SAMPLE.resolve()), "--format", "hgrm", cwd=Path.cwd())
    sections = done.stdout.removeprefix("#[").split("\n\n#[")
    kept = [(level, name, metric) for level in run.levels for name, metric in level.metrics.items() if metric]
    assert len(sections) == len(kept) > len(run.levels)
    for section, (level, name, metric) in zip(sections, kept, strict=True):
        tag, table = section.split("\n", 1)
        assert tag == f"{name} of llama-25m at {level.load.label}, in ms]"
        found = rows(table)
        assert found[-1] == [pytest.approx(metric.max * 1e3, rel=1e-3), 1.0, metric.count]
        # Where the rest of the values is the maximum, its row stands for the ticks that are left.
        for share, value_s in ((0.5, metric.p50), (0.9, metric.p90), (0.95, metric.p95)):
            (value_ms,) = [row[0] for row in found if row[1] == pytest.approx(share)] or [found[-1][0]]
            assert value_ms == pytest.approx(value_s * 1e3, rel=1e-3)
        assert f"Total count    = {metric.count:12d}]" in table


def test_a_folder_gets_a_file_for_each_distribution(tmp_path: Path) -> None:
    """With `--out` each file is one that a plotter takes; its name says level, metric, load and model."""
    done = loadbench("report", str(SAMPLE.resolve()), "--format", "hgrm", "--out", "plots", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    run = read_run(SAMPLE)
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert len(names) == sum(metric is not None for level in run.levels for metric in level.metrics.values())
    assert "4-ttft_s-users-8-llama-25m.hgrm" in names
    text = (tmp_path / "plots" / "4-ttft_s-users-8-llama-25m.hgrm").read_text(encoding="utf-8")
    assert text.count("#[Mean") == 1
    assert rows(text.split("\n", 1)[1])[-1][2] == run.levels[3].metrics["ttft_s"].count


def test_a_run_without_a_distribution_says_so(tmp_path: Path) -> None:
    """Nothing to print is a mistake that is named, with exit code 2."""
    (tmp_path / "run.json").write_bytes(to_json(empty()))
    done = loadbench("report", str(tmp_path), "--format", "hgrm", cwd=tmp_path)
    assert done.returncode == 2
    assert "no level has a distribution" in done.stderr
