"""The catalogue of models, merged from every source that lists them: pure, and in one form for all servers.

A server's own list has little more than ids. Foundry Local's catalogue file adds alias, device, license and size, its
cache the models on this disk, and its command line the same where these files cannot be read. The first source to give
a value wins; later ones fill the gaps. Foundry's ids have the form `name-of-model-generic-cpu:3`: a name, an execution
provider, a device and a version; some of its lists omit the version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from loadbench.core.bounded import read_file
from loadbench.results.models import Model
from loadbench.targets.context import listed_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

_MB = 1024 * 1024
# An `inference_model.json` has a name and a prompt template.
_MOST_BYTES = 1024 * 1024
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
# The order in which Foundry Local itself prefers the variants of an alias.
_PREFERENCE = ("NPU", "GPU", "CPU")
# A model's folder is below its publisher's, and may have one for each version.
_FOLDERS = ("*/inference_model.json", "*/*/inference_model.json", "*/*/*/inference_model.json")


def unversioned(model_id: str) -> str:
    """`name-generic-cpu` of `name-generic-cpu:3`."""
    return _VERSION.sub("", model_id)


def bare_name(model_id: str) -> str:
    """`name` of `name-generic-cpu:3`: without version, provider and device."""
    return _VARIANT.sub("", unversioned(model_id))


def same_model(one: str, other: str) -> bool:
    """Whether two ids mean the same model: one of them may lack the version."""
    return one == other or (unversioned(one) == unversioned(other) and one.count(":") != other.count(":"))


def same_as_any(ids: Iterable[str]) -> Callable[[str], bool]:
    """Whether an id means the same model as one of these, at the same cost for any number of them."""
    known: dict[str, set[tuple[int, str]]] = {}
    for other in ids:
        known.setdefault(unversioned(other), set()).add((other.count(":"), other))

    def is_known(model_id: str) -> bool:
        alike = known.get(unversioned(model_id), set())
        colons = model_id.count(":")
        return (colons, model_id) in alike or any(others != colons for others, _ in alike)

    return is_known


def with_names(model: Model) -> Model:
    """The model with the version, device and execution provider that its id contains."""
    version, variant = _VERSION.search(model.id), _VARIANT.search(unversioned(model.id))
    provider = None
    if variant:
        provider = _PROVIDERS.get(variant[1].lower())
        if (variant[1].lower(), variant[2].lower()) == ("generic", "cpu"):  # on a GPU, `generic` may be any provider
            provider = "CPUExecutionProvider"
    return _filled(
        model,
        Model(
            id=model.id,
            version=int(version[1]) if version else None,
            device=variant[2].upper() if variant else None,
            execution_provider=provider,
        ),
    )


def _filled(model: Model, more: Model) -> Model:
    """The model, with values of the other one where it has none."""
    known = msgspec.structs.asdict(model)
    return Model(**{name: getattr(more, name) if value is None else value for name, value in known.items()})


def merged(*sources: Iterable[Model]) -> list[Model]:
    """Every model once, in the order of the first source that has it; the first source to give a value wins."""
    models: list[Model] = []
    places: dict[str, int] = {}
    # By the id without its version, those with and those without one, which differ in their colons.
    alike: dict[str, dict[int, list[int]]] = {}
    for source in sources:
        for model in source:
            by_colons, colons = alike.setdefault(unversioned(model.id), {}), model.id.count(":")
            # An id without a version, in a list with several versions, means no particular one of them.
            same = [at for others, group in by_colons.items() if others != colons for at in group[:2]]
            if model.id in places or len(same) == 1:
                at = places.get(model.id, same[0] if same else 0)
                models[at] = _filled(models[at], model)
            else:
                places[model.id] = len(models)
                by_colons.setdefault(colons, []).append(len(models))
                models.append(model)
    return [with_names(model) for model in models]


# The sources.


def from_listing(listing: Iterable[Mapping[str, object]], *, foundry: bool) -> list[Model]:
    """From `/v1/models`: id, Foundry's alias under `parent`, llama.cpp's size, and the context under any name."""
    models = []
    for item in listing:
        meta, status, context = _table(item.get("meta")), _table(item.get("status")), listed_context(item)
        state = _text(status.get("value"))
        models.append(
            Model(
                id=str(item["id"]),
                alias=_text(item.get("parent")) if foundry else None,
                size_bytes=_whole(meta.get("size")),
                context_length=None if context is None else context.tokens,
                loaded=None if state is None else state == "loaded",
            )
        )
    return models


def from_catalogue(document: object) -> list[Model]:
    """From Foundry Local's `foundry.modelinfo.json`, its output of `foundry model list -o json` (variants or cached
    models), or the list of its 0.x service, which has the ids under `name`.
    """
    table = _table(document)
    entries = next(
        (table[key] for key in ("variants", "models", "items") if isinstance(table.get(key), list)), document
    )
    models = []
    for entry in map(_table, entries if isinstance(entries, list) else ()):
        model_id = _text(entry.get("id")) or _text(entry.get("modelId")) or _text(entry.get("name"))
        if model_id is None:
            continue
        runtime, numbers = _table(entry.get("runtime")), _table(entry.get("intProperties"))
        megabytes = _first(entry.get("fileSizeMb"), numbers.get("filesize_mb"), entry.get("sizeMb"))
        models.append(
            Model(
                id=model_id,
                alias=_text(entry.get("alias")),
                version=_whole(entry.get("version")),
                device=_upper(runtime.get("deviceType")) or _upper(entry.get("device")),
                execution_provider=_text(runtime.get("executionProvider")) or _text(entry.get("executionProvider")),
                size_bytes=None if megabytes is None else megabytes * _MB,
                license=_text(entry.get("license")),
                context_length=_first(numbers.get("context_length"), entry.get("maxInputTokens")),
                cached=_truth(entry.get("cached")),
                loaded=_truth(entry.get("loaded")),
            )
        )
    return models


def from_cache(folder: Path) -> list[Model]:
    """From the model cache on this disk: each folder with an `inference_model.json` is a model, as large as its files.

    Only that one file is read; a folder that cannot be read is left out.
    """
    models = []
    for pattern in _FOLDERS:
        for path in sorted(folder.glob(pattern)):
            try:
                name = _text(_table(msgspec.json.decode(read_file(path, _MOST_BYTES))).get("Name"))
                size = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
            except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if name is not None:
                models.append(Model(id=name, size_bytes=size, cached=True))
    return models


def from_ollama(tags: object, running: object) -> list[Model]:
    """From Ollama's `/api/tags` and `/api/ps`: the device is the share of the model that is in GPU memory."""
    loaded = {_text(entry.get("name")): entry for entry in map(_table, _listed(running, "models"))}
    models = []
    for entry in map(_table, _listed(tags, "models")):
        name = _text(entry.get("name"))
        if name is None:
            continue
        in_memory, device = loaded.get(name), None
        if in_memory is not None:
            size, on_gpu = _whole(in_memory.get("size")), _whole(in_memory.get("size_vram"))
            if size and on_gpu is not None:
                device = "CPU" if not on_gpu else "GPU" if on_gpu >= size else f"{round(100 * on_gpu / size)}% GPU"
        models.append(
            Model(
                id=name,
                size_bytes=_whole(entry.get("size")),
                device=device,
                cached=True,
                loaded=in_memory is not None,
                context_length=None if in_memory is None else _whole(in_memory.get("context_length")),
            )
        )
    return models


