"""Secrets: which texts are some, and how they are hidden in the words of a server, which may repeat what it was sent.

A server repeats a key as it is, in a URL, in JSON, in base64, or cut off. So a text is read with its codings undone,
and any piece of a secret that is long enough to help somebody is replaced, as are such pieces of its base64 and hex.
"""

from __future__ import annotations

import re
from base64 import b32encode, b64encode
from binascii import hexlify
from html.entities import html5
from math import gcd
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING
from unicodedata import normalize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# What stands for a secret.
MASK = "***"
_SECRET_NAMES = re.compile(
    r"(key|token|secret|password|passwd|pwd|authorization|auth|credentials?|signature|sig|code)$", re.IGNORECASE
)
# Headers whose values say which client and which API this is, and are no secrets.
_PLAIN_HEADERS = frozenset(
    {"accept", "accept-language", "content-type", "user-agent", "http-referer", "x-title", "openai-beta"}
    | {"anthropic-version", "api-version"}
)
# What is given for a key where none is needed; some are part of models' names as well.
_NO_SECRETS = frozenset(
    {"lm-studio", "no-key-required", "sk-no-key-required", "not-needed", "foundry-local", "negotiate"}
)
# Shorter words, such as "Bearer", are no secrets; hiding them would hide half of every message.
SHORTEST_SECRET = 8
# A piece of a secret this long is hidden wherever it stands: fewer characters say little, and are those of other words
# by chance. Before an ellipsis, where a text was cut, fewer do.
_PIECE = 8
_CUT_PIECE = 4
# What is looked for first, because a set of these is looked up more rarely than one of pieces.
_GRAM = 4
# A long text is searched in parts, which overlap: more than a piece takes, however it is coded.
_WINDOW, _OVERLAP = 1 << 16, 1 << 10
# Nobody codes a text more often.
_MOST_LAYERS = 3
_CODED = re.compile(
    r"%u?(?P<percent>(?<=u)[0-9a-f]{4}|[0-9a-f]{2})|=(?:(?P<quoted>[0-9a-f]{2})|\r?\n)"
    r"|\\(?:u\{?(?P<json>[0-9a-f]{1,6}(?=\})|[0-9a-f]{4})\}?|x(?P<hex>[0-9a-f]{2}))?"
    r"|&\#x0*(?P<entity>[0-9a-f]{1,6});?|&\#0*(?P<number>[0-9]{1,7});?|&(?P<name>[a-z]{2,8});",
    re.IGNORECASE,
)
_LOWER = str.maketrans({chr(letter): chr(letter + 32) for letter in range(ord("A"), ord("Z") + 1)})
_ROT13 = str.maketrans(
    ascii_lowercase + ascii_uppercase,
    "".join(letters[13:] + letters[:13] for letters in (ascii_lowercase, ascii_uppercase)),
)
_URL_SAFE = str.maketrans("+/", "-_")
# What stands between the codes of letters as numbers, without punctuation: `0x61`, `\\U00000061`, `%u0061`.
_NUMBERED = (("0x", "02x"), ("x", "02x"), ("u00", "02x"), ("u000000", "02x"), ("", "d"), ("", "03o"))
# Where a server has cut a text, or has hidden a part of it itself.
_CUT = re.compile(r"…|\.{3}|\*{3,}")
_BLANK = re.compile(r"[\x00- \x7f\\]+")
_PUNCTUATION = re.compile(r"[\W_]+")
# Of the texts that are kept as seen.
_MOST_SEEN, _LONGEST_SEEN = 256, 100

# A text as it is read: its letters, and where each begins and ends in the text.
_Reading = tuple[str, list[int], list[int]]


