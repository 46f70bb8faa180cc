"""The run folder: made once, replaced as a whole, and read with a clear word for everything that is no run."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loadbench.cli.measuring import say_saved
from loadbench.core.errors import BadInput
from loadbench.results import folder as folder_module
from loadbench.results.folder import RunFolder, read_run, slug, write_or_keep
from loadbench.results.run import Reason, Verdict, to_json
from tests.building import a_level, a_run

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OLD, NEW = b"old" * 30_000, b"new" * 50_000


def a_folder(out, *, name: str = "trial") -> RunFolder:
    """A folder below `out`."""
    return RunFolder.create(out, name=name, started_at=STARTED)


def names(folder: RunFolder) -> list[str]:
    """What lies in it."""
    return sorted(path.name for path in folder.path.iterdir())


# Made once.


def test_folder_is_named_by_time_and_name(tmp_path):
    """UTC time first, so that folders sort by age; parents are made; nothing lies in it yet."""
    folder = a_folder(tmp_path / "deep" / "results", name="8 users: warm")
    assert folder.path == tmp_path / "deep" / "results" / "20260102T030405Z-8-users-warm"
    assert names(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_folder_is_for_its_owner_only(tmp_path):
    """Prompts and addresses in a result are nobody else's business."""
    assert stat.S_IMODE(a_folder(tmp_path).path.stat().st_mode) & 0o077 == 0


def test_run_is_never_written_over(tmp_path):
    """Runs of one name that begin in one second, at the same moment too, have a folder each."""
    folder = a_folder(tmp_path)
    folder.write("run.json", OLD)
    with ThreadPoolExecutor(8) as pool:
        others = list(pool.map(lambda _: a_folder(tmp_path), range(16)))
    assert len({one.path for one in (folder, *others)}) == 17
    assert others[0].path.name.startswith(f"{folder.path.name}-")
    assert (folder.path / "run.json").read_bytes() == OLD


def test_file_in_place_of_the_results_folder_is_told(tmp_path):
    """A file where runs should go is named as such, and is not touched."""
    out = tmp_path / "results"
    out.write_text("mine")
    with pytest.raises(BadInput, match="is a file, not a folder"):
        a_folder(out)
    with pytest.raises(BadInput, match="results: is a file, not a folder"):
        a_folder(out / "below")
    assert out.read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_the_right_to_write_is_told(tmp_path):
    """A read-only results folder ends in one message before anything is measured."""
    tmp_path.chmod(0o500)
    with pytest.raises(BadInput, match="cannot be written"):
        a_folder(tmp_path)
    tmp_path.chmod(0o700)


# Names.


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("aB7.-_ /"), min_size=1, max_size=120))
def test_slug_is_fit_for_every_file_system(name):
    """Letters, digits, dots and dashes, neither of these at the ends, at most 80."""
    try:
        plain = slug(name)
    except BadInput:
        assume(False)
    assert re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,78}[A-Za-z0-9_])?", plain)


@pytest.mark.parametrize("name", ["", "..", "../..", "///", "nul", "COM1.txt", "—"])
def test_what_cannot_name_a_folder_is_refused(name):
    """Neither a way out of the results folder nor a name that Windows keeps for a device."""
    with pytest.raises(BadInput, match="cannot be a folder name"):
        slug(name)


def test_name_cut_short_does_not_end_in_a_dot():
    """Windows drops a dot at a name's end: the cut must not make one."""
    assert slug("a" * 79 + ".b") == "a" * 79


# Replaced as a whole.


