"""Text from outside: make it safe to print, or identify it without keeping it."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SURROGATE = re.compile(r"[\ud800-\udfff]")  # half of a pair, from JSON or argv: no UTF-8 text has one
_LONGEST_SHOWN = 400


def printable(text: str) -> str:
    """The text on one line without control characters: a server's text may have escape sequences for the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def printable_json(document: bytes) -> bytes:
    """JSON with escapes for what `printable` replaces: a terminal may show it, and it means the same."""

    def escaped(match: re.Match[str]) -> str:
        units = match[0].encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))

    text = document.decode("utf-8", "surrogatepass")
    return _NOT_ASCII.sub(lambda match: match[0] if match[0].isprintable() else escaped(match), text).encode()


_NOT_ASCII = re.compile(r"[^\n -~]")


def display_width(text: str) -> int:
    """How many columns of a terminal the text takes: wide letters, such as Japanese ones, take two; marks on other
    letters and the parts of a Korean syllable after its first take none.
    """
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.category(one) in {"Mn", "Me"} or "\u1160" <= one <= "\u11ff"
        else 1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
    )


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
    from hashlib import blake2b  # noqa: PLC0415 - with it OpenSSL, for which the help of every command would wait

    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def beginning(text: str, most: int = _LONGEST_SHOWN) -> str:
    """The text, or of a longer one than `most` the beginning and how long it is."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def shortened(value: object) -> object:
    """A JSON value to be shown: of long texts in it there is the beginning, and how long they are."""
    match value:
        case str():
            return beginning(value)
        case dict():
            return {name: shortened(part) for name, part in value.items()}
        case list():
            return [shortened(part) for part in value]
        case _:
            return value
