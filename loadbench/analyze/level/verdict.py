"""The verdict on one level: whether its figures can be trusted, why not, and what to do about it.

A level with at least one reason is INVALID, or OVERLOADED (`loadbench.analyze.level.overload`). Codes, conditions and
bounds are those of docs/metrics.md.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from typing import TYPE_CHECKING

from loadbench.analyze.level.audit import audit
from loadbench.analyze.level.overload import ABOVE_CAPACITY, FAILURES, status_of
from loadbench.analyze.level.servers import uneven_servers
from loadbench.core.text import some
from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.load import Closed, Open, Shard
from loadbench.record.kept_connections import ADVICE
from loadbench.record.outcome import Outcome, TokenSource, failed_of, without_hint
from loadbench.record.slices import SLICE_NS
from loadbench.results.run import Reason, Verdict
from loadbench.wire.openai import clean
from loadbench.wire.vocabulary import Ending, ending_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from loadbench.analyze.level.steady import Steadiness
    from loadbench.plan.load import Load
    from loadbench.record.histogram import Histogram
    from loadbench.record.recorder import LevelRecording, Unread
    from loadbench.record.request import Destination
    from loadbench.record.usage_check import UsageStats

# The load generator's own delay matters above both: nobody feels less than 1 ms, and less than a twentieth of the
# usual time between two tokens does not change the figures.
DELAY_NS = 1_000_000
_DELAY_SHARE = 0.05
# An event loop that is later than this misses what is 30 ms long and more.
_AWAKE_NS = 10_000_000
# No busy machine holds a process up for so long. One such pause spoils a long level whose quantiles do not show it.
_STOOD_STILL_NS = 2 * NS_PER_S
_MIN_ACHIEVED = 0.99
# Of fewer requests one worker's p99 is the largest of them.
_FEWEST_OF_A_WORKER = 100
# How often a level of several workers may be INVALID for one that was late by chance.
_BY_CHANCE = 0.01
# Half a slice of the timeline: what is further apart is seen in it as a load that grows.
_MOST_APART_NS = SLICE_NS // 2
# A closed loop that loses more than this share of its cycle makes noticeably less load than its users should.
_MAX_LOST_CYCLE = 0.02
# An event that carries a later event's stamp makes the gap before it too long. Up to this share of them, the p99 of the
# gaps is at most what their p99.5 would be; with twice as many it could be any. First tokens are far
# fewer, and their p99 and p99.5 can be far apart.
MAX_LATE = 0.005
# From this share on, events that a server sends together shape the distribution of gaps.
_MANY_TOGETHER = 0.05
# These stamps are right however late the read: the kernel's, and those of a model in this process.
_STAMPED_ON_ARRIVAL = frozenset({"kernel", "adapter"})
# Reasons that say that the load generator was the bottleneck: it made less load than planned, its stamps are late, or
# only those of single tokens are.
LESS_LOAD_CODES = frozenset({"rate_not_reached", "missed_arrivals", "lost_worker", "client_limit", "stood_still"})
ITL_ONLY_CODES = frozenset({"late_reads"})
CLIENT_CODES = LESS_LOAD_CODES | {"late_start", "loop_lag", "late_first_tokens"} | ITL_ONLY_CODES
# Of these, what a load generator shows that waits for a core.
LATE_CODES = CLIENT_CODES - LESS_LOAD_CODES | {"rate_not_reached"}
GENERATOR_BOTTLENECK = "the load generator was the bottleneck: give it its own core, or reduce the load"
_UNREAD_ADVICE = (
    "find out what the server means by it: a part of the text, or an error, may be missing from the figures"
)
# What a longer form of a model's name adds: a tag, a date, a number of three digits, or how its file ends.
_ADDED = re.compile(r"[:@].+|-latest|-\d{4}(-?\d\d){0,2}|-\d{3}|\.gguf")
# Prefill takes about as much longer as the prompts are, so their mean matters more than how single ones vary.
_MAX_LENGTH_ERROR = 0.02
_MAX_LENGTH_SPREAD = 0.05
# If more than this share of requests has a doubtful count, the sum is doubtful.
_MAX_DOUBTFUL = 0.01
# Counters of prompt tokens that the prefix cache had, and of all that were looked up in it. Of those that are few, most
# belong to the template with which all prompts begin.
_PREFIX_CACHES = (
    ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),
    ("vllm:gpu_prefix_cache_hits_total", "vllm:gpu_prefix_cache_queries_total"),
    ("sglang:cached_tokens_total", "sglang:prompt_tokens_total"),
)
_MANY_CACHED = 0.05
_UNCACHED = (
    "leave --unique on, and use another --seed if an earlier run sent the same prompts; or turn prefix caching off"
)
# Counters of sequences that lost their KV memory; a server has one of them, or the same one under two names.
PREEMPTIONS = (
    "vllm:num_preemptions_total",
    "sglang:num_retracted_requests_total",
    "sglang:num_retracted_reqs_total",
    "sglang:num_retractions_total",
)


def judge(
    recording: LevelRecording,
    steadiness: Steadiness,
    *,
    load: Load,
    model: str,
    failure_limit: float,
    listed: Collection[str] | None = None,
) -> Verdict:
    """The verdict on a level of `model` under `load`; `failure_limit` is the largest acceptable share of failures.

    `listed` are the models of the server, `None` if it has no list.
    """
    reasons = [
        *_incomplete(recording, load),
        *_short_warm_up(recording, load),
        *steadiness.reasons(),
        *_late_client(recording, load),
        *_failed_audit(recording, load),
        *_bad_responses(recording, failure_limit),
        *(
            Reason("other_model", message, "check the model's name: the server has none of this name")
            for sure, message, _ in other_names(recording, model, listed)
            if sure
        ),
    ]
    evidence = [ABOVE_CAPACITY] if steadiness.queue_growth is not None else []
    # Other failures are the server's fault; those that the end of the drain cut belong to a queue that grew.
    failed, total = failed_of(recording.outcomes)
    others = failed - recording.refused_load - (recording.outcomes.get(Outcome.ABANDONED, 0) if evidence else 0)
    evidence += [FAILURES] if failed > failure_limit * total and others <= failure_limit * total else []
    return Verdict(status_of(reasons, evidence), reasons, evidence)


def client_reasons(verdict: Verdict, *, per_token: bool) -> list[Reason]:
    """The reasons that say that the load generator was the bottleneck; `per_token`: also for single tokens alone.

    A server that is beyond its limit leaves no room for further arrivals: they are no fault of the load generator's.
    """
    codes = CLIENT_CODES - ({"missed_arrivals"} if verdict.load_evidence else set())
    codes -= set() if per_token else ITL_ONLY_CODES
    return [reason for reason in verdict.reasons if reason.code in codes]


def _incomplete(recording: LevelRecording, load: Load) -> Iterator[Reason]:
    """The level did not run as planned: it was cut short, lost a part, or did not send all its requests."""
    if recording.server_ended:
        advice = "see the server's log in the run folder; --resume goes on with this level"
        yield Reason("server_ended", recording.server_ended, advice)
    elif recording.aborted:
        yield Reason(
            "aborted",
            f"the level was aborted by {recording.aborted}",
            "reduce the load, or find out what is wrong with the server",
        )
    elif recording.interrupted:
        yield Reason("interrupted", "the level was stopped before its end", "run it again, to its end")
    if recording.lost_workers:
        every, lost = len(recording.workers), [one.name for one in recording.workers if one.health is None]
        who = f"{len(lost)} of the {every} workers" if every > 1 else "the only worker"
        message = f"{who} ended early ({some(lost, most=3)}), and with {'them' if every > 1 else 'it'} "
        share = len(lost) / max(1, every)
        if isinstance(load, Closed):
            users = [Shard(n, every).share(load.users) for n in range(every) if recording.workers[n].health is None]
            share = sum(users) / load.users
        message += f"{100 * share:.0f} % of the load"
        if recording.unreported:
            one, whose = recording.unreported == 1, "they" if every > 1 else "it"
            gone = f"{recording.unreported} request{'' if one else 's'} that {whose} had sent {'is' if one else 'are'}"
            message += f"; {gone} in no figure"
        advice = "find out what ended or stopped them (out of memory?), then run it again"
        yield Reason("lost_worker", message, advice)
    if not recording.outcomes:
        message = "no request was due during the measurement"
        advice = "use a --duration longer than one request plus its think time"
        if recording.lost_workers:
            message = "no request that is known was due during the measurement: what lost workers measured is lost"
            advice = "find out what ended or stopped them, then run it again"
        yield Reason("no_answers", message, advice)
    elif not recording.outcomes.get(Outcome.OK):
        gave_up, measured = recording.outcomes.get(Outcome.GAVE_UP, 0), sum(recording.outcomes.values())
        message, advice = "no measured request succeeded", "see the failures"
        if gave_up:
            message += f": {gave_up} of {measured} users gave up"
            advice = "use --abandon with a smaller share or more patience" if gave_up == measured else advice
        yield Reason("no_answers", message, advice)
    unsent = {words: count for (outcome, words), count in recording.details.items() if outcome is Outcome.CLIENT_LIMIT}
    if unsent:
        message = f"{sum(unsent.values())} of {sum(recording.outcomes.values())} requests were not sent: "
        advice = "raise this limit of the load generator's machine, or reduce the load"
        yield Reason("client_limit", message + some([*unsent], most=3, separator="; "), advice)
    stopped = [*_stopped(recording)]
    yield from stopped
    # With a server that is gone its counters are, too.
    if recording.server_restarted and not recording.server_ended and not stopped:
        whose, advice = "the server's counters", "see the server's log"
        if len(recording.groups_of("server")) > 1:
            whose = "the counters of one of the servers"
        else:
            advice += "; behind a load balancer each replica has its own counters: use one replica's address"
        yield Reason("server_restarted", f"{whose} restarted or disappeared during the level", advice)

    due, sent = recording.arrivals_due, recording.arrivals_sent
    if isinstance(load, Open) and recording.missed:
        advice = "raise --max-in-flight, or reduce the rate"
        if recording.lost_workers:
            advice = "find out what ended the workers, whose arrivals are among them"
        yield Reason("missed_arrivals", f"{recording.missed} of {due} arrivals were not sent", advice)
    # One request may be due just before the window closes and be sent after it.
    elif isinstance(load, Open) and sent < _MIN_ACHIEVED * due - 1:
        message = f"{due} requests were due inside the window, but only {sent} were sent inside it"
        yield Reason("rate_not_reached", message, GENERATOR_BOTTLENECK)


def _stopped(recording: LevelRecording) -> Iterator[Reason]:
    """That no response came any more from some of the servers, or models of a mix, or from any."""
    (opens_ns, closes_ns), outages = recording.window, recording.outages
    began = {to: one.began_ns for to, one in outages.items() if one.began_ns is not None and one.began_ns < closes_ns}
    # A server that stopped did so for all models, and a model that is gone may be at all servers.
    servers, models = ({to[kind] for to in began} - {to[kind] for to in outages if to not in began} for kind in (2, 1))
    stopped: dict[tuple[str | None, str | None], list[Destination]] = {}
    for to in sorted(began, key=lambda to: began[to]):
        model = None if to.server in servers else to.model
        stopped.setdefault((model, None if to.server not in servers and model in models else to.server), []).append(to)
    texts = []
    for (model, server), destinations in stopped.items():
        since_s = (began[destinations[0]] - opens_ns) / NS_PER_S
        since = f"{since_s:.1f} s into the measurement" if since_s >= 0 else f"{-since_s:.1f} s before the measurement"
        failures: Counter[tuple[Outcome, str]] = Counter()
        for to in destinations:
            failures.update(outages[to].failures)
        (outcome, words), most = min(failures.items(), key=lambda item: (-item[1], item[0]))
        # A server that served requests before needs no advice on its address.
        words = without_hint(words) if outcome is Outcome.REFUSED and recording.outcomes.get(Outcome.OK) else words
        others = failures.total() - most
        whose = (f" to {model}" if model else "") + (f" at {server}" if server else "")
        texts.append(
            f"no request{whose} succeeded from {since} on: {most} × {outcome}"
            + (f": {words}" if words else "")
            + (f", and {others} others" if others else "")
        )
    if texts and not recording.server_ended:
        yield Reason(
            "server_stopped",
            some(texts, most=3, separator="; "),
            "see the server's log: it ended, restarted or refuses requests; measure again with a server that stays up",
        )


def _short_warm_up(recording: LevelRecording, load: Load) -> Iterator[Reason]:
    """Until every user has had a response the load is still building up, and the first requests wait least."""
    e2e_ns = recording.histograms["e2e_response"].percentile(50)
    one_user = isinstance(load, Closed) and load.users == 1
    begins_empty = isinstance(load, Open) and load.begins_empty
    if e2e_ns is not None and not one_user and not begins_empty and recording.warm_up_ns < e2e_ns:
        took = f"{e2e_ns / 1e9:.1f} s" if e2e_ns >= NS_PER_S else f"{e2e_ns / 1e6:.0f} ms"
        enough = format_duration(-(-2 * e2e_ns // NS_PER_S) * NS_PER_S)
        yield Reason(
            "short_warm_up",
            f"the warm-up of {format_duration(round(recording.warm_up_ns, -6))} ended before the load was steady: "
            f"half the requests took {took} or longer",
            f"use --warm-up {enough}, and a --duration longer than that",
        )


def _late_start(recording: LevelRecording, load: Load, *, among: int = 1) -> Iterator[Reason]:
    """An open loop must keep its schedule. A closed loop has none: a late start is a longer think time, which reduces
    the load by its share of a cycle, the time from one request of a user to the next. `among` so many workers one is
    late only by more than chance."""
    lateness = recording.histograms["lateness"]
    if isinstance(load, Open):
        message = "loadbench sent requests late"
        yield from _delayed(recording, lateness, code="late_start", message=message, among=among)
        return
    mean_ns, e2e_ns = lateness.mean, recording.histograms["e2e_response"].mean
    if mean_ns is None or e2e_ns is None:
        return
    # Of users who wait for a request that another worker has, so is the wait.
    requests = sum(worker.lateness.count for worker in recording.workers)
    waited_ns = sum(worker.waited_ns for worker in recording.workers) / max(1, requests)
    mean_ns += waited_ns
    cycle_ns = e2e_ns + (load.think.mean if load.think is not None else 0.0)
    allowed_ns = max(DELAY_NS, _MAX_LOST_CYCLE * cycle_ns)
    if mean_ns > allowed_ns:
        message = f"loadbench sent the users' next requests late, by {mean_ns / 1e6:.1f} ms on average; "
        message += f"{allowed_ns / 1e6:.1f} ms is allowed at this length of responses and pauses"
        advice = GENERATOR_BOTTLENECK
        if waited_ns > mean_ns / 2:
            message += "; most of it were waits, at the end, for requests that other workers had"
            advice = "measure more --requests, or by --duration"
        yield Reason("late_start", message, advice)


def _late_stamps(recording: LevelRecording, *, among: int = 1) -> Iterator[Reason]:
    """A kernel stamp is right as long as the event is read before the next one arrives; a stamp at the read is late
    whenever the event loop is."""
    health = recording.health
    if max(health.slept_ns, health.loop_lag.max or 0) > _STOOD_STILL_NS:
        slept_s, stood_s = health.slept_ns / NS_PER_S, (health.loop_lag.max or 0) / NS_PER_S
        message = f"loadbench stood still for {stood_s:.1f} s during the level"
        if slept_s > stood_s:
            message = f"this machine was suspended for {slept_s:.1f} s during the level"
        advice = "see that nothing stops the process and that the machine does not sleep, then measure again"
        yield Reason("stood_still", message, advice)
    if health.clock_steps:
        message = f"the wall clock, which the kernel's stamps use, was set during the level ({health.clock_steps} ×)"
        yield Reason("clock_step", message, "wait until the clock is synchronised, then measure again")
    if health.stamp_source not in _STAMPED_ON_ARRIVAL:
        message = "loadbench read responses late, which makes every timestamp late"
        yield from _delayed(recording, health.loop_lag, code="loop_lag", message=message, among=among)
    elif recording.censored_events > MAX_LATE * recording.events:
        share = recording.censored_events / recording.events
        message = f"loadbench read {100 * share:.1f} % of events so late that a later one had already arrived; "
        message += f"{100 * MAX_LATE:g} % are allowed"
        yield Reason("late_reads", message, GENERATOR_BOTTLENECK)
    elif recording.separate_events > MAX_LATE * recording.events:
        # In such a fast stream the last event of a late read is always recent; the loop's lag shows the lateness.
        # Events that the server sent together are not among these.
        message = "loadbench read events late, and several that the server sent apart came together"
        yield from _delayed(recording, health.loop_lag, code="late_reads", message=message, among=among)
    # Of the events these may be few, and make up a quantile of the times to first token all the same.
    late, answers = recording.late_first_tokens, recording.outcomes.get(Outcome.OK, 0)
    least = max(1, MAX_LATE * answers, _beyond_chance(MAX_LATE * answers, among) - 1)
    if late > least or (among == 1 and late > 1 and _moves_p99(recording.histograms["ttft"], late / answers)):
        message = f"loadbench read {late} of {answers} first tokens so late that a later one had already arrived"
        yield Reason("late_first_tokens", message, GENERATOR_BOTTLENECK)


def _late_client(recording: LevelRecording, load: Load) -> Iterator[Reason]:
    """Where the load generator was late: by the delays of all its workers, and of each. Among many that are in time
    the delays of a sick one are too few to be seen; and among those of all nobody sees whose they are."""
    late = [*_late_start(recording, load), *_late_stamps(recording)]
    sick: dict[str, list[tuple[str, Reason]]] = {}  # by code
    many = len(recording.workers)
    for worker in recording.workers if many > 1 else ():
        if worker.health is not None and worker.lateness.count >= _FEWEST_OF_A_WORKER:
            alone = dataclasses.replace(
                recording,
                health=worker.health,
                histograms={**recording.histograms, "lateness": worker.lateness},
                outcomes={Outcome.OK: worker.answers},
                events=worker.events,
                separate_events=worker.separate_events,
                censored_events=worker.censored_events,
                late_first_tokens=worker.late_first_tokens,
                workers=(),
            )
            for reason in (*_late_start(alone, load, among=many), *_late_stamps(alone, among=many)):
                sick.setdefault(reason.code, []).append((worker.name, reason))
    for reason in late:
        names = [name for name, _ in sick.pop(reason.code, [])]
        whose = f"; of the {many} workers it was {some(names, most=3)}" if 0 < len(names) < many else ""
        yield Reason(reason.code, reason.message + whose, reason.advice)
    for code, found in sick.items():
        advice = "see what else its machine does, or leave it out"
        yield Reason(code, f"{some([name for name, _ in found], most=3)}: {found[0][1].message}", advice)


def _moves_p99(times: Histogram, share: float) -> bool:
    """Whether the p99 may be noticeably too long because this share of the times is: all of them may belong below it,
    and then it is what is now the percentile below by so much."""
    measured_ns, least_ns = times.percentile(99), times.percentile(max(0.0, 99 - 100 * share))
    if measured_ns is None or least_ns is None:
        return False
    return measured_ns - least_ns > max(DELAY_NS, _DELAY_SHARE * measured_ns)


def _delayed(recording: LevelRecording, delays: Histogram, *, code: str, message: str, among: int) -> Iterator[Reason]:
    """The p99 is above the bound, and so are two values at least: of fewer than 100 the largest alone is the p99.

    Of several workers one has more late values than the others by chance, where each is late with a probability of 1 %.
    """
    p99_ns = delays.percentile(99)
    gap_ns = recording.histograms["itl"].percentile(50) or recording.histograms["event_gap"].percentile(50) or 0
    bound_ns = max(DELAY_NS, _DELAY_SHARE * gap_ns)
    least = max(2, _beyond_chance(0.01 * delays.count, among))
    if p99_ns is not None and p99_ns > bound_ns and delays.count_above(round(bound_ns)) >= least:
        late = f"1 in 100 was {p99_ns / 1e6:.1f} ms late or more"
        allowed = f"{bound_ns / 1e6:.1f} ms is allowed at this token rate"
        yield Reason(code, f"{message}: {late}, and {allowed}", GENERATOR_BOTTLENECK)


def _beyond_chance(mean: float, among: int) -> int:
    """So many are more than chance where a worker has this number on average: one `among` so many workers has that many
    in at most 1 of 100 levels (Chernoff's bound of a Poisson number, for each worker). 0 of a single one."""
    if among == 1:
        return 0
    mean = max(1e-9, mean)
    least = max(1, math.ceil(mean))
    while least * math.log(least / mean) - least + mean < math.log(among / _BY_CHANCE):
        least += 1
    return least


def _failed_audit(recording: LevelRecording, load: Load) -> Iterator[Reason]:
    failed = [check for check in audit(recording, load) if not check.ok]
    if failed:
        wrong = "; ".join(f"{check.name} is {check.measured:.6g}, expected {check.expected:.6g}" for check in failed)
        advice = "this is a bug in loadbench: please report it with the run folder"
        yield Reason("audit", f"self-audit failed: {wrong}", advice)


def _bad_responses(recording: LevelRecording, failure_limit: float) -> Iterator[Reason]:
    ok = recording.outcomes.get(Outcome.OK, 0)
    failed, total = failed_of(recording.outcomes)
    unreadable = recording.outcomes.get(Outcome.PROTOCOL, 0)
    if unreadable:
        advice = "see the failures; check that the URL is that of an OpenAI-compatible server"
        yield Reason("protocol", f"{unreadable} of {total} responses could not be parsed", advice)
    unknown = recording.token_sources.get(TokenSource.UNKNOWN, 0)
    if unknown > _MAX_DOUBTFUL * ok:
        message = f"{unknown} of {ok} responses have an unknown number of tokens"
        yield Reason("unknown_tokens", message, "make the server report usage")
    usage = recording.usage
    if usage.faults > _MAX_DOUBTFUL * ok:
        yield Reason(
            "impossible_usage",
            f"the usage of {usage.faults} of {ok} responses cannot be true: {usage.fault}",
            "find out how the server counts; a limit that it does not obey may have another name there",
        )
    unread = recording.unread
    if unread.requests > _MAX_DOUBTFUL * ok:
        yield Reason("unread_frames", _unread_message(unread, ok), _UNREAD_ADVICE)
    # A prompt that repeats the beginning of an earlier one is expected in the cache.
    cold = ok - recording.prefix_cache.requests
    cached = recording.cached - recording.prefix_cache.cached
    if cached > _MAX_DOUBTFUL * cold:
        message = f"{cached} of {cold} prompts came in part from the server's prefix cache"
        yield Reason("cached_prompts", message, _UNCACHED)
    if failed > failure_limit * total:
        message = f"{failed} of {total} requests failed; the limit is {100 * failure_limit:.3g} %"
        advice = "see the failures; reduce the load, or raise the limit with --failures"
        has_ended = recording.server_ended or any(_stopped(recording))
        yield Reason(FAILURES, message, "see why the server ended" if has_ended else advice)


def other_names(
    recording: LevelRecording, model: str, listed: Collection[str] | None
) -> Iterator[tuple[bool, str, str]]:
    """(whether it is surely another model, what happened, the name) for each model that was requested by another name.

    A name that only adds or omits a folder, a tag, a version or a date is the same. It is surely another model if the
    server lists the name in the responses, and not the requested one. Else it may be an alias, a deployment, or a
    router.
    """
    requested: dict[str, Mapping[str, int]] = {
        name: stats.models for name, stats in recording.groups_of("model").items()
    }
    for written, answered in (requested or {model: recording.models}).items():
        wanted = clean(written)  # as names in responses are read
        others = {name: count for name, count in answered.items() if name and not _alike(name, wanted)}
        if others:
            name, count = max(others.items(), key=lambda item: item[1])
            known = listed is not None and any(_alike(wanted, one) for one in listed)
            message = f"{count} of {sum(answered.values())} responses came from {name!r}, not {wanted!r}"
            yield listed is not None and name in listed and not known, message, name


def _alike(one: str, other: str) -> bool:
    """`llama3` and `llama3:latest`, `gpt-4o` and `gpt-4o-2024-08-06`, `qwen.gguf` and `/models/Qwen.gguf`."""
    short, long = sorted((one.casefold().rpartition("/")[2], other.casefold().rpartition("/")[2]), key=len)
    return long == short or (long.startswith(short) and _ADDED.fullmatch(long[len(short) :]) is not None)


def _unread_message(unread: Unread, ok: int) -> str:
    return f"{unread.requests} of {ok} responses had frames that are not part of a response; the first: {unread.words}"


def caveats(
    recording: LevelRecording,
    load: Load,
    *,
    model: str,
    listed: Collection[str] | None = None,
    exact_output: bool = False,
) -> Iterator[Reason]:
    """What a reader should know about a level even if it is valid; with `exact_output` lengths were to be exact."""
    yield from uneven_servers(recording)
    skew_ns, error_ns = recording.start_skew_ns or 0, max((one.clock_error_ns for one in recording.workers), default=0)
    if max(skew_ns, error_ns) > _MOST_APART_NS:
        message = f"the workers began up to {skew_ns / 1e6:.0f} ms apart"
        message += f" (their clocks are known to {error_ns / 1e6:.1f} ms)" if error_ns else ""
        advice = "see that no worker's machine is busy, and how fast the network between them is"
        yield Reason("start_skew", message, advice)
    if recording.lost_before:
        others = "the other" if len(recording.workers) == 1 else f"the {len(recording.workers)} others"
        message = f"{some(recording.lost_before, most=3)} had ended before this level, whose load came from {others}"
        yield Reason("fewer_workers", message, "find out what ended or stopped them (out of memory?)")
    if recording.not_logged:
        lines, names = sum(recording.not_logged.values()), some(list(recording.not_logged), most=3)
        message = f"requests.jsonl lacks {lines} of the requests of this level, which are in its figures: {names} "
        message += "ended or was out of reach while they were gathered"
        yield Reason("log_incomplete", message, "measure again if the single requests matter")
    ok = recording.outcomes.get(Outcome.OK, 0)
    for sure, message, name in other_names(recording, model, listed):
        if not sure:
            yield Reason(
                "model_name",
                message,
                f"make sure that {name!r} is the model to be measured: an alias or a router may answer by another name",
            )
    off = recording.answers_shorter + recording.answers_longer
    if exact_output and off:
        than = "shorter" if not recording.answers_longer else "longer" if not recording.answers_shorter else "different"
        yield Reason(
            "lengths_not_kept",
            f"{off} of {ok} responses ({100 * off / ok:.3g} %) had another length than --exact-output requests: {than}",
            "compare the time to first token and the time per token, which depend less on the length",
        )
    lengths = recording.prompt_lengths
    if abs(lengths.error) > _MAX_LENGTH_ERROR or lengths.spread > _MAX_LENGTH_SPREAD:
        than = f"{100 * abs(lengths.error):.2g} % {'more' if lengths.error > 0 else 'fewer'}"
        yield Reason(
            "prompt_length",
            f"prompts had {lengths.tokens / lengths.requests:.4g} tokens on average by the server's count "
            f"({lengths.least} to {lengths.most}), {lengths.target / lengths.requests:.4g} were requested: {than}; "
            f"single prompts vary by {100 * lengths.spread:.2g} % (standard deviation)",
            "read the figures as those of the server's counts; for prompts of exact lengths use --prompt or --prompts",
        )
    cut = recording.cut_short
    if cut:
        yield Reason(
            "cut_short",
            f"{cut} of {ok} responses ended at a limit of the server ('length') before their max_tokens",
            "prompt and response may fill the model's context, or the server may cap responses: use shorter ones, or "
            "raise its limit",
        )
    assumed = recording.token_sources.get(TokenSource.EVENTS, 0)
    if assumed:
        yield Reason(
            "assumed_tokens",
            f"the server reported no token count for {assumed} of {ok} responses; one token per event was assumed",
            "make the server report usage; until then read tokens as events",
        )
    yield from _doubtful_usage(recording.usage, ok)
    unread = recording.unread
    if 0 < unread.requests <= _MAX_DOUBTFUL * ok:
        yield Reason("unread_frames", _unread_message(unread, ok), _UNREAD_ADVICE)
    for content_type, count in unread.content_types.items():
        yield Reason(
            "content_type",
            f"{count} of {ok} responses had {content_type}; they were read as what they are",
            "make the server send Content-Type: text/event-stream (application/x-ndjson for Ollama) with a stream, and "
            "application/json with a response that is not streamed: other clients may refuse this",
        )
    filtered = {word: n for word, n in recording.finish_reasons.items() if ending_of(word) is Ending.FILTERED}
    if filtered:
        words = ", ".join(f"{word!r}" for word in filtered)
        yield Reason(
            "filtered",
            f"the server's content policy ended {sum(filtered.values())} of {ok} responses ({words})",
            "use other prompts, or turn the filter off: these responses are shorter than the others",
        )
    together = recording.events - recording.reads - recording.censored_events
    if together > _MANY_TOGETHER * recording.events:
        share = f"{100 * together / recording.events:.0f} %"
        yield Reason(
            "clumped_events",
            f"{share} of events (streamed chunks, about a token each) came together with the next one: the server or a "
            "proxy sent several at once, and loadbench read them in time; ITL and gaps are those between the server's "
            "writes, while TTFT, TPOT, E2E, tok/s and the verdict hold",
            "nothing, unless you need the time between single tokens: then turn buffering off in the proxy (nginx: "
            "proxy_buffering off), and give the process that writes the responses (vLLM: the API server) its own core",
        )
    if recording.reconnects:
        yield Reason(
            "reconnects",
            f"the server had closed kept-alive connections: {recording.reconnects} were replaced",
            "nothing is wrong; these requests include the set-up of the new connection",
        )
    delay_ns, lag = recording.connections.delay_ns, recording.health.loop_lag
    held, kept = recording.connections.held.count, recording.connections.kept
    # A load generator that sleeps for as long, and then reads all that has come, sees the same.
    is_awake = lag.count_above(_AWAKE_NS) / max(1, lag.count) < held / max(1, kept) / 2
    if delay_ns is not None and is_awake:
        yield Reason(
            "delayed_acknowledgements",
            f"the first token of {held} of {kept} responses on kept connections came {delay_ns / 1e6:.0f} ms after the "
            "head, as with delayed acknowledgements; otherwise first tokens are quick",
            ADVICE,
        )
    counters = recording.server or {}
    for hits, queries in _PREFIX_CACHES:
        found = counters.get(hits, 0) / (counters.get(queries) or float("inf"))
        if found > _MANY_CACHED and not recording.cached and not recording.prefix_cache.requests:
            yield Reason(
                "cached_by_counter",
                f"{100 * found:.0f} % of the prompt tokens came from the server's prefix cache, by its counter {hits}",
                _UNCACHED,
            )
    preempted = max((recording.server or {}).get(name, 0) for name in PREEMPTIONS)
    if preempted:
        yield Reason(
            "preemptions",
            f"the server preempted {preempted:.0f} sequences: KV memory was short",
            "reduce the load, shorten the requests, or give the server more KV memory",
        )
    if isinstance(load, Open) and load.arrivals.rate_varies:
        begins = ", starting with an idle server" if load.begins_empty else ""
        yield Reason(
            "planned_course",
            f"the rate changed as planned, by {load.arrivals}{begins}: whether the server was steady cannot be judged",
            "read the figures as those of the whole period; their intervals assume a steady rate",
        )


def _doubtful_usage(usage: UsageStats, ok: int) -> Iterator[Reason]:
    """What the server's counts say that its events did not show, or the other way round."""
    if usage.not_understood:
        yield Reason(
            "usage_not_understood",
            f"the usage of {usage.not_understood} of {ok} responses was not understood; it has {usage.unknown}",
            "output tokens are not counted by it; please report the server and these names",
        )
    if usage.hidden:
        yield Reason(
            "hidden_tokens",
            f"{usage.hidden} of {ok} responses have more output tokens by usage than their events can have shown, as "
            "with hidden reasoning: TTFT is the time to the first token shown; TPOT leaves these out, or is absent",
            "let the server send its reasoning, or turn it off",
        )
    if usage.surplus:
        yield Reason(
            "uncounted_tokens",
            f"the total of {usage.surplus} of {ok} responses has tokens that are neither prompt nor output, as with "
            "hidden reasoning: output tokens are too few by these, and TTFT is the time to the first token shown",
            "let the server send its reasoning, or turn it off",
        )
    if usage.few:
        yield Reason(
            "fewer_tokens_than_events",
            f"{usage.few} of {ok} responses have fewer output tokens by usage than events with text",
            "the server splits tokens, or its usage is wrong: check output tokens/s before use",
        )
    if usage.limit_ignored:
        yield Reason(
            "limit_ignored",
            f"{usage.limit_ignored} of {ok} responses are longer than requested",
            "the server ignores the limit, or has another name for it: its work differs from what was planned",
        )