class Secrets:
    """Texts that nothing may show. `piece` is the length from which a part of one is hidden.

    `seen` are short texts without a secret, such as the name of the model, which come with every response.
    """

    def __init__(self, texts: Iterable[str] = (), *, piece: int = _PIECE) -> None:
        self.texts = tuple(dict.fromkeys(texts))
        secrets = [text for text in self.texts if text.lower() not in _NO_SECRETS]
        self._pieces: dict[tuple[bool, int], set[str]] = {}  # by whether punctuation counts, and their length
        for form, least in [form for text in secrets for form in _forms(text, piece)]:
            shown = _shown(form, [], [])
            for bare, letters in enumerate((shown[0], _bare(shown)[0])):
                size = min(least, len(letters))
                if size >= (SHORTEST_SECRET if bare else 1):
                    pieces = {letters[at : at + size] for at in range(len(letters) - size + 1)}
                    self._pieces.setdefault((bool(bare), size), set()).update(pieces)
        self._grams = {
            (bare, size): {one[at : at + _GRAM] for one in pieces for at in range(max(1, size - _GRAM + 1))}
            for (bare, size), pieces in self._pieces.items()
        }
        plain = [
            _shown(form, [], [])[0] for text in secrets for form in (text, *_in_letters(text.encode(), b64encode, 6))
        ]
        sizes = range(_CUT_PIECE, _PIECE)
        self._starts = {form[:size] for form in plain for size in sizes}
        self._ends = {form[-size:] for form in plain for size in sizes}
        self.seen: set[str] = set()

    def hide(self, text: str) -> str:
        """The text with `***` for every secret and every piece of one; in time linear in its length."""
        if text in self.seen or len(text) < _CUT_PIECE:
            return text
        spans = sorted(
            (start + begin, start + end)
            for start in range(0, len(text), _WINDOW)
            for begin, end in self._spans(text[start : start + _WINDOW + _OVERLAP])
        )
        if not spans:
            if len(text) <= _LONGEST_SEEN:
                self.seen = set() if len(self.seen) >= _MOST_SEEN else self.seen
                self.seen.add(text)
            return text
        parts: list[str] = []
        done = 0
        for begin, end in spans:
            if begin > done or not parts:
                parts += [text[done:begin], MASK]
            done = max(done, end)
        return "".join([*parts, text[done:]])

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Where pieces of secrets begin and end in a text."""
        if not self._pieces:
            return
        for reading in _readings(text):
            bare = _bare(reading)
            for (is_bare, size), pieces in self._pieces.items():
                letters, begins, ends = bare if is_bare else reading
                grams, step = self._grams[is_bare, size], max(1, size - _GRAM + 1)
                done = 0
                # Each piece has a gram that begins at a multiple of the step.
                for gram_at in range(0, len(letters), step):
                    if letters[gram_at : gram_at + _GRAM] in grams:
                        for at in range(max(done, gram_at - step + 1), gram_at + 1):
                            if letters[at : at + size] in pieces:
                                yield begins[at], ends[at + size - 1]
                        done = gram_at + 1
            letters, begins, ends = reading
            for first, last in [match.span() for match in _CUT.finditer(letters)]:
                for size in range(_CUT_PIECE, _PIECE):
                    if size <= first and letters[first - size : first] in self._starts:
                        yield begins[first - size], ends[first - 1]
                    if letters[last : last + size] in self._ends:
                        yield begins[last], ends[min(last + size, len(letters)) - 1]

    def hide_bytes(self, data: bytes) -> bytes:
        """The same for the bytes of a body."""
        return self.hide(data.decode("latin-1")).encode("latin-1")


def _forms(text: str, piece: int) -> Iterator[tuple[str, int]]:
    """A secret as it may stand in a text that was decoded, and how long a piece of it is hidden: itself, its bytes,
    backwards, turned by 13 letters, in base64, base32 and hex, also one in another, and as numbers."""
    for plain in (text, text[::-1], text.translate(_ROT13)):
        yield plain, piece
    for raw in {text.encode(coding, "surrogatepass") for coding in ("utf-8", "utf-16-le", "utf-16-be")}:
        yield raw.decode("latin-1"), piece
        for coded in [*_in_letters(raw, b64encode, 6), *_in_letters(raw, hexlify, 4)]:
            yield coded, piece
            for again in [*_in_letters(coded.encode(), b64encode, 6), *_in_letters(coded.encode(), hexlify, 4)]:
                yield again, piece
        for coded in _in_letters(raw, b32encode, 5):
            yield coded, piece
    for before, form in _NUMBERED:
        # Digits are like one another: only longer pieces are of a secret.
        yield "".join(f"{before}{byte:{form}}" for byte in text.encode("utf-8", "surrogatepass")), 2 * piece


def _in_letters(raw: bytes, encode: Callable[[bytes], bytes], bits: int) -> set[str]:
    """These bytes in a coding whose letters have so many bits, at each alignment: the letters that have no other bits.
    Those of base64 for URLs as well."""
    found = set()
    for before in range(bits // gcd(bits, 8)):
        coded = encode(bytes(before) + raw).decode()[-(-before * 8 // bits) : (before + len(raw)) * 8 // bits]
        found |= {coded, coded.translate(_URL_SAFE)} if len(coded) >= _CUT_PIECE else set()
    return found


def _readings(text: str) -> Iterator[_Reading]:
    """The text as it is, and with its codings undone once, twice and more often."""
    letters, begins, ends = text, list(range(len(text))), list(range(1, len(text) + 1))
    yield _shown(letters, begins, ends)
    for _ in range(_MOST_LAYERS):
        parts: list[str] = []
        new_begins: list[int] = []
        new_ends: list[int] = []
        done = 0
        for match in _CODED.finditer(letters):
            first, last = match.span()
            parts.append(letters[done:first])
            new_begins += begins[done:first]
            new_ends += ends[done:first]
            done = last
            kind = match.lastgroup
            letter = ""
            if kind == "name":
                letter = html5.get(f"{match[kind].lower()};", "")
            elif kind is not None:
                code = int(match[kind], 10 if kind == "number" else 16)
                letter = chr(code) if code < 0x110000 else ""
            parts += letter
            new_begins += [begins[first]] * len(letter)
            new_ends += [ends[last - 1]] * len(letter)
        if not done:
            return
        letters = "".join([*parts, letters[done:]])
        begins, ends = new_begins + begins[done:], new_ends + ends[done:]
        yield _shown(letters, begins, ends)


def _shown(letters: str, begins: list[int], ends: list[int]) -> _Reading:
    """Letters in lower case, without spaces, backslashes and what is not printable."""
    lower = letters.lower()
    lower = lower if len(lower) == len(letters) else letters.translate(_LOWER)
    if not lower.isascii():
        lower = "".join([letter if letter.isprintable() else " " for letter in lower])
    return _without(_BLANK, (lower, begins, ends))


def _bare(reading: _Reading) -> _Reading:
    """Without punctuation, and in the plain form of each letter."""
    text, begins, ends = reading
    if not text.isascii():
        plain = (normalize("NFKC", letter) for letter in text)
        text = "".join([form if len(form) == 1 else letter for form, letter in zip(plain, text, strict=True)])
    return _without(_PUNCTUATION, (text, begins, ends))


def _without(pattern: re.Pattern[str], reading: _Reading) -> _Reading:
    letters, begins, ends = reading
    parts: list[str] = []
    new_begins: list[int] = []
    new_ends: list[int] = []
    done = 0
    for match in pattern.finditer(letters):
        first, last = match.span()
        parts.append(letters[done:first])
        new_begins += begins[done:first]
        new_ends += ends[done:first]
        done = last
    if not done:
        return reading
    return "".join([*parts, letters[done:]]), new_begins + begins[done:], new_ends + ends[done:]


def is_secret(name: str) -> bool:
    """Whether a value of this name is probably a secret: `api_key`, `apiKey`, `access-token`, `sig`."""
    return _SECRET_NAMES.search(name) is not None


def masked(value: object) -> object:
    """JSON in which texts whose names are those of secrets are replaced."""
    match value:
        case dict():
            hidden = {name for name, part in value.items() if isinstance(part, str) and is_secret(name)}
            return {name: MASK if name in hidden else masked(part) for name, part in value.items()}
        case list() | tuple():
            return [masked(part) for part in value]
        case _:
            return value


def secrets_in(value: object) -> Iterator[str]:
    """The texts that `masked` replaces, if they are long enough to be secrets."""
    match value:
        case dict():
            for name, part in value.items():
                if isinstance(part, str) and is_secret(name) and len(part) >= SHORTEST_SECRET:
                    yield part
                yield from secrets_in(part)
        case list() | tuple():
            for part in value:
                yield from secrets_in(part)


def secrets_of(headers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The possible secrets in these headers: each word of a value that is long enough, also of a list or a cookie."""
    values = [value for name, value in headers if name.lower() not in _PLAIN_HEADERS]
    words = [word for value in values for word in (*value.split(), *re.split(r"[\s;,=\"]+", value))]
    return tuple(dict.fromkeys(word for word in words if len(word) >= SHORTEST_SECRET))
