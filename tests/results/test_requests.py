"""requests.jsonl: every figure can be computed anew from it, and nobody's text is in it."""

from __future__ import annotations

import os
import sys
from array import array

import orjson
import pytest

from loadbench.record.outcome import Outcome
from loadbench.results.requests import RequestLog, line
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
    with RequestLog(path, origin_ns=0) as log:
        for number in range(3):
            log.add(a_sample(number), level=0)
        log.flush()
        assert [orjson.loads(text)["number"] for text in path.read_bytes().splitlines()] == [0, 1, 2]
    with RequestLog(path, origin_ns=0) as log:
        log.add(a_sample(3), level=1)
    assert [orjson.loads(text)["number"] for text in path.read_bytes().splitlines()] == [0, 1, 2, 3]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")  # noqa: PTH110
def test_full_disk_is_told_at_the_flush_and_not_again(tmp_path):
    """The keeper of the run hears of it once; closing the log afterwards breaks nothing."""
    path = tmp_path / "requests.jsonl"
    path.symlink_to("/dev/full")
    with RequestLog(path, origin_ns=0) as log:
        log.add(a_sample(), level=0)
        with pytest.raises(OSError, match="No space"):
            log.flush()


def test_gaps_longer_than_what_32_bits_hold():
    """A stall of minutes is kept to the nanosecond."""
    stamps = array("q", [0, 600 * S + 1])
    record = told(a_sample(event_ns=stamps, event_tokens=array("q", [1, 1])))
    assert record["event_gaps_ns"] == [600 * S + 1]
    assert record["event_gaps_ns"][0] > sys.maxsize >> 31
