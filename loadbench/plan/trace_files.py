"""Trace files: which format a file has, and the requests in it.

A file is CSV (with commas, semicolons or tabs) or JSON lines, plain or compressed with gzip. The names of its columns
show its format; capitals, spaces and underscores in them do not matter, and other columns are ignored.

    azure       TIMESTAMP, ContextTokens, GeneratedTokens       Azure's public traces; time as a date
    burstgpt    Timestamp, Request tokens, Response tokens      BurstGPT; seconds. 0 response tokens: it failed
    mooncake    timestamp, input_length, output_length          Mooncake; ms. An id in hash_ids stands for 512 tokens
    bailian     the same                                        Qwen-Bailian; seconds. An id stands for 16 tokens
    guidellm    the same                                        guidellm's trace replay; seconds
    aiperf      the same, or text_input for input_length        aiperf's mooncake_trace; ms
    loadbench   due_ns, input_tokens, output_tokens             our own requests.jsonl

Four formats have the same names and two units of time. A wrong unit is a load that is wrong by a factor of 1000, so the
unit is decided by evidence from the whole file, and a file with none, or with evidence for both, is refused.
"""

from __future__ import annotations

import csv
import heapq
import json
import math
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from loadbench.core.bounded import parse_json
from loadbench.core.errors import BadInput
from loadbench.core.units import NS_PER_S, format_duration
from loadbench.plan.cluster import REQUESTS_ELSEWHERE, WHERE_THEY_ARE
from loadbench.plan.input_files import read_lines, read_text
from loadbench.plan.trace_formats import AUTO, BLOCK_TOKENS, FORMATS, LENGTHS, NS_PER_MS
from loadbench.plan.traces import Row, Trace, TraceBuilder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    # The line at which a record begins, and its fields by `_key` of their names.
    Record = tuple[int, dict[str, Any]]

# A week of Azure's traces, 44 million requests, has 2 GiB.
_MAX_BYTES = 8 << 30
_MAX_LINE = 1 << 20
_MOST_OF_RUN = 256 << 20
_MAX_TOKENS = 10_000_000
# A hundred years: times are dates, or offsets from any origin.
_MAX_NS = 100 * 366 * 86_400 * NS_PER_S
_DATE = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:[.,](\d{1,9})\d*)? ?(Z|UTC|[+-]\d\d:?\d\d)?")
# How pandas, spreadsheets and databases write a field without a value.
_EMPTY = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>", "nat"})
# Times since 1970: the unit of those from 2001 to 2065, by the least of them.
_EPOCHS = {10**9: NS_PER_S, 10**12: NS_PER_MS, 10**15: 1_000, 10**18: 1}
_EPOCH_FACTOR = 3
# On average, requests of a trace are seldom further apart: in seconds, this is fewer than one request a minute.
_WIDE_GAP = 100
# Of the requests with ids, this share must have as many as their length needs. Recordings have a few odd ones.
_FITTING = 0.9
_BLOCK_POWERS = 17  # block sizes up to 65,536
_UNITS = {NS_PER_S: "seconds", NS_PER_MS: "milliseconds", 1_000: "microseconds", 1: "nanoseconds"}
# Columns that only one format has.
_OF_AIPERF = {"sessionid": "session_id", "delay": "delay", "textinput": "text_input"}
_OF_BAILIAN = frozenset({"chatid", "parentchatid"})
_SAY_WHICH = "say which with --trace-format: mooncake or aiperf (milliseconds), bailian or guidellm (seconds)"


