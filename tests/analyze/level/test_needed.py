"""How many responses a percentile needs to be known to 10 %, as reports say it next to those that are not."""

from __future__ import annotations

import random
import re

import msgspec
import pytest

from loadbench.analyze.level.needed import needed_for_p95
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Closed, Open
from loadbench.report.run import notes
from loadbench.results.run import Verdict
from tests.building import MS, S, a_level, a_run, a_sample


def level(count: int, *, sigma: float = 0.4, seed: int = 1, load=None):
    """A level of independent lognormal first tokens."""
    draw = random.Random(seed)
    ttfts = [round(100 * MS * draw.lognormvariate(0, sigma)) for _ in range(count)]
    made = a_level((a_sample(n, due_ns=n * S, ttft_ns=ttft) for n, ttft in enumerate(ttfts)), load=load or Closed(1))
    return msgspec.structs.replace(made, verdict=Verdict("VALID"))


def needed(of) -> int | None:
    return needed_for_p95(of, of.metrics["ttft_s"], within=0.1)


def half_width(of) -> float:
    ttft = of.metrics["ttft_s"]
    low, high = ttft.interval["p95"]
    return (high - low) / 2 / ttft.p95


def test_so_many_responses_are_about_enough():
    """Levels as long as was said of shorter ones have a p95 that is known to about 10 %, in the middle of them."""
    counts = [needed(level(150, seed=seed)) for seed in range(9)]
    widths = sorted(half_width(level(count, seed=100 + seed)) for seed, count in enumerate(counts))
    assert 0.05 < widths[4] < 0.2


def test_requests_that_say_less_need_more_of_them():
    """A level whose requests are worth a tenth needs ten times as many; one whose values vary more needs more, too."""
    one = level(200)
    ttft = one.metrics["ttft_s"]
    tenth = msgspec.structs.replace(one, metrics={"ttft_s": msgspec.structs.replace(ttft, effective=20)})
    whole = msgspec.structs.replace(one, metrics={"ttft_s": msgspec.structs.replace(ttft, effective=200)})
    assert needed(tenth) == pytest.approx(10 * needed(whole), abs=10)
    assert needed(level(200, sigma=0.8)) > 1.5 * needed(whole)


def test_an_open_loop_needs_as_many_as_have_an_upper_end():
    """However alike its responses are: a short level may have seen a calm stretch."""
    assert needed(level(100, sigma=0.01, load=Open(1.0, parse_arrivals("poisson")))) == 500


def test_what_cannot_be_told_is_not():
    """Without a distribution, or an effective n, as in files of other tools."""
    one = level(50)
    ttft = one.metrics["ttft_s"]
    for change in ({"effective": None}, {"hdr": ""}, {"hdr": "damaged"}):
        assert needed(msgspec.structs.replace(one, metrics={"ttft_s": msgspec.structs.replace(ttft, **change)})) is None


def remedies(run) -> list[str]:
    return [line.partition(": ")[2] for lines in notes(run) for line in lines if line.startswith("~")]


def test_the_note_says_how_long_for_every_p95():
    """For the level that takes the longest, as both options; without a figure where the run was a search or a trace."""
    run = a_run(level(150), level(60, load=Closed(2)))
    (remedy,) = remedies(run)
    found = re.fullmatch(
        r"measure longer; about --duration (\d+m(?:30s)?), or --requests (\d+), would do for every p95 "
        r"\(users=[12] takes the longest\)",
        remedy,
    )
    assert found is not None, remedy
    counts = [needed(one) for one in run.levels]
    assert max(counts) <= int(found[2]) <= 1.1 * max(counts)
    traced = msgspec.structs.replace(run, scenario={"load": {"trace": "trace.csv"}})
    assert remedies(traced) == ["measure longer"]
