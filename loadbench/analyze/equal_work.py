"""Whether two sides did the same work: before it is asked which was faster.

What was asked and how long the answers became is compared first. Where prompts differ, in kind or in length, only the
time per token of decoding is compared; where answers differ in length, the time to the first token and what is per
token. Lengths differ that are further apart than 2 %, the bound of the verdict, and with several runs a side further
than their spread.

Everything else that may stand between two runs is a caveat: it is told, and left to the reader.
"""

from __future__ import annotations

import math
import re
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.effect import Runs
from loadbench.results.run import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from loadbench.analyze.evidence import Levels
    from loadbench.results.run import Level, Run

LENGTHS_WITHIN = 0.02
# The shares of answers that ended at the limit, not of themselves, are alike within this.
_ENDS_WITHIN = 0.05
# A device in a model's id, as in qwen2.5-0.5b-instruct-cuda-gpu.
_DEVICE = re.compile(r"(?:^|[-_.:/ ])(cpu|gpu|npu)(?=$|[-_.:/ ])", re.IGNORECASE)

_BY_PROMPT = ("ttft", "e2e", "requests_per_s", "output_tokens_per_s")
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
    if longer is not None and (asked or _models(a) == _models(b)):
        found.leave_out(_BY_PROMPT, "prompt_lengths", f"the prompts of b are {_share(longer)} than those of a")
    longer = _longer(a, b, _answer, paired=paired, confidence=confidence)
    if longer is not None:
        found.leave_out(_BY_ANSWER, "answer_lengths", f"the answers of b are {_share(longer)} than those of a")
    return found


def caveats(a: Sequence[Run], b: Sequence[Run], *, paired: bool) -> list[Reason]:
    """What a reader must know of two sides that may be compared."""
    return [*_identity(a, b), *_settings(a, b, paired=paired), *_circumstances(a, b), *_answers(a, b)]


def device(runs: Sequence[Run]) -> str | None:
    """On what a side ran, if its runs tell it: in their environment, or in the model's id."""
    told = {str(run.environment["device"]) for run in runs if run.environment.get("device")}
    named = {match[1].lower() for run in runs for level in run.levels if (match := _DEVICE.search(level.model))}
    return ", ".join(sorted(told or named)) or None


def _identity(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    same = {(run.name, run.started_at) for run in a} & {(run.name, run.started_at) for run in b}
    if same:
        message = f"{len(same)} run{'s are' if len(same) > 1 else ' is'} on both sides"
        yield Reason("same_run", message, "name runs of two sides")
        return
    targets = [{(level.target, level.model) for run in side for level in run.levels} for side in (a, b)]
    if targets[0] == targets[1] and not any(run.simulated for run in (*a, *b)):
        where = ", ".join(f"{model} at {target}" for target, model in sorted(targets[0]))
        advice = "well, if the server was changed between the runs, or if no difference is what is looked for"
        yield Reason("same_target", f"both sides are {where}", advice)


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
    if {run.simulated for run in a} != {run.simulated for run in b}:
        yield Reason("simulated", "one side is the simulated server, the other is not", "compare like with like")


def _answers(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    sides = [[level for run in side for level in run.levels] for side in (a, b)]
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
    if _models(sides[0]) != _models(sides[1]):
        message = "two models were asked: their tokens are not the same amount of text, nor of work"
        yield Reason("two_models", message, "compare E2E where answers say the same, and quality beside it")


def _limited(levels: Sequence[Level]) -> float | None:
    """The share of answers that ended at the limit."""
    ended = sum(sum(level.finish_reasons.values()) for level in levels)
    return sum(level.finish_reasons.get("length", 0) for level in levels) / ended if ended else None


def _models(levels: Levels) -> set[str]:
    return {level.model for level in levels if level is not None}


def _longer(a: Levels, b: Levels, mean: Callable[[Level], float], *, paired: bool, confidence: float) -> float | None:
    """By what share b's are longer on average; `None` where they are alike."""
    sides = [np.array([math.nan if level is None else mean(level) for level in side]) for side in (a, b)]
    runs = Runs(np.log(sides[0]), np.log(sides[1]), paired)
    kept = runs.kept()
    if not len(kept[0]) or not len(kept[1]):
        return None
    longer = math.expm1(float(kept[1].mean() - kept[0].mean()))
    effect = runs.effect()
    if abs(longer) <= LENGTHS_WITHIN or (effect is not None and effect.p_value() > 1 - confidence):
        return None
    return longer


def _prompt(level: Level) -> float:
    known = level.outcomes.get("ok", 0) - level.tokens.unknown_input
    return level.tokens.input / known if known > 0 and level.tokens.input else math.nan


def _answer(level: Level) -> float:
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
