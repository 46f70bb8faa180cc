"""Objectives, gates and aborts from outside: the exit code, and what is printed and kept."""

from __future__ import annotations

import json

import jsonschema
import pytest

from loadbench.report.formats import schema_text
from loadbench.sim.process import SimProcess
from tests.cli.typed import typed as loadbench

LEVEL = {"--model": "alpha", "--users": "1", "--warm-up": "100ms", "--max-tokens": "4"}


@pytest.fixture(scope="module")
def server():
    """A simulated server whose responses take longer than a busy machine holds a client up, which stamps that late."""
    with SimProcess(models=("alpha",)) as process:
        yield process.url


def swept(server, tmp_path, *arguments: str) -> tuple[int, dict, str]:
    """(exit code, run.json, the Markdown report) of a sweep."""
    level = [word for flag, value in LEVEL.items() if flag not in arguments for word in (flag, value)]
    done = loadbench("sweep", "--url", server, *level, *arguments, "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(document)
    (folder,) = (tmp_path / "results").iterdir()
    return done.returncode, document, (folder / "report.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "decisions", "code"),
    [
        (["--requests", "40", "--slo", "e2e_p50<1h", "--fail-on", "slo"], ["PASS"], 0),
        (["--requests", "40", "--slo", "e2e_p50<1us", "--fail-on", "slo"], ["FAIL"], 3),
        (["--requests", "40", "--slo", "e2e_p50<1us"], ["FAIL"], 0),
        (["--requests", "40", "--slo", "e2e_p99<1h", "--fail-on", "slo"], ["UNDECIDED"], 5),
        (["--requests", "40", "--fail-on", "e2e_p99<1h", "--undecided", "pass"], ["UNDECIDED"], 0),
        (["--requests", "40", "--fail-on", "e2e_p99<1h", "--undecided", "fail"], ["UNDECIDED"], 3),
        (["--requests", "40", "--slo", "e2e_p99<1h", "--fail-on", "e2e_p50<1us"], ["UNDECIDED", "FAIL"], 3),
        (["--requests", "40", "--fail-on", "e2e_p99<1h", "--fail-on", "e2e_p50<1us"], ["UNDECIDED", "FAIL"], 3),
        # I1, D15: answers of one token have no TPOT at all, and a gate that nothing was held against fails.
        (["--requests", "40", "--max-tokens", "1", "--fail-on", "tpot_p95<1h"], ["FAIL"], 3),
        (["--duration", "1s", "--fail-on", "requests_per_s>1000000"], ["FAIL"], 3),
    ],
    ids=[
        "pass",
        "fail",
        "no gate",
        "undecided",
        "undecided passes",
        "undecided fails",
        "fail beside undecided",
        "two gates",
        "no sample",
        "throughput",
    ],
)
def test_exit_code_is_that_of_the_gates(arguments, decisions, code, server, tmp_path):
    """0 passed, 3 failed, 5 undecided; a level that a busy machine made invalid comes first, with 4."""
    returned, document, report = swept(server, tmp_path, *arguments)
    (level,) = document["levels"]
    assert [one["decision"] for one in level["objectives"]] == decisions
    assert returned == (4 if level["verdict"]["status"] == "INVALID" else code)
    if code == 5 and returned != 4:
        assert level["verdict"]["status"] == "INCONCLUSIVE"
        assert [reason["code"] for reason in level["verdict"]["reasons"]] == ["undecided"]
    for one in level["objectives"]:
        assert (
            f"{'gate' if one['gate'] else 'objective'} {one['rule']}".replace("<", r"\<")
            .replace(">", r"\>")
            .replace("_", r"\_")
            in report
        )


def test_invalid_measurement_comes_before_a_failed_gate(tmp_path):
    """4, and not 3: figures that cannot be believed decide nothing. Here arrivals could not be sent."""
    rate = ("--rate", "200", "--max-in-flight", "1", "--duration", "1s", "--warm-up", "0s", "--max-tokens", "8")
    done = loadbench("sweep", *rate, "--fail-on", "e2e_p50<1us", "--json", cwd=tmp_path)
    (level,) = json.loads(done.stdout)["levels"]
    assert level["missed"] > 0
    assert [one["decision"] for one in level["objectives"]] == ["FAIL"]
    assert (level["verdict"]["status"], done.returncode) == ("INVALID", 4)


def test_goodput_is_kept_and_shown(server, tmp_path):
    """In run.json and as a column, with the scenario's rules beside."""
    _, document, report = swept(server, tmp_path, "--requests", "20", "--slo", "ttft_p95<9s", "--slo", "failures<1%")
    (level,) = document["levels"]
    good = level["goodput"]
    assert (good["good"], good["arrivals"], good["attainment"]) == (20, 20, 1.0)
    assert good["requests_per_s"] == pytest.approx(20 / level["window_s"])
    assert document["scenario"]["slo"]["objectives"] == ["ttft_p95<9s", "failures<1%"]
    assert "goodput" in report


@pytest.mark.parametrize("workers", ["1", "2"])
def test_abort_ends_the_level_and_the_models_sweep(workers, server, tmp_path):
    """Long before its minute is over, with 4; the second level is not run, whoever makes the load."""
    arguments = ("--users", "2,4", "--duration", "60s", "--abort-on", "ttft_p50>1us", "--workers", workers)
    returned, document, report = swept(server, tmp_path, *arguments)
    (level,) = document["levels"]
    codes = {reason["code"]: reason["message"] for reason in level["verdict"]["reasons"]}
    assert "ttft_p50>1us" in codes["aborted"]
    assert level["window_s"] < 50
    assert level["outcomes"]["ok"] > 0
    assert (returned, document["complete"]) == (4, True)
    assert "the level was aborted by" in report
