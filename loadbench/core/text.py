"""Text from outside: make it safe to print, hide secrets in it, or identify it without keeping it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Shorter words, such as "Bearer", are no secrets; hiding them would hide half of every message.
_SHORTEST_SECRET = 8


def printable(text: str) -> str:
    """The text on one line without control characters: a server's text may have escape sequences for the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def digest(text: str, *, size: int = 8) -> str:
    """BLAKE2b hash of the text with this number of bytes, in hex: equal for equal texts, without revealing them."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def secrets_of(headers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The possible secrets in these headers: each value and each word of a value that is long enough, longest first."""
    words = {word for _, value in headers for word in (value, *value.split()) if len(word) >= _SHORTEST_SECRET}
    return tuple(sorted(words, key=len, reverse=True))


def hide(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret in it replaced by `***`."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
