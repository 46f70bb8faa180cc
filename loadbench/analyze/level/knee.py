"""The knee: the load at which throughput stops growing, as a range.

It is the lowest load whose output tokens/s no higher load exceeds by more than 5 %. The levels of one run know their
throughput with an error each, so the knee is given as a range: it lies *above* the highest load that some higher load
clearly exceeds by more than 5 %, and *at or below* the lowest load that clearly no higher one exceeds by that much. An
end that cannot be shown stays open. Ratios are compared on the logarithmic scale, where they are about normal:

- the lower end: a difference of more than 5 % is shown for one of m pairs of loads, at 2.5 % / m each (Bonferroni);
- the upper end: for every higher load a difference of more than 5 % is excluded, at 5 % each. All must be excluded, so
  this is an intersection-union test, and 5 % holds for all of them together (Berger, *Multiparameter hypothesis testing
  and acceptance sampling*, Technometrics 1982).

Only what shows the server's throughput counts. VALID levels do, and OVERLOADED ones: the server was beyond its limit,
and what it produced there is what it can. So do levels that are INCONCLUSIVE for a gate, but not those with too few
responses. Levels of one load are combined.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, NamedTuple

from loadbench.core.text import some
from loadbench.core.units import NS_PER_S, format_duration, parse_duration
from loadbench.results.run import ClosedLoad, OpenLoad, counts_as_throughput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.results.run import LevelResult, Reason

# A smaller gain is not worth more load, and is about the difference between two runs on one machine.
WORTHWHILE = 0.05
_ERROR = 0.05
# One level measured twice on one machine differs by about this much, beyond what varies inside each.
_LEAST_SD = 0.01
# Of a level without an interval nothing is known; it is taken as one of 10 % either way at the least.
_UNKNOWN_SD = 0.1
_BUSY = "busy_machine"
# What an advice asks of a measurement that was too short.
_LONGER = re.compile(r"--(?:duration (?=\d)((?:\d{1,5}m)?(?:\d{1,2}s)?)|requests (\d{1,9})) or (?:longer|more)")
# And of one whose load was not steady yet.
_WARMER = re.compile(r"use --warm-up (?=\d)((?:\d{1,5}m)?(?:\d{1,2}s)?)(?!\w)")


class Knee(NamedTuple):
    """Throughput stops growing above `low` and at `high` at the latest; `None` where that end cannot be shown.

    `top` is the highest load that counts; `grows` says that throughput clearly rises by more than 5 % up to it, so that
    `low` is the load before it. `beyond` are the levels with a higher load than `high`, or than `top` where the knee is
    not known, that do not count.
    """

    low: ClosedLoad | OpenLoad | None
    high: ClosedLoad | OpenLoad | None
    top: ClosedLoad | OpenLoad
    grows: bool
    beyond: Sequence[LevelResult] = ()

    @property
    def unit(self) -> str:
        """What the loads are counted in."""
        return "users" if isinstance(self.top, ClosedLoad) else "requests/s"

    @property
    def at_most(self) -> str:
        """`at most 8 users`; empty where `high` is not known."""
        if self.high is None:
            return ""
        return f"at most {self.high.amount:g} {'user' if self.high.label == 'users=1' else self.unit}"

    @property
    def where(self) -> str:
        """`above 4 and at most 8 users`: nothing between the two was measured. Empty where `high` is not known."""
        above = "" if self.low is None or self.high is None else f"above {self.low.amount:g} and "
        return f"{above}{self.at_most}"


class Rate(NamedTuple):
    """The throughput at one load: the logarithm of its output tokens/s, and that one's standard deviation."""

    load: ClosedLoad | OpenLoad
    log: float
    sd: float


def knee(levels: Sequence[LevelResult]) -> Knee | None:
    """Where throughput stops growing; `None` with fewer than two loads that show the server's throughput."""
    rates = load_rates(levels)
    if len(rates) < 2:
        return None
    margin, pairs = math.log1p(WORTHWHILE), len(rates) * (len(rates) - 1) // 2
    sure = NormalDist().inv_cdf(1 - _ERROR / 2 / pairs)
    excluded = NormalDist().inv_cdf(1 - _ERROR)
    low = high = None
    for index, rate in enumerate(rates[:-1]):
        gains = [(higher.log - rate.log, math.hypot(higher.sd, rate.sd)) for higher in rates[index + 1 :]]
        if any(gain - sure * sd > margin for gain, sd in gains):
            low, high = rate.load, None
        elif high is None and all(gain + excluded * sd <= margin for gain, sd in gains):
            high = rate.load
    top, grows = rates[-1].load, low == rates[-2].load
    shown = (high or top).amount
    beyond = [level for level in levels if _kind(level) == _kind_of(top) and level.load.amount > shown]
    return Knee(low, high, top, grows, [level for level in beyond if not shows_throughput(level)])


