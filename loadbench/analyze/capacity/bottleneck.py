"""Finds the bottleneck of a server: read from how its figures change as more requests are in flight.

With n requests in flight and X completions per second, each request takes E = n/X (Little's law). Once X stops growing,
each further request adds 1/X to E. Where this time is spent tells what the request waits for:

*Before the first token, while running requests go on as before.* A limited number runs at once and the others wait:
TPOT rises as `a + b·n` up to n = c and is flat beyond. X is flat beyond c, and so is the number of requests past their
first token, which is n less the share of E that is TTFT. The knee c has the highest likelihood, with an unknown error
for each of the three curves; its interval are those c that are hardly less likely. The cause may be slots, or the
memory that the requests share. Both look the same from outside; only facts from the server tell them apart.
*Between tokens.* All requests run and slow each other down: X = n/(a + bn) approaches 1/b. By the utilisation law, the
share of the server's time spent on prompts is X·D, where D is the time to first token of a request that is alone; the
rest is decoding. One of them must take most of the time, or the bottleneck is unknown.

The same law says whether more slots would help: if twice as many would bring hardly more, the bottleneck is what slows
down the running requests, not their number, also where requests fail because they wait: more slots would turn the
wait for the first token into slower tokens, which helps where tokens may be slower. Preemptions, or a cliff in
throughput, mean memory. Where the load generator gave out before the server showed a limit, the load generator is the
bottleneck. Everything else is "unknown", with what was seen.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loadbench.analyze.capacity.measured_levels import measured_levels
from loadbench.analyze.capacity.scaling import SLOTS, find_cliff
from loadbench.analyze.level.verdict import PREEMPTIONS, client_reasons
from loadbench.results.prediction import Bottleneck, Estimate, Evidence
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.analyze.capacity.scaling import Floats
    from loadbench.results.prediction import BottleneckKind
    from loadbench.results.run import LevelResult

# Fewer levels do not show a knee.
_FEWEST_LEVELS = 3
# A smaller gain from twice the load is not worthwhile, and hardly more than two runs differ by.
_WORTHWHILE = 0.15
# A share above the first is most of the time, one below the second is not; in between nobody can tell.
_MOST = 0.6
_LITTLE = 0.4
# Nearly all of the added time is waiting, or nearly none.
_NEARLY_ALL = 0.8
# A knee must raise twice the log likelihood by the first of these. Its interval are the values within the second (a
# chi-squared of one degree of freedom, 95 %).
_CERTAIN = 12.0
_HARDLY_LESS = 3.84
# A relative error below this is not visible.
_NOISE = 0.01
# Where the number in flight fluctuates, as with think times, slots stand idle now and then although its mean is beyond
# their number, the more so the fewer there are: the knee is seen too late by up to this much over its square root,
# usually by that much, or a tenth too early (tests/analyze/capacity/test_bottleneck.py has the study).
_AT_MOST_LATE, _USUALLY_LATE, _TOO_EARLY = 1.5, 0.4, 1.1
# Levels from this share of the knee on show where it is.
_NEAR_KNEE = 0.7
# Preemptions per successful request.
_OFTEN = 0.01
# Up to this mean number in flight a request is alone.
_ALONE = 1.5
# A server whose threads are all at work uses so nearly a whole number of cores, in cores.
_WHOLE = 0.05
_ON_A_BOARD = re.compile(r"[gn]pu\d").match
_ADVICE: dict[BottleneckKind, str] = {
    "prefill": "use shorter prompts, or a prefix cache",
    "decode": "use shorter responses, fewer requests at once, or a faster device",
}
BEFORE_FIRST_TOKEN = ("ttft", "ttfo", "ttfb")
BETWEEN_TOKENS = ("tpot", "itl", "event_gap")


@dataclass(frozen=True, slots=True)
class _LevelMeans:
    """The means of a level; durations in seconds, `None` where there is none."""

    n: float  # requests in flight
    per_s: float
    ttft: float
    tpot: float | None
    e2e: float
    tokens: float  # of a request, in and out
    preempted: float  # times a request
    level: LevelResult
    fluctuates: bool = False  # the number in flight

    @property
    def per_s_text(self) -> str:
        """Completions per second, with the 95 % interval as far as it is known."""
        ends = self.level.throughput.interval.get("requests_per_s")
        between = "" if ends is None else f" ({ends[0]:.3g} to {ends[1]:.3g})"
        return f"{self.per_s:.3g}{between} requests/s"


@dataclass(frozen=True, slots=True)
class _Knee:
    """Where X and TPOT stop rising, and the throughput of n requests running at once: n/(a + bn)."""

    at: Estimate
    a: float
    b: float

    @property
    def gain(self) -> float:
        """The relative gain from twice as many at once."""
        return 2 * (self.a + self.b * self.at.value) / (self.a + 2 * self.b * self.at.value) - 1


def find_bottleneck(
    levels: Sequence[LevelResult], *, server: Mapping[str, float] | None = None, rule: str = ""
) -> Bottleneck:
    """The bottleneck at these levels of one model; `rule` is the objective that fails first with more users.

    Without `rule` it is the one that the lowest level fails. `server` has known facts of the server: `slots` (how many
    requests it can run at once), `kv_tokens` (the tokens that they share). Closed levels without think time show the
    bottleneck best; other levels count by their mean number in flight.
    """
    points = _level_means(levels)
    for point in points:
        # A gate comes before other objectives.
        failed = [result for result in point.level.objectives if result.decision == "FAIL"]
        failed.sort(key=lambda result: not result.gate)
        if failed:
            rule = rule or failed[0].rule
    limit = _memory(points, levels) or _by_curves(points, server or {}, rule)
    if limit.kind != "unknown" or limit.ceiling_per_s is not None:
        return limit

    # The lowest level above all valid ones at which the load generator gave out.
    reached = points[-1].n if points else 0.0
    for level in sorted(levels, key=lambda level: level.concurrency.mean):
        reasons = client_reasons(level.verdict, per_token=True)
        if reasons and level.concurrency.peak > reached:
            return Bottleneck(
                kind="client",
                sentence=f"the load generator, at {level.load.label} ({reasons[0].message}); what the server can do at "
                "higher loads is not known",
                evidence=[Evidence(name="reached", value=reached, what="requests in flight at the last valid level")],
                advice=reasons[0].advice.removeprefix("the load generator was the bottleneck: "),
            )
    return limit


def _level_means(levels: Sequence[LevelResult]) -> list[_LevelMeans]:
    """The usable levels by the number in flight; of levels with the same number the one with most responses."""
    best: dict[float, _LevelMeans] = {}
    for level in sorted(levels, key=lambda level: -level.outcomes.get("ok", 0)):
        ttft, tpot, e2e = (level.metrics.get(name) for name in ("ttft_s", "tpot_s", "e2e_s"))
        answered, per_s = level.outcomes.get("ok", 0), level.throughput.requests_per_s
        only_failures = {reason.code for reason in level.verdict.reasons} <= {"failures"}
        invalid = level.interrupted or not (level.verdict.usable or only_failures)
        if ttft is None or e2e is None or invalid or not answered or per_s <= 0:
            continue
        if not 0 < ttft.mean <= e2e.mean:
            continue  # too fast for any clock
        no_think_time = isinstance(level.load, ClosedLoad) and level.load.think is None
        n = float(level.load.users) if no_think_time and isinstance(level.load, ClosedLoad) else level.concurrency.mean
        means = _LevelMeans(
            n=n,
            per_s=per_s,
            ttft=ttft.mean,
            tpot=None if tpot is None else tpot.mean,
            e2e=e2e.mean,
            tokens=(level.tokens.input + level.tokens.output) / answered,
            preempted=max((level.server or {}).get(name, 0.0) for name in PREEMPTIONS) / answered,
            level=level,
            fluctuates=not no_think_time,
        )
        best.setdefault(n, means)
    return [best[n] for n in sorted(best)]


def _memory(points: Sequence[_LevelMeans], levels: Sequence[LevelResult]) -> Bottleneck | None:
    """Memory, where the server preempts requests, or where throughput drops."""
    preempting = next((point for point in points if point.preempted >= _OFTEN), None)
    if preempting is not None:
        return Bottleneck(
            kind="memory",
            sentence=f"KV memory: from {preempting.n:.3g} requests in flight on, the server preempts requests and "
            "repeats their work",
            evidence=[
                Evidence(name="preempted_share", value=preempting.preempted, what="preemptions per successful request")
            ],
            advice="give the server more KV memory, use shorter prompts or responses, or let it run fewer at once",
        )
    cliff = find_cliff(measured_levels(levels))
    if cliff is None:
        return None
    return Bottleneck(
        kind="memory",
        sentence=f"probably memory: from users={cliff.above_users:g} to users={cliff.at_most_users:g} throughput drops "
        f"to {100 * cliff.measured_per_s / cliff.expected_per_s:.0f} % of what the lower loads predict",
        evidence=[
            Evidence(name="expected_per_s", value=cliff.expected_per_s, what="requests per second without the drop"),
            Evidence(name="measured_per_s", value=cliff.measured_per_s, what="requests per second after it"),
        ],
        advice="look at the server's log and memory at these loads, and give it more memory if it runs out",
    )


def _by_curves(points: Sequence[_LevelMeans], server: Mapping[str, float], rule: str) -> Bottleneck:
    """The bottleneck by how throughput, TTFT and TPOT change from level to level."""
    if len(points) < _FEWEST_LEVELS or points[-1].n < _ALONE:
        return Bottleneck(
            kind="unknown",
            sentence="unknown: too few or too low loads were measured to show where throughput stops growing; at least "
            f"{_FEWEST_LEVELS} different loads are needed",
            advice="use a larger --budget, so that there is time to measure more loads",
        )
    knee = _find_knee(points)
    if knee is not None:
        return _of_knee(points, knee, server, rule)
    alone, last = points[0], points[-1]

    # Would twice the load still bring a worthwhile gain? By the last step of about that size.
    before = next((point for point in reversed(points[:-1]) if point.n <= last.n / _ALONE), alone)
    steps = math.log2(last.n / before.n)
    if steps > 0 and (last.per_s / before.per_s) ** (1 / steps) - 1 > _WORTHWHILE:
        return _of_rule(points, rule)

    # Is throughput that of one user at every level, and all added time waiting?
    share, waits = _prompt_share(points, last), _waiting_share(alone, last)
    flat = last.per_s <= (1 + _WORTHWHILE) * alone.per_s
    if share is None or share >= _MOST or waits < _NEARLY_ALL or not flat:
        return _of_work(points, [], rule)
    return Bottleneck(
        kind="queue",
        sentence=f"the server runs one request at a time; the others wait. Throughput is {last.per_s_text} "
        f"with {last.n:.3g} requests in flight as with one, and each more adds {1 / last.per_s:.2g} s of waiting",
        evidence=[
            Evidence(name="waiting_share", value=waits, what="share of the added time that is before the first token")
        ],
        advice="let the server run several requests at once if it can, or add a second server",
        slots=Estimate(value=1.0, low=1.0, high=1.0),
        ceiling_per_s=last.per_s,
    )


def _find_knee(points: Sequence[_LevelMeans]) -> _Knee | None:
    """The number of requests that run at once, if a knee is far more likely than none."""
    n = np.array([point.n for point in points])
    limits = np.unique(np.concatenate([SLOTS.limits(n), n[:-1]]))
    errors = np.array([_knee_error(points, limit) for limit in limits.tolist()])
    best = int(errors.argmin())
    if _knee_error(points, math.inf) - errors[best] <= _CERTAIN:
        return None
    near = limits[errors - errors[best] <= _HARDLY_LESS]
    at = Estimate(value=float(limits[best]), low=float(near.min()), high=float(near.max()))
    running = np.minimum(n, at.value)
    a, b = _line(running, np.array([point.per_s for point in points]) / running, _precision(points)).tolist()
    return _Knee(at, a, b)


def _knee_error(points: Sequence[_LevelMeans], limit: float) -> float:
    """−2 log likelihood of throughput, requests past their first token, and TPOT, if `limit` requests run at once.

    Each of the three has an unknown error. With few responses, the throughput has a large random error, and the share
    of E2E that is spent waiting hardly has one.
    """
    n = np.array([point.n for point in points])
    running, precision = np.minimum(n, limit), _precision(points)
    # Of the n in flight, those past their first token: the share of E2E that comes after it (Little's law, twice).
    past_first = n * np.array([max(1e-9, 1 - point.ttft / point.e2e) for point in points])
    curves = [np.array([point.per_s for point in points]) / running, past_first / running]
    tpot = [point.tpot for point in points]
    if all(tpot):
        curves.append(1 / np.array(tpot, np.float64))
    freedom = max(1, len(points) - 2)
    error = 0.0
    for curve in curves:
        a, b = _line(running, curve, precision).tolist()
        square = float(((((a + b * running) * curve - 1) * precision) ** 2).sum())
        error += freedom * math.log(max(square / freedom, _NOISE**2))
    return error


def _precision(points: Sequence[_LevelMeans]) -> Floats:
    """The weight of each point's error: a mean over few responses has a larger one."""
    counts = np.array([point.level.outcomes.get("ok", 0) for point in points], np.float64)
    precision: Floats = np.sqrt(counts / counts.mean())
    return precision


