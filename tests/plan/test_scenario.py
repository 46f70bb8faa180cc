"""The scenario: its declarations, its sources and who wins, and every message for what cannot be used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from loadbench.core.errors import BadInput
from loadbench.core.units import NS_PER_S
from loadbench.plan.load import Closed, Open
from loadbench.plan.settings import settings
from loadbench.plan.sources import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from loadbench.plan.scenario import Scenario


def from_text(tmp_path: Path, text: str, name: str = "mine.toml", **flags: object) -> Scenario:
    """A scenario file with this text, resolved."""
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return resolve(flags=flags, environment={}, file=file)


@pytest.mark.parametrize("setting", list(settings()), ids=lambda setting: setting.key)
def test_default_reads_back_as_it_is_shown(setting):
    """Each default is of its setting's kind: shown and read again it is the same."""
    if setting.default is None:
        return
    shown = setting.type.show(setting.default)
    assert setting.type.read(shown) == setting.default or str(setting.type.read(shown)) == str(setting.default)


def test_names_of_settings_are_unique():
    """Of the settings that a command takes, one name is one flag and one variable, whatever the section."""
    for command in sorted(set().union(*(setting.commands for setting in settings()))):
        for name in (lambda setting: setting.name, lambda setting: setting.flag, lambda setting: setting.variable):
            names = [name(setting) for setting in settings(command)]
            assert len(names) == len(set(names))


def test_flag_beats_environment_beats_file_beats_default(tmp_path):
    """The first source that speaks of a setting wins, and the scenario knows which it was."""
    file = tmp_path / "mine.toml"
    file.write_text('[load]\nduration = "1s"\nwarm_up = "1s"\ndrain = "1s"\n')
    scenario = resolve(
        flags={"duration": "3s"}, environment={"LOADBENCH_DURATION": "2s", "LOADBENCH_WARM_UP": "2s"}, file=file
    )
    assert (scenario.load.duration, scenario.load.warm_up, scenario.load.drain) == (
        3 * NS_PER_S,
        2 * NS_PER_S,
        1 * NS_PER_S,
    )
    assert str(scenario.origins["load.duration"]) == "flag --duration"
    assert str(scenario.origins["load.warm_up"]) == "environment LOADBENCH_WARM_UP"
    assert str(scenario.origins["load.drain"]) == f"scenario {file}:4: load.drain"
    assert str(scenario.origins["load.ramp"]) == "default"


def test_toml_and_json_say_the_same(tmp_path):
    """The same keys in both formats make the same scenario."""
    toml = from_text(
        tmp_path, '[load]\nusers = [1, 2]\nduration = "5s"\n[target]\nheaders = {"X-Team" = "blue"}\n', "mine.toml"
    )
    document = {"load": {"users": [1, 2], "duration": "5s"}, "target": {"headers": {"X-Team": "blue"}}}
    from_json = from_text(tmp_path, json.dumps(document), "mine.json")
    assert toml.effective() == from_json.effective()
    assert from_json.target.header == (("X-Team", "blue"),)


def test_question_is_the_first_line(tmp_path):
    """A comment on the first line, or `question`, says what the scenario answers."""
    assert from_text(tmp_path, "# Who bends first?\n").question == "Who bends first?"
    assert from_text(tmp_path, 'question = "Why?"\n').question == "Why?"


def test_run_is_named_after_its_file(tmp_path):
    """Without a name of its own a run has that of its scenario file."""
    assert from_text(tmp_path, "", "kiosk.toml").report.name == "kiosk"


def test_rate_takes_the_place_of_users(tmp_path):
    """A rate on the command line puts the file's users out of force; levels are open then."""
    scenario = from_text(tmp_path, "[load]\nusers = [1, 2]\n", rate="30/min,2")
    assert [type(load) for load in scenario.loads] == [Open, Open]
    assert [load.rate_per_s for load in scenario.loads] == [0.5, 2.0]
    assert scenario.load.users is None


def test_requests_take_the_place_of_duration():
    """A number of requests puts the default duration out of force."""
    extent = resolve(flags={"requests": "12"}, environment={}).extent
    assert (extent.requests, extent.duration_ns) == (12, None)


def test_closed_levels_carry_the_think_time():
    """Each level of users thinks as the scenario says."""
    scenario = resolve(flags={"users": "1,3", "think": "2s"}, environment={})
    assert [(load.users, str(load.think)) for load in scenario.loads if isinstance(load, Closed)] == [
        (1, "2s"),
        (3, "2s"),
    ]


def test_effective_scenario_holds_no_secret():
    """Header values, which may be keys, are not in the record."""
    scenario = resolve(flags={"header": ("X-Key: hunter2",)}, environment={})
    assert "hunter2" not in json.dumps(scenario.effective())
    assert scenario.effective()["target"]["header"] == {"X-Key": "***"}


