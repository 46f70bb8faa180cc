"""The verdict on one level: whether its figures can be believed, why not, and what to do about it.

Each rule is a function from the recording to a reason or nothing. A level with a reason is INVALID; the rules, their
codes and bounds are those of docs/metrics.md. What cannot be judged yet is listed there as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.analyze.level.audit import audit
from loadbench.analyze.level.steady import not_steady
from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.load import Closed, Open
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.results.run import Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from loadbench.plan.load import Load
    from loadbench.record.histogram import Histogram
    from loadbench.record.recorder import LevelRecording

# The client's own delay matters from here on: below 1 ms nobody feels it, and below a twentieth of the usual time
# between two tokens it does not change what is seen.
_DELAY_NS = 1_000_000
_DELAY_SHARE = 0.05
_LEAST_ACHIEVED = 0.99
# A closed loop that loses more than this share of its cycle to the client makes a load noticeably below its users.
_MOST_SLACK = 0.02
# Below this share of events with a later one's stamp the quantiles up to p99 hold.
_MOST_CENSORED = 0.01
# From this share on, events that a server sends together shape the distribution of gaps.
_MANY_TOGETHER = 0.05
# Stamps of these hold however late the client comes to what they stand for: of the kernel, of a model in this process.
_HOLDING = frozenset({"kernel", "adapter"})
_CLIENT_LIMIT = "the client was the limit: give it a core of its own, or make less load"
# More requests than this share with a doubtful count make the sum doubtful.
_MOST_UNKNOWN = 0.01
# Counters of sequences that had to give their KV memory back; a server has one of them, or the same by two names.
PREEMPTIONS = (
    "vllm:num_preemptions_total",
    "sglang:num_retracted_requests_total",
    "sglang:num_retracted_reqs_total",
    "sglang:num_retractions_total",
)


def judge(recording: LevelRecording, *, load: Load, model: str, failure_limit: float) -> Verdict:
    """The verdict on a level of `model` under `load`; `failure_limit` is the scenario's."""
    reasons = [reason for rule in _RULES for reason in rule(recording, load)]
    reasons += _failures(recording, failure_limit)
    reasons += _other_model(recording, model)
    return Verdict("INVALID" if reasons else "VALID", reasons)


def _nothing(recording: LevelRecording, _load: Load) -> Iterator[Reason]:
    if not recording.outcomes.get(Outcome.OK):
        yield Reason(
            "no_answers",
            "no measured request was answered" if recording.outcomes else "no request became due inside the window",
            "see the failures" if recording.outcomes else "measure for longer than a request and the thinking take",
        )


def _interrupted(recording: LevelRecording, _load: Load) -> Iterator[Reason]:
    if recording.aborted:
        yield Reason(
            "aborted",
            f"the level was given up by {recording.aborted}; the model's further levels were not run",
            "lower the load, or see what is wrong with the server",
        )
    elif recording.interrupted:
        yield Reason("interrupted", "the level was stopped before its end", "let it run to its end")


def _lost_workers(recording: LevelRecording, _load: Load) -> Iterator[Reason]:
    if recording.lost_workers:
        yield Reason(
            "lost_worker",
            f"{recording.lost_workers} of the client's processes ended, and with them their part of the load",
            "see what ended them (memory?), and run it again",
        )


def _server_restarted(recording: LevelRecording, _load: Load) -> Iterator[Reason]:
    if recording.server_restarted:
        yield Reason(
            "server_restarted",
            "the server's counters began anew during the level, or were gone after it",
            "see the server's log; behind a load balancer each replica has its own: give the address of one",
        )


def _achieved(recording: LevelRecording, load: Load) -> Iterator[Reason]:
    if not isinstance(load, Open):
        return
    due, sent = recording.arrivals_due, recording.arrivals_sent
    if recording.missed:
        yield Reason(
            "missed_arrivals",
            f"{recording.missed} of {due} arrivals were not sent",
            "raise --max-in-flight, or offer a lower rate",
        )
    elif sent < _LEAST_ACHIEVED * due - 1:  # one may be due before the window's end and leave after it
        yield Reason(
            "rate_not_reached", f"{sent} requests left inside the window, and {due} were due in it", _CLIENT_LIMIT
        )


