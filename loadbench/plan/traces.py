"""Traces: recorded requests, to be replayed at their original times and lengths.

The first line of a file shows its format:

    CSV     TIMESTAMP,ContextTokens,GeneratedTokens         Azure's public LLM inference traces; time as a date
    CSV     Timestamp,Request tokens,Response tokens        BurstGPT; time in seconds
    JSONL   timestamp,input_length,output_length,hash_ids   Mooncake; ms. An id stands for 512 tokens of the prompt
    JSONL   due_ns,input_tokens,output_tokens               our own requests.jsonl

Our own requests are in the order in which they ended, and the length of a failed request may be unknown: it is skipped
and counted.

A trace has no texts. Prompts are generated words of the recorded length; equal ids become equal words, so that prompts
share beginnings as the recorded ones did. A length of 0 becomes 1, the shortest that can be requested.

Files are read line by line and kept as three numbers per request, in the order of time.
"""

from __future__ import annotations

import csv
import heapq
import itertools
import math
import re
from array import array
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import orjson

from loadbench.core.errors import BadInput
from loadbench.core.units import NS_PER_S
from loadbench.plan.arrivals import Schedule

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from loadbench.plan.prompts import Calibration, Prompt, WordPrompts

# Tokens of a prompt that one id of a Mooncake trace stands for.
BLOCK_TOKENS = 512
_MAX_LINE = 1 << 20
# Allows for a late client: the last request must be sent inside the window, too.
_MIN_GAP_NS = 100_000_000
_MAX_TOKENS = 10_000_000
# A hundred years: times are dates, or offsets from any origin.
_MAX_NS = 100 * 366 * 86_400 * NS_PER_S
_DATE = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\d*(Z|[+-]\d\d:\d\d)?")


class Row(NamedTuple):
    """One request of a trace: its time in ns from any origin, and its lengths in tokens; 0 means unknown."""

    at_ns: int
    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """The requests of a trace in the order of time; offsets are in ns from the first one."""

    name: str
    offsets_ns: array[int]
    input_tokens: array[int]
    output_tokens: array[int]
    hash_ids: tuple[tuple[int, ...], ...] = ()
    warm: bytes = field(default=b"", repr=False)  # by request: whether an earlier one had the same first block
    skipped: int = 0  # requests of unknown length

    @property
    def span_ns(self) -> int:
        """The time from the first request to the last."""
        return self.offsets_ns[-1]

    def __len__(self) -> int:
        return len(self.offsets_ns)

    def __hash__(self) -> int:
        return hash((self.name, len(self)))


def trace_of(name: str, rows: Iterable[Row]) -> Trace:
    """The trace of these rows; raises `IndexError` if none has known lengths."""
    times, inputs, outputs = array("q"), array("q"), array("q")
    ids: list[tuple[int, ...]] = []
    skipped = 0
    for row in rows:
        if not (row.input_tokens and row.output_tokens):
            skipped += 1
            continue
        times.append(row.at_ns)
        inputs.append(row.input_tokens)
        outputs.append(row.output_tokens)
        ids.append(row.hash_ids)
    order = sorted(range(len(times)), key=times.__getitem__)
    first_ns = times[order[0]]
    hash_ids = tuple(ids[index] for index in order) if any(ids) else ()
    warm, first_blocks = bytearray(), set[int]()
    for blocks in hash_ids:
        warm.append(bool(blocks) and blocks[0] in first_blocks)
        first_blocks.update(blocks[:1])
    return Trace(
        name,
        array("q", (times[index] - first_ns for index in order)),
        array("q", (inputs[index] for index in order)),
        array("q", (outputs[index] for index in order)),
        hash_ids,
        bytes(warm),
        skipped,
    )


