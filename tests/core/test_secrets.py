"""What is a secret, and how it is found in the words of a server."""

from __future__ import annotations

import base64
import html
import random
import string
import time
import urllib.parse

import pytest

from loadbench.core.secrets import Secrets, is_secret, masked, secrets_in, secrets_of

KEY = "sk-Q7f+3Qx9/Zz81Lm_opQrStUv02"


def b64(text: str, *, safe: bool = False) -> str:
    """Base64 of a text."""
    return (base64.urlsafe_b64encode if safe else base64.b64encode)(text.encode()).decode()


CODINGS = {
    "plain": lambda key: key,
    "upper": str.upper,
    "percent": lambda key: urllib.parse.quote(key, safe=""),
    "every letter in percent": lambda key: "".join(f"%{ord(letter):02x}" for letter in key),
    "twice in percent": lambda key: urllib.parse.quote(urllib.parse.quote(key, safe=""), safe=""),
    "json": lambda key: "".join(f"\\u{ord(letter):04X}" for letter in key),
    "json in json": lambda key: "".join(f"\\\\u{ord(letter):04x}" for letter in key),
    "solidus in json": lambda key: key.replace("/", "\\/"),
    "html": lambda key: "".join(f"&#{ord(letter)};" for letter in key),
    "hex": lambda key: key.encode().hex(),
    "base64": b64,
    "base64 after one byte": lambda key: b64("x" + key + "yz"),
    "base64 after two bytes": lambda key: b64("xy" + key + "z"),
    "base64 for URLs": lambda key: b64("x" + key, safe=True),
    "base64 in lines": lambda key: "\n".join(b64(key)[at : at + 10] for at in range(0, 40, 10)),
    "spaced": " ".join,
    "with invisible letters": "\u200b".join,
    "cut": lambda key: key[:18],
    "its end": lambda key: key[-9:],
}


@pytest.mark.parametrize("coding", CODINGS.values(), ids=CODINGS)
def test_key_is_hidden_in_any_coding(coding):
    """No eight letters of the key are left, read with every coding undone, and what stands around it stays."""
    secrets = Secrets(secrets_of([("authorization", f"Bearer {KEY}")]))
    rng = random.Random(1)
    for length in (len(KEY), 8, 16, 64, 200):
        key = KEY if length == len(KEY) else "".join(rng.choices(string.ascii_letters + string.digits, k=length))
        secrets = Secrets([key])
        shown = secrets.hide(f"refused: {coding(key)} (401)")
        assert shown.startswith("refused: ")
        assert shown.endswith(" (401)")
        assert "***" in shown or length < 18
        known = "".join(shown.split()).replace("\u200b", "").lower()
        for undone in (known, urllib.parse.unquote(known), html.unescape(known)):
            assert not [at for at in range(len(key) - 7) if key[at : at + 8].lower() in undone]


LETTER_BY_LETTER = ("plain", "upper", "percent", "every letter in percent", "twice in percent", "json", "html", "hex")


@pytest.mark.parametrize("coding", LETTER_BY_LETTER)
def test_no_letter_beside_a_secret_is_hidden_and_none_of_its_own_is_left(coding):
    """Of a whole one, and of its first and its last eight letters."""
    secrets = Secrets([KEY])
    for piece in (KEY, KEY[:8], KEY[-8:]):
        coded = CODINGS[coding](piece)
        assert secrets.hide(f"<{coded}>") == "<***>"
        assert secrets.hide(f"{coded}, {coded}") == "***, ***"
    assert secrets.hide("<" + "".join(f"\\x{ord(letter):02X}" for letter in KEY) + ">") == "<***>"
    assert secrets.hide("<" + "".join(f"&#x{ord(letter):X};" for letter in KEY) + ">") == "<***>"


@pytest.mark.parametrize("before", ["", "x", "xy", "xyz"])
def test_of_base64_each_letter_is_hidden_that_says_something_of_the_secret_alone(before):
    """Six bits a letter, wherever the secret begins; those of what stands around it stay."""
    for length in (24, 25, 26):
        key = KEY[:length]
        coded = b64(before + key + "?!")
        own = [at for at in range(len(coded)) if 8 * len(before) <= 6 * at and 6 * at + 6 <= 8 * (len(before) + length)]
        assert Secrets([key]).hide(f"<{coded}>") == f"<{coded[: own[0]]}***{coded[own[-1] + 1 :]}>"


def test_a_shorter_secret_is_hidden_as_a_whole():
    """No part of it, even where it is all that there is."""
    secrets = Secrets(["Ab3x", "five5"])
    assert [secrets.hide(text) for text in ("Ab3x", "<ab3X>", "Ab3", "five5")] == ["***", "<***>", "Ab3", "***"]


def test_fewer_than_eight_letters_are_hidden_only_where_the_text_was_cut():
    """Seven say little. Before an ellipsis, four of its beginning do not stay."""
    secrets = Secrets([KEY])
    assert secrets.hide(f"<{KEY[:7]}>") == f"<{KEY[:7]}>"
    for size in range(4, 9):
        assert secrets.hide(f"{KEY[:size]}…") == "***…"
        assert secrets.hide(f"<{KEY[:size]}… {KEY[:size]}…>") == "<***… ***…>"
    for kept in (f"{KEY[:3]}…", f"{KEY[4:10]}…", f"{KEY[:7]} …"[:7]):
        assert secrets.hide(kept) == kept


