"""Whether two sides did the same work: before it is asked which was faster.

What was asked and how long the answers became is compared first. Where prompts differ, in kind or in length, only the
time per token of decoding is compared; where answers differ in length, the time to the first token and what is per
token. Lengths differ that are further apart than 2 %, the bound of the verdict, and with several runs a side further
than their spread.

Everything else that may stand between two runs is a caveat: it is told, and left to the reader.
"""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.compare.effect import BetweenRuns
from loadbench.analyze.compare.figure_data import counts
from loadbench.analyze.compare.hardware import families, variants
from loadbench.plan.gate import COST, ENERGY
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from loadbench.analyze.compare.figure_data import Levels
    from loadbench.results.run import LevelResult, Run

LENGTHS_WITHIN = 0.02
# The shares of answers that ended at the limit, not of themselves, are alike within this.
_ENDS_WITHIN = 0.05
# From so many failures on latencies are of a selection: the verdict's own usual limit.
_FAILED_FROM = 0.01
_METERS = {"board": "the accelerators", "package": "CPU and memory"}

_BY_PROMPT = ("ttft", "e2e", "requests_per_s", "output_tokens_per_s", ENERGY, COST)
_BY_ANSWER = ("e2e_p5", "e2e_p9", "e2e_response", "requests_per_s")
# Settings of the work that do not say what is asked, and those that say how long answers may be.
_NOT_ASKED = frozenset({"seed", "temperature", "max_tokens", "output_tokens"})
_LENGTHS = ("max_tokens", "output_tokens")
# Settings that may well differ between two sides, or are told in other words.
_FREE = frozenset({"load.users", "load.rate", "load.workers", "target.transport"})
# What is known of the client, and how to say that it is not the same.
_OF_CLIENT = {
    "stamp_source": "arrivals were stamped in other ways",
    "host": "the clients ran on two machines",
    "cpu": "the clients had two kinds of processor",
}


