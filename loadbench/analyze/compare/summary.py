"""What a comparison says to somebody who has to choose a side: from which load on the other one is worth it, by what
factor, at what price; and what is not known.

It speaks of output tokens per second, in an open loop of E2E, and where these cannot be compared, of the first of a few
figures that can, as the conclusion does (`conclusion`). Everything is taken from the rows of the comparison, so that
it says what is shown there: a side is faster at a load only where the interval excludes 1.
"""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from loadbench.analyze.compare.comparison_rows import CLOSED_HEADLINES, OPEN_HEADLINES, PARTS
from loadbench.analyze.compare.undecided import lacks_data, not_counted, why_undecided
from loadbench.core.text import some
from loadbench.plan.gate import COST, ENERGY
from loadbench.plan.objective import RATES
from loadbench.results.compare import NOT_COMPARED, Summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from typing import Literal

    from loadbench.results.compare import ComparedFigure, Comparison
    from loadbench.results.run import Run

    Side = Literal["a", "b"]
    # The rows of a level by metric.
    Rows = Mapping[str, ComparedFigure]

_OTHER: dict[Side, Side] = {"a": "b", "b": "a"}
PRICES = {ENERGY: "energy", COST: "cost"}
# From this factor on a figure that is worse matters to somebody who chooses a side for what it is better at.
_RELEVANT = 1.25
# What a caveat of this code leaves open.
_OPEN_QUESTIONS = {
    "assumed_drift": "how much the machine drifts (a drift was assumed)",
    "not_in_turns": "what else changed between the runs of A and of B",
    "same_device": "whether two devices were at work",
    "devices_alike": "whether two devices were at work",
    "two_models": "how much text a token is on either side, and which responses are better",
    "two_variants": "which responses are better",
    "energy_sources": "the energy of parts that only one side has a meter for",
    "overloaded": "how much larger the ratio is where a side was beyond its limit",
    "failures": "how fast the requests that failed would have been",
}


