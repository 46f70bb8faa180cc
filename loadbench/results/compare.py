"""`loadbench.compare/1`: the comparison of two sides, as types. People script against it, so it must stay stable.

`ratio` is b over a, and "faster" means b: more tokens per second are faster, and so is less time to the first token.
Times are seconds, rates per second, what is unknown is null. Within a version of the schema fields may be added;
changing or removing one makes a new version:

    loadbench.compare/1   the first
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from loadbench.results.run import Interval, OpenInterval, Reason  # noqa: TC001 - msgspec reads the types

SCHEMA: Final = "loadbench.compare/1"
# The number of the rules by which figures are decided; files from before it was saved have 0. Those of 1 compared the
# gaps of events that came together.
RULES: Final = 2
# The code of a figure that is left out because of too few requests; for p99 this is common and no mistake.
TOO_FEW_REQUESTS: Final = "too_few_requests"
# The code of a figure that some runs do not have at all, as when no token came: a gate on it fails.
NO_SAMPLES: Final = "no_samples"
# Prefill and decode as speeds, in `speed`: prompt tokens/s of a request that waited for no other, and output tokens/s
# that one user sees after the first token.
PREFILL: Final = "prefill_tokens_per_s"
DECODE: Final = "decode_tokens_per_s"
# Why a whole level is not compared, by code.
NOT_COMPARED: Final = {
    "invalid": "INVALID",
    "interrupted": "cut short",
    "empty": "without a request",
    "missing": "not in every run",
    "one_side": "on one side only",
}

Speed = Literal["faster", "slower", "~"]


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The most memory that a side's server used at any level, in bytes: of its process, and of GPUs. `board_of` says
    whether the latter is the process's own or, where that is not known, all that was used on the boards that were busy.
    """

    process_bytes: float | None = None
    board_bytes: float | None = None
    board_of: Literal["process", "board"] | None = None


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """How long a side took to begin, in seconds: medians over the runs that show it, and null where none does.

    `ready_s` and `first_response_s` count from the start of the command of a server that loadbench started. `load_s` is
    how long loading the model took; `cold_ttft_s` the time to the first token of the first request of the
    first run, `warm_ttft_s` that of a later one of the same length.
    """

    ready_s: float | None = None
    first_response_s: float | None = None
    load_s: float | None = None
    cold_ttft_s: float | None = None
    warm_ttft_s: float | None = None


class MetObjectives(msgspec.Struct, frozen=True, kw_only=True):
    """The objectives (`rules`) at the loads that were measured: `up_to` is the highest load up to which every run met
    all of them, `missed_at` the lowest at which a run missed one and none met all, with the rules that were `missed`.
    A load between the two is not decided. A search says how many users a side can serve: `compare --capacity`."""

    rules: list[str]
    up_to: str | None = None
    missed_at: str | None = None
    missed: list[str] = []


