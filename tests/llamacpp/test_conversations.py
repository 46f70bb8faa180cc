"""Conversations with a real engine: it remembers what was said, and says so."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.cli.running import loadbench

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.engine

TOKENS = 8
PROMPT = 60


def test_later_turns_come_from_the_cache_and_are_expected_to(llamacpp: Callable[..., str], tmp_path) -> None:
    """One user in conversations of three turns, with one slot, which keeps what it has read.

    Each turn's prompt holds the one before and its answer, and grows by question and template. The server has what was
    there before in its cache: all of it but the answer's last token, which it has not read. The level calls that
    warm, and finds no fault in it.
    """
    url = llamacpp(parallel=1, ctx=2048, cache=1)
    process = loadbench(
        *("sweep", f"--url={url}", f"--out={tmp_path}", "--users=1", "--turns=3", "--requests=12", "--warm-up=0"),
        *(f"--max-tokens={TOKENS}", f"--input-tokens={PROMPT}", "--think=10ms"),
        cwd=tmp_path,
    )
    (folder,) = tmp_path.glob("*-sweep")
    (level,) = json.loads((folder / "run.json").read_bytes())["levels"]
    requests = [json.loads(text) for text in (folder / "requests.jsonl").read_text().splitlines()]
    assert level["outcomes"] == {"ok": 12}, process.stderr
    for before, after in pairwise(sorted(requests, key=lambda one: one["due_ns"])):
        if after["turn"] > 1:
            held = before["input_tokens"] + before["output_tokens"]
            assert held < after["input_tokens"] < held + PROMPT + 20
            assert after["cached_tokens"] == held - 1
    assert level["turns"] == {"1": 4, "2": 4, "3": 4}
    assert level["warm"]["requests"] == level["warm"]["cached_requests"] == 8
    assert level["warm"]["cached_share"] > 0.4
    assert all(0 <= one["cached_tokens"] < 16 for one in requests if one["turn"] == 1)
    assert "cached_prompts" not in {reason["code"] for reason in level["verdict"]["reasons"]}
    assert "of their input tokens from the server's cache" in process.stdout
