"""The run folder: it never overwrites another, and a killed run leaves what it had. If it cannot be written any more,
the run goes on in another place.

results/<UTC time>-<name>/
    run.json          the result, replaced as a whole after each level
    requests.jsonl    one line per request, appended as they end
    histograms.hlog   every metric of every level, readable by the HdrHistogram tools
    telemetry.jsonl   one line per reading of the machine and of the server's metrics page, if there are any
    report.md         for people
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from loadbench.core.errors import BadInput, ExitCode
from loadbench.core.new_file import write_new
from loadbench.results.run import SCHEMA, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from loadbench.results.run import Reason

# Where run folders are made.
RESULTS = Path("results")
# A result has a histogram of a few kilobytes per metric and level; a larger file is not a result.
MOST_BYTES = 512 * 1024 * 1024
# Names that Windows reserves for devices.
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})

# The log of requests leaves so much of the disk free: run.json, the histograms and the reports of a long run fit in it.
RESERVED_BYTES = 8 * 1024 * 1024
# Windows replaces no file that somebody has open: a report that reads it, a virus scanner. That takes a moment.
_REPLACE_AGAIN_S = (0.05,) * 31 if sys.platform == "win32" else ()
# Of a file system that can sync nothing: no reason to leave it.
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
# Of a file or folder, in bytes, on any system.
_LONGEST_NAME = 255
# Reasons and notes in the words of older versions, and what they are called now.
_OLD_WORDS = tuple(
    (re.compile(old), new)
    for old, new in (
        (
            rb"the client was the limit: give it a core of its own, or make less load",
            b"the load generator was the bottleneck: give it its own core, or reduce the load",
        ),
        (
            rb"([\d.]+) ?% of events were read so late that a later one had come",
            rb"loadbench read \1 % of events so late that a later one had already arrived",
        ),
        (
            rb"events came together in one read, and the event loop was late",
            b"events came together in one read, because loadbench read late",
        ),
        (
            rb"of (\d+) of (\d+) answers the server tells a longer way to the first token than was seen",
            rb"for \1 of \2 responses the server reports a longer time to first token than was measured",
        ),
        (
            rb"one of the two (?:counts otherwise|measures something else), or other requests.*: see the verdict",
            b"the server counts in another way: rely on the measured time, unless the verdict says loadbench read late",
        ),
    )
)
# Nobody waits longer for a disk that does not respond.
HANGS_S = 10.0
# What decoding raises for a file that is not what it should be.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class SchemaName(msgspec.Struct):
    """The one key that every result has."""

    schema: str


class RunPlace:
    """Where a run is, with all its parts. If it cannot be written there any more, it goes on in another place.

    `left` says which place it has left, and why; `unwritten` what could be written nowhere, by file, with the reason.
    """

    def __init__(self, path: Path, *, may_move: bool = True) -> None:
        self.path = path
        self.left = ""
        self.unwritten: dict[str, str] = {}
        self.say: Callable[[str], None] = lambda _: None
        self.hold: Callable[[RunPlace], None] = lambda _: None  # called for each folder that the run is in
        self.release: Callable[[], object] = lambda: None  # what `hold` holds, when the run is over
        self.lock = threading.RLock()  # the logs are written by threads
        self._may_move = may_move
        self._to_save: dict[tuple[RunFolder, str], bytes] = {}  # the newest content of each file
        self._queue = threading.Lock()
        self._saver: threading.Thread | None = None
        self._hangs = False
        self._failure: BaseException | None = None

    def save(self, folder: RunFolder, name: str, content: bytes) -> bool:
        """Replace one file of the run; returns whether that has ended. A thread does it: a disk that does not respond
        holds a measurement up once, and then what is newest waits for it.
        """
        with self._queue:
            self._to_save[folder, name] = content
            saver, waits_s = self._saver, 0 if self._hangs else HANGS_S
            if saver is None:
                saver, waits_s = threading.Thread(target=self._save_all, name="save", daemon=True), HANGS_S
                self._saver = saver
                try:
                    saver.start()
                except RuntimeError:  # this machine has no thread left
                    self._saver = saver = None
        if saver is None:
            self._save_all()
        else:
            saver.join(waits_s)
        self._hangs = saver is not None and saver.is_alive()
        self._raise_failure()
        return not self._hangs

    def _save_all(self) -> None:
        while True:
            with self._queue:
                if not self._to_save:
                    self._saver = None
                    return
                folder, name = next(iter(self._to_save))
                content = self._to_save.pop((folder, name))
            try:
                folder.save_now(name, content)
            except BaseException as error:  # noqa: BLE001 - raised again where it was to be saved
                self._failure = error

    def wait(self) -> None:
        """Until all is saved, or the disk has had its time; raises what went wrong with it, as `save` does."""
        saver = self._saver
        if saver is not None:
            saver.join(HANGS_S)
        self._raise_failure()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def move(self, reason: OSError) -> bool:
        """Go on in another place, with what the run has by now; returns whether there is one.

        A run moves once. A file that is too large for this process or this user would be so in every place.
        """
        with self.lock:
            if not self._may_move or reason.errno == errno.EFBIG:
                return False
            self._may_move = False
            before, name = self.path, self.path.name
            # If the long files do not fit, they stay where they are up to now.
            for place, leave in ((place, leave) for leave in ((), ("*.jsonl",)) for place in other_places()):
                ignored = shutil.ignore_patterns(".*.part", *leave)
                folder = None
                try:
                    size = sum(file.stat().st_size for file in before.rglob("*") if not ignored("", [file.name]))
                    if shutil.disk_usage(place).free < size + RESERVED_BYTES:
                        continue
                    folder = Path(tempfile.mkdtemp(prefix="loadbench-", dir=place))
                    if before.exists():
                        shutil.copytree(before, folder / name, ignore=ignored, symlinks=True)
                    (folder / name).mkdir(mode=0o700, exist_ok=True)
                except OSError:
                    if folder is not None:
                        shutil.rmtree(folder, ignore_errors=True)
                    continue
                self.path = folder / name
                self.hold(self)
                self.left = f"{before} cannot be written: {reason.strerror or reason}"
                self.left += f"; {', '.join(leave)} up to then are there" if leave else ""
                self.say(f"{self.left}; the run goes on in {self.path}")
                return True
            return False

    @property
    def exit_code(self) -> ExitCode:
        """OK if all of the run is where it was to be: what a command exits with if nothing else has gone wrong."""
        return ExitCode.BAD_INPUT if self.unwritten or self.left else ExitCode.OK

    @property
    def saved(self) -> str:
        """Where the run is and what is missing: the last line for the user."""
        text = f"saved in {self.path}"
        if self.unwritten:
            missing = "; ".join(f"{file}: {reason}" for file, reason in self.unwritten.items())
            text = f"not all is saved in {self.path}: {missing}"
        return f"{text} ({self.left})" if self.left else text


class RunFolder:
    """A folder that belongs to one run: its place, or the part of it with these names."""

    def __init__(self, place: Path | RunPlace, *names: str) -> None:
        self.place = place if isinstance(place, RunPlace) else RunPlace(place)
        self._names = names

    @property
    def path(self) -> Path:
        """Where it is now."""
        return self.place.path.joinpath(*self._names)

    @classmethod
    def create(cls, out: Path, *, name: str, started_at: datetime) -> RunFolder:
        """Make the folder, readable by its owner only; raises `BadInput` if it cannot be made.

        Runs of one name that begin in the same second get a folder each.
        """
        check_folder(out, name=name)
        first = path = out / f"{started_at:%Y%m%dT%H%M%SZ}-{slug(name)}"
        try:
            out.mkdir(parents=True, exist_ok=True)
            for number in count(2):
                try:
                    path.mkdir(mode=0o700)
                    break
                except FileExistsError:
                    path = first.with_name(f"{first.name}-{number}")
            (path / ".probe").write_bytes(b"")
            (path / ".probe").unlink()
        except OSError as error:
            raise BadInput(
                f"{path}: cannot be written: {error.strerror or error}", hint="name another folder with --out"
            ) from None
        return cls(path)

    def inside(self, *names: str) -> RunFolder:
        """A folder in this one for a run that is part of it."""
        part = RunFolder(self.place, *self._names, *names)
        part.make()
        return part

    def make(self) -> None:
        """Make it if it is not there; what is written to it then says why that fails."""
        with contextlib.suppress(OSError):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, name: str, content: bytes) -> None:
        """Replace one file as a whole: a reader sees the old or the new one, and a crash loses neither.

        Raises `BadInput`, caused by the `OSError`, if it cannot be written.
        """
        target, draft = self.path / name, self.path / f".{name}.part"
        try:
            # A draft that was left here, or a link that somebody put here, is not written to.
            draft.unlink(missing_ok=True)
            with draft.open("xb") as file:
                with contextlib.suppress(OSError):
                    if stat.S_ISREG(mode := target.lstat().st_mode):  # who may read it is the user's choice
                        draft.chmod(mode & 0o777)
                file.write(content)
                file.flush()
                try:
                    os.fsync(file.fileno())
                except OSError as error:
                    if error.errno not in _NO_SYNC:
                        raise
            pauses = iter(_REPLACE_AGAIN_S)
            while True:
                try:
                    draft.replace(target)
                    break
                except PermissionError:
                    if (pause_s := next(pauses, None)) is None:
                        raise
                    time.sleep(pause_s)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise BadInput(
                f"{target}: cannot be written: {error.strerror or error}",
                hint="free some space, or name another folder with --out",
            ) from error

    def save(self, name: str, content: bytes) -> None:
        """Replace one file, in another place if need be; one that can be kept nowhere, or not yet, is `unwritten`."""
        if not self.place.save(self, name, content):
            self.give_up(name, "the disk does not respond")

    def save_now(self, name: str, content: bytes) -> None:
        """The same, however long it takes."""
        while True:
            self.make()
            before = self.place.path
            try:
                self.write(name, content)
            except BadInput as error:
                reason = error.__cause__
                assert isinstance(reason, OSError)  # noqa: S101 - `write` says so
                if self.place.path != before or self.place.move(reason):
                    continue
                if name.endswith(".json") and b"\n  " in content:
                    # Half as large without the white space that is there for people.
                    content = msgspec.json.format(content, indent=-1)
                    continue
                self.give_up(name, reason.strerror or str(reason))
                return
            with self.place.lock:
                is_here = (
                    self.place.path == before
                )  # if not, a log has moved the run meanwhile, and may not have had this
            if is_here:
                self.kept(name)
                return

    def kept(self, name: str) -> None:
        """The newest content of this file is where it should be."""
        self.place.unwritten.pop("/".join((*self._names, name)), None)

    def give_up(self, name: str, reason: str) -> None:
        """The newest content of this file is nowhere: report that once."""
        place, file = self.place, "/".join((*self._names, name))
        if file not in place.unwritten:
            place.say(f"cannot write {self.path / name}: {reason}")
        place.unwritten[file] = reason


def free_bytes(folder: Path) -> int | None:
    """The free space where this folder is or will be; `None` if the system does not say."""
    try:
        return shutil.disk_usage(
            next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
        ).free
    except (OSError, StopIteration):
        return None


def other_places() -> list[str]:
    """Where to write what cannot be written where it should be: on most systems two of them are on other disks."""
    places = []
    with contextlib.suppress(OSError):  # none is left in which a file can be written
        places.append(tempfile.gettempdir())
    return [*places, os.path.expanduser("~"), "/dev/shm"]  # noqa: S108, PTH111 - for a folder of its own


def keep_elsewhere(name: str, content: bytes) -> Path | None:
    """Write a file that cannot be written where it should be to a temporary folder; `None` if that fails as well."""
    for place in other_places():
        with contextlib.suppress(OSError, BadInput):
            folder = Path(tempfile.mkdtemp(prefix="loadbench-", dir=place))
            RunFolder(folder).write(name, content)
            return folder / name
    return None


def write_or_keep(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file as a whole, in place of one that is there if it may `replace` it. Raises `BadInput` if that fails,
    and says where the content is instead."""
    try:
        if replace:
            RunFolder(path.parent).write(path.name, content)
        else:
            try:
                write_new(path, content, replace=False)
            except OSError as error:
                reason = error.strerror or error
                raise BadInput(f"{path}: cannot be written: {reason}", hint="name another file") from error
    except BadInput as error:
        kept = keep_elsewhere(path.name, content)
        error.message += "" if kept is None else f"; it is in {kept}"
        raise


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


