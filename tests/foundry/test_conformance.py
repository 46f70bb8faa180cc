"""One course through each of Foundry Local's dialects, from finding the service to a sweep: the fakes and the real one.

The verdict of a level speaks of this machine's load as well, so that where a sweep works it ends with 0 or 4.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.running import loadbench as in_a_process
from tests.cli.typed import typed as loadbench
from tests.foundry import fake_cli
from tests.foundry.fakes import DIALECTS, Fake, serving, write_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake command line is a script")
REAL = pytest.param("real", marks=pytest.mark.foundry)
SHORT = ("--warm-up", "0s", "--max-tokens", "8", "--prompt", "Tell me of the sea.", "--quiet")


@dataclass(frozen=True)
class Service:
    """What is tested: where it is, what it speaks, and the fake, if it is one."""

    url: str
    dialect: str
    fake: Fake | None

    @property
    def model(self) -> str:
        """What a chat calls the model `nano`."""
        return "nano-generic-cpu:1" if self.dialect == "foundry-2.x" else "nano-generic-cpu"


@contextmanager
def _faked(dialect: str, folder: Path) -> Iterator[Service]:
    fake = Fake(dialect)
    (folder / "cache").mkdir()
    write_cache(folder / "cache", fake)
    with serving(fake):
        yield Service(fake.url, dialect, fake)


@pytest.fixture(params=[*DIALECTS, REAL])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """Each dialect, with no model loaded, and the real service where it is asked for."""
    if request.param == "real":
        url = request.getfixturevalue("foundry_service")
        loadbench("models", "--url", url, "--unload", "nano", cwd=tmp_path)
        yield Service(url, "foundry-2.x", None)
        return
    with _faked(request.param, tmp_path) as found:
        yield found


def run_of(folder: Path) -> dict[str, Any]:
    """The only run in a folder."""
    (path,) = (folder / "results").glob("*/run.json")
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_service_is_found_by_its_command_line_and_checked(service, tmp_path):
    """Discover, recognise, resolve, load, probe: the checklist is passed, and says by whom the service was found."""
    legacy = service.dialect == "foundry-0.x"
    said = (
        {"service_status": fake_cli.older(service.url)}
        if legacy
        else {"server_status_o_json": fake_cli.newer(service.url)}
    )
    path = os.pathsep.join([str(fake_cli.install(tmp_path, **said)), os.environ["PATH"]])
    done = loadbench("doctor", "--target", "foundry", "--model", "nano", "--json", cwd=tmp_path, PATH=path)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    command = "foundry service status" if legacy else "foundry server status -o json"
    assert done.returncode == 0, done.stdout
    assert checks[f"by {command}"]["status"] == "ok"
    assert f"Foundry Local {service.dialect[-3:]}" in checks["endpoint"]["message"]
    assert "loaded now" in checks[f"loaded {service.model}"]["message"]
    assert checks[f"response {service.model}"]["message"].startswith("16 tokens")
    # Only 2.x counts where it is asked to, and says how long a context is.
    assert checks[f"response {service.model}"]["status"] == ("warn" if legacy else "ok")
    assert "catalogue" in checks[f"context {service.model}"]["message"]
    assert checks[f"context {service.model}"]["status"] == ("warn" if service.dialect == "foundry-2.x" else "ok")


def test_models_are_listed_loaded_and_unloaded(service, tmp_path):
    """Ids, aliases, devices, licences, cached and loaded, in every dialect; an alias is enough to load by."""
    ask = ("models", "--url", service.url, "--json")
    loaded = loadbench(*ask, "--load", "nano", cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    document = json.loads(loaded.stdout)
    models = {model["id"]: model for model in document["models"]}
    assert (document["schema"], document["dialect"]) == ("loadbench.models/1", service.dialect)
    nano = models[service.model]
    assert (nano["alias"], nano["version"], nano["device"], nano["license"]) == ("nano", 1, "CPU", "MIT")
    assert (nano["execution_provider"], nano["cached"], nano["loaded"]) == ("CPUExecutionProvider", True, True)
    assert nano["size_bytes"] > 10_000
    assert "is loaded, which took" in loaded.stderr
    assert [model["loaded"] for model in models.values()].count(True) == 1
    unloaded = loadbench(*ask, "--unload", "nano-generic-cpu", "--loaded", cwd=tmp_path)
    assert json.loads(unloaded.stdout)["models"] == []


@pytest.mark.slow
def test_sweep_loads_the_model_and_measures(service, tmp_path):
    """By its alias, from one user to eight: each answer is whole, and the result says what was asked and loaded."""
    done = loadbench(
        *("sweep", "--url", service.url, "--model", "nano", "--users", "1,2,4,8", "--requests", "16", *SHORT),
        cwd=tmp_path,
    )
    assert done.returncode in {0, 4}, done.stderr
    run = run_of(tmp_path)
    (status,) = run["models"]
    assert (status["model"], status["asked"], status["status"]) == (service.model, "nano", "ok")
    assert status["load_s"] > 0
    assert status["catalogue"]["license"] == "MIT"
    source = "events" if service.dialect == "foundry-0.x" else "usage"
    for level in run["levels"]:
        assert level["outcomes"] == {"ok": 16}
        assert level["tokens"]["output"] == 16 * 8
        assert level["tokens"]["source"] == {source: 16}
    assert [level["load"]["users"] for level in run["levels"]] == [1, 2, 4, 8]


def test_loading_is_timed_cold_and_warm_where_that_is_wanted(service, tmp_path):
    """It is unloaded and loaded again before its test; what a file of aliases says of it is found by the alias."""
    (tmp_path / "models.json").write_text('{"nano": {"license": "by the file"}}', encoding="utf-8")
    ask = ("sweep", "--url", service.url, "--models", "models.json", "--time-loads")
    done = loadbench(*ask, "--users", "1", "--requests", "2", *SHORT, cwd=tmp_path)
    assert done.returncode in {0, 4}, done.stderr
    (status,) = run_of(tmp_path)["models"]
    assert (status["model"], status["known"]["license"]) == (service.model, "by the file")
    assert status["load_s"] > 0
    assert status["load_warm_s"] > 0
    assert "loaded again in" in done.stdout
    if service.fake is not None:
        moves = [one.split("?")[0].split("/")[-2] for one in service.fake.asked if "load/" in one]
        assert moves == ["load", "unload", "load"]


def test_context_overflow_is_told(service, tmp_path):
    """2.x says why inside a 200; the older ones drop the connection, and that is seen too."""
    brief = ("--warm-up", "0s", "--max-tokens", "8", "--quiet", "--prompt", "word " * 2000)
    done = loadbench("sweep", "--url", service.url, "--model", "nano", *brief, cwd=tmp_path)
    assert done.returncode == 6
    if service.dialect == "foundry-2.x":
        assert "stream_error" in done.stderr
        assert "context length" in done.stderr
        assert "shorter prompts" in done.stderr
    else:
        assert "truncated" in done.stderr


def test_what_is_not_there_is_told(service, tmp_path):
    """A model that nobody has, with the nearest name; one that is not loaded, where loading is not wanted."""
    done = loadbench("sweep", "--url", service.url, "--model", "nanno", *SHORT, cwd=tmp_path)
    assert (done.returncode, "has no model 'nanno', did you mean 'nano'?" in done.stderr) == (6, True)
    done = loadbench("sweep", "--url", service.url, "--model", "nano", "--no-load", *SHORT, cwd=tmp_path)
    assert (done.returncode, f"{service.model} is not loaded" in done.stderr) == (6, True)
    assert f"loadbench models --load {service.model}" in done.stderr


@pytest.mark.parametrize("dialect", DIALECTS)
def test_error_inside_the_stream_is_counted_as_what_it_is(dialect, tmp_path):
    """An answer that fails half-way is never taken for a short one: the level is invalid, and the exit code says so."""
    with _faked(dialect, tmp_path) as service:
        assert service.fake is not None
        service.fake.broken_after = 9
        done = loadbench(
            *("sweep", "--url", service.url, "--model", "nano", "--users", "1", "--requests", "12", *SHORT),
            cwd=tmp_path,
        )
    (level,) = run_of(tmp_path)["levels"]
    broken = "stream_error" if dialect == "foundry-2.x" else "truncated"
    assert level["outcomes"].keys() == {"ok", broken}
    assert level["outcomes"][broken] >= 3
    assert done.returncode == 4


@pytest.mark.parametrize("dialect", DIALECTS)
def test_alias_of_several_variants_is_refused_in_a_comparison(dialect, tmp_path):
    """Which variant an alias means depends on the machine; alone it is told, and a version alone is no variant."""
    with _faked(dialect, tmp_path) as service:
        ask = ("sweep", "--url", service.url, "--users", "1", "--requests", "2", *SHORT)
        refused = loadbench(*ask, "--model", "nano", "--model", "mini", cwd=tmp_path)
        alone = loadbench(*ask, "--model", "mini-generic-cpu", "--no-load", cwd=tmp_path)
    assert refused.returncode == 2
    assert "may mean mini-cuda-gpu, mini-generic-cpu" in refused.stderr
    assert "--allow-alias" in refused.stderr
    assert "mini-generic-cpu" + (":2" if dialect == "foundry-2.x" else "") + " is not loaded" in alone.stderr


@pytest.mark.slow
def test_download_is_the_command_lines_and_ends_as_it_does(tmp_path):
    """Its words go to the terminal as they are, with JSON to come to stderr; without it there is no download."""
    with _faked("foundry-1.x", tmp_path) as service:
        said = {"model_download_nano": ("50 %\n100 %\n", 0), "model_download_mini": ("no room\n", 3)}
        path = os.pathsep.join([str(fake_cli.install(tmp_path, **said)), os.environ["PATH"]])
        ask = ("models", "--url", service.url, "--json", "--download")
        done = in_a_process(*ask, "nano", cwd=tmp_path, PATH=path)
        failed = in_a_process(*ask, "mini", cwd=tmp_path, PATH=path)
        without = in_a_process(*ask, "nano", cwd=tmp_path)
    assert (done.returncode, "100 %" in done.stderr, json.loads(done.stdout)["dialect"]) == (0, True, "foundry-1.x")
    assert (failed.returncode, "ended with 3" in failed.stderr) == (6, True)
    assert (without.returncode, "no `foundry` on the PATH" in without.stderr) == (2, True)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_models_of_a_mix_are_loaded_together(dialect, tmp_path):
    """None is unloaded for another; each of them is asked under its own name, and its loading is timed."""
    with _faked(dialect, tmp_path) as service:
        mix = ("--mix-models", "nano=1,mini-cuda-gpu=2", "--users", "1", "--requests", "6", "--drain", "1s")
        done = loadbench("sweep", "--url", service.url, *mix, *SHORT, cwd=tmp_path)
        assert done.returncode in {0, 4, 5}, done.stderr
        assert len(service.fake.loaded) == 2
        assert not [path for path in service.fake.asked if "unload" in path]
        run = run_of(tmp_path)
        (status,), (level,) = run["models"], run["levels"]
        assert (status["model"], level["model"]) == ("nano=1,mini-cuda-gpu=2",) * 2
        assert [part["share"] for part in status["mix"]] == pytest.approx([1 / 3, 2 / 3])
        assert all(part["load_s"] is not None for part in status["mix"])
        assert status["mix"][0]["model"] == service.model
        assert status["mix"][0]["asked"] == "nano"
        assert {name: group["requests"] for name, group in level["by_model"].items()} == {
            service.model: 2,
            status["mix"][1]["model"]: 4,
        }


def test_a_mix_that_does_not_fit_into_memory_is_an_error(tmp_path, monkeypatch):
    """A service that makes room for one model by dropping another cannot have both measured together."""

    class OneAtATime(set):
        def add(self, element: str) -> None:
            self.clear()
            super().add(element)

    with _faked("foundry-1.x", tmp_path) as service:
        monkeypatch.setattr(service.fake, "loaded", OneAtATime())
        arguments = ("--mix-models", "nano,mini-generic-cpu", "--users", "1", "--requests", "2")
        done = loadbench("sweep", "--url", service.url, *arguments, *SHORT, cwd=tmp_path)
        assert done.returncode == 6
        assert "did not stay loaded" in done.stderr
        assert "fit into memory together" in done.stderr


def test_foundry_local_shares_no_load_with_another_server(tmp_path):
    """Its models are loaded at one service, so a second URL is refused."""
    other = tmp_path / "other"
    other.mkdir()
    with _faked("foundry-1.x", tmp_path) as service, _faked("foundry-1.x", other) as second:
        done = loadbench("sweep", "--url", service.url, "--url", second.url, "--model", "nano", *SHORT, cwd=tmp_path)
        assert done.returncode == 2
        assert "Foundry Local" in done.stderr
        assert "cannot share the load" in done.stderr


def test_aliases_in_a_mix_are_as_in_a_comparison_of_models(tmp_path):
    """One that may mean several variants is refused, with the flag that named it."""
    with _faked("foundry-1.x", tmp_path) as service:
        for command, more in (("sweep", ()), ("capacity", ("--slo", "ttft_p95<9s"))):
            done = loadbench(command, "--url", service.url, "--mix-models", "nano,mini", *more, *SHORT, cwd=tmp_path)
            assert done.returncode == 2, done.stderr
            assert "--mix-models mini: may mean" in done.stderr
            assert "--allow-alias" in done.stderr
