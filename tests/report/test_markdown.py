"""The report as Markdown."""

from __future__ import annotations

import re

import msgspec
import pytest

from loadbench.report.formats import render
from loadbench.report.render_markdown import escaped
from tests.building import a_run
from tests.report.golden import RUNS, golden, hostile


@pytest.mark.parametrize("name", RUNS)
def test_report_is_the_one_that_is_kept(name):
    """What people read is as it was when somebody last looked at it."""
    assert render(RUNS[name](), "markdown") == golden(name, "markdown")


@pytest.mark.parametrize("name", ["bending", "empty", "hostile"])
def test_simulated_run_says_so_in_its_heading(name):
    """Also where only the heading is quoted."""
    assert "simulated" in render(RUNS[name](), "markdown").splitlines()[0]


def test_foreign_text_stays_text():
    """No tag, code, link, table cell or heading comes out of a name or a message: each of their signs is escaped."""
    shown = render(hostile(), "markdown")
    bare = re.sub(r"\\.|^<!-- -->$", "", shown, flags=re.MULTILINE)
    assert not re.search(r"[`<>\[\]]", bare)
    assert [line for line in shown.splitlines() if line.startswith("#")] == [
        line for line in shown.splitlines() if line.startswith(("# =cmd", "## model =cmd"))
    ]
    assert all(line.isprintable() for line in shown.split("\n"))


def test_every_row_has_the_columns_of_its_head():
    """A bar in foreign text makes no cell."""
    name = "a|b"
    run = a_run()
    run = msgspec.structs.replace(run, levels=[msgspec.structs.replace(run.levels[0], model=name)])
    for shown in (render(run, "markdown"), render(hostile(), "markdown")):
        rows = [line for line in shown.splitlines() if line.startswith("|")]
        assert len({re.sub(r"\\\|", "", line).count("|") for line in rows}) == 1
        assert len(rows) >= 3


def test_numbers_stand_to_the_right():
    """The line under the head aligns all columns but the verdict to the right."""
    rule = next(line for line in render(a_run(), "markdown").splitlines() if line.startswith("|-"))
    *numbers, verdict = rule.strip("|").split("|")
    assert all(re.fullmatch("-+:", cell) for cell in numbers)
    assert verdict.startswith(":")


def test_no_address_is_a_link_and_no_name_is_mentioned():
    """On the pages where GitHub shows a report, a server's words notify nobody and lead nowhere."""
    shown = escaped(
        "ask @octocat or mail a.b@example.org, see https://evil.example/x, HTTP://e.org and www.evil.example"
    )
    assert not re.search(r"(?<!\w)@\w|@example|https?://|www\.", shown, re.IGNORECASE)
    assert escaped("ttft_p95<1s@users=8") == r"ttft\_p95\<1s@users=8"
