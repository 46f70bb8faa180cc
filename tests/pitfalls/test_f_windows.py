"""F: what is measured, from when to when. Each test has the figure that the wrong way gives beside ours."""

from __future__ import annotations

from array import array

import anyio
import pytest

from loadbench.client.client import Client, Endpoint
from loadbench.core.virtual import VirtualClock, run_virtual
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Closed, Open, Phase
from loadbench.record.slices import SLICE_NS
from tests.building import a_recording, a_sample, verdict_of
from tests.engine.scripted import MS, PATIENT, URL, Act, S, Scripted, run_level, run_scripted

CONSTANT = parse_arrivals("constant")
# Ten tokens in a second, and so ten a second for each user.
EVEN = Act(first_ns=100 * MS, gap_ns=100 * MS, tokens=10)


def test_f1_the_drain_is_not_in_the_throughput():
    """One answer of 80 goes on for 54 s after the load has ended; the window's throughput lacks its nine tokens.

    Seen to fail when all tokens are divided by the time to the last of them: 13 tokens/s in place of 79.
    """
    ran = run_scripted(
        Closed(8),
        lambda n: Act(first_ns=100 * MS, gap_ns=6 * S, tokens=10) if n == 11 * 8 else EVEN,
        warm_up_ns=2 * S,
        duration_ns=10 * S,
        drain_ns=100 * S,
    )
    recording = ran.recording
    assert recording.production.output_tokens / recording.window_s == (8 * 100 - 9) / 10
    measured = [one for one in ran.samples if one.phase is Phase.MEASURED]
    span_ns = max(one.end_ns for one in measured) - min(one.sent_ns for one in measured)
    assert sum(one.output_tokens for one in measured) * S / span_ns < 13


def test_f1_tokens_count_where_they_arrive():
    """An answer that the window cuts counts by its tokens inside, at either end.

    Seen to fail when an answer counts whole in the window in which it ends.
    """
    cut = a_sample(due_ns=-200 * MS, ttft_ns=100 * MS, gaps_ns=50 * MS)  # eleven stamps from -100 ms to 400 ms
    recording = a_recording([cut], window_ns=S)
    assert recording.production.output_tokens == sum(stamp > 0 for stamp in cut.event_ns) == 8
    assert cut.output_tokens == 11


def test_f2_a_warm_up_that_is_too_short_is_told():
    """Eight users on one worker of 0.1 s: with no warm-up the level is invalid, and says how long one would be.

    Seen to fail when the first answers count like the rest: the least TTFT is an eighth of what it is later.
    """
    load, act = Closed(8), Act(first_ns=100 * MS)
    cold = run_scripted(load, act, workers=1, duration_ns=8 * S).recording
    warm = run_scripted(load, act, workers=1, warm_up_ns=2 * S, duration_ns=8 * S).recording
    reasons = {one.code: one for one in verdict_of(cold, load, failure_limit=0).reasons}
    assert "short_warm_up" in reasons
    assert "--warm-up" in reasons["short_warm_up"].advice
    assert "short_warm_up" not in {one.code for one in verdict_of(warm, load, failure_limit=0).reasons}
    assert cold.histograms["ttft"].min == 100 * MS
    assert warm.histograms["ttft"].min == 800 * MS


def test_f3_the_peak_is_not_below_the_mean():
    """Events of four tokens: the fullest tenth of a second has at least the mean's tokens, and all of them are there.

    Seen to fail when events are counted for tokens: the peak is then a quarter, and below the mean.
    """
    four = array("q", [4] * 11)
    samples = [
        a_sample(n, due_ns=n * 300 * MS, gaps_ns=20 * MS, event_tokens=four, output_tokens=44) for n in range(30)
    ]
    recording = a_recording(samples, window_ns=10 * S)
    mean = recording.production.output_tokens / 10
    peak = max(recording.tokens_by_slice) * S / SLICE_NS
    assert peak >= mean
    assert sum(recording.tokens_by_slice) == recording.production.output_tokens == 30 * 44
    in_slices = [sum(stamp // SLICE_NS == index for one in samples for stamp in one.event_ns) for index in range(100)]
    assert max(in_slices) * S / SLICE_NS < mean


def test_f4_what_comes_before_and_after_a_level_is_not_in_its_window():
    """Setting up for 30 s and asking the server something for 20 s afterwards change no figure of a 10 s window.

    Seen to fail when the run's length is the divisor: a sixth of the throughput.
    """

    async def main() -> tuple:
        clock = VirtualClock()
        client = Client(
            Endpoint(base_url=URL, model="m"), Scripted(clock, lambda _: EVEN), clock=clock, timeouts=PATIENT
        )
        await anyio.sleep(30)
        ran = await run_level(client, Closed(1), clock=clock, duration_ns=10 * S)
        await anyio.sleep(20)
        return ran, clock.now_ns()

    ran, whole_ns = run_virtual(main)
    assert ran.recording.window == (30 * S, 40 * S)
    assert ran.recording.production.output_tokens / ran.recording.window_s == 10
    assert sum(one.output_tokens for one in ran.samples) * S / whole_ns == pytest.approx(100 / 60)


def test_f5_the_window_begins_before_the_first_answer_ends():
    """Answers of 4 s, one after another, are one in 4 s.

    Seen to fail when time begins with the first answer's end, whose 4 s are then missing: five answers in 16 s.
    """
    ran = run_scripted(Closed(1), Act(first_ns=4 * S), duration_ns=20 * S)
    assert ran.recording.production.answers / ran.recording.window_s == 0.25
    ends = [one.end_ns for one in ran.samples]
    assert len(ends) * S / (max(ends) - min(ends)) == 0.3125


def test_f6_the_queue_is_told_apart_from_the_first_token():
    """With two places at the server, longer answers make others wait: TTFT from `due` grows, that from `sent` does not.

    Seen to fail when only the time after a place was got is told: TTFT is the same at any load and any length.
    """

    def ttfts(tokens: int) -> tuple[int, int, int]:
        act = Act(first_ns=100 * MS, gap_ns=50 * MS, tokens=tokens)
        load = Open(5, CONSTANT)
        ran = run_scripted(load, act, workers=2, unseen=True, duration_ns=10 * S, drain_ns=100 * S)
        histograms = ran.recording.histograms
        return histograms["ttft"].max, histograms["ttft_response"].max, histograms["lateness"].max

    short, long = ttfts(3), ttfts(21)
    assert short == (100 * MS, 100 * MS, 0)
    assert long[0] == short[0]
    assert long[1] - long[0] == long[2] > 15 * S
