"""A level's figures, from its recording. Every figure in `run.json` is computed here; reports only show it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from loadbench.analyze.level.audit import audit
from loadbench.analyze.level.gave_up import gave_up_caveats, gave_up_result, with_too_few
from loadbench.analyze.level.objectives import decide, goodput, with_gates
from loadbench.analyze.level.server_side import contradictions, first_token, server_histograms
from loadbench.analyze.level.steady import Steadiness, Unjudged
from loadbench.analyze.level.verdict import PREEMPTIONS, caveats, judge
from loadbench.analyze.stats.effective_n import CorrelatedSeries
from loadbench.analyze.stats.intervals import mean_interval
from loadbench.core.units import NS_PER_S
from loadbench.plan.load import Closed, Open, users_of
from loadbench.record.figures import MANY_A_REQUEST
from loadbench.record.histogram import permille_rank
from loadbench.record.outcome import Outcome, failed_of
from loadbench.results.run import (
    ClientHealth,
    ClosedLoad,
    Concurrency,
    FailureCount,
    GroupResult,
    LevelResult,
    Metric,
    OpenLoad,
    PrefixCacheResult,
    Throughput,
    TimelinePart,
    TokenCounts,
    UnreadCounts,
    WorkerHealth,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from loadbench.plan.load import Load
    from loadbench.record.histogram import Histogram
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.window_tally import Production
    from loadbench.results.run import Interval, OpenInterval

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99, "p999": 0.999}

# A server's counters beyond this number are dropped; vLLM has about thirty.
_MAX_COUNTERS = 40
# Failed requests have these figures too: counting failures as infinite would count them twice.
_ALSO_OF_FAILURES = frozenset({"lateness", "connect"})
# The figure whose values are kept in order, and the figures assumed to be correlated in the same way.
_CORRELATED_LIKE = {
    "ttft_response": ("ttft", "ttft_response", "ttfo", "ttfb", "server_queue", "server_prefill"),
    "e2e_response": ("e2e", "e2e_response", "stream_end", "e2e_per_token"),
    "tpot": ("tpot", "tpot_classic", "server_decode"),
}
# The load generator's own delays, and figures whose values are not kept.
INDEPENDENT = CorrelatedSeries((), users=1)
# One for each hour of a day.
_MAX_PARTS = 24


def summarize(
    recording: LevelRecording,
    *,
    target: str,
    model: str,
    load: Load,
    failure_limit: float,
    listed: Collection[str] | None = None,
    exact_output: bool = False,
    origin_ns: int = 0,
    targets: Sequence[str] = (),
) -> LevelResult:
    """The level as `run.json` has it; `origin_ns` is the run's start on its clock, `targets` are several servers.

    `listed` are the models that the server lists, `None` if it has no list. With `exact_output` responses of exactly
    the requested length were wanted.
    """
    window_s = recording.window_s
    opens_ns, closes_ns = recording.window
    throughput = _throughput(recording.production, window_s)
    intervals: dict[str, Interval | None] = {}
    for name, by_slice in (
        ("requests_per_s", recording.answers_by_slice),
        ("output_tokens_per_s", recording.tokens_by_slice),
    ):
        # About the rate of the whole window, whose end may lie within a slice.
        rate, ends = float(getattr(throughput, name)), mean_interval(by_slice)
        reach = 0.0 if ends is None else (ends[1] - ends[0]) / 2 * NS_PER_S / recording.slice_ns
        intervals[name] = None if ends is None else (max(0.0, rate - reach), rate + reach)
    throughput = msgspec.structs.replace(throughput, interval=intervals)
    metrics = _metrics(recording, load)
    decided = decide(recording, throughput, load)
    histograms = server_histograms(recording.server)
    first = first_token(recording, histograms)
    gave_up = gave_up_result(recording)
    steadiness = Steadiness(recording, load)
    verdict = judge(recording, steadiness, load=load, model=model, failure_limit=failure_limit, listed=listed)
    verdict = with_too_few(verdict, recording, load)
    unknown = steadiness.unjudged() if verdict.status == "VALID" else Unjudged()

    # The server's counters that rose, preemptions first; a brace in the name marks a part of a histogram.
    server = None
    if recording.server is not None:
        risen = [name for name, amount in recording.server.items() if amount and "{" not in name]
        names = sorted(risen, key=lambda name: (name not in PREEMPTIONS, name))[:_MAX_COUNTERS]
        server = {name: recording.server[name] for name in names}

    cache, warm = recording.prefix_cache, None
    if cache.requests:
        share = cache.cached_tokens / cache.input_tokens if cache.input_tokens else None
        warm = PrefixCacheResult(requests=cache.requests, cached_requests=cache.cached, cached_share=share)
    return LevelResult(
        target=target,
        targets=list(targets),
        model=model,
        load=load_result(load),
        window_s=window_s,
        window_ns=(opens_ns - origin_ns, closes_ns - origin_ns),
        verdict=with_gates(verdict, recording.attained.tallies, decided, unknown),
        caveats=[
            *([] if unknown.level is None else [unknown.level]),
            *caveats(recording, load, model=model, listed=listed, exact_output=exact_output),
            *contradictions(recording, first),
            *gave_up_caveats(recording, gave_up),
        ],
        audit=audit(recording, load),
        outcomes={outcome.value: count for outcome, count in sorted(recording.outcomes.items())},
        failures=[FailureCount(outcome.value, detail, count) for (outcome, detail), count in recording.details.items()],
        offered_per_s=_per_s(recording.arrivals_due, window_s),
        achieved_per_s=_per_s(recording.arrivals_sent, window_s),
        missed=recording.missed,
        throughput=throughput,
        concurrency=Concurrency(mean=recording.in_flight_mean, peak=recording.in_flight_peak),
        goodput=goodput(recording, load),
        objectives=decided,
        tokens=TokenCounts(
            input=recording.input_tokens,
            output=recording.output_tokens,
            source={source.value: count for source, count in sorted(recording.token_sources.items())},
            cached_requests=recording.cached,
            unknown_input=recording.unknown_input_tokens,
            shorter=recording.answers_shorter,
            longer=recording.answers_longer,
        ),
        finish_reasons=dict(recording.finish_reasons),
        unread=UnreadCounts(
            keep_alives=recording.unread.keep_alives,
            frames=recording.unread.frames,
            requests=recording.unread.requests,
            first=recording.unread.words,
            content_types=dict(recording.unread.content_types),
        ),
        client=_client(recording),
        undefined=dict(recording.undefined),
        metrics=metrics,
        interrupted=recording.interrupted,
        personas=_groups(recording, "persona"),
        by_model=_groups(recording, "model"),
        by_server=_groups(recording, "server"),
        turns={str(turn): count for turn, count in sorted(recording.turns.items())},
        warm=warm,
        course=_timeline_parts(recording, load),
        server=server,
        server_histograms=histograms,
        first_token=first,
        gave_up=gave_up,
    )


def load_result(load: Load) -> ClosedLoad | OpenLoad:
    """The load as `run.json` has it."""
    if isinstance(load, Closed):
        return ClosedLoad(load.users, None if load.think is None else str(load.think))
    return OpenLoad(load.rate_per_s, str(load.arrivals))


def _per_s(amount: int, window_s: float) -> float:
    return amount / window_s if window_s > 0 else 0.0


def _throughput(production: Production, window_s: float) -> Throughput:
    return Throughput(
        requests_per_s=_per_s(production.answers, window_s),
        output_tokens_per_s=_per_s(production.output_tokens, window_s),
        total_tokens_per_s=_per_s(production.output_tokens + production.input_tokens, window_s),
    )


def _groups(recording: LevelRecording, kind: str) -> dict[str, GroupResult]:
    """The figures of the groups of one kind."""
    return {
        name: GroupResult(
            requests=stats.requests,
            ok=stats.ok,
            outcomes={outcome.value: count for outcome, count in sorted(stats.outcomes.items())},
            input_tokens=stats.input_tokens,
            output_tokens=stats.output_tokens,
            throughput=_throughput(stats.produced, recording.window_s),
            metrics={
                # Requests of a group lie among those of the others, so how they are correlated is unknown.
                f"{figure}_s": metric(histogram, failures=_failed(stats.outcomes), correlated=None)
                for figure, histogram in stats.histograms.items()
            },
        )
        for name, stats in recording.groups_of(kind).items()
    }


def _failed(outcomes: Mapping[Outcome, int]) -> int:
    """Measured requests that would have taken longer than any: those that failed, and those that were given up."""
    return failed_of(outcomes)[0] + outcomes.get(Outcome.GAVE_UP, 0)


def _client(recording: LevelRecording) -> ClientHealth:
    health = recording.health
    pause_ns, requests = health.gc_pauses.max, sum(recording.phases.values())
    # A model in this process is most of what it used.
    cpu_s = None if health.cpu_ns is None or health.stamp_source == "adapter" else health.cpu_ns / 1e9
    return ClientHealth(
        stamp_source=health.stamp_source,
        stamp_error_s=None,
        read_delay_s=_quantiles(health.read_delay),
        loop_lag_s=_quantiles(health.loop_lag),
        lateness_s=_quantiles(recording.histograms["lateness"]),
        gc_pause_max_s=None if pause_ns is None else pause_ns / 1e9,
        cpu_share=health.cpu_share,
        cpu_s=cpu_s,
        cpu_per_request_s=cpu_s / requests if cpu_s is not None and requests else None,
        cpu_per_event_s=cpu_s / recording.all_events if cpu_s is not None and recording.all_events else None,
        merged_reads=recording.merged_reads / recording.reads if recording.reads else None,
        censored_events=recording.censored_events / recording.events if recording.events else None,
        reconnects=recording.reconnects,
        reused=recording.reused,
        start_skew_s=None if recording.start_skew_ns is None else recording.start_skew_ns / 1e9,
        workers=[
            WorkerHealth(
                name=worker.name,
                log=worker.log,
                lost=worker.health is None,
                requests=worker.lateness.count,
                began_s=None if worker.began_ns is None else worker.began_ns / 1e9,
                clock_error_s=worker.clock_error_ns / 1e9,
                lateness_s=_quantiles(worker.lateness),
                loop_lag_s=None if worker.health is None else _quantiles(worker.health.loop_lag),
                cpu_share=None if worker.health is None else worker.health.cpu_share,
                censored_events=worker.censored_events / worker.events if worker.events else None,
            )
            for worker in recording.workers
        ],
    )


def _quantiles(histogram: Histogram) -> dict[str, float | None] | None:
    if not histogram.count:
        return None
    values_ns = {"p50": histogram.percentile(50), "p99": histogram.percentile(99), "max": histogram.max}
    return {name: None if value is None else value / 1e9 for name, value in values_ns.items()}


def _metrics(recording: LevelRecording, load: Load) -> dict[str, Metric | None]:
    failed = _failed(recording.outcomes)
    users = users_of(load)
    correlated: dict[str, CorrelatedSeries | None] = {}
    for kept, names in _CORRELATED_LIKE.items():
        values = recording.timeline.kept.get(kept, ())
        if len(values):
            correlated |= dict.fromkeys(names, CorrelatedSeries(values, users=users))
    # The correlation of values of which one request has many is unknown.
    correlated |= dict.fromkeys(MANY_A_REQUEST)
    return {
        f"{name}_s": metric(
            histogram,
            failures=None if name in MANY_A_REQUEST | _ALSO_OF_FAILURES else failed,
            correlated=correlated.get(name, INDEPENDENT),
        )
        for name, histogram in recording.histograms.items()
    }


def metric(histogram: Histogram, *, failures: int | None, correlated: CorrelatedSeries | None) -> Metric | None:
    """The distribution in seconds; `None` for an empty one.

    `failures` count as infinite in `with_failures`, which is null without them. `correlated` are values that are
    correlated like these; where that is unknown there are no intervals.
    """
    count, mean, low, high = histogram.count, histogram.mean, histogram.min, histogram.max
    if mean is None or low is None or high is None:
        return None
    intervals: dict[str, OpenInterval | None] = dict.fromkeys(QUANTILES)
    if correlated is not None:
        for name, p in QUANTILES.items():
            first, last = correlated.ranks(count, p)
            if first is not None or last is not None:
                intervals[name] = (
                    None if first is None else histogram.value_at_rank(first, lowest=True) / 1e9,
                    None if last is None else histogram.value_at_rank(last) / 1e9,
                )
    with_failures: dict[str, float | None] | None = None
    if failures is not None:
        ranks_of_all = {name: permille_rank(round(p * 1000), count + failures) for name, p in QUANTILES.items()}
        with_failures = {
            name: histogram.value_at_rank(rank) / 1e9 if rank <= count else None for name, rank in ranks_of_all.items()
        }
    return Metric(
        count=count,
        mean=mean / 1e9,
        min=low / 1e9,
        max=high / 1e9,
        **{name: (histogram.percentile(100 * p) or 0) / 1e9 for name, p in QUANTILES.items()},
        interval=intervals,
        with_failures=with_failures,
        effective=None if correlated is None else max(1, int(count / correlated.inefficiency(0.5))),
        clipped=histogram.clipped,
        hdr=histogram.encode(),
    )


def _timeline_parts(recording: LevelRecording, load: Load) -> list[TimelinePart]:
    """Up to 24 parts of a window whose rate was planned to change, each of whole slices; empty for a constant rate."""
    if not (isinstance(load, Open) and load.arrivals.rate_varies):
        return []
    timeline = recording.timeline
    series = (
        recording.answers_by_slice,
        recording.tokens_by_slice,
        timeline.in_flight,
        timeline.ttft_ns,
        timeline.ttft_count,
    )
    slices = min(map(len, series[:3]))
    parts = min(_MAX_PARTS, slices)
    sums = [np.cumsum([0.0, *values]) for values in series]
    result = []
    for begin, end in pairwise(index * slices // parts for index in range(parts + 1) if parts):
        # A series that is shorter has nothing in its missing slices.
        answers, tokens, in_flight, ttft_ns, count = (
            float(total[min(end, len(total) - 1)] - total[min(begin, len(total) - 1)]) for total in sums
        )
        part_s = (end - begin) * recording.slice_ns / NS_PER_S
        result.append(
            TimelinePart(
                from_s=begin * recording.slice_ns / NS_PER_S,
                answers_per_s=answers / part_s,
                output_tokens_per_s=tokens / part_s,
                in_flight=in_flight / (end - begin),
                ttft_mean_s=ttft_ns / count / 1e9 if count else None,
            )
        )
    return result
