"""Documents as text and as Markdown: every kind of block, and foreign text in each."""

from __future__ import annotations

import re

import pytest

from loadbench.core.text import display_width
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


WIDE = Table(
    ("load", "model", "req/s", "TTFT p50", "p95", "p99", "TPOT p50", "p95", "ok", "verdict"),
    [[f"users={users}", "日本語-モデル", *["123 ms"] * 7, "VALID"] for users in (1, 128)],
    "rl" + "r" * 7 + "l",
)


def test_wide_letters_take_two_columns():
    """So that what follows them is in line; combining ones take none."""
    table = Table(("name", "n"), [["日本", "1"], ["e\u0301", "2"], ["abc", "3"]], "lr")
    assert render_text(Document("", [table])) == "name  n\n----  -\n日本  1\ne\u0301     2\nabc   3\n"


@pytest.mark.parametrize("width", [60, 70, 80, 120])
def test_a_table_wider_than_the_terminal_is_shown_in_parts(width):
    """Each part begins with the names of its rows, no percentile is parted from its metric, and nothing is lost."""
    text = render_text(Document("", [WIDE]), width=width)
    parts = [part.splitlines() for part in text.strip("\n").split("\n\n")]
    assert all(display_width(line) <= width for part in parts for line in part)
    headers = [part[0].split() for part in parts]
    assert all(words[:2] == ["load", "model"] for words in headers)
    assert [word for words in headers for word in words[2:]] == " ".join(WIDE.headers[2:]).split()
    assert not any(words[2].startswith("p9") for words in headers)
    assert all([line.split()[:2] for line in part[2:]] == [row[:2] for row in WIDE.rows] for part in parts)
    assert len(parts) == 1 if width == 120 else len(parts) > 1


def test_a_table_of_texts_has_its_widest_texts_wrapped():
    """Whole words where there are words, and not a letter is lost; without a width nothing is changed."""
    texts = Table(("setting", "value", "from"), [["a", "four words " * 12, "c"], ["b", "h" * 100, "c"]], "lll")
    lines = render_text(Document("", [texts]), width=80).splitlines()
    assert max(map(display_width, lines)) <= 80
    assert all(re.fullmatch(r"[ab]? +((four|words|h+) *)+ *c?", line) for line in lines[2:])
    assert "".join(lines[2:]).count("h") == 100
    assert len(render_text(Document("", [texts])).splitlines()) == 4
    assert len(render_text(Document("", [WIDE])).strip().split("\n\n")) == 1


def test_sentences_are_wrapped_between_words():
    """The further lines of a note are indented; only a word that is longer than a line is broken."""
    address = "http://" + "h" * 90
    note = "one two three " * 10 + address
    lines = render_text(Document("", [Notes([note, "short"])]), width=60).rstrip().splitlines()
    assert "".join("".join(lines).split()) == "".join(f"{note}short".split())
    assert all(len(line) <= 60 for line in lines)
    assert set(" ".join(lines[:-2]).split()[:30]) == {"one", "two", "three"}
    assert lines[1].startswith("  ")
    assert lines[-1] == "short"


@pytest.mark.parametrize("width", range(40, 81))
def test_commands_and_ranges_are_broken_where_they_can_be_read(width):
    """An option stays whole and with its value, a command with its name, a range with its second end."""
    text = (
        "measure again with --first-token-timeout 90s or a --warm-up of 8s: `loadbench compare --a-cmd serve-a --b-cmd "
        "serve-b --server-env KEY=1` shows 12.5 ms to 14.7 ms (0.104 to 0.266), and `loadbench doctor` its load"
    )
    lines = render_text(Document("", [Notes([text])]), width=width).splitlines()
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert not [line for line in lines if re.search(r"(--[\w-]*|`loadbench| to|[^.]12.5)$", line)]


@pytest.mark.parametrize("width", [60, 70])
def test_a_narrow_comparison_keeps_both_sides(width):
    """What is left out at last is the interval: `B is` says what it means."""
    headers = ("load", "figure", "A", "B", "B/A", "interval", "B is")
    row = ["users=16", "TTFT p50", "128 ms", "75.3 ms", "0.588x", "0.104 to 0.266", "no difference*"]
    text = render_text(Document("", [Table(headers, [row], "rlrrrll", rank="0000010")]), width=width)
    assert all(display_width(line) <= width for line in text.splitlines())
    assert all(cell in text for at, cell in enumerate(row) if at < 5)
    assert "not shown: interval" in text
