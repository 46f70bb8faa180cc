"""Which models there are, put together from everybody who tells: pure, and in one shape for all servers.

A server's own list says what may be asked for, and little more: Foundry Local's catalogue file adds alias, device,
licence and size, its cache what is on this disk, its command line the same for those whose files cannot be read. Who
told first is believed; the next fill what was left open. Foundry's ids are `name-of-model-generic-cpu:3`, that is a
name, an execution provider, a device and a version; some of its lists leave the version out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from loadbench.results.models import Model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_MB = 1024 * 1024
_VERSION = re.compile(r":(\d{1,9})$")
_VARIANT = re.compile(
    r"-(generic|cuda|trtrtx|tensorrt|openvino|qnn|vitis|webgpu|migraphx|directml)-(cpu|gpu|npu)$", re.IGNORECASE
)
_PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "trtrtx": "NvTensorRTRTXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "vitis": "VitisAIExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "directml": "DmlExecutionProvider",
}
# In which order Foundry Local itself takes the variants of an alias.
_PREFERENCE = ("NPU", "GPU", "CPU")
# A model's folder lies below its publisher's, and may hold one for each version.
_FOLDERS = ("*/inference_model.json", "*/*/inference_model.json", "*/*/*/inference_model.json")


def unversioned(model_id: str) -> str:
    """`name-generic-cpu` of `name-generic-cpu:3`."""
    return _VERSION.sub("", model_id)


def bare_name(model_id: str) -> str:
    """`name` of `name-generic-cpu:3`: without version, provider and device."""
    return _VARIANT.sub("", unversioned(model_id))


def same_model(one: str, other: str) -> bool:
    """Whether two ids mean the same: one of them may lack the version."""
    return one == other or (unversioned(one) == unversioned(other) and one.count(":") != other.count(":"))


def with_names(model: Model) -> Model:
    """The model with what its id alone tells of version, device and execution provider."""
    version, variant = _VERSION.search(model.id), _VARIANT.search(unversioned(model.id))
    return _filled(
        model,
        Model(
            id=model.id,
            version=int(version[1]) if version else None,
            device=variant[2].upper() if variant else None,
            execution_provider=_provider(variant[1].lower(), variant[2].lower()) if variant else None,
        ),
    )


def _provider(word: str, device: str) -> str | None:
    """`generic` says CPU on a CPU; on a GPU it may be any."""
    return "CPUExecutionProvider" if (word, device) == ("generic", "cpu") else _PROVIDERS.get(word)


def _filled(model: Model, more: Model) -> Model:
    """The model, with the other's word for what it leaves open."""
    known = msgspec.structs.asdict(model)
    return Model(**{name: getattr(more, name) if value is None else value for name, value in known.items()})


def merged(*sources: Iterable[Model]) -> list[Model]:
    """Every model once, in the order of the first source that has it; the first to say something is believed."""
    found: list[Model] = []
    for source in sources:
        for model in source:
            # An id without a version in a list of several versions means none of them in particular.
            same = [at for at, known in enumerate(found) if known.id == model.id] or [
                at for at, known in enumerate(found) if same_model(known.id, model.id)
            ]
            if len(same) == 1:
                found[same[0]] = _filled(found[same[0]], model)
            else:
                found.append(model)
    return [with_names(model) for model in found]


# What each source tells.


def from_listing(listing: Iterable[Mapping[str, object]], *, foundry: bool) -> list[Model]:
    """Of a `/v1/models`: id, Foundry's alias under `parent`, llama.cpp's and vLLM's size and context."""
    found = []
    for item in listing:
        meta, status = _table(item.get("meta")), _table(item.get("status"))
        state = _text(status.get("value"))
        found.append(
            Model(
                id=str(item["id"]),
                alias=_text(item.get("parent")) if foundry else None,
                size_bytes=_whole(meta.get("size")),
                context_length=_first(meta.get("n_ctx"), item.get("max_model_len"), item.get("maxInputTokens")),
                loaded=None if state is None else state == "loaded",
            )
        )
    return found


def from_catalogue_file(document: object) -> list[Model]:
    """Of Foundry Local's `foundry.modelinfo.json`, or the list of its 0.x service, whose ids stand under `name`."""
    entries = document.get("models") if isinstance(document, dict) else document
    found = []
    for entry in map(_table, entries if isinstance(entries, list) else ()):
        model_id = _text(entry.get("id")) or _text(entry.get("name"))
        if model_id is None:
            continue
        runtime, numbers = _table(entry.get("runtime")), _table(entry.get("intProperties"))
        megabytes = _first(entry.get("fileSizeMb"), numbers.get("filesize_mb"))
        found.append(
            Model(
                id=model_id,
                alias=_text(entry.get("alias")),
                version=_whole(entry.get("version")),
                device=_upper(runtime.get("deviceType")),
                execution_provider=_text(runtime.get("executionProvider")),
                size_bytes=None if megabytes is None else megabytes * _MB,
                license=_text(entry.get("license")),
                context_length=_first(numbers.get("context_length"), entry.get("maxInputTokens")),
            )
        )
    return found


