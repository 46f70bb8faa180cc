"""A model on trial: cold starts, delayed acknowledgements, contexts and devices, each told only where it is so."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import anyio
import pytest

from loadbench.core.errors import TargetUnavailable
from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import LimitSettings, TargetSettings
from loadbench.record.kept_connections import ADVICE
from loadbench.results.models import Model
from loadbench.targets import machine
from loadbench.targets.error_hints import advice_for, known_error
from loadbench.targets.foundry import Dialect, Service, catalogue_of, load, looks_like_foundry
from loadbench.targets.prepare import Prepared
from loadbench.targets.probe import ModelProbe
from loadbench.targets.target import Target
from tests.building import MS, a_sample
from tests.client.server import ANSWER, ASK, GONE, Script, chunk, head, serving, token, whole

if TYPE_CHECKING:
    from loadbench.targets.check_result import Check


def prepared(target: Target, known: Model | None = None, *, scenario: Scenario | None = None) -> Prepared:
    """The target, with the model's entry in the catalogue where it has one."""
    catalogue = [] if known is None else [known]
    return Prepared(scenario=scenario or Scenario(), target=target, catalogue=catalogue)


def trial(known: Model | None = None, *, local: bool = True, cores: int = 8, gpus: tuple[str, ...] = ()) -> ModelProbe:
    """A trial whose machine is as told."""
    seen = SimpleNamespace(local=local, cores=cores, gpus=gpus)
    return ModelProbe(prepared(Target(base_url="http://h/v1"), known), model="m", machine=seen)  # type: ignore[arg-type]


def test_server_that_answers_what_it_should_refuse_is_cut_off(monkeypatch):
    """A context that nobody names is not known, and nobody waits for ten million tokens."""
    cut = []

    class Obliging:
        async def send_prompt(self, *_, **__):
            try:
                await anyio.sleep(60)
            finally:
                cut.append(True)

    monkeypatch.setattr("loadbench.targets.probe._LIMIT_WITHIN_S", 0.01)
    assert anyio.run(partial(trial()._context, Obliging(), ask_limit=True)) == []
    assert cut == [True]


@pytest.mark.parametrize(("first_ms", "second_ms", "told"), [(9000, 200, True), (900, 450, False), (300, 90, False)])
def test_cold_start_is_a_first_answer_much_slower_than_the_second(first_ms, second_ms, told):
    """Several times, and by more than half a second: less is chance."""
    checks = trial()._cold_start(a_sample(ttft_ns=first_ms * MS), a_sample(ttft_ns=second_ms * MS))
    assert [check.name for check in checks] == (["cold start m"] if told else [])


def finding(*scripts: Script) -> list[Check]:
    """What the probe finds at a server that plays these scripts."""

    async def checks() -> list[Check]:
        async with serving(*scripts) as server:
            seen = SimpleNamespace(local=False, read=dict)
            probe = ModelProbe(prepared(Target(base_url=server.url())), model="m", machine=seen)
            return await probe.run(ask_limit=False)

    return asyncio.run(checks())


def response(wait_s: float) -> Script:
    """A response whose head comes at once, and everything else later."""
    return [ASK, head(), wait_s, ANSWER.removeprefix(head())]


HELD = [*response(0.001), *response(0.043) * 20]


@pytest.mark.parametrize(
    ("scripts", "delayed"),
    [
        ([HELD], True),
        # The first response is cold, or one of the kept ones is not held, or one is much later than the others.
        ([[*response(0.2), *HELD[4:]], HELD], True),
        ([[*HELD[:12], *response(0.001), *HELD[12:]], HELD], True),
        ([[*HELD[:12], *response(0.15), *HELD[12:]], HELD], True),
        # One of the new connections is quick.
        ([HELD, response(0.08), HELD], True),
        # All are slow, or none is; or the head comes late as well, or the delay is never the same.
        ([response(0.043) * 20], False),
        ([response(0.001) * 20], False),
        ([[*response(0.001), *[ASK, 0.043, ANSWER] * 20]], False),
        ([[*response(0.001), *(step for n in range(12) for step in response(0.035 + 0.012 * n))]], False),
    ],
)
def test_kept_connection_that_waits_for_acknowledgements_is_noticed(scripts, delayed):
    """Against new connections of a warm server, by the rule that a measurement has too. A machine that is busy for a
    moment gets another try."""
    for _ in range(3):
        checks = [(check.status, check.advice) for check in finding(*scripts) if check.name == "kept connection m"]
        if checks == [("warn", ADVICE)] * delayed:
            break
    assert checks == [("warn", ADVICE)] * delayed


@pytest.mark.parametrize("wait_s", [0.001, 0.3])
def test_no_further_requests_where_there_is_no_delay_or_where_it_is_hidden(wait_s):
    """Two responses are all that a quick server and a slow one are asked for."""
    checks = finding([*response(wait_s) * 2, GONE])
    assert [check.status for check in checks] == ["ok"]