@pytest.mark.skipif(sys.platform == "win32", reason="Windows refuses to replace what is being read")
def test_reader_sees_the_old_or_the_new(tmp_path):
    """However often a file is replaced under a reader, what is read is one of the two, whole."""
    folder = a_folder(tmp_path)
    folder.write("run.json", OLD)
    done = threading.Event()
    seen: list[bytes] = []

    def read() -> None:
        while not done.is_set():
            seen.append((folder.path / "run.json").read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(30):
        folder.write("run.json", NEW)
        folder.write("run.json", OLD)
    done.set()
    reader.join()
    assert seen
    assert set(seen) <= {OLD, NEW}


def assert_write_fails(folder: RunFolder, *, before: list[str]) -> None:
    """The write is refused with the file's name, and nothing of it is left."""
    with pytest.raises(BadInput, match=r"run\.json: cannot be written") as refused:
        folder.write("run.json", NEW)
    assert refused.value.hint
    assert names(folder) == before


def test_full_disk_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    """A disk that has no room at the last moment loses nothing that was there."""
    folder = a_folder(tmp_path)
    folder.write("run.json", OLD)

    def no_room(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_room)
    assert_write_fails(folder, before=["run.json"])
    assert (folder.path / "run.json").read_bytes() == OLD


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of sizes of files")
def test_write_that_fails_leaves_no_draft(tmp_path):
    """The same where it is the write that fails, not the flush to the disk."""
    import resource  # noqa: PLC0415 - not on Windows

    folder = a_folder(tmp_path)
    folder.write("run.json", OLD)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        assert_write_fails(folder, before=["run.json"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (folder.path / "run.json").read_bytes() == OLD


def test_a_link_in_the_place_of_a_draft_is_not_written_through(tmp_path):
    """Whoever hands over a folder does not choose which other file is overwritten."""
    folder = a_folder(tmp_path)
    (tmp_path / "victim").write_bytes(OLD)
    (folder.path / ".run.json.part").symlink_to(tmp_path / "victim")
    folder.write("run.json", NEW)
    assert [path.read_bytes() for path in (tmp_path / "victim", folder.path / "run.json")] == [OLD, NEW]
    assert names(folder) == ["run.json"]


def test_folder_in_the_way_leaves_no_draft(tmp_path):
    """A folder of the file's name cannot be replaced, which is told."""
    folder = a_folder(tmp_path)
    (folder.path / "run.json").mkdir()
    assert_write_fails(folder, before=["run.json"])


def test_folder_that_went_away_is_told(tmp_path):
    """Who deletes the folder during a run gets a message, not a fault."""
    folder = a_folder(tmp_path)
    folder.path.rmdir()
    with pytest.raises(BadInput, match="cannot be written"):
        folder.write("run.json", NEW)


# A place that cannot be written.


@pytest.fixture
def other(tmp_path, monkeypatch):
    """The only other place for runs, which has room."""
    place = tmp_path / "other"
    place.mkdir()
    monkeypatch.setattr(folder_module, "other_places", lambda: [str(place)])
    return place


def no_write(monkeypatch, error: int, *, below) -> None:
    """Nothing can be written in this folder from now on."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if str(below) in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(error, os.strerror(error))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the file of a descriptor in /proc")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_run_goes_on_in_another_place(tmp_path, other, monkeypatch, error):
    """All that it had goes along, its parts too; the user is told where it is, and a command must not exit with 0."""
    folder, said = a_folder(tmp_path), []
    folder.place.say = said.append
    part = folder.inside("a", "01")
    before = folder.path
    folder.save("run.json", OLD)
    part.save("run.json", OLD)
    (part.path / "requests.jsonl").write_bytes(b"{}\n")
    assert (folder.place.saved, folder.place.exit_code) == (f"saved in {before}", 0)

    no_write(monkeypatch, error, below=before)
    part.save("run.json", NEW)
    folder.save("report.md", OLD)
    assert folder.path.is_relative_to(other)
    assert part.path == folder.path / "a" / "01"
    found = {str(path.relative_to(folder.path)): path.read_bytes() for path in folder.path.rglob("*.*")}
    assert found == {"run.json": OLD, "a/01/run.json": NEW, "a/01/requests.jsonl": b"{}\n", "report.md": OLD}
    assert stat.S_IMODE(folder.path.stat().st_mode) & 0o077 == 0
    assert (len(said), folder.place.exit_code) == (1, 2)
    assert folder.place.saved == f"saved in {folder.path} ({before} cannot be written: {os.strerror(error)})"
    # What was there before stays there, and nothing half written.
    assert (before / "a" / "01" / "run.json").read_bytes() == OLD
    assert not list(tmp_path.rglob(".*.part"))


@pytest.mark.skipif(sys.platform != "linux", reason="finds the file of a descriptor in /proc")
def test_run_that_can_be_kept_nowhere_says_so_until_it_can(tmp_path, monkeypatch):
    """Each file is tried for itself and again at the next save; what is missing is named in the last line."""
    monkeypatch.setattr(folder_module, "other_places", lambda: [str(tmp_path / "absent")])
    folder, said = a_folder(tmp_path), []
    folder.place.say = said.append
    folder.save("run.json", OLD)
    with monkeypatch.context() as full:
        no_write(full, errno.ENOSPC, below=folder.path)
        folder.save("run.json", NEW)
        folder.save("run.json", NEW)
    folder.save("report.md", OLD)
    reason = os.strerror(errno.ENOSPC)
    assert said == [f"cannot write {folder.path / 'run.json'}: {reason}"]
    assert folder.place.saved == f"not all is saved in {folder.path}: run.json: {reason}"
    assert (folder.place.exit_code, (folder.path / "report.md").read_bytes()) == (2, OLD)
    folder.save("run.json", NEW)
    assert (folder.place.saved, folder.place.exit_code) == (f"saved in {folder.path}", 0)


def test_a_failure_after_the_last_save_is_raised_at_the_end(tmp_path, monkeypatch):
    """What goes wrong in the thread while nobody waits for it, and that is no error of the disk, is not kept quiet."""
    monkeypatch.setattr(folder_module, "HANGS_S", 0.05)
    folder, goes_on = a_folder(tmp_path), threading.Event()

    def slow(*_: object) -> None:
        goes_on.wait(30)
        raise ZeroDivisionError

    monkeypatch.setattr(folder, "save_now", slow)
    folder.save("run.json", OLD)
    assert "does not respond" in folder.place.saved
    goes_on.set()
    monkeypatch.setattr(folder_module, "HANGS_S", 30)
    with pytest.raises(ZeroDivisionError):
        folder.place.wait()
    folder.place.wait()


def test_the_last_line_waits_for_what_is_saved_last(tmp_path, monkeypatch, capsys):
    """The files of a group, such as the searches of several models, come after those of its runs."""
    monkeypatch.setattr(folder_module, "HANGS_S", 0.05)
    folder, goes_on, real = a_folder(tmp_path), threading.Event(), RunFolder.save_now

    def slow(*given: object) -> None:
        goes_on.wait(30)
        real(*given)

    with monkeypatch.context() as hanging:
        hanging.setattr(RunFolder, "save_now", slow)
        folder.save("capacities.json", OLD)
    monkeypatch.setattr(folder_module, "HANGS_S", 30)
    threading.Timer(0.1, goes_on.set).start()
    say_saved(folder.place, quiet=False)
    assert (capsys.readouterr().err, folder.place.exit_code) == (f"saved in {folder.path}\n", 0)


def test_long_files_stay_where_the_other_place_has_no_room_for_them(tmp_path, other, monkeypatch):
    """The result goes along; the log goes on in the new place, and the last line says where its beginning is."""
    folder = a_folder(tmp_path)
    folder.save("run.json", OLD)
    (folder.path / "requests.jsonl").write_bytes(b"x" * 1_000_000)
    room = SimpleNamespace(free=folder_module.RESERVED_BYTES + 500_000)
    monkeypatch.setattr(folder_module.shutil, "disk_usage", lambda _: room)
    assert folder.place.move(OSError(errno.ENOSPC, "full"))
    assert names(folder) == ["run.json"]
    assert "*.jsonl up to then are there" in folder.place.saved
    assert list(other.iterdir()) == [folder.path.parent]


def test_file_that_is_too_large_moves_nothing(tmp_path, other, monkeypatch):
    """The limit of this process would hold in every place; JSON without white space may still fit."""
    folder, run = a_folder(tmp_path), to_json(a_run())
    whole = RunFolder.write

    def write(self, name: str, content: bytes) -> None:
        if len(content) > len(run) - 1000:
            raise BadInput(name) from OSError(errno.EFBIG, "too large")
        whole(self, name, content)

    monkeypatch.setattr(RunFolder, "write", write)
    folder.save("run.json", run)
    folder.save("histograms.hlog", run)
    assert (names(folder), list(other.iterdir())) == (["run.json"], [])
    assert read_run(folder.path) == a_run()
    assert folder.place.unwritten == {"histograms.hlog": "too large"}


def test_file_for_which_there_is_no_run_is_kept_elsewhere(tmp_path, other):
    """What was collected for it is not lost; the message says where it is."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInput, match="cannot be written") as refused:
        write_or_keep(tmp_path / "file" / "annotation.json", NEW)
    (kept,) = other.glob("loadbench-*/annotation.json")
    assert refused.value.message.endswith(f"; it is in {kept}")
    assert kept.read_bytes() == NEW


def test_folder_that_went_away_is_made_again(tmp_path):
    """Who deletes the folder during a run loses what was in it, and no more."""
    folder = a_folder(tmp_path)
    folder.path.rmdir()
    folder.save("run.json", NEW)
    assert (folder.path / "run.json").read_bytes() == NEW
    assert folder.place.exit_code == 0


# Read again.


def test_run_is_read_from_its_folder_or_its_file(tmp_path):
    """Both name the run, and what is read is what was written."""
    folder, run = a_folder(tmp_path), a_run()
    folder.write("run.json", to_json(run))
    assert read_run(folder.path) == read_run(folder.path / "run.json") == run


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a loadbench result"),
        (b"hello", "not a loadbench result"),
        (b"[1, 2]", "not a loadbench result"),
        (b'{"name": "x"}', "not a loadbench result"),
        (b'{"schema": "\xff"}', "not a loadbench result"),
        (b'{"schema": "loadbench.run/1", "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "not a loadbench result"),
        (b'{"schema": "loadbench.run/2"}', "schema 'loadbench.run/2'"),
        (b'{"schema": "loadbench.run/1"}', "damaged"),
        (to_json(a_run()).replace(b'"complete": true', b'"complete": "yes"'), "damaged"),
        (to_json(a_run()).replace(b'"window_s": 100.0', b'"window_s": 1e999'), "damaged"),
        (to_json(a_run()).replace(b'"trial"', b'"tri\xffal"'), "damaged"),
        (to_json(a_run())[:-200], "not a loadbench result"),
        (b"\0" * 64, "not a loadbench result"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, content, message):
    """Garbage, another version and a damaged file: each is told by its name with what to do."""
    file = tmp_path / "run.json"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=re.escape(message)) as refused:
        read_run(file)
    assert str(file) in refused.value.message
    assert refused.value.hint


def test_missing_run_is_refused(tmp_path):
    """Neither a path to nothing nor a folder without a run is a run."""
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(BadInput, match="No such file"):
            read_run(path)


@given(st.binary(max_size=200))
def test_no_bytes_whatever_break_the_reader(tmp_path_factory, content):
    """Any file is read or refused."""
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_bytes(content)
    with pytest.raises(BadInput):
        read_run(file)


@pytest.mark.parametrize(("reason", "fails"), [(errno.EINVAL, False), (errno.ENOSYS, False), (errno.EIO, True)])
def test_file_system_that_cannot_sync_is_no_reason_to_leave_it(tmp_path, monkeypatch, reason, fails):
    """One that fails to is."""

    def fail(_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(BadInput) if fails else contextlib.nullcontext():
        RunFolder(tmp_path).write("run.json", b"{}")
    assert (tmp_path / "run.json").exists() is not fails


def test_a_file_that_was_made_meanwhile_is_not_written_over(tmp_path, monkeypatch):
    """Unless it may be replaced; what was to be in it is kept elsewhere, and the message says where."""
    path = tmp_path / "annotation.json"
    path.write_bytes(b"scores")
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(folder_module, "other_places", lambda: [str(tmp_path / "kept")])
    with pytest.raises(BadInput, match="cannot be written: File exists; it is in ") as caught:
        write_or_keep(path, b"new", replace=False)
    assert path.read_bytes() == b"scores"
    assert Path(caught.value.message.rpartition(" it is in ")[2]).read_bytes() == b"new"
    write_or_keep(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_run_of_an_older_version_has_its_reasons_in_todays_words(tmp_path):
    """One thing has one name in a report, whichever version measured; prompts and figures stay as they are."""
    client = "the client was the limit: give it a core of its own, or make less load"
    said = "of 1 of 9 answers the server tells a longer way to the first token than was seen"
    late = Reason("late_reads", "5.7% of events were read so late that a later one had come", client)
    verdict = Verdict("INVALID", [late])
    level = msgspec.structs.replace(a_level(), verdict=verdict, caveats=[Reason("server_contradicts", said, "look")])
    run = msgspec.structs.replace(a_run(level), question=client)
    (tmp_path / "run.json").write_bytes(to_json(run))
    found = read_run(tmp_path)
    (reason,), (note,) = found.levels[0].verdict.reasons, found.levels[0].caveats
    assert reason.message == "loadbench read 5.7 % of events so late that a later one had already arrived"
    assert reason.advice.startswith("the load generator was the bottleneck")
    assert note.message.startswith("for 1 of 9 responses the server reports a longer time to first token")
    assert (found.question, note.advice, found.levels[0].metrics) == (client, "look", level.metrics)