@dataclass(frozen=True, slots=True)
class Replayed(Schedule):
    """The arrivals of a trace, `time_scale` times as fast as they were."""

    trace: Trace
    time_scale: float = 1.0

    @property
    def rate_varies(self) -> bool:
        """As in the trace."""
        return True

    @property
    def request_count(self) -> int:
        """The number of the trace's requests."""
        return len(self.trace)

    @property
    def window_ns(self) -> int:
        """The time that the trace takes, with an average gap after the last arrival, rounded up.

        At least a second, so that requests that came all at once have a rate.
        """
        span_ns = self.trace.span_ns / self.time_scale
        gap_ns = max(_MIN_GAP_NS, span_ns / max(1, len(self.trace) - 1))
        step_ns = NS_PER_S if span_ns > 60 * NS_PER_S else NS_PER_S // 10
        return max(NS_PER_S, math.ceil((span_ns + gap_ns) / step_ns) * step_ns)

    @property
    def rate_per_s(self) -> float:
        """The mean rate of the whole trace, to three digits."""
        return float(f"{len(self.trace) * NS_PER_S / self.window_ns:.3g}")

    def offsets_ns(self, rate_per_s: float, rng: random.Random, *, lead_ns: int = 0) -> Iterator[int]:  # noqa: ARG002 - the trace has the times
        """Offsets from the level's beginning in ns; after the last the load ends."""
        return (round(offset_ns / self.time_scale) for offset_ns in self.trace.offsets_ns)

    def __str__(self) -> str:
        skipped = self.trace.skipped
        note = f" ({skipped} request{'s' * (skipped > 1)} of unknown length left out)" if skipped else ""
        speed = "" if self.time_scale == 1 else f", {self.time_scale:g} times as fast"
        return f"the trace {self.trace.name}{note}{speed}"


class TracePrompts:
    """A prompt source of a trace: words of the recorded lengths."""

    def __init__(self, trace: Trace, words: WordPrompts) -> None:
        self._trace = trace
        self._words = words

    def next(self, number: int, user: int | None) -> Prompt:  # noqa: ARG002 - a trace has no users
        """The prompt of the trace's request `number`."""
        trace = self._trace
        lengths = trace.input_tokens[number], trace.output_tokens[number]
        if not trace.hash_ids or not trace.hash_ids[number]:
            return self._words.sized(number, *lengths)
        prompt = self._words.shared(trace.hash_ids[number], *lengths, block_tokens=BLOCK_TOKENS)
        return prompt._replace(warm=bool(trace.warm[number]))

    def calibration_prompts(self) -> Sequence[Prompt]:
        """As for generated words."""
        return self._words.calibration_prompts()

    def calibrate(self, tokens: Sequence[int | None]) -> Calibration | None:
        """As for generated words."""
        return self._words.calibrate(tokens)


# Reading.


@lru_cache(maxsize=1)  # a scenario's loads are needed more than once, and a large trace should be read once
def read_trace(path: str | Path, *, limit: int | None = None) -> Trace:
    """The trace in a file or in a run folder; `limit` takes the first rows of the file, or the earliest of our own.

    Raises `BadInput` with the file, the line and a hint.
    """
    path = Path(path)
    file = path / "requests.jsonl" if path.is_dir() else path
    try:
        return trace_of(path.name, _rows(file, limit))
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror or error}", hint="name a trace, as CSV or JSONL") from None
    except IndexError:
        raise BadInput(f"{file} has no request with known lengths", hint="write at least one") from None


