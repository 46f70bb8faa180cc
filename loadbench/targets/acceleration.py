"""Whether the server offers what the boards of its machine can do, and uses them: a check of `doctor`.

Foundry Local lists variants of each model for the devices and the execution providers that it has registered; without
its provider, a board has no variants. Ollama reports how much of a model is in the memory of the GPU. Other servers say
nothing, but a process that has loaded no library for a board does not use it: CUDA's, Vulkan's, those of llama.cpp's
backends. That a library is loaded proves nothing, so then nothing is said.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from loadbench.core.text import some
from loadbench.targets.catalogue import bare_name
from loadbench.targets.check_result import Check
from loadbench.targets.foundry import Dialect

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from loadbench.results.models import Model
    from loadbench.telemetry.devices import Device

_NAME = "acceleration"
# Whose boards an execution provider is for; all others are for any GPU.
_PROVIDERS = {
    "cuda": {"NVIDIA"},
    "nvtensorrtrtx": {"NVIDIA"},
    "tensorrt": {"NVIDIA"},
    "openvino": {"Intel"},
    "qnn": {"Qualcomm"},
    "vitisai": {"AMD"},
    "ryzenailight": {"AMD"},
    "migraphx": {"AMD"},
    "rocm": {"AMD"},
}
_FOR_MAKER = {
    "NVIDIA": "CUDA, TensorRT RTX or WebGPU",
    "AMD": "MIGraphX, Vitis AI or WebGPU",
    "Intel": "OpenVINO or WebGPU",
    "Qualcomm": "QNN",
    "Apple": "WebGPU",
}
# How each generation of Foundry Local comes to its execution providers.
_REGISTER = {
    Dialect.LEGACY: "install the board's current driver, and restart the service, which downloads its execution "
    "providers when it starts (foundry service restart)",
    Dialect.CORE: "install the board's current driver, restart the server, which registers its execution providers "
    "(foundry server restart), and list again (foundry model list --variants); its command line 0.10.2 lists CPU "
    "variants only: use 0.10.3 or later",
    Dialect.NATIVE: "install the board's current driver, and let the program that runs the service register the "
    "execution providers before it starts (manager.download_and_register_eps()); this is per process",
}
_BUILDS = {"NVIDIA": "CUDA or Vulkan", "AMD": "HIP or Vulkan", "Intel": "SYCL or Vulkan", "Apple": "Metal"}
_LIBRARIES = {
    "NVIDIA": re.compile(r"cuda|cublas|nvrtc|nvinfer|tensorrt", re.IGNORECASE),
    "AMD": re.compile(r"hip|rocblas|hsa-runtime|migraphx|vitisai|xrt_core|xdna", re.IGNORECASE),
    "Intel": re.compile(r"ze_loader|ze_intel|sycl|openvino", re.IGNORECASE),
    "Qualcomm": re.compile(r"qnn", re.IGNORECASE),
}
_ANY_GPU = re.compile(r"vulkan|webgpu|dawn|opencl|d3d1[12]|directml|dxcore|metal", re.IGNORECASE)
_PART = re.compile(r"(\d+)% GPU")


def foundry_checks(
    devices: Sequence[Device], models: Sequence[Model], wanted: Iterable[str], *, dialect: Dialect, named: Iterable[str]
) -> list[Check]:
    """The boards against the variants in Foundry Local's catalogue. `wanted` are the models to measure, `named` those
    that the user named by their whole id, and so chose on purpose."""
    checks = []
    listed = [model for model in models if model.device]
    for kind in ("GPU", "NPU") if listed else ():
        here = [device for device in devices if device.kind == kind]
        if not here:
            continue
        boards, a = _names(here), "a GPU is" if kind == "GPU" else "an NPU is"
        if len(here) > 1:
            a = f"{len(here)} {kind}s are"
        of_kind = [model for model in listed if model.device == kind]
        fitting = [model for model in of_kind if _fits(model, here)]
        if fitting:
            checks += _chosen(kind, boards, fitting, listed, wanted, named)
        elif of_kind:
            providers = sorted({str(model.execution_provider) for model in of_kind})
            message = f"{a} here ({boards}), but the server's {kind} variants are for {', '.join(providers)}"
            checks.append(Check(_NAME, "warn", message, f"{_wanted_providers(here)}; {_register(dialect)}"))
        else:
            others = sorted({str(model.device) for model in listed})
            offered = f"{' and '.join(others)} variants only"
            message = f"{a} here ({boards}), but the server offers {offered}: {some([m.id for m in listed], most=3)}"
            checks.append(Check(_NAME, "warn", message, f"{_wanted_providers(here)}; {_register(dialect)}"))
    return checks


def _chosen(
    kind: str,
    boards: str,
    fitting: Sequence[Model],
    listed: Sequence[Model],
    wanted: Iterable[str],
    named: Iterable[str],
) -> list[Check]:
    """Which variant to load, where a model runs on the CPU and has one for this board."""
    checks = []
    by_id, on_purpose = {model.id: model for model in listed}, set(named)
    for name in wanted:
        model = by_id.get(name)
        if model is None or model.device != "CPU":
            continue
        same = [
            one for one in fitting if bare_name(one.id) == bare_name(name) or (one.alias and one.alias == model.alias)
        ]
        if same:
            message = f"{name} is for the CPU, and {'an' if kind == 'NPU' else 'a'} {kind} is here ({boards})"
            advice = f"to measure that, load its variant for it: --model {same[0].id}"
            checks.append(Check(_NAME, "ok" if name in on_purpose else "warn", message, advice))
    providers = sorted({model.execution_provider for model in fitting if model.execution_provider})
    by = f" ({', '.join(providers)})" if providers else ""
    return checks or [Check(_NAME, "ok", f"{boards}: {len(fitting)} variant{'s' * (len(fitting) > 1)} for it{by}")]


def ollama_checks(devices: Sequence[Device], models: Sequence[Model], wanted: Collection[str]) -> list[Check]:
    """Where Ollama has put the models that are in memory."""
    checks, here = [], [device for device in devices if device.kind == "GPU"]
    for model in models:
        device = model.device or ""
        if model.id not in wanted or not model.loaded or not device:
            continue
        if match := _PART.fullmatch(device):
            message = f"{match[1]} % of {model.id} is in the memory of the GPU; the rest is computed on the CPU"
            advice = "use a smaller model or quantization, or a shorter context (num_ctx), so that all of it fits"
            checks.append(Check(_NAME, "warn", message, advice))
        elif device == "CPU" and here:
            message = f"a GPU is here ({_names(here)}), but Ollama has {model.id} on the CPU"
            advice = "its log says why: the driver is missing or too old, or the model does not fit (num_gpu, num_ctx)"
            checks.append(Check(_NAME, "warn", message, advice))
        elif device == "GPU":
            checks.append(Check(_NAME, "ok", f"all of {model.id} is in the memory of the GPU"))
    return checks


def process_checks(
    devices: Sequence[Device], libraries: Collection[str], values: Mapping[str, float], *, program: str
) -> list[Check]:
    """What the server's process has loaded, and `values`, the current readings: whether it can use a board at all."""
    here = [device for device in devices if device.kind == "GPU"]
    if not here or not libraries:
        return []
    boards, server = _names(here), program or "the server"
    loaded = [
        name
        for name in libraries
        if _ANY_GPU.search(name) or any(_LIBRARIES[one.maker].search(name) for one in here if one.maker in _LIBRARIES)
    ]
    a = "a GPU is" if len(here) == 1 else f"{len(here)} GPUs are"
    builds = dict.fromkeys(_BUILDS[device.maker] for device in here if device.maker in _BUILDS)
    if not loaded:
        message = f"{a} here ({boards}), but {server} has loaded no library for it: it computes on the CPU"
        advice = "install its build for the GPU" + (f" ({' or '.join(builds)})" if builds else "")
        if program.startswith("llama.cpp"):
            advice += ", and start it with --n-gpu-layers 999"
        return [Check(_NAME, "warn", message, advice)]
    held = [value for name, value in values.items() if re.fullmatch(r"gpu\d+_process_memory_bytes", name)]
    if held and not any(held):
        message = f"{a} here ({boards}), but {server} holds no memory on it: it computes on the CPU"
        advice = "see its log for the device that it chose"
        if program.startswith("llama.cpp"):
            advice = "start it with --n-gpu-layers 999, and see its log for the device that it chose"
        return [Check(_NAME, "warn", message, advice)]
    return [Check(_NAME, "ok", f"{server} uses {boards}")] if any(held) else []


def _fits(model: Model, devices: Iterable[Device]) -> bool:
    """Whether a variant can run on one of these; the generic one, and a board of an unknown maker, may."""
    provider = (model.execution_provider or "").lower().removesuffix("executionprovider")
    makers = _PROVIDERS.get(provider)
    return makers is None or any(not device.maker or device.maker in makers for device in devices)


def _wanted_providers(devices: Sequence[Device]) -> str:
    providers = dict.fromkeys(_FOR_MAKER[device.maker] for device in devices if device.maker in _FOR_MAKER)
    return f"its execution provider is missing: {' or '.join(providers)}" if providers else "no execution provider fits"


def _register(dialect: Dialect) -> str:
    return _REGISTER.get(dialect, "install the board's current driver, and restart the server")


def _names(devices: Iterable[Device]) -> str:
    return some([device.name for device in devices], most=3)
