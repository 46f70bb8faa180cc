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
import io
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from loadbench.core.errors import BadInput
from loadbench.plan.data_rows import LIMITS, MESSAGES, TEXTS, UnusableRowError, kind_of, read_row
from loadbench.plan.input_files import parse_json, read_text
from loadbench.plan.prompts import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_MAX_FILE_BYTES = 256 * 1024 * 1024
_TEXT_SUFFIXES = {".txt", ".text", ".md"}
_CSV_SUFFIXES = {".csv", ".tsv", ".tab"}
_JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
# Under which an object has its rows.
_WRAPPERS = ("rows", "data", "prompts", "items", "examples", "instances", "questions", "requests")
_MOST_NAMED = 5


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
    text = read_text(path, "prompts", max_bytes=_MAX_FILE_BYTES, hint="use a part of it")
    suffix = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    container, unit, rows = _rows_of(text, path, suffix)

    prompts, places = list[Prompt](), list[int]()
    skipped, forms, not_sent = Counter[str](), Counter[str](), Counter[str]()
    models, urls, columns = dict[str, None](), dict[str, int](), dict[str, None]()
    count = 0
    for number, row in rows:
        count += 1
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


# Every level of a run reads the prompts again, and all levels must have the same.
read_data_set_once = lru_cache(maxsize=1)(read_data_set)


def _rows_of(text: str, path: Path, suffix: str) -> tuple[str, str, Iterator[tuple[int, object]]]:
    """The format of a file, the unit in which its rows are numbered, and its rows with their numbers."""
    # Only line feeds end a line: a prompt may contain U+2028.
    lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    first, line = next(lines, (0, ""))
    if not line:
        return "text", "line", iter(())
    begins = line.lstrip()[0]
    if suffix in _JSON_SUFFIXES or (begins in "[{" and suffix not in _TEXT_SUFFIXES):
        value = whole = _UNREAD
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            # The first value takes several lines, or it is none.
            try:
                whole = orjson.loads(text)
            except orjson.JSONDecodeError:
                if suffix in _JSON_SUFFIXES:
                    parse_json(text if suffix == ".json" else line, path, 1 if suffix == ".json" else first)
                begins = ""
        if begins:
            following = next(lines, None)
            if whole is _UNREAD and following is not None:
                return "JSON lines", "line", _json_lines([(first, line), following], lines, path)
            rows = _wrapped(value if whole is _UNREAD else whole, path)
            if len(rows) == 1 and rows[0] is value:
                return "JSON lines", "line", iter([(first, value)])
            return "JSON", "item", iter(enumerate(rows, 1))
    if suffix in _CSV_SUFFIXES:
        return "CSV", "line", _csv_rows(text, path)
    return "text", "line", ((number, line.strip()) for number, line in [(first, line), *lines])


_UNREAD = object()


def _json_lines(
    first: Iterable[tuple[int, str]], lines: Iterable[tuple[int, str]], path: Path
) -> Iterator[tuple[int, object]]:
    for some in (first, lines):
        for number, line in some:
            yield number, parse_json(line, path, number)


def _wrapped(document: object, path: Path) -> list[Any]:
    """The rows of a JSON document."""
    if isinstance(document, list):
        # A list of messages is one row.
        messages = all(isinstance(item, dict) and "content" in item and "role" in item for item in document)
        return [document] if document and messages else document
    if not isinstance(document, dict):
        raise BadInput(f"{path} holds {kind_of(document)}", hint="write an array of strings or objects")
    for name in _WRAPPERS:
        if isinstance(document.get(name), list):
            return list(document[name])
    # By column, as pandas and Hugging Face's `to_dict` write a table.
    columns = [list(one.values()) if isinstance(one, dict) else one for one in document.values()]
    tables = all(isinstance(one, dict) for one in document.values()) or (
        all(isinstance(one, list) for one in columns) and any(isinstance(document.get(name), list) for name in TEXTS)
    )
    if tables and len({len(column) for column in columns}) == 1:
        return [dict(zip(document, values, strict=True)) for values in zip(*columns, strict=True)]
    return [document]


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows of a table, by the names in its first line; each number is that of the row's last line."""
    csv.field_size_limit(_MAX_FILE_BYTES)
    head = text.lstrip("\n").split("\n", 1)[0]
    known = {*MESSAGES, *TEXTS, *LIMITS}
    delimiter, names = "", list[str]()
    for candidate in ",;\t|":
        found = next(csv.reader([head], delimiter=candidate), [])
        if len(found) > len(names) and known & {name.strip().lower() for name in found}:
            delimiter, names = candidate, found
    if not names:
        raise BadInput(
            f"{path}, line 1: none of its columns is a prompt: {head[:80]!r}",
            hint=f"name the columns in the first line, one of them {', '.join(TEXTS[:5])} or messages; "
            "or name the file .txt if each line is a prompt",
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(names):
                raise BadInput(
                    f"{path}, line {reader.line_num}: this has {len(fields)} columns, and the first line {len(names)}",
                    hint="put texts with separators or line ends into double quotes",
                )
            if fields != names:  # files that were joined have the first line again
                yield reader.line_num, dict(zip(names, fields, strict=True))
    except csv.Error as error:
        raise BadInput(
            f"{path}, line {reader.line_num}: this is not CSV: {error}", hint="fix the quotes at this line"
        ) from None