def with_loaded(models: Iterable[Model], ids: Iterable[str] | None) -> list[Model]:
    """The models, each loaded or not by this list of ids; unchanged if the list is `None`."""
    if ids is None:
        return list(models)
    is_loaded = same_as_any(ids)
    return [msgspec.structs.replace(model, loaded=is_loaded(model.id)) for model in models]


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """The model that a name means; `choices` are the ids that an alias of several variants may mean."""

    model: Model
    choices: tuple[str, ...] = ()

    @property
    def ambiguous(self) -> bool:
        """Whether the name alone does not determine the variant."""
        return len(self.choices) > 1


def resolve(wanted: str, models: Sequence[Model]) -> ResolvedModel | None:
    """The model of an id, an id without its version, an alias, or a name without its variant.

    Of several versions it is the newest that is cached, or the newest if none is. Of the variants of an alias it is the
    one that is loaded, that is cached, or that Foundry Local itself prefers (NPU, GPU, CPU), in this order.
    """
    for is_meant in (
        lambda model: model.id == wanted,
        lambda model: same_model(model.id, wanted),
        lambda model: model.alias == wanted,
        lambda model: bare_name(model.id) == wanted,
    ):
        if same := [model for model in models if is_meant(model)]:
            variants = tuple(dict.fromkeys(unversioned(model.id) for model in same))
            return ResolvedModel(min(same, key=_rank), variants)
    return None


def _rank(model: Model) -> tuple[bool, bool, int, int]:
    device = model.device or ""
    preference = _PREFERENCE.index(device) if device in _PREFERENCE else len(_PREFERENCE)
    return not model.loaded, not model.cached, preference, -(model.version or 0)


# Foreign values: of the expected type, or `None`.


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
    """The first that is a whole number."""
    return next((number for number in map(_whole, values) if number is not None), None)
