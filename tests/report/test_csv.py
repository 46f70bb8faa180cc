"""The report as CSV: for programs and spreadsheets."""

from __future__ import annotations

import csv as stdlib_csv
import io
from itertools import product

import msgspec
import pytest

from loadbench.record.outcome import Outcome
from loadbench.record.request import Destination
from loadbench.report.csv import csv
from tests.building import S, a_failure, a_level, a_run, a_sample
from tests.report.golden import RUNS, golden, hostile


def read(run) -> list[dict[str, str]]:
    """The rows as the standard library reads them."""
    return list(stdlib_csv.DictReader(io.StringIO(csv(run))))


@pytest.mark.parametrize("name", RUNS)
def test_report_is_the_one_that_is_kept(name):
    """What programs read is as it was when somebody last looked at it."""
    assert csv(RUNS[name]()) == golden(name, "csv")


def test_figures_are_not_rounded():
    """Each number reads back as the very float of the result, in seconds and per second."""
    run = RUNS["bending"]()
    for row, level in zip(read(run), run.levels, strict=True):
        assert float(row["ttft_s_p95"]) == level.metrics["ttft_s"].p95
        assert float(row["output_tokens_per_s"]) == level.throughput.output_tokens_per_s
        assert row["users"] == str(level.load.users)
        assert row["rate_per_s"] == ""


def test_open_load_has_a_rate_and_no_users():
    """The other of the two is empty."""
    row = read(RUNS["models"]())[0]
    assert (row["users"], row["rate_per_s"]) == ("", "0.5")


def test_unknown_is_an_empty_field():
    """An absent metric is empty and never 0; outcomes that only one level had are empty in the other's row."""
    rows = read(a_run(a_level([a_failure(Outcome.RESET)]), a_level([a_sample()])))
    assert rows[0]["ttft_s_p50"] == ""
    assert (rows[0]["outcome_reset"], rows[1]["outcome_reset"]) == ("1", "")
    assert (rows[0]["outcome_ok"], rows[1]["outcome_ok"]) == ("", "1")


def test_simulated_run_says_so_in_every_row():
    """A row that is copied somewhere takes it along."""
    assert {row["simulated"] for row in read(RUNS["bending"]())} == {"True"}
    assert {row["simulated"] for row in read(RUNS["models"]())} == {"False"}


def test_run_without_levels_is_a_head_alone():
    """So that whoever reads many files finds columns, and no row."""
    assert csv(RUNS["empty"]()) == "run,started_at,simulated,target,model\n"


def test_foreign_text_is_neither_a_formula_nor_an_order():
    """No field begins as a formula does, none holds what a terminal obeys, and each row is one line."""
    shown = csv(hostile())
    assert all(line.isprintable() for line in shown.split("\n"))
    rows = list(stdlib_csv.reader(io.StringIO(shown)))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(rows) == 3
    assert not [field for row in rows for field in row if field[:1] in set("=+-@\t\r")]
    assert rows[1][0].startswith("'=cmd()|")


@pytest.mark.parametrize("name", ["+1", "-1", "@sum", " =1", "\t=1", "＝1"])
def test_what_begins_a_formula_is_quoted(name):
    """In all the ways that spreadsheets know, also behind white space."""
    (row,) = read(msgspec.structs.replace(a_run(), name=name))
    assert row["run"].startswith(("'", "?"))


@pytest.mark.parametrize("name", ["phi-4-mini", "qwen2.5:0.5b", "a b", "Ünïcode", "a,b", 'a"b'])
def test_common_names_stay_as_they_are(name):
    """Neither escapes nor quotes end up in a name that needs none."""
    (row,) = read(msgspec.structs.replace(a_run(), name=name))
    assert row["run"] == name


def test_models_and_servers_of_a_level_have_rows_that_add_up():
    """They follow the level's, are marked as parts of it, and have its load; other runs have no such column."""
    to = [Destination(n, model, server) for n, (model, server) in enumerate(product("mn", ("http://a", "http://b")))]
    level = a_level(a_sample(n, due_ns=n * S, destination=to[n % 3]) for n in range(9))
    level = msgspec.structs.replace(level, targets=["http://a", "http://b"], model="m=2,n=1")
    whole, *parts = read(a_run(level))
    assert (whole["part"], whole["target"], whole["model"]) == ("", "http://a http://b", "m=2,n=1")
    assert [(row["part"], row["model"], row["target"]) for row in parts] == [
        ("model", "m", "http://a http://b"),
        ("model", "n", "http://a http://b"),
        ("server", "m=2,n=1", "http://a"),
        ("server", "m=2,n=1", "http://b"),
    ]
    for kind in ("model", "server"):
        rows = [row for row in parts if row["part"] == kind]
        for column in ("outcome_ok", "input_tokens", "output_tokens", "output_tokens_per_s", "ttft_s_count"):
            assert sum(float(row[column]) for row in rows) == pytest.approx(float(whole[column])), column
        assert {row["users"] for row in rows} == {whole["users"]}
        assert {row["verdict"] for row in rows} == {""}
    assert "part" not in read(a_run())[0]
