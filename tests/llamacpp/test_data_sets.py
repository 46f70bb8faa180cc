"""Data sets on a real engine: it takes the messages, tools and forms of rows, and remembers the turns of a dialogue."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.cli.typed import typed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.engine

USER, SYSTEM = {"role": "user", "content": "Name a river."}, {"role": "system", "content": "Be kind."}
WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
TOOLS = [{"type": "function", "function": WEATHER}]
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
FORM = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


def measured(url: str, folder: Path, rows: list[object], *further: str) -> tuple[list[dict], dict]:
    """(the requests in the order in which they were due, the run) of one user who takes every row once."""
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    arguments = ("--users", "1", "--warm-up", "0s", "--prompts", "p.jsonl", "--keep-texts", *further)
    done = typed("sweep", "--url", url, *arguments, cwd=folder)
    (run,) = folder.glob("results/*")
    requests = [json.loads(line) for line in (run / "requests.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {one["outcome"] for one in requests} == {"ok"}, done.stderr
    return sorted(requests, key=lambda one: one["due_ns"]), json.loads((run / "run.json").read_bytes())


def test_messages_tools_and_forms_reach_the_engine(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """By the lengths of prompts as the engine counts them, and by what it may then generate: the form's JSON alone."""
    rows = [
        {"messages": [USER]},
        {"messages": [SYSTEM, USER]},
        {"messages": [SYSTEM, USER, {"role": "assistant", "content": "The long Danube."}, USER]},
        {"messages": [USER], "response_format": FORM, "max_tokens": 60},
        {"messages": [USER], "tools": TOOLS, "max_tokens": 3},
        {
            "custom_id": "r",
            "url": "/v1/chat/completions",
            "body": {"model": "gpt-x", "messages": [USER], "max_tokens": 4},
        },
    ]
    url = llamacpp()
    requests, _ = measured(url, tmp_path, rows, "--requests", "6", "--max-tokens", "8", "--no-unique")
    plain, led, long, form, _, batch = (one["input_tokens"] for one in requests)
    assert plain < led < long
    assert plain == form == batch
    assert [one["asked_output_tokens"] for one in requests] == [8, 8, 8, 60, 3, 4]
    assert all(one["output_tokens"] <= one["asked_output_tokens"] for one in requests)
    # The model is random, and pads what it must write with white space.
    assert "".join(requests[3]["answer"].split()).startswith('{"ok":')


def test_a_shared_dialogue_is_played(llamacpp: Callable[..., str], tmp_path: Path) -> None:
    """Its later turns contain the engine's own responses, which its cache still has."""
    texts = ["Name a river.", "So.", "Where does it end?", "There.", "And where does it begin?", "Here."]
    said = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]
    rows = [{"id": "a", "conversations": said}, {"id": "b", "conversations": []}, {"conversations": said[1:4]}]
    url = llamacpp(parallel=1, ctx=2048, cache=1)
    requests, run = measured(url, tmp_path, rows, "--requests", "8", "--max-tokens", "8", "--think", "10ms")
    assert [one["turn"] for one in requests] == [1, 2, 3, 1] * 2
    for before, after in pairwise(requests):
        if after["turn"] > 1:
            held = before["input_tokens"] + before["output_tokens"]
            assert after["input_tokens"] > held
            assert after["cached_tokens"] == held - 1
    assert run["data_set"]["skipped"] == {"no prompt": 1}
    assert run["data_set"]["conversations"] == 1
