"""Users who give up, against a real engine: llama.cpp stops, and its counter shows it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import loadbench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.engine

TOKENS = 1200


@pytest.mark.parametrize("transport", ["fast", "httpx"])
def test_llamacpp_stops_when_a_user_leaves(llamacpp: Callable[..., str], tmp_path: Path, transport: str):
    """Its counter rises by what all users received and a few tokens more, though whole responses have many more."""
    done = loadbench(
        *("sweep", "--url", llamacpp(parallel=4), "--users", "2", "--requests", "20", "--max-tokens", str(TOKENS)),
        *("--abandon", "60%@150ms", "--transport", transport, "--workers", "1", "--out", ".", "--quiet"),
        cwd=tmp_path,
    )
    # A busy machine makes the client the limit, which is no fault here; and few users stay.
    assert done.returncode in {4, 5}, done.stderr
    (kept,) = (path.parent for path in tmp_path.rglob("run.json"))
    level = json.loads((kept / "run.json").read_text())["levels"][0]
    lines = [json.loads(line) for line in (kept / "requests.jsonl").read_text().splitlines()]
    assert set(level["outcomes"]) <= {"ok", "gave_up"}
    left = [line for line in lines if line["outcome"] == "gave_up"]
    assert len(left) > 5
    assert all(line["output_tokens"] is None or line["output_tokens"] < TOKENS for line in left)
    after = level["gave_up"]["server"]
    assert after["counter"] == "llamacpp:tokens_predicted_total"
    assert after["counted"] >= sum(line["output_tokens"] or 0 for line in lines)
    assert after["went_on"] is False, after
    assert "by its counter: users=2 stopped" in done.stdout
