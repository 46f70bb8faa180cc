"""Trace files as they are distributed, saved and edited: read by evidence, or refused with the reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.core.errors import BadInput
from loadbench.plan.trace_files import FORMATS, read_trace
from loadbench.plan.traces import Replayed
from tests.plan.make_traces import MOONCAKE_TRACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from loadbench.plan.traces import Trace

MS, S = 1_000_000, 1_000_000_000
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Trace]:
    """Writes a file and reads it as a trace."""

    def read(content: str | bytes, name: str = "trace", **options: Any) -> Trace:
        raw = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(raw)
        return read_trace.__wrapped__(tmp_path / name, **options)

    return read


def lines(records: Iterable[dict[str, Any]]) -> str:
    """JSON lines."""
    return "".join(json.dumps(one) + "\n" for one in records)


def requests(times: Iterable[float], *, block: int | None = None, **more: Any) -> list[dict[str, Any]]:
    """Requests with Mooncake's names; with as many ids as their lengths have blocks of this size."""
    rng = random.Random(7)
    made = []
    for at in times:
        tokens = rng.randint(300, 4_000)
        one = {"timestamp": at, "input_length": tokens, "output_length": rng.randint(1, 90)} | more
        made.append(one if block is None else one | {"hash_ids": list(range(-(-tokens // block)))})
    return made


def unit(trace: Trace, first: float, last: float) -> float:
    """The nanoseconds of a unit of time in the file."""
    return trace.span_ns / (last - first)


# The four formats with the same names.


@pytest.mark.parametrize(
    ("records", "unit_ns", "title", "block"),
    [
        (requests([27482, 30535, 30540, 31000], block=512), MS, "Mooncake", 512),
        (requests([0, 3, 5, 9], block=512), MS, "Mooncake", 512),  # 300 requests/s, as its block size says
        (requests([0, 3052, 6121], block=512, block_size=512, type="text"), MS, "Mooncake", 512),
        (requests([0, 3052, 6121]), MS, "Mooncake", 512),  # a request every 50 minutes is no load
        (requests([0, 400, 1100], block=64), MS, "Mooncake", 64),
        (requests([0.0, 3.76, 4.011], block=16), S, "Qwen-Bailian", 16),
        (requests([0, 4, 9], block=16), S, "Qwen-Bailian", 16),
        (requests([0, 4, 9], chat_id=1, parent_chat_id=-1, turn=1), S, "Qwen-Bailian", 16),
        (requests([0, 500, 900], block=16, chat_id=1, parent_chat_id=-1, turn=1), S, "Qwen-Bailian", 16),
        (requests([1234500.0, 1234500.5, 1234502.0]), S, "guidellm", 512),
        (requests([0.25, 0.5, 3.0], block=128), S, "guidellm", 128),
        (requests([1_700_000_000, 1_700_000_003]), S, "guidellm", 512),
        (requests([1_700_000_000_000, 1_700_000_000_003]), MS, "Mooncake", 512),
        (requests([1_700_000_000_000_000, 1_700_000_000_003_000]), 1_000, "Mooncake", 512),
        (requests([0, 20, 30], session_id="a"), MS, "aiperf", 512),
        (requests([0] * 10 + [3000] * 16 + [5999] * 3, block=512), MS, "Mooncake", 512),
        (requests([5, 5, 5]), None, "Mooncake", 512),  # any unit is the same
    ],
)
def test_unit_and_block_size_follow_from_the_file(read, records, unit_ns, title, block):
    """By names of columns, blocks against lengths, fractions, distances, or the size of times since 1970."""
    trace = read(lines(records))
    assert trace.title.startswith(title)
    assert trace.block_tokens == block
    if unit_ns is not None:
        assert unit(trace, records[0]["timestamp"], records[-1]["timestamp"]) == pytest.approx(unit_ns, rel=1e-6)
    assert len(trace) == len(records)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (requests([0, 3, 9]), "neither names nor hash_ids nor fractions show it, and 0 to 9 may be either"),
        (requests([0.0, 3.0, 9.0]), "0 to 9 may be either"),
        (requests([0, 3, 9], block=64), "may be either"),
        (
            requests([0, 1.5, 3], block=512),
            r"their fractions \(line 2 has 1.5\) mean seconds, but blocks of 512 tokens",
        ),
        (requests([0, 9000, 19000], block=16), "blocks of 16 tokens mean seconds, but their distance .* 158m20s"),
        (
            requests([0, 4], block=512, chat_id=1, parent_chat_id=-1),
            "the columns chat_id and parent_chat_id mean seconds",
        ),
    ],
)
def test_ambiguous_files_need_the_format(read, records, why):
    """No evidence, or contradicting evidence: a guess would be a load that is wrong by a factor of 1000."""
    with pytest.raises(
        BadInput, match=rf"trace, line 3?2?: its times may be seconds or milliseconds: .*{why}"
    ) as error:
        read(lines(records))
    assert "--trace-format: mooncake or aiperf (milliseconds), bailian or guidellm (seconds)" in str(error.value)
    for form, unit_ns in (("mooncake", MS), ("aiperf", MS), ("bailian", S), ("guidellm", S)):
        trace = read(lines(records), form=form)
        assert unit(trace, records[0]["timestamp"], records[-1]["timestamp"]) == unit_ns
        assert trace.title.startswith(FORMATS[form].title)


def test_a_named_format_keeps_the_block_size_of_the_lengths(read):
    """What the lengths show is true whatever the unit is; where they show nothing, the format says it."""
    assert read(lines(requests([0, 9], block=64)), form="mooncake").block_tokens == 64
    short = [{"timestamp": 1, "input_length": 9, "output_length": 1, "hash_ids": [4]}]
    assert [read(lines(short), form=form).block_tokens for form in ("mooncake", "bailian")] == [512, 16]


def test_ids_that_fit_no_block_size_are_refused(read):
    """They stand for something else; with the format named, they are read as they are."""
    records = requests([0, 3000], hash_ids=[1, 2, 3, 4, 5, 6, 7])
    records += requests([4000], hash_ids=[1])
    with pytest.raises(BadInput, match=r"line 1: 7 hash_ids for \d+ tokens: no size of a block fits"):
        read(lines(records))
    for named in (read(lines(records), form="mooncake"), read(lines(one | {"session_id": "a"} for one in records))):
        assert len(named) == 3
        assert "the numbers of hash_ids do not fit the lengths: prefixes are shared only roughly" in named.notes


@given(
    block=st.sampled_from([16, 32, 64, 128, 256, 512, 1024]),
    tokens=st.lists(st.integers(1_100, 100_000), min_size=2, max_size=30),
)
def test_block_sizes_are_found_by_the_lengths(tmp_path_factory, block, tokens):
    """Of any power of two; one long prompt is enough, and short ones do no harm."""
    file = tmp_path_factory.mktemp("t") / "trace"
    tokens = [5, *tokens, 100_000]
    records = [
        {
            "timestamp": 500 * at,
            "input_length": length,
            "output_length": 1,
            "hash_ids": list(range(-(-length // block))),
        }
        for at, length in enumerate(tokens)
    ]
    file.write_text(lines(records))
    assert read_trace.__wrapped__(file, form="mooncake").block_tokens == block


def test_ids_of_64_bits_are_kept_apart(read):
    """Hashes are unsigned numbers; equal ones stay equal, and others different."""
    ids = [[2**64 - 1, 5], [2**64 - 1, 2**63], [2**63, 5], [-1 % 2**63, 5]]
    records = [one | {"hash_ids": each} for one, each in zip(requests([0, 1000, 2000, 3000]), ids, strict=True)]
    trace = read(lines([one | {"input_length": 700} for one in records]))
    assert list(trace.warm) == [0, 1, 0, 0]
    kept = [list(trace.blocks_of(number)) for number in range(4)]
    assert kept[0][0] == kept[1][0]
    assert len({block for blocks in kept for block in blocks}) == 4


# Tables.


@pytest.mark.parametrize(
    ("text", "offsets_s", "inputs", "outputs"),
    [
        (AZURE + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:48.68059,9,8\n", [0, 2], [374, 9], [44, 8]),
        (AZURE + "2024-05-10 00:00:00+00:00,5,6\n2024-05-10 02:00:01.5+02:00,7,8\n", [0, 1.5], [5, 7], [6, 8]),
        (AZURE + "2024-05-10T00:00:02Z,5,6\n2024-05-10T00:00:01 +0000,7,8\n", [0, 1], [7, 5], [8, 6]),
        (AZURE + "1700000000.5,5,6\n1700000001.0,7,8\n", [0, 0.5], [5, 7], [6, 8]),  # pandas' to_json and back
        (BURST + "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,9,8,17,API log\n", [0, 40], [472, 9], [18, 8]),
        (BURST + "5,X,472,18,490,a\n5,X,1,0,1,a\n\n-1,X,1e3,230.0,1317,a\n", [0, 6], [1000, 472], [230, 18]),
        (
            ("Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
            "1,,0.5,GPT-4,5,6,11,API log\n2,7.0,,GPT-4,7,8,15,Conversation log\n"),
            [0, 1], [5, 7], [6, 8],
        ),
        (
            ("," + BURST + "0,0.0,ChatGPT,472.0,18.0,490.0,a\n1,5.0,ChatGPT,,19.0,491.0,a\n2,5.0,X,NaN,1,1,a\n"
            "3,9.0,X,1.0,2.0,3.0,a\n"),
            [0, 9], [472, 1], [18, 2],
        ),
        ('"Response tokens","Timestamp","Request tokens"\r\n"6","1","5"\r\n"8","2","7"\r\n', [0, 1], [5, 7], [6, 8]),
        ("\ufeffTIMESTAMP;contexttokens;Generated_Tokens\n2024-01-01 00:00:00;5;6\n", [0], [5], [6]),
        ("timestamp\trequest tokens\tRESPONSE TOKENS\n1\t5\t6\n", [0], [5], [6]),
        ("timestamp|request_tokens|response_tokens\n1|5|6\n", [0], [5], [6]),
        (
            'timestamp,input_length,output_length,hash_ids\n0,600,5,"[1, 2]"\n9,600,5,"[1, 3]"\n',
            [0, 0.009], [600, 600], [5, 5],
        ),
        ("timestamp,input_length,output_length,hash_ids\n0.5,5,6,\n2.0,7,8,nan\n", [0, 1.5], [5, 7], [6, 8]),
        ("timestamp,input_length,output_length\n0.5,5,6\n2.0,7,8\n", [0, 1.5], [5, 7], [6, 8]),
        ("at,note\n", None, None, None),
        ('a,Timestamp,Request tokens,Response tokens\n"two\nlines, one",1,5,6\n"",2,7,8\n', [0, 1], [5, 7], [6, 8]),
    ],
)  # fmt: skip
def test_tables_are_read_as_people_save_them(read, text, offsets_s, inputs, outputs):
    """With an index, marks of editors, other separators, quotes, empty fields, and columns in any order."""
    if offsets_s is None:
        with pytest.raises(
            BadInput, match=r"line 1: no trace begins with 'at,note' \(its columns are TIMESTAMP|timest"
        ):
            read(text)
        return
    for content in (text, gzip.compress(text.encode()), text.replace("\n", "\r\n").replace("\r\r", "\r")):
        trace = read(content)
        assert [at / S for at in trace.offsets_ns] == offsets_s
        assert (list(trace.input_tokens), list(trace.output_tokens)) == (inputs, outputs)


def test_what_is_left_out_is_counted_by_reason(read):
    """Failures of a recording, empty fields, and images are not silently something else."""
    rows = "1,X,5,0,5,a\n2,X,,6,6,a\nNaN,X,5,6,11,a\n4,X,5,6,11,a\n5,X,0,0,0,a\n6,X,0,6,6,a\n"
    trace = read(BURST + rows)
    assert dict(trace.skipped) == {
        "that failed in the recording": 2, "of unknown length": 1, "without a time": 1,
    }  # fmt: skip
    assert list(trace.input_tokens) == [5, 1]
    assert trace.notes == ("requests with a length of 0: 1; they are sent with 1 token",)
    images = read(
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n2024-10-15 00:00:00,2,5,6\n2024-10-15 00:00:01,0,5,6\n"
    )
    assert images.notes == ("requests with images: 1; images are not sent",)
    with pytest.raises(BadInput, match=r"has no request with a time and known lengths; 1 that failed"):
        read(BURST + "1,X,5,0,5,a\n")


def test_limit_counts_requests_and_not_lines(read):
    """Those that are left out are no requests, and nothing beyond the limit is read."""
    trace = read(BURST + "1,X,5,0,5,a\n2,X,5,6,11,a\n3,X,5,6,11,a\nnonsense\n", limit=2)
    assert (len(trace), dict(trace.skipped)) == (2, {"that failed in the recording": 1})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BURST + "1,X,5,6,11,a,more\n", r"line 2: this does not have the 6 columns of the first line, but 7"),
        (BURST + "1,X,5.5,6,11,a\n", r"line 2: .*'5.5' is not a number of tokens"),
        (BURST + "\n\n1,X,five,6,11,a\n", r"line 4: .*'five' is not a number of tokens"),
        (BURST + '1,X,"5,6,11,a\n2,X,5,6,11,a\n', r"line 2: .*unexpected end of data"),
        (BURST + "inf,X,5,6,11,a\n", r"line 2: .*its Timestamp is inf"),
        (BURST + "1,X,1_0,6,11,a\n", r"line 2: .*'1_0' is not a number"),
        ("Timestamp;Request tokens;Response tokens\n1,5;5;6\n", r"line 2: .*'1,5' is not a date and time, and"),
        (AZURE + "11/16/2023 18:15,5,6\n", r"line 2: .*'11/16/2023 18:15' is not a date"),
        (AZURE + "2023-11-16 18:15:46,5,6\n12,5,6\n", r"line 3: this has a date where others have a number"),
        (AZURE + "0,5,6\n3,5,6\n", r"line 3: its times may be seconds .*\(write dates, or say --trace-f"),
        (BURST + "9" * 400 + ",X,5,6,11,a\n", r"line 2: .*its Timestamp is 9{40} "),
        ('{"timestamp": ' + "9" * 400 + ', "input_length": 1, "output_length": 1}\n', r"line 1: .*timestamp is 9{40} "),
        (lines([{"session_id": 1, "timestamp": 1, "input_length": 3, "output_length": 4},
                {"session_id": 1, "delay": -1, "input_length": 3, "output_length": 4}]), r"line 2: .*its delay is -1"),
        ("5,ChatGPT,472,18,490,a\n", r"line 1: no trace begins with '5,ChatGPT,472,18,490,a'"),
        ('[{"timestamp": 1}]', r"line 1: no trace begins with .*`jq -c '\.\[\]' trace`"),
        ("{\n  1}", r"line 1: this is not JSON"),
        ('{"timestamp": 1, "input_length": 1, "output_length": 1}\n"text"\n', r"line 2: .*is not an object"),
        (lines(requests([0, 10**16])), r"line 2: its time is more than a hundred years after that of line 1"),
        ('{"timestamp": 1, "text": "Hello"}\n', r"line 1: this has texts in place of lengths, .*--prompts"),
        ('{"session_id": "a", "turns": [{"text": "Hi", "delay": 5}]}\n', r"line 1: this has texts in place of lengths"),
        (lines([{"session_id": "a", "input_length": 3, "output_length": 4}] * 2),
         r"has no request .*; 2 without a time \(give the first turn of each session a timestamp\)"),
        ('{"input_length": 1, "output_length": 1, "delay": 9}\n', r"has no request .*; 1 without a time"),
    ],
)  # fmt: skip
def test_mistakes_are_named_by_line_with_the_remedy(read, text, says):
    """One message each."""
    with pytest.raises(BadInput, match=says) as error:
        read(text)
    assert error.value.hint
    assert "trace" in error.value.message


@pytest.mark.parametrize("form", FORMATS)
def test_a_named_format_must_have_its_columns(read, form):
    """Another file by mistake is not read as what it is not."""
    others = {"azure": BURST, "burstgpt": AZURE, "loadbench": AZURE}
    with pytest.raises(
        BadInput, match=rf"line 1: a trace of {FORMATS[form].title} does not begin with .* \(its columns"
    ):
        read(others.get(form, BURST) + "1,1,1\n", form=form)


def test_records_of_python_and_pandas_are_read(read):
    """NaN in JSON, floats for whole numbers, names in any case."""
    records = [(0.5, 5.0), (math.nan, 5.0), (3.0, None), (7.0, 9.0)]
    trace = read(lines({"Timestamp": at, "Input_Length": tokens, "output_length": 6} for at, tokens in records))
    assert (list(trace.input_tokens), dict(trace.skipped)) == ([5, 9], {"without a time": 1, "of unknown length": 1})


def test_recorded_texts_are_kept(read):
    """aiperf's mooncake_trace may have the text of a request in place of its length."""
    texts = [
        {"timestamp": 20 * at, "text_input": text, "output_length": 4 + at} for at, text in enumerate(("Why?", "How?"))
    ]
    trace = read(lines(texts))
    assert (trace.texts, list(trace.output_tokens), trace.span_ns) == (("Why?", "How?"), [4, 5], 20 * MS)


def test_sessions_are_read_with_their_delays(read):
    """A turn without a time follows the turn before it in its session, if that was not left out."""
    records = [
        {"session_id": "a", "timestamp": 2000, "input_length": 5, "output_length": 1},
        {"session_id": "b", "timestamp": 1000, "input_length": 6, "output_length": 2},
        {"session_id": "a", "delay": 30, "input_length": 7, "output_length": 3},
        {"session_id": "c", "timestamp": 1500, "input_length": None, "output_length": 4},
        {"session_id": "c", "delay": 50, "input_length": 8, "output_length": 5},
        {"session_id": "b", "delay": None, "input_length": 9, "output_length": 6},
        {"session_id": "a", "delay": 40.5, "input_length": 10, "output_length": 7},
    ]
    trace = read(lines(records))
    assert list(trace.offsets_ns) == [0, S]
    assert list(trace.output_tokens) == [2, 1, 3, 6, 7]
    assert list(trace.next_turns) == [3, 2, 4, -1, -1]
    assert [delay / MS for delay in trace.delays_ns] == [0, 0, 30, 0, 40.5]
    assert dict(trace.skipped) == {"of unknown length": 1, "without a time": 1}
    assert "1 request without a time left out, 3 later turns after responses" in str(Replayed(trace))
    timed = [one | {"timestamp": 1000 * number} for number, one in enumerate(records) if one["input_length"]]
    assert not read(lines(timed)).has_sessions


@given(st.permutations(range(20)))
def test_order_in_the_file_does_not_matter(tmp_path_factory, order):
    """Each request keeps its own lengths and ids, whichever line it stands in."""
    folder = tmp_path_factory.mktemp("t")
    records = requests([137 * at for at in range(20)], block=512)
    (folder / "a").write_text(lines(records))
    (folder / "b").write_text(lines(records[index] for index in order))
    one, other = (read_trace.__wrapped__(folder / name) for name in "ab")
    assert (one.offsets_ns, one.input_tokens, one.output_tokens) == (
        other.offsets_ns,
        other.input_tokens,
        other.output_tokens,
    )
    assert [one.blocks_of(number) for number in range(20)] == [other.blocks_of(number) for number in range(20)]


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 9_999), st.integers(1, 999)), min_size=2, max_size=9))
def test_separators_quotes_and_order_of_columns_change_nothing(tmp_path_factory, rows):
    """The same requests, however a program writes a table."""
    folder, seen = tmp_path_factory.mktemp("t"), set()
    for number, (delimiter, quoting, order) in enumerate(
        [(",", csv.QUOTE_MINIMAL, (0, 1, 2)), (";", csv.QUOTE_ALL, (2, 0, 1)), ("\t", csv.QUOTE_NONNUMERIC, (1, 2, 0))]
    ):
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=delimiter, quoting=quoting)
        for row in [("Timestamp", "Request tokens", "Response tokens"), *rows]:
            writer.writerow([row[index] for index in order])
        (folder / f"{number}").write_text(text.getvalue(), newline="")
        trace = read_trace.__wrapped__(folder / f"{number}")
        seen.add((tuple(trace.offsets_ns), tuple(trace.input_tokens), tuple(trace.output_tokens)))
    first = min(at for at, _, _ in rows)
    assert len(seen) == 1
    assert list(seen.pop()[0]) == [(at - first) * S for at in sorted(at for at, _, _ in rows)]


