"""`loadbench sweep --vary`: every cell is swept, kept and resumed; one that fails is kept with its error."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest

from loadbench.core.errors import ExitCode, worst_of
from loadbench.session.schemas import document_schema
from loadbench.sim.process import SimProcess
from tests.cli.running import started
from tests.cli.typed import typed
from tests.session.test_schemas import checked

SERVER = Path(__file__).parents[1] / "session" / "small_server.py"

QUICK = ("--users=1,2", "--requests=4", "--warm-up=0s", "--drain=5s", "--telemetry=off")
SIX = ("--vary", "input_tokens=16,32,64", "--vary", "max_tokens=4,8")


@pytest.fixture(scope="module")
def server():
    """A simulated server that all grids share; its context holds 8,192 tokens."""
    with SimProcess("small-gpu", seed=1) as running:
        yield running.url


@pytest.fixture(scope="module")
def six(server, tmp_path_factory):
    """A grid of six cells, and its folder."""
    cwd = tmp_path_factory.mktemp("six")
    ended = typed("sweep", "--url", server, *SIX, *QUICK, cwd=cwd)
    (folder,) = (cwd / "results").iterdir()
    return ended, folder, json.loads((folder / "grid.json").read_text())


def cells_of(folder):
    """The cells in a grid's folder, by their values."""
    grid = json.loads((folder / "grid.json").read_text())
    return {" ".join(cell["values"].values()): cell for cell in grid["cells"]}


def starts_of(folder):
    """When the run of each cell began, by the cell's values."""
    return {
        values: json.loads((folder / cell["folder"] / "run.json").read_text())["started_at"]
        for values, cell in cells_of(folder).items()
        if (folder / cell["folder"] / "run.json").is_file()
    }


def test_six_cells_are_swept_unattended(six):
    """Each has a run folder with its values in force, in the order of the names; the first name changes least often."""
    ended, folder, grid = six
    assert [cell["values"] for cell in grid["cells"]] == [
        {"input_tokens": depth, "max_tokens": most} for depth in ("16", "32", "64") for most in ("4", "8")
    ]
    assert {cell["status"] for cell in grid["cells"]} == {"complete"}
    assert grid["complete"]
    for cell in grid["cells"]:
        run = json.loads((folder / cell["folder"] / "run.json").read_text())
        work = run["scenario"]["work"]
        assert [str(work["input_tokens"]), str(work["max_tokens"])] == [*cell["values"].values()]
        assert [level["load"]["users"] for level in run["levels"]] == [1, 2]
        assert run["scenario"]["grid"]["vary"] is None
    assert ended.returncode == worst_of(ExitCode(cell["exit_code"]) for cell in grid["cells"])
    assert "cell 6 of 6: input_tokens=64 max_tokens=8" in ended.stderr


def test_the_table_has_a_row_for_each_cell(six):
    """With the varied values."""
    ended, _, _ = six
    rows = [line.split() for line in ended.stdout.splitlines()]
    for number, (depth, most) in enumerate(((d, m) for d in ("16", "32", "64") for m in ("4", "8")), 1):
        assert any(row[:3] == [str(number), depth, most] for row in rows)


def test_grid_json_is_valid_by_its_schema(six):
    """With no key that the schema does not name; `--json` prints the same document."""
    _, folder, grid = six
    checked("grid", (folder / "grid.json").read_bytes())
    printed = typed("report", str(folder), "--format", "json", cwd=folder.parent)
    assert json.loads(printed.stdout)["cells"] == grid["cells"]
    assert document_schema("grid")["title"] == "loadbench.grid/1"


