"""Workers on the nodes of a real Ray cluster on this machine: what they record, and the loss of a node."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import psutil
import pytest

from loadbench.cluster import connection
from loadbench.cluster.connection import cluster_workers
from loadbench.core import event_loop
from loadbench.core.clock import MonotonicClock
from loadbench.engine.worker_pool import Records, WorkerPool
from loadbench.plan.cluster import Cluster
from loadbench.plan.load import LevelDuration
from loadbench.record.outcome import Outcome
from tests.building import verdict_of
from tests.cli.running import environment, loadbench
from tests.cluster.parts import NUMBERED, PLAN, TARGET, S, facts, in_one_process, on_workers, spec_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
if find_spec("ray") is None and not os.environ.get("LOADBENCH_TEST_NEEDS_RAY"):
    pytest.skip("Ray is not installed: pip install 'loadbench[ray]'", allow_module_level=True)


KEY = f"sk-{secrets.token_hex(16)}"


def texts_with_key() -> list[Path]:
    """What Ray has written on this machine that has the key in it."""
    files = [path for folder in Path("/tmp").glob("lb-ray-*") for path in folder.rglob("*")]
    assert files
    return [path for path in files if path.is_file() and not path.is_symlink() and KEY.encode() in path.read_bytes()]


@asynccontextmanager
async def pool_on(nodes: int):
    """Workers on so many local nodes, one on each."""
    target = replace(TARGET, headers=(("authorization", f"Bearer {KEY}"),))
    with TemporaryDirectory() as name:
        async with cluster_workers(Cluster(local_nodes=nodes), None, most=9, sides=1, insecure=False) as found:
            yield await WorkerPool.over(found.links, lambda: (target,), Path(name), records=Records()), found


def processes() -> list[psutil.Process]:
    """Those that a cluster has on this machine: all that this process has started, and what they have."""
    return psutil.Process().children(recursive=True)


def raylet_of(node: str) -> int:
    """The process that stands for a node; others of the node have its id in their command line too."""
    return next(one.pid for one in processes() if one.name() == "raylet" and node in " ".join(one.cmdline()))


def test_local_nodes_record_what_one_process_records(monkeypatch):
    """Counts, histograms and timelines are equal, count for count; each worker is on a node of its own, whose clock is
    this machine's as far as round trips can tell; the key is in no log; nothing of the cluster is left."""
    monkeypatch.setenv("PYTHONPATH", str(NUMBERED))
    monkeypatch.setattr(connection, "_COUNTED_WITHIN_S", 60.0)
    before = {process.pid for process in processes()}

    async def main() -> None:
        async with pool_on(2) as (pool, found):
            assert len({link.node.node for link in found.links}) == 2 == found.about["nodes"]
            assert found.about["token_authentication"] is True
            assert str(found.about["head"]).rpartition(":")[2].isdecimal()
            spec = spec_of("users")
            assert facts(await on_workers(pool, spec)) == facts(await in_one_process(spec))
            for link in found.links:
                assert abs(link.offset.ahead_ns) <= link.offset.error_ns
                assert 0 < link.offset.error_ns < S
            assert texts_with_key() == []
            # A worker that is killed leaves its count, which its actor reads.
            link = found.links[0]
            sent = await link.sent()
            link.kill()
            while await link.receive() is not None:
                pass
            assert await link.sent() == sent > 0

    event_loop.run(main)
    assert {process.pid for process in processes()} == before


def test_the_loss_of_a_node_ends_the_level_and_nothing_else(monkeypatch):
    """A node that is killed mid-level: the level ends soon, says which share is missing, and the rest does the next."""
    monkeypatch.setenv("PYTHONPATH", str(NUMBERED))
    took_s = []

    async def main() -> None:
        async with pool_on(2) as (pool, found):
            spec = replace(spec_of("a rate"), duration=LevelDuration(duration_ns=600 * S, warm_up_ns=S // 2))
            level = await pool.level(PLAN, spec, model="m", clock=MonotonicClock())
            # Without its own node this process would end too, as a program does whose machine is switched off.
            own = import_module("ray").get_runtime_context().get_node_id()
            (lost,) = (link for link in found.links if link.node.node != own)
            killed_s = []

            async def kill() -> None:
                while level.done < 100:
                    await anyio.sleep(0.01)
                killed_s.append(time.monotonic())
                os.kill(raylet_of(lost.node.node), signal.SIGKILL)

            async with anyio.create_task_group() as group:
                group.start_soon(kill)
                recording = await level.run()
            took_s.append(time.monotonic() - killed_s[0])
            assert recording.lost_workers == 1
            assert recording.outcomes[Outcome.OK] > 0
            assert recording.missed > 0
            reasons = verdict_of(recording, level.load, failure_limit=0.01).reasons
            (reason,) = [one for one in reasons if one.code == "lost_worker"]
            assert f"({lost.name}), and with them 50 % of the load" in reason.message
            spec = spec_of("users")
            assert facts(await on_workers(pool, spec)) == facts(await in_one_process(spec))
            assert not [one for one in processes() if "loadbench.engine.worker" in one.cmdline()][1:]

    event_loop.run(main)
    assert took_s[0] < 5


def test_a_capacity_search_has_its_probes_made_by_a_cluster(tmp_path):
    """Its objectives are decided by the requests of all workers, one of them by events; each request is in the log."""
    options = ("--slo", "e2e_p90<30s", "--slo", "itl_p50<5s", "--at-most", "2", "--budget", "12s", "--max-tokens", "8")
    run = loadbench("capacity", "--cluster", "local:2", *options, "--json", "--quiet", cwd=tmp_path)
    found = json.loads(run.stdout)
    assert found["probes"], run.stderr
    assert all(probe["requests"] > 0 for probe in found["probes"])
    assert all(share["share"] == 1 for probe in found["probes"] for share in probe["attainment"].values())
    (folder,) = (tmp_path / "results").iterdir()
    levels = json.loads((folder / "run.json").read_text())["levels"]
    assert any(len(level["client"]["workers"]) == 2 for level in levels)
    assert "of the Ray cluster local:2" in (folder / "capacity.md").read_text()
    lines = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    for number, level in enumerate(levels):
        measured = [line for line in lines if line["level"] == number and line["phase"] == "measured"]
        assert len(measured) == sum(level["outcomes"].values())


def test_the_end_of_the_head_ends_the_run_with_its_result(tmp_path):
    """Ray would end the process ten seconds later, without a word; the level is kept, and the exit code is ours."""
    command = ("sweep", "--cluster", "local:2", "--users", "4", "--duration", "600s", "--warm-up", "1s", "--json")
    with subprocess.Popen(
        [sys.executable, "-m", "loadbench", *command],
        cwd=tmp_path,
        env=environment(PYTHONWARNINGS="ignore"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        for line in run.stderr:
            if "done" in line and "tok/s" in line:
                break
        processes = psutil.Process(run.pid).children(recursive=True)
        next(one for one in processes if one.name() == "gcs_server").kill()
        shown, said = run.communicate(timeout=120)
    assert "Traceback" not in said
    (level,) = json.loads(shown)["levels"]
    assert sum(level["outcomes"].values()) > 0
    assert "lost_worker" in [reason["code"] for reason in level["verdict"]["reasons"]]
    assert run.returncode == 4
    psutil.wait_procs(processes, timeout=30)
    assert not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
