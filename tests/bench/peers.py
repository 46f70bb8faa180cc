"""Other load testers and ours at the same load, each beside what the server saw: `python -m tests.bench peers`.

Each tool runs as its users run it, in its own environment (`--python NAME=PATH`), with a server of its own on the other
core, and reports its own figures. The server's are of the same requests. A tool that is not installed is named, and
one that fails is shown by its last line. They need a tokenizer and no network: one of made-up words is put in a folder
laid out like the cache of Hugging Face.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from loadbench.results.folder import read_run
from loadbench.results.requests import read_requests
from loadbench.sim.truth import Pace
from tests.bench.running import Truth, events_of, run_client, say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadbench.results.run import LevelResult
    from loadbench.sim.truth import ServedResponse
    from tests.bench.running import Ran

ROOT = Path(__file__).parents[2]
_WORDS, _SNAPSHOT = 2000, "0" * 40


class Load(NamedTuple):
    """How many streams and requests, and the pace of each response; `extra` asks for a pace that is not the usual."""

    streams: int
    requests: int
    pace: Pace

    @property
    def extra(self) -> str:
        """A field of the request's body in which the server finds the pace."""
        return json.dumps({"user": self.pace.prompt})


class Figures(NamedTuple):
    """What a tool reports, in seconds; the peak is its own figure of concurrency."""

    ttft_p50: float
    ttft_p99: float
    gap_p50: float
    gap_p99: float
    peak: float


@dataclass(frozen=True, slots=True)
class Tool:
    """A load tester in Python: its package, its command line, and how its results are read."""

    package: str
    command: Callable[[Load, str, Path], Sequence[str]]
    read: Callable[[Path], Figures]


# One per tool: the arguments of its interpreter, and its report.

_VLLM = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
# The rest of the package wants torch; the extension needs nothing of it.
_SGLANG = """
import importlib.util, pathlib, sys
package = pathlib.Path(importlib.util.find_spec("sglang").origin).parent
path, *_ = sorted((package / "srt" / "rust_extensions").glob("_bench.*"))
spec = importlib.util.spec_from_file_location("_bench", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.run_argv(sys.argv)
"""


def _in_ms(*values: float, peak: float) -> Figures:
    return Figures(*(value / 1000 for value in values), peak)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _guidellm(load: Load, url: str, folder: Path) -> Sequence[str]:
    backend = f"kind=openai_http,target={url},model=truth,validate_backend=false"
    data = f"kind=synthetic_text,prompt_tokens=32,output_tokens={load.pace.events}"
    return [
        *("-m", "guidellm", "run", "--disable-console", "--backend", backend, "--data", data),
        *("--profile", f"kind=concurrent,streams={load.streams}"),
        *("--constraint", f"kind=max_requests,count={load.requests}"),
        *("--tokenizer", f"kind=hf_auto,model={tokenizer(folder)}"),
        *("--output", f"kind=json,path={folder / 'report.json'}"),
    ]


def _read_guidellm(folder: Path) -> Figures:
    metrics = _read_json(folder / "report.json")["benchmarks"][0]["metrics"]
    ttft, gap = (metrics[name]["successful"]["percentiles"] for name in ("time_to_first_token_ms", _GUIDELLM_ITL))
    peak = metrics["request_concurrency"]["successful"]["max"]
    return _in_ms(ttft["p50"], ttft["p99"], gap["p50"], gap["p99"], peak=peak)


_GUIDELLM_ITL = "inter_token_latency_ms"


def _aiperf(load: Load, url: str, folder: Path) -> Sequence[str]:
    tokenizer(folder)
    return [
        *("-c", "from aiperf.cli import app; app()", "profile", "-m", "truth", "-u", url, "--endpoint-type", "chat"),
        *("--streaming", "--tokenizer", "bench/words", "--use-server-token-count", "--ui", "none", "--no-auto-plot"),
        *("--concurrency", str(load.streams), "--request-count", str(load.requests)),
        *("--isl", "32", "--osl", str(load.pace.events), "--artifact-dir", str(folder / "artifacts")),
    ]


def _read_aiperf(folder: Path) -> Figures:
    report = _read_json(folder / "artifacts" / "profile_export_aiperf.json")
    ttft, gap = report["time_to_first_token"], report["inter_chunk_latency"]
    return _in_ms(ttft["p50"], ttft["p99"], gap["p50"], gap["p99"], peak=report["effective_concurrency"]["max"])


