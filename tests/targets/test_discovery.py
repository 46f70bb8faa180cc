"""Where Foundry Local is looked for, in which order, and what its command line's words are taken for."""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

import pytest

from loadbench.core.errors import BadInput, TargetUnavailable
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import TargetSettings
from loadbench.plan.sources import resolve
from loadbench.targets import foundry_cli
from loadbench.targets.discovery import DiscoveryStep, discover, locate, moved_to
from loadbench.targets.foundry_cli import (
    FoundryCli,
    first_object,
    from_table,
    list_cli_models,
    server_status,
    service_status,
)
from tests.foundry.fake_cli import install, newer, older

if TYPE_CHECKING:
    from pathlib import Path

FOUNDRY = Scenario(target=TargetSettings(kind="foundry"))
posix = pytest.mark.skipif(sys.platform == "win32", reason="the fake command line is a script")

TABLE = """\
🕓 Fetching the catalogue...
Alias                          Device     Task               File Size    License      Model ID
-----------------------------------------------------------------------------------------------
phi-4                          GPU        chat-completion    8.37 GB      MIT          Phi-4-generic-gpu:1
                               CPU        chat-completion    10.16 GB     MIT          Phi-4-generic-cpu:1
-----------------------------------------------------------------------------------------------
qwen2.5-0.5b                   CPU        chat-completion    822,00 MB    apache-2.0   qwen2.5-0.5b-generic-cpu:4
Run `foundry model info` to learn more.
"""


def cli(folder: Path, **said) -> FoundryCli:
    """The fake command line in a folder."""
    return FoundryCli(str(install(folder, **said) / "foundry"))


# Variables of other programs.


def test_variables_of_other_programs_are_taken_where_nobody_tells_us():
    """In their order; and where from is known. Loadbench's own variable, a flag and a file win over both."""
    others = {"FOUNDRY_LOCAL_ENDPOINT": "http://f:1/v1/", "OPENAI_BASE_URL": "http://o:1/v1"}
    found = resolve(flags={}, environment=others)
    assert (found.url, str(found.origins["target.url"])) == ("http://f:1/v1", "environment FOUNDRY_LOCAL_ENDPOINT")
    assert not found.simulated
    assert resolve(flags={}, environment={**others, "FOUNDRY_LOCAL_ENDPOINT": " "}).url == "http://o:1/v1"
    assert resolve(flags={}, environment={**others, "LOADBENCH_URL": "http://l:1"}).url == "http://l:1"
    assert resolve(flags={"url": "http://u:1"}, environment=others).url == "http://u:1"


def test_simulated_server_can_be_asked_for_in_spite_of_them():
    """By naming its profile."""
    assert resolve(flags={"profile": "slot-server"}, environment={"OPENAI_BASE_URL": "http://o:1"}).simulated


def test_variable_of_another_program_that_is_no_address_is_told():
    """It would have been used, so it is not passed over in silence."""
    with pytest.raises(BadInput, match="OPENAI_BASE_URL: found 'gibberish'"):
        resolve(flags={}, environment={"OPENAI_BASE_URL": "gibberish"})
    assert resolve(flags={"url": "http://u:1"}, environment={"OPENAI_BASE_URL": "gibberish"}).url == "http://u:1"


def test_user_is_told_where_an_address_is_from_that_he_did_not_give():
    """Of one that he gave, nothing."""
    _, note = locate(resolve(flags={}, environment={"OPENAI_BASE_URL": "http://o:1"}), {})
    assert note == "http://o:1, from OPENAI_BASE_URL"
    assert locate(resolve(flags={"url": "http://u:1"}, environment={}), {})[1] == ""
    assert locate(Scenario(), {}) == (Scenario(), "")


# The command line.


@posix
def test_newer_command_line_is_asked_first_and_the_older_after(tmp_path):
    """The first that names an address ends the search; the result keeps which it was."""
    environment = {"PATH": str(install(tmp_path, server_status_o_json=newer("http://127.0.0.1:58082")))}
    found, note = locate(FOUNDRY, environment)
    assert found.url == "http://127.0.0.1:58082"
    assert str(found.origins["target.url"]) == "discovery foundry server status -o json"
    assert note == "http://127.0.0.1:58082, from `foundry server status -o json`"
    environment = {"PATH": str(install(tmp_path, service_status=older("http://127.0.0.1:5273")))}
    assert locate(FOUNDRY, environment)[0].url == "http://127.0.0.1:5273"


@posix
def test_search_in_vain_says_what_each_place_said(tmp_path):
    """And names the flag."""
    stopped = ("🔴 Model management service is not running!\n", 0)
    with pytest.raises(
        TargetUnavailable, match=r"OPENAI_BASE_URL: not set.*service status: 🔴 Model.*not running"
    ) as caught:
        locate(FOUNDRY, {"PATH": str(install(tmp_path, service_status=stopped))})
    assert "--url" in caught.value.hint


