"""Files of users: plain or gzip by their bytes, within a limit, and with one message for what is no text."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.core.errors import BadInput
from loadbench.plan.input_files import read_lines, read_text
from loadbench.plan.sources import resolve

MIB = 1 << 20


def read(path: Path, max_bytes: int = 64 * MIB, **options: int) -> list[bytes]:
    """The lines of a file of things."""
    return list(read_lines(path, "things", max_bytes=max_bytes, hint="use a part", **options))


@given(st.lists(st.binary(max_size=50).map(lambda line: b"x" + line.replace(b"\n", b""))))
def test_gzip_and_plain_files_have_the_same_lines(tmp_path_factory, lines):
    """The name of a file says nothing; a file of several gzip members is their sequence."""
    folder, raw = tmp_path_factory.mktemp("files"), b"\n".join(lines)
    for name, content in (("a.gz", raw), ("a.csv", gzip.compress(raw[:9]) + gzip.compress(raw[9:]))):
        (folder / name).write_bytes(content)
        assert b"".join(read(folder / name)) == raw
        assert len(read(folder / name)) == (len(lines) if raw and not raw.endswith(b"\n") else raw.count(b"\n"))


def test_a_byte_order_mark_is_removed_from_text(tmp_path):
    """Plain or compressed."""
    for name, content in (("a", "\ufeffé\n".encode()), ("b", gzip.compress("\ufeffé\n".encode()))):
        (tmp_path / name).write_bytes(content)
        assert read_text(tmp_path / name, "things", max_bytes=9, hint="") == "é\n"


def _zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "text")
    return file.getvalue()


def _tarred(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        archive.addfile(tarfile.TarInfo("a.csv"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_zipped("a.csv"), "is a zip archive .unzip it"),
        (_zipped("[Content_Types].xml"), "is an Excel workbook .save the sheet as CSV"),
        (bz2.compress(b"text"), "is compressed with bzip2 .*bunzip2"),
        (lzma.compress(b"text"), "is compressed with xz .*xz -d"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "is compressed with zstd .*zstd -d"),
        (b"PAR1\x15\x04", "is a Parquet file .*JSON lines"),
        (_tarred("w"), "is a tar archive .unpack it"),
        (_tarred("w:gz"), "is a tar archive, within gzip .unpack it"),
        (gzip.compress(gzip.compress(b"text", mtime=0), mtime=0), "is compressed twice"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS .*git lfs pull"),
        ("text".encode("utf-16"), "is UTF-16 .save the file as UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",  # some bytes hold the time
)
def test_other_formats_are_named_with_the_remedy(tmp_path, content, says):
    """Whatever the name of the file promises."""
    file = tmp_path / "things.csv"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=rf"things\.csv {says}"):
        read(file)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda raw: raw[: len(raw) // 2], r"ends too early, after line [1-9]\d+"),
        (lambda raw: raw[:4], r"ends too early, after line 0"),
        (lambda raw: raw[:-8] + bytes(8), r"is damaged: CRC check failed"),
        (lambda raw: raw[:20] + b"\xff" * 40 + raw[60:], r"is damaged: Error -3"),
        (lambda raw: raw + b"rubbish", r"is damaged: Not a gzipped file"),
    ],
)
def test_a_broken_gzip_file_is_bad_input(tmp_path, damage, says):
    """It was not copied whole: half of a trace would be another trace."""
    file = tmp_path / "things.gz"
    file.write_bytes(damage(gzip.compress(b"".join(b"%d %d\n" % (n, n * n * n) for n in range(9_999)))))
    with pytest.raises(BadInput, match=rf"things\.gz: the gzip file {says} ?.*\(download or copy it again\)"):
        read(file)


def test_sizes_count_decompressed(tmp_path):
    """A file up to the limit is read; a byte more is refused."""
    file = tmp_path / "things"
    for content in (b"1234567\n" * 2, gzip.compress(b"1234567\n" * 2)):
        file.write_bytes(content)
        assert len(read(file, 16)) == 2
        with pytest.raises(BadInput, match=r"is larger than 0 MiB.*\(use a part\)"):
            read(file, 15)
    with pytest.raises(BadInput, match=r"line 1: this is longer than 0 KiB"):
        read(file, 16, max_line_bytes=7)
    assert len(read(file, 16, max_line_bytes=8)) == 2


@pytest.mark.parametrize("line", [b"\n", b"0" * 999 + b"\n"])
def test_a_file_made_to_fill_memory_is_refused(tmp_path, line):
    """Long before its end, and long before the limit."""
    file = tmp_path / "bomb.gz"
    with gzip.open(file, "wb") as out:
        for _ in range(20):
            out.write(line * (MIB // len(line)))
    with pytest.raises(BadInput, match=r"bomb\.gz expands to more than 250 times its size"):
        read(file, 4096 * MIB)


def test_a_file_that_cannot_be_opened_is_bad_input(tmp_path):
    """With the reason of the system."""
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(BadInput, match="cannot read the things in "):
            read(path)


def test_a_dash_is_no_standard_input():
    """A file of texts, a scenario, and fields of a request: each says so."""
    with pytest.raises(BadInput) as of_text:
        read(Path("-"))
    with pytest.raises(BadInput) as of_scenario:
        resolve(flags={}, file=Path("-"), environment={})
    with pytest.raises(BadInput) as of_fields:
        resolve(flags={"extra_body": "@-"}, environment={})
    assert {one.value.hint for one in (of_text, of_scenario, of_fields)} == {"standard input is not read: name a file"}