def summarize_comparison(comparison: Comparison, a: Sequence[Run], b: Sequence[Run]) -> Summary:
    """The summary of a comparison that has everything else; `a` and `b` are its runs."""
    levels: dict[str, Rows] = {}
    for row in comparison.comparisons:
        levels.setdefault(row.level, {})
        levels[row.level] = {**levels[row.level], row.metric: row}
    labels = sorted(levels, key=_amount)
    names = CLOSED_HEADLINES if all(label.startswith("users=") for label in labels) else OPEN_HEADLINES
    metric = next((name for name in names if all(name in levels[label] for label in labels)), None)
    unknown = [*_unknown_prices(levels, comparison, a, b), *_unknown_levels(comparison)]
    unknown += dict.fromkeys(
        _OPEN_QUESTIONS[caveat.code] for caveat in comparison.caveats if caveat.code in _OPEN_QUESTIONS
    )
    if not labels or metric is None:
        said = comparison.conclusion
        if not labels:
            cause, remedy = not_counted({left.level for left in comparison.left_out}, (*a, *b))
            said = f"undecided: {said}" + (f" ({cause}): {remedy}" if cause else "")
        return Summary(sentence=f"{said[:1].upper()}{said[1:]}.", unknown=unknown)

    # Neighbouring loads with the same winner belong together.
    winners = {label: _winner(levels[label][metric]) for label in labels}
    lacking = [label for label in labels if lacks_data(levels[label][metric])]
    alike = [label for label in labels if winners[label] is None and label not in lacking]
    undecided = ""
    if lacking:
        rows = [levels[label][metric] for label in lacking]
        why, remedy = why_undecided(rows, a, b, comparison.left_out, paired=comparison.paired)
        ratios = [row.ratio for row in rows if row.ratio is not None]
        measured = f"B measured {_times(min(ratios), max(ratios))} A's {_short(names[metric])}, but " if ratios else ""
        undecided = f"undecided at {loads_text(lacking)}: {measured}{why}: {remedy}"
    groups = [(side, list(same)) for side, same in groupby(labels, key=lambda label: winners[label])]
    decided = [(side, same) for side, same in groups if side is not None]
    sides = [side for side, _ in decided]
    worth_it = None
    if not decided:
        parts = [f"{undecided[:1].upper()}{undecided[1:]}"] if undecided else []
        if alike:
            said = _no_difference(levels, alike, metric, names[metric])
            parts.append(f"{said[:1].lower()}{said[1:]}" if parts else said)
        faster, from_level = None, None
    elif sum(one != other for one, other in pairwise(sides)) > 1:
        texts = [
            f"{side.upper()} is faster at {loads_text([label for label in labels if winners[label] == side])}"
            for side in dict.fromkeys(sides)
        ]
        parts, faster, from_level = [f"Neither side is faster throughout: {', '.join(texts)}"], None, None
        parts += [undecided] if undecided else []
    else:
        side = sides[-1]
        won = [label for label in labels if winners[label] == side]
        top = levels[won[-1]]
        worth_it, worth_at = _is_worth_it(levels, won, metric, side)
        gain = _gain(top[metric], side, names[metric]) + (f" at {_load(won[-1])}" if len(won) > 1 else "")
        parts = [f"{side.upper()} is {'worth it' if worth_it else 'faster'} {_where(won, labels)}: {gain}"]
        parts[0] += _price(top, side, comparison)
        parts += [f"the speed is worth its price at {loads_text(worth_at)} alone"] if worth_at and not worth_it else []
        below = [label for label in labels if winners[label] == _OTHER[side]]
        if below:
            loser = _OTHER[side]
            sooner = all(_winner(levels[label].get("e2e_p50")) == loser for label in below)
            lower = f"{loser.upper()} {'answers sooner' if sooner else 'is faster'} {_where(below, labels)}"
            where = f" at {_load(below[0])}" if len(below) > 1 else ""
            parts.append(f"{lower} ({_gain(levels[below[0]][metric], loser, names[metric])}{where})")
        if alike:
            parts.append(f"no difference is shown at {loads_text(alike)}")
        parts += [undecided] if undecided else []
        crossing = comparison.crossover
        if crossing is not None:
            parts.append(
                f"the two are equally fast at about {crossing.users:.3g} users "
                f"({crossing.low:.3g} to {crossing.high:.3g})"
            )
        ends = labels[-1] in won
        faster, from_level = (side, next(label for label in _tail(won, labels))) if ends else (None, None)
    for price, crossing in comparison.price_crossovers.items():
        less, more = _OTHER[crossing.beyond].upper(), crossing.beyond.upper()
        takes = "takes less energy per token" if price == ENERGY else "costs less per token"
        takes += " (by the watts given)" * _is_estimated(comparison, price)
        between = f"{crossing.users:.3g} users ({crossing.low:.3g} to {crossing.high:.3g})"
        parts.append(f"{less} {takes} up to about {between}, {more} beyond")
    parts += [*_other_differences(levels, labels, metric, {*winners.values()}), *_open_losses(levels, labels, metric)]
    if unknown:
        parts.append(f"not known: {some(unknown, most=4)}")
    return Summary(
        sentence=f"{'; '.join(parts)}.", faster=faster, from_level=from_level, worth_it=worth_it, unknown=unknown
    )


def _other_differences(
    levels: Mapping[str, Rows], labels: Sequence[str], metric: str, winners: AbstractSet[Side | None]
) -> list[str]:
    """`B's TTFT p50 is 0.129 to 0.607 times A's at 8 users`: in the parts of a response, what a side is better at that
    is not shown to be faster as a whole."""
    texts = []
    for part, name in PARTS.items():
        for side in ("a", "b"):
            won = [levels[label][part] for label in labels if _winner(levels[label].get(part)) == side]
            rows = [row for row in won if row.ends is not None]
            if part == metric or not rows or side in winners:
                continue
            ends = [end for row in rows for end in row.ends or ()]
            where = loads_text([row.level for row in rows])
            texts.append(f"B's {name} is {_times(min(ends), max(ends))} A's at {where}")
    return texts


