"""What was seen beside the requests, as `run.json` has it: the machine, the server's own account, energy, cost.

Each type belongs to one level; what is not known is null or left out, never 0. The names of readings have their unit
in them, and end in `_total` where they count up, as in Prometheus.
"""

from __future__ import annotations

import msgspec

Range = tuple[float, float]


class Gauge(msgspec.Struct, frozen=True, kw_only=True):
    """What goes up and down, over the window: the mean is by time, by straight lines between the readings, and `min`
    and `max` are those of the lines; `last` is the last of the readings that fell inside, of which there were so many.
    """

    mean: float
    min: float
    max: float
    last: float
    readings: int


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """The readings of one window. `counters` are what each rose by, told between two readings by a straight line.

    `resets` names the counters that fell meanwhile: what they counted began anew, and their rise is the least it was.
    """

    gauges: dict[str, Gauge] = {}
    counters: dict[str, float] = {}
    resets: list[str] = []


class ServerHistogram(msgspec.Struct, frozen=True, kw_only=True):
    """One of the server's own histograms, from before the warm-up until after the drain, over all its labels.

    The mean is exact. The quantiles are interpolated inside the bucket that holds them, and no better than its width;
    null where it is the last, which has no upper end.
    """

    source: str
    count: int
    mean: float
    p50: float | None
    p90: float | None
    p99: float | None


class FirstTokenBreakdown(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time to the first token went, in means: `rest_s` is the client's less what the server tells of.

    `source` is `timings` where the server told it request by request, else the histograms it is taken from; those are
    of all requests, the warm-up's too. Without `queue_s` a wait for the server's turn is in the rest.
    """

    source: str
    count: int
    client_s: float
    queue_s: float | None
    prefill_s: float
    rest_s: float


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy over the window. `source` is what was measured, `board` (the accelerators) and `package` (CPU and its
    memory), or `estimate`; the rest of the machine is in none of these.

    `watts_range` is that of an estimate: all but `tokens_per_joule` rise with the watts in proportion. Above idle is
    what the same meters showed before the first request taken off. Tokens per joule is the same as tokens per second
    and watt. `workshop_cost_index` is tokens/s × mean tokens per request × J per token: W × tokens per request, and
    no cost.
    """

    source: str
    meters: list[str] = []
    joules: float
    watts: float
    watts_range: Range | None = None
    idle_watts: float | None = None
    joules_per_output_token: float | None
    joules_per_request: float | None
    joules_per_output_token_above_idle: float | None = None
    joules_per_request_above_idle: float | None = None
    tokens_per_joule: float | None
    workshop_cost_index: float | None = None


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Money for a million output tokens at this level's throughput, in the unit of the prices given.

    `parts` are its addends; one that was asked for and is not known is null, and then there is no sum either.
    """

    per_million_output_tokens: float | None
    range: Range | None = None
    currency: str | None = None
    parts: dict[str, float | None] = {}
    energy_source: str | None = None
