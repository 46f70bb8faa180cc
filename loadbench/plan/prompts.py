"""What is asked: a fixed text, texts from a file, or words dealt to a wanted number of tokens.

Which prompt a request gets depends on the seed, the level's key and the request's number in its level, and on nothing
else: the same scenario asks the same things whatever the timing, and no two requests of a run ask the same thing. That
matters because servers keep the work done for a prompt's beginning: a benchmark that repeats itself measures the cache.

Texts get a *nonce* in front, a word that was never there before. Dealt words need none: they come in blocks of 16 that
hold each word of a small vocabulary once, so that a block's length in tokens is the same for every order, and the order
of the first block is the nonce. Orders are taken one after another on a path through all `16!` of them, on which any
`16 * 15 * ... * (17 - k)` requests in a row differ within their first `k` words: 240 within two, 43,680 within four.
"""

from __future__ import annotations

import hashlib
import math
import random
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import orjson

from loadbench.core.errors import BadInput
from loadbench.plan.distribution import Constant
from loadbench.plan.rubric import read_facets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from loadbench.plan.distribution import Distribution
    from loadbench.plan.rubric import Facet

# Common English words that are one token each, with the space before it, in the vocabularies of today's models.
WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "on", "not", "he")
BLOCK = len(WORDS)
_ORDERS = math.factorial(BLOCK)
# From one request to the next: coprime to 16!, near its golden section, so that neighbours differ throughout.
_STEP = 12_930_995_290_259
# Blocks dealt afresh per prompt; longer prompts go round, as a request must be ready in microseconds.
_FRESH_BLOCKS = 8
# A prompt may be of hundreds of blocks that others share, and each begins with an order of its own.
_FRESH_IN_SHARED = 2
# A word is between a fraction of a token (vocabularies with whole phrases) and its letters.
_TOKENS_PER_WORD = (0.25, 8.0)
_MOST_FILE_BYTES = 256 * 1024 * 1024


class Prompt(NamedTuple):
    """One thing to ask. `output_tokens` is this prompt's own limit, `asked_tokens` the length that it should have."""

    text: str
    output_tokens: int | None = None
    asked_tokens: int | None = None
    position: int | None = None  # which of the given texts it is, from 0
    facets: tuple[Facet, ...] = ()  # what its answer is expected to have in it
    persona: str | None = None  # whose it is
    turns: int | None = None  # of the conversation that it may begin
    warm: bool = False  # begins with what was asked before


class Calibration(NamedTuple):
    """What a server's tokens are like: a prompt of n words has `overhead_tokens + n * tokens_per_word` of them.

    One that is `foreign` is another server's: texts are made by it, and what lengths they have here it does not say.
    """

    tokens_per_word: float
    overhead_tokens: int
    foreign: bool = False


class PromptSource(Protocol):
    """Where a level gets its prompts."""

    def next(self, number: int, user: int | None) -> Prompt:
        """The prompt of request `number` of the level; `user` is the virtual user who asks, if there is one."""
        ...

    def calibration_prompts(self) -> Sequence[Prompt]:
        """What to ask of a server before all else, one prompt at least."""
        ...

    def calibrated(self, tokens: Sequence[int | None]) -> Calibration | None:
        """What follows from the lengths in tokens that the server told of those; `None` where nothing does."""
        ...


class Texts:
    """Given prompts, in turn, each under a nonce of its own unless they are to be repeated as they are.

    A prompt without an output limit of its own has one drawn from `output_tokens`, if that is given.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        output_tokens: Distribution | None = None,
        *,
        seed: int = 0,
        level: str = "",
        unique: bool = True,
    ) -> None:
        if not prompts:
            raise ValueError("there is no prompt to ask")
        self._prompts = tuple(prompt._replace(position=position) for position, prompt in enumerate(prompts))
        self._output = output_tokens
        self._key = f"{seed}/{level}"
        self._unique = unique

    def next(self, number: int, user: int | None) -> Prompt:  # noqa: ARG002 - all users ask alike
        """The prompts in turn, by the request's number."""
        prompt = self._prompts[number % len(self._prompts)]
        if self._output is not None and prompt.output_tokens is None:
            prompt = prompt._replace(output_tokens=_whole(self._output, random.Random(f"{self._key}/{number}")))
        return prompt._replace(text=f"{self._nonce(number)} {prompt.text}") if self._unique else prompt

    def calibration_prompts(self) -> Sequence[Prompt]:
        """The first of them: there is nothing to find out, but that the server answers."""
        return [self.next(0, None)]

    def calibrated(self, tokens: Sequence[int | None]) -> None:
        """Nothing: given prompts are as long as they are."""

    def _nonce(self, number: int) -> str:
        return hashlib.blake2b(f"{self._key}/{number}".encode(), digest_size=8).hexdigest()


