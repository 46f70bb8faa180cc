"""Whether two sides did the same work, which comes before which side was faster.

Prompts and response lengths are compared first. Where the prompts differ, in kind or in length, only the time per token
of decoding is compared. Where the responses differ in length, the time to first token and the figures per token are
compared. Lengths differ if they are more than 2 % apart, the bound of the verdict, and with several runs a side by
more than their spread.

Every other difference between the runs is a caveat, which is reported and left to the reader.
"""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.compare.effect import BetweenRuns
from loadbench.analyze.compare.figure_data import prompt_tokens
from loadbench.analyze.compare.hardware import model_families, server_models
from loadbench.analyze.level.load_makers import load_makers, which_cluster, workers_by_load
from loadbench.core.text import some
from loadbench.plan.gate import COST, ENERGY
from loadbench.plan.scenario import NOT_USED
from loadbench.plan.setting_types import PATH
from loadbench.plan.settings import Comparable, setting_of, settings
from loadbench.record.outcome import failed_of
from loadbench.results.run import Reason
from loadbench.wire.body import EXACT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from loadbench.analyze.compare.figure_data import Levels
    from loadbench.results.run import LevelResult, Run

LENGTHS_WITHIN = 0.02
# Prompts that were requested alike: generated text has a few more or fewer tokens than was aimed at, by chance.
_REQUESTED_WITHIN = 0.05
# The shares of responses that ended at the length limit are alike within this.
_ENDS_WITHIN = 0.05
# Above this share of failures, latencies are those of a selection: the usual limit of the verdict.
_FAILED_FROM = 0.01
_METERS = {"board": "the accelerators", "package": "CPU and memory", "machine": "the whole machine"}

_BY_PROMPT = ("ttft", "e2e", "requests_per_s", "output_tokens_per_s", ENERGY, COST)
_BY_RESPONSE = ("e2e_p5", "e2e_p9", "e2e_response", "requests_per_s")
# The differences that are caveats, apart from the seed's.
_CAVEATS = (Comparable.CAVEAT, Comparable.LENGTHS, Comparable.PROMPTS)
# Facts about the load generator, and the message where they differ.
_LOAD_GENERATOR = {
    "stamp_source": "arrivals were stamped in different ways",
    "host": "the load generators ran on different machines",
    "cpu": "the load generators had different processors",
}