def _line(running: Floats, curve: Floats, precision: Floats) -> Floats:
    """The a ≥ 0 and b ≥ 0 for which (a + b·running)·curve is nearest to 1."""
    columns = np.stack([np.ones_like(running), running], axis=1) * (curve * precision)[:, None]
    both = np.asarray(np.linalg.lstsq(columns, precision, rcond=None)[0], np.float64)
    if both.min() >= 0:
        return both
    alone = [(columns[:, k] * precision).sum() / (columns[:, k] ** 2).sum() for k in (0, 1)]
    errors = [((columns[:, k] * alone[k] - precision) ** 2).sum() for k in (0, 1)]
    return np.array([alone[0], 0.0]) if errors[0] <= errors[1] else np.array([0.0, alone[1]])


def _of_knee(points: Sequence[_LevelMeans], knee: _Knee, server: Mapping[str, float], rule: str) -> Bottleneck:
    """A limited number runs at once: because of slots or memory, or because more would not help."""
    at, last = knee.at, points[-1]
    if any(point.fluctuates and point.n >= _NEAR_KNEE * at.value for point in points):
        late = 1 / math.sqrt(at.value)
        low, high = (at.low or at.value) / (1 + _AT_MOST_LATE * late), (at.high or at.value) * _TOO_EARLY
        at = Estimate(value=at.value / (1 + _USUALLY_LATE * late), low=max(1.0, low), high=high)
    start = next(point for point in points if point.n >= 0.95 * knee.at.value)
    waits = _waiting_share(start, last)
    evidence = [
        Evidence(name="at_once", value=at.value, what="requests in flight where throughput and TPOT stop rising"),
        Evidence(
            name="waiting_share", value=waits, what="share of the time added beyond that is before the first token"
        ),
        Evidence(name="gain_of_twice", value=knee.gain, what="relative gain in throughput from twice as many at once"),
    ]
    if waits < _NEARLY_ALL:
        return Bottleneck(
            kind="unknown",
            sentence=f"unknown: throughput stops growing at {_about(at)} requests in flight, but only "
            f"{100 * waits:.0f} % of the added time is before the first token, which fits neither waiting nor sharing",
            evidence=evidence,
            advice="measure more levels around this load, and for longer",
        )
    if knee.gain < _WORTHWHILE:
        return _of_work(points, evidence, rule, at, knee.gain)
    if rule.startswith(BETWEEN_TOKENS):
        return _of_rule(points, rule)

    # Memory, where there are more slots than run, and where no more fit into the memory, if that is known.
    slots, fitting = server.get("slots"), None
    if "kv_tokens" in server:
        fitting = server["kv_tokens"] / max(1.0, last.tokens)
        evidence.append(Evidence(name="fit_in_memory", value=fitting, what="requests of this size that fit in memory"))
    low, high = 0.9 * (at.low or at.value), 1.1 * (at.high or at.value)
    memory = slots is not None if fitting is None else low <= fitting and math.floor(fitting) <= high
    kind: BottleneckKind = "memory" if memory and (slots is None or slots > high) else "slots"
    why = "as many as fit in its memory" if kind == "memory" else "its number of slots"
    advice = "add slots if the server has memory for them; fewer tokens per request shorten the wait"
    if kind == "memory":
        advice = "give the server more memory, or use shorter prompts and responses"
    elif slots is None and fitting is None:
        why = "its number of slots or its memory (loadbench cannot tell which)"
    return Bottleneck(
        kind=kind,
        sentence=f"the server runs {_about(at)} requests at once; the limit is {why}. Further requests wait: "
        f"throughput stays at {last.per_s_text}, and each request ahead adds about {1 / last.per_s:.2g} s",
        evidence=evidence,
        advice=advice,
        slots=at,
        ceiling_per_s=last.per_s,
    )


