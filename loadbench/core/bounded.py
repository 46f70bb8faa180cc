"""Files and JSON from outside, within bounds: what is beyond them is an error of the input like any other."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from pathlib import Path

# Nothing that people or servers write is nested deeper. orjson reads 1024 levels and writes 254, Python recurses to
# 1000 and has used some of them.
MOST_LEVELS = 128
# What the values of a text may take in memory: where they are small, that is many times its length. To build a million
# values holds up the loop. Bytes for each of these signs: an array and an object, a quote, a place with a
# number; and for each letter of a text that has a single one of the rarest, where there may be one.
MOST_COST, _COSTS, _LETTER = 32 << 20, {"[": 56, "{": 184, '"': 13, ",": 32}, 4

# A list of 100,000 models takes less; there is one at a time.
MOST_LIST_COST = 80 << 20


class OutOfBounds(orjson.JSONDecodeError):
    """JSON beyond a bound, which the message names; it may be valid."""


TOO_DEEP = f"nested more than {MOST_LEVELS} levels deep"


def read_file(path: Path, most_bytes: int) -> bytes:
    """The bytes of a file; raises `OSError`, also for one with more than `most_bytes`."""
    with path.open("rb") as file:
        size = path.stat().st_size
        raw = file.read(most_bytes + 1) if size <= most_bytes else b""
    if size > most_bytes or len(raw) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes >> 20 or most_bytes / 2**20:g} MiB")
    return raw


def parse_json(data: bytes | str, most_cost: int = MOST_COST) -> Any:
    """The value of a JSON text; raises `orjson.JSONDecodeError`, which is `OutOfBounds` for one of more than
    `MOST_LEVELS` levels or of values that may take more than this memory."""
    if is_costly(data, most_cost):
        raise OutOfBounds(
            f"{len(data) / 2**20:.1f} MiB whose values may take more than {most_cost >> 20} MiB of memory", "", 0
        )
    value = orjson.loads(data)
    if len(data) > MOST_LEVELS and is_deep(data, value):
        raise OutOfBounds(TOO_DEEP, "", 0)
    return value


def is_costly(data: bytes | str, most_cost: int) -> bool:
    """Whether the values of this JSON text may take more memory than this."""
    # No shorter text can take as much.
    if 128 * len(data) < most_cost:
        return False
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    letter = 1 if raw.isascii() and b"\\u" not in raw else _LETTER
    return sum(cost * raw.count(sign.encode()) for sign, cost in _COSTS.items()) + letter * len(raw) > most_cost


def may_be_deep(data: bytes | str) -> bool:
    """Whether this JSON text has more brackets than levels are allowed."""
    if isinstance(data, str):
        return data.count("[") + data.count("{") > MOST_LEVELS
    return data.count(b"[") + data.count(b"{") > MOST_LEVELS


def is_deep(data: bytes | str, value: object) -> bool:
    """Whether the value of this JSON text has more than `MOST_LEVELS` levels."""
    if not may_be_deep(data):
        return False
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [
            part
            for one in level
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True
