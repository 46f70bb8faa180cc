"""`loadbench replay`, and personas, mixes and conversations as they are typed."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.typed import typed as loadbench
from tests.plan.make_traces import AZURE_TRACE

if TYPE_CHECKING:
    from pathlib import Path

AZURE = str(AZURE_TRACE)


def kept(folder: Path) -> tuple[dict, list[dict]]:
    """The level of a run of one, and its requests."""
    (run,) = (folder / "results").iterdir()
    requests = [json.loads(text) for text in (run / "requests.jsonl").read_text().splitlines()]
    return json.loads((run / "run.json").read_bytes())["levels"][0], requests


def test_a_trace_is_replayed_and_its_run_replayed_again(tmp_path):
    """Forty requests of a trace go through a server; the run that they leave is a trace too, with the same lengths."""
    process = loadbench("replay", AZURE, "--limit=40", "--time-scale=100", cwd=tmp_path)
    level, requests = kept(tmp_path)
    assert level["outcomes"] == {"ok": 40}, process.stderr
    assert level["load"]["arrivals"] == "the trace azure.csv, 100 times as fast"
    assert "requests are sent on schedule (the trace azure.csv, 100 times as fast), however" in process.stdout
    assert "timeline of" in process.stdout
    (run,) = (tmp_path / "results").iterdir()
    plan = loadbench("replay", str(run), "--dry-run", "--verbose", cwd=tmp_path)
    asked = sum(one["input_tokens"] for one in requests) / 40
    assert f"40 requests, {asked:.0f} tokens in" in plan.stdout


def test_a_replay_is_continued_by_its_folder_alone(tmp_path):
    """With its own trace. Somebody else's, or one that was changed, chooses no file: it is shown, to be given again."""
    assert loadbench("replay", AZURE, "--limit=20", "--time-scale=100", cwd=tmp_path).returncode in {0, 4, 5}
    (run,) = (tmp_path / "results").iterdir()
    document = json.loads((run / "run.json").read_bytes())
    (run / "run.json").write_text(json.dumps({**document, "levels": [], "complete": False}))
    done = loadbench("replay", "--resume", str(run), cwd=tmp_path)
    level, requests = kept(tmp_path)
    assert (level["outcomes"], len(requests)) == ({"ok": 20}, 20), done.stderr
    document["scenario"]["load"]["trace"] = "/etc/passwd"
    (run / "run.json").write_text(json.dumps({**document, "levels": []}))
    refused = loadbench("replay", "--resume", str(run), cwd=tmp_path)
    assert (refused.returncode, "/etc/passwd" in refused.stderr) == (2, True), refused.stderr
    assert "it names /etc/passwd\nhint: give them again" in refused.stderr


def _lengths(**more: object) -> str:
    """Eight requests with Mooncake's names."""
    rows = [{"timestamp": 2 * at, "input_length": 20 + at, "output_length": 3} for at in range(8)]
    return "".join(json.dumps(row | more) + "\n" for row in rows)


BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
FILES: dict[str, tuple[str, str]] = {
    "azure": (
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
        + "".join(f"2024-10-15 00:00:{2 * at:02d}.123456,1,{20 + at},3\n" for at in range(8)),
        "note: requests with images: 8; images are not sent",
    ),
    "burstgpt": (
        ","
        + BURST
        + "".join(f"{at},{2 * at}.0,X,{20 + at}.0,3.0,9.0,a\n" for at in range(8))
        + "8,9.0,X,5.0,0.0,5.0,a\n",
        "left out: 1 request that failed in the recording",
    ),
    "bailian": (_lengths(chat_id=1, parent_chat_id=-1, turn=1, hash_ids=[1, 2]), "requests begin like an earlier one"),
    "guidellm": (_lengths().replace(": 0,", ": 0.0001,"), "times in seconds by their fractions"),
    "loadbench": (
        "".join(
            json.dumps({"due_ns": 2 * 10**9 * at, "input_tokens": 20 + at, "output_tokens": 3}) + "\n"
            for at in range(8)
        ),
        "trace: trace: loadbench",
    ),
}


@pytest.mark.parametrize("form", FILES)
def test_every_format_is_replayed_at_its_rate(tmp_path, form):
    """Eight requests, two seconds apart: half a request a second, as it is said before anything starts."""
    text, says = FILES[form]
    (tmp_path / "trace").write_bytes(gzip.compress(text.encode()))
    process = loadbench("replay", "trace", "--time-scale=16", cwd=tmp_path)
    level, requests = kept(tmp_path)
    assert level["outcomes"] == {"ok": 8}, process.stderr
    assert level["load"]["rate_per_s"] == 8
    assert sorted(one["asked_input_tokens"] for one in requests) == list(range(20, 28))
    before, _, _ = process.stderr.partition("begins")
    assert "recorded: 8 requests in 14s, 0.5 requests/s on average" in before
    assert "at --time-scale 16: 8 requests in 875ms, 8 requests/s on average" in before
    assert "input tokens: 20 to 27, p50 24, p95 27" in before
    assert says in before


@pytest.mark.slow
def test_a_mix_of_conversations_is_told_apart(tmp_path):
    """Each request's line has persona and turn; the report has a line for each persona, and one for later turns."""
    process = loadbench(
        *("sweep", "--users=4", "--mix", "chat:3,code:1", "--turns=2", "--input-tokens=30", "--max-tokens=5"),
        *("--think=50ms", "--duration=2s", "--warm-up=500ms"),
        cwd=tmp_path,
    )
    level, requests = kept(tmp_path)
    assert {one["persona"] for one in requests} == {"chat", "code"}
    assert {one["turn"] for one in requests} == {1, 2}
    assert all(one["warm"] == (one["turn"] == 2) for one in requests)
    assert sum(part["requests"] for part in level["personas"].values()) == sum(level["outcomes"].values())
    for begin in (
        "persona chat: users=4 (",
        "persona code: users=4 (",
        "requests whose prefix was sent before: users=4 (",
    ):
        assert begin in process.stdout
    assert not {"prompt_length", "cached_prompts", "audit"} & {one["code"] for one in level["verdict"]["reasons"]}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("replay", "nowhere.csv"), "error: cannot read the trace in nowhere.csv: No such file"),
        (("replay",), "TRACE: is missing"),
        (("replay", "lengths.jsonl"), "its times may be seconds or milliseconds"),
        (("replay", "lengths.jsonl", "--trace-format=weka"), "--trace-format: found 'weka'"),
        (("replay", AZURE, "--trace-format=burstgpt"), "line 1: a trace of BurstGPT does not begin with 'TIMESTAMP,"),
        (("sweep", "--users=2", "--trace-format=azure"), "--trace-format: has no effect: there is no trace"),
        (("replay", AZURE, "--users=3"), "--users: the trace decides it"),
        (("replay", AZURE, "--time-scale=0"), "--time-scale: found '0', want a number"),
        (("sweep", "--users=2", "--arrivals=poisson"), "--arrivals: has no effect with --users"),
        (("sweep", "--rate=2", "--think=2s"), "--think: has no effect with --rate"),
        (("sweep", "--persona=nobody"), "there is no persona 'nobody'"),
    ],
)
def test_mistakes_end_in_a_message_and_2(tmp_path, arguments, told):
    """What is wrong, and no traceback."""
    (tmp_path / "lengths.jsonl").write_text(_lengths())
    process = loadbench(*arguments, cwd=tmp_path)
    assert process.returncode == 2
    assert told in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "results").exists()