@pytest.mark.parametrize(
    ("device", "cpu_s", "gpus", "use", "words"),
    [
        ("GPU", 3.0, ("a board",), 0.01, "kept 3.0 of 8 cores busy and the GPU idle"),
        ("GPU", 3.0, ("a board",), 0.9, "kept 3.0 of 8 cores busy"),
        ("NPU", 3.0, (), None, "kept 3.0 of 8 cores busy"),
        ("GPU", 0.9, (), None, "no GPU was found here"),
        ("GPU", 0.9, ("a board",), 0.9, None),
        ("CPU", 7.9, (), None, None),
    ],
)
def test_silent_fallback_to_the_cpu_is_noticed(device, cpu_s, gpus, use, words):
    """A variant for a GPU or NPU whose server keeps the cores busy, or that has no GPU to run on."""
    gpu = {} if use is None else {"gpu0_use": use}
    (check,) = trial(Model(id="m", device=device), gpus=gpus)._device(
        {"process_cpu_s_total": 1.0, **gpu}, {"process_cpu_s_total": 1.0 + cpu_s, **gpu}, wall_s=1.0
    )
    assert check.status == ("ok" if words is None else "warn")
    assert (words or "by the catalogue") in check.message
    assert trial()._device({}, {}, wall_s=1.0) == []


@pytest.mark.parametrize(
    ("cores", "cpu_s", "status"), [(2, 1.2, "ok"), (2, 1.8, "warn"), (4, 2.1, "ok"), (1, 1.0, "ok")]
)
def test_a_server_of_a_gpu_may_keep_a_core_busy(cores, cpu_s, status):
    """One that spins, and a little more, is no fallback on a small machine; with one core both look the same."""
    model = trial(Model(id="m", device="GPU"), gpus=("a board",), cores=cores)
    (check,) = model._device({"process_cpu_s_total": 0.0}, {"process_cpu_s_total": cpu_s}, wall_s=1.0)
    assert check.status == status


def test_of_a_server_elsewhere_only_the_catalogues_word_is_known():
    """Its cores are not here to be looked at."""
    assert trial(Model(id="m", device="GPU"), local=False)._device({}, {}, wall_s=1.0)[0].status == "ok"


def test_limits_and_transport_are_those_of_the_scenario():
    """A stream that stalls is given up when a measurement would give it up, over either transport."""

    async def checks(transport: str) -> list:
        async with serving([ASK, head() + chunk(token()), GONE]) as server:
            scenario = Scenario(
                target=TargetSettings(transport=transport), limits=LimitSettings(idle_timeout=50 * MS, timeout=None)
            )
            target, seen = Target(base_url=server.url()), SimpleNamespace(local=False, read=dict)
            found = await ModelProbe(prepared(target, scenario=scenario), model="m", machine=seen).run(ask_limit=False)
            return [*found, server.requests[0].headers.get("user-agent", "")]

    fast, httpx = asyncio.run(checks("fast")), asyncio.run(checks("httpx"))
    assert "timeout_idle" in fast[0].message
    assert "timeout_idle" in httpx[0].message
    assert fast[1] != httpx[1]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("CUDA error: out of memory", "out of memory"),
        ("std::bad_alloc", "out of memory"),
        ("HTTP 503: CB worker is dead and cannot accept request 42c9", "dead engine"),
        ("HTTP 500: EngineCore encountered an issue. See stack trace (above)", "dead engine"),
        ("Failed to allocate memory for requested buffer of size 2147483648", "out of memory"),
        ("Model not loaded: Model 'x:1' must be loaded before inference", "not loaded"),
        ("exceeds the model's maximum context length of 4096 tokens", "too long"),
        ("Model not found: No model matching 'x'", "unknown model"),
        ("the room is full", None),
    ],
)
def test_servers_words_are_recognised(words, name):
    """With advice where they are."""
    assert known_error(words) == name
    assert bool(advice_for(words)) == (name is not None)


def test_out_of_memory_at_the_first_answer_is_told_as_that():
    """By its name, in the server's words, with what to do."""

    async def checks() -> list:
        async with serving([ASK, whole("500 Oh", b'{"error":"CUDA out of memory"}'), GONE]) as server:
            seen = SimpleNamespace(local=False, read=dict)
            return await ModelProbe(prepared(Target(base_url=server.url())), model="m", machine=seen).run(
                ask_limit=False
            )

    (check,) = asyncio.run(checks())
    assert (check.status, check.message.startswith("out of memory: ")) == ("fail", True)
    assert "unload other models" in check.advice


# The machine.


def test_stalled_download_is_one_that_nothing_is_written_to(tmp_path):
    """A marker of a download running, and files that are old."""
    folder = tmp_path / "Lab" / "phi"
    folder.mkdir(parents=True)
    assert machine.downloads(tmp_path) == []
    (folder / "model.onnx.download.progress").write_text("half")
    now = time.time()
    assert [check.message for check in machine.downloads(tmp_path, now_s=now)] == ["running"]
    os.utime(folder / "model.onnx.download.progress", (now - 600, now - 600))
    (check,) = machine.downloads(tmp_path, now_s=now)
    assert (check.name, check.status) == (f"download {folder.relative_to(tmp_path)}", "warn")
    assert "stalled: nothing written for 10 min" in check.message


