"""Which runs are known as the user's own, and that the history stays small, private and outside run folders."""

from __future__ import annotations

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from loadbench.plan.settings import setting_of, settings
from loadbench.results import history, state
from loadbench.results.history import history_file, is_own, remember

URL = {"target": {"url": "http://127.0.0.1:1"}}
# Of each guarded setting a value as a record has it.
VALUES = {"header": {"X-A": "***"}, "header_env": {"X-A": "KEY"}, "extra_body": [{"a": 1}], "insecure": True}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")


@pytest.fixture(autouse=True)
def _state(tmp_path, monkeypatch):
    """A state folder that is not there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_a_run_is_own_once_it_was_measured():
    """Not before; what is measured again makes the history no longer."""
    assert not is_own(URL)
    remember(URL)
    remember(URL)
    assert is_own(URL)
    assert len(history_file().read_bytes().splitlines()) == 1


@pytest.mark.parametrize("key", [setting.key for setting in settings() if setting.guarded])
def test_another_choice_is_not_own(key):
    """Whatever is added to a run of the user's, or changed in it."""
    section, name = key.split(".")
    changed = {**URL, section: {**URL.get(section, {}), name: VALUES.get(name, "another")}}
    remember(URL)
    assert not is_own(changed)
    remember(changed)
    assert is_own(changed)
    assert is_own(URL)


def test_a_run_that_chooses_nothing_is_own():
    """A default is no choice, and neither is what is sent or how often."""
    record = {"work": {"prompt": "Say hello.", "max_tokens": 9}, "load": {"users": [1, 2]}}
    defaults = {setting.key: setting for setting in settings() if setting.guarded and setting.default is not None}
    for key, setting in defaults.items():
        record.setdefault(setting.section, {})[key.partition(".")[2]] = setting.type.show(setting.default)
    assert is_own(record)
    remember(record)
    assert not history_file().exists()


def test_history_is_bounded_and_keeps_the_latest(monkeypatch):
    """Three times its bound: never longer than the bound and the last is there."""
    monkeypatch.setattr(history, "_MOST_LINES", 10)
    for number in range(30):
        remember({"target": {"url": f"http://127.0.0.1:{number + 1}"}})
        assert len(history_file().read_bytes().splitlines()) <= 10
    assert is_own({"target": {"url": "http://127.0.0.1:30"}})
    assert not is_own(URL)
    assert [path.name for path in history_file().parent.iterdir()] == ["history"]


def test_runs_that_begin_together_are_all_kept():
    """Each is one write at the end of the file."""
    records = [{"target": {"url": f"http://127.0.0.1:{port}"}} for port in range(1, 101)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remember, records))
    assert all(map(is_own, records))


@POSIX
def test_only_the_user_reads_and_writes_it():
    """Also where the usual mode of files is wider; what others may have written is not believed."""
    before = os.umask(0)
    try:
        remember(URL)
    finally:
        os.umask(before)
    file = history_file()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent)] == [0o600, 0o700]
    file.chmod(0o666)
    assert not is_own(URL)


@POSIX
def test_a_history_that_cannot_be_written_is_no_error(tmp_path):
    """Then every run is somebody else's. A link is not followed."""
    history_file().parent.mkdir(parents=True)
    (tmp_path / "elsewhere").touch()
    history_file().symlink_to(tmp_path / "elsewhere")
    remember(URL)
    assert not is_own(URL)
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_no_history_is_in_the_current_folder(tmp_path, monkeypatch):
    """It may be that of somebody else's runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(state, "user_state_path", lambda *_, **__: Path("state"))
    remember(URL)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "history").write_bytes(history._line(URL))
    assert not is_own(URL)


def test_what_chooses_is_guarded():
    """Every setting that takes an address, a path or a variable is declared as one: no new one is forgotten."""
    choosing = {"URL", "FILE", "DIR", "HOST", "'K: V'", "'K: NAME'", "JSON|@FILE", "day|POINTS|FILE", "[ADDRESS:]PORT"}
    choosing |= {"CMD", "K=V"}
    wanted = {one.key for one in settings() if one.type.metavar in choosing or one.name.endswith("_env")}
    guarded = {one.key for one in settings() if one.guarded}
    chosen = {"target.adapter", "target.insecure", "target.kind", "grid.vary", "load.cluster", "load.insecure_cluster"}
    assert wanted <= guarded
    assert guarded - wanted == chosen
    keys = {one.key for one in settings() if one.name.startswith("header") or one.name.endswith("key_env")}
    assert {one.key for one in settings() if one.bound} == keys | {"target.cacert", "target.insecure"}
    assert setting_of("target.yes_load").confirms
