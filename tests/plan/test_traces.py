"""Traces: read as they are written by others, and asked as they were recorded."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.distribution import Constant
from loadbench.plan.prompt_source import word_prompts
from loadbench.plan.prompts import Calibration, WordPrompts
from loadbench.plan.setting_types import TOKENS
from loadbench.plan.settings import WorkSettings
from loadbench.plan.sources import resolve
from loadbench.plan.trace_files import read_trace
from loadbench.plan.traces import BLOCK_TOKENS, Replayed, Row, TracePrompts, trace_of
from loadbench.record.outcome import Outcome
from loadbench.results.requests import line
from tests.building import a_failure, a_sample
from tests.plan.make_traces import AZURE_TRACE, REQUESTS, TRACES

S = 1_000_000_000
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def written(tmp_path, text: str, name: str = "trace"):
    """A file with this in it."""
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("file", TRACES, ids=lambda file: file.name)
def test_sample_traces_are_those_of_their_generator(file):
    """`python -m tests.plan.make_traces` writes what is kept."""
    assert file.read_text(encoding="utf-8") == TRACES[file]()


def test_azure_rows_are_read(tmp_path):
    """Dates become offsets to 100 ns, over midnight and with a time zone; columns may be in another order."""
    rows = "2023-11-16 23:59:59.1234567,374,44\n2023-11-17 00:00:01.0000000,396,109\n"
    trace = read_trace(written(tmp_path, AZURE + rows))
    assert list(trace.offsets_ns) == [0, 1_876_543_300]
    assert (list(trace.input_tokens), list(trace.output_tokens)) == ([374, 396], [44, 109])
    other = "GeneratedTokens,TIMESTAMP,ContextTokens\n5,2024-05-10 00:00:00.009930+00:00,7\n"
    assert list(read_trace(written(tmp_path, other, "other")).output_tokens) == [5]


def test_burstgpt_rows_are_read(tmp_path):
    """Seconds as they are; columns that are not needed are passed over. A request without a response is left out."""
    head = "Timestamp,Session ID,Model,Request tokens,Response tokens,Log Type\n"
    text = head + "5,,GPT-4,472,18,API log\n45.5,,X,0,9,a\n50,,X,9,0,a\n"
    trace = read_trace(written(tmp_path, text))
    assert (list(trace.offsets_ns), list(trace.output_tokens)) == ([0, 40_500_000_000], [18, 9])
    assert list(trace.input_tokens) == [472, 1]
    assert trace.skipped == (("that failed in the recording", 1),)


def test_mooncake_rows_are_read(tmp_path):
    """Milliseconds, lengths and ids; a request is warm if its first block came before."""
    rows = [(27482, 600, 5, [1, 2]), (30535, 600, 5, [3, 4]), (30540, 1100, 5, [1, 2, 9])]
    keys = ("timestamp", "input_length", "output_length", "hash_ids")
    text = "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)
    trace = read_trace(written(tmp_path, text))
    assert list(trace.offsets_ns) == [0, 3_053_000_000, 3_058_000_000]
    assert [list(trace.blocks_of(number)) for number in range(3)] == [[1, 2], [3, 4], [1, 2, 9]]
    assert list(trace.warm) == [0, 0, 1]


def test_our_own_requests_are_read(tmp_path):
    """In the order in which they were due, whatever that of the file; without a whole response, what was requested."""
    samples = [
        a_sample(1, due_ns=5 * S, input_tokens=50),
        a_sample(0, due_ns=2 * S, input_tokens=70, output_tokens=3),
        a_failure(Outcome.RESET, number=2, due_ns=6 * S),
        a_sample(3, due_ns=7 * S, input_tokens=60, output_tokens=4, outcome=Outcome.GAVE_UP),  # 4 of up to 100
    ]
    lines = [json.loads(line(sample, level=0, origin_ns=0)) for sample in samples]
    lines[2] |= {"asked_input_tokens": 40, "asked_output_tokens": 8}
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "requests.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    trace = read_trace(file)
    assert list(trace.offsets_ns) == [0, 3 * S, 4 * S, 5 * S]
    assert (list(trace.input_tokens), list(trace.output_tokens)) == ([70, 50, 40, 60], [3, 11, 8, 100])
    assert list(read_trace(tmp_path / "run").offsets_ns) == list(trace.offsets_ns)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "has no request"),
        (AZURE, "has no request"),
        ("a,b\n1,2\n", r"line 1: no trace begins with 'a,b'"),
        (
            AZURE + "2023-11-16 18:15:46,1,2\nyesterday,1,2\n",
            r"line 3: this is not a request: 'yesterday' is not a date",
        ),
        (AZURE + "2023-11-16 18:15:46,1\n", r"line 2: this does not have the 3 columns"),
        (AZURE + "2023-11-16 18:15:46,-1,2\n", r"line 2: this is not a request: '-1' is not a number of tokens"),
        (AZURE + "2023-13-16 18:15:46,1,2\n", r"line 2: this is not a request"),
        (AZURE + "0001-01-01 00:00:00,1,2\n", r"line 2: this is not a request: .* more than a hundred years"),
        (AZURE + "2023-11-16 18:15:46,1," + "9" * 30 + "\n", r"line 2: this is not a request: '9+' is not a number"),
        (AZURE + "2023-11-16 18:15:46,1," + "0" * 20 + "9" * 30 + "\n", r"line 2: .* '0+9+\.\.\. is not a number"),
        ("Timestamp,Request tokens,Response tokens\nnan,1,2\n", r"has no request .*; 1 without a time"),
        ("Timestamp,Request tokens,Response tokens\ninf,1,2\n", r"line 2: this is not a request"),
        ('{"timestamp": 1}\n', r"line 1: no trace begins with 'timestamp'"),
        ('{"due_ns": 1, "input_tokens": "x"}\n', r"line 1: this is not a request: 'x' is not a number of tokens"),
        ('{"due_ns": 1, "output_tokens": 5}\n', r"has no request"),
        ('{"due_ns": 1, "input_tokens": 5, "output_tokens": 2}\n\n{"due_ns": \n', r"line 3: this is not JSON"),
        (
            '{"timestamp": true, "input_length": 5, "output_length": 2}\n',
            r"line 1: this is not a request: its timestamp",
        ),
        ('{"timestamp": 1, "input_length": 5, "output_length": 2, "hash_ids": ["a"]}\n', r"line 1: .* hash_ids"),
        ("[1]\n", r"line 1: no trace begins with"),
    ],
)
def test_what_is_no_trace_is_refused_by_its_line(tmp_path, text, place):
    """One message with the file, the line and what is wrong with it."""
    with pytest.raises(BadInput, match=place):
        read_trace(written(tmp_path, text))


@pytest.mark.parametrize("raw", [b"\xfe\x00", AZURE.encode() + b"\xff\n"])
def test_bytes_that_are_no_text_are_refused(tmp_path, raw):
    """By their line."""
    file = tmp_path / "trace"
    file.write_bytes(raw)
    with pytest.raises(BadInput, match=r"line \d: this is not UTF-8"):
        read_trace(file)


def test_limit_takes_of_our_own_those_that_came_first(tmp_path):
    """They are written as they end: the first lines would be the short answers, and the long ones would be missing."""
    lines = [{"due_ns": due * S, "input_tokens": 5, "output_tokens": 9 - due} for due in (3, 2, 1, 0)]
    trace = read_trace(written(tmp_path, "".join(json.dumps(one) + "\n" for one in lines)), limit=2)
    assert (list(trace.offsets_ns), list(trace.output_tokens)) == ([0, S], [9, 8])


def test_requests_of_unknown_length_are_left_out_and_counted(tmp_path):
    """Of a later turn that failed nobody knows how long it was; the rest is replayed, and the trace tells of it."""
    lines = [{"due_ns": due * S, "input_tokens": (7, None, 9)[due], "output_tokens": 5} for due in range(3)]
    trace = read_trace(written(tmp_path, "".join(json.dumps(one) + "\n" for one in lines)))
    assert (list(trace.offsets_ns), trace.skipped) == ([0, 2 * S], (("of unknown length", 1),))
    assert "1 request of unknown length left out" in str(Replayed(trace))


def test_limit_reads_no_further(tmp_path):
    """The first rows are taken, and a bad one beyond them is never seen."""
    text = AZURE + "2023-11-16 18:15:46,1,2\n2023-11-16 18:15:47,3,4\nnonsense\n"
    assert len(read_trace(written(tmp_path, text), limit=2)) == 2


def test_arrivals_are_those_of_the_trace_scaled():
    """At twice the speed each comes at half its offset; the window lasts one more gap than the last of them."""
    trace = trace_of("t", [Row(at * S, 5, 5) for at in (100, 104, 110)])
    replayed = Replayed(trace, 2.0)
    assert list(replayed.offsets_ns(1, random.Random(1), lead_ns=9 * S)) == [0, 2 * S, 5 * S]
    assert replayed.window_ns == 7_500_000_000
    assert replayed.rate_per_s == 0.4


@pytest.mark.parametrize("offsets", [[0], [0, 0, 0]])
def test_a_trace_of_a_moment_has_a_window_of_a_second(offsets):
    """What came all at once is asked all at once, and its rate is no division by nothing."""
    replayed = Replayed(trace_of("t", [Row(at, 5, 5) for at in offsets]))
    assert (replayed.window_ns, replayed.rate_per_s) == (S, len(offsets))


def test_prompts_have_the_recorded_lengths():
    """By the calibration of the server: 20 tokens of template, 2 tokens a word. The length that was asked is told."""
    words = word_prompts(WorkSettings(), Constant(1), key="k", calibration=Calibration(2.0, 20))
    source = TracePrompts(trace_of("t", [Row(0, 220, 7), Row(1, 1020, 9)]), words)
    prompts = [source.next(number, None) for number in range(2)]
    assert [len(prompt.text.split()) for prompt in prompts] == [100, 500]
    assert [(prompt.target_tokens, prompt.output_tokens) for prompt in prompts] == [(220, 7), (1020, 9)]
    assert prompts[0].text.split()[:6] != prompts[1].text.split()[:6]


def test_h2_lengths_that_cannot_be_are_asked_as_the_nearest():
    """Nothing is shorter than template and one word, nor between two words: no tokenizer is to blame for that."""
    words = word_prompts(WorkSettings(), TOKENS.read("uniform:1,60"), key="k", calibration=Calibration(1.5, 20))
    source = TracePrompts(
        trace_of("t", [Row(0, 3, 1), Row(1, 25, 1), Row(2, 700, 1, (1, 2)), Row(3, 3, 1, (1,))]), words
    )
    assert [source.next(number, None).target_tokens for number in range(4)] == [22, 24, 700, 22]
    drawn = [words.next(number, None).target_tokens for number in range(200)]
    assert min(drawn) == 22
    assert set(drawn) <= {round(20 + 1.5 * count) for count in range(1, 28)}


def test_h2_one_length_below_the_template_is_asked_as_it_is():
    """Ten tokens for every prompt cannot be had of a template of twenty, and the level is to say so."""
    words = word_prompts(WorkSettings(), Constant(10), key="k", calibration=Calibration(1.0, 20))
    assert words.next(0, None).target_tokens == 10


def test_equal_ids_are_equal_words():
    """Prompts share exactly the blocks that they share in the trace, and are as long as it says."""
    rows = [Row(0, 2 * BLOCK_TOKENS + 100, 1, (1, 2, 3)), Row(1, 2 * BLOCK_TOKENS + 30, 1, (1, 2, 4))]
    rows += [Row(2, 2 * BLOCK_TOKENS + 100, 1, (5, 2, 3)), Row(3, 700, 1, (1, 2))]
    source = TracePrompts(trace_of("t", rows), WordPrompts(Constant(1), level="k"))
    texts = [source.next(number, None).text.split() for number in range(4)]
    assert [len(text) for text in texts] == [1124, 1054, 1124, 700]
    assert texts[0][:1024] == texts[1][:1024]
    assert texts[0][1024:1040] != texts[1][1024:1040]
    assert texts[3] == texts[0][:700]
    assert texts[2][:6] != texts[0][:6]
    assert [source.next(number, None).warm for number in range(4)] == [False, True, False, True]


def test_h1_another_level_has_other_words():
    """What one level left in the cache is of no use to the next, nor one seed's to another's."""
    trace = trace_of("t", [Row(0, 600, 1, (1, 2))])
    made = {
        TracePrompts(trace, WordPrompts(Constant(1), seed=seed, level=level)).next(0, None).text
        for seed in (0, 1)
        for level in ("m/0", "m/1")
    }
    assert all(one.split()[:6] != other.split()[:6] for one, other in pairwise(sorted(made)))
    assert len(made) == 4


def test_a_trace_says_how_long_its_level_is():
    """The whole of it is measured, without a warm-up, unless somebody says otherwise."""
    scenario = resolve(flags={"trace": str(AZURE_TRACE), "time_scale": "10"}, environment={})
    (load,) = scenario.loads
    assert len(load.arrivals.trace) == REQUESTS
    assert scenario.extent.warm_up_ns == 0
    assert load.arrivals.trace.span_ns / 10 < scenario.extent.duration_ns < load.arrivals.trace.span_ns / 10 + S
    assert str(scenario.origins["load.duration"]) == "trace"
    cut = resolve(flags={"trace": str(AZURE_TRACE), "duration": "9s", "warm_up": "1s"}, environment={})
    assert (cut.extent.duration_ns, cut.extent.warm_up_ns) == (9 * S, S)


@pytest.mark.parametrize("flags", [{}, {"duration": "1h"}])
def test_a_window_ends_with_its_trace(flags):
    """What is sent before the window opens is not in it, and behind the last request is nothing to be measured."""
    flags = {"trace": str(AZURE_TRACE), "time_scale": "10", "warm_up": "20s"} | flags
    scenario = resolve(flags=flags, environment={})
    (load,) = scenario.loads
    assert scenario.extent.duration_ns == load.arrivals.window_ns - 20 * S
    assert str(scenario.origins["load.duration"]) == "trace"
    listed = ["--duration: the trace ends after 43s"] if "duration" in flags else []
    assert [str(unused) for unused in scenario.unused] == listed


def test_a_warm_up_leaves_something_to_measure():
    """One as long as the trace is refused."""
    with pytest.raises(BadInput, match=r"--warm-up: nothing of the trace, .* would be left to measure"):
        resolve(flags={"trace": str(AZURE_TRACE), "warm_up": "1h"}, environment={})


@pytest.mark.parametrize("named", ["", "requests.jsonl"])
@pytest.mark.parametrize("lines", [0, 1])
def test_a_run_whose_requests_stayed_on_its_nodes_is_no_trace(tmp_path, named, lines):
    """By its folder or its file; also where some levels were gathered, as a part of a run is another load."""
    (tmp_path / "requests.jsonl").write_text('{"due_ns": 0, "input_tokens": 5, "output_tokens": 9}\n' * lines)
    client = {"workers": [{"name": "w", "requests": 3, "log": "/tmp/x/requests.jsonl"}]}
    (tmp_path / "run.json").write_text(json.dumps({"levels": [{}, {"client": client}]}))
    with pytest.raises(BadInput, match="the requests of this run stayed on the nodes of its cluster") as error:
        read_trace(tmp_path / named)
    assert "client.workers[].log" in error.value.hint
    assert "--gather-requests" in error.value.hint


@pytest.mark.parametrize("beside", ["{", '{"levels": [{"client": {"workers": [{"log": ""}]}}]}', '{"levels": 3}'])
def test_what_is_beside_the_requests_does_not_stop_a_replay(tmp_path, beside):
    """A run whose workers' logs were gathered, or a damaged file."""
    (tmp_path / "requests.jsonl").write_text('{"due_ns": 0, "input_tokens": 5, "output_tokens": 9}\n')
    (tmp_path / "run.json").write_text(beside)
    assert len(read_trace(tmp_path)) == 1
