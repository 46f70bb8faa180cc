"""requests.jsonl: every figure can be computed anew from it, and nobody's text is in it."""

from __future__ import annotations

import sys
from array import array

import orjson
import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.abandonment import Patience
from loadbench.record.outcome import Outcome
from loadbench.record.timings import Timings
from loadbench.record.usage_check import PLAUSIBLE
from loadbench.results import requests as requests_module
from loadbench.results.folder import RunFolder
from loadbench.results.requests import RequestLog, line, read_requests
from tests.building import MS, S, a_failure, a_sample


def told(sample, *, level: int = 0, origin_ns: int = 0) -> dict:
    """The line, read again."""
    return orjson.loads(line(sample, level=level, origin_ns=origin_ns))


def test_marks_count_from_the_start_of_the_run():
    """The clock's own beginning says nothing to anybody: it is taken off every mark."""
    record = told(a_sample(due_ns=5 * S), origin_ns=3 * S)
    assert record["due_ns"] == record["sent_ns"] == 2 * S
    assert record["first_token_ns"] == 2 * S + 100 * MS
    assert record["end_ns"] == record["last_token_ns"] == 2 * S + 300 * MS


def test_mark_that_did_not_happen_is_null():
    """Null, never 0; a duration is no mark, and nothing is taken off it."""
    record = told(a_failure(Outcome.REFUSED, due_ns=4 * S, detail="connection refused"), origin_ns=3 * S)
    assert record["first_token_ns"] is record["headers_ns"] is record["connected_ns"] is None
    assert (record["outcome"], record["detail"], record["event_gaps_ns"]) == ("refused", "connection refused", [])
    assert told(a_sample(connect_ns=7 * MS), origin_ns=3 * S)["connect_ns"] == 7 * MS


def test_gaps_and_tokens_give_every_event_again():
    """First token and gaps sum to the last token; the tokens of the events sum to the answer's."""
    record = told(a_sample())
    assert record["event_gaps_ns"] == [20 * MS] * 10
    assert record["first_token_ns"] + sum(record["event_gaps_ns"]) == record["last_token_ns"]
    assert sum(record["event_tokens"]) == record["output_tokens"] == 11


def test_unknown_tokens_of_events_are_null():
    """Where the server did not tell them, none are made up."""
    assert told(a_sample(event_tokens=None))["event_tokens"] is None


def test_level_and_request_are_named():
    """Each line says which level, phase, request and user it was, and who answered."""
    record = told(a_sample(7, user=2, model="other"), level=3)
    assert (record["level"], record["number"], record["user"]) == (3, 7, 2)
    assert (record["phase"], record["answered_model"], record["token_source"]) == ("measured", "other", "usage")


def test_line_holds_facts_and_no_text():
    """No key of a line may hold a prompt or an answer: each one is known here."""
    texts = {key for key, value in told(a_sample(detail="d")).items() if isinstance(value, str)}
    assert texts == {"phase", "outcome", "detail", "token_source", "finish_reason", "answered_model"}


def test_line_is_one_line():
    """Whatever a server says stays inside its line."""
    raw = line(a_failure(Outcome.HTTP_ERROR, detail='a\nb\r\n"}\x1b[31m'), level=0, origin_ns=0)
    assert raw.count(b"\n") == 1
    assert b"\x1b" not in raw


def test_lines_are_on_disk_after_a_flush(tmp_path):
    """Everything added before a flush can be read while the run goes on, in order; a second log adds to it."""
    path = tmp_path / "requests.jsonl"
    with RequestLog(RunFolder(tmp_path), origin_ns=0) as log:
        for number in range(3):
            log.add_sample(a_sample(number), level=0)
        log.flush()
        assert [orjson.loads(text)["number"] for text in path.read_bytes().splitlines()] == [0, 1, 2]
    with RequestLog(RunFolder(tmp_path), origin_ns=0) as log:
        log.add_sample(a_sample(3), level=1)
    assert [orjson.loads(text)["number"] for text in path.read_bytes().splitlines()] == [0, 1, 2, 3]


