"""`loadbench plot`, and pages on the command line: which files come of them, and what is refused at once."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.cli.running import loadbench

RESULTS = Path(__file__).parents[2] / "results"
SWEEP = RESULTS / "20261124T230344Z-llamacpp-25m-8slots"
CAPACITY = RESULTS / "20261127T161413Z-capacity-llamacpp-25m-4slots"
COMPARISON = RESULTS / "20261125T004812Z-llamacpp-4-against-8-slots"


@pytest.mark.parametrize(
    ("run", "names"),
    [
        (SWEEP, {"throughput", "ttft", "trade-off", "e2e-distribution", "in-flight-2", "gaps-3"}),
        (CAPACITY, {"objectives", "search", "objective-1", "throughput"}),
        (COMPARISON, {"throughput", "ratios", "ttft-p50"}),
    ],
    ids=["sweep", "capacity", "comparison"],
)
def test_charts_are_listed(run, names, tmp_path):
    """Without --chart a line for each chart: its name and its title."""
    listed = loadbench("plot", str(run), cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert names <= {line.split("  ")[0] for line in listed.stdout.splitlines()}


def test_chart_is_a_file(tmp_path):
    """As SVG on stdout and in a file, the same."""
    printed = loadbench("plot", str(SWEEP), "--chart", "throughput", cwd=tmp_path)
    assert ET.fromstring(printed.stdout).tag.endswith("svg")
    loadbench("plot", str(SWEEP), "--chart", "throughput", "--out", "a.svg", cwd=tmp_path)
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == printed.stdout


def test_chart_is_a_picture(tmp_path):
    """As PNG where the file is called so, twice as large as the drawing."""
    pytest.importorskip("resvg_py")
    made = loadbench("plot", str(SWEEP), "--chart", "gaps-1", "--out", "a.png", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    raw = (tmp_path / "a.png").read_bytes()
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(raw[16:20]), int.from_bytes(raw[20:24])) == (1440, 840)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--chart", "nothing"], "the run has none of this name"),
        (["--out", "a.svg"], "which chart?"),
        (["--chart", "ttft", "--format", "png", "--out", "a.svg"], "two formats"),
        (["--chart", "ttft", "--out", "missing/a.svg"], "there is no folder missing"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, words, tmp_path):
    """In one line, with exit code 2."""
    made = loadbench("plot", str(SWEEP), *arguments, cwd=tmp_path)
    assert made.returncode == 2
    assert words in made.stderr
    assert list(tmp_path.iterdir()) == []


def test_several_runs_make_one_page(tmp_path):
    """And only a page: other formats show one run."""
    page = loadbench("report", str(SWEEP), str(SWEEP), "--format", "html", "--out", "a.html", cwd=tmp_path)
    assert page.returncode == 0, page.stderr
    words = re.sub("<[^>]+>", "", (tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "report of 2 runs" in words
    text = loadbench("report", str(SWEEP), str(SWEEP), cwd=tmp_path)
    assert (text.returncode, text.stdout) == (2, "")
    assert "only a page shows several" in text.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [["sweep"], ["capacity", "--slo", "ttft_p95<1s"], ["replay", "trace.csv"]])
def test_report_of_an_unknown_format_is_refused_before_measuring(command, tmp_path):
    """Its name must end as one of the formats, and its folder must be there."""
    (tmp_path / "trace.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,8,8\n", encoding="utf-8")
    for name, words in (("a.pdf", "ends in one of .html, .csv, "), ("missing/a.html", "there is no folder missing")):
        made = loadbench(*command, "--report", name, cwd=tmp_path)
        assert made.returncode == 2
        assert words in made.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["trace.csv"]


def test_comparison_writes_its_page_and_prints_its_text(tmp_path):
    """With --report FILE.html the text stays on stdout."""
    made = loadbench("compare", str(COMPARISON), "--report", "a.html", cwd=tmp_path)
    assert "loadbench compare" in made.stdout
    assert "B relative to A" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_open_is_for_pages(tmp_path):
    """Other formats have nothing that a browser should show."""
    made = loadbench("report", str(SWEEP), "--open", "--format", "csv", cwd=tmp_path)
    assert (made.returncode, "add --format html" in made.stderr) == (2, True)


@pytest.mark.parametrize(
    ("name", "begins"), [("a.html", "<!DOCTYPE html>"), ("a.md", "# "), ("a.csv", "run,"), ("a.json", "{"), ("a", "")]
)
def test_the_name_of_a_file_says_its_format(name, begins, tmp_path):
    """As it does for --report; a name without an ending gets text, and --format wins."""
    made = loadbench("report", str(SWEEP), "--out", name, cwd=tmp_path)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", f"written to {name}\n")
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert text.startswith(begins)
    assert (text == loadbench("report", str(SWEEP), cwd=tmp_path).stdout) is (name == "a")
    loadbench("report", str(SWEEP), "--format", "csv", "--out", name, cwd=tmp_path)
    assert (tmp_path / name).read_text(encoding="utf-8").startswith("run,")
