"""`requests.jsonl`: one line per request, in the order in which they ended, so that every figure can be recomputed.

Marks are ns since the run's start; a mark that did not happen is null. Events are the stamp of the first and the gaps
after it, in ns. A given prompt is recorded by its index and digest, a response by its digest if the run compares
responses; their texts only with `--keep-texts`. Times that the server reports are in `server_queue_ns` and the like.

A line is read back as `RequestRecord`, and `RequestRecord.sample` is the request again.
"""

from __future__ import annotations

import errno
import logging
from array import array
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from loadbench.core.errors import BadInput
from loadbench.core.text import digest
from loadbench.plan.abandonment import Patience
from loadbench.plan.load import Phase  # noqa: TC001 - msgspec reads the annotations
from loadbench.record.outcome import Outcome, TokenSource  # noqa: TC001 - likewise
from loadbench.record.request import ONLY_DESTINATION, Request
from loadbench.record.sample import Sample
from loadbench.record.timings import Timings
from loadbench.record.usage_check import PLAUSIBLE
from loadbench.results.append_log import AppendLog
from loadbench.results.folder import UNREADABLE, open_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from loadbench.record.request import Destination
    from loadbench.results.folder import RunFolder

_log = logging.getLogger(__name__)

# A request of a million tokens has a line of 10 MB.
_LONGEST_LINE = 32 << 20
_MARKS = ("sent", "connected", "headers", "first_byte", "first_token", "first_visible", "last_token", "end")
# Keys of a line, and the fields of `Request` and `Sample` that they hold.
_OF_REQUEST = {
    "number": "number",
    "user": "user",
    "phase": "phase",
    "asked_input_tokens": "target_input_tokens",
    "asked_output_tokens": "max_tokens",
    "prompt_index": "prompt_index",
    "persona": "persona",
    "turn": "turn",
    "warm": "warm",
}
_OF_SAMPLE = (
    "outcome",
    "detail",
    "status",
    "reused",
    "connect_ns",
    "reconnects",
    "reads",
    "merged_reads",
    "censored_events",
    "late_first_token",
    "output_tokens",
    "token_source",
    "input_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "unread_frames",
    "keep_alives",
    "content_type",
    "finish_reason",
)


def line(
    sample: Sample,
    *,
    level: int,
    origin_ns: int,
    model: str | None = None,
    url: str | None = None,
    prompts: Sequence[str] = (),
    keep_texts: bool = False,
) -> bytes:
    """One request as a line of JSON; `level` is the index of its level, from 0, which has this `model` and `url` unless
    it has several; `prompts` are the prompts' digests."""
    request = sample.request
    to = request.destination
    record: dict[str, object] = {"level": level, "model": to.model or model, "url": to.server or url}
    for key, name in _OF_REQUEST.items():
        record[key] = getattr(request, name)
    for name in _OF_SAMPLE:
        record[name] = getattr(sample, name)
    if request.patience is not None:
        record["patience_ns"] = request.patience.within_ns
    record["answered_model"] = sample.model
    record["hidden_tokens"] = sample.usage.hidden
    record["due_ns"] = request.due_ns - origin_ns
    for name in _MARKS:
        mark = getattr(sample, f"{name}_ns")
        record[f"{name}_ns"] = None if mark is None else mark - origin_ns
    record["event_gaps_ns"] = sample.event_gaps()
    record["event_tokens"] = None if sample.event_tokens is None else list(sample.event_tokens)
    index, answer = request.prompt_index, sample.text
    record["prompt_hash"] = prompts[index] if index is not None and index < len(prompts) else None
    record["answer_hash"] = None if answer is None else digest(answer)
    if keep_texts:
        record["answer"] = answer
    if sample.timings is not None:
        record.update({f"server_{name}": time for name, time in sample.timings._asdict().items() if time is not None})
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


# The requests of levels that were not finished, from before the run was resumed.
SET_ASIDE = "requests-interrupted.jsonl"


class _OfLevel(msgspec.Struct):
    level: int
    end_ns: int = 0