def _vllm(load: Load, url: str, folder: Path) -> Sequence[str]:
    return [
        *("-c", _VLLM, "--backend", "openai-chat", "--base-url", url, "--endpoint", "/v1/chat/completions"),
        *("--model", "truth", "--tokenizer", str(tokenizer(folder)), "--dataset-name", "random"),
        *("--random-input-len", "32", "--random-output-len", str(load.pace.events)),
        *("--num-prompts", str(load.requests), "--max-concurrency", str(load.streams), "--disable-tqdm"),
        *("--percentile-metrics", "ttft,itl", "--metric-percentiles", "50,99"),
        *("--save-result", "--result-filename", str(folder / "report.json")),
    ]


def sglang(load: Load, url: str, folder: Path) -> Sequence[str]:
    """The arguments of the interpreter that runs SGLang's Rust client."""
    return [
        *("-c", _SGLANG, "--backend", "vllm-chat", "--base-url", url, "--model", "truth"),
        *("--tokenizer", str(tokenizer(folder)), "--dataset-name", "random-ids", "--disable-tqdm"),
        *("--random-input-len", "32", "--random-output-len", str(load.pace.events), "--random-range-ratio", "1"),
        *("--num-prompts", str(load.requests), "--max-concurrency", str(load.streams)),
        *("--extra-request-body", load.extra, "--output-file", str(folder / "report.json")),
    ]


def read_report(folder: Path) -> Figures:
    """The report of SGLang, and of vLLM, whose form is the same."""
    one = _read_json(folder / "report.json")
    peak = one.get("max_concurrent_requests", float("nan"))
    return _in_ms(*(one[f"{name}_{what}"] for what, name in _ROWS), peak=peak)


_ROWS = (("ttft_ms", "median"), ("ttft_ms", "p99"), ("itl_ms", "median"), ("itl_ms", "p99"))
TOOLS = {
    "sglang": Tool("sglang", sglang, read_report),
    "vllm": Tool("vllm", _vllm, read_report),
    "aiperf": Tool("aiperf", _aiperf, _read_aiperf),
    "guidellm": Tool("guidellm", _guidellm, _read_guidellm),
}


def tokenizer(folder: Path) -> Path:
    """A tokenizer of made-up words in a folder, laid out like a cache in which it is `bench/words`."""
    cached = folder / "hf" / "hub" / "models--bench--words"
    files = cached / "snapshots" / _SNAPSHOT
    if files.exists():
        return files
    words = ["<unk>", *(f"w{number}" for number in range(_WORDS))]
    model = {"type": "WordLevel", "vocab": {word: number for number, word in enumerate(words)}, "unk_token": "<unk>"}
    fast = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    none = dict.fromkeys(["truncation", "padding", "normalizer", "post_processor", "decoder"])
    files.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(_SNAPSHOT, encoding="ascii")
    for name, content in {
        "tokenizer.json": none | fast,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"},
        "config.json": {"model_type": "gpt2", "vocab_size": len(words)},
    }.items():
        (files / name).write_text(json.dumps(content), encoding="utf-8")
    return files


def environment(folder: Path) -> dict[str, str]:
    """Variables that keep the tools away from the network."""
    offline = dict.fromkeys(["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"], "1")
    return {**offline, "VLLM_NO_USAGE_STATS": "1", "HF_HOME": str(folder / "hf"), "NO_COLOR": "1", "COLUMNS": "200"}


