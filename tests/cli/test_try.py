"""`loadbench try`: one request and its timeline, against real servers."""

from __future__ import annotations

import json

import pytest

from tests.cli.any_server import Reply, any_server, chat
from tests.cli.typed import typed

KEY = "sk-0123456789abcdef"


@pytest.fixture
def server():
    """A server of one model, whose responses have a cookie and repeat what they were sent."""
    with any_server() as server:
        server.answer = lambda got: Reply(
            chat(got.body["model"]).body,
            kind="text/event-stream",
            headers={"Set-Cookie": "session=0123456789", "X-Echo": str(got.headers)},
        )
        yield server


def tried(server, *arguments, tmp_path, **variables):
    """What it said, as JSON."""
    done = typed("try", "--url", server.root, "--model", "m", "--json", *arguments, cwd=tmp_path, **variables)
    return done, json.loads(done.stdout)


def test_marks_come_in_order(server, tmp_path):
    """The marks of a request on a new connection follow each other, from its connecting to its end."""
    done, said = tried(server, tmp_path=tmp_path)
    names, times = [mark["mark"] for mark in said["marks"]], [mark["at_ns"] for mark in said["marks"]]
    assert done.returncode == 0
    assert times == sorted(times)
    wanted = ["name found", "TCP connected", "request sent", "headers", "first token", "last token", "end"]
    assert [name for name in names if name in wanted] == wanted
    assert said["connect_ns"]["tls_ns"] is None


def test_figures_are_those_of_the_request(server, tmp_path):
    """Tokens are the server's, and each event has its time."""
    _, said = tried(server, tmp_path=tmp_path)
    assert said["outcome"] == "ok"
    assert said["figures"]["output_tokens"] == 3
    assert len(said["event_ns"]) == 3
    assert said["figures"]["ttft_s"] <= said["figures"]["e2e_s"]


def test_request_is_that_of_a_sweep(server, tmp_path):
    """Prompt, limit, temperature and extra body are sent as a sweep sends them."""
    flags = ["--prompt", "Hello", "--no-unique", "--max-tokens", "5", "--temperature", "0.5"]
    _, said = tried(server, *flags, "--extra-body", '{"top_p": 0.9}', tmp_path=tmp_path)
    body = said["request"]["body"]
    assert body["messages"][-1]["content"] == "Hello"
    assert (body["max_tokens"], body["temperature"], body["top_p"]) == (5, 0.5, 0.9)


def test_settings_of_a_file_count(server, tmp_path):
    """A scenario file is read as by `sweep`; its loads have no effect."""
    (tmp_path / "s.toml").write_text("[load]\nusers = [64]\n[work]\nmax_tokens = 7\n")
    done = typed("try", "s.toml", "--url", server.root, "--model", "m", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["request"]["body"]["max_tokens"] == 7


@pytest.mark.parametrize("form", [["--json"], []])
def test_secrets_are_not_shown(server, tmp_path, form):
    """Keys, given headers and cookies are masked, also where the server repeats them."""
    flags = ["--header", "X-Team: blue-0123456789", "--show-text", *form]
    done = typed(
        "try",
        "--url",
        server.root,
        "--model",
        "m",
        *flags,
        cwd=tmp_path,
        LOADBENCH_API_KEY=KEY,
        LOADBENCH_URL=server.root,
    )
    assert done.returncode == 0
    for secret in (KEY, "blue-0123456789", "session=0123456789"):
        assert secret not in done.stdout + done.stderr
    assert "***" in done.stdout


def test_text_is_shown_on_request(server, tmp_path):
    """Without --show-text nothing of the response's text is printed."""
    shown, hidden = (
        typed("try", "--url", server.root, "--model", "m", *flags, cwd=tmp_path).stdout
        for flags in (["--show-text"], [])
    )
    assert "one two three" in shown
    assert "one two three" not in hidden


def test_hostile_response_is_inert(server, tmp_path):
    """Escape sequences of a response, in its text and in its headers, do not reach the terminal."""
    server.answer = lambda got: Reply(
        chat(got.body["model"], ["\x1b[2J", "\x07", "x"]).body,
        kind="text/event-stream",
        headers={"X-Evil": "\x1b]0;gone\x07"},
    )
    done = typed("try", "--url", server.root, "--model", "m", "--show-text", cwd=tmp_path)
    assert not {"\x1b", "\x07"} & {*done.stdout, *done.stderr}


def test_refusal_ends_with_its_reason(server, tmp_path):
    """A refused request exits with 6, and the server's words are shown, with the marks that there are."""
    server.answer = lambda _: Reply({"error": {"message": "out of cheese"}}, 503)
    done, said = tried(server, tmp_path=tmp_path)
    assert done.returncode == 6
    assert "out of cheese" in said["detail"]
    assert said["response"]["status"] == 503
    assert "first token" not in [mark["mark"] for mark in said["marks"]]


@pytest.mark.parametrize("flag", ["--users", "--slo", "--duration"])
def test_load_has_no_effect(tmp_path, flag):
    """A flag of a sweep that a single request has nothing of is refused as such."""
    done = typed("try", flag, "1", cwd=tmp_path)
    assert done.returncode == 2
    assert "single request" in done.stderr


def test_nothing_is_written(server, tmp_path):
    """One request is no run: there is no folder of it."""
    tried(server, tmp_path=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", ["60", "80", "120"])
def test_timeline_fits(server, tmp_path, columns):
    """The timeline takes no more columns than the terminal has; the request is shown as it is."""
    done = typed("try", "--url", server.root, "--model", "m", cwd=tmp_path, COLUMNS=columns)
    timeline = done.stdout.partition("Timeline")[2].partition("Request")[0]
    assert max(map(len, timeline.splitlines())) <= int(columns)
