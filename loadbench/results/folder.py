"""The run folder: it never overwrites another, and a killed run leaves what it had.

results/<UTC time>-<name>/
    run.json          the result, replaced as a whole after each level
    requests.jsonl    one line per request, appended as they end
    histograms.hlog   every metric of every level, readable by the HdrHistogram tools
    telemetry.jsonl   one line per reading of the machine and of the server's metrics page, if there are any
    report.md         for people
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from loadbench.core.errors import BadInput
from loadbench.results.run import SCHEMA, Run, to_json

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

# A result has a histogram of a few kilobytes per metric and level; a larger file is not a result.
_MOST_BYTES = 512 * 1024 * 1024
# Names that Windows reserves for devices.
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})

# What decoding raises for a file that is not what it should be.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class SchemaName(msgspec.Struct):
    """The one key that every result has."""

    schema: str


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A folder that belongs to one run."""

    path: Path

    @classmethod
    def create(cls, out: Path, *, name: str, started_at: datetime) -> RunFolder:
        """Make the folder, readable by its owner only; raises `BadInput` if it exists or cannot be made."""
        check_folder(out, name=name)
        path = out / f"{started_at:%Y%m%dT%H%M%SZ}-{slug(name)}"
        try:
            out.mkdir(parents=True, exist_ok=True)
            path.mkdir(mode=0o700)
            (path / ".probe").write_bytes(b"")
            (path / ".probe").unlink()
        except FileExistsError:
            raise BadInput(f"{path}: already exists", hint="use another --name") from None
        except OSError as error:
            raise BadInput(
                f"{path}: cannot be written: {error.strerror or error}", hint="name another folder with --out"
            ) from None
        return cls(path)

    def inside(self, *names: str) -> RunFolder:
        """A folder in this one for a run that is part of it; raises `BadInput` if it cannot be made."""
        path = self.path.joinpath(*names)
        try:
            path.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise BadInput(f"{path}: cannot be made: {error.strerror or error}", hint="free some space") from None
        return RunFolder(path)

    def write(self, name: str, content: bytes) -> None:
        """Replace one file as a whole: a reader sees the old or the new one, and a crash loses neither."""
        target, draft = self.path / name, self.path / f".{name}.part"
        try:
            # A draft that was left here, or a link that somebody put here, is not written to.
            draft.unlink(missing_ok=True)
            with draft.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise BadInput(
                f"{target}: cannot be written: {error.strerror or error}",
                hint="free some space, or name another folder with --out",
            ) from None

    def write_run(self, run: Run) -> None:
        """Replace `run.json`."""
        self.write("run.json", to_json(run))


def check_folder(out: Path, *, name: str) -> None:
    """Raise `BadInput` if no run folder can be made there, without making one."""
    slug(name)
    # Folders that are missing are made with it.
    nearest = next((folder for folder in (out, *out.parents) if folder.exists()), None)
    if nearest is not None and not nearest.is_dir():
        raise BadInput(f"{nearest}: is a file, not a folder", hint="name another folder with --out")


def slug(name: str) -> str:
    """The name as a folder name for every system; raises `BadInput` for one without letters and digits."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80].rstrip("-.")
    if not plain or plain.lower().split(".")[0] in _DEVICES:
        raise BadInput(f"--name: {name!r} cannot be a folder name", hint="use letters and digits")
    return plain


def folder_of(path: Path) -> Path:
    """The run folder that a path names, by itself or by its `run.json`."""
    return path if path.is_dir() else path.parent


def read_run(path: Path) -> Run:
    """The run in a folder, or in a `run.json`.

    Raises `BadInput` if there is none, or the file has a version that this loadbench does not know.
    """
    file = path / "run.json" if path.is_dir() else path
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise BadInput(f"{file}: too large for a result", hint="name a run folder or its run.json")
        raw = file.read_bytes()
    except OSError as error:
        raise BadInput(
            f"{file}: {error.strerror or error}", hint="name a run folder, as in results/20260101T120000Z-sweep"
        ) from None
    try:
        head = msgspec.json.decode(raw, type=SchemaName)
    except UNREADABLE as error:
        raise BadInput(f"{file}: not a loadbench result: {error}", hint="name a run folder or its run.json") from None
    if head.schema != SCHEMA:
        raise BadInput(
            f"{file}: has schema {head.schema!r}, and this version reads {SCHEMA!r}",
            hint="use the version that wrote it",
        )
    try:
        return msgspec.json.decode(raw, type=Run)
    except UNREADABLE as error:
        raise BadInput(f"{file}: the file is damaged: {error}", hint="restore it from a copy") from None
