"""Users who gave up: what a level says of them, of its other requests, and of the server after they had left."""

from __future__ import annotations

import dataclasses
from array import array

import pytest

from loadbench.plan.abandonment import Patience
from loadbench.plan.load import Closed, Phase
from loadbench.plan.objective import parse_objective
from loadbench.record.outcome import Outcome, TokenSource, failed_of
from loadbench.report.render_text import render_text
from loadbench.report.run import level_line, run_document
from tests.building import MS, S, a_failure, a_level, a_recording, a_run, a_sample

VLLM, LLAMA = "vllm:generation_tokens_total", "llamacpp:tokens_predicted_total"


def left(number: int, *, after_ms: int = 200, events: int = 6, **over):
    """A request that was given up after so many events of a token each; complete ones have 11 of at most 100."""
    due_ns = number * S // 2
    stamps = array("q", [due_ns + 100 * MS + 20 * MS * index for index in range(events)])
    whole = a_sample(
        number,
        due_ns=due_ns,
        outcome=Outcome.GAVE_UP,
        detail="no complete response within 200ms",
        event_ns=stamps,
        event_tokens=array("q", [1] * events),
        first_token_ns=stamps[0] if events else None,
        last_token_ns=stamps[-1] if events else None,
        end_ns=due_ns + after_ms * MS,
        output_tokens=events,
        token_source=TokenSource.EVENTS,
        finish_reason=None,
        **over,
    )
    return patient_until(whole, after_ms)


def patient_until(sample, patience_ms: int):
    """The same request of a user with limited patience."""
    return dataclasses.replace(sample, request=dataclasses.replace(sample.request, patience=Patience(patience_ms * MS)))


