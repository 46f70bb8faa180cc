"""The search for the highest load that meets its objectives: which load to try next, and for what. Pure.

Loads are positions on a grid: users one by one, rates 5 % apart. A probe at a position finds PASS or FAIL, where that
is sure, or UNDECIDED; and it *leans* to one of them, by how much likelier one of them makes what was seen. The search

1. *brackets*: doubles from its first position while probes lean to PASS, or halves while they lean to FAIL;
2. *bisects* between the last that leans so and the first that leans otherwise, until these are near each other. What
   such probes lean to may be wrong, and they are short: all that follows from them is where to look closely. Of all
   positions it is the likeliest border that counts (`Search.border`), so that one of them can be overruled by the rest;
3. *proves*: looks for the highest position that surely passes and the lowest that surely fails, on the looser side
   first. Nearer to the border a proof takes longer; where it is worth the time that is left it is told (`Aim`), and
   told anew after each probe.

It ends when the range between both is as narrow as was asked for. How long a probe may take, and when there is no more
time, is decided by who runs it (`Budget`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

Decision = Literal["PASS", "FAIL", "UNDECIDED"]

# Rates lie this far apart; so does what a prover steps by among users.
RESOLUTION = 0.05
# Loads that are visited besides those of the bracket, at most.
_TO_PROVE = 8
# A position is tried so often in all.
_MOST_VISITS = 4
# No leaning counts for more than this, and what is sure for more than all leaning together.
_MOST_LEANING = 1e3
_SURE = 1e6
# Answers that a user must have time for on a rung of the ladder.
_FEWEST_TURNS = 3
# Loads that lie nearer to each other than this are not bisected.
_NEAR = 1.42


class Purpose(StrEnum):
    """What a probe is for."""

    BRACKET = "bracket"
    BISECT = "bisect"
    PROVE = "prove"
    AGAIN = "again"
    VERIFY = "verify"


class Probe(NamedTuple):
    """A position to measure, and what for; one that is to be proven, what is wanted there. `visit` counts these."""

    at: int
    purpose: Purpose
    wants: Literal["PASS", "FAIL"] | None = None
    visit: int = 0


class Finding(NamedTuple):
    """What is known of a load. `leaning` is above 0 where the shares seen are large enough: the logarithm of how much
    likelier they make what they say, of the objective that limits. `effort` is how many times the requests seen so far
    a decision is likely to take in all.
    """

    decision: Decision
    leaning: float
    effort: float = 1.0


class Grid(Protocol):
    """Positions of loads, ascending with them."""

    @property
    def least(self) -> int:
        """The first."""
        ...

    @property
    def most(self) -> int:
        """The last."""
        ...

    def amount(self, at: int) -> float:
        """Users, or requests per second."""
        ...

    def nearest(self, amount: float) -> int:
        """The position of a load, within the grid."""
        ...

    def step(self, at: int) -> int:
        """How many positions are about 5 % there."""
        ...

    def between(self, low: int, high: int) -> int:
        """Half-way, by ratio."""
        ...


@dataclass(frozen=True, slots=True)
class Users:
    """One user, two, …: the position is their number."""

    most: int
    least: int = 1

    def amount(self, at: int) -> float:
        """So many."""
        return at

    def nearest(self, amount: float) -> int:
        """Rounded."""
        return min(self.most, max(self.least, round(amount)))

    def step(self, at: int) -> int:
        """One at the least."""
        return max(1, round(RESOLUTION * at))

    def between(self, low: int, high: int) -> int:
        """The geometric mean."""
        return round(math.sqrt(max(low, 1) * high))


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of 1.05 to the power of the position, per second."""

    least: int
    most: int

    @classmethod
    def of(cls, lowest: float, highest: float) -> Rates:
        """Those between two rates; one at the least."""
        span = math.log1p(RESOLUTION)
        most = math.floor(math.log(highest) / span + 1e-9)
        return cls(min(most, math.ceil(math.log(lowest) / span - 1e-9)), most)

    def amount(self, at: int) -> float:
        """To four digits, as they are shown."""
        return float(f"{(1 + RESOLUTION) ** at:.4g}")

    def nearest(self, amount: float) -> int:
        """On the logarithmic grid."""
        return min(self.most, max(self.least, round(math.log(amount) / math.log1p(RESOLUTION))))

    def step(self, at: int) -> int:  # noqa: ARG002 - the same everywhere
        """One."""
        return 1

    def between(self, low: int, high: int) -> int:
        """The middle position."""
        return (low + high) // 2


