"""Data sets: files of prompts, as people have them.

What a file is shows by its content, and by its name where the content does not say it:

    JSON lines        a row in each line (`loadbench.plan.data_rows`)
    JSON              an array of rows; one row; or an object that holds an array: {"rows": [{"row": {…}}]}
    CSV               with the names of its columns in the first line; separated by commas, semicolons, tabs or bars
    text              a prompt in each line: any other file, and every `.txt`

A row with nothing to send is skipped and counted. What cannot be read as the format that the file has is an error.
"""

from __future__ import annotations

import csv
import logging
import re
import time
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from loadbench.core.errors import BadInput
from loadbench.core.text import kind_of
from loadbench.plan.data_messages import UnusableRowError
from loadbench.plan.data_rows import LIMITS, MESSAGES, TEXTS, column_name, may_be_sent, read_row, requests_in
from loadbench.plan.input_files import open_text
from loadbench.plan.json_text import JsonStream, parse_json
from loadbench.plan.prompts import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# Decompressed. Rows are read one by one, and what is kept of them is what is sent.
_MAX_FILE_BYTES = 2 << 30
_LONG_LINE = 16 << 20  # a line is read at once up to here, to see whether it is a row
_LONGEST_FIELD = 256 << 20
# Some seconds of silence seem like a failure.
_NOTICE_AFTER_S, _NOTICE_EVERY_S = 1.5, 10.0
# Of a file whose name does not say that it is JSON.
BEGINS_JSON = re.compile(rb"\s*(\[\s*([\[{\"\]]|$)|\{\s*([\"}]|$))")
_TEXT_SUFFIXES = {".txt", ".text", ".md"}
_CSV_SUFFIXES = {".csv", ".tsv", ".tab"}
_LINES_SUFFIXES = {".jsonl", ".ndjson"}
_JSON_SUFFIXES = {".json", *_LINES_SUFFIXES}
# Texts of other kinds, whose lines are no prompts.
_NO_PROMPTS = {
    **dict.fromkeys((".yaml", ".yml", ".toml", ".ini", ".xml"), "write its prompts as JSON lines"),
    **dict.fromkeys((".py", ".js", ".ts", ".sh", ".sql", ".html", ".htm", ".ipynb"), "write the prompts as JSON lines"),
}
# Under which an object has its rows.
_WRAPPERS = ("rows", "data", "prompts", "items", "examples", "instances", "questions", "requests")
_MOST_NAMED = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DataSet:
    """The prompts of a file, and what became of its rows.

    `places` are where the prompts are in the file: numbers of lines or items. `not_sent` are columns that may be meant
    for the request and are not sent; `models` and `urls` are what the rows of a batch name.
    """

    name: str
    format: str
    prompts: tuple[Prompt, ...]
    rows: int
    unit: str = "line"
    places: tuple[int, ...] = ()
    skipped: tuple[tuple[str, int], ...] = ()  # reason, rows
    not_sent: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    urls: tuple[tuple[str, int], ...] = ()  # each with the place of its first row

    @property
    def conversations(self) -> int:
        """The number of prompts that begin a dialogue of several turns."""
        return sum(bool(prompt.then) for prompt in self.prompts)

    @property
    def limits(self) -> tuple[int, ...]:
        """The prompts' own limits of output tokens."""
        return tuple(prompt.output_tokens for prompt in self.prompts if prompt.output_tokens is not None)

    def place(self, position: int) -> str:
        """Where the prompt at this position is, as messages name it."""
        return f"{self.name}, {self.unit} {self.places[position]}"


def read_data_set(path: str | Path) -> DataSet:
    """The prompts of a file; raises `BadInput` with the file, the place and a hint."""
    path = Path(path)
    suffix = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix in _NO_PROMPTS:
        raise BadInput(f"{path}: a {suffix} file is no data set", hint=f"{_NO_PROMPTS[suffix]}, or as CSV")
    with open_text(path, "prompts", max_bytes=_MAX_FILE_BYTES, hint="use a part of it") as file:
        container, unit, rows, beside = _rows_of(file, path, suffix)
        return _data_set(rows, path, container, unit, beside)


# Every level of a run reads the prompts again, and all levels must have the same.
read_data_set_once = lru_cache(maxsize=1)(read_data_set)


