"""I: searches, gates and reports. Each test has what the wrong way gives beside ours."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import msgspec
import pytest

from loadbench.analyze.level.knee import knee
from loadbench.analyze.level.summary import summarize
from loadbench.core.errors import BadInput
from loadbench.core.units import parse_rate
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.conditions import conditions, content_hash
from loadbench.plan.load import Closed, Open
from loadbench.plan.objective import parse_objective
from loadbench.plan.sources import resolve
from loadbench.record.outcome import Outcome
from loadbench.report.csv import csv as csv_report
from loadbench.report.plan import plan_document
from loadbench.report.render_text import render_text
from loadbench.results.run import ClosedLoad, OpenLoad, Throughput, Verdict, to_json
from loadbench.session.resume import whole_levels
from tests.building import a_failure, a_level, a_recording, a_run
from tests.engine.scripted import MS, Act, S, run_scripted

CONSTANT = parse_arrivals("constant")


@pytest.mark.parametrize("rule", ["ttft_p95<1s", "itl_p99<50ms", "e2e_max<60s", "tpot_mean<80ms", "failures<100%"])
def test_i1_an_objective_without_a_sample_fails(rule):
    """Of what was not seen once nothing can be said, and that is a miss.

    Seen to fail when a rule is broken only by a value that breaks it: of no values none does.
    """
    objective = parse_objective(rule)
    recording = a_recording([], objectives=(objective,))
    level = summarize(recording, target="t", model="m", load=Closed(1), failure_limit=1)
    assert [one.decision for one in level.objectives] == ["FAIL"]


def test_i1_failures_are_no_samples_and_fail_it_too():
    """Where every request failed, no latency objective is met, and the level says so."""
    objective = parse_objective("ttft_p95<1s")
    recording = a_recording([a_failure(Outcome.RESET, number=n) for n in range(50)], objectives=(objective,))
    level = summarize(recording, target="t", model="m", load=Closed(1), failure_limit=1)
    assert [one.decision for one in level.objectives] == ["FAIL"]


def test_i2_rates_are_real_numbers():
    """Twenty a minute is a rate, a level and a label, and 120 requests in six minutes.

    Seen to fail when rates are whole numbers per second: it is rounded to none.
    """
    rate = parse_rate("20/min")
    assert resolve(flags={"rate": "20/min,0.5"}, environment={}, file=None).loads[0] == Open(
        rate, parse_arrivals("poisson")
    )
    ran = run_scripted(Open(rate, CONSTANT), Act(), duration_ns=360 * S)
    assert len(ran.samples) == 120
    assert "0.333" in Open(rate, CONSTANT).label
    assert int(rate) == 0


def test_i3_a_level_ends_when_it_was_planned_to():
    """On a server that never finishes an answer a level lasts for warm-up, window and drain, and not longer.

    Seen to fail when a level is over when its requests are: virtual time would stand still for ever.
    """
    ran = run_scripted(
        Closed(4), Act(tokens=50, gap_ns=MS, stalls_after=3), warm_up_ns=S, duration_ns=5 * S, drain_ns=7 * S
    )
    assert ran.end_ns - ran.begin_ns == 13 * S
    assert ran.recording.outcomes == {}
    assert {one.outcome for one in ran.samples} == {Outcome.ABANDONED}


def test_i3_the_plan_tells_the_time_beforehand():
    """`--dry-run` says how long all levels take at the most, before anything is sent."""
    scenario = resolve(
        flags={"users": "1,2,4", "duration": "2m", "warm_up": "30s", "drain": "1m"}, environment={}, file=None
    )
    assert "3 levels, 7m30s of load, at most 3m of draining" in render_text(plan_document(scenario))


def test_i4_users_and_rates_are_two_things():
    """Users and requests per second are two types in the result, two columns in the table, and never one axis.

    Seen to fail when both are "concurrency": 8 users and 8 requests a second are the same point.
    """
    closed, opened = a_level(load=Closed(8)), a_level(load=Open(8.0, CONSTANT))
    assert isinstance(closed.load, ClosedLoad)
    assert isinstance(opened.load, OpenLoad)
    assert closed.load.label != opened.load.label
    first, second = csv.DictReader(io.StringIO(csv_report(a_run(closed, opened))))
    assert (first["users"], first["rate_per_s"]) == ("8", "")
    assert (second["users"], second["rate_per_s"]) == ("", "8.0")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({}, ""),
        ({"out": "elsewhere", "users": "1,2,4"}, ""),
        ({"users": "2"}, "other loads"),
        ({"max_tokens": "9"}, "work.max_tokens was 5 and is 9"),
        ({"prompts": "p.txt"}, "work.prompts was"),
        ({"temperature": "1"}, "work.temperature"),
        ({"first_token_timeout": "3s"}, "limits.first_token_timeout"),
    ],
)
def test_i5_other_settings_are_refused(flags, says, tmp_path, monkeypatch):
    """A run goes on where nothing that counts differs, be it only the content of a file of the same name.

    Seen to fail when the levels of a folder are taken by their loads alone.
    """
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("one prompt", encoding="utf-8")
    base = {"users": "1,2", "max_tokens": "5"} | ({"prompts": "p.txt"} if "prompts" in flags else {})
    then = conditions(resolve(flags=base, environment={}))
    run = msgspec.structs.replace(a_run(complete=False), conditions=then, content_hash=content_hash(then))
    Path("run.json").write_bytes(to_json(run))
    Path("p.txt").write_text("another prompt", encoding="utf-8")
    now = resolve(flags={**base, **flags}, environment={})
    if not says:
        assert whole_levels(tmp_path, now).levels == run.levels
        return
    with pytest.raises(BadInput, match=says):
        whole_levels(tmp_path, now)


def test_i6_no_curve_is_drawn_through_a_cliff():
    """Throughput of 10, 20, 40 and then 4 at 1, 2, 4 and 8 users: the bend is the level that was measured, 4 users.

    Seen to fail when a parabola through the four levels says where the most lies: at a load that nobody measured.
    """
    users, made = (1, 2, 4, 8), (10.0, 20.0, 40.0, 4.0)
    levels = [
        msgspec.structs.replace(
            a_level(load=Closed(n)),
            throughput=Throughput(requests_per_s=1, output_tokens_per_s=tokens, total_tokens_per_s=tokens),
            verdict=Verdict("VALID"),
        )
        for n, tokens in zip(users, made, strict=True)
    ]
    assert knee(levels).high.users == 4
    assert vertex(users, made) not in users
    assert abs(vertex(users, made) - 4) > 0.2


def vertex(xs: tuple[int, ...], ys: tuple[float, ...]) -> float:
    """Where the parabola with the least squares has its top: the normal equations, solved by Cramer's rule."""
    sums = [sum(x**power for x in xs) for power in range(5)]
    right = [sum(y * x**power for x, y in zip(xs, ys, strict=True)) for power in range(3)]
    matrix = [[sums[row + column] for column in range(3)] for row in range(3)]

    def with_column(column: int) -> float:
        return determinant(
            [[*row[:column], value, *row[column + 1 :]] for row, value in zip(matrix, right, strict=True)]
        )

    return -with_column(1) / (2 * with_column(2))


def determinant(m: list[list[float]]) -> float:
    """Of three by three."""
    (a, b, c), (d, e, f), (g, h, i) = m
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
