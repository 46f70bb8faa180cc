"""A cluster that ends, or does not answer any more, and what a killed run of local nodes leaves behind."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from unittest.mock import Mock

import anyio
import psutil
import pytest

from loadbench.cluster import connection, local_nodes
from loadbench.cluster.connection import NodeWatch, _connected, _Connection, _reply, cluster_workers
from loadbench.core import signals
from loadbench.core.errors import ClusterUnavailable
from loadbench.core.event_loop import in_daemon_thread
from loadbench.plan.cluster import Cluster
from loadbench.results.append_log import lock
from tests.cli.running import environment


class Link:
    """What is watched of a link."""

    def __init__(self, node):
        self.node = type("Node", (), {"node": node})
        self.is_lost = False

    def lose(self):
        """It is gone."""
        self.is_lost = True


class Ray:
    """Its nodes, as scripted: a list of those that are alive, an error, or no answer for a while."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    def get_runtime_context(self):
        """This process is on node a."""
        return type("Context", (), {"get_node_id": lambda _: "a"})()

    def nodes(self):
        """The next answer; the last one again and again."""
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, float):
            time.sleep(answer)
        elif isinstance(answer, Exception):
            raise answer
        return [{"NodeID": name, "Alive": name in answer} for name in "abc"]


@pytest.mark.parametrize(
    ("answers", "lost", "has_ended"),
    [
        (("abc",), "", False),
        (("abc", "ab"), "c", False),
        (("abc", ValueError("later"), "abc"), "", False),
        (("abc", ValueError("no head"), ValueError("no head")), "abc", True),
        (("abc", "bc"), "abc", True),
        (("abc", 3600.0), "abc", True),
    ],
    ids=["well", "a node ended", "one error", "no head", "our own node ended", "no answer"],
)
def test_nodes_are_lost_one_by_one_and_with_their_head(answers, lost, has_ended, monkeypatch):
    """A process whose own node has ended is ended by Ray soon; so all that it measures must end before that."""
    monkeypatch.setattr(signals, "_stuck", [])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    for name, value in (("_LOOKS_EVERY_S", 0.01), ("_SAME_LOOK_S", 0.0), ("_LATE_S", 3.0), ("_LOOKS_AGAIN_S", 0.5)):
        monkeypatch.setattr(connection, name, value)
    held, links = _Connection(), [Link(name) for name in "abc"]
    held.ray = Ray(*answers)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(NodeWatch(held, links).watch)
            while held.ray.asked < 5 and not held.is_lost:
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    anyio.run(main)
    assert "".join(link.node.node for link in links if link.is_lost) == lost
    assert (held.is_lost, bool(signals._stuck)) == (has_ended, has_ended)


@pytest.mark.parametrize("asks", ["watch", "look"])
def test_the_end_of_a_cluster_that_one_side_sees_is_the_end_of_the_other(asks, monkeypatch):
    """The sides of a comparison share a connection, and each has workers of its own."""
    monkeypatch.setattr(signals, "_stuck", [])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(connection, "_LOOKS_EVERY_S", 0.01)
    held, sides = _Connection(), [[Link("a"), Link("b")], [Link("a"), Link("b")]]
    held.ray = Ray("bc", *["ab"] * 50)  # this process is on node a
    first, second = (NodeWatch(held, links) for links in sides)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            if asks == "watch":
                group.start_soon(second.watch)
            await first.look()
            with anyio.fail_after(30):
                if asks == "look":
                    await second.look()
                while not all(link.is_lost for link in sides[1]):
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    anyio.run(main)
    assert all(link.is_lost for links in sides for link in links)


def test_nobody_waits_for_a_thread_that_hangs():
    """Neither who is cancelled, nor the process; what a thread returns or raises arrives."""

    async def main() -> None:
        assert await in_daemon_thread(lambda: 7) == 7
        with pytest.raises(KeyError):
            await in_daemon_thread(lambda: {}[1])
        with anyio.move_on_after(0.05) as scope:
            await in_daemon_thread(lambda: time.sleep(3600))
        assert scope.cancelled_caught

    anyio.run(main)
    program = "import threading, time; from loadbench.core.signals import end_at_once, is_stuck\n"
    program += "threading.Thread(target=time.sleep, args=(3600,)).start(); print('kept'); is_stuck(); end_at_once(4)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (4, "kept\n")


def test_the_folder_of_a_run_that_was_killed_is_removed_by_the_next(tmp_path, monkeypatch):
    """One that is in use, is new, or is not ours stays."""
    monkeypatch.setattr(local_nodes, "_FOLDERS", str(tmp_path))
    folders = {name: tmp_path / f"{local_nodes._PREFIX}{name}" for name in ("old", "used", "new", "other")}
    for name, folder in folders.items():
        (folder / "r").mkdir(parents=True)
        if name != "other":
            (folder / local_nodes._HELD).touch()
        if name != "new":
            os.utime(folder, (1, 1))
    with (folders["used"] / local_nodes._HELD).open("r+b") as held:
        assert lock(held.fileno())
        local_nodes._remove_old_folders()
    assert [name for name, folder in folders.items() if folder.exists()] == ["used", "new", "other"]


