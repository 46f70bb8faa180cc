"""Users who gave up: what they had received, and what the server did after they had left.

A server that notices a disconnect stops; one that does not goes on generating for nobody, at the expense of the users
who wait. Its counter of output tokens tells: it rose by what all requests received, plus what was generated unread. The
tokens that the responses still had to come are estimated by those that ended, which used a known share of their limit.

The counter includes all phases of the level, so the tokens received do, too. It also includes other clients, and
requests that failed or were cut by the drain: with these the excess has more than one cause, which is stated.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.load import FEWEST_ANSWERS, users_of
from loadbench.record.outcome import Outcome, failed_of
from loadbench.results.run import AfterGivingUp, GaveUpResult, Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadbench.plan.load import Load
    from loadbench.record.gave_up import GaveUpStats
    from loadbench.record.recorder import LevelRecording

# Counters of output tokens. Those of an engine have whatever it generates, at the latest at a request's end (older
# versions of llama.cpp leave out requests that were cut). Those of a front end have the responses that it passed on:
# what the engine generates after a disconnect may not be among them (SGLang's TokenizerManager, TGI's router).
_OF_ENGINES = ("vllm:generation_tokens_total", "llamacpp:tokens_predicted_total", "loadbench_sim:output_tokens_total")
_OF_FRONT_ENDS = (
    "sglang:generation_tokens_total",
    "tgi_request_generated_tokens{sum}",
    "lmdeploy:generation_tokens_total",
    "trtllm_generation_tokens_total",
)
# Of the tokens that were still to come. A server that stops generates a few more until it notices; llama.cpp notices
# within a second or two before the first token. One that goes on generates all, unless the level ends before that.
_STOPPED, _WENT_ON = 0.25, 0.5
# Fewer tokens than these tell nothing.
_FEWEST_TOKENS = 20


def gave_up_result(recording: LevelRecording) -> GaveUpResult | None:
    """`None` where no user of the level would have given up."""
    stats = recording.gave_up
    if not stats.impatient:
        return None
    return GaveUpResult(
        impatient=stats.impatient,
        gave_up=stats.gave_up,
        before_first_token=stats.before_first_token,
        output_tokens=stats.received,
        server=_after(recording, stats),
    )


def _after(recording: LevelRecording, stats: GaveUpStats) -> AfterGivingUp | None:
    """What the server's counter says; `None` without one, or if nobody left."""
    rose = recording.server or {}
    counter = next((name for name in (*_OF_ENGINES, *_OF_FRONT_ENDS) if name in rose), None)
    if counter is None or not stats.left:
        return None
    # Events of several tokens, and tokens that are not sent, are as frequent as in complete responses.
    assumed = stats.left_assumed
    more = round(assumed * stats.ok_received / stats.ok_events) - assumed if stats.ok_events else 0
    left_received, received = stats.left_received + more, stats.all_received + more
    # Without complete responses, the limit.
    used = stats.ok_received / stats.ok_limit if stats.ok_received and stats.ok_limit else 1.0
    remaining = max(0, round(used * stats.left_limit) - left_received)
    counted = round(rose[counter])
    excess = counted - received

    went_on: bool | None = None
    if remaining >= _FEWEST_TOKENS and not stats.ok_uncounted and stats.cut <= stats.left // 2:
        # One that lacks what even the complete responses received counts something else.
        counts_them = excess >= -left_received if counter in _OF_ENGINES else excess >= 0 < left_received
        if excess >= _WENT_ON * remaining:
            # More than the limits allow was generated for others: how much for these users is unknown.
            went_on = True if excess <= (1 + _STOPPED) * (stats.left_limit - left_received) else None
        elif counts_them and excess <= _STOPPED * remaining:
            went_on = False
    return AfterGivingUp(
        counter=counter, counted=counted, received=received, unread=max(0, excess), remaining=remaining, went_on=went_on
    )


def gave_up_caveats(recording: LevelRecording, result: GaveUpResult | None) -> Iterator[Reason]:
    """That users gave up, and that the server went on generating for them."""
    if result is None or not result.gave_up:
        return
    measured = failed_of(recording.outcomes)[1] + result.gave_up
    early = f", {result.before_first_token} of them before the first token" if result.before_first_token else ""
    yield Reason(
        "gave_up",
        f"{result.gave_up} of {measured} users gave up{early}: how long their responses would have taken is unknown",
        "latencies are those of complete responses; objectives leave out users who would not have waited so long",
    )
    server = result.server
    if server is not None and server.went_on:
        others = "other clients" + (" and for requests that failed or were cut" if recording.gave_up.cut else "")
        yield Reason(
            "generated_unread",
            f"the server went on for users who had left: it generated about {server.unread} tokens that nobody "
            f"received ({server.counter} rose by {server.counted}, {server.received} were received)",
            f"make the server, or the proxy before it, stop when a client disconnects; tokens for {others} count too",
        )


def with_too_few(verdict: Verdict, recording: LevelRecording, load: Load) -> Verdict:
    """The verdict, turned INCONCLUSIVE where there are too few responses to judge by: fewer than users, or than 20."""
    ok, gave_up = recording.outcomes.get(Outcome.OK, 0), recording.outcomes.get(Outcome.GAVE_UP, 0)
    wanted = max(FEWEST_ANSWERS, users_of(load) or 0)
    if not verdict.usable or ok >= wanted:
        return verdict
    # A level that is too short by itself is called so, unless most of its users left.
    if gave_up and (ok + gave_up >= wanted or gave_up >= ok):
        message = (
            f"{gave_up} of {ok + gave_up} users gave up, which leaves {ok} complete responses: too few to judge by"
        )
        advice = "measure longer, or use --abandon with a smaller share or more patience"
        return Verdict("INCONCLUSIVE", [*verdict.reasons, Reason("too_few_stayed", message, advice)])
    message = f"there are only {ok} responses: too few to judge by"
    if recording.planned_requests is not None:
        advice = f"use --requests {wanted} or more (in a workshop, more --rounds)"
    else:
        enough_ns = math.ceil(wanted / ok * recording.window_s) * NS_PER_S
        advice = f"use --duration {format_duration(enough_ns)} or longer, for {wanted} of them"
    return Verdict("INCONCLUSIVE", [*verdict.reasons, Reason("too_few_answers", message, advice)])
