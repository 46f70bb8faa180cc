"""What is in the way of more people: read from how the figures move as more requests are in flight.

Of n requests in flight a server ends X a second, each after E = n/X (Little). So once X stays, each further request
adds 1/X to E, and where that time goes tells what it waits for:

*Before the first token, while those at work go on as before.* So many run at once, the others wait: TPOT rises as
`a + b·n` up to n = c and is flat beyond, X is flat beyond c too, and so is the number of those that have their first
token, which is n less the share of E2E that TTFT is. The likeliest c, where each of the three curves has an error of
its own, is the number that run at once, with those c as its interval that are hardly less likely. It may be slots, or
the memory that they share: from outside both look the same, and only what the server says of itself tells them apart.
*Between tokens.* All run, and slow each other down: X = n/(a + bn) comes near 1/b. Of the server's time the share spent
on prompts is X·D by the utilisation law, where D is the time to a first token of a request that is alone; the rest
is decoding. One of them must take most of it, or there is no answer.

Whether more slots would help is asked of the same law: if twice as many would bring hardly more, what slows the running
ones is the limit, not their number. Preemptions, or a cliff in throughput, are memory. Where the client gave out
before the server showed a limit, the client is the limit. Everything else is "unknown", with what was seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.capacity.measured_levels import measured_levels
from loadbench.analyze.capacity.scaling import SLOTS, find_cliff
from loadbench.analyze.level.verdict import PREEMPTIONS
from loadbench.results.prediction import Estimate, Evidence, Limit
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.analyze.capacity.scaling import Floats
    from loadbench.results.prediction import LimitKind
    from loadbench.results.run import LevelResult

# Fewer say nothing of a bend.
_FEWEST_LEVELS = 3
# Reasons of a verdict by which the client, not the server, was at its end.
CLIENT_CODES = frozenset({"late_start", "loop_lag", "late_reads", "missed_arrivals", "rate_not_reached", "lost_worker"})
# Twice the load brings less than this: it is not worth it, and hardly more than two runs differ by.
_WORTHWHILE = 0.15
# Most of the time, and so little of it that it is not what matters; between them nobody can tell.
_MOST = 0.6
_LITTLE = 0.4
# Nearly all that is added is waiting, or nearly nothing.
_NEARLY_ALL = 0.8
# A bend must make the figures so much likelier than none, as twice a logarithm; its interval is where it makes them no
# less likely than by this (a chi-squared of one degree of freedom, 95 %).
_SURELY = 12.0
_HARDLY = 3.84
_NOISE = 0.01
# Requests per answer that had to give their memory back.
_OFTEN = 0.01
_ALONE = 1.5
_ADVICE: dict[LimitKind, str] = {
    "prefill": "shorter prompts, or a prefix cache",
    "decode": "shorter answers, fewer at once, or a faster device",
}
_BEFORE_FIRST = ("ttft", "ttfo", "ttfb")
_BETWEEN = ("tpot", "itl", "event_gap")


@dataclass(frozen=True, slots=True)
class _Point:
    """A level's means; durations in seconds, `None` where there is none."""

    n: float
    per_s: float
    ttft: float
    tpot: float | None
    e2e: float
    tokens: float
    preempted: float
    level: LevelResult


@dataclass(frozen=True, slots=True)
class _Bend:
    """Where X and TPOT stop rising, and what the server would do with more at once: n/(a + bn)."""

    at: Estimate
    a: float
    b: float

    @property
    def gain(self) -> float:
        """Of twice as many at once."""
        return 2 * (self.a + self.b * self.at.value) / (self.a + 2 * self.b * self.at.value) - 1


def find_bottleneck(
    levels: Sequence[LevelResult], *, server: Mapping[str, float] | None = None, rule: str = ""
) -> Limit:
    """What limits these levels of one model; `rule` is the objective that more people would break, if one does.

    Without `rule` it is that which the emptiest level failed. `server` is what is known of the server itself: `slots`
    (how many it can run at once), `kv_tokens` (the tokens that those share). Closed levels without think time show it
    best; others count by their mean number in flight.
    """
    points = _points(levels)
    found = _of_server(points, levels, server or {}, rule or _broken(points))
    client = _client_gave_out(points, levels)
    return client if found.kind == "unknown" and client is not None else found


