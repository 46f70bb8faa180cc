"""Traces: requests that came somewhere once, to be asked again at the same offsets and with the same lengths.

Read are, by what is in their first line:

    CSV     TIMESTAMP,ContextTokens,GeneratedTokens         Azure's public LLM inference traces; time as a date
    CSV     Timestamp,Request tokens,Response tokens        BurstGPT; time in seconds
    JSONL   timestamp,input_length,output_length,hash_ids   Mooncake; ms. An id stands for 512 tokens of the prompt
    JSONL   due_ns,input_tokens,output_tokens               our own requests.jsonl

Ours are in the order in which they ended, and of a request that failed it may be that nobody knows how long it was:
it is left out, and counted.

A trace holds no texts. Prompts are dealt words of the recorded length; where there are ids, equal ids are equal words,
so that prompts share the beginnings that they shared. A length of 0 is asked as 1: nothing shorter can be.

Files are read line by line, and kept as three numbers a request, in the order of time whatever that of the file.
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

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from loadbench.plan.prompts import Calibration, Prompt, WordPrompts

# Tokens of a prompt that one id of a Mooncake trace stands for.
BLOCK_TOKENS = 512
_MOST_LINE = 1 << 20
# A client may be late by some of it, and the last request is to leave inside the window like all others.
_LEAST_GAP_NS = 100_000_000
_MOST_TOKENS = 10_000_000
# A hundred years: times are dates, or offsets from anywhere.
_MOST_NS = 100 * 366 * 86_400 * NS_PER_S
_DATE = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?\d*(Z|[+-]\d\d:\d\d)?")


class Row(NamedTuple):
    """One request of a trace: when it came, in ns from anywhere, and how long its prompt and its answer were.

    A length of 0 is one that nobody knows.
    """

    at_ns: int
    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Trace:
    """The requests of a trace in the order of time; offsets are ns from the first."""

    name: str
    offsets_ns: array[int]
    input_tokens: array[int]
    output_tokens: array[int]
    hash_ids: tuple[tuple[int, ...], ...] = ()
    # Whether a request begins with a block that an earlier one began with.
    warm: bytes = field(default=b"", repr=False)
    left_out: int = 0  # requests of unknown length

    @property
    def span_ns(self) -> int:
        """From the first request to the last."""
        return self.offsets_ns[-1]

    def __len__(self) -> int:
        return len(self.offsets_ns)

    def __hash__(self) -> int:
        return hash((self.name, len(self)))


def trace_of(name: str, rows: Iterable[Row]) -> Trace:
    """The trace of these rows, one at least."""
    at, asked, answered = array("q"), array("q"), array("q")
    ids: list[tuple[int, ...]] = []
    left_out = 0
    for row in rows:
        if not (row.input_tokens and row.output_tokens):
            left_out += 1
            continue
        at.append(row.at_ns)
        asked.append(row.input_tokens)
        answered.append(row.output_tokens)
        ids.append(row.hash_ids)
    order = sorted(range(len(at)), key=at.__getitem__)
    first = at[order[0]]
    ordered = tuple(ids[index] for index in order) if any(ids) else ()
    return Trace(
        name,
        array("q", (at[index] - first for index in order)),
        array("q", (asked[index] for index in order)),
        array("q", (answered[index] for index in order)),
        ordered,
        _warm(ordered),
        left_out,
    )


def _warm(hash_ids: Sequence[tuple[int, ...]]) -> bytes:
    seen: set[int] = set()
    warm = bytearray()
    for ids in hash_ids:
        warm.append(bool(ids) and ids[0] in seen)
        seen.update(ids[:1])
    return bytes(warm)


@dataclass(frozen=True, slots=True)
class Replayed:
    """The arrivals of a trace, so many times as fast as they were."""

    trace: Trace
    time_scale: float = 1.0

    @property
    def planned(self) -> bool:
        """The rate is meant to change."""
        return True

    @property
    def rows(self) -> int:
        """Those of the trace."""
        return len(self.trace)

    @property
    def peak(self) -> float:
        """None is planned."""
        return 1.0

    @property
    def window_ns(self) -> int:
        """How long it takes, with a gap after the last arrival as there is between them on average, in round numbers.

        Never less than a second: what came all at once has no rate.
        """
        span_ns = self.trace.span_ns / self.time_scale
        gap_ns = max(_LEAST_GAP_NS, span_ns / max(1, len(self.trace) - 1))
        step_ns = NS_PER_S if span_ns > 60 * NS_PER_S else NS_PER_S // 10
        return max(NS_PER_S, math.ceil((span_ns + gap_ns) / step_ns) * step_ns)

    @property
    def rate_per_s(self) -> float:
        """Over the whole of it, to three digits."""
        return float(f"{len(self.trace) * NS_PER_S / self.window_ns:.3g}")

    def offsets_ns(self, rate_per_s: float, rng: random.Random, *, lead_ns: int = 0) -> Iterator[int]:  # noqa: ARG002 - the trace has its own
        """Offsets from the level's beginning; with them the load is over."""
        return (round(offset_ns / self.time_scale) for offset_ns in self.trace.offsets_ns)

    def __str__(self) -> str:
        left_out = self.trace.left_out
        without = f" ({left_out} request{'s' * (left_out > 1)} of unknown length left out)" if left_out else ""
        faster = "" if self.time_scale == 1 else f", {self.time_scale:g} times as fast"
        return f"the trace {self.trace.name}{without}{faster}"


