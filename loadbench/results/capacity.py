"""`capacity.json`: the results of a capacity search, as types; a resumed search continues from it.

Times are seconds, rates per second; what is unknown is null. Within a version of the schema fields may be added:

    loadbench.capacity/1   the first
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeVar

import msgspec

from loadbench.core.errors import BadInput
from loadbench.plan.search import Purpose  # noqa: TC001 - types of fields
from loadbench.results.folder import is_part, read_plain
from loadbench.results.prediction import Bottleneck, BottleneckKind, FleetSize, Prediction  # noqa: TC001 - types of fields
from loadbench.results.run import Decision, Interval, ServerStart  # noqa: TC001

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = "loadbench.capacity/1"
FILE: Final = "capacity.json"
SEVERAL_SCHEMA: Final = "loadbench.capacities/1"
SEVERAL_FILE: Final = "capacities.json"

T = TypeVar("T")
Status = Literal["found", "at_least", "none", "inconclusive", "client", "interrupted"]
Strength = Literal["proven", "likely", "estimate"]


class HitShare(msgspec.Struct, frozen=True, kw_only=True):
    """Requests held against one objective: the `share` within its bound, and the share `asked`, which is required.

    `effective` is the effective n: the number of independent requests with as much information. `interval` is the 95 %
    interval of the share for this n and this probe alone. It is for readers; the search decides by other means.
    `inefficiency` is how many hits and misses in a row are worth one independent one, by their autocorrelation; null
    where all are alike.
    """

    share: float | None
    asked: float
    requests: int
    hits: int
    effective: float
    inefficiency: float | None = None
    interval: Interval | None = None


class _Load(msgspec.Struct, frozen=True, kw_only=True):
    """Either users or a rate; the other key is not written."""

    users: int | msgspec.UnsetType = msgspec.UNSET
    rate_per_s: float | msgspec.UnsetType = msgspec.UNSET

    @property
    def amount(self) -> float:
        """Users, or requests per second."""
        return self.users or self.rate_per_s or 0

    @property
    def label(self) -> str:
        """The load as messages write it: `users=8`, `rate=0.5`."""
        return f"rate={self.amount:g}" if isinstance(self.users, msgspec.UnsetType) else f"users={self.users}"


class ProbeResult(_Load, frozen=True, kw_only=True, omit_defaults=True):
    """One probe. `level` is its index in the levels of `run.json`, `at` that of its load on the search's grid.

    The decision is on its load, from all probes up to then; a repeat test (`again`) and the verification (`verify`) are
    decided by their own requests alone.
    """

    decision: Decision
    attainment: dict[str, HitShare]
    requests: int
    gave_up: int = 0  # of the requests, those whose users disconnected
    purpose: Purpose
    visit: int = 0
    level: int
    at: int
    leaning: float
    window_s: float
    answer_s: float | None = None
    overloaded: bool = False
    informed: bool = True  # of a verification: whether a server that clearly misses would have contradicted it
    aborted: str = ""  # the abort rule that ended it, which is why it fails, and what was seen
    caveats: list[str] = []  # what else used the machine during the probe, or disturbed it


class InFlight(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of all probes by the number of requests in flight, from 0: of requests that `met` so many others on
    arrival, of those the `missed` ones of each objective, `seconds` with so many, and responses that `ended` then."""

    met: list[float]
    missed: list[list[float]]
    seconds: list[float]
    ended: list[float]


