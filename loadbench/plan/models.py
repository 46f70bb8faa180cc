"""`models.json`: a set of models, and what is known of them that no measurement tells.

The workshop's shapes are read as they are:

    {"qwen2.5-0.5b": {"capabilities": ["chat"], "size_mb": 528, "license": "Apache-2.0"}, "gemma-2-2b": {}}
    ["qwen2.5-0.5b", {"alias": "gemma-2-2b", "id": "gemma-2-2b-instruct-generic-cpu:1", "size_mb": 1600}]

A model is asked for by its `id`, or by its alias where it has none. `load_cold_s` and `load_warm_s` are what loading
took, where somebody has timed it. Keys that are not named here are somebody else's: the workshop's router has its
`priority` there. What `loadbench models --json` prints is read too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

# A list of models is written by hand, or by a catalogue of some hundreds.
_MOST_BYTES = 8 * 1024 * 1024
_MB = 1_000_000
_HINT = "write an object by alias, or an array of names or objects"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """One model of the set: what to ask for, and what its file says of it."""

    name: str  # what requests ask for
    alias: str
    capabilities: tuple[str, ...] = ()
    size_bytes: int | None = None
    license: str | None = None
    load_cold_s: float | None = None
    load_warm_s: float | None = None


def read_models(path: str | Path) -> tuple[KnownModel, ...]:
    """The models of a file, in its order; raises `BadInput` with the file, the place and the remedy."""
    path = Path(path)
    document = _document(path)
    if isinstance(document, dict) and isinstance(document.get("models"), list):
        document = document["models"]
    models = tuple(_models(document, path))
    if not models:
        raise BadInput(f"{path} has no model in it", hint="write at least one")
    names = [model.name for model in models]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput(f"{path} has the model {twice!r} twice", hint="take one of them out")
    return models


def _document(path: Path) -> object:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"cannot read the models in {path}: {reason}", hint="name a file that exists") from None
    if len(raw) > _MOST_BYTES:
        raise BadInput(f"{path} is larger than {_MOST_BYTES >> 20} MiB", hint=_HINT)
    try:
        document: object = orjson.loads(raw.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        line = raw.count(b"\n", 0, error.pos) + 1
        raise BadInput(f"{path}:{line}: this is not JSON, {error.msg}", hint="mend it there") from None
    return document


def _models(document: object, path: Path) -> Iterator[KnownModel]:
    match document:
        case dict():
            for alias, about in document.items():
                if not isinstance(about, dict):
                    raise BadInput(f"{path}: {alias} is no object", hint=_HINT)
                yield _model({"alias": alias, **about}, f"{path}: {alias}")
        case list():
            for number, item in enumerate(document, 1):
                place = f"{path}, item {number}"
                yield _model({"alias": item} if isinstance(item, str) else item, place)
        case _:
            raise BadInput(f"{path} holds neither an object nor an array", hint=_HINT)


def _model(about: object, place: str) -> KnownModel:
    if not isinstance(about, dict):
        raise BadInput(f"{place} is neither a name nor an object", hint=_HINT)
    named = [about.get(key) for key in ("id", "model", "name", "alias")]
    words = [name.strip() for name in named if isinstance(name, str) and name.strip()]
    if not words:
        raise BadInput(f"{place} has no name", hint='write it under "alias" or "id"')
    alias = about.get("alias")
    return KnownModel(
        name=words[0],
        alias=alias.strip() if isinstance(alias, str) and alias.strip() else words[0],
        capabilities=_capabilities(about.get("capabilities"), place),
        size_bytes=_size(about, place),
        license=_license(about.get("license", about.get("licence")), place),
        load_cold_s=_number(about, "load_cold_s", place),
        load_warm_s=_number(about, "load_warm_s", place),
    )


def _capabilities(found: object, place: str) -> tuple[str, ...]:
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise BadInput(f"{place} has capabilities that are no texts", hint='write them as ["chat", "tools"]')
    return tuple(found)


def _size(about: dict[str, object], place: str) -> int | None:
    """In bytes, or in the workshop's megabytes of 10⁶."""
    for key, scale in (("size_bytes", 1), ("size_mb", _MB)):
        size = _number(about, key, place)
        if size is not None:
            return round(size * scale)
    return None


def _number(about: dict[str, object], key: str, place: str) -> float | None:
    number = about.get(key)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < math.inf:
        raise BadInput(f"{place} has the {key} {number!r}", hint="write a number from 0 on, or leave it out")
    return float(number)


def _license(found: object, place: str) -> str | None:
    if found is None or (isinstance(found, str) and found.strip()):
        return found.strip() if isinstance(found, str) else None
    raise BadInput(f"{place} has a license that is no text", hint="write its name, or leave it out")
