"""Objectives in the tables: a column of goodput and a line for each rule, where there are any."""

from __future__ import annotations

import csv as stdlib_csv
import dataclasses
import io

import msgspec

from loadbench.plan.load import Closed
from loadbench.plan.objective import parse_objective
from loadbench.report.csv import csv
from loadbench.report.formats import render
from loadbench.report.run import by_model, level_table
from loadbench.results.run import Verdict
from tests.building import MS, S, a_level, a_recording, a_run, a_sample
from tests.report.golden import all_notes


def run(*rules: str, gate: bool = False):
    """A run at 1 and 2 users held against these rules; at 2 users the TTFT is 2 s."""
    objectives = [dataclasses.replace(parse_objective(rule), gate=gate) for rule in rules]
    levels = []
    for users in (1, 2):
        samples = [a_sample(n, due_ns=n * S, ttft_ns=(100 if users == 1 else 2000) * MS) for n in range(90)]
        here = [one for one in objectives if one.applies(Closed(users).label)]
        levels.append(a_level(recording=a_recording(samples, objectives=here), load=Closed(users)))
    # Made levels have a client that nobody would believe.
    return a_run(*(msgspec.structs.replace(level, verdict=Verdict("VALID")) for level in levels))


def lines(of) -> list[str]:
    """The notes that speak of objectives or gates."""
    return [note for note in all_notes(of) if note.startswith(("objective ", "gate "))]


def test_goodput_is_a_column_only_where_there_are_objectives_for_it():
    """Beside the requests that failed, as good requests a second and their share of all."""
    with_goodput, without = run("ttft_p95<1s"), run("output_tokens_per_s>1")
    (levels,) = by_model(with_goodput).values()
    table = level_table(levels)
    assert table.headers[-2:] == ("goodput", "verdict")
    assert [row[-2] for row in table.rows] == ["0.900/s, 100 %", "0/s, 0 %"]
    assert {len(row) for row in table.rows} == {len(table.headers)} == {len(table.align)}
    for form in ("text", "markdown"):
        assert "goodput" in render(with_goodput, form)
        assert "goodput" not in render(without, form)


def test_goodput_is_never_above_the_throughput():
    """Both columns count the responses that ended in the window, however many were due in it."""
    (level,) = (one for one in run("ttft_p95<1s").levels if one.goodput.attainment == 1)
    few = msgspec.structs.replace(level.throughput, requests_per_s=level.goodput.requests_per_s / 2)
    table = level_table([msgspec.structs.replace(level, throughput=few)])
    row = dict(zip(table.headers, table.rows[0], strict=True))
    assert row["goodput"].partition("/s")[0] == row["req/s"]


def test_each_rule_has_a_line_with_every_level():
    """Gates are called so; each level has its decision and its value in the rule's unit."""
    assert lines(run("ttft_p95<1s", "failures<90%", "requests_per_s>0.5", gate=True)) == [
        "gate ttft_p95<1s: users=1 PASS (100 ms) · users=2 FAIL (2.00 s)",
        "gate failures<90%: users=1 PASS (0 %) · users=2 PASS (0 %)",
        "gate requests_per_s>0.5: users=1 PASS (0.900/s) · users=2 PASS (0.900/s)",
    ]
    assert lines(run("ttft_p95<1s@users=2")) == ["objective ttft_p95<1s@users=2: users=2 FAIL (2.00 s)"]
    assert lines(run()) == []


def test_a_decision_on_an_invalid_level_is_marked():
    """It is no answer, whatever it says."""
    levels = [msgspec.structs.replace(level, verdict=Verdict("INVALID")) for level in run("ttft_p95<1s").levels]
    assert lines(a_run(*levels)) == [
        "objective ttft_p95<1s: users=1 PASS (100 ms, INVALID level) · users=2 FAIL (2.00 s, INVALID level)"
    ]


def test_undecided_rule_says_why():
    """The share below the bound, what it may be, and what it must be."""
    (line,) = lines(run("ttft_p99<1s"))
    needed = "at least 99 % must; 99 without a miss would decide it"
    assert f"users=1 UNDECIDED (100 ms, 100 % of requests met it, 95 % interval 98.9 % to 100 %; {needed})" in line


def test_csv_has_the_decisions():
    """A column for each rule, and those of goodput; none of them without objectives."""
    first, second = stdlib_csv.DictReader(io.StringIO(csv(run("ttft_p95<1s"))))
    assert (first["ttft_p95<1s"], second["ttft_p95<1s"]) == ("PASS", "FAIL")
    assert (float(first["attainment"]), float(second["attainment"])) == (1.0, 0.0)
    assert float(first["goodput_requests_per_s"]) == 0.9
    assert "attainment" not in csv(run())
