"""A session ends what it started, whatever happens in it."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import pytest

from loadbench.core.errors import BadInput, TargetUnavailable
from loadbench.plan.scenario import Scenario
from loadbench.session import setup
from loadbench.session.setup import Session, open_session, until_stopped

PLAIN = Scenario()
WITH_WORKERS = replace(PLAIN, load=replace(PLAIN.load, workers=2))


def listens(url: str) -> bool:
    """Whether a server is there."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def children() -> set[int]:
    """The processes that this one has started and that still run."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()))


class MistakeError(Exception):
    """Something that nobody foresaw."""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("how", ["done", "error", "mistake", "cancelled"])
@pytest.mark.parametrize("scenario", [PLAIN, WITH_WORKERS], ids=["alone", "workers"])
def test_session_ends_its_server_and_its_workers(scenario, how):
    """The simulated server and the worker processes are gone, and the transport has closed its connections."""
    sessions: list[Session] = []
    before = children()

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with open_session(scenario, {}, say=lambda _: None) as session:
                assert listens(session.target.base_url)
                assert (session.workers is not None) == (scenario is WITH_WORKERS)
                assert session.environment["workers"] == (scenario.load.workers or 1)
                sessions.append(session)
                if how == "error":
                    raise TargetUnavailable("gone")
                if how == "mistake":
                    raise MistakeError
                if how == "cancelled":
                    scope.cancel()
                    await anyio.sleep(60)

    expected = {"error": TargetUnavailable, "mistake": MistakeError}.get(how)
    with nullcontext() if expected is None else pytest.raises(expected):
        anyio.run(main)
    assert children() <= before
    (session,) = sessions
    assert not listens(session.target.base_url)


@pytest.mark.parametrize(("busy", "workers"), [(0.0, 4), (2.0, 2)])
def test_workers_leave_cores_to_a_server_on_this_machine_and_to_other_programs(monkeypatch, busy, workers):
    """Of six cores one is the main process's and one the server's, and others may be in use by other programs."""

    async def in_use() -> float:
        return busy

    monkeypatch.setattr(setup, "usable_cores", lambda: 6)
    monkeypatch.setattr(setup, "cores_in_use", in_use)
    plan = replace(PLAIN, load=replace(PLAIN.load, users=(640,)))

    async def main() -> None:
        async with open_session(plan, {}, say=lambda _: None) as session:
            assert session.environment["workers"] == workers

    anyio.run(main)


def test_model_that_is_not_named_leaves_no_server_behind():
    """The session does not open, since there are several, and the server that was started for it ends."""

    async def main() -> None:
        async with open_session(PLAIN, {}, say=lambda _: None, models=("one", "other")):
            raise AssertionError("it must not open")

    before = children()
    with pytest.raises(BadInput, match="several models"):
        anyio.run(main)
    assert children() <= before


def test_the_simulated_server_has_the_models_of_a_models_file(tmp_path):
    """A models file names the models of a server to come: here the simulated one has them all."""
    file = tmp_path / "set.json"
    file.write_text('["first", "second"]', encoding="utf-8")
    target = replace(PLAIN.target, model=("first", "second"), model_set=file)

    async def main() -> tuple[str, ...]:
        async with open_session(replace(PLAIN, target=target), {}, say=lambda _: None) as session:
            return session.models

    assert anyio.run(main) == ("first", "second")


def test_work_that_was_stopped_is_known_as_such():
    """Ctrl-C ends the work in order; work that comes to its end is whole."""

    async def stopped() -> None:
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep(60)

    assert anyio.run(until_stopped, stopped) is False
    assert anyio.run(until_stopped, anyio.lowlevel.checkpoint) is True
