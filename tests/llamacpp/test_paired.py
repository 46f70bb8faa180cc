"""Two real engines in turn: the one with more slots is found to be faster, and one against itself is not.

Verdicts are set aside: a tiny model on a shared machine is faster than its client is punctual, and that meets both
sides alike. What is compared are ratios, and how they differ from repeat to repeat. Levels are of so many requests, not
of so much time, in which a machine that is busy otherwise may answer none.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec
import pytest

from loadbench.analyze.compare.compare import compare
from loadbench.results.run import Run, Verdict
from loadbench.results.saved import read_pairs
from tests.cli.running import loadbench
from tests.core.test_guard import with_mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.results.compare import ComparedFigure, Comparison

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
REPEATS = 6
SHORT = ("--requests=24", "--warm-up=100ms", "--ramp=100ms", "--settle=0s", "--telemetry=off")
WORK = ("--max-tokens=48", "--input-tokens=64")
# So long that the wait for a slot is more than what a busy machine adds.
LONG = ("--max-tokens=250", "--input-tokens=64")


def measured(folder: Path, *arguments: str, work: tuple[str, ...] = WORK) -> tuple[list[Run], list[Run]]:
    """The pairs of runs that `loadbench compare` left, each as valid as it can be."""
    process = loadbench("compare", *arguments, *SHORT, *work, f"--repeats={REPEATS}", cwd=folder)
    assert "Traceback" not in process.stderr
    (kept,) = (folder / "results").iterdir()
    a, b = read_pairs(kept)
    return [believed(run) for run in a], [believed(run) for run in b]


def believed(run: Run) -> Run:
    """The run, every request of which was answered, without the doubts about its client."""
    assert all(level.outcomes.keys() == {"ok"} for level in run.levels)
    levels = [msgspec.structs.replace(level, verdict=Verdict("VALID")) for level in run.levels]
    return msgspec.structs.replace(run, levels=levels)


def row(comparison: Comparison, metric: str) -> ComparedFigure:
    """A figure at the only level."""
    (found,) = [one for one in comparison.comparisons if one.metric == metric]
    return found


@pytest.fixture
def model(llamacpp: Callable[..., str], tmp_path: Path) -> Path:
    """A small model, whose file no other process has on its command line; skips where there is no engine."""
    assert llamacpp
    from tests.llamacpp.tiny_gguf import Shape, write_tiny_gguf  # noqa: PLC0415 - only where there is an engine

    path = tmp_path / f"mark-{uuid4().hex}.gguf"
    write_tiny_gguf(path, Shape(ends=False))
    return path


def commands(model: Path, *sides: str) -> list[str]:
    """The flags that start a server for each side, with options of its own."""
    words = shlex.join([sys.executable, "-m", "tests.llamacpp.serve", str(model), "--ctx=16384"])
    flags = [f"--{name}-cmd={words} {side} --port={{port}}" for name, side in zip("ab", sides, strict=True)]
    return [*flags, f"--server-env=PYTHONPATH={ROOT}"]


def test_restarted_servers_show_that_more_slots_answer_sooner(model: Path, tmp_path: Path) -> None:
    """8 users wait for one slot and not for 8, with only one server up: each repeat starts both, and none is left."""
    a, b = measured(tmp_path, *commands(model, "--parallel=1", "--parallel=8"), "--users=8", work=LONG)
    assert with_mark(model.name) == []
    assert all(run.one_up and run.server_start is not None and run.server_start.ready_s for run in (*a, *b))
    comparison = compare(a, b, paired=True)
    assert (len(comparison.a.starts_s), len(comparison.b.starts_s)) == (REPEATS, REPEATS)
    ttft = row(comparison, "ttft_p50")
    assert ttft.decision == "faster"
    assert ttft.ratio is not None
    assert ttft.ratio < 0.5, ttft


def test_restarted_server_is_as_fast_as_itself(model: Path, tmp_path: Path) -> None:
    """Of one command on both sides the 99.9 % intervals hold 1, and no prompt was cached."""
    a, b = measured(tmp_path, *commands(model, "--parallel=4", "--parallel=4"), "--same", "--users=4")
    assert with_mark(model.name) == []
    comparison = compare(a, b, paired=True, confidence=0.999)
    for metric in ("ttft_p50", "tpot_p50", "e2e_p50", "output_tokens_per_s"):
        found = row(comparison, metric)
        assert found.decision == "~"
        assert found.interval is not None
        assert found.interval[0] <= 1 <= found.interval[1]
    assert all(level.tokens.cached_requests == 0 for run in (*a, *b) for level in run.levels)


def test_more_slots_answer_sooner(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """8 users wait for 4 slots and not for 8: time to first token is surely less than half, whoever comes first.

    A wait is for a whole long response, some 30 times a first token without a wait.
    """
    four, eight = llamacpp(parallel=4), llamacpp(parallel=8, ctx=16384)
    a, b = measured(tmp_path, four, eight, "--users=8", work=LONG)
    ttft = row(compare(a, b, paired=True), "ttft_p50")
    assert ttft.n == (REPEATS, REPEATS)
    assert ttft.decision == "faster"
    assert ttft.interval is not None
    assert ttft.interval[1] < 0.5
    swapped = row(compare(b, a, paired=True), "ttft_p50")
    assert swapped.decision == "slower"


def test_server_is_as_fast_as_itself(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """Of one server against itself the 99.9 % intervals hold 1, and every request had a prompt of its own."""
    server = llamacpp(parallel=4)
    a, b = measured(tmp_path, server, server, "--same", "--users=4")
    comparison = compare(a, b, paired=True, confidence=0.999)
    for metric in ("ttft_p50", "tpot_p50", "e2e_p50", "output_tokens_per_s"):
        found = row(comparison, metric)
        assert found.decision == "~"
        assert found.interval is not None
        assert found.interval[0] <= 1 <= found.interval[1]
    assert all(level.tokens.cached_requests == 0 for run in (*a, *b) for level in run.levels)
    assert "same_target" in {caveat.code for caveat in comparison.caveats}
