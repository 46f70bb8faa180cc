"""The workshop's benchmark from outside, against a simulated server over real sockets."""

from __future__ import annotations

import csv
import json
from itertools import pairwise

import jsonschema
import pytest

from loadbench.report.formats import schema_text
from loadbench.sim.process import SimProcess
from tests.cli.running import answering, http
from tests.cli.typed import typed as loadbench

PROMPTS = ["What is a river?", {"prompt": "Explain retrieval augmented generation briefly.", "facets": ["river"]}]
MODELS = {
    "alpha": {"capabilities": ["chat"], "size_mb": 528, "license": "Apache-2.0"},
    "beta": {"size_mb": 4100, "license": "MIT"},
}
# A busy machine may make a level invalid; that is told by 4, and is not what these tests are about.
DONE = {0, 4}


@pytest.fixture(scope="module")
def server():
    """A simulated server, faster than most, that has two models."""
    with SimProcess(speed=4.0, models=("alpha", "beta")) as process:
        yield process.url


@pytest.fixture
def files(tmp_path):
    """The folder with a set of models and a set of prompts in it."""
    (tmp_path / "models.json").write_text(json.dumps(MODELS), encoding="utf-8")
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS), encoding="utf-8")
    return tmp_path


def folder(path):
    """The run that was made."""
    (made,) = (path / "results").iterdir()
    return made


def bench(path, *arguments: str, **variables: str):
    """The command with short answers, and nothing but its results."""
    return loadbench("workshop", *arguments, "--max-tokens", "8", "--quiet", cwd=path, **variables)


