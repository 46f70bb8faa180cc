"""The plan that --dry-run shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from loadbench.plan.load import Closed
from loadbench.plan.sources import resolve
from loadbench.report.capacity_plan import capacity_plan_document
from loadbench.report.plan import plan_document
from loadbench.report.render_text import render_text
from tests.building import a_level, a_run

SERVER = "http://127.0.0.1:9/v1"


def plan(*, environment=None, **flags) -> str:
    """The plan of these flags."""
    return render_text(plan_document(resolve(flags=flags, environment=environment or {}), verbose=True))


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
    text = render_text(capacity_plan_document(scenario, verbose=True))
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


def short(**flags) -> str:
    """The plan that is shown without --verbose."""
    return render_text(plan_document(resolve(flags=flags, environment={}), ["first request:"]))


def test_a_short_plan_has_what_somebody_set():
    """Not the defaults, nor the first request; and it says how to see them."""
    text = short(users="1,2", max_tokens="9")
    assert line(text, "load.users") == ["1, 2", "flag --users"]
    assert line(text, "work.max_tokens") == ["9", "flag --max-tokens"]
    assert not [row for row in text.splitlines() if row.startswith(("load.drain", "first request"))]
    assert text.rstrip().endswith("`--dry-run --verbose` shows every setting and the first request")


@pytest.mark.parametrize(
    ("flags", "requests", "tokens"),
    [
        (
            {"users": "1,2", "requests": "50", "input_tokens": "10", "max_tokens": "20"},
            "100 that are measured, and those of the warm-up",
            "about 1,000 to send, at most 2,000 to receive",
        ),
        (
            {"rate": "2", "duration": "8s", "warm_up": "2s", "input_tokens": "10", "max_tokens": "20"},
            "about 20",
            "about 200 to send, at most 400 to receive",
        ),
        # A response takes 1 s at the usual speed.
        (
            {
                "url": "http://127.0.0.1:9/v1",
                "users": "3",
                "duration": "8s",
                "warm_up": "2s",
                "max_tokens": "100",
                "prompt": "Hello.",
            },
            "about 30, assuming 100 tokens/s a user; a slower server gets fewer",
            "at most 3,000 to receive",
        ),
        (
            {"users": "1,10", "input_tokens": "10", "max_tokens": "20"},
            "at least 50 that are measured, and those of the warm-up",
            "about 500 to send, at most 1,000 to receive for these requests",
        ),
    ],
)
def test_requests_and_tokens_are_reckoned(flags, requests, tokens):
    """By number, by rate, by users and time at the usual speed, and as many as a level waits for."""
    text = short(**flags)
    assert line(text, "requests") == [requests]
    assert line(text, "tokens") == [tokens]


def test_think_time_is_shown_also_where_a_persona_brings_it():
    """It decides how much load a user is; a rate has none."""
    persona = short(persona="chat")
    assert "lognormal:30s,0.6 between a response" in persona
    assert "between a response" not in short(persona="chat", rate="1")
    assert "between a response" not in short()


def test_what_is_saved_is_named():
    """The folder by its pattern, its files, and their size."""
    text = short(out="mine", name="x")
    assert "mine/<time>-x: run.json, requests.jsonl, histograms.hlog, report.md; about " in text.replace("\\", "/")


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        ({"users": "1,2,4", "max_total": "30s"}, "3 levels and their warm-ups take 36s"),
        ({"users": "4", "think": "1m", "max_total": "2m"}, "enough responses take about 5m"),
        ({"users": "4", "think": "1m", "max_total": "10m"}, ""),
    ],
)
def test_a_total_that_is_too_short_is_warned_of(flags, warned):
    """For the levels as such, or for enough responses."""
    text = short(**flags)
    assert warned in text
    assert ("warning: --max-total" in text) == bool(warned)


def test_a_search_whose_budget_is_too_short_is_warned_of():
    """Users who think for long need longer than a server that answers at once."""
    for budget, warned in (("2m", True), ("30m", False)):
        flags = {"objectives": ["ttft_p90<2s"], "think": "20s", "budget": budget}
        scenario = resolve(flags=flags, environment={}, command="capacity")
        assert (f"warning: --budget {budget} is too short" in render_text(capacity_plan_document(scenario))) == warned


@pytest.mark.parametrize(("users", "left"), [("1,2,4", "1 level"), ("1,2", "nothing: all is there")])
def test_plan_of_a_resumed_sweep_has_what_is_left(users, left):
    """What it resumes, the levels that are there, and of the others their requests."""
    before = a_run(*(a_level(load=Closed(number)) for number in (1, 2)))
    scenario = resolve(flags={"users": users, "requests": "10"}, environment={})
    text = render_text(plan_document(scenario, resume=Path("results/x"), before=before))
    assert "resumes        results/x\n" in text
    assert "already there  2 levels (users=1, 2), not measured again\n" in text
    assert f"left           {left}\n" in text
    assert ("    3  users=4" in text) == ("10 that are measured" in text) == (users == "1,2,4")
    assert not re.search("^ +[12]  users=", text, re.MULTILINE)
    assert "<time>" not in text
