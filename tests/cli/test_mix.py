"""A mix of models and several servers at the command line, on real sockets."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from loadbench.sim.process import SimProcess
from tests.cli.running import LIMIT_S, loadbench, started
from tests.plan.make_traces import AZURE_TRACE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

MODELS = ("qwen2.5:3b", "org/phi-4-mini")
MIX = "qwen2.5:3b=3,org/phi-4-mini=1"
# Prompts and answers so short that a level is over soon.
SHORT = ("--input-tokens", "20", "--max-tokens", "8", "--quiet", "--telemetry", "off", "--drain", "5s")


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, str]]:
    """Two servers with the same models, of which the second is four times as slow."""
    with SimProcess(speed=1.0, models=MODELS) as fast, SimProcess(speed=0.25, models=MODELS) as slow:
        yield fast.url, slow.url


def sweep(
    cwd: Path, *arguments: str, command: str = "sweep", expected: tuple[int, ...] = (0,), **variables: str
) -> Any:
    """Its run, and what it printed."""
    done = loadbench(command, *arguments, *SHORT, cwd=cwd, **variables)
    assert done.returncode in expected, (done.returncode, done.stdout, done.stderr)
    (path,) = cwd.glob("results/*/run.json")
    return json.loads(path.read_text()), done, path.parent


def adds_up(level: dict[str, Any], groups: str) -> set[str]:
    """The names of the groups, whose counts and rates are those of the level."""
    parts = level[groups].values()
    outcomes: Counter[str] = Counter()
    for part in parts:
        outcomes.update(part["outcomes"])
    assert outcomes == Counter(level["outcomes"])
    assert sum(part["output_tokens"] for part in parts) == level["tokens"]["output"]
    for rate in ("requests_per_s", "output_tokens_per_s", "total_tokens_per_s"):
        assert sum(part["throughput"][rate] for part in parts) == pytest.approx(level["throughput"][rate])
    return set(level[groups])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_mix_at_two_servers_of_unlike_speed(servers, tmp_path, workers):
    """Shares, figures and lines are by model and by server; the slow server is recognised, and named."""
    fast, slow = (f"{url}/v1" for url in servers)
    load = ("--users", "6", "--duration", "4s", "--warm-up", "1500ms", "--workers", workers)
    run, done, folder = sweep(tmp_path, "--url", servers[0], "--url", slow, "--mix-models", MIX, *load, expected=(0, 4))
    (level,) = run["levels"]
    assert level["model"] == MIX
    assert (level["target"], level["targets"]) == (fast, [fast, slow])
    assert adds_up(level, "by_model") == set(MODELS)
    assert adds_up(level, "by_server") == {fast, slow}
    by_model = {name: part["requests"] for name, part in level["by_model"].items()}
    assert by_model[MODELS[0]] / sum(by_model.values()) == pytest.approx(0.75, abs=0.1)
    by_server = level["by_server"]
    assert abs(by_server[fast]["requests"] - by_server[slow]["requests"]) <= 12
    assert by_server[slow]["metrics"]["tpot_s"]["p50"] > 2 * by_server[fast]["metrics"]["tpot_s"]["p50"]
    (caveat,) = [one for one in level["caveats"] if one["code"] == "uneven_servers"]
    assert slow in caveat["message"]
    assert "other_model" not in {reason["code"] for reason in level["verdict"]["reasons"]}
    assert run["models"][0]["mix"] == [
        {"model": MODELS[0], "share": 0.75, "asked": None, "load_s": None, "load_warm_s": None},
        {"model": MODELS[1], "share": 0.25, "asked": None, "load_s": None, "load_warm_s": None},
    ]
    assert run["environment"]["workers"] == int(workers)
    lines = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    measured = Counter(line["url"] for line in lines if line["phase"] == "measured")
    assert measured == {url: part["requests"] for url, part in by_server.items()}
    assert all(line["model"] == line["answered_model"] for line in lines)
    for text in (done.stdout, (folder / "report.md").read_text()):
        assert MODELS[1] in text
        assert slow in text.replace("\\", "")
        assert "the servers are not alike" in text


def test_several_servers_from_a_variable_and_from_a_file(servers, tmp_path):
    """One text with commas, and a list; requests of an open loop go to them in turn."""
    load = ("--rate", "20", "--arrivals", "constant", "--duration", "1s", "--warm-up", "1s", "--model", MODELS[0])
    run, *_ = sweep(tmp_path, *load, expected=(0, 4), LOADBENCH_URL=",".join(servers))
    (level,) = run["levels"]
    assert {part["requests"] for part in level["by_server"].values()} == {10}
    assert level["by_model"] == {}
    mix = "".join(f"'{name}' = 1\n" for name in MODELS)
    (tmp_path / "s.toml").write_text(f"[target]\nurl = {json.dumps(servers)}\n[target.mix_models]\n{mix}")
    done = loadbench("sweep", "s.toml", "--dry-run", "--verbose", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"a mix of {MODELS[0]}=1, {MODELS[1]}=1" in done.stdout
    assert ", ".join(servers) in done.stdout


def test_an_unmixed_run_names_model_and_server_in_each_line(servers, tmp_path):
    """Every line says where it went, though the level has one model and one server; there are no groups."""
    load = ("--users", "1", "--requests", "3", "--warm-up", "0s", "--model", MODELS[0])
    run, _, folder = sweep(tmp_path, "--url", servers[0], *load, expected=(0, 4, 5))
    (level,) = run["levels"]
    assert (level["targets"], level["by_model"], level["by_server"]) == ([], {}, {})
    lines = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    assert {(line["model"], line["url"]) for line in lines} == {(MODELS[0], f"{servers[0]}/v1")}


def test_a_server_that_dies_shows_as_its_own_failures(servers, tmp_path):
    """It was there at the start; from then on its requests fail, and those to the other one do not."""
    with SimProcess(models=MODELS) as mortal:
        other = f"{mortal.url}/v1"
        load = ("--users", "4", "--duration", "8s", "--warm-up", "500ms", "--model", MODELS[0], "--no-live")
        process = started(
            "sweep", "--url", servers[0], "--url", other, *load, *SHORT[:-4], "--drain", "2s", cwd=tmp_path
        )
        try:
            # A line is of a request of the level, which has begun then.
            while not any(file.stat().st_size for file in tmp_path.glob("results/*/requests.jsonl")):
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            mortal.__exit__(None, None, None)
            _, errors = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == 4, errors
    (path,) = tmp_path.glob("results/*/run.json")
    (level,) = json.loads(path.read_text())["levels"]
    adds_up(level, "by_server")
    alive, dead = level["by_server"][f"{servers[0]}/v1"], level["by_server"][other]
    assert set(alive["outcomes"]) == {"ok"}
    assert sum(count for outcome, count in dead["outcomes"].items() if outcome != "ok") > 10
    assert other in next(one["message"] for one in level["caveats"] if one["code"] == "uneven_servers")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--url", "{0}", "--url", "http://127.0.0.1:9", "--model", MODELS[0]], 6, ["http://127.0.0.1:9"]),
        (["--url", "{0}", "--mix-models", f"{MODELS[0]},nobody"], 6, ["nobody"]),
        (["--url", "{0}", "--url", "{1}", "--model", "nobody"], 6, ["nobody"]),
        (["--url", "{0}", "--url", "{0}/v1", "--model", MODELS[0]], 2, ["--url", "the same server"]),
        (["--url", "{0}", "--url", "{0}"], 2, ["--url", "each server once"]),
        (["--url", "{0}", "--mix-models", MODELS[0]], 2, ["--mix-models", "at least 2 models"]),
        (["--url", "{0}", "--mix-models", MIX, "--model", "x"], 2, ["--mix-models", "--model", "exclude"]),
        (["--url", "{0}", "--url", "{1}", "--server-pid", "1"], 2, ["--server-pid", "2 servers"]),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_name(servers, tmp_path, arguments, code, said):
    """A model that one lacks, an address where nobody listens, one server twice."""
    given = [argument.format(*servers) for argument in arguments]
    done = loadbench("sweep", *given, "--users", "1", "--requests", "2", "--quiet", cwd=tmp_path)
    assert done.returncode == code, (done.stdout, done.stderr)
    for word in said:
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("results/*/requests.jsonl")) or code == 6


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("compare", ["--url", "http://h:1", "--url", "http://h:2", "--a-model", "a", "--b-model", "b"], "saved runs"),
        ("compare", ["--a", "http://h:1,http://h:2", "--b", "http://h:3"], "a side is one server"),
        ("compare", ["--url", "http://h:1", "--mix-models", MIX], "each side has one model"),
        ("workshop", ["--url", "http://h:1", "--mix-models", MIX], "one model after another"),
        ("doctor", ["--url", "http://h:1", "--url", "http://h:2"], "one server is checked"),
        ("models", ["--url", "http://h:1", "--url", "http://h:2"], "the models of one server"),
    ],
)
def test_commands_that_take_one_server_or_model_say_why(tmp_path, command, arguments, said):
    """Before anything is sent."""
    done = loadbench(command, *arguments, cwd=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert said in done.stderr


def test_the_simulated_server_has_the_models_of_a_mix(tmp_path):
    """So that a mix can be tried without any server."""
    load = ("--users", "2", "--requests", "12", "--warm-up", "1s")
    run, done, _ = sweep(tmp_path, "--mix-models", "a,b=2", *load, expected=(0, 4, 5))
    (level,) = run["levels"]
    assert {name: part["requests"] for name, part in level["by_model"].items()} == {"a": 4, "b": 8}
    assert level["model"] == "a=1,b=2"
    assert done.stdout.count("a=1,b=2") >= 1


def test_a_trace_is_replayed_to_a_mix(servers, tmp_path):
    """Each request of the trace goes to the next model, at the next server."""
    arguments = (str(AZURE_TRACE), "--url", ",".join(servers), "--mix-models", "qwen2.5:3b,org/phi-4-mini")
    done = loadbench(
        "replay", *arguments, "--limit", "12", "--time-scale", "100", "--quiet", "--telemetry", "off", cwd=tmp_path
    )
    assert done.returncode in {0, 4, 5}, done.stderr
    (path,) = tmp_path.glob("results/*/run.json")
    (level,) = json.loads(path.read_text())["levels"]
    assert {part["requests"] for part in level["by_model"].values()} == {6}
    assert {part["requests"] for part in level["by_server"].values()} == {6}


def test_a_capacity_search_on_a_mix(servers, tmp_path):
    """It searches one model, which is the mix, and says how many users both models take together."""
    run, done, folder = sweep(
        tmp_path, "--url", servers[0], "--mix-models", MIX, "--slo", "e2e_p95<10s", "--at-most", "4", "--budget", "20s",
        "--warm-up", "500ms", command="capacity", expected=(0, 3, 4, 5),
    )  # fmt: skip
    found = json.loads((folder / "capacity.json").read_text())
    assert found["model"] == MIX
    assert found["conditions"]["target.mix_models"] == ["qwen2.5:3b=3", "org/phi-4-mini=1"]
    assert run["levels"]
    for level in run["levels"]:
        if sum(level["outcomes"].values()) > 8:
            assert adds_up(level, "by_model") == set(MODELS)
    assert "Traceback" not in done.stderr


def test_answers_of_a_mixed_run_are_collected_from_each_model(servers, tmp_path):
    """`score` tests each of its models alone, at the first of its servers."""
    sweep(
        tmp_path, "--url", servers[0], "--url", servers[1], "--mix-models", MIX, "--users", "1", "--requests", "4",
        "--warm-up", "0s", expected=(0, 4, 5),
    )  # fmt: skip
    (folder,) = tmp_path.glob("results/*")
    done = loadbench("score", "stub", str(folder), "--prompt", "Say hello.", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = json.loads((folder / "annotation.json").read_text())["answers"]
    assert sorted(answer["model"] for answer in answers) == sorted(MODELS)