def from_cli_json(document: object) -> list[Model]:
    """Of `foundry model list -o json`, its variants or its cache."""
    table = _table(document)
    entries = next(
        (table[key] for key in ("variants", "models", "items") if isinstance(table.get(key), list)), document
    )
    found = []
    for entry in map(_table, entries if isinstance(entries, list) else ()):
        model_id = _text(entry.get("id")) or _text(entry.get("modelId"))
        if model_id is None:
            continue
        megabytes = _first(entry.get("fileSizeMb"), entry.get("sizeMb"))
        found.append(
            Model(
                id=model_id,
                alias=_text(entry.get("alias")),
                device=_upper(entry.get("device")),
                execution_provider=_text(entry.get("executionProvider")),
                size_bytes=None if megabytes is None else megabytes * _MB,
                license=_text(entry.get("license")),
                cached=_truth(entry.get("cached")),
                loaded=_truth(entry.get("loaded")),
            )
        )
    return found


def from_cache(folder: Path) -> list[Model]:
    """Of the model cache on this disk: each folder with an `inference_model.json` holds a model, as large as its files.

    Only that one file is read, and a folder that cannot be read holds nothing.
    """
    found = []
    for pattern in _FOLDERS:
        for path in sorted(folder.glob(pattern)):
            try:
                name = _text(_table(msgspec.json.decode(path.read_bytes())).get("Name"))
                size = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
            except (OSError, msgspec.DecodeError):
                continue
            if name is not None:
                found.append(Model(id=name, size_bytes=size, cached=True))
    return found


def from_ollama(tags: object, running: object) -> list[Model]:
    """Of Ollama's `/api/tags` and `/api/ps`: where a model lies is how much of it is in the GPU's memory."""
    placed = {_text(one.get("name")): one for one in map(_table, _listed(running, "models"))}
    found = []
    for entry in map(_table, _listed(tags, "models")):
        name = _text(entry.get("name"))
        if name is None:
            continue
        there = placed.get(name)
        found.append(
            Model(
                id=name,
                size_bytes=_whole(entry.get("size")),
                device=None if there is None else _placed(there),
                cached=True,
                loaded=there is not None,
                context_length=None if there is None else _whole(there.get("context_length")),
            )
        )
    return found


def _placed(entry: Mapping[str, object]) -> str | None:
    size, on_gpu = _whole(entry.get("size")), _whole(entry.get("size_vram"))
    if not size or on_gpu is None:
        return None
    return "CPU" if not on_gpu else "GPU" if on_gpu >= size else f"{round(100 * on_gpu / size)}% GPU"


def with_loaded(models: Iterable[Model], ids: Iterable[str] | None) -> list[Model]:
    """The models, each loaded or not by this list of ids; as they were where there is none."""
    if ids is None:
        return list(models)
    wanted = list(ids)
    return [msgspec.structs.replace(model, loaded=any(same_model(model.id, one) for one in wanted)) for model in models]


# Which one is meant.


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """What a name means. `choices` are the ids that it may stand for where it is an alias of several variants."""

    model: Model
    choices: tuple[str, ...] = ()

    @property
    def ambiguous(self) -> bool:
        """Whether the name alone does not say which variant."""
        return len(self.choices) > 1


def resolve(wanted: str, models: Sequence[Model]) -> ResolvedModel | None:
    """The model that is meant by an id, an id without its version, an alias, or a name without its variant.

    Of several versions it is the newest that is cached, or the newest where none is; of the variants of an alias the
    one that is loaded, cached, or that Foundry Local itself prefers (NPU, GPU, CPU), in this order.
    """
    for same in (
        [model for model in models if model.id == wanted],
        [model for model in models if same_model(model.id, wanted)],
        [model for model in models if model.alias == wanted],
        [model for model in models if bare_name(model.id) == wanted],
    ):
        if same:
            variants = tuple(dict.fromkeys(unversioned(model.id) for model in same))
            return ResolvedModel(min(same, key=_rank), variants)
    return None


def _rank(model: Model) -> tuple[bool, bool, int, int]:
    device = model.device or ""
    preference = _PREFERENCE.index(device) if device in _PREFERENCE else len(_PREFERENCE)
    return not model.loaded, not model.cached, preference, -(model.version or 0)


# Foreign values, taken for what they are or not at all.


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _listed(document: object, key: str) -> list[object]:
    value = _table(document).get(key)
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value.strip() if isinstance(value, str) and value.strip() else None


def _upper(value: object) -> str | None:
    text = _text(value)
    return None if text is None else text.upper()


def _truth(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _whole(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def _first(*values: object) -> int | None:
    """The first of them that is a whole number."""
    return next((number for number in map(_whole, values) if number is not None), None)
