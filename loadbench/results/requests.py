"""`requests.jsonl`: one line per request, in the order in which they ended, so that every figure can be computed anew.

Marks are ns since the run's start; a mark that did not happen is null. Events are written as the stamp of the first and
the gaps that follow, in ns. There is no text of prompts or answers in it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from loadbench.record.sample import Sample

_MARKS = ("due", "sent", "connected", "headers", "first_byte", "first_token", "first_visible", "last_token", "end")
_FACTS = (
    "number",
    "user",
    "phase",
    "outcome",
    "detail",
    "status",
    "reused",
    "connect_ns",
    "reconnects",
    "reads",
    "merged_reads",
    "censored_events",
    "output_tokens",
    "token_source",
    "input_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "asked_input_tokens",
    "asked_output_tokens",
    "finish_reason",
)
# Lines are gathered to this size before they are written: a write now and then, not one in every callback.
_BUFFER_BYTES = 1 << 20


def line(sample: Sample, *, level: int, origin_ns: int) -> bytes:
    """One request as a line of JSON; `level` is its level's position in the run, from 0."""
    record: dict[str, object] = {"level": level}
    for name in _FACTS:
        record[name] = getattr(sample, name)
    record["answered_model"] = sample.model
    for name in _MARKS:
        mark = getattr(sample, f"{name}_ns")
        record[f"{name}_ns"] = None if mark is None else mark - origin_ns
    record["event_gaps_ns"] = sample.event_gaps()
    record["event_tokens"] = None if sample.event_tokens is None else list(sample.event_tokens)
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


class RequestLog:
    """Appends lines to the file; open it for the length of the run."""

    def __init__(self, path: Path, *, origin_ns: int) -> None:
        self._file = path.open("ab", buffering=_BUFFER_BYTES)
        self._origin_ns = origin_ns

    def add(self, sample: Sample, *, level: int) -> None:
        """Append one request; it is on disk after `flush` at the latest."""
        self._file.write(line(sample, level=level, origin_ns=self._origin_ns))

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def __enter__(self) -> RequestLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What could not be written was told at `flush`; to fail again here would hide how the run ended.
        with contextlib.suppress(OSError):
            self._file.close()
