"""Text files that users write or download: read within a limit of size, with errors that name the place and a remedy.

A file may be compressed with gzip, which is recognised by its first bytes and not by its name.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from typing import TYPE_CHECKING

import orjson

from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_GZIP = b"\x1f\x8b"
# What is no text, by its first bytes, and what to do about it.
_OTHER_FORMATS = tuple(
    (re.compile(pattern, re.DOTALL), name, remedy)
    for pattern, name, remedy in (
        (rb"PK\x03\x04.{26}\[Content_Types\]", "an Excel workbook", "save the sheet as CSV"),
        (rb"PK\x03\x04", "a zip archive", "unzip it, and name the file in it"),
        (rb"\x28\xb5\x2f\xfd", "compressed with zstd", "decompress it with `zstd -d`"),
        (rb"\xfd7zXZ\x00", "compressed with xz", "decompress it with `xz -d`"),
        (rb"BZh[1-9]1AY&SY", "compressed with bzip2", "decompress it with `bunzip2`"),
        (rb"\x04\x22\x4d\x18", "compressed with lz4", "decompress it with `lz4 -d`"),
        (rb"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it, and name the file in it"),
        (rb"PAR1", "a Parquet file", "convert it to JSON lines, as with pandas or DuckDB"),
        (rb"ARROW1|\xff\xff\xff\xff", "an Arrow file", "convert it to JSON lines, as with pandas or pyarrow"),
        (rb"\x1f\x8b", "compressed twice", "decompress it once with `gunzip`"),
        (rb".{257}ustar", "a tar archive", "unpack it, and name the file in it"),
        (rb"\xff\xfe|\xfe\xff", "UTF-16", "save the file as UTF-8"),
        (rb"version https://git-lfs", "a pointer of Git LFS to the file", "get the file with `git lfs pull`"),
    )
)
_HEAD_BYTES = 262  # the mark of a tar archive ends there
# Text shrinks to a tenth, seldom to a hundredth. What shrinks more was made to fill memory (the most is 1030).
_MAX_RATIO = 250
_RATIO_STEP = 16 << 20  # checked after every 16 MiB, so that a small file may repeat itself


def read_lines(
    path: Path, contents: str, *, max_bytes: int, hint: str, max_line_bytes: int | None = None
) -> Iterator[bytes]:
    """The lines of a file that holds `contents`, such as "prompts", plain or compressed with gzip, with their ends.

    Memory holds one line at a time. Raises `BadInput` if the file cannot be read, is not text, is damaged, or has more
    than `max_bytes` (with `hint`), which count decompressed.
    """
    number = total = 0
    next_check = _RATIO_STEP
    try:
        with path.open("rb") as raw:
            compressed = raw.peek(2)[:2] == _GZIP
            file = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if compressed else raw
            for pattern, name, remedy in _OTHER_FORMATS:
                if pattern.match(file.peek(_HEAD_BYTES)):
                    raise BadInput(f"{path} is {name}{', within gzip' * compressed}", hint=remedy)
            while line := file.readline(min(max_line_bytes or max_bytes, max_bytes - total) + 1):
                number += 1
                total += len(line)
                if total > max_bytes:
                    raise BadInput(
                        f"{path} is larger than {max_bytes >> 20} MiB{' decompressed' * compressed}", hint=hint
                    )
                if len(line) > (max_line_bytes or max_bytes):
                    raise BadInput(
                        f"{path}, line {number}: this is longer than {(max_line_bytes or 0) >> 10} KiB",
                        hint="write each record in a line of its own",
                    )
                if compressed and total >= next_check:
                    next_check += _RATIO_STEP
                    if total > raw.tell() * _MAX_RATIO:
                        raise BadInput(
                            f"{path} expands to more than {_MAX_RATIO} times its size, as no text does",
                            hint="if you trust it, decompress it with `gunzip`",
                        )
                yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = "ends too early" if isinstance(error, EOFError) else f"is damaged: {error}"
        raise BadInput(
            f"{path}: the gzip file {reason}, after line {number}", hint="download or copy it again"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise BadInput(f"cannot read the {contents} in {path}: {reason}", hint="name a file that exists") from None


def read_text(path: Path, contents: str, *, max_bytes: int, hint: str) -> str:
    """The text of a file that holds `contents`, such as "prompts"; a byte order mark is removed.

    Raises `BadInput` as `read_lines` does, and if it is not UTF-8.
    """
    raw = bytearray()
    for line in read_lines(path, contents, max_bytes=max_bytes, hint=hint):
        raw += line
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_number = raw.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line_number}: this is not UTF-8", hint="save the file as UTF-8") from None


def parse_json(text: str, path: Path, first_line: int = 1) -> object:
    """The value of a JSON text that begins at a line of the file; raises `BadInput` with the line of the error."""
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        line = first_line + text.count("\n", 0, error.pos)
        raise BadInput(
            f"{path}, line {line}: this is not JSON: {error.msg}", hint="fix the file at this line"
        ) from None
    return value