def test_a_grid_is_reported_in_every_format_that_runs_have(six):
    """As text, Markdown, a page, CSV with a column for each name that is varied, JUnit, lines and logs."""
    _, folder, _ = six
    cwd = folder.parents[1]
    for form, sign in (
        *(("text", "max_tokens"), ("markdown", "| cell |"), ("html", "<html"), ("junit", "<testsuites")),
        *(("line", "input_tokens 16"), ("hlog", "#[Histogram log"), ("hgrm", "Percentile"), ("llmd", "version")),
    ):
        ended = typed("report", "last", "--format", form, cwd=cwd)
        assert ended.returncode == 0, ended.stderr
        assert sign in ended.stdout, form
    rows = list(csv.DictReader(io.StringIO(typed("report", "last", "--format", "csv", cwd=cwd).stdout)))
    assert len(rows) == 12
    assert (rows[-1]["vary_input_tokens"], rows[-1]["vary_max_tokens"], rows[-1]["users"]) == ("64", "8", "2")
    assert "by-user is for one run" in typed("report", "last", "--by-user", cwd=cwd).stderr
    assert "front" in typed("plot", "last", cwd=cwd).stdout


def test_a_grid_is_one_run_in_the_list_of_runs(six):
    """With the number of its cells; it can be deleted as a whole."""
    _, folder, _ = six
    cwd = folder.parents[1]
    (shown,) = json.loads(typed("runs", "--json", cwd=cwd).stdout)["runs"]
    assert (shown["cells"], shown["state"], shown["command"]) == (6, "complete", "sweep")
    copied = cwd / "copied"
    shutil.copytree(folder, copied / folder.name)
    ended = typed("runs", "delete", str(copied / folder.name), "--yes", cwd=cwd)
    assert (ended.returncode, [*copied.iterdir()]) == (0, []), ended.stderr


def test_a_resumed_grid_measures_what_is_missing(six, server):
    """A cell whose folder is gone is measured again; the others stay as they are, and so do settings."""
    _, original, _ = six
    folder = original.parents[1] / "other" / original.name
    shutil.copytree(original, folder)
    before, gone = starts_of(folder), cells_of(folder)["32 4"]
    shutil.rmtree(folder / gone["folder"])
    planned = typed("sweep", "--resume", str(folder), "--dry-run", cwd=folder.parent).stdout
    assert re.search(r"already there +5 of 6 cells, not measured again\nleft +1 cell\n", planned)
    assert "1 cell left, " in planned
    ended = typed("sweep", "--resume", str(folder), cwd=folder.parent)
    after = starts_of(folder)
    assert "resumed: 5 of 6 cells complete" in ended.stderr
    assert {values for values in after if after[values] != before[values]} == {"32 4"}
    assert {cell["status"] for cell in cells_of(folder).values()} == {"complete"}


def test_a_resumed_grid_measures_changed_cells_again_and_takes_further_ones(six):
    """Other loads and settings are other cells; what was measured before is set aside, or stays."""
    _, original, _ = six
    folder = original.parents[1] / "changed" / original.name
    shutil.copytree(original, folder)
    before = starts_of(folder)
    ended = typed("sweep", "--resume", str(folder), "--vary=input_tokens=16,24", "--vary=max_tokens=4", cwd=folder)
    assert "no cell of this grid any more" in ended.stderr
    assert starts_of(folder)["16 4"] == before["16 4"]
    assert [*cells_of(folder)] == ["16 4", "24 4"]
    ended = typed("sweep", "--resume", str(folder), "--seed=7", cwd=folder)
    assert "measured again: measured under other conditions: work.seed" in ended.stderr
    assert len([*(folder / "set-aside").iterdir()]) == 2
    assert starts_of(folder)["16 4"] != before["16 4"]


