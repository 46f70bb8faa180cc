"""The recorder of one level: samples in, one recording out. Accumulate in `add`, derive in `close`.

Memory is bounded by the histograms and the requests in flight, however long the level is: a sample is folded into
counts and histograms; the sample itself goes to the result file.

Two populations are kept apart. *Latencies and outcomes* are those of the measured requests: those that became due
inside the window, whenever they ended. *Throughput and concurrency* are what happened inside the window: every token
and every response that arrived between its bounds counts, whichever phase its request belongs to
(`loadbench.record.window_tally`).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from loadbench.plan.load import Phase
from loadbench.plan.objective import LATENCIES
from loadbench.record.attainment import Attained, Attainment
from loadbench.record.audit_totals import AuditTotals
from loadbench.record.failure_counts import FailureCounts, count_word, count_words
from loadbench.record.figures import FIGURES
from loadbench.record.gave_up import GaveUpStats
from loadbench.record.group_stats import GroupStats, PrefixCacheStats
from loadbench.record.histogram import Histogram
from loadbench.record.joining import plus
from loadbench.record.kept_connections import KeptConnections
from loadbench.record.outage import Outage
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.slices import SLICE_NS
from loadbench.record.timeline import Timeline
from loadbench.record.usage_check import UsageStats
from loadbench.record.window_tally import Production, WindowTally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.load import Phases
    from loadbench.plan.objective import Objective
    from loadbench.record.request import Destination
    from loadbench.record.sample import Sample

# The figures of a level, in the order in which they are shown; all are durations in ns.
METRICS = (*LATENCIES, "lateness", "connect")

# What paged caches keep at least (vLLM), and a few tokens with which even prompts that all differ begin alike.
_BLOCK_TOKENS = 16
# The gaps of more events are taken as an array, which is dearer to make.
_FEW_EVENTS = 64
_ALIKE_TOKENS = 6
# Servers round the times that they report, to a microsecond or to a millisecond.
_CLOCK_ERROR_NS = 1_000_000
# Statuses by which a busy server, or the proxy before it, refuses load; and outcomes that look the same from outside.
_BUSY_STATUSES = frozenset({429, 503, 504})
_BUSY_OUTCOMES = frozenset(
    {Outcome.REFUSED, Outcome.TIMEOUT_CONNECT, Outcome.TIMEOUT_FIRST_TOKEN, Outcome.TIMEOUT_IDLE, Outcome.TIMEOUT_TOTAL}
)


# What is shown of a level while it runs.
SO_FAR = ("ttft", "tpot", "e2e_response")
# What a recorder has that is added to that of another part of the load.
_ADDED = (
    *("in_flight", "_attainment", "_histograms", "_outcomes", "_details", "_undefined", "_sources", "_unread"),
    *("_phases", "_count", "_groups", "_turns", "_prefix_cache", "_gave_up", "_usage", "_prompt_lengths"),
    *("_connections", "_outages", "_window"),
)


@dataclass(slots=True)
class PromptLengths:
    """The lengths of prompts by the server's count, of good requests that had a target length."""

    requests: int = 0
    tokens: int = 0
    target: int = 0
    least: int = 0
    most: int = 0
    _ratios: float = 0.0  # sums of actual over target length, and of its square
    _squares: float = 0.0

    def add(self, tokens: int, target: int) -> None:
        """Add one prompt."""
        self.least = min(self.least, tokens) if self.requests else tokens
        self.most = max(self.most, tokens)
        self.requests += 1
        self.tokens += tokens
        self.target += target
        self._ratios += tokens / target
        self._squares += (tokens / target) ** 2

    def absorb(self, other: PromptLengths) -> None:
        """Add the prompts of another part of the load."""
        if not other.requests:
            return
        self.least = min(self.least, other.least) if self.requests else other.least
        self.most = max(self.most, other.most)
        self.requests += other.requests
        self.tokens += other.tokens
        self.target += other.target
        self._ratios += other._ratios
        self._squares += other._squares

    @property
    def error(self) -> float:
        """By how much the mean length differs from the mean target, relative to that."""
        return self.tokens / self.target - 1 if self.target else 0.0

    @property
    def spread(self) -> float:
        """The standard deviation of single lengths, relative to their targets."""
        mean = self._ratios / max(1, self.requests)
        return math.sqrt(max(0.0, self._squares / max(1, self.requests) - mean**2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the load generator itself fared during a level; histograms are in ns."""

    stamp_source: str
    loop_lag: Histogram
    gc_pauses: Histogram
    cpu_share: float | None  # of one core
    cpu_ns: int | None = None  # of all its processes, from the level's first request until the last has ended
    read_delay: Histogram = field(default_factory=Histogram)  # from the kernel's receive stamp to the read
    clock_steps: int = 0  # of the wall clock, while it served for stamps
    slept_ns: int = 0  # the machine was suspended for so long, and the run's clock stood still


@dataclass(slots=True, kw_only=True)
class WorkerPart:
    """How one of several workers fared, of what is counted in the whole level too. `began_ns` is how long after the
    level's beginning it could send its first request, `clock_error_ns` how well its clock is known; what a worker that
    was lost had seen of itself is not known."""

    name: str
    log: str = ""  # the file on its machine that has its requests, where it has one
    clock_error_ns: int = 0
    began_ns: int | None = None
    health: Health | None = None
    lateness: Histogram = field(default_factory=Histogram)  # of measured requests
    waited_ns: int = 0  # its users, for requests that other workers had
    answers: int = 0  # measured requests that ended ok, and of these the next ones
    late_first_tokens: int = 0
    events: int = 0
    separate_events: int = 0
    censored_events: int = 0

    def add(self, sample: Sample) -> None:
        """Fold one ended request in."""
        if sample.phase is not Phase.MEASURED:
            return
        late_ns = sample.lateness()
        if late_ns is not None:
            self.lateness.record(late_ns)
        if sample.outcome is Outcome.OK:
            self.answers += 1
            self.late_first_tokens += sample.late_first_token
            self.events += len(sample.event_ns)
            self.separate_events += sample.separate_events
            self.censored_events += sample.censored_events


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """What responses had besides their text; all but the keep-alives counts requests that ended ok."""

    keep_alives: int
    frames: int  # that were not understood
    requests: int  # that had such frames
    words: str  # the first of them, in the server's words
    content_types: Mapping[str, int]  # Content-Types that were not those of what came, and what came


class SoFar(NamedTuple):
    """What a level that still runs has measured until now: of measured requests that ended ok. Times are in ns."""

    requests: int = 0
    ttft_p50: int | None = None
    ttft_p95: int | None = None
    tpot_p50: int | None = None
    e2e_mean: float | None = None
    e2e_p95: int | None = None
    late: float = 0.0  # the share of events that were read so late that a later one had come

    @staticmethod
    def of(histograms: Mapping[str, Histogram], *, censored: int, events: int) -> SoFar:
        """What these histograms have, by name in `SO_FAR`."""
        ttft, tpot, e2e = (histograms[name] for name in SO_FAR)
        return SoFar(
            requests=ttft.count,
            ttft_p50=ttft.percentile(50),
            ttft_p95=ttft.percentile(95),
            tpot_p50=tpot.percentile(50),
            e2e_mean=e2e.mean,
            e2e_p95=e2e.percentile(95),
            late=censored / max(1, events),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelRecording:
    """All that is known about one level. Times are ns of the run's clock."""

    window: tuple[int, int]
    warm_up_ns: int
    outcomes: Mapping[Outcome, int]  # of the measured requests
    details: Mapping[tuple[Outcome, str], int]  # what the failures said
    histograms: Mapping[str, Histogram]  # by name in METRICS; over measured requests with outcome ok
    undefined: Mapping[str, int]  # ok requests for which a figure does not exist, by its name
    input_tokens: int  # summed over measured requests with outcome ok
    output_tokens: int
    token_sources: Mapping[TokenSource, int]
    unknown_input_tokens: int  # ok requests for which the server did not report the prompt's length
    prompt_lengths: PromptLengths
    answers_shorter: int  # ok requests with fewer output tokens than their maximum
    answers_longer: int
    cut_short: int  # of the shorter ones, those that the server ended for their length
    cached: int  # ok requests that reported more cached tokens than a template has, with which all prompts begin
    merged_reads: int
    reads: int
    separate_events: int
    censored_events: int
    late_first_tokens: int
    events: int
    all_events: int  # of all requests, those that are not measured too
    unread: Unread  # what came besides the responses, in measured requests
    reused: int  # measured requests on a connection that had carried one before
    reconnects: int
    finish_reasons: Mapping[str, int]
    models: Mapping[str, int]  # the names that ok responses gave; "" for none
    production: Production
    tokens_by_slice: tuple[float, ...]  # output tokens in each whole slice of the window
    arrivals_due: int  # scheduled inside the window
    arrivals_sent: int  # whose request left inside the window
    missed: int  # arrivals that were never sent, open loop
    in_flight_mean: float
    in_flight_peak: int
    interrupted: bool
    health: Health
    workers: tuple[WorkerPart, ...] = ()  # that shared the load
    lost_workers: int = 0
    unreported: int = 0  # requests that lost workers had sent and that are in no figure
    lost_before: tuple[str, ...] = ()  # workers that earlier levels had, by name
    not_logged: Mapping[str, int] = field(default_factory=dict)  # requests without a line in the log, by worker
    planned_requests: int | None = None  # of a level by number of requests
    refused_load: int = 0  # failures by which an overloaded server shows it: 429, 503, 504, refused, time-outs
    contradicted: int = 0  # ok requests for which the server reported a longer time to first token than was measured
    phases: Mapping[Phase, int] = field(default_factory=dict)
    attained: Attained = field(default_factory=lambda: Attained({}, {}, 0, 0, 0))
    answers_by_slice: tuple[float, ...] = ()  # requests that ended ok in each whole slice
    slice_ns: int = SLICE_NS  # the length of these slices, and of those of the timeline
    timeline: Timeline = field(default_factory=Timeline)
    audit_totals: AuditTotals = field(default_factory=AuditTotals)
    groups: Mapping[tuple[str, str], GroupStats] = field(default_factory=dict)  # by (kind, name): see `Request.groups`
    turns: Mapping[int, int] = field(default_factory=dict)  # measured requests by turn of their conversation
    prefix_cache: PrefixCacheStats = field(default_factory=PrefixCacheStats)
    gave_up: GaveUpStats = field(default_factory=GaveUpStats)
    usage: UsageStats = field(default_factory=UsageStats)
    connections: KeptConnections = field(default_factory=KeptConnections)
    outages: Mapping[Destination, Outage] = field(default_factory=dict)
    aborted: str = ""  # the rule that aborted the level, and what was seen
    server_ended: str = ""  # how a server that was started for the run ended in this level
    server: Mapping[str, float] | None = None  # by how much its counters rose, from before the level until after it
    server_restarted: bool = False  # its counters fell, or were gone

    def groups_of(self, kind: str) -> dict[str, GroupStats]:
        """The groups of one kind by name: `persona`, or `model` or `server` in the order in which they were given."""
        found = {name: stats for (of, name), stats in sorted(self.groups.items()) if of == kind}
        given = [getattr(to, kind, None) for to in sorted(self.outages)]
        return {name: found[name] for name in dict.fromkeys((*given, *found)) if name in found}

    @property
    def start_skew_ns(self) -> int | None:
        """How far apart the first and the last of several workers began; `None` where fewer than two are known."""
        began = [worker.began_ns for worker in self.workers if worker.began_ns is not None]
        return max(began) - min(began) if len(began) > 1 else None

    @property
    def window_s(self) -> float:
        """Length of the window in seconds."""
        return (self.window[1] - self.window[0]) / 1e9


class Recorder:
    """Takes the samples of one level as they end; `phases` says where the window lies.

    Where a load has `parts`, each may have a recorder of its own, in the clock of all; another one takes what these
    have (`absorb`). Its recording is that of one recorder for all, count for count, where every request and moment is
    kept, as of 16,384 requests of which no part has more than twice its share. Beyond, it keeps others than one
    recorder would: the first requests that ended before any part had no room for more, the stretches that all parts
    keep, and batches of the same time. Words that stand for others alike may be those of another part.
    """

    def __init__(
        self, phases: Phases, objectives: Sequence[Objective] = (), *, template_tokens: int = 0, parts: int = 1
    ) -> None:
        self.in_flight = 0  # requests started and not yet added
        self._least_cached = max(_BLOCK_TOKENS, template_tokens + _ALIKE_TOKENS)
        self._attainment = Attainment(objectives, begin_ns=phases.begin_ns, parts=parts)
        self._histograms = {name: Histogram() for name in METRICS}
        self._outcomes: Counter[Outcome] = Counter()
        self._details = FailureCounts()
        self._undefined: Counter[str] = Counter()
        self._sources: Counter[TokenSource] = Counter()
        self._finish: Counter[str] = Counter()
        self._models: Counter[str] = Counter()
        self._content_types: Counter[str] = Counter()
        self._unread = ""
        self._phases: Counter[Phase] = Counter()
        self._count: Counter[str] = Counter()
        self._groups: dict[tuple[str, str], GroupStats] = {}
        self._turns: Counter[int] = Counter()
        self._prefix_cache = PrefixCacheStats()
        self._gave_up = GaveUpStats()
        self._usage = UsageStats()
        self._prompt_lengths = PromptLengths()
        self._connections = KeptConnections()
        self._outages: dict[Destination, Outage] = {}
        self._window = WindowTally(phases, parts=parts)

    def finish(self) -> None:
        """All requests of this part of a load have ended."""
        self._window.finish()

    def absorb(self, other: Recorder) -> None:
        """Add what a part of the load recorded, which has finished."""
        for name in _ADDED:
            setattr(self, name, plus(getattr(self, name), getattr(other, name)))
        for name in ("_finish", "_models", "_content_types"):
            count_words(getattr(self, name), getattr(other, name))

    def started(self, at_ns: int, _request: object = None) -> None:
        """A request has been sent: it is in flight until it is added."""
        self.in_flight += 1
        self._window.started(at_ns)

    def so_far(self) -> SoFar:
        """What has been measured until now. It takes as long for a million requests as for a hundred."""
        return SoFar.of(self._histograms, censored=self._count["censored"], events=self._count["events"])

    def reported_until(self, at_ns: int) -> None:
        """Each of several processes has reported what it did until this moment, at least."""
        self._window.complete_ns = at_ns

    def add(self, sample: Sample) -> None:
        """Fold one ended request in."""
        request, outcome, count = sample.request, sample.outcome, self._count
        self._phases[request.phase] += 1
        count["all_events"] += len(sample.event_ns)
        self.in_flight -= 1
        self._window.ended(sample)
        # New connections are mostly those of the warm-up.
        if outcome is Outcome.OK and (request.phase is Phase.MEASURED or not sample.reused):
            self._connections.add(sample)
        self._gave_up.add(sample)
        self._outages.setdefault(request.destination, Outage()).add(sample)
        if request.phase is not Phase.MEASURED:
            return
        self._outcomes[outcome] += 1
        self._attainment.add(sample)
        self._window.timeline.add(sample)
        for group in request.groups:
            self._groups.setdefault(group, GroupStats()).add(sample)
        if request.turn is not None:
            self._turns[request.turn] += 1
        count["reused"] += bool(sample.reused)
        count["reconnects"] += sample.reconnects
        count["keep_alives"] += sample.keep_alives
        self._record("lateness", sample.lateness())
        if sample.connect_ns is not None:
            self._record("connect", sample.connect_ns)
        if outcome is Outcome.OK:
            self._add_ok(sample)
        elif outcome is Outcome.GAVE_UP:
            pass  # no failure: it has counts of its own
        else:
            self._details.add(outcome, sample.detail)
            count["refused_load"] += outcome in _BUSY_OUTCOMES or sample.status in _BUSY_STATUSES

    def _add_ok(self, sample: Sample) -> None:
        """Fold in a measured request that succeeded: its figures, gaps, tokens, and the server's own times."""
        request, count = sample.request, self._count
        for name, figure in FIGURES.items():
            self._record(name, figure(sample))
        self._window.timeline.keep(sample)

        gaps = sample.gap_array() if len(sample.event_ns) > _FEW_EVENTS else sample.event_gaps()
        self._undefined["event_gap"] += not len(gaps)
        self._histograms["event_gap"].record_many(gaps)
        if sample.has_single_tokens:
            paced = len(gaps)
            self._histograms["itl"].record_many(gaps)
        else:
            itl = sample.inter_token_latencies()
            paced = len(itl)
            self._histograms["itl"].record_many([gap for gap, _ in itl], [weight for _, weight in itl])
        self._undefined["itl"] += not paced
        self._window.audit.add_paced(sample, len(gaps), paced)
        count["reads"] += sample.reads
        count["merged"] += sample.merged_reads
        count["events"] += len(sample.event_ns)
        count["separate"] += sample.separate_events
        count["censored"] += sample.censored_events
        count["late_first"] += sample.late_first_token

        self._sources[sample.token_source] += 1
        count_word(self._finish, sample.finish_reason or "none")
        count_word(self._models, sample.model or "")
        if sample.unread_frames:
            count["unread_frames"] += sample.unread_frames
            count["unread"] += 1
            self._unread = self._unread or sample.detail
        if sample.content_type is not None:
            count_word(self._content_types, sample.content_type)
        count["output"] += sample.output_tokens or 0
        count["input"] += sample.input_tokens or 0
        count["unknown_input"] += sample.input_tokens is None
        self._usage.add(sample.usage)
        if sample.output_tokens is not None:
            is_shorter = sample.output_tokens < request.max_tokens
            count["shorter"] += is_shorter
            if is_shorter and sample.finish_reason == "length":
                # Servers may count the last token or not, and reasoning apart; assumed tokens may be more than counted.
                is_certain = sample.token_source is TokenSource.USAGE and not sample.reasoning_tokens
                count["cut_short"] += is_certain and sample.output_tokens < request.max_tokens - 1
            count["longer"] += sample.output_tokens > request.max_tokens
        is_cached = (sample.cached_tokens or 0) >= self._least_cached
        count["cached"] += is_cached
        if request.warm:
            self._prefix_cache.add(sample, is_cached=is_cached)
        if request.target_input_tokens and sample.input_tokens is not None:
            self._prompt_lengths.add(sample.input_tokens, request.target_input_tokens)

        if sample.timings is None:
            return
        ttft_ns, reported_ns = sample.since_sent(sample.first_token_ns), sample.timings.first_token_ns
        times = {
            "server_queue": sample.timings.queue_ns,
            "server_prefill": sample.timings.prefill_ns,
            "server_decode": sample.timings.decode_ns,
        }
        if ttft_ns is not None and reported_ns is not None:
            # It cannot take longer inside the server than from outside; servers may count differently, or be wrong.
            count["contradicted"] += reported_ns > ttft_ns + _CLOCK_ERROR_NS
            times["server_rest"] = max(0, ttft_ns - reported_ns)
        for name, time_ns in times.items():
            if time_ns is not None:
                self._histograms.setdefault(name, Histogram()).record(time_ns)

    def _record(self, name: str, value_ns: float | None) -> None:
        if value_ns is None:
            self._undefined[name] += 1
        else:
            self._histograms[name].record(round(value_ns))

    def close(
        self,
        *,
        window: tuple[int, int],
        arrivals_due: int,
        missed: int,
        interrupted: bool,
        health: Health,
        workers: Sequence[WorkerPart] = (),
        unreported: int = 0,
    ) -> LevelRecording:
        """The recording of the level, all of whose requests have ended."""
        tally, count = self._window, self._count
        tally.finish()
        for group, produced in tally.by_group.items():
            self._groups.setdefault(group, GroupStats()).produced = produced
        return LevelRecording(
            window=window,
            warm_up_ns=tally.phases.warm_up_ns,
            outcomes=dict(self._outcomes),
            details=self._details.by_words,
            histograms=self._histograms,
            undefined=dict(+self._undefined),
            input_tokens=count["input"],
            output_tokens=count["output"],
            token_sources=dict(self._sources),
            unknown_input_tokens=count["unknown_input"],
            prompt_lengths=self._prompt_lengths,
            answers_shorter=count["shorter"],
            answers_longer=count["longer"],
            cut_short=count["cut_short"],
            cached=count["cached"],
            merged_reads=count["merged"],
            reads=count["reads"],
            separate_events=count["separate"],
            censored_events=count["censored"],
            late_first_tokens=count["late_first"],
            events=count["events"],
            all_events=count["all_events"],
            unread=Unread(
                keep_alives=count["keep_alives"],
                frames=count["unread_frames"],
                requests=count["unread"],
                words=self._unread,
                content_types=dict(self._content_types),
            ),
            reused=count["reused"],
            reconnects=count["reconnects"],
            finish_reasons=dict(self._finish),
            models=dict(self._models),
            production=tally.production,
            tokens_by_slice=tally.tokens.until(window[1]),
            arrivals_due=arrivals_due,
            arrivals_sent=tally.arrivals,
            missed=missed,
            in_flight_mean=tally.in_flight_ns / max(1, window[1] - window[0]),
            in_flight_peak=tally.peak,
            interrupted=interrupted,
            health=health,
            workers=tuple(workers),
            lost_workers=sum(worker.health is None for worker in workers),
            unreported=unreported,
            planned_requests=tally.phases.requests,
            refused_load=count["refused_load"],
            contradicted=count["contradicted"],
            phases=dict(self._phases),
            attained=self._attainment.attained(),
            answers_by_slice=tally.answers.until(window[1]),
            slice_ns=tally.slice_ns,
            timeline=tally.timeline.close(window[1]),
            audit_totals=tally.audit.close(window[1], sliced_tokens=tally.tokens.total()),
            groups=self._groups,
            turns=dict(self._turns),
            prefix_cache=self._prefix_cache,
            gave_up=self._gave_up,
            usage=self._usage,
            connections=self._connections,
            outages=self._outages,
        )
