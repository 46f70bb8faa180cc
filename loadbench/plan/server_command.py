"""The command that starts the server under test: how it is split into words, filled in, and shown.

Words are split as a POSIX shell does, and no shell runs them: `$HOME`, `*` and `|` are ordinary text. On Windows a
backslash is ordinary too. `{port}` stands for the server's port, in the command, its variables and its URLs; doubled
braces are braces.
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING

from loadbench.core.secrets import MASK, is_secret
from loadbench.plan.server_url import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Where a server listens if no URL says it.
DEFAULT_URL = f"http://127.0.0.1:{PORT}/v1"
# Of a command, in a message or a report.
MOST_SHOWN = 2_000
# Doubled braces, a name in braces, or a brace that is neither.
_BRACES = re.compile(r"\{\{|\}\}|\{(?P<name>[A-Za-z_]\w*)\}|[{}]")
# What a shell would take as it is. Braces stay: they are ours.
_PLAIN = re.compile(r"[\w@%+=:,./{}-]+", re.ASCII)
_OPTION = re.compile(r"-{1,2}[A-Za-z][\w-]*")
# Within a word: what looks like the key of a well-known service, the user and password of a URL, and a name before its
# value, as in `bash -c 'serve --api-key X'`, `--env=HF_TOKEN=X`, `{"api_key": "X"}` and `Authorization: Bearer X`.
_IN_WORD = re.compile(
    r"(?<![\w-])(?P<key>(?:sk-|hf_|gsk_|gh[ps]_|github_pat_|glpat-|nvapi-|xai-)(?=[\w-]{0,200}\d)[\w-]{12,200})"
    r"|://(?P<user>[^/\s@]{1,500})@"
    r"""|(?<![\w-])(?P<name>-{0,2}[A-Za-z][\w-]{0,80})(?=["']?\s{0,9}[=:]|(?P<space>\s))"""
)
_VALUE = re.compile(r"""["']?\s*[=:]?\s*["']?(?:(?:Bearer|Basic|Token)\s+)?(?P<value>[^\s"'&;,}]+)""", re.IGNORECASE)


def split_words(text: str) -> tuple[str, ...]:
    """The words of a command line; raises `ValueError` if a quotation has no end."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    if sys.platform == "win32":
        lexer.escape = ""
    try:
        return tuple(lexer)
    except ValueError:
        # The text may have a secret in it: it is not repeated.
        raise ValueError("a quotation in it has no end: want a command with paired quotes") from None


def join_words(words: Sequence[str]) -> str:
    """The command line of these words: `split_words` reads it again, as does a shell."""
    return " ".join(word if _PLAIN.fullmatch(word) else shlex.quote(word) for word in words)


def shown_command(words: Sequence[str]) -> str:
    """The command line without the secrets in it: values of options, variables, headers and parts of URLs that are
    named like secrets, also within a word, and what looks like a key."""
    shown = []
    for before, word in zip(("", *words), words, strict=False):
        parts, done = [], 0
        for begin, end in _secret_spans(before, word):
            parts += [word[done:begin], MASK]
            done = end
        text = "".join([*parts, word[done:]])
        shown.append(text if parts and not re.search(r"\s", text) else join_words([text]))
    return " ".join(shown)


def secrets_of_command(words: Sequence[str]) -> Iterator[str]:
    """The texts that `shown_command` hides."""
    for before, word in zip(("", *words), words, strict=False):
        for begin, end in _secret_spans(before, word):
            yield word[begin:end]


def _secret_spans(before: str, word: str) -> list[tuple[int, int]]:
    """Where in this word of a command, which follows another one, secrets begin and end."""
    if "=" not in before and _OPTION.fullmatch(before) and is_secret(before) and _may_be_secret(word):
        return [(0, len(word))]
    name, equals, value = word.partition("=")
    if equals and is_secret(name) and _OPTION.fullmatch(f"--{name.lstrip('-')}") and _may_be_secret(value):
        return [(len(name) + 1, len(word))]
    spans: list[tuple[int, int]] = []
    for match in _IN_WORD.finditer(word):
        found: re.Match[str] | None = match
        kind = match.lastgroup or ""
        if match["name"]:
            # Words after a space are values of options alone.
            is_named = is_secret(match["name"]) and (match["space"] is None or match["name"].startswith("-"))
            found, kind = _VALUE.match(word, match.end()) if is_named else None, "value"
        if found and _may_be_secret(found[kind]) and (not spans or found.start(kind) >= spans[-1][1]):
            spans.append(found.span(kind))
    return spans


def _may_be_secret(value: str) -> bool:
    """Not a number, as of `--max-token 5`, another option, or a text that is filled in."""
    return bool(value) and not value.isdecimal() and not value.startswith("-") and _BRACES.search(value) is None


def names_in(text: str) -> set[str]:
    """The names in braces."""
    return {match["name"] for match in _BRACES.finditer(text) if match["name"]}


def chooses_port(command: Sequence[str], variables: Sequence[tuple[str, str]] = ()) -> bool:
    """Whether the command, or one of its variables, says where the port belongs."""
    return any("port" in names_in(text) for text in (*command, *(value for _, value in variables)))


def fill(text: str, values: Mapping[str, str], *, rest: bool = False) -> str:
    """The text with each name in braces replaced by its value. With `rest`, other names and doubled braces stay.

    Raises `ValueError` for a name that has no value, and for a brace alone.
    """

    def filled(match: re.Match[str]) -> str:
        name, found = match["name"], match[0]
        if name in values:
            # What is left for another call must read the value as it is.
            return re.sub(r"([{}])", r"\1\1", values[name]) if rest else values[name]
        if rest:
            return found
        if found in {"{{", "}}"}:
            return found[0]
        known = " and ".join(f"{{{one}}}" for one in sorted(values))
        what = "it is not known" if name else "a brace alone"
        raise ValueError(f"found {found}: {what}; want {known}, and {{{{ or }}}} for a brace")

    return _BRACES.sub(filled, text)