def _short_warm_up(recording: LevelRecording, load: Load) -> Iterator[Reason]:
    """Until everybody has had an answer the load is still building up, and who asks first waits least."""
    answered_ns = recording.histograms["e2e_response"].percentile(50)
    alone = isinstance(load, Closed) and load.users == 1
    begins_empty = isinstance(load, Open) and load.begins_empty
    if answered_ns is not None and not alone and not begins_empty and recording.warm_up_ns < answered_ns:
        wanted = format_duration(-(-2 * answered_ns // NS_PER_S) * NS_PER_S)
        yield Reason(
            "short_warm_up",
            f"the warm-up of {format_duration(round(recording.warm_up_ns, -6))} ended before the load was steady: "
            f"half the answers took longer, {answered_ns / 1e9:.1f} s or more",
            f"--warm-up {wanted}, and measure for longer than that",
        )


def _late_start(recording: LevelRecording, load: Load) -> Iterator[Reason]:
    """An open loop has a schedule to keep. A closed one has none: a late start is a longer think time, and as such it
    takes from the load what it is of a whole cycle, from one request of a user to the next."""
    lateness = recording.histograms["lateness"]
    if isinstance(load, Open):
        yield from _client_delay(recording, lateness, code="late_start", what="requests left late")
        return
    mean_ns, answered_ns = lateness.mean, recording.histograms["e2e_response"].mean
    if mean_ns is None or answered_ns is None:
        return
    cycle_ns = answered_ns + (load.think.mean if load.think is not None else 0.0)
    if mean_ns > max(_DELAY_NS, _MOST_SLACK * cycle_ns):
        yield Reason(
            "late_start",
            f"users asked again {mean_ns / 1e6:.1f} ms late on average, {mean_ns / cycle_ns:.1%} of their cycle",
            _CLIENT_LIMIT,
        )


def _stamps(recording: LevelRecording, _load: Load) -> Iterator[Reason]:
    """Such stamps hold whatever the client does; the kernel's as long as it reads before the next event comes."""
    health = recording.health
    if health.clock_steps:
        yield Reason(
            "clock_step",
            f"the wall clock, in which the kernel stamps, was set {health.clock_steps} times",
            "let the clock settle, and measure again",
        )
    if health.stamp_source not in _HOLDING:
        yield from _client_delay(
            recording, health.loop_lag, code="loop_lag", what="the event loop, and so every stamp, was late"
        )
    elif recording.censored_events > _MOST_CENSORED * recording.events:
        share = recording.censored_events / recording.events
        yield Reason("late_reads", f"{share:.1%} of events were read so late that a later one had come", _CLIENT_LIMIT)
    elif recording.events - recording.reads > _MOST_CENSORED * recording.events:
        # Of a stream this quick the last event in a late read is always young: whether it was late, the loop tells.
        what = "events came together in one read, and the event loop was late"
        yield from _client_delay(recording, health.loop_lag, code="late_reads", what=what)


def _client_delay(recording: LevelRecording, delays: Histogram, *, code: str, what: str) -> Iterator[Reason]:
    """The p99 is above the bound; in a sample of fewer than a hundred, where one alone would make the p99, two are."""
    p99_ns = delays.percentile(99)
    usual_ns = recording.histograms["itl"].percentile(50) or recording.histograms["event_gap"].percentile(50) or 0
    bound_ns = max(_DELAY_NS, _DELAY_SHARE * usual_ns)
    if p99_ns is not None and p99_ns > bound_ns and delays.count_above(round(bound_ns)) > 1:
        yield Reason(
            code,
            f"{what}: p99 {p99_ns / 1e6:.1f} ms, and {bound_ns / 1e6:.1f} ms is the most at this pace of tokens",
            _CLIENT_LIMIT,
        )


def _protocol(recording: LevelRecording, _load: Load) -> Iterator[Reason]:
    count = recording.outcomes.get(Outcome.PROTOCOL, 0)
    if count:
        yield Reason(
            "protocol", f"{count} answers could not be read", "see the failures; is it an OpenAI-compatible server?"
        )


def _tokens(recording: LevelRecording, _load: Load) -> Iterator[Reason]:
    answered = recording.outcomes.get(Outcome.OK, 0)
    unknown = recording.token_sources.get(TokenSource.UNKNOWN, 0)
    if unknown > _MOST_UNKNOWN * answered:
        yield Reason(
            "unknown_tokens", f"{unknown} of {answered} answers have an unknown number of tokens", "let it report usage"
        )


def _prompts(recording: LevelRecording, _load: Load) -> Iterator[Reason]:
    if recording.prompt_off > _MOST_UNKNOWN * recording.prompt_asked:
        yield Reason(
            "prompt_length",
            f"{recording.prompt_off} of {recording.prompt_asked} prompts were more than 2 % off the asked length",
            "the server's tokenizer differs from what was calibrated; use --prompt or --prompts",
        )
    # What begins as an earlier request did is expected there.
    cold = recording.outcomes.get(Outcome.OK, 0) - recording.cohorts.warm
    cached = recording.cached - recording.cohorts.warm_cached
    if cached > _MOST_UNKNOWN * cold:
        yield Reason(
            "cached_prompts",
            f"{cached} of {cold} prompts came in part from the server's cache",
            "leave --unique on, or turn the prefix cache off",
        )


def _audit(recording: LevelRecording, load: Load) -> Iterator[Reason]:
    """A fault of ours, should it ever be seen."""
    failed = [one for one in audit(recording, load) if not one.ok]
    if failed:
        seen = "; ".join(f"{one.name} is {one.measured:.6g}, and should be {one.expected:.6g}" for one in failed)
        yield Reason(
            "audit",
            f"the books do not close: {seen}",
            "this is a fault of loadbench: please report it with the run folder",
        )


def _failures(recording: LevelRecording, limit: float) -> Iterator[Reason]:
    total = sum(count for outcome, count in recording.outcomes.items() if outcome is not Outcome.CANCELLED)
    failed = total - recording.outcomes.get(Outcome.OK, 0)
    if total and failed / total > limit:
        yield Reason(
            "failures",
            f"{failed} of {total} requests failed, and {limit:.3g} of them is the limit",
            "see the failures; lower the load, or allow more with --failures",
        )


def _other_model(recording: LevelRecording, model: str) -> Iterator[Reason]:
    others = {name: count for name, count in recording.models.items() if name not in {model, ""}}
    if others:
        name, count = max(others.items(), key=lambda item: item[1])
        yield Reason("other_model", f"{count} answers came from {name!r}, not {model!r}", "check the model's name")


def caveats(recording: LevelRecording, load: Load) -> list[Reason]:
    """What a reader should know of a level that may well be valid."""
    found = []
    answered = recording.outcomes.get(Outcome.OK, 0)
    assumed = recording.token_sources.get(TokenSource.EVENTS, 0)
    if assumed:
        found.append(
            Reason(
                "assumed_tokens",
                f"the server told no token count of {assumed} of {answered} answers; one token an event was assumed",
                "let it report usage; until then read tokens as events",
            )
        )
    together = recording.events - recording.reads
    if together - recording.censored_events > _MANY_TOGETHER * recording.events:
        found.append(
            Reason(
                "clumped_events",
                f"{together / recording.events:.0%} of events came in one read with a later one, though it was in time",
                "the server or a proxy sends several at once: gaps and ITL are those of its writes, not of its tokens",
            )
        )
    if recording.reconnects:
        found.append(
            Reason(
                "reconnects",
                f"{recording.reconnects} kept connections had been closed by the server and were replaced",
                "nothing is wrong; such a request counts the new connection's set-up",
            )
        )
    return [*found, *_preempted(recording), *_planned(load)]


def _planned(load: Load) -> Iterator[Reason]:
    if isinstance(load, Open) and load.arrivals.planned:
        begins = ", and it begins with an idle server" if load.begins_empty else ""
        yield Reason(
            "planned_course",
            f"the rate changed as planned, by {load.arrivals}{begins}: whether the server was steady cannot be judged",
            "read the figures as those of the whole course; their intervals take it for a steady one",
        )


def _preempted(recording: LevelRecording) -> Iterator[Reason]:
    rose = recording.server or {}
    count = max(rose.get(name, 0) for name in PREEMPTIONS)
    if count:
        yield Reason(
            "preemptions",
            f"the server preempted {count:.0f} sequences: KV memory was short",
            "lower the load, ask for less, or give the server more KV memory",
        )


_RULES: tuple[Callable[[LevelRecording, Load], Iterator[Reason]], ...] = (
    _nothing,
    _interrupted,
    _lost_workers,
    _server_restarted,
    _achieved,
    _short_warm_up,
    not_steady,
    _late_start,
    _stamps,
    _protocol,
    _tokens,
    _prompts,
    _audit,
)
