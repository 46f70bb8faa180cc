"""`loadbench compare` as its users have it: sides, gates, formats and exit codes."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import msgspec
import pytest

from loadbench.cli import main, root
from loadbench.plan.gate import parse_gate
from loadbench.results.run import Reason, Verdict, to_json
from tests.analyze.comparing import figures, lucky
from tests.cli.running import loadbench as in_a_process


class Done:
    """How it ended, and what it said."""

    def __init__(self, code, said) -> None:
        self.returncode, self.stdout, self.stderr = code, said.out, said.err


@pytest.fixture
def loadbench(monkeypatch, capsys):
    """The command line in this process, in a folder: a process of its own takes seconds to start."""

    def run(*arguments, cwd):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["loadbench", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return Done(int(left.value.code or 0), capsys.readouterr())

    return run


def written(folder, runs):
    """Each run in a folder of its own."""
    for number, run in enumerate(runs):
        path = folder / f"{number:02}"
        path.mkdir(parents=True)
        (path / "run.json").write_bytes(to_json(run))
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Six runs of a server, six of one that is half as fast again and whose first token comes 10 % later."""
    folder = tmp_path_factory.mktemp("kept")
    written(folder / "before", lucky({1: 100, 4: 300}, name="before"))
    written(folder / "after", lucky({1: 150, 4: 450}, ttft=1.1, name="after"))
    return folder


def test_two_folders_of_runs_are_compared(kept):
    """The conclusion and the tables on stdout, nothing on stderr."""
    done = in_a_process("compare", "before", "after", cwd=kept)
    assert (done.returncode, done.stderr) == (0, "")
    assert "B is 1.50x" in done.stdout
    assert "Time to first token (prefill)" in done.stdout


@pytest.mark.parametrize(
    ("rule", "code"),
    [("ttft_p95>5%", 3), ("ttft_p95>20%", 0), ("ttft_p95>10%", 5), ("output_tokens_per_s<-5%,ttft_p95>20%@users=4", 0)],
)
def test_gates_decide_the_exit_code(loadbench, kept, rule, code):
    """3 beyond the bound, 0 within it, 5 where that cannot be told."""
    assert loadbench("compare", "before", "after", "--fail-on", rule, "--json", cwd=kept).returncode == code


@pytest.mark.parametrize(("undecided", "code"), [("pass", 0), ("fail", 3)])
def test_a_gate_that_is_not_certain_counts_as_it_is_said_to(loadbench, kept, undecided, code):
    """0 or 3 in place of 5; one that is certain is what it is."""
    rules = {"ttft_p95>10%": code, "ttft_p95>5%": 3, "ttft_p95>20%": 0}
    for rule, expected in rules.items():
        flags = ("--fail-on", rule, "--undecided", undecided, "--json")
        assert loadbench("compare", "before", "after", *flags, cwd=kept).returncode == expected


def test_gate_at_a_level_that_no_run_has_is_refused(loadbench, kept):
    """As when both sides are measured now: 2, and the levels that there are."""
    done = loadbench("compare", "before", "after", "--fail-on", "ttft_p95>20%@users=16", cwd=kept)
    assert (done.returncode, done.stdout) == (2, "")
    assert "ttft_p95>20%@users=16: no level has users=16\nhint: levels are users=1, users=4" in done.stderr


def test_json_is_what_scripts_read(loadbench, kept):
    """The keys of `loadbench.compare/1`, on stdout alone."""
    done = loadbench("compare", "--a", "before/*", "--b", "after", "--fail-on", "ttft_p95>5%", "--json", cwd=kept)
    found = json.loads(done.stdout)
    assert found["schema"] == "loadbench.compare/1"
    assert {"a", "b", "comparisons", "crossover", "gates", "conclusion"} <= found.keys()
    first = found["comparisons"][0]
    assert {"level", "metric", "a", "b", "ratio", "interval", "decision", "p_value", "n"} <= first.keys()
    assert (first["level"], first["metric"], first["decision"], first["n"]) == (
        "users=1",
        "output_tokens_per_s",
        "faster",
        [6, 6],
    )
    assert [(gate["rule"], gate["passed"]) for gate in found["gates"]] == [("ttft_p95>5%", False)]
    assert found["crossover"] is None
    assert found["winner"] == "b"


def test_a_baseline_is_kept_and_compared_with(loadbench, kept, tmp_path):
    """One side is saved; later runs are B beside it."""
    base = tmp_path / "base.json"
    saved = loadbench("compare", "before", "--save-baseline", str(base), cwd=kept)
    assert (saved.returncode, saved.stdout) == (0, "")
    assert f"written to {base}" in saved.stderr
    done = loadbench("compare", "after", "--baseline", str(base), "--json", cwd=kept)
    assert json.loads(done.stdout)["comparisons"][0]["ratio"] == pytest.approx(1.5, rel=1e-6)


