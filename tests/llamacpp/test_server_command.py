"""loadbench starts a real llama.cpp server, measures its cold start, and ends it."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.running import loadbench, started
from tests.core.test_guard import until, with_mark

pytestmark = pytest.mark.engine
ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(llamacpp, tmp_path) -> Path:
    """A small model, whose file no other process has on its command line; skips where there is no engine."""
    assert llamacpp
    from tests.llamacpp.tiny_gguf import Shape, write_tiny_gguf  # noqa: PLC0415 - only where there is an engine

    path = tmp_path / f"mark-{uuid4().hex}.gguf"
    write_tiny_gguf(path, Shape(ends=False))
    return path


def flags(model: Path) -> list[str]:
    """What starts the server."""
    words = shlex.join([sys.executable, "-m", "tests.llamacpp.serve", str(model), "--parallel=2"])
    return [f"--server-cmd={words} --port={{port}}", f"--server-env=PYTHONPATH={ROOT}", "--max-tokens=16"]


def test_a_cold_start_is_measured(model, tmp_path):
    """The model's file is part of the resident memory, and the first response comes after the server is ready."""
    levels = ("--users=1,2", "--requests=10", "--warm-up=0s")
    result = loadbench("sweep", *flags(model), *levels, cwd=tmp_path)
    assert result.returncode in {0, 4, 5}, result.stderr
    assert with_mark(model.name) == []
    (path,) = tmp_path.rglob("run.json")
    run = json.loads(path.read_text(encoding="utf-8"))
    assert [level["outcomes"] for level in run["levels"]] == [{"ok": 10}, {"ok": 10}]
    begun = run["server_start"]
    assert 0 < begun["ready_s"] < begun["first_response_s"]
    assert begun["cold_ttft_s"] > 0
    assert model.stat().st_size < begun["memory_loaded_bytes"] <= begun["memory_peak_bytes"]
    assert "READY http://127.0.0.1:" in (path.parent / "server.log").read_text(encoding="utf-8")
    assert "started by loadbench: ready" in result.stdout


def test_it_is_gone_when_loadbench_is_killed(model, tmp_path):
    """In the middle of a level."""
    options = ("--users=2", "--duration=300s", "--warm-up=0s", "--no-live")
    with started("sweep", *flags(model), *options, cwd=tmp_path) as process:
        assert process.stderr is not None
        until(lambda: "begins" in process.stderr.readline())
        assert with_mark(model.name)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    until(lambda: not with_mark(model.name))