def shows_throughput(level: LevelResult) -> bool:
    """Whether a level's output tokens/s count as those of the server."""
    return counts_as_throughput(
        level.verdict.status,
        [reason.code for reason in level.verdict.reasons],
        ok=level.outcomes.get("ok", 0),
        output_tokens_per_s=level.throughput.output_tokens_per_s,
        interrupted=level.interrupted,
    )


def reasons_against(level: LevelResult) -> list[Reason]:
    """The reasons of a level's verdict; other programs on the machine are one also where they are only a caveat."""
    return [*level.verdict.reasons, *busy_machine(level)]


def busy_machine(level: LevelResult) -> list[Reason]:
    """The caveat that other programs used the machine, where it is only that."""
    return [one for one in level.caveats if one.code == _BUSY]


def commonest_reason(found: Iterable[Sequence[Reason]]) -> Reason | None:
    """Of the reasons of each of several levels, the first of the most frequent code, whatever its figures; of equally
    frequent ones, other programs, which cause others. `None` where there is none."""
    found = list(found)
    codes = Counter(code for reasons in found for code in dict.fromkeys(one.code for one in reasons))
    code = max(codes, key=lambda code: (codes[code], code == _BUSY), default="")
    return next((one for reasons in found for one in reasons if one.code == code), None)


def unsound_sentence(levels: Sequence[LevelResult], *, of: str = "this run") -> str:
    """What comes before every figure where no level counts, and what to do; empty where one does, or there is none.

    A figure of a level that does not count decides nothing: headlines, tiles and lists of runs have none of them."""
    if not levels or any(map(shows_throughput, levels)):
        return ""
    return f"no level of {of} is sound: {named_with_verdict(levels)}; {measure_again(levels)[0]}"


def knee_sentence(levels: Sequence[LevelResult], *, whose: str = "") -> str:
    """What the levels of one model show of the knee, or why they do not show it; empty where there is no such question.

    With think times, the users and their pauses set the throughput: that it grows with the users says nothing there.
    """
    kinds = Counter(map(_kind, levels))
    at, think = knee(levels), bool(kinds) and kinds.most_common(1)[0][0][1]
    if at is None:
        same = [level for level in levels if _kind(level) == kinds.most_common(1)[0][0]]
        out = [level for level in same if not shows_throughput(level)]
        if think or not out or len({level.load.amount for level in same}) < 2:
            return ""
        verb = "does" if len(out) == 1 else "do"
        text = f"{len(out)} of {len(same)} levels {verb} not count ({named_with_verdict(out)})"
        return f"the knee{whose}, where throughput stops growing, cannot be determined: {text}; {measure_again(out)[0]}"
    unknown = f"{named_with_verdict(at.beyond)}; {measure_again(at.beyond)[0]}" if at.beyond else ""
    if at.high is not None:
        # Loads of another kind have another curve; the few seconds of a probe may even show more.
        pause = f"with think time {think}" if (think := getattr(at.top, "think", None)) else "without think time"
        which = f" {pause}" * (len(kinds) > 1 and isinstance(at.top, ClosedLoad))
        which = f"no higher load{which}{' that counts' * bool(unknown)} is more than {100 * WORTHWHILE:.3g} % faster"
        text = f"the knee{whose}, where throughput stops growing, is {at.where}: even with the noise counted in, "
        text += f"{which} than {at.high.label}"
        return f"{text}; {unknown}" if unknown else text
    if getattr(at.top, "think", None):
        return ""
    if at.grows and unknown:
        return f"whether throughput{whose} still grows after {at.top.label} is unknown: {unknown}"
    if at.grows and at.low is not None:
        clearly = f"even with the noise counted in, it is more than {100 * WORTHWHILE:.3g} % faster than {at.low.label}"
        return f"throughput{whose} still grows at {at.top.label}: {clearly}; measure higher loads too"
    if at.low is not None:
        why = f"unknown: {unknown}" if unknown else "not certain: measure longer"
        return f"throughput{whose} grows beyond {at.low.label}; where it stops is {why}"
    return f"whether throughput{whose} grows with the load is " + (
        f"unknown: {unknown}" if unknown else "not certain: measure longer"
    )


def knee_tile(levels: Sequence[LevelResult]) -> tuple[str, str] | None:
    """What `knee_sentence` says, in a few words: where the knee is, and a note on it. `None` where it says nothing."""
    at = knee(levels)
    # With think times, that throughput grows with the users says nothing of a knee.
    if at is None or (at.high is None and getattr(at.top, "think", None)):
        return None
    if at.high is not None:
        above = "" if at.low is None else f"and above {at.low.amount:g}: "
        return at.at_most, f"{above}throughput stops growing there"
    if at.beyond:
        return "unknown", f"{some([level.load.label for level in at.beyond], most=3)}: no valid level"
    if at.grows:
        return "not reached", f"throughput still grows at {at.top.label}"
    grows = "throughput may still grow" if at.low is None else f"throughput grows beyond {at.low.label}"
    return "not certain", f"{grows}: measure longer"