SAMPLES = (
    AZURE + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:48.68059,9,8\n",
    "," + BURST + "0,0.0,ChatGPT,472.0,18.0,490.0,a\n1,5.0,X,,19.0,491.0,a\n2,5.5,X,9,0,1,a\n",
    lines(requests([0, 400, 1100], block=512, chat_id=1, parent_chat_id=2)),
    lines(
        [{"session_id": "a", "timestamp": 1, "text_input": "x", "output_length": 4}, {"session_id": "a", "delay": 3}]
    ),
    lines({"due_ns": at, "input_tokens": 3, "asked_output_tokens": None, "output_tokens": 3} for at in (5, 2)),
)


@given(
    sample=st.sampled_from(SAMPLES),
    changes=st.lists(
        st.tuples(
            st.floats(0, 1),
            st.integers(0, 9),
            st.one_of(
                st.binary(max_size=4), st.sampled_from([b"null", b"-1", b"1e400", b'"', b"[", b"NaN", b"true", b"{}"])
            ),
        ),
        max_size=4,
    ),
    form=st.sampled_from(["auto", *FORMATS]),
)
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, sample, changes, form):
    """Whatever is in it: a trace, or a message with a remedy, and never another exception."""
    raw = sample.encode()
    for at, removed, added in changes:
        place = int(at * len(raw))
        raw = raw[:place] + added + raw[place + removed :]
    file = tmp_path_factory.mktemp("t") / "trace"
    file.write_bytes(raw)
    try:
        trace = read_trace.__wrapped__(file, form=form)
    except BadInput:
        return
    assert len(trace) > 0
    assert list(trace.offsets_ns) == sorted(trace.offsets_ns)
    assert min(trace.output_tokens) > 0
    assert str(Replayed(trace))


def test_a_run_is_read_from_its_folder_also_compressed(tmp_path):
    """`requests.jsonl`, or what gzip made of it."""
    content = lines({"due_ns": at * S, "input_tokens": 5, "output_tokens": 6} for at in (3, 1, 2))
    (tmp_path / "requests.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    assert list(read_trace.__wrapped__(tmp_path).offsets_ns) == [0, S, 2 * S]


def test_rates_are_those_of_the_recording(read):
    """60 requests in 133 s are 0.44 requests/s in a file of Bailian, and the sample of Mooncake stays in ms."""
    records = requests((2.2533 * at for at in range(60)), block=16, chat_id=1, parent_chat_id=-1, turn=1)
    assert Replayed(read(lines(records))).rate_per_s == 0.441
    mooncake = read_trace.__wrapped__(MOONCAKE_TRACE)
    assert Replayed(mooncake).rate_per_s == pytest.approx(len(mooncake) / (mooncake.span_ns / S), rel=0.03)
