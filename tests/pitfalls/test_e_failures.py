"""Pitfalls E: what is a success, what is a failure, and that none is lost."""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import io

import pytest

from loadbench.core.errors import ExitCode
from loadbench.plan.arrivals import Arrivals, Spacing
from loadbench.plan.load import Closed, Open
from loadbench.record.outcome import Outcome
from loadbench.report.csv import csv as as_csv
from loadbench.report.formats import render
from loadbench.targets.scrape import parse_metrics, rise
from tests.building import a_failure, a_level, a_recording, a_run, a_sample
from tests.cli.running import loadbench
from tests.engine.scripted import Act, run_scripted
from tests.faults.server import FAULTS, FaultProcess, FaultServer
from tests.pitfalls.playing import (
    DONE,
    KINDS,
    MS,
    S,
    ask,
    client_of,
    delta,
    end,
    evenly,
    faulty,
    frame,
    played,
    token,
    transport_of,
)

both = pytest.mark.parametrize("kind", KINDS)
ERROR = frame({"error": {"message": "out of memory"}})
OTHER_ERRORS = (
    frame({"error": "out of memory"}),
    frame({"object": "error", "message": "out of memory"}),
    frame({"choices": [{"index": 0, "delta": {}, "error": {"message": "out of memory"}}]}),
    b'event: error\ndata: {"message":"out of memory"}\n\n',
    b"event: error\ndata: out of memory\n\n",
)


@pytest.mark.parametrize("place", range(5))
def test_e1_an_error_anywhere_in_a_200_is_a_failure(place):
    """An error before, between or behind tokens, finish_reason and usage makes a 200 `stream_error`, in its words.

    Seen to fail when the status alone was asked (`sample.status` below): 200.
    """
    frames = [token("a"), token("b"), delta("stop"), DONE]
    frames.insert(min(place, 3), ERROR)
    sample = played(*((n * MS, data) for n, data in enumerate(frames)))
    assert (sample.outcome, sample.detail) == (Outcome.STREAM_ERROR, "out of memory")
    assert sample.outcome.failed
    assert sample.status == 200


@pytest.mark.parametrize("error", OTHER_ERRORS)
def test_e1_errors_of_every_shape_are_seen(error):
    """As a string, as an object that is one, in a choice, as an event of type error: a failure with its words.

    Seen to fail when `error` had to be an object with a message.
    """
    sample = played((MS, token()), (2 * MS, error), (3 * MS, delta("stop") + DONE))
    assert (sample.outcome, sample.detail) == (Outcome.STREAM_ERROR, "out of memory")


@both
@pytest.mark.parametrize(
    "fault", ["error_in_stream", "error_by_event", "error_at_once", "error_after_finish", "aborted"]
)
def test_e1_errors_over_sockets(fault, kind):
    """The same from a real server: no such answer is ok, nor counted among the answers of a level.

    Seen to fail when `Answer.outcome` asked for the finish_reason first.
    """
    (sample,) = faulty(fault, kind=kind)
    assert sample.outcome is Outcome.STREAM_ERROR
    recording = a_recording([sample])
    assert recording.production.answers == recording.production.output_tokens == 0


@both
@pytest.mark.parametrize("fault", ["empty", "nothing"])
def test_e2_an_answer_without_a_token_is_a_failure(fault, kind):
    """A role, a finish_reason and a usage of 0 are `empty`, and no stream at all is `truncated`: neither has a TTFT.

    Seen to fail when a finish_reason was enough (`finished` below).
    """
    (sample,) = faulty(fault, kind=kind)
    assert sample.outcome is (Outcome.EMPTY if fault == "empty" else Outcome.TRUNCATED)
    assert sample.outcome.failed
    assert (sample.first_token_ns, sample.last_token_ns) == (None, None)
    finished = sample.finish_reason is not None
    assert finished is (fault == "empty")
    assert a_recording([sample]).histograms["ttft"].count == 0


@both
@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("no_finish", Outcome.TRUNCATED),
        ("closed_midway", Outcome.TRUNCATED),
        ("short_of_its_length", Outcome.TRUNCATED),
        ("reset_midway", Outcome.RESET),
        ("finish_alone", Outcome.OK),
        ("done_alone", Outcome.OK),
        ("no_last_chunk", Outcome.OK),
        ("until_close", Outcome.OK),
    ],
)
def test_e3_text_alone_is_no_whole_answer(fault, outcome, kind):
    """Eight tokens are an answer with finish_reason or [DONE], and `truncated` or `reset` without; tokens are kept.

    Seen to fail when tokens and an end of the body were enough: `no_finish` is ok then.
    """
    (sample,) = faulty(fault, kind=kind)
    assert sample.outcome is outcome
    assert len(sample.event_ns) == 8


