"""Every figure of `run.json` follows from `requests.jsonl`: a script that knows nothing of loadbench finds the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from loadbench.analyze.level.summary import summarize
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.distribution import Uniform
from loadbench.plan.load import Closed, Open
from loadbench.record.outcome import Outcome
from loadbench.results.requests import line
from loadbench.results.run import to_json
from loadbench.sim.process import SimProcess
from tests import recompute
from tests.building import MS, S, a_recording, a_run, a_sample
from tests.cli.running import loadbench
from tests.engine.scripted import PATIENT, Act, Ran, run_scripted

ORIGIN_NS = -7 * S
POISSON = parse_arrivals("poisson")
IMPATIENT = replace(PATIENT, idle_ns=700 * MS)


def kept(folder: Path, ran, load) -> Path:
    """A run folder of one level, as the command line writes it; the run began 7 s before its level."""
    level = summarize(
        ran.recording, target="t", model="m", load=load, failure_limit=0.01, origin_ns=ran.begin_ns + ORIGIN_NS
    )
    (folder / "run.json").write_bytes(to_json(a_run(level)))
    lines = [line(sample, level=0, origin_ns=ran.begin_ns + ORIGIN_NS) for sample in ran.samples]
    (folder / "requests.jsonl").write_bytes(b"".join(lines))
    return folder


def uneven(number: int) -> Act:
    """Each request another length and pace; some fail, some break off, some connect slowly, some never end."""
    return Act(
        connect_ns=3 * MS * (number % 4 == 0),
        first_ns=(20 + 13 * (number % 7)) * MS,
        gap_ns=(3 + number % 5) * MS + number,
        tokens=1 + number % 9,
        status=500 if number % 23 == 7 else 200,
        breaks=Outcome.RESET if number % 29 == 11 else None,
        stalls_after=2 if number % 41 == 13 and number % 9 > 3 else None,
    )


EXTENTS = {
    "by duration": {"duration_ns": 9 * S, "warm_up_ns": 2 * S, "cool_down_ns": S, "drain_ns": S},
    "by number": {"requests": 120, "warm_up_ns": S, "drain_ns": S},
}


@pytest.mark.parametrize("extent", EXTENTS.values(), ids=EXTENTS)
@pytest.mark.parametrize("load", [Closed(5, Uniform(0, 50 * MS)), Open(30, POISSON), Closed(1)])
def test_level_in_virtual_time_follows_from_its_requests(tmp_path, load, extent):
    """Failures, cut requests, warm-up, cool-down and a window that cuts answers in two: all of it comes out again."""
    ran = run_scripted(load, uneven, workers=4, timeouts=IMPATIENT, **extent)
    assert {Outcome.OK, Outcome.RESET, Outcome.HTTP_ERROR} <= set(ran.recording.outcomes)
    assert recompute.differences(kept(tmp_path, ran, load)) == []


def test_missed_arrivals_follow_too(tmp_path):
    """What was due and never sent is in no line, and in the offered rate."""
    load = Open(50, POISSON)
    ran = run_scripted(load, Act(first_ns=S), plan={"most_in_flight": 3}, duration_ns=5 * S)
    assert ran.recording.missed > 100
    assert recompute.differences(kept(tmp_path, ran, load)) == []


def test_events_of_unknown_tokens_are_shared_out_alike(tmp_path):
    """Where a server tells only the sum, an answer that the window cuts counts by its events' share."""
    samples = [a_sample(n, due_ns=n * S, gaps_ns=300 * MS, output_tokens=25, event_tokens=None) for n in range(40)]
    recording = a_recording(samples, window_ns=40 * S)
    assert 0 < recording.production.output_tokens < 40 * 25
    ran = Ran(recording, samples)
    assert recompute.differences(kept(tmp_path, ran, Closed(4))) == []


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    """A real sweep, over sockets, against the simulated server at eight times its speed."""
    folder = tmp_path_factory.mktemp("sweep")
    with SimProcess(speed=8) as server:
        options = ["--users=1,6", "--duration=900ms", "--warm-up=300ms", "--max-tokens=24", "--drain=5s", "--quiet"]
        done = loadbench("sweep", f"--url={server.url}", *options, "--failures=1", cwd=folder)
    assert done.returncode in {0, 4}, done.stderr  # a busy machine is late, and says so
    (run,) = (folder / "results").iterdir()
    return run


def test_real_sweep_follows_from_its_requests(sweep):
    """What a sweep over sockets says of itself is what its requests say."""
    _, requests = recompute.read(sweep)
    assert min(len(of_level) for of_level in requests.values()) > 20
    assert recompute.differences(sweep) == []


def test_script_runs_on_its_own(sweep):
    """It needs nothing but Python's own library, and its exit code tells."""
    script = Path(recompute.__file__)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(script), str(sweep)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        (("throughput", "output_tokens_per_s"), lambda value: value * 1.001),
        (("throughput", "requests_per_s"), lambda value: value * 1.001),
        (("concurrency", "mean"), lambda value: value * 1.001),
        (("concurrency", "peak"), lambda value: value + 1),
        (("outcomes", "ok"), lambda value: value - 1),
        (("tokens", "output"), lambda value: value + 1),
        (("metrics", "ttft_s", "p95"), lambda value: value * 1.003),
        (("metrics", "e2e_s", "mean"), lambda value: value * 1.001),
        (("metrics", "tpot_s", "p50"), lambda value: value * 0.997),
        (("metrics", "itl_s", "count"), lambda value: value + 1),
        (("metrics", "event_gap_s", "max"), lambda value: value * 1.001),
        (("window_ns", 1), lambda value: value + 20 * MS),
    ],
)
def test_a_wrong_figure_is_found(sweep, tmp_path, where, wrong):
    """The script would notice: each figure, changed by little, differs."""
    folder = Path(shutil.copytree(sweep, tmp_path / "copy"))
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    inner = run["levels"][1]
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = wrong(inner[where[-1]])
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    assert recompute.differences(folder)
