"""`models.json`: a set of models, with properties that no measurement shows.

The workshop's formats are read unchanged:

    {"qwen2.5-0.5b": {"capabilities": ["chat"], "size_mb": 528, "license": "Apache-2.0"}, "gemma-2-2b": {}}
    ["qwen2.5-0.5b", {"alias": "gemma-2-2b", "id": "gemma-2-2b-instruct-generic-cpu:1", "size_mb": 1600}]

Requests name a model by its `id`, or by its alias if it has none. `load_cold_s` and `load_warm_s` are measured load
times, if known. Other keys are ignored: the workshop's router keeps its `priority` there. The output of
`loadbench models --json` is read too.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput
from loadbench.plan.input_files import read_text
from loadbench.plan.json_text import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator

# A list of models is written by hand, or by a catalogue with a few hundred.
_MAX_BYTES = 8 * 1024 * 1024
_MB = 1_000_000  # the workshop's megabytes
_HINT = "write an object by alias, or an array of names or objects"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """One model of the set, with its properties from the file."""

    name: str  # the model that requests name
    alias: str
    capabilities: tuple[str, ...] = ()
    size_bytes: int | None = None
    license: str | None = None
    load_cold_s: float | None = None
    load_warm_s: float | None = None


def read_models(path: str | Path) -> tuple[KnownModel, ...]:
    """The models of a file, in its order; raises `BadInput` with the file, the place and a hint."""
    path = Path(path)
    document = parse_json(read_text(path, "models", max_bytes=_MAX_BYTES, hint=_HINT), path)
    if isinstance(document, dict) and isinstance(document.get("models"), list):
        document = document["models"]
    models = tuple(_models(document, path))
    if not models:
        raise BadInput(f"{path} has no models", hint="write at least one")
    counts = Counter(model.name for model in models)
    duplicate = next((name for name, count in counts.items() if count > 1), None)
    if duplicate is not None:
        raise BadInput(f"{path} has the model {duplicate!r} twice", hint="remove one of them")
    return models


def _models(document: object, path: Path) -> Iterator[KnownModel]:
    match document:
        case dict():
            for alias, properties in document.items():
                if not isinstance(properties, dict):
                    raise BadInput(f"{path}: {alias} is not an object", hint=_HINT)
                yield _model({"alias": alias, **properties}, f"{path}: {alias}")
        case list():
            for number, item in enumerate(document, 1):
                place = f"{path}, item {number}"
                yield _model({"alias": item} if isinstance(item, str) else item, place)
        case _:
            raise BadInput(f"{path} holds neither an object nor an array", hint=_HINT)


def _model(properties: object, place: str) -> KnownModel:
    if not isinstance(properties, dict):
        raise BadInput(f"{place} is neither a name nor an object", hint=_HINT)
    texts = {key: text.strip() for key, text in properties.items() if isinstance(text, str) and text.strip()}
    name = next((texts[key] for key in ("id", "model", "name", "alias") if key in texts), None)
    if name is None:
        raise BadInput(f"{place} has no name", hint='write it under "alias" or "id"')
    capabilities = [] if properties.get("capabilities") is None else properties["capabilities"]
    if not isinstance(capabilities, list) or not all(isinstance(word, str) for word in capabilities):
        raise BadInput(f"{place} has capabilities that are not texts", hint='write them as ["chat", "tools"]')
    license_key = "license" if "license" in properties else "licence"
    if properties.get(license_key) is not None and license_key not in texts:
        raise BadInput(f"{place} has a license that is not a text", hint="write its name, or omit it")

    def number(key: str) -> float | None:
        value = properties.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise BadInput(f"{place} has the {key} {value!r}", hint="write a number of at least 0, or omit it")
        return float(value)

    size_bytes, size_mb = number("size_bytes"), number("size_mb")
    if size_bytes is None and size_mb is not None:
        size_bytes = size_mb * _MB
    return KnownModel(
        name=name,
        alias=texts.get("alias", name),
        capabilities=tuple(capabilities),
        size_bytes=None if size_bytes is None else round(size_bytes),
        license=texts.get(license_key),
        load_cold_s=number("load_cold_s"),
        load_warm_s=number("load_warm_s"),
    )
