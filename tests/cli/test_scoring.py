"""Who is asked to answer and to judge, what of a run's own answers counts, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest

from loadbench.sim.process import SimProcess
from tests.cli.echoing import installed
from tests.cli.judge import judging
from tests.cli.test_score import PROMPTS, rate
from tests.cli.typed import typed as loadbench
from tests.foundry.fakes import Fake, serving, write_cache

STOPS = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture
def folder(tmp_path):
    """A folder with the prompts in it."""
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS), encoding="utf-8")
    return tmp_path


def answers(path) -> list[dict]:
    """Those in an annotation."""
    return json.loads(path.read_text(encoding="utf-8"))["answers"]


def stub(folder, *arguments: str) -> list[dict]:
    """The answers that a stub collects."""
    done = loadbench("score", "stub", *arguments, "--to", "made.json", "--force", cwd=folder)
    assert done.returncode == 0, done.stderr
    return answers(folder / "made.json")


def measured(folder, *arguments: str):
    """The folder of a short run, just made."""
    done = loadbench("workshop", *arguments, "--rounds", "1", "--max-tokens", "3", "--quiet", cwd=folder)
    assert done.returncode in {0, 4}, done.stderr
    return max((folder / "results").iterdir())


def test_the_model_of_an_adapter_is_asked_and_no_other(folder):
    """By itself, and as the model of a run: never the simulated server in its place.

    Seen to fail when a run's adapter was not among what a stub takes from it: the simulated server answered.
    """
    with installed():
        alone = stub(folder, "--adapter", "echo:mine", "--prompts", "prompts.json")
        run = measured(folder, "--adapter", "echo:mine", "--prompts", "prompts.json")
        of_run = stub(folder, str(run))
    assert [(one["model"], one["answer"].strip()) for one in alone] == [
        ("mine", "What is a river?"),
        ("mine", "Name a colour."),
    ]
    assert [one["answer"].split() for one in of_run] == [["What", "is", "a"], ["Name", "a", "colour."]]


def test_foundry_local_is_asked_by_aliases_and_loads_what_is_asked(folder):
    """As a sweep does: a chat there wants the full id, and a model that is loaded."""
    fake = Fake("foundry-2.x")
    (folder / "cache").mkdir()
    write_cache(folder / "cache", fake)
    with serving(fake):
        (first, _) = stub(folder, "--url", fake.url, "--model", "nano", "--prompts", "prompts.json")
    assert (first["model"], first["failure"]) == ("nano-generic-cpu:1", "")
    assert fake.loaded == {"nano-generic-cpu:1"}


def test_kept_answers_are_taken_only_where_they_were_asked_in_the_same_way(folder):
    """A longer answer than the run asked for is asked for now, and so is one under another system message."""
    with SimProcess(speed=4.0, models=("alpha",)) as process:
        named = ("--url", process.url, "--model", "alpha", "--prompts", "prompts.json")
        run = measured(folder, *named, "--deterministic", "--keep-texts")
        before = process_requests(run)
        same = stub(folder, str(run))
        longer = stub(folder, str(run), "--max-tokens", "7")
    assert [len(one["answer"].split()) for one in same] == [3, 3]
    assert {one["answer_hash"] for one in same} == before
    assert [len(one["answer"].split()) for one in longer] == [7, 7]


def process_requests(run) -> set[str]:
    """The digests of a run's answers."""
    lines = (run / "requests.jsonl").read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["answer_hash"] for line in lines}