def _open_losses(levels: Mapping[str, Rows], labels: Sequence[str], metric: str) -> list[str]:
    """`it is not ruled out that B's TPOT p50 is longer at 8 users (B measured 1.92 times A's; the interval is 0.955 to
    3.85)`: of the parts of a response those that a side may pay with, at the loads where it is better at something;
    where no side is better at anything, at all of them."""
    shown = [name for name in dict.fromkeys((metric, *PARTS)) if any(name in rows for rows in levels.values())]
    better = {label: {_winner(levels[label].get(name)) for name in shown} - {None} for label in labels}
    texts = []
    for part, name in PARTS.items():
        for side in ("a", "b"):
            rows = []
            for label in labels:
                row = levels[label].get(part) if side in better[label] or not any(better.values()) else None
                if part != metric and row is not None and row.ratio is not None and row.ends is not None:
                    loss = row.ratio if side == "b" else 1 / row.ratio
                    rows += [row] if row.decision == "~" and not row.note and loss >= _RELEVANT else []
            if rows:
                ratios, ends = [row.ratio or 1.0 for row in rows], [end for row in rows for end in row.ends or ()]
                between = _times(min(ends), max(ends)).removesuffix(" times")
                measured = f"B measured {_times(min(ratios), max(ratios))} A's; the interval is {between}"
                where = loads_text([row.level for row in rows])
                texts.append(f"it is not ruled out that {side.upper()}'s {name} is longer at {where} ({measured})")
    return texts


def _winner(row: ComparedFigure | None) -> Side | None:
    return None if row is None or row.decision == "~" else "b" if row.decision == "faster" else "a"


