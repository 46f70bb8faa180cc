"""What is in the way, on servers of which it is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.analyze.capacity.bottleneck import _waiting_share, find_bottleneck
from loadbench.plan.distribution import LogNormal
from loadbench.plan.objective import parse_objective
from loadbench.plan.sim_profile import PROFILES
from loadbench.results.folder import read_run
from loadbench.results.run import Concurrency, LevelResult, ObjectiveResult, Reason
from loadbench.results.telemetry import Gauge, MachineLoad, Telemetry
from tests.analyze.leveling import with_figures
from tests.analyze.serving import sweep
from tests.coverage.systems import constant, lognormal, slots

SLOW_DECODE = replace(PROFILES["slot-server"], slots=64, decode_base_s=0.02, decode_per_sequence_s=0.02)
LATE = [Reason("late_start", "users asked again late", "give it a core of its own")]


@pytest.mark.slow
def test_slots_are_told_by_their_number():
    """Eight slots: TPOT and throughput stay from eight on, and all that is added comes before the first token."""
    levels = sweep(PROFILES["slot-server"], (1, 2, 4, 6, 8, 11, 14), seconds=10, warm_up=5)
    limit = find_bottleneck(levels)
    assert limit.kind == "slots"
    assert limit.slots.low <= 8 <= limit.slots.high
    assert limit.slots.high - limit.slots.low < 2
    assert "its number of slots or its memory (loadbench cannot tell which)" in limit.sentence


@pytest.mark.slow
def test_memory_is_told_by_what_the_server_says():
    """With 16 slots, and memory for seven: by its facts it is memory, and without them it may be either."""
    gpu = replace(PROFILES["small-gpu"], prefill_per_token_s=0.00005)
    levels = sweep(gpu, (1, 2, 4, 7, 10, 14), words=1000, tokens=64, seconds=40, warm_up=15)
    for facts in ({"slots": 16}, {"kv_tokens": 8192}, {"slots": 16, "kv_tokens": 8192}):
        limit = find_bottleneck(levels, server=facts)
        assert limit.kind == "memory"
        assert limit.slots.low <= 7.5
    assert find_bottleneck(levels).kind == "slots"
    assert "or its memory" in find_bottleneck(levels).sentence
    assert find_bottleneck(levels, server={"slots": 7}).kind == "slots"


@pytest.mark.slow
def test_decoding_is_told_by_what_prompts_leave():
    """Without a slot limit, and prompts that cost next to nothing, it is decoding that all share."""
    limit = find_bottleneck(sweep(SLOW_DECODE, (1, 2, 4, 8, 12, 16, 24), seconds=60, warm_up=20, tokens=16, words=10))
    assert limit.kind == "decode"
    assert limit.slots is None


def test_prompts_are_told_by_their_share():
    """Where a prompt takes the server longer than its answer, prompts are the limit."""
    prefill = replace(PROFILES["slot-server"], slots=64, prefill_per_token_s=0.002)
    limit = find_bottleneck(sweep(prefill, (1, 2, 4, 8, 12, 16), seconds=60, warm_up=20, words=200, tokens=16))
    assert limit.kind == "prefill"
    share = next(one.value for one in limit.evidence if one.name == "prompt_share")
    # Of a cycle of 0.409 s for the prompt, 15 steps of 0.0005 s and what the batch shares.
    assert share == pytest.approx(0.98, abs=0.02)


@pytest.mark.slow
def test_more_slots_would_not_help_a_server_that_reads():
    """Four slots, and long prompts: twice as many would bring hardly more, so that the prompts are the limit."""
    levels = sweep(PROFILES["cpu-laptop"], (1, 2, 3, 4, 6, 9), words=500, tokens=32, seconds=500, warm_up=120)
    limit = find_bottleneck(levels)
    assert limit.kind == "prefill"
    assert limit.slots.low <= 4 <= limit.slots.high + 0.5
    assert find_bottleneck(levels, rule="ttft_p95<1s").kind == "prefill"


@pytest.mark.slow
def test_one_at_a_time_is_a_queue():
    """With one slot nothing runs beside another: everything that is added is waiting."""
    limit = find_bottleneck(sweep(replace(PROFILES["slot-server"], slots=1), (1, 2, 4, 6), seconds=30, warm_up=5))
    assert limit.kind == "queue"
    assert limit.slots.value == 1


@pytest.mark.slow
def test_a_mixture_is_unknown():
    """Where prompts and decoding take about the same, nobody can tell."""
    mixed = replace(PROFILES["slot-server"], slots=64, prefill_per_token_s=0.001, decode_per_sequence_s=0.002)
    limit = find_bottleneck(sweep(mixed, (1, 2, 4, 8, 16, 24), words=46, tokens=26, seconds=20, warm_up=10))
    assert limit.kind == "unknown"
    assert limit.sentence.startswith("the server's speed, of whose time prompts take ")
    assert limit.ceiling_per_s is not None


@pytest.mark.slow
def test_what_still_grows_has_no_limit_yet():
    """Levels that do not reach the bend say so."""
    limit = find_bottleneck(sweep(replace(PROFILES["slot-server"], slots=64), (1, 2, 4, 8), seconds=10, warm_up=3))
    assert limit.kind == "unknown"
    assert limit.sentence == "not reached: throughput still grows at 8 requests in flight"


def test_more_slots_help_only_while_throughput_would_grow():
    """What waits for a slot waits for the server's speed where more of them would hardly complete more requests;
    neither prompts nor decoding take most of the time of this server."""
    fast, slow = (
        serving(prefill_s=0.3, step_s=step_s, per_sequence_s=per_s) for step_s, per_s in ((0.02, 0.001), (0.001, 0.02))
    )
    slots, speed = (find_bottleneck(levels, rule="ttft_p95<1s") for levels in (fast, slow))
    assert (slots.kind, "add slots" in slots.advice) == ("slots", True)
    assert (speed.kind, "add slots" in speed.advice) == ("unknown", False)
    assert speed.ceiling_per_s == slow[-1].throughput.requests_per_s
    assert speed.slots.low <= 8 <= speed.slots.high


def broken(level, rule):
    """The level with this objective missed."""
    failed = ObjectiveResult(rule=rule, decision="FAIL", value=1.0)
    return msgspec.structs.replace(level, objectives=[failed])


def test_an_objective_can_break_before_throughput_does():
    """Steps that grow longer break a TPOT while throughput still grows: that is decoding, found by the level's rule."""
    levels = sweep(SLOW_DECODE, (1, 2, 3), seconds=60, warm_up=20, tokens=16, words=10)
    rule = parse_objective("tpot_p95<50ms").rule
    limit = find_bottleneck([*levels[:2], broken(levels[2], rule)])
    assert limit.kind == "decode"
    assert rule in limit.sentence


