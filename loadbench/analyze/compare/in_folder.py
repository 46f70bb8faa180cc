"""The comparison in a folder of runs that were measured in turns, also of one that was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadbench.analyze.compare.compare import compare
from loadbench.analyze.compare.drift import drift
from loadbench.plan.settings import setting_of
from loadbench.results.compare import Comparison
from loadbench.results.folder import UNREADABLE, read_plain
from loadbench.results.saved import read_pairs

if TYPE_CHECKING:
    from pathlib import Path


def comparison_in(folder: Path) -> Comparison:
    """The comparison as it was saved, if that has every pair of whole runs; else of all such pairs, as it would be.

    Raises `BadInput` if there is no such pair.
    """
    a, b = read_pairs(folder)
    try:
        saved = msgspec.json.decode(read_plain(folder / "compare.json"), type=Comparison)
    except (OSError, *UNREADABLE):
        saved = None
    # As the command was given.
    settings = a[0].scenario.get("compare", {})
    gates, confidence = (
        setting_of(f"compare.{name}").type.read(value)
        if (value := settings.get(name)) is not None
        else setting_of(f"compare.{name}").default
        for name in ("fail_on", "confidence")
    )
    whole = saved is not None and len(saved.a.runs) == len(a)
    if saved is not None and whole and saved.summary is not None:
        return saved
    ended_early = "" if whole else "it was killed, or is still running"
    now = compare(
        a, b, paired=True, gates=gates or (), confidence=confidence, caveats=drift(a, b), ended_early=ended_early
    )
    if saved is None or not whole:
        return now
    # An older version saved it: it stays as it is, with what that version did not have.
    return msgspec.structs.replace(saved, a=now.a, b=now.b, speed=now.speed, currency=now.currency, summary=now.summary)