def test_disk_is_held_against_what_is_to_come(tmp_path, monkeypatch):
    """Too little for the models to be downloaded is a failure, little at all a warning."""
    monkeypatch.setattr(machine, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=2_000_000_000)))
    assert [machine.disk(tmp_path, needed=needed).status for needed in (0, 3_000_000_000)] == ["ok", "fail"]
    monkeypatch.setattr(machine, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=10_000)))
    assert machine.disk(tmp_path).status == "warn"
    monkeypatch.undo()
    assert machine.disk(tmp_path / "absent").status == "skip"


@pytest.mark.parametrize(("available", "needed", "status"), [(50, 0, "ok"), (50, 60, "warn"), (3, 0, "warn")])
def test_memory_is_held_against_what_is_to_be_loaded(available, needed, status):
    """And against what a system needs to breathe; of a server elsewhere nothing is known."""
    seen = machine.Machine("http://127.0.0.1:1", local=True)
    seen._psutil = SimpleNamespace(virtual_memory=lambda: SimpleNamespace(available=available, total=100))
    assert seen.memory(needed=needed).status == status
    assert machine.Machine("http://192.0.2.1", local=False).memory().status == "skip"


# Foundry Local's routes.


@pytest.mark.parametrize(
    ("target", "worth"),
    [
        (Target(base_url="u", server="oatpp/1.3.0"), True),
        (Target(base_url="u", server="Kestrel"), True),
        (Target(base_url="u", models=("phi-generic-cpu:1",)), True),
        (Target(base_url="u", listing=({"id": "x", "IsDelta": False},)), True),
        (Target(base_url="u", server="uvicorn", models=("tiny",), listing=({"id": "tiny"},)), False),
    ],
)
def test_other_servers_are_not_asked_whether_they_are_foundry_local(target, worth):
    """Only where something speaks for it: a measurement asks a server for nothing that it does not need."""
    assert looks_like_foundry(target) is worth


def loading(dialect: Dialect, *answers: bytes, model: Model) -> list[str]:
    """The paths asked for, when a model is loaded from a server of these answers."""

    async def main() -> list[str]:
        async with serving([step for answer in answers for step in (ASK, answer)] + [GONE]) as server:
            target = Target(base_url=server.url())
            service = Service(root=server.url().removesuffix("/v1"), dialect=dialect)
            async with target.http(Scenario().limits) as http:
                try:
                    await load(http, service, model, within_s=5)
                finally:
                    paths.extend(request.line.split()[1] for request in server.requests)
            return paths

    paths: list[str] = []
    return asyncio.run(main())


OK, NONE = whole("200 OK", b'{"status":"loaded"}'), whole("404 No", b'{"error":{"message":"Model not found"}}')


def test_each_dialect_loads_by_the_name_that_it_takes():
    """An alias, else what stands before the device; the older ones an id."""
    model = Model(id="phi-generic-cpu:1", alias="phi-4")
    there = whole("200 OK", b'["phi-generic-cpu:1"]')
    assert loading(Dialect.NATIVE, OK, there, model=model) == ["/models/load/phi-4", "/models/loaded"]
    unnamed = Model(id="phi-generic-cpu:1")
    assert loading(Dialect.NATIVE, NONE, OK, there, model=unnamed)[:2] == [
        "/models/load/phi",
        "/models/load/phi-generic-cpu:1",
    ]
    assert loading(Dialect.CORE, OK, there, model=model)[0] == "/models/load/phi-generic-cpu:1"
    assert loading(Dialect.LEGACY, OK, there, model=model)[0] == "/openai/load/phi-generic-cpu:1?ttl=86400"


def test_another_variant_than_the_one_asked_for_is_not_taken_for_it():
    """An alias loads what the service prefers, and that would be measured under the wrong name."""
    model = Model(id="phi-generic-cpu:1", alias="phi")
    with pytest.raises(TargetUnavailable, match="but loaded phi-cuda-gpu:1") as caught:
        loading(Dialect.NATIVE, OK, whole("200 OK", b'["phi-cuda-gpu:1"]'), model=model)
    assert "foundry model load phi-generic-cpu:1" in caught.value.hint


def test_service_that_cannot_load_says_why():
    """A failure is not tried again by another name."""
    with pytest.raises(TargetUnavailable, match="HTTP 500: out of memory"):
        loading(Dialect.NATIVE, whole("500 Oh", b'{"error":"out of memory"}'), model=Model(id="phi-generic-cpu:1"))


def test_cache_of_another_machine_or_without_files_tells_nothing(tmp_path):
    """And that is no failure: nothing needs the catalogue."""
    assert catalogue_of(Service(root="http://h", dialect=Dialect.CORE)) == ([], [])
    assert catalogue_of(Service(root="http://h", dialect=Dialect.CORE, cache=tmp_path)) == ([], [])
