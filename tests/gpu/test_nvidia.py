"""NVIDIA telemetry on a real board, under loads that are known: skipped where there is none."""

from __future__ import annotations

import importlib.util
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from loadbench.telemetry.nvidia import Nvidia
from loadbench.telemetry.process import MeasuredProcess
from loadbench.telemetry.series import ReadingSeries
from loadbench.telemetry.sources import library
from tests.cli.running import loadbench
from tests.gpu.serving import started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadbench.results.telemetry import Telemetry

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

HELD = 3 << 30
# Power is an average over a second, of a sensor with an error of a few watts.
AGREES_WITHIN = 0.10
# A context, its kernels, the workspace of cuBLAS and three matrices.
OVERHEAD = 2 << 30


@pytest.fixture(scope="module", autouse=True)
def board() -> str:
    """The name of the first board; skips without one, or without torch that can use it."""
    nvml = library("pynvml")
    found = Nvidia.detect(nvml)
    if found is None:
        pytest.skip("no NVIDIA board here, or no nvidia-ml-py: pip install 'loadbench[gpu]'")
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    return found.about["boards"][0]["name"]


@pytest.fixture(scope="module")
def burning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Callable[[str], None]]]:
    """A process that holds `HELD` bytes of the board, and a function that orders it to `work` or `rest`."""
    log = tmp_path_factory.mktemp("burn") / "log"
    with started("tests.gpu.burn", str(HELD), log=log) as (process, _):

        def order(word: str) -> None:
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
            assert process.stdout.readline().strip() == word

        yield process.pid, order


@contextmanager
def reading(pid: int) -> Iterator[Nvidia]:
    """The board's readings, with the share of this process."""
    process = MeasuredProcess.detect(psutil, port=None, host=None, pid=pid)
    found = Nvidia.detect(library("pynvml"), process.pids)
    assert found is not None
    yield found


def watched(found: Nvidia, seconds: float) -> Telemetry:
    """Read ten times a second, as the sampler does; the figures over this time."""
    series = ReadingSeries()
    began_ns = time.perf_counter_ns()
    while (at_ns := time.perf_counter_ns()) < began_ns + seconds * 1e9:
        series.add(at_ns, found.read())
        time.sleep(0.1)
    telemetry = series.window(began_ns + 100_000_000, at_ns - 200_000_000)
    assert telemetry is not None
    return telemetry


def test_known_load_is_seen(burning):
    """At work a board is used all the time, draws more than at rest, and its energy counter agrees with its power; the
    process has its share, and none at rest."""
    pid, order = burning
    with reading(pid) as found:
        order("rest")
        time.sleep(3)
        idle = watched(found, 4)
        order("work")
        time.sleep(3)
        busy = watched(found, 5)
        order("rest")
    assert idle.gauges["gpu0_use"].mean < 0.05
    assert busy.gauges["gpu0_use"].mean > 0.9
    assert busy.gauges["gpu0_power_w"].mean > 1.5 * idle.gauges["gpu0_power_w"].mean
    for seen, seconds in ((idle, 3.7), (busy, 4.7)):
        watts = seen.counters["gpu0_energy_j_total"] / seconds
        assert watts == pytest.approx(seen.gauges["gpu0_power_w"].mean, rel=AGREES_WITHIN)
    assert busy.gauges["gpu0_process_use"].mean > 0.8
    assert idle.gauges["gpu0_process_use"].mean < 0.05
    assert busy.gauges["gpu0_temperature_c"].mean >= idle.gauges["gpu0_temperature_c"].mean
    assert 1e8 < busy.gauges["gpu0_sm_hz"].mean < 4e9
    assert 1e8 < busy.gauges["gpu0_memory_hz"].mean < 2e10
    assert {0.0, 1.0} >= {
        seen.gauges[f"gpu0_throttled_{why}"].min for seen in (idle, busy) for why in ("power", "heat")
    }


def test_memory_is_that_of_the_process(burning):
    """The process holds what it allocated and its context, and the board holds at least that; to another process
    nothing of it belongs."""
    pid, _ = burning
    with reading(pid) as found:
        first = found.read()
    assert HELD < first["gpu0_process_memory_bytes"] < HELD + OVERHEAD
    assert first["gpu0_memory_bytes"] >= HELD
    with reading(1) as found:
        other = found.read()
    assert other["gpu0_process_memory_bytes"] == 0


def test_memory_rises_by_what_is_allocated(tmp_path, burning):
    """A second process with 2 GiB more than a third raises the board's memory by 2 GiB more."""
    rises = []
    pid, _ = burning
    with reading(pid) as found:
        for size in (1 << 30, 3 << 30):
            before = found.read()["gpu0_memory_bytes"]
            with started("tests.gpu.burn", str(size), log=tmp_path / "log"):
                rises.append(found.read()["gpu0_memory_bytes"] - before)
            time.sleep(1)
    assert rises[1] - rises[0] == pytest.approx(2 << 30, rel=0.02)


def test_sweep_has_energy_per_token_and_doctor_names_the_board(tmp_path, board):
    """J per token is the energy over the tokens; idle is subtracted; a CPU server has no share of it."""
    levels = {}
    for device in ("cuda", "cpu"):
        options = ("--device", device, "--shape", "tiny", "--alias", "tiny")
        with started("tests.gpu.serve", *options, log=tmp_path / "log") as (_, url):
            work = ("--users", "2", "--max-tokens", "32", "--duration", "3s", "--warm-up", "1s")
            done = loadbench(
                "sweep", "--url", url, *work, "--telemetry-interval", "200ms", "--name", device, cwd=tmp_path
            )
            assert done.returncode in {0, 5}, done.stderr
            doctor = loadbench("doctor", "--url", url, cwd=tmp_path)
            assert board in doctor.stdout
        (path,) = tmp_path.glob(f"results/*-{device}/run.json")
        run = json.loads(path.read_text("utf-8"))
        assert run["environment"]["telemetry"]["boards"][0]["name"] == board
        (levels[device],) = run["levels"]

    level, energy = levels["cuda"], levels["cuda"]["energy"]
    assert (energy["source"], energy["meters"]) == ("board", ["gpu0"])
    tokens = level["throughput"]["output_tokens_per_s"] * level["window_s"]
    assert energy["joules"] == pytest.approx(level["telemetry"]["counters"]["gpu0_energy_j_total"])
    assert energy["joules_per_output_token"] == pytest.approx(energy["joules"] / tokens)
    above = energy["joules"] - energy["idle_watts"] * level["window_s"]
    assert energy["joules_per_output_token_above_idle"] == pytest.approx(above / tokens)
    assert 0 < above < energy["joules"]
    assert level["telemetry"]["gauges"]["gpu0_process_memory_bytes"]["min"] > 0

    assert levels["cpu"]["telemetry"]["gauges"]["gpu0_process_memory_bytes"]["max"] == 0
    if not any(name.startswith("package") for name in levels["cpu"]["telemetry"]["counters"]):
        assert levels["cpu"]["energy"] is None
        assert "unmetered" in {caveat["code"] for caveat in levels["cpu"]["caveats"]}
