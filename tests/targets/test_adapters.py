"""Adapters by name, and the two that come along, on models made here."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from loadbench.client.adapter import Adapter, AdapterTransport
from loadbench.client.client import Ask, Client, Endpoint, Timeouts
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput, TargetUnavailable
from loadbench.plan.load import Phase
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.targets import adapters
from tests.cli.running import loadbench

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.record.sample import Sample

CLOCK = MonotonicClock()
ONNX_MODEL = Path(__file__).parents[1] / "data" / "foundry_model" / "nano.tar.gz"


class Point:
    """An entry point, as installed packages have them."""

    def __init__(self, name: str, made: Any) -> None:
        self.name = name
        self._made = made

    def load(self) -> Any:
        """What it stands for."""
        if isinstance(self._made, Exception):
            raise self._made
        return self._made


def installed(monkeypatch: pytest.MonkeyPatch, *points: Point) -> None:
    """These entry points and no others."""
    monkeypatch.setattr(adapters, "entry_points", lambda group: points if group == "loadbench.adapters" else ())


def answers(adapter: Adapter, prompts: Sequence[str], *, max_tokens: int) -> list[Sample]:
    """What the adapter, loaded, answers to these, all asked at once."""

    async def main() -> list[Sample]:
        assert await adapters.load(adapter) > 0
        transport = AdapterTransport(adapter)
        endpoint = Endpoint(base_url="adapter:/v1", model=adapter.name, temperature=0.0, seed=1)
        client = Client(endpoint, transport, clock=CLOCK, timeouts=Timeouts())
        found: dict[int, Sample] = {}

        async def one(number: int, prompt: str) -> None:
            now_ns = CLOCK.now_ns()
            ask = Ask(number=number, phase=Phase.MEASURED, due_ns=now_ns, prompt=prompt, max_tokens=max_tokens)
            ask = replace(ask, keep_answer=True)
            found[number] = await client.fire(ask)

        async with anyio.create_task_group() as requests:
            for number, prompt in enumerate(prompts):
                requests.start_soon(one, number, prompt)
        await transport.aclose()
        return [found[number] for number in range(len(prompts))]

    return anyio.run(main)


def test_an_adapter_is_named_with_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands behind the first colon is the adapter's, colons and all."""
    installed(monkeypatch, Point("mine", lambda model: ("made of", model)))
    assert adapters.make_adapter("mine:C:/models/phi") == ("made of", "C:/models/phi")


@pytest.mark.parametrize(
    ("spec", "said", "hint"),
    [
        ("other:x", "no adapter 'other' is installed", "installed: broken, mine"),
        ("mine", "says no model", "--adapter mine:PATH"),
        ("mine:", "says no model", "--adapter mine:PATH"),
        ("broken:x", "No module named 'heavy'", "pip install 'loadbench[broken]'"),
    ],
)
def test_what_cannot_be_made_says_why(monkeypatch: pytest.MonkeyPatch, spec: str, said: str, hint: str) -> None:
    """One message with the remedy, be it a slip or a package that is not installed."""
    missing = ModuleNotFoundError("No module named 'heavy'", name="heavy")
    installed(monkeypatch, Point("mine", lambda model: model), Point("broken", missing))
    with pytest.raises(BadInput) as raised:
        adapters.make_adapter(spec)
    assert said in raised.value.message
    assert hint in raised.value.hint


