"""run.json: read as written, and as its schema says."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Open
from loadbench.record.outcome import Outcome
from loadbench.report.formats import schema_text
from loadbench.results import run as run_module
from loadbench.results.run import ModelStatus, Run, to_json
from tests.building import MS, a_failure, a_level, a_recording, a_run, a_sample
from tests.report.golden import json_schema

RUNS = {
    "quiet": a_run(),
    "open loop": a_run(a_level(load=Open(0.5, parse_arrivals("gamma:2")))),
    "no answers": a_run(a_level([a_failure(Outcome.RESET, detail="gone")])),
    "nothing at all": a_run(a_level([])),
    "stopped": a_run(a_level(recording=a_recording([a_sample()], interrupted=True)), complete=False),
    "no levels": msgspec.structs.replace(a_run(simulated=True), levels=[], models=[ModelStatus("m", "failed", "no")]),
    "strange names": msgspec.structs.replace(a_run(), name='</script>"\x1b[31m\n\u2028', question="?"),
}


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    """The schema that ships, checked against its own schema."""
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_run_is_read_as_written(run):
    """Nothing is lost or rounded on the way into the file and back."""
    assert msgspec.json.decode(to_json(run), type=Run) == run


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_run_is_as_its_schema_says(run, validator):
    """Every run validates, whatever happened in it."""
    assert list(validator.iter_errors(json.loads(to_json(run)))) == []


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("schema",), "loadbench.run/2"),
        (("complete",), None),
        (("levels", 0, "load", "users"), "eight"),
        (("levels", 0, "load", "kind"), "half open"),
        (("levels", 0, "verdict", "status"), "PERHAPS"),
        (("levels", 0, "metrics", "ttft_s", "p50"), None),
        (("levels", 0, "metrics", "ttft_s", "interval", "p50"), [1.0]),
    ],
)
def test_schema_refuses_what_is_no_run(where, value, validator):
    """A wrong version, kind or type does not validate."""
    document = json.loads(to_json(a_run()))
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    assert where[-1] in inner
    inner[where[-1]] = value
    assert list(validator.iter_errors(document))


def test_shipped_schema_is_that_of_the_types():
    """The file in the package says what the types say; write it anew when they change."""
    shipped = Path(run_module.__file__).with_name("run.schema.json").read_text(encoding="utf-8")
    assert shipped == schema_text()
    assert json.loads(shipped) == json_schema()
    described = [one["description"] for one in json_schema()["$defs"].values()]
    # Python 3.13 strips the indentation of docstrings, and earlier ones do not: the schema has none.
    assert not any(text.startswith(" ") for description in described for text in description.splitlines())


def test_names_of_the_contract_are_there():
    """What people script against, by its names."""
    document = json.loads(to_json(a_run()))
    assert document["schema"] == "loadbench.run/1"
    top = {"name", "started_at", "loadbench_version", "simulated", "complete", "scenario", "environment", "levels"}
    assert top <= set(document)
    level = document["levels"][0]
    assert {"target", "model", "load", "window_s", "verdict", "outcomes", "offered_per_s", "achieved_per_s"} <= set(
        level
    )
    assert {"missed", "throughput", "concurrency", "goodput", "tokens", "client", "metrics"} <= set(level)
    assert {"ttft_s", "ttft_response_s", "ttfo_s", "ttfb_s", "e2e_s", "e2e_response_s"} <= set(level["metrics"])
    assert {"event_gap_s", "itl_s", "tpot_s"} <= set(level["metrics"])
    points = {"count", "mean", "min", "max", "p50", "p90", "p95", "p99", "p999", "interval", "hdr"}
    assert points <= set(level["metrics"]["ttft_s"])
    assert level["load"] == {"kind": "closed", "users": 1, "think": None}


def test_undefined_is_null():
    """A metric without a value, a quantile behind the failures: null, and never 0."""
    failed = json.loads(to_json(a_run(a_level([a_failure(Outcome.RESET)]))))["levels"][0]
    assert failed["metrics"]["ttft_s"] is None
    mixed = a_level([a_sample(0, ttft_ns=100 * MS), a_failure(Outcome.RESET, number=1)])
    ttft = json.loads(to_json(a_run(mixed)))["levels"][0]["metrics"]["ttft_s"]
    assert ttft["with_failures"]["p99"] is None
    assert ttft["interval"]["p99"] == [0.1, None]
    assert ttft["p99"] > 0


def test_file_ends_with_a_newline_and_is_indented():
    """It is read by people and by line tools too."""
    raw = to_json(a_run())
    assert raw.endswith(b"\n}\n")
    assert b'\n  "schema"' in raw