def test_a_call_that_nobody_waits_for_any_more_is_still_rays():
    """A thread of Ray gives its future a result or an error later, and prints a traceback where that was cancelled."""
    futures = [Future() for _ in range(4)]
    calls = [Mock(**{"future.return_value": one}) for one in futures]

    async def main() -> None:
        with pytest.raises(TimeoutError), anyio.fail_after(0.01):
            await asyncio.gather(*(_reply(call) for call in calls[:2]))
        futures[0].set_result(7)
        futures[1].set_exception(ConnectionError("ended"))
        # To those who still wait, both arrive.
        waited = [_reply(call) for call in calls[2:]]
        futures[2].set_result(7)
        futures[3].set_exception(ConnectionError("ended"))
        assert await waited[0] == 7
        with pytest.raises(ConnectionError, match="ended"):
            await waited[1]

    anyio.run(main)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that is sent")
def test_a_signal_ends_the_wait_for_workers_without_a_word_of_ray(monkeypatch):
    """Ray has a handler below Python's, which prints where its threads are; at its end, it leaves none."""
    library, came = ctypes.CDLL(None), []
    library.signal.restype = ctypes.c_void_p
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)

    def ignored(**_: object) -> None:
        library.signal(signal.SIGTERM, 1)  # SIG_IGN, of which Python does not know

    ray = SimpleNamespace(init=ignored, shutdown=ignored, is_connected=lambda: False)
    modules = {"ray.util.client": SimpleNamespace(ray=ray)}
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(connection, "import_module", lambda name: modules.get(name, SimpleNamespace()))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    async def main() -> None:
        async with _connected(Cluster("auto"), insecure=True):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        anyio.run(main)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [signal.SIGTERM] * 2


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sweep", "capacity"])
def test_a_run_whose_workers_have_ended_says_what_is_kept_and_how_it_goes_on(command, tmp_path):
    """No mistake of the command line: the exit code is that of the level in which they ended."""
    loads = ("--users", "2,3,4", "--duration", "60s", "--warm-up", "0s")
    loads = loads if command == "sweep" else ("--slo", "ttft_p95<9s", "--at-most", "64", "--budget", "600s")
    options = (*loads, "--workers", "2", "--max-tokens", "8", "--quiet")
    with subprocess.Popen(
        [sys.executable, "-m", "loadbench", command, *options],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        while not any(log.stat().st_size for log in tmp_path.rglob("requests.jsonl")):
            assert run.poll() is None
            time.sleep(0.05)
        for one in psutil.Process(run.pid).children(recursive=True):
            with suppress(psutil.Error):  # it has ended meanwhile
                if "loadbench.engine.worker" in one.cmdline():
                    one.kill()
        shown, said = run.communicate(timeout=120)
    (folder,) = (tmp_path / "results").iterdir()
    assert run.returncode == 4, said
    (error,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: every worker has ended (")
    assert error.endswith(f"--resume {folder.relative_to(tmp_path)} goes on")
    kept = json.loads((folder / "run.json").read_text())
    assert not kept["complete"]
    assert kept["levels"]
    assert not any(one["advice"] for level in kept["levels"] for one in level["failures"])  # on the server
    assert "INVALID" in shown if command == "sweep" else "sim-chat" in shown


@pytest.mark.parametrize(
    ("workers", "sides", "free", "said"),
    [
        (2, 1, 0.0, ["waiting up to 60 s for cores of the cluster auto: 0 of 4 are free, and 2 workers need 2"]),
        (1, 2, 0.25, ["waiting up to 60 s for cores of the cluster auto: 0.25 of 4 are free, and 1 worker needs 0.5"]),
        (4, 2, 2.0, []),
        (2, 1, 2.0, []),
    ],
)
def test_workers_that_wait_for_cores_say_so_at_once(workers, sides, free, said, monkeypatch):
    """And where they do not get them, the exit code is no mistake of the command line."""
    ray = Mock()
    ray.nodes.return_value = [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 4.0}}]
    ray.available_resources.return_value = {"CPU": free}
    told = []

    @asynccontextmanager
    async def connected(*_, **__):
        yield SimpleNamespace(ray=ray)

    async def no_start(*_, **__):
        raise TimeoutError

    monkeypatch.setattr(connection, "check_cluster", lambda *_, **__: None)
    monkeypatch.setattr(connection, "_connected", connected)
    monkeypatch.setattr(connection, "_start", no_start)

    async def main() -> None:
        options = {"most": 9, "sides": sides, "insecure": False, "waiting": told.append}
        async with cluster_workers(Cluster("auto"), workers, **options):
            pass

    with pytest.raises(ClusterUnavailable) as refused:
        anyio.run(main)
    assert told == said
    assert refused.value.exit_code == 6