def test_a_cell_that_fails_is_kept_and_the_others_go_on(server, tmp_path):
    """Its prompts are too long for the server; the exit code is the worst of the cells', and a resume tries again."""
    ended = typed("sweep", "--url", server, "--vary=input_tokens=16,9000,24", "--max-tokens=4", *QUICK, cwd=tmp_path)
    (folder,) = (tmp_path / "results").iterdir()
    cells = cells_of(folder)
    assert [cell["status"] for cell in cells.values()] == ["complete", "failed", "complete"]
    assert "too long for the context" in cells["9000"]["error"]["message"]
    assert "cell 2 (input_tokens=9000) failed" in ended.stdout
    assert ended.returncode == worst_of(ExitCode(cell["exit_code"]) for cell in cells.values()) != 0
    again = typed("sweep", "--resume", str(folder), cwd=tmp_path)
    assert "resumed: 2 of 3 cells complete" in again.stderr
    assert "cell 2 of 3 failed" in again.stderr
    assert 'name="input_tokens=9000"' in typed("report", "last", "--format", "junit", cwd=tmp_path).stdout


def test_an_interrupted_grid_keeps_what_is_complete_and_goes_on(server, tmp_path):
    """Ctrl-C in the second cell: exit code 130; resumed, the first is not measured again."""
    slow = ("--users=1", "--duration=1s", "--warm-up=0s", "--telemetry=off")
    arguments = ("sweep", "--url", server, "--vary=max_tokens=4,8,16", *slow)
    with started(*arguments, cwd=tmp_path) as process:
        for line in process.stderr:
            if "cell 2/3 [1/1] users=1 of" in line:
                process.send_signal(signal.SIGINT)
                break
        process.communicate()
    (folder,) = (tmp_path / "results").iterdir()
    assert process.returncode == ExitCode.INTERRUPTED
    cells = cells_of(folder)
    assert [cell["status"] for cell in cells.values()] == ["complete", "interrupted", "planned"]
    before = starts_of(folder)
    ended = typed("sweep", "--resume", str(folder), cwd=tmp_path)
    assert {cell["status"] for cell in cells_of(folder).values()} == {"complete"}, ended.stderr
    assert starts_of(folder)["4"] == before["4"]


def test_the_plan_shows_cells_and_times_and_sends_nothing(tmp_path):
    """In the order in which they are measured, with the time of each, and that of all."""
    arguments = ("--vary=input_tokens=16,32", "--users=1,2", "--duration=3s", "--warm-up=1s")
    ended = typed("sweep", *arguments, "--dry-run", cwd=tmp_path)
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert ["1", "16", "users=1,2", "8s"] in rows
    assert ["2", "32", "users=1,2", "8s"] in rows
    assert "2 cells, 4 levels, 16s of load; cells are measured in this order" in ended.stdout
    assert not (tmp_path / "results").exists()


