"""The prompts of requests: given ones, or generated words with a target number of tokens.

A request's prompt depends only on the seed, the level's key and the request's number in its level: the same scenario
always sends the same prompts, independent of timing, and no two requests of a run have the same prompt. That matters
because servers cache the work done for the beginning of a prompt: a benchmark that repeats prompts measures the cache.

Texts are prefixed with a *nonce*, a word that is different for each request. Of several messages, the first one of the
user is prefixed; a system message stays as it is. Generated words need no prefix. They come in blocks of 16 that
contain each word of a small vocabulary once, so that a block has the same length in tokens in every order, and the
order of the first block is the nonce. What is left after whole blocks are always the same words, in any order: all
prompts with the same number of words have the same length in tokens, even if words differ in theirs. Orders follow a
path through all `16!` of them, on which any `16 * 15 * ... * (17 - k)` successive requests differ within their first
`k` words: 240 within two, 43,680 within four.
"""

from __future__ import annotations

import hashlib
import math
import random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from loadbench.plan.conversation import user_message
from loadbench.plan.distribution import Constant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadbench.plan.conversation import Message
    from loadbench.plan.distribution import Distribution
    from loadbench.plan.rubric import Facet

# Common English words that are one token each, with the space before it, in the vocabularies of today's models.
WORDS = ("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "on", "not", "he")
BLOCK = len(WORDS)
_ORDERS = math.factorial(BLOCK)
# From one request to the next: coprime to 16! and near its golden section, so that neighbours differ everywhere.
_STEP = 12_930_995_290_259
# Different blocks per prompt; longer prompts repeat them, because a request must be ready in microseconds.
_DISTINCT_BLOCKS = 8
# For each shared block of a trace's prompt, which may have hundreds of them; each begins with a different order.
_DISTINCT_IN_SHARED = 2
# A word is between a fraction of a token (vocabularies with whole phrases) and one token per letter.
_TOKENS_PER_WORD = (0.25, 8.0)


class Prompt(NamedTuple):
    """One prompt. `output_tokens` is its own limit of output tokens, `target_tokens` the length that it should have.

    `messages` is what is sent if a data set gave whole messages; else the text is the one message of the user. `fields`
    are fields of the request, as the chat endpoint names them, and `extra` is merged into the body as it is. `then` are
    the later turns of a recorded dialogue.
    """

    text: str
    output_tokens: int | None = None
    target_tokens: int | None = None
    position: int | None = None  # among the given texts, from 0
    facets: tuple[Facet, ...] = ()  # by which its answer is rated
    persona: str | None = None
    turns: int | None = None  # of the conversation that it begins, if any
    warm: bool = False  # an earlier prompt had the same beginning
    messages: tuple[Message, ...] = ()
    fields: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] | None = None
    next_turn: tuple[int, int] | None = None  # the number of the request that continues a session, and its delay in ns
    then: tuple[Prompt, ...] = ()

    @property
    def sent(self) -> tuple[Message, ...]:
        """The messages of its request."""
        return self.messages or user_message(self.text)

    @property
    def following(self) -> Prompt:
        """The turn after it in its dialogue, with the same fields, and the same limit unless it has its own."""
        return self.then[0]._replace(
            output_tokens=self.then[0].output_tokens or self.output_tokens,
            persona=self.persona,
            fields=self.fields,
            extra=self.extra,
            then=self.then[1:],
        )

    @property
    def shown(self) -> str:
        """Its text for people: all that is said before the response."""
        if not self.messages:
            return self.text
        texts = [(message.get("role", ""), _text_of(message.get("content"))) for message in self.messages]
        return texts[0][1] if len(texts) == 1 else "\n\n".join(f"{role}: {text}" for role, text in texts)


class Calibration(NamedTuple):
    """How a server counts tokens: a prompt of n words has about `overhead_tokens + n * tokens_per_word`. `known` has
    (words, tokens) of prompts whose length the server reported: prompts of about that length are made by the nearest.

    A `foreign` calibration comes from another server: it determines the texts, but not their lengths on this server.
    """

    tokens_per_word: float
    overhead_tokens: int
    foreign: bool = False
    known: tuple[tuple[int, int], ...] = ()

    def words(self, tokens: int) -> int:
        """The number of words, at least one, whose length is nearest to this number of tokens."""
        if not self.known:
            return max(1, round((tokens - self.overhead_tokens) / self.tokens_per_word))
        words, length = min(self.known, key=lambda known: abs(known[1] - tokens))
        near = max(1, words + round((tokens - length) / self.tokens_per_word))
        shorter = max((known for known in self.known if known[1] <= tokens), default=None)
        longer = min((known for known in self.known if known[1] > tokens), default=None)
        if shorter is not None and longer is not None:
            # Between the known lengths around it, in proportion; with no length between them the nearest stays.
            share = (tokens - shorter[1]) / (longer[1] - shorter[1])
            near = min(max(shorter[0] + round(share * (longer[0] - shorter[0])), shorter[0] + 1), longer[0] - 1)
        # One that was tried, and is further away than the nearest, is not tried again.
        return words if near <= 0 or near in dict(self.known) else near

    def tokens(self, words: int) -> int:
        """The length of a prompt with this number of words."""
        known = dict(self.known)
        return known[words] if words in known else round(self.overhead_tokens + words * self.tokens_per_word)


