"""Input for a reader: what it can read, changed in its bytes or in its values."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tests.fuzz.readers import CORPUS, READERS

if TYPE_CHECKING:
    from collections.abc import Callable

# Stands for arrays in arrays, nearly as deep as Python's own limit.
_DEEP = "@deep@"
# Values that nobody expects, at the edges of what formats and machines have.
ODD: list[Any] = [
    *(
        -1.0,
        0.0,
        1e-9,
        1e15,
        -(2**31),
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3.5,
        -0.0,
        1e-320,
        1e308,
        2**31,
        2**53,
        2**63,
        2**64,
        -(2**63),
        10**400,
        -(10**30),
    ),
    *(
        "",
        " ",
        "x" * 400,
        "\0",
        "\ud800",
        "\u202e",
        "-1",
        "1e999",
        "null",
        "NaN",
        "../..",
        "9" * 400,
        "<title>",
        "[[[[",
    ),
    *([], {}, [None], [[]], {"": None}, {"a": {"a": {}}}, _DEEP),
]
# Bytes that mean something in some format.
_TOKENS = [
    *(
        b"\r\n\r\n",
        b"\n\n",
        b"\r",
        b"data: ",
        b"event: error\n",
        b": ",
        b"[DONE]",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\x1f\x8b",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b",",
        b"\\ud83d",
        b"1" * 400,
        b"-",
        b"1e999",
        b"NaN",
        b"null",
        b"<title>",
        b"0\r\n",
    ),
    *(
        b"transfer-encoding: chunked\r\n",
        b"content-length: 5\r\n",
        b"ffffffff\r\n",
        b"HTTP/1.1 100 \r\n\r\n",
        b"[" * 1100,
    ),
]


@cache
def seeds(name: str) -> list[bytes]:
    """Inputs of a reader, with those that once broke it."""
    kept = sorted((CORPUS / name).glob("*")) if (CORPUS / name).is_dir() else []
    return [*READERS[name].seeds(), *(path.read_bytes() for path in kept)]


def _changed_bytes(draw: Callable[[st.SearchStrategy[Any]], Any], seed: bytes) -> bytes:
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 40)))
        kind = draw(st.sampled_from(["insert", "remove", "replace", "repeat", "token"]))
        match kind:
            case "insert":
                data[at:at] = draw(st.binary(max_size=8))
            case "remove":
                del data[at:to]
            case "replace":
                data[at:to] = draw(st.binary(min_size=to - at, max_size=to - at))
            case "repeat":
                data[at:at] = bytes(data[at:to]) * draw(st.integers(1, 50))
            case "token":
                data[at:at] = draw(st.sampled_from(_TOKENS))
    return bytes(data)


def _places(value: Any, parents: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Each (container, key) in a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(items):
        parents.append((value, key))
        _places(part, parents)
    return parents


def _alike(value: Any) -> list[Any]:
    """Odd values of this type, which a reader that looks at types takes."""
    return [] if value is None else [odd for odd in ODD if type(odd) is type(value)]


def _changed_values(draw: Callable[[st.SearchStrategy[Any]], Any], document: Any) -> bytes:
    for _ in range(draw(st.integers(1, 4))):
        places = _places(document, [])
        if not places:
            break
        inside, key = places[draw(st.integers(0, len(places) - 1))]
        kind = draw(st.sampled_from(["alike", "alike", "alike", "replace", "remove", "copy"]))
        if kind == "alike" and (alike := _alike(inside[key])):
            inside[key] = deepcopy(draw(st.sampled_from(alike)))
        elif kind in {"replace", "alike"}:
            value = draw(st.sampled_from(ODD) | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20))
            inside[key] = deepcopy(value)
        elif kind == "remove":
            del inside[key]
        elif isinstance(inside, list):
            inside.extend(deepcopy(inside[key]) for _ in range(draw(st.integers(1, 20))))
        else:
            inside[draw(st.text(max_size=5))] = deepcopy(inside[key])
    text = json.dumps(document, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return text.replace(b'"%b"' % _DEEP.encode(), b"[" * 990 + b"]" * 990)


@st.composite
def inputs(draw: Callable[[st.SearchStrategy[Any]], Any], name: str) -> bytes:
    """One input for the reader of this name."""
    found = seeds(name)
    if not found or draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    seed = draw(st.sampled_from(found))
    # In lines of JSON one line is changed.
    lines = seed.split(b"\n") if draw(st.booleans()) else [seed]
    number = draw(st.integers(0, len(lines) - 1))
    prefix = b"data: " if lines[number].startswith(b"data: ") else b""
    try:
        document = json.loads(lines[number].removeprefix(prefix))
    except (ValueError, RecursionError):
        return _changed_bytes(draw, seed)
    if draw(st.integers(0, 3)) == 0:
        return _changed_bytes(draw, seed)
    lines[number] = prefix + _changed_values(draw, document)
    return b"\n".join(lines)