class Aim(Protocol):
    """Says where a proof is worth its time, strictly between what is proven."""

    def __call__(self, *, passes: bool) -> int | None:
        """The position to prove to pass, or to fail; `None`: nowhere."""
        ...


@dataclass(slots=True)
class _Known:
    """What has been found out about a position."""

    decision: Decision = "UNDECIDED"
    leaning: float = 0.0
    visits: int = 0  # to prove something there


class Border(NamedTuple):
    """Between the last position that is likelier to pass and the first that is likelier to fail; `None`: not known."""

    passes: int | None
    fails: int | None


@dataclass(slots=True)
class Search:
    """One search; `start` is its first position, `precision` the width of its range, as a share, that is enough."""

    grid: Grid
    start: int
    aim: Aim
    precision: float = 0.2
    known: dict[int, _Known] = field(default_factory=dict)

    @property
    def most_loads(self) -> int:
        """How many loads it visits at most; errors are shared among so many."""
        top, bottom = self.grid.amount(self.grid.most), self.grid.amount(self.grid.least)
        start = self.grid.amount(self.start)
        bracket = math.ceil(math.log2(max(top / start, start / bottom, 1.0))) + 1
        return bracket + _TO_PROVE

    def told(self, probe: Probe, found: Finding) -> None:
        """What is known of a position after a probe, with all that was known of it before. What is sure stays so."""
        known = self.known.setdefault(probe.at, _Known())
        if known.decision == "UNDECIDED":
            known.decision = found.decision
        known.leaning = max(-_MOST_LEANING, min(_MOST_LEANING, found.leaning))
        known.visits += probe.purpose is Purpose.PROVE

    @property
    def border(self) -> Border:
        """The likeliest one: that which most of the leaning agrees with. What is sure outweighs all leaning."""
        places = sorted(self.known)
        # The border before each place in turn, then behind the last: what fails on its passing side counts against it.
        score = best = sum(-self._weight(at) for at in places)
        cut = 0
        for number, at in enumerate(places, start=1):
            score += 2 * self._weight(at)
            if score > best:
                best, cut = score, number
        return Border(places[cut - 1] if cut else None, places[cut] if cut < len(places) else None)

    def _weight(self, at: int) -> float:
        known = self.known[at]
        sure = {"PASS": _SURE, "FAIL": -_SURE, "UNDECIDED": 0.0}[known.decision]
        return sure + (known.leaning or 1e-9)

    @property
    def passed(self) -> int | None:
        """The highest position that surely passes, below any that surely fails."""
        failed = min(self._decided("FAIL"), default=math.inf)
        return max((at for at in self._decided("PASS") if at < failed), default=None)

    @property
    def failed(self) -> int | None:
        """The lowest position that surely fails, above any that surely passes."""
        passed = max(self._decided("PASS"), default=-math.inf)
        return min((at for at in self._decided("FAIL") if at > passed), default=None)

    @property
    def monotone(self) -> bool:
        """Whether nothing that surely passes lies above what surely fails."""
        return max(self._decided("PASS"), default=-math.inf) < min(self._decided("FAIL"), default=math.inf)

    def _decided(self, decision: str) -> Iterator[int]:
        return (at for at, known in self.known.items() if known.decision == decision)

    @property
    def narrow(self) -> bool:
        """Whether the range is as narrow as was asked for, or has an end where the grid has."""
        passed, failed = self.passed, self.failed
        if passed == self.grid.most or failed == self.grid.least:
            return True
        if passed is None or failed is None:
            return False
        low, high = self.grid.amount(passed), self.grid.amount(failed)
        return failed - passed <= 1 or self.grid.amount(failed - 1) - low <= self.precision * math.sqrt(low * high)

    def next(self) -> Probe | None:
        """What to measure next; `None` when it is narrow enough, or nothing is left to try."""
        if not self.known:
            return Probe(self.start, Purpose.BRACKET)
        if self.narrow or not self.monotone:
            return None
        passes, fails = self.border
        if fails is None and passes != self.grid.most:
            return self._new(self._times(passes, 2.0), Purpose.BRACKET) or self._prove(passes, fails)
        if passes is None and fails != self.grid.least:
            return self._new(self._times(fails, 0.5), Purpose.BRACKET) or self._prove(passes, fails)
        if passes is not None and fails is not None and self._far(passes, fails):
            middle = self._new(self.grid.between(passes, fails), Purpose.BISECT)
            if middle is not None:
                return middle
        return self._prove(passes, fails)

    def _times(self, at: int | None, factor: float) -> int:
        assert at is not None  # noqa: S101 - something is known, so one side of the border is
        return self.grid.nearest(factor * self.grid.amount(at))

    def _new(self, at: int, purpose: Purpose) -> Probe | None:
        return None if at in self.known or len(self.known) >= self.most_loads else Probe(at, purpose)

    def _far(self, passes: int, fails: int) -> bool:
        """Short probes cannot tell loads apart that lie nearer than this."""
        return fails - passes > 1 and self.grid.amount(fails) / self.grid.amount(passes) > _NEAR

    def _prove(self, passes: int | None, fails: int | None) -> Probe | None:
        """On the looser side first; of two that are open, above, where little time proves much."""
        for below in sorted((False, True), key=lambda below: -self._slack(passes, fails, below=below)):
            at = self.aim(passes=below) if self._slack(passes, fails, below=below) >= 0 else None
            if at is not None and self._visits(at) < _MOST_VISITS and self._may_visit(at):
                return Probe(at, Purpose.PROVE, "PASS" if below else "FAIL", self._visits(at))
        return None

    def _visits(self, at: int) -> int:
        return self.known[at].visits if at in self.known else 0

    def _may_visit(self, at: int) -> bool:
        return at in self.known or len(self.known) < self.most_loads

    def _slack(self, passes: int | None, fails: int | None, *, below: bool) -> float:
        """How far the proven end of a side is from the border, as a logarithm; infinite where none is proven, and below
        0 where nothing can be."""
        near, proven = (passes, self.passed) if below else (fails, self.failed)
        if near is None:
            return -1.0
        if proven is None:
            return math.inf
        return abs(math.log(self.grid.amount(near) / self.grid.amount(proven)))


