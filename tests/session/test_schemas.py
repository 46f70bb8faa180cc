"""The schema of each document: real documents are valid, also where no key may be unknown."""

from __future__ import annotations

import copy
import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from jsonschema import Draft202012Validator

from loadbench.cli.schema import NAMES
from loadbench.plan.settings import setting_of, settings
from loadbench.report.formats import schema_text
from loadbench.session.schemas import DOCUMENTS, document_schema, scenario_schema
from loadbench.sim.process import SimProcess
from tests.cli.typed import typed
from tests.settings.table import ROWS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"


def strict(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator that allows no key that the schema does not name."""
    closed = copy.deepcopy(schema)
    for definition in closed["$defs"].values():
        if "properties" in definition:
            definition["additionalProperties"] = False
    return Draft202012Validator(closed)


def checked(name: str, text: str | bytes) -> dict[str, Any]:
    """The document, valid by its schema with no unknown key."""
    document = json.loads(text)
    strict(document_schema(name)).validate(document)
    return document


def test_every_schema_is_one():
    """By the rules of JSON Schema, with the name of its document; the command has them all."""
    assert {*NAMES} == {*DOCUMENTS, "scenario"}
    for name in DOCUMENTS:
        schema = document_schema(name)
        Draft202012Validator.check_schema(schema)
        assert schema["title"] == f"loadbench.{name}/1"
        assert all(one["description"] for one in schema["$defs"].values())
    Draft202012Validator.check_schema(scenario_schema())


def test_the_schema_of_a_run_is_the_one_that_ships(tmp_path):
    """`report --schema` prints it too."""
    printed = typed("schema", cwd=tmp_path)
    assert (printed.returncode, printed.stdout) == (0, schema_text())
    assert typed("schema", "scenario", "--out", "s.json", cwd=tmp_path).stdout == ""
    assert json.loads((tmp_path / "s.json").read_text("utf-8")) == scenario_schema()


@pytest.mark.parametrize(
    "path", [*RESULTS.glob("*/capacity.json"), *RESULTS.glob("*/compare.json")], ids=lambda path: path.parent.name
)
def test_saved_answers_are_valid(path):
    """Those that are kept with the code."""
    checked(path.stem, path.read_bytes())


@pytest.mark.parametrize(
    "path",
    [*RESULTS.glob("*/run.json"), *RESULTS.glob("*/[ab]/1/run.json")],
    ids=lambda path: str(path.relative_to(RESULTS)),
)
def test_saved_runs_are_valid(path):
    """Likewise."""
    checked("run", path.read_bytes())


def test_what_commands_print_is_valid(tmp_path):
    """Of a server: its models, its check, a run, a comparison with a baseline, a rated form."""
    with SimProcess(speed=50.0) as server:
        at = ("--url", server.url)
        assert checked("models", typed("models", *at, "--json", cwd=tmp_path).stdout)["models"]
        assert checked("doctor", typed("doctor", *at, "--json", cwd=tmp_path).stdout)["simulated"] is False
        for name in ("before", "after"):
            short = ("--users", "1", "--requests", "3", "--warm-up", "0s", "--max-tokens", "2", "--prompt", "Hello.")
            run = checked(
                "run", typed("sweep", *at, *short, "--name", name, "--out", name, "--json", cwd=tmp_path).stdout
            )
            assert len(run["levels"]) == 1
        compared = typed("compare", "before", "after", "--json", "--save-baseline", "base.json", cwd=tmp_path)
        assert checked("compare", compared.stdout)["comparisons"] is not None
        assert checked("baseline", (tmp_path / "base.json").read_bytes())["runs"]
        typed("score", "stub", *at, "--prompt", "Hello.", "--to", "scores.json", cwd=tmp_path)
        checked("annotation", (tmp_path / "scores.json").read_bytes())
        text = (tmp_path / "scores.json").read_text("utf-8").replace("null", "4")
        (tmp_path / "scores.json").write_text(text, "utf-8")
        read = typed("score", "read", "scores.json", "--rater", "me", "--json", cwd=tmp_path)
        checked("quality", read.stdout)


@pytest.mark.slow
def test_what_searches_and_checks_print_is_valid(tmp_path):
    """A capacity search, and the check of this machine."""
    with SimProcess(speed=50.0) as server:
        search = ("--slo", "e2e_p95<9s", "--at-most", "2", "--budget", "3s", "--warm-up", "0s", "--max-tokens", "2")
        done = typed("capacity", "--url", server.url, *search, "--json", cwd=tmp_path)
        checked("capacity", done.stdout)
    done = typed("selfcheck", "--users", "2", "--budget", "2s", "--json", cwd=tmp_path)
    assert checked("selfcheck", done.stdout)["steps"] is not None


@pytest.mark.parametrize("path", sorted((ROOT / "scenarios").glob("*.toml")), ids=lambda path: path.name)
def test_the_scenarios_that_ship_are_valid(path):
    """As an editor sees them."""
    jsonschema.validate(tomllib.loads(path.read_text("utf-8")), scenario_schema())


@pytest.mark.parametrize("key", ROWS)
def test_no_schema_is_stricter_than_the_program(key):
    """What a file may hold for a setting, it may hold by the schema; what only the user can confirm is in no file."""
    setting = setting_of(key)
    of_section = scenario_schema()["properties"][setting.section]["properties"]
    if setting.confirms:
        assert setting.name not in of_section
        return
    value = ROWS[key].value
    for written in (value, *([list(value)] if isinstance(value, tuple) else [str(value)])):
        if not isinstance(written, tuple):
            jsonschema.validate(written, of_section[setting.name])
    assert of_section[setting.name]["description"] == setting.help


def test_a_mistake_in_a_scenario_is_seen():
    """An unknown section, an unknown key, a wrong type, a number out of its bounds."""
    validator = Draft202012Validator(scenario_schema())
    good = {"question": "How many?", "load": {"users": [1, 2], "duration": "5s"}, "personas": {"me": {"turns": 3}}}
    assert validator.is_valid(good)
    for wrong in (
        {"loads": {}},
        {"load": {"user": 1}},
        {"load": {"duration": 5}},
        {"work": {"seed": -1}},
        {"target": {"api": "chats"}},
        {"personas": {"me": {"age": 3}}},
        {"personas": {"me": {}}},
        {"question": 3},
    ):
        assert not validator.is_valid(wrong), wrong
    assert validator.is_valid({"load": {"concurrency": 4}, "target": {"models": ["a", "b"]}})
    assert {one.section for one in settings()} <= scenario_schema()["properties"].keys()