def test_a_model_that_cannot_be_loaded_is_not_there() -> None:
    """Whatever it raises: the target is unavailable, in its words."""

    class Broken:
        name, parallel = "broken", 1

        async def load(self) -> None:
            raise OSError("weights.bin: not a model")

    with pytest.raises(TargetUnavailable, match=r"broken cannot be loaded: OSError: weights\.bin: not a model"):
        anyio.run(adapters.load, Broken())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says 48 words and ends, whatever it is asked."""
    pytest.importorskip("onnxruntime_genai")
    folder = tmp_path_factory.mktemp("onnx")
    with tarfile.open(ONNX_MODEL) as archive:
        archive.extractall(folder, filter="data")
    (config,) = folder.rglob("genai_config.json")
    return config.parent


@pytest.mark.parametrize(("limit", "tokens", "reason"), [(5, 5, "length"), (100, 48, "stop")])
def test_onnx_genai_says_what_its_model_says(onnx_folder: Path, limit: int, tokens: int, reason: str) -> None:
    """To the limit or to its end, token by token, a letter of two tokens in one piece; one answer after another."""
    from loadbench.targets.onnx_genai import OnnxGenai  # noqa: PLC0415 - an extra

    samples = answers(OnnxGenai(str(onnx_folder)), ["a", "a", "b c"], max_tokens=limit)
    assert {one.outcome for one in samples} == {Outcome.OK}
    assert {(one.output_tokens, one.token_source) for one in samples} == {(tokens, TokenSource.USAGE)}
    assert {one.finish_reason for one in samples} == {reason}
    assert {(one.answer or "")[:14] for one in samples} == {" Hello wörld 日本"[:14]}
    assert samples[0].input_tokens == samples[1].input_tokens
    assert samples[2].input_tokens == (samples[0].input_tokens or 0) + 2
    ordered = sorted(samples, key=lambda one: one.first_token_ns or 0)
    assert all((two.first_token_ns or 0) >= (one.last_token_ns or 0) for one, two in pairwise(ordered))


def test_onnx_genai_refuses_what_is_longer_than_its_context(onnx_folder: Path) -> None:
    """A failed request in the adapter's words; the next is answered."""
    from loadbench.targets.onnx_genai import OnnxGenai  # noqa: PLC0415 - an extra

    long, short = answers(OnnxGenai(str(onnx_folder)), ["x" * 2000, "x"], max_tokens=4)
    assert long.outcome is Outcome.STREAM_ERROR
    assert "context of 1024" in long.detail
    assert short.outcome is Outcome.OK


def test_a_sweep_measures_an_adapter(onnx_folder: Path, tmp_path: Path) -> None:
    """The same command, the same folder: stamps of the adapter, the time to load, cold and warm first tokens."""
    brief = ("--users=1,2", "--requests=6", "--warm-up=0", "--max-tokens=8", "--prompt=hello", f"--out={tmp_path}")
    process = loadbench("sweep", f"--adapter=onnx-genai:{onnx_folder}", *brief, "--json", cwd=tmp_path)
    run = json.loads(process.stdout)
    assert (run["simulated"], run["environment"]["stamp_source"]) == (False, "adapter")
    (model,) = run["models"]
    assert (model["model"], model["status"]) == (onnx_folder.name, "ok")
    assert model["load_s"] > 0
    assert model["cold_ttft_s"] > 0
    assert model["warm_ttft_s"] > 0
    for level in run["levels"]:
        assert (level["outcomes"], level["tokens"]["output"]) == ({"ok": 6}, 48)
        assert level["tokens"]["source"] == {"usage": 6}


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--adapter=onnx-genai:/nowhere",), 6, "holds no genai_config.json"),
        (("--adapter=nothing:x",), 2, "no adapter 'nothing' is installed"),
        (("--adapter=onnx-genai:x", "--url=http://127.0.0.1:1"), 2, "--url and --adapter exclude each other"),
        (("--adapter=onnx-genai:x", "--workers=2"), 2, "one process holds the model"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_told(tmp_path: Path, flags: tuple[str, ...], code: int, said: str) -> None:
    """One message, the exit code, and no traceback."""
    pytest.importorskip("onnxruntime_genai")
    process = loadbench("sweep", "--users=1", "--requests=1", *flags, cwd=tmp_path)
    assert process.returncode == code
    assert said in process.stderr
    assert "Traceback" not in process.stderr


def test_transformers_on_a_model_made_here(tmp_path: Path) -> None:
    """Exact lengths, the same text each time, one answer after another, and a prompt counted as the library does."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from loadbench.targets.transformers_lm import Transformers  # noqa: PLC0415 - an extra
    from tests.targets.tiny_hf import make_model  # noqa: PLC0415

    make_model(tmp_path)
    samples = answers(Transformers(str(tmp_path)), ["the cat sat", "the cat sat", "a dog"], max_tokens=12)
    assert {one.outcome for one in samples} == {Outcome.OK}
    assert {one.finish_reason for one in samples} == {"length"}
    assert {(one.output_tokens, one.token_source) for one in samples} == {(12, TokenSource.USAGE)}
    assert samples[0].input_tokens == samples[1].input_tokens
    assert samples[0].input_tokens != samples[2].input_tokens
    assert max(one.first_token_ns or 0 for one in samples) > min(one.end_ns for one in samples)


def test_transformers_without_a_model_says_so(tmp_path: Path) -> None:
    """A folder without one is no target; nothing is fetched."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from loadbench.targets.transformers_lm import Transformers  # noqa: PLC0415 - an extra

    with pytest.raises(TargetUnavailable, match="cannot be loaded"):
        anyio.run(adapters.load, Transformers(str(tmp_path)))