class WordPrompts:
    """Prompts of drawn lengths in tokens: `overhead_tokens + tokens_per_word * words`, as a calibration found.

    Without a calibration the lengths are guesses, and no prompt says what length was asked of it. Prompts that need
    not be unique all begin with the same words.
    """

    def __init__(
        self,
        input_tokens: Distribution,
        output_tokens: Distribution | None = None,
        *,
        tokens_per_word: float = 1.0,
        overhead_tokens: int = 0,
        calibrated: bool = False,
        seed: int = 0,
        level: str = "",
        unique: bool = True,
    ) -> None:
        self._input = input_tokens
        self._output = output_tokens
        self._tokens_per_word = tokens_per_word
        self._overhead = overhead_tokens
        self._is_calibrated = calibrated
        self._key = f"{seed}/{level}"
        self._begin = int.from_bytes(hashlib.blake2b(self._key.encode(), digest_size=16).digest()) % _ORDERS
        self._same = None if unique else f"{seed}"

    def next(self, number: int, user: int | None) -> Prompt:  # noqa: ARG002 - all users ask alike
        """Words of the drawn length, one at least."""
        rng = random.Random(f"{self._key}/{number}")
        tokens = _whole(self._input, rng)
        output = None if self._output is None else _whole(self._output, rng)
        prompt = self._sized(number, tokens, output, rng)
        # One length for all that cannot be had is asked for all the same: the level is to say so.
        alike = isinstance(self._input, Constant) and prompt.asked_tokens is not None
        return prompt._replace(asked_tokens=tokens) if alike else prompt

    def sized(self, number: int, tokens: int, output_tokens: int | None) -> Prompt:
        """Words of a given length, one at least."""
        return self._sized(number, tokens, output_tokens, random.Random(f"{self._key}/{number}"))

    def _sized(self, number: int, tokens: int, output: int | None, rng: random.Random) -> Prompt:
        words = self._words(tokens)
        if self._same is None:
            text = _deal(words, (self._begin + number * _STEP) % _ORDERS, rng)
        else:
            text = _deal(words, 0, random.Random(self._same))
        return Prompt(text, output, self._asked(words))

    def shared(self, blocks: Sequence[int], tokens: int, output_tokens: int | None, *, block_tokens: int) -> Prompt:
        """Words of a given length in blocks of so many tokens, the last one apart; equal blocks have equal words."""
        each = max(1, round(block_tokens / self._tokens_per_word))
        words = self._words(tokens)
        dealt = []
        for place, block in enumerate(blocks):
            left = words - place * each
            if left <= 0:
                break
            length = left if place == len(blocks) - 1 else min(left, each)
            rng = random.Random(f"{self._key}/block/{block}")
            dealt.append(_deal(length, rng.randrange(_ORDERS), rng, fresh=_FRESH_IN_SHARED))
        return Prompt(" ".join(dealt), output_tokens, self._asked(words))

    def _words(self, tokens: int) -> int:
        return max(1, round((tokens - self._overhead) / self._tokens_per_word))

    def _asked(self, words: int) -> int | None:
        """How long so many words are by the calibration: the wanted length, as nearly as words and template allow."""
        return round(self._overhead + words * self._tokens_per_word) if self._is_calibrated else None

    def calibration_prompts(self) -> Sequence[Prompt]:
        """Two texts, of which the lengths in words are known."""
        return [Prompt(text) for _, text in calibration_texts()]

    def calibrated(self, tokens: Sequence[int | None]) -> Calibration | None:
        """What the server's tokens are like; `None` if it told nothing, or what cannot be: lengths stay guesses."""
        told = [count for count in tokens if count is not None]
        words = [count for count, _ in calibration_texts()]
        if len(told) != len(words):
            return None
        try:
            return calibrated(list(zip(words, told, strict=True)))
        except ValueError:
            return None


def _whole(tokens: Distribution, rng: random.Random) -> int:
    return max(1, round(tokens.sample(rng)))


