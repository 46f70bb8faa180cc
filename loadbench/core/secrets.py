"""Secrets: which texts are some, and how they are hidden in the words of a server, which may repeat what it was sent.

A server repeats a key as it is, in a URL, in JSON, in base64, or cut off. So a text is read with its codings undone,
and any piece of a secret that is long enough to help somebody is replaced, as are such pieces of its base64 and hex.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
# A long text is searched in parts, which overlap: more than a piece takes, however it is coded.
_WINDOW, _OVERLAP = 1 << 16, 1 << 10
# Nobody codes a text more often.
_MOST_LAYERS = 3
_CODED = re.compile(
    r"%(?P<percent>[0-9a-f]{2})|\\(?:u(?P<json>[0-9a-f]{4})|x(?P<hex>[0-9a-f]{2}))?|&\#x(?P<entity>[0-9a-f]{1,6});"
    r"|&\#(?P<number>[0-9]{1,7});|(?P<letter>[^!-~])",
    re.IGNORECASE,
)
_LOWER = str.maketrans({chr(letter): chr(letter + 32) for letter in range(ord("A"), ord("Z") + 1)})
_URL_SAFE = str.maketrans("+/", "-_")
# Of the texts that are kept as seen.
_MOST_SEEN, _LONGEST_SEEN = 256, 100


class Secrets:
    """Texts that nothing may show. `piece` is the length from which a part of one is hidden.

    `seen` are short texts without a secret, such as the name of the model, which come with every response.
    """

    def __init__(self, texts: Iterable[str] = (), *, piece: int = _PIECE) -> None:
        self.texts = tuple(dict.fromkeys(texts))
        self._forms = [form for text in self.texts if text.lower() not in _NO_SECRETS for form in _forms(text)]
        self._pieces: dict[int, set[str]] = {}  # by their length
        for form in self._forms:
            size = min(piece, len(form))
            self._pieces.setdefault(size, set()).update(form[at : at + size] for at in range(len(form) - size + 1))
        self._starts = {form[:size] for form in self._forms for size in range(_CUT_PIECE, _PIECE)}
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
        if not self._forms:
            return
        letters, begins, ends = _decoded(text)
        for size, pieces in self._pieces.items():
            for at in range(len(letters) - size + 1):
                if letters[at : at + size] in pieces:
                    yield begins[at], ends[at + size - 1]
        for cut in [match.start() for match in re.finditer("…", letters)]:
            for size in range(_CUT_PIECE, min(_PIECE, cut + 1)):
                if letters[cut - size : cut] in self._starts:
                    yield begins[cut - size], ends[cut - 1]

    def hide_bytes(self, data: bytes) -> bytes:
        """The same for the bytes of a body."""
        return self.hide(data.decode("latin-1")).encode("latin-1")


def _forms(text: str) -> Iterator[str]:
    """A secret as it may stand in a text that was decoded: itself, in base64 at each alignment, in hex."""
    yield _decoded(text)[0]
    raw = text.encode("utf-8", "surrogatepass")
    for before in range(3):
        # Only letters all of whose bits are the secret's.
        coded = b64encode(bytes(before) + raw).decode()
        coded = coded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6].translate(_LOWER)
        if len(coded) >= _CUT_PIECE:
            yield coded
            yield coded.translate(_URL_SAFE)
    yield raw.hex()


def _decoded(text: str) -> tuple[str, list[int], list[int]]:
    """The text in lower case, without spaces, backslashes, unprintable characters and codings, and where each letter
    begins and ends in it."""
    letters, begins, ends = text.translate(_LOWER), list(range(len(text))), list(range(1, len(text) + 1))
    for layer in range(_MOST_LAYERS):
        if layer and re.search(r"[%\\&]", letters) is None:
            break
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
            letter = match["letter"]
            if letter is None and match.lastgroup is not None:
                code = int(match[match.lastgroup], 10 if match.lastgroup == "number" else 16)
                letter = chr(code).translate(_LOWER) if code < 0x110000 else None
            if letter is not None and letter.isprintable() and letter != " ":
                parts.append(letter)
                new_begins.append(begins[first])
                new_ends.append(ends[last - 1])
        letters = "".join([*parts, letters[done:]])
        begins, ends = new_begins + begins[done:], new_ends + ends[done:]
    return letters, begins, ends


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
