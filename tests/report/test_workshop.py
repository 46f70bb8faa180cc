"""The workshop's files: its keys, its columns, right values."""

from __future__ import annotations

import csv
import io
import json

import msgspec
import pytest

from loadbench.analyze.level.workshop_stats import model_rounds
from loadbench.report.render_markdown import render_markdown
from loadbench.report.render_text import render_text
from loadbench.report.workshop import stable_json, workshop_csv, workshop_document, workshop_json
from loadbench.results.run import ModelFacts, ModelStatus, RecordedPrompt
from tests.analyze.asked import a_request
from tests.building import a_run

KEYS = {
    "script": ["alias", "latency_avg", "latency_p95", "tokens_per_sec_avg", "rounds", "first_token_latency_avg"],
    "sample": ["model", "rounds", "latency_avg", "latency_p95", "tokens_per_sec_avg", "sample"],
    "notebook": [
        "alias",
        "model_id",
        "latency_avg_s",
        "latency_min_s",
        "latency_max_s",
        "latency_p95_s",
        "tokens_per_sec_avg",
        "avg_prompt_tokens",
        "avg_completion_tokens",
        "avg_total_tokens",
        "prompt_tokens_total",
        "completion_tokens_total",
        "total_tokens_sum",
        "rounds_ok",
        "configured_rounds",
        "sample_output",
    ],
}


def a_bench(**over: object):
    """(run, its rounds, its requests): two models of which one could not be tested, three rounds of two prompts."""
    models = [
        ModelStatus("m", "ok", known=ModelFacts(alias="small")),
        ModelStatus("gone", "failed", "has no model 'gone' | <b>"),
    ]
    run = msgspec.structs.replace(
        a_run(),
        scenario={"load": {"requests": 6}, "work": {"max_tokens": 10, "temperature": 0.0, "seed": 0}},
        models=models,
        prompts=[RecordedPrompt(index=0, hash="00000000"), RecordedPrompt(index=1, hash="11111111")],
    )
    requests = [
        a_request(n, prompt_index=n % 2, e2e_s=1 + n / 10, answer_hash="ab"[n % 2] * 16, **over) for n in range(6)
    ]
    return run, model_rounds(run, requests), requests


@pytest.mark.parametrize("shape", KEYS)
def test_keys_are_those_of_the_workshop(shape):
    """All of them, in its order; besides there is the status, and the faulty figures under names that say so."""
    _, rows, _ = a_bench()
    first, second = json.loads(workshop_json(rows, shape))
    assert [key for key in first if not key.startswith("legacy_") and key != "status"] == KEYS[shape]
    assert sorted(key for key in first if key.startswith("legacy_")) == [
        "legacy_p95" + ("_s" if shape == "notebook" else ""),
        "legacy_total_tokens_per_sec",
    ]
    assert second == {KEYS[shape][0]: "gone", "status": "failed", "error": "has no model 'gone' | <b>"}


def test_values_are_right():
    """Seconds and output tokens; the faulty figures are higher, and nowhere else."""
    _, rows, _ = a_bench()
    record = json.loads(workshop_json(rows, "script"))[0]
    assert record["latency_avg"] == pytest.approx(1.25)
    assert record["latency_p95"] == 1.5
    assert record["first_token_latency_avg"] == pytest.approx(0.1)
    assert (record["alias"], record["rounds"], record["status"]) == ("small", 3, "ok")
    assert record["legacy_total_tokens_per_sec"] == pytest.approx(1.5 * record["tokens_per_sec_avg"])
    assert record["legacy_p95"] > 1.5
    notebook = json.loads(workshop_json(rows, "notebook"))[0]
    assert (notebook["rounds_ok"], notebook["configured_rounds"]) == (6, 6)
    assert (notebook["prompt_tokens_total"], notebook["completion_tokens_total"], notebook["total_tokens_sum"]) == (
        30,
        60,
        90,
    )


def test_first_token_can_be_left_out():
    """As the script leaves it out where it was not asked to stream."""
    run, rows, _ = a_bench()
    assert "first_token_latency_avg" not in json.loads(workshop_json(rows, "script", first_token=False))[0]
    assert "|               - |" in render_markdown(workshop_document(run, rows, first_token=False))


