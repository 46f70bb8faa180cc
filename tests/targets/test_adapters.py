"""Adapters by name, and the two that come along, on models made here."""

from __future__ import annotations

import json
import tarfile
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import anyio
import pytest

from loadbench.client.adapter import Adapter, AdapterTransport
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput, TargetUnavailable
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.targets import adapters
from tests.cli.echoing import installed
from tests.cli.running import loadbench
from tests.cli.typed import typed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from loadbench.client.adapter import AdapterRequest, Delta, Finish
    from loadbench.record.sample import Sample

CLOCK = MonotonicClock()
ONNX_MODEL = Path(__file__).parents[1] / "data" / "foundry_model" / "nano.tar.gz"


class Whole:
    """All that an adapter has to have."""

    name, parallel = "whole", 1

    def __init__(self, model: str) -> None:
        self.model = model

    async def load(self) -> None:
        """Nothing to do."""

    def generate(self, asked: AdapterRequest) -> AsyncIterator[Delta | Finish]:
        """Nobody asks."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing to do."""


def answers(adapter: Adapter, prompts: Sequence[str], *, max_tokens: int) -> list[Sample]:
    """What the adapter, loaded, answers to these, all asked at once."""

    async def main() -> list[Sample]:
        assert await adapters.load(adapter) > 0
        transport = AdapterTransport(adapter)
        endpoint = Endpoint(base_url="adapter:/v1", model=adapter.name, temperature=0.0, seed=1)
        client = Client(endpoint, transport, clock=CLOCK, timeouts=Timeouts())
        found: dict[int, Sample] = {}

        async def one(number: int, prompt: str) -> None:
            found[number] = await client.send_prompt(prompt, max_tokens=max_tokens, keep_text=True)

        async with anyio.create_task_group() as requests:
            for number, prompt in enumerate(prompts):
                requests.start_soon(one, number, prompt)
        await transport.aclose()
        return [found[number] for number in range(len(prompts))]

    return anyio.run(main)


def test_an_adapter_is_named_with_its_model() -> None:
    """What stands behind the first colon is the adapter's, colons and all."""
    with installed(mine=Whole):
        made = adapters.make_adapter("mine:C:/models/phi")
    assert isinstance(made, Whole)
    assert made.model == "C:/models/phi"


def refuses(model: str) -> None:
    """An adapter that is made of nothing."""
    raise ValueError(f"{model} is no\nmodel")


@pytest.mark.parametrize(
    ("spec", "said", "hint"),
    [
        ("other:x", "no adapter 'other' is installed", "installed: half, mine, picky, theirs, transformers"),
        ("mine", "the model is missing", "--adapter mine:PATH"),
        ("mine:", "the model is missing", "--adapter mine:PATH"),
        ("transformers:x", "No module named 'heavy'", "pip install 'loadbench[transformers]'"),
        ("theirs:x", "No module named 'heavy'", "install what it needs"),
        ("picky:x", "ValueError: x is no", "what 'picky' expects"),
        ("half:x", "it has no load, generate, aclose", "Adapter"),
    ],
)
def test_what_cannot_be_made_says_why(spec: str, said: str, hint: str) -> None:
    """One message with the remedy, be it a slip, a package that is not installed, or what is no adapter at all."""
    missing = ModuleNotFoundError("No module named 'heavy'", name="heavy")
    half = SimpleNamespace(name="half", parallel=1)
    made = {"mine": Whole, "transformers": missing, "theirs": missing, "picky": refuses, "half": lambda _: half}
    with installed(**made), pytest.raises(BadInput) as raised:
        adapters.make_adapter(spec)
    assert said in raised.value.message
    assert hint in raised.value.hint
    assert ("loadbench[" in raised.value.hint) == (spec == "transformers:x")
    assert "\n" not in raised.value.message


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
    assert {(one.text or "")[:14] for one in samples} == {" Hello wörld 日本"[:14]}
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
        (("--adapter=onnx-genai:/nowhere",), 6, "has no genai_config.json"),
        (("--adapter=nothing:x",), 2, "no adapter 'nothing' is installed"),
        (("--adapter=onnx-genai:x", "--url=http://127.0.0.1:1"), 2, "--url and --adapter exclude each other"),
        (("--adapter=onnx-genai:x", "--workers=2"), 2, "one process holds the model"),
        (("--adapter=onnx-genai:x", "--model=y"), 6, "has no model 'y'"),
        (
            ("--adapter=onnx-genai:x", "--api=ollama"),
            2,
            "--api: has no effect with --adapter: a model in this process takes chats",
        ),
        (
            ("--adapter=onnx-genai:x", "--api=responses"),
            2,
            "--api: has no effect with --adapter: a model in this process takes chats",
        ),
    ],
)
def test_an_adapter_that_cannot_be_used_is_told(tmp_path: Path, flags: tuple[str, ...], code: int, said: str) -> None:
    """One message, the exit code, and no traceback."""
    pytest.importorskip("onnxruntime_genai")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "genai_config.json").write_text("{}", encoding="utf-8")
    process = loadbench("sweep", "--users=1", "--requests=1", *flags, cwd=tmp_path)
    assert process.returncode == code
    assert loadbench("sweep", *flags, "--dry-run", cwd=tmp_path).returncode == (0 if "--model=y" in flags else code)
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


