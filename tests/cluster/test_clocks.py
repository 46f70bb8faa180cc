"""A node of a real Ray cluster whose clock is another: by a namespace of Linux its monotonic clock is far ahead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from loadbench.cluster.connection import cluster_workers
from loadbench.cluster.local_nodes import local_nodes
from loadbench.cluster.relay import machine
from loadbench.core import event_loop
from loadbench.engine.worker_pool import Records, WorkerPool
from loadbench.plan.cluster import Cluster
from tests.cluster.parts import NUMBERED, TARGET, S, facts, in_one_process, on_workers, spec_of

AHEAD_S = 1_000
AHEAD = ["unshare", "--time", "--monotonic", str(AHEAD_S), "--fork", "--kill-child"]


def has_namespaces() -> bool:
    """Whether this user may make a time namespace, and its clock is ahead then."""
    show = [*AHEAD, sys.executable, "-c", "from loadbench.cluster.relay import machine; print(machine())"]
    if shutil.which(AHEAD[0]) is None:
        return False
    shown = subprocess.run(show, capture_output=True, text=True, check=False)
    return shown.returncode == 0 and shown.stdout.strip() != machine()


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
if find_spec("ray") is None and not os.environ.get("LOADBENCH_TEST_NEEDS_RAY"):
    pytest.skip("Ray is not installed: pip install 'loadbench[ray]'", allow_module_level=True)
if not has_namespaces():
    pytest.skip("this user cannot make a time namespace", allow_module_level=True)


@contextmanager
def a_node_ahead(address: str):
    """A node of the cluster at this address, in a time namespace of its own."""
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--address={address}", "--num-cpus=1"]
    more = ["--num-gpus=0", "--object-store-memory=80000000", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    with subprocess.Popen([*AHEAD, *start, *more], stdout=subprocess.PIPE, text=True) as node:
        try:
            assert any("Ray runtime started" in line for line in node.stdout)
            yield
        finally:
            node.kill()


def test_a_clock_that_is_ahead_is_found_and_changes_no_figure(monkeypatch):
    """By a thousand seconds, as round trips find to within what they say; all is recorded as by one process."""
    monkeypatch.setenv("PYTHONPATH", str(NUMBERED))

    async def main() -> None:
        with TemporaryDirectory() as folder:
            async with local_nodes(1) as address:
                with a_node_ahead(address):
                    cluster = Cluster(address=address)
                    async with cluster_workers(cluster, 2, most=9, sides=1, insecure=False) as found:
                        pool = await WorkerPool.over(found.links, lambda: (TARGET,), Path(folder), records=Records())
                        assert sorted(link.is_here for link in found.links) == [False, True]
                        (far,) = [link for link in found.links if not link.is_here]
                        for load in ("users", "requests at a rate"):
                            recording = await on_workers(pool, spec_of(load))
                            assert abs(far.offset.ahead_ns - AHEAD_S * S) <= far.offset.error_ns < S, load
                            assert facts(recording) == facts(await in_one_process(spec_of(load))), load
                            assert recording.start_skew_ns < S

    event_loop.run(main)
