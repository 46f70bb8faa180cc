"""What is a secret, and how it is found in the words of a server."""

from __future__ import annotations

import base64
import codecs
import html
import json
import quopri
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
    "dotted": ".".join,
    "a list of letters": lambda key: json.dumps([*key]),
    "full width": lambda key: "".join(chr(ord(letter) + 0xFEE0) for letter in key),
    "backwards": lambda key: key[::-1],
    "by 13 letters": lambda key: codecs.encode(key, "rot13"),
    "braces": lambda key: "".join(f"\\u{{{ord(letter):x}}}" for letter in key),
    "long escapes": lambda key: "".join(f"\\U{ord(letter):08x}" for letter in key),
    "escapes of forms": lambda key: "".join(f"%u{ord(letter):04x}" for letter in key),
    "HTML in hex": lambda key: "".join(f"&#X{ord(letter):X};" for letter in key),
    "HTML with zeros": lambda key: "".join(f"&#{ord(letter):010d};" for letter in key),
    "HTML without ends": lambda key: "".join(f"&#{ord(letter)}" for letter in key),
    "HTML by name": lambda key: html.escape(key).replace("/", "&sol;").replace("+", "&plus;").replace("_", "&lowbar;"),
    "quoted-printable": lambda key: quopri.encodestring(key.encode(), quotetabs=True).decode(),
    "every letter quoted": lambda key: "".join(f"={ord(letter):02X}" for letter in key),
    "numbers": lambda key: str([*key.encode()]),
    "numbers in hex": lambda key: ", ".join(f"0x{byte:02x}" for byte in key.encode()),
    "numbers in octal": lambda key: "".join(f"\\{byte:03o}" for byte in key.encode()),
    "hex with colons": lambda key: key.encode().hex(":").upper(),
    "base32": lambda key: base64.b32encode(key.encode()).decode(),
    "base32 after three bytes": lambda key: base64.b32encode(b"xyz" + key.encode()).decode().lower().strip("="),
    "base64 of wide letters": lambda key: base64.b64encode(key.encode("utf-16-le")).decode(),
    "base64 twice": lambda key: b64(b64("x" + key)),
    "base64 in hex": lambda key: b64(key).encode().hex(),
    "hex in base64": lambda key: b64(key.encode().hex()),
    "base64 in percent": lambda key: urllib.parse.quote(b64(key), safe=""),
    "wide letters": lambda key: key.encode("utf-16-le").decode("latin-1"),
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
        left = shown.removeprefix("refused: ").removesuffix(" (401)").replace("***", "")
        assert length < 18 or sum(map(str.isalnum, left)) < max(8, len(coding(key)) / 4)


@pytest.mark.parametrize("key", ["p+/=%\"\\q&<x>'Zz9+/", "schlüssel-ñandú-漢字鍵盤", "%41%42cdefghijk", "=3Dabcdefgh"])
def test_key_of_any_letters_is_hidden(key):
    """Letters that have codes of their own, and bytes of UTF-8."""
    secrets = Secrets([key])
    codings = ("percent", "every letter in percent", "html", "HTML by name", "json", "hex", "base64", "base32", "upper")
    codings += ("quoted-printable", "plain", "hex with colons", "base64 twice", "numbers", "solidus in json")
    for text in (
        *(CODINGS[name](key) for name in codings if key.isascii() or name != "every letter in percent"),
        json.dumps(key),
        repr(key.encode()),
        key.encode().decode("latin-1"),
        "".join(f"%{byte:02x}" for byte in key.encode()),
        "".join(f"={byte:02X}" for byte in key.encode()),
    ):
        assert "***" in secrets.hide(f"say {text} again"), text
        assert secrets.hide(f"say {text} again").endswith(" again")


def test_a_code_before_a_secret_takes_no_letters_from_it():
    """What looks like the begin of a code is part of the text as well: `%abcd1234`, `=abcd1234`."""
    secrets = Secrets(["abcd1234"])
    for before in ("%", "=", "\\u", "\\x", "&#x", "key=", "%25"):
        shown = secrets.hide(f"{before}abcd1234 is no key")
        assert "abcd1234" not in shown
        assert "***" in shown


@pytest.mark.parametrize("cut", ["sk-Q7f+3***********Uv02", "sk-Q7f+...Uv02", "sk-Q…", "…UvUv02", "****StUv02"])
def test_what_a_server_hides_itself_is_hidden_whole(cut):
    """Providers show the first and the last letters of a key."""
    assert not {"sk-q", "uv02", "stuv"} & {
        word[:4] for word in Secrets([KEY]).hide(f"key: {cut}").lower().replace("*", ".").replace("…", ".").split(".")
    }


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


def test_texts_that_were_seen_take_bounded_memory():
    """A server that writes something new into each response fills no memory; what is long is not kept at all."""
    secrets = Secrets(["sk-abcdefghijklmnop"])
    for number in range(1000):
        secrets.hide(f"model {number}")
    assert 0 < len(secrets.seen) <= 256
    before = len(secrets.seen)
    secrets.hide("x" * 101)
    assert len(secrets.seen) == before
    assert secrets.hide("model sk-abcdefghijklmnop") == "model ***"
    assert secrets.hide("sk-abcdefghijklmnop") == "***"
