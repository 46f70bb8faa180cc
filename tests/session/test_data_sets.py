"""Data sets from the command line: what is said of them, what is sent, and what is refused before anything starts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from loadbench.engine.stored_prompts import StoredPrompts
from tests.cli.echoing import Echo, installed
from tests.cli.typed import typed as loadbench
from tests.settings.observe import RecordingServer, serving

if TYPE_CHECKING:
    from pathlib import Path

USER, SYSTEM = {"role": "user", "content": "Why?"}, {"role": "system", "content": "Be kind."}
ROWS = [
    {"turns": ["Write.", "Shorter."], "images": ["a.png"]},
    {"turns": []},
    {"messages": [SYSTEM, USER], "max_tokens": 9, "model": "gpt-x", "temperature": 0.5},
]
SHORT = ("--model", "m", "--users", "1", "--requests", "6", "--warm-up", "0s", "--max-tokens", "4")


@pytest.fixture
def server():
    """It answers with three words, and keeps what is sent."""
    recording = RecordingServer()
    with serving(recording):
        yield recording


def write(folder: Path, *rows: object) -> None:
    """The data set `p.jsonl`."""
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def bodies(server: RecordingServer) -> list[dict[str, Any]]:
    """What was posted."""
    return [body for method, _, _, body in server.requests if method == "POST"]


def test_what_was_read_is_said_planned_and_recorded(server, tmp_path):
    """The same lines before the start and in the plan: rows, skipped ones, and what is not sent as it stands there."""
    write(tmp_path, *ROWS)
    done = loadbench(
        "sweep", "--url", server.url, "--prompts", "p.jsonl", *SHORT, "--system", "Be brief.", cwd=tmp_path
    )
    plan = loadbench(
        "sweep", "--prompts", "p.jsonl", "--dry-run", "--verbose", *SHORT, "--system", "Be brief.", cwd=tmp_path
    )
    expected = [
        "p.jsonl: 3 rows read as JSON lines, turns and OpenAI messages, 1 of them skipped (no prompt: 1)",
        "dialogues of several turns: 1 of 2; each turn is sent after the server's own responses to those",
        "prompts with a limit of output tokens of their own (9): 1 of 2; it applies instead of --max-tokens",
        "columns that are not sent: images; what is in an extra_body of a row is sent",
        "the model that rows name (gpt-x) is not used",
        "prompts with a system message of their own, sent without that of --system: 1 of 2",
    ]
    for line in expected:
        assert line in done.stderr
        assert line in " ".join(plan.stdout.split())
    (file,) = tmp_path.glob("results/*/run.json")
    assert json.loads(file.read_bytes())["data_set"] == {
        "format": "JSON lines, turns and OpenAI messages",
        "rows": 3,
        "skipped": {"no prompt": 1},
        "prompts": 2,
        "conversations": 1,
        "not_sent": ["images"],
    }
    # Three are sent before the level: the first prompt, the one with a field of its own, and one for a single token.
    sent = [[message["content"].split()[-1] for message in body["messages"]] for body in bodies(server)[3:]]
    three = ["brief.", "Write."], ["brief.", "Write.", "three", "Shorter."], ["kind.", "Why?"]
    assert sent == [*map(list, three)] * 2
    assert [body["max_tokens"] for body in bodies(server)] == [4, 9, 1, 4, 4, 9, 4, 4, 9]
    assert [body["temperature"] for body in bodies(server)[3:6]] == [0.0, 0.0, 0.5]


def test_a_search_and_a_comparison_say_it_too(tmp_path):
    """Each before it starts, and in its plan."""
    write(tmp_path, *ROWS)
    line = "3 rows read as JSON lines, turns and OpenAI messages"
    for command in (("capacity", "--slo", "ttft_p95<9s"), ("compare", "--same"), ("workshop",)):
        plan = loadbench(*command, "--prompts", "p.jsonl", "--dry-run", "--verbose", cwd=tmp_path)
        assert line in plan.stdout, command
    assert "only the first turn of each is sent, since workshop takes one response to a prompt" in plan.stdout
    by_rate = ("sweep", "--rate", "5", "--prompts", "p.jsonl", "--dry-run", "--verbose")
    assert "since at a rate no user waits for the response" in loadbench(*by_rate, cwd=tmp_path).stdout


def test_workers_send_the_same_prompts(server, tmp_path):
    """Two processes, each with its users, send what one does: user by user, as far as both came."""
    write(tmp_path, *({"turns": [f"{row}1", f"{row}2"]} for row in "abcdef"))
    # By time: of a number of requests, a user whose worker waits for a core may get hardly any.
    given = ("--model", "m", "--users", "2", "--duration", "2s", "--warm-up", "0s", "--ramp", "0s")
    sent = []
    for workers in ("1", "2"):
        where = ("--prompts", "p.jsonl", "--workers", workers, "--out", workers)
        done = loadbench("sweep", "--url", server.url, *where, *given, cwd=tmp_path)
        assert done.returncode in {0, 4, 5}, done.stderr
        (file,) = (tmp_path / workers).glob("*/requests.jsonl")
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        rows.sort(key=lambda row: row["due_ns"])
        sent.append([[(row["prompt_index"], row["turn"]) for row in rows if row["user"] == user] for user in (0, 1)])
    for one, other in zip(*sent, strict=True):
        both = min(len(one), len(other))
        assert both >= 2
        assert one[:both] == other[:both]


def test_a_data_set_is_read_once(server, tmp_path):
    """By the main process, also with several processes and levels. What takes long is said."""
    write(tmp_path, *({"turns": [f"{row}1", f"{row}2"], "top_p": 0.5} for row in "abcdef"))
    stored = StoredPrompts.written

    def written(*given: Any) -> StoredPrompts:
        (tmp_path / "p.jsonl").unlink()
        return stored(*given)

    given = ("--model", "m", "--users", "1,2", "--requests", "12", "--warm-up", "0s", "--workers", "2", "--no-unique")
    with (
        mock.patch("loadbench.plan.data_sets._NOTICE_AFTER_S", -1),
        mock.patch.object(StoredPrompts, "written", written),
    ):
        done = loadbench("sweep", "--url", server.url, "--prompts", "p.jsonl", *given, cwd=tmp_path)
    assert done.stderr.count("12 ok") == 2
    assert "reading p.jsonl: 1 rows after 0 s" in done.stderr
    turns = {tuple(message["content"] for message in body["messages"]) for body in bodies(server)[2:]}
    assert {turn for turn in turns if len(turn) == 1} == {(f"{row}1",) for row in "abcdef"}
    assert ("a1", "one two three", "a2") in turns
    assert {body.get("top_p") for body in bodies(server)} == {0.5}


def test_the_row_that_an_endpoint_cannot_take_is_named(tmp_path):
    """Before anything is sent, by the run and its plan alike."""
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/a.png"}}]}
    cases = [
        ("completions", {"messages": [SYSTEM, USER]}, "line 2: the completions endpoint takes one text"),
        ("completions", {"turns": ["a", "b"]}, "line 2: the completions endpoint takes one text, and no turns"),
        ("responses", {"prompt": "a", "stop": ["x"]}, "line 2: the responses endpoint has no stop"),
        ("ollama", {"messages": [image]}, "line 2: Ollama takes images as base64"),
        ("chat", {"url": "/v1/embeddings", "body": {"input": "a"}}, "line 2: this request is for /v1/embeddings"),
        (
            "chat",
            {"url": "/v1/completions", "body": {"prompt": "a"}},
            "for /v1/completions, not for --api chat\nhint: give --api",
        ),
        ("completions", {"url": "/v1/chat/completions", "body": {"messages": [USER]}}, "hint: give --api chat"),
        ("chat", {"turns": ["a", "b"]}, ""),
        ("completions", {"messages": [USER]}, ""),
        ("responses", {"url": "/v1/chat/completions", "body": {"messages": [USER]}}, ""),
    ]
    for api, row, message in cases:
        write(tmp_path, "Why?", row)
        done = loadbench("sweep", "--prompts", "p.jsonl", "--api", api, "--dry-run", "--verbose", cwd=tmp_path)
        assert done.returncode == (2 if message else 0), (row, done.stderr)
        assert message in done.stderr
    done = loadbench("sweep", "--prompts", "p.jsonl", "--turns", "2", "--dry-run", "--verbose", cwd=tmp_path)
    assert done.returncode == 0
    write(tmp_path, *ROWS)
    done = loadbench("sweep", "--prompts", "p.jsonl", "--turns", "2", "--dry-run", "--verbose", cwd=tmp_path)
    assert "--turns: the dialogues in p.jsonl have their own turns" in done.stderr
    with installed(echo=Echo):
        done = loadbench(
            "sweep", "--prompts", "p.jsonl", "--adapter", "echo:mine", "--dry-run", "--verbose", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        write(tmp_path, {"messages": [image]})
        done = loadbench(
            "sweep", "--prompts", "p.jsonl", "--adapter", "echo:mine", "--dry-run", "--verbose", cwd=tmp_path
        )
        assert "line 1: a model in this process takes messages of text" in done.stderr


def test_a_completions_run_sends_the_text(server, tmp_path):
    """Of a message that is one text, and of a line of a batch."""
    batch = {"custom_id": "r", "url": "/v1/completions", "body": {"prompt": "How?", "max_tokens": 5, "top_p": 0.5}}
    write(tmp_path, {"messages": [USER]}, batch)
    given = ("--url", server.url, "--prompts", "p.jsonl", "--api", "completions", "--no-unique", *SHORT)
    loadbench("sweep", *given, cwd=tmp_path)
    sent = [(body["prompt"], body["max_tokens"], body.get("top_p")) for body in bodies(server)[3:5]]
    assert sent == [("Why?", 4, None), ("How?", 5, 0.5)]


def test_answers_to_first_turns_are_rated(server, tmp_path):
    """The form shows the whole of what was sent; sampling is that of the command, and the plan of dialogues is said."""
    write(tmp_path, *ROWS)
    done = loadbench("score", "stub", "--url", server.url, "--model", "m", "--prompts", "p.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "since score takes one response to a prompt" in done.stderr
    assert "not sent: temperature of the rows" in done.stderr
    answers = json.loads((tmp_path / "annotation.json").read_bytes())["answers"]
    assert [one["prompt_text"] for one in answers] == ["Write.", "system: Be kind.\n\nuser: Why?"]
    assert [body["messages"] for body in bodies(server)] == [[{"role": "user", "content": "Write."}], [SYSTEM, USER]]
    assert {body["temperature"] for body in bodies(server)} == {0.0}


def test_the_workshop_takes_one_response_to_each_prompt(server, tmp_path):
    """Rounds times prompts, whatever their turns."""
    write(tmp_path, *ROWS)
    given = ("--url", server.url, "--model", "m", "--prompts", "p.jsonl", "--rounds", "2", "--deterministic")
    done = loadbench("workshop", *given, cwd=tmp_path)
    assert "4 ok" in done.stderr
    assert [len(body["messages"]) for body in bodies(server)[2:]] == [1, 2, 1, 2]
    assert {body["temperature"] for body in bodies(server)} == {0.0}
    (file,) = tmp_path.glob("results/*/run.json")
    assert [(one["prompt"], one["answers"]) for one in json.loads(file.read_bytes())["outputs"]] == [(0, 2), (1, 2)]
