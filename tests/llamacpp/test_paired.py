"""Two real engines in turn: the one with more slots is found to be faster, and one against itself is not.

Verdicts are set aside: a tiny model on a shared machine is faster than its client is punctual, and that meets both
sides alike. What is compared are ratios, and how they differ from repeat to repeat. Levels are of so many requests, not
of so much time, in which a machine that is busy otherwise may answer none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from loadbench.analyze.compare.compare import compare
from loadbench.results.run import Run, Verdict
from loadbench.results.saved import read_pairs
from tests.cli.running import loadbench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from loadbench.results.compare import ComparedFigure, Comparison

pytestmark = pytest.mark.engine

REPEATS = 6
SHORT = ("--requests=24", "--warm-up=100ms", "--ramp=100ms", "--settle=0s", "--telemetry=off")
WORK = ("--max-tokens=48", "--input-tokens=64")


def measured(folder: Path, *arguments: str) -> tuple[list[Run], list[Run]]:
    """The pairs of runs that `loadbench compare` left, each as valid as it can be."""
    process = loadbench("compare", *arguments, *SHORT, *WORK, f"--repeats={REPEATS}", cwd=folder)
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


def test_more_slots_answer_sooner(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """8 users wait for 4 slots and not for 8: time to first token is surely less than half, whoever comes first."""
    four, eight = llamacpp(parallel=4), llamacpp(parallel=8, ctx=16384)
    a, b = measured(tmp_path, four, eight, "--users=8")
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
