"""Settings of load and work that go together, and those that do not: nothing is ignored in silence."""

from __future__ import annotations

import re

import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.sources import resolve
from tests.plan.make_traces import AZURE_TRACE

TRACE = str(AZURE_TRACE)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"users": "2", "arrivals": "poisson"}, "--arrivals: has no effect with --users: users send their next"),
        ({"arrivals": "poisson"}, "--arrivals: has no effect: users send their next"),
        ({"rate": "2", "think": "1s"}, "--think: has no effect with --rate: only users think"),
        ({"users": "2", "pattern": "day"}, "--pattern: has no effect with --users: a pattern changes a rate"),
        ({"rate": "2", "turns": "3"}, "--turns: has no effect with --rate: a conversation continues"),
        (
            {"turns": "3", "api": "completions"},
            "--turns: has no effect with --api completions: the completions endpoint",
        ),
        (
            {"system": "Be brief.", "api": "completions"},
            "--system: has no effect with --api completions: the completions endpoint",
        ),
        ({"rate": "2", "time_scale": "60"}, "--time-scale: has no effect: there is no pattern and no trace"),
        ({"rate": "2", "pattern": "0s:1,100us:1", "time_scale": "1e6"}, "--time-scale: nothing is left of the pattern"),
        ({"rate": "2", "limit": "3"}, "--limit: has no effect: there is no trace"),
        ({"trace": TRACE, "requests": "3"}, "--requests: has no effect with --trace: a trace has its own"),
        ({"trace": TRACE, "arrivals": "poisson"}, "--arrivals: has no effect with --trace: a trace decides"),
        ({"trace": TRACE, "prompt": "x"}, "--prompt: has no effect with --trace: a trace decides"),
        ({"trace": TRACE, "max_tokens": "3"}, "--max-tokens: has no effect with --trace: a trace decides"),
        ({"trace": TRACE, "persona": "chat"}, "--persona: has no effect with --trace: a trace decides"),
        ({"persona": "chta"}, "--persona: there is no persona 'chta' .*did you mean chat"),
        ({"mix": ("chat,xyzzy",)}, "--mix: there is no persona 'xyzzy' .*known are"),
        ({"mix": ("chat,chat",)}, "want each persona once"),
        ({"persona": "chat", "mix": ("rag",)}, "exclude each other"),
    ],
)
def test_g7_what_would_be_ignored_is_refused(flags, reason):
    """One message names the setting, and why nothing would come of it."""
    with pytest.raises(BadInput) as caught:
        resolve(flags=flags, environment={})
    assert re.search(reason, str(caught.value))


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"by": "rate", "think": "1s"}, "--think: has no effect with --by rate: only users think"),
        ({"by": "rate", "turns": "3"}, "--turns: has no effect with --by rate: a conversation continues"),
        ({"by": "rate", "persona": "support"}, "support has turns"),
        ({"arrivals": "constant"}, "--arrivals: has no effect: users send their next"),
    ],
)
def test_g7_a_search_refuses_what_does_not_go_with_what_it_counts(tmp_path, flags, reason):
    """It has no load of its own yet: what it searches by says what its settings go with, and the hint names that."""
    file = tmp_path / "s.toml"
    file.write_text("[personas.support]\nturns = 3\n")
    with pytest.raises(BadInput, match=reason) as caught:
        resolve(flags=flags, environment={}, file=file, command="capacity")
    assert "--by" in str(caught.value.hint)


def test_a_search_takes_from_a_scenario_what_goes_with_it(tmp_path):
    """Loads, pattern and trace are another command's; arrivals go with a rate, think times with users."""
    file = tmp_path / "s.toml"
    file.write_text('[load]\nrate = 4\narrivals = "constant"\npattern = "day"\ntime_scale = 60\n')
    by_rate = resolve(flags={"by": "rate"}, environment={}, file=file, command="capacity")
    assert (str(by_rate.load.arrivals), by_rate.load.pattern, by_rate.load.time_scale) == ("constant", None, 1.0)
    by_users = resolve(flags={"think": "1s"}, environment={}, file=file, command="capacity")
    assert (str(by_users.load.think), str(by_users.load.arrivals)) == ("1s", "poisson")
    assert str(
        resolve(flags={"arrivals": "constant", "by": "rate"}, environment={}, command="capacity").load.arrivals
    ) == ("constant")
    assert resolve(flags={"by": "rate", "persona": "chat"}, environment={}, command="capacity").load.think is None
    file.write_text('[load]\ntrace = "nowhere.csv"\n')
    assert resolve(flags={}, environment={}, file=file, command="capacity").load.trace is None


def test_a_variable_is_named_as_such():
    """The place is where it was said."""
    with pytest.raises(BadInput, match="LOADBENCH_THINK: has no effect with LOADBENCH_RATE: only users think"):
        resolve(flags={}, environment={"LOADBENCH_RATE": "1", "LOADBENCH_THINK": "1s"})