# What cannot be used: where it stands, and what its message must name.
@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[load]\nuser = 3\n", 2, ["load.user", "unknown key", "did you mean users?"]),
        ("[lod]\nusers = 3\n", 1, ["lod", "unknown section", "did you mean load?"]),
        ("[load]\nmax_tokens = 3\n", 2, ["load.max_tokens", "it belongs in [work]"]),
        ("[load]\n\nusers = 0\n", 3, ["load.users", "found 0", "at least 1"]),
        ("[load]\nusers = [1, -1]\n", 2, ["load.users", "found -1", "at least 1"]),
        ("[load]\nusers = true\n", 2, ["load.users", "found True", "whole number"]),
        ("[load]\nusers = [1, 1]\n", 2, ["load.users", "each value once"]),
        ("[load]\nusers = []\n", 2, ["load.users", "values"]),
        ("[load]\nduration = 5\n", 2, ["load.duration", "found 5", "'30s'"]),
        ('[load]\nduration = "5 parsecs"\n', 2, ["load.duration", "parsecs"]),
        ('[load]\nduration = "0"\n', 2, ["load.duration", "above zero"]),
        (
            "[load]\nusers = [1]\nrate = [1]\n",
            3,
            ["load.users", "load.rate exclude each other", "leave one of them out"],
        ),
        ("[work]\ntemperature = 11\n", 2, ["work.temperature", "found 11", "from 0 to 10"]),
        ('[work]\ntemperature = "nan"\n', 2, ["work.temperature", "nan"]),
        ("[work]\nunique = 3\n", 2, ["work.unique", "true or false"]),
        ('[target]\nurl = "ftp://host"\n', 2, ["target.url", "ftp://host", "http://127.0.0.1"]),
        ('[target]\nurl = "http://me:pw@host#x"\n', 2, ["target.url", "without a fragment"]),
        ("[target.extra_body]\nwhen = 2026-01-01\n", 1, ["target.extra_body", "when: found a date"]),
        ("[target]\nextra_body = '{\"a\": 1'\n", 2, ["target.extra_body", "not JSON at line 1, column 8"]),
        ("[target]\nheader_env = ['X-Key: sesame 1']\n", 2, ["target.header_env", "as in 'X-Key: TEAM_KEY'"]),
        ('[target]\nheader = ["a\\nb: c"]\n', 2, ["target.header", "on one line"]),
        ("load = 3\n", 1, ["load", "found 3", "table"]),
        ("[load\n", 1, ["not TOML"]),
        ('[work]\nprompts = "C:\\Users\\me.txt"\n', 2, ["not TOML", "in a path, write \\\\ or / for \\"]),
        ('[work]\nprompts = "C:\\new\\t.txt"\n', 2, ["work.prompts", "without control", "write \\\\ or / for \\"]),
        ('[limits]\nfailures = "101%"\n', 2, ["limits.failures", "from 0% to 100%"]),
    ],
)
def test_message_names_file_line_key_and_remedy(tmp_path, text, line, words):
    """One message says which file and line, which key, what was found, what is allowed."""
    with pytest.raises(BadInput) as caught:
        from_text(tmp_path, text)
    message = str(caught.value)
    assert f"mine.toml:{line}" in message
    for word in words:
        assert word in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"users": "0"}, ["--users", "found 0", "at least 1"]),
        ({"users": "-1"}, ["--users", "at least 1"]),
        ({"users": "1,,2"}, ["--users", "'1,,2'", "single commas"]),
        ({"users": "1,two"}, ["--users", "'two'", "whole number"]),
        ({"users": "9" * 30}, ["--users", "whole number"]),
        ({"duration": "5"}, ["--duration", "number with its unit"]),
        ({"duration": "5 parsecs"}, ["--duration", "parsecs", "ms, s, m, h or d"]),
        ({"rate": "0"}, ["--rate", "above 0"]),
        ({"rate": "nan"}, ["--rate", "not a rate"]),
        ({"arrivals": "poison"}, ["--arrivals", "poisson"]),
        ({"url": "localhost:8000"}, ["--url", "http://"]),
        ({"url": "http://a b"}, ["--url"]),
        ({"url": "http://host:99999"}, ["--url"]),
        ({"users": "1", "rate": "1"}, ["--users", "--rate", "exclude"]),
        ({"prompt": " "}, ["--prompt", "not empty"]),
    ],
)
def test_wrong_flag_is_named(flags, words):
    """The message names the flag, what was found, and what is wanted."""
    with pytest.raises(BadInput) as caught:
        resolve(flags=flags, environment={})
    for word in words:
        assert word in str(caught.value)


def test_secret_of_a_broken_header_is_not_repeated():
    """A header that cannot be read may hold a key: the message does not show it."""
    with pytest.raises(BadInput) as caught:
        resolve(flags={"header": ("Bearer hunter2",)}, environment={})
    assert "hunter2" not in str(caught.value)


def test_unknown_variable_is_refused():
    """A misspelt variable is named, with the nearest known one; other programs' variables are none of ours."""
    with pytest.raises(BadInput, match="did you mean LOADBENCH_USERS"):
        resolve(flags={}, environment={"LOADBENCH_USER": "3", "PATH": "/bin"})


def test_variable_of_the_key_is_no_setting():
    """The variable that holds the key, whatever its name, is not taken for a misspelt setting."""
    resolve(flags={}, environment={"LOADBENCH_API_KEY": "x"})
    resolve(flags={}, environment={"LOADBENCH_MY_KEY": "x", "LOADBENCH_API_KEY_ENV": "LOADBENCH_MY_KEY"})


def test_file_that_cannot_be_read(tmp_path):
    """A missing file, a folder, another encoding: each is named."""
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(BadInput, match="name a scenario file"):
            resolve(flags={}, environment={}, file=path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"\n# caf\xe9\n")
    with pytest.raises(BadInput, match=r"latin.toml:2: not UTF-8"):
        resolve(flags={}, environment={}, file=latin)
    broken = tmp_path / "broken.json"
    broken.write_text('{\n"load": ]')
    with pytest.raises(BadInput, match=r"broken.json:2: not JSON"):
        resolve(flags={}, environment={}, file=broken)