def _data_set(
    rows: Iterable[tuple[int, object]], path: Path, container: str, unit: str, beside: Iterable[str]
) -> DataSet:
    prompts, places = list[Prompt](), list[int]()
    skipped, forms, not_sent = Counter[str](), Counter[str](), Counter(beside)
    models, urls, columns = dict[str, None](), dict[str, int](), dict[str, None]()
    count, began_s = 0, time.monotonic()
    next_notice_s = began_s + _NOTICE_AFTER_S
    for number, row in ((number, one) for number, given in rows for one in requests_in(given)):
        count += 1
        if (now_s := time.monotonic()) > next_notice_s:
            next_notice_s = now_s + _NOTICE_EVERY_S
            _log.info("reading %s: %s rows after %.0f s", path, f"{count:,}", now_s - began_s)
        try:
            read = read_row(row, f"{path}, {unit} {number}")
        except UnusableRowError as reason:
            skipped[str(reason)] += 1
            if isinstance(row, dict) and len(columns) < _MOST_NAMED:
                columns |= dict.fromkeys(map(str, row))
            continue
        forms[read.form] += 1
        not_sent.update(read.not_sent)
        if read.model:
            models[read.model] = None
        if read.url:
            urls.setdefault(read.url, number)
        prompts.append(read.prompt)
        places.append(number)
    if not count:
        raise BadInput(f"{path} has no prompts", hint="write at least one")
    if not prompts:
        reasons = ", ".join(f"{reason} ({rows})" for reason, rows in skipped.most_common(_MOST_NAMED))
        named = f"its columns are {', '.join(list(columns)[:20])}; " if columns else ""
        raise BadInput(
            f"{path}: none of the {count} rows can be sent: {reasons}",
            hint=f'{named}write the text under "prompt", or a list of messages under "messages"',
        )
    form = " and ".join(form for form, _ in forms.most_common())
    return DataSet(
        name=str(path),
        format=container if form == "texts" else f"{container}, {form}",
        prompts=tuple(prompts),
        rows=count,
        unit=unit,
        places=tuple(places),
        skipped=tuple(skipped.most_common()),
        not_sent=tuple(name for name, _ in not_sent.most_common()),
        models=tuple(models),
        urls=tuple(urls.items()),
    )


def _rows_of(file: BinaryIO, path: Path, suffix: str) -> tuple[str, str, Iterator[tuple[int, object]], list[str]]:
    """(the format of a file, the unit in which its rows are numbered, its rows with their numbers, what it has beside
    them that may be meant for the requests)."""
    number = 1
    while not (line := file.readline(_LONG_LINE)).strip():
        if not line:
            return "text", "line", iter(()), []
        number += line.endswith(b"\n")
    if suffix not in _JSON_SUFFIXES and (suffix in _TEXT_SUFFIXES or not BEGINS_JSON.match(line)):
        texts = _texts(_lines(file, line, path, number), number, path)
        if suffix in _CSV_SUFFIXES:
            return "CSV", "line", _csv_rows(texts, number, path), []
        return "text", "line", _text_rows(texts, number, path), []
    try:
        document = parse_json(line, path, number)
    except BadInput:
        # The first value takes several lines, or is very long; or this raises the error again.
        stream = JsonStream(file, line, path, number)
        if stream.next_character() == "[":
            items = stream.items()
            first = next(items, None)
            if first is not None and not _is_message(first):
                return "JSON", "item", enumerate(chain([first], items), 1), []
            document = [] if first is None else [first, *items]
        else:
            document = stream.value()
            if stream.next_character():
                return "JSON lines", "line", chain([(number, document)], stream.values()), []
    else:
        lines = ((at, line) for at, line in enumerate(_lines(file, b"", path, number + 1), number + 1) if line.strip())
        after = next(lines, None)
        if after is not None:
            others = ((at, parse_json(line, path, at)) for at, line in chain([after], lines))
            return "JSON lines", "line", chain([(number, document)], others), []
        if suffix in _LINES_SUFFIXES and isinstance(document, dict):
            return "JSON lines", "line", iter([(number, document)]), []
    rows, beside = _wrapped(document, path)
    if len(rows) == 1 and rows[0] is document:
        return "JSON lines", "line", iter([(number, document)]), []
    return "JSON", "item", iter(enumerate(rows, 1)), beside


def _lines(file: BinaryIO, begun: bytes, path: Path, number: int) -> Iterator[bytes]:
    """The lines of a file, the first of which may have begun; raises `BadInput` for one that is too long."""
    line = begun + (b"" if begun.endswith(b"\n") else file.readline(_LONGEST_FIELD + 1))
    while line:
        if len(line) > _LONGEST_FIELD:
            what = f"{path}, line {number}: this is longer than {_LONGEST_FIELD >> 20} MiB"
            raise BadInput(what, hint="write each prompt in a line of its own")
        yield line
        number += 1
        line = file.readline(_LONGEST_FIELD + 1)


