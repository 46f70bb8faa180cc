"""What a terminal is given: colours only where it shows them, or where the user says so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping


def color_choice(environment: Mapping[str, str] | None = None) -> bool | None:
    """Whether the environment asks for colours or forbids them; `None` leaves it to the stream.

    As in Python itself, NO_COLOR goes before FORCE_COLOR (each counts unless it is empty), and both before TERM=dumb.
    CLICOLOR_FORCE (unless 0) and CLICOLOR=0 are the older pair.
    """
    given = os.environ if environment is None else environment
    if given.get("NO_COLOR"):
        return False
    if given.get("FORCE_COLOR") or given.get("CLICOLOR_FORCE", "0") not in {"", "0"}:
        return True
    return False if given.get("TERM") == "dumb" or given.get("CLICOLOR") == "0" else None


def wants_color(stream: TextIO) -> bool:
    """Whether what is written to this stream may have colours."""
    choice = color_choice()
    return stream.isatty() if choice is None else choice
