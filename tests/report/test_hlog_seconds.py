"""`--format hlog`: a level second by second, read by the Python library, the Java tool and hdr-histogram-js."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import msgspec
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from loadbench.analyze.level.by_second import by_second
from loadbench.record.histogram import Histogram
from loadbench.results.folder import read_run
from loadbench.results.requests import read_requests
from loadbench.results.run import to_json
from tests.cli.running import loadbench

SAMPLE = Path("results/20261124T230344Z-llamacpp-25m-8slots").resolve()
TAG = "ttft_s:llama-25m:users=8"


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    """The log of the sample run."""
    path = tmp_path_factory.mktemp("hlog") / "run.hlog"
    done = loadbench("report", str(SAMPLE), "--format", "hlog", "--out", str(path), cwd=path.parent)
    assert done.returncode == 0, done.stderr
    return path


def intervals(path: Path) -> dict[str, list[HdrHistogram]]:
    """Those of each tag, as the Python reader has them."""
    reader = HistogramLogReader(str(path), HdrHistogram(1, 24 * 3600 * 10**9, 3))
    found = defaultdict(list)
    while (interval := reader.get_next_interval_histogram()) is not None:
        found[interval.get_tag()].append(interval)
    reader.close()
    return found


def test_the_seconds_add_up_to_each_level(log: Path) -> None:
    """Bucket by bucket: every request is in one of them, in each metric of each level."""
    run, found = read_run(SAMPLE), by_second(read_run(SAMPLE).levels, read_requests(SAMPLE / "requests.jsonl"))
    for number, level in enumerate(run.levels):
        for name, metric in level.metrics.items():
            if metric is None:
                continue
            together = Histogram()
            for one in found[number, name]:
                together.merge(Histogram.decode(one.hdr))
            assert together.nonzero()[1].tolist() == Histogram.decode(metric.hdr).nonzero()[1].tolist(), name
    assert sum(len(parts) for parts in found.values()) == sum(len(parts) for parts in intervals(log).values())


def test_intervals_are_where_the_requests_ended(log: Path) -> None:
    """A second long each, from the opening of the level's window on, with as many values as requests ended in it."""
    run = read_run(SAMPLE)
    opens_ns, _ = run.levels[3].window_ns
    ended = Counter(
        (one.end_ns - opens_ns) // 10**9
        for one in read_requests(SAMPLE / "requests.jsonl")
        if one.level == 3 and one.phase == "measured" and one.outcome == "ok"
    )
    start_ms = intervals(log)[TAG][0].get_start_time_stamp()
    seen = {round((one.get_start_time_stamp() - start_ms) / 1000): one.get_total_count() for one in intervals(log)[TAG]}
    first = min(ended)
    assert seen == {second - first: count for second, count in ended.items()}
    assert all(one.get_end_time_stamp() - one.get_start_time_stamp() == 1000 for one in intervals(log)[TAG])
    begins = [float(line.split(",")[1]) for line in log.read_text("utf-8").splitlines() if line.startswith("Tag=")]
    assert begins == sorted(begins)


def test_a_level_whose_requests_are_not_all_there_is_one_interval(tmp_path: Path) -> None:
    """With the histogram of the result; the other levels go second by second."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(SAMPLE / "run.json", folder)
    lines = (SAMPLE / "requests.jsonl").read_text("utf-8").splitlines(keepends=True)
    levels = [json.loads(line) for line in lines]
    gone = next(at for at, one in enumerate(levels) if one["level"] == 3 and one["phase"] == "measured")
    (folder / "requests.jsonl").write_text("".join(lines[:gone] + lines[gone + 1 :]), encoding="utf-8")
    loadbench("report", str(folder), "--format", "hlog", "--out", "a.hlog", cwd=tmp_path)
    found, run = intervals(tmp_path / "a.hlog"), read_run(SAMPLE)
    (whole,) = found[TAG]
    assert whole.get_total_count() == run.levels[3].metrics["ttft_s"].count
    assert whole.get_end_time_stamp() - whole.get_start_time_stamp() == pytest.approx(45_000, abs=1)
    assert len(found["ttft_s:llama-25m:users=4"]) > 10
    (folder / "requests.jsonl").unlink()
    loadbench("report", str(folder), "--format", "hlog", "--out", "b.hlog", cwd=tmp_path)
    assert {len(parts) for parts in intervals(tmp_path / "b.hlog").values()} == {1}


def test_a_run_without_a_time_of_start_says_so(tmp_path: Path) -> None:
    """The log's times count from it."""
    (tmp_path / "run.json").write_bytes(to_json(msgspec.structs.replace(read_run(SAMPLE), started_at="yesterday")))
    done = loadbench("report", str(tmp_path), "--format", "hlog", cwd=tmp_path)
    assert done.returncode == 2
    assert "no time of start: 'yesterday'" in done.stderr


def java_tool() -> list[str] | None:
    """How HdrHistogram's own log processor is started; `None` where it is not on this machine."""
    jar = os.environ.get("LOADBENCH_HDR_JAR") or next(
        map(str, sorted(Path("~/.m2/repository/org/hdrhistogram/HdrHistogram").expanduser().glob("*/*[0-9].jar"))), None
    )
    java = shutil.which("java")
    return [java, "-cp", jar, "org.HdrHistogram.HistogramLogProcessor"] if java and jar else None


def test_the_java_log_processor_reads_it(log: Path) -> None:
    """Count, maximum and mean of a tag are those of the result, over all its seconds."""
    tool = java_tool()
    if tool is None:
        pytest.skip("there is no java with HdrHistogram's jar: set LOADBENCH_HDR_JAR")
    command = [*tool, "-i", str(log), "-tag", TAG, "-outputValueUnitRatio", "1000000"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    metric = read_run(SAMPLE).levels[3].metrics["ttft_s"]
    footers = {
        name: float(out.split(f"{name} ")[1].split("=")[1].split(",")[0].split("]")[0])
        for name in ("[Mean", "[Max", "Total count")
    }
    assert footers["Total count"] == metric.count
    assert footers["[Max"] == pytest.approx(metric.max * 1e3, rel=1e-3)
    assert footers["[Mean"] == pytest.approx(metric.mean * 1e3, rel=1e-3)


JAVASCRIPT = """
const hdr = require("hdr-histogram-js");
let count = 0, max = 0;
for (const line of require("fs").readFileSync(process.argv[1], "utf8").split("\\n")) {
  if (!line.startsWith("Tag=" + process.argv[2] + ",")) continue;
  const histogram = hdr.decodeFromCompressedBase64(line.split(",")[4]);
  count += histogram.totalCount;
  max = Math.max(max, histogram.maxValue);
}
console.log(JSON.stringify([count, max]));
"""


def test_hdr_histogram_js_reads_it(log: Path) -> None:
    """As do browsers and Node."""
    node = shutil.which("node")
    if (
        node is None
        or subprocess.run([node, "-e", "require('hdr-histogram-js')"], capture_output=True, check=False).returncode
    ):
        pytest.skip("there is no node with hdr-histogram-js: install it, and set NODE_PATH")
    command = [node, "-e", JAVASCRIPT, str(log), TAG]
    count, maximum_ns = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    metric = read_run(SAMPLE).levels[3].metrics["ttft_s"]
    assert count == metric.count
    assert maximum_ns / 1e9 == pytest.approx(metric.max, rel=1e-3)
