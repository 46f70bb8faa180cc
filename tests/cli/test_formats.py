"""`--format` of the commands that measure, and of `report` on every folder: the same formats, with the same content."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from loadbench.cli import compare as compare_command
from loadbench.cli.measuring import FORMATS, data_or_page
from loadbench.report.junit import compare_junit, search_suite
from loadbench.report.shown import Shown
from loadbench.results.capacity import Capacities, read_capacity
from loadbench.results.run import to_json
from tests.building import a_run
from tests.cli.test_help import ALL
from tests.cli.typed import typed
from tests.report.test_compare_reports import alone, crossing

SAVED = Path(__file__).parents[2] / "results"
PAIRS = next(SAVED.glob("*-against-8-slots"))
SEARCH = next(SAVED.glob("*-capacity-*"))
QUICK = ("--users=1", "--requests=3", "--warm-up=0s", "--max-tokens=4", "--input-tokens=32", "--quiet")
DATA = ("csv", "hlog", "hgrm", "llmd")


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def tags(log: str) -> set[str]:
    return set(re.findall(r"^Tag=([^,]+),", log, re.MULTILINE))


def test_every_command_that_measures_has_the_formats_of_report():
    """One list, with one text."""
    offered = {
        path[0]: (tuple(param.type.choices), param.help)
        for path, command in ALL
        for param in command.params
        if path and path[0] in {"report", "sweep", "replay", "capacity", "compare", "workshop"} and param.name == "form"
    }
    assert len(offered) == 6
    assert {choices for choices, _ in offered.values()} == {FORMATS}
    assert len({text for _, text in offered.values()}) == 1


@pytest.mark.parametrize("form", sorted({*FORMATS} - {"text"}))
def test_a_sweep_prints_what_report_prints_of_its_folder(form, tmp_path):
    """On stdout, nothing else; stderr is as always."""
    done = typed("sweep", *QUICK, "--format", form, cwd=tmp_path)
    again = typed("report", "last", "--format", form, cwd=tmp_path)
    assert (again.returncode, done.stderr) == (0, "")
    assert done.stdout == again.stdout != ""


def test_results_go_to_files_and_to_stderr_at_once(tmp_path):
    """Each in the format that its name ends in; stdout and stderr have one each, and all are of one run."""
    names = ("a.csv", "a.md", "a.json", "a.xml", "a.txt", "a.hlog", "a.html")
    files = [part for name in names for part in ("--report", name)]
    done = typed("sweep", *QUICK, "--format", "csv", "--format-err", "markdown", *files, cwd=tmp_path)
    kept = {name: (tmp_path / name).read_text("utf-8") for name in names}
    assert kept["a.csv"] == done.stdout
    assert kept["a.md"] == done.stderr
    for name, form in (("a.json", "json"), ("a.xml", "junit"), ("a.hlog", "hlog"), ("a.txt", "text")):
        assert kept[name] == typed("report", "last", "--format", form, cwd=tmp_path).stdout, name
    assert kept["a.html"].startswith("<!DOCTYPE html>")


def test_reports_of_a_comparison_have_the_formats_of_their_names(tmp_path):
    """stdout has its own; a file of the format that is given is in its place."""
    runs = [str(PAIRS / side / "01") for side in "ab"]
    done = typed("compare", *runs, "--report", "c.md", "--report", "c.xml", "--format-err", "csv", cwd=tmp_path)
    assert done.stdout.startswith("loadbench compare\n")
    assert (tmp_path / "c.md").read_text("utf-8").startswith("### loadbench compare")
    assert ET.parse(tmp_path / "c.xml").getroot().tag == "testsuites"
    assert rows(done.stderr)[0]["side"] == "a"
    moved = typed("compare", *runs, "--format", "junit", "--report", "d.xml", cwd=tmp_path)
    assert (moved.stdout, (tmp_path / "d.xml").exists()) == ("", True)


def test_json_and_another_format_exclude_each_other(tmp_path):
    """Before anything is measured."""
    done = typed("sweep", *QUICK, "--json", "--format", "csv", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --json and --format csv exclude each other\nhint: give one of them\n"
    assert not (tmp_path / "results").exists()
    assert json.loads(typed("sweep", *QUICK, "--json", cwd=tmp_path).stdout)["schema"] == "loadbench.run/1"


def test_a_format_that_nothing_was_measured_for_says_so(capsys):
    """In one line, after which the command goes on to say where the run is."""
    nothing = Shown(msgspec.structs.replace(a_run(), levels=[]))
    assert data_or_page("hgrm", lambda: [nothing], lambda: pytest.fail("no page")) == ""
    assert capsys.readouterr().err == "error: --format hgrm: no level has a distribution\n"


def test_the_workshop_has_its_own_csv_and_the_other_formats_of_a_run(tmp_path):
    """Its CSV and its table are those that it writes into the run folder."""
    given = ("workshop", "--rounds=1", "--prompt=Hello", "--max-tokens=4", "--quiet")
    for form, file in (("csv", "benchmark_report.csv"), ("markdown", "benchmark_report.md")):
        done = typed(*given, "--format", form, cwd=tmp_path)
        (folder,) = (tmp_path / "results").glob("*")
        assert done.stdout == (folder / file).read_text("utf-8")
        folder.rename(tmp_path / form)
    ET.fromstring(typed(*given, "--format", "junit", cwd=tmp_path).stdout.encode())


def test_a_capacity_search_prints_its_probes_and_its_answer(tmp_path):
    """A row for each probe; for build servers the answer first, as in the exit code."""
    given = ("capacity", "--slo=ttft_p90<5s", "--at-most=2", "--warm-up=10ms", "--max-tokens=4", "--budget=2s")
    done = typed(*given, "--format", "junit", "--quiet", cwd=tmp_path)
    root = ET.fromstring(done.stdout.encode())
    assert root[0].get("name").startswith("loadbench capacity: ")
    assert ((root[0].get("failures"), root[0].get("errors")) == ("0", "0")) == (done.returncode == 0)
    assert done.stdout == typed("report", "last", "--format", "junit", cwd=tmp_path).stdout
    table = rows(typed("report", "last", "--format", "csv", cwd=tmp_path).stdout)
    (folder,) = (tmp_path / "results").iterdir()
    assert len(table) == len(json.loads((folder / "run.json").read_text("utf-8"))["levels"])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("folder", [PAIRS, SEARCH], ids=["compare", "capacity"])
def test_report_has_every_format_of_every_folder(folder, form, tmp_path):
    """Of a comparison and of a search, too."""
    done = typed("report", str(folder), "--format", form, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_data_of_a_comparison_is_that_of_both_sides():
    """A row for each level of each run, and tags and files that say which side and repeat they are of."""
    cwd = PAIRS.parent
    table = rows(typed("report", str(PAIRS), "--format", "csv", cwd=cwd).stdout)
    assert [*table[0]][:2] == ["side", "repeat"]
    runs = sorted(file.parent for file in PAIRS.glob("[ab]/*/run.json"))
    alone = {
        (run.parent.name, run.name): rows(typed("report", str(run), "--format", "csv", cwd=cwd).stdout) for run in runs
    }
    for place, own in alone.items():
        of_run = [row for row in table if (row["side"], row["repeat"]) == place]
        assert [{name: row[name] for name in own[0]} for row in of_run] == own
    assert len(table) == sum(map(len, alone.values()))
    log = tags(typed("report", str(PAIRS), "--format", "hlog", cwd=cwd).stdout)
    assert {tuple(tag.split(":")[:2]) for tag in log} == set(alone)


def test_a_log_of_several_runs_counts_from_the_first(tmp_path):
    """Each interval is where it was, and they are in order."""
    log = typed("report", str(PAIRS), "--format", "hlog", cwd=tmp_path).stdout
    starts = [float(line.split(",")[1]) for line in log.splitlines() if line.startswith("Tag=")]
    assert starts == sorted(starts)
    later = [float(line.split(",")[1]) for line in log.splitlines() if line.startswith("Tag=b:03")]
    run = json.loads((PAIRS / "b" / "03" / "run.json").read_text("utf-8"))
    alone = typed("report", str(PAIRS / "b" / "03"), "--format", "hlog", cwd=tmp_path).stdout
    begins = [float(line.split(",")[1]) for line in alone.splitlines() if line.startswith("Tag=")]
    assert run["levels"]
    assert len({round(one - other, 2) for one, other in zip(later, begins, strict=True)}) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("form", ["hgrm", "llmd"])
def test_files_of_both_sides_have_names_of_their_own(form, tmp_path):
    """As many files as each run has alone."""
    typed("report", str(PAIRS), "--format", form, "--out", "all", cwd=tmp_path)
    count = 0
    for run in sorted(PAIRS.glob("[ab]/*/run.json")):
        out = f"{run.parent.parent.name}-{run.parent.name}"
        typed("report", str(run.parent), "--format", form, "--out", out, cwd=tmp_path)
        count += len([*(tmp_path / out).iterdir()])
    assert len([*(tmp_path / "all").iterdir()]) == count > 0


def test_compare_of_saved_runs_has_their_data(tmp_path):
    """Whichever folders they are from."""
    runs = [str(PAIRS / side / "01") for side in "ab"]
    table = rows(typed("compare", *runs, "--format", "csv", cwd=tmp_path).stdout)
    assert {(row["side"], row["repeat"]) for row in table} == {("a", "01"), ("b", "01")}


def searches_folder(tmp_path: Path) -> Path:
    """A folder as a search of several models leaves it: two that were searched, and one that failed."""
    folder = tmp_path / "several"
    for name in ("1-x", "2-y"):
        (folder / name).mkdir(parents=True)
        for file in ("run.json", "capacity.json", "requests.jsonl"):
            if (SEARCH / file).exists():
                (folder / name / file).write_bytes((SEARCH / file).read_bytes())
    search = read_capacity(SEARCH)
    both = [
        type(search)(**{**{key: getattr(search, key) for key in search.__struct_fields__}, "model": model})
        for model in ("x", "y")
    ]
    several = Capacities(folders={"x": "1-x", "y": "2-y", "z": "3-z"}, searches=both, failed={"z": "not there"})
    (folder / "capacities.json").write_bytes(to_json(several))
    return folder


def test_a_search_of_several_models_has_every_format(tmp_path):
    """Data of each model; for build servers a suite for each, and the model that failed is an error."""
    folder = searches_folder(tmp_path)
    for form in FORMATS:
        done = typed("report", str(folder), "--format", form, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), form
        assert done.stdout
    table = rows(typed("report", str(folder), "--format", "csv", cwd=tmp_path).stdout)
    one = rows(typed("report", str(SEARCH), "--format", "csv", cwd=tmp_path).stdout)
    assert [row["search"] for row in table] == ["1-x"] * len(one) + ["2-y"] * len(one)
    root = ET.fromstring(typed("report", str(folder), "--format", "junit", cwd=tmp_path).stdout.encode())
    kinds = {suite.get("name"): (suite.get("failures"), suite.get("errors")) for suite in root}
    assert kinds["loadbench capacity: x"] == ("0", "0")
    assert kinds["loadbench capacity: z"] == ("0", "1")
    refused = typed("report", str(folder), "--by-user", cwd=tmp_path)
    assert refused.stderr.startswith(f"error: {folder}: --by-user is for one run")


@pytest.mark.parametrize("undecided", [None, "pass", "fail"])
def test_junit_of_a_comparison_agrees_with_its_exit_code(undecided):
    """Also with --undecided: passed where it exits with 0, failed where with 3, an error where with another."""
    for comparison in (crossing(), alone()):
        root = ET.fromstring(compare_junit(comparison, undecided=undecided).encode())
        failures, errors = int(root.get("failures")), int(root.get("errors"))
        code = compare_command.exit_code(comparison, undecided=undecided)
        assert (failures > 0, errors > 0) == (code == 3, code in {2, 4, 5}), code


def test_junit_of_a_comparison_takes_undecided_from_the_command_line_and_from_the_folder(tmp_path):
    """The setting of the command that measured holds when its folder is reported."""
    runs = [str(PAIRS / side / "01") for side in "ab"]
    rule = ("--fail-on", "ttft_p95>0.01%", "--format", "junit")
    seen = {}
    for word in ("pass", "fail"):
        done = typed("compare", *runs, *rule, "--undecided", word, cwd=tmp_path)
        root = ET.fromstring(done.stdout.encode())
        seen[word] = (done.returncode, root.get("failures"), root.get("errors"))
    assert seen["pass"] in {(0, "0", "0"), (3, "1", "0")}
    assert seen["fail"] == (3, "1", "0")


def test_junit_of_a_search_agrees_with_its_exit_code():
    """Passed with an answer, failed where no load meets the objectives, an error where nothing is known."""
    search = read_capacity(SEARCH)
    fields = {key: getattr(search, key) for key in search.__struct_fields__}
    kinds = {
        status: search_suite(type(search)(**{**fields, "status": status, "answer": None})).cases[0][2]
        for status in ("at_least", "none", "client", "inconclusive", "interrupted")
    }
    assert kinds == {
        "at_least": "",
        "none": "failure",
        "client": "error",
        "inconclusive": "error",
        "interrupted": "error",
    }


@pytest.mark.parametrize("more", [(), ("--undecided", "pass"), ("--undecided", "fail"), ("--fail-on", "ttft_p50<1us")])
@pytest.mark.parametrize("requests", [10, 30])
def test_junit_of_gates_is_green_exactly_where_the_exit_code_is_0(tmp_path, requests, more):
    """Also where every gate passes, and the level has too few responses to count."""
    load = ("--users=1", f"--requests={requests}", "--max-tokens=4", "--input-tokens=32", "--quiet")
    done = typed("sweep", *load, "--fail-on", "failures<50%", *more, "--format", "junit", cwd=tmp_path)
    root = ET.fromstring(done.stdout.encode())
    assert (done.returncode == 0) == (root.get("errors") == root.get("failures") == "0")
    if requests < 20 or "--fail-on" in more:
        assert done.returncode != 0
