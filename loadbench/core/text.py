"""Text from outside: make it safe to print, hide secrets in it, or identify it without keeping it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SURROGATE = re.compile(r"[\ud800-\udfff]")  # half of a pair, from JSON or argv: no UTF-8 text has one
# Shorter words, such as "Bearer", are no secrets; hiding them would hide half of every message.
_SHORTEST_SECRET = 8
# What is left of one that was cut: fewer characters say little, and are those of other words by chance.
_SHORTEST_CUT = 4
# What stands for a secret.
MASK = "***"
_SECRET_NAMES = re.compile(
    r"(key|token|secret|password|passwd|pwd|authorization|auth|credentials?|signature|sig|code)$", re.IGNORECASE
)


def printable(text: str) -> str:
    """The text on one line without control characters: a server's text may have escape sequences for the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def display_width(text: str) -> int:
    """How many columns of a terminal the text takes: wide letters, such as Japanese ones, take two."""
    if text.isascii():
        return len(text)
    return sum((unicodedata.east_asian_width(one) in "WF") + (not unicodedata.combining(one)) for one in text)


def some(names: Sequence[str], *, most: int = 8, separator: str = ", ") -> str:
    """The first of the names, with the number of the others."""
    more = len(names) - most
    return separator.join(names[:most]) + (f" and {more} more" if more > 0 else "")


def kind_of(value: object) -> str:
    """What a value of JSON, or of TOML, is in words."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")


def digest(text: str, *, size: int = 8) -> str:
    """BLAKE2b hash of the text with this number of bytes, in hex: equal for equal texts, without revealing them."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def is_secret(name: str) -> bool:
    """Whether a value of this name is probably a secret: `api_key`, `apiKey`, `access-token`, `sig`."""
    return _SECRET_NAMES.search(name) is not None


def masked(value: object) -> object:
    """JSON in which texts whose names are those of secrets are replaced."""
    match value:
        case dict():
            hidden = {name for name, part in value.items() if isinstance(part, str) and is_secret(name)}
            return {name: MASK if name in hidden else masked(part) for name, part in value.items()}
        case list() | tuple():
            return [masked(part) for part in value]
        case _:
            return value


def secrets_in(value: object) -> Iterator[str]:
    """The texts that `masked` replaces, if they are long enough to be secrets."""
    match value:
        case dict():
            for name, part in value.items():
                if isinstance(part, str) and is_secret(name) and len(part) >= _SHORTEST_SECRET:
                    yield part
                yield from secrets_in(part)
        case list() | tuple():
            for part in value:
                yield from secrets_in(part)


def secrets_of(headers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The possible secrets in these headers: each value and each word of a value that is long enough, longest first."""
    words = {word for _, value in headers for word in (value, *value.split()) if len(word) >= _SHORTEST_SECRET}
    return tuple(sorted(words, key=len, reverse=True))


def hide(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret in it replaced by `***`; so is one that was cut, before an ellipsis."""
    secrets = tuple(secrets)
    for secret in secrets:
        text = text.replace(secret, MASK)
    *parts, rest = text.split("…")
    for index, part in enumerate(parts):
        begun = (secret[:size] for secret in secrets for size in range(len(secret) - 1, _SHORTEST_CUT - 1, -1))
        end = next((beginning for beginning in begun if part.endswith(beginning)), "")
        parts[index] = part.removesuffix(end) + MASK if end else part
    return "…".join([*parts, rest])