@posix
def test_checkup_asks_the_command_line_as_well(tmp_path):
    """An address that was given may be that of yesterday."""
    environment = {"PATH": str(install(tmp_path, server_status_o_json=newer("http://127.0.0.1:2222")))}
    told = dataclasses.replace(FOUNDRY, target=TargetSettings(kind="foundry", url=("http://127.0.0.1:1111",)))
    steps = discover(told, environment, to_the_end=True)
    assert [step.url for step in steps] == ["http://127.0.0.1:1111", None, None, "http://127.0.0.1:2222"]
    assert moved_to(steps, "http://127.0.0.1:1111/v1") == "http://127.0.0.1:2222"
    assert len(discover(told, environment)) == 3


@pytest.mark.parametrize(
    ("url", "told", "expected"),
    [
        ("http://127.0.0.1:1/v1", "http://localhost:1", None),
        ("http://localhost:1", "http://127.0.0.1:2", "http://127.0.0.1:2"),
        ("http://192.0.2.7:1/v1", "http://127.0.0.1:2", None),
        ("http://127.0.0.1:1", None, None),
        ("http://localhost", "http://127.0.0.1:80", None),
        ("http://[::1]:5/v1", "http://127.0.0.1:5", None),
    ],
)
def test_moved_port_is_another_one_on_this_machine(url, told, expected):
    """What runs elsewhere is not ours to compare."""
    assert moved_to([DiscoveryStep("foundry service status", told, "")], url) == expected


@posix
@pytest.mark.parametrize(
    ("said", "url"),
    [
        ('{"running":true,"webUrls":["http://127.0.0.1:58082/"]}', "http://127.0.0.1:58082"),
        ('warn: {"running":true,"webUrl":"http://[::1]:5/openai/status"} ok', "http://[::1]:5"),
        ('{"running":false,"url":"http://h:1"}', "http://h:1"),
        ('{"running":false,"state":"initializing"}', None),
        ('{"webUrls":[7, null]}', None),
        ("{broken", None),
        (b"\xff\xfe not text", None),
        ("", None),
    ],
)
def test_server_status_is_read_as_far_as_it_can_be(said, url, tmp_path):
    """Several spellings, words around it, bytes that are no text; `running` may be out of date, an address is not."""
    found, finding = server_status(cli(tmp_path, server_status_o_json=(said, 0)))
    assert found == url
    assert finding


@posix
@pytest.mark.parametrize(
    ("said", "url"),
    [
        ("🟢 Model management service is running on http://127.0.0.1:5273/openai/status", "http://127.0.0.1:5273"),
        ("🟢 Service is Started on http://localhost:64446/, PID 31337!", "http://localhost:64446"),
        ("🔴 Model management service is not running! Last was http://127.0.0.1:5273", None),
        ("Unrecognized command 'service'.", None),
    ],
)
def test_service_status_is_read_for_its_address(said, url, tmp_path):
    """Of a service that runs."""
    assert service_status(cli(tmp_path, service_status=(said, 0)))[0] == url


@posix
def test_command_that_hangs_is_ended(tmp_path, monkeypatch):
    """Nothing waits for ever on another program."""
    hung = cli(tmp_path, server_status_o_json=("HANG", 0))
    said = hung.run("server", "status", "-o", "json", within_s=0.3)
    assert (said.text, said.status) == ("", None)
    assert foundry_cli._unusable(said) == "no output in time"


def test_command_that_cannot_be_run_says_nothing():
    """It went, or is no program."""
    assert server_status(FoundryCli("/no/such/foundry"))[0] is None


def test_json_is_taken_from_among_other_words():
    """From the first brace to the last."""
    assert first_object('banner {"a": {"b": 1}} bye') == {"a": {"b": 1}}
    assert [first_object(text) for text in ("", "} {", "{", "none")] == [None] * 4


# Models by the command line.


def test_table_of_models_is_read_by_its_columns():
    """The alias of the row above holds; rules, blanks and advice are no models."""
    found = [(one.id, one.alias, one.device, one.license, one.size_bytes) for one in from_table(TABLE)]
    assert found == [
        ("Phi-4-generic-gpu:1", "phi-4", "GPU", "MIT", round(8.37 * 1024**3)),
        ("Phi-4-generic-cpu:1", "phi-4", "CPU", "MIT", round(10.16 * 1024**3)),
        ("qwen2.5-0.5b-generic-cpu:4", "qwen2.5-0.5b", "CPU", "apache-2.0", 822 * 1024**2),
    ]
    assert from_table("no table here") == []


@posix
def test_models_come_from_whichever_command_there_is(tmp_path):
    """Variants as JSON, models as JSON, the table; nothing where none works."""
    variants = '{"variants":[{"id":"a-generic-cpu:1","alias":"a","device":"Cpu","cached":true}]}'
    (found,) = list_cli_models(cli(tmp_path, model_list__variants_o_json=(variants, 0)))
    assert (found.id, found.device, found.cached) == ("a-generic-cpu:1", "CPU", True)
    assert len(list_cli_models(cli(tmp_path, model_list=(TABLE, 0)))) == 3
    assert list_cli_models(cli(tmp_path)) == []
