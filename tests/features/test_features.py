"""What a user can rely on: 26 features, each with the tests that show it on the command line.

A test that stands elsewhere is named by its id; that it is there is checked here, and the suite runs it.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from loadbench.plan.personas import PERSONAS
from loadbench.report.run import notes
from loadbench.results.folder import read_run
from loadbench.results.run import ModelStatus, to_json
from tests.building import a_level, a_run, a_sample
from tests.cli.typed import typed

ROOT = Path(__file__).parents[2]
SWEEP = next((ROOT / "results").glob("*-llamacpp-25m-8slots"))
PAIRS = next((ROOT / "results").glob("*-against-8-slots"))
QUICK = ("--warm-up=0s", "--max-tokens=4", "--input-tokens=32", "--quiet")
MS = 1_000_000


class Feature(NamedTuple):
    """What a user can rely on, and the tests that show it: ids, or names of tests of this file."""

    promise: str
    tests: tuple[str, ...]


FEATURES = (
    Feature(
        "While a run goes on, the terminal shows percentiles, throughput and requests in flight.",
        ("tests/live/test_terminal.py::test_a_level_is_shown_at_any_size_and_nothing_wraps",),
    ),
    Feature(
        "It shows how far the whole run is, and how much time is left.",
        (
            "tests/live/test_terminal.py::test_a_level_is_shown_at_any_size_and_nothing_wraps",
            "tests/live/test_time_left.py::test_time_left_is_right_within_a_fifth_from_a_quarter_of_the_run_on",
        ),
    ),
    Feature(
        "Ctrl-C stops sending, waits for what is in flight and reports it; a second one cancels that, and still saves.",
        (
            "tests/cli/test_signals.py::test_signal_in_a_level_keeps_what_was_measured",
            "tests/cli/test_signals.py::test_second_signal_cuts_the_drain_short",
        ),
    ),
    Feature(
        "Scripts can tell by the exit code what happened.",
        (
            "tests/cli/test_gates.py::test_exit_code_is_that_of_the_gates",
            "tests/cli/test_gates.py::test_invalid_measurement_comes_before_a_failed_gate",
            "tests/cli/test_cli.py::test_bad_command_line_or_scenario",
            "tests/cli/test_cli.py::test_server_that_cannot_be_reached",
        ),
    ),
    Feature(
        "Objectives stand on the command line or in a scenario file, and goodput counts what met them.",
        (
            "tests/cli/test_gates.py::test_goodput_is_kept_and_shown",
            "test_objectives_of_a_file_count_as_those_of_flags",
        ),
    ),
    Feature(
        "A result goes to JSON, CSV and Markdown files, several at once.",
        ("tests/cli/test_formats.py::test_results_go_to_files_and_to_stderr_at_once",),
    ),
    Feature(
        "The result is on stdout, all for people on stderr, and a second format too if it is wanted.",
        (
            "tests/cli/test_cli.py::test_json_is_all_there_is_on_stdout",
            "tests/cli/test_formats.py::test_results_go_to_files_and_to_stderr_at_once",
        ),
    ),
    Feature(
        "Results follow a JSON Schema that is published.",
        (
            "tests/cli/test_cli.py::test_report_prints_the_schema",
            "tests/results/test_run.py::test_run_is_as_its_schema_says",
        ),
    ),
    Feature(
        "A result fits one line that can be pasted, with how sure its figures are.",
        ("test_a_result_is_one_line_to_paste",),
    ),
    Feature(
        "A comparison says in one sentence which side is faster, by what factor, and how sure that is.",
        ("test_a_comparison_says_by_what_factor",),
    ),
    Feature(
        "Outliers, a slow first response and a run that is too short are warned of.",
        (
            "test_outliers_and_a_slow_first_response_are_warned_of",
            "test_a_run_that_is_too_short_says_how_long_it_must_be",
        ),
    ),
    Feature(
        "A warm-up comes before the measurement, is no part of it, and is stated.",
        ("test_a_warm_up_is_stated_and_not_measured",),
    ),
    Feature(
        "A sweep finds its loads itself: up to the most throughput, and one between.",
        (
            "test_a_sweep_finds_its_loads",
            "tests/plan/test_level_loads.py::test_auto_is_one_value_for_flag_variable_and_file",
        ),
    ),
    Feature(
        "Kinds of users have names: chat, rag, summariser, code.",
        ("test_personas_have_names", "tests/plan/test_personas.py::test_a_persona_draws_what_its_table_says"),
    ),
    Feature(
        "A report is one HTML file with charts, which needs nothing else.",
        (
            "tests/report/test_browser.py::test_page_has_no_error_and_asks_for_nothing",
            "tests/cli/test_formats.py::test_results_go_to_files_and_to_stderr_at_once",
        ),
    ),
    Feature(
        "Runs have a history, can be compared, and a comparison can fail a build.",
        (
            "tests/cli/test_runs.py::test_list_has_newest_first",
            "tests/cli/test_trend.py::test_points_are_from_old_to_new",
            "tests/cli/test_compare.py::test_reports_go_to_files",
        ),
    ),
    Feature("One request can be sent and looked at.", ("tests/cli/test_try.py::test_marks_come_in_order",)),
    Feature(
        "A dry run shows the plan, its requests, tokens and time, and sends nothing.",
        (
            "tests/cli/test_cli.py::test_dry_run_sends_nothing_and_leaves_nothing",
            "tests/report/test_plan.py::test_requests_and_tokens_are_reckoned",
        ),
    ),
    Feature(
        "A doctor checks the server and this machine before anything is measured.",
        (
            "tests/cli/test_cli.py::test_doctor_finds_the_simulated_server_well",
            "tests/cli/test_cli.py::test_doctor_skips_what_a_failure_makes_pointless",
        ),
    ),
    Feature(
        "The address is enough: with or without /v1, and the only model needs no name.",
        (
            "tests/targets/test_openai.py::test_each_form_of_the_address_leads_to_the_list",
            "tests/targets/test_openai.py::test_only_model_needs_no_name",
        ),
    ),
    Feature(
        "An error names its place and its cause, and a hint says what to do or what may have been meant.",
        ("tests/cli/test_help.py::test_a_wrong_line_gets_its_place_and_its_remedy",),
    ),
    Feature(
        "Colours and the live view can be turned off, and are off where nobody sees them.",
        (
            "tests/cli/test_colors.py::test_a_terminal_gets_none_where_they_are_not_wanted",
            "tests/live/test_terminal.py::test_without_escapes_there_are_plain_lines",
            "test_words_of_other_tools_for_the_view_are_answered",
        ),
    ),
    Feature(
        "Shells complete commands, options, models, files and runs.",
        (
            "tests/cli/test_completion.py::test_script_is_printed",
            "tests/cli/test_completion.py::test_models_are_those_that_the_server_lists",
        ),
    ),
    Feature(
        "A flag goes before a variable, that before a file, and one command shows where each setting comes from.",
        ("tests/cli/test_config.py::test_each_setting_has_its_origin",),
    ),
    Feature(
        "At a rate, latencies count from the schedule too: without coordinated omission, and the output says so.",
        ("test_a_rate_is_free_of_coordinated_omission_and_says_so",),
    ),
    Feature(
        "A grid sweeps every combination of settings, keeps cells that fail, goes on where it was stopped, and names "
        "the best cell only where it is sure.",
        (
            "tests/cli/test_grid.py::test_six_cells_are_swept_unattended",
            "tests/cli/test_grid.py::test_a_cell_that_fails_is_kept_and_the_others_go_on",
            "tests/cli/test_grid.py::test_a_resumed_grid_measures_what_is_missing",
            "tests/cli/test_grid.py::test_a_server_that_crashes_or_does_not_start_fails_its_cells_alone",
            "tests/analyze/grid/test_cells.py::test_equal_cells_rarely_have_a_best",
        ),
    ),
)


def test_there_are_26_features():
    """Each is said once."""
    assert len({feature.promise for feature in FEATURES}) == len(FEATURES) == 26


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.promise[:40])
def test_every_feature_has_its_tests(feature):
    """They are in the suite, and nothing skips all of them."""
    assert feature.tests
    for name in feature.tests:
        file, _, test = name.rpartition("::")
        path = ROOT / file if file else Path(__file__)
        functions = {
            node.name: node
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert test in functions, name
        marks = [ast.unparse(mark) for mark in functions[test].decorator_list]
        assert not any(mark.startswith("pytest.mark.skip(") for mark in marks), name


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_objectives_of_a_file_count_as_those_of_flags(tmp_path):
    """The same decision and the same exit code."""
    (tmp_path / "s.toml").write_text('[slo]\nobjectives = ["ttft_p50<1ns"]\nfail_on = ["slo"]\n')
    given = ("--users=1", "--requests=10", *QUICK)
    for line in (("s.toml",), ("--slo", "ttft_p50<1us", "--fail-on", "slo")):
        done = typed("sweep", *line, *given, "--json", cwd=tmp_path)
        (level,) = json.loads(done.stdout)["levels"]
        (decided,) = level["objectives"]
        assert decided["decision"] != "PASS"
        assert level["goodput"]["attainment"] == 0
        assert done.returncode in {3, 4, 5}  # missed, or not certain on a machine that is busy


def test_a_result_is_one_line_to_paste(tmp_path):
    """Model, server, load, throughput and latencies with their intervals, the verdict, and what measured it."""
    done = typed("sweep", "--users=1,2", "--requests=3", *QUICK, "--format", "line", cwd=tmp_path)
    heads = [line.partition(": ")[0] for line in done.stdout.splitlines()]
    assert heads == [f"sim-chat on the simulated server, users={users}" for users in (1, 2)]
    lines = typed("report", str(SWEEP), "--format", "line", cwd=tmp_path).stdout.splitlines()
    known = r"(?:±[0-9.]+ %|\([0-9.]+–[0-9.]+\))"
    figures = rf"[0-9.]+ tok/s {known}, TTFT p50 ~?[0-9.]+ m?s {known}, TPOT p50 .*, E2E p50 .*"
    for line in lines:
        assert re.search(rf": {figures}, \d+ ok, 0 failed, VALID \(loadbench \S+, .*\d{{4}}-\d\d-\d\d\)$", line)
    assert len(lines) == 6


def test_a_comparison_says_by_what_factor(tmp_path):
    """On the command line and in one line: a ratio with its interval."""
    done = typed("compare", str(PAIRS), cwd=tmp_path)
    said = " ".join(done.stdout.split("\n\n")[1].split())
    assert re.search(r"B's TTFT p50 is [0-9.]+ to [0-9.]+ times A's at 8 users", said)
    line = typed("report", str(PAIRS), "--format", "line", cwd=tmp_path).stdout
    assert re.fullmatch(r"A .*, B .*: .*[0-9.]+x \([0-9.]+-[0-9.]+\) A's.*\n", line)


def test_outliers_and_a_slow_first_response_are_warned_of():
    """In the notes of the report, with how far they are off; a run without them has no such note."""
    usual = [a_sample(number, ttft_ns=(100 + number % 7) * MS) for number in range(40)]
    slow = a_run(a_level([*usual, a_sample(40, ttft_ns=900 * MS)]))
    status = ModelStatus("m", "ok", cold_ttft_s=5.1, warm_ttft_s=0.2)
    said = [line for lines in notes(msgspec.structs.replace(slow, models=[status])) for line in lines]
    assert any("outliers: the slowest first token is 8.7" in line for line in said)
    assert any("m: the first response was slow: TTFT 5.10 s cold, 200 ms warm" in line for line in said)
    plain = [line for lines in notes(a_run(a_level(usual))) for line in lines]
    assert not any("outlier" in line or "first response" in line for line in plain)


def test_a_run_that_is_too_short_says_how_long_it_must_be(tmp_path):
    """As a flag to give."""
    short = a_run(a_level([a_sample(number, due_ns=number * 1000 * MS) for number in range(5)]))
    (tmp_path / "run.json").write_bytes(to_json(short))
    said = " ".join(typed("report", "run.json", cwd=tmp_path).stdout.split())
    assert re.search(
        r"there are only 5 responses: too few to judge by \(too_few_answers\); use --requests 20 or more", said
    )


def test_a_warm_up_is_stated_and_not_measured(tmp_path):
    """Its requests are marked, and in no figure; the page says how long it was."""
    given = ("--users=1", "--requests=5", "--warm-up=300ms", "--max-tokens=4", "--quiet", "--report", "r.html")
    done = typed("sweep", *given, "--json", cwd=tmp_path)
    (level,) = json.loads(done.stdout)["levels"]
    assert sum(level["outcomes"].values()) == 5
    (folder,) = (tmp_path / "results").iterdir()
    lines = [json.loads(line) for line in (folder / "requests.jsonl").read_text("utf-8").splitlines()]
    assert {line["phase"] for line in lines} >= {"warm_up", "measured"}
    assert sum(line["phase"] == "measured" for line in lines) == 5
    assert "warm-up</dt><dd>300ms</dd>" in (tmp_path / "r.html").read_text("utf-8")


def test_a_sweep_finds_its_loads(tmp_path):
    """They double until throughput grows no more, without a word about them."""
    given = ("--users=auto", "--profile=slot-server", "--duration=400ms", "--warm-up=100ms", "--max-tokens=4")
    done = typed("sweep", *given, "--quiet", "--json", cwd=tmp_path)
    users = [level["load"]["users"] for level in json.loads(done.stdout)["levels"]]
    assert users[:3] == [1, 2, 4]
    assert len(users) > 3


def test_personas_have_names(tmp_path):
    """A name stands for lengths and think times."""
    assert {"chat", "rag", "summariser", "code"} <= set(PERSONAS)
    done = typed("sweep", "--persona=rag", "--users=1", "--dry-run", "--verbose", cwd=tmp_path)
    assert (done.returncode, "persona" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("flag", "remedy"),
    [("--no-tui", "--no-live"), ("--fps", "leave it out"), ("--export-csv", "--report FILE.json, .csv")],
)
def test_words_of_other_tools_for_the_view_are_answered(tmp_path, flag, remedy):
    """By what loadbench has in their place."""
    done = typed("sweep", flag, cwd=tmp_path)
    assert (done.returncode, remedy in done.stderr) == (2, True)


def test_a_rate_is_free_of_coordinated_omission_and_says_so(tmp_path):
    """The report names it, and the latencies from the schedule are never below those from sending."""
    done = typed("sweep", "--rate=20", "--requests=20", *QUICK, cwd=tmp_path)
    assert "are free of coordinated omission" in " ".join(done.stdout.split())
    (row,) = rows(typed("report", "last", "--format", "csv", cwd=tmp_path).stdout)
    assert float(row["ttft_response_s_p50"]) >= float(row["ttft_s_p50"])
    (folder,) = (tmp_path / "results").iterdir()
    assert read_run(folder).levels[0].load.label == "rate=20"