@lru_cache(maxsize=1)  # a scenario's loads are needed more than once, and a large trace should be read once
def read_trace(path: str | Path, *, limit: int | None = None, form: str = AUTO) -> Trace:
    """The trace in a file or in a run folder; `limit` takes the first requests of the file, or the earliest of our own.

    `form` is one of `FORMATS`, or `AUTO`. Raises `BadInput` with the file, the line and a hint.
    """
    path = Path(path)
    file = path
    if path.is_dir():
        names = [path / "requests.jsonl", path / "requests.jsonl.gz"]
        file = next((name for name in names if name.exists()), names[0])
    if _stayed_on_nodes(file):
        raise BadInput(f"{file}: {REQUESTS_ELSEWHERE}", hint=WHERE_THEY_ARE)
    records = _records(file)
    builder, evidence = TraceBuilder(), _Evidence()
    name = next(iter(FORMATS))
    if (head := next(records, None)) is not None:
        name = _format_of_names(file, *head, form)
        rows = _rows(file, name, records, evidence)
        earliest = name == "loadbench" and limit is not None  # our own are in the order in which they ended
        for row in heapq.nsmallest(limit or 0, rows, key=lambda row: row.at) if earliest else islice(rows, limit):
            builder.add(row)
    if not len(builder):
        skipped = "".join(f"; {count} {reason}" for reason, count in evidence.skipped.items())
        sessions = "sessionid" in evidence.names
        raise BadInput(
            f"{file} has no request with a time and known lengths{skipped}",
            hint="give the first turn of each session a timestamp" if sessions else "write at least one",
        )
    block_tokens = evidence.block_tokens(file, form)
    name, unit_ns, reasons = _unit(file, name, form, evidence, block_tokens)
    (earliest_at, earliest_line), (latest_at, latest_line) = evidence.earliest, evidence.latest
    if (latest_at - earliest_at) * unit_ns >= _MAX_NS:
        raise BadInput(
            f"{file}, line {latest_line}: its time is more than a hundred years after that of line {earliest_line}",
            hint="fix the times, or name the format, and with it their unit, with --trace-format",
        )
    title = FORMATS[name].title
    if name != "loadbench" and not evidence.dates:
        title += f", times in {_UNITS[unit_ns]}{''.join(f' by {reason}' for reason in reasons[:1])}"
    return builder.build(
        path.name,
        unit_ns=unit_ns,
        block_tokens=block_tokens or FORMATS[name].block_tokens,
        title=title,
        skipped=evidence.skipped,
        notes=evidence.notes(),
    )


class _Worker(msgspec.Struct):
    log: str = ""


class _Client(msgspec.Struct):
    workers: list[_Worker] = []


class _Level(msgspec.Struct):
    client: _Client = msgspec.field(default_factory=_Client)


class _OwnRun(msgspec.Struct):
    """Of `run.json` what says where its requests are: `Run.requests_elsewhere` in `loadbench.results.run`."""

    levels: list[_Level] = []


def _stayed_on_nodes(file: Path) -> bool:
    """Whether this is the `requests.jsonl` of a run whose requests stayed on the nodes of a cluster."""
    beside = file.with_name("run.json")
    if not file.name.startswith("requests.jsonl") or not beside.is_file():
        return False
    try:
        text = read_text(beside, "run", max_bytes=_MOST_OF_RUN, hint="")
        run = msgspec.json.decode(text, type=_OwnRun)
    except (BadInput, msgspec.MsgspecError, ValueError, RecursionError):  # it says nothing
        return False
    return any(worker.log for level in run.levels for worker in level.client.workers)


# Records.


@cache
def _key(name: str) -> str:
    """A column's name without what people write in several ways."""
    return name.replace(" ", "").replace("_", "").strip().lower()


def _bad(path: Path, number: int, problem: str, hint: str = "fix or remove the line, or use another trace") -> BadInput:
    return BadInput(f"{path}, line {number}: this {problem}", hint=hint)


