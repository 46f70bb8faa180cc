"""The workshop's benchmark against a real engine: its counts, its repeated answers, its scores."""

from __future__ import annotations

import json

import pytest

from tests.cli.typed import typed
from tests.llamacpp.test_real_engine import counters

pytestmark = pytest.mark.engine

PROMPTS = ["What is a river?", "Explain retrieval augmented generation briefly.", "Name three colours."]


@pytest.fixture(scope="module")
def benched(llamacpp, tmp_path_factory):
    """(folder to work in, the printed results, the run's folder): three rounds of three prompts, deterministic."""
    path = tmp_path_factory.mktemp("benched")
    (path / "prompts.json").write_text(json.dumps(PROMPTS), encoding="utf-8")
    done = typed(
        "workshop", "--url", llamacpp(), "--prompts", "prompts.json", "--max-tokens", "16", "--deterministic",
        "--keep-texts", "--shape", "notebook", "--json", "--quiet", cwd=path,
    )  # fmt: skip
    # 4: a busy machine made the level invalid, which says nothing of the counts.
    assert done.returncode in {0, 4}, done.stderr
    (folder,) = (path / "results").iterdir()
    return path, json.loads(done.stdout), folder


def test_counts_are_the_engines(benched):
    """Nine rounds answered; prompt and completion tokens are those that the engine reported, request by request."""
    _, (row,), folder = benched
    lines = [json.loads(line) for line in (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (row["status"], row["rounds_ok"], row["configured_rounds"]) == ("ok", 9, 9)
    assert {line["token_source"] for line in lines} == {"usage"}
    assert row["completion_tokens_total"] == sum(line["output_tokens"] for line in lines)
    assert row["prompt_tokens_total"] == sum(line["input_tokens"] for line in lines)
    assert row["latency_min_s"] <= row["latency_avg_s"] <= row["latency_max_s"]
    assert row["latency_p95_s"] <= row["latency_max_s"]


def test_quiet_engine_repeats_itself(benched):
    """At temperature 0, one request at a time, each prompt has one answer, round after round."""
    _, _, folder = benched
    outputs = json.loads((folder / "run.json").read_text(encoding="utf-8"))["outputs"]
    assert [(one["prompt"], one["answers"], one["distinct"]) for one in outputs] == [(0, 3, 1), (1, 3, 1), (2, 3, 1)]


def test_answers_under_load_are_compared_with_the_quiet_ones(benched, llamacpp):
    """Every answer of one user and of four is in the comparison, and the report says equal or where they differ."""
    path, _, _ = benched
    done = typed(
        "sweep", "--url", llamacpp(), "--prompts", "prompts.json", "--max-tokens", "16", "--deterministic",
        "--users", "1,4", "--requests", "12", "--warm-up", "0", "--name", "load", "--json", "--quiet", cwd=path,
    )  # fmt: skip
    assert done.returncode in {0, 4, 5}, done.stderr
    run = json.loads(done.stdout)
    assert sum(one["answers"] for one in run["outputs"]) == 24
    for one in run["outputs"]:
        assert (one["distinct"] == 1) == (one["first_difference"] is None)
        # One user came first: what differs, if anything does, differs under load.
        assert one["first_difference"] is None or one["first_difference"][0] == 1


def test_kept_answers_are_those_to_be_rated(benched, llamacpp):
    """A stub of a deterministic run that kept its texts takes them, and has the engine make no token."""
    path, _, folder = benched
    before = counters(llamacpp())
    done = typed("score", "stub", str(folder), cwd=path)
    assert done.returncode == 0, done.stderr
    assert counters(llamacpp()) == before
    answers = json.loads((folder / "annotation.json").read_text(encoding="utf-8"))["answers"]
    lines = [json.loads(line) for line in (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {answer["answer"] for answer in answers} == {line["answer"] for line in lines}
