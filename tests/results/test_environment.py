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


def test_no_program_of_the_folder_is_run(tree, monkeypatch):
    """A repository of somebody else's names programs: to watch its files, hooks, filters, pagers; and has a `git`."""
    ran = tree / "ran"
    evil = tree / "git"
    evil.write_text(f"#!/bin/sh\necho $0 $@ >> {ran}\ncat\n", encoding="utf-8")
    evil.chmod(0o755)
    hooks = tree / "hooks"
    hooks.mkdir()
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        (hooks / hook).write_bytes(evil.read_bytes())
        (hooks / hook).chmod(0o755)
    (tree / ".gitattributes").write_text("* filter=evil diff=evil\n", encoding="utf-8")
    for name in ("core.fsmonitor", "core.pager", "pager.status", "core.sshCommand", "core.editor", "gpg.program"):
        subprocess.run(["git", "config", name, str(evil)], check=True)
    for name in ("filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "diff.evil.textconv"):
        subprocess.run(["git", "config", name, str(evil)], check=True)
    subprocess.run(["git", "config", "filter.evil.required", "true"], check=True)
    subprocess.run(["git", "config", "core.hooksPath", str(hooks)], check=True)
    (tree / "file").write_text("two")  # so that it has to be looked at
    for path in (os.environ["PATH"], f".{os.pathsep}{os.environ['PATH']}", f"{os.pathsep}{os.environ['PATH']}"):
        monkeypatch.setenv("PATH", path)
        ran.unlink(missing_ok=True)
        found = told()["git"]
        assert not ran.exists(), ran.read_text()
        assert (len(found["commit"]), found["dirty"]) == (40, True)
