"""The table of fairness."""

from __future__ import annotations

from loadbench.report.by_user import by_user_document
from loadbench.report.render_text import render_text
from loadbench.results.prediction import Fairness, StarvedUser
from tests.building import a_level, a_run

WAIT = "mean TTFT above twice the median user's"


def test_each_level_has_a_row_and_each_starved_user_a_line():
    """Indices with their intervals, how many were starved, and who, by which rule."""
    starved = [StarvedUser(user=n, answers=3, mean_ttft_s=2.5, rule=WAIT) for n in range(7)]
    level = Fairness(
        level=0, users=16, answers=160, throughput=0.91234, throughput_interval=(0.88, 0.95), ttft=0.5, starved=starved
    )
    lines = render_text(by_user_document(a_run(a_level()), [level])).splitlines()
    (row,) = (line for line in lines if line.lstrip().startswith("users=1 "))
    assert row.split() == ["users=1", "16", "160", "0.912", "0.880–0.950", "0.500", "-", "7"]
    assert f"users=1: user 0 was starved, with 3 responses, mean TTFT 2.50 s: {WAIT}" in lines
    assert "users=1: 2 more users were starved" in lines


def test_a_run_without_users_says_so():
    """Of an open load there is nothing to compare."""
    assert "no level of this run has users" in render_text(by_user_document(a_run(), []))