def _of_work(
    points: Sequence[_LevelMeans], evidence: list[Evidence], rule: str, at: Estimate | None = None, gain: float = 0.0
) -> Bottleneck:
    """Throughput has stopped growing, and not for lack of slots, since twice as many would bring only this `gain`:
    prompts take the time, or decoding does."""
    alone, last, share = points[0], points[-1], _prompt_share(points, points[-1])
    stays, slots = f"throughput stays at {last.per_s_text}", ""
    if at is not None:
        by = "by less than 1 %" if gain < 0.01 else f"by about {100 * gain:.0f} %"
        stays += f"; {_about(at)} requests run at once, and twice as many would raise it {by}"
        stays += f" (one alone gives {alone.per_s:.3g})" if alone.n < _ALONE else ""
        if rule.startswith(BEFORE_FIRST_TOKEN):
            slots = "; more slots would turn the wait for the first token into slower tokens"
            if last.tpot:
                # Twice as many share a throughput that is raised by the gain alone.
                times_ms = (1e3 * last.tpot, 2e3 * last.tpot / (1 + gain))
                now, twice = (f"{one:,.0f} ms" if one >= 10 else f"{one:.2g} ms" for one in times_ms)
                slots += f" (twice as many: about {twice} a token instead of {now})"
            slots += ", for hardly more requests/s: if tokens may be that slow, try it"
    threads = _idle_cores(last.level)
    if share is None:
        return Bottleneck(
            kind="unknown",
            sentence=f"the server's speed; {stays}; without a level of one user, prompts and decoding look the same",
            evidence=evidence,
            advice=f"{threads}use a faster device, or fewer tokens per request; measure users=1 to know which tokens"
            + slots,
            slots=at,
            ceiling_per_s=last.per_s,
        )
    kind: BottleneckKind = "prefill" if share >= _MOST else "decode" if share <= _LITTLE else "unknown"
    why = {
        "prefill": f"reading prompts, which takes {100 * min(share, 1.0):.0f} % of the server's time",
        "decode": f"decoding, {100 * (1 - share):.0f} % of the server's time; each further request slows down all",
    }.get(kind, f"the server's speed, of whose time prompts take {100 * share:.0f} % and decoding the rest")
    return Bottleneck(
        kind=kind,
        sentence=f"{why}; {stays}",
        evidence=[*evidence, Evidence(name="prompt_share", value=share, what="share of the server's time for prompts")],
        advice=threads
        + _ADVICE.get(kind, "use a faster device, or fewer tokens per request, in prompts or responses")
        + slots,
        slots=at,
        ceiling_per_s=last.per_s,
    )