@pytest.mark.parametrize(("shape", "key", "letters"), [("sample", "sample", 160), ("notebook", "sample_output", 200)])
def test_sample_is_the_answers_beginning_on_one_line(shape, key, letters):
    """As long as the workshop's; null where the run kept no texts."""
    _, rows, _ = a_bench(answer="one\ntwo " + "x" * 300)
    sample = json.loads(workshop_json(rows, shape))[0][key]
    assert sample.startswith("one two x")
    assert len(sample) == letters
    _, rows, _ = a_bench()
    assert json.loads(workshop_json(rows, shape))[0][key] is None


def test_markdown_has_the_six_columns():
    """The exporter's names and digits, `-` for what is missing, and foreign text as text."""
    run, rows, _ = a_bench()
    lines = render_markdown(workshop_document(run, rows)).splitlines()
    (head,) = [line for line in lines if line.startswith("| Model")]
    names = [cell.strip() for cell in head.strip("|").split("|")]
    assert names == ["Model", "Avg Latency (s)", "p95 (s)", "Tokens/sec", "Rounds", "First Token (s)"]
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines if "|" in line
    }
    assert cells["small"] == ["1.25", "1.50", "8.2", "3", "0.10"]
    assert cells["gone"] == ["-", "-", "-", "3", "-"]
    assert "has no model 'gone' \\| \\<b\\>" in render_markdown(workshop_document(run, rows))
    assert "gone: failed: has no model 'gone'" in render_text(workshop_document(run, rows))


def test_csv_has_a_row_a_model():
    """The script's keys, unrounded; an unknown figure is an empty field, and no cell a formula."""
    run, _, requests = a_bench()
    models = [run.models[0], ModelStatus("=cmd()", "failed", "gone")]
    rows = model_rounds(msgspec.structs.replace(run, models=models), requests)
    first, second = csv.DictReader(io.StringIO(workshop_csv(rows)))
    assert list(first)[:6] == KEYS["script"]
    assert float(first["latency_avg"]) == pytest.approx(1.25)
    assert (second["alias"], second["latency_avg"], second["status"]) == ("'=cmd()", "", "failed")


def test_stable_file_says_nothing_of_when_and_where():
    """Two runs on other machines, at other times, less than a per cent apart, write the same bytes."""
    run, _, requests = a_bench()
    later = msgspec.structs.replace(run, started_at="2027-01-01T00:00:00.000Z", environment={"cpu": "another"})
    first, second = (
        [msgspec.structs.replace(one, last_token_ns=one.last_token_ns + shift_ns) for one in requests]
        for shift_ns in (20_000_000, 25_000_000)
    )
    assert stable_json(run, model_rounds(run, first), first) == stable_json(later, model_rounds(later, second), second)


def test_stable_file_changes_with_the_answers():
    """Another digest is another line; two answers to one prompt are both there."""
    run, rows, requests = a_bench()
    answers = json.loads(stable_json(run, rows, requests))["models"][0]["answers"]
    assert answers == [
        {"prompt": 0, "equal": True, "hashes": ["a" * 16], "tokens": [10]},
        {"prompt": 1, "equal": True, "hashes": ["b" * 16], "tokens": [10]},
    ]
    other = [*requests[:5], msgspec.structs.replace(requests[5], answer_hash="c" * 16)]
    answers = json.loads(stable_json(run, rows, other))["models"][0]["answers"]
    assert answers[1] == {"prompt": 1, "equal": False, "hashes": ["b" * 16, "c" * 16], "tokens": [10]}


def test_stable_file_is_made_of_a_run_that_was_killed():
    """Requests of a level that was not summed up are of no model that is known; the rest stands."""
    run, rows, requests = a_bench()
    beyond = [msgspec.structs.replace(one, level=len(run.levels), answer_hash="d" * 16) for one in requests]
    assert stable_json(run, rows, [*requests, *beyond]) == stable_json(run, rows, requests)


def test_nothing_measured_is_a_file_too():
    """No models, no rounds: empty, and readable."""
    run = msgspec.structs.replace(a_run(), models=[], levels=[])
    assert json.loads(workshop_json([], "script")) == []
    assert workshop_csv([]).strip() == ""
    assert json.loads(stable_json(run, [], []))["models"] == []
    assert "no model was measured" in render_markdown(workshop_document(run, []))
