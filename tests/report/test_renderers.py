"""Documents as text and as Markdown: every kind of block, and foreign text in each."""

from __future__ import annotations

import re

import pytest

from loadbench.report.document import Document, Heading, Notes, Table, Text
from loadbench.report.render_markdown import render_markdown
from loadbench.report.render_text import render_text
from tests.report.golden import HOSTILE

DOCUMENT = Document(
    "a title",
    [
        Text(["first line", "second line"]),
        Heading("a part"),
        Table(("name", "value"), [["one", "1"], ["two hundred", "200"]], "lr"),
        Table((), [["target", "x"], ["models", "y"]], "ll"),
        Table(("folds",), [["z"]], "l", summary="more"),
        Notes(["a note", "another"]),
    ],
)


def test_text_has_a_line_for_each_line_and_aligned_columns():
    """Blocks are separated by empty lines; numbers are aligned right, and nothing is padded at the end of a line."""
    assert render_text(DOCUMENT) == (
        "a title\n\nfirst line\nsecond line\n\na part\n\n"
        "name         value\n-----------  -----\none              1\ntwo hundred    200\n\n"
        "target  x\nmodels  y\n\n"
        "more\n\nfolds\n-----\nz\n\n"
        "a note\nanother\n"
    )


def test_markdown_has_paragraphs_headings_lists_and_tables():
    """Lines are paragraphs, notes a list; a table without headers has an empty header row, one with a summary folds."""
    assert render_markdown(DOCUMENT) == (
        "# a title\n\nfirst line\n\nsecond line\n\n## a part\n\n"
        "| name        | value |\n|:------------|------:|\n| one         |     1 |\n| two hundred |   200 |\n\n"
        "|        |   |\n|:-------|:--|\n| target | x |\n| models | y |\n\n"
        "<details><summary>more</summary>\n\n| folds |\n|:------|\n| z     |\n\n</details>\n\n"
        "- a note\n- another\n"
    )
    assert render_markdown(DOCUMENT, level=3).startswith("### a title\n")
    assert "\n#### a part\n" in render_markdown(DOCUMENT, level=3)


@pytest.mark.parametrize("render", [render_text, render_markdown])
def test_blocks_without_content_are_not_shown(render):
    """Neither an empty line nor a header stands for them."""
    empty = [Text([]), Notes([]), Table(("a", "b"), [], "lr"), Table(("a",), [], "l", summary="s")]
    assert render(Document("t", [*empty, Text(["x"])])) == render(Document("t", [Text(["x"])]))


FOREIGN = Document(
    HOSTILE,
    [
        Text([HOSTILE]),
        Heading(HOSTILE),
        Table((HOSTILE, "b"), [[HOSTILE, HOSTILE]], "lr", summary=HOSTILE),
        Notes([HOSTILE, "&lt;b&gt; &#60;b&#62;"]),
    ],
)


def test_foreign_text_is_one_line_without_control_characters():
    """Wherever it stands, a terminal is given no commands and no further lines."""
    shown = render_text(FOREIGN)
    assert all(line.isprintable() for line in shown.split("\n"))
    assert len(shown.splitlines()) == len(render_text(Document("t", DOCUMENT.blocks[:0])).splitlines()) + 13


def test_foreign_text_is_no_markdown():
    """No heading, table cell, link, code, tag or entity comes of it; each block stays what it is."""
    shown = render_markdown(FOREIGN)
    assert all(line.isprintable() for line in shown.split("\n"))
    own = shown.replace("<details><summary>", "").replace("</summary>", "").replace("</details>", "")
    assert not re.search(r"[`<>\[\]&]", re.sub(r"\\.", "", own))
    table = [line for line in shown.splitlines() if line.startswith("|")]
    assert [re.sub(r"\\.", "", line).count("|") for line in table] == [3, 3, 3]
    assert [line[: line.index(" ")] for line in shown.splitlines() if line.startswith("#")] == ["#", "##"]
    assert sum(line.startswith("- ") for line in shown.splitlines()) == 2