def complete(first: int, last: int) -> list:
    """Complete responses, one after another."""
    return [a_sample(number, due_ns=number * S // 2) for number in range(first, last)]


def level_of(samples: list, *, load: Closed | None = None, rules: tuple[str, ...] = (), **server: float):
    """The level of these requests; `server` has the rise of its counters."""
    recording = a_recording(samples, window_ns=400 * S, objectives=[parse_objective(rule) for rule in rules])
    rose = {name.replace("__", ":"): amount for name, amount in server.items()} or None
    return a_level(recording=dataclasses.replace(recording, server=rose), load=load)


def codes(level) -> list[str]:
    """Of the verdict's reasons."""
    return [reason.code for reason in level.verdict.reasons]


# Counted apart.


def test_they_are_counted_apart_from_successes_and_failures():
    """In outcomes and in figures of their own; not in latencies, failures, or the verdict's share of failures."""
    level = level_of([*complete(0, 100), *(left(100 + number) for number in range(30)), left(130, events=0)])
    assert level.outcomes == {"ok": 100, "gave_up": 31}
    assert (level.gave_up.impatient, level.gave_up.gave_up, level.gave_up.before_first_token) == (31, 31, 1)
    assert level.gave_up.output_tokens == 180
    assert level.failures == []
    assert level.metrics["ttft_s"].count == level.metrics["e2e_s"].count == 100
    assert level.tokens.output == 1100
    assert level.throughput.output_tokens_per_s == pytest.approx((1100 + 180) / 400)
    assert level.throughput.requests_per_s == pytest.approx(100 / 400)
    assert (level.verdict.status, codes(level)) == ("VALID", [])
    assert [caveat.code for caveat in level.caveats] == ["gave_up"]
    assert "31 of 131 users gave up, 1 of them before the first token" in level.caveats[0].message
    # Infinite, as what the drain cut is: the true quantile lies between the two.
    assert level.metrics["e2e_s"].with_failures["p50"] is not None
    assert level.metrics["e2e_s"].with_failures["p90"] is None


def test_a_level_without_impatient_users_says_nothing():
    """Neither a field nor a column nor a note."""
    level = level_of(complete(0, 100))
    assert level.gave_up is None
    assert "gave up" not in render_text(run_document(a_run(level)))
    assert "gave up" not in level_line(level)


def test_impatient_users_who_stayed_are_told_of():
    """Nobody left: their responses are successes like others."""
    level = level_of([patient_until(sample, 5000) for sample in complete(0, 100)])
    assert (level.gave_up.impatient, level.gave_up.gave_up, level.gave_up.server) == (100, 0, None)
    assert level.caveats == []
    assert "users with limited patience: users=1 0 of 100 gave up" in render_text(run_document(a_run(level)))


def test_share_of_failures_is_that_of_requests_that_nobody_gave_up():
    """If all others fail, all have failed, however many left: in the verdict, in objectives and in comparisons."""
    failures = [a_failure(Outcome.RESET, number=n, due_ns=n * S // 2) for n in range(100, 102)]
    level = level_of(
        [*complete(0, 98), *failures, *(left(n) for n in range(102, 302))], load=Closed(4), rules=("failures<1%",)
    )
    assert codes(level) == ["failures"]
    assert "2 of 100 requests failed" in level.verdict.reasons[0].message
    (decided,) = level.objectives
    assert decided.value == 0.02
    assert failed_of(level.outcomes, level.missed) == (2, 100)
    level = level_of([left(number) for number in range(40)], rules=("failures<1%",))
    assert [(one.decision, one.note) for one in level.objectives] == [("UNDECIDED", "every user gave up")]


# The verdict.


@pytest.mark.parametrize(
    ("ok", "gave_up", "users", "status", "code"),
    [
        (20, 500, 1, "VALID", None),
        (19, 1, 1, "INCONCLUSIVE", "too_few_stayed"),
        (19, 0, 1, "INCONCLUSIVE", "too_few_answers"),
        (5, 2, 1, "INCONCLUSIVE", "too_few_answers"),  # the level is too short by itself
        (5, 5, 1, "INCONCLUSIVE", "too_few_stayed"),
        (39, 1, 40, "INCONCLUSIVE", "too_few_stayed"),
        (40, 1, 40, "VALID", None),
        (0, 30, 1, "INVALID", "no_answers"),
    ],
)
def test_too_few_that_stayed_decide_nothing(ok, gave_up, users, status, code):
    """Fewer than 20, or than users, where there would have been enough; with nobody left the level is invalid."""
    level = level_of([*complete(0, ok), *(left(ok + n) for n in range(gave_up))], load=Closed(users))
    assert (level.verdict.status, codes(level)) == (status, [code] if code else [])
    if code == "too_few_answers":
        assert f"only {ok} responses" in level.verdict.reasons[0].message
    elif code:
        assert f"{gave_up} of {ok + gave_up} users gave up" in level.verdict.reasons[0].message
        assert "--abandon with a smaller share or more patience" in level.verdict.reasons[0].advice


# Objectives: patience is 200 ms, TTFT 100 ms and E2E 300 ms.


@pytest.mark.parametrize(
    ("rule", "left_ms", "decision"),
    [
        # A wait that reached the bound is a miss, and 40 of 140 are too many.
        ("e2e_p95<400ms", 400, "FAIL"),
        # They left before the bound: only the patient are counted, of whom 100 of 100 met it.
        ("e2e_p95<400ms", 200, "PASS"),
        ("e2e_p95<250ms", 200, "FAIL"),
        # Their first tokens were there.
        ("ttft_p95<150ms", 200, "PASS"),
        ("ttft_p95<5s", 200, "PASS"),
        ("ttft_p95<90ms", 200, "FAIL"),
        # How long a token takes is known of those who stayed to the end.
        ("tpot_p95<25ms", 200, "PASS"),
        ("tpot_p95<15ms", 200, "FAIL"),
        ("ttft_mean<150ms", 200, "PASS"),
        ("e2e_mean<400ms", 200, "PASS"),
        ("e2e_max<400ms", 200, "PASS"),
        ("e2e_max<400ms", 500, "FAIL"),
    ],
)
def test_objectives_take_users_who_would_have_waited_as_long_as_the_bound(rule, left_ms, decision):
    """100 patient users whose responses take 300 ms, and 40 among them who left."""
    samples = [*complete(0, 100), *(left(5 * number // 2, after_ms=left_ms) for number in range(40))]
    (decided,) = level_of(samples, rules=(rule,)).objectives
    assert decided.decision == decision, decided


@pytest.mark.parametrize(
    ("rule", "stayed", "decision"),
    [
        ("ttft_p95<5s", 0, "PASS"),  # everybody saw the first token
        ("e2e_p95<5s", 0, "UNDECIDED"),
        ("e2e_p95<5s", 30, "UNDECIDED"),
        ("e2e_p50<5s", 90, "PASS"),  # even with all who left missing it
        ("e2e_mean<5s", 90, "UNDECIDED"),
        ("itl_p95<5s", 90, "UNDECIDED"),
        ("tpot_p50<5s", 90, "PASS"),
        ("e2e_p95<190ms", 0, "FAIL"),  # all waited longer
    ],
)
def test_where_all_are_impatient_only_what_holds_anyway_is_decided(rule, stayed, decision):
    """Of 100 users who wait 200 ms, some had whole responses in time."""
    quick = [a_sample(n, due_ns=n * S // 2, ttft_ns=50 * MS, gaps_ns=10 * MS) for n in range(stayed)]
    samples = [*(patient_until(sample, 200) for sample in quick), *(left(n) for n in range(stayed, 100))]
    (decided,) = level_of(samples, rules=(rule,)).objectives
    assert decided.decision == decision, decided
    if decision == "UNDECIDED":
        assert f"{100 - stayed} of 100 gave up, and might have met it" in decided.note


def test_patience_that_nobody_used_up_changes_no_decision():
    """Objectives, their values and their intervals are those of patient users."""
    rules = ("ttft_p95<150ms", "e2e_p50<290ms", "e2e_mean<400ms", "tpot_p95<25ms", "itl_p99<1ms", "e2e_max<300ms")
    patient = level_of(complete(0, 100), rules=rules)
    impatient = level_of([patient_until(sample, 301) for sample in complete(0, 100)], rules=rules)
    assert impatient.objectives == patient.objectives
    assert impatient.goodput == patient.goodput


def test_goodput_counts_them_as_not_served():
    """Among all arrivals, and never as good."""
    goodput = level_of([*complete(0, 100), *(left(100 + n) for n in range(25))], rules=("ttft_p95<1s",)).goodput
    assert (goodput.good, goodput.arrivals, goodput.attainment) == (100, 125, 0.8)


# What the server did.


def after(*, counted: float, counter: str = VLLM, samples: list | None = None):
    """What is said of a server whose counter rose by so much; 100 complete responses, 50 that had 6 of 11 tokens."""
    samples = samples or [*complete(0, 100), *(left(100 + number) for number in range(50))]
    return level_of(samples, **{counter.replace(":", "__"): counted}).gave_up.server


@pytest.mark.parametrize(
    ("counted", "went_on"),
    [
        (1400, False),  # 1100 + 300: not a token more
        (1450, False),  # one more for each
        (1462, False),
        (1463, None),
        (1524, None),
        (1525, True),
        (1650, True),  # each response to its end
        (1400 + 1.25 * 50 * 94, True),  # up to the limit of 100 tokens each, and what the estimate may be off
        (1400 + 1.25 * 50 * 94 + 1, None),  # more than they can have had: others used the server
        (1100, False),  # it leaves out what was cut
        (1099, None),  # it counts something else
    ],
)
def test_the_counter_tells_whether_the_server_went_on(counted, went_on):
    """50 responses had 5 tokens to come: a quarter or less of them generated means stopped, a half or more went on."""
    server = after(counted=counted)
    assert (server.counter, server.counted, server.received, server.remaining) == (VLLM, round(counted), 1400, 250)
    assert server.unread == max(0, round(counted) - 1400)
    assert server.went_on is went_on


def test_a_server_that_went_on_is_a_caveat():
    """With the number of tokens, and what else could be the reason."""
    samples = [*complete(0, 100), *(left(100 + number) for number in range(50))]
    level = level_of(samples, vllm__generation_tokens_total=1650)
    caveat = level.caveats[-1]
    assert caveat.code == "generated_unread"
    assert "about 250 tokens that nobody received" in caveat.message
    assert "rose by 1650, 1400 were received" in caveat.message
    assert "other clients" in caveat.advice
    text = render_text(run_document(a_run(level)))
    assert "by its counter: users=1 went on (250 tokens unread, about 250 were to come)" in text
    assert "users=1 50 of 50 gave up (300 tokens received until then)" in text


def test_without_a_counter_nothing_is_known():
    """A server without one, or with others."""
    samples = [*complete(0, 100), *(left(100 + number) for number in range(50))]
    for level in (level_of(samples), level_of(samples, vllm__prompt_tokens_total=5)):
        assert level.gave_up.server is None
        assert "by its counter: users=1 unknown" in render_text(run_document(a_run(level)))


def test_warm_up_and_drain_are_in_the_counter_and_so_in_the_sum():
    """Requests of all phases, whether they ended ok or not."""
    samples = [*complete(0, 100), *(left(100 + number) for number in range(50))]
    warm = [dataclasses.replace(one, request=dataclasses.replace(one.request, phase=Phase.WARM_UP)) for one in samples]
    server = after(counted=2900, samples=[*samples, *warm])
    assert (server.received, server.remaining, server.went_on) == (2800, 500, False)


def test_an_engine_has_counted_what_it_generated():
    """Also one that counts at a request's end, without what was cut: had it gone on, it would have counted that."""
    for counter in (VLLM, LLAMA, "loadbench_sim:output_tokens_total"):
        assert after(counted=1100, counter=counter).went_on is False
        assert after(counted=1400, counter=counter).went_on is False
        assert after(counted=1650, counter=counter).went_on is True
        early = [*complete(0, 100), *(left(100 + number, events=0) for number in range(50))]
        assert after(counted=1100, counter=counter, samples=early).went_on is False
        assert after(counted=1650, counter=counter, samples=early).went_on is True


@pytest.mark.parametrize("counter", ["sglang:generation_tokens_total", "lmdeploy:generation_tokens_total"])
def test_a_front_end_may_not_have_seen_what_the_engine_did(counter):
    """Only where it has counted what these users had received has it seen them leave."""
    assert after(counted=1100, counter=counter).went_on is None
    assert after(counted=1400, counter=counter).went_on is False
    assert after(counted=1650, counter=counter).went_on is True
    early = [*complete(0, 100), *(left(100 + number, events=0) for number in range(50))]
    assert after(counted=1100, counter=counter, samples=early).went_on is None


def test_a_histogram_of_lengths_is_a_counter_too():
    """TGI's, whose sum is all tokens of its responses."""
    samples = [*complete(0, 100), *(left(100 + number) for number in range(50))]
    level = level_of(samples, **{"tgi_request_generated_tokens{sum}": 1650.0})
    assert level.gave_up.server.went_on is True


def test_events_of_several_tokens_are_not_taken_for_tokens():
    """Complete responses of 5 events with 55 tokens say what an event holds."""
    whole = [
        dataclasses.replace(one, output_tokens=55, event_ns=one.event_ns[:5], event_tokens=None)
        for one in complete(0, 100)
    ]
    samples = [*whole, *(left(100 + number, events=3) for number in range(50))]
    server = after(counted=5500 + 50 * 33, samples=samples)
    assert (server.received, server.unread, server.remaining, server.went_on) == (5500 + 1650, 0, 1100, False)


def test_what_is_too_little_or_too_vague_is_not_decided():
    """Few tokens to come, responses without a count, or many requests that ended in yet another way."""
    few = [*complete(0, 100), *(left(100 + number) for number in range(3))]
    assert after(counted=1118, samples=few).went_on is None
    vague = [a_sample(0, token_source=TokenSource.EVENTS), *complete(1, 100), *(left(100 + n) for n in range(50))]
    assert after(counted=1650, samples=vague).went_on is None
    cut = [a_sample(200 + n, outcome=Outcome.ABANDONED, due_ns=(200 + n) * S // 2) for n in range(26)]
    assert after(counted=1936, samples=[*complete(0, 100), *(left(100 + n) for n in range(50)), *cut]).went_on is None
    assert after(counted=1936 - 11, samples=[*complete(0, 100), *(left(100 + n) for n in range(50)), *cut[:-1]]).went_on


def test_a_level_that_is_too_short_says_how_long_it_must_be():
    """By what it had: 10 responses in 400 s are half of what is needed. Where requests are counted, it needs more."""
    short = a_recording(complete(0, 10), window_ns=400 * S)
    for planned, advice in (
        (None, "use --duration 13m20s or longer, for 20 of them"),
        (10, "use --requests 20 or more"),
    ):
        level = a_level(recording=dataclasses.replace(short, planned_requests=planned))
        (reason,) = level.verdict.reasons
        assert (reason.code, reason.advice.startswith(advice)) == ("too_few_answers", True), reason.advice


def test_without_complete_responses_the_limit_is_what_was_to_come():
    """50 users left with 6 of at most 100 tokens. Complete responses without a count say nothing."""
    samples = [left(number) for number in range(50)]
    server = after(counted=300, samples=samples)
    assert (server.received, server.remaining, server.unread, server.went_on) == (300, 4700, 0, False)
    uncounted = [a_sample(100, due_ns=50 * S, output_tokens=None, token_source=TokenSource.UNKNOWN)]
    server = after(counted=300, samples=[*samples, *uncounted])
    assert (server.received, server.remaining, server.went_on) == (0, 5000, None)


def test_columns_and_lines():
    """A column of their own, and a part of the line as the level ends."""
    level = level_of([*complete(0, 100), *(left(100 + number) for number in range(50))])
    text = render_text(run_document(a_run(level)))
    header = next(line for line in text.splitlines() if "verdict" in line)
    row = next(line for line in text.splitlines() if line.strip().startswith("users=1"))
    assert "failed  gave up  verdict" in header
    assert row.split()[-3:] == ["0", "50", "VALID"]
    assert "100 ok, 0 failed, 50 gave up, VALID" in level_line(level)
