"""Foreign text, made fit to be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line without anything that a terminal would obey: a server's words may hold escape sequences."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