def test_what_was_said_farther_away_falls_with_its_load(tmp_path):
    """A flag turns a scenario's users into a rate: their think time is out of force, and no fault of the flag."""
    file = tmp_path / "s.toml"
    file.write_text('[load]\nusers = 4\nthink = "5s"\n')
    turned = resolve(flags={"rate": "1"}, environment={}, file=file)
    assert turned.load.think is None
    file.write_text('[load]\nrate = 4\nthink = "5s"\n')
    with pytest.raises(BadInput, match=r"s.toml:3: load.think: has no effect with .*s.toml:2: load.rate"):
        resolve(flags={}, environment={}, file=file)


def test_a_days_speed_falls_with_its_pattern(tmp_path):
    """A flag turns the rate of a scenario into users: pattern and time scale were for the rate."""
    file = tmp_path / "s.toml"
    file.write_text('[load]\nrate = 4\npattern = "day"\ntime_scale = 60\n')
    turned = resolve(flags={"users": "2"}, environment={}, file=file)
    assert (turned.load.pattern, turned.load.time_scale) == (None, 1.0)
    assert turned.extent.duration_ns == 10_000_000_000


def test_a_pattern_says_how_long_its_level_is():
    """A pass, so many times as fast; a duration or a number of requests that is given stands."""
    made = resolve(flags={"rate": "2", "pattern": "day", "time_scale": "1440"}, environment={})
    assert (made.extent.duration_ns, str(made.origins["load.duration"])) == (60_000_000_000, "pattern")
    assert resolve(flags={"rate": "2", "pattern": "day", "requests": "9"}, environment={}).extent.requests == 9
    given = resolve(flags={"rate": "2", "pattern": "day", "duration": "9s"}, environment={})
    assert given.extent.duration_ns == 9_000_000_000


def test_a_persona_of_an_open_load_does_not_think():
    """Its lengths are asked for at the rate, and its pause is nobody's."""
    made = resolve(flags={"rate": "2", "persona": "chat"}, environment={})
    assert made.load.think is None
    assert str(made.work.input_tokens) == "normal:512,128"


OWN = """
[load]
users = 2
[work]
persona = "support"
[personas.support]
input_tokens = "normal:300,50"
output_tokens = 80
think = "lognormal:20s,0.5"
turns = "uniform:2,5"
"""


def test_a_scenario_has_personas_of_its_own(tmp_path):
    """A table for each; it may be named like any other, alone or in a mix beside those that are known."""
    file = tmp_path / "s.toml"
    file.write_text(OWN)
    made = resolve(flags={}, environment={}, file=file)
    assert (str(made.work.output_tokens), str(made.load.think), str(made.work.turns)) == (
        "80",
        "lognormal:20s,0.5",
        "uniform:2,5",
    )
    mixed = resolve(flags={"mix": ("support:2,chat:1",)}, environment={}, file=file)
    assert [persona.name for persona in mixed.work.cast.personas] == ["support", "chat"]
    assert mixed.effective()["personas"]["support"]["turns"] == "uniform:2,5"


def test_a_persona_with_turns_needs_users(tmp_path):
    """At a rate nobody would wait for the answers that its conversations go on from."""
    file = tmp_path / "s.toml"
    file.write_text(OWN)
    named = {"persona": "support"}
    with pytest.raises(BadInput, match="support has turns, and a conversation continues"):
        resolve(flags={"rate": "1", **named}, environment={}, file=file)
    with pytest.raises(BadInput, match="support has turns, and the completions endpoint"):
        resolve(flags={"api": "completions", **named}, environment={}, file=file)
    # A flag that excludes turns overrides those of a persona that only the file names.
    for flag in ({"rate": "1"}, {"api": "completions"}):
        assert resolve(flags=flag, environment={}, file=file).work.turns is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[personas.a]\ninput_token = 4\n", r"s.toml:2: personas.a.input_token: an unknown key .*input_tokens"),
        ("[personas.a]\ninput_tokens = 0\n", r"s.toml:2: personas.a.input_tokens: found"),
        ("[personas.a]\nthink = 5\n", r"s.toml:2: personas.a.think: found 5"),
        ("[personas]\na = 3\n", r"personas.a: found 3, want a table"),
        ("personas = 3\n", r"s.toml:1: personas: found 3"),
        ('[personas."a:b"]\nthink = "5s"\n', r"'a:b' cannot be a persona's name"),
    ],
)
def test_bad_personas_are_refused_by_their_line(tmp_path, text, reason):
    """File, line and key, what was found and what is wanted."""
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(BadInput, match=reason):
        resolve(flags={}, environment={}, file=file)
