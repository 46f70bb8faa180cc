"""Two models of one service are compared, one of them loaded at a time: three dialects, Ollama, the real service."""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.typed import typed as loadbench
from tests.foundry.fakes import DIALECTS, Fake, Memory, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="as the other tests of the services")
SHORT = ("--users=1,2", "--requests=4", "--warm-up=0s", "--settle=0s", "--max-tokens=4", "--input-tokens=16")
MODELS = ("--a-model=nano-generic-cpu", "--b-model=mini-cuda-gpu")
OLLAMA = ("--a-model=nano", "--b-model=mini:7b")


@contextmanager
def served(dialect: str) -> Iterator[tuple[Fake, tuple[str, ...]]]:
    """A service, and the flags that name it and its two models."""
    fake = Fake(dialect)
    if dialect == "ollama":
        fake.variants = {"nano": ["nano:latest"], "mini": ["mini:7b"]}
    with serving(fake):
        yield fake, ("compare", f"--url={fake.url}", *(OLLAMA if dialect == "ollama" else MODELS), *SHORT)


def runs_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The runs of each side of the only comparison."""
    (kept,) = (folder / "results").iterdir()
    return {
        side: [json.loads(path.read_bytes()) for path in sorted(kept.glob(f"{side}/*/run.json"))] for side in ("a", "b")
    }


def moves(fake: Fake) -> list[str]:
    """`load` and `unload` in their order."""
    return [path.split("?")[0].split("/")[-2] for path in fake.asked if "load/" in path]


@pytest.mark.parametrize("dialect", [*DIALECTS, "ollama"])
def test_two_models_are_never_loaded_at_once(dialect, tmp_path):
    """Not for a moment, whoever loaded one before; each repeat loads both, and its runs say how long that took."""
    with served(dialect) as (fake, command):
        fake.loaded.add(fake.ids[-1] if dialect == "ollama" else "mini-cuda-gpu:2")
        done = loadbench(*command, "--repeats=2", "--json", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert isinstance(fake.loaded, Memory)
    assert fake.loaded.most == 1
    runs = runs_of(tmp_path)
    assert [len(side) for side in runs.values()] == [2, 2]
    for run in (*runs["a"], *runs["b"]):
        assert run["one_up"] is True
        assert run["complete"] is True
        (status,) = run["models"]
        assert status["load_s"] > 0
        assert status["cold_ttft_s"] > 0
        assert [level["outcomes"] for level in run["levels"]] == [{"ok": 4}] * 2
    loads = {run["models"][0]["load_s"] for run in (*runs["a"], *runs["b"])}
    assert len(loads) == 4
    comparison = json.loads(done.stdout)
    assert comparison["a"]["starts_s"] == [run["models"][0]["load_s"] for run in runs["a"]]
    order = [line.split("(")[1].split(",")[0] for line in done.stderr.splitlines() if line.endswith("begins")]
    assert "".join(order) in {"AABBBBAA", "BBAAAABB"}
    if dialect in DIALECTS:
        assert moves(fake).count("load") == 5  # one more before the first: that of the side that comes second


@pytest.mark.parametrize("dialect", [*DIALECTS, "ollama"])
def test_both_stay_loaded_where_the_user_says_that_they_fit(dialect, tmp_path):
    """With --keep-up nothing is unloaded, and the order is level by level."""
    with served(dialect) as (fake, command):
        done = loadbench(*command, "--repeats=1", "--keep-up", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert len(fake.loaded) == 2
    assert "unload" not in moves(fake)
    assert {run["one_up"] for side in runs_of(tmp_path).values() for run in side} == {False}
    order = [line.split("(")[1].split(",")[0] for line in done.stderr.splitlines() if line.endswith("begins")]
    assert "".join(order) in {"ABBA", "BAAB"}


def test_model_against_itself_is_loaded_anew_each_time(tmp_path):
    """--same measures what a start does too: it is unloaded and loaded before each turn."""
    with served("foundry-1.x") as (fake, command):
        same = [part for part in command if not part.startswith(("--a-model", "--b-model"))]
        done = loadbench(*same, "--model=nano", "--same", "--repeats=2", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert moves(fake) == ["load"] + ["unload", "load"] * 4


def test_model_that_stays_loaded_ends_the_comparison(tmp_path, monkeypatch):
    """A service that says it unloaded a model and lists it all the same is not believed; the side is named."""
    monkeypatch.setattr("loadbench.targets.loading._GONE_WITHIN_S", 0.3)

    class Sticky(set):
        def discard(self, element: str) -> None:
            pass

    with served("foundry-1.x") as (fake, command):
        fake.loaded = Sticky()
        done = loadbench(*command, "--repeats=2", cwd=tmp_path)
    assert done.returncode == 6
    assert "is still loaded 0.3 s after the service was to unload it" in done.stderr
    assert any(line.startswith(("error: A: ", "error: B: ")) for line in done.stderr.splitlines())


def test_plan_says_that_one_model_is_loaded_at_a_time(tmp_path):
    """Surely where it is Foundry Local by the flag, else on the condition that it is; sent is nothing."""
    ask = ("compare", "--url=http://127.0.0.1:9", *MODELS, *SHORT, "--dry-run")
    sure = loadbench(*ask, "--target=foundry", cwd=tmp_path)
    assert "only one side is up at a time" in sure.stdout
    assert "if the server is" not in sure.stdout
    perhaps = loadbench(*ask, cwd=tmp_path)
    assert "if the server is Foundry Local or Ollama, only one side is up at a time" in perhaps.stdout
    for more in (("--target=openai",), ("--keep-up",)):
        assert "one side is up" not in loadbench(*ask, *more, cwd=tmp_path).stdout


def test_keep_up_without_effect_is_refused(tmp_path):
    """Two servers of their own are up already, and simulated ones are started for both sides."""
    two = loadbench("compare", "http://127.0.0.1:8", "http://127.0.0.1:9", "--keep-up", *SHORT, cwd=tmp_path)
    assert (two.returncode, "--keep-up: has no effect" in two.stderr) == (2, True)
    simulated = loadbench("compare", "profile=slot-server", "profile=small-gpu", "--keep-up", *SHORT, cwd=tmp_path)
    assert (simulated.returncode, "--keep-up" in simulated.stderr) == (2, True)


@contextmanager
def watched(url: str) -> Iterator[list[list[str]]]:
    """What the service lists as loaded, asked again and again while the context lasts."""
    seen: list[list[str]] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            with urllib.request.urlopen(f"{url}/models/loaded", timeout=30) as response:
                seen.append(json.load(response))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


@pytest.mark.foundry
def test_real_service_has_one_model_loaded_at_a_time(foundry_service, tmp_path):
    """The list of the real service never has both, and the comparison is complete."""
    for model in ("nano", "mini"):
        loadbench("models", "--url", foundry_service, "--unload", model, cwd=tmp_path)
    names = ("--a-model=nano-generic-cpu:1", "--b-model=mini-generic-cpu:1")
    with watched(foundry_service) as seen:
        done = loadbench("compare", f"--url={foundry_service}", *names, *SHORT, "--repeats=2", cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert max(map(len, seen)) == 1
    assert {model for loaded in seen for model in loaded} == {"nano-generic-cpu:1", "mini-generic-cpu:1"}
    for run in (run for side in runs_of(tmp_path).values() for run in side):
        assert (run["one_up"], run["complete"]) == (True, True)
        assert run["models"][0]["load_s"] > 0
        assert [level["outcomes"] for level in run["levels"]] == [{"ok": 4}] * 2