def _deal(words: int, order: int, rng: random.Random, *, fresh: int = _FRESH_BLOCKS) -> str:
    """So many words in blocks: the first in the given order, some more by chance, then round again."""
    blocks = -(-words // BLOCK)
    dealt = [" ".join(_ordered(order))]
    for _ in range(1, min(blocks, fresh)):
        dealt.append(" ".join(_ordered(rng.randrange(_ORDERS))))  # noqa: PERF401 - the first is another
    whole = [dealt[number % fresh] for number in range(words // BLOCK)]
    rest = words % BLOCK
    if rest:
        whole.append(" ".join(dealt[(blocks - 1) % fresh].split()[:rest]))
    return " ".join(whole)


def _ordered(order: int) -> Iterator[str]:
    """The `order`-th arrangement of the words: the digits of `order` in the factorial number system."""
    left = list(WORDS)
    while left:
        order, place = divmod(order, len(left))
        yield left.pop(place)


# Calibration: what is a word, and what does the server put around a prompt, in its own tokens?


def calibration_texts() -> tuple[tuple[int, str], tuple[int, str]]:
    """Two (number of words, text) whose lengths in tokens, as the server reports them, tell both."""
    rng = random.Random("calibration")
    short, long = 2 * BLOCK, 10 * BLOCK
    return (short, _deal(short, rng.randrange(_ORDERS), rng)), (long, _deal(long, rng.randrange(_ORDERS), rng))


def calibrated(measured: Sequence[tuple[int, int]]) -> Calibration:
    """(tokens per word, overhead in tokens) from two (words, tokens) pairs, the shorter text first.

    Raises `ValueError` where they cannot be the lengths of such texts: the server counts something else.
    """
    (words, tokens), (more_words, more_tokens) = measured
    if not 0 < words < more_words:
        raise ValueError(f"cannot calibrate with texts of {words} and {more_words} words: the second must be longer")
    per_word = (more_tokens - tokens) / (more_words - words)
    overhead = round(tokens - per_word * words)
    least, most = _TOKENS_PER_WORD
    if not least <= per_word <= most:
        raise ValueError(
            f"the server counts {tokens} tokens for {words} words and {more_tokens} for {more_words}: "
            f"{per_word:.2f} tokens per word cannot be"
        )
    if overhead < 0:
        raise ValueError(
            f"the server counts {tokens} tokens for {words} words, fewer than {more_tokens} for {more_words} allow"
        )
    return Calibration(per_word, overhead)


# Files.


def read_prompts(path: str | Path) -> tuple[Prompt, ...]:
    """The prompts of a file: a JSON array (`.json`), an object or a string per line (`.jsonl`), or plain lines.

    An object has its text under `prompt` or `text`, and, if any, its output limit under `max_tokens` and its `facets`
    (`loadbench.plan.rubric`); other keys are somebody else's. Empty lines are skipped. Raises `BadInput` with the file,
    the place and the remedy.
    """
    path = Path(path)
    content = _read_text(path)
    match path.suffix.lower():
        case ".json":
            prompts = _from_json(path, content)
        case ".jsonl" | ".ndjson":
            prompts = [
                _prompt(_parse(line, f"{path}, line {number}"), f"{path}, line {number}")
                for number, line in _lines(content)
            ]
        case _:
            prompts = [Prompt(line) for _, line in _lines(content)]
    if not prompts:
        raise BadInput(f"{path} has no prompt in it", hint="write at least one")
    return tuple(prompts)


# Every level of a run asks for its prompts, and all of them are to have the same.
read_prompts_once = lru_cache(maxsize=1)(read_prompts)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_FILE_BYTES + 1)
    except OSError as error:
        raise BadInput(f"cannot read the prompts in {path}: {error.strerror}", hint="name a file that exists") from None
    if len(raw) > _MOST_FILE_BYTES:
        raise BadInput(f"{path} is larger than {_MOST_FILE_BYTES >> 20} MiB", hint="take a part of it")
    try:
        return raw.decode("utf-8-sig")  # some editors put a mark in front
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line}: this is not UTF-8", hint="save the file as UTF-8") from None


def _lines(content: str) -> Iterator[tuple[int, str]]:
    """(number, text) of each line that says something. Only line feeds end lines: U+2028 may stand in a prompt."""
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def _from_json(path: Path, content: str) -> list[Prompt]:
    items = _parse(content, str(path))
    if not isinstance(items, list):
        raise BadInput(f"{path} holds {_kind(items)}, not an array", hint="write an array of strings or objects")
    return [_prompt(item, f"{path}, item {number}") for number, item in enumerate(items, 1)]


def _parse(text: str, place: str) -> object:
    try:
        parsed: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"{place}: this is not JSON, {error}", hint="mend it there") from None
    return parsed


def _prompt(item: object, place: str) -> Prompt:
    """One prompt from a string or an object."""
    text: object
    limit: object
    facets: tuple[Facet, ...]
    if isinstance(item, str):
        text, limit, facets = item, None, ()
    elif isinstance(item, dict):
        text, limit = item.get("prompt", item.get("text")), item.get("max_tokens")
        facets = read_facets(item.get("facets", item.get("expected_facets")), place)
    else:
        raise BadInput(f"{place} is {_kind(item)}", hint='write a string, or an object with "prompt"')
    if not isinstance(text, str) or not text.strip():
        found = "an empty text" if isinstance(text, str) else f"{_kind(text)} where its text should be"
        raise BadInput(f"{place} has {found}", hint='write the text under "prompt" or "text"')
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise BadInput(f"{place} has the max_tokens {limit!r}", hint="write a whole number from 1 on, or leave it out")
    return Prompt(text, limit, facets=facets)


def _kind(item: object) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "true or false", type(None): "nothing"}
    return kinds.get(type(item), "a number")
