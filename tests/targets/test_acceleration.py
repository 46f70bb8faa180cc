"""The boards of the server's machine against what it offers and uses: Foundry Local, Ollama, and other processes."""

from __future__ import annotations

import asyncio

import pytest

from loadbench.plan.scenario import Scenario
from loadbench.plan.settings import TargetSettings
from loadbench.results.models import Model
from loadbench.targets import machine
from loadbench.targets.acceleration import foundry_checks, ollama_checks, process_checks
from loadbench.targets.catalogue import with_names
from loadbench.targets.checks import run_checks
from loadbench.targets.foundry import Dialect
from loadbench.telemetry.devices import Device
from tests.foundry.fakes import Fake, serving

RTX = Device("GPU", "NVIDIA", "NVIDIA RTX 4090")
RADEON = Device("GPU", "AMD", "AMD Radeon 890M")
BOOST = Device("NPU", "Intel", "Intel AI Boost")
CPU, CUDA, WEBGPU, GENERIC, NPU = (
    f"qwen2.5-0.5b-instruct-{variant}:4"
    for variant in ("generic-cpu", "cuda-gpu", "webgpu-gpu", "generic-gpu", "openvino-npu")
)


def foundry(devices, *ids, wanted=(CPU,), named=(), dialect=Dialect.NATIVE):
    """(status, message, advice) of each check."""
    models = [with_names(Model(id=model_id, alias="qwen2.5-0.5b")) for model_id in ids]
    checks = foundry_checks(devices, models, wanted, dialect=dialect, named=named)
    assert {check.name for check in checks} <= {"acceleration"}
    return [(check.status, check.message, check.advice) for check in checks]


@pytest.mark.parametrize(
    ("dialect", "remedy"),
    [
        (Dialect.LEGACY, "foundry service restart"),
        (Dialect.CORE, "use 0.10.3 or later"),
        (Dialect.NATIVE, "manager.download_and_register_eps()"),
    ],
)
def test_board_without_variants_is_a_warning(dialect, remedy):
    """With the board, what is offered instead, and how this generation comes to its execution providers."""
    ((status, message, advice),) = foundry([RTX], CPU, "phi-4-mini-generic-cpu:2", dialect=dialect)
    assert status == "warn"
    assert message == (
        f"a GPU is here (NVIDIA RTX 4090), but the server offers CPU variants only: {CPU}, phi-4-mini-generic-cpu:2"
    )
    assert advice.startswith("its execution provider is missing: CUDA, TensorRT RTX or WebGPU; ")
    assert remedy in advice


def test_npu_and_gpu_are_looked_at_apart():
    """Each of them may have variants, or none."""
    gpu, npu = foundry([RADEON, BOOST], CPU, WEBGPU, wanted=[WEBGPU])
    assert gpu == ("ok", "AMD Radeon 890M: 1 variant for it (WebGpuExecutionProvider)", "")
    assert npu[:2] == (
        "warn",
        f"an NPU is here (Intel AI Boost), but the server offers CPU and GPU variants only: {CPU}, {WEBGPU}",
    )
    assert foundry([BOOST], CPU, NPU, wanted=[NPU])[0][0] == "ok"


def test_variants_for_boards_of_another_maker_do_not_help():
    """CUDA's are for NVIDIA; WebGPU's and generic ones are for every GPU."""
    ((status, message, advice),) = foundry([RADEON], CPU, CUDA)
    assert (status, message) == (
        "warn",
        "a GPU is here (AMD Radeon 890M), but the server's GPU variants are for CUDAExecutionProvider",
    )
    assert "MIGraphX" in advice
    for model_id in (WEBGPU, GENERIC):
        assert foundry([RADEON], CPU, model_id, wanted=[model_id])[0][0] == "ok"


def test_variant_for_the_board_is_named_where_another_one_is_measured():
    """A warning where an alias chose it; who wrote the whole id knows it."""
    message = f"{CPU} is for the CPU, and a GPU is here (NVIDIA RTX 4090)"
    advice = f"to measure that, load its variant for it: --model {CUDA}"
    assert foundry([RTX], CPU, CUDA) == [("warn", message, advice)]
    assert foundry([RTX], CPU, CUDA, named=[CPU]) == [("ok", message, advice)]


def test_machine_without_boards_or_a_catalogue_without_devices_says_nothing():
    """A plain CPU machine; models of which nobody says for what they are."""
    assert foundry([], CPU) == []
    assert foundry([RTX], "some-model") == []