def open_plain(path: Path, *, named: bool = False) -> BinaryIO:
    """A plain file, to be read. Raises `OSError` for anything else: a pipe would be waited for, a device never ends,
    and a link in a run folder leads to a file that is not the run's. One that the user has `named` may be a link.
    """
    flags = getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | (0 if named else getattr(os, "O_NOFOLLOW", 0))
    try:
        file = os.open(path, os.O_RDONLY | flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a link, which is not followed", path) from None
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "is no plain file", path)
    return os.fdopen(file, "rb")


def read_plain(path: Path, *, named: bool = False, most_bytes: int = MOST_BYTES) -> bytes:
    """The content of a plain file; raises `OSError` as `open_plain`, and for one with more than these bytes."""
    with open_plain(path, named=named) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise OSError(errno.EFBIG, f"larger than {most_bytes >> 20} MiB", path)
        return file.read(size)


@contextmanager
def contradictions_in(path: object) -> Iterator[None]:
    """What is computed from a file of results: values that no run has are a fault of the file. Raises `BadInput`."""
    try:
        yield
    except (ArithmeticError, LookupError, ValueError) as error:
        raise BadInput(
            f"{path}: its values are not those of a run: {type(error).__name__}: {error}",
            hint="restore it from a copy, or measure again",
        ) from error


