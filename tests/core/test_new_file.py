"""A file in a place that may be taken: nothing is lost without consent, and nothing half-written is left."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from loadbench.core import new_file as module
from loadbench.core.new_file import is_taken, write_new


def test_what_is_there_stays_without_consent(tmp_path):
    """A file, and a folder."""
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b").mkdir()
    for name in "ab":
        assert is_taken(tmp_path / name)
        with pytest.raises(FileExistsError):
            write_new(tmp_path / name, b"new", replace=False)
    assert (tmp_path / "a").read_bytes() == b"old"
    write_new(tmp_path / "a", b"new", replace=True)
    write_new(tmp_path / "c", b"new", replace=True)
    assert [(tmp_path / name).read_bytes() for name in "ac"] == [b"new", b"new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")
def test_a_link_leads_to_the_file_that_is_replaced(tmp_path):
    """It stays a link, also one that leads nowhere yet; without consent neither is followed."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(b"old")
    for name in ("file", "missing"):
        link = tmp_path / name
        link.symlink_to(Path("inner") / name)
        with pytest.raises(FileExistsError):
            write_new(link, b"new", replace=False)
        write_new(link, b"new", replace=True)
        assert link.is_symlink()
        assert (tmp_path / "inner" / name).read_bytes() == b"new"


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("replace", [False, True])
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, replace):
    """The old file is whole, and a new one is not there."""
    import resource  # noqa: PLC0415 - not on Windows

    path = tmp_path / "file"
    if replace:
        path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_new(path, b"new" * 10_000, replace=replace)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"old"] * replace


def test_a_file_with_a_name_as_long_as_names_may_be_is_replaced(tmp_path):
    """The draft beside it has a short name of its own."""
    path = tmp_path / ("n" * 250)
    path.write_bytes(b"old")
    write_new(path, b"new", replace=True)
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"new"]


def test_a_file_in_a_folder_that_takes_no_other_is_written_in_place(tmp_path, monkeypatch):
    """As a folder of another user with a file that everybody may write."""
    path = tmp_path / "file"
    path.write_bytes(b"old, and longer")

    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(module.os, "open", refuse)
    write_new(path, b"new", replace=True)
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"new"]


def test_other_names_of_a_file_have_its_new_content(tmp_path):
    """A file with hard links stays one file."""
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"old, and longer")
    other.hardlink_to(path)
    write_new(path, b"new", replace=True)
    assert other.read_bytes() == b"new"
    assert path.samefile(other)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root may give files away")
def test_a_file_of_another_user_stays_theirs(tmp_path):
    """Its owner and its group, with its permissions."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o640)
    os.chown(path, 65_534, 65_533)
    write_new(path, b"new", replace=True)
    about = path.stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (65_534, 65_533, 0o640)
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(sys.platform == "win32", reason="owners of POSIX")
def test_a_file_whose_owner_cannot_be_kept_is_written_in_place(tmp_path, monkeypatch):
    """As one of a group that the user is not in."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    before = path.stat()

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(module.os, "chown", refuse)
    real = type(path).stat
    other = os.stat_result([*before[:4], before.st_uid + 1, *before[5:]])
    monkeypatch.setattr(type(path), "stat", lambda one, **how: other if one == path else real(one, **how))
    write_new(path, b"new", replace=True)
    monkeypatch.undo()
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"new"]
    assert path.stat().st_ino == before.st_ino