class Unequal:
    """What may not be compared at one level: by the beginning of a figure's name, the code and the reason."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, ...], tuple[str, str]] = {}

    def leave_out(self, beginnings: tuple[str, ...], code: str, message: str) -> None:
        """The first reason for the same figures stands."""
        self._reasons.setdefault(beginnings, (code, message))

    def reason(self, metric: str) -> tuple[str, str] | None:
        """Why a figure is not compared; `None` where it may be."""
        return next((why for names, why in self._reasons.items() if metric.startswith(names)), None)

    @property
    def answers_differ(self) -> bool:
        """Whether what is per answer is to be taken per token."""
        return _BY_ANSWER in self._reasons


def unequal(a: Levels, b: Levels, one: Run, other: Run, *, paired: bool, confidence: float) -> Unequal:
    """What may not be compared at a level; `one` and `other` are a run of each side, for its settings."""
    found = Unequal()
    asked = [key for key in _differing(one, other, "work") if key.split(".")[1] not in _NOT_ASKED]
    lengths = [f"work.{name}" for name in _LENGTHS if _setting(one, "work", name) != _setting(other, "work", name)]
    if asked:
        found.leave_out(_BY_PROMPT, "other_prompts", f"other prompts were asked: {_named(asked, one, other)}")
    if lengths:
        message = f"answers of another length were asked for: {_named(lengths, one, other)}"
        found.leave_out(_BY_ANSWER, "other_lengths", message)
    longer = _longer(a, b, _prompt, paired=paired, confidence=confidence)
    # Two models cut the same text into other tokens.
    if longer is not None and (asked or families([one]) == families([other])):
        found.leave_out(_BY_PROMPT, "prompt_lengths", f"the prompts of b are {_share(longer)} than those of a")
    longer = _longer(a, b, _answer, paired=paired, confidence=confidence)
    if longer is not None:
        found.leave_out(_BY_ANSWER, "answer_lengths", f"the answers of b are {_share(longer)} than those of a")
    priced = [
        {level.cost.currency for level in side if level is not None and level.cost is not None} for side in (a, b)
    ]
    if all(priced) and (priced[0] != priced[1] or len(priced[0]) > 1):
        told = " and ".join(sorted(str(unit or "no unit that is told") for unit in priced[0] | priced[1]))
        found.leave_out((COST,), "currencies", f"the prices are in {told}")
    return found


def mixed(runs: Sequence[Run]) -> str:
    """What the runs of one side differ in that makes their work another; empty where they may be taken together."""
    for other in runs[1:]:
        differing = [key for key in _differing(runs[0], other, "work") if key != "work.seed"]
        if differing:
            return _named(differing, runs[0], other)
    return ""


def caveats(a: Sequence[Run], b: Sequence[Run], *, paired: bool) -> list[Reason]:
    """What a reader must know of two sides that may be compared."""
    return [
        *_identity(a, b),
        *_settings(a, b, paired=paired),
        *_circumstances(a, b),
        *_answers(a, b),
        *_meters(a, b),
        *_of_levels(a, b),
    ]


def _identity(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    same = {(run.name, run.started_at) for run in a} & {(run.name, run.started_at) for run in b}
    if same:
        message = f"{len(same)} run{'s are' if len(same) > 1 else ' is'} on both sides"
        yield Reason("same_run", message, "name runs of two sides")
        return
    targets = [variants(side) for side in (a, b)]
    if targets[0] == targets[1] and not any(run.simulated for run in (*a, *b)):
        where = ", ".join(f"{model} at {target}" for target, model in sorted(targets[0]))
        advice = "well, if the server was changed between the runs, or if no difference is what is looked for"
        yield Reason("same_target", f"both sides are {where}", advice)

    for name, places in zip("ab", targets, strict=True):
        if len(places) > 1:
            where = ", ".join(f"{model} at {target}" for target, model in sorted(places))
            yield Reason("mixed_side", f"{name} is {len(places)} servers: {where}", "name runs of one server a side")


def _settings(a: Sequence[Run], b: Sequence[Run], *, paired: bool) -> Iterator[Reason]:
    differing = [
        key
        for section in ("target", "load", "work")
        for key in _differing(a[0], b[0], section)
        if key not in _FREE and key != "work.seed" and (section != "target" or key == "target.api")
    ]
    if differing:
        message = f"a and b were measured with other settings: {_named(differing, a[0], b[0])}"
        yield Reason("settings", message, "measure both with the same")
    for name, side in (("a", a), ("b", b)):
        differing = sorted({key for run in side[1:] for key in _differing(side[0], run, "load") if key not in _FREE})
        if differing:
            message = f"the runs of {name} were measured with other settings among themselves: {', '.join(differing)}"
            yield Reason("settings_within", message, "name runs of one kind")
    seeds = [[_setting(run, "work", "seed") for run in side] for side in (a, b)]
    if seeds[0] != seeds[1] if paired else set(map(str, seeds[0])) != set(map(str, seeds[1])):
        yield Reason("seeds", "a and b were asked with other seeds, so in other words", "use the same seeds")


def _circumstances(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    for key, differ in _OF_CLIENT.items():
        values = [{str(run.environment.get(key)) for run in side} for side in (a, b)]
        if values[0] != values[1]:
            told = " and ".join(", ".join(sorted(side)) for side in values)
            yield Reason(key, f"{differ}: {told}", "measure both by the same client")
    versions = [{run.loadbench_version for run in side} for side in (a, b)]
    if versions[0] != versions[1]:
        told = " and ".join(", ".join(sorted(side)) for side in versions)
        yield Reason("versions", f"measured by different versions of loadbench: {told}", "measure both with one")
    for name, side in (("a", a), ("b", b)):
        stopped = sum(not run.complete for run in side)
        if stopped:
            message = (
                f"{stopped} of {len(side)} runs of {name} {'was' if stopped == 1 else 'were'} stopped before the end"
            )
            yield Reason("incomplete", message, "leave it out, or measure it again")
    if {run.simulated for run in a} != {run.simulated for run in b}:
        yield Reason("simulated", "one side is the simulated server, the other is not", "compare like with like")


def _answers(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    sides = [[level for run in side for level in run.levels] for side in (a, b)]
    failed = [_failed(side) for side in sides]
    if max(failed) > _FAILED_FROM:
        message = (
            f"{failed[0]:.1%} of a's requests failed and {failed[1]:.1%} of b's: latencies are of the others alone"
        )
        yield Reason("failures", message, "see to the failures first: who drops requests is quick with the rest")
    ends = [_limited(side) for side in sides]
    if ends[0] is not None and ends[1] is not None and abs(ends[1] - ends[0]) > _ENDS_WITHIN:
        message = f"answers cut at their limit: {ends[0]:.0%} of a, {ends[1]:.0%} of b"
        yield Reason("finish_reasons", message, "ask for lengths that both reach")
    counted = [{source for level in side for source, count in level.tokens.source.items() if count} for side in sides]
    if counted[0] != counted[1]:
        told = " and ".join(", ".join(sorted(side)) or "nothing" for side in counted)
        yield Reason("token_source", f"tokens are counted in other ways: by {told}", "have both report usage")
    cached = [sum(level.tokens.cached_requests for level in side) for side in sides]
    if any(cached):
        message = f"prompts came in part from the server's cache: {cached[0]} requests of a, {cached[1]} of b"
        yield Reason("cached", message, "leave --unique on, or say that a warm cache is what is compared")
    if families(a) != families(b):
        message = "two models were asked: their tokens are not the same amount of text, nor of work"
        yield Reason("two_models", message, "compare E2E where answers say the same, and quality beside it")
    elif _models(sides[0]) != _models(sides[1]):
        message = "two variants of one model were asked: their weights may be rounded in other ways"
        yield Reason("two_variants", message, "compare quality beside it: loadbench score")


def _meters(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    """What stands behind the joules of either side."""
    used = [[level.energy for run in side for level in run.levels if level.energy is not None] for side in (a, b)]
    sources = [{one.source for one in side} for side in used]
    if not all(sources):
        return
    if sources[0] != sources[1]:
        told = ", of b ".join(_metered(side) for side in sources)
        advice = "what no meter sees is in neither: measure both at the wall, or both by the same meters"
        yield Reason("energy_sources", f"the joules of a are {told}", advice)
    if any("estimate" in side for side in sources):
        watts = [
            " and ".join(sorted({f"{one.watts:g} W" for one in side if one.source == "estimate"})) for side in used
        ]
        told = ", ".join(f"of {name} from {said}" for name, said in zip("ab", watts, strict=True) if said)
        message = f"joules are an estimate, {told}: no interval here holds the doubt of that"
        yield Reason("energy_estimate", message, "meter the power, or read ratios of energy as ratios of speed")


def _metered(sources: set[str]) -> str:
    parts = sorted({part for source in sources for part in source.split("+")})
    return " and ".join(
        "an estimate" if part == "estimate" else f"those of {_METERS.get(part, part)}" for part in parts
    )


def _of_levels(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    """The caveats of the levels, each kind once: heat, a fallback, a lost connection are no less true here."""
    sides = {name: [level for run in side for level in run.levels] for name, side in (("a", a), ("b", b))}
    found: dict[str, list[tuple[str, Reason]]] = {}
    for name, levels in sides.items():
        for reason in (one for level in levels for one in level.caveats):
            found.setdefault(reason.code, []).append((name, reason))
    for code, told in found.items():
        names, first = list(dict.fromkeys(name for name, _ in told)), told[0][1]
        of = sum(len(sides[name]) for name in names)
        often = f", and {len(told) - 1} more of {of} levels likewise" if len(told) > 1 else ""
        yield Reason(code, f"{' and '.join(names)}: {first.message}{often}", first.advice)


def _failed(levels: Sequence[LevelResult]) -> float:
    """The share of all measured requests."""
    failed, asked = map(sum, zip(*map(counts, levels), strict=True)) if levels else (0, 0)
    return failed / asked if asked else 0.0


def _limited(levels: Sequence[LevelResult]) -> float | None:
    """The share of answers that ended at the limit."""
    ended = sum(sum(level.finish_reasons.values()) for level in levels)
    return sum(level.finish_reasons.get("length", 0) for level in levels) / ended if ended else None


def _models(levels: Sequence[LevelResult]) -> set[str]:
    return {level.model for level in levels}


def _longer(
    a: Levels, b: Levels, mean: Callable[[LevelResult], float], *, paired: bool, confidence: float
) -> float | None:
    """By what share b's are longer on average; `None` where they are alike."""
    sides = [np.array([math.nan if level is None else mean(level) for level in side]) for side in (a, b)]
    runs = BetweenRuns(np.log(sides[0]), np.log(sides[1]), paired)
    kept = runs.kept()
    if not len(kept[0]) or not len(kept[1]):
        return None
    longer = math.expm1(float(kept[1].mean() - kept[0].mean()))
    effect = runs.effect()
    if abs(longer) <= LENGTHS_WITHIN or (effect is not None and effect.p_value() > 1 - confidence):
        return None
    return longer


