"""The report of a grid: what fits a terminal of any width, the chart, the page, and names that mean to do harm."""

from __future__ import annotations

import re

import msgspec
import pytest

from loadbench.analyze.grid.cells import concluded
from loadbench.core.text import display_width
from loadbench.report.chart import svg
from loadbench.report.formats import render_grid
from loadbench.report.grid import depth_charts, front_chart, grid_document, with_conclusion
from loadbench.report.html import render_html
from loadbench.report.pages import page_of
from loadbench.report.render_markdown import render_markdown
from loadbench.report.render_text import render_text
from loadbench.results.grid import GRID_FILE, VariedName
from loadbench.results.run import ObjectiveResult, Reason, Verdict, to_json
from tests.coverage.grids import a_cell_run, a_grid
from tests.report.golden import HOSTILE

RATES = ((30, 40, 41), (50, 60, 61), (31, 90, 100), (52, 140, 180), (30, 90, 104), (1, 2, 3))


def slots_and_threads(**more):
    """Six cells, of which the last has failed, and their runs."""
    vary = [
        VariedName(name="slots", key=None, values=["1", "4", "8"]),
        VariedName(name="threads", key=None, values=["1", "2"]),
    ]
    grid = a_grid(list("abcdef"), vary=vary, **more)
    values = [{"slots": slots, "threads": threads} for slots in ("1", "4", "8") for threads in ("1", "2")]
    cells = [msgspec.structs.replace(cell, values=of) for cell, of in zip(grid.cells, values, strict=True)]
    error = Reason("server_ended", "the server ended by SIGKILL", "its output is in server-6.log")
    cells[5] = msgspec.structs.replace(cells[5], status="failed", error=error)
    runs = {place: a_cell_run(rates, [0.02 * rate for rate in rates]) for place, rates in enumerate(RATES)}
    return with_conclusion(concluded(msgspec.structs.replace(grid, cells=cells), runs)), runs


def by_depth():
    """Four cells whose prompts differ in length, and in which of two temperatures they have."""
    vary = [
        VariedName(name="input_tokens", key="work.input_tokens", values=["64", "1024"], changes_work=True),
        VariedName(name="slots", key=None, values=["1", "4"]),
    ]
    grid = a_grid(list("abcd"), vary=vary)
    values = [{"input_tokens": depth, "slots": slots} for depth in ("64", "1024") for slots in ("1", "4")]
    cells = [msgspec.structs.replace(cell, values=of) for cell, of in zip(grid.cells, values, strict=True)]
    runs = {place: a_cell_run(rates, [0.02 * rate for rate in rates]) for place, rates in enumerate(RATES[:4])}
    return with_conclusion(concluded(msgspec.structs.replace(grid, cells=cells), runs)), runs


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_report_fits_any_width_and_keeps_what_matters(width):
    """Values, throughput, verdict and marks are there at 60 columns; nothing is wider than the terminal."""
    grid, _ = slots_and_threads()
    text = render_text(grid_document(grid), width=width)
    assert max(map(display_width, text.splitlines())) <= width
    head = next(line.split() for line in text.splitlines() if line.startswith("cell "))
    assert {"cell", "slots", "threads", "tok/s", "verdict", "mark"} <= {*head}
    row = next(line.split() for line in text.splitlines() if line.startswith("   4 "))
    assert row[:3] == ["4", "4", "2"]
    assert row[-1] == "★◆"
    words = " ".join(text.split())
    assert "The best is cell 4, slots=4 threads=2: 180 output tokens/s at users=16" in words
    assert "cell 6 (slots=8 threads=2) failed: the server ended by SIGKILL → its output is in server-6.log" in words
    assert "a drift of 5 % between cells is assumed" in words


def test_decoding_is_shown_as_tpot_as_in_every_table():
    """A grid of an earlier version has the gaps between events instead."""
    grid, _ = slots_and_threads()
    for given, shown, hidden in ((0.0125, "TPOT p50", "ITL p50"), (None, "ITL p50", "TPOT p50")):
        figures = msgspec.structs.replace(grid.cells[0].figures[0], tpot_p50_s=given, itl_p50_s=0.011)
        cells = [msgspec.structs.replace(grid.cells[0], figures=[figures])]
        text = render_text(grid_document(msgspec.structs.replace(grid, cells=cells)), width=200)
        assert shown in text
        assert hidden not in text


