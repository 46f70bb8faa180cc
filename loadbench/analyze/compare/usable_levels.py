"""Which levels of a comparison's runs count, and in a sentence how many do, why the others do not, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.analyze.compare.summary import loads_text
from loadbench.analyze.compare.undecided import CLAUSE, not_counted
from loadbench.analyze.level.knee import busy_machine, commonest_reason, measure_again, reasons_against
from loadbench.record.outcome import failed_of
from loadbench.results.compare import NOT_COMPARED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import ClosedLoad, LevelResult, OpenLoad, Run


def usable_level(run: Run, load: ClosedLoad | OpenLoad) -> tuple[LevelResult | None, tuple[str, str]]:
    """The run's level at this load; or `None` and the code and reason why it is not compared."""
    why = ("missing", "it has no such level")
    for level in run.levels:
        if level.load != load:
            continue
        if level.verdict.status == "INVALID":
            reasons = ", ".join(f"{reason.message} ({reason.code})" for reason in level.verdict.reasons)
            # Other programs on the machine cause other reasons, also where they are only a note.
            busy = busy_machine(level)
            reasons += "".join(f"; at the same time {note.message} ({note.code}, a note)" for note in busy)
            texts = dict.fromkeys(one.advice for one in reasons_against(level) if one.advice)
            # Of an advice that another one begins with, that has more.
            advice = [text for text in texts if not any(other != text and other.startswith(text) for other in texts)]
            why = ("invalid", "; ".join([f"INVALID: {reasons}", *advice]))
        elif level.interrupted:
            why = ("interrupted", "it was interrupted")
        elif not failed_of(level.outcomes, level.missed)[1]:
            why = ("empty", "no request was measured")
        else:
            return level, why
    return None, why


def counted_text(a: Sequence[Run], b: Sequence[Run], *, paired: bool, said: str) -> str:
    """How many runs count at each load that both sides have: `All 6 pairs of runs count at 1 user; 4 of 6 at 4 users
    (INVALID on B: the warm-up was too short): use a longer --warm-up`; and how many levels that count are INCONCLUSIVE.
    What an advice in `said` is about is not told again. Empty where there is nothing to say."""
    of_a, of_b = ({level.load: None for run in side for level in run.levels} for side in (a, b))
    common = sorted((load for load in of_a if load in of_b), key=lambda load: load.amount)
    parts: dict[tuple[str, str, str], list[str]] = {}
    counting: list[tuple[str, LevelResult]] = []
    for load in common:
        found = [[usable_level(run, load) for run in side] for side in (a, b)]
        sound = [[level is not None for level, _ in side] for side in found]
        if paired:
            sound = [[all(pair) for pair in zip(*sound, strict=True)]] * 2
        for name, side, counts in zip("AB", found, sound, strict=True):
            counting += [(name, level) for (level, _), one in zip(side, counts, strict=True) if one and level]
        codes = dict.fromkeys(code for side in found for level, (code, _) in side if level is None)
        lost = [name for name, side in zip("AB", found, strict=True) if not all(level for level, _ in side)]
        good_a, good_b = (sum(counts) for counts in sound)
        if paired:
            count = f"all {len(a)}" if good_a == len(a) else f"{good_a or 'none'} of {len(a)}"
            what = " pairs of runs count"
        elif len(a) == len(b) == 1:
            count = f"the run of {' and that of '.join(lost)}"
            what = " do not count" if len(lost) > 1 else " does not count"
        else:
            count, what = f"{good_a} of {len(a)} runs of A and {good_b} of {len(b)} of B", " count"
        why = ""
        if codes:
            cause, remedy = not_counted({load.label}, (*a, *b))
            if remedy and remedy in said:
                continue
            why = f" ({' or '.join(NOT_COMPARED[code] for code in codes)} on {' and '.join(lost)}"
            why += (f": {cause})" if cause else ")") + (f": {remedy}" if remedy else "")
        if lost or len(a) + len(b) > 2:
            parts.setdefault((count, what, why), []).append(load.label)
    lines: list[str] = []
    for (count, what, why), labels in parts.items():
        where = "" if len(labels) == len(common) else f" at {loads_text(labels)}"
        # The first one says what is counted.
        lines.append(count + ("" if lines else what) + where + why)
    sentences = ["; ".join(lines)]
    unclear = [(name, level) for name, level in counting if level.verdict.status == "INCONCLUSIVE"]
    reason = commonest_reason(level.verdict.reasons for _, level in unclear)
    if reason is not None:
        sides, be = " and ".join(sorted({name for name, _ in unclear})), "is" if len(unclear) == 1 else "are"
        which = f"{len(unclear)} of the {len(counting)} levels that count {be} INCONCLUSIVE, on {sides}"
        remedy = measure_again([level for _, level in unclear])[0]
        sentences.append(f"{which} ({CLAUSE.split(reason.message)[0]}), which makes intervals wider: {remedy}")
    return " ".join(f"{text[:1].upper()}{text[1:]}." for text in sentences if text)