@dataclass(frozen=True, slots=True)
class Budget:
    """How the time of a search is shared out; all times in ns. What the search itself leaves over it may use up.

    An eighth is kept for the two probes that are made again and the verification. Where there is a ladder of loads
    without think time (`loadbench.plan.curve`), it takes less than a quarter.
    """

    total_ns: int

    @property
    def step_ns(self) -> int:
        """For a rung of the ladder, with its warm-up."""
        return self.total_ns // 40

    def curve_ns(self, *, gone_ns: int, warm_up_ns: int, answer_ns: int) -> int | None:
        """How long the next rung may measure, when the ladder has taken so long; `None` where that shows too little.

        A rung must see each user ask a few times, or its throughput is one of chance.
        """
        measure_ns = min(self.step_ns, self.total_ns // 4 - gone_ns) - warm_up_ns
        return measure_ns if measure_ns >= _FEWEST_TURNS * answer_ns else None

    @property
    def kept_ns(self) -> int:
        """For the ends again and the verification."""
        return self.total_ns // 8

    def probe_ns(
        self, purpose: Purpose, *, spent_ns: int, warm_up_ns: int, wants: Literal["PASS", "FAIL"] | None = None
    ) -> int | None:
        """How long a probe may measure, its warm-up apart; `None` where too little is left for it: less than a warm-up
        for a proof, than half of one, about half of a user's cycle, for anything else.

        To find the border takes a thirtieth each time, but a warm-up's length at the least; that a load passes
        may take two thirds of what is left, that one fails a quarter, for less needs to be seen; to measure again takes
        a quarter of what is kept, and to verify the rest.
        """
        left_ns = self.total_ns - spent_ns - warm_up_ns
        match purpose:
            case Purpose.VERIFY:
                share_ns = self.kept_ns // 2
            case Purpose.AGAIN:
                share_ns = self.kept_ns // 4 - warm_up_ns
            case Purpose.PROVE:
                left_ns -= self.kept_ns
                share_ns = left_ns // 4 if wants == "FAIL" else 2 * left_ns // 3
            case Purpose.BRACKET | Purpose.BISECT:
                left_ns -= self.kept_ns
                share_ns = self.total_ns // 30 - warm_up_ns
        least_ns = warm_up_ns if purpose is Purpose.PROVE else warm_up_ns // 2
        measure_ns = min(left_ns, max(share_ns, warm_up_ns))
        return measure_ns if measure_ns > 0 and measure_ns >= least_ns else None
