"""The plan that --dry-run shows."""

from __future__ import annotations

import re

import pytest

from loadbench.plan.sources import resolve
from loadbench.report.capacity_plan import capacity_plan_document
from loadbench.report.plan import plan_document
from loadbench.report.render_text import render_text


def plan(*, environment=None, **flags) -> str:
    """The plan of these flags."""
    return render_text(plan_document(resolve(flags=flags, environment=environment or {})))


def line(text: str, key: str) -> list[str]:
    """The fields of the setting's line: value and origin."""
    (found,) = [row for row in text.splitlines() if row.startswith(f"{key} ")]
    return re.split(r"\s{2,}", found.rstrip())[1:]


def test_every_setting_has_its_value_and_origin():
    """Flag, environment or default: which of them spoke, and under which name."""
    text = plan(users="1,2", environment={"LOADBENCH_DURATION": "3s"})
    assert line(text, "load.users") == ["1, 2", "flag --users"]
    assert line(text, "load.duration") == ["3s", "environment LOADBENCH_DURATION"]
    assert line(text, "work.max_tokens") == ["64", "default"]


def test_the_plan_of_a_search_has_the_same_table():
    """Its own settings, and those that it shares with a sweep; none that a search does not take."""
    flags = {"objectives": ["ttft_p90<2s"], "at_most": "40"}
    scenario = resolve(flags=flags, environment={"LOADBENCH_MAX_TOKENS": "9"}, command="capacity")
    text = render_text(capacity_plan_document(scenario))
    assert line(text, "slo.objectives") == ["ttft_p90<2s", "flag --slo"]
    assert line(text, "capacity.at_most") == ["40.0", "flag --at-most"]
    assert line(text, "work.max_tokens") == ["9", "environment LOADBENCH_MAX_TOKENS"]
    assert line(text, "capacity.budget") == ["20m", "default"]
    assert not [row for row in text.splitlines() if row.startswith(("load.users", "load.duration"))]


def test_levels_and_their_time_are_told():
    """Two levels of warm-up and measurement, and a drain that has its limit."""
    text = plan(users="1,2", duration="10s", warm_up="2s", drain="5s")
    assert "2 levels, 24s of load, at most 10s of draining" in text
    assert re.search(r"^ +2 +users=2 +10s +as many as complete +12s and the drain$", text, re.MULTILINE)


def test_open_loop_tells_its_requests():
    """A rate times a time, warm-up included."""
    assert re.search(r"rate=2 +10s +about 24 ", plan(rate="2", duration="10s", warm_up="2s"))


def test_level_by_number_tells_its_number():
    """So many a level, and nobody knows how long they take."""
    text = plan(users="1,2", requests="50")
    assert "2 levels, 100 measured requests" in text
    assert "as long as they take" in text


@pytest.mark.parametrize(
    ("url", "where"), [(None, "the simulated server"), ("http://127.0.0.1:9", "http://127.0.0.1:9")]
)
def test_target_is_named(url, where):
    """The simulated server, where no other is given."""
    text = plan(**({"url": url} if url else {}))
    assert re.search(rf"^target +{re.escape(where)}$", text, re.MULTILINE)
    assert ("simulated" in text) == (url is None)


def test_secrets_are_not_shown():
    """Of a header only the name."""
    text = plan(header=["X-Key: sk-very-secret"])
    assert "sk-very-secret" not in text
    assert "X-Key" in text


def test_foreign_text_is_shown_without_orders():
    """A prompt may hold anything: it is clipped, and the terminal obeys none of it."""
    text = plan(prompt="\x1b[31m" + "x\n" * 500)
    assert "\x1b" not in text
    assert all(row.isprintable() for row in text.split("\n"))
    assert max(map(len, text.splitlines())) < 200