def interpreter(name: str, pythons: Mapping[str, str]) -> tuple[list[str], dict[str, str]] | None:
    """The command and variables with which a tool's Python runs; `None` if the tool is not installed there."""
    where = Path(pythons.get(name, sys.executable)).absolute()
    command = [sys.executable if where.is_dir() else str(where)]
    variables = {"PYTHONPATH": str(where)} if where.is_dir() else {}
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({TOOLS[name].package!r}) is None)"
    try:
        found = subprocess.run([*command, "-c", probe], env=variables, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return None
    return None if found.returncode else (command, variables)


def run_tool(name: str, python: tuple[list[str], dict[str, str]], load: Load, folder: Path) -> Ran:
    """Run a tool at a load; its files are in the folder."""
    command, variables = python
    return run_client(
        lambda url, folder: [*command, *TOOLS[name].command(load, url, folder)],
        env=environment(folder) | variables,
        folder=folder,
    )


class Ours(NamedTuple):
    """Our sweep: its process, its level, all of its load's responses, and the measured ones."""

    ran: Ran
    level: LevelResult
    responses: list[ServedResponse]
    measured: list[ServedResponse]


def run_ours(load: Load, folder: Path, *flags: str, **cores: set[int] | None) -> Ours:
    """Run `loadbench sweep` at one load; raises if it fails.

    Which of the server's responses were measured is known by their order: as requests were sent, so they arrived.
    """
    ran = run_client(
        lambda url, folder: [
            *(sys.executable, "-m", "loadbench", "sweep", "--url", url, "--users", str(load.streams), "--quiet"),
            *("--prompt", load.pace.prompt, "--max-tokens", str(load.pace.events), "--out", str(folder), *flags),
        ],
        env={"PYTHONPATH": str(ROOT)},
        folder=folder,
        **cores,
    )
    if ran.code not in {0, 4}:
        raise RuntimeError(f"loadbench ended with {ran.code}: {last_line(ran.output)}")
    (run_folder,) = (path.parent for path in folder.glob("*/run.json"))
    requests = sorted(
        (one for one in read_requests(run_folder / "requests.jsonl") if one.sent_ns), key=lambda one: one.sent_ns or 0
    )
    responses = ran.load(len(requests))
    pairs = zip(requests, responses, strict=False)
    measured = [served for request, served in pairs if request.phase == "measured"]
    return Ours(ran, read_run(run_folder).levels[0], responses, measured)


def last_line(output: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in output.splitlines() if any(map(str.isalnum, line))]
    return lines[-1][:160] if lines else "no output"


def peers(*, rounds: int, pythons: Mapping[str, str]) -> None:
    """Figures of the tools that are installed, and of ours, beside those of the server."""
    load = Load(128, 512, Pace())
    say(
        "\nPeers: 128 streams, 512 requests, TTFT 50 ms, 64 events 20 ms apart; figures of each tool and (the server's)"
    )
    say("one core for each client, children included; gaps are as the tool calls them; ms\n")
    found = {name: interpreter(name, pythons) for name in TOOLS}
    cpu: dict[str, list[float]] = {}
    starts: dict[str, list[float]] = {}
    for number in range(rounds):
        for name in ("loadbench", *(name for name, python in found.items() if python)):
            with tempfile.TemporaryDirectory() as directory:
                folder, label, count = Path(directory), f"  {number + 1} {name:<10}", load.requests
                if name == "loadbench":
                    ours = run_ours(load, folder, "--requests", str(load.requests))
                    ran, count, figures = ours.ran, len(ours.responses), _ours_figures(ours.level)
                    truth, verdict = Truth.of(ours.measured), ours.level.verdict
                    more = f"   {', '.join(reason.code for reason in verdict.reasons) or verdict.status}"
                else:
                    ran, more = run_tool(name, found[name] or ([], {}), load, folder), ""
                    try:
                        figures, truth = TOOLS[name].read(folder), Truth.of(ran.load(count))
                    except (OSError, LookupError, TypeError, ValueError) as error:
                        say(f"{label} no figures (it ended with {ran.code}): {last_line(ran.output) or error}")
                        continue
            start_s = ran.start_s(count)
            starts.setdefault(name, []).append(start_s)
            cpu.setdefault(name, []).append((ran.cpu_s - start_s) / events_of(ran.load(count)))
            say(
                f"{label}{_against(figures, truth)}   {cpu[name][-1] * 1e6:6.1f} µs an event, start {start_s:.1f} s"
                f"{more}"
            )
    say("")
    for name, costs in cpu.items():
        say(
            f"  {name:<12} CPU per event {statistics.median(costs) * 1e6:6.1f} µs ({min(costs) * 1e6:.1f}.."
            f"{max(costs) * 1e6:.1f}), before the first request {statistics.median(starts[name]):.2f} s"
        )
    for name in (name for name, python in found.items() if not python):
        say(f"  {name:<12} not installed in {pythons.get(name, sys.executable)}: --python {name}=PATH")


def _ours_figures(level: LevelResult) -> Figures:
    ttft, gap = level.metrics["ttft_s"], level.metrics["event_gap_s"]
    if ttft is None or gap is None:
        raise RuntimeError("loadbench measured nothing")
    return Figures(ttft.p50, ttft.p99, gap.p50, gap.p99, level.concurrency.peak)


def _against(figures: Figures, truth: Truth) -> str:
    """A tool's figures, each with the server's own."""
    ms = (
        f"{ours * 1000:7.1f} ({true * 1000:.1f})"
        for ours, true in zip(figures[:4], (truth.ttft_p50, truth.ttft_p99, truth.gap_p50, truth.gap_p99), strict=True)
    )
    first, last, gap, late = ms
    return f" TTFT p50 {first} p99 {last}   gap p50 {gap} p99 {late}   peak {figures.peak:4.0f} ({truth.peak})"
