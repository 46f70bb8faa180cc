"""The limit on open files: raised as far as is needed and allowed, refused before a run otherwise."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from loadbench.client.descriptors import descriptor_limit, ensure_descriptors
from loadbench.core.errors import BadInput

resource = pytest.importorskip("resource", reason="this system has no such limit")
INFINITE = resource.RLIM_INFINITY


class Limit:
    """The limit of a process that is not this one; a child of the real functions in all but the number."""

    def __init__(self, monkeypatch, soft: int, hard: int, *, stubborn: bool = False) -> None:
        self.now = (soft, hard)
        self.stubborn = stubborn
        fake = SimpleNamespace(
            RLIMIT_NOFILE=resource.RLIMIT_NOFILE, RLIM_INFINITY=INFINITE, getrlimit=self._get, setrlimit=self._set
        )
        monkeypatch.setitem(sys.modules, "resource", fake)

    def _get(self, kind: int) -> tuple[int, int]:
        assert kind == resource.RLIMIT_NOFILE
        return self.now

    def _set(self, kind: int, limits: tuple[int, int]) -> None:
        assert kind == resource.RLIMIT_NOFILE
        if self.stubborn:
            raise ValueError("not allowed")
        self.now = limits


@pytest.mark.parametrize("soft", [1024, 100_000, INFINITE])
def test_enough_is_left_alone(monkeypatch, soft):
    """A limit that fits is not touched."""
    limit = Limit(monkeypatch, soft, INFINITE)
    ensure_descriptors(500)
    assert limit.now == (soft, INFINITE)


@pytest.mark.parametrize("hard", [4096, INFINITE])
def test_limit_is_raised_by_what_is_needed(monkeypatch, hard):
    """The soft limit goes up so far that all connections fit with room for the rest; the hard one stays."""
    limit = Limit(monkeypatch, 256, hard)
    ensure_descriptors(1000)
    assert 1000 < limit.now[0] <= 4096
    assert limit.now[1] == hard


def test_hard_limit_is_bad_input(monkeypatch):
    """Where the system forbids it, the message has both numbers and what to do, and nothing is changed."""
    limit = Limit(monkeypatch, 256, 1024)
    with pytest.raises(BadInput, match=r"1000 requests in flight need \d+ open files.*1024.*ulimit -n.*--users"):
        ensure_descriptors(1000)
    assert limit.now == (256, 1024)


def test_refusal_of_the_system_is_bad_input(monkeypatch):
    """A limit that looks free and is not (macOS has such) is told like one that is known."""
    Limit(monkeypatch, 256, INFINITE, stubborn=True)
    with pytest.raises(BadInput, match=r"not allowed.*ulimit -n"):
        ensure_descriptors(10_000)


def test_limit_of_this_process_can_be_read():
    """It is what the system says."""
    assert descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)


def test_windows_has_no_limit(monkeypatch):
    """Where there is no such limit nothing is asked and nothing refused."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)  # an import would fail
    assert descriptor_limit() is None
    ensure_descriptors(1_000_000)
