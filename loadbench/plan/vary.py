"""What a grid varies, as people write it: names, each with its values.

    input_tokens=128,1024,8192       three values
    output_tokens=uniform:8,64       given twice: two values, each with its commas
    output_tokens=uniform:64,512

In a file it is a table with a list for each name. A value is kept as it was written: what it means, only the setting
that it is for knows.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass

# More cells than this are a slip of the finger: at ten seconds each they take an hour and a half.
MOST_CELLS = 500
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
_EXAMPLE = "want a name and its values, as in input_tokens=128,1024"


@dataclass(frozen=True, slots=True)
class Varied:
    """One name of a grid and its values, as they were written."""

    name: str
    values: tuple[str, ...]


def read_vary(value: object) -> tuple[Varied, ...]:
    """What flags, a variable or a table of a file vary; raises `ValueError`."""
    if isinstance(value, dict):
        flat: dict[str, object] = {}
        for name, given in value.items():
            # `work.input_tokens = [...]` is a table in a table.
            flat |= {f"{name}.{inner}": of for inner, of in given.items()} if isinstance(given, dict) else {name: given}
        varied = {
            str(name): [_text(one) for one in (given if isinstance(given, (list, tuple)) else [given])]
            for name, given in flat.items()
        }
    else:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)) or not items:
            raise ValueError(f"found {value!r:.80}, {_EXAMPLE}")
        texts: dict[str, list[str]] = {}
        for item in items:
            name, sign, text = str(item).partition("=")
            if not sign:
                raise ValueError(f"found {item!r:.80}, {_EXAMPLE}")
            texts.setdefault(name.strip().replace("-", "_"), []).append(text)
        varied = {
            name: [part.strip() for part in (given[0].split(",") if len(given) == 1 else given)]
            for name, given in texts.items()
        }
    if not varied:
        raise ValueError(f"found nothing, {_EXAMPLE}")
    for name, values in varied.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r:.80} is no name, {_EXAMPLE}")
        if not values or not all(values):
            raise ValueError(f"{name}: want values with single commas between them, as in {name}=1,2")
        repeated = next((one for place, one in enumerate(values) if one in values[:place]), None)
        if repeated is not None:
            raise ValueError(f"{name}: {repeated!r:.80} is given more than once, want each value once")
    cells = math.prod(map(len, varied.values()))
    if cells > MOST_CELLS:
        raise ValueError(f"these are {cells:,} cells, want at most {MOST_CELLS}")
    return tuple(Varied(name, tuple(values)) for name, values in varied.items())


def show_vary(varied: tuple[Varied, ...]) -> list[str]:
    """As flags give it again: values with commas are items of their own."""
    return [
        f"{one.name}={text}"
        for one in varied
        for text in (one.values if any("," in value for value in one.values) else [",".join(one.values)])
    ]


def _text(value: object) -> str:
    """A value of a file, as a flag would have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return json.dumps(value, default=str) if isinstance(value, dict) else str(value).strip()
