"""Responses of exactly the requested length, from a real engine whose model ends its responses by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.running import loadbench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.engine

TOKENS, REQUESTS = 37, 40


def swept(url: str, folder: Path, *flags: str) -> tuple[dict[str, Any], list[int]]:
    """(a sweep's run, the output tokens of its measured requests)."""
    fixed = (f"--max-tokens={TOKENS}", f"--requests={REQUESTS}", "--users=2", "--warm-up=0s", "--telemetry=off")
    process = loadbench("sweep", f"--url={url}", f"--out={folder}", "--temperature=1", *fixed, *flags, cwd=folder)
    (kept,) = folder.glob("*-sweep")
    run = json.loads((kept / "run.json").read_bytes())
    assert [level["outcomes"] for level in run["levels"]] == [{"ok": REQUESTS}], process.stderr
    requests = [json.loads(line) for line in (kept / "requests.jsonl").read_text().splitlines()]
    return run, [one["output_tokens"] for one in requests if one["phase"] == "measured"]


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_every_response_has_the_requested_length(llamacpp: Callable[..., str], tmp_path: Path, api: str) -> None:
    """By itself the model ends after a sentence; told to go on, all of its responses have 37 tokens."""
    url = llamacpp(ends=True)
    run, lengths = swept(url, tmp_path, "--exact-output", f"--api={api}")
    assert lengths == [TOKENS] * REQUESTS
    assert run["exact_output"] == {"fields": ["ignore_eos", "min_tokens"], "kept": True}
    assert run["adapted"] == []
    assert run["levels"][0]["finish_reasons"] == {"length": REQUESTS}


def test_without_it_responses_end_by_themselves(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """Otherwise the test above would show nothing."""
    run, lengths = swept(llamacpp(ends=True), tmp_path)
    assert min(lengths) < TOKENS
    assert run["levels"][0]["tokens"]["shorter"] == sum(length < TOKENS for length in lengths) > REQUESTS / 4
