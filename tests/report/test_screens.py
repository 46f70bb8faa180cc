"""What fits a terminal: every document at the widths that people have."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import msgspec
import pytest

from loadbench.analyze.compare.in_folder import comparison_in
from loadbench.analyze.level.by_prompt import by_prompt
from loadbench.analyze.quality.selection import WEIGHTS, Candidate, select
from loadbench.core.text import display_width, printable
from loadbench.plan.pairs import Pairing
from loadbench.plan.pairs import sides as read_sides
from loadbench.plan.sources import resolve
from loadbench.report.by_prompt import by_prompt_document
from loadbench.report.capacity import capacity_document
from loadbench.report.capacity_plan import capacity_plan_document
from loadbench.report.compare import compare_document
from loadbench.report.compare_plan import compare_plan_document
from loadbench.report.document import DETAIL, Document, Heading, Notes, Table, Text, tone
from loadbench.report.models import catalogue_document
from loadbench.report.plan import plan_document
from loadbench.report.render_markdown import render_markdown
from loadbench.report.render_text import PLAIN_WIDTH, render_text
from loadbench.report.run import run_document
from loadbench.report.selection import selection_document
from loadbench.report.workshop import workshop_document
from loadbench.results.capacity import read_capacity
from loadbench.results.models import Catalogue, Model
from loadbench.results.run import FailureCount, ObjectiveResult, Reason
from tests.analyze.quality.test_selection import a_candidate
from tests.building import a_run
from tests.report.golden import HOSTILE, RUNS, level
from tests.report.test_by_prompt import a_request
from tests.report.test_compare_plan import PLAN, A, B
from tests.report.test_compare_reports import COMPARISONS
from tests.report.test_workshop import a_bench

RESULTS = Path(__file__).parents[2] / "results"
WIDTHS = (60, 80, 120, 200)
CJK = "通义千问-２.５-中文-" + "大" * 30
# A number with its unit, its half-width and its marks.
VALUE = re.compile(
    r"[~±]?\d[\d.,]*\d? (?:ms|µs|s|%|GiB|MiB|KiB|W|J|EUR|cores|tok/s|users|requests)\b"
    r"(?: ±[\d.]+ %| \([\d.]+–[\d.]+\)| \(≥[\d.]+\))?(?: ◄)?"
)


def in_chinese():
    """A run of two models with wide letters, at thirty levels."""
    levels = [level(2 * users + 1, tokens_per_s=10.0 * users + 1) for users in range(15)]
    return a_run(*(msgspec.structs.replace(one, model=name) for name in (CJK, CJK[::-1]) for one in levels))


def candidates() -> list[Candidate]:
    """Models to choose from, of which one could not be measured."""
    figures = {
        "latency": (1.0, 0.9, 1.1),
        "ttft": 0.2,
        "throughput": 40.0,
        "memory": 3.5e9,
        "quality": 4.2,
        "disk": 2e9,
    }
    names = ("phi-4-mini-instruct-generic-cpu:5", CJK, HOSTILE)
    return [*(a_candidate(name, **figures) for name in names), Candidate(name="gone", failed="refused " * 40)]


DOCUMENTS = {
    **{name: lambda build=build: run_document(build()) for name, build in RUNS.items()},
    "in Chinese": lambda: run_document(in_chinese()),
    **{name: lambda build=build: compare_document(build()) for name, build in COMPARISONS.items()},
    "saved comparison": lambda: compare_document(comparison_in(next(RESULTS.glob("*-4-against-8-slots")))),
    "capacity": lambda: capacity_document(read_capacity(next(RESULTS.glob("*-capacity-*")))),
    "plan": lambda: plan_document(
        resolve(flags={"users": "1,2"}, environment={}), ['{"prompt": "' + "x " * 999 + '"}']
    ),
    "capacity plan": lambda: capacity_plan_document(resolve(flags={}, environment={}, command="capacity")),
    "compare plan": lambda: compare_plan_document(read_sides(PLAN, a=A, b=B), Pairing(repeats=4)),
    "catalogue": lambda: catalogue_document(
        Catalogue(
            endpoint="http://h/v1",
            dialect="foundry",
            models=[
                Model(id=f"{CJK}-{n}", alias="phi", size_bytes=3 << 30, license="MIT", cached=True) for n in range(3)
            ],
        )
    ),
    "choice": lambda: selection_document(select(candidates(), WEIGHTS)),
    "prompts": lambda: by_prompt_document(a_run(), by_prompt([a_request(n, e2e_s=1 + n % 3) for n in range(30)])),
    "workshop": lambda: workshop_document(*a_bench()[:2]),
    "foreign": lambda: Document(HOSTILE * 9, [Heading(CJK), Text([CJK * 9]), Notes([HOSTILE * 9, "x" * 2185])]),
}


@cache
def made(name: str) -> Document:
    """One of these documents."""
    return DOCUMENTS[name]()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_line_is_longer_than_the_terminal(name, width, wide):
    """Measured in cells, whatever is in it; and colours take none."""
    document = made(name)
    plain = render_text(document, width=width, wide=wide)
    assert max(map(display_width, plain.split("\n"))) <= width
    painted = render_text(document, width=width, wide=wide, color=True)
    assert re.sub(r"\x1b\[\d+m", "", painted) == plain


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "foreign"])
def test_no_number_is_parted_from_its_unit(name, width):
    """With --wide every value of a document is on its screen in one piece, as often as the document has it."""
    document = made(name)
    shown = render_text(document, width=width, wide=True)
    texts = [document.title]
    for block in document.blocks:
        if isinstance(block, Table):
            texts += [*block.headers, *(cell for row in block.rows for cell in row)]
        else:
            texts += [block.text] if isinstance(block, Heading) else block.lines
    for value in {found for text in texts for found in VALUE.findall(printable(text))}:
        assert shown.count(value) >= sum(printable(text).count(value) for text in texts), value


@pytest.mark.parametrize("name", DOCUMENTS)
def test_names_of_columns_are_unambiguous(name):
    """No two columns of a table have the same name, none is a bare percentile, and each has its rank."""
    for table in (block for block in made(name).blocks if isinstance(block, Table)):
        assert len(set(table.headers)) == len(table.headers)
        assert not any(re.fullmatch(r"p\d+|min|max|95 %", header) for header in table.headers)
        assert len(table.rank) in {0, len(table.align)}


def shown_names(text: str) -> list[str]:
    """The columns of the first table: those above its rule, where each name is as wide as the column at most."""
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line and set(line) <= {"-", " "})
    edges = [match.span() for match in re.finditer("-+", lines[at])]
    return [lines[at - 1][begin:end].strip() for begin, end in edges]


def test_columns_of_a_run_by_width():
    """The median of each metric with its half-width, and its p95; the narrower the screen, the fewer of them, and the
    line below names those that are missing.
    """
    document = run_document(RUNS["bending"]())
    (table,) = (block for block in document.blocks if isinstance(block, Table))
    figures = [f"{metric} {point}" for metric in ("TTFT", "TPOT", "E2E") for point in ("p50", "p95")]
    full = ["load", "req/s", "tok/s", *figures, "failed", "verdict"]
    assert shown_names(render_text(document, width=200)) == full
    assert set(full) - set(shown_names(render_text(document, width=120))) <= {"TPOT p95"}
    least = ["load", "tok/s", "TTFT p50", "TPOT p50", "verdict"]
    assert set(shown_names(render_text(document, width=60))) >= set(least)
    assert {*least, "TTFT p95"} <= set(shown_names(render_text(document, width=80)))
    for width in (60, 80, PLAIN_WIDTH, 120, 200):
        text = render_text(document, width=width)
        (note,) = re.findall(r"^not shown: (.*?)\s\(--wide\sshows\sall\)$", text, re.DOTALL | re.MULTILINE)
        missing = " ".join(note.split()).split(", ")
        assert sorted([*shown_names(text), *missing]) == sorted(table.headers)
    assert "not shown" not in render_text(document, width=60, wide=True)


def test_the_figure_of_an_objective_is_shown_on_a_narrow_screen():
    """What decides PASS or FAIL is there where most figures are not."""
    figure = ObjectiveResult(rule="e2e_p99<9s", value=1.0, decision="PASS")
    levels = [msgspec.structs.replace(level(users, tokens_per_s=10.0), objectives=[figure]) for users in (4, 8)]
    assert "E2E p99" in shown_names(render_text(run_document(a_run(*levels)), width=60))


def test_each_row_is_a_block_where_its_columns_do_not_fit():
    """With --wide on a very narrow screen no figure is lost, and each has its name next to it."""
    document = run_document(RUNS["bending"]())
    (table,) = (block for block in document.blocks if isinstance(block, Table))
    lines = [" ".join(line.split()) for line in render_text(document, width=40, wide=True).splitlines()]
    for row in table.rows:
        assert f"load {row[0]}" in lines
        for header, cell in zip(table.headers[1:], row[1:], strict=True):
            assert f"{header} {cell}" in lines


def test_markdown_has_every_column():
    """A page scrolls, and a file is read later: nothing is left out."""
    document = run_document(RUNS["bending"]())
    (table,) = (block for block in document.blocks if isinstance(block, Table))
    assert DETAIL in table.rank
    header = next(line for line in render_markdown(document).splitlines() if line.startswith("|"))
    assert [name.strip() for name in header.strip("|").split("|")] == list(table.headers)


def test_a_rule_is_broken_before_its_bound_only():
    """A word that is longer than its place is broken at a sign, never inside a number or before its unit."""
    table = Table(("a", "b"), [["ttft_p90<500ms" * 9, "x" * 40]], "lr")
    for line in render_text(Document("", [table]), width=60).splitlines()[2:]:
        assert not re.search(r"\d$|5?0?0?m$", line.split("  ")[0].strip())


def test_a_note_of_several_levels_is_there_once():
    """A failure and a reason that levels share are one line, with all of these levels; figures that
    differ are a range, and words that differ those of the worst level, which is named; where none is, they are apart.
    """
    levels = [level(users, tokens_per_s=10.0) for users in (4, 8, 16)]
    for place, one in enumerate(levels):
        reasons = [
            Reason("same", "it is so", "do this"),
            Reason("other", f"{9 + place % 2}.5 of m-{place % 2}", "do that"),
            Reason("worst", f"a{place % 2} went from {2 + place} to 1 ms", f"--warm-up {9 + place}s"),
            Reason("range", f"{9 + place % 2}.5 % of 1,000", f"use --duration {9 + place % 2}s or longer"),
        ]
        verdict = msgspec.structs.replace(one.verdict, status="INVALID", reasons=reasons)
        failures = [FailureCount("http_error", "HTTP 503", 2 + place)]
        levels[place] = msgspec.structs.replace(one, verdict=verdict, failures=failures)
    lines = render_text(run_document(a_run(*levels))).splitlines()
    assert lines.count("INVALID: users=4, 8, 16: it is so (same); do this") == 1
    assert [line for line in lines if "(other)" in line] == [
        "INVALID: users=4, 16: 9.5 of m-0 (other); do that",
        "INVALID: users=8: 10.5 of m-1 (other); do that",
    ]
    assert any("users=4, 8, 16 (figures of users=16, the worst): a0 went from 4 to 1 ms" in line for line in lines)
    assert "INVALID: users=4, 8, 16: 9.5 to 10.5 % of 1,000 (range); use --duration 10s or longer" in lines
    assert lines.count("users=4, 8, 16: 9 × http_error: HTTP 503") == 1
    assert sum("it is so" in line or "of m" in line or "503" in line for line in lines) == 4


def test_each_level_has_its_own_advice():
    """Advice that differs in its amounts is one, with the most of them, also before a comma; where its words differ,
    the levels are apart, so that none has the advice of another."""
    levels = [level(users, tokens_per_s=10.0) for users in (4, 8, 16)]
    for place, one in enumerate(levels):
        reasons = [
            Reason("short", f"half took {2 + place}.0 s", f"use --warm-up {4 + 2 * place}s, and a --duration longer"),
            Reason(
                "changed", f"went from 9 to {8 - place} ms", "use --warm-up 9s" if place == 1 else "see what changes"
            ),
        ]
        verdict = msgspec.structs.replace(one.verdict, status="INVALID", reasons=reasons)
        levels[place] = msgspec.structs.replace(one, verdict=verdict)
    lines = [line for line in render_text(run_document(a_run(*levels))).splitlines() if line.startswith("INVALID")]
    assert lines == [
        "INVALID: users=4, 8, 16: half took 2.0 to 4.0 s (short); use --warm-up 8s, and a --duration longer",
        "INVALID: users=4, 16 (figures of users=16, the worst): went from 9 to 6 ms (changed); see what changes",
        "INVALID: users=8: went from 9 to 7 ms (changed); use --warm-up 9s",
    ]


def test_counts_of_several_totals_are_those_of_one_level():
    """Of two ranges nobody could tell which numbers belong together: those of the worst level stand for all."""
    levels = [level(users, tokens_per_s=10.0) for users in (4, 8, 16)]
    for place, (few, many) in enumerate(((96, 138), (640, 640), (3, 300))):
        reasons = [Reason("failures", f"{few} of {many} requests failed", "see them")]
        verdict = msgspec.structs.replace(levels[place].verdict, status="INVALID", reasons=reasons)
        levels[place] = msgspec.structs.replace(levels[place], verdict=verdict)
    (line,) = [line for line in render_text(run_document(a_run(*levels))).splitlines() if "(failures)" in line]
    assert (
        line
        == "INVALID: users=4, 8, 16 (figures of users=8, the worst): 640 of 640 requests failed (failures); see them"
    )


def test_a_server_that_ended_is_not_said_never_to_have_run():
    """Connections that are refused after responses came from there have the advice of a server that was up."""
    refused = FailureCount("refused", "connection refused (is the server running, and is this its port?)", 3)
    first, second = (level(users, tokens_per_s=10.0) for users in (1, 2))
    down = msgspec.structs.replace(second, failures=[refused], outcomes={"refused": 3})
    (after,) = [line for line in render_text(run_document(a_run(first, down))).splitlines() if "3 × refused" in line]
    assert after.startswith(
        "users=2: 3 × refused: connection refused → the server was up and takes no more connections"
    )
    (never,) = [line for line in render_text(run_document(a_run(down))).splitlines() if "3 × refused" in line]
    assert never.endswith("connection refused (is the server running, and is this its port?)")


def test_what_matters_comes_first():
    """What the run shows, then what is wrong, then what the marks mean, as paragraphs and as lists."""
    document = run_document(RUNS["objectives"]())
    first, second, third = (block.lines for block in document.blocks if isinstance(block, Notes))
    assert any(line.startswith("objective ") for line in first)
    assert any("http_error" in line for line in second)
    assert any(line.startswith("±") for line in third)
    assert render_markdown(document).count("\n\n<!-- -->\n\n- ") == 2


def test_colours_are_for_verdicts_and_failures():
    """A number of failures other than 0, and a state that is good, doubtful or bad; nothing else has a colour."""
    document = run_document(RUNS["objectives"]())
    painted = re.findall(r"\x1b\[(\d+)m(.+?)\x1b\[0m", render_text(document, width=120, color=True))
    assert painted == [("32", "VALID"), ("31", "1"), ("33", "INCONCLUSIVE")]
    assert tone("verdict", "VALID ?") == "good"
    assert (
        tone("decision", "no difference") == tone("failed", "0") == tone("failed", "-") == tone("model", "FAIL") == ""
    )


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        *[("abc", 3), ("日本", 4), ("ｱｲ", 2), ("🙂", 2), ("한", 2), ("\u1112\u1161\u11ab", 2)],
        *[("e\u0301", 1), ("ก็", 1)],
    ],
)
def test_cells_are_counted_as_terminals_do(text, cells):
    """Wide letters take two, marks above and below others none."""
    assert display_width(text) == cells