class TracePrompts:
    """`loadbench.plan.prompts.PromptSource` of a trace: words of the recorded lengths."""

    def __init__(self, trace: Trace, words: WordPrompts) -> None:
        self._trace = trace
        self._words = words

    def next(self, number: int, user: int | None) -> Prompt:  # noqa: ARG002 - a trace has no users
        """The prompt of the trace's request `number`."""
        trace = self._trace
        asked, answered = trace.input_tokens[number], trace.output_tokens[number]
        if not trace.hash_ids or not trace.hash_ids[number]:
            return self._words.sized(number, asked, answered)
        blocks = trace.hash_ids[number]
        return self._words.shared(blocks, asked, answered, block_tokens=BLOCK_TOKENS)._replace(
            warm=bool(trace.warm[number])
        )

    def calibration_prompts(self) -> Sequence[Prompt]:
        """Those of the words."""
        return self._words.calibration_prompts()

    def calibrated(self, tokens: Sequence[int | None]) -> Calibration | None:
        """What is true of the words."""
        return self._words.calibrated(tokens)


# Reading.


def read_trace(path: str | Path, *, limit: int | None = None) -> Trace:
    """The trace in a file, or in a run's folder; `limit` takes the first so many rows of the file, of ours in time.

    Raises `BadInput` with the file, the line and the remedy.
    """
    return _read_once(Path(path), limit)


# A scenario asks for its loads more than once, and a large trace is not read twice.
@lru_cache(maxsize=1)
def _read_once(path: Path, limit: int | None) -> Trace:
    file = path / "requests.jsonl" if path.is_dir() else path
    try:
        return trace_of(path.name, _rows(file, limit))
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror or error}", hint="name a trace, as CSV or JSONL") from None
    except IndexError:
        raise BadInput(f"{file} has no request in it whose length is known", hint="write at least one") from None


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
    """(number, text) of each line that says something."""
    with path.open("rb") as file:
        for number in itertools.count(1):
            raw = file.readline(_MOST_LINE)
            if not raw:
                return
            if len(raw) == _MOST_LINE:
                raise _bad(path, number, "is longer than any request of a trace")
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise _bad(path, number, "is not UTF-8") from None
            if text:
                yield number, text


def _bad(path: Path, number: int, what: str) -> BadInput:
    return BadInput(f"{path}, line {number}: this {what}", hint="mend or remove the line, or take another trace")


class _Columns(NamedTuple):
    """Where a kind of CSV has what, and how its times are read; names in small letters."""

    at: str
    input: str
    output: str
    time: Callable[[str], int]


def _date_ns(text: str) -> int:
    match = _DATE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no date and time")
    moment = datetime.fromisoformat(match[1] + (match[3] or "").replace("Z", "+00:00"))
    whole_s = int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())
    return _time(whole_s * NS_PER_S + int((match[2] or "0").ljust(9, "0")))


def _seconds_ns(text: str) -> int:
    return _time(float(text) * NS_PER_S)


def _time(ns: float) -> int:
    if not abs(ns) < _MOST_NS:
        raise ValueError(f"{ns:g} ns is more than a hundred years")
    return round(ns)


_CSV = (
    _Columns("timestamp", "contexttokens", "generatedtokens", _date_ns),
    _Columns("timestamp", "request tokens", "response tokens", _seconds_ns),
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
    at, asked, answered = (names.index(name) for name in columns[:3])
    for number, line in lines:
        try:
            fields = next(csv.reader([line]))
            yield Row(columns.time(fields[at]), _count(fields[asked]), _count(fields[answered]))
        except IndexError:
            raise _bad(path, number, f"has not the {len(names)} columns of the first") from None
        except (ValueError, OverflowError, csv.Error) as error:
            raise _bad(path, number, f"is no request: {error}") from None


def _count(value: object) -> int:
    """A length in tokens; 0 is asked as 1."""
    text = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    digits = text.lstrip("0") or text[-1:]
    if not (digits.isascii() and digits.isdigit()) or int(digits[:20]) > _MOST_TOKENS:
        shown = repr(value)
        raise ValueError(f"{shown if len(shown) <= 40 else shown[:37] + '...'} is no number of tokens")
    return max(1, int(digits))


def _read_jsonl(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[Row]:
    for number, line in lines:
        try:
            yield _row(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise _bad(path, number, f"is not JSON: {error}") from None
        except (ValueError, TypeError) as error:
            raise _bad(path, number, f"is no request: {error}") from None


def _row(record: object) -> Row:
    if not isinstance(record, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - told with the other reasons
    if "due_ns" in record:
        return Row(_number(record, "due_ns"), _length(record, "input"), _length(record, "output"))
    if not {"timestamp", "input_length", "output_length"} <= record.keys():
        raise ValueError("it has neither timestamp, input_length and output_length, nor due_ns and tokens")
    ids = record.get("hash_ids") or ()
    if not isinstance(ids, (list, tuple)) or not all(isinstance(one, int) for one in ids):
        raise ValueError("its hash_ids are no whole numbers")
    asked, answered = _count(record["input_length"]), _count(record["output_length"])
    return Row(_number(record, "timestamp", 1_000_000), asked, answered, tuple(ids))


def _number(record: dict[str, object], name: str, times: int = 1) -> int:
    value = record[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"its {name} is {value!r}")  # noqa: TRY004 - told with the other reasons
    return _time(value * times)


def _length(record: dict[str, object], what: str) -> int:
    """What the server counted, else what was asked for; 0 where there is neither."""
    for name in (f"{what}_tokens", f"asked_{what}_tokens"):
        if record.get(name) is not None:
            return _count(record[name])
    return 0