def _text_rows(texts: Iterator[str], first: int, path: Path) -> Iterator[tuple[int, str]]:
    for number, text in enumerate(texts, first):
        said = text.strip()
        if said == "---" or "\r" in said:
            what = "--- alone, as between prompts of several lines" if said == "---" else "a carriage return inside"
            raise BadInput(
                f"{path}, line {number}: this has {what}",
                hint="write a prompt in each line, or JSON lines, where a prompt may have several lines",
            )
        if said:
            yield number, said


def _is_message(item: object) -> bool:
    return isinstance(item, dict) and "content" in item and "role" in item


def _texts(lines: Iterable[bytes], number: int, path: Path) -> Iterator[str]:
    """Lines as texts. Only line feeds end them: a prompt may contain U+2028."""
    for at, line in enumerate(lines, number):
        if b"\0" in line:
            raise BadInput(f"{path}, line {at}: this has a NUL character, which no text has", hint="fix this line")
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise BadInput(f"{path}, line {at}: this is not UTF-8", hint="save the file as UTF-8") from None


def _wrapped(document: object, path: Path) -> tuple[list[Any], list[str]]:
    """(the rows of a JSON document, what it has beside them that may be meant for the requests)."""
    if isinstance(document, list):
        # A list of messages is one row.
        return ([document] if document and all(map(_is_message, document)) else document), []
    if not isinstance(document, dict):
        raise BadInput(f"{path} holds {kind_of(document)}", hint="write an array of strings or objects")
    named = {column_name(name): name for name in document}
    rows = next((document[named[name]] for name in _WRAPPERS if isinstance(document.get(named.get(name)), list)), None)
    if rows is not None:
        columns = document.get("columns")
        if isinstance(columns, list) and all(isinstance(row, list) and len(row) == len(columns) for row in rows):
            rows = [dict(zip(map(str, columns), row, strict=True)) for row in rows]  # pandas' orient="split"
        return rows, [name for name in named if name not in _WRAPPERS and may_be_sent(name)]
    # By column, as pandas and Hugging Face's `to_dict` write a table.
    lists = [list(one.values()) if isinstance(one, dict) else one for one in document.values()]
    tables = all(isinstance(one, dict) for one in document.values()) or (
        all(isinstance(one, list) for one in lists) and any(isinstance(document.get(name), list) for name in TEXTS)
    )
    if tables and len({len(column) for column in lists}) == 1:
        return [dict(zip(document, values, strict=True)) for values in zip(*lists, strict=True)], []
    return [document], []


def _csv_rows(texts: Iterator[str], first: int, path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows of a table, by the names in its first line; each number is that of the row's last line."""
    csv.field_size_limit(_LONGEST_FIELD)
    head = next(texts)
    candidates = ",;\t|"
    if re.fullmatch(r"sep=[,;\t|]\s*", head):  # for Excel
        candidates, head, first = head[4], next(texts, ""), first + 1
    known = {*MESSAGES, *TEXTS, *LIMITS}
    delimiter, names = "", list[str]()
    for candidate in candidates:
        found = next(csv.reader([head.rstrip("\r\n")], delimiter=candidate), []) if "\r" not in head.rstrip() else []
        if len(found) > len(names) and known & set(map(column_name, found)):
            delimiter, names = candidate, found
    if not names:
        raise BadInput(
            f"{path}, line {first}: none of its columns is a prompt: {head.strip()[:80]!r}",
            hint=f"name the columns in the first line, one of them {', '.join(TEXTS[:5])} or messages; "
            "or name the file .txt if each line is a prompt",
        )
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise BadInput(f"{path}, line {first}: there are two columns {twice[0]!r}", hint="rename or remove one of them")
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if not fields:
                continue
            number = first + reader.line_num
            if len(fields) != len(names):
                raise BadInput(
                    f"{path}, line {number}: this has {len(fields)} columns, and the first line {len(names)}",
                    hint="put texts with separators or line ends into double quotes",
                )
            if fields != names:  # files that were joined have the first line again
                yield number, dict(zip(names, fields, strict=True))
    except csv.Error as error:
        raise BadInput(
            f"{path}, line {first + reader.line_num}: this is not CSV: {error}", hint="fix the quotes at this line"
        ) from None
