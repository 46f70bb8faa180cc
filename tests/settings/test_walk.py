"""Every command × every setting that it takes: it changes what is sent, what the engine does, or what is kept."""

from __future__ import annotations

import shutil
import ssl
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from loadbench.plan.settings import settings
from tests.settings.observe import SHOWN, Observed, RecordingServer, observed, serving
from tests.settings.table import COMMANDS, LENGTHS, LENGTHS_TEXT, ROWS, TRACE, TRACE_TEXT, URL, flags_for, given_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow
# Where the effect is shown by other tests, since it takes a Foundry Local service, or a long search.
ELSEWHERE = {
    **dict.fromkeys(("target.load", "target.allow_alias"), "tests/foundry"),
    **dict.fromkeys(("capacity.devices_for", "capacity.headroom"), "tests/analyze/capacity"),
    **dict.fromkeys(
        ("target.server_cmd", "target.server_env", "target.ready_url", "target.ready_timeout", "target.yes_run"),
        "tests/session/test_server_command.py",
    ),
    **dict.fromkeys(("load.cluster", "load.insecure_cluster", "load.gather_requests"), "tests/cluster"),
    **dict.fromkeys(("compare.a_cmd", "compare.b_cmd"), "tests/session/test_server_command.py"),
    "target.yes_load": "no address here is asked about: tests/session/test_consent.py",
    "target.strict_request": "tests/cli/test_adapt.py",
    "load.max_total": "a level that it shortens lasts 10 s at least: tests/engine/test_level_length.py",
    ("models", "limits.timeout"): "the time that loading a model may take: tests/foundry",
    ("doctor", "target.adapter"): "tests/targets/test_adapters.py",
}
WALK = [
    (command, setting.key)
    for command in COMMANDS
    for setting in settings(command)
    if setting.key not in ELSEWHERE and (command, setting.key) not in ELSEWHERE
]


class Vehicle:
    """The servers, and a folder for each run."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.servers = {name: RecordingServer() for name in ("one", "two", "simulated")}
        self.servers["tls"] = RecordingServer(tls=context)
        self.folder = folder
        self._number = 0
        (folder / "files").mkdir()
        authority.cert_pem.write_to_path(str(folder / "files" / "ca.pem"))
        (folder / "files" / "models.json").write_text('["other"]', encoding="utf-8")
        (folder / "files" / TRACE).write_text(TRACE_TEXT, encoding="utf-8")
        (folder / "files" / LENGTHS).write_text(LENGTHS_TEXT, encoding="utf-8")
        (folder / "files" / "other.csv").write_text(TRACE_TEXT.replace(",4", ",5"), encoding="utf-8")
        (folder / "files" / "prompts.txt").write_text("One.\nTwo.\n", encoding="utf-8")
        self.baseline = cache(self._baseline)
        self.scored: Path | None = None

    def _baseline(self, command: str, flags: tuple[tuple[str, Any], ...]) -> Observed:
        return self.run(command, dict(flags))

    def run(self, command: str, flags: dict[str, Any]) -> Observed:
        """Run it in a folder of its own; commands that score have a run to score there."""
        self._number += 1
        folder = self.folder / str(self._number)
        shutil.copytree(self.folder / "files", folder)
        arguments = {"score": ["score", "stub", "--to=stub.json"], "judge": ["score", "judge"]}.get(command, [command])
        if command == "judge":
            assert self.scored is not None
            shutil.copytree(self.scored, folder / "scored")
            arguments.append("scored")
        if command == "compare" and ("profile" in flags or flags.get("url", URL) != URL):
            arguments.append("--b-model=other")  # A has --model
        elif command == "compare":
            arguments += [f"--a={self._url('one')}", *([] if "url" in flags else [f"--b={self._url('two')}"])]
        by_name = {setting.name: setting for setting in settings(command)}
        for name, value in flags.items():
            setting = by_name[name]
            values = value if isinstance(value, tuple) else (value,)
            if setting.argument_of == command:
                arguments.append(str(value))
            elif setting.type.is_flag:
                arguments.append(setting.flag if value else f"--no-{setting.flag[2:]}")
            else:
                arguments += [f"{setting.flag}={self._placed(one)}" for one in values]
        if command in {"sweep", "replay", "capacity", "compare", "workshop"}:
            arguments += ["--quiet", *([] if "sampling" in flags or "page_interval" in flags else ["--telemetry=off"])]
            arguments += ["--json"] * (command in {"capacity", "workshop"})
        return observed(arguments, folder, self.servers)

    def _url(self, name: str) -> str:
        return self.servers[name].url

    def _placed(self, value: Any) -> str:
        """The address of a server, where the table has a place for one."""
        places = {"http://127.0.0.1:1": "one", "http://127.0.0.1:2": "two", "https://127.0.0.1:1": "tls"}
        return self._url(places[value]) if value in places else str(value)


@pytest.fixture(scope="module")
def vehicle(tmp_path_factory) -> Iterator[Vehicle]:
    """Started once; with a run whose answers can be judged."""
    made = Vehicle(tmp_path_factory.mktemp("walk"))
    with serving(*made.servers.values()):
        flags = {"url": "http://127.0.0.1:1", "model": ("m",), "prompt": "Say hello.", "users": "1", "requests": "1"}
        run = made.run("sweep", {**flags, "deterministic": True, "keep_texts": True, "warm_up": "0s"})
        assert run.code in {0, 4}, run.stderr
        (made.scored,) = (path.parent for path in run.folder.rglob("run.json"))
        yield made


def flags_of(command: str, key: str) -> dict[str, Any]:
    """Those of the row, with a model named, since the server lists several."""
    flags = flags_for(command, key)
    taken = {setting.name for setting in settings(command)}
    names_models = {"target.model", "target.model_set"}
    if "model" in taken and command != "judge" and key not in names_models and not {"model", "adapter"} & set(flags):
        flags["model"] = ("m",)
    return flags


@pytest.mark.parametrize(("command", "key"), WALK)
def test_every_setting_changes_something(vehicle, command, key):
    """What the row names is another with the setting than without it, all else being the same."""
    row = ROWS[key]
    flags = flags_of(command, key)
    without = vehicle.baseline(command, tuple(flags.items()))
    with_it = vehicle.run(command, given_for(key, flags))
    # The probes of so short a search are too short for a cost of a token.
    shows = "prices" if command == "capacity" and row.shows == "cost" else row.shows
    before, after = (shown(shows, seen) for seen in (without, with_it))
    assert before != after, f"{after}\n{without.stderr}\n{with_it.stderr}"


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_changes_by_itself(vehicle, command):
    """Two runs of the baseline show the same: a difference is the setting's, and no chance."""
    flags = flags_of(command, "report.name")
    once, again = vehicle.run(command, flags), vehicle.run(command, flags)
    # Which loads a search probes, how long, and so with how many requests, follows from the server's times.
    by_chance = {"count", "plan.duration", "plan.load"} if command == "capacity" else set()
    for name in {ROWS[key].shows for one, key in WALK if one == command} - by_chance:
        before, after = (shown(name, seen) for seen in (once, again))
        assert before == after, name


def shown(name: str, seen: Observed) -> Any:
    """What a row names, of one run."""
    kind, _, part = name.partition(".")
    return seen.plans(part) if kind == "plan" else SHOWN[name](seen)
