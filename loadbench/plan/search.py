"""The search for the highest load that meets its objectives: which load to try next, and for what. Pure.

Loads are positions on a grid: users in steps of one, rates 5 % apart. A probe at a position decides PASS or FAIL, or
stays UNDECIDED. It also *leans* to one of the two, by how much more likely that one makes the observations. The search

1. *brackets*: doubles the load while probes lean to PASS, or halves it while they lean to FAIL;
2. *refines*: bisects between the last position that leans to PASS and the first that leans to FAIL, until they are
   close. These short probes may lean wrongly, so they only show where to test. All of them together give the most
   likely threshold (`Search.threshold`), so that the others can overrule one of them;
3. *tests*: finds the highest position that is decided to pass and the lowest that is decided to fail, on the looser
   side first. A test takes longer nearer to the threshold. The caller says where one is worth the remaining time
   (`Aim`), again after each probe.

It ends when the range between both is as narrow as `precision`. The caller also decides how long a probe may take, and
when the time is over (`Budget`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

Decision = Literal["PASS", "FAIL", "UNDECIDED"]

# Rates are this far apart; a step of users is as large.
RESOLUTION = 0.05
# Loads that the search visits in addition to those of the bracketing.
_MAX_TESTED_LOADS = 8
# Tests of one position.
_MAX_TESTS = 4
# A leaning counts at most this much, and a decision counts more than all leanings together.
_MAX_LEANING = 1e3
_DECIDED = 1e6
# Responses for which each user must have time in a step of the throughput curve.
_MIN_RESPONSES = 3
# Short probes cannot distinguish loads that are closer than this factor.
_CLOSE = 1.42


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


class Finding(NamedTuple):
    """What is known about a load.

    `leaning` is the logarithm of a likelihood ratio for the limiting objective: how much more likely a pass makes the
    observations than a failure; above 0 it leans to PASS. `effort` is the number of requests that a decision is likely
    to take, divided by those observed so far.
    """

    decision: Decision
    leaning: float
    effort: float = 1.0


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
    def step(self, at: int) -> int:
        """The number of positions that are about 5 % at this position; at least 1."""

    @abstractmethod
    def between(self, low: int, high: int) -> int:
        """The position half-way between two, by ratio."""


class Users(Grid):
    """Numbers of users; the position is the number."""

    def amount(self, at: int) -> float:
        """The number itself."""
        return at

    def nearest(self, amount: float) -> int:
        """The rounded number."""
        return min(self.highest, max(self.lowest, round(amount)))

    def step(self, at: int) -> int:
        """5 % of the number."""
        return max(1, round(RESOLUTION * at))

    def between(self, low: int, high: int) -> int:
        """The geometric mean."""
        return round(math.sqrt(max(low, 1) * high))


class Rates(Grid):
    """Rates per second: 1.05 to the power of the position."""

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

    def step(self, at: int) -> int:  # noqa: ARG002 - the same everywhere
        """One position."""
        return 1

    def between(self, low: int, high: int) -> int:
        """The middle position."""
        return (low + high) // 2


class Aim(Protocol):
    """Chooses the position where a test is worth its time, strictly between the decided positions."""

    def __call__(self, *, passes: bool) -> int | None:
        """The position to test for PASS, or for FAIL; `None` if no test is worth its time."""
        ...


@dataclass(slots=True)
class _Evidence:
    """What all probes of a position show."""

    decision: Decision = "UNDECIDED"
    leaning: float = 0.0
    tests: int = 0


class Threshold(NamedTuple):
    """The last position that more likely passes, and the first that more likely fails; `None` if unknown."""

    passes: int | None
    fails: int | None


@dataclass(slots=True)
class Search:
    """One search; it starts at position `start` and ends when the width of the range, as a share, is `precision`."""

    grid: Grid
    start: int
    aim: Aim
    precision: float = 0.2
    known: dict[int, _Evidence] = field(default_factory=dict)

    @property
    def max_loads(self) -> int:
        """The largest number of loads that it visits; the error probability is divided among them."""
        top, bottom = self.grid.amount(self.grid.highest), self.grid.amount(self.grid.lowest)
        start = self.grid.amount(self.start)
        bracket = math.ceil(math.log2(max(top / start, start / bottom, 1.0))) + 1
        return bracket + _MAX_TESTED_LOADS

    def add(self, probe: Probe, finding: Finding) -> None:
        """Add what all probes of a position so far show. A decision is final."""
        evidence = self.known.setdefault(probe.at, _Evidence())
        if evidence.decision == "UNDECIDED":
            evidence.decision = finding.decision
        evidence.leaning = max(-_MAX_LEANING, min(_MAX_LEANING, finding.leaning))
        evidence.tests += probe.purpose is Purpose.TEST

    @property
    def threshold(self) -> Threshold:
        """The most likely threshold: the one with the largest sum of leanings that agree with it."""
        positions = sorted(self.known)
        weights = []
        for at in positions:
            evidence = self.known[at]
            decided = {"PASS": _DECIDED, "FAIL": -_DECIDED, "UNDECIDED": 0.0}[evidence.decision]
            weights.append(decided + (evidence.leaning or 1e-9))
        # The threshold before each position in turn, then after the last: the positions below it should pass.
        score = best = -sum(weights)
        passing = 0
        for number, weight in enumerate(weights, start=1):
            score += 2 * weight
            if score > best:
                best, passing = score, number
        return Threshold(
            positions[passing - 1] if passing else None, positions[passing] if passing < len(positions) else None
        )

    @property
    def passed(self) -> int | None:
        """The highest position that is decided to pass, below all that are decided to fail."""
        failed = min(self._decided("FAIL"), default=math.inf)
        return max((at for at in self._decided("PASS") if at < failed), default=None)

    @property
    def failed(self) -> int | None:
        """The lowest position that is decided to fail, above all that are decided to pass."""
        passed = max(self._decided("PASS"), default=-math.inf)
        return min((at for at in self._decided("FAIL") if at > passed), default=None)

    @property
    def monotone(self) -> bool:
        """Whether every position decided to pass is below every position decided to fail."""
        return max(self._decided("PASS"), default=-math.inf) < min(self._decided("FAIL"), default=math.inf)

    def _decided(self, decision: str) -> Iterator[int]:
        return (at for at, evidence in self.known.items() if evidence.decision == decision)

    @property
    def narrow(self) -> bool:
        """Whether the range is as narrow as `precision`, or ends at an end of the grid."""
        passed, failed = self.passed, self.failed
        if passed == self.grid.highest or failed == self.grid.lowest:
            return True
        if passed is None or failed is None:
            return False
        low, high = self.grid.amount(passed), self.grid.amount(failed)
        return failed - passed <= 1 or self.grid.amount(failed - 1) - low <= self.precision * math.sqrt(low * high)

    def next(self) -> Probe | None:
        """The next probe; `None` when the range is narrow enough, or no probe is left to try."""
        if not self.known:
            return Probe(self.start, Purpose.BRACKET)
        if self.narrow or not self.monotone:
            return None
        passes, fails = self.threshold
        amount, is_full = self.grid.amount, len(self.known) >= self.max_loads
        probe = None
        if passes is not None and fails is None and passes != self.grid.highest:
            probe = Probe(self.grid.nearest(2 * amount(passes)), Purpose.BRACKET)
        elif fails is not None and passes is None and fails != self.grid.lowest:
            probe = Probe(self.grid.nearest(amount(fails) / 2), Purpose.BRACKET)
        elif passes is not None and fails is not None:
            is_close = fails - passes <= 1 or amount(fails) / amount(passes) <= _CLOSE
            probe = None if is_close else Probe(self.grid.between(passes, fails), Purpose.REFINE)
        if probe is not None and probe.at not in self.known and not is_full:
            return probe

        # Test the looser side first: the one whose decided end is further from the threshold. If neither has a decided
        # end, test for FAIL first, which takes little time.
        def slack(likely: int | None, decided: int | None) -> float:
            if likely is None or decided is None:
                return -1.0 if likely is None else math.inf
            return abs(math.log(amount(likely) / amount(decided)))

        above, below = slack(fails, self.failed), slack(passes, self.passed)
        for is_below, distance in sorted(((False, above), (True, below)), key=lambda side: -side[1]):
            at = self.aim(passes=is_below) if distance >= 0 else None
            if at is None or (is_full and at not in self.known):
                continue
            tests = self.known[at].tests if at in self.known else 0
            if tests < _MAX_TESTS:
                return Probe(at, Purpose.TEST, "PASS" if is_below else "FAIL", tests)
        return None


@dataclass(frozen=True, slots=True)
class Budget:
    """How the time of a search is divided; all times are in ns. Later phases may use the time that earlier ones leave.

    An eighth is reserved for the two repeat tests and the verification. The throughput curve, if there is one
    (`loadbench.plan.curve`), takes less than a quarter.
    """

    total_ns: int

    @property
    def step_ns(self) -> int:
        """The time of a step of the throughput curve, including its warm-up."""
        return self.total_ns // 40

    @property
    def reserved_ns(self) -> int:
        """The time for the repeat tests and the verification."""
        return self.total_ns // 8

    def curve_ns(self, *, spent_ns: int, warm_up_ns: int, response_ns: int) -> int | None:
        """How long the next step of the curve may measure, after `spent_ns` for the curve; `None` if that is too short.

        In a step each user must get a few responses, or its throughput is due to chance.
        """
        measure_ns = min(self.step_ns, self.total_ns // 4 - spent_ns) - warm_up_ns
        return measure_ns if measure_ns >= _MIN_RESPONSES * response_ns else None

    def probe_ns(
        self, purpose: Purpose, *, spent_ns: int, warm_up_ns: int, expects: Literal["PASS", "FAIL"] | None = None
    ) -> int | None:
        """How long a probe may measure after its warm-up; `None` if the remaining time is too short: for a test less
        than a warm-up, for the others less than half of one, which is about half of a user's cycle.

        Bracketing and refining take a thirtieth of the total each time, but at least the length of a warm-up. A test
        for PASS may take two thirds of the remaining time, a test for FAIL a quarter, because it needs fewer requests.
        A repeat test takes a quarter of the reserved time, and the verification half of it.
        """
        left_ns = self.total_ns - spent_ns - warm_up_ns
        match purpose:
            case Purpose.VERIFY:
                share_ns = self.reserved_ns // 2
            case Purpose.REPEAT:
                share_ns = self.reserved_ns // 4 - warm_up_ns
            case Purpose.TEST:
                left_ns -= self.reserved_ns
                share_ns = left_ns // 4 if expects == "FAIL" else 2 * left_ns // 3
            case Purpose.BRACKET | Purpose.REFINE:
                left_ns -= self.reserved_ns
                share_ns = self.total_ns // 30 - warm_up_ns
        min_ns = warm_up_ns if purpose is Purpose.TEST else warm_up_ns // 2
        measure_ns = min(left_ns, max(share_ns, warm_up_ns))
        return measure_ns if measure_ns > 0 and measure_ns >= min_ns else None
