"""`run.json`: the result of a run, as types. People script against this format, so it must stay stable.

Times are seconds as floats, rates are per second; what is unknown is null, never 0. Within a version of the schema
fields may be added; changing or removing one makes a new version:

    loadbench.run/1   the first. Only titles, names of definitions and descriptions in the JSON Schema changed since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

from loadbench.core.text import printable_json
from loadbench.results.imported import Imported  # noqa: TC001 - msgspec reads the annotations
from loadbench.results.models import Model  # noqa: TC001 - msgspec reads the annotations
from loadbench.results.telemetry import Cost, Energy, FirstTokenBreakdown, MachineLoad, ServerHistogram, Telemetry  # noqa: TC001 - likewise

if TYPE_CHECKING:
    from collections.abc import Collection

SCHEMA: Final = "loadbench.run/1"

Quantiles = dict[str, float | None]
Interval = tuple[float, float]
OpenInterval = tuple[float | None, float | None]
Decision = Literal["PASS", "FAIL", "UNDECIDED"]
Status = Literal["VALID", "INVALID", "INCONCLUSIVE", "OVERLOADED"]
# Fewer responses say nothing about throughput, whatever the verdict of their level.
_FEWEST_ANSWERS = 4


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution of one figure over the measured requests that ended ok.

    `interval` has the 95 % interval of each quantile. An end that is null is open: too few independent requests lie
    beyond the quantile to bound it there. The whole interval is null if nothing can be said, or if a request has
    several values, for which there is no such interval. `with_failures` has the quantiles with each failed request
    counted as infinitely slow; null there means infinite. `effective` is the effective n: the number of independent
    requests that would tell as much about the median as these correlated ones. `hdr` is the whole histogram in ns, in
    HdrHistogram's V2 encoding.
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
    interval: dict[str, OpenInterval | None]
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
    """Whether a level can be believed. `load_evidence` has the codes of reasons that show a server beyond its limit."""

    status: Status
    reasons: list[Reason] = []
    load_evidence: list[str] = []

    @property
    def usable(self) -> bool:
        """Whether the figures are those of a load that the server sustains: neither INVALID nor OVERLOADED."""
        return self.status not in {"INVALID", "OVERLOADED"}


class ClosedLoad(msgspec.Struct, frozen=True, tag_field="kind", tag="closed"):
    """A closed loop: `users` with at most one request in flight each; `think` is the think time as people write it."""

    users: int
    think: str | None = None

    @property
    def label(self) -> str:
        """The load as tables, messages, rules and files write it."""
        return f"users={self.users}"

    @property
    def amount(self) -> float:
        """How much it is, in users."""
        return self.users


class OpenLoad(msgspec.Struct, frozen=True, tag_field="kind", tag="open"):
    """An open loop: requests at a rate, however fast the server responds."""

    rate_per_s: float
    arrivals: str

    @property
    def label(self) -> str:
        """The load as tables, messages, rules and files write it."""
        return f"rate={self.rate_per_s:g}"

    @property
    def amount(self) -> float:
        """How much it is, in requests/s."""
        return self.rate_per_s


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived inside the window, divided by its length; the intervals are 95 %, by batch means."""

    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    interval: dict[str, Interval | None] = {}