def _prompt(level: LevelResult) -> float:
    known = level.outcomes.get("ok", 0) - level.tokens.unknown_input
    return level.tokens.input / known if known > 0 and level.tokens.input else math.nan


def _answer(level: LevelResult) -> float:
    answered = level.outcomes.get("ok", 0)
    return level.tokens.output / answered if answered and level.tokens.output else math.nan


def _share(longer: float) -> str:
    return f"{abs(longer):.1%} {'longer' if longer > 0 else 'shorter'} on average"


def _setting(run: Run, section: str, name: str) -> object:
    found = run.scenario.get(section, {}).get(name)
    # The same file may lie elsewhere.
    return PurePath(found).name if name == "prompts" and isinstance(found, str) else found


def _differing(one: Run, other: Run, section: str) -> list[str]:
    """Of settings that both know: an older run lacks those that came later."""
    both: Mapping[str, object] = one.scenario.get(section, {})
    known = [name for name in both if name in other.scenario.get(section, {})]
    return [f"{section}.{name}" for name in known if _setting(one, section, name) != _setting(other, section, name)]


def _named(keys: Sequence[str], one: Run, other: Run) -> str:
    parts = (key.split(".") for key in keys)
    return ", ".join(
        f"{section}.{name} ({_setting(one, section, name)} and {_setting(other, section, name)})"
        for section, name in parts
    )