class AloneFigure(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a load that only one side has: the geometric mean over its `runs` that count there, in seconds, per
    second, or joules or money per token. There is nothing to compare it with."""

    level: str
    metric: str
    value: float
    runs: int


class ComparedSide(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two sides: what was measured, in which runs, and on what device, if that is known. `targets` are
    several servers that shared the load. `sessions` is the number of sessions that the runs are from: runs of one side
    that followed each other on one machine within half an hour are one. `starts_s` are the seconds that each start of
    its server, or each loading of its model, took before the levels of a run, where only one side was up at a time.
    `command` is the one by which loadbench started its server, without secrets. `alone` are figures that the other side
    does not have. `apart` is what the side is and the other is not, as far as is known (flags of its command, a name, a
    version, how many requests its server runs at once). `load_from` says which workers made its load; empty where it
    was one process."""

    name: str
    target: str
    targets: list[str] = []
    model: str
    runs: list[str]
    sessions: int = 0
    device: str | None = None
    simulated: bool = False
    insecure: bool = False  # certificates were not verified
    starts_s: list[float] = []
    memory: Memory | None = None
    cold_start: ColdStart | None = None
    objectives: MetObjectives | None = None
    command: str = ""
    alone: list[AloneFigure] = []
    apart: list[str] = []
    load_from: str = ""


class ComparedFigure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure at one level, or over all levels (`level` is then `all`, and a and b geometric means).

    `a` and `b` are the geometric means over the runs, or over the sessions. For `failures`, which may be 0, `ratio` is
    null and `interval` is that of the difference b - a of the shares. A figure that says nothing, such as the gaps of
    events that came together, has no ratio and no interval, and its `note` says why. A decision of `~` means that no
    difference could be shown; the interval excludes 1 (for failures 0) exactly where one is. `open_interval` has it
    where nothing bounds it on one side (one run a side); `interval` is then null. `confidence` is that of this
    interval; all figures of a level together have the comparison's. Where only the rank test shows the difference,
    `ratio` and `interval` are those of the rank test.

    `p_value` is that of the exact rank test (Mann-Whitney of runs or sessions, or Wilcoxon's signed ranks for pairs);
    null with one run a side. `p_adjusted` is that of the decision, adjusted for the number of figures. `shift` is
    the Hodges-Lehmann ratio. `detectable` is the relative change of this figure that four of five such comparisons
    would show; smaller ones may go unnoticed; null: none would be shown. `note` says why there is no decision.

    For `joules_per_output_token` and `cost_per_million_output_tokens` "faster" means less; with one run a side they
    have no interval.
    """

    level: str
    metric: str
    a: float
    b: float
    a_interval: Interval | None = None
    b_interval: Interval | None = None
    ratio: float | None
    interval: Interval | None
    open_interval: OpenInterval | None = None
    confidence: float = 0.95
    decision: Speed
    p_value: float | None = None
    p_adjusted: float | None = None
    n: tuple[int, int]
    shift: float | None = None
    shift_interval: Interval | None = None
    detectable: float | None = None
    note: str = ""

    @property
    def ends(self) -> tuple[float, float] | None:
        """The interval; an open end is 0 or infinite."""
        if self.open_interval is None:
            return self.interval
        low, high = self.open_interval
        return 0.0 if low is None else low, math.inf if high is None else high


class Crossover(msgspec.Struct, frozen=True, kw_only=True):
    """The number of users beyond which the other side is better in a figure, with its interval."""

    users: float
    low: float
    high: float
    beyond: Literal["a", "b"]


class GateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A gate at one level. `p_value` tests "no change beyond the bound", adjusted for the number of checks."""

    level: str
    decision: Literal["PASS", "FAIL", "UNDECIDED"]
    ratio: float | None = None
    interval: Interval | None = None
    p_value: float | None = None
    note: str = ""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One rule: false if it fails at any of its levels, true if it passes at all of them, else null."""

    rule: str
    passed: bool | None
    checks: list[GateCheck]


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """What is not compared, and why: a figure of a level, one run's part in it, or, without both, the whole level."""

    level: str
    metric: str = ""
    run: str = ""
    code: str
    message: str


class OutputComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The response texts of deterministic runs, by their digests.

    `prompts` were sent to both sides; for `equal` of them all texts are the same. `differing` has the digests of the
    prompts for which each side always gave one text, and b another than a; `unsteady` of those for which a side gave
    several.
    """

    prompts: int
    equal: int
    differing: list[str] = []
    unsteady: list[str] = []


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What the comparison says to somebody who has to choose a side, in one `sentence`.

    `faster` is the side that is shown to be faster from `from_level` on, up to the highest load; null if neither is.
    `worth_it` says that its speed-up there is surely larger than the factor by which its energy and cost per token are
    higher; null if neither of these is known. `unknown` is what the sentence names as not known.
    """

    sentence: str
    faster: Literal["a", "b"] | None = None
    from_level: str | None = None
    worth_it: bool | None = None
    unknown: list[str] = []


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two sides compared.

    `basis` is what the intervals are from: the spread of whole runs that were measured in pairs, that between sessions,
    or, with one run a side, the requests within each. `assumed_drift` is the standard deviation of a machine's speed
    between sessions that was assumed, as a share, because there are too few sessions or pairs to show it.
    `winner` is the side that clearly has more output tokens per second at every compared level; null if neither has,
    or if there is a crossover.

    `speed` has prefill and decode as speeds (`PREFILL`, `DECODE`): the same measurements as TTFT p50 and TPOT p50, and
    decided with them. `crossover` is that of output tokens per second, and `price_crossovers` are those of energy and
    cost per token, by metric, where they cross. `currency` is that of the cost. `ended_early` says why the measurement
    ended before its plan; the repeats up to then are compared.
    `counted` says how many runs count, why the others do not, and which levels are INCONCLUSIVE.
    `rules` is `RULES` of the version that decided it: `loadbench report` computes one of older rules again.
    """

    schema: Literal["loadbench.compare/1"] = SCHEMA
    rules: int = 0
    a: ComparedSide
    b: ComparedSide
    paired: bool
    basis: Literal["runs", "sessions", "inside"]
    assumed_drift: float | None = None
    confidence: float
    comparisons: list[ComparedFigure]
    overall: list[ComparedFigure] = []
    speed: list[ComparedFigure] = []
    currency: str | None = None
    crossover: Crossover | None = None
    price_crossovers: dict[str, Crossover] = {}
    winner: Literal["a", "b"] | None = None
    gates: list[Gate] = []
    left_out: list[LeftOut] = []
    caveats: list[Reason] = []
    answers: OutputComparison | None = None
    conclusion: str
    summary: Summary | None = None
    counted: str = ""
    ended_early: str = ""