def test_preemptions_are_memory():
    """A server that tells of preemptions says what it lacks."""
    levels = [with_figures(n, min(n, 4.0), ttft_s=[0.1] * 50) for n in (1, 2, 4, 8)]
    levels[-1] = msgspec.structs.replace(levels[-1], server={"vllm:num_preemptions_total": 20.0})
    limit = find_bottleneck(levels)
    assert limit.kind == "memory"
    assert limit.evidence[0].value == pytest.approx(0.4)


def test_a_cliff_is_memory():
    """Throughput that falls to a third between two levels is told by its place."""
    figures = [(1, 1.0), (2, 1.8), (4, 3.0), (6, 4.0), (8, 4.6), (12, 1.5)]
    limit = find_bottleneck([with_figures(n, per_s, reach=0.02) for n, per_s in figures])
    assert limit.kind == "memory"
    assert limit.sentence.startswith("probably memory: from users=8 to users=12 throughput drops")


def test_the_client_is_named_where_it_gave_out_first():
    """Throughput still grew, and then the client was late: what the server can do is not known."""
    levels = [with_figures(n, float(n)) for n in (1, 2, 4)] + [with_figures(8, 5.0, reasons=LATE)]
    limit = find_bottleneck(levels)
    assert limit.kind == "client"
    assert limit.advice == "give it a core of its own"