def _of_server(
    points: Sequence[_Point], levels: Sequence[LevelResult], server: Mapping[str, float], rule: str
) -> Limit:
    memory = _memory(points, levels)
    if memory is not None:
        return memory
    if len(points) < _FEWEST_LEVELS or points[-1].n < _ALONE:
        what = f"{len(points)} valid levels show no bend: {_FEWEST_LEVELS} at different loads are the least"
        return Limit(kind="unknown", sentence=what, advice="measure with --users 1,2,4,8 and so on")
    bend = _find_bend(points)
    if bend is not None:
        return _of_bend(points, bend, server, rule)
    if _still_grows(points):
        return _of_rule(points, rule)
    return _one_at_a_time(points) or _of_work(points, [])


def _points(levels: Sequence[LevelResult]) -> list[_Point]:
    """The usable levels by the number in flight, each number once."""
    return _once([point for level in levels if (point := _point(level)) is not None])


def _point(level: LevelResult) -> _Point | None:
    ttft, tpot, e2e = (level.metrics.get(name) for name in ("ttft_s", "tpot_s", "e2e_s"))
    codes = {reason.code for reason in level.verdict.reasons} - {"failures"}
    invalid = level.interrupted or (level.verdict.status == "INVALID" and codes)
    answered = level.outcomes.get("ok", 0)
    if ttft is None or e2e is None or invalid or not answered or level.throughput.requests_per_s <= 0:
        return None
    if not 0 < ttft.mean <= e2e.mean:
        return None  # too quick for any clock
    thoughtless = isinstance(level.load, ClosedLoad) and level.load.think is None
    return _Point(
        n=float(level.load.users) if thoughtless and isinstance(level.load, ClosedLoad) else level.concurrency.mean,
        per_s=level.throughput.requests_per_s,
        ttft=ttft.mean,
        tpot=None if tpot is None else tpot.mean,
        e2e=e2e.mean,
        tokens=(level.tokens.input + level.tokens.output) / answered,
        preempted=max((level.server or {}).get(name, 0.0) for name in PREEMPTIONS) / answered,
        level=level,
    )


def _broken(points: Sequence[_Point]) -> str:
    """The rule that the emptiest level failed; a gate before others."""
    for point in points:
        failed = sorted((one for one in point.level.objectives if one.decision == "FAIL"), key=lambda one: not one.gate)
        if failed:
            return failed[0].rule
    return ""


def _memory(points: Sequence[_Point], levels: Sequence[LevelResult]) -> Limit | None:
    """Sequences that gave their memory back, or a fall of throughput."""
    often = [point for point in points if point.preempted >= _OFTEN]
    if often:
        first = often[0]
        return Limit(
            kind="memory",
            sentence=f"from {first.n:.3g} in flight on the server runs out of KV memory: it preempts requests and does "
            "their work again",
            evidence=[Evidence(name="preempted_share", value=first.preempted, what="preemptions for each answer")],
            advice="give it more KV memory, shorter prompts or answers, or let fewer run at once",
        )
    cliff = find_cliff(measured_levels(levels))
    if cliff is None:
        return None
    lost = 1 - cliff.measured_per_s / cliff.expected_per_s
    return Limit(
        kind="memory",
        sentence=f"from {cliff.above_users:g} to {cliff.at_most_users:g} users throughput falls by {lost:.0%} "
        "of what it should be: it is most likely memory that runs out there",
        evidence=[
            Evidence(name="expected_per_s", value=cliff.expected_per_s, what="requests per second without the fall"),
            Evidence(name="measured_per_s", value=cliff.measured_per_s, what="requests per second after it"),
        ],
        advice="measure the levels between, and see the server's log and memory there",
    )


def _find_bend(points: Sequence[_Point]) -> _Bend | None:
    """The number at once by both curves, if a bend says far more than none."""
    n = np.array([point.n for point in points])
    limits = np.unique(np.concatenate([SLOTS.limits(n), n[:-1]]))
    errors = np.array([_bend_error(points, limit) for limit in limits.tolist()])
    without = _bend_error(points, math.inf)
    best = int(errors.argmin())
    if without - errors[best] <= _SURELY:
        return None
    near = limits[errors - errors[best] <= _HARDLY]
    at = Estimate(value=float(limits[best]), low=float(near.min()), high=float(near.max()))
    parts = _parts(points, at.value)
    return _Bend(at, float(parts[0]), float(parts[1]))