def test_cells_without_prefill_and_decode_are_named():
    """So are loads at which prefill has a queue in it."""
    grid, _ = by_depth()
    depth = msgspec.structs.replace(grid.cells[0].depth[0], load="users=8")
    cells = [
        msgspec.structs.replace(cell, depth=[depth] if place == 0 else []) for place, cell in enumerate(grid.cells)
    ]
    text = " ".join(render_text(grid_document(msgspec.structs.replace(grid, cells=cells)), width=200).split())
    assert "of which users=8 may queue: with users=1 prefill may be faster" in text
    assert "prefill and decode have no row for cells 2, 3, 4: no level counts there" in text


def test_each_depth_has_its_prefill_and_decode_and_its_best():
    """In a table, and in charts with a line for each other value; the best is of the cells with the same prompts."""
    grid, _ = by_depth()
    text = render_text(grid_document(grid), width=200)
    assert "With input_tokens=64: the best is cell 2, slots=4" in text
    assert "with input_tokens=1024: the best is cell 4, slots=4" in text
    assert "prefill tok/s" in text
    prefill, decode = depth_charts(grid)
    assert [line.name for line in prefill.series] == [line.name for line in decode.series] == ["slots=1", "slots=4"]
    assert all(len(line.points) == 2 for line in prefill.series)


def test_the_front_is_a_line_and_other_cells_are_points():
    """With the number of each cell; cells that failed are not there."""
    grid, _ = slots_and_threads()
    chart = front_chart(grid)
    front, *others = chart.series
    assert front.name == "Pareto front"
    assert "4" in front.labels
    labels = {label for line in (front, *others) for label in line.labels} - {""}
    assert labels == {"1", "2", "3", "4", "5"}
    assert "Pareto front" in svg(chart)


def test_no_front_is_drawn_or_marked_where_no_cell_is_ruled_out():
    """All cells are on it, which says nothing; points of several loads name theirs."""
    run = a_cell_run((30, 60, 61), [1, 2, 2])
    runs = {at: msgspec.structs.replace(run, levels=run.levels[: 3 - at]) for at in range(2)}
    grid = with_conclusion(concluded(a_grid(list("ab")), runs))
    assert [cell.figures[0].on_front for cell in grid.cells] == [True, True]
    chart, text = front_chart(grid), render_text(grid_document(grid))
    assert [line.name for line in chart.series] == ["cells"]
    assert set(chart.series[0].labels) == {"1 (users=16)", "2 (users=4)", ""}
    assert "Compare points of the same load only" in chart.note
    why = "not known, since no cell is surely dominated: none is, at the load with its most output tokens/s, surely"
    assert f"The Pareto front is {why}" in chart.note
    assert f"Pareto front: {why}" in " ".join(text.split())
    assert "◆" not in text


def test_cells_that_did_other_work_are_not_ranked_by_the_chart():
    """Its note names no best place where none is; where two cells did the same work, it says for which."""
    grid, _ = by_depth()
    assert "Of cells with the same input_tokens, best is to the right and low." in front_chart(grid).note
    apart = msgspec.structs.replace(grid, cells=grid.cells[::2])
    note = front_chart(apart).note
    assert "Each cell did other work (input_tokens): none is better than another." in note
    assert "Best" not in note
    assert "Hollow" not in note


def test_marks_are_those_of_a_sweep():
    """`~` and `?` mean what they do there; a rate without an interval has a mark of its own."""
    grid, _ = slots_and_threads()
    figures = msgspec.structs.replace(
        grid.cells[0].figures[0], ttft_p95_s=0.0487, steadiness_unknown=True, interval={"ttft_p95_s": (0.02, 0.09)}
    )
    cells = [msgspec.structs.replace(grid.cells[0], figures=[figures], verdicts={"VALID": 3}, levels=3)]
    text = render_text(grid_document(msgspec.structs.replace(grid, cells=cells)), width=200)
    assert "~48.7 ms (20–90)" in text
    assert "~ too few independent requests to know this percentile to 10 %: measure longer" in text
    assert "VALID ?" in text
    assert "? whether the server was steady is unknown" in text
    assert "±? too few requests for an interval of this rate" in text


