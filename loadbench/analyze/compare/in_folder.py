"""The comparison in a folder of runs that were measured in turns, also of one that was killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loadbench.analyze.compare.compare import compare
from loadbench.analyze.compare.drift import drift
from loadbench.analyze.compare.first_responses import LENGTH_CODES
from loadbench.analyze.compare.told_apart import told_apart
from loadbench.plan.settings import setting_of
from loadbench.results.compare import RULES, Comparison
from loadbench.results.folder import UNREADABLE, read_plain
from loadbench.results.run import Reason
from loadbench.results.saved import read_pairs

if TYPE_CHECKING:
    from pathlib import Path


def comparison_in(folder: Path) -> Comparison:
    """The comparison as it was saved, if that has every pair of whole runs, decided as it is today; else of all such
    pairs, as it would be. A file of an older version never mixes its rules with these: a caveat says that it differs.

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
    if saved is not None:
        # An older file does not say what tells its sides apart.
        sides = zip((saved.a, saved.b), told_apart(a, b), strict=True)
        of_a, of_b = (msgspec.structs.replace(side, apart=apart) for side, apart in sides)
        saved = msgspec.structs.replace(saved, a=of_a, b=of_b)
    if saved is not None and whole and saved.rules >= RULES:
        return saved
    now = compare(
        a,
        b,
        paired=True,
        gates=gates or (),
        confidence=confidence,
        caveats=drift(a, b),
        ended_early="it was killed, or is still running" if saved is None or not whole else saved.ended_early,
    )
    if saved is None or not whole:
        return now
    # Its words go with its intervals, and both with the rules of the version that saved it.
    before, after = _decided(saved), _decided(now)
    others = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
    if not others:
        return now if saved.summary is None else msgspec.structs.replace(saved, counted=now.counted)
    message = (
        f"compare.json is of an older version, whose rules have other figures in {len(others)} of {len(after)} rows: "
        "all is computed again here, from the stored levels"
    )
    caveat = Reason("recomputed", message, "`loadbench compare` of the folder gives the same; the file stays as it is")
    # The runs do not show what the first responses of the sides did.
    first = [one for one in saved.caveats if one.code in LENGTH_CODES]
    return msgspec.structs.replace(now, caveats=[*first, *now.caveats, caveat])


def _decided(comparison: Comparison) -> dict[tuple[str, str], tuple[str, ...]]:
    """What each row says, by load and figure: the word, and the interval to three digits."""
    rows = (*comparison.comparisons, *comparison.overall, *comparison.speed)
    return {(row.level, row.metric): (row.decision, *(f"{end:.3g}" for end in row.interval or ())) for row in rows}
