"""Whether a server batches: from how the response time grows with the users of a closed loop without think time.

By Little's law a response takes `users ÷ (responses per second)`. A server that works on one request at a time, or
divides its time between them, gives no more responses per second to n users than to one, so that each of n takes n
times as long. A server that batches gives more, and takes less than n times as long. Nothing else is needed: whether
the others wait, or all advance slowly, is the same here.

It is said only where the figures prove it. The ratio of the median response times has an interval from those of both
medians, both ends against it. Its lower end must exclude that more users gain more than 5 %. A machine that was slower
for a while makes the times of some levels longer, and looks the same: so no level may show such a gain over any level
below it, and medians that are not known to 10 % say nothing. More than half of the time of one user must be decoding:
prompts fill a device by themselves, so that their time grows with the users on every server. Levels must have responses
of one length, and nothing that is known to make the machine slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from loadbench.analyze.level.knee import WORTHWHILE, shows_throughput
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import LevelResult

# Of one user's response time: with less decoding a server that batches would hardly gain more than 5 %.
_LEAST_DECODING = 0.5
# Half the interval of a median over it: above this, reports mark a percentile as vague.
_KNOWN_WITHIN = 0.1
# Output tokens per response of two levels that are of one length.
_LENGTHS_WITHIN = 0.05
# What slowed the machine, and so may have slowed one level and not the other.
_DISTURBED = {"busy_machine", "throttled_heat", "throttled_power", "throttled_cpu", "process_restarted", "cpu_fallback"}


class Unbatched(NamedTuple):
    """A response to one of `users` takes `times` as long as to a single one, with its 95 % interval."""

    users: int
    times: float
    low: float
    high: float

    @property
    def over_queueing(self) -> tuple[float, float, float]:
        """How much longer than if the requests had queued for a server that takes one at a time, as shares."""
        return tuple(times / self.users - 1 for times in (self.times, self.low, self.high))  # type: ignore[return-value]


def unbatched(levels: Sequence[LevelResult]) -> Unbatched | None:
    """At the most users of one model's levels that prove that its server does not batch; `None` if none does."""
    sound = sorted(filter(_counts, levels), key=lambda level: level.load.amount)
    alone = [level for level in sound if level.load.amount == 1]
    if len(alone) != 1:
        return None
    (one,) = alone
    first, whole = one.metrics.get("ttft_s"), one.metrics["e2e_s"]
    if first is None or whole is None or first.mean > (1 - _LEAST_DECODING) * whole.mean:
        return None
    if any(abs(_length(level) / _length(one) - 1) > _LENGTHS_WITHIN for level in sound):
        return None
    found = None
    below: list[_Time] = []
    alone_time = _time_of(one)
    for time in map(_time_of, sound):
        if any(time.median / lower.median < time.users / lower.users / (1 + WORTHWHILE) for lower in below):
            return None
        below.append(time)
        if time.users > 1 and time.is_known and alone_time.is_known:
            low, high = time.low / alone_time.high, time.high / alone_time.low
            if low >= time.users / (1 + WORTHWHILE):
                found = Unbatched(time.users, time.median / alone_time.median, low, high)
    return found


def batching_sentence(levels: Sequence[LevelResult], *, whose: str = "this server") -> str:
    """`this server does not batch: 4 users take 4.9 × as long as one, 22 % over queueing`; empty where nothing is
    proven."""
    proven = unbatched(levels)
    if proven is None:
        return ""
    share, low, high = proven.over_queueing
    how = "as if they queued"
    if low > WORTHWHILE:
        how = f"{100 * share:.0f} % over queueing ({100 * low:.0f} to {100 * high:.0f} %)"
    low_text, high_text = f"{proven.low:.1f}", f"{proven.high:.1f}"
    between = f" ({low_text} to {high_text})" if low_text != high_text else ""
    return f"{whose} does not batch: {proven.users} users take {proven.times:.1f} × as long as one{between}, {how}"


def _counts(level: LevelResult) -> bool:
    """Whether a level's response times are those of one server under a constant number of users."""
    metric = level.metrics.get("e2e_s")
    return (
        isinstance(level.load, ClosedLoad)
        and not level.load.think
        and len(level.targets) < 2
        and not level.by_model
        and shows_throughput(level)
        and level.verdict.usable
        and not _DISTURBED & {caveat.code for caveat in level.caveats}
        and metric is not None
        and metric.p50 > 0
        and level.tokens.output > 0
    )


class _Time(NamedTuple):
    """The median response time of a level, and its 95 % interval, if it is known well enough for a proof."""

    users: int
    median: float
    low: float
    high: float
    is_known: bool


def _time_of(level: LevelResult) -> _Time:
    metric, users = level.metrics["e2e_s"], int(level.load.amount)
    assert metric is not None  # noqa: S101 - `_counts` has looked
    low, high = metric.interval.get("p50") or (None, None)
    if low is None or high is None:
        return _Time(users, metric.p50, metric.p50, metric.p50, is_known=False)
    return _Time(users, metric.p50, low, high, is_known=high - low <= 2 * _KNOWN_WITHIN * metric.p50)


def _length(level: LevelResult) -> float:
    return level.tokens.output / level.outcomes["ok"]
