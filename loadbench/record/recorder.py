"""The recorder of one level: samples in, one recording out. Accumulate in `add`, derive in `close`.

Memory is bounded by the histograms and the requests in flight, however long the level is: what a sample says is folded
into counts and histograms, and the sample itself goes to the result file, not here.

Two populations are kept apart, as the definitions ask. *Latencies and outcomes* speak of the measured requests: those
that became due inside the window, whenever they ended. *Throughput and concurrency* speak of the window: every token
and every answer that arrived between its bounds counts, whichever phase its request belongs to, and nothing else.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from loadbench.plan.load import Phase, Phases
from loadbench.plan.objective import LATENCIES
from loadbench.record.attainment import Attained, Attainment
from loadbench.record.audit_totals import AuditTotals, AuditTotalsBuilder
from loadbench.record.figures import FIGURES
from loadbench.record.histogram import Histogram
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.record.persona_stats import PersonaStats
from loadbench.record.slices import Slices
from loadbench.record.timeline import Timeline, TimelineBuilder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.objective import Objective
    from loadbench.record.sample import Sample

# The figures of a level, in the order in which they are shown; all are durations in ns.
METRICS = (*LATENCIES, "lateness", "connect")

# How late a start or an end may be told and still find its place among the others. Whoever is later than this has been
# judged for it long ago.
_HORIZON_NS = 5_000_000_000
# What paged caches keep at least (vLLM); and some tokens by which even prompts that are all different begin alike.
_BLOCK_TOKENS = 16
_ALIKE_TOKENS = 6
# Times that servers tell are rounded, to a microsecond or to a millisecond.
_CLOCK_ERROR_NS = 1_000_000
# Different failures beyond this many are counted under their outcome only: memory stays bounded.
_MOST_DETAILS = 50


@dataclass(frozen=True, slots=True)
class Production:
    """What arrived inside the window."""

    answers: int = 0  # requests that ended ok
    output_tokens: int = 0
    input_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the client itself fared during a level; histograms are in ns."""

    stamp_source: str
    loop_lag: Histogram
    gc_pauses: Histogram
    cpu_share: float | None  # of one core
    read_delay: Histogram = field(default_factory=Histogram)  # from the kernel's receive stamp to the read
    clock_steps: int = 0  # of the wall clock, while it served for stamps


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelRecording:
    """All that is known of one level. Times are ns of the run's clock."""

    window: tuple[int, int]
    warm_up_ns: int
    outcomes: Mapping[Outcome, int]  # of the measured requests
    details: Mapping[tuple[Outcome, str], int]  # what the failures said
    histograms: Mapping[str, Histogram]  # by name in METRICS; over measured requests with outcome ok
    undefined: Mapping[str, int]  # ok requests for which a figure does not exist, by its name
    input_tokens: int  # summed over measured requests with outcome ok
    output_tokens: int
    token_sources: Mapping[TokenSource, int]
    unknown_input_tokens: int  # ok requests of which the server did not tell the prompt's length
    prompt_off: int  # ok requests whose prompt was more than 2 % off the asked length
    prompt_asked: int  # ok requests that asked for a length and were told the true one
    cached: int  # ok requests that reported more cached tokens than those of a template, which all prompts begin with
    merged_reads: int
    reads: int
    censored_events: int
    events: int
    reused: int  # measured requests on a connection that had served before
    reconnects: int
    finish_reasons: Mapping[str, int]
    models: Mapping[str, int]  # the names that ok requests were answered with; "" for none
    production: Production
    tokens_by_slice: tuple[float, ...]  # output tokens in each whole `SLICE_NS` of the window
    arrivals_due: int  # scheduled inside the window
    arrivals_sent: int  # whose request left inside the window
    missed: int  # arrivals that were never sent, open loop
    in_flight_mean: float
    in_flight_peak: int
    interrupted: bool
    health: Health
    lost_workers: int = 0
    contradicted: int = 0  # ok requests of which the server tells a longer way to the first token than was seen
    phases: Mapping[Phase, int] = field(default_factory=dict)
    attained: Attained = field(default_factory=lambda: Attained({}, 0, 0, 0))
    answers_by_slice: tuple[float, ...] = ()  # requests that ended ok in each whole `SLICE_NS` of the window
    course: Timeline = field(default_factory=Timeline)
    books: AuditTotals = field(default_factory=AuditTotals)
    cohorts: PersonaStats = field(default_factory=PersonaStats)
    aborted: str = ""  # the rule by which the level was given up, and what was seen
    server: Mapping[str, float] | None = None  # what its counters rose by, from before the level until after it
    server_restarted: bool = False  # its counters fell, or were gone

    @property
    def window_s(self) -> float:
        """Length of the window in seconds."""
        return (self.window[1] - self.window[0]) / 1e9


