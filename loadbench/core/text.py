"""Foreign text, made fit to be shown, or told apart without being kept."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Shorter ones are words like "Bearer": to hide them would hide half of every message.
_SHORTEST_SECRET = 8


def printable(text: str) -> str:
    """One line without anything that a terminal would obey: a server's words may hold escape sequences."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def digest(text: str, *, size: int = 8) -> str:
    """So many bytes of the text's BLAKE2b, in hex: equal texts have equal ones, and it does not tell the text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).hexdigest()


def secrets_of(headers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """What of these headers may be a secret: each value, and each word of one, unless it is too short to be any."""
    words = {word for _, value in headers for word in (value, *value.split()) if len(word) >= _SHORTEST_SECRET}
    return tuple(sorted(words, key=len, reverse=True))


def hide(text: str, secrets: Iterable[str]) -> str:
    """The text with `***` for each secret in it."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
