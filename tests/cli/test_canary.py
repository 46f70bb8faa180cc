"""A canary: the key that a run is given is found in nothing that the run leaves, prints or starts."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from loadbench.report.formats import render
from loadbench.results.folder import read_run
from tests.cli.any_server import Got, Reply, any_server, chat
from tests.cli.running import COMMAND, LIMIT_S, answering, environment, loadbench

pytestmark = pytest.mark.slow

# Letters that stand for themselves in every place where a server may repeat them: a name, a header, a URL.
KEY, TEAM, CODE = (f"canary_{name}_{secrets.token_hex(12)}_Zz" for name in ("key", "team", "code"))
GIVEN = {"LOADBENCH_API_KEY": KEY, "TEAM_KEY": TEAM}
FLAGS = ("--header-env", "X-Team: TEAM_KEY", "--users", "2", "--requests", "6", "--warm-up", "0s", "--max-tokens", "9")
# So many good responses come first, so that a level is measured.
GOOD = 4


def in_base64(text: str) -> str:
    """At each alignment, for URLs too."""
    raw = text.encode()
    return (
        " ".join(base64.b64encode(b"x" * before + raw).decode() for before in range(3))
        + " "
        + (base64.urlsafe_b64encode(b"?" + raw).decode())
    )


def sse(*lines: bytes, kind: str = "text/event-stream") -> Reply:
    """A stream of these lines."""
    return Reply(b"".join(line + b"\n" for line in lines), kind=kind)


def percent(text: str) -> str:
    """Each letter."""
    return "".join(f"%{ord(letter):02X}" for letter in text)


def escaped(text: str) -> str:
    """Each letter, as JSON may have it."""
    return "".join(f"\\u{ord(letter):04x}" for letter in text)


def fields(said: str) -> dict[str, object]:
    """A frame that has it in every field."""
    call = {"index": 0, "id": said, "type": said, "function": {"name": said, "arguments": f'{{"key": "{said}"}}'}}
    delta = {"role": said, "content": None, "refusal": said, "tool_calls": [call]}
    choice = {"index": 0, "delta": delta, "finish_reason": said, "logprobs": {said: [said]}}
    usage = {said: 1, "prompt_tokens": said, "completion_tokens": said}
    more = dict.fromkeys(("id", "object", "model", "system_fingerprint", "service_tier", "warning"), said)
    return {**more, "choices": [choice], "usage": usage, "error": {"code": said, "message": said, "type": said}}


# The ways in which a server repeats what it was sent.
ECHOES = {
    "cut": lambda said: Reply({"error": {"message": "x" * 290 + said}}, status=401),
    "redirect": lambda said: Reply(status=302, headers={"Location": f"https://h.example/login?next={percent(said)}"}),
    "percent": lambda said: Reply(percent(said).encode(), status=500),
    "base64": lambda said: Reply(in_base64(said).encode(), status=500),
    "json": lambda said: sse(b'data: {"choices": [{"delta": ' + escaped(said).encode(), b""),
    "model": chat,
    "reason": lambda said: chat("m", end=said),
    "split": lambda said: chat("m", [said[at : at + 3] for at in range(0, len(said), 3)]),
    "headers": lambda said: Reply(status=429, headers={"Retry-After": said, "Server": said}),
    "type": lambda said: Reply(chat("m").body, kind=f"text/{said}"),
    "page": lambda said: Reply(f"<html><title>{said}</title></html>".encode(), kind="text/html"),
    "event": lambda said: sse(f"event: error_{said}".encode(), b"data: {}", b""),
    "outside": lambda said: sse(f"no event: {said}".encode(), b""),
    "usage": lambda said: sse(b'data: {"choices": [], "usage": {"%s": 7}}' % said.encode(), b"", b"data: [DONE]", b""),
    "cookie": lambda said: Reply(b"", status=403, headers={"Set-Cookie": said, "WWW-Authenticate": f"Bearer {said}"}),
    "phrase": lambda said: Reply(b"", status=418, phrase=f"I am a {said}"),
    "fields": lambda said: sse(
        b"data: %s" % json.dumps(fields(said)).encode(), b"", b"data: %s" % json.dumps({said: said}).encode(), b""
    ),
    "tool": lambda said: sse(b'data: {"choices": [{"delta": {"tool_calls": [{"function": "%s"}]}}]}' % said.encode()),
    "upper": lambda said: Reply({"detail": said.upper()}, status=400),
}


def found(text: bytes | str) -> list[str]:
    """Which of the canaries are in a text, in any of these forms, or in a piece of them."""
    text = (text.decode("latin-1") if isinstance(text, bytes) else text).lower()
    forms = {
        form[at : at + 14].lower()
        for name in (KEY, TEAM, CODE)
        for form in (
            name.partition("_")[2].partition("_")[2],
            percent(name),
            escaped(name),
            *(base64.b64encode(b"x" * before + name.encode()).decode()[4:-4] for before in range(3)),
        )
        for at in range(len(form) - 13)
    }
    return [form for form in forms if form in text]


class Repeating:
    """A server that repeats, by the name of the model, what came in its headers and its query."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.heard: set[str] = set()

    def answer(self, got: Got) -> Reply:
        """Good responses first."""
        model = got.body["model"]
        self.asked[model] += 1
        said = [got.headers["authorization"][0].split()[1], got.headers["x-team"][0], got.path.rpartition("=")[2]]
        self.heard.update(said)
        return chat(model) if self.asked[model] <= GOOD else ECHOES[model](said[self.asked[model] % 3])

    def listed(self, path: str) -> Reply:
        """Models, metrics and everything else repeat all three."""
        said = f"{KEY} {TEAM} {CODE}"
        if "/models" in path:
            models = [{"id": name, "owned_by": said} for name in (*ECHOES, KEY)]
            return Reply({"data": models}, headers={"Server": said})
        if "/metrics" in path:
            return Reply(
                f"# TYPE {KEY}_total counter\n{KEY}_total {sum(self.asked.values())}\n".encode(), kind="text/plain"
            )
        return Reply(said.encode(), status=404)


