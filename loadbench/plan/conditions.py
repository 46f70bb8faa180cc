"""What two measurements must have in common to be parts of one: a resumed search compares it key by key.

Where results go, and how much time may be spent, is no part of it. A prompt file counts by its content.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import orjson

from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from loadbench.plan.scenario import Scenario

_SECTIONS = ("target", "load", "work", "limits", "slo", "personas")
# A search sets these itself.
_NOT_OF_A_SEARCH = frozenset({"load.users", "load.rate", "load.duration", "load.requests", "load.ramp", "load.workers"})


def conditions(scenario: Scenario) -> dict[str, object]:
    """By key, as people write them; raises `BadInput` for a prompt file that cannot be read."""
    found: dict[str, object] = {}
    for section, values in scenario.effective().items():
        if section in _SECTIONS:
            found.update({f"{section}.{name}": value for name, value in values.items()})
    found = {key: value for key, value in found.items() if key not in _NOT_OF_A_SEARCH}
    search = scenario.capacity
    found |= {
        "capacity.by": search.by,
        "capacity.at_most": search.at_most,
        "capacity.confidence": search.confidence,
        "capacity.precision": search.precision,
    }
    if scenario.work.prompts is not None:
        found["work.prompts"] = f"sha256:{_digest(scenario.work.prompts)}"
    plain: dict[str, object] = orjson.loads(orjson.dumps(found, option=orjson.OPT_NON_STR_KEYS, default=str))
    return plain


def content_hash(found: dict[str, object]) -> str:
    """Sixteen hexadecimal digits that stand for the conditions."""
    return hashlib.sha256(orjson.dumps(found, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}", hint="name a prompt file") from None
