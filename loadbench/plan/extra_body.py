"""JSON objects that are merged into the body of each request (RFC 7386), as users write them.

A value is JSON text, `@FILE` for a file of it, a table of a scenario file, or a list of these. What would break the
measurement is refused: the prompts, the model and the stream are loadbench's own, and a request has one response.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loadbench.core.bounded import read_file
from loadbench.core.text import SURROGATE, kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# More than any body's parameters; images and tools are long.
_MOST_BYTES = 8 * 1024 * 1024
# Of other numbers JSON libraries make what they like.
_LEAST_INTEGER, _MOST_INTEGER = -(2**63), 2**64 - 1
_MOST_DEPTH = 100
_WANTED = "a JSON object, as in '{\"ignore_eos\": true}', or @FILE with one"
# Fields that hold the prompts.
_PROMPTS = ("messages", "prompt", "input")
# The field that limits a response, of each API; and all names that servers have for it.
LIMIT_FIELDS = {
    "chat": "max_tokens",
    "completions": "max_tokens",
    "responses": "max_output_tokens",
    "ollama": "options.num_predict",
}
_LIMITS = (*dict.fromkeys(LIMIT_FIELDS.values()), "max_completion_tokens", "max_new_tokens")


def read_objects(value: object) -> tuple[dict[str, Any], ...]:
    """The objects, in the order in which they are merged; raises `ValueError` with the place of what is wrong."""
    items = value if isinstance(value, (list, tuple)) else [value]
    objects = []
    for item in items:
        found = _parsed(item.strip()) if isinstance(item, str) else item
        if not isinstance(found, dict):
            # What was found may be a secret.
            raise ValueError(f"found {kind_of(found)}, want {_WANTED}")  # noqa: TRY004 - see `SettingType`
        _check(found, "", depth=0)
        _refuse(found)
        objects.append(found)
    return tuple(objects)


def value_of(objects: Sequence[Mapping[str, Any]], field: str) -> object:
    """The value of a field after all merges, as in `options.num_predict`; `None` if it is left out, alone or with the
    object that it is in, and `...` if none gives it."""
    found: object = ...
    for value in objects:
        part: object = value
        for name in field.split("."):
            if isinstance(part, dict):
                part = part.get(name, ...)
            elif part is not ... and part is not None:
                part, found = ..., ...  # the object is replaced by what is none
        found = found if part is ... else part
    return found


def limits_of(objects: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """The limits of output tokens among the fields, by name; `None` for one that is left out."""
    return {name: value for name in _LIMITS if (value := value_of(objects, name)) is not ...}


def _parsed(text: str) -> object:
    where = ""
    if text.startswith("@"):
        path = Path(text[1:].strip())
        where = f"{path}: "
        try:
            raw = read_file(path, _MOST_BYTES)
        except OSError as error:
            raise ValueError(f"{where}{error.strerror or error}") from None
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ValueError(f"{where}not UTF-8 text") from None

    def unrepeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
        twice = next((name for name, count in Counter(name for name, _ in pairs).items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"{where}{twice!r} is given twice in one object")
        return dict(pairs)

    def no_number(word: str) -> object:
        raise ValueError(f"{where}{word} is no JSON")

    try:
        return json.loads(text, object_pairs_hook=unrepeated, parse_constant=no_number)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{where}not JSON at {place}: {error.msg}; want {_WANTED}") from None
    except RecursionError:
        raise ValueError(f"{where}nested too deeply") from None


def _check(value: object, path: str, *, depth: int) -> None:
    """Raises `ValueError` for what cannot be sent as JSON: a TOML date, NaN, text that is not Unicode."""
    place = f"{path}: " if path else ""
    match value:
        case _ if depth > _MOST_DEPTH:
            raise ValueError(f"{place[:80]}nested too deeply")
        case dict():
            for name, part in value.items():
                if SURROGATE.search(name):
                    raise ValueError(f"{place}{name!r} is not valid Unicode")
                _check(part, f"{path}.{name}" if path else name, depth=depth + 1)
        case list():
            for number, part in enumerate(value):
                _check(part, f"{path}[{number}]", depth=depth + 1)
        case str() if SURROGATE.search(value):
            raise ValueError(f"{place}found text that is not valid Unicode")
        case float() if not math.isfinite(value):
            raise ValueError(f"{place}found {value}, which JSON does not have")
        case int() if not _LEAST_INTEGER <= value <= _MOST_INTEGER:
            raise ValueError(f"{place}found an integer of more than 64 bits")
        case None | str() | bool() | int() | float():
            pass
        case _:
            raise ValueError(f"{place}found a {type(value).__name__}, which JSON does not have: write it as text")


def _refuse(found: Mapping[str, Any]) -> None:
    """Raises `ValueError` for fields that would make the measurement wrong."""
    for name in _PROMPTS:
        if name in found:
            raise ValueError(f"{name} cannot be changed: give prompts with --prompts or --prompt")
    if found.get("model") is not None:
        raise ValueError("model cannot be changed: use --model; null leaves it out")
    if found.get("stream", True) is not True:
        raise ValueError("stream cannot be changed: the times of tokens are measured, so responses are streamed")
    for name in ("n", "best_of"):
        if found.get(name) not in (None, 1):
            raise ValueError(f"{name} must be 1: the tokens of several responses come mixed, and have no latency each")