def watch_processes(parent: int, seen: dict[str, set[bytes]], stop: threading.Event) -> None:
    """Collect the command lines of all processes, and the variables of the parent's children."""
    while not stop.wait(0.05):
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                seen["commands"].add((folder / "cmdline").read_bytes())
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    seen["variables"].add(folder.name.encode() + b" " + (folder / "environ").read_bytes())
            except (OSError, ValueError, IndexError):
                continue  # it has ended


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, and opens a terminal")
def test_key_is_found_nowhere(tmp_path, half):
    """A run with workers, kept texts and a terminal, against a server that repeats its keys in every way."""
    names = [*ECHOES][half::2]
    repeating, seen, stop = Repeating(), {"commands": set(), "variables": set()}, threading.Event()
    with any_server(repeating.listed, repeating.answer) as server:
        models = [part for name in names for part in ("--model", name)]
        # The query is on the command line: that is up to who writes it there.
        (tmp_path / "scenario.toml").write_text(f'[target]\nurl = "{server.root}/v1?code={CODE}"\n', encoding="utf-8")
        ours, theirs = os.openpty()
        process = subprocess.Popen(
            [*COMMAND, "sweep", "scenario.toml", *FLAGS, *models, "--workers", "2", "--keep-texts", "--json"],
            cwd=tmp_path,
            env=environment(**GIVEN),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        watcher = threading.Thread(target=watch_processes, args=(process.pid, seen, stop))
        watcher.start()
        terminal = bytearray()

        def read_terminal() -> None:
            try:
                while part := os.read(ours, 65536):
                    terminal.extend(part)
            except OSError:
                pass  # the terminal's other end is closed

        reader = threading.Thread(target=read_terminal)
        reader.start()
        try:
            out, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
            reader.join()
            os.close(ours)
            stop.set()
            watcher.join()
        (folder,) = (tmp_path / "results").iterdir()
        listed = loadbench(
            "models", "scenario.toml", "--json", "--header-env", "X-Team: TEAM_KEY", cwd=tmp_path, **GIVEN
        )
    assert repeating.heard == {KEY, TEAM, CODE}
    assert all(repeating.asked[name] > GOOD for name in names), terminal.decode()
    run = read_run(folder)
    assert {level.model for level in run.levels} == set(names)

    texts = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    texts |= {form: render(run, form) for form in ("text", "markdown", "csv", "junit", "json")}
    texts |= {"stdout": out, "terminal": bytes(terminal)}
    texts |= {"models": listed.stdout + listed.stderr}
    texts |= {f"a process: {line!r}": line for line in seen["commands"]}
    assert {name: found(text) for name, text in texts.items() if found(text)} == {}
    assert len(seen["variables"]) >= 2  # both workers, and more
    assert not [one for one in seen["variables"] if found(one)]
    # It was masked, and not merely left out.
    log = texts["requests.jsonl"].decode()
    assert log.count("***") >= 2 * len(names)


def test_traceback_has_no_key(tmp_path):
    """A bug of ours that prints all that it holds."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "from loadbench.client import client\n"
        "async def send(self, request, body):\n"
        "    raise RuntimeError(repr((self.endpoint, self.endpoint.http_request(body), vars(self), request)))\n"
        "client.Client.send = send\n",
        encoding="utf-8",
    )
    with any_server() as server:
        url = f"{server.root}/v1?code={CODE}"
        done = loadbench("sweep", "--url", url, *FLAGS, cwd=tmp_path, PYTHONPATH=str(site), **GIVEN)
    assert "RuntimeError" in done.stderr
    assert not found(done.stderr + done.stdout)


@pytest.mark.parametrize(
    ("command", "raw"),
    [("doctor", f"HTTP/1.1 {KEY}\r\n\r\n"), ("sweep", f"HTTP/1.1 200 OK\r\nbad header {KEY}\r\n\r\n")],
    ids=["status", "header"],
)
def test_what_is_no_http_is_no_way_out(tmp_path, command, raw):
    """A first line, or a header, that no parser takes is quoted by it."""
    with answering(raw.encode()) as url:
        done = loadbench(command, "--url", f"{url}/v1", cwd=tmp_path, **GIVEN)
    assert done.returncode == 6, done.stderr
    assert not found(done.stdout + done.stderr)