def test_no_secret_is_a_part_of_another_one_that_is_left():
    """Two that overlap in a text are hidden as one, and each by itself."""
    secrets = Secrets(["first-key-0123", "0123-second-key"])
    assert secrets.hide("<first-key-0123-second-key>") == "<***>"
    assert secrets.hide("first-key-0123 and 0123-second-key") == "*** and ***"


@pytest.mark.parametrize("coding", ["plain", "json"])
def test_a_secret_is_hidden_wherever_it_stands_in_a_long_text(coding):
    """A long text is searched in parts: nothing is lost between two of them, and nothing is hidden twice."""
    secrets, coded = Secrets([KEY]), CODINGS[coding](KEY)
    for before in range(65_536 - len(coded) - 2, 65_536 + 3, len(coded) // 9):
        text = f"{'.' * before}<{coded}>{'.' * 3000}"
        assert secrets.hide(text) == f"{'.' * before}<***>{'.' * 3000}"


def test_texts_that_were_seen_are_kept_within_bounds():
    """Short ones without a secret, and some hundreds at most; what was seen changes no later text."""
    secrets = Secrets([KEY])
    for number in range(1000):
        assert secrets.hide(f"model-{number}") == f"model-{number}"
        assert secrets.hide(f"model-{number}-{KEY}") == f"model-{number}-***"
        assert 0 < len(secrets.seen) <= 256
    assert secrets.hide("model-999 " * 50) == "model-999 " * 50
    assert max(map(len, secrets.seen)) <= 100


def test_codes_beyond_any_letter_are_no_letters():
    """Nor are halves of a letter that has two."""
    secrets = Secrets([KEY])
    for odd in ("&#x110000;", "&#1114112;", "&#x10ffff;", "\\ud83d", "&#9999999;", "&#xFFFFFF;"):
        assert secrets.hide(f"{odd}<{KEY}>{odd}") == f"{odd}<***>{odd}"


def test_bytes_are_hidden_as_texts_are():
    """Whatever bytes stand around them."""
    assert Secrets([KEY]).hide_bytes(b"\xff\xfe" + KEY.encode() + b"\x00\x80") == b"\xff\xfe***\x00\x80"


@pytest.mark.parametrize("name", ["api_key", "apiKey", "ACCESS-TOKEN", "sig", "client_secret", "Authorization", "code"])
def test_values_of_such_a_name_are_secrets(name):
    """They are replaced in JSON at any depth; long ones are known as secrets."""
    document = {"a": [{name: "12345678"}, {"b": {name: "1234567"}}], name: [KEY, 5], "model": "m"}
    hidden = {"a": [{name: "***"}, {"b": {name: "***"}}], name: [KEY, 5], "model": "m"}
    assert is_secret(name)
    assert masked(document) == hidden
    assert list(secrets_in(document)) == ["12345678"]
    assert masked(({name: "x", "n": 1},)) == [{name: "***", "n": 1}]
    assert list(secrets_in(({name: KEY},))) == [KEY]


@pytest.mark.parametrize("name", ["model", "max_tokens", "keyword", "keys", "user"])
def test_values_of_other_names_are_none(name):
    """Though a part of the name is that of a secret."""
    assert not is_secret(name)
    assert masked({name: KEY}) == {name: KEY}
    assert list(secrets_in({name: KEY})) == []


def test_words_around_a_secret_stay():
    """Short words are no secrets, nor are a client's name and what stands for a key where none is needed."""
    given = [("authorization", "Bearer sk-live-0123456789"), ("x-team", "blue"), ("user-agent", "my-load-generator")]
    secrets = Secrets([*secrets_of(given), "lm-studio"])
    assert secrets.hide("Incorrect API key: sk-live-0123456789 (blue, Bearer)") == (
        "Incorrect API key: *** (blue, Bearer)"
    )
    assert secrets.hide("key sk-live-01…', and 'sk-l…' and 'sk…'") == "key ***…', and '***…' and 'sk…'"
    for text in ("my-load-generator is not known", "lm-studio-community/llama", "stop", ""):
        assert secrets.hide(text) == text


def test_secret_in_a_cookie_or_a_list_is_one():
    """Each part that is long enough."""
    assert secrets_of([("Cookie", 'a=b; id=session-0123456789; c="12345678", d=1234567')]) == (
        *("id=session-0123456789;", 'c="12345678",', "d=1234567"),
        *("session-0123456789", "12345678"),
    )
    assert secrets_of([("X-Key", "12345678 1234567"), ("Content-Type", "application/json")]) == ("12345678",)


def test_longer_pieces_can_be_asked_for():
    """Where a shorter piece may be part of a name by chance, only a longer one, or a whole secret, is hidden."""
    secrets = Secrets(["llama-server-key-0123456789", "blue-key"], piece=16)
    assert secrets.hide("llama-server") == "llama-server"
    assert secrets.hide("x llama-server-key-0 x blue-key") == "x *** x ***"


@pytest.mark.parametrize("text", ["a", "\\", "…", "%25", "&#", "ab ", KEY[:7], KEY], ids=repr)
def test_time_is_linear(text):
    """Twice the text takes about twice the time, whatever is in it."""
    secrets, times = Secrets([KEY]), []
    for size in (50_000, 200_000):
        long = text * (size // len(text))
        spent = []
        for _ in range(2):
            began = time.process_time()
            secrets.hide(long)
            spent.append(time.process_time() - began)
        times.append(min(spent))
    assert times[1] < 10 * times[0]