def test_gaps_longer_than_what_32_bits_hold():
    """A stall of minutes is kept to the nanosecond."""
    stamps = array("q", [0, 600 * S + 1])
    record = told(a_sample(event_ns=stamps, event_tokens=array("q", [1, 1])))
    assert record["event_gaps_ns"] == [600 * S + 1]
    assert record["event_gaps_ns"][0] > sys.maxsize >> 31


@pytest.mark.parametrize(
    "sample",
    [
        a_sample(),
        a_sample(event_tokens=None, timings=Timings(prefill_ns=3 * MS), user=2, persona="p", turn=2, warm=True),
        a_sample(usage=PLAUSIBLE._replace(hidden=None), connect_ns=MS, status=200, cached_tokens=4, reads=7),
        a_failure(Outcome.REFUSED, detail="connection refused", patience=Patience(3 * S)),
    ],
)
def test_a_line_is_the_request_again(sample, tmp_path):
    """What a line says is read back as it was recorded: its line is the same."""
    (tmp_path / "requests.jsonl").write_bytes(line(sample, level=1, origin_ns=0))
    (record,) = read_requests(tmp_path / "requests.jsonl")
    assert line(record.sample(), level=1, origin_ns=0) == line(sample, level=1, origin_ns=0)


@pytest.mark.parametrize(
    ("level", "kept", "aside"), [(0, [], [0, 0, 1, 2]), (1, [0, 0], [1, 2]), (3, [0, 0, 1, 2], [])]
)
def test_levels_to_be_measured_again_are_set_aside(level, kept, aside, tmp_path):
    """Their lines are in another file, where they disturb no figure; none is lost, also the second time."""
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"".join(line(a_sample(), level=one, origin_ns=0) for one in (0, 0, 1, 2)))
    other = path.with_name("requests-interrupted.jsonl")
    with RequestLog(RunFolder(tmp_path), origin_ns=0) as log:
        log.set_aside(log.look_through(level)[0])
        log.add_sample(a_sample(), level=level)
    assert [one.level for one in read_requests(path)] == [*kept, level]
    assert [one.level for one in read_requests(other)] == aside if aside else not other.exists()
    with RequestLog(RunFolder(tmp_path), origin_ns=0) as log:
        log.set_aside(log.look_through(level)[0])
    assert [one.level for one in read_requests(other)] == [*aside, level]


def test_a_line_that_is_too_long_is_damaged_and_the_others_are_read(tmp_path, monkeypatch, caplog):
    """In the middle or without an end: what is longer than any request costs only itself."""
    monkeypatch.setattr(requests_module, "_LONGEST_LINE", 10_000)
    whole = line(a_sample(1), level=0, origin_ns=0)
    (tmp_path / "requests.jsonl").write_bytes(whole + b"x" * 35_000 + b"\n" + whole + b"y" * 20_000)
    assert len(list(read_requests(tmp_path / "requests.jsonl"))) == 2
    assert "2 damaged lines left out, from line 2 on" in caplog.text
    (tmp_path / "requests.jsonl").write_bytes(b"y" * 20_000)
    with pytest.raises(BadInput, match="line 1: too long for a request"):
        list(read_requests(tmp_path / "requests.jsonl"))


def test_damaged_lines_stay_with_their_level(tmp_path, caplog):
    """As a disk leaves them: lines before and after them are read, and those of whole levels stay where they are."""
    path, junk = tmp_path / "requests.jsonl", [b"\0" * 300 + b"\n", b'{"level": 0, "pha\n']
    of = [line(a_sample(end_ns=9 * S), level=one, origin_ns=0) for one in (0, 0, 1, 2)]
    path.write_bytes(b"".join((of[0], *junk, of[1], of[2], junk[0], of[3])))
    assert [one.level for one in read_requests(path)] == [0, 0, 1, 2]
    assert "3 damaged lines left out, from line 2 on" in caplog.text
    with RequestLog(RunFolder(tmp_path), origin_ns=0) as log:
        start, ends_ns, damaged = log.look_through(1)
        assert (ends_ns, damaged) == (9 * S, 3)
        log.set_aside(start)
    assert path.read_bytes() == b"".join((of[0], *junk, of[1]))
    assert [one.level for one in read_requests(path.with_name("requests-interrupted.jsonl"))] == [1, 2]
    path.write_bytes(junk[0] * 2)
    with pytest.raises(BadInput, match="line 1: not a request"):
        list(read_requests(path))