@pytest.mark.slow
def test_a_limit_seen_before_the_client_gave_out_stands():
    """A level at which the client was late takes nothing from what those below it showed."""
    levels = sweep(PROFILES["slot-server"], (1, 2, 4, 8, 12, 16), seconds=8, warm_up=5)
    assert find_bottleneck([*levels, with_figures(32, 5.0, reasons=LATE)]).kind == "slots"


@pytest.mark.parametrize("users", [(), (1,), (1, 2)])
def test_too_little_is_unknown(users):
    """Fewer than three levels show no bend; and none is no reason to fail."""
    limit = find_bottleneck([with_figures(n, float(n)) for n in users])
    assert limit.kind == "unknown"
    assert "at least 3 different loads are needed" in limit.sentence


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(1, 64), st.floats(0.01, 1e4), st.floats(1e-6, 100)), max_size=8),
    st.sampled_from(["", "ttft_p95<1s", "tpot_p95<50ms", "e2e_p50<2s", "failures<1%"]),
)
@settings(max_examples=60, deadline=None)
def test_no_figures_are_too_odd(figures, rule):
    """Whatever the levels came to, the same load several times among them, there is an answer and a sentence."""
    levels = [with_figures(users, per_s, ttft_s=[ttft]) for users, per_s, ttft in figures]
    assert find_bottleneck(levels, rule=rule).sentence


def test_eight_slots_of_a_real_engine_are_seen():
    """Of the sample run, llama.cpp with eight slots on a busy machine, the interval holds the eight."""
    (folder,) = (Path(__file__).parents[3] / "results").glob("*-llamacpp-25m-8slots")
    limit = find_bottleneck(read_run(folder).levels)
    assert limit.slots.low <= 8 <= limit.slots.high
    low, value, high = (round(limit.slots.low), round(limit.slots.value), round(limit.slots.high))
    assert low < value < high
    assert f"about {value} ({low} to {high}) requests run at once" in limit.sentence


# The same rules at their bounds, by levels that follow a formula.

LOADS = (1, 2, 4, 6, 8, 11, 14, 20)


def serving(loads=LOADS, *, slots=8, prefill_s=0.05, step_s=0.02, per_sequence_s=0.0001, tokens=30):
    """Levels of a server with so many slots, whose decoding steps take longer with each further sequence."""
    levels = []
    for n in loads:
        tpot_s = step_s + per_sequence_s * min(n, slots)
        per_s = min(n, slots) / (prefill_s + tokens * tpot_s)
        ttft_s = n / per_s - tokens * tpot_s
        levels.append(with_figures(n, per_s, ttft_s=[ttft_s] * 200, tpot_s=[tpot_s] * 200))
    return levels


def sharing(ttft_share, loads=(1, 2, 4, 8, 16)):
    """Levels of a server that one request alone keeps busy nearly; the same part of the time comes before the token."""
    times = {n: 0.1 + n for n in loads}
    return [
        with_figures(n, n / e2e_s, ttft_s=[ttft_share * e2e_s] * 200, tpot_s=[(1 - ttft_share) * e2e_s / 10] * 200)
        for n, e2e_s in times.items()
    ]


