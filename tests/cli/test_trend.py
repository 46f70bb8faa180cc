"""`loadbench runs trend`: a figure over runs that can be compared."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from loadbench.results.run import to_json
from tests.analyze.comparing import lucky
from tests.cli.typed import typed

if TYPE_CHECKING:
    from pathlib import Path


def keep(results: Path, day: int, tokens: float, *, name: str = "night", **over: object) -> None:
    """A run of this day with so many tokens per second at two users, and twice as many at four."""
    run = lucky({2: tokens, 4: 2 * tokens}, name=name)[0]
    commit = {"git": {"commit": f"{day:040x}", "dirty": False}, "host": "h"}
    fields = {"environment": run.environment | commit, "scenario": {"work": {"max_tokens": 64}}, **over}
    run = msgspec.structs.replace(run, **fields)
    folder = results / f"202601{day:02}T000000Z-{name}"
    folder.mkdir(parents=True)
    (folder / "run.json").write_bytes(to_json(run))


@pytest.fixture
def kept(tmp_path):
    """Three nights, the last of which is twice as fast."""
    for day, tokens in ((1, 100), (2, 100), (3, 200)):
        keep(tmp_path / "results", day, tokens)
    return tmp_path


def trend(folder: Path, *arguments: str) -> dict:
    """What it said, as JSON."""
    done = typed("runs", "trend", *arguments, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_points_are_from_old_to_new(kept):
    """Each run has its value, its interval, its commit, and how it differs from the one before."""
    said = trend(kept, "output_tokens_per_s", "--at", "users=2")
    assert [point["run"][:8] for point in said["points"]] == ["20260101", "20260102", "20260103"]
    assert said["points"][2]["value"] == pytest.approx(2 * said["points"][0]["value"])
    assert [point["change"] for point in said["points"]] == [None, "~", "higher"]
    assert said["points"][2]["commit"] == f"{3:040x}"


def test_load_is_one_that_most_runs_have(kept):
    """Without --at, it is a load of the newest run; levels of others are not mixed in."""
    said = trend(kept, "output_tokens_per_s")
    assert said["at"] in {"users=2", "users=4"}
    assert len({point["value"] for point in said["points"]}) == 2


def test_other_work_is_left_out(kept):
    """A run of responses of another length is no part of the series, and named with the setting."""
    keep(kept / "results", 1, 100, name="long", scenario={"work": {"max_tokens": 999}})
    said = trend(kept, "output_tokens_per_s", "--at", "users=2")
    assert [one["run"] for one in said["left_out"]] == ["20260101T000000Z-long"]
    assert "work.max_tokens (64 and 999)" in said["left_out"][0]["reason"]


def test_simulated_run_is_left_out(kept):
    """A run of the simulated server is not in the series of a real one."""
    keep(kept / "results", 1, 100, name="sim", simulated=True)
    said = trend(kept, "output_tokens_per_s", "--at", "users=2")
    assert [one["run"] for one in said["left_out"]] == ["20260101T000000Z-sim"]
    assert "simulated" in said["left_out"][0]["reason"]


def test_run_without_the_load_is_left_out(kept):
    """A run that has no such level is named with this reason."""
    keep(kept / "results", 2, 100, name="short", levels=lucky({4: 100})[0].levels)
    said = trend(kept, "output_tokens_per_s", "--at", "users=2")
    assert said["left_out"] == [{"run": "20260102T000000Z-short", "reason": "has no level users=2 of m"}]


def test_table_has_a_line_of_blocks(kept):
    """For people: a line of blocks, the values, the change and the commit."""
    done = typed("runs", "trend", "output_tokens_per_s", "--at", "users=2", cwd=kept)
    assert "▁▁█" in done.stdout
    assert "higher" in done.stdout
    assert f"{3:040x}"[:9] in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ttft"], "ttft_p95"),
        (["speed"], "known are"),
        (["ttft_p95", "--at", "users=77"], "no run that fits has a level at users=77"),
        (["ttft_p95", "--at", "many"], "--at"),
        (["ttft_p95", "--name", "nobody"], "no run in results fits"),
        (["capacity"], "no run that fits is a capacity search"),
    ],
)
def test_what_cannot_be_shown_is_refused(kept, arguments, words):
    """A metric, a load or a run that is not there is one error with its remedy."""
    done = typed("runs", "trend", *arguments, cwd=kept)
    assert done.returncode == 2
    assert words in done.stderr


def test_damaged_run_is_left_out(kept):
    """A file that cannot be read does not end the trend."""
    (kept / "results" / "20260101T000000Z-night" / "run.json").write_text("{")
    said = trend(kept, "output_tokens_per_s", "--at", "users=2")
    assert [one["run"] for one in said["left_out"]] == ["20260101T000000Z-night"]
    assert len(said["points"]) == 2
