"""A stronger source overrides a weaker one: what is then not used is listed, once, and recorded nowhere as in force."""

from __future__ import annotations

import json

import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.gate import parse_gate
from loadbench.plan.load import Open
from loadbench.plan.objective import parse_abort, parse_level_label, parse_objective
from loadbench.plan.scenario import NOT_USED
from loadbench.plan.settings import Origin, Source
from loadbench.plan.sources import resolve
from tests.cli.typed import typed


@pytest.fixture
def file(tmp_path):
    """A scenario of users, who are spread over a second."""
    path = tmp_path / "s.toml"
    path.write_text('[load]\nusers = [2, 3]\nramp = "1s"\nthink = "2s"\n[capacity]\nbudget = "9m"\n', encoding="utf-8")
    return path


def test_a_rate_overrides_a_files_users_and_what_is_theirs(file):
    """The list names each with its line and the flag; the record has neither their values nor an origin for them."""
    made = resolve(flags={"rate": "2"}, environment={}, file=file)
    assert [str(value) for value in made.unused] == [
        f"capacity.budget ({file}:6): has no effect in `loadbench sweep`",
        f"load.users ({file}:2): overridden by --rate",
        f"load.ramp ({file}:3): overridden by --rate",
        f"load.think ({file}:4): overridden by --rate",
    ]
    load, origins = made.effective()["load"], made.recorded_origins()
    assert [load[name] for name in ("users", "ramp", "think")] == [None, None, None]
    assert {origins[f"load.{name}"] for name in ("users", "ramp", "think")} == {NOT_USED}
    assert origins["load.rate"] == "flag --rate"
    assert "capacity" not in made.effective()


def test_a_search_takes_its_own_section_and_lists_the_load(file):
    """A search chooses its users itself; the users' think time is its own as well."""
    made = resolve(flags={}, environment={"LOADBENCH_DURATION": "9s"}, file=file, command="capacity")
    assert [str(value) for value in made.unused] == [
        "LOADBENCH_DURATION: capacity chooses how long each load is measured; see --budget",
        f"load.users ({file}:2): capacity chooses the load itself; see --at-most",
    ]
    assert (made.capacity.budget, str(made.load.think), made.load.ramp) == (540_000_000_000, "2s", 1_000_000_000)


def test_a_variable_of_two_settings_belongs_to_the_commands(tmp_path):
    """LOADBENCH_BUDGET is the time of a search, or that of a comparison."""
    variables = {"LOADBENCH_BUDGET": "7m"}
    assert resolve(flags={}, environment=variables, command="capacity").capacity.budget == 420_000_000_000
    assert resolve(flags={}, environment=variables, command="compare").compare.budget == 420_000_000_000


