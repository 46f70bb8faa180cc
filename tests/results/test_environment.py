"""Where a run took place: enough to judge whether two runs may be compared, and no more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from loadbench.results.environment import environment


def told() -> dict:
    """The environment, through JSON as in a result."""
    return json.loads(json.dumps(environment(event_loop="asyncio", stamp_source="user")))


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A work tree with one commit, which the test runs in."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "file").write_text("one")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "file"], [*who, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", *command], check=True, capture_output=True)
    return tmp_path


def test_machine_and_software_are_named():
    """Host, processor, cores, system, Python, packages, loop and stamps; each is there."""
    found = told()
    assert {"host", "cpu", "cores", "os", "python", "packages", "event_loop", "stamp_source", "git"} <= set(found)
    assert found["cpu"]
    assert 1 <= found["cores"] <= os.cpu_count()
    assert (found["event_loop"], found["stamp_source"]) == ("asyncio", "user")
    assert found["packages"]["httpx"][0].isdigit()


def test_nothing_of_the_environment_variables_is_told(monkeypatch):
    """Keys live there."""
    monkeypatch.setenv("LOADBENCH_API_KEY", "sk-very-secret")
    assert "sk-very-secret" not in json.dumps(told())


def test_commit_and_changes_of_the_work_tree(tree):
    """A clean tree is its commit; a changed file makes it dirty, a new one does not."""
    (tree / "results").mkdir()
    clean = told()["git"]
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tree / "file").write_text("two")
    assert told()["git"] == {"commit": clean["commit"], "dirty": True}


def test_outside_of_a_work_tree_there_is_none(tmp_path, monkeypatch):
    """Null, not an empty commit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert told()["git"] is None


def test_machine_without_git_is_no_fault(monkeypatch):
    """Git is a convenience."""
    monkeypatch.setenv("PATH", "")
    assert told()["git"] is None
