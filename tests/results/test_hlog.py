"""histograms.hlog: the HdrHistogram library reads it back, tag by tag."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Closed, Open
from loadbench.record.outcome import Outcome
from loadbench.results.hlog import hlog
from tests.building import a_failure, a_level, a_run

STARTED = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


def read_back(tmp_path, text: str) -> tuple[float, list[HdrHistogram]]:
    """(start time, intervals) as the library finds them."""
    path = tmp_path / "histograms.hlog"
    path.write_text(text, encoding="utf-8")
    reader = HistogramLogReader(str(path), HdrHistogram(1, 24 * 3600 * 10**9, 3))
    found = []
    while (interval := reader.get_next_interval_histogram()) is not None:
        found.append(interval)
    reader.close()
    return reader.get_start_time_sec(), found


def test_every_metric_of_every_level_is_read_back(tmp_path):
    """One interval each, under a tag of metric, model and load, with the counts and quantiles of the result."""
    run = a_run(a_level(), a_level(load=Open(0.5, parse_arrivals("poisson"))))
    _, intervals = read_back(tmp_path, hlog(run, STARTED))
    by_tag = {interval.get_tag(): interval for interval in intervals}
    expected = {
        f"{name}:m:{level.load.label}": metric
        for level in run.levels
        for name, metric in level.metrics.items()
        if metric is not None
    }
    assert "ttft_s:m:users=1" in expected
    assert "ttft_s:m:rate=0.5" in expected
    assert list(by_tag) == list(expected)
    for tag, metric in expected.items():
        assert by_tag[tag].get_total_count() == metric.count
        # The library gives the upper end of a bucket, half a µs wide at least; the result never more than the maximum.
        assert by_tag[tag].get_value_at_percentile(95) / 1e9 == pytest.approx(metric.p95, rel=1e-3, abs=1e-6)


def test_levels_are_intervals_in_turn(tmp_path):
    """Each is where its window was, after warm-ups and drains; older results do not say it: they follow each other."""
    levels = [a_level(), a_level(load=Closed(2))]
    for windows, seconds in (([(5, 105), (120, 220)], [(5, 105), (120, 220)]), ([None, None], [(0, 100), (100, 200)])):
        placed = [
            msgspec.structs.replace(level, window_ns=window and (window[0] * 10**9, window[1] * 10**9))
            for level, window in zip(levels, windows, strict=True)
        ]
        start_s, intervals = read_back(tmp_path, hlog(a_run(*placed), STARTED))
        assert start_s == pytest.approx(STARTED.timestamp(), abs=1e-3)
        spans = sorted({(one.get_start_time_stamp(), one.get_end_time_stamp()) for one in intervals})
        for span, (begins_s, ends_s) in zip(spans, seconds, strict=True):
            begins_ms = STARTED.timestamp() * 1000
            assert span == pytest.approx((begins_ms + 1000 * begins_s, begins_ms + 1000 * ends_s), abs=2)


def test_maxima_are_in_milliseconds():
    """As the format's viewers expect them; the histograms themselves are in ns."""
    lines = hlog(a_run(), STARTED).splitlines()
    ttft = next(text for text in lines if text.startswith("Tag=ttft_s:"))
    assert ttft.split(",")[3] == "199.000"


def test_metric_that_is_absent_has_no_line(tmp_path):
    """Nothing was answered: there is no latency to write, and the log is readable all the same."""
    text = hlog(a_run(a_level([a_failure(Outcome.RESET)])), STARTED)
    _, intervals = read_back(tmp_path, text)
    assert not [interval for interval in intervals if interval.get_tag().startswith("ttft")]


def test_hostile_model_name_stays_in_its_tag(tmp_path):
    """Commas, white space, line ends and escape sequences in a name break no line."""
    level = msgspec.structs.replace(a_level(), model="a, b\nTag=x,0,1,2,HISTF\x1b[31m\u2028")
    text = hlog(a_run(level), STARTED)
    _, intervals = read_back(tmp_path, text)
    assert len(intervals) == sum(metric is not None for metric in level.metrics.values())
    assert all("a_b_Tag=x_0_1_2_HISTF?[31m_" in interval.get_tag() for interval in intervals)
    assert "\x1b" not in text


def test_simulated_run_says_so():
    """In a comment, which readers of the format skip."""
    assert "simulated" in hlog(a_run(simulated=True), STARTED)
    assert "simulated" not in hlog(a_run(), STARTED)