def is_part(folder: Path, name: str) -> bool:
    """Whether a name that a file has is that of a folder in its own: a file does not choose others. It is one that
    every system can have, and no link."""
    return (
        0 < len(name.encode()) <= _LONGEST_NAME and Path(name).name == name != ".." and not (folder / name).is_symlink()
    )


def folder_of(path: Path) -> Path:
    """The run folder that a path names, by itself or by its `run.json`."""
    return path if path.is_dir() else path.parent


def read_run(path: Path) -> Run:
    """The run in a folder, or in a `run.json`.

    Raises `BadInput` if there is none, or the file has a version that this loadbench does not know.
    """
    inside = path.is_dir()
    file = path / "run.json" if inside else path
    try:
        raw = read_plain(file, named=not inside)
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
        run = msgspec.json.decode(raw, type=Run)
    except UNREADABLE as error:
        raise BadInput(f"{file}: the file is damaged: {error}", hint="restore it from a copy") from None
    return run if not any(old.search(raw) for old, _ in _OLD_WORDS) else _in_todays_words(run)


def _in_todays_words(run: Run) -> Run:
    """The run with reasons and notes as today's version writes them, so that a report has one name for one thing."""

    def reworded(reasons: Sequence[Reason]) -> list[Reason]:
        texts = [[reason.message, reason.advice] for reason in reasons]
        for old, new in _OLD_WORDS:
            texts = [[old.sub(new, text.encode()).decode() for text in of_reason] for of_reason in texts]
        return [
            msgspec.structs.replace(reason, message=message, advice=advice)
            for reason, (message, advice) in zip(reasons, texts, strict=True)
        ]

    levels = [
        msgspec.structs.replace(
            level,
            caveats=reworded(level.caveats),
            verdict=msgspec.structs.replace(level.verdict, reasons=reworded(level.verdict.reasons)),
        )
        for level in run.levels
    ]
    return msgspec.structs.replace(run, levels=levels)