def _once(points: Sequence[_Point]) -> list[_Point]:
    """Of levels with the same number in flight the one with most answers."""
    best: dict[float, _Point] = {}
    for point in points:
        held = best.get(point.n)
        if held is None or point.level.outcomes.get("ok", 0) > held.level.outcomes.get("ok", 0):
            best[point.n] = point
    return [best[n] for n in sorted(best)]


def _parts(points: Sequence[_Point], limit: float) -> Floats:
    """a and b of n/(a + bn), of those at work: never less than nothing."""
    at_work = np.minimum([point.n for point in points], limit)
    weight = np.array([point.per_s for point in points]) / at_work
    return _line(at_work, weight, _trust(points))


def _trust(points: Sequence[_Point]) -> Floats:
    """What each point's error counts for: a mean over few answers is off by more."""
    counts = np.array([point.level.outcomes.get("ok", 0) for point in points], np.float64)
    trust: Floats = np.sqrt(counts / counts.mean())
    return trust


def _line(at_work: Floats, weight: Floats, trust: Floats) -> Floats:
    """The a ≥ 0 and b ≥ 0 for which (a + b·n)·weight is nearest to 1."""
    columns = np.stack([np.ones_like(at_work), at_work], axis=1) * (weight * trust)[:, None]
    found = np.asarray(np.linalg.lstsq(columns, trust, rcond=None)[0], np.float64)
    if found.min() >= 0:
        return found
    alone = [(columns[:, k] * trust).sum() / (columns[:, k] ** 2).sum() for k in (0, 1)]
    wrong = [((columns[:, k] * alone[k] - trust) ** 2).sum() for k in (0, 1)]
    return np.array([alone[0], 0.0]) if wrong[0] <= wrong[1] else np.array([0.0, alone[1]])


def _bend_error(points: Sequence[_Point], limit: float) -> float:
    """How badly throughput, those past their first token and TPOT fit if `limit` run at once: −2 log of the likelihood.

    Each of the three has an unknown error of its own. Throughput of few answers is one of chance, and the share of E2E
    that is spent waiting hardly is.
    """
    n = np.array([point.n for point in points])
    at_work = np.minimum(n, limit)
    # Of the n in flight those who have their first token: the share of E2E that comes after it (Little, twice).
    past = n * np.array([max(1e-9, 1 - point.ttft / point.e2e) for point in points])
    curves = [np.array([point.per_s for point in points]) / at_work, past / at_work]
    tpot = [point.tpot for point in points]
    if all(tpot):
        curves.append(1 / np.array(tpot, np.float64))
    trust = _trust(points)
    freedom = max(1, len(points) - 2)
    wrong = [_curve_error(at_work, weight, trust) / freedom for weight in curves]
    return sum(freedom * math.log(max(one, _NOISE**2)) for one in wrong)


def _curve_error(at_work: Floats, weight: Floats, trust: Floats) -> float:
    a, b = _line(at_work, weight, trust).tolist()
    return float(((((a + b * at_work) * weight - 1) * trust) ** 2).sum())


def _of_bend(points: Sequence[_Point], bend: _Bend, server: Mapping[str, float], rule: str) -> Limit:
    """So many run at once: because there are no more slots, or memory, or because one at a time is all it does."""
    at = bend.at
    start = min((point for point in points if point.n >= 0.95 * at.value), key=lambda point: point.n)
    last = points[-1]
    waits = _waiting_share(start, last)
    seen = [
        Evidence(name="at_once", value=at.value, what="requests in flight from which on throughput and TPOT stay"),
        Evidence(
            name="waiting_share", value=waits, what="of the time added beyond that, what comes before the first token"
        ),
        Evidence(name="gain_of_twice", value=bend.gain, what="throughput that twice as many at once would bring more"),
    ]
    if waits < _NEARLY_ALL:
        what = (
            f"throughput stays from {_about(at)} in flight on, but only {waits:.0%} of the time that more requests "
            "take is spent before their first token: the figures fit neither a queue nor sharing"
        )
        return Limit(kind="unknown", sentence=what, evidence=seen, advice="measure more levels around it, for longer")
    if bend.gain < _WORTHWHILE and not rule.startswith(_BEFORE_FIRST):
        return _of_work(points, seen, bend)
    if rule.startswith(_BETWEEN):
        return _of_rule(points, rule)
    return _of_places(points, bend, server, seen)