def test_a_scenario_has_a_table_of_what_is_varied(tmp_path):
    """A list for each name; a flag takes its place."""
    (tmp_path / "s.toml").write_text(
        '[vary]\ninput_tokens = [16, 32]\noutput_tokens = ["uniform:2,4", "8"]\n[grid]\nbudget = "10m"\n'
    )
    shown = typed("sweep", "s.toml", "--dry-run", cwd=tmp_path).stdout
    assert "16            uniform:2,4" in shown
    assert "within 10m (--budget)" in shown
    assert "vary" in typed("capacity", "s.toml", "--slo=ttft_p95<1s", "--dry-run", cwd=tmp_path).stdout
    assert "1             auto" not in shown
    assert "2 cells" in typed("sweep", "s.toml", "--vary=seed=1,2", "--dry-run", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary=inputtokens=1,2"], "--vary: inputtokens: no setting of a sweep\nhint: did you mean input_tokens?"),
        (["--vary=slots=1,2"], "--vary: slots: no setting of a sweep\nhint: {slots} has to be in --server-cmd"),
        (["--vary=name=a,b"], "--vary: name: cannot be varied"),
        (["--vary=max_tokens"], "--vary: found 'max_tokens', want a name and its values"),
        (["--vary=max_tokens=1,1"], "--vary: max_tokens: '1' is given more than once"),
        (["--vary=max_tokens=1,,2"], "--vary: max_tokens: want values with single commas"),
        (["--vary=max_tokens=1,x"], "--vary: max_tokens: found 'x', want a whole number"),
        (["--vary=max_tokens=1,2", "--max-tokens=3"], "--vary: max_tokens: --max-tokens sets it too"),
        (["--vary=max_tokens=1", "--vary=work.max_tokens=2"], "work.max_tokens: the same setting as max_tokens"),
        (["--vary=header=X-Key: abc"], "--vary: header: has a secret"),
        (["--vary=seed=" + ",".join(map(str, range(600)))], "--vary: these are 600 cells, want at most 500"),
        (["--budget=1m"], "--budget: has no effect: one sweep has --max-total for its levels"),
        (["--vary=seed=1,2,3", "--budget=20s"], "--budget 20s: 15 levels in 3 cells take 1m36s at least"),
    ],
)
def test_what_cannot_be_varied_is_refused_before_anything_starts(arguments, message, tmp_path):
    """With the place, and what is wrong."""
    ended = typed("sweep", *arguments, "--dry-run", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (ExitCode.BAD_INPUT, "")
    assert message in ended.stderr


def test_a_budget_makes_levels_as_long_as_fit(server, tmp_path):
    """Four levels of a cell have less than ten seconds each; what is left after the first goes to the second."""
    arguments = ("--vary=max_tokens=4,8", "--users=1", "--warm-up=200ms", "--budget=17s", "--telemetry=off")
    ended = typed("sweep", "--url", server, *arguments, cwd=tmp_path)
    (folder,) = (tmp_path / "results").iterdir()
    grid = json.loads((folder / "grid.json").read_text())
    runs = [json.loads((folder / cell["folder"] / "run.json").read_text()) for cell in grid["cells"]]
    assert all(3 <= level["window_s"] < 10 for run in runs for level in run["levels"]), ended.stderr
    assert {run["origins"]["load.duration"] for run in runs} == {"--budget"}
    assert grid["budget_s"] == 17
    assert {cell["status"] for cell in grid["cells"]} == {"complete"}


def command(*more):
    """The command of a small server with these options, which has a name in them."""
    return shlex.join([sys.executable, str(SERVER), "--port", "{port}", *more])


def starts_in(folder):
    """The starts of servers, by the log of each command."""
    return {log.name: log.read_text().count("--- started again") + 1 for log in sorted(folder.glob("server*.log"))}


def test_a_server_is_started_once_for_cells_with_one_command(tmp_path):
    """The cells are ordered for it, in the plan as in the run; a name that is varied is filled in."""
    started_by = ("--server-cmd", command("--mark", "{mark}", "--prints", "this is {mark}"))
    arguments = (*started_by, "--vary=max_tokens=4,8", "--vary=mark=a,b", *QUICK)
    plan = typed("sweep", *arguments, "--dry-run", cwd=tmp_path).stdout
    assert "2 starts of the server" in plan
    ended = typed("sweep", *arguments, cwd=tmp_path)
    (folder,) = (tmp_path / "results").iterdir()
    assert [*cells_of(folder)] == ["4 a", "8 a", "4 b", "8 b"], ended.stderr
    assert {cell["status"] for cell in cells_of(folder).values()} == {"complete"}
    assert starts_in(folder) == {"server.log": 1, "server-2.log": 1}
    assert json.loads((folder / "grid.json").read_text())["starts"] == 2
    assert "this is a" in (folder / "server.log").read_text()
    assert "this is b" in (folder / "server-2.log").read_text()
    rows = [line.split()[:3] for line in plan.splitlines()]
    assert [row for row in rows if row[:1] == ["3"]] == [["3", "4", "b"]]


def test_a_server_that_crashes_or_does_not_start_fails_its_cells_alone(tmp_path):
    """One ends in a level, which is kept; it is started again for the next cell. One ends at once: its cells fail
    without another start. The others are well, no matter in which order."""
    started_by = ("--server-cmd", command("--prints", "up", "--after", "{after}", "exit:3", "--loads", "{loads}"))
    arguments = ("--vary=after=6,1000", "--vary=loads=0,x", "--vary=max_tokens=4,8")
    ended = typed("sweep", *started_by, *arguments, *QUICK, cwd=tmp_path)
    (folder,) = (tmp_path / "results").iterdir()
    cells = cells_of(folder)
    well = {values for values, cell in cells.items() if cell["status"] == "complete"}
    assert well == {"1000 0 4", "1000 0 8"}, ended.stderr
    assert {cell["status"] for values, cell in cells.items() if values not in well} == {"failed"}
    assert ended.returncode == ExitCode.TARGET_UNAVAILABLE
    assert "the server ended with exit code 3" in cells["6 0 4"]["error"]["message"]
    assert "the server ended with exit code 2 before it was ready" in cells["6 x 4"]["error"]["message"]
    assert cells["6 0 4"]["levels"] >= 1
    assert starts_in(folder) == {"server.log": 2, "server-2.log": 1, "server-3.log": 1, "server-4.log": 1}
    assert "6 of 8 cells failed" in ended.stdout


def test_a_resumed_grid_fills_the_command_again(tmp_path):
    """Its settings are those of the grid, not of one of its cells."""
    started_by = ("--server-cmd", command("--mark", "{mark}", "--after", "{after}", "exit:3"))
    arguments = ("--vary=mark=a", "--vary=after=6,1000", "--max-tokens=4")
    typed("sweep", *started_by, *arguments, *QUICK, cwd=tmp_path)
    (folder,) = (tmp_path / "results").iterdir()
    assert [cell["status"] for cell in cells_of(folder).values()] == ["failed", "complete"]
    before = starts_of(folder)
    planned = typed("sweep", "--resume", str(folder), "--dry-run", cwd=tmp_path).stdout
    assert re.search(r"1 cell left, .*, 1 start of the server", planned)
    # The time of a start and of a cell, not of both.
    planned = typed("sweep", "--resume", str(folder), "--dry-run", "--budget=14s", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    ended = typed("sweep", "--resume", str(folder), cwd=tmp_path)
    assert "resumed: 1 of 2 cells complete" in ended.stderr
    assert [cell["status"] for cell in cells_of(folder).values()][1] == "complete"
    assert starts_of(folder)["a 1000"] == before["a 1000"]


def test_a_name_in_the_command_is_no_setting(tmp_path):
    """It is filled in there alone, whatever settings are called."""
    arguments = ("--server-cmd", command("--mark", "{model}"), "--vary=model=a,b", "--max-tokens=4", *QUICK)
    typed("sweep", *arguments, cwd=tmp_path)
    (folder,) = (tmp_path / "results").iterdir()
    grid = json.loads((folder / "grid.json").read_text())
    assert [(one["name"], one["key"]) for one in grid["vary"]] == [("model", None)]
    assert {cell["status"] for cell in grid["cells"]} == {"complete"}
    commands = [
        json.loads((folder / cell["folder"] / "run.json").read_text())["server_start"] for cell in grid["cells"]
    ]
    assert [one["command"].rpartition(" ")[2] for one in commands] == ["a", "b"]


def test_a_name_must_be_in_the_command(tmp_path):
    """Or a setting; one in the command that nothing varies is refused as well."""
    given = ("--server-cmd", command("--mark", "{mark}"))
    wrong = typed("sweep", *given, "--vary=marks=a,b", "--dry-run", cwd=tmp_path)
    assert (wrong.returncode, "marks: neither a setting of a sweep nor in the server's command" in wrong.stderr) == (
        2,
        True,
    )
    missing = typed("sweep", *given, "--vary=seed=1,2", "--dry-run", cwd=tmp_path)
    assert missing.returncode == ExitCode.BAD_INPUT
    assert "found {mark}" in missing.stderr
