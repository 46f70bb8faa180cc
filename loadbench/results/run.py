"""`run.json`: the result of a run, as types. What is written here is a contract that people script against.

Times are seconds as floats, rates are per second; what is not known is null, never 0. Fields may be added within a
version of the schema; to change or remove one makes a new version:

    loadbench.run/1   the first
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from loadbench.results.models import Model  # noqa: TC001 - msgspec reads the annotations
from loadbench.results.telemetry import Cost, Energy, FirstTokenBreakdown, ServerHistogram, Telemetry  # noqa: TC001 - likewise

SCHEMA: Final = "loadbench.run/1"

Quantiles = dict[str, float | None]
Interval = tuple[float, float]
Decision = Literal["PASS", "FAIL", "UNDECIDED"]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of one figure over the measured requests that ended ok.

    `interval` holds the 95 % interval of each quantile; null where the sample is too small for one, or where the values
    are not one per request, so that none of this kind exists. `with_failures` holds the quantiles with each failed
    request counted as infinitely slow; null there means infinite. `effective` is how many independent requests would
    tell as much: these hang together, and the intervals are for so many. `hdr` is the whole histogram, in
    HdrHistogram's V2 encoding, in ns.
    """

    count: int
    mean: float
    min: float
    max: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    interval: dict[str, Interval | None]
    with_failures: Quantiles | None = None
    effective: int | None = None
    clipped: int = 0
    hdr: str


class Reason(msgspec.Struct, frozen=True):
    """Why a verdict is what it is, and what to do."""

    code: str
    message: str
    advice: str


class Verdict(msgspec.Struct, frozen=True):
    """Whether a level can be believed."""

    status: Literal["VALID", "INVALID", "INCONCLUSIVE"]
    reasons: list[Reason] = []


class ClosedLoad(msgspec.Struct, frozen=True, tag_field="kind", tag="closed"):
    """So many users, each with at most one request in flight; `think` as people write it."""

    users: int
    think: str | None = None

    @property
    def label(self) -> str:
        """As tables and tags name it."""
        return f"users={self.users}"


class OpenLoad(msgspec.Struct, frozen=True, tag_field="kind", tag="open"):
    """Requests at a rate, whatever the server does."""

    rate_per_s: float
    arrivals: str

    @property
    def label(self) -> str:
        """As tables and tags name it."""
        return f"rate={self.rate_per_s:g}"


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived inside the window, over its length; the interval, if any, is 95 % by batch means."""

    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    interval: dict[str, Interval | None] = {}


class Concurrency(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in flight inside the window: weighted by time, and the exact peak."""

    mean: float
    peak: int