def _idle_cores(level: LevelResult) -> str:
    """The beginning of an advice for a server whose threads are all at work while other cores of its machine are idle:
    a whole number of cores is in use, and at least one is not. Of one with a GPU nothing is said: it often keeps a core
    busy with waiting."""
    machine, readings = level.machine, level.telemetry
    if machine is None or readings is None or level.window_s <= 0 or any(map(_ON_A_BOARD, readings.gauges)):
        return ""
    used = readings.counters.get("process_cpu_s_total", 0.0) / level.window_s
    idle = machine.cores * (1 - machine.busy)
    if not (used > 0.5 and abs(used - round(used)) <= _WHOLE and idle >= 1 - 2 * _WHOLE):
        return ""
    return (
        f"first give the server more threads, if it computes on the CPU: it used {used:.2f} of {machine.cores} cores, "
        f"and {idle:.1f} were idle; then "
    )


def _of_rule(points: Sequence[_LevelMeans], rule: str) -> Bottleneck:
    """Throughput still grows, but an objective may fail."""
    alone, last = points[0], points[-1]
    if not rule:
        return Bottleneck(
            kind="unknown",
            sentence=f"not reached: throughput still grows at {last.n:.3g} requests in flight",
            advice="measure higher loads (a larger --at-most)",
        )
    share, ttft = _prompt_share(points, last), last.ttft / alone.ttft
    tpot = last.tpot / alone.tpot if last.tpot and alone.tpot else None
    evidence = [
        Evidence(name=f"{name}_ratio", value=value, what=f"mean {name.upper()} at the last level relative to the first")
        for name, value in (("ttft", ttft), ("tpot", tpot))
        if value is not None
    ]
    kind: BottleneckKind = "unknown"
    if share is not None:
        evidence.append(Evidence(name="prompt_share", value=share, what="share of the server's time for prompts"))
        if rule.startswith(BETWEEN_TOKENS) and (tpot or 1.0) > 1 + _WORTHWHILE:
            kind = "decode" if share <= _LITTLE else "prefill" if share >= _MOST else "unknown"
        elif rule.startswith(BEFORE_FIRST_TOKEN) and ttft > 1 + _WORTHWHILE and share >= _LITTLE:
            kind = "prefill"
    fails = f"{rule} fails while throughput still grows"
    sentence = {
        "prefill": f"reading prompts: {fails}, because the prompts of other requests are read first",
        "decode": f"decoding: {fails}, because with more requests at once each decoding step takes longer",
    }.get(kind, f"unknown: {fails}, and the figures do not show why")
    advice = _ADVICE.get(kind, "measure more levels in between")
    return Bottleneck(kind=kind, sentence=sentence, evidence=evidence, advice=advice)


def _about(at: Estimate) -> str:
    low, high = whole_ends(at)
    return f"about {round(at.value)}" + (f" ({low} to {high})" if low < high else "")


def whole_ends(at: Estimate) -> tuple[int, int]:
    """The ends of the interval of a number of requests."""
    return round(at.low or at.value), round(at.high or at.value)


def _waiting_share(start: _LevelMeans, last: _LevelMeans) -> float:
    """The share of the added time that is before the first token."""
    added = last.e2e - start.e2e
    return min(1.0, max(0.0, (last.ttft - start.ttft) / added)) if added > 0 else 0.0


def _prompt_share(points: Sequence[_LevelMeans], at: _LevelMeans) -> float | None:
    """The share of the server's time spent on prompts at a level; `None` if no request was alone."""
    alone = points[0]
    return at.per_s * alone.ttft if alone.n <= _ALONE else None
