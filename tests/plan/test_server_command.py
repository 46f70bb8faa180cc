"""The words of a server command: split, filled in, and shown without secrets."""

from __future__ import annotations

import shlex
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.server_command import fill, join_words, names_in, secrets_of_command, shown_command, split_words
from loadbench.plan.server_url import normal_url, origin_of, shown_url, url_of_started

WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12), max_size=5)


@given(WORDS)
def test_words_that_are_joined_are_split_again(words):
    """Whatever is in them."""
    assert split_words(join_words(words)) == tuple(words)


@pytest.mark.skipif(sys.platform == "win32", reason="backslashes are ordinary there")
@pytest.mark.parametrize(
    "line", ["a b", "a 'b c' \"d e\"", r"a\ b 'c\d' \"", "a#b c", "  a\t b \n c ", "a '' b", "$HOME *.txt | ; && >"]
)
def test_words_are_those_of_a_shell(line):
    """Of quotes, backslashes and spaces; nothing else has a meaning."""
    assert list(split_words(line)) == shlex.split(line, comments=False)


def test_backslashes_are_ordinary_on_windows(monkeypatch):
    """They are parts of paths there."""
    monkeypatch.setattr(sys, "platform", "win32")
    assert split_words(r'C:\llama\server.exe -m "D:\my models\a.gguf"') == (
        r"C:\llama\server.exe",
        "-m",
        r"D:\my models\a.gguf",
    )
    words = (r"C:\a b\c.exe", r"\\share\x", "it's", 'a "quoted" word')
    assert split_words(join_words(words)) == words


def test_names_are_filled_in():
    """Doubled braces are braces; a name that is not known, and a brace alone, are refused."""
    assert fill("--port={port} {{x}}", {"port": "80"}) == "--port=80 {x}"
    assert fill('{{"a": {{"b": 1}}}}', {"port": "80"}) == '{"a": {"b": 1}}'
    for text in ("{prot}", '{"a": 1}', "}", "{", "{1}"):
        with pytest.raises(ValueError, match=r"want \{port\}, and \{\{ or \}\} for a brace"):
            fill(text, {"port": "80"})


def test_some_names_are_filled_in_and_the_rest_later():
    """What was filled in first is read as it is."""
    some = fill("{threads} {port} {{x}}", {"threads": "{2}"}, rest=True)
    assert some == "{{2}} {port} {{x}}"
    assert fill(some, {"port": "80"}) == "{2} 80 {x}"
    assert names_in("{threads} {port} {{x}}") == {"threads", "port"}


@pytest.mark.parametrize(
    ("words", "shown", "secrets"),
    [
        (["serve", "--api-key", "abcdefgh", "--port", "{port}"], "serve --api-key *** --port {port}", ["abcdefgh"]),
        (["serve", "--api-key=abcdefgh"], "serve --api-key=***", ["abcdefgh"]),
        (["env", "HF_TOKEN=abcdefgh", "serve"], "env HF_TOKEN=*** serve", ["abcdefgh"]),
        (["serve", "--max-token", "512", "--key", "--quiet"], "serve --max-token 512 --key --quiet", []),
        (["serve", "--from", "https://me:pass@host/x"], "serve --from https://***@host/x", ["me:pass"]),
        (["serve", "--from=https://me:pass@host/x"], "serve --from=https://***@host/x", ["me:pass"]),
        (["serve", "a b", "it's"], """serve 'a b' 'it'"'"'s'""", []),
    ],
)
def test_secrets_in_a_command_are_hidden(words, shown, secrets):
    """Values that are named like secrets; numbers, options and what is filled in stay."""
    assert shown_command(words) == shown
    assert list(secrets_of_command(words)) == secrets


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:{port}", "http://127.0.0.1:{port}"),
        ("HTTP://LocalHost:{port}/v1/", "http://localhost:{port}/v1"),
        ("http://[::1]:{port}/v1", "http://[::1]:{port}/v1"),
        ("http://127.0.0.1:{port}/v1/chat/completions?a=b", "http://127.0.0.1:{port}/v1/chat/completions?a=b"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
    ],
)
def test_a_url_may_leave_the_port_open(text, url):
    """It is normal otherwise, and can be shown; its origin has the port of its scheme."""
    assert url_of_started(text) == url
    assert url_of_started(url) == url
    assert shown_url(url) == url
    assert origin_of(url)[2] in {80, 8080}


def test_other_urls_have_a_port():
    """Only that of a server that is started can be open."""
    with pytest.raises(ValueError, match=r"[Pp]ort"):
        normal_url("http://127.0.0.1:{port}")