def test_hostile_names_and_values_are_inert_everywhere():
    """In text, Markdown, lines, JUnit and charts: no escape sequence, no markup."""
    grid, runs = slots_and_threads(name=HOSTILE)
    cells = [msgspec.structs.replace(cell, values={"slots": HOSTILE, "threads": "1"}) for cell in grid.cells]
    failed = msgspec.structs.replace(cells[5], error=Reason("failed", HOSTILE, HOSTILE))
    grid = with_conclusion(msgspec.structs.replace(grid, cells=[*cells[:5], failed]))
    for form in ("text", "markdown", "line", "junit"):
        shown = render_grid(grid, runs, form)
        assert "\x1b" not in shown, form
        if form in {"markdown", "junit"}:
            assert "<script>" not in shown, form
    assert "<script>alert" not in render_html(grid_document(grid))
    assert "<script>" not in svg(front_chart(grid))


def test_a_page_has_the_table_the_charts_and_each_cell(tmp_path):
    """From a folder; a cell without a run is in the table alone."""
    grid, runs = slots_and_threads()
    (tmp_path / GRID_FILE).write_bytes(to_json(grid))
    for place in (0, 3):
        inner = tmp_path / grid.cells[place].folder
        inner.mkdir()
        (inner / "run.json").write_bytes(to_json(runs[place]))
    page = render_html(page_of([tmp_path]))
    assert "Each cell" in page
    assert "4: slots=4 threads=2" in page
    assert "2: slots=1 threads=2" not in page
    assert "Cells: throughput against latency" in page
    assert ">Throughput against latency<" in page


def test_a_page_of_cells_with_one_load_each_says_what_to_do_and_draws_no_single_points(tmp_path):
    """The table of cells has what a chart over one load would; each cell has its verdicts in a section of their own."""
    grid, runs = slots_and_threads(simulated=True)
    (tmp_path / GRID_FILE).write_bytes(to_json(grid))
    late = Verdict("INVALID", [Reason("late_reads", "loadbench read late", "give it its own core")])
    for place in (0, 3):
        inner = tmp_path / grid.cells[place].folder
        inner.mkdir()
        levels = [msgspec.structs.replace(runs[place].levels[0], verdict=late)]
        (inner / "run.json").write_bytes(to_json(msgspec.structs.replace(runs[place], levels=levels)))
    document = page_of([tmp_path])
    page = render_html(document)
    assert ">Throughput against latency<" not in page
    assert page.count('<h3 class="part">Verdicts and what to do</h3>') == 2
    assert page.count("give it its own core") == 2
    # What was measured is a line of the conclusion, and not a title of its own.
    assert [block.lines[-1] for block in document.blocks[:3] if "simulated" in str(block)] == [
        "This is the simulated server of loadbench, not a real one."
    ]


def test_a_grid_without_a_level_that_counts_says_why_and_what_to_do():
    """The most frequent reason of its cells with its remedy, and where the report of each cell is."""
    busy = Verdict("INVALID", [Reason("late_reads", "loadbench read late", "give it its own core")])
    caveat = Reason("busy_machine", "other programs used 92 % of the cores", "end the other programs")
    runs = {}
    for place, rates in enumerate(RATES[:2]):
        run = a_cell_run(rates, [0.02 * rate for rate in rates])
        levels = [msgspec.structs.replace(level, verdict=busy, caveats=[caveat]) for level in run.levels]
        runs[place] = msgspec.structs.replace(run, levels=levels)
    grid = with_conclusion(concluded(a_grid(list("ab")), runs))
    assert grid.conclusion == (
        "No cell has a level that counts. The most frequent reason: other programs used 92 % of the cores "
        "(busy_machine); end the other programs."
    )
    text = " ".join(render_text(grid_document(grid)).split())
    assert f"in the grid's folder: {grid.cells[0].folder}, {grid.cells[1].folder})" in text


def test_a_cell_that_misses_an_objective_is_not_called_one_of_which_no_level_counts():
    """Its level is VALID, and it is left out all the same: the note, the sentence and the chart say why."""
    runs = {}
    for place, rates in enumerate(RATES[:2]):
        run = a_cell_run(rates, [0.02 * rate for rate in rates])
        missed = ObjectiveResult(rule="ttft_p95<1ms", decision="FAIL", value=0.08)
        levels = [msgspec.structs.replace(level, objectives=[missed]) for level in run.levels]
        runs[place] = msgspec.structs.replace(run, levels=levels)
    grid = with_conclusion(concluded(a_grid(list("ab")), runs))
    assert grid.conclusion == "No cell has a level that counts and meets the objectives."
    text = " ".join(render_text(grid_document(grid)).split())
    assert "cells 1, 2: no level that counts meets the objectives, so they are not compared" in text
    assert "not compared" in svg(front_chart(grid))
    assert "INVALID" not in svg(front_chart(grid))


