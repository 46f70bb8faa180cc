"""A level's figures, from its recording. Every figure in `run.json` is made here, and from here it is only shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.analyze.level.audit import audit
from loadbench.analyze.level.objectives import decide, goodput, with_gates
from loadbench.analyze.level.server_side import contradictions, first_token, server_histograms
from loadbench.analyze.level.timeline import course
from loadbench.analyze.level.verdict import PREEMPTIONS, caveats, judge
from loadbench.analyze.stats import effective_n
from loadbench.analyze.stats.effective_n import correlated_ranks
from loadbench.analyze.stats.intervals import mean_interval
from loadbench.core.units import NS_PER_S
from loadbench.plan.load import Closed
from loadbench.record.figures import MANY_A_REQUEST
from loadbench.record.histogram import permille_rank
from loadbench.record.outcome import Outcome
from loadbench.record.slices import SLICE_NS
from loadbench.results.run import (
    ClientHealth,
    ClosedLoad,
    Concurrency,
    Failure,
    LevelResult,
    Metric,
    OpenLoad,
    PersonaShare,
    Throughput,
    Tokens,
    Warm,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.plan.load import Load
    from loadbench.record.histogram import Histogram
    from loadbench.record.persona_stats import Cohort, PersonaStats
    from loadbench.record.recorder import LevelRecording

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "p999": 0.999}

# More counters of a server than this nobody reads; vLLM has some thirty.
_MOST_COUNTERS = 40
# Of these failed requests have their own, so that to count failures as infinite would count them twice.
_ALSO_OF_FAILURES = frozenset({"lateness", "connect"})
# The figure of which it is known how the requests hang together, and those that are taken to do as it does.
_ALIKE = {
    "ttft_response": ("ttft", "ttft_response", "ttfo", "ttfb"),
    "e2e_response": ("e2e", "e2e_response", "stream_end", "e2e_per_token"),
    "tpot": ("tpot", "tpot_classic"),
}


def summarize(
    recording: LevelRecording, *, target: str, model: str, load: Load, failure_limit: float, origin_ns: int = 0
) -> LevelResult:
    """The level as `run.json` has it; `origin_ns` is the run's start on its clock."""
    window_s = recording.window_s
    throughput, metrics = _throughput(recording), _metrics(recording)
    decided = decide(recording, throughput, metrics)
    histograms = server_histograms(recording.server)
    found = first_token(recording, histograms)
    opens_ns, closes_ns = recording.window
    return LevelResult(
        target=target,
        model=model,
        load=_load(load),
        window_s=window_s,
        window_ns=(opens_ns - origin_ns, closes_ns - origin_ns),
        verdict=with_gates(judge(recording, load=load, model=model, failure_limit=failure_limit), decided),
        caveats=[*caveats(recording, load), *contradictions(recording, found)],
        audit=audit(recording, load),
        outcomes={outcome.value: count for outcome, count in sorted(recording.outcomes.items())},
        failures=_failures(recording),
        offered_per_s=_per_s(recording.arrivals_due, window_s),
        achieved_per_s=_per_s(recording.arrivals_sent, window_s),
        missed=recording.missed,
        throughput=throughput,
        concurrency=Concurrency(mean=recording.in_flight_mean, peak=recording.in_flight_peak),
        goodput=goodput(recording),
        objectives=decided,
        tokens=_tokens(recording),
        finish_reasons=dict(recording.finish_reasons),
        client=_client(recording),
        undefined=dict(recording.undefined),
        metrics=metrics,
        interrupted=recording.interrupted,
        personas={name: _persona(cohort) for name, cohort in sorted(recording.cohorts.personas.items())},
        turns={str(turn): count for turn, count in sorted(recording.cohorts.turns.items())},
        warm=_warm(recording.cohorts),
        course=course(recording, load),
        server=_server(recording.server),
        server_histograms=histograms,
        first_token=found,
    )


def _load(load: Load) -> ClosedLoad | OpenLoad:
    if isinstance(load, Closed):
        return ClosedLoad(load.users, None if load.think is None else str(load.think))
    return OpenLoad(load.rate_per_s, str(load.arrivals))


def _per_s(amount: int, window_s: float) -> float:
    return amount / window_s if window_s > 0 else 0.0


def _throughput(recording: LevelRecording) -> Throughput:
    made, window_s = recording.production, recording.window_s
    return Throughput(
        requests_per_s=_per_s(made.answers, window_s),
        output_tokens_per_s=_per_s(made.output_tokens, window_s),
        total_tokens_per_s=_per_s(made.output_tokens + made.input_tokens, window_s),
        interval={
            "requests_per_s": _rate_interval(recording.answers_by_slice),
            "output_tokens_per_s": _rate_interval(recording.tokens_by_slice),
        },
    )


def _rate_interval(by_slice: Sequence[float]) -> tuple[float, float] | None:
    per_slice = mean_interval(by_slice)
    if per_slice is None:
        return None
    low, high = (amount * NS_PER_S / SLICE_NS for amount in per_slice)
    return max(0.0, low), high


def _tokens(recording: LevelRecording) -> Tokens:
    return Tokens(
        input=recording.input_tokens,
        output=recording.output_tokens,
        source={source.value: count for source, count in sorted(recording.token_sources.items())},
        cached_requests=recording.cached,
        unknown_input=recording.unknown_input_tokens,
    )