def test_every_model_is_asked_every_prompt_in_every_round(server, files):
    """Two models, two prompts, three rounds: six measured requests each, one after another, each prompt thrice."""
    done = bench(files, "--url", server, "--models", "models.json", "--prompts", "prompts.json", "--json")
    assert done.returncode in DONE, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["alias"], row["status"], row["rounds"]) for row in rows] == [("alpha", "ok", 3), ("beta", "ok", 3)]
    made = folder(files)
    lines = [json.loads(line) for line in (made / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
    measured = [line for line in lines if line["phase"] == "measured"]
    assert sorted((line["level"], line["prompt_index"]) for line in measured) == [
        (level, prompt) for level in (0, 1) for prompt in (0, 1) for _ in range(3)
    ]
    assert len({line["prompt_hash"] for line in measured}) == 2
    for row, level in zip(rows, (0, 1), strict=True):
        latencies = [(line["last_token_ns"] - line["sent_ns"]) / 1e9 for line in measured if line["level"] == level]
        assert row["latency_avg"] == pytest.approx(sum(latencies) / 6)
        assert row["latency_p95"] == max(latencies)
        # A client that was held up may have both marks at one moment: such a round has no speed.
        speeds = [8 / latency for latency in latencies if latency > 0]
        assert row["tokens_per_sec_avg"] == pytest.approx(sum(speeds) / len(speeds))
    ends = sorted((line["sent_ns"], line["end_ns"]) for line in measured)
    assert all(end <= sent for (_, end), (sent, _) in pairwise(ends))


def test_run_folder_is_that_of_a_sweep_and_has_the_workshops_files(server, files):
    """run.json by its schema, with what is known of the models; the three files there, and where they were wanted."""
    done = bench(
        files, "--url", server, "--models", "models.json", "--rounds", "1",
        "--json-file", "a.json", "--output", "a.md", "--csv-file", "a.csv",
    )  # fmt: skip
    assert done.returncode in DONE, done.stderr
    made = folder(files)
    run = json.loads((made / "run.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(json.loads(schema_text())).validate(run)
    assert [status["known"]["size_bytes"] for status in run["models"]] == [528_000_000, 4_100_000_000]
    assert run["scenario"]["work"]["prompt"] == "Explain retrieval augmented generation briefly."
    for suffix in ("json", "md", "csv"):
        kept = (made / f"benchmark_report.{suffix}").read_bytes()
        assert kept == (files / f"a.{suffix}").read_bytes()
    (head,) = [line for line in (files / "a.md").read_text(encoding="utf-8").splitlines() if line.startswith("| Model")]
    assert [cell.strip() for cell in head.strip("|").split("|")][-1] == "First Token (s)"
    rows = csv.DictReader((files / "a.csv").read_text(encoding="utf-8").splitlines())
    assert [row["alias"] for row in rows] == ["alpha", "beta"]


def test_failing_model_is_skipped_and_told(server, files):
    """The others are measured; the file has its status and reason; the exit code says that one is missing."""
    done = bench(files, "--url", server, "--rounds", "1", "--json", BENCH_MODELS="nosuch, alpha")
    assert done.returncode == 6
    rows = {row["alias"]: row for row in json.loads(done.stdout)}
    assert rows["alpha"]["status"] == "ok"
    assert rows["nosuch"] == {"alias": "nosuch", "status": "failed", "error": rows["nosuch"]["error"]}
    assert "has no model 'nosuch'" in rows["nosuch"]["error"]


def test_all_failing_is_an_error(server, files):
    """Nothing measured: one clear message, and 6."""
    done = bench(files, "--url", server, "--model", "nosuch")
    assert done.returncode == 6
    assert "has no model 'nosuch'" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_variables_are_honoured(server, files):
    """Models, rounds, prompt and temperature from BENCH_…, the first token left out by BENCH_STREAM=0."""
    done = bench(
        files, "--url", server, "--json",
        BENCH_MODELS="beta", BENCH_ROUNDS="2", BENCH_PROMPT="Say hello.", BENCH_TEMPERATURE="0.7", BENCH_STREAM="0",
    )  # fmt: skip
    assert done.returncode in DONE, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["alias"], row["rounds"]) == ("beta", 2)
    assert "first_token_latency_avg" not in row
    run = json.loads((folder(files) / "run.json").read_text(encoding="utf-8"))
    assert (run["scenario"]["work"]["prompt"], run["scenario"]["work"]["temperature"]) == ("Say hello.", 0.7)
    assert run["origins"]["target.model"] == "environment BENCH_MODELS"


@pytest.mark.slow
def test_deterministic_benchmark_is_fit_for_version_control(server, files):
    """Run twice, the file is the same byte for byte but for the timings, and says that the answers were equal."""
    documents = []
    for name in ("one", "two"):
        done = bench(
            files, "--url", server, "--models", "models.json", "--prompts", "prompts.json",
            "--deterministic", "--shape", "stable", "--name", name, "--json",
        )  # fmt: skip
        assert done.returncode in DONE, done.stderr
        document = json.loads(done.stdout)
        for model in document["models"]:
            assert set(model.pop("timings")) == {
                "latency_avg",
                "latency_p95",
                "tokens_per_sec_avg",
                "first_token_latency_avg",
            }
        documents.append(document)
    first, second = documents
    assert first == second
    assert [answer["equal"] for model in first["models"] for answer in model["answers"]] == [True] * 4
    assert first["settings"]["temperature"] == 0.0


def test_texts_are_kept_only_when_asked_for(server, files):
    """No word of a prompt or an answer is in the folder, but for the prompt's own setting, until --keep-texts."""
    arguments = ("--url", server, "--model", "alpha", "--prompts", "prompts.json", "--rounds", "1", "--deterministic")
    assert bench(files, *arguments, "--name", "without").returncode in DONE
    assert bench(files, *arguments, "--name", "with", "--keep-texts").returncode in DONE
    made = {path.name.split("-", 1)[1]: path for path in (files / "results").iterdir()}
    without = b"".join(path.read_bytes() for path in made["without"].iterdir())
    assert b"What is a river?" not in without
    lines = [json.loads(line) for line in (made["with"] / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(len(line["answer"].split()) == 8 for line in lines)
    assert lines[0]["answer"].encode() not in without
    assert b'"text": "What is a river?"' in (made["with"] / "run.json").read_bytes()


@pytest.mark.slow
def test_equality_under_load_is_told(server, files):
    """One user against several, each prompt's answers compared with the first; the report says so in a line."""
    done = loadbench(
        "sweep", "--url", server, "--model", "alpha", "--prompts", "prompts.json", "--deterministic",
        "--users", "1,4", "--requests", "20", "--warm-up", "0", "--max-tokens", "8", "--quiet",
        cwd=files,
    )  # fmt: skip
    assert done.returncode in DONE, done.stderr
    assert "response texts: all 40 equal the first one to the same prompt (alpha)" in done.stdout
    run = json.loads((folder(files) / "run.json").read_text(encoding="utf-8"))
    assert [(one["prompt"], one["distinct"]) for one in run["outputs"]] == [(0, 1), (1, 1)]


@pytest.mark.slow
def test_workers_tell_of_prompts_and_answers_too(server, files):
    """What was asked and answered in another process is compared as well."""
    done = loadbench(
        "sweep", "--url", server, "--model", "alpha", "--prompts", "prompts.json", "--deterministic",
        "--users", "4", "--duration", "1s", "--warm-up", "0", "--max-tokens", "8", "--workers", "2", "--quiet",
        cwd=files,
    )  # fmt: skip
    assert done.returncode in DONE, done.stderr
    run = json.loads((folder(files) / "run.json").read_text(encoding="utf-8"))
    assert [(one["prompt"], one["distinct"]) for one in run["outputs"]] == [(0, 1), (1, 1)]
    text = (folder(files) / "requests.jsonl").read_text(encoding="utf-8")
    answered = [line for line in map(json.loads, text.splitlines()) if line["outcome"] == "ok"]
    assert sum(one["answers"] for one in run["outputs"]) == len(answered) > 1
    assert all(line["answer_hash"] and line["prompt_hash"] for line in answered)


def test_each_prompt_has_its_own_figures(server, files):
    """`report --by-prompt` has a row for each, by place and digest, and names the rule for outliers."""
    assert (
        bench(files, "--url", server, "--model", "alpha", "--prompts", "prompts.json", "--rounds", "6").returncode
        in DONE
    )
    done = loadbench("report", "--by-prompt", str(folder(files)), cwd=files)
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines() if line.split()[:1] in (["0"], ["1"])]
    assert [(row[0], row[2], row[3]) for row in rows] == [("0", "6", "6"), ("1", "6", "6")]
    assert "Iglewicz and Hoaglin" in done.stdout
    refused = loadbench("report", "--by-prompt", "--format", "csv", str(folder(files)), cwd=files)
    assert refused.returncode == 2


def test_any_run_can_be_exported(server, files):
    """A sweep's first level in the notebook's keys; what says how to measure is refused beside it."""
    sweep = loadbench(
        "sweep", "--url", server, "--model", "alpha", "--users", "1,2", "--requests", "5", "--warm-up", "0",
        "--max-tokens", "8", "--quiet", cwd=files,
    )  # fmt: skip
    assert sweep.returncode in DONE
    done = loadbench("workshop", "--from", str(folder(files)), "--shape", "notebook", "--json", cwd=files)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["model_id"], row["rounds_ok"]) == ("alpha", 5)
    refused = loadbench("workshop", "--from", str(folder(files)), "--rounds", "3", cwd=files)
    assert refused.returncode == 2


def test_simulated_server_answers_to_a_set_of_models(files):
    """Without a URL a set of models can be tried out, and the result says that it is simulated."""
    done = bench(files, "--models", "models.json", "--rounds", "1")
    assert done.returncode in DONE, done.stderr
    assert "simulated server, not a real one" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith(("alpha", "beta"))][:2] == [
        "alpha",
        "beta",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--models", "nowhere.json"), "cannot read the models in nowhere.json"),
        (("--models", "prompts.json"), "item 2 has no name"),
        (("--prompts", "nowhere.json"), "cannot read the prompts in nowhere.json"),
        (("--rounds", "0"), "--rounds: found 0"),
        (("--from", "nowhere"), "nowhere"),
        (("--models", "models.json", "--model", "x"), "exclude each other"),
        (("--deterministic", "--temperature", "1"), "exclude each other"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(arguments, says, files):
    """Exit code 2, the place, the remedy, no traceback."""
    done = bench(files, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_server_without_answers_fails_every_model(files):
    """Errors on every first question: each model with its reason in the message, and 6."""
    with answering(http("500 Internal Server Error", '{"error": {"message": "out of memory"}}')) as url:
        done = bench(files, "--url", url, "--models", "models.json")
    assert done.returncode == 6
    assert "out of memory" in done.stderr


@pytest.mark.parametrize(("flag", "path"), [("--json-file", "gone/a.json"), ("--output", "."), ("--csv-file", "x/y")])
@pytest.mark.parametrize("more", [("--dry-run", "--verbose"), ("--rounds", "1")])
def test_files_are_checked_before_anything_is_measured(tmp_path, flag, path, more):
    """Also in the dry run: no folder of results is made."""
    done = bench(tmp_path, flag, path, *more)
    assert (done.returncode, f"{flag} {path}: " in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def test_export_of_a_saved_run_lists_variables_without_effect_and_has_no_dry_run(tmp_path):
    """What says how to measure is not used; a dry run would write the files."""
    assert bench(tmp_path, "--rounds", "1").returncode in DONE
    run = str(folder(tmp_path))
    variables = {"LOADBENCH_PROMPT": "Hi.", "BENCH_ROUNDS": "4", "LOADBENCH_SHAPE": "stable"}
    done = loadbench("workshop", "--from", run, cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stderr.splitlines() if "not used" in line) == [
        "not used: BENCH_ROUNDS: a saved run is exported",
        "not used: LOADBENCH_PROMPT: a saved run is exported",
    ]
    refused = loadbench("workshop", "--from", run, "--dry-run", "--verbose", "--output", "a.md", cwd=tmp_path)
    assert (refused.returncode, "--dry-run: is for measuring" in refused.stderr) == (2, True)
    assert not (tmp_path / "a.md").exists()