def test_slots_are_where_throughput_and_tpot_stop_rising():
    """By how many run, what more of them would bring, and what the others wait for; nobody knows why that many."""
    limit = find_bottleneck(serving())
    assert (limit.kind, limit.slots.value) == ("slots", 8)
    assert limit.sentence.startswith(
        "the server runs about 8 requests at once; the limit is its number of slots or its"
    )
    figures = {one.name: one.value for one in limit.evidence}
    at_once = [n / (0.05 + 30 * (0.02 + 0.0001 * n)) for n in (8, 16)]
    assert figures["gain_of_twice"] == pytest.approx(at_once[1] / at_once[0] - 1, rel=0.01)
    assert figures["waiting_share"] == pytest.approx(1.0)
    *lower, last = serving()
    throughput = msgspec.structs.replace(last.throughput, interval={"requests_per_s": (9.0, 14.5)})
    known = find_bottleneck([*lower, msgspec.structs.replace(last, throughput=throughput)])
    assert " (9 to 14.5) requests/s, and" in known.sentence
    assert f"each request ahead adds about {1 / at_once[0]:.2g} s" in limit.sentence


@pytest.mark.parametrize(
    ("slots", "fitting", "kind"),
    [
        (8, None, "slots"),
        (9, None, "memory"),  # more slots than run
        (None, 8.0, "memory"),
        (None, 7.0, "slots"),  # fewer than run
        (None, 10.0, "slots"),
        (8, 8.0, "slots"),
        (16, 8.5, "memory"),
        (16, 30.0, "slots"),
    ],
)
def test_memory_is_what_is_full_where_slots_are_left(slots, fitting, kind):
    """As many as fit in it run, and there are more slots; within a tenth."""
    levels = serving()
    tokens = (levels[-1].tokens.input + levels[-1].tokens.output) / 200
    facts = {} if slots is None else {"slots": float(slots)}
    facts |= {} if fitting is None else {"kv_tokens": fitting * max(1.0, tokens)}
    assert find_bottleneck(levels, server=facts).kind == kind


def test_more_slots_are_no_help_to_a_server_that_decodes_all_the_time():
    """Eight run at once, and sixteen would bring one in a hundred more, also where first tokens fail: then they would
    wait less and each token longer."""
    levels = serving(prefill_s=0.01, step_s=0.001, per_sequence_s=0.01)
    assert find_bottleneck(levels).kind == find_bottleneck(levels, rule="tpot_p95<1s").kind == "decode"
    said = "about 8 requests run at once, and twice as many would raise it by less than 1 % (one alone gives 2.94)"
    assert said in find_bottleneck(levels).sentence
    ceiling = 8 / (0.01 + 30 * (0.001 + 8 * 0.01))
    for rule in ("ttft_p95<1s", "ttfo_p95<1s", "ttfb_p95<1s"):
        found = find_bottleneck(levels, rule=rule)
        assert (found.kind, found.ceiling_per_s) == ("decode", pytest.approx(ceiling))
        assert "more slots would turn the wait for the first token into slower tokens" in found.advice
        assert "slower tokens (twice as many: about 161 ms a token instead of 81 ms), for hardly more" in found.advice
    assert "slots" not in find_bottleneck(levels, rule="tpot_p95<1s").advice
    # Without a level of one user decoding and prompts look the same.
    assert find_bottleneck(levels[1:]).sentence.endswith(
        "without a level of one user, prompts and decoding look the same"
    )


@pytest.mark.parametrize(
    ("used_s", "busy", "gauges", "said"),
    [
        (20.0, 0.5, {}, "it used 2.00 of 4 cores, and 2.0 were idle; then "),
        (9.7, 0.25, {}, "it used 0.97 of 4 cores, and 3.0 were idle; then "),
        (15.0, 0.4, {}, ""),  # threads that wait now and then
        (40.0, 1.0, {}, ""),
        (20.0, 0.8, {}, ""),  # others use what it leaves
        (0.1, 0.1, {}, ""),
        (10.0, 0.3, {"gpu0_use": Gauge(mean=0.9, min=0.8, max=1.0, last=0.9, readings=9)}, ""),
        (None, 0.5, {}, ""),
    ],
)
def test_threads_come_before_a_faster_device_where_cores_are_idle(used_s, busy, gauges, said):
    """Where a whole number of cores is in use and others are not, on a machine whose server has no board."""
    *lower, last = serving(prefill_s=0.01, step_s=0.001, per_sequence_s=0.01)
    last = msgspec.structs.replace(
        last,
        window_s=10.0,
        machine=MachineLoad(cores=4, busy=busy, others=0.0, stolen=0.0),
        telemetry=Telemetry(gauges=gauges, counters={} if used_s is None else {"process_cpu_s_total": used_s}),
    )
    advice = find_bottleneck([*lower, last], rule="ttft_p95<1s").advice
    first = "first give the server more threads, if it computes on the CPU: "
    assert advice.startswith(f"{first}{said}use shorter responses" if said else "use shorter responses")