def _records(path: Path) -> Iterator[Record]:
    """The records of a file. The first stands for the names of the columns, and its values are not to be used."""

    def texts() -> Iterator[tuple[int, str]]:
        limits = {"max_bytes": _MAX_BYTES, "max_line_bytes": _MAX_LINE}
        for number, raw in enumerate(read_lines(path, "trace", hint="use a part of it", **limits), 1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise _bad(path, number, "is not UTF-8", "save the file as UTF-8") from None

    lines = texts()
    number, head = next(((number, text) for number, text in lines if text.strip()), (0, ""))
    if head.lstrip().startswith("{"):
        yield from _json_records(path, chain([(number, head)], lines))
    elif head.lstrip().startswith("["):
        raise BadInput(
            f"{path}, line {number}: no trace begins with {head.strip()[:80]!r}",
            hint=f"write one object per line; `jq -c '.[]' {path.name}` makes them of a JSON array",
        )
    elif head:
        yield from _csv_records(path, number, head, lines)


def _json_records(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[Record]:
    is_first = True
    for number, line in lines:
        if not line or line.isspace():
            continue
        try:
            record = parse_json(line, sys.maxsize)  # the user's own file, whose lines have a bound of their own
        except orjson.JSONDecodeError as error:
            try:
                record = json.loads(line)  # written by Python, with NaN
            except (ValueError, RecursionError):
                raise _bad(path, number, f"is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise _bad(path, number, "is not a request: it is not an object")
        if is_first:
            yield number, record
            is_first = False
        yield number, {_key(name): value for name, value in record.items()}


def _csv_records(path: Path, number: int, head: str, lines: Iterator[tuple[int, str]]) -> Iterator[Record]:
    """The character that separates the names in the first line separates the fields."""
    delimiter = max(",;\t|", key=head.count)
    try:
        names = next(csv.reader([head.strip("\r\n")], delimiter=delimiter))
    except csv.Error as error:
        raise _bad(path, number, f"is no line of column names: {error}") from None
    keys = [_key(name) for name in names]
    read = number

    def texts() -> Iterator[str]:
        nonlocal read
        for line_number, text in lines:
            read = line_number
            yield text

    rows = csv.reader(texts(), delimiter=delimiter, strict=True)
    yield number, dict.fromkeys(names)
    while True:
        begins = read + 1
        try:
            fields = next(rows, None)
        except csv.Error as error:
            raise _bad(path, begins, f"is not a request: {error}") from None
        if fields is None:
            return
        if len(fields) == len(keys):
            yield begins, dict(zip(keys, fields, strict=True))
        elif any(field.strip() for field in fields):
            raise _bad(path, begins, f"does not have the {len(keys)} columns of the first line, but {len(fields)}")


def _format_of_names(path: Path, number: int, record: dict[str, Any], form: str) -> str:
    """The format whose columns a file has; `mooncake` for all four that have the same. Raises `BadInput` for none."""
    names = {_key(name) for name in record}
    candidates = FORMATS if form == AUTO else {form: FORMATS[form]}
    for name, one in candidates.items():
        at, input_, output = _key(one.at), _key(one.input), _key(one.output)
        if name == "loadbench":
            if at in names:
                return name
        elif one.at == LENGTHS[0]:
            # Of aiperf's sessions only the first turns have a time, and a text has a length.
            if output in names and (at in names or names & _OF_AIPERF.keys()) and names & {input_, "textinput"}:
                return name
        elif {at, input_, output} <= names:
            return name
    if names & {"turns", "text", "texts", "messages"}:
        raise BadInput(
            f"{path}, line {number}: this has texts in place of lengths, so it cannot be replayed as a trace",
            hint="send the texts with `loadbench sweep --prompts`, or write each request's input_length, output_length",
        )
    columns = " or ".join(dict.fromkeys(f"{one.at},{one.input},{one.output}" for one in candidates.values()))
    shown = ",".join(record)
    raise BadInput(
        f"{path}, line {number}: no trace begins with {shown[:80]!r}"
        if form == AUTO
        else f"{path}, line {number}: a trace of {FORMATS[form].title} does not begin with {shown[:80]!r}",
        hint=f"its columns are {columns}",
    )


# Requests.


@dataclass
class _Evidence:
    """What the requests of a file say about its format; times as they are in the file, each with its line."""

    names: set[str] = field(default_factory=set)
    earliest: tuple[float, int] = (math.inf, 0)
    latest: tuple[float, int] = (-math.inf, 0)
    times: int = 0
    dates: int = 0
    fraction: tuple[float, int] | None = None
    with_ids: int = 0
    first_ids: tuple[int, int, int] = (0, 0, 0)  # line, tokens, ids
    # By the power of two that is the size of a block: the requests whose ids are as many as their length needs.
    fitting: list[int] = field(default_factory=lambda: [0] * _BLOCK_POWERS)
    stated_block: object = None
    misfits: bool = False
    skipped: Counter[str] = field(default_factory=Counter)
    unordered: bool = False
    later_turns: int = 0
    images: int = 0
    empty: int = 0

    def add_ids(self, line: int, tokens: int, ids: int) -> None:
        """Count the sizes of a block with which so many tokens have so many ids."""
        self.with_ids += 1
        if self.with_ids == 1:
            self.first_ids = line, tokens, ids
        least = -(-tokens // ids)
        most = math.inf if ids == 1 else -(-tokens // (ids - 1)) - 1
        power = (max(1, least) - 1).bit_length()
        while power < _BLOCK_POWERS and 1 << power <= most:
            self.fitting[power] += 1
            power += 1

    def block_tokens(self, path: Path, form: str) -> int | None:
        """The tokens that an id stands for, where the lengths show it; of several sizes, none.

        Raises `BadInput` if no size fits, and neither `form` nor a column names the format.
        """
        if not self.with_ids:
            return None
        if isinstance(self.stated_block, int) and self.stated_block > 0:
            return self.stated_block
        enough = _FITTING * self.with_ids
        sizes = [1 << power for power, count in enumerate(self.fitting) if count >= enough]
        usual = [size for size in (16, BLOCK_TOKENS) if size in sizes]
        if len(usual) == 1 or len(sizes) == 1:
            return (usual or sizes)[0]
        self.misfits = not sizes
        named = form != AUTO or self.names >= _OF_BAILIAN or self.names & _OF_AIPERF.keys()
        if not sizes and not named:
            line, tokens, ids = self.first_ids
            raise BadInput(
                f"{path}, line {line}: {ids} hash_ids for {tokens} tokens: no size of a block fits most lengths",
                hint="check input_length, or name the format with --trace-format",
            )
        return None

    def notes(self) -> list[str]:
        """What of the trace is replayed otherwise than recorded."""
        notes = []
        if self.unordered and "duens" not in self.names:
            notes.append("the file is not in the order of time; the requests are sent in it")
        if self.misfits:
            notes.append("the numbers of hash_ids do not fit the lengths: prefixes are shared only roughly")
        if self.images:
            notes.append(f"requests with images: {self.images}; images are not sent")
        if self.empty:
            notes.append(f"requests with a length of 0: {self.empty}; they are sent with 1 token")
        if "sessionid" in self.names and not self.later_turns:  # also BurstGPT's
            notes.append("each turn of a session is sent at its time, without the turns before it")
        return notes


def _rows(path: Path, name: str, records: Iterator[Record], evidence: _Evidence) -> Iterator[Row]:
    """The requests of a file with a time and known lengths; its other requests are counted with the reason."""
    one = FORMATS[name]
    at_key, input_key, output_key = _key(one.at), _key(one.input), _key(one.output)
    names: object = None
    count = 0
    of_aiperf = one.at == LENGTHS[0]  # or may be: BurstGPT's sessions have the time of each request
    last_turns: dict[str | None, int] = {}
    for line, record in records:
        if record.keys() != names:
            names = record.keys()
            evidence.names |= names
        try:
            at, is_date = _time(record.get(at_key), one.at)
            session = str(record["sessionid"]) if of_aiperf and record.get("sessionid") is not None else None
            after = None
            if at is None:
                # The later turn of a session, unless the turn before it was left out.
                after = last_turns.pop(session, None)
                if after is None:
                    evidence.skipped["without a time"] += 1
                    continue
                at = _time(record.get("delay"), "delay")[0] or 0
                if at < 0:
                    raise ValueError(f"its delay is {at:g}")  # noqa: TRY301 - handled like the other reasons
            tokens, output = _tokens(record.get(input_key)), _tokens(record.get(output_key))
            text = record.get("textinput") if of_aiperf else None
            if text is not None and not isinstance(text, str):
                raise ValueError("its text_input is no text")  # noqa: TRY301 - handled like the other reasons
            ids = _ids(record.get("hashids"))
            if name == "loadbench":
                # Of a request that failed, or was given up or cut, the server reported nothing, and its response came
                # in part: what was requested stands in.
                tokens = _tokens(record.get("askedinputtokens")) if tokens is None else tokens
                whole = record.get("outcome", "ok") == "ok"
                output = output if whole and output is not None else _tokens(record.get("askedoutputtokens")) or output
            elif name == "burstgpt" and output == 0:
                evidence.skipped["that failed in the recording"] += 1
                continue
            if output is None or (tokens is None and not text):
                evidence.skipped["of unknown length"] += 1
                continue
            if ids:
                evidence.add_ids(line, tokens or 0, len(ids))
                if "blocksize" in record and evidence.stated_block in (None, record["blocksize"]):
                    evidence.stated_block = record["blocksize"]
            if "numimages" in record:
                evidence.images += bool(_tokens(record["numimages"]))
        except (ValueError, TypeError, OverflowError) as error:
            raise _bad(path, line, f"is not a request: {error}") from None
        if session is not None:
            last_turns[session] = count
        count += 1
        evidence.empty += not (tokens or text) or not output
        tokens = max(1, tokens or 0) if text is None else tokens or 0
        if after is not None:
            evidence.later_turns += 1
            yield Row(at, tokens, max(1, output), ids, text, after)
            continue
        evidence.times += 1
        evidence.dates += is_date
        if evidence.dates not in (0, evidence.times):
            raise _bad(path, line, "has a date where others have a number, or a number where others have a date")
        if at < evidence.earliest[0]:
            evidence.earliest = at, line
        if at >= evidence.latest[0]:
            evidence.latest = at, line
        else:
            evidence.unordered = True
        if evidence.fraction is None and at != int(at):
            evidence.fraction = at, line
        yield Row(at, tokens, max(1, output), ids, text)


def _time(value: object, name: str) -> tuple[float | None, bool]:
    """A time as it is in the file, or in ns since 1970 if it is a date, and whether it is; `None` if there is none."""
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _EMPTY:
            return None, False
        date = _DATE.fullmatch(text)
        if date is not None:
            ns = _second(date[1], date[3] or "") * NS_PER_S + int((date[2] or "0").ljust(9, "0"))
            if not abs(ns) < _MAX_NS:
                raise ValueError(f"{text!r} is more than a hundred years from 1970")
            return ns, True
        try:
            value = int(text) if text.isdigit() else float(text)
        except ValueError:
            raise ValueError(f"{text[:40]!r} is not a date and time, and no number") from None
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return None, False
    # No unit of time makes a time of more than 19 digits.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e19:
        raise ValueError(f"its {name} is {str(value)[:40]}")
    return value, False


@lru_cache(maxsize=8)  # many requests share a second
def _second(date: str, zone: str) -> int:
    moment = datetime.fromisoformat(date + zone.replace("Z", "+00:00").replace("UTC", "+00:00"))
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


def _tokens(value: object) -> int | None:
    """A length in tokens, also as pandas writes it (`472.0`); `None` for an empty field."""
    number = value
    if isinstance(number, str):
        text = number.strip()
        if text.lower() in _EMPTY:
            return None
        try:
            number = float(text) if "_" not in text else math.inf
        except ValueError:
            number = math.inf
    if number is None or number != number:  # noqa: PLR0124 - NaN
        return None
    if (
        isinstance(number, bool)
        or not isinstance(number, (int, float))
        or not 0 <= number <= _MAX_TOKENS
        or number != int(number)
    ):
        shown = repr(value)
        raise ValueError(f"{shown if len(shown) <= 40 else shown[:37] + '...'} is not a number of tokens")
    return int(number)


def _ids(value: object) -> list[int]:
    """The ids of blocks, as 64-bit numbers; in CSV they are a JSON array in a field."""
    if value is None or value != value or (isinstance(value, str) and value.strip().lower() in _EMPTY):  # noqa: PLR0124
        return []
    ids = parse_json(value, sys.maxsize) if isinstance(value, str) else value
    if not isinstance(ids, list) or not all(isinstance(block, int) for block in ids):
        raise ValueError("its hash_ids are not whole numbers")
    return [block - (1 << 64) if block >> 63 > 0 else block for block in ids]


# The unit of times.


def _unit(
    path: Path, name: str, form: str, evidence: _Evidence, block_tokens: int | None
) -> tuple[str, int, list[str]]:
    """The format, the unit of its times in ns, and the evidence for the unit, if it needed any.

    Raises `BadInput` if there is none, or some for both units.
    """
    if evidence.dates:
        return name, 1, []
    if form != AUTO or name in {"burstgpt", "loadbench"}:
        return name, FORMATS[name].unit_ns, []
    earliest, latest = evidence.earliest[0], evidence.latest[0]
    since_1970 = [unit for least, unit in _EPOCHS.items() if least <= earliest <= latest < _EPOCH_FACTOR * least]

    # The names of columns and the sizes of blocks are strong evidence. The times themselves count where it is thin.
    seconds, millis = [], []
    if evidence.names >= _OF_BAILIAN:
        seconds.append("the columns chat_id and parent_chat_id")
    if aiperf := [shown for name, shown in _OF_AIPERF.items() if name in evidence.names]:
        millis.append(f"the column {aiperf[0]} of aiperf")
    if block_tokens == FORMATS["bailian"].block_tokens:
        seconds.append("blocks of 16 tokens")
    if block_tokens == BLOCK_TOKENS:
        millis.append("blocks of 512 tokens")
    gap = (latest - earliest) / max(1, evidence.times - 1)
    if len(seconds) + len(millis) < 2:
        if gap >= _WIDE_GAP:
            every = format_duration(round(gap) * NS_PER_S)
            millis.append(f"their distance (in seconds there would be a request every {every})")
        elif evidence.fraction is not None:
            seconds.append("their fractions (line {1} has {0!r})".format(*evidence.fraction))
    if since_1970:
        (unit_ns,), reasons = since_1970, ["their size, as times since 1970"]
    elif latest > earliest and bool(seconds) == bool(millis):
        problem = (
            f"{' and '.join(seconds)} mean seconds, but {' and '.join(millis)} mean milliseconds"
            if seconds
            else f"neither names nor hash_ids nor fractions show it, and {earliest:g} to {latest:g} may be either"
        )
        raise BadInput(
            f"{path}, line {evidence.latest[1]}: its times may be seconds or milliseconds: {problem}",
            hint="write dates, or say --trace-format azure if they are seconds" if name == "azure" else _SAY_WHICH,
        )
    else:
        unit_ns, reasons = (NS_PER_S, seconds) if seconds else (NS_PER_MS, millis)
    if name == "mooncake" and aiperf:
        name = "aiperf"
    elif name == "mooncake" and unit_ns == NS_PER_S:
        bailian = evidence.names >= _OF_BAILIAN or block_tokens == FORMATS["bailian"].block_tokens
        name = "bailian" if bailian else "guidellm"
    return name, unit_ns, reasons
