"""Conclusions from a run's levels, as types: the predicted capacity, the bottleneck, fairness, the size of a fleet.

`loadbench.analyze` fills them in. As in `run.json`, times are seconds, rates are per second, and what is unknown is
null. They are part of `capacity.json`: fields may be added, and none changed.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from loadbench.results.run import Interval, Reason  # noqa: TC001 - msgspec reads the types when it decodes

BottleneckKind = Literal["prefill", "decode", "slots", "memory", "queue", "client", "unknown"]
ScalingModel = Literal["usl", "batch", "slots"]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure and its interval, at the confidence of what it is part of; an end that is null is unknown."""

    value: float
    low: float | None = None
    high: float | None = None


class PredictedCapacity(msgspec.Struct, frozen=True, kw_only=True):
    """How many users meet one objective with this think time; `rule` is empty for all objectives together.

    0 users: not even one. `at_least`: there may be more, but the measured levels do not reach that far, and `high` is
    null. With a think time of 0 it is the number of requests in flight at once. A rule that cannot be predicted has no
    `users`, and `note` says why.
    """

    think_s: float
    rule: str = ""
    users: int | None
    low: int | None = None
    high: int | None = None
    at_least: bool = False
    note: str = ""


class PredictedCurve(msgspec.Struct, frozen=True, kw_only=True):
    """What the model predicts for each number of users, for a chart: every list has an entry for each in `users`.

    `figures` has for each rule what the rule names, in its unit; null is infinite. `beyond` is the share of requests
    that arrive when more are in flight than was measured; the figures do not include them.
    """

    think_s: float
    users: list[int]
    requests_per_s: list[float]
    response_s: list[float]
    in_flight: list[float]
    figures: dict[str, list[float | None]]
    beyond: list[float]


class Cliff(msgspec.Struct, frozen=True, kw_only=True):
    """A drop of throughput between two levels that no smooth model explains."""

    above_users: float
    at_most_users: float
    expected_per_s: float
    measured_per_s: float


class Scaling(msgspec.Struct, frozen=True, kw_only=True):
    """A curve through throughput over users, or why there is none (`model` null, and `note`).

    `errors` are the relative errors of each model at levels left out of its fit (root mean square); the smallest wins,
    or the simpler model if they are alike. The curve is valid up to `reach_users`. `peak_users` is where throughput is
    highest; null if the levels show no peak: it is then at the last of them or beyond.
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
    """The capacity at each think time, from levels without think time.

    `refused` says why there is no prediction, and is empty if there is one. `measured_users` are the levels it uses.
    `caveats` are its assumptions about the server, and what in the levels contradicts them.
    """

    confidence: float
    refused: str = ""
    measured_users: list[int] = []
    fits: list[PredictedCapacity] = []
    curves: list[PredictedCurve] = []
    scaling: Scaling | None = None
    caveats: list[Reason] = []


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that supports a conclusion, and what it is in words."""

    name: str
    value: float
    what: str


class Bottleneck(msgspec.Struct, frozen=True, kw_only=True):
    """What limits the number of users, as far as the levels show; `sentence` is for people.

    `slots` is the number of requests that seem to run at once, if that can be seen. `ceiling_per_s` is the throughput
    in requests per second that does not grow with more requests in flight; `None` where it still grew. With it,
    `unknown` says that the server's speed is the limit, and that it is not known whether prompts or decoding take most.
    """

    kind: BottleneckKind
    sentence: str
    evidence: list[Evidence] = []
    advice: str = ""
    slots: Estimate | None = None
    ceiling_per_s: float | None = None


class StarvedUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user who got far less than the others, and by which of the two rules."""

    user: int
    answers: int
    mean_ttft_s: float | None
    rule: str


class Fairness(msgspec.Struct, frozen=True, kw_only=True):
    """How evenly the users of one closed level were served.

    Jain's index is 1 if all users had the same, and 1/n if one of n had everything; of throughput and of the time to
    first token, each with its 95 % interval, or null if there is too little data. `note` says what is missing.
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
    """How many devices a number of people needs.

    `devices` is the number to buy: enough at the low end of one device's capacity, with the headroom. `least` is enough
    at its high end. Null is unknown.
    """

    people: int
    headroom: float
    per_device: int
    devices: int | None
    least: int | None = None
    note: str = ""
