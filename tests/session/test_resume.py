"""What a run that is continued has to know of the levels before."""

from __future__ import annotations

import errno
import gc
import json
import re
import shutil
import sys
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from loadbench.core.errors import BadInput
from loadbench.engine.sweep import LastLevel
from loadbench.plan.conditions import conditions, content_hash
from loadbench.plan.load import Closed
from loadbench.plan.sources import resolve
from loadbench.results.append_log import AppendLog
from loadbench.results.folder import RunFolder
from loadbench.results.run import Reason, Verdict, to_json
from loadbench.session.resume import earlier_levels, held, whole_levels
from loadbench.session.run_writer import new_folder
from tests.building import a_level, a_run
from tests.cli.typed import typed


def levels(*measured: tuple[str, int]):
    """A run of these models at these users."""
    one = a_level()
    of = [
        msgspec.structs.replace(one, model=model, load=msgspec.structs.replace(one.load, users=users))
        for model, users in measured
    ]
    return a_run(*of, complete=False)


@pytest.mark.parametrize(("lost", "kept"), [({2}, 2), ({1, 2}, 1), ({1}, 3), ({0, 1, 2}, 0), (set(), 3)])
def test_levels_without_their_workers_are_measured_again(tmp_path, lost, kept):
    """Those at the end. One in the middle stays: the workers that were left made the load of the next."""
    scenario = resolve(flags={"users": "1,2,4", "max_tokens": "5"}, environment={})
    then = conditions(scenario)
    run = levels(("m", 1), ("m", 2), ("m", 4))
    gone = Verdict("INVALID", [Reason("lost_worker", "1 of the 2 workers ended early", "run it again")])
    of = [msgspec.structs.replace(one, verdict=gone) if n in lost else one for n, one in enumerate(run.levels)]
    run = msgspec.structs.replace(run, levels=of, conditions=then, content_hash=content_hash(then))
    (tmp_path / "run.json").write_bytes(to_json(run))
    assert [level.load.users for level in whole_levels(tmp_path, scenario).levels] == [1, 2, 4][:kept]


def test_a_model_without_further_loads_is_complete():
    """Counts and last levels are by model, whatever the order in which they came: one that had failed came later."""
    run = levels(("a", 1), ("a", 2), ("c", 1), ("b", 1))
    earlier = earlier_levels(run, resolve(flags={"users": "1,2"}, environment={}), ["a", "b", "c"])
    assert (earlier.counts, earlier.complete) == ({"a": 2, "b": 1, "c": 1}, {"a"})
    assert earlier.last["a"] == LastLevel(round(run.levels[0].metrics["e2e_response_s"].p95 * 1e9), Closed(2))
    assert earlier.spent_ns == 4 * 100 * 10**9


def test_levels_that_a_sweep_found_itself():
    """The one between two doublings is in no list of loads; whether a model needs more, the levels say."""
    run = levels(("a", 1), ("a", 2), ("a", 4), ("a", 8), ("a", 6))
    earlier = earlier_levels(run, resolve(flags={"users": "auto"}, environment={}), ["a"])
    assert (earlier.last["a"].load, earlier.complete) == (Closed(6), set())


def test_other_models_are_refused():
    """Levels of a model that is not measured any more would be taken for those of this run."""
    with pytest.raises(BadInput, match="of other models: a, b"):
        earlier_levels(levels(("a", 1), ("b", 1)), resolve(flags={"users": "1,2"}, environment={}), ["a"])


class Wall(datetime):
    """The wall clock, as somebody sets it."""

    set_by = timedelta()

    @classmethod
    def now(cls, zone=None):
        return datetime.now(zone) + cls.set_by


def test_times_go_on_when_the_wall_clock_is_set_back(tmp_path, monkeypatch):
    """An hour back, and then two forward, as daylight saving or a corrected clock has it: a run that is continued has
    its levels one after another, in requests.jsonl, run.json and histograms.hlog, and keeps its folder."""
    monkeypatch.setattr("loadbench.session.run_writer.datetime", Wall)
    load = ("--requests=6", "--warm-up=0s", "--telemetry=off", "--max-tokens=2", "--quiet")
    folder = tmp_path
    for users, hours in (("1", 0), ("1,2", -1), ("1,2,3", 2)):
        monkeypatch.setattr(Wall, "set_by", timedelta(hours=hours))
        more = [] if folder is tmp_path else ["--resume", str(folder)]
        done = typed("sweep", f"--users={users}", *load, *more, cwd=tmp_path)
        assert done.returncode in {0, 4, 5}, done.stderr
        (folder,) = (tmp_path / "results").iterdir()
    run = json.loads((folder / "run.json").read_text())
    lines = [json.loads(text) for text in (folder / "requests.jsonl").read_text().splitlines()]
    times = [time for level in run["levels"] for time in level["window_ns"]]
    assert (len(run["levels"]), times) == (3, sorted(times))
    ends = [max(one["end_ns"] for one in lines if one["level"] == number) for number in range(3)]
    begins = [min(one["due_ns"] for one in lines if one["level"] == number) for number in range(3)]
    assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False))
    tagged = [text for text in (folder / "histograms.hlog").read_text().splitlines() if text.startswith("Tag=")]
    logged = [float(text.split(",")[1]) for text in tagged]
    assert logged == sorted(logged)
    # Another run of the second in which this one began has a folder of its own.
    monkeypatch.setattr(Wall, "now", lambda *_: datetime.fromisoformat(run["started_at"]))
    assert typed("sweep", "--users=1", *load, cwd=tmp_path).returncode in {0, 4, 5}
    assert len(list((tmp_path / "results").iterdir())) == 2


