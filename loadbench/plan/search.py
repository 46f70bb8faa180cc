"""The search for the highest load that meets its objectives: which load to try next, and for what. Pure.

Loads are positions on a grid: users in steps of one, rates 2 % apart. What all probes show together is a `Standing`:
the range that is proven, the range that is likely, and the best estimate. The search

1. *brackets*: doubles the load while probes lean to PASS, or halves it while they lean to FAIL. These probes are brief;
2. *refines*: measures the load whose requests tell most about the capacity (`Search.aim`), until the likely range is
   narrow;
3. *verifies*: measures the low end of the likely range. These requests count like all others; where they contradict
   the estimate, it moves, and its new low end is verified. Requests that are too few to contradict verify nothing:
   more follow;
4. *tests*, where proof is required: proves loads below the best estimate to pass and loads above it to fail, first at
   a distance where that takes few requests, then ever nearer.

Where nothing fails up to the highest load that is allowed, or where even the lowest fails, that load itself is tested.
The caller also decides how long a probe may take, and when the time is over (`Budget`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

Decision = Literal["PASS", "FAIL", "UNDECIDED"]

# Rates are this far apart.
RESOLUTION = 0.02
# Probes of one position for one purpose; and where no other load would be tried instead, as after a resumed search.
_MAX_VISITS, _MOST_VISITS = 4, 16
# The highest load is measured itself once twice the last load comes this near.
_NEAR_TOP = 1.5
# A likely range may be wider than a proven one by this factor.
_LIKELY_WIDTH = 2.0
# A probe favours neither side below this logarithm of a likelihood ratio.
FAVOURS = 1.0
# A verification contradicts the estimate if it leans to FAIL by this much: 7 to 1, the 95 % interval of its share.
CONTRADICTS = 1.92
# Verifications this near to each other are about the same load.
SAME_LOAD = 0.94
# Ends are proven at these distances from the best estimate, one after the other.
_NEARER = (1.45, 1.25, 1.12)
# Responses for which each user must have time in a step of the throughput curve.
_MIN_RESPONSES = 3


class Purpose(StrEnum):
    """The phase of the search that a probe belongs to. The values are those in `capacity.json`."""

    BRACKET = "bracket"
    REFINE = "bisect"
    TEST = "prove"
    REPEAT = "again"
    VERIFY = "verify"


class Probe(NamedTuple):
    """A position to measure, and why. A test has the decision that it `expects`, and the number of earlier ones."""

    at: int
    purpose: Purpose
    expects: Literal["PASS", "FAIL"] | None = None
    visit: int = 0


class Standing(NamedTuple):
    """What all probes together show, as positions; `None` where nothing is known.

    `passed` and `failed` are proven. The capacity is likely from `low` to `high`, both included, and `estimate` is the
    best single number; one below the grid where even the lowest load may fail. Without `monotone` the probes
    contradict each other: a higher load passes where a lower one fails.
    """

    passed: int | None = None
    failed: int | None = None
    low: int | None = None
    high: int | None = None
    estimate: int | None = None
    monotone: bool = True

    def decision(self, at: int) -> Decision:
        """What is proven of a position."""
        if self.passed is not None and at <= self.passed:
            return "PASS"
        return "FAIL" if self.failed is not None and at >= self.failed else "UNDECIDED"


class Finding(NamedTuple):
    """What is known about a load, and what all loads show together.

    `leaning` is the logarithm of a likelihood ratio for the limiting objective, by this probe alone: how much more
    likely a pass makes the observations than a failure; above 0 it leans to PASS. `misses` is the number of misses that
    independent requests as many as these are allowed. A verification is `informed` if it could have contradicted.
    """

    decision: Decision
    leaning: float
    standing: Standing
    misses: float = 0.0
    informed: bool = True


@dataclass(frozen=True, slots=True)
class Grid(ABC):
    """Positions of loads from `lowest` to `highest`; a higher position is a higher load."""

    highest: int
    lowest: int = 1

    @abstractmethod
    def amount(self, at: int) -> float:
        """The load at a position: users, or requests per second."""

    @abstractmethod
    def nearest(self, amount: float) -> int:
        """The position nearest to a load, within the grid."""

    @abstractmethod
    def top(self, at: int) -> float:
        """The highest capacity that a position stands for: of users itself, of rates all below the next position."""


class Users(Grid):
    """Numbers of users; the position is the number."""

    def amount(self, at: int) -> float:
        """The number itself."""
        return at

    def nearest(self, amount: float) -> int:
        """The rounded number."""
        return min(self.highest, max(self.lowest, round(amount)))

    def top(self, at: int) -> float:
        """The number itself."""
        return at


class Rates(Grid):
    """Rates per second: 1.02 to the power of the position."""

    @classmethod
    def of(cls, lowest: float, highest: float) -> Rates:
        """The grid between two rates; at least one position."""
        span = math.log1p(RESOLUTION)
        top = math.floor(math.log(highest) / span + 1e-9)
        return cls(top, min(top, math.ceil(math.log(lowest) / span - 1e-9)))

    def amount(self, at: int) -> float:
        """The rate to four digits, as reports show it."""
        return float(f"{(1 + RESOLUTION) ** at:.4g}")

    def nearest(self, amount: float) -> int:
        """By ratio."""
        return min(self.highest, max(self.lowest, round(math.log(amount) / math.log1p(RESOLUTION))))

    def top(self, at: int) -> float:
        """The next rate."""
        return self.amount(min(at + 1, self.highest))


def grid_between(*, by_rate: bool, at_most: float, budget_s: float) -> Grid:
    """The loads that a search of this budget may visit."""
    if not by_rate:
        return Users(max(1, round(at_most)))
    # Ten requests in the whole time are too few for any answer.
    return Rates.of(min(10 / budget_s, at_most), at_most)


def narrow_text(precision: float, *, proven: bool = False) -> str:
    """When the search ends, in words: the rule of `Search.is_narrow` for the likely range, or for the proven one."""
    share = precision / _LIKELY_WIDTH if proven else precision
    factor = (share + math.hypot(share, 1)) ** 2
    ends = f"its ends at most a factor of {factor:.2f} apart"
    return f"the {'proven' if proven else 'likely'} range is within ±{100 * share:g} % of its middle ({ends})"


@dataclass(slots=True)
class Search:
    """One search; it starts at position `start` and ends when the range is within `precision`, a share, of its middle.

    `aim` is the position whose requests tell most, by the judge.
    """

    grid: Grid
    start: int
    aim: Callable[[Standing], int]
    precision: float = 0.2
    require: str = "likely"
    standing: Standing = field(default_factory=Standing)
    leanings: dict[int, float] = field(default_factory=dict)
    visits: Counter[tuple[int, Purpose]] = field(default_factory=Counter)
    verified: int | None = None  # the position of the verification that agrees

    def add(self, probe: Probe, finding: Finding) -> None:
        """Add a finished probe, and what all show together."""
        self.standing = finding.standing
        self.visits[probe.at, probe.purpose] += 1
        if finding.leaning:
            # A load that is measured again leans as it did with the clearer of its probes.
            self.leanings[probe.at] = max(self.leanings.get(probe.at, 0.0), finding.leaning, key=abs)
        if probe.purpose is Purpose.VERIFY:
            self.verified = probe.at if finding.informed and finding.leaning > -CONTRADICTS else None

    @property
    def passed(self) -> int | None:
        """The highest position that is proven to pass."""
        return self.standing.passed

    @property
    def failed(self) -> int | None:
        """The lowest position that is proven to fail."""
        return self.standing.failed

    @property
    def settled(self) -> bool:
        """Whether the highest load that is allowed passes, or even the lowest fails."""
        return self.passed == self.grid.highest or self.failed == self.grid.lowest

    def is_narrow(self, low: int | None, high: int | None, *, factor: float = _LIKELY_WIDTH) -> bool:
        """Whether the range from one position to another, both included, is no wider than the precision times this, as
        a share of its middle, which is the geometric mean of its ends."""
        if low is None or high is None or low < self.grid.lowest or high > self.grid.highest:
            return False
        least, most = self.grid.amount(low), self.grid.top(high)
        return high - low <= 1 or most - least <= factor * self.precision * math.sqrt(least * most)

    @property
    def likely(self) -> bool:
        """Whether the likely range is narrow, and a verification at its low end agrees."""
        return self.bracketed and self.is_narrow(self.standing.low, self.standing.high) and self.verifies_low

    @property
    def verifies_low(self) -> bool:
        """Whether the verification that agrees was at the low end of the likely range, as it is now, or above it."""
        low = self.standing.low
        if self.verified is None or low is None:
            return False
        return self.grid.amount(self.verified) >= SAME_LOAD * self.grid.amount(low)

    @property
    def proven(self) -> bool:
        """Whether the proven range is as narrow as required."""
        return self.failed is not None and self.is_narrow(self.passed, self.failed - 1, factor=1)

    @property
    def narrowed_to(self) -> str:
        """What ends the search, once it holds, with the width that was reached; empty until then."""
        low, high, proven = self.standing.low, self.standing.high, self.proven
        if proven:
            low, high = self.passed, None if self.failed is None else self.failed - 1
        elif self.require == "proven" or not self.likely:
            return ""
        if low is None or high is None:
            return ""
        if high - low <= 1:
            return f"no {'proven' if proven else 'likely'} range is narrower than this one"
        least, most = self.grid.amount(low), self.grid.top(high)
        reached = 50 * (most - least) / math.sqrt(least * most)
        allowed = 100 * self.precision / (_LIKELY_WIDTH if proven else 1)
        which = f"the {'proven' if proven else 'likely'} range"
        return f"{which} is within ±{reached:.2g} % of its middle, and --precision allows ±{allowed:g} %"

    @property
    def bracketed(self) -> bool:
        """Whether some load leans to PASS, and a higher one to FAIL."""
        low, high = self._ends
        return low is not None and high is not None

    @property
    def _ends(self) -> tuple[int | None, int | None]:
        """The lowest position that leans to PASS, and the highest that leans to FAIL."""
        low = min((at for at, lean in self.leanings.items() if lean > 0), default=None)
        high = max((at for at, lean in self.leanings.items() if lean < 0), default=None)
        return low, high

    def next(self) -> Probe | None:
        """The next probe; `None` when the question is answered, or no probe is left to try."""
        grid, standing = self.grid, self.standing
        if not self.visits:
            return Probe(self.start, Purpose.BRACKET)
        if self.settled or not standing.monotone:
            return None
        low, high = self._ends
        if high is None:
            top = max(at for at, _ in self.visits)
            at = grid.nearest(2 * grid.amount(top))
            # The highest load itself once it is near: where nothing fails, it is what has to be proven.
            at = grid.highest if grid.amount(at) * _NEAR_TOP >= grid.amount(grid.highest) else at
            return self._tried(Probe(at, Purpose.TEST if at == grid.highest else Purpose.BRACKET, "PASS"), _MOST_VISITS)
        if low is None:
            bottom = min(at for at, _ in self.visits)
            at = grid.nearest(grid.amount(bottom) / 2)
            return self._tried(Probe(at, Purpose.TEST if at == grid.lowest else Purpose.BRACKET, "FAIL"), _MOST_VISITS)
        at_low = max(standing.low or grid.lowest, grid.lowest)
        if not self.likely and not self.proven:
            narrow = self.is_narrow(at_low, standing.high)
            nearer = Probe(at_low, Purpose.VERIFY) if narrow else Probe(self.aim(standing), Purpose.REFINE)
            return self._tried(nearer, _MOST_VISITS)
        if self.require != "proven" or self.proven:
            return None

        # Prove both ends: first where it takes few requests, then ever nearer to the estimate; PASS comes first.
        middle = grid.amount(max(standing.estimate or grid.lowest, grid.lowest))
        for ratio in _NEARER:
            below, above = grid.nearest(middle / ratio), grid.nearest(middle * ratio)
            sides: tuple[tuple[int, Literal["PASS", "FAIL"], bool], ...] = (
                (below, "PASS", self.passed is not None and self.passed >= below),
                (above, "FAIL", self.failed is not None and self.failed <= above),
            )
            for at, expects, known in sides:
                probe = None if known else self._tried(Probe(at, Purpose.TEST, expects))
                if probe is not None:
                    return probe
        return None

    def _tried(self, probe: Probe, most: int = _MAX_VISITS) -> Probe | None:
        visit = self.visits[probe.at, probe.purpose]
        return probe._replace(visit=visit) if visit < most else None


@dataclass(frozen=True, slots=True)
class Budget:
    """How the time of a search is divided; all times are in ns. Later phases may use the time that earlier ones leave.

    An eighth is reserved for the verification. The throughput curve, if there is one (`loadbench.plan.curve`), takes
    less than a quarter.
    """

    total_ns: int

    @property
    def step_ns(self) -> int:
        """The time of a step of the throughput curve, including its warm-up."""
        return self.total_ns // 40

    @property
    def reserved_ns(self) -> int:
        """The time for the verification."""
        return self.total_ns // 8

    def curve_ns(self, *, spent_ns: int, warm_up_ns: int, response_ns: int) -> int | None:
        """How long the next step of the curve may measure, after `spent_ns` for the curve; `None` if that is too short.

        In a step each user must get a few responses, or its throughput is due to chance.
        """
        measure_ns = min(self.step_ns, self.total_ns // 4 - spent_ns) - warm_up_ns
        return measure_ns if measure_ns >= _MIN_RESPONSES * response_ns else None

    def probe_ns(self, purpose: Purpose, *, spent_ns: int, warm_up_ns: int, at_edge: bool = False) -> int | None:
        """How long a probe may measure after its warm-up; `None` if the remaining time is shorter than half a warm-up,
        which is about half of a user's cycle.

        Bracketing takes a thirtieth of the total each time, refining a tenth, but at least the length of a warm-up. A
        test may take half of the remaining time, and the verification the reserved time or a third of what remains. A
        test of the highest or lowest load, `at_edge`, may take all but the reserved time: it needs its requests in one
        probe, and ends early where it goes against expectation.
        """
        left_ns = self.total_ns - spent_ns - warm_up_ns
        match purpose:
            case Purpose.VERIFY:
                share_ns = max(self.reserved_ns - warm_up_ns, left_ns // 3)
            case Purpose.TEST:
                share_ns = max(left_ns // 2, left_ns - self.reserved_ns if at_edge else 0)
            case Purpose.REFINE:
                left_ns -= self.reserved_ns
                share_ns = self.total_ns // 10
            case _:
                left_ns -= self.reserved_ns
                share_ns = self.total_ns // 30 - warm_up_ns
        measure_ns = min(left_ns, max(share_ns, warm_up_ns))
        return measure_ns if measure_ns > 0 and measure_ns >= warm_up_ns // 2 else None