def with_cold_level(places, *, advice="use --warm-up 6s, and a longer duration"):
    """Two cells that cannot be told apart; in these the highest load is INVALID."""
    bad = Verdict("INVALID", [Reason("short_warm_up", "the warm-up was too short: 3 s", advice)])
    runs = {}
    for place in range(2):
        run = a_cell_run((30, 60, 61), [1, 2, 2])
        levels = list(run.levels)
        if place in places:
            levels[-1] = msgspec.structs.replace(levels[-1], verdict=bad)
        runs[place] = msgspec.structs.replace(run, levels=levels)
    return with_conclusion(concluded(a_grid(list("ab")), runs))


def test_a_cell_that_nothing_rules_out_has_reason_remedy_and_command(tmp_path):
    """The settings that are enough are in the command; where there are none, the cell's folder is moved away."""
    grid = with_cold_level([1])
    assert (
        "Cell 2 may be better than it shows (users=16 is INVALID), so that no other rules it out, since the warm-up "
        "was too short: 3 s (short_warm_up); measure again with --warm-up 6s." in grid.conclusion
    )
    text = render_text(grid_document(grid, tmp_path / "my grid"))
    command = f"`loadbench sweep --resume '{tmp_path}/my grid' --warm-up 6s`"
    words = " ".join(text.split())
    assert f"To measure again with what that takes: {command}. It measures every cell" in words
    turns = "Then compare the cells that are left in turns, two at a time: `loadbench compare"
    assert f"{turns} --a … --b …`." in words
    started = msgspec.structs.replace(grid, scenario={"target": {"server_cmd": "serve --port {port}"}})
    words = " ".join(render_text(grid_document(started, tmp_path)).split())
    assert f"{turns} --a-cmd '…' --b-cmd '…'`." in words
    assert "; cell 2 may be better at a higher load, which does not count" in words
    assert "; cell 2 may be better at a higher load, which does not count." in front_chart(grid).note
    grid = with_cold_level([0, 1], advice="look at the server")
    text = render_text(grid_document(grid, tmp_path))
    assert f"To measure cells 1 and 2 again: move their folders (00, 01) out of {tmp_path}, then " in text
    assert f"`loadbench sweep --resume {tmp_path}`." in text
    assert "To measure" not in render_text(grid_document(with_cold_level([]), tmp_path))
    assert "To measure" not in render_text(grid_document(grid))


def test_marks_of_columns_that_are_not_shown_are_not_explained():
    """A narrow terminal has no TTFT, and its `~` nowhere else."""
    grid, _ = slots_and_threads()
    figures = msgspec.structs.replace(
        grid.cells[0].figures[0], ttft_p95_s=0.0487, interval={"ttft_p95_s": (0.02, 0.09)}
    )
    grid = msgspec.structs.replace(grid, cells=[msgspec.structs.replace(grid.cells[0], figures=[figures])])
    assert "\n~ too few" in render_text(grid_document(grid), width=200)
    narrow = render_text(grid_document(grid), width=50)
    assert "not shown: TTFT p95" in narrow
    assert "\n~ too few" not in narrow
    assert "\n±? too few requests" in narrow


def test_why_a_wide_cell_is_not_ruled_out_stands_in_the_sentence():
    """Those cells are named of which little is known, the widest first; the others are not."""
    runs = {
        place: a_cell_run((30, 60, rate), (1, 2, half))
        for place, (rate, half) in enumerate(((100, 50), (104, 3), (110, 20)))
    }
    grid = with_conclusion(concluded(a_grid(list("abc")), runs))
    assert "110 output tokens/s at users=16; wide intervals rule nothing out (cell 1 ±50 %, cell 3 ±19 %)" in (
        grid.conclusion
    )
    narrow = {place: a_cell_run((30, 60, 61), (1, 2, 2)) for place in range(3)}
    assert "wide" not in with_conclusion(concluded(a_grid(list("abc")), narrow)).conclusion