def test_another_server_is_shown_no_key_of_the_runs(folder):
    """A judge's server is asked without the key that was meant for the run's, and so is a stub's other server."""
    with SimProcess(speed=4.0, models=("alpha",)) as process:
        named = ("--url", process.url, "--model", "alpha", "--prompts", "prompts.json")
        done = loadbench(
            "workshop", *named, "--api-key-env", "THEIRS", "--rounds", "1", "--max-tokens", "3", "--quiet",
            cwd=folder, THEIRS="secret-of-a",
        )  # fmt: skip
        assert done.returncode in {0, 4}, done.stderr
        (run,) = (folder / "results").iterdir()
        assert loadbench("score", "stub", str(run), cwd=folder, THEIRS="secret-of-a").returncode == 0
    with judging(lambda prompt, _: rate(prompt) if "scores" in prompt else "Water.") as (url, asked):
        done = loadbench(
            "score", "judge", str(run), "--judge-model", "judge-1", "--judge-url", url, cwd=folder, THEIRS="secret-of-a"
        )
        assert done.returncode == 0, done.stderr
        other = ("score", "stub", str(run), "--url", url, "--model", "judge-1", "--to", "other.json")
        assert loadbench(*other, cwd=folder, THEIRS="secret-of-a").returncode == 0
    assert len(asked) == 4
    assert {head["authorization"] for head in asked.headers} == {None}


def test_a_judge_that_is_one_of_the_judged_is_warned_of(folder):
    """Before it is asked, and beside its scores wherever they are shown."""
    with judging(lambda prompt, _: rate(prompt) if "scores" in prompt else "Water.") as (url, _):
        run = measured(folder, "--url", url, "--model", "judge-1", "--prompts", "prompts.json")
        done = loadbench("score", "judge", str(run), "--judge-model", "judge-1", cwd=folder)
    assert done.returncode == 0, done.stderr
    warning = "judge-1 rates its own responses"
    assert done.stderr.index(f"warning: {warning}") < done.stderr.index("judge judge-1: response 1 of 2")
    assert warning in done.stdout
    assert warning in loadbench("report", str(run), cwd=folder).stdout


def test_a_stub_checks_its_file_before_it_collects(folder):
    """No request is sent for answers that could not be kept."""
    arguments = ("--url", "http://127.0.0.1:9", "--prompts", "prompts.json", "--force")
    for path, reason in (("gone/a.json", "there is no folder gone"), (".", "is a folder")):
        done = loadbench("score", "stub", *arguments, "--to", path, cwd=folder)
        assert (done.returncode, f"--to {path}: {reason}" in done.stderr) == (2, True)


@STOPS
def test_a_stub_that_is_stopped_keeps_what_had_come(folder):
    """130, the answers so far, marked as not all; a judge says that it rates no more than these."""

    def reply(prompt: str, number: int) -> str:
        if "colour" in prompt and "scores" not in prompt:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(9)  # nobody waits for what it says then
        return rate(prompt) if "scores" in prompt else "Water."

    with judging(reply) as (url, _):
        with_prompts = ("--url", url, "--model", "judge-1", "--prompts", "prompts.json")
        done = loadbench("score", "stub", *with_prompts, "--to", "annotation.json", cwd=folder)
    assert done.returncode == 130
    assert "stopped before all responses had come" in done.stderr
    made = json.loads((folder / "annotation.json").read_text(encoding="utf-8"))
    assert (made["complete"], [one["answer"] for one in made["answers"]]) == (False, ["Water."])


@STOPS
def test_a_judge_that_is_stopped_keeps_its_scores_and_those_before(folder):
    """130; what was rated is in quality.json, and what the same judge had said before of the rest still stands."""
    score, stop = 2, False

    def reply(prompt: str, _: int) -> str:
        if stop and "colour" in prompt:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(9)  # nobody waits for what it says then
        return rate(prompt, score=score) if "scores" in prompt else "Water."

    with judging(reply) as (url, _):
        run = measured(folder, "--url", url, "--model", "judge-1", "--prompts", "prompts.json")
        judge = ("score", "judge", str(run), "--judge-model", "judge-1", "--judge-url", url)
        assert loadbench(*judge, cwd=folder).returncode == 0
        score, stop = 5, True
        done = loadbench(*judge, cwd=folder)
    assert (done.returncode, "what was rated is kept" in done.stderr) == (130, True)
    quality = json.loads((run / "quality.json").read_text(encoding="utf-8"))
    assert {(one["prompt"], one["score"]) for one in quality["ratings"]} == {(0, 5), (1, 2)}
    assert len(quality["checks"]) == 2
