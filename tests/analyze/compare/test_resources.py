"""What a side of a comparison needs: memory, and the loads at which it meets the objectives."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.compare.resources import cold_start, memory, met_objectives
from loadbench.results.run import ModelStatus, ObjectiveResult, Verdict
from loadbench.results.telemetry import Gauge, Telemetry
from tests.analyze.comparing import a_side, figures


def seen(level, **most):
    """The level, with the most of these readings."""
    gauges = {name: Gauge(mean=value, min=0.0, max=value, last=value, readings=9) for name, value in most.items()}
    return msgspec.structs.replace(level, telemetry=Telemetry(gauges=gauges))


def judged(users, *decisions, status="VALID"):
    """A level at which the objectives x, y, … were decided so."""
    objectives = [
        ObjectiveResult(rule=rule, decision=decision, value=None)
        for rule, decision in zip("xyz", decisions, strict=False)
    ]
    return figures(users, objectives=objectives, verdict=Verdict(status))


def test_memory_is_the_most_at_any_level():
    """Of the process; and its own on the boards, which are summed."""
    own = {"gpu0_process_memory_bytes": 3.0, "gpu1_process_memory_bytes": 4.0, "gpu0_memory_bytes": 99.0}
    runs = a_side([seen(figures(1), process_rss_bytes=5.0, **own)], [seen(figures(1), process_rss_bytes=8.0)])
    found = memory(runs)
    assert (found.process_bytes, found.board_bytes, found.board_of) == (8.0, 7.0, "process")


@pytest.mark.parametrize(("use", "expected"), [(0.5, (6.0, "board")), (0.0, (None, None))])
def test_the_memory_of_an_idle_board_is_somebody_elses(use, expected):
    """Without the process's own, all that a busy board holds."""
    found = memory(a_side([seen(figures(1), process_rss_bytes=1.0, gpu0_memory_bytes=6.0, gpu0_use=use)]))
    assert (found.board_bytes, found.board_of) == expected


def test_nothing_is_known_where_nothing_was_sampled():
    """No reading, no model that was loaded, no objective."""
    runs = a_side([figures(1)])
    assert (memory(runs), cold_start(runs), met_objectives(runs)) == (None, None, None)


def test_the_cold_start_is_that_of_the_first_run():
    """Loading is the median; later runs find a server that is warm."""
    runs = a_side([figures(1)], [figures(1)], [figures(1)])
    statuses = [(4.0, 0.9, 0.1), (6.0, 0.2, 0.1), (5.0, 0.2, 0.1)]
    runs = [
        msgspec.structs.replace(run, models=[ModelStatus("m", "ok", load_s=load, cold_ttft_s=cold, warm_ttft_s=warm)])
        for run, (load, cold, warm) in zip(runs, statuses, strict=True)
    ]
    found = cold_start(runs)
    assert (found.load_s, found.cold_ttft_s, found.warm_ttft_s) == (5.0, 0.9, 0.1)


def test_objectives_are_met_up_to_the_load_below_the_first_that_is_not_met_for_sure():
    """All runs pass at 1 and 2; at 4 one is not decided; at 8 one fails and none passes."""
    first = [judged(1, "PASS", "PASS"), judged(2, "PASS", "PASS"), judged(4, "PASS", "PASS"), judged(8, "PASS", "FAIL")]
    other = [*first[:2], judged(4, "PASS", "UNDECIDED"), judged(8, "PASS", "UNDECIDED")]
    found = met_objectives(a_side(first, other))
    assert found.rules == ["x", "y"]
    assert (found.up_to, found.missed_at, found.missed) == ("users=2", "users=8", ["y"])


def test_an_invalid_level_decides_no_objective():
    """Its figures are those of something else."""
    found = met_objectives(a_side([judged(1, "PASS"), judged(2, "FAIL", status="INVALID")]))
    assert (found.up_to, found.missed_at) == ("users=1", None)


def test_a_load_that_one_run_meets_and_another_misses_is_not_decided():
    """Neither met nor missed."""
    found = met_objectives(a_side([judged(1, "PASS")], [judged(1, "FAIL")]))
    assert (found.up_to, found.missed_at) == (None, None)