class Concurrency(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in flight inside the window: the mean over time, and the exact peak."""

    mean: float
    peak: int


class Goodput(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that met every objective, and their tokens, per second of the window.

    `attainment` is their share of all measured arrivals, with its 95 % interval.
    """

    requests_per_s: float
    output_tokens_per_s: float
    attainment: float
    attainment_interval: Interval
    good: int
    arrivals: int


class ObjectiveResult(msgspec.Struct, frozen=True, kw_only=True):
    """One objective at one level. `gate` says that the exit code depends on it.

    `value` and its 95 % `interval` are of what the rule names, in seconds, as a share or per second, with failures
    counted as infinitely slow. A null value or end is infinite; if `interval` is null too, nothing is known. `share` is
    that of the values below a quantile's bound; the decision is made by it.
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
    """Measured requests that ended ok and whose prefix was sent before, so that a prefix cache should hold it.

    `cached_share` is the share of their input tokens that came from the cache; null if the server reports none.
    """

    requests: int
    cached_requests: int
    cached_share: float | None = None


class TimelinePart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a window with a planned change of rate, up to the next part; `from_s` counts from the window's start.

    `ttft_mean_s` counts from due, over the measured requests that became due in this part; null if there are none.
    """

    from_s: float
    answers_per_s: float
    output_tokens_per_s: float
    in_flight: float
    ttft_mean_s: float | None = None


class GroupResult(msgspec.Struct, frozen=True, kw_only=True):
    """The measured requests of one persona, model or server. Tokens and metrics are of those that ended ok, without
    intervals; `throughput` is what arrived inside the window. The groups of a kind add up to their level."""

    requests: int
    ok: int
    input_tokens: int
    output_tokens: int
    metrics: dict[str, Metric | None]
    outcomes: dict[str, int] = {}
    throughput: Throughput | None = None


class TokenCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the measured requests that ended ok; `source` counts requests by where their token count is from.

    `shorter` and `longer` count the responses with fewer or more output tokens than the request's maximum.
    """

    input: int
    output: int
    source: dict[str, int]
    cached_requests: int = 0
    unknown_input: int = 0
    shorter: int = 0
    longer: int = 0


class WorkerHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How one of several workers fared. `began_s` is how long after the agreed moment it could send its first request,
    `clock_error_s` how well its clock is known; both are 0 at best. `log` is the file on
    its machine that has its requests, unless these were gathered. What a worker that was `lost` saw is not known."""

    name: str
    lost: bool = False
    log: str = ""
    requests: int
    began_s: float | None = None
    clock_error_s: float = 0.0
    lateness_s: Quantiles | None = None
    loop_lag_s: Quantiles | None = None
    cpu_share: float | None = None
    censored_events: float | None = None


class ClientHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the load generator itself.

    `read_delay_s` is the time from the kernel's receive stamp to the read. This delay is in no figure, since the stamp
    is what counts. If stamps are taken at the read (`stamp_source` user), it is in every figure and unknown; it is then
    at least the lag of the event loop. `merged_reads` is the share of reads with more than one event;
    `censored_events` is the share of events that a late read gave the stamp of a later one. `cpu_s` is the CPU time of
    all its processes in the whole level, from the warm-up until the last request has ended; divided by all requests of
    that time, and by all their events, it is `cpu_per_request_s` and `cpu_per_event_s`. Where several workers share the
    load, `start_skew_s` is how far apart the first and the last of them began.
    """

    stamp_source: str
    stamp_error_s: Quantiles | None
    read_delay_s: Quantiles | None = None
    loop_lag_s: Quantiles | None
    lateness_s: Quantiles | None
    gc_pause_max_s: float | None
    cpu_share: float | None
    cpu_s: float | None = None
    cpu_per_request_s: float | None = None
    cpu_per_event_s: float | None = None
    merged_reads: float | None
    censored_events: float | None = None
    reconnects: int
    reused: int
    start_skew_s: float | None = None
    workers: list[WorkerHealth] = []


class UnreadCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What the responses of measured requests had besides their text; all but `keep_alives` is of those that ended ok.

    `keep_alives` are comments, empty events and others that only keep the connection open. `frames` were not
    understood; `requests` had such frames, and `first` is what the first of them said. `content_types` counts the
    responses whose Content-Type was not that of what came.
    """

    keep_alives: int = 0
    frames: int = 0
    requests: int = 0
    first: str = ""
    content_types: dict[str, int] = {}


class FailureCount(msgspec.Struct, frozen=True):
    """Failures with the same outcome and detail, and what to do about them, if that is known."""

    outcome: str
    detail: str
    count: int
    advice: str = ""


class AuditCheck(msgspec.Struct, frozen=True):
    """A number counted in two ways, which must agree `within` a tolerance; if they do not, loadbench has a bug."""

    name: str
    measured: float
    expected: float
    within: float
    ok: bool


class AfterGivingUp(msgspec.Struct, frozen=True, kw_only=True):
    """What the server generated after users had left, by its own counter of output tokens.

    `counted` is by how much the counter rose over the whole level, `received` the output tokens that all requests
    received, `unread` the difference. `remaining` is about how many tokens the responses that were given up would still
    have had. `went_on` is null where these figures do not decide it.
    """

    counter: str
    counted: int
    received: int
    unread: int
    remaining: int
    went_on: bool | None


class GaveUpResult(msgspec.Struct, frozen=True, kw_only=True):
    """Users with limited patience (`--abandon`): measured requests that had one, and those that were given up.

    `output_tokens` are those that arrived before their users left. `server` is null without a counter.
    """

    impatient: int
    gave_up: int
    before_first_token: int
    output_tokens: int
    server: AfterGivingUp | None = None


class LevelResult(msgspec.Struct, frozen=True, kw_only=True):
    """One level of one model.

    `window_ns` is when its window opened and closed, in ns since the run's start like the marks in `requests.jsonl`.
    `server` is the rise of the server's own counters, for all its clients, over warm-up, window, cool-down and drain,
    without those that did not rise; null if the server has none, or they were reset. `personas` are by name; `by_model`
    has the models of a mix, and `by_server` the several servers that share the load, which are `targets`. `turns`
    counts the measured requests by their turn in a conversation. `course` is the timeline of a planned change of rate.
    """

    target: str
    targets: list[str] = []
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
    unread: UnreadCounts | None = None
    client: ClientHealth
    undefined: dict[str, int] = {}
    metrics: dict[str, Metric | None]
    interrupted: bool = False
    server: dict[str, float] | None = None
    server_histograms: dict[str, ServerHistogram] = {}
    first_token: FirstTokenBreakdown | None = None
    telemetry: Telemetry | None = None
    machine: MachineLoad | None = None
    energy: Energy | None = None
    cost: Cost | None = None
    personas: dict[str, GroupResult] = {}
    by_model: dict[str, GroupResult] = {}
    by_server: dict[str, GroupResult] = {}
    turns: dict[str, int] = {}
    warm: PrefixCacheResult | None = None
    course: list[TimelinePart] = []
    gave_up: GaveUpResult | None = None


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of models says of one, and no measurement shows."""

    alias: str | None = None
    capabilities: list[str] = []
    size_bytes: int | None = None
    license: str | None = None
    load_cold_s: float | None = None
    load_warm_s: float | None = None


class RecordedPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """One of the given prompts: its index, from 0, and a digest of its text; the text only with `--keep-texts`."""

    index: int
    hash: str
    text: str | None = None


class DataSetResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of the file of prompts: its format, its rows, those that were skipped by reason, and what is sent.

    `conversations` are prompts of several turns, `not_sent` the columns that may be meant for the request and are not.
    """

    format: str
    rows: int
    skipped: dict[str, int]
    prompts: int
    conversations: int
    not_sent: list[str] = []


class OutputEquality(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a model gave the same response text to a prompt each time, at every load.

    `answers` is the number of responses compared with the first of them, `distinct` the number of different texts.
    `first_difference` is the level, from 0, and the request's number in it where the first other text came;
    `first_hash` is the digest of the first text.
    """

    model: str
    prompt: int
    answers: int
    distinct: int
    first_difference: tuple[int, int] | None = None
    first_hash: str | None = None

    @property
    def equal(self) -> bool:
        """Whether all texts were the same."""
        return self.distinct <= 1


class MixPart(msgspec.Struct, frozen=True, kw_only=True):
    """A model of a mix: its share of the requests by the weights, the requested name if the server uses another, and
    how long loading took, if it was not loaded."""

    model: str
    share: float
    asked: str | None = None
    load_s: float | None = None
    load_warm_s: float | None = None


class ModelStatus(msgspec.Struct, frozen=True):
    """Whether a model could be tested at all, or a mix of models, whose `model` is its name.

    `asked` is the requested name, if the server uses another; `catalogue` is what the server's list of models and its
    files say of it. `load_s` is how long loading took, if it was not loaded; `load_warm_s` how long it took again,
    right after it was unloaded. `cold_ttft_s` is the time to first token of the run's first request to it, which is
    cold unless another client used it before; `warm_ttft_s` that of a later request of the same length. `kept_warm`
    counts the small requests of `--keep-warm`, `kept_warm_failed` those of them that failed. `mix` are the models of a
    mix; the times to first token are then those of the first of them.
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
    mix: list[MixPart] = []


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A server as it was before the run: its program's name and version, and its `Server` header. What it does not say
    is empty."""

    url: str
    name: str = ""
    version: str = ""
    header: str = ""

    @property
    def program(self) -> str:
        """Name and version, or what its header says; empty if it says nothing."""
        return " ".join(part for part in (self.name, self.version) if part) or self.header


class Adapted(msgspec.Struct, frozen=True, kw_only=True):
    """A field that the server refused by name before measuring, with the words of the refusal.

    It is `renamed`, and sent as `to`, or `left_out`. `model` is the model whose first request was refused, `from_level`
    the first level, from 0, whose requests were changed: 0 unless an earlier model of the run had accepted the field.
    """

    field: str
    action: Literal["renamed", "left_out"]
    to: str | None = None
    words: str
    model: str = ""
    from_level: int = 0


class ExactOutput(msgspec.Struct, frozen=True, kw_only=True):
    """Whether responses of exactly the requested length could be requested (`--exact-output`).

    `fields` are the fields of requests that do so; `kept` says whether the trial responses had the requested length.
    """

    fields: list[str]
    kept: bool


class UnderWay(msgspec.Struct, frozen=True, kw_only=True):
    """The level that was running when `run.json` was written: the one after those in `levels`."""

    model: str
    load: ClosedLoad | OpenLoad


class ServerStart(msgspec.Struct, frozen=True, kw_only=True):
    """The server that loadbench started itself, by its latest start; secrets are left out of `command`.

    `variables` are the names of those that were set for it. Times are from the start of the command: until the server
    was ready (`ready_by` says how that is known: `url`, or `list` of models), and until the end of the first response;
    the time to first token is that of this response, and of a later one. Memory is the resident one of all its
    `processes`, in which shared pages count for each: after the first response, and the largest that was seen. `ended`
    is how the server ended if it did so by itself.
    """

    command: str
    variables: list[str] = []
    url: str
    ready_by: Literal["url", "list"] = "list"
    ready_s: float | None = None
    first_response_s: float | None = None
    cold_ttft_s: float | None = None
    warm_ttft_s: float | None = None
    memory_loaded_bytes: int | None = None
    memory_peak_bytes: int | None = None
    processes: int | None = None
    ended: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run: its scenario, where it ran, and its levels so far.

    `command` is the one that measured; older runs have none. `adapted` has what was changed in requests, because the
    server refuses it. `conditions` are the settings that a resumed run must have too, and `content_hash` identifies
    them. `under_way` is null between levels and at the end. `unwritten_requests` are in the figures, and not in
    `requests.jsonl`, since that could not be written. `imported` says which other tool measured, where it was one.
    `servers` has each server as it was found, but not a simulated one; a resumed run may have one in several versions.
    `server_start` is about one that loadbench started with --server-cmd.
    `one_up` is set for a side of a comparison of which only one was up at a time: its server was started, or its model
    loaded, before its first level.
    """

    schema: Literal["loadbench.run/1"] = SCHEMA
    name: str
    started_at: str
    loadbench_version: str
    simulated: bool
    complete: bool
    command: str = ""
    question: str = ""
    scenario: dict[str, dict[str, object]]
    origins: dict[str, str] = {}
    environment: dict[str, object]
    servers: list[ServerInfo] = []
    models: list[ModelStatus] = []
    levels: list[LevelResult] = []
    prompts: list[RecordedPrompt] = []
    outputs: list[OutputEquality] | None = None
    adapted: list[Adapted] = []
    exact_output: ExactOutput | None = None
    data_set: DataSetResult | None = None
    conditions: dict[str, object] = {}
    content_hash: str = ""
    under_way: UnderWay | None = None
    unwritten_requests: int = 0
    imported: Imported | None = None
    server_start: ServerStart | None = None
    one_up: bool = False

    @property
    def levels_elsewhere(self) -> list[int]:
        """The places in `levels` of those whose request logs stayed on the nodes of a cluster."""
        return [n for n, level in enumerate(self.levels) if any(worker.log for worker in level.client.workers)]

    @property
    def requests_elsewhere(self) -> bool:
        """Whether the logs of its requests stayed on the nodes of a cluster, of one level at least."""
        return bool(self.levels_elsewhere)


def counts_as_throughput(
    status: str, codes: Collection[str], *, ok: int, output_tokens_per_s: float, interrupted: bool
) -> bool:
    """Whether output tokens/s are those of the server, of a level with this verdict, the codes of its reasons and so
    many responses that are ok."""
    return (
        status != "INVALID"
        and not interrupted
        and "too_few_answers" not in codes
        and ok >= _FEWEST_ANSWERS
        and output_tokens_per_s > 0
    )


def to_json(document: msgspec.Struct) -> bytes:
    """A run, or any other result, as indented JSON with a newline at its end."""
    return printable_json(msgspec.json.format(msgspec.json.encode(document), indent=2)) + b"\n"