def with_failures(failed: int) -> list:
    """A hundred requests, half a second apart, of which these many fail and the others get slower one by one."""
    good = [a_sample(n, due_ns=n * S // 2, ttft_ns=(100 + n) * MS) for n in range(100 - failed)]
    return good + [a_failure(Outcome.RESET, number=n, due_ns=n * S // 2) for n in range(100 - failed, 100)]


def test_e4_failures_are_not_dropped_from_the_tail():
    """With 9 of 100 failed the p95 over successes is finite and gets better; with failures as infinite it is infinite.

    Seen to fail when successes alone were shown (`p95` below), which fall as failures rise.
    """
    levels = {failed: a_level(with_failures(failed)) for failed in (0, 9)}
    ttft = {failed: level.metrics["ttft_s"] for failed, level in levels.items()}
    p95 = {failed: metric.p95 for failed, metric in ttft.items()}
    assert p95[9] < p95[0]
    assert ttft[9].with_failures["p95"] is None
    assert ttft[9].with_failures["p90"] >= ttft[0].with_failures["p90"] == ttft[0].p90
    assert "failures" in {reason.code for reason in levels[9].verdict.reasons}
    assert levels[9].outcomes == {"ok": 91, "reset": 9}


def test_e5_when_all_fail_there_is_no_figure_and_no_success():
    """Of a level of failures every latency is null, the verdict is INVALID, and every report can be written.

    Seen to fail with means over nothing (`ZeroDivisionError` below) or 0 for them.
    """
    level = a_level([a_failure(Outcome.REFUSED, number=n, due_ns=n * S, detail="refused") for n in range(20)])
    latencies = [metric for name, metric in level.metrics.items() if name not in {"lateness_s", "connect_s"}]
    assert set(latencies) == {None}
    assert (level.verdict.status, level.throughput.requests_per_s) == ("INVALID", 0.0)
    assert "no_answers" in {reason.code for reason in level.verdict.reasons}
    run = a_run(level)
    shown = render(run, "text"), render(run, "markdown")
    assert all("INVALID" in report and "nan" not in report.lower() for report in shown)
    rows = list(csv.DictReader(io.StringIO(as_csv(run))))
    assert all(value not in {"0.0", "nan"} for name, value in rows[0].items() if name.startswith("ttft"))
    with pytest.raises(ZeroDivisionError):
        _ = sum([]) / len([])


def test_e5_the_exit_code_says_so(tmp_path):
    """A sweep of which no request is answered does not end with 0, and says what the server said.

    Seen to fail with the exit code of a run whose answers are good (the second).
    """
    codes = {}
    with FaultProcess(speed=50) as server:
        for fault in ("unavailable", "plain"):
            options = ["--prompt", f"fault:{fault}", "--max-tokens=2", "--users=1", "--requests=3", "--warm-up=1ms"]
            ran = loadbench("sweep", f"--url={server.url}/v1", *options, "--no-live", cwd=tmp_path)
            codes[fault] = ran.returncode
            assert "Traceback" not in ran.stderr
            assert ("queue full" in ran.stderr) is (fault == "unavailable")
    assert codes["unavailable"] == ExitCode.TARGET_UNAVAILABLE
    assert codes["plain"] != codes["unavailable"]


@pytest.mark.parametrize("load", [Closed(4), Open(10.0, Arrivals(Spacing.CONSTANT))], ids=["closed", "open"])
def test_e6_what_is_in_flight_at_the_end_is_counted(load):
    """Answers that outlast the drain end as `abandoned`: every measured request has an outcome, none is dropped.

    Seen to fail when the level ended with its answered requests (`answered` below): the slowest are missing.
    """

    def act(number: int) -> Act:
        return Act(first_ns=20 * S if number % 3 == 0 else 300 * MS)

    ran = run_scripted(load, act, duration_ns=3 * S, drain_ns=S)
    outcomes = ran.recording.outcomes
    assert sum(outcomes.values()) == ran.recording.arrivals_due == len(ran.samples)
    assert set(outcomes) == {Outcome.OK, Outcome.ABANDONED}
    assert outcomes[Outcome.ABANDONED] == sum(number % 3 == 0 for number in range(ran.taken))
    answered = outcomes[Outcome.OK]
    assert answered < len(ran.samples)
    level = a_level(recording=ran.recording, load=load)
    assert level.metrics["ttft_s"].with_failures["p99"] is None
    assert level.metrics["ttft_s"].p99 == pytest.approx(0.3, rel=0.001)


def test_e6_what_was_cut_keeps_its_time_so_far():
    """An abandoned answer keeps the tokens that it had and the time that it was waited for: at least so long.

    Seen to fail when cut requests had no sample.
    """
    ran = run_scripted(Closed(1), Act(first_ns=S, gap_ns=S, tokens=60), duration_ns=S, drain_ns=4 * S + 1)
    (sample,) = ran.samples
    assert (sample.outcome, len(sample.event_ns)) == (Outcome.ABANDONED, 5)
    assert sample.end_ns - sample.due_ns == 5 * S + 1


@both
def test_e7_short_answers_are_kept_as_they_are(kind):
    """An answer that stops after 1 of 100 tokens is one request, ok, with its finish_reason; nobody asks again.

    Seen to fail when it was asked until it was long (`again` below): the server sees three requests.
    """

    async def main(*, again: int):
        async with FaultServer(speed=50) as server:
            transport = transport_of(kind)
            client = client_of(server, transport)
            samples = [await ask(client, "fault:one_token", max_tokens=100) for _ in range(again)]
            await transport.aclose()
            return samples, server.requests["one_token"]

    (sample,), asked = asyncio.run(main(again=1))
    assert (sample.outcome, sample.output_tokens, sample.request.max_tokens) == (Outcome.OK, 1, 100)
    assert (sample.finish_reason, asked) == ("stop", 1)
    assert asyncio.run(main(again=3))[1] == 3


def test_e8_a_preemption_is_seen_as_the_longest_gap():
    """A pause of 2 s in the middle of an answer is its longest gap, in the maximum and in no median.

    Seen to fail when one mean gap a request was kept (`mean` below): 321 ms, which no gap had.
    """
    before, after = evenly(4), evenly(4, first_ns=130 * MS + 2 * S)
    sample = played(*before, *after, (3 * S, end(8)))
    histogram = a_recording([sample]).histograms["event_gap"]
    assert (histogram.max, histogram.percentile(50)) == (2 * S, pytest.approx(10 * MS, rel=0.001))
    mean = sum(sample.event_gaps()) / 7
    assert mean not in sample.event_gaps()
    assert 20 * 10 * MS < mean < S


@both
def test_e8_a_preemption_over_sockets(kind):
    """The fault server's preempted answer has one gap that is longer than all others together.

    Seen to fail when the server paused for one gap only.
    """
    # At this speed it pauses for half a second: what holds up a busy machine is shorter.
    (sample,) = faulty("preempted", kind=kind, speed=4)
    assert sample.outcome is Outcome.OK
    longest = max(sample.event_gaps())
    assert sample.event_gaps().index(longest) == 3
    assert longest > sum(sample.event_gaps()) - longest


def test_e8_preemptions_that_the_server_counts_are_a_caveat():
    """Seven more preemptions on its page after the level than before are told with it, and where they came from.

    Seen to fail when the page was read once (`once` below): it counts those of others, before, too.
    """
    page = """# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="m"} %d.0
vllm:num_preemptions_total{engine="1",model_name="m"} 2.0
vllm:generation_tokens_total{engine="0",model_name="m"} 11.0
"""
    before, after = parse_metrics(page % 3), parse_metrics(page % 10)
    level = a_level(recording=dataclasses.replace(a_recording([a_sample()]), server=rise(before, after)))
    assert [caveat.message for caveat in level.caveats] == ["the server preempted 7 sequences: KV memory was short"]
    assert level.server == {"vllm:num_preemptions_total": 7.0}
    once = after["vllm:num_preemptions_total"]
    assert once == 12.0
    assert a_level(recording=dataclasses.replace(a_recording([a_sample()]), server=rise(after, after))).caveats == []


def test_e8_a_restart_of_the_server_is_seen_in_its_counters():
    """Counters that fell make a level invalid, whose answers may all be good; nothing is said of what rose.

    Seen to fail when what fell was taken for a rise (`naive` below): minus 88 tokens.
    """
    before, after = parse_metrics("x_tokens_total 99"), parse_metrics("x_tokens_total 11")
    naive = after["x_tokens_total"] - before["x_tokens_total"]
    assert naive == -88
    rose = rise(before, after)
    assert rose is None
    quiet = a_recording([a_sample(n, due_ns=n * S) for n in range(100)])
    level = a_level(recording=dataclasses.replace(quiet, server=rose, server_restarted=rose is None))
    assert (level.verdict.status, [reason.code for reason in level.verdict.reasons]) == (
        "INVALID",
        ["server_restarted"],
    )
    assert level.server is None
    assert a_level(recording=quiet).verdict.status == "VALID"


def test_e8_what_the_server_counted_is_told_in_few_names():
    """Of many counters the forty first names that rose stand in the result, and the preemptions in any case."""
    rose = {f"a{n:02}_total": float(n) for n in range(60)} | {"vllm:num_preemptions_total": 1.0}
    level = a_level(recording=dataclasses.replace(a_recording([a_sample()]), server=rose))
    assert list(level.server) == ["vllm:num_preemptions_total", *(f"a{n:02}_total" for n in range(1, 40))]


def test_e_no_fault_of_the_table_is_two_things():
    """What may end ok may end in nothing else, so that no failure can pass for a success.

    Seen to fail when `restarted` could also end ok.
    """
    assert all(fault.outcomes == {Outcome.OK} or Outcome.OK not in fault.outcomes for fault in FAULTS.values())