class Recorder:
    """Takes the samples of one level as they end; `phases` says where the window lies."""

    def __init__(self, phases: Phases, objectives: Sequence[Objective] = (), *, template_tokens: int = 0) -> None:
        self._least_cached = max(_BLOCK_TOKENS, template_tokens + _ALIKE_TOKENS)
        self._attainment = Attainment(objectives)
        self._histograms = {name: Histogram() for name in METRICS}
        self._outcomes: Counter[Outcome] = Counter()
        self._details: Counter[tuple[Outcome, str]] = Counter()
        self._undefined: Counter[str] = Counter()
        self._sources: Counter[TokenSource] = Counter()
        self._finish: Counter[str] = Counter()
        self._models: Counter[str] = Counter()
        self._phases: Counter[Phase] = Counter()
        self._count: Counter[str] = Counter()
        self._window = _WindowTally(phases)
        self._cohorts = PersonaStats()
        self.in_flight = 0  # requests started and not yet added

    def started(self, at_ns: int, _ask: object = None) -> None:
        """A request is on its way: it is in flight until it is added."""
        self.in_flight += 1
        self._window.started(at_ns)

    def add(self, sample: Sample) -> None:
        """Fold one ended request in."""
        self._phases[sample.phase] += 1
        self.in_flight -= 1
        self._window.ended(sample)
        if sample.phase is not Phase.MEASURED:
            return
        self._outcomes[sample.outcome] += 1
        self._attainment.add(sample)
        self._cohorts.add(sample, cached=self._is_cached(sample))
        self._window.course.add(sample)
        self._count["reused"] += bool(sample.reused)
        self._count["reconnects"] += sample.reconnects
        self._record("lateness", sample.lateness())
        if sample.connect_ns is not None:
            self._record("connect", sample.connect_ns)
        if sample.outcome is Outcome.OK:
            self._add_ok(sample)
        else:
            self._add_detail(sample)

    def _add_ok(self, sample: Sample) -> None:
        for name, figure in FIGURES.items():
            self._record(name, figure(sample))
        self._add_gaps(sample)
        self._add_tokens(sample)
        self._add_timings(sample)
        self._window.course.keep(sample)

    def _record(self, name: str, value_ns: float | None) -> None:
        if value_ns is None:
            self._undefined[name] += 1
        else:
            self._histograms[name].record(round(value_ns))

    def _add_gaps(self, sample: Sample) -> None:
        gaps = sample.event_gaps()
        if not gaps:
            self._undefined["event_gap"] += 1
        self._histograms["event_gap"].record_many(gaps)
        itl = sample.inter_token_latencies()
        if not itl:
            self._undefined["itl"] += 1
        self._histograms["itl"].record_many([gap for gap, _ in itl], [weight for _, weight in itl])
        self._window.books.paced(sample, gaps, itl)
        self._count["reads"] += sample.reads
        self._count["merged"] += sample.merged_reads
        self._count["events"] += len(sample.event_ns)
        self._count["censored"] += sample.censored_events

    def _add_tokens(self, sample: Sample) -> None:
        self._sources[sample.token_source] += 1
        self._count["output"] += sample.output_tokens or 0
        self._count["input"] += sample.input_tokens or 0
        self._count["unknown_input"] += sample.input_tokens is None
        self._count["cached"] += self._is_cached(sample)
        self._finish[sample.finish_reason or "none"] += 1
        self._models[sample.model or ""] += 1
        target = sample.request.target_input_tokens
        if target and sample.input_tokens is not None:
            self._count["prompt_asked"] += 1
            self._count["prompt_off"] += abs(sample.input_tokens - target) > 0.02 * target

    def _add_timings(self, sample: Sample) -> None:
        """What the server tells of itself has figures where it does; the others' absence needs no counting."""
        if sample.timings is None:
            return
        ttft_ns, told_ns = sample.since_sent(sample.first_token_ns), sample.timings.first_token_ns
        times = {"server_queue": sample.timings.queue_ns, "server_prefill": sample.timings.prefill_ns}
        times["server_decode"] = sample.timings.decode_ns
        if ttft_ns is not None and told_ns is not None:
            # It cannot take longer inside than it does from outside; a server may count otherwise, or be mistaken.
            self._count["contradicted"] += told_ns > ttft_ns + _CLOCK_ERROR_NS
            times["server_rest"] = max(0, ttft_ns - told_ns)
        for name, time_ns in times.items():
            if time_ns is not None:
                self._histograms.setdefault(name, Histogram()).record(time_ns)

    def _is_cached(self, sample: Sample) -> bool:
        """More of it than the beginning that the template gives to all."""
        return (sample.cached_tokens or 0) >= self._least_cached

    def _add_detail(self, sample: Sample) -> None:
        key = (sample.outcome, sample.detail)
        if key in self._details or len(self._details) < _MOST_DETAILS:
            self._details[key] += 1
        else:
            self._details[sample.outcome, "(others)"] += 1

    def close(
        self,
        *,
        window: tuple[int, int],
        arrivals_due: int,
        missed: int,
        interrupted: bool,
        health: Health,
        lost_workers: int = 0,
    ) -> LevelRecording:
        """The recording of the level, all of whose requests have ended."""
        tally = self._window
        tally.finish()
        return LevelRecording(
            window=window,
            warm_up_ns=tally.warm_up_ns,
            outcomes=dict(self._outcomes),
            details=dict(self._details),
            histograms=self._histograms,
            undefined=dict(self._undefined),
            input_tokens=self._count["input"],
            output_tokens=self._count["output"],
            token_sources=dict(self._sources),
            unknown_input_tokens=self._count["unknown_input"],
            prompt_off=self._count["prompt_off"],
            prompt_asked=self._count["prompt_asked"],
            cached=self._count["cached"],
            merged_reads=self._count["merged"],
            reads=self._count["reads"],
            censored_events=self._count["censored"],
            events=self._count["events"],
            reused=self._count["reused"],
            reconnects=self._count["reconnects"],
            finish_reasons=dict(self._finish),
            models=dict(self._models),
            production=tally.production(),
            tokens_by_slice=tally.slices.until(window[1]),
            arrivals_due=arrivals_due,
            arrivals_sent=tally.arrivals,
            missed=missed,
            in_flight_mean=tally.in_flight_ns / max(1, window[1] - window[0]),
            in_flight_peak=tally.peak,
            interrupted=interrupted,
            health=health,
            lost_workers=lost_workers,
            contradicted=self._count["contradicted"],
            phases=dict(self._phases),
            attained=self._attainment.attained(),
            answers_by_slice=tally.answers.until(window[1]),
            course=tally.course.course(window[1]),
            books=tally.books.books(window[1], sliced_tokens=tally.slices.total()),
            cohorts=self._cohorts,
        )


