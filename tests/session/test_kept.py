"""What a capacity search and a comparison keep: all that a sweep keeps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import answering, http
from tests.cli.typed import typed as loadbench

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

PROMPTS = ["What is a fjord?", "Name three rivers in Asia."]


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    """The folder of a short search of the simulated server, which has the model of a models file."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "mine.json").write_text(json.dumps({"tiny": {"size_mb": 77, "license": "MIT"}}), encoding="utf-8")
    (folder / "asked.json").write_text(json.dumps(PROMPTS), encoding="utf-8")
    ran = loadbench(
        *("capacity", "--slo", "e2e_p90<20s", "--at-most", "2", "--budget", "10s", "--max-tokens", "5"),
        *("--models", "mine.json", "--prompts", "asked.json", "--keep-texts", "--no-curve", "--think", "200ms"),
        cwd=folder,
        LOADBENCH_TELEMETRY="on",
        LOADBENCH_TELEMETRY_INTERVAL="100ms",
    )
    assert "Traceback" not in ran.stderr
    assert ran.returncode in {0, 3, 4, 5}, ran.stderr  # a busy machine may slow the load generator
    (run,) = (folder / "results").iterdir()
    return run


def read(run: Path) -> tuple[dict, list[dict]]:
    """run.json, and the requests of a run."""
    requests = [json.loads(line) for line in (run / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
    return json.loads((run / "run.json").read_text(encoding="utf-8")), requests


def test_a_search_keeps_the_texts(searched):
    """Prompts by index and text, and the text of each response."""
    run, requests = read(searched)
    assert [prompt["text"] for prompt in run["prompts"]] == PROMPTS
    measured = [request for request in requests if request["outcome"] == "ok"]
    assert measured
    assert all(request["answer"] for request in measured)
    assert {request["prompt_index"] for request in measured} == {0, 1}
    assert {request["prompt_hash"] for request in measured} == {prompt["hash"] for prompt in run["prompts"]}


def test_a_search_samples_the_machine(searched):
    """Each probe has telemetry, the readings are written, and the environment says what was sampled."""
    run, _ = read(searched)
    assert run["environment"]["telemetry"]
    assert run["environment"]["workers"] == 1
    assert run["levels"]
    assert all(level["telemetry"]["gauges"]["host_cpu_share"]["readings"] for level in run["levels"])
    assert (searched / "telemetry.jsonl").stat().st_size


def test_a_search_knows_its_model(searched):
    """The model of the file, with what the file says about it, and its cold and warm first token."""
    run, _ = read(searched)
    (model,) = run["models"]
    assert (model["model"], model["status"]) == ("tiny", "ok")
    assert (model["known"]["size_bytes"], model["known"]["license"]) == (77_000_000, "MIT")
    # Not above 0: a client that is held up after it wrote a request stamps it later than the response's arrival.
    assert model["cold_ttft_s"] is not None
    assert model["warm_ttft_s"] is not None


def test_a_search_obeys_workers_and_ramp(tmp_path):
    """Its probes run on worker processes, its users start over the ramp, and both are recorded as in force."""
    ran = loadbench(
        *("capacity", "--slo", "ttft_p90<20s", "--at-most", "3", "--budget", "8s", "--max-tokens", "4"),
        *("--workers", "2", "--ramp", "1500ms", "--think", "200ms", "--no-curve"),
        cwd=tmp_path,
    )
    assert "Traceback" not in ran.stderr
    (folder,) = (tmp_path / "results").iterdir()
    run, requests = read(folder)
    assert run["environment"]["workers"] == 2
    assert (run["scenario"]["load"]["workers"], run["scenario"]["load"]["ramp"]) == (2, "1.5s")
    first: dict[tuple[int, int], int] = {}
    for request in requests:
        first.setdefault((request["level"], request["user"]), request["due_ns"])
    begun: dict[int, list[int]] = {}
    for (level, _), due_ns in first.items():
        begun.setdefault(level, []).append(due_ns)
    for level, moments in begun.items():
        users = run["levels"][level]["load"]["users"]
        if len(moments) == users > 1:
            spread_s = (max(moments) - min(moments)) / 1e9
            assert spread_s == pytest.approx(1.5 * (users - 1) / users, abs=0.2)
    assert any(len(moments) > 1 for moments in begun.values())


def test_a_search_obeys_abort_rules(tmp_path):
    """A probe that an abort rule ends is kept as a level that says so, and does not pass."""
    ran = loadbench(
        *("capacity", "--slo", "e2e_p90<20s", "--at-most", "8", "--budget", "10s", "--max-tokens", "2"),
        *("--abort-on", "ttft_p50>100us", "--think", "100ms", "--no-curve"),
        cwd=tmp_path,
    )
    assert "Traceback" not in ran.stderr
    (folder,) = (tmp_path / "results").iterdir()
    run, _ = read(folder)
    reasons = [reason for level in run["levels"] for reason in level["verdict"]["reasons"]]
    aborted = [reason for reason in reasons if reason["code"] == "aborted"]
    assert aborted
    assert all("ttft_p50>100us" in reason["message"] for reason in aborted)
    found = json.loads((folder / "capacity.json").read_text(encoding="utf-8"))
    assert "PASS" not in {probe["decision"] for probe in found["probes"]}


def test_a_search_of_a_model_that_fails_is_kept_as_a_sweep_is(tmp_path):
    """A server that lists a model and does not answer it: 6, and a run that says why, from either command."""
    said = {}
    with answering(http("200 OK", '{"data": [{"id": "mute"}]}')) as url:
        for command in (("sweep",), ("capacity", "--slo", "e2e_p99<3s")):
            folder = tmp_path / command[0]
            folder.mkdir()
            ran = loadbench(*command, "--url", url, cwd=folder)
            assert (ran.returncode, "Traceback" in ran.stderr) == (6, False)
            (made,) = (folder / "results").iterdir()
            run, requests = read(made)
            assert (run["complete"], run["levels"], requests) == (False, [], [])
            said[command[0]] = [(model["model"], model["status"], model["reason"][:30]) for model in run["models"]]
    assert said["sweep"] == said["capacity"]
    assert said["sweep"][0][:2] == ("mute", "failed")


def test_each_side_of_a_comparison_keeps_the_first_tokens(tmp_path):
    """Every run of either side has its model's cold and warm first token, prompts and texts, as a sweep has."""
    (tmp_path / "asked.json").write_text(json.dumps(PROMPTS), encoding="utf-8")
    ran = loadbench(
        *("compare", "profile=small-gpu", "profile=slot-server", "--users", "2", "--duration", "300ms"),
        *("--warm-up", "100ms", "--settle", "0s", "--repeats", "2", "--max-tokens", "3", "--prompts", "asked.json"),
        "--keep-texts",
        cwd=tmp_path,
    )
    assert "Traceback" not in ran.stderr
    (comparison,) = (tmp_path / "results").iterdir()
    folders = [comparison / side / repeat for side in "ab" for repeat in ("01", "02")]
    for folder in folders:
        run, requests = read(folder)
        (model,) = run["models"]
        assert model["cold_ttft_s"] is not None
        assert model["warm_ttft_s"] is not None
        assert [prompt["text"] for prompt in run["prompts"]] == PROMPTS
        assert all(request["answer"] for request in requests if request["outcome"] == "ok")