@pytest.mark.parametrize(
    ("ttft_share", "kind"), [(0.36, "decode"), (0.37, "unknown"), (0.545, "unknown"), (0.555, "prefill")]
)
def test_prompts_or_decoding_take_most_of_the_time(ttft_share, kind):
    """Below 40 % for prompts it is decoding, from 60 % on prompts; between, nobody can tell."""
    limit = find_bottleneck(sharing(ttft_share))
    assert limit.kind == kind
    (share,) = [one.value for one in limit.evidence if one.name == "prompt_share"]
    assert share == pytest.approx(16 / 16.1 * 1.1 * ttft_share, rel=1e-3)


@pytest.mark.parametrize(("gain", "grows"), [(1.14, False), (1.16, True)])
def test_a_gain_of_15_percent_from_twice_the_load_is_growth(gain, grows):
    """Less is hardly more than two runs differ by."""
    figures = [(1, 0.6), (2, 1.0), (4, gain)]
    levels = [
        with_figures(n, per_s, ttft_s=[0.3 * n / per_s] * 200, tpot_s=[0.07 * n / per_s] * 200) for n, per_s in figures
    ]
    assert find_bottleneck(levels).sentence.startswith("not reached") is grows


def test_one_at_a_time_is_waiting_alone():
    """Throughput is that of one user, and what is added comes before the first token."""
    limit = find_bottleneck(serving((1, 2, 4, 6), slots=1))
    assert (limit.kind, limit.slots.value) == ("queue", 1)
    # Prompts that take most of the time are the reason by themselves.
    assert find_bottleneck(serving((1, 2, 4, 6), slots=1, prefill_s=2.0)).kind == "prefill"


@pytest.mark.parametrize("faults", [["missed_arrivals", "not_steady"], ["missed_arrivals"]])
def test_arrivals_without_room_blame_the_client_unless_the_queue_grew(faults):
    """Above the last valid level, an overloaded one says nothing about the load generator."""
    reasons = [Reason(code, code, "raise --max-in-flight") for code in faults]
    last = with_figures(8, 5.0, reasons=reasons)
    evidence = [code for code in faults if code == "not_steady"]
    last = msgspec.structs.replace(last, verdict=msgspec.structs.replace(last.verdict, load_evidence=evidence))
    limit = find_bottleneck([*(with_figures(n, float(n)) for n in (1, 2, 4)), last])
    assert limit.kind == ("unknown" if evidence else "client")


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({}, "its number of slots or its memory (loadbench cannot tell which)"),
        ({"slots": 8.0}, "its number of slots."),
        ({"kv_tokens": 1.0}, "its number of slots."),
        ({"slots": 8.0, "kv_tokens": 1.0}, "its number of slots."),
    ],
)
def test_known_facts_of_the_server_are_used(facts, why):
    """Without any nobody can tell; how many requests fit in its memory is part of the evidence."""
    limit = find_bottleneck(serving(), server=facts)
    assert f"the limit is {why}" in limit.sentence
    assert [one.name for one in limit.evidence if one.name == "fit_in_memory"] == ["fit_in_memory"] * (
        "kv_tokens" in facts
    )