class RequestLog(AppendLog):
    """Appends requests to the file; open it for the length of the run."""

    def __init__(
        self, folder: RunFolder, *, origin_ns: int, prompts: Sequence[str] = (), keep_texts: bool = False
    ) -> None:
        super().__init__(folder, "requests.jsonl")
        try:
            self.open()
        except OSError as error:
            if error.errno == errno.ELOOP:  # a link, which is not followed
                raise
            # Anything else is reported with the first line.
        self.origin_ns = origin_ns
        self._prompts = prompts
        self._keep_texts = keep_texts

    def look_through(self, level: int) -> tuple[int, int, int]:
        """Of the lines so far: where those of this level and later ones begin, when the last request of any level
        ended, and how many lines are damaged. These count to the level before.
        """
        decoder = msgspec.json.Decoder(_OfLevel)
        keep = at = ends_ns = damaged = 0
        is_kept = True
        with open_plain(self.path) as file:
            for text in iter(lambda: file.readline(_LONGEST_LINE), b""):
                at += len(text)
                try:
                    one = decoder.decode(text)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    damaged += 1
                else:
                    is_kept = is_kept and one.level < level
                    ends_ns = max(ends_ns, one.end_ns)
                keep = at if is_kept else keep
        return keep, ends_ns, damaged

    def set_aside(self, start: int) -> None:
        """Move the lines from this byte on to another file: their levels will be measured again."""
        self.move_from(start, self.path.with_name(SET_ASIDE))

    def add_lines(self, lines: bytes) -> None:
        """Append whole lines that a worker wrote, and wait until they are in the file."""
        self.add(lines)
        self.flush()

    def add_sample(self, sample: Sample, *, level: int, model: str | None = None, url: str | None = None) -> None:
        """Append one request."""
        text = line(
            sample,
            level=level,
            origin_ns=self.origin_ns,
            model=model,
            url=url,
            prompts=self._prompts,
            keep_texts=self._keep_texts,
        )
        self.add(text)


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One line, read back."""

    level: int
    phase: Phase
    outcome: Outcome
    due_ns: int
    sent_ns: int | None
    connect_ns: int | None
    first_byte_ns: int | None
    first_token_ns: int | None
    first_visible_ns: int | None
    last_token_ns: int | None
    end_ns: int
    event_gaps_ns: list[int]
    event_tokens: list[int] | None
    output_tokens: int | None
    token_source: TokenSource
    input_tokens: int | None
    asked_output_tokens: int | None
    number: int = 0
    model: str | None = None
    user: int | None = None
    finish_reason: str | None = None
    prompt_index: int | None = None
    prompt_hash: str | None = None
    answer_hash: str | None = None
    answer: str | None = None
    url: str | None = None
    persona: str | None = None
    turn: int | None = None
    warm: bool = False
    asked_input_tokens: int | None = None
    patience_ns: int | None = None
    detail: str = ""
    status: int | None = None
    reused: bool | None = None
    reconnects: int = 0
    reads: int = 0
    merged_reads: int = 0
    censored_events: int = 0
    late_first_token: bool = False
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    unread_frames: int = 0
    keep_alives: int = 0
    content_type: str | None = None
    answered_model: str | None = None
    hidden_tokens: int | None = 0
    connected_ns: int | None = None
    headers_ns: int | None = None
    server_queue_ns: int | None = None
    server_prefill_ns: int | None = None
    server_decode_ns: int | None = None

    def sample(self, destination: Destination = ONLY_DESTINATION) -> Sample:
        """The request as it was recorded, as far as its line says; times count from the run's start."""
        stamps = [] if self.first_token_ns is None else accumulate(self.event_gaps_ns, initial=self.first_token_ns)
        times = Timings(self.server_queue_ns, self.server_prefill_ns, self.server_decode_ns)
        about: dict[str, Any] = {name: getattr(self, key) for key, name in _OF_REQUEST.items()}
        facts: dict[str, Any] = {
            name: getattr(self, name) for name in (*_OF_SAMPLE, *(f"{mark}_ns" for mark in _MARKS))
        }
        patience = None if self.patience_ns is None else Patience(self.patience_ns)
        return Sample(
            request=Request(due_ns=self.due_ns, destination=destination, patience=patience, **about),
            event_ns=array("q", stamps),
            event_tokens=None if self.event_tokens is None else array("q", self.event_tokens),
            model=self.answered_model,
            timings=times if any(time is not None for time in times) else None,
            text=self.answer,
            usage=PLAUSIBLE if self.hidden_tokens == 0 else PLAUSIBLE._replace(hidden=self.hidden_tokens),
            **facts,
        )


def read_requests(path: Path, damaged: list[int] | None = None) -> Iterator[RequestRecord]:
    """The requests of a file, in its order; an unfinished last line of a killed run is skipped.

    So are damaged lines, as a disk leaves them: their numbers are added to `damaged`, or there is a warning. Raises
    `BadInput` if there is no such file, or no line in it is a request.
    """
    decoder, found, first = msgspec.json.Decoder(RequestRecord), False, ""
    bad: list[int] = []
    try:
        with open_plain(path) as file:
            for number, text in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
                if not text.endswith(b"\n"):
                    if len(text) < _LONGEST_LINE:
                        break
                    bad.append(number)
                    first = first or f"{path}, line {number}: too long for a request"
                    while text and not text.endswith(b"\n"):
                        text = file.readline(1 << 20)  # noqa: PLW2901 - the rest of this line
                    continue
                try:
                    record = decoder.decode(text)
                except UNREADABLE as error:
                    bad.append(number)
                    first = first or f"{path}, line {number}: not a request: {error}"
                else:
                    found = True
                    yield record
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}", hint="name a run folder with its requests.jsonl") from None
    if bad and not found:
        raise BadInput(first, hint="the file is damaged: restore it")
    if damaged is not None:
        damaged += bad
    elif bad:
        warn_of_damaged(path, len(bad), bad[0])


@cache
def warn_of_damaged(path: Path, count: int, first: int) -> None:
    """Say what is missing of a file with damaged lines, once: some reports read it more than once."""
    _log.warning("%s: %d damaged line%s left out, from line %d on", path, count, "s" if count > 1 else "", first)
