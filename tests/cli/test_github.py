"""`--github`: the summary of a step, and the annotations that GitHub makes of what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from loadbench.report.github import annotation_lines
from loadbench.report.junit import run_suites
from loadbench.results.run import Verdict, to_json
from tests.cli.typed import typed
from tests.report.golden import hostile, objectives

RESULTS = Path(__file__).parents[2] / "results"
PAIRS = next(RESULTS.glob("*-against-8-slots"))
SEARCH = next(RESULTS.glob("*-capacity-*"))


def gated():
    """A run whose objectives are gates: some are missed."""
    run = objectives()
    levels = [
        msgspec.structs.replace(
            level,
            verdict=Verdict("VALID"),
            objectives=[msgspec.structs.replace(one, gate=True) for one in level.objectives],
        )
        for level in run.levels
    ]
    return msgspec.structs.replace(run, levels=levels)


def test_a_report_is_appended_and_missed_gates_are_errors(tmp_path):
    """Below what the step has written so far; stdout and the exit code are as without it."""
    (tmp_path / "run.json").write_bytes(to_json(gated()))
    (tmp_path / "summary.md").write_text("# Build\n", encoding="utf-8")
    plain = typed("report", "run.json", "--format", "markdown", cwd=tmp_path)
    done = typed("report", "run.json", "--github", cwd=tmp_path, GITHUB_STEP_SUMMARY="summary.md")
    assert (tmp_path / "summary.md").read_text("utf-8") == f"# Build\n\n{plain.stdout}"
    assert (done.returncode, done.stdout) == (0, typed("report", "run.json", cwd=tmp_path).stdout)
    errors = [line for line in done.stderr.splitlines() if line.startswith("::error title=loadbench::")]
    assert any("e2e_max<2s at users=2 of m: FAIL, infinite: 1 failed" in line for line in errors)
    assert len(errors) == sum(one.decision != "PASS" for level in gated().levels for one in level.objectives)


def test_a_level_that_is_not_valid_is_a_warning():
    """With its advice; no gate, no error."""
    run = objectives()
    verdict = msgspec.structs.replace(run.levels[0].verdict, status="INVALID", reasons=[])
    level = msgspec.structs.replace(run.levels[0], verdict=verdict, objectives=[])
    lines = annotation_lines(run_suites(msgspec.structs.replace(run, levels=[level])))
    assert [line.split("::")[1].split()[0] for line in lines] == ["warning"]
    assert "users=1 of m is INVALID" in lines[0]


def test_foreign_text_makes_no_command():
    """Every line is one annotation, whatever a model's name has in it; `%` is no escape."""
    run = hostile()
    levels = [msgspec.structs.replace(level, model="a%0A::error::b\n::set-output name=x::y") for level in run.levels]
    lines = annotation_lines(run_suites(msgspec.structs.replace(run, levels=levels)))
    assert lines
    for line in lines:
        assert re.match(r"::(error|warning) title=loadbench::", line)
        assert line.isprintable()
        assert "%0A" not in line.upper()


@pytest.mark.parametrize("folder", [PAIRS, SEARCH], ids=["comparison", "capacity"])
def test_comparisons_and_searches_are_shown_too(folder, tmp_path):
    """A search's probes are beyond the limit on purpose: they are no warnings."""
    shown = typed("report", str(folder), "--github", cwd=tmp_path, GITHUB_STEP_SUMMARY="s.md")
    assert shown.returncode == 0, shown.stderr
    text = (tmp_path / "s.md").read_text("utf-8")
    assert text == typed("report", str(folder), "--format", "markdown", cwd=tmp_path).stdout
    assert "::warning" not in shown.stderr


def test_compare_tells_github_of_its_gates(tmp_path):
    """An error for one that is missed, and exit code 3."""
    gate = ("--fail-on", "output_tokens_per_s<-0.1%@users=1", "--fail-on", "ttft_p50>1%")
    done = typed("compare", str(PAIRS), *gate, "--github", "--json", cwd=tmp_path, GITHUB_STEP_SUMMARY="s.md")
    plain = typed("compare", str(PAIRS), *gate, "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)
    assert ("::error title=loadbench::" in done.stderr) == (plain.returncode != 0)
    assert (tmp_path / "s.md").read_text("utf-8").startswith("### ")


def test_elsewhere_it_is_refused(tmp_path):
    """There is no summary to write; nothing is measured for it."""
    for command in (("report", str(SEARCH)), ("compare", str(PAIRS))):
        done = typed(*command, "--github", cwd=tmp_path)
        assert done.returncode == 2
        assert "GITHUB_STEP_SUMMARY is not set" in done.stderr
    done = typed("report", "--schema", "--github", cwd=tmp_path, GITHUB_STEP_SUMMARY="s.md")
    assert done.returncode == 2


def test_a_summary_that_is_too_large_is_left_as_it_was(tmp_path):
    """GitHub would refuse all of it."""
    (tmp_path / "s.md").write_bytes(b"x" * (1 << 20))
    done = typed("report", str(SEARCH), "--github", cwd=tmp_path, GITHUB_STEP_SUMMARY="s.md")
    assert (done.returncode, (tmp_path / "s.md").stat().st_size) == (0, 1 << 20)
    assert "left as it was" in done.stderr