def test_what_is_not_used_is_told_by_the_plan_and_by_the_run(file, tmp_path):
    """The plan lists it; a run says it once on stderr, and run.json has no value for it."""
    dry = typed("sweep", str(file), "--rate=50", "--dry-run", "--verbose", cwd=tmp_path)
    assert f"not used: load.users ({file}:2): overridden by --rate" in dry.stdout
    assert "load.ramp  " not in dry.stdout
    run = typed("sweep", str(file), "--rate=50", "--requests=2", "--warm-up=0s", "--json", cwd=tmp_path)
    assert run.stderr.count(f"load.users ({file}:2)") == 1
    document = json.loads(run.stdout)
    assert (document["scenario"]["load"]["users"], document["origins"]["load.users"]) == (None, NOT_USED)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("capacity", "--users", "3"), "--users: capacity chooses the load itself; see --at-most"),
        (("capacity", "--concurrency=3"), "--concurrency: capacity chooses the load itself; see --at-most"),
        (("compare", "--keep-warm", "3s"), "--keep-warm: it would load the side that rests"),
        (("models", "--adapter", "echo:x"), "--adapter: an adapter is one model and has no list"),
        (("score", "stub", "--no-unique"), "--no-unique: each prompt is sent once, as it is"),
        (("sweep", "--rate", "2", "--ramp", "5s"), "--ramp: has no effect with --rate: an open loop has no users"),
        (("sweep", "--url", "http://h:1", "--profile", "small-gpu"), "--profile: has no effect with --url"),
        (("sweep", "--telemetry", "off", "--server-pid", "1"), "--server-pid: has no effect with --telemetry off"),
    ],
)
def test_a_flag_without_effect_is_refused_with_the_reason(arguments, message, tmp_path):
    """Exit code 2, the reason, and what to do instead."""
    done = typed(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert f"error: {message}" in done.stderr
    assert "hint: leave it out" in done.stderr


@pytest.mark.parametrize(
    ("flags", "variables", "unused"),
    [
        ({"max_tokens": "5"}, {"LOADBENCH_OUTPUT_TOKENS": "50"}, "LOADBENCH_OUTPUT_TOKENS: overridden by --max-tokens"),
        ({"output_tokens": "5"}, {"LOADBENCH_MAX_TOKENS": "50"}, "LOADBENCH_MAX_TOKENS: overridden by --output-tokens"),
        ({"profile": "small-gpu"}, {"LOADBENCH_URL": "http://h:1"}, "LOADBENCH_URL: overridden by --profile"),
        ({"url": "http://127.0.0.1:1"}, {"LOADBENCH_TELEMETRY": "off", "LOADBENCH_PAGE_INTERVAL": "1s"}, ""),
    ],
)
def test_of_two_that_exclude_each_other_the_stronger_wins(flags, variables, unused):
    """Whichever of them it is; what is not the cause is not blamed."""
    if unused:
        made = resolve(flags=flags, environment=variables)
        assert [str(unused) for unused in made.unused] == [unused]
        assert {key.partition(".")[2] for key in made.origins if made.is_set(key)} == set(flags)
    else:
        with pytest.raises(BadInput, match="LOADBENCH_PAGE_INTERVAL: has no effect with LOADBENCH_TELEMETRY off"):
            resolve(flags=flags, environment=variables)


def test_a_persona_that_nothing_names_is_listed(tmp_path):
    """With its line; the one that is named is not."""
    path = tmp_path / "s.toml"
    path.write_text('[personas.idle]\nturns = 2\n[personas.busy]\nthink = "1s"\n[work]\npersona = "busy"\n')
    (unused,) = resolve(flags={}, environment={}, file=path).unused
    assert str(unused) == f"personas.idle ({path}:1): no work.persona or work.mix names it"
    both = resolve(flags={"mix": ("busy,idle",)}, environment={}, file=path).unused
    assert [value.key for value in both] == ["work.persona"]


def test_an_unknown_flag_is_still_unknown(tmp_path):
    """It is named, with the nearest flag."""
    errors = typed("sweep", "--userz=3", cwd=tmp_path).stderr
    assert errors == "error: --userz: `loadbench sweep` has no such option\nhint: did you mean --users?\n"


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("users=8", "users=8"),
        ("rate=30/min", "rate=0.5"),
        ("rate = 0.5/s", "rate=0.5"),
        ("rate=0.50", "rate=0.5"),
        *[(Open(rate, parse_arrivals("constant")).label,) * 2 for rate in (1e-5, 1 / 3, 1e6, 123456789.0)],
    ],
)
def test_a_level_is_written_alike_in_every_rule(written, label):
    """Objectives, rules to abort, gates and `select --at` read the same label, and what a level prints as its own."""
    assert parse_level_label(written) == label
    assert parse_objective(f"ttft_p95<1s@{written}").at == label
    assert parse_abort(f"failures>20%@{written}").at == label
    assert parse_gate(f"failures>20%@{written}").at == label


def test_an_origin_is_written_as_before():
    """`run.json` keeps its strings."""
    assert str(Origin(Source.FLAG, "--users")) == "flag --users"
    assert str(Origin(Source.ENVIRONMENT, "LOADBENCH_USERS")) == "environment LOADBENCH_USERS"
    assert str(Origin(Source.SCENARIO, "s.toml:3", "load.users")) == "scenario s.toml:3: load.users"
    assert str(Origin(Source.COMMAND, "persona chat")) == "persona chat"
    assert str(Origin(Source.DEFAULT)) == "default"


def test_a_strong_setting_is_not_overridden_by_a_weak_one(tmp_path):
    """A flag that has no effect with what the file says is a mistake, not overridden."""
    path = tmp_path / "s.toml"
    path.write_text("[load]\nrate = 2\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"--ramp: has no effect with .*s.toml:2: load.rate"):
        resolve(flags={"ramp": "2s"}, environment={}, file=path)
