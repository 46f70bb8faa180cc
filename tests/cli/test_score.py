"""Scores from outside: a stub, its reading, a judge that is scripted, and the selection over them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from loadbench.core.errors import ExitCode
from loadbench.sim.process import SimProcess
from tests.cli.judge import judging
from tests.cli.typed import typed as loadbench

ROOT = Path(__file__).parents[2]
PROMPTS = [
    "What is a river?",
    {"prompt": "Name a colour.", "facets": ["blue", {"facet": "any word", "pattern": "[a-z]+"}, {"facet": "style"}]},
]


@pytest.fixture(scope="module")
def server():
    """A simulated server, faster than most, that has two models."""
    with SimProcess(speed=4.0, models=("alpha", "beta")) as process:
        yield process.url


@pytest.fixture(scope="module")
def measured(server, tmp_path_factory):
    """(folder to work in, the run's folder): two models, two prompts."""
    path = tmp_path_factory.mktemp("scored")
    (path / "prompts.json").write_text(json.dumps(PROMPTS), encoding="utf-8")
    done = loadbench(
        "workshop", "--url", server, "--model", "alpha", "--model", "beta", "--prompts", "prompts.json",
        "--rounds", "3", "--max-tokens", "8", "--quiet", cwd=path,
    )  # fmt: skip
    assert done.returncode in {0, 4}, done.stderr
    (made,) = (path / "results").iterdir()
    return path, made


@pytest.fixture
def run(measured):
    """(folder to work in, the run's folder), without what earlier tests left."""
    path, made = measured
    for name in ("annotation.json", "quality.json"):
        (made / name).unlink(missing_ok=True)
    return path, made


def stub(path, made) -> dict:
    """The annotation of the run."""
    done = loadbench("score", "stub", str(made), cwd=path)
    assert done.returncode == 0, done.stderr
    return json.loads((made / "annotation.json").read_text(encoding="utf-8"))


def filled(path, made, *, score: int = 4, **over: object) -> None:
    """The annotation with the same score everywhere."""
    document = {**stub(path, made), **over}
    for answer in document["answers"]:
        answer["scores"] = dict.fromkeys(answer["scores"], score)
    (made / "annotation.json").write_text(json.dumps(document), encoding="utf-8")


def rate(prompt: str, *, score: int = 4) -> str:
    """A judge's good reply: this score for every facet that it was asked for."""
    shape = prompt[prompt.rindex('{"scores"') :]
    facets = re.findall(r'"([^"]+)": N', shape)
    return json.dumps({"scores": dict.fromkeys(facets, score), "reason": "fine"})


def test_stub_has_every_answer_with_room_for_scores(run):
    """Each model's answer to each prompt, its facets null, what was expected looked for."""
    document = stub(*run)
    assert [(answer["model"], answer["prompt"]) for answer in document["answers"]] == [
        ("alpha", 0),
        ("alpha", 1),
        ("beta", 0),
        ("beta", 1),
    ]
    second = document["answers"][1]
    assert len(second["answer"].split()) == 8
    assert second["scores"] == dict.fromkeys(["coherence", "factuality", "brevity", "blue", "any word", "style"])
    assert second["checks"] == {"blue": False, "any word": True}


def test_stub_never_writes_over_scores(run):
    """A file that is there is refused, and replaced only by --force."""
    path, made = run
    filled(path, made)
    assert loadbench("score", "stub", str(made), cwd=path).returncode == 2
    assert '"brevity":4' in (made / "annotation.json").read_text(encoding="utf-8").replace(" ", "")
    (made / "annotation.json").chmod(0o600)
    assert loadbench("score", "stub", str(made), "--force", cwd=path).returncode == 0
    assert sys.platform == "win32" or (made / "annotation.json").stat().st_mode & 0o777 == 0o600
    assert '"brevity": null' in (made / "annotation.json").read_text(encoding="utf-8")


def test_stub_needs_no_run(server, run):
    """Prompts, a server and models are enough."""
    path, _ = run
    done = loadbench(
        "score", "stub", "--url", server, "--model", "alpha", "--prompts", "prompts.json", "--to", "mine.json",
        "--max-tokens", "4", cwd=path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = json.loads((path / "mine.json").read_text(encoding="utf-8"))["answers"]
    assert [len(answer["answer"].split()) for answer in answers] == [4, 4]


def test_scores_are_read_back_beside_the_speed(run):
    """They are kept in the run's folder, and every report of the run shows them."""
    path, made = run
    filled(path, made, score=4, rater="ann")
    done = loadbench("score", "read", str(made / "annotation.json"), cwd=path)
    assert done.returncode == 0, done.stderr
    quality = json.loads((made / "quality.json").read_text(encoding="utf-8"))
    assert {(one["rater"], one["score"]) for one in quality["ratings"]} == {("ann", 4)}
    for shown in (
        loadbench("report", str(made), cwd=path).stdout,
        loadbench("report", str(made), "--format", "markdown", cwd=path).stdout,
        (made / "report.md").read_text(encoding="utf-8"),
    ):
        (row,) = [line for line in shown.splitlines() if "alpha" in line and "ann" in line]
        assert row.split()[-1 if "|" not in row else -2] == "1/2"
        assert "4.00" in row


@pytest.mark.parametrize("named", ["last", "{made}"])
def test_form_of_a_run_is_read_by_the_name_of_the_run(run, named):
    """As everywhere: the folder, or `last`."""
    path, made = run
    filled(path, made, score=4, rater="ann")
    done = loadbench("score", "read", named.format(made=made), cwd=path)
    assert done.returncode == 0, done.stderr
    assert "ann" in done.stdout


@pytest.mark.parametrize(
    ("mend", "says"),
    [
        (lambda one: one["scores"].update(brevity=6), r"answers\[1\] \(alpha, prompt 1\): brevity: found 6"),
        (lambda one: one["scores"].update(brevity=0), "brevity: found 0"),
        (lambda one: one["scores"].update(brevity=3.5), r"answers\[1\]\.scores|answers\[\.\.\.\]\.scores"),
        (lambda one: one["scores"].update(brevity="good"), r"scores"),
        (lambda one: one.update(answer="A better answer."), "the response text was changed"),
        (lambda one: one.pop("scores"), "missing required field `scores`"),
    ],
)
def test_score_that_is_none_is_told_with_its_place(run, mend, says):
    """File, answer and facet; nothing is kept."""
    path, made = run
    document = stub(path, made)
    document["answers"][0]["scores"]["brevity"] = 3
    mend(document["answers"][1])
    (made / "annotation.json").write_text(json.dumps(document), encoding="utf-8")
    done = loadbench("score", "read", str(made / "annotation.json"), cwd=path)
    assert done.returncode == 2
    assert re.search(says, done.stderr)
    assert "Traceback" not in done.stderr
    assert not (made / "quality.json").exists()


def test_file_without_scores_is_told(run):
    """An untouched stub has nothing to read."""
    path, made = run
    stub(path, made)
    done = loadbench("score", "read", str(made / "annotation.json"), cwd=path)
    assert (done.returncode, "has no score" in done.stderr) == (2, True)


def test_judge_is_asked_again_once_after_a_bad_reply(run):
    """What was no JSON is told to it; the second reply counts, and every answer is rated."""
    path, made = run
    stub(path, made)
    with judging(lambda prompt, number: "It is good." if number == 0 else rate(prompt)) as (url, asked):
        done = loadbench("score", "judge", str(made), "--judge-model", "judge-1", "--judge-url", url, cwd=path)
    assert done.returncode == 0, done.stderr
    assert len(asked) == 5
    assert "there is no JSON object in it" in asked[1]
    quality = json.loads((made / "quality.json").read_text(encoding="utf-8"))
    assert len(quality["ratings"]) == 2 * (3 + 6)
    assert {one["rater"] for one in quality["ratings"]} == {"judge judge-1"}
    assert quality["unrated"] == []


def test_judge_that_stays_bad_rates_nothing_of_that_answer(run):
    """Two bad replies are no rating, and told; the other answers are rated, and the exit code says 5."""
    path, made = run
    stub(path, made)
    with judging(lambda prompt, _: "No." if "Name a colour" in prompt else rate(prompt)) as (url, asked):
        done = loadbench("score", "judge", str(made), "--judge-model", "judge-1", "--judge-url", url, cwd=path)
    assert done.returncode == 5
    assert len(asked) == 6
    assert "not rated by judge judge-1: alpha, prompt 1: there is no JSON object in it" in done.stdout
    quality = json.loads((made / "quality.json").read_text(encoding="utf-8"))
    assert {one["prompt"] for one in quality["ratings"]} == {0}
    assert [one["prompt"] for one in quality["unrated"]] == [1, 1]
    assert len(quality["checks"]) == 4


def test_judge_that_is_none_is_an_error(run):
    """A model that never replies as asked has rated nothing: 6."""
    path, made = run
    stub(path, made)
    with judging(lambda *_: "No.") as (url, _):
        done = loadbench("score", "judge", str(made), "--judge-model", "judge-1", "--judge-url", url, cwd=path)
    assert done.returncode == 6
    assert "judge-1: rated no response" in done.stderr


def test_person_and_judge_stand_side_by_side(run):
    """Neither replaces the other, nor is there a mean of both; where they are far apart it is said."""
    path, made = run
    filled(path, made, score=2, rater="ann")
    assert loadbench("score", "read", str(made / "annotation.json"), cwd=path).returncode == 0
    with judging(lambda prompt, _: rate(prompt, score=5)) as (url, _):
        done = loadbench("score", "judge", str(made), "--judge-model", "judge-1", "--judge-url", url, cwd=path)
    assert done.returncode == 0, done.stderr
    raters = [line.split()[1:3] for line in done.stdout.splitlines() if line.startswith("alpha")]
    assert raters == [["ann", "2"], ["judge", "judge-1"]]
    assert "3.50" not in done.stdout
    assert "ann and judge judge-1: of 18 common scores 0 are equal, 0 differ by one, 18 by more" in done.stdout
    assert "raters disagree on alpha, prompt 0, coherence: ann 2, judge judge-1 5" in done.stdout


def test_two_judgings_are_two_raters(run):
    """The second asks for the facets the other way round, and is compared with the first."""
    path, made = run
    stub(path, made)
    with judging(lambda prompt, number: rate(prompt, score=3 if number < 4 else 4)) as (url, asked):
        done = loadbench(
            "score", "judge", str(made), "--judge-model", "judge-1", "--judge-url", url, "--judgings", "2", cwd=path
        )
    assert done.returncode == 0, done.stderr
    assert asked[0].index("- coherence") < asked[0].index("- brevity")
    assert asked[4].index("- coherence") > asked[4].index("- brevity")
    assert (
        "judge judge-1 and judge judge-1 (2): of 18 common scores 0 are equal, 18 differ by one, 0 by more"
        in done.stdout
    )


def test_judge_collects_what_no_stub_has(run):
    """Without an annotation the run's models are asked first, and what they said is kept for people too."""
    path, made = run
    with judging(lambda prompt, _: rate(prompt)) as (url, _):
        done = loadbench(
            "score", "judge", str(made), "--judge-model", "judge-1", "--judge-url", url, "--json", cwd=path
        )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["ratings"]) == 18
    assert (made / "annotation.json").exists()


def test_selection_puts_quality_beside_speed(run):
    """The judge's scores, the facets found and the file's facts in one table, with the weights stated."""
    path, made = run
    filled(path, made)
    assert loadbench("score", "read", str(made / "annotation.json"), cwd=path).returncode == 0
    facts = {"alpha": {"size_mb": 500, "license": "MIT"}, "beta": {"size_mb": 5000, "license": "Apache-2.0"}}
    (path / "models.json").write_text(json.dumps(facts), encoding="utf-8")
    # A busy machine may delay the load generator, which is not what is tested here.
    document_of_run = json.loads((made / "run.json").read_text(encoding="utf-8"))
    for level in document_of_run["levels"]:
        level["verdict"] = {"status": "VALID", "reasons": []}
    (made / "run.json").write_text(json.dumps(document_of_run), encoding="utf-8")
    arguments = ("select", str(made), "--models", "models.json", "--weight", "resources=50")
    done = loadbench(*arguments, cwd=path)
    assert done.returncode == 0, done.stderr
    alpha = next(line for line in done.stdout.splitlines() if line.startswith("alpha"))
    assert "477 MiB" in alpha
    assert "MIT" in alpha
    assert "1/2" in alpha
    assert "recommended: alpha" in done.stdout
    assert "disk 94 %" in done.stdout
    assert "load (of none)" in done.stdout
    document = json.loads(loadbench(*arguments, "--format", "json", cwd=path).stdout)
    assert document["recommended"] == "alpha"
    assert {model["model"]: model["figures"]["quality"]["value"] for model in document["models"]} == {
        "alpha": 4.0,
        "beta": 4.0,
    }
    refused = loadbench(*arguments, "--min-quality", "4.5", cwd=path)
    assert refused.returncode == ExitCode.GATE_FAILED
    assert "alpha: not ranked: rated 4.00, and --min-quality is 4.5" in refused.stdout
    for level in document_of_run["levels"]:
        level["verdict"] = {"status": "INVALID", "reasons": [{"code": "x", "message": "no", "advice": ""}]}
    (made / "run.json").write_text(json.dumps(document_of_run), encoding="utf-8")
    invalid = loadbench(*arguments, cwd=path)
    assert invalid.returncode == ExitCode.INVALID
    assert "no recommendation" in invalid.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("score", "read", "nowhere.json"), "nowhere.json"),
        (("score", "stub", "nowhere"), "nowhere"),
        (("score", "stub"), "there are no given prompts"),
        (("score", "judge", "nowhere", "--judge-model", "x"), "nowhere"),
        (("select",), "no run given"),
        (("select", "nowhere"), "nowhere"),
        (("select", "{run}", "--weight", "latency=-1"), "want a number from 0 on"),
        (("select", "{run}", "--weight", "charm=1"), "an unknown dimension"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(arguments, says, tmp_path):
    """Exit code 2, the place, no traceback."""
    run = next((ROOT / "results").glob("*-8slots"))
    done = loadbench(*(one.format(run=run) for one in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
