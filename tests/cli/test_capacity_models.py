"""`loadbench capacity` with several models: one table, a folder for each, the budget in equal parts, and going on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from loadbench.report.capacity import amount_text
from loadbench.results.capacity import read_capacities, read_capacity
from loadbench.sim.process import SimProcess
from tests.cli.running import interrupted, loadbench, started

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

MODELS = ("al/pha", "beta")
QUICK = ("--slo", "ttft_p90<5s", "--at-most", "2", "--warm-up", "10ms", "--max-tokens", "4", "--out", "runs")


@pytest.fixture(scope="module")
def url():
    """A server of two models."""
    with SimProcess("slot-server", seed=0, models=MODELS) as server:
        yield server.url


def named(*models: str) -> list[str]:
    return [part for model in models for part in ("--model", model)]


def the_folder(cwd: Path) -> Path:
    (folder,) = (cwd / "runs").iterdir()
    return folder


@pytest.mark.parametrize("models", [MODELS, ("all",)])
def test_models_are_searched_in_turn_into_one_table(url, models, tmp_path):
    """Each has its own search with its part of the budget, in a folder of its own that can be reported."""
    ran = loadbench("capacity", "--url", url, *named(*models), *QUICK, "--budget", "4s", cwd=tmp_path)
    folder = the_folder(tmp_path)
    kept = read_capacities(folder)
    assert kept.folders == {"al/pha": "1-al-pha", "beta": "2-beta"}
    assert [search.model for search in kept.searches] == [*MODELS]
    for search, name in zip(kept.searches, kept.folders.values(), strict=True):
        assert read_capacity(folder / name) == search
        assert search.budget_s == 2.0
        assert search.probes
        (row,) = [line for line in ran.stdout.splitlines() if line.startswith(f"{search.model} ")]
        assert f" {amount_text(search)} " in row
        assert f"{search.model}: {search.conclusion}" in ran.stdout
        shown = loadbench("report", str(folder / name), cwd=tmp_path).stdout
        assert shown.startswith(f"Capacity of model {search.model}\n\n{search.conclusion}\n")
        assert f"answer for {search.model}: " in ran.stderr
    assert "at most 4s for 2 models, 2s for each" in ran.stderr
    assert loadbench("report", str(folder), cwd=tmp_path).stdout == ran.stdout
    assert json.loads(loadbench("report", str(folder), "--format", "json", cwd=tmp_path).stdout)["folders"]
    refused = loadbench("report", str(folder), "--by-user", cwd=tmp_path)
    assert (refused.returncode, "name one of them" in refused.stderr) == (2, True)


def test_one_model_that_fails_leaves_the_others(url, tmp_path):
    """It is in the table with its reason, and the exit code is that of a model that is missing."""
    ran = loadbench("capacity", "--url", url, *named("beta", "gone"), *QUICK, "--budget", "3s", cwd=tmp_path)
    kept = read_capacities(the_folder(tmp_path))
    assert ran.returncode == 6
    assert [search.model for search in kept.searches] == ["beta"]
    assert list(kept.failed) == ["gone"]
    assert "gone: cannot be searched: " in ran.stdout


def test_plan_gives_each_model_its_part(url, tmp_path):
    """When each is searched, and for how long."""
    ran = loadbench(
        "capacity",
        "--url",
        url,
        *named("m-one", "m-two"),
        *QUICK,
        "--budget",
        "20m",
        "--dry-run",
        "--verbose",
        cwd=tmp_path,
    )
    rows = [line.split() for line in ran.stdout.splitlines() if line.startswith("m-")]
    assert rows == [["m-one", "10m", "0s", "to", "10m"], ["m-two", "10m", "10m", "to", "20m"]]
    ran = loadbench("capacity", "--url", url, *named("all"), *QUICK, "--dry-run", "--verbose", cwd=tmp_path)
    assert "each model that the server lists is searched in turn" in ran.stdout


def test_stopped_searches_go_on(url, tmp_path):
    """Ctrl-C in the first search keeps it, and begins no other; resumed, the first goes on and the second begins."""
    given = ("capacity", "--url", url, *named(*MODELS), *QUICK)
    process = started(
        *given, "--budget", "60m", "--no-live", "--require", "proven", "--slo", "failures<0.1%", cwd=tmp_path
    )
    out = interrupted(process)
    folder = the_folder(tmp_path)
    assert process.returncode == 130
    assert [search.status for search in read_capacities(folder).searches] == ["interrupted"]
    assert "not searched" in out
    again = loadbench("capacity", "--resume", str(folder), "--budget", "6s", "--require", "likely", cwd=tmp_path)
    assert [search.model for search in read_capacities(folder).searches] == [*MODELS], again.stderr
    assert len(read_capacity(folder / "1-al-pha").probes) >= 1
    assert [search.budget_s for search in read_capacities(folder).searches] == [3.0, 3.0]
    more = ("--slo", "failures<0.1%", "--budget", "6s", "--resume", str(folder))
    other = loadbench("capacity", "--url", url, *named("beta"), *QUICK[:-2], *more, cwd=tmp_path)
    assert (other.returncode, "same models, in the same order: al/pha, beta" in other.stderr) == (2, True)