def test_how_long_measuring_again_takes_is_what_it_took_and_what_levels_are_longer_by(tmp_path):
    """Where an earlier length is not known, nothing is said."""
    grid = with_cold_level([1])
    cells = [msgspec.structs.replace(cell, took_s=50.0) for cell in grid.cells]
    known = {"load": {"warm_up": "2s", "duration": "10s"}}
    grid = msgspec.structs.replace(grid, cells=cells, scenario=known, again=["--duration 40s", "--warm-up 6s"])
    # Two cells of 50 s, and three levels of each that are longer by 34 s.
    assert "This takes about 6m. Then" in " ".join(render_text(grid_document(grid, tmp_path)).split())
    counts = msgspec.structs.replace(grid, scenario={"load": {"requests": 10}}, again=["--requests 30"])
    assert "This takes about 5m. Then" in " ".join(render_text(grid_document(counts, tmp_path)).split())
    for scenario in ({}, {"load": {"warm_up": "2s", "duration": None}}, {"load": {"warm_up": 1, "duration": "?"}}):
        unknown = msgspec.structs.replace(grid, scenario=scenario)
        assert "This takes" not in render_text(grid_document(unknown, tmp_path))
    moved = with_cold_level([0], advice="look at the server")
    cells = [msgspec.structs.replace(cell, took_s=50.0) for cell in moved.cells]
    text = render_text(grid_document(msgspec.structs.replace(moved, cells=cells), tmp_path))
    assert "This takes about 50s. Then" in " ".join(text.split())


def test_what_was_requested_has_what_all_cells_have_and_names_the_rest():
    """What is varied comes first; the command has its names and not the values of one cell."""
    grid, runs = slots_and_threads(scenario={"target": {"server_cmd": "serve --parallel {slots}"}})
    runs = {
        place: msgspec.structs.replace(
            run, scenario={"load": {"warm_up": "2s"}, "work": {"seed": place, "input_tokens": 32, "temperature": 0.5}}
        )
        for place, run in runs.items()
    }
    table = grid_document(grid, None, runs).blocks[-1]
    rows = dict(table.rows)
    assert rows["varied"] == "slots 1, 4, 8; threads 1, 2"
    assert rows["started with"] == "serve --parallel {slots}"
    assert (rows["warm-up"], rows["temperature"]) == ("2s", "0.5")
    assert rows["prompt length"].startswith("32 tokens requested")
    assert "seed" not in rows
    assert "seed" in rows["not alike"].partition(":")[0].split(", ")
    for width in (60, 80):
        text = render_text(grid_document(grid, None, runs), width=width)
        assert "\nprompt length  " in text, "names of rows are not broken"
    assert "What was requested" not in render_text(grid_document(grid))


def test_what_other_programs_may_have_taken_from_the_best_cell_is_in_the_sentence():
    """As in that cell's own report."""
    grid, _ = slots_and_threads()
    cells = list(grid.cells)
    figures = [msgspec.structs.replace(cells[3].figures[0], faster_alone=1.31)]
    cells[3] = msgspec.structs.replace(cells[3], figures=figures)
    text = with_conclusion(msgspec.structs.replace(grid, cells=cells)).conclusion
    assert "180 output tokens/s at users=16, with other programs at work: alone maybe about 1.3 times as fast" in text


def test_commands_are_code_and_the_mark_is_near_the_names_on_a_page(tmp_path):
    """Also where a reader fills in a side; a narrow screen shows the first columns."""
    grid = with_cold_level([1])
    started = msgspec.structs.replace(grid, scenario={"target": {"server_cmd": "serve --port {port}"}})
    for one, command in (
        (grid, "loadbench compare --a … --b …"),
        (started, "loadbench compare --a-cmd '…' --b-cmd '…'"),
    ):
        document = grid_document(one, tmp_path)
        assert f"`{command}`" in render_markdown(document).replace("\\", "")
        page = re.sub(r"</?span[^>]*>", "", render_html(document))
        assert f"<code>{command}</code>" in page.replace("&#39;", "'")
        assert "`" not in page.partition("<table")[0].rpartition("<body")[2]
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", page)
    assert heads.index("tok/s") < heads.index("mark") < heads.index("verdict") < heads.index("load")