def _tail(won: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The loads up to the highest at which the side won without a gap."""
    tail: list[str] = []
    for label in reversed(labels):
        if label not in won:
            break
        tail.insert(0, label)
    return tail


def _where(won: Sequence[str], labels: Sequence[str]) -> str:
    """`at every load that is compared (1 to 4 users)`, `from 4 to 8 users (the highest load that is compared)`, `from 1
    to 2 users`, `at 1 and 4 users`. Nothing is said of loads beyond those that were measured."""
    if len(labels) == 1:
        return f"at {_load(labels[0])}"
    first, last = _load(won[0]).partition(" ")[0], _load(won[-1])
    if len(won) == len(labels):
        return f"at every load that is compared ({first} to {last})"
    at = labels.index(won[0])
    together = list(labels[at : at + len(won)]) == list(won)
    highest = " (the highest load that is compared)" * (won[-1] == labels[-1] and together)
    return (f"from {first} to {last}" if len(won) > 1 and together else f"at {loads_text(won)}") + highest


def _gain(row: ComparedFigure, side: Side, name: str) -> str:
    """`12.3 to 16.9 times the tokens/s`, or for a time `0.31 to 0.36 times the E2E p50`: this side against the other.

    Without an interval nothing is decided, so there is one.
    """
    low, high = _seen_from(row, side)
    return f"{_times(low, high)} the {_short(name)}"


def _seen_from(row: ComparedFigure, side: Side) -> tuple[float, float]:
    """The interval of this side's figure over the other's."""
    low, high = row.ends or (math.nan, math.nan)
    return (low, high) if side == "b" else (1 / high, 1 / low if low else math.inf)


def _price(top: Rows, side: Side, comparison: Comparison) -> str:
    """`, for 1.80 times the energy and 0.500 times the cost per token`: what a token takes at the same load."""
    known: list[str] = []
    same: list[str] = []
    unsure: list[str] = []
    for metric, name in PRICES.items():
        row = top.get(metric)
        if row is None or row.ratio is None:
            continue
        if row.decision == "~":
            (unsure if lacks_data(row) else same).append(name)
            continue
        ratio = row.ratio if side == "b" else 1 / row.ratio
        about = " (by the watts given)" if _is_estimated(comparison, metric) else ""
        known.append(f"{_number(ratio)} times the {name}{about}")
    text = f", for {' and '.join(known)} per token" if known else ""
    text += f", with no difference shown in {' and '.join(same)} per token" if same else ""
    return text + (f", with {' and '.join(unsure)} per token undecided" if unsure else "")


def _is_estimated(comparison: Comparison, metric: str) -> bool:
    return metric == ENERGY and any(caveat.code == "energy_estimate" for caveat in comparison.caveats)


def _is_worth_it(
    levels: Mapping[str, Rows], won: Sequence[str], metric: str, side: Side
) -> tuple[bool | None, list[str]]:
    """Whether the speed-up is surely larger than the factor by which energy and cost per token are higher, at every
    load that was won; `None` if neither is known at the highest of them. And the loads at which it is."""
    worth = {}
    for label in won:
        low, high = _seen_from(levels[label][metric], side)
        gain = low if metric in RATES else 1 / high
        prices = [row for row in map(levels[label].get, PRICES) if row is not None and row.interval is not None]
        if prices:
            worth[label] = all(gain > _seen_from(row, side)[1] for row in prices)
    return (all(worth.values()) if won[-1] in worth else None), [label for label, is_worth in worth.items() if is_worth]


def _no_difference(levels: Mapping[str, Rows], labels: Sequence[str], metric: str, name: str) -> str:
    """That no difference is shown, how large one may be, and which side takes less."""
    shown = f"No difference in {_short(name)} is shown at {loads_text(labels)}"
    row = levels[labels[-1]][metric]
    if row.interval is not None:
        shown += f": B may have {_times(*row.interval)} A's" + (f" at {_load(labels[-1])}" if len(labels) > 1 else "")
    for price, what in PRICES.items():
        of_level = levels[labels[-1]].get(price)
        if of_level is not None and of_level.ratio is not None and of_level.decision != "~":
            shown += f"; B takes {_number(of_level.ratio)} times the {what} per token"
    return shown


def _unknown_prices(
    levels: Mapping[str, Rows], comparison: Comparison, a: Sequence[Run], b: Sequence[Run]
) -> list[str]:
    """Which energy and cost per token are not compared, and why as far as it shows; what one side has is said."""
    unknown = []
    for metric, name in PRICES.items():
        if levels and all(metric in rows for rows in levels.values()):
            continue
        known = [
            any(
                (level.energy is not None and level.energy.joules_per_output_token is not None)
                if metric == ENERGY
                else (level.cost is not None and level.cost.per_million_output_tokens is not None)
                for run in side
                for level in run.levels
            )
            for side in (a, b)
        ]
        if all(known):
            where = [label for label, rows in levels.items() if metric not in rows]
            unknown.append(f"{name} per token" + (f" at {loads_text(where)}" if len(where) < len(levels) else ""))
        elif any(known):
            side = comparison.b if known[1] else comparison.a
            values = sorted(figure.value for figure in side.alone if figure.metric == metric)
            ends = dict.fromkeys(f"{end:.3g}" for end in (*values[:1], *values[-1:]))
            unit = "J" if metric == ENERGY else f"{comparison.currency or ''} per 1M".strip()
            has = f": {' to '.join(ends)} {unit}" if ends else ""
            unknown.append(f"{name} per token (only {'B' if known[1] else 'A'} has it{has})")
        else:
            unknown.append(f"{name} per token")
    if unknown == ["energy per token", "cost per token"]:
        return ["energy and cost per token"]
    return unknown


def _unknown_levels(comparison: Comparison) -> list[str]:
    """The loads that are not compared as a whole."""
    by_reason: dict[str, list[str]] = {}
    for left in comparison.left_out:
        if not left.metric and not left.run:
            by_reason.setdefault(NOT_COMPARED[left.code], []).append(left.level)
    unknown = []
    for reason, labels in by_reason.items():
        where = loads_text(sorted(dict.fromkeys(labels), key=_amount))
        alone = [
            f"{name} alone: {_rate(figure.value)} tokens/s" + (f" at {_load(figure.level)}" if len(labels) > 1 else "")
            for name, side in (("A", comparison.a), ("B", comparison.b))
            for figure in side.alone
            if figure.level in labels and figure.metric == "output_tokens_per_s"
        ]
        unknown.append(f"what happens at {where} ({'; '.join((reason, *alone[-1:]))})")
    return unknown


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def _amount(label: str) -> float:
    return float(label.partition("=")[2])


def _load(label: str) -> str:
    """A load in words: `1 user`, `16 users`, `0.5 requests/s`."""
    kind, _, amount = label.partition("=")
    if kind == "rate":
        return f"{amount} requests/s"
    return f"{amount} user" if amount == "1" else f"{amount} users"


def loads_text(labels: Sequence[str]) -> str:
    """`1, 2 and 4 users`."""
    amounts = [label.partition("=")[2] for label in labels]
    if len(amounts) == 1:
        return _load(labels[0])
    unit = "requests/s" if labels[0].startswith("rate=") else "users"
    return f"{', '.join(amounts[:-1])} and {amounts[-1]} {unit}"


def _short(name: str) -> str:
    return "tokens/s" if name == "output tokens/s" else name


def _times(low: float, high: float) -> str:
    one, other = _number(low), _number(high)
    if math.isinf(high) or not low:
        return f"at least {one} times" if low else f"at most {other} times"
    return f"{one} times" if one == other else f"{one} to {other} times"


def _number(ratio: float) -> str:
    """Three digits, and near 1 one more."""
    return f"{ratio:.3f}" if 0.9 <= ratio < 1.1 else f"{ratio:.3g}"