def test_a_result_that_is_older_or_was_changed_is_one_message(tmp_path):
    """Of another schema, without the conditions that older versions did not record, begun at no time, or torn: nothing
    in the folder is touched."""
    load = ("--users=1", "--requests=2", "--warm-up=0s", "--telemetry=off", "--max-tokens=2", "--quiet")
    typed("sweep", *load, cwd=tmp_path)
    (folder,) = (tmp_path / "results").iterdir()
    text = (folder / "run.json").read_text()
    for changed, words in (
        (text.replace("loadbench.run/1", "loadbench.run/0"), "use the version that wrote it"),
        (json.dumps(json.loads(text) | {"conditions": {}}), "did not record its conditions"),
        (re.sub(r'"started_at": "[^"]*"', '"started_at": "soon"', text), "is no time"),
        (text[:5000], "not a loadbench result"),
    ):
        (folder / "run.json").write_text(changed)
        done = typed("sweep", "--resume", str(folder), cwd=tmp_path)
        assert (done.returncode, words in done.stderr, len(done.stderr) < 2000) == (2, True, True), done.stderr
        assert (folder / "run.json").read_text() == changed
        assert len((folder / "requests.jsonl").read_bytes().splitlines()) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_one_command_continues_a_run_at_a_time(tmp_path):
    """The second is refused before it reads the run, so that no level of the first is lost; then it goes on."""
    load = ("--requests=2", "--warm-up=0s", "--telemetry=off", "--max-tokens=2", "--quiet")
    typed("sweep", "--users=1", *load, cwd=tmp_path)
    (folder,) = (tmp_path / "results").iterdir()
    before = (folder / "run.json").read_bytes()
    more = ("sweep", "--resume", str(folder), "--users=1,2")
    with held(folder):
        refused = typed(*more, cwd=tmp_path)
        assert (refused.returncode, "another loadbench is writing this run" in refused.stderr) == (2, True)
    with AppendLog(RunFolder(folder), "requests.jsonl") as log:
        log.open()
        assert typed(*more, cwd=tmp_path).returncode == 2
    assert (folder / "run.json").read_bytes() == before
    assert typed(*more, cwd=tmp_path).returncode in {0, 4, 5}
    assert len(json.loads((folder / "run.json").read_bytes())["levels"]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs folders that can be locked")
def test_a_run_that_has_no_log_open_is_not_continued_by_another_either(tmp_path, monkeypatch):
    """As between two models of a search, or two repeats: the folder is that of the command that made it."""
    monkeypatch.chdir(tmp_path)
    folder = new_folder(resolve(flags={"users": "1"}, environment={}), datetime.now(UTC), print)
    for moves in (False, True):
        if moves:
            assert folder.place.move(OSError(errno.ENOSPC, "full"))  # it goes on in another place
        with pytest.raises(BadInput, match="another loadbench is writing this run"), held(folder.path):
            pass
    path = folder.path
    del folder
    gc.collect()
    with held(path):
        pass
    shutil.rmtree(path.parent)


def test_what_is_kept_and_what_is_measured_again(tmp_path):
    """A level that a rule aborted stands, and ends its model's; a model that failed is tried again; a run whose long
    files stayed on a full disk goes on with the levels of its result."""
    load = ("--requests=6", "--warm-up=0s", "--telemetry=off", "--max-tokens=2", "--quiet")
    models = ("--model=sim-chat", "--model=nobody")
    first = typed("sweep", "--users=1,2", *models, "--abort-on=ttft_p50>1us", "--duration=60s", *load[1:], cwd=tmp_path)
    assert first.returncode == 6, first.stderr
    (folder,) = (tmp_path / "results").iterdir()
    again = typed("sweep", "--resume", str(folder), cwd=tmp_path)
    assert (again.returncode, "nobody: cannot be tested" in again.stderr) == (6, True)
    run = json.loads((folder / "run.json").read_text())
    reasons = [reason["code"] for reason in run["levels"][0]["verdict"]["reasons"]]
    assert (len(run["levels"]), "aborted" in reasons) == (1, True)
    assert sorted(status["status"] for status in run["models"]) == ["failed", "ok"]

    typed("sweep", "--users=1,2", *load, "--out=r", cwd=tmp_path)
    (folder,) = (tmp_path / "r").iterdir()
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved, ignore=shutil.ignore_patterns("*.jsonl"))
    done = typed("sweep", "--resume", str(moved), "--users=1,2,3", cwd=tmp_path)
    assert "resumed after 2 whole levels" in done.stderr, done.stderr
    assert len(json.loads((moved / "run.json").read_text())["levels"]) == 3
    shown = typed("report", str(moved), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