def test_levels_without_a_figure_that_is_needed_count_for_nothing():
    """No TTFT, no E2E, or no throughput: the others show what they show without it."""
    expected = find_bottleneck(serving())
    whole = with_figures(40, serving()[-1].throughput.requests_per_s)
    for lacking in ("ttft_s", "e2e_s"):
        metrics = {name: value for name, value in whole.metrics.items() if name != lacking}
        assert find_bottleneck([*serving(), msgspec.structs.replace(whole, metrics=metrics)]) == expected
    silent = msgspec.structs.replace(whole.throughput, requests_per_s=0.0)
    assert find_bottleneck([*serving(), msgspec.structs.replace(whole, throughput=silent)]) == expected


def test_time_between_tokens_fails_before_the_slots_are_the_reason():
    """More slots would bring more, and would make it worse: it is decoding that is too slow."""
    levels = serving(step_s=0.02, per_sequence_s=0.002)
    limit = find_bottleneck(levels, rule="tpot_p95<30ms")
    assert limit.kind == "decode"
    assert "tpot_p95<30ms fails while throughput still grows" in limit.sentence
    assert find_bottleneck(levels, rule="ttft_p95<1s").kind == "slots"


@pytest.mark.parametrize(
    ("last", "share"),
    [((0.4, 1.6), 0.6), ((0.6, 1.6), 1.0), ((0.9, 1.6), 1.0), ((0.05, 1.6), 0.0), ((0.4, 1.1), 0.0), ((0.4, 1.0), 0.0)],
)
def test_what_waits_is_the_part_of_the_added_time_before_the_first_token(last, share):
    """From (TTFT, E2E) of 0.1 and 1.1 s to these; where nothing was added, nothing waits."""
    start, end = (SimpleNamespace(ttft=ttft, e2e=e2e) for ttft, e2e in ((0.1, 1.1), last))
    assert _waiting_share(start, end) == pytest.approx(share)


def fluctuating(users: int, seed: int, *, count: int, think_s: float) -> LevelResult:
    """A short level of users who think, against so many slots, with the mean number in flight that came of it."""
    think = lognormal(think_s, 0.6)
    level = slots(users, seed=seed, duration_s=10.0, think=think, service=constant(0.6), count=count)
    due, _, last = level.around.T
    inside = np.clip(np.minimum(last, level.window_s) - np.maximum(due, 0.0), 0.0, None)
    per_s = float(((last >= 0) & (last < level.window_s)).sum() / level.window_s)
    figures = {"ttft_s": level.ttft.tolist(), "tpot_s": level.tpot.tolist()}
    made = with_figures(users, per_s, think=LogNormal(round(think_s * 1e9), 0.6), **figures)
    metrics = made.metrics | {"e2e_s": msgspec.structs.replace(made.metrics["e2e_s"], mean=float(level.e2e.mean()))}
    in_flight = Concurrency(mean=float(inside.sum() / level.window_s), peak=users)
    return msgspec.structs.replace(made, metrics=metrics, concurrency=in_flight)


@pytest.mark.parametrize("count", [4, 8, 16])
def test_slots_are_seen_late_where_the_number_in_flight_fluctuates(count):
    """Users who think leave slots idle at times, although more are in flight on average than there are slots: the
    interval allows for it, and holds the truth in nearly all of the searches."""
    held = []
    for seed in range(12):
        full = count / 0.6 * 5.6
        loads = [round(full * share) for share in (0.1, 0.2, 0.4, 0.8, 1.6, 1.25, 1.0, 0.75, 0.9)]
        found = find_bottleneck(
            [fluctuating(users, 100 * seed + users, count=count, think_s=5.0) for users in loads], rule="ttft_p95<1s"
        ).slots
        if found is not None:
            held.append(found.low <= count <= found.high)
    assert len(held) >= 6
    assert sum(held) >= 0.9 * len(held)
