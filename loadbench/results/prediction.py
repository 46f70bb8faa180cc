"""What is made of a run's levels: how many people fit, by which model, what is in the way, and whether it is fair.

These are answers of the reading arm, as types: `loadbench.analyze.capacity.prediction`, `scaling`, `limits` and
`fairness` fill
them in. As in `run.json` times are seconds, rates are per second, and what is not known is null. They stand inside
`capacity.json`; fields may be added to them, and none changed.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from loadbench.results.run import Interval, Reason  # noqa: TC001 - msgspec reads the types when it decodes

BottleneckKind = Literal["prefill", "decode", "slots", "memory", "queue", "client", "unknown"]
ScalingModel = Literal["usl", "batch", "slots"]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure and its interval, at the confidence of what it is part of; an end that is null is not known."""

    value: float
    low: float | None = None
    high: float | None = None


class PredictedCapacity(msgspec.Struct, frozen=True, kw_only=True):
    """How many users fit, with this think time, under one objective; `rule` is empty for all of them together.

    0 users: not even one. With `at_least` more may fit: the levels that were measured do not reach so far, and
    `high` is null. Of a think time of 0 it says how many can have a request in flight at once. A rule that cannot be
    predicted has no `users`, and says why in `note`.
    """

    think_s: float
    rule: str = ""
    users: int | None
    low: int | None = None
    high: int | None = None
    at_least: bool = False
    note: str = ""


class PredictedCurve(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says for each number of users, to be drawn: one entry in each list for each in `users`.

    `figures` holds for each rule what the rule names, in its unit; null is infinite. `beyond` is the share of requests
    that would find more in flight than was measured: they are left out of the figures.
    """

    think_s: float
    users: list[int]
    requests_per_s: list[float]
    response_s: list[float]
    in_flight: list[float]
    figures: dict[str, list[float | None]]
    beyond: list[float]


class Cliff(msgspec.Struct, frozen=True, kw_only=True):
    """A fall of throughput that no smooth model explains, somewhere between two levels."""

    above_users: float
    at_most_users: float
    expected_per_s: float
    measured_per_s: float


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """A curve through throughput over users, or why there is none (`model` null, and `note`).

    `errors` are the relative errors of each model at levels that it had not seen (root mean square); the least won, the
    simpler where they are alike. `reach_users` is as far as it may be asked. `peak_users` is where throughput is
    greatest; null where the levels do not show a peak: then it is at the last of them at least.
    """

    model: ScalingModel | None = None
    parameters: dict[str, Estimate] = {}
    peak_users: Estimate | None = None
    most_per_s: Estimate | None = None
    reach_users: float | None = None
    errors: dict[ScalingModel, float] = {}
    cliff: Cliff | None = None
    note: str = ""


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """How many users fit at each think time, from levels without think time.

    `refused` says why there is no prediction, and is empty where there is one. `measured_users` are those of the levels
    that it rests on. `caveats` are what it takes for granted of the server, and what in the levels speaks against it.
    """

    confidence: float
    refused: str = ""
    measured_users: list[int] = []
    fits: list[PredictedCapacity] = []
    curves: list[PredictedCurve] = []
    scaling: Scaling | None = None
    caveats: list[Reason] = []


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One figure that a conclusion rests on, and what it is in words."""

    name: str
    value: float
    what: str


class Bottleneck(msgspec.Struct, frozen=True, kw_only=True):
    """What keeps more people from being served, as far as the levels tell; `sentence` is for people.

    `slots` is how many requests seem to run at once, where that can be seen.
    """

    kind: BottleneckKind
    sentence: str
    evidence: list[Evidence] = []
    advice: str = ""
    slots: Estimate | None = None


class StarvedUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user who got far less than the others, and by which of the two rules."""

    user: int
    answers: int
    mean_ttft_s: float | None
    rule: str


class Fairness(msgspec.Struct, frozen=True, kw_only=True):
    """How evenly the users of one closed level were served.

    Jain's index is 1 where all had the same and 1/n where one had everything; each with its 95 % interval, null where
    there is too little for one. `note` says what is missing.
    """

    level: int
    users: int
    answers: int
    throughput: float | None
    throughput_interval: Interval | None = None
    ttft: float | None
    ttft_interval: Interval | None = None
    starved: list[StarvedUser] = []
    note: str = ""


class FleetSize(msgspec.Struct, frozen=True, kw_only=True):
    """How many devices so many people need; `most` by the low end of what one device serves, `least` by its high end.

    `devices` is the number to buy: it is enough by the low end, with the headroom. A null is not known.
    """

    people: int
    headroom: float
    per_device: int
    devices: int | None
    least: int | None = None
    note: str = ""
