"""`loadbench compare` on two servers: what it keeps, how it is stopped, what it refuses."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from loadbench.analyze.compare.first_responses import length_caveats
from loadbench.results.folder import read_run
from loadbench.sim.process import SimProcess
from tests.building import a_sample
from tests.cli.running import started
from tests.cli.test_signals import ended, wait_for
from tests.cli.typed import typed as loadbench

if TYPE_CHECKING:
    from pathlib import Path

TINY = ("--duration=200ms", "--warm-up=100ms", "--settle=0s", "--max-tokens=4", "--input-tokens=32")
SHORT = ("--users=1", *TINY)
# So long that a test which is held up can still act in the level of which it has just read that it begins.
LONGER = ("--users=1", "--duration=1s", *TINY[1:])
SIMULATED = ("profile=slot-server", "profile=small-gpu")


def kept(folder: Path) -> Path:
    """The only comparison's folder."""
    (found,) = (folder / "results").iterdir()
    return found


def comparison(folder: Path) -> dict:
    """What the only comparison came to."""
    found: dict = json.loads((kept(folder) / "compare.json").read_text(encoding="utf-8"))
    return found


def requests(run: Path) -> list[dict]:
    """The measured requests of a run."""
    lines = (run / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def sampled_ns(run: Path) -> list[int]:
    """When the machine was read during a run."""
    lines = (run / "telemetry.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["at_ns"] for line in lines]


@pytest.mark.slow
def test_each_side_of_each_repeat_is_a_run_of_its_own(tmp_path):
    """Two repeats leave four run folders, each as a sweep would leave it, and one comparison of them all."""
    sampled = ("--telemetry=on", "--telemetry-interval=100ms")
    process = loadbench("compare", *SIMULATED, "--users=1,2", *TINY, *sampled, "--repeats=2", "--json", cwd=tmp_path)
    assert "Traceback" not in process.stderr
    assert json.loads(process.stdout) == comparison(tmp_path)
    assert comparison(tmp_path)["paired"] is True
    for repeat in (0, 1):
        for side, model in (("a", "sim-chat"), ("b", "sim-gpu-7b")):
            folder = kept(tmp_path) / side / f"{repeat + 1:02}"
            run = read_run(folder)
            assert run.complete
            assert [(level.load.label, level.model) for level in run.levels] == [("users=1", model), ("users=2", model)]
            assert run.scenario["work"]["seed"] == repeat
            assert {one["level"] for one in requests(folder)} == {0, 1}
            assert any(
                run.levels[0].window_ns[0] <= moment <= run.levels[1].window_ns[1] for moment in sampled_ns(folder)
            )
    assert loadbench("report", str(folder), cwd=tmp_path).returncode == 0
    order = [line.split("(")[1].split(")")[0] for line in process.stderr.splitlines() if line.endswith("begins")]
    assert [line[0] for line in order] == ["B", "A", "A", "B", "A", "B", "B", "A"]
    assert [line[-1] for line in order] == ["1"] * 4 + ["2"] * 4


def test_two_models_of_one_server(tmp_path):
    """`--url` with `--a-model` and `--b-model` compares what is behind one address."""
    with SimProcess("slot-server", models=("fast", "faster")) as server:
        process = loadbench(
            "compare", f"--url={server.url}", "--a-model=fast", "--b-model=faster", *SHORT, "--repeats=1", cwd=tmp_path
        )
    assert "Traceback" not in process.stderr
    assert comparison(tmp_path)["a"]["model"] == "fast"
    assert comparison(tmp_path)["b"]["model"] == "faster"


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_compares_what_is_complete(tmp_path):
    """Stopped in the second of many repeats: 130, the first is compared, the second is kept and marked."""
    process = started("compare", *SIMULATED, *LONGER, "--repeats=9", "--json", cwd=tmp_path)
    wait_for(process, "repeat 2) begins")
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert (code, "Traceback" in err) == (130, False)
    assert "1 repeat complete" in err
    assert json.loads(out) == comparison(tmp_path)
    assert all(len(comparison(tmp_path)[side]["runs"]) == 1 for side in "ab")
    runs = {side: read_run(kept(tmp_path) / side / "02") for side in "ab"}
    assert not any(run.complete for run in runs.values())
    (level,) = [level for run in runs.values() for level in run.levels]
    assert level.interrupted


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_before_anything_is_complete_compares_nothing(tmp_path):
    """Stopped in the first level: 130, what was measured is kept, and stdout is empty."""
    process = started("compare", *SIMULATED, *LONGER, "--repeats=2", "--json", cwd=tmp_path)
    wait_for(process, "repeat 1) begins")
    process.send_signal(signal.SIGTERM)
    code, out, err = ended(process)
    assert (code, out, "Traceback" in err) == (130, "", False)
    assert "0 repeats complete" in err
    assert (kept(tmp_path) / "b" / "01" / "run.json").is_file()


@pytest.mark.slow
def test_server_that_goes_away_ends_it(tmp_path):
    """6, with the side named; the repeats before are compared and kept."""
    with SimProcess("slot-server") as a, SimProcess("small-gpu") as b:
        process = started("compare", a.url, b.url, *LONGER, "--repeats=9", "--no-live", cwd=tmp_path)
        wait_for(process, "repeat 2) begins")
        b._child.kill()
        code, out, err = ended(process)
    assert (code, "Traceback" in err) == (6, False)
    assert "B responded to nothing at users=" in err
    assert "1 repeat complete" in err
    assert "A: sim-chat" in out
    assert len(comparison(tmp_path)["a"]["runs"]) == 1


def test_side_that_is_not_there_is_named_before_anything_is_made(tmp_path):
    """6, `B: … connection refused`, and no folder."""
    with SimProcess("slot-server") as a:
        process = loadbench("compare", a.url, "http://127.0.0.1:9", *SHORT, cwd=tmp_path)
    assert process.returncode == 6
    assert "error: B: http://127.0.0.1:9/v1/models: connection refused" in process.stderr
    assert not (tmp_path / "results").exists()


def test_side_whose_first_answer_fails_leaves_no_folder(tmp_path):
    """6, with the side named; nothing was measured, so nothing is kept."""
    process = loadbench("compare", *SIMULATED, *SHORT, "--first-token-timeout=1ms", cwd=tmp_path)
    assert process.returncode == 6
    assert "error: A: the first request failed" in process.stderr
    assert not (tmp_path / "results").exists()


def test_model_that_a_side_lacks_is_named(tmp_path):
    """The hint names the flag of that side."""
    with SimProcess("slot-server", models=("one", "two")) as server:
        process = loadbench("compare", f"--url={server.url}", "--a-model=one", "--b-model=tow", cwd=tmp_path)
        choice = loadbench("compare", f"url={server.url},model=one", f"url={server.url}", *SHORT, cwd=tmp_path)
    assert process.returncode == 6
    assert "B: " in process.stderr
    assert "did you mean 'two'?" in process.stderr
    assert choice.returncode == 2
    assert "--b-model" in choice.stderr


@pytest.mark.slow
def test_one_thing_twice_must_be_meant(tmp_path):
    """The same URL on both sides is refused; with --same it is measured, and asked nothing twice."""
    with SimProcess("slot-server") as server:
        refused = loadbench("compare", server.url, server.url, *SHORT, cwd=tmp_path)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "--same" in refused.stderr
        process = loadbench("compare", server.url, server.url, "--same", *SHORT, "--repeats=1", cwd=tmp_path)
    assert "Traceback" not in process.stderr
    assert comparison(tmp_path)["a"]["target"] == comparison(tmp_path)["b"]["target"]


@pytest.mark.slow
def test_pairs_end_when_the_ratio_is_known_or_say_what_is_missing(tmp_path):
    """After 8 repeats at the earliest, after 9 at the latest; the same comparison comes from the folder."""
    process = loadbench(
        "compare", *SIMULATED, *SHORT, "--until=50%", "--repeats=9", "--json", "--no-live", cwd=tmp_path
    )
    assert "Traceback" not in process.stderr
    found = comparison(tmp_path)
    (reason,) = (one for one in found["caveats"] if one["code"].startswith("until_"))
    runs = len(found["a"]["runs"])
    assert runs in {8, 9}
    if reason["code"] == "until_reached":
        assert (
            f"--until 50 %: reached after {runs} repeats: the ratio of output tokens/s at users=1" in reason["message"]
        )
        assert f"after {runs} repeats the ratio of output tokens/s at users=1 is known to" in process.stderr
    else:  # a busy machine: no level is valid, or their speeds differ too much
        assert "--until 50 %: not reached in 9 repeats, all that were allowed" in reason["message"]
    again = loadbench("compare", str(kept(tmp_path)), "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["comparisons"] == found["comparisons"]


def test_few_repeats_say_before_they_start_what_they_show(tmp_path):
    """Also in the plan."""
    for more in (["--dry-run", "--verbose"], []):
        process = loadbench("compare", *SIMULATED, *SHORT, "--repeats=2", *more, cwd=tmp_path)
        said = process.stdout if more else process.stderr.partition("begins")[0]
        assert "2 repeats most likely show a difference of" in said


def test_until_needs_a_limit(tmp_path):
    """Else nothing would end it."""
    process = loadbench("compare", *SIMULATED, *SHORT, "--until=3%", cwd=tmp_path)
    assert process.returncode == 2
    assert "--until: has no effect: nothing limits the number of repeats" in process.stderr


def test_one_process_cannot_be_two_servers(tmp_path):
    """--server-pid is refused where it would be taken for the server of both sides."""
    process = loadbench("compare", "http://127.0.0.1:9", "http://127.0.0.1:10", "--server-pid=1", cwd=tmp_path)
    assert (process.returncode, process.stdout) == (2, "")
    assert "--server-pid: names one process" in process.stderr


def test_plan_sends_nothing(tmp_path):
    """--dry-run of two servers that are not there shows order and time, and leaves nothing behind."""
    process = loadbench(
        "compare",
        "http://127.0.0.1:9",
        "http://127.0.0.1:10",
        *SHORT,
        "--budget=1m",
        "--dry-run",
        "--verbose",
        cwd=tmp_path,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert "order by repeat" in process.stdout
    assert "as many as fit into 1m" in process.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("over", "codes"),
    [
        ({}, []),
        ({"output_tokens": 12}, ["max_tokens_ignored"]),
        ({"output_tokens": 5, "finish_reason": "stop"}, ["ends_early"]),
        ({"output_tokens": 5, "finish_reason": "length"}, []),
        ({"output_tokens": None}, []),
    ],
)
def test_first_answers_tell_of_unequal_work(over, codes):
    """An answer that is longer than it may be, or shorter than it should be, is said before the load begins."""
    found = length_caveats("B", a_sample(**over), most=11)
    assert [caveat.code for caveat in found] == codes
    assert all(caveat.message.startswith("B ") for caveat in found)
