"""What is in the way, on servers of which it is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.analyze.capacity.bottleneck import find_bottleneck
from loadbench.plan.objective import parse_objective
from loadbench.results.folder import read_run
from loadbench.results.run import ObjectiveResult, Reason
from loadbench.sim.profile import PROFILES
from tests.analyze.leveling import with_figures
from tests.analyze.serving import sweep

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
    assert find_bottleneck(levels, rule="ttft_p95<1s").kind == "slots"


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
    assert "too close to half to tell" in limit.sentence


@pytest.mark.slow
def test_what_still_grows_has_no_limit_yet():
    """Levels that do not reach the bend say so."""
    limit = find_bottleneck(sweep(replace(PROFILES["slot-server"], slots=64), (1, 2, 4, 8), seconds=10, warm_up=3))
    assert limit.kind == "unknown"
    assert limit.sentence == "not reached: throughput still grows at 8 requests in flight"


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