def _of_places(points: Sequence[_Point], bend: _Bend, server: Mapping[str, float], seen: list[Evidence]) -> Limit:
    """Named by what the server says of itself."""
    at, last = bend.at, points[-1]
    kind: LimitKind = "slots"
    also, advice = "", "more slots if the server has memory for them; fewer tokens a request shorten the wait"
    slots, fit_in = server.get("slots"), None
    if "kv_tokens" in server:
        fit_in = server["kv_tokens"] / max(1.0, last.tokens)
        seen = [*seen, Evidence(name="fit_in_memory", value=fit_in, what="requests of this size in its KV memory")]
    if _is_memory(at, slots, fit_in):
        kind, advice = "memory", "more KV memory, or shorter prompts and answers"
    elif slots is None and fit_in is None:
        also = " (slots, or the memory that they share: from outside both look the same)"
    sentence = (
        f"{_about(at)} run at once{also}, and the next waits for {_place(kind)}: beyond that throughput stays at "
        f"{last.per_s:.3g}/s, and each further request in flight waits {1 / last.per_s:.2g} s longer"
    )
    return Limit(kind=kind, sentence=sentence, evidence=seen, advice=advice, slots=at)


def _is_memory(at: Estimate, slots: float | None, fit_in: float | None) -> bool:
    """Fewer run than there are slots, and so many as fit into the memory where that is known."""
    low, high = 0.9 * (at.low or at.value), 1.1 * (at.high or at.value)
    if slots is not None and slots <= high:
        return False
    return slots is not None if fit_in is None else low <= fit_in and math.floor(fit_in) <= high


def _place(kind: LimitKind) -> str:
    return "memory" if kind == "memory" else "a slot"


def _about(at: Estimate) -> str:
    low, high = round(at.low or at.value), round(at.high or at.value)
    return f"about {round(at.value)}" + (f" ({low} to {high})" if low < high else "")


def _waiting_share(start: _Point, last: _Point) -> float:
    added = last.e2e - start.e2e
    return min(1.0, max(0.0, (last.ttft - start.ttft) / added)) if added > 0 else 0.0


def _still_grows(points: Sequence[_Point]) -> bool:
    """Whether twice the load would still bring a worthwhile gain, by the last step of about that size."""
    last = points[-1]
    before = [point for point in points[:-1] if point.n <= last.n / _ALONE] or [points[0]]
    steps = math.log2(last.n / before[-1].n)
    return steps > 0 and (last.per_s / before[-1].per_s) ** (1 / steps) - 1 > _WORTHWHILE


def _prompt_share(points: Sequence[_Point], at: _Point) -> float | None:
    """Of the server's time, what it spends on prompts at this level; `None` if no request was alone."""
    alone = points[0]
    return at.per_s * alone.ttft if alone.n <= _ALONE else None


def _one_at_a_time(points: Sequence[_Point]) -> Limit | None:
    """Throughput is that of one user throughout, and all that is added is waiting; `None` where prompts take it all."""
    alone, last, share = points[0], points[-1], _prompt_share(points, points[-1])
    waits = _waiting_share(alone, last)
    if share is None or share >= _MOST or waits < _NEARLY_ALL or last.per_s > (1 + _WORTHWHILE) * alone.per_s:
        return None
    return Limit(
        kind="queue",
        sentence=f"one request runs at a time, and the others wait their turn: throughput is {last.per_s:.3g}/s with "
        f"{last.n:.3g} in flight as with one, and each further request waits {1 / last.per_s:.2g} s longer",
        evidence=[
            Evidence(name="waiting_share", value=waits, what="of the time added, what comes before the first token")
        ],
        advice="let it run several at once, if it can; else a second server",
        slots=Estimate(value=1.0, low=1.0, high=1.0),
    )