def test_reports_go_to_files(loadbench, kept, tmp_path):
    """Markdown for a pull request, JUnit for a build server, a picture."""
    report, picture = tmp_path / "junit.xml", tmp_path / "picture.svg"
    done = loadbench(
        *("compare", "before", "after", "--fail-on", "ttft_p95>5%", "--format", "junit"),
        *("--report", str(report), "--chart", str(picture)),
        cwd=kept,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert ET.parse(report).getroot().get("failures") == "1"
    assert ET.parse(picture).getroot().tag.endswith("svg")
    markdown = loadbench("compare", "before", "after", "--format", "markdown", "--fail-on", "ttft_p95>5%", cwd=kept)
    assert markdown.stdout.startswith("### loadbench compare: failed\n")


def test_runs_that_were_measured_in_turn_are_compared_again(loadbench, kept, tmp_path):
    """A folder with a/ and b/ is both sides, in pairs."""
    written(tmp_path / "both" / "a", lucky({1: 100}))
    written(tmp_path / "both" / "b", lucky({1: 103}, name="other"))
    found = json.loads(loadbench("compare", "both", "--json", cwd=tmp_path).stdout)
    assert found["paired"] is True
    assert found["comparisons"][0]["decision"] == "faster"


def test_pairs_can_be_those_of_one_model_and_need_no_pairing(loadbench, kept, tmp_path):
    """A model that the runs do not have is refused, and so is --paired; neither is ignored."""
    for side in ("a", "b"):
        written(tmp_path / "both" / side, lucky({2: 80}, name=side))
    gone = loadbench("compare", "both", "--b-model", "no-such-model", cwd=tmp_path)
    assert (gone.returncode, "--b-model no-such-model: not in every run of b" in gone.stderr) == (2, True)
    paired = loadbench("compare", "both", "--paired", cwd=tmp_path)
    assert (paired.returncode, "--paired: the runs of both are pairs already" in paired.stderr) == (2, True)


def test_variables_without_effect_on_saved_runs_are_listed(loadbench, kept, monkeypatch):
    """They are for measuring, and say so."""
    monkeypatch.setenv("LOADBENCH_RATE", "3")
    monkeypatch.setenv("LOADBENCH_SETTLE", "1s")
    done = loadbench("compare", "before", "after", cwd=kept)
    assert done.returncode == 0
    assert "not used: LOADBENCH_RATE: is for measuring" in done.stderr
    assert "not used: LOADBENCH_SETTLE: is for measuring" in done.stderr


def test_variables_for_a_comparison_are_listed_where_a_side_is_only_saved(loadbench, kept, tmp_path, monkeypatch):
    """A build sets them once for both of its commands."""
    monkeypatch.setenv("LOADBENCH_CONFIDENCE", "80%")
    done = loadbench("compare", "after", "--save-baseline", str(tmp_path / "b.json"), cwd=kept)
    assert done.returncode == 0
    assert "not used: LOADBENCH_CONFIDENCE: side B is saved and not compared" in done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ["--report", "r.md"],
        ["--chart", "c.svg"],
        ["--format", "junit"],
        ["--fail-on", "ttft_p99>3%"],
        ["--confidence", "90%"],
        ["--paired"],
        ["--json"],
        ["--a-model", "m"],
    ],
)
def test_a_baseline_alone_refuses_what_is_for_a_comparison(loadbench, kept, tmp_path, flags):
    """Nothing is saved either."""
    base = tmp_path / "base.json"
    done = loadbench("compare", "after", "--save-baseline", str(base), *flags, cwd=kept)
    assert done.returncode == 2
    assert f"{flags[0]}: has no effect: side B is saved and not compared" in done.stderr
    assert not base.exists()