class PromptSource(Protocol):
    """Where a level gets its prompts."""

    def next(self, number: int, user: int | None) -> Prompt:
        """The prompt of request `number` of the level; `user` is its virtual user, if any."""
        ...

    def calibration_prompts(self) -> Sequence[Prompt]:
        """The prompts to send to a server first; at least one."""
        ...

    def calibrate(self, tokens: Sequence[int | None]) -> Calibration | None:
        """The calibration by the lengths in tokens that the server reported for these prompts; `None` if unknown."""
        ...


class TextPrompts:
    """Given prompts in turn, each with a nonce, or unchanged if not `unique`.

    For a prompt without its own output limit one is drawn from `output_tokens`, if given.
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
            raise ValueError("there is no prompt to send")
        self._prompts = prompts
        self._output = output_tokens
        self._key = f"{seed}/{level}"
        self._unique = unique

    def next(self, number: int, user: int | None) -> Prompt:  # noqa: ARG002 - the same for all users
        """The prompts in turn, by the request's number."""
        position = number % len(self._prompts)
        prompt = self._prompts[position]
        prompt = prompt._replace(position=position, warm=_begins_alike(prompt))
        if self._output is not None and prompt.output_tokens is None:
            rng = random.Random(f"{self._key}/{number}")
            # Each turn of a dialogue has its own.
            turns = [turn._replace(output_tokens=_whole(self._output, rng)) for turn in (prompt, *prompt.then)]
            prompt = turns[0]._replace(then=tuple(turns[1:]))
        if not self._unique:
            return prompt
        nonce = hashlib.blake2b(f"{self._key}/{number}".encode(), digest_size=8).hexdigest()
        if not prompt.messages:
            return prompt._replace(text=f"{nonce} {prompt.text}")
        return prompt._replace(messages=_marked(prompt.messages, nonce))

    def calibration_prompts(self) -> Sequence[Prompt]:
        """The first prompt, and each that has fields which none before it has: they show what the server accepts."""
        seen: set[str] = set()
        numbers = []
        for number, prompt in enumerate(self._prompts):
            names = {*(prompt.fields or ()), *(prompt.extra or ())}
            if number == 0 or names - seen:
                numbers.append(number)
                seen |= names
        return [self.next(number, None) for number in numbers]

    def calibrate(self, tokens: Sequence[int | None]) -> None:
        """Nothing: the lengths of given prompts are fixed."""


def _begins_alike(prompt: Prompt) -> bool:
    """Whether its beginning stays as it is: a system message, and the tools, which servers put before the messages."""
    first = prompt.messages[0].get("role") if prompt.messages else "user"
    return first in ("system", "developer") or "tools" in (prompt.fields or {})


def _marked(messages: tuple[Message, ...], nonce: str) -> tuple[Message, ...]:
    """The messages, the first one of the user beginning with the nonce: before an image too, which has many tokens."""
    at = next((at for at, message in enumerate(messages) if message.get("role") == "user"), None)
    if at is None:
        return messages
    content = messages[at].get("content")
    first = content[0] if isinstance(content, list) and content and isinstance(content[0], dict) else {}
    if not isinstance(content, list):
        content = f"{nonce} {content or ''}".rstrip()
    elif isinstance(first.get("text"), str):
        content = [{**first, "text": f"{nonce} {first['text']}"}, *content[1:]]
    else:
        kind = "input_text" if first.get("type") in ("input_image", "input_file") else "text"
        content = [{"type": kind, "text": nonce}, *content]
    return (*messages[:at], {**messages[at], "content": content}, *messages[at + 1 :])


