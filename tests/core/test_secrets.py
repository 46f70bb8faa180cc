"""What is a secret, and how it is found in the words of a server."""

from __future__ import annotations

import base64
import html
import random
import string
import time
import urllib.parse

import pytest

from loadbench.core.secrets import Secrets, secrets_of

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
    assert "session-0123456789" in secrets_of([("cookie", "a=b; id=session-0123456789; c")])


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