@pytest.mark.parametrize("flag", ["--report", "--chart", "--save-baseline"])
def test_files_are_checked_before_anything_is_measured(loadbench, tmp_path, flag):
    """In the dry run and without it: a folder cannot be written, nor can a file in no folder."""
    for path, reason in (("there", "is a folder"), ("gone/file", "there is no folder gone")):
        (tmp_path / "there").mkdir(exist_ok=True)
        for more in (["--dry-run", "--verbose"], ["--users", "1", "--duration", "1s"]):
            done = loadbench("compare", "profile=cpu-laptop", "profile=small-gpu", flag, path, *more, cwd=tmp_path)
            assert (done.returncode, f"{flag} {path}: {reason}" in done.stderr) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_invalid_levels_end_in_their_own_code(loadbench, tmp_path):
    """4 where no level can be believed."""
    bad = Verdict("INVALID", [Reason("late", "the client was late", "use another")])
    runs = [
        msgspec.structs.replace(run, levels=[msgspec.structs.replace(figures(1), verdict=bad)])
        for run in lucky({1: 100})
    ]
    written(tmp_path / "bad", runs)
    done = loadbench("compare", "bad", "bad", "--fail-on", "ttft_p95>5%", cwd=tmp_path)
    assert done.returncode == 4
    assert "nothing can be compared: users=1 is INVALID" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no two sides are named"),
        (["before"], "only one side is named"),
        (["before", "gone"], "gone"),
        (["before", ""], "a side has no name"),
        (["before", "http://127.0.0.1:9"], "one side is a server"),
        (["before", "after", "after"], "which are of A?"),
        (["before", "after", "--fail-on", "ttft_p95<5%"], "--fail-on: "),
        (["before", "after", "--fail-on", "ttft_p95>5%,ttft_p95>5%"], "want each value once"),
        (["before", "after", "--confidence", "nan"], "--confidence: found 'nan'"),
        (["before", "after", "--users", "3"], "--users: is for measuring"),
        (["before", "after", "--repeats", "3"], "--repeats: is for measuring"),
        (["before", "after", "--a-model", "gone"], "--a-model gone"),
        (["before", "--a", "after"], "each names a side"),
        (["--a", "before", "--baseline", "after", "--b", "after"], "--baseline: is side A"),
        (["--a", "http://127.0.0.1:9", "--b", "http://127.0.0.1:9"], "use --same"),
        (["before", "after", "--json", "--format", "junit"], "--json and --format junit exclude each other"),
        (["before", "after", "--report", "no/such/folder/file"], "--report"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_message(loadbench, kept, arguments, said):
    """Exit code 2, what is wrong, what to do, and no traceback."""
    done = loadbench("compare", *arguments, cwd=kept)
    assert done.returncode == 2
    assert said in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_workflow_for_builds_can_be_typed(monkeypatch):
    """Each command of the example exists, with its flags and gates."""
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    text = (Path(__file__).parents[2] / "docs" / "examples" / "compare.yml").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip().startswith("loadbench ")]
    assert len(lines) == 2
    for line in lines:
        _, name, *arguments = shlex.split(line.replace("|| true", ""))
        context = root.get_command(click.Context(root), name).make_context(name, arguments)
        assert [parse_gate(rule) for rule in context.params["fail_on"]]


@pytest.mark.slow
def test_two_servers_are_measured_in_turn(tmp_path):
    """Two simulated ones: a folder with the runs of both, the comparison in three forms, and the plan before."""
    sides = ("--a", "profile=cpu-laptop", "--b", "profile=small-gpu")
    load = ("--users", "1", "--requests", "3", "--max-tokens", "4", "--input-tokens", "16", "--repeats", "2")
    plan = in_a_process("compare", *sides, *load, "--dry-run", "--verbose", "--fail-on", "ttft_p95>5%", cwd=tmp_path)
    assert plan.returncode == 0
    assert "7 if they differ by 2 %" in plan.stdout
    assert "AB" in plan.stdout
    assert not (tmp_path / "results").exists()
    done = in_a_process(
        "compare", *sides, *load, "--warm-up", "0s", "--settle", "0s", "--quiet", "--json", cwd=tmp_path
    )
    assert done.returncode in {0, 2, 4}, done.stderr  # whether so short a run on a busy machine is valid
    found = json.loads(done.stdout)
    assert (found["paired"], len(found["a"]["runs"]), len(found["b"]["runs"])) == (True, 2, 2)
    (folder,) = (tmp_path / "results").iterdir()
    assert json.loads((folder / "compare.json").read_bytes()) == found
    assert {"a", "b", "compare.md", "compare.svg"} <= {path.name for path in folder.iterdir()}
    again = in_a_process("compare", str(folder), "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["comparisons"] == found["comparisons"]


def test_models_of_the_sides_may_stand_in_variables_and_files(loadbench, tmp_path, monkeypatch):
    """The sides need no flag: variables or a scenario file name their models, and the plan says where they stand."""
    server = ("--url", "http://127.0.0.1:9", "--dry-run", "--verbose")
    monkeypatch.setenv("LOADBENCH_A_MODEL", "p")
    monkeypatch.setenv("LOADBENCH_B_MODEL", "q")
    done = loadbench("compare", *server, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "environment LOADBENCH_A_MODEL" in done.stdout
    monkeypatch.delenv("LOADBENCH_A_MODEL")
    monkeypatch.delenv("LOADBENCH_B_MODEL")
    (tmp_path / "s.toml").write_text('[compare]\na_model = "p"\nb_model = "q"\n', encoding="utf-8")
    done = loadbench("compare", "--scenario", "s.toml", *server, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no two sides are named" in loadbench("compare", *server, cwd=tmp_path).stderr


def test_a_profile_in_a_variable_is_listed_where_both_sides_are_servers(loadbench, tmp_path, monkeypatch):
    """The plan lists what the sides override; it was refused before."""
    monkeypatch.setenv("LOADBENCH_PROFILE", "cpu-laptop")
    done = loadbench("compare", "http://127.0.0.1:9", "http://127.0.0.1:10", "--dry-run", "--verbose", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "not used: LOADBENCH_PROFILE: has no effect on either side" in done.stdout