def _text_of(content: object) -> str:
    """The text of a message's content; other parts by their type."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    parts = [part for part in content if isinstance(part, dict)]
    return " ".join(part["text"] if isinstance(part.get("text"), str) else f"[{part.get('type')}]" for part in parts)


class WordPrompts:
    """Prompts with drawn lengths in tokens: `overhead_tokens + tokens_per_word * words`, by the calibration.

    With none, or a foreign one, the lengths are guesses, and prompts have no `target_tokens`. Prompts that need not be
    unique all begin with the same words.
    """

    def __init__(
        self,
        input_tokens: Distribution,
        output_tokens: Distribution | None = None,
        calibration: Calibration | None = None,
        *,
        seed: int = 0,
        level: str = "",
        unique: bool = True,
    ) -> None:
        self._input = input_tokens
        self._output = output_tokens
        self._calibration = calibration or Calibration(1.0, 0, foreign=True)
        self._key = f"{seed}/{level}"
        self._first_order = int.from_bytes(hashlib.blake2b(self._key.encode(), digest_size=16).digest()) % _ORDERS
        self._common_seed = None if unique else f"{seed}"

    def next(self, number: int, user: int | None) -> Prompt:  # noqa: ARG002 - the same for all users
        """Words of the drawn length, at least one."""
        rng = random.Random(f"{self._key}/{number}")
        tokens = _whole(self._input, rng)
        output = None if self._output is None else _whole(self._output, rng)
        prompt = self.sized(number, tokens, output, rng)
        # A constant length stays the target even where words cannot reach it, so that the level reports the difference.
        is_constant = isinstance(self._input, Constant) and prompt.target_tokens is not None
        return prompt._replace(target_tokens=tokens) if is_constant else prompt

    def sized(self, number: int, tokens: int, output_tokens: int | None, rng: random.Random | None = None) -> Prompt:
        """Words of a given length, at least one. Without `rng`, the words are drawn by the request's number."""
        words = self._calibration.words(tokens)
        if self._common_seed is not None:
            text = _text(words, 0, random.Random(self._common_seed))
        else:
            order = (self._first_order + number * _STEP) % _ORDERS
            text = _text(words, order, rng or random.Random(f"{self._key}/{number}"), same_rest=True)
        return Prompt(text, output_tokens, self._tokens(words))

    def shared(self, blocks: Sequence[int], tokens: int, output_tokens: int | None, *, block_tokens: int) -> Prompt:
        """Words of a given length in blocks of `block_tokens`; the last block has the rest. Equal ids, equal words."""
        block_words = max(1, round(block_tokens / self._calibration.tokens_per_word))
        words = self._calibration.words(tokens)
        texts = []
        for place, block in enumerate(blocks):
            left = words - place * block_words
            if left <= 0:
                break
            length = left if place == len(blocks) - 1 else min(left, block_words)
            rng = random.Random(f"{self._key}/block/{block}")
            texts.append(_text(length, rng.randrange(_ORDERS), rng, distinct=_DISTINCT_IN_SHARED))
        return Prompt(" ".join(texts), output_tokens, self._tokens(words))

    def _tokens(self, words: int) -> int | None:
        """The length of this many words by the calibration: as near to the target as whole words allow."""
        return None if self._calibration.foreign else self._calibration.tokens(words)

    def calibration_prompts(self) -> Sequence[Prompt]:
        """Two texts with known numbers of words."""
        return [Prompt(text) for _, text in calibration_texts()]

    def calibrate(self, tokens: Sequence[int | None]) -> Calibration | None:
        """How the server counts tokens; `None` if it reported no numbers or impossible ones: lengths stay guesses."""
        reported = [count for count in tokens if count is not None]
        words = [count for count, _ in calibration_texts()]
        if len(reported) != len(words):
            return None
        try:
            return fit_calibration(list(zip(words, reported, strict=True)))
        except ValueError:
            return None


def _whole(tokens: Distribution, rng: random.Random) -> int:
    return max(1, round(tokens.sample(rng)))


def _text(
    words: int, order: int, rng: random.Random, *, distinct: int = _DISTINCT_BLOCKS, same_rest: bool = False
) -> str:
    """A text of this many words in blocks: the first in the given order, the next drawn, then the same blocks again.

    Less than a block at the end is the beginning of one, or with `same_rest` after whole blocks the same words always.
    """
    blocks = -(-words // BLOCK)
    orders = [order, *(rng.randrange(_ORDERS) for _ in range(1, min(blocks, distinct)))]
    texts = [" ".join(_ordered(each)) for each in orders]
    parts = [texts[number % distinct] for number in range(words // BLOCK)]
    rest = words % BLOCK
    if rest:
        last = texts[(blocks - 1) % distinct].split()
        same = same_rest and words >= BLOCK  # a shorter prompt differs from the others by the beginning of its order
        parts.append(" ".join([word for word in last if word in WORDS[:rest]] if same else last[:rest]))
    return " ".join(parts)


def _ordered(order: int) -> Iterator[str]:
    """The `order`-th arrangement of the words: the digits of `order` in the factorial number system."""
    left = list(WORDS)
    while left:
        order, place = divmod(order, len(left))
        yield left.pop(place)


# Calibration: how many tokens a word has, and how many tokens the server adds to a prompt.


def calibration_texts() -> tuple[tuple[int, str], tuple[int, str]]:
    """Two (number of words, text): the lengths in tokens that a server reports for them determine both."""
    rng = random.Random("calibration")
    short, long = 2 * BLOCK, 10 * BLOCK
    return (short, _text(short, rng.randrange(_ORDERS), rng)), (long, _text(long, rng.randrange(_ORDERS), rng))


def fit_calibration(measured: Sequence[tuple[int, int]]) -> Calibration:
    """The calibration by two (words, tokens) pairs, the shorter text first.

    Raises `ValueError` if these cannot be the lengths of such texts: the server counts something else.
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
            f"{per_word:.2f} tokens per word are impossible"
        )
    if overhead < 0:
        raise ValueError(
            f"the server counts {tokens} tokens for {words} words, fewer than {more_tokens} for {more_words} allow"
        )
    return Calibration(per_word, overhead)
