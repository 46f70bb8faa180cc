"""What other tools would say of the same requests: two answers, small enough to reckon by hand.

                start   first frame   first text   answer text   events            last   end
    request 0       5           100          110           130   110, 130, 170      170   200   4 tokens in 3 events
    request 1    1000          1060         1060          1060   1060, 1090        1090  1105   2 tokens in 2 events

All in ms. Request 0 was due at 0, sent at 10, and its connection took the 5 ms before that. From the first start to the
last end is 1100 ms. A failed request, and one of the warm-up, are there to be left out.
"""

from __future__ import annotations

import math
import random
import re
from array import array
from collections import Counter

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.cli import report as command
from loadbench.plan.load import Phase
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.report.other_tools import NAMES, TOOLS
from loadbench.report.render_text import render_text
from loadbench.report.tool_comparison import tool_comparison_document
from loadbench.report.tool_figures import RequestColumns
from loadbench.results.requests import RequestRecord, line, read_requests
from loadbench.results.run import ObjectiveResult, to_json
from tests.building import MS, a_failure, a_level, a_run, a_sample
from tests.cli.running import loadbench

SAMPLES = (
    a_sample(
        0,
        sent_ns=10 * MS,
        connect_ns=5 * MS,
        first_byte_ns=100 * MS,
        first_token_ns=110 * MS,
        first_visible_ns=130 * MS,
        last_token_ns=170 * MS,
        end_ns=200 * MS,
        event_ns=array("q", [110 * MS, 130 * MS, 170 * MS]),
        event_tokens=array("q", [1, 1, 2]),
        output_tokens=4,
        input_tokens=10,
    ),
    a_sample(
        1,
        due_ns=1000 * MS,
        first_byte_ns=1060 * MS,
        first_token_ns=1060 * MS,
        first_visible_ns=1060 * MS,
        last_token_ns=1090 * MS,
        end_ns=1105 * MS,
        event_ns=array("q", [1060 * MS, 1090 * MS]),
        event_tokens=array("q", [1, 1]),
        output_tokens=2,
        input_tokens=20,
    ),
    a_failure(Outcome.RESET, number=2, due_ns=500 * MS),
    a_sample(3, due_ns=-9000 * MS, phase=Phase.WARM_UP),
)


def requests(*samples) -> list[RequestRecord]:
    """As they are read from the file."""
    return [
        msgspec.json.decode(line(sample, level=0, origin_ns=0), type=RequestRecord) for sample in (samples or SAMPLES)
    ]


def columns(records) -> RequestColumns:
    """The requests of one level as columns."""
    made = RequestColumns()
    for record in records:
        made.add(record)
    return made


def theirs(tool: str, *samples) -> dict[str, float | None]:
    """The tool's figures by name and point."""
    found = TOOLS[tool](a_level(samples or SAMPLES), columns(requests(*samples)))
    return {f"{figure.name} {figure.point}".strip(): figure.theirs for figure in found.figures}


def close(expected: dict[str, float]) -> object:
    """Exact but for the rounding of floats."""
    return pytest.approx(expected, rel=1e-12)


def test_vllm():
    """Frames, a TTFT that a role ends, TPOT over N - 1, quantiles between neighbours, and the whole time below."""
    assert theirs("vllm") == close(
        {
            "Request throughput": 2 / 1.1,
            "Output token throughput": (4 + 2) / 1.1,
            "Total token throughput": (4 + 2 + 10 + 20) / 1.1,
            # Seconds from 0.005 on: three frames in the first, two in the second. The mean above is higher.
            "Peak output token throughput": 3,
            "Peak concurrent requests": 1,
            "TTFT mean": (0.095 + 0.060) / 2,
            "TTFT p50": (0.095 + 0.060) / 2,
            "TTFT p99": 0.060 + 0.99 * 0.035,
            # That is (170 - 100) / 3, and (1090 - 1060) / 1.
            "TPOT mean": (0.070 / 3 + 0.030) / 2,
            "TPOT p50": (0.070 / 3 + 0.030) / 2,
            "TPOT p99": 0.070 / 3 + 0.99 * (0.030 - 0.070 / 3),
            # 100 to 110, then 20, 40 and 30: sorted 10, 20, 30, 40; p99 lies at place 2.97.
            "ITL mean": 0.025,
            "ITL p50": 0.025,
            "ITL p99": 0.030 + 0.97 * 0.010,
            # 170 - 5 and 1090 - 1000.
            "E2EL mean": (0.165 + 0.090) / 2,
            "E2EL p50": (0.165 + 0.090) / 2,
            "E2EL p99": 0.090 + 0.99 * 0.075,
        }
    )


