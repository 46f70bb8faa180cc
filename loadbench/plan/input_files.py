"""Text files that users write or download: read within a limit of size, with errors that name the place and a remedy.

A file may be compressed with gzip, which is recognised by its first bytes and not by its name.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO

from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Buffer

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
        (rb"%PDF-", "a PDF", "write the texts in it as JSON lines"),
        (rb"SQLite format 3", "a SQLite database", "export the table as CSV"),
        (rb"\s*<(!DOCTYPE|!doctype|\?xml)", "a page of HTML or XML", "download the file itself, or write JSON lines"),
        (rb"version https://git-lfs", "a pointer of Git LFS to the file", "get the file with `git lfs pull`"),
        (rb"([^\0]\0){4}|(\0[^\0]){4}", "UTF-16", "save the file as UTF-8"),
    )
)
NOT_STDIN = "standard input is not read: name a file"
_HEAD_BYTES = 262  # the mark of a tar archive ends there
_BUFFER_BYTES = 1 << 20
# Text shrinks to a tenth, seldom to a hundredth. What shrinks more was made to fill memory (the most is 1030).
_MAX_RATIO = 250
_RATIO_STEP = 16 << 20  # checked after every 16 MiB, so that a small file may repeat itself


class _Limited(io.RawIOBase):
    """The bytes of a file, decompressed if they are compressed. Raises `BadInput` for what is damaged or too large."""

    def __init__(self, raw: io.BufferedReader, path: Path, contents: str, *, max_bytes: int, hint: str) -> None:
        self._raw, self._path, self._contents, self._max_bytes, self._hint = raw, path, contents, max_bytes, hint
        self.compressed = raw.peek(2)[:2] == _GZIP
        self._file = gzip.GzipFile(fileobj=raw) if self.compressed else raw
        self._total = self._lines = 0
        self._next_check = _RATIO_STEP

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        path = self._path
        try:
            size = self._file.readinto1(buffer)  # what comes before the damage is read
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            reason = "ends too early" if isinstance(error, EOFError) else f"is damaged: {error}"
            raise BadInput(
                f"{path}: the gzip file {reason}, after line {self._lines}", hint="download or copy it again"
            ) from None
        except OSError as error:
            raise _unreadable(path, self._contents, error) from None
        self._total += size
        self._lines += bytes(memoryview(buffer)[:size]).count(b"\n")
        if self._total > self._max_bytes:
            raise BadInput(
                f"{path} is larger than {self._max_bytes >> 20} MiB{' decompressed' * self.compressed}", hint=self._hint
            )
        if self.compressed and self._total >= self._next_check:
            self._next_check += _RATIO_STEP
            if self._total > self._raw.tell() * _MAX_RATIO:
                raise BadInput(
                    f"{path} expands to more than {_MAX_RATIO} times its size, as no text does",
                    hint="if you trust it, decompress it with `gunzip`",
                )
        return size


@contextmanager
def open_text(path: Path, contents: str, *, max_bytes: int, hint: str) -> Iterator[BinaryIO]:
    """The bytes of a file that holds `contents`, such as "prompts", plain or compressed with gzip, without a BOM.

    Raises `BadInput` if the file cannot be read, is not text, is damaged, or has more than `max_bytes` (with `hint`),
    which count decompressed; reading raises it too.
    """
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(path.open("rb"))
            limited = _Limited(raw, path, contents, max_bytes=max_bytes, hint=hint)
        except OSError as error:
            raise _unreadable(path, contents, error) from None
        file = io.BufferedReader(limited, _BUFFER_BYTES)
        head = file.peek(_HEAD_BYTES)
        for pattern, name, remedy in _OTHER_FORMATS:
            if pattern.match(head):
                raise BadInput(f"{path} is {name}{', within gzip' * limited.compressed}", hint=remedy)
        if head.startswith(codecs.BOM_UTF8):
            file.read(len(codecs.BOM_UTF8))
        yield file


def _unreadable(path: Path, contents: str, error: OSError) -> BadInput:
    reason = error.strerror or str(error)
    hint = NOT_STDIN if str(path) == "-" else "name a file that exists"
    return BadInput(f"cannot read the {contents} in {path}: {reason}", hint=hint)


def read_lines(
    path: Path, contents: str, *, max_bytes: int, hint: str, max_line_bytes: int | None = None
) -> Iterator[bytes]:
    """The lines of a file with their ends; memory holds one at a time. Raises `BadInput` as `open_text` does."""
    longest = max_line_bytes or max_bytes
    with open_text(path, contents, max_bytes=max_bytes, hint=hint) as file:
        number = 0
        while line := file.readline(longest + 1):
            number += 1
            if len(line) > longest:
                raise BadInput(
                    f"{path}, line {number}: this is longer than {longest >> 10} KiB",
                    hint="write each record in a line of its own",
                )
            yield line


def read_text(path: Path, contents: str, *, max_bytes: int, hint: str) -> str:
    """The text of a file that holds `contents`, such as "prompts"; a byte order mark is removed.

    Raises `BadInput` as `read_lines` does, and if it is not UTF-8.
    """
    raw = bytearray()
    for line in read_lines(path, contents, max_bytes=max_bytes, hint=hint):
        raw += line
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line_number = raw.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line_number}: this is not UTF-8", hint="save the file as UTF-8") from None