def _rows(path: Path, limit: int | None) -> Iterable[Row]:
    lines = _lines(path)
    number, first = next(lines, (0, ""))
    if not first:
        return ()
    if not first.startswith("{"):
        return itertools.islice(_read_csv(path, first, lines), limit)
    rows = _read_jsonl(path, itertools.chain([(number, first)], lines))
    if '"due_ns"' in first and limit is not None:
        return heapq.nsmallest(limit, rows, key=lambda row: row.at_ns)
    return itertools.islice(rows, limit)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of each line that is not empty."""
    with path.open("rb") as file:
        for number in itertools.count(1):
            raw = file.readline(_MAX_LINE)
            if not raw:
                return
            if len(raw) == _MAX_LINE:
                raise _bad(path, number, "is longer than any request of a trace")
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise _bad(path, number, "is not UTF-8") from None
            if text:
                yield number, text


def _bad(path: Path, number: int, problem: str) -> BadInput:
    return BadInput(f"{path}, line {number}: this {problem}", hint="fix or remove the line, or use another trace")


class _Columns(NamedTuple):
    """The columns of a CSV format, in lower case, and how its times are read."""

    at: str
    input: str
    output: str
    time: Callable[[str], int]


def _date_ns(text: str) -> int:
    match = _DATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a date and time")
    moment = datetime.fromisoformat(match[1] + (match[3] or "").replace("Z", "+00:00"))
    whole_s = int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
    return _time(whole_s * NS_PER_S + int((match[2] or "0").ljust(9, "0")))


def _time(ns: float) -> int:
    if not abs(ns) < _MAX_NS:
        raise ValueError(f"{ns:g} ns is more than a hundred years")
    return round(ns)


_CSV = (
    _Columns("timestamp", "contexttokens", "generatedtokens", _date_ns),
    _Columns("timestamp", "request tokens", "response tokens", lambda seconds: _time(float(seconds) * NS_PER_S)),
)


def _read_csv(path: Path, head: str, lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
    names = [name.strip().lower() for name in next(csv.reader([head]))]
    for columns in _CSV:
        if {columns.at, columns.input, columns.output} <= set(names):
            break
    else:
        raise BadInput(
            f"{path}, line 1: no trace begins with {head[:80]!r}",
            hint="its columns are TIMESTAMP,ContextTokens,GeneratedTokens or Timestamp,Request tokens,Response tokens",
        )
    at, input_at, output_at = (names.index(name) for name in columns[:3])
    for number, line in lines:
        try:
            fields = next(csv.reader([line]))
            yield Row(columns.time(fields[at]), _count(fields[input_at]), _count(fields[output_at]))
        except IndexError:
            raise _bad(path, number, f"does not have the {len(names)} columns of the first line") from None
        except (ValueError, OverflowError, csv.Error) as error:
            raise _bad(path, number, f"is not a request: {error}") from None


def _count(value: object) -> int:
    """A length in tokens, at least 1."""
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    digits = text.lstrip("0") or text[-1:]
    if not (digits.isascii() and digits.isdigit()) or int(digits[:20]) > _MAX_TOKENS:
        shortened = repr(value) if len(repr(value)) <= 40 else repr(value)[:37] + "..."
        raise ValueError(f"{shortened} is not a number of tokens")
    return max(1, int(digits))


def _read_jsonl(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[Row]:
    for number, line in lines:
        try:
            yield _row(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise _bad(path, number, f"is not JSON: {error}") from None
        except (ValueError, TypeError) as error:
            raise _bad(path, number, f"is not a request: {error}") from None


def _row(record: object) -> Row:
    if not isinstance(record, dict):
        raise ValueError("it is not an object")  # noqa: TRY004 - handled like the other reasons
    if "due_ns" in record:
        return Row(_number(record, "due_ns"), _length(record, "input"), _length(record, "output"))
    if not {"timestamp", "input_length", "output_length"} <= record.keys():
        raise ValueError("it has neither timestamp, input_length and output_length, nor due_ns and tokens")
    ids = record.get("hash_ids") or ()
    if not isinstance(ids, (list, tuple)) or not all(isinstance(block, int) for block in ids):
        raise ValueError("its hash_ids are not whole numbers")
    lengths = _count(record["input_length"]), _count(record["output_length"])
    return Row(_number(record, "timestamp", 1_000_000), *lengths, tuple(ids))


def _number(record: dict[str, object], name: str, unit_ns: int = 1) -> int:
    value = record[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"its {name} is {value!r}")  # noqa: TRY004 - handled like the other reasons
    return _time(value * unit_ns)


def _length(record: dict[str, object], side: str) -> int:
    """The number of tokens that the server reported, else the target; 0 if there is neither."""
    for name in (f"{side}_tokens", f"asked_{side}_tokens"):
        if record.get(name) is not None:
            return _count(record[name])
    return 0