def _persona(cohort: Cohort) -> PersonaShare:
    return PersonaShare(
        requests=cohort.requests,
        ok=cohort.ok,
        input_tokens=cohort.input_tokens,
        output_tokens=cohort.output_tokens,
        metrics={
            f"{name}_s": metric(histogram, failures=cohort.requests - cohort.ok, inefficiency=None)
            for name, histogram in cohort.histograms.items()
        },
    )


def _warm(cohorts: PersonaStats) -> Warm | None:
    if not cohorts.warm:
        return None
    told = cohorts.warm_input_tokens
    return Warm(
        requests=cohorts.warm,
        cached_requests=cohorts.warm_cached,
        cached_share=cohorts.warm_cached_tokens / told if told else None,
    )


def _failures(recording: LevelRecording) -> list[Failure]:
    """The most frequent first."""
    ordered = sorted(recording.details.items(), key=lambda item: (-item[1], item[0]))
    return [Failure(outcome.value, detail, count) for (outcome, detail), count in ordered]


def _client(recording: LevelRecording) -> ClientHealth:
    health = recording.health
    pause_ns = health.gc_pauses.max
    return ClientHealth(
        stamp_source=health.stamp_source,
        stamp_error_s=None,
        read_delay_s=_quantiles(health.read_delay),
        loop_lag_s=_quantiles(health.loop_lag),
        lateness_s=_quantiles(recording.histograms["lateness"]),
        gc_pause_max_s=None if pause_ns is None else pause_ns / 1e9,
        cpu_share=health.cpu_share,
        merged_reads=recording.merged_reads / recording.reads if recording.reads else None,
        censored_events=recording.censored_events / recording.events if recording.events else None,
        reconnects=recording.reconnects,
        reused=recording.reused,
    )


def _server(rose: Mapping[str, float] | None) -> dict[str, float] | None:
    """The counters that rose, by name, with the preemptions first; a brace in its name tells a histogram's part."""
    if rose is None:
        return None
    ordered = sorted((name not in PREEMPTIONS, name) for name, amount in rose.items() if amount and "{" not in name)
    return {name: rose[name] for _, name in ordered[:_MOST_COUNTERS]}


def _quantiles(histogram: Histogram) -> dict[str, float | None] | None:
    if not histogram.count:
        return None
    shown = {"p50": histogram.percentile(50), "p99": histogram.percentile(99), "max": histogram.max}
    return {name: None if value is None else value / 1e9 for name, value in shown.items()}


def _metrics(recording: LevelRecording) -> dict[str, Metric | None]:
    failed, per_one = _unanswered(recording.outcomes), _values_per_one(recording)
    return {
        f"{name}_s": metric(
            histogram,
            failures=None if name in MANY_A_REQUEST | _ALSO_OF_FAILURES else failed,
            # Values of which a request brings many hang together in a way that is not known.
            inefficiency=None if name in MANY_A_REQUEST else per_one.get(name, 1.0),
        )
        for name, histogram in recording.histograms.items()
    }


def _values_per_one(recording: LevelRecording) -> dict[str, float]:
    """By figure, how many values tell as much as one that is independent."""
    found = {kept: effective_n.inefficiency(values) for kept, values in recording.course.kept.items()}
    return {name: found.get(kept, 1.0) for kept, names in _ALIKE.items() for name in names}


def _unanswered(outcomes: Mapping[Outcome, int]) -> int:
    """Measured requests that had no whole answer, those apart that the user cut."""
    return sum(count for outcome, count in outcomes.items() if outcome not in {Outcome.OK, Outcome.CANCELLED})


def metric(histogram: Histogram, *, failures: int | None, inefficiency: float | None) -> Metric | None:
    """The distribution in seconds; `None` for an empty one. `failures` count as infinite in `with_failures`.

    So many values tell as much as one that is independent; where that is not known there are no intervals.
    """
    count, mean, low, high = histogram.count, histogram.mean, histogram.min, histogram.max
    if mean is None or low is None or high is None:
        return None
    points = {name: (histogram.percentile(100 * p) or 0) / 1e9 for name, p in QUANTILES.items()}
    return Metric(
        count=count,
        mean=mean / 1e9,
        min=low / 1e9,
        max=high / 1e9,
        **points,
        interval={name: _interval(histogram, p, inefficiency) for name, p in QUANTILES.items()},
        with_failures=None if failures is None else _with_failures(histogram, failures),
        effective=None if inefficiency is None else int(count / inefficiency),
        clipped=histogram.clipped,
        hdr=histogram.encode(),
    )


def _interval(histogram: Histogram, p: float, inefficiency: float | None) -> tuple[float, float] | None:
    if inefficiency is None:
        return None
    ranks = correlated_ranks(histogram.count, p, inefficiency=inefficiency)
    if ranks is None:
        return None
    return histogram.value_at_rank(ranks[0]) / 1e9, histogram.value_at_rank(ranks[1]) / 1e9


def _with_failures(histogram: Histogram, failures: int) -> dict[str, float | None]:
    """The same quantiles over successes and failures; `None` is infinite: the quantile lies among the failures."""
    total = histogram.count + failures
    ranks = {name: permille_rank(round(p * 1000), total) for name, p in QUANTILES.items()}
    return {
        name: histogram.value_at_rank(rank) / 1e9 if rank <= histogram.count else None for name, rank in ranks.items()
    }
