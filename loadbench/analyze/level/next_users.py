"""Which load `--users auto` measures next: up to the knee, beyond it, and one between.

The users double until the knee is known and one level more has confirmed it, or until two doublings in a row show no
gain: in a noisy measurement that is all that can be seen, INVALID levels included. A last level lies between the ends
of the knee. A server beyond its limit, or one that gave no response, ends the levels: higher loads would show no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.analyze.level.knee import WORTHWHILE, knee
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.run import LevelResult


# The knee is shown by the doubling above it, and confirmed by one more: some servers are no faster with two users than
# with one, and are with four.
_BEYOND = 4


def next_users(levels: Sequence[LevelResult], *, most: int) -> int | None:
    """The users of the next level of one model, after these levels in their order; `None`: there is enough."""
    return _decided(levels, most)[0]


def why_enough(levels: Sequence[LevelResult], *, most: int) -> str:
    """Why these levels of one model are enough, in a part of a sentence; empty where a further one was to come."""
    return _decided(levels, most)[1]


def _decided(levels: Sequence[LevelResult], most: int) -> tuple[int | None, str]:
    measured = [(level.load.users, level) for level in levels if isinstance(level.load, ClosedLoad)]
    if not measured:
        return 1, ""
    top, last = measured[-1]
    if any(users > top for users, _ in measured):
        return None, f"the knee shows, and users={top} lies between its ends"
    found = knee(levels)
    if found is not None and isinstance(found.high, ClosedLoad) and top >= _BEYOND * found.high.users:
        # The doublings are done. Where both ends are among them, there may be a load between them.
        low = found.low.users if isinstance(found.low, ClosedLoad) else 0
        between = 3 * low // 2
        if found.high.users == 2 * low and between > low:
            return between, ""
        return None, "the knee shows, and there is no load to measure between its ends"
    rates = [level.throughput.output_tokens_per_s for _, level in measured]
    if last.verdict.status == "OVERLOADED":
        return None, f"at users={top} the server was beyond its limit"
    if not last.outcomes.get("ok"):
        return None, f"no request succeeded at users={top}"
    if len(rates) > 2 and max(rates[-2:]) <= (1 + WORTHWHILE) * max(rates[:-2]):
        flat = f"two doublings in a row gave no more than {100 * WORTHWHILE:.3g} % more output tokens/s"
        return None, f"{flat}; without a knee that is certain there is no level between"
    return (2 * top, "") if 2 * top <= most else (None, f"{most} users are the most that it measures")
