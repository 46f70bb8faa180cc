"""Telemetry against a real engine: what is said of llama.cpp's process and times is what it says itself."""

from __future__ import annotations

import json
import re
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import pytest

from loadbench.telemetry.process import listening
from tests.cli.running import loadbench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.engine

TOKENS = 24
SECONDS = 3


@dataclass(frozen=True)
class Measured:
    """A run of one level with 2 users, its lines and its readings; `seconds` are llama.cpp's own counters' rise."""

    pid: int
    run: dict[str, Any]
    level: dict[str, Any]
    requests: list[dict[str, Any]]
    readings: list[dict[str, Any]]
    report: str


def lines(path: Path) -> list[dict[str, Any]]:
    """JSON, a line each."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def measured(llamacpp: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """One run for all tests."""
    url = llamacpp(parallel=4)
    process = listening(psutil, urlsplit(url).port, "127.0.0.1")
    assert process is not None
    folder = tmp_path_factory.mktemp("telemetry")
    done = loadbench(
        *("sweep", "--url", url, "--users", "2", "--duration", f"{SECONDS}s", "--max-tokens", str(TOKENS)),
        *("--telemetry-interval", "200ms", "--page-interval", "200ms", "--watts", "10..20", "--kwh-price", "0.3"),
        *("--out", ".", "--quiet"),
        cwd=folder,
    )
    assert done.returncode in {0, 4}, done.stderr  # a busy machine makes the client the limit, which is no fault here
    (kept,) = folder.iterdir()
    run = json.loads((kept / "run.json").read_text())
    return Measured(
        pid=process.pid,
        run=run,
        level=run["levels"][0],
        requests=lines(kept / "requests.jsonl"),
        readings=lines(kept / "telemetry.jsonl"),
        report=done.stdout,
    )


def test_servers_process_is_found_and_its_memory_is_plausible(measured):
    """By its port; what it has resident is what the system says now, within a half, for it goes on."""
    assert measured.run["environment"]["telemetry"]["process"]["pid"] == measured.pid
    resident = measured.level["telemetry"]["gauges"]["process_rss_bytes"]
    now = psutil.Process(measured.pid).memory_info().rss
    assert resident["max"] == pytest.approx(now, rel=0.5)
    assert resident["min"] <= resident["mean"] <= resident["max"]


def test_server_worked_and_no_more_than_the_machine_can(measured):
    """Its CPU time over the window is above none and at most all cores'; the sampler's own is next to nothing."""
    counters = measured.level["telemetry"]["counters"]
    window_s = measured.level["window_s"]
    assert 0.05 * window_s < counters["process_cpu_s_total"] <= (psutil.cpu_count() + 0.1) * window_s
    # Five times as often as usual.
    assert 0 < counters["sampler_cpu_s_total"] < 0.05 * window_s
    assert measured.level["telemetry"]["resets"] == []


def test_timings_agree_with_the_tokens_that_came(measured):
    """Of each answer llama.cpp tells as many tokens as were counted, and a way to the first no longer than was seen."""
    answered = [one for one in measured.requests if one["outcome"] == "ok"]
    assert len(answered) > 10
    for one in answered:
        assert one["server_output_tokens"] == one["output_tokens"] == TOKENS
        assert one["server_prompt_tokens"] + one["server_cached_tokens"] == one["input_tokens"]
        assert 0 < one["server_prefill_ns"] < 10_000_000_000
        assert 0 < one["server_decode_ns"] < 10_000_000_000


def test_times_of_the_server_are_metrics_of_the_level(measured):
    """Recomputed from the lines: each measured answer is in them once."""
    told = [one for one in measured.requests if one["phase"] == "measured" and one["outcome"] == "ok"]
    for name in ("prefill", "decode"):
        metric = measured.level["metrics"][f"server_{name}_s"]
        values = [one[f"server_{name}_ns"] for one in told]
        assert metric["count"] == len(values)
        assert metric["mean"] == pytest.approx(sum(values) / len(values) / 1e9, rel=1e-6)


def test_first_token_is_accounted_for(measured):
    """Prefill and rest make the client's mean; llama.cpp does not tell of its queue."""
    found = measured.level["first_token"]
    assert found["source"] == "timings"
    assert found["queue_s"] is None
    assert found["prefill_s"] + found["rest_s"] == pytest.approx(found["client_s"])
    assert found["client_s"] == pytest.approx(measured.level["metrics"]["ttft_s"]["mean"])


def test_tokens_of_all_answers_are_what_the_page_counted(measured):
    """The timings of all requests between its two readings sum to what its counters rose by: told twice, the same."""
    for name, counter in (("prompt", "prompt_tokens_total"), ("output", "tokens_predicted_total")):
        told = sum(one[f"server_{name}_tokens"] for one in measured.requests)
        assert told == measured.level["server"][f"llamacpp:{counter}"]


def test_requests_that_the_server_works_on_are_seen_while_it_does(measured):
    """Two users have at most two requests there."""
    running = measured.level["telemetry"]["gauges"]["server_running"]
    assert 0 <= running["min"] <= running["max"] <= 2
    assert running["mean"] > 0


def test_readings_are_written_as_they_came(measured):
    """On the run's clock, machine and page, and none that is no number."""
    moments = [one["at_ns"] for one in measured.readings if "host_cpu_share" in one]
    assert moments == sorted(moments)
    opens_ns, closes_ns = measured.level["window_ns"]
    assert sum(opens_ns <= moment <= closes_ns for moment in moments) >= SECONDS
    assert moments[-1] > closes_ns
    assert any("server_running" in one for one in measured.readings)


def test_energy_is_an_estimate_where_nothing_meters(measured):
    """Unless this machine has a meter: 10 to 20 W over what came in the window, and money by it."""
    used = measured.level["energy"]
    if used["source"] == "estimate":
        assert used["watts_range"] == [10, 20]
        per_s = measured.level["throughput"]["output_tokens_per_s"]
        assert used["joules_per_output_token"] == pytest.approx(15 / per_s)
        assert measured.level["cost"]["per_million_output_tokens"] == pytest.approx(15 * 0.3 / 3.6e6 / per_s * 1e6)


def test_report_has_a_table_of_the_machine(measured):
    """Beside the level's own, with the server's memory and the estimate called one."""
    assert re.search(r"server CPU\s+server RSS\s+host CPU", measured.report)
    assert re.search(r"\d cores\s+\S+ MiB", measured.report)
    assert "mean time to first token as the server reports it (the timings in its responses)" in measured.report


def test_telemetry_can_be_left_off(llamacpp, tmp_path):
    """Then nothing is sampled, read or written, and nothing is missing."""
    done = loadbench(
        *("sweep", "--url", llamacpp(parallel=4), "--requests", "4", "--users", "1", "--warm-up", "0s"),
        *("--telemetry", "off", "--out", ".", "--quiet", "--json"),
        cwd=tmp_path,
    )
    run = json.loads(done.stdout)
    assert run["environment"]["telemetry"] is None
    assert run["levels"][0]["telemetry"] is run["levels"][0]["energy"] is run["levels"][0]["cost"] is None
    assert not list(tmp_path.glob("*/telemetry.jsonl"))


def test_unsampled_server_is_still_asked_for_its_counters(llamacpp, measured):
    """The page that the level read is the one that anybody reads."""
    with urllib.request.urlopen(f"{llamacpp(parallel=4)}/metrics", timeout=30) as response:
        page = response.read().decode()
    for name in measured.level["server"]:
        assert f"\n{name} " in page
