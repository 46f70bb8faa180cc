"""What was measured alongside the requests, as `run.json` has it: the machine, the server's own figures, energy, cost.

Each type belongs to one level; what is unknown is null or left out, never 0. The names of readings include their unit,
and end in `_total` for counters, as in Prometheus.
"""

from __future__ import annotations

import msgspec

Range = tuple[float, float]


class Gauge(msgspec.Struct, frozen=True, kw_only=True):
    """A value that goes up and down, over the window.

    The mean is over time, with straight lines between the readings, and `min` and `max` are of these lines; `last` is
    the last reading inside the window, and `readings` the number of those inside.
    """

    mean: float
    min: float
    max: float
    last: float
    readings: int


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """The readings of one window. `counters` has the rise of each, interpolated linearly between readings.

    `resets` names the counters that fell in it: they started again, and their real rise is at least the one given.
    """

    gauges: dict[str, Gauge] = {}
    counters: dict[str, float] = {}
    resets: list[str] = []


class MachineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Who used the CPUs of this machine, from the start of a level to its last response; shares of all cores' time.

    `busy` is all use, `others` that of neither loadbench nor a server on this machine (null if the server's process is
    hidden), `stolen` what the hypervisor gave to other machines. `waited` is the share of the time for which the thread
    that waited most, of `waited_by`, was ready to run and had no core; null where the system does not say. If the
    server runs here, `on_battery` says that the machine did at the start or at the end, and `power_saving` which of its
    settings save power.
    """

    cores: int
    busy: float
    others: float | None
    stolen: float
    waited: float | None = None
    waited_by: str = ""
    on_battery: bool = False
    power_saving: list[str] = []


class ServerHistogram(msgspec.Struct, frozen=True, kw_only=True):
    """One of the server's own histograms, from before the warm-up until after the drain, over all its labels.

    The mean is exact. A quantile is interpolated inside its bucket, and no more precise than the bucket's width; null
    in the last bucket, which has no upper end.
    """

    source: str
    count: int
    mean: float
    p50: float | None
    p90: float | None
    p99: float | None


class FirstTokenBreakdown(msgspec.Struct, frozen=True, kw_only=True):
    """The mean time to first token in its parts: `rest_s` is the client's less what the server reports.

    `source` is `timings` if the server reports times with each response, else the name of its histogram, which covers
    all requests, including those of the warm-up. Without `queue_s` the time in the server's queue is in the rest.
    """

    source: str
    count: int
    client_s: float
    queue_s: float | None
    prefill_s: float
    rest_s: float


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy over the window. `source` is what was metered, `board` (the accelerators) and `package` (CPU and its
    memory), or `estimate`; none of these includes the rest of the machine. It is `machine` if only the discharge of a
    laptop's battery is known, which feeds all of it, the load generator included.

    `watts_range` is that of an estimate; all figures except `tokens_per_joule` are proportional to the watts. "Above
    idle" is without what the same meters showed before the first request. Tokens per joule equals tokens per second
    and watt. `workshop_cost_index` is tokens/s × mean tokens per request × J per token, that is W × tokens per request,
    which is not a cost.
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
    """The price of a million output tokens at this level's throughput, in the currency of the given prices.

    `parts` add up to it; a part that was requested and is unknown is null, and then so is the sum.
    """

    per_million_output_tokens: float | None
    range: Range | None = None
    currency: str | None = None
    parts: dict[str, float | None] = {}
    energy_source: str | None = None