class _WindowTally:
    """What happens between the window's bounds: tokens and answers that arrive, requests in flight.

    Starts and ends are put in order before they count, for they are told late: an end by as much as the client was
    late to read it, and those of several processes in batches. What is older than `_HORIZON_NS` is taken as complete.

    While a level by number of requests still has its window open, nothing has happened after it: a sample that ended
    so long ago then lies wholly before the bound to come, so that everything can be counted at once and exactly.
    """

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        self._waiting: list[tuple[int, int, int, Sample | None]] = []
        self._told = 0
        self._latest_ns = 0
        self._answers = self._output = self._input = 0
        self.warm_up_ns = phases.warm_up_ns
        self.slices = Slices(phases.opens_ns)
        self.answers = Slices(phases.opens_ns)
        self.course = TimelineBuilder(phases.opens_ns)
        self.books = AuditTotalsBuilder(phases)
        self.arrivals = 0
        self._in_flight = 0
        self.in_flight_ns = 0
        self.peak = 0

    def started(self, at_ns: int) -> None:
        """One request more in flight."""
        self._put(at_ns, 1, None)

    def ended(self, sample: Sample) -> None:
        """One request less; at the same moment an end comes before a start, as with a user who asks again at once."""
        self._put(sample.end_ns, 0, sample)

    def _put(self, at_ns: int, rank: int, sample: Sample | None) -> None:
        self._told += 1
        heappush(self._waiting, (at_ns, rank, self._told, sample))
        self._latest_ns = max(self._latest_ns, at_ns)
        self._settle(self._latest_ns - _HORIZON_NS)

    def finish(self) -> None:
        """Nothing more will be told: count what waits."""
        self._settle(self._latest_ns)

    def _settle(self, until_ns: int) -> None:
        while self._waiting and self._waiting[0][0] <= until_ns:
            at_ns, _, _, sample = heappop(self._waiting)
            if sample is None:
                self._step(at_ns, 1)
            else:
                self._step(at_ns, -1)
                self._add(sample)

    def _step(self, at_ns: int, change: int) -> None:
        """Those in flight as the window opens count towards its peak."""
        closes_ns = self._phases.closes_ns
        if at_ns >= self._phases.opens_ns and (closes_ns is None or at_ns < closes_ns):
            self.peak = max(self.peak, self._in_flight, self._in_flight + change)
        self._in_flight += change
        self.course.change(at_ns, change)
        self.books.change(at_ns, change)

    def _add(self, sample: Sample) -> None:
        """Count what of this request lies inside. A server's failure produced nothing; what we cut short did."""
        self._add_span(sample)
        self.books.span(sample)
        if not sample.outcome.failed:
            if sample.outcome is Outcome.OK and self._arrived(sample.end_ns):
                self._answers += 1
                self.answers.add(array("q", (sample.end_ns,)), None, 1.0)
            inside = self._tokens_inside(sample)
            self._output += inside
            self.books.tokens(sample, inside, measured=sample.phase is Phase.MEASURED)
            self._input += self._input_inside(sample)

    def _add_span(self, sample: Sample) -> None:
        if sample.sent_ns is None:
            # What the server refused was started all the same.
            self.arrivals += sample.outcome.failed and sample.phase is Phase.MEASURED
            return
        opens_ns, closes_ns = self._phases.opens_ns, self._closes_or(sample.end_ns)
        self.arrivals += opens_ns <= sample.sent_ns and (
            self._phases.closes_ns is None or sample.sent_ns < self._phases.closes_ns
        )
        self.in_flight_ns += max(0, min(sample.end_ns, closes_ns) - max(sample.sent_ns, opens_ns))

    def _closes_or(self, otherwise_ns: int) -> int:
        closes_ns = self._phases.closes_ns
        return otherwise_ns if closes_ns is None else closes_ns

    def _arrived(self, at_ns: int) -> bool:
        """Whether something that arrived then was made inside the window: after it opened, and as it closed at last."""
        return self._phases.opens_ns < at_ns <= self._closes_or(at_ns)

    def _input_inside(self, sample: Sample) -> int:
        """The prompt counts when it has been worked off: at the first token."""
        if sample.first_token_ns is None or sample.input_tokens is None:
            return 0
        return sample.input_tokens if self._arrived(sample.first_token_ns) else 0

    def _tokens_inside(self, sample: Sample) -> int:
        """Output tokens by the stamps of their events; shared out evenly where an event's own are unknown."""
        stamps = sample.event_ns
        if not stamps or sample.output_tokens is None:
            return 0
        first = bisect_right(stamps, self._phases.opens_ns)
        last = bisect_right(stamps, self._closes_or(stamps[-1]))
        if first == last:
            return 0
        total, events = sample.output_tokens, len(stamps)
        tokens = None if sample.event_tokens is None else sample.event_tokens[first:last]
        self.slices.add(stamps[first:last], tokens, total * (last - first) / events)
        return total * last // events - total * first // events if tokens is None else sum(tokens)

    def production(self) -> Production:
        """What arrived inside."""
        return Production(self._answers, self._output, self._input)