class CurveLevel(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the throughput curve: a level without think time; `level` is its index in those of `run.json`.

    `missed` says that most of its requests missed an objective. This decides nothing about users with think time.
    """

    users: int
    level: int
    requests_per_s: float
    answer_s: float | None = None
    missed: bool = False
    took_s: float = 0.0


class CapacityAnswer(_Load, frozen=True, kw_only=True):
    """The capacity: the best estimate from every request, and two ranges that contain the true number with this
    confidence.

    `low` is *proven* to meet the objectives, and the next load after `high` is proven not to (for a rate, `high`
    itself). From `likely_low` to `likely_high` is where a curve fitted to all requests has the capacity. An end that
    is not known, or may lie beyond the highest load allowed, is null. `strength`: the range that answers, *proven* or
    *likely*, is narrow; for a likely answer the verification also agrees; otherwise there is only the *estimate*.
    """

    low: float | None
    high: float | None
    likely_low: float | None = None
    likely_high: float | None = None
    strength: Strength = "estimate"
    confidence: float
    limit: BottleneckKind = "unknown"
    think_s: float | None = None

    @property
    def range(self) -> tuple[float | None, float | None]:
        """The range that answers: the proven one if it is the stronger claim or the only one, else the likely one."""
        proven = self.strength == "proven" or self.likely_low is None
        # Nothing bounds it from above, and the proven end is no lower.
        proven = proven or (self.likely_high is None and self.low is not None and self.low >= (self.likely_low or 0))
        return (self.low, self.high) if proven else (self.likely_low, self.likely_high)


class Needed(msgspec.Struct, frozen=True, kw_only=True):
    """About how much more an answer takes: requests, and the time for them.

    Where nothing failed, `proof` are the requests of one probe at the highest load allowed that prove it, and `per_s`
    how many of them that load makes each second."""

    requests: int
    seconds: float
    proof: int | None = None
    per_s: float | None = None


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """A probe at the low end of the likely range: shares `expected` from the search, and those then `measured`.

    `predicted` are the shares by the model, from the levels without think time alone; null if there is no prediction.
    `agrees` compares the measured shares with the required ones; null where the requests could not have contradicted.
    """

    amount: float
    expected: dict[str, float | None]
    predicted: dict[str, float] | None = None
    measured: dict[str, HitShare]
    agrees: bool | None


class AtThinkTime(msgspec.Struct, frozen=True, kw_only=True):
    """The capacity for another think time, in proportion: as many users as send the same requests per second."""

    think_s: float
    users: int
    low: int | None
    high: int | None


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """A search, as far as it has come. `conditions` are the settings that a resumed search must have too."""

    schema: Literal["loadbench.capacity/1"] = SCHEMA
    status: Status
    conclusion: str = ""
    end_reason: str = ""  # why a complete search ended
    answer: CapacityAnswer | None = None
    objectives: list[str]
    model: str
    simulated: bool = False
    insecure: bool = False  # certificates were not verified
    curve: list[CurveLevel] = []
    probes: list[ProbeResult] = []
    in_flight: InFlight | None = None
    monotone: bool = True
    contradictions: list[str] = []
    explanation: Bottleneck | None = None
    prediction: Prediction | None = None
    verification: Verification | None = None
    at_think_times: list[AtThinkTime] = []
    devices: FleetSize | None = None
    needed: Needed | None = None  # for an answer, where there is none
    require: str = "likely"  # the weakest strength that exits with 0
    budget_s: float
    spent_s: float = 0.0
    first_answer_s: float | None = None
    conditions: dict[str, object] = {}
    content_hash: str = ""
    complete: bool = False
    started_at: str = ""
    run: str = ""
    shorter_share: float | None = None  # of the responses, those that ended before their maximum length
    server_start: ServerStart | None = None  # where loadbench started the server

    @property
    def sees_no_limit(self) -> bool:
        """Whether there is no answer because no load favours a miss: then the estimate is only how far it looked."""
        answer, fails = self.answer, any(probe.leaning < 0 or probe.decision == "FAIL" for probe in self.probes)
        is_open = answer is not None and answer.likely_high is None and answer.high is None
        return is_open and self.status not in {"found", "at_least"} and not fails

    @property
    def looked_up_to(self) -> str:
        """The highest load that was measured: `200 users, the highest load allowed`."""
        most = max(self.probes, key=lambda probe: probe.amount)
        by_rate = isinstance(most.users, msgspec.UnsetType)
        is_top = most.amount == self.conditions.get("capacity.at_most")
        unit = "requests/s" if by_rate else "user" if most.amount == 1 else "users"
        return f"{most.amount:g} {unit}, the highest load {'allowed' if is_top else 'measured'}"


class Capacities(msgspec.Struct, frozen=True, kw_only=True):
    """The searches of several models, one after another, each in a folder of its own (`folders`, by model).

    `failed` says, by model, why it could not be searched; one that is in neither was not begun.
    """

    schema: Literal["loadbench.capacities/1"] = SEVERAL_SCHEMA
    folders: dict[str, str]
    searches: list[Capacity] = []
    failed: dict[str, str] = {}


def read_capacity(folder: Path) -> Capacity:
    """The search in a run folder; raises `BadInput` if there is none that this version can read."""
    capacity = _read(folder / FILE, Capacity)
    answer = capacity.answer
    if answer is not None and capacity.status == "found" and answer.strength == "estimate":
        # Before there were likely answers, every answer that was found was proven.
        capacity = msgspec.structs.replace(capacity, answer=msgspec.structs.replace(answer, strength="proven"))
    if answer is not None and capacity.status == "at_least":
        # Older versions ended these ranges at the highest load allowed, which is not where the capacity ends.
        scaled = [msgspec.structs.replace(at, high=None) for at in capacity.at_think_times]
        answer = msgspec.structs.replace(answer, likely_high=None)
        capacity = msgspec.structs.replace(capacity, answer=answer, at_think_times=scaled)
    # Older versions seemed to say that what is true above the limit is true above the number to plan with.
    capacity = msgspec.structs.replace(
        capacity, conclusion=capacity.conclusion.replace("; with more, ", ". Above the limit, ")
    )
    said, estimate, _ = capacity.conclusion.partition(" The best estimate is ")
    if estimate and capacity.sees_no_limit:
        # Older versions called the highest load allowed an estimate, and what they said was needed was too little.
        said = f"{said} No limit was found up to {capacity.looked_up_to}."
        capacity = msgspec.structs.replace(capacity, conclusion=said, needed=None)
    return capacity


def read_capacities(folder: Path) -> Capacities:
    """The searches of several models in a folder, with one that is under way; raises `BadInput` as `read_capacity`."""
    several = _read(folder / SEVERAL_FILE, Capacities)
    for name in several.folders.values():
        if not is_part(folder, name):
            hint = "the file was changed: restore it"
            raise BadInput(f"{folder / SEVERAL_FILE}: {name!r} is no folder in this one", hint=hint)
    known = {*several.failed, *(search.model for search in several.searches)}
    begun = [name for model, name in several.folders.items() if model not in known and (folder / name / FILE).exists()]
    return msgspec.structs.replace(
        several, searches=[*several.searches, *(read_capacity(folder / one) for one in begun)]
    )


def _read(file: Path, of_type: type[T]) -> T:
    try:
        return msgspec.json.decode(read_plain(file), type=of_type)
    except OSError as error:
        raise BadInput(
            f"{file}: {error.strerror or error}", hint="name the folder of a capacity search, under results/"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(
            f"{file}: not a capacity search that this version can read: {error}",
            hint="if the file is damaged, restore it; if another version of loadbench wrote it, use that one",
        ) from None