class Goodput(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that met every objective, and their tokens, over the window's length; `attainment` is their share of
    all measured arrivals, with its 95 % interval.
    """

    requests_per_s: float
    output_tokens_per_s: float
    attainment: float
    attainment_interval: Interval
    good: int
    arrivals: int


class ObjectiveResult(msgspec.Struct, frozen=True, kw_only=True):
    """One objective at one level. `gate` says that the exit code depends on it.

    `value` and `interval` (95 %) are of what the rule names, in seconds, a share or per second, failures counted as
    infinitely slow; null in the value and at an end of the interval is infinite, or nothing at all where `interval` is
    null too. `share` is that of the values below a quantile's bound, by which the decision is made.
    """

    rule: str
    gate: bool = False
    decision: Decision
    value: float | None
    interval: tuple[float | None, float | None] | None = None
    share: float | None = None
    share_interval: Interval | None = None
    note: str = ""


class PrefixCacheResult(msgspec.Struct, frozen=True, kw_only=True):
    """Measured requests that ended ok and were declared warm: they begin with what was asked before, and a server that
    keeps prefixes should have found them. `cached_share` is what it had of their prompts' tokens; null if it told none.
    """

    requests: int
    cached_requests: int
    cached_share: float | None = None


class TimelinePart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a window whose rate was meant to change, up to the next. `from_s` counts from the window's opening.

    `ttft_mean_s` is that of the measured requests that became due in it, from when they were due; null without any.
    """

    from_s: float
    answers_per_s: float
    output_tokens_per_s: float
    in_flight: float
    ttft_mean_s: float | None = None


class PersonaResult(msgspec.Struct, frozen=True, kw_only=True):
    """The measured requests of one persona. Tokens and figures are of those that ended ok; the figures have no
    intervals.
    """

    requests: int
    ok: int
    input_tokens: int
    output_tokens: int
    metrics: dict[str, Metric | None]


class TokenCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Summed over the measured requests that ended ok; `source` says how many requests' counts came from where."""

    input: int
    output: int
    source: dict[str, int]
    cached_requests: int = 0
    unknown_input: int = 0


class ClientHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How the load generator itself fared.

    `read_delay_s` is the time from the kernel's receive stamp to the read; that delay is in no figure, for the stamp is
    the datum. Where stamps are taken at the read (`stamp_source` user) it is in all of them, unknown; the lag of the
    event loop is then the least that it was. `merged_reads` is the share of reads that brought more than one event;
    `censored_events` that of the events which so got a later one's stamp because the read was late.
    """

    stamp_source: str
    stamp_error_s: Quantiles | None
    read_delay_s: Quantiles | None = None
    loop_lag_s: Quantiles | None
    lateness_s: Quantiles | None
    gc_pause_max_s: float | None
    cpu_share: float | None
    merged_reads: float | None
    censored_events: float | None = None
    reconnects: int
    reused: int


class FailureCount(msgspec.Struct, frozen=True):
    """Failures that said the same."""

    outcome: str
    detail: str
    count: int


class AuditCheck(msgspec.Struct, frozen=True):
    """Something counted in two ways that must come to the same, `within` so much; if not, loadbench is at fault."""

    name: str
    measured: float
    expected: float
    within: float
    ok: bool


class LevelResult(msgspec.Struct, frozen=True, kw_only=True):
    """One level of one model.

    `window_ns` is when its window opened and closed, in ns since the run's start as the marks in `requests.jsonl`.
    `server` is what the server's own counters rose by, for whomever, over warm-up, window, cool-down and drain; those
    that did not rise are left out. It is null where the server has none or they began anew.
    `personas` are those that asked, by name; `turns` counts the measured requests by their place in a conversation.
    `course` is how it went in time, where the rate was meant to change.
    """

    target: str
    model: str
    load: ClosedLoad | OpenLoad
    window_s: float
    window_ns: tuple[int, int] | None = None
    verdict: Verdict
    caveats: list[Reason] = []
    audit: list[AuditCheck] = []
    outcomes: dict[str, int]
    failures: list[FailureCount] = []
    offered_per_s: float
    achieved_per_s: float
    missed: int
    throughput: Throughput
    concurrency: Concurrency
    goodput: Goodput | None = None
    objectives: list[ObjectiveResult] = []
    tokens: TokenCounts
    finish_reasons: dict[str, int] = {}
    client: ClientHealth
    undefined: dict[str, int] = {}
    metrics: dict[str, Metric | None]
    interrupted: bool = False
    server: dict[str, float] | None = None
    server_histograms: dict[str, ServerHistogram] = {}
    first_token: FirstTokenBreakdown | None = None
    telemetry: Telemetry | None = None
    energy: Energy | None = None
    cost: Cost | None = None
    personas: dict[str, PersonaResult] = {}
    turns: dict[str, int] = {}
    warm: PrefixCacheResult | None = None
    course: list[TimelinePart] = []


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of models says of one, and no measurement tells."""

    alias: str | None = None
    capabilities: list[str] = []
    size_bytes: int | None = None
    license: str | None = None
    load_cold_s: float | None = None
    load_warm_s: float | None = None


class RecordedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """One of the given prompts: its place, from 0, and a digest of its text; that itself only where texts are kept."""

    index: int
    hash: str
    text: str | None = None


class OutputEquality(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a model gave the same answer to a prompt each time, under whatever load.

    `answers` were compared with the first of them, `distinct` texts were among them; `first_difference` is the level,
    from 0, and the request's number in it where the first other text came. `first_hash` is the first one's digest.
    """

    model: str
    prompt: int
    answers: int
    distinct: int
    first_difference: tuple[int, int] | None = None
    first_hash: str | None = None

    @property
    def equal(self) -> bool:
        """Whether all were the same."""
        return self.distinct <= 1


class ModelStatus(msgspec.Struct, frozen=True):
    """Whether a model could be tested at all.

    `asked` is the name that it was asked for by, where the server has another; `catalogue` is what the server's list of
    models and its files say of it; `load_s` is how long loading took, where that had to be done first, `load_warm_s`
    how long it took again, right after it was unloaded. `cold_ttft_s` is the time to first token of the run's first
    request to it, cold unless somebody else had asked before; `warm_ttft_s` that of another of the same length, later.
    `kept_warm` counts the light prompts beside the load, `kept_warm_failed` those of them that failed.
    """

    model: str
    status: Literal["ok", "failed", "not_run"]
    reason: str = ""
    known: ModelFacts | None = None
    asked: str | None = None
    catalogue: Model | None = None
    load_s: float | None = None
    cold_ttft_s: float | None = None
    warm_ttft_s: float | None = None
    kept_warm: int | None = None
    load_warm_s: float | None = None
    kept_warm_failed: int | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run: its scenario, where it ran, and its levels so far."""

    schema: Literal["loadbench.run/1"] = SCHEMA
    name: str
    started_at: str
    loadbench_version: str
    simulated: bool
    complete: bool
    question: str = ""
    scenario: dict[str, dict[str, object]]
    origins: dict[str, str] = {}
    environment: dict[str, object]
    models: list[ModelStatus] = []
    levels: list[LevelResult] = []
    prompts: list[RecordedPrompt] = []
    outputs: list[OutputEquality] | None = None


def to_json(run: Run) -> bytes:
    """The run as indented JSON, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n"


def json_schema() -> dict[str, object]:
    """The JSON Schema (2020-12) of `run.json`, as the types above say it."""
    schema = msgspec.json.schema(Run, schema_hook=_anything)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": SCHEMA, **schema}


def _anything(found: type) -> dict[str, object]:
    """A setting, or a fact of the environment, is any value."""
    if found is object:
        return {"description": "Any value."}
    raise NotImplementedError(found)