def _of_work(points: Sequence[_Point], seen: list[Evidence], bend: _Bend | None = None) -> Limit:
    """Throughput stays, and not for want of slots: prompts take the time, or decoding does."""
    last, share = points[-1], _prompt_share(points, points[-1])
    stays, slots = f"throughput has come to its end at {last.per_s:.3g}/s", None
    if bend is not None:
        stays, slots = f"{stays} ({_about(bend.at)} run at once, and more would hardly help)", bend.at
    if share is None:
        what = f"{stays}, but without a level of one user nobody can tell prompts from decoding"
        return Limit(kind="unknown", sentence=what, evidence=seen, advice="measure one user as well", slots=slots)
    seen = [*seen, Evidence(name="prompt_share", value=share, what="of the server's time, what goes into prompts")]
    kind: LimitKind = "prefill" if share >= _MOST else "decode" if share <= _LITTLE else "unknown"
    why = {
        "prefill": f"reading prompts takes {min(share, 1.0):.0%} of the server's time",
        "decode": f"decoding takes {1 - share:.0%} of the server's time, and each further request slows it for all",
    }.get(kind, f"reading prompts takes {share:.0%} of the server's time and decoding the rest, too near to tell")
    advice = _ADVICE.get(kind, "shorter prompts and answers both help")
    return Limit(kind=kind, sentence=f"{stays}: {why}", evidence=seen, advice=advice, slots=slots)


def _of_rule(points: Sequence[_Point], rule: str) -> Limit:
    """Throughput still grows; an objective may break all the same."""
    last = points[-1]
    if not rule:
        what = f"throughput still grows at {last.n:.3g} in flight: no limit was reached"
        return Limit(kind="unknown", sentence=what, advice="measure higher loads")
    alone, share = points[0], _prompt_share(points, last)
    slower = {"ttft": last.ttft / alone.ttft} | ({"tpot": last.tpot / alone.tpot} if last.tpot and alone.tpot else {})
    seen = [
        Evidence(
            name=f"{name}_ratio", value=value, what=f"mean {name.upper()} of the last level over that of the first"
        )
        for name, value in slower.items()
    ]
    if share is not None:
        seen.append(Evidence(name="prompt_share", value=share, what="of the server's time, what goes into prompts"))
    kind = _kind_of_rule(rule, share, slower)
    sentence = {
        "prefill": f"{rule} breaks while throughput still grows: prompts of others are read first",
        "decode": f"{rule} breaks while throughput still grows: with more at once each step of decoding is longer",
    }.get(kind, f"{rule} breaks while throughput still grows, and the figures do not tell by what")
    return Limit(kind=kind, sentence=sentence, evidence=seen, advice=_ADVICE.get(kind, "measure more levels between"))


def _kind_of_rule(rule: str, share: float | None, slower: Mapping[str, float]) -> LimitKind:
    if share is None:
        return "unknown"
    if rule.startswith(_BETWEEN) and slower.get("tpot", 1.0) > 1 + _WORTHWHILE:
        return "decode" if share <= _LITTLE else "prefill" if share >= _MOST else "unknown"
    if rule.startswith(_BEFORE_FIRST) and slower["ttft"] > 1 + _WORTHWHILE and share >= _LITTLE:
        return "prefill"
    return "unknown"


def _client_gave_out(points: Sequence[_Point], levels: Sequence[LevelResult]) -> Limit | None:
    """The emptiest level above all valid ones at which the client was at its end."""
    reached = points[-1].n if points else 0.0
    for level in sorted(levels, key=lambda level: level.concurrency.mean):
        reasons = [reason for reason in level.verdict.reasons if reason.code in CLIENT_CODES]
        if reasons and level.concurrency.peak > reached:
            return Limit(
                kind="client",
                sentence=f"at {level.load.label} the client itself was the limit ({reasons[0].message}): what the "
                "server could do beyond is not known",
                evidence=[Evidence(name="reached", value=reached, what="in flight at the last valid level")],
                advice=reasons[0].advice,
            )
    return None