class Unequal:
    """The figures that may not be compared at one level: by the beginnings of their names, a code and a reason."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, ...], tuple[str, str]] = {}

    def leave_out(self, beginnings: tuple[str, ...], code: str, message: str) -> None:
        """Leave out the figures that begin like this; the first reason stands."""
        self._reasons.setdefault(beginnings, (code, message))

    def reason(self, metric: str) -> tuple[str, str] | None:
        """Why a figure is not compared; `None` where it may be."""
        return next((why for names, why in self._reasons.items() if metric.startswith(names)), None)

    @property
    def lengths_differ(self) -> bool:
        """Whether responses differ in length, so that figures per response are compared per token."""
        return _BY_RESPONSE in self._reasons


def unequal(a: Levels, b: Levels, run_a: Run, run_b: Run, *, paired: bool, confidence: float) -> Unequal:
    """What may not be compared at a level; `run_a` and `run_b` are a run of each side, for its settings."""
    work = Unequal()
    prompts = _differing(run_a, run_b, Comparable.PROMPTS)
    lengths = _differing(run_a, run_b, Comparable.LENGTHS)
    if prompts:
        message = f"the prompts were not the same: {_named(prompts, run_a, run_b)}"
        work.leave_out(_BY_PROMPT, "other_prompts", message)
    if lengths:
        message = f"the requested response lengths were not the same: {_named(lengths, run_a, run_b)}"
        work.leave_out(_BY_RESPONSE, "other_lengths", message)
    longer = _relative_length(a, b, prompt_tokens, paired=paired, confidence=confidence)
    if not prompts and longer is not None and abs(longer) <= _REQUESTED_WITHIN:
        longer = None
    # Different models split the same text into different tokens.
    if longer is not None and (prompts or model_families([run_a]) == model_families([run_b])):
        work.leave_out(_BY_PROMPT, "prompt_lengths", f"the prompts of B are {_longer(longer)} than those of A")
    longer = _relative_length(a, b, _response_tokens, paired=paired, confidence=confidence)
    if longer is not None:
        message = f"the responses of B are {_longer(longer)} than those of A"
        if not any(_value(run, "work.exact_output") for run in (run_a, run_b)):
            message += " (--exact-output requests responses of exactly --max-tokens)"
        work.leave_out(_BY_RESPONSE, "answer_lengths", message)
    currencies = [
        {level.cost.currency for level in side if level is not None and level.cost is not None} for side in (a, b)
    ]
    if all(currencies) and (currencies[0] != currencies[1] or len(currencies[0]) > 1):
        units = " and ".join(sorted(str(unit or "an unknown currency") for unit in currencies[0] | currencies[1]))
        work.leave_out((COST,), "currencies", f"the prices are in {units}")
    return work


def mixed(runs: Sequence[Run]) -> str:
    """How the work of the runs of one side differs; empty where they may be combined."""
    for other in runs[1:]:
        differing = [
            key
            for key in _differing(runs[0], other, *_CAVEATS)
            if key.startswith("work.") or setting_of(key).decides_answers == "request"
        ]
        if differing:
            return _named(differing, runs[0], other)
    return ""


def why_not_the_same(
    run: Run, other: Run, level: LevelResult, other_level: LevelResult, metric: str, *, any_server: bool
) -> str:
    """Why a figure of two runs does not belong to one series, at a level of one load; empty where it does."""
    if run.simulated != other.simulated:
        return "one is of the simulated server, the other is not"
    if run.simulated and _value(run, "target.profile") != _value(other, "target.profile"):
        return f"another simulated server: {_named(['target.profile'], run, other)}"
    target, other_target = (" + ".join(one.targets) or one.target for one in (level, other_level))
    if not any_server and not run.simulated and target != other_target:
        return f"another server: {other_target}"
    different = mixed([run, other])
    if different:
        return f"other work: {different}"
    reason = unequal([level], [other_level], run, other, paired=False, confidence=0.95).reason(metric)
    return reason[1].replace(" of B ", " of this run ").replace(" of A", " of the newest") if reason else ""


def caveats(a: Sequence[Run], b: Sequence[Run], *, paired: bool) -> list[Reason]:
    """What a reader must know about two sides that may be compared."""
    return [
        *_target_caveats(a, b),
        *_setting_caveats(a, b, paired=paired),
        *_run_caveats(a, b),
        *_response_caveats(a, b),
        *_energy_caveats(a, b),
        *_level_caveats(a, b),
    ]


def _target_caveats(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    same = {(run.name, run.started_at) for run in a} & {(run.name, run.started_at) for run in b}
    if same:
        message = f"{len(same)} run{'s are' if len(same) > 1 else ' is'} on both sides"
        yield Reason("same_run", message, "name different runs for the two sides")
        return
    targets = [server_models(side) for side in (a, b)]
    if targets[0] == targets[1] and not any(run.simulated for run in (*a, *b)):
        where = ", ".join(f"{model} at {target}" for target, model in sorted(targets[0]))
        advice = "this is right if the server was changed between the runs, or to check that no difference is shown"
        yield Reason("same_target", f"both sides are {where}", advice)
    for name, of_side in zip("AB", targets, strict=True):
        if len(of_side) > 1:
            where = ", ".join(f"{model} at {target}" for target, model in sorted(of_side))
            advice = "name runs of one server for each side"
            yield Reason("mixed_side", f"{name} is {len(of_side)} servers: {where}", advice)
    numbers = [{str(len(level.targets) or 1) for run in side for level in run.levels} for side in (a, b)]
    if numbers[0] != numbers[1]:
        message = f"the number of servers that shared the load differs: {_of_both(numbers)}"
        yield Reason("servers", message, "this is right if that is what you compare")


def _setting_caveats(a: Sequence[Run], b: Sequence[Run], *, paired: bool) -> Iterator[Reason]:
    differing = _differing(a[0], b[0], *_CAVEATS)
    if differing:
        message = f"A and B were measured with different settings: {_named(differing, a[0], b[0])}"
        yield Reason("settings", message, "measure both with the same settings")
    for name, side in (("A", a), ("B", b)):
        within = {key for run in side[1:] for key in _differing(side[0], run, *_CAVEATS)}
        differing = sorted(key for key in within if key.startswith("load."))
        if differing:
            message = f"the runs of {name} differ in their settings: {', '.join(differing)}"
            yield Reason("settings_within", message, "name runs with the same settings on each side")
    without = [
        {one.field.rpartition(".")[2] for run in side for one in run.adapted if one.to is None} for side in (a, b)
    ]
    differing = sorted((without[0] ^ without[1]) - EXACT_NAMES)
    if differing:
        sent = [f"{name} ({'b' if name in without[0] else 'a'} only)" for name in differing]
        message = f"a field was sent to one side alone, because the other refuses it: {', '.join(sent)}"
        yield Reason("adapted", message, "measure both without it: --extra-body '{\"FIELD\": null}'")
    (seed,) = (setting for setting in settings() if setting.comparable is Comparable.SEED)
    seeds = [[_value(run, seed.key) for run in side] for side in (a, b)]
    if seeds[0] != seeds[1] if paired else set(map(str, seeds[0])) != set(map(str, seeds[1])):
        message = "A and B used different seeds, so their prompts have different words"
        yield Reason("seeds", message, "use the same seeds")


def _run_caveats(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    for key, differ in _LOAD_GENERATOR.items():
        values = [{str(run.environment.get(key)) for run in side} for side in (a, b)]
        if values[0] != values[1]:
            yield Reason(key, f"{differ}: {_of_both(values)}", "measure both with the same load generator")
    if all("workers" in run.environment for run in (*a, *b)):  # other tools, and parts of a killed run, do not say it
        clusters, counts = [{*map(which_cluster, side)} for side in (a, b)], [_workers(side) for side in (a, b)]
        if clusters[0] != clusters[1] or any(
            counts[0][load] != counts[1][load] for load in {*counts[0]} & {*counts[1]}
        ):
            by = [load_from(side) or "one process" for side in (a, b)]
            message = f"different workers made the load: of A {by[0]}; of B {by[1]}"
            yield Reason("load_from", message, "measure both with the same --workers, on the same machines")
    versions = [{run.loadbench_version for run in side} for side in (a, b)]
    if versions[0] != versions[1]:
        message = f"measured with different versions of loadbench: {_of_both(versions)}"
        yield Reason("versions", message, "measure both with the same version")
    for name, side in (("A", a), ("B", b)):
        stopped = sum(not run.complete for run in side)
        if stopped:
            was = "was" if stopped == 1 else "were"
            message = f"{stopped} of {len(side)} runs of {name} {was} stopped before the end"
            yield Reason("incomplete", message, "leave such runs out, or measure again")
    if {run.simulated for run in a} != {run.simulated for run in b}:
        message = "one side is the simulated server, and the other is not"
        yield Reason("simulated", message, "compare two real servers, or two simulated ones")


def _workers(runs: Sequence[Run]) -> dict[str, set[int]]:
    """How many workers made each load, over all runs of a side."""
    found: dict[str, set[int]] = {}
    for run in runs:
        for load, counts in workers_by_load(run).items():
            found.setdefault(load, set()).update(counts)
    return found


def load_from(runs: Sequence[Run]) -> str:
    """Which workers made the load of a side; empty where one process did in each run."""
    makers = list(dict.fromkeys(map(load_makers, runs)))
    return some([one or "one process" for one in makers], most=3, separator=", and ") if any(makers) else ""


def _response_caveats(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    sides = [[level for run in side for level in run.levels] for side in (a, b)]
    failed, gave_up, at_limit = [], [], []
    for levels in sides:
        given_up = sum(level.outcomes.get("gave_up", 0) for level in levels)
        gave_up.append(given_up / max(1, sum(level.outcomes.get("ok", 0) for level in levels) + given_up))
        counts = [failed_of(level.outcomes, level.missed) for level in levels]
        failures, requests = map(sum, zip((0, 0), *counts, strict=True))
        failed.append(failures / requests if requests else 0.0)
        ended = sum(sum(level.finish_reasons.values()) for level in levels)
        cut = sum(level.finish_reasons.get("length", 0) for level in levels)
        at_limit.append(cut / ended if ended else None)
    if max(failed) > _FAILED_FROM:
        message = (
            f"{failed[0]:.1%} of A's requests failed and {failed[1]:.1%} of B's: latencies are those of the successful "
            "requests only"
        )
        advice = "fix the failures first: a server that drops requests is fast with the rest"
        yield Reason("failures", message, advice)
    if max(gave_up) > _FAILED_FROM:
        message = f"users gave up {gave_up[0]:.1%} of A's requests and {gave_up[1]:.1%} of B's"
        advice = "latencies are those of complete responses: the slow ones are missing, most on the slower side"
        yield Reason("gave_up", message, advice)
    cut_a, cut_b = at_limit
    if cut_a is not None and cut_b is not None and abs(cut_b - cut_a) > _ENDS_WITHIN:
        message = f"{cut_a:.0%} of A's responses ended at the length limit, and {cut_b:.0%} of B's"
        yield Reason("finish_reasons", message, "use --exact-output, or request a length that both sides reach")
    sources = [{source for level in side for source, count in level.tokens.source.items() if count} for side in sides]
    if sources[0] != sources[1]:
        message = f"tokens were counted in different ways: {_of_both(sources)}"
        yield Reason("token_source", message, "let both servers report usage")
    cached = [sum(level.tokens.cached_requests for level in side) for side in sides]
    if any(cached):
        message = f"parts of prompts came from the server's cache: in {cached[0]} requests of A, {cached[1]} of B"
        yield Reason("cached", message, "keep --unique on, unless a warm cache is what you compare")
    if model_families(a) != model_families(b):
        message = "the sides have different models: their tokens are different amounts of text and of work"
        yield Reason("two_models", message, "compare E2E of equivalent responses, and their quality")
    elif {level.model for level in sides[0]} != {level.model for level in sides[1]}:
        message = "the sides have different variants of one model, which may be quantized differently"
        yield Reason("two_variants", message, "compare their quality as well: loadbench score")


def _energy_caveats(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    """How the joules of each side were measured."""
    energies = [[level.energy for run in side for level in run.levels if level.energy is not None] for side in (a, b)]
    sources = [{energy.source for energy in side} for side in energies]
    if not all(sources):
        return
    if sources[0] != sources[1]:
        measured = []
        for meters in sources:
            parts = sorted({part for source in meters for part in source.split("+")})
            names = ("an estimate" if part == "estimate" else f"those of {_METERS.get(part, part)}" for part in parts)
            measured.append(" and ".join(names))
        advice = "measure both sides with the same meters, or at the wall"
        yield Reason("energy_sources", f"the joules of A are {measured[0]}, of B {measured[1]}", advice)
    estimates = []
    for name, side in zip("AB", energies, strict=True):
        watts = sorted({f"{energy.watts:g} W" for energy in side if energy.source == "estimate"})
        if watts:
            estimates.append(f"of {name} from {' and '.join(watts)}")
    if estimates:
        message = f"the joules are an estimate, {', '.join(estimates)}: the intervals do not include its error"
        yield Reason(
            "energy_estimate", message, "measure the power: these ratios are those of speed and of the watts given"
        )


def _level_caveats(a: Sequence[Run], b: Sequence[Run]) -> Iterator[Reason]:
    """The caveats of the levels, such as heat or a lost connection, each once; users who gave up have theirs.

    Whether a level was steady is part of the spread of several runs.
    """
    ours = {"gave_up"} if len(a) == len(b) == 1 else {"gave_up", "steadiness_unknown"}
    sides = {name: [level for run in side for level in run.levels] for name, side in (("A", a), ("B", b))}
    beyond: dict[str, list[str]] = {}
    for name, levels in sides.items():
        for label in dict.fromkeys(level.load.label for level in levels if level.verdict.status == "OVERLOADED"):
            beyond.setdefault(label, []).append(name)
    for label, names in beyond.items():
        message = (
            f"{label} was more than {' and '.join(names)} could serve (OVERLOADED): waiting times have no end there"
        )
        yield Reason("overloaded", message, "compare throughput there, and latencies at a lower load")
    by_code: dict[str, list[tuple[str, Reason]]] = {}
    for name, levels in sides.items():
        for reason in (caveat for level in levels for caveat in level.caveats if caveat.code not in ours):
            by_code.setdefault(reason.code, []).append((name, reason))
    for code, reasons in by_code.items():
        names, first = list(dict.fromkeys(name for name, _ in reasons)), reasons[0][1]
        count = sum(len(sides[name]) for name in names)
        others = f" (also at {len(reasons) - 1} more of {count} levels)" if len(reasons) > 1 else ""
        yield Reason(code, f"{' and '.join(names)}: {first.message}{others}", first.advice)


def _of_both(values: Sequence[set[str]]) -> str:
    return " and ".join(", ".join(sorted(side)) or "none" for side in values)


def _relative_length(
    a: Levels, b: Levels, mean: Callable[[LevelResult], float], *, paired: bool, confidence: float
) -> float | None:
    """By what share b's are longer than a's on average; `None` where they are alike."""
    sides = [np.array([math.nan if level is None else mean(level) for level in side]) for side in (a, b)]
    runs = BetweenRuns(np.log(sides[0]), np.log(sides[1]), paired)
    of_a, of_b = runs.usable()
    if not len(of_a) or not len(of_b):
        return None
    longer = math.expm1(float(of_b.mean() - of_a.mean()))
    effect = runs.effect()
    by_chance = effect is not None and not effect.assumed and effect.p_value() > 1 - confidence
    if abs(longer) <= LENGTHS_WITHIN or by_chance:
        return None
    return longer


def _response_tokens(level: LevelResult) -> float:
    answered = level.outcomes.get("ok", 0)
    return level.tokens.output / answered if answered and level.tokens.output else math.nan


def _longer(share: float) -> str:
    return f"{abs(share):.1%} {'longer' if share > 0 else 'shorter'} on average"


def _value(run: Run, key: str) -> object:
    section, name = key.split(".")
    value = run.scenario.get(section, {}).get(name)
    # The same file may be in another folder.
    return PurePath(value).name if setting_of(key).type is PATH and isinstance(value, str) else value


def _differing(one: Run, other: Run, *kinds: Comparable) -> list[str]:
    """The settings of these kinds that differ, of those that both runs have: older runs lack newer settings.

    A setting without effect has no value; an older run has its default there, which is no difference.
    """
    if one.scenario == other.scenario:
        return []
    differing = []
    for setting in settings():
        recorded = all(setting.name in run.scenario.get(setting.section, {}) for run in (one, other))
        values = [_value(run, setting.key) for run in (one, other)]
        origins = [run.origins.get(setting.key) for run in (one, other)]
        idle = sorted(map(str, origins)) == ["default", NOT_USED]
        if setting.comparable in kinds and recorded and values[0] != values[1] and not idle:
            differing.append(setting.key)
    return differing


def _named(keys: Sequence[str], one: Run, other: Run) -> str:
    """`work.max_tokens (16 and 256)`."""
    parts = []
    for key in keys:
        values = [_value(run, key) for run in (one, other)]
        text = " and ".join("not set" if value in (None, [], {}) else str(value) for value in values)
        parts.append(f"{key} ({text})")
    return ", ".join(parts)
