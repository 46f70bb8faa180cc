"""`loadbench compare --capacity` as its users have it: the plan, both searches, the folder, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from loadbench.plan.pairs import searched_sides, sides
from loadbench.plan.sources import resolve
from loadbench.results.compare_capacity import read_capacity_comparison
from tests.cli.running import interrupted, loadbench, started
from tests.cli.typed import typed
from tests.core.test_guard import linux_only, until, with_mark
from tests.pitfalls.test_c_transport import free_port
from tests.session.test_server_command import command

if TYPE_CHECKING:
    from pathlib import Path

SIDES = ("profile=slot-server,purchase=900,watts=28", "profile=small-gpu,purchase=2200,watts=220")
SEARCH = ("--capacity", "--slo=e2e_p90<9s", "--at-most=2", "--max-tokens=2", "--input-tokens=16", "--warm-up=0s")
PRICES = ("--kwh-price=0.3", "--currency=EUR")


def kept(folder: Path) -> Path:
    """The only folder of results."""
    (found,) = (folder / "results").iterdir()
    return found


def test_the_plan_splits_the_budget(tmp_path):
    """Half for each side, one after the other; only what B has is listed; nothing is sent."""
    done = typed("compare", *SIDES, *SEARCH, *PRICES, "--budget=10m", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "A is searched first, then B in the same way: 5m for each, 10m in all" in done.stdout
    assert "only B has target.profile small-gpu, cost.purchase 2200.0, cost.watts 220..220" in done.stdout
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--users=1",), "--users: capacity chooses the load itself"),
        (("--repeats=3",), "--repeats: has no effect with --capacity"),
        (("--chart=x.svg",), "--chart: has no effect with --capacity"),
        (("--paired",), "--paired: has no effect with --capacity"),
    ],
)
def test_what_a_search_does_not_have_is_refused(given, message, tmp_path):
    """Before anything is measured."""
    done = typed("compare", *SIDES, *SEARCH, *given, cwd=tmp_path)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_a_searchs_flag_is_refused_without_one(tmp_path):
    """It would have no effect."""
    done = typed("compare", *SIDES, "--at-most=4", cwd=tmp_path)
    assert (done.returncode, "--at-most: is for a search" in done.stderr) == (2, True)


def test_saved_runs_cannot_be_searched(tmp_path):
    """They are measured already."""
    done = typed("compare", "one", "two", "--capacity", cwd=tmp_path)
    assert (done.returncode, "--capacity: is for measuring" in done.stderr) == (2, True)


def test_a_side_that_is_wrong_is_named(tmp_path):
    """No objective is given; both sides are one server."""
    done = typed("compare", *SIDES, "--capacity", cwd=tmp_path)
    assert (done.returncode, done.stderr.startswith("error: A: ")) == (2, True), done.stderr
    done = typed("compare", "profile=small-gpu", "profile=small-gpu", *SEARCH, cwd=tmp_path)
    assert (done.returncode, "both sides are the same server" in done.stderr) == (2, True)


def test_a_scenario_names_both_models(tmp_path):
    """In its section for comparisons; a flag names another one."""
    scenario = tmp_path / "s.toml"
    scenario.write_text('[target]\nurl = "http://127.0.0.1:1"\n[compare]\na_model = "one"\nb_model = "two"\n')
    search = ("--capacity", "--slo=ttft_p95<1s", "--dry-run", f"--scenario={scenario}")
    done = typed("compare", *search, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "only B has target.model two" in done.stdout
    done = typed("compare", *search, "--b-model=three", cwd=tmp_path)
    assert "three" in done.stdout.partition("only B has")[2]


def test_the_commands_of_a_scenario_are_not_run_without_a_yes(tmp_path):
    """Both are shown in one refusal; nothing is started."""
    scenario = tmp_path / "s.toml"
    scenario.write_text('[compare]\na_cmd = "touch a{port}"\nb_cmd = "touch b{port}"\n')
    given = ("compare", "--capacity", "--slo=ttft_p95<1s", f"--scenario={scenario}")
    planned = typed(*given, "--dry-run", cwd=tmp_path)
    assert "touch a{port}" in planned.stdout
    assert "touch b{port}" in planned.stdout
    done = typed(*given, cwd=tmp_path)
    assert done.returncode == 2
    for name in "ab":
        assert f"compare.{name}_cmd: wants to run touch {name}{{port}}" in done.stderr
    assert "if they may, add --yes-run" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.toml"]
    # A flag is the user's own, and takes the place of the file's.
    done = typed(*given, "--a-cmd=mine {port}", cwd=tmp_path)
    assert "mine" not in done.stderr.partition("wants to run")[2]


@pytest.mark.parametrize("command", ["compare", "capacity"])
@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("server_cmd=serve {port},server_env=A=1,server_env=B=2", {"A": "1", "B": "2"}),
        ("server_env=A=1,B=2,server_cmd=serve {port}", {"A": "1", "B": "2"}),
        ("server_cmd=serve {port},server_env=CUDA_VISIBLE_DEVICES=0,1,B=2", {"CUDA_VISIBLE_DEVICES": "0,1", "B": "2"}),
    ],
)
def test_a_side_has_several_variables(command, text, variables):
    """Repeated, or one after the other."""
    if command == "compare":
        a, b = sides(resolve(flags={}, environment={}, command="compare"), a=text, b="server_cmd=serve {port}")
    else:
        a, b = searched_sides({"objectives": ["ttft_p95<1s"]}, {}, a=text, b="server_cmd=serve {port}")
    assert dict(a.target.server_env) == variables
    assert b.target.server_env == ()
    assert a.target.server_cmd == ("serve", "{port}")


@pytest.mark.slow
def test_both_sides_are_searched_and_kept(tmp_path):
    """Each has a folder like that of `loadbench capacity`; the report reads it again, and a page shows both."""
    reports = ("--report=both.html", "--report=both.xml", "--report=both.md")
    done = loadbench("compare", *SIDES, *SEARCH, *PRICES, "--budget=16s", *reports, "--json", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    result, folder = json.loads(done.stdout), kept(tmp_path)
    assert result["schema"] == "loadbench.compare-capacity/1"
    assert all(result[side]["capacity"]["model"] for side in "ab")
    assert [result[side]["capacity"]["budget_s"] for side in "ab"] == [8.0, 8.0]
    assert read_capacity_comparison(folder).conclusion == result["conclusion"]
    assert (folder / "a" / "capacity.json").is_file()
    assert (folder / "b" / "run.json").is_file()
    again = typed("report", str(folder), cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert " ".join(result["conclusion"].split()[:4]) in " ".join(again.stdout.split())
    assert "Each side" in (tmp_path / "both.html").read_text(encoding="utf-8")
    assert (tmp_path / "both.xml").read_text(encoding="utf-8").count("<testsuite ") == 2
    listed = json.loads(typed("runs", "--json", cwd=tmp_path).stdout)
    assert [run["command"] for run in listed["runs"]] == ["compare"]
    single = typed("report", str(folder / "b"), cwd=tmp_path)
    assert single.returncode == 0, single.stderr


@pytest.mark.slow
def test_a_comparison_is_continued_by_its_folder(tmp_path):
    """A side that has its answer is not searched again."""
    done = loadbench("compare", *SIDES, *SEARCH, "--budget=16s", "--json", cwd=tmp_path)
    before, folder = json.loads(done.stdout), kept(tmp_path)
    planned = loadbench(
        "compare", "--capacity", "--resume", str(folder), "--budget=20s", "--dry-run", cwd=tmp_path
    ).stdout
    assert f"resumes {folder}" in " ".join(planned.split())
    assert "<time>" not in planned
    again = loadbench("compare", "--capacity", "--resume", str(folder), "--budget=20s", "--json", cwd=tmp_path)
    after = json.loads(again.stdout)
    assert "Traceback" not in again.stderr
    for side in "ab":
        whole = before[side]["capacity"]["status"] in {"found", "at_least"}
        assert (f"{side.upper()}: was searched before" in again.stderr) == whole
        assert len(after[side]["capacity"]["probes"]) >= len(before[side]["capacity"]["probes"])


@pytest.mark.slow
@linux_only
def test_only_one_sides_server_is_up_at_a_time(tmp_path):
    """Both commands listen at one port, which is free again before the second begins; nothing is left."""
    a, b = f"mark-a-{tmp_path.name}", f"mark-b-{tmp_path.name}"
    url = f"--url=http://127.0.0.1:{free_port()}/v1"
    commands = (f"--a-cmd={command(a)}", f"--b-cmd={command(b)}")
    done = loadbench("compare", *commands, url, *SEARCH[:4], "--warm-up=0s", "--budget=8s", "--json", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    result = json.loads(done.stdout)
    assert [result[side]["capacity"]["model"] for side in "ab"] == ["small", "small"]
    for side in "ab":
        assert (kept(tmp_path) / side / "server.log").is_file()
        run = json.loads((kept(tmp_path) / side / "run.json").read_text(encoding="utf-8"))
        assert f"mark-{side}-" in run["server_start"]["command"]
    until(lambda: not with_mark(a) and not with_mark(b))


@pytest.mark.slow
@linux_only
def test_the_commands_of_a_scenario_are_searched_after_a_yes(tmp_path):
    """As those of flags are; the answer that is there already needs no server and no question."""
    a, b = f"mark-a-{tmp_path.name}", f"mark-b-{tmp_path.name}"
    scenario = tmp_path / "s.toml"
    scenario.write_text(f"[compare]\na_cmd = {json.dumps(command(a))}\nb_cmd = {json.dumps(command(b))}\n")
    given = (f"--scenario={scenario}", "--yes-run", *SEARCH[:4], "--warm-up=0s", "--budget=8s", "--json")
    done = loadbench("compare", *given, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("as --yes-run allows") == 2
    for side in "ab":
        run = json.loads((kept(tmp_path) / side / "run.json").read_text(encoding="utf-8"))
        assert f"mark-{side}-" in run["server_start"]["command"]
    until(lambda: not with_mark(a) and not with_mark(b))


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_is_named_and_the_other_kept(tmp_path):
    """B is not there: A's answer is kept and shown, and the exit code is that of a server that is gone."""
    nowhere = f"url=http://127.0.0.1:{free_port()}/v1"
    done = loadbench("compare", SIDES[1], nowhere, *SEARCH, "--budget=8s", "--json", cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    result = json.loads(done.stdout)
    assert result["a"]["capacity"] is not None
    assert result["b"]["problem"].startswith("B: ")
    assert result["complete"] is False
    report = typed("report", str(kept(tmp_path)), "--format", "junit", cwd=tmp_path)
    assert report.stdout.count("<error ") >= 1


@pytest.mark.slow
def test_an_interruption_keeps_what_there_is_and_searches_no_other(tmp_path):
    """Ctrl-C in A's search."""
    search = [one for one in SEARCH if not one.startswith("--at-most")]
    process = started("compare", *SIDES, *search, "--budget=10m", "--at-most=200", "--require=proven", cwd=tmp_path)
    interrupted(process)
    assert process.returncode == 130
    folder = kept(tmp_path)
    comparison = read_capacity_comparison(folder)
    assert comparison.a.capacity is not None
    assert comparison.b.capacity is None
    assert "how many users B can serve is not known: it was not searched" in comparison.conclusion
    again = typed("compare", "--capacity", "--resume", str(folder), cwd=tmp_path)
    assert (again.returncode, "side B was not begun" in again.stderr) == (2, True), again.stderr
