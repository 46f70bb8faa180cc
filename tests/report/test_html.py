"""Pages as text: what stands in them, what can run in them, and how they say it."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from loadbench.analyze.level.rebuild import run_in
from loadbench.plan.load import Closed
from loadbench.report.chart import drawing, svg, table_rows
from loadbench.report.document import Chart, Choice, Document, Heading, Notes, Series, Table, Text, Tiles
from loadbench.report.formats import render
from loadbench.report.html import charts_of, render_html
from loadbench.report.page import conclusion, run_page
from loadbench.report.render_markdown import render_markdown
from loadbench.report.run import notes
from loadbench.report.run_charts import throughput_chart
from loadbench.results.run import Reason, Verdict
from loadbench.results.telemetry import MachineLoad
from tests.building import MS, S, a_level, a_run, a_sample
from tests.report.golden import HOSTILE, RUNS, bending, hostile, level, stopped

RESULTS = Path(__file__).parents[2] / "results"
SAVED = RESULTS / "20261124T230344Z-llamacpp-25m-8slots"
BREAKOUT = "</script></style></title><img src=x onerror=alert(1)>\u2028&lt;\"'{{ 7 * 7 }}"


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of all."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_foreign_text_is_text_everywhere():
    """Whatever is in a title, a cell, a note, a series or a level's name, no element comes of it."""
    chart = Chart(
        name=BREAKOUT, title=BREAKOUT, y=BREAKOUT, x=BREAKOUT, series=[Series(BREAKOUT, [(1, 1.0), (2, 2.0)])]
    )
    blocks = [Text([BREAKOUT]), Heading(BREAKOUT), Notes([BREAKOUT]), Table((BREAKOUT,), [[BREAKOUT]], "l"), chart]
    page = render_html(Document(BREAKOUT, [*blocks, Choice(BREAKOUT, [(BREAKOUT, [chart]), (BREAKOUT, [chart])])]))
    found = Elements(page)
    assert [tag for tag, _ in found.tags if tag == "img"] == []
    assert [tag for tag, _ in found.tags if tag == "script"] == ["script", "script"]
    assert all(not name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert "49" not in re.sub(r"\d{3,}", "", found.text.split("{{", 1)[0])


def test_data_end_no_element():
    """The JSON of a page has none of the characters that a parser of HTML or of JavaScript would see, and is whole."""
    chart = Chart(name="x", title="x", y="y", series=[Series(BREAKOUT, [(1, 1.0)])])
    page = render_html(Document("x", [chart]))
    (island,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    assert not set("<>&\u2028\u2029") & set(island)
    assert json.loads(island)["chart-1"]["names"] == [BREAKOUT]


def test_policy_allows_only_our_style_and_script():
    """Nothing may be loaded from anywhere, and nothing is named that could be."""
    page = render_html(run_page(bending(), None))
    found = Elements(page)
    (policy,) = [attributes["content"] for _, attributes in found.tags if "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "*" not in policy
    for _, attributes in found.tags:
        assert not attributes.keys() & {"src", "srcset", "style", "action", "ping", "background"}
        assert (attributes.get("href") or "#").startswith("#")


@pytest.mark.parametrize("name", RUNS)
def test_every_run_has_a_page(name):
    """Also of a run without a level, one that was stopped, and one full of foreign text."""
    page = render_html(run_page(RUNS[name](), None))
    assert page.startswith("<!DOCTYPE html>")
    assert "<script>alert" not in page.replace(HOSTILE, "")


def test_hostile_run_brings_no_element():
    """Foreign text in every place of a run makes no element that other runs do not have."""
    tags = {tag for tag, _ in Elements(render_html(run_page(hostile(), None))).tags}
    usual = {tag for tag, _ in Elements(render_html(run_page(run_in(SAVED), SAVED))).tags}
    assert tags <= usual


def test_saved_run_has_every_chart():
    """Over the load, of distributions and over time, each with its name."""
    document = run_page(run_in(SAVED), SAVED)
    names = charts_of(document.blocks).keys()
    assert {"throughput", "trade-off", "ttft", "tpot", "e2e", "ttft-distribution", "in-flight-1", "gaps-6"} <= names


def test_saved_run_says_what_was_requested():
    """The server, the model, lengths, the machine: what its reader was not there to see."""
    text = Elements(render_html(run_page(run_in(SAVED), SAVED))).text
    for word in ("127.0.0.1:36233", "llama-25m", "at most 64 tokens", "AMD EPYC", "warm-up", "seed", "45s", "kernel"):
        assert word in text


def test_conclusion_names_the_knee():
    """In one sentence: throughput, its load, that it stops growing there, and what a user waits."""
    (sentence, simulated) = conclusion(bending())
    assert sentence.startswith("m gives 118 output tokens/s")
    assert "at 4 users (the knee, where throughput stops growing, is above 2 and at most 4 users)" in sentence
    assert "simulated" in simulated
    assert "not complete" in conclusion(stopped())[-1]


def test_conclusion_and_tile_say_how_fast_the_server_may_be_alone():
    """The interval of a rate does not hold what other programs took; a load that nobody waited at has no such words."""
    run = bending()
    busy = Reason("busy_machine", "other programs used the machine", "end them")

    def on(waited):
        load = MachineLoad(cores=2, busy=0.98, others=0.4, stolen=0.0, waited=waited, waited_by="the server")
        levels = [msgspec.structs.replace(level, machine=load, caveats=[busy]) for level in run.levels]
        return msgspec.structs.replace(run, levels=levels)

    (sentence, *_), text = conclusion(on(0.2)), Elements(render_html(run_page(on(0.2), None))).text
    assert "users, with other programs at work: alone maybe about 1.2 times as fast (the knee" in sentence
    assert text.count("alone maybe about 1.2 times as fast") == 2
    assert "alone" not in conclusion(on(0.0))[0]


def test_conclusion_leaves_open_what_an_invalid_level_hides():
    """The levels that count still grow, and the next one is INVALID: the page says no more than the terminal."""
    run = a_run(*(level(users, tokens_per_s=10.0 * users) for users in (1, 2, 4)))
    top = msgspec.structs.replace(run.levels[2], verdict=Verdict("INVALID", [Reason("busy_machine", "", "")]))
    run = msgspec.structs.replace(run, levels=[*run.levels[:2], top])
    lines = conclusion(run)
    assert "at 2 users" in lines[0]
    assert lines[1] == (
        "Whether throughput still grows after users=2 is unknown: users=4 is INVALID; measure again on an idle machine."
    )


def test_tiles_use_only_levels_that_count():
    """The lowest and the highest load are INVALID: neither is shown as a figure of the server."""
    levels = [level(users, tokens_per_s=10.0 * users) for users in (1, 2, 4, 8)]
    invalid = Verdict("INVALID", [Reason("late_reads", "", "")])
    levels = [
        msgspec.structs.replace(one, verdict=invalid) if place in {0, 3} else one for place, one in enumerate(levels)
    ]
    (tiles,) = [block for block in run_page(a_run(*levels), None).blocks if isinstance(block, Tiles)]
    text = {str(tile[0]): " ".join(map(str, tile[1:])) for tile in tiles.items}
    assert text["highest throughput"] == "40.0 tok/s at 4 users"
    assert text["first token, lowest load that counts"].endswith("median at 2 users")
    assert text["knee"].startswith("unknown users=8")


def test_no_figure_that_decides_nothing_is_said_first():
    """Where no level counts, the page begins with that and with what to do, and no tile has a figure of a level."""
    few = Reason("too_few_answers", "", "use --duration 9s or longer, for 20 of them")
    busy = [Reason("late_reads", "", "give it its own core"), Reason("busy_machine", "", "")]
    verdicts = [Verdict("INCONCLUSIVE", [few]), Verdict("INVALID", busy)]
    levels = [
        msgspec.structs.replace(level(users, tokens_per_s=10.0 * users), verdict=verdict)
        for users, verdict in zip((1, 2), verdicts, strict=True)
    ]
    run = a_run(*levels)
    assert conclusion(run)[0] == (
        "No level of this run is sound: users=1 is INCONCLUSIVE, users=2 is INVALID; "
        "measure again with --duration 9s or longer, on an idle machine."
    )
    assert not any("do not count" in line or "be believed" in line for line in conclusion(run))
    (tiles,) = [block for block in run_page(run, None).blocks if isinstance(block, Tiles)]
    assert [name for name, *_ in tiles.items] == ["VALID levels", "failed requests"]
    assert notes(run)[0][0].startswith("no level of this run is sound: users=1 is INCONCLUSIVE")


def test_points_of_invalid_levels_are_hollow():
    """The chart draws them without a filling, and its note says what that means."""
    levels = [level(users, tokens_per_s=10.0 * users) for users in (1, 2)]
    levels[1] = msgspec.structs.replace(levels[1], verdict=Verdict("INVALID", [Reason("late_reads", "", "")]))
    chart = charts_of(run_page(a_run(*levels), None).blocks)["throughput"]
    assert chart.series[0].hollow == [(2, 20.0)]
    assert "Hollow points: INVALID" in chart.note
    filled = [
        drawing(one).svg.count('class="lb-fill0 lb-point"') for one in (chart, throughput_chart({"m": levels[:1] * 2}))
    ]
    assert filled == [1, 1]


def test_inconclusive_levels_are_told_apart_in_every_chart():
    """Their points have a dot inside, with an entry of the legend; their distributions are thin and named."""
    run = run_in(SAVED)
    few = Verdict("INCONCLUSIVE", [Reason("too_few_answers", "", "")])
    levels = [msgspec.structs.replace(one, verdict=few) if one.load.users == 8 else one for one in run.levels]
    document = run_page(msgspec.structs.replace(run, levels=levels), SAVED)
    for name, chart in charts_of(document.blocks).items():
        if name.endswith("-distribution"):
            assert [line.name for line in chart.series if line.faint] == ["users=8, INCONCLUSIVE"]
        elif not name[-1].isdigit():
            dotted = [place for line in chart.series for place, point in enumerate(line.points) if point in line.dotted]
            assert set(dotted) == {3}, name
            assert "INCONCLUSIVE level" in svg(chart)
            assert "INVALID level" not in svg(chart)
    assert "INCONCLUSIVE level</span>" in render_html(document)


def test_every_chart_tells_invalid_levels_apart(tmp_path):
    """Points are hollow, the lines of distributions thin, and the levels in time named, whatever a chart shows."""
    run = run_in(SAVED)
    invalid = Verdict("INVALID", [Reason("late_reads", "", "")])
    levels = [msgspec.structs.replace(one, verdict=invalid) if one.load.users == 8 else one for one in run.levels]
    document = run_page(msgspec.structs.replace(run, levels=levels), SAVED)
    charts = charts_of(document.blocks)
    for name, chart in charts.items():
        if name.endswith("-distribution"):
            assert [line.name for line in chart.series if line.faint] == ["users=8, INVALID"]
            assert "Thin lines: INVALID" in chart.note
        elif not name[-1].isdigit():  # those of a level in time
            hollow = [place for line in chart.series for place, point in enumerate(line.points) if point in line.hollow]
            assert set(hollow) == {3}, name
            assert "Hollow points: INVALID" in chart.note
            assert "INVALID level" in svg(chart)
    assert len(charts) > 10
    (choice,) = [block for block in document.blocks if isinstance(block, Choice) and block.label == "Level"]
    named = {name: blocks[0] for name, blocks in choice.options}
    assert "decide nothing" in named["users=8, INVALID"].lines[0]
    assert "decide nothing" not in named["users=4"].lines[0]
    assert '<span><svg class="lb-chart lb-key"' in render_html(document)


def test_levels_of_a_search_are_not_judged_by_their_charts():
    """Its probes have no verdicts of their own."""
    run = run_in(SAVED)
    levels = [msgspec.structs.replace(one, verdict=Verdict("INVALID", [])) for one in run.levels]
    run = msgspec.structs.replace(run, levels=levels, scenario={**run.scenario, "capacity": {"budget": "1m"}})
    charts = charts_of(run_page(run, SAVED).blocks)
    assert not any(line.hollow or line.faint for chart in charts.values() for line in getattr(chart, "series", ()))


def test_page_of_many_levels_is_small():
    """30 levels of a real run stay under 2 MB."""
    run = run_in(SAVED)
    levels = [msgspec.structs.replace(run.levels[n % 6], load=type(run.levels[0].load)(users=n + 1)) for n in range(30)]
    assert len(render_html(run_page(msgspec.structs.replace(run, levels=levels), SAVED)).encode()) < 2_000_000


def test_every_level_of_a_reason_is_named():
    """Also where more levels share it than are quoted."""
    run = bending()
    reasons = [Reason("late_start", "it was late", "reduce the load")]
    levels = [
        msgspec.structs.replace(
            one, verdict=msgspec.structs.replace(one.verdict, status="INVALID", reasons=reasons), caveats=[]
        )
        for one in run.levels
    ]
    text = Elements(render_html(run_page(msgspec.structs.replace(run, levels=levels), None))).text
    assert "users=1, 2, 4, 8: it was late (late_start)reduce the load" in text


def test_equal_reasons_are_one_row_of_the_page():
    """As in the notes of a terminal: also where the messages and what to do differ in their figures; each status has
    its own row."""
    few = [
        Reason("too_few_answers", f"{count} responses", f"use --duration {9 - count}s or longer") for count in (2, 3)
    ]
    late = Reason("late_start", "it was late", "reduce the load")
    verdicts = [Verdict("INCONCLUSIVE", few[:1]), Verdict("INCONCLUSIVE", few[1:]), Verdict("INVALID", [few[0], late])]
    levels = [
        msgspec.structs.replace(one, verdict=verdict, caveats=[late])
        for one, verdict in zip(bending().levels, verdicts, strict=False)
    ]
    (table,) = [
        block
        for block in run_page(a_run(*levels), None).blocks
        if isinstance(block, Table) and block.headers[:1] == ("verdict",)
    ]
    assert [row[:2] for row in table.rows] == [
        ["INCONCLUSIVE", "users=1, 2: 2 to 3 responses (too_few_answers)"],
        ["INVALID", "users=4: 2 responses (too_few_answers)"],
        ["INVALID", "users=4: it was late (late_start)"],
        ["note", "users=1, 2, 4: it was late (late_start)"],
    ]


@pytest.mark.parametrize("count", [1, 10, 11, 100])
def test_slowest_response_ends_its_line(count):
    """The line of a distribution ends at the maximum that its table names: of n responses, 1 - 1/n are faster."""
    slow = [a_sample(n, due_ns=n * S, ttft_ns=(3000 if n == count - 1 else 80) * MS) for n in range(count)]
    chart = charts_of(run_page(a_run(a_level(slow)), None).blocks)["ttft-distribution"]
    (line,) = chart.series
    assert line.points[-1] == (pytest.approx(math.log10(count)), pytest.approx(3.0, rel=1e-3))
    assert [x for x, _ in line.points] == sorted({x for x, _ in line.points})
    assert "ends at the slowest response" in chart.note
    assert chart.table.rows[0][-1] == "3.00 s"
    # One value alone is no line.
    assert ("lb-fills" in drawing(chart).svg) == (count == 1)


def test_percentile_of_few_responses_is_marked_in_the_figures():
    """Every quantile of a chart has its interval, also one that is open or not known at all, and draws no arrow."""
    run = a_run(a_level(a_sample(n, due_ns=n * S) for n in range(11)))
    charts = charts_of(run_page(run, None).blocks)
    _, rows = table_rows(charts["ttft"])
    assert rows[0][3].endswith("or more)")
    assert drawing(charts["ttft"]).svg.count('class="lb-open') == 1
    assert charts["ttft-distribution"].table.rows[0][6].startswith("~")
    alone = charts_of(run_page(a_run(a_level([a_sample()])), None).blocks)
    assert "interval unknown" in table_rows(alone["ttft"])[1][0][1]


def test_gaps_have_no_mark_of_too_few_requests():
    """They have no interval, however many there are: the note says so, and no figure is marked for it."""
    charts = charts_of(run_page(a_run(a_level(a_sample(n, due_ns=n * S) for n in range(11))), None).blocks)
    for name in ("itl", "itl-distribution"):
        assert charts[name].note.endswith("ITL has no interval: the gaps of one response depend on each other.")
        rows = charts[name].table.rows if charts[name].table else table_rows(charts[name])[1]
        assert not any("~" in cell or "interval" in cell for row in rows for cell in row)


def test_headline_has_the_lower_end_of_an_open_interval():
    """The figure itself is the measured one, of which nothing is said to be at least."""
    run = a_run(*(a_level((a_sample(n, due_ns=n * S) for n in range(30)), load=Closed(users)) for users in (1, 2)))
    text = " ".join(conclusion(run))
    assert re.search(r"100 ms \(p95, [\d.]+ ms or more\)", text)
    assert "at least about" not in text


def test_a_reason_has_its_code():
    """In the text, in Markdown and on the page, so that `loadbench explain CODE` can be typed."""
    run = bending()
    late = Verdict("INVALID", [Reason("late_start", "it was late", "reduce the load")])
    run = msgspec.structs.replace(run, levels=[msgspec.structs.replace(run.levels[0], verdict=late), *run.levels[1:]])
    assert "it was late (late_start); reduce the load" in render(run, "text")
    assert "it was late (late\\_start); reduce the load" in render(run, "markdown")
    assert "users=1: it was late (late_start)" in Elements(render_html(run_page(run, None))).text


def test_values_between_empty_bins_are_seen():
    """A line that has nothing on either side of a value is a dot there: one user's first tokens are seconds apart."""
    points = [(0.0, 1.0), (1.0, None), (2.0, 3.0), (3.0, 3.0), (4.0, None), (5.0, 2.0)]
    chart = Chart(name="x", title="x", y="y", log_x=False, dense=True, series=[Series("a", points)])
    picture = drawing(chart).svg
    assert (picture.count("<circle"), picture.count('class="lb-line lb-line0"')) == (2, 1)


def test_a_wide_table_begins_with_its_result():
    """What it is of, the throughput and the verdict: of a grid also what was varied."""
    run = bending()
    for rank, headers, first in (
        ("0130", ("load", "req/s", "tok/s", "verdict"), ["load", "tok/s", "verdict", "req/s"]),
        ("000010", ("load", "A", "B/A", "interval", "B is"), ["load", "A", "B/A", "B is", "interval"]),
        ("000100", ("cell", "a", "b", "load", "tok/s", "verdict"), ["cell", "a", "b", "tok/s", "verdict", "load"]),
    ):
        page = render_html(Document(run.name, [Table(headers, [headers], "l" * len(headers), rank=rank)]))
        assert re.findall(r'<th scope="col"[^>]*>([^<]*)', page) == first


def test_a_command_of_ours_is_shown_as_code():
    """On a page and in Markdown; nothing else in backticks is."""
    line = "see `loadbench doctor --url URL`, not `<b>` or `loadbench <img>` or `rm -r`"
    page = render_html(Document("t", [Notes([line]), Table(("a", "b"), [["x", line]], "ll")]))
    assert re.sub("</?span[^>]*>", "", page).count("<code>loadbench doctor --url URL</code>") == 2
    assert page.count("<code>") == 2
    assert "`&lt;b&gt;`" in page
    shown = render_markdown(Document("t", [Notes([line])]))
    assert "see `loadbench doctor --url URL`, not \\`\\<b\\>\\`" in shown
    assert "\\`loadbench \\<img\\>\\`" in shown


def test_users_who_think_have_no_knee_tile_while_throughput_grows():
    """It grows with the users there, whatever the server could do."""
    thinking = [
        msgspec.structs.replace(one, load=msgspec.structs.replace(one.load, think="exponential:6s"))
        for one in bending().levels[:2]
    ]
    for levels, there in ((bending().levels[:2], True), (thinking, False)):
        page = run_page(msgspec.structs.replace(bending(), levels=levels), None)
        tiles = next(block for block in page.blocks if isinstance(block, Tiles)).items
        assert any(name == "knee" for name, _, _ in tiles) is there