def test_transformers_says_words_apart_and_begins_a_prompt_once(tmp_path: Path) -> None:
    """Spaces that belong to tokens are said; the token that begins a prompt stands in its template, and only there."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from loadbench.targets.transformers_lm import Transformers  # noqa: PLC0415 - an extra
    from tests.targets.tiny_hf import WORDS, make_spaced_model  # noqa: PLC0415

    make_spaced_model(tmp_path)
    (sample,) = answers(Transformers(str(tmp_path)), ["the cat sat"], max_tokens=12)
    words = (sample.text or "").replace("<s>", " <s> ").split()
    assert len(words) == 12
    assert set(words) <= {"<s>", *WORDS}
    assert sample.input_tokens == 4


def test_transformers_without_a_model_says_so(tmp_path: Path) -> None:
    """A folder without one is no target; nothing is fetched."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from loadbench.targets.transformers_lm import Transformers  # noqa: PLC0415 - an extra

    with pytest.raises(TargetUnavailable, match="cannot be loaded"):
        anyio.run(adapters.load, Transformers(str(tmp_path)))


# The other commands.


def test_the_manuals_example_is_an_adapter(tmp_path: Path) -> None:
    """What docs/adapters.md shows as one's own is measured as it stands there."""
    text = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    example = text.partition("```python\n")[2].partition("```")[0]
    made: dict[str, type] = {}
    exec(example, made)
    brief = ("--users=1,4", "--requests=8", "--warm-up=0", "--ramp=0", "--prompt=to be or not to be", "--no-unique")
    with installed(parrot=made["Parrot"]):
        run = json.loads(typed("sweep", "--adapter=parrot:polly", *brief, "--json", "--quiet", cwd=tmp_path).stdout)
        checked = typed("doctor", "--adapter=parrot:polly", cwd=tmp_path).stdout
    assert [(level["outcomes"], level["tokens"]["output"]) for level in run["levels"]] == [({"ok": 8}, 48)] * 2
    assert run["levels"][1]["concurrency"]["peak"] == 4
    assert "4,096 tokens, as the adapter reports" in checked


def test_loading_an_adapter_again_is_timed_where_that_is_wanted(tmp_path: Path) -> None:
    """Cold and warm, of the same adapter; a server that is no Foundry Local is not asked to."""
    brief = ("--users=1", "--requests=2", "--warm-up=0", "--prompt=hi", "--time-loads", "--json", "--quiet")
    with installed():
        run = json.loads(typed("sweep", "--adapter=echo:mine", *brief, cwd=tmp_path).stdout)
        refused = typed("sweep", *brief, cwd=tmp_path)
    (model,) = run["models"]
    assert model["load_s"] > 0
    assert model["load_warm_s"] > 0
    assert (refused.returncode, "--time-loads: has no effect: only Foundry Local and adapters" in refused.stderr) == (
        2,
        True,
    )


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (("models", "--adapter=echo:x"), 2, "an adapter is one model and has no list"),
        (("compare", "--adapter=echo:x", "--same"), 2, "measured in turn, and no adapter"),
        (("compare", "--adapter=echo:x", "--a-model=y", "--b-model=z"), 2, "measured in turn, and no adapter"),
        (("doctor", "--adapter=echo:x", "--model=y"), 6, "has no model 'y'"),
        (("doctor", "--adapter=gone:x"), 6, "no adapter 'gone' is installed"),
    ],
)
def test_commands_that_have_no_use_for_an_adapter_say_so(
    tmp_path: Path, command: tuple[str, ...], code: int, said: str
) -> None:
    """One message and its exit code; nothing is measured in its place.

    Seen to fail: `models` listed the simulated server's, `compare` measured the adapter against itself.
    """
    with installed():
        done = typed(*command, cwd=tmp_path)
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True)


def test_doctor_checks_an_adapter(tmp_path: Path) -> None:
    """It is made, loaded, asked, and this machine is looked at; no endpoint is missed."""
    with installed():
        done = typed("doctor", "--adapter=echo:mine", "--json", cwd=tmp_path)
    checks = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0
    assert list(checks)[:3] == ["adapter", "loaded mine", "response mine"]
    assert checks["response mine"]["message"].startswith("9 tokens")
    assert {"memory", "disk", "clock"} <= set(checks)


def test_a_search_loads_the_model_that_it_searches(tmp_path: Path) -> None:
    """An adapter is loaded before it is asked, as for a sweep.

    Seen to fail: its first request was answered by "not loaded".
    """
    brief = ("--prompt=hi", "--max-tokens=8", "--at-most=1", "--budget=3s", "--slo=ttft_p50<1s", "--quiet", "--json")
    with installed():
        done = typed("capacity", "--adapter=echo:mine", *brief, cwd=tmp_path)
    assert done.returncode in {0, 4, 5}, done.stderr
    assert json.loads(done.stdout)["model"] == "mine"