def named_with_verdict(levels: Sequence[LevelResult]) -> str:
    """`users=8, 16 are INVALID, users=32 is INCONCLUSIVE`."""
    by_why: dict[str, list[str]] = {}
    for level in levels:
        status = level.verdict.status
        why: str = (
            status if status not in {"VALID", "OVERLOADED"} else "not complete" if level.interrupted else "too short"
        )
        by_why.setdefault(why, []).append(level.load.label)
    texts = [f"{named_loads(of)} {'is' if len({*of}) == 1 else 'are'} {why}" for why, of in by_why.items()]
    return ", ".join(texts)


def named_loads(labels: Sequence[str]) -> str:
    """Labels of loads of one kind, each once: `users=4, 8`."""
    amounts = list(dict.fromkeys(label.partition("=")[2] for label in labels))
    return f"{labels[0].partition('=')[0]}={some(amounts, most=8)}"


def measure_again(levels: Sequence[LevelResult]) -> tuple[str, list[str]]:
    """What would make these levels count: a longer measurement or warm-up, an idle machine, or what the reasons say;
    and its flags."""
    longest, how, warmest, explained = 0, "", ("", 0), True
    ended = [any(one.code == "server_ended" for one in level.verdict.reasons) for level in levels]
    # An idle machine keeps no server running.
    busy = [
        not has_ended and any(one.code == _BUSY for one in reasons_against(level))
        for level, has_ended in zip(levels, ended, strict=True)
    ]
    for level, is_busy in zip(levels, busy, strict=True):
        matches = [match for reason in level.verdict.reasons if (match := _LONGER.search(reason.advice))]
        warm_ups = [match[1] for reason in level.verdict.reasons if (match := _WARMER.search(reason.advice))]
        warmest = max([warmest, *((text, parse_duration(text)) for text in warm_ups)], key=lambda one: one[1])
        explained = explained and (is_busy or bool(matches or warm_ups) or not level.verdict.reasons)
        matches += [match for one in level.caveats if (match := _LONGER.search(one.advice))]
        for match in matches:
            amount = parse_duration(match[1]) if match[1] else int(match[2])
            longest, how = max((longest, how), (amount, match[0]))
    if warmest[1] and not how and any(level.window_s * NS_PER_S <= warmest[1] for level in levels):
        how = f"--duration {format_duration(2 * warmest[1])} or longer"
    flags = [*[how] * bool(how), *[f"--warm-up {warmest[0]}"] * bool(warmest[0])]
    remedies = ", ".join([*[f"with {' and '.join(flags)}"] * bool(flags), *["on an idle machine"] * any(busy)])
    reasons = "" if explained and remedies else "see the reasons, and "
    if any(ended):
        reasons = "see in its log why the server ended, and "
    return f"{reasons}measure again {remedies}".rstrip(), [flag.partition(" or ")[0] for flag in flags]


def _kind(level: LevelResult) -> tuple[type, str | None]:
    return _kind_of(level.load)


def _kind_of(load: ClosedLoad | OpenLoad) -> tuple[type, str | None]:
    """Loads of several kinds are on different curves: in a capacity search some have think times."""
    return type(load), getattr(load, "think", None)


def load_rates(levels: Sequence[LevelResult]) -> list[Rate]:
    """The throughput at each load, by load; of loads of several kinds, those of the commonest."""
    sound = [level for level in levels if shows_throughput(level)]
    kinds = Counter(map(_kind, sound))
    if not kinds:
        return []
    ((kind, _),) = kinds.most_common(1)
    by_load: dict[float, list[LevelResult]] = {}
    for level in sound:
        if _kind(level) == kind:
            by_load.setdefault(level.load.amount, []).append(level)
    rates = []
    for _, same in sorted(by_load.items()):
        logs, sds = [], []
        for level in same:
            value, interval = level.throughput.output_tokens_per_s, level.throughput.interval.get("output_tokens_per_s")
            half = None if interval is None or None in interval else (interval[1] - interval[0]) / 2
            sd = _UNKNOWN_SD if half is None else half / value / NormalDist().inv_cdf(0.975)
            logs.append(math.log(value))
            sds.append(math.hypot(sd, _LEAST_SD))
        sd = math.sqrt(sum(one * one for one in sds)) / len(sds)
        spread = stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
        rates.append(Rate(same[0].load, fmean(logs), max(sd, spread)))
    return rates