@pytest.mark.parametrize(
    ("device", "devices", "status", "message"),
    [
        ("48% GPU", [], "warn", "48 % of llama3:8b is in the memory of the GPU; the rest is computed on the CPU"),
        ("CPU", [RTX], "warn", "a GPU is here (NVIDIA RTX 4090), but Ollama has llama3:8b on the CPU"),
        ("GPU", [RTX], "ok", "all of llama3:8b is in the memory of the GPU"),
        ("CPU", [BOOST], None, None),  # it does not use NPUs
        ("CPU", [], None, None),
    ],
)
def test_where_ollama_has_put_a_model(device, devices, status, message):
    """By its own list of what is in memory."""
    models = [Model(id="llama3:8b", device=device, loaded=True), Model(id="other", device="CPU", loaded=True)]
    checks = ollama_checks(devices, models, {"llama3:8b"})
    assert [(check.status, check.message) for check in checks] == ([(status, message)] if status else [])


CPU_LIBRARIES = ["libc.so.6", "libggml-base.so", "libggml-cpu.so", "llama-server"]


def process(devices, libraries, program="llama.cpp b6000", **values: float):
    """(status, message, advice) of each check."""
    checks = process_checks(devices, libraries, values, program=program)
    return [(check.status, check.message, check.advice) for check in checks]


def test_process_without_a_library_for_the_board_computes_on_the_cpu():
    """With the builds that would not."""
    ((status, message, advice),) = process([RTX], CPU_LIBRARIES)
    assert (status, message) == (
        "warn",
        "a GPU is here (NVIDIA RTX 4090), but llama.cpp b6000 has loaded no library for it: it computes on the CPU",
    )
    assert advice == "install its build for the GPU (CUDA or Vulkan), and start it with --n-gpu-layers 999"
    assert process([RTX, RADEON], CPU_LIBRARIES, program="")[0][1].startswith(
        "2 GPUs are here (NVIDIA RTX 4090, AMD Radeon 890M), but the server has loaded no library"
    )


@pytest.mark.parametrize(
    ("device", "library"),
    [(RTX, "libcuda.so.580.65"), (RTX, "nvcuda.dll"), (RTX, "libggml-cuda.so"), (RADEON, "libamdhip64.so.6"),
     (RADEON, "libvulkan.so.1"), (RTX, "vulkan-1.dll"), (Device("GPU", "Intel", "Intel"), "libze_loader.so.1")],
)  # fmt: skip
def test_library_for_the_board_proves_nothing(device, library):
    """It may have been looked at only, so nothing is said; memory on the board says that it is used."""
    assert process([device], [*CPU_LIBRARIES, library]) == []
    used = process([device], [*CPU_LIBRARIES, library], gpu0_process_memory_bytes=1.0)
    assert used == [("ok", f"llama.cpp b6000 uses {device.name}", "")]


def test_library_of_another_maker_is_none_for_the_board():
    """CUDA's do nothing for a Radeon."""
    assert process([RADEON], [*CPU_LIBRARIES, "libcudart.so.12"])[0][0] == "warn"


def test_process_that_holds_no_memory_on_the_board_is_a_warning():
    """Its build could, but no layer is there."""
    ((status, message, advice),) = process([RTX], ["libcuda.so.1"], gpu0_process_memory_bytes=0.0)
    assert (status, message) == (
        "warn",
        "a GPU is here (NVIDIA RTX 4090), but llama.cpp b6000 holds no memory on it: it computes on the CPU",
    )
    assert "--n-gpu-layers" in advice


def test_what_is_hidden_is_not_judged():
    """A process of another user, a machine without a GPU."""
    assert process([RTX], []) == []
    assert process([BOOST], CPU_LIBRARIES) == []


@pytest.mark.parametrize("dialect", ["foundry-0.x", "foundry-1.x", "foundry-2.x"])
def test_service_of_each_dialect_is_compared_with_the_boards(monkeypatch, dialect):
    """From the real requests of `doctor`: a model for the CPU only, and one that has a variant for the board."""
    monkeypatch.setattr(machine, "present_devices", lambda _: [RTX])

    def acceleration(model: str, **variants: list[str]) -> list[tuple[str, str]]:
        with serving(Fake(dialect, variants=variants)) as fake:
            scenario = Scenario(target=TargetSettings(url=(f"{fake.url}/v1",), model=(model,)))
            report = asyncio.run(run_checks(scenario, {}, url=f"{fake.url}/v1"))
        assert report.healthy, report
        return [(check.status, check.message) for check in report.checks if check.name == "acceleration"]

    name = "nano-generic-cpu:1"
    ((status, message),) = acceleration(name, nano=[name])
    assert status == "warn"
    assert message.startswith("a GPU is here (NVIDIA RTX 4090), but the server offers CPU variants only: nano-generic-")
    both = [name, "nano-cuda-gpu:1"]
    ((status, message),) = acceleration(name, nano=both)
    assert status == "ok"
    assert message.endswith("is for the CPU, and a GPU is here (NVIDIA RTX 4090)")
    ((status, message),) = acceleration("nano-cuda-gpu:1", nano=both[::-1])
    assert (status, message) == ("ok", "NVIDIA RTX 4090: 1 variant for it (CUDAExecutionProvider)")