def test_vllm_goodput_takes_the_objectives_that_it_has():
    """Within the bound counts, by its own TTFT up to the first frame; an objective that it lacks is left out."""
    level = a_level(SAMPLES)
    rules = ("ttft_p95<0.06s", "tpot_p95<30ms", "itl_p99<1ms", "failures<1%")
    decided = [ObjectiveResult(rule=rule, gate=False, decision="PASS", value=None) for rule in rules]
    level = msgspec.structs.replace(level, objectives=decided)
    found = {figure.name: figure.theirs for figure in TOOLS["vllm"](level, columns(requests())).figures}
    # 60 ms and 30 ms are not above their bounds; the other request took 95 ms to its first frame.
    assert found["Request goodput"] == pytest.approx(1 / 1.1)
    assert "Request goodput" not in theirs("vllm")


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_busiest_second_is_the_same_for_any_number_at_a_time(seed, count):
    """Requests are taken a few at a time; with or without tokens and gaps, the seconds are those of all together."""
    rng = random.Random(seed)
    samples, frames = [], []
    for number in range(count):
        due_ns = rng.randrange(9_000) * MS
        stamps = sorted(due_ns + rng.randrange(1, 3_000) * MS for _ in range(rng.randrange(9)))
        frames += stamps
        marks = {"first_token_ns": stamps[0], "last_token_ns": stamps[-1]} if stamps else {"first_token_ns": None}
        samples.append(
            a_sample(
                number,
                due_ns=due_ns,
                event_ns=array("q", stamps),
                event_tokens=None,
                end_ns=due_ns + 4_000 * MS,
                **marks,
            )
        )
    begins_ns = min(sample.due_ns for sample in samples)
    expected = Counter((at - begins_ns) // 1_000_000_000 for at in frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loadbench.report.other_tools._REQUESTS_AT_A_TIME", 3)
        found = TOOLS["vllm"](a_level(SAMPLES), columns(requests(*samples)))
    peak = next(figure.theirs for figure in found.figures if figure.name == "Peak output token throughput")
    assert peak == max(expected.values(), default=0)


def test_sglang():
    """The end is [DONE], and TPOT has what comes after the last token; concurrency is the sum of latencies."""
    assert theirs("sglang") == close(
        {
            "Request throughput": 2 / 1.1,
            "Output token throughput": 6 / 1.1,
            "Total token throughput": 36 / 1.1,
            # 200 - 5 and 1105 - 1000.
            "Concurrency": (0.195 + 0.105) / 1.1,
            "E2E Latency mean": 0.150,
            "E2E Latency p50": 0.150,
            "E2E Latency p99": 0.105 + 0.99 * 0.090,
            # 110 - 5 and 1060 - 1000.
            "TTFT mean": (0.105 + 0.060) / 2,
            "TTFT p50": (0.105 + 0.060) / 2,
            "TTFT p99": 0.060 + 0.99 * 0.045,
            # That is (200 - 110) / 3, and (1105 - 1060) / 1.
            "TPOT mean": (0.030 + 0.045) / 2,
            "TPOT p50": (0.030 + 0.045) / 2,
            "TPOT p99": 0.030 + 0.99 * 0.015,
            "ITL mean": (0.020 + 0.040 + 0.030) / 3,
            "ITL p50": 0.030,
            "ITL p99": 0.030 + 0.98 * 0.010,
        }
    )


def test_sglang_without_usage_takes_the_length_that_was_asked_for():
    """One answer of 4 tokens, 10 were asked for, no usage: 10 tokens in 195 ms there."""
    (one,) = requests(SAMPLES[0])
    without = msgspec.structs.replace(one, token_source=TokenSource.EVENTS.value, asked_output_tokens=10)
    found = {figure.name: figure.theirs for figure in TOOLS["sglang"](a_level(SAMPLES[:1]), columns([without])).figures}
    assert found["Output token throughput"] == pytest.approx(10 / 0.195)
    assert found["TPOT"] == pytest.approx(0.090 / 9)


def test_guidellm():
    """TPOT has the TTFT in it and ITL is a mean per request; both weigh by tokens; rates are left open."""
    found = theirs("guidellm")
    assert (found.pop("Requests per second"), found.pop("Output tokens per second")) == (None, None)
    assert found == close(
        {
            "TTFT mean": (0.105 + 0.060) / 2,
            "TTFT p50": 0.060,
            "TTFT p99": 0.105,
            # 165 / 4 weighs 4, 90 / 2 weighs 2.
            "TPOT mean": (0.165 + 0.090) / 6,
            "TPOT p50": 0.165 / 4,
            "TPOT p99": 0.090 / 2,
            # (170 - 110) / 3 weighs 3, 30 / 1 weighs 1.
            "ITL mean": (0.060 + 0.030) / 4,
            "ITL p50": 0.020,
            "ITL p99": 0.030,
            "Request latency mean": 0.150,
            "Request latency p50": 0.105,
            "Request latency p99": 0.195,
        }
    )


def test_aiperf():
    """Its ITL is one a request, its ICL one a gap; the end is the last text."""
    assert theirs("aiperf") == close(
        {
            "Request Throughput": 2 / 1.1,
            "Output Token Throughput": 6 / 1.1,
            "Total Token Throughput": 36 / 1.1,
            "Time to First Token mean": (0.105 + 0.060) / 2,
            "Time to First Token p50": (0.105 + 0.060) / 2,
            "Time to First Token p99": 0.060 + 0.99 * 0.045,
            # That is (165 - 105) / 3, and (90 - 60) / 1.
            "Inter Token Latency mean": 0.025,
            "Inter Token Latency p50": 0.025,
            "Inter Token Latency p99": 0.020 + 0.99 * 0.010,
            "Inter Chunk Latency mean": 0.030,
            "Inter Chunk Latency p50": 0.030,
            "Inter Chunk Latency p99": 0.030 + 0.98 * 0.010,
            "Request Latency mean": (0.165 + 0.090) / 2,
            "Request Latency p50": (0.165 + 0.090) / 2,
            "Request Latency p99": 0.090 + 0.99 * 0.075,
            # The failed request is the third, and infinite; the middle one is the larger of the other two.
            "adj_time_to_first_token mean": math.inf,
            "adj_time_to_first_token p50": 0.105,
            "adj_time_to_first_token p99": math.inf,
            "adj_inter_token_latency mean": math.inf,
            "adj_inter_token_latency p50": 0.030,
            "adj_inter_token_latency p99": math.inf,
            "adj_request_latency mean": math.inf,
            "adj_request_latency p50": 0.165,
            "adj_request_latency p99": math.inf,
        }
    )
    assert not any(name.startswith("adj_") for name in theirs("aiperf", *SAMPLES[:2]))


def test_llmperf():
    """Reasoning is not seen, the TTFT is in the inter-token latency, and the end is the stream's."""
    assert theirs("llmperf") == close(
        {
            "Overall Output Throughput": 6 / 1.1,
            # 130 - 5 and 1060 - 1000.
            "ttft_s mean": (0.125 + 0.060) / 2,
            "ttft_s p50": (0.125 + 0.060) / 2,
            "ttft_s p99": 0.060 + 0.99 * 0.065,
            # 165 / 4 and 90 / 2.
            "inter_token_latency_s mean": (0.04125 + 0.045) / 2,
            "inter_token_latency_s p50": (0.04125 + 0.045) / 2,
            "inter_token_latency_s p99": 0.04125 + 0.99 * 0.00375,
            "end_to_end_latency_s mean": 0.150,
            "end_to_end_latency_s p50": 0.150,
            "end_to_end_latency_s p99": 0.105 + 0.99 * 0.090,
        }
    )


def test_loadgen():
    """From when it was due; n - 1 samples until the last one due is done; the quantile at n * p, rounded down."""
    assert theirs("loadgen") == close(
        {
            # Request 1 was due last, and has its last token 1090 ms after request 0 was due.
            "Completed samples per second": 1 / 1.090,
            "Completed tokens per second": 6 / 1.090,
            "Latency mean": (0.170 + 0.090) / 2,
            "Latency p50": 0.170,
            "Latency p99": 0.170,
            "First token latency mean": (0.110 + 0.060) / 2,
            "First token latency p50": 0.110,
            "First token latency p99": 0.110,
            # 60 / 3 and 30 / 1.
            "Time per output token mean": 0.025,
            "Time per output token p50": 0.030,
            "Time per output token p99": 0.030,
            # As `early_stopping.cc` finds them for one query above the percentile.
            "Early stopping, queries needed p90": 64,
            "Early stopping, queries needed p95": 130,
            "Early stopping, queries needed p97": 219,
            "Early stopping, queries needed p99": 662,
            "Early stopping, queries needed p999": 6636,
        }
    )


def test_loadgen_estimates_early_where_the_sample_allows():
    """Of 1,000 requests the second largest bounds the p99: with three above it, 1,001 would be needed."""
    samples = [a_sample(n, due_ns=n * 1000 * MS, ttft_ns=(n + 1) * MS // 10, gaps_ns=0) for n in range(1000)]
    found = theirs("loadgen", *samples)
    assert found["Early stopping estimate, Latency p99"] == pytest.approx(0.0999)
    assert found["Early stopping estimate, Latency p90"] > found["Latency p50"]
    assert found["Early stopping, queries needed p999"] == 6636
    assert "Early stopping, queries needed p99" not in found


@pytest.mark.parametrize("tool", TOOLS)
def test_every_figure_says_why_it_differs(tool):
    """Each name has one line, and no line is without its figure."""
    found = TOOLS[tool](a_level(SAMPLES), columns(requests()))
    assert {figure.name for figure in found.figures} | {"p50, p99"} == set(found.reasons)
    assert all("\n" not in why and why for why in found.reasons.values())


@pytest.mark.parametrize("tool", TOOLS)
def test_no_answer_gives_no_figure(tool):
    """Where nothing was answered nothing is known: no zero, no division by it."""
    found = theirs(tool, SAMPLES[2])
    latencies = {name: value for name, value in found.items() if name.endswith(("mean", "p50", "p99"))}
    assert set(latencies.values()) == {None}
    assert all(not value for value in found.values())


@pytest.mark.parametrize("tool", TOOLS)
def test_one_token_has_no_time_per_token(tool):
    """An answer of one token has nothing to divide by, and no figure of that kind."""
    single = a_sample(output_tokens=1, last_token_ns=100 * MS, event_ns=array("q", [100 * MS]), event_tokens=None)
    found = theirs(tool, single)
    per_token = {"vllm": "TPOT", "sglang": "TPOT", "guidellm": "ITL", "aiperf": "Inter Token Latency"}
    if tool in per_token:
        assert found[f"{per_token[tool]} mean"] is None
    elif tool == "loadgen":
        assert found["Time per output token mean"] is None
    else:
        assert found["inter_token_latency_s mean"] == pytest.approx(0.1)  # the TTFT, divided by one


def test_text_has_both_sides_of_every_level():
    """Each level has its table, what is unknown says so, and reasons stand once at the end."""
    run = a_run(a_level(SAMPLES), a_level(SAMPLES))
    told = render_text(
        tool_comparison_document(
            run, "guidellm", [*requests(), *(msgspec.structs.replace(one, level=1) for one in requests())]
        )
    )
    assert told.count("figure") == 2
    assert told.count("unknown") == 4
    assert told.count("TTFT included") == 1
    assert "42.5 ms" in told


def test_command_line_offers_these_tools():
    """The help's list is that of the definitions."""
    assert set(command.TOOLS) == set(TOOLS) == set(NAMES)


def test_report_as_reads_the_run_folder(tmp_path):
    """`loadbench report RUN --as TOOL` takes the requests next to run.json; it writes text or Markdown."""
    (tmp_path / "run.json").write_bytes(to_json(a_run(a_level(SAMPLES))))
    (tmp_path / "requests.jsonl").write_bytes(b"".join(line(one, level=0, origin_ns=0) for one in SAMPLES))
    for where in (tmp_path, tmp_path / "run.json"):
        done = loadbench("report", str(where), "--as", "loadgen", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(r"^Completed tokens per second +5\.50/s", done.stdout, re.MULTILINE)
    markdown = loadbench("report", str(tmp_path), "--as", "vllm", "--format", "markdown", cwd=tmp_path)
    assert markdown.stdout.startswith("# trial: ")
    assert re.search(r"^\| Request throughput +\| +", markdown.stdout, re.MULTILINE)
    refused = loadbench("report", str(tmp_path), "--as", "vllm", "--format", "csv", cwd=tmp_path)
    assert refused.returncode == 2
    assert "csv" in refused.stderr


def test_unfinished_last_line_is_passed_over(tmp_path):
    """A killed run's last line may be half a line; one in the middle that is none is left out and named."""
    path = tmp_path / "requests.jsonl"
    whole = line(SAMPLES[0], level=0, origin_ns=0)
    path.write_bytes(whole + whole[:40])
    assert len(list(read_requests(path))) == 1
    path.write_bytes(b"{}\n" + whole)
    damaged: list[int] = []
    assert len(list(read_requests(path, damaged))) == 1
    assert damaged == [1]
    path.write_bytes(b"{}\n")
    with pytest.raises(Exception, match="line 1"):
        list(read_requests(path))


def test_file_that_is_not_there_is_told(tmp_path):
    """The message names the file."""
    with pytest.raises(Exception, match=r"requests\.jsonl"):
        list(read_requests(tmp_path / "requests.jsonl"))


def test_lines_are_read_back_as_they_were_written():
    """What is read from a line is what the sample said; an answer's text is in none unless texts are kept."""
    (one,) = requests(SAMPLES[0])
    record = orjson.loads(line(SAMPLES[0], level=0, origin_ns=0))
    told = msgspec.to_builtins(one)
    assert told.pop("answer") is None
    assert "answer" not in record
    # What a server did not report has no key.
    assert told == {key: record.get(key) for key in told}
