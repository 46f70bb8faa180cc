"""A model of the transformers library in this process (`--adapter transformers:MODEL`, a folder or a cached name)."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from loadbench.client.adapter import Delta, Finish, in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from loadbench.client.adapter import AdapterRequest

# Text that ends in an incomplete character is held back until the token that completes it.
_BROKEN = "\N{REPLACEMENT CHARACTER}"


class Transformers:
    """One causal language model; it generates one response at a time."""

    parallel = 1

    def __init__(self, model: str) -> None:
        self.name = model.rstrip("/").rsplit("/", 1)[-1]
        self._source = model
        self._model: Any = None
        self._tokenizer: Any = None
        self._cache = ""
        self.context: int | None = None

    async def load(self) -> None:
        """Read the model from its folder or the library's cache, in a thread; nothing is downloaded."""
        await anyio.to_thread.run_sync(self._read)

    def _read(self) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(self._source, local_files_only=True)
        self._model = AutoModelForCausalLM.from_pretrained(self._source, local_files_only=True).eval()
        # The library renamed the argument to `cache` in 5.24.
        named = inspect.signature(self._model.forward).parameters
        self._cache = "cache" if "cache" in named else "past_key_values"
        self.context = getattr(self._model.config, "max_position_embeddings", None)

    def generate(self, request: AdapterRequest) -> AsyncIterator[Delta | Finish]:
        """The response, token by token."""
        return in_thread(lambda: self._tokens(request))

    def _tokens(self, request: AdapterRequest) -> Iterator[Delta | Finish]:
        prompt = self._prompt(request)
        prompt_tokens = int(prompt.shape[1])
        ends = _ends(self._model.generation_config.eos_token_id)
        shown: list[int] = []
        held: list[int] = []
        for made, token in enumerate(self._generated(prompt, request), 1):
            if token in ends:
                yield Finish("stop", prompt_tokens)
                return
            held.append(token)
            # Decoded alone, many tokenizers drop the first space of a piece.
            before, after = (
                self._tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in (shown, shown + held)
            )
            text = str(after[len(before) :])
            broken = text.endswith(_BROKEN) and made < request.max_tokens
            yield Delta("" if broken else text)
            shown, held = (shown, held) if broken else (held, [])
        yield Finish("length", prompt_tokens)

    def _generated(self, ids: Any, request: AdapterRequest) -> Iterator[int]:
        """Up to `max_tokens` tokens, including an end token of the model."""
        dice = torch.Generator().manual_seed((request.seed or 0) % 2**63)
        cache = None
        for _ in range(request.max_tokens):
            with torch.inference_mode():
                out = self._model(ids, use_cache=True, **{self._cache: cache})
            cache = getattr(out, self._cache)
            token = _choose(out.logits[0, -1], request.temperature, dice)
            yield token
            ids = torch.tensor([[token]])

    def _prompt(self, request: AdapterRequest) -> Any:
        """The conversation in the model's chat template; without a template, the texts joined by newlines.

        A template already contains the tokens that begin a prompt, so they are not added again.
        """
        templated = bool(self._tokenizer.chat_template)
        if templated:
            text = self._tokenizer.apply_chat_template(request.messages, tokenize=False, add_generation_prompt=True)
        else:
            text = "\n".join(message["content"] for message in request.messages)
        return self._tokenizer(text, return_tensors="pt", add_special_tokens=not templated).input_ids

    async def aclose(self) -> None:
        """Release the model."""
        self._model = self._tokenizer = None


def _choose(logits: Any, temperature: float | None, dice: Any) -> int:
    if not temperature:
        return int(logits.argmax())
    return int(torch.multinomial((logits.float() / temperature).softmax(-1), 1, generator=dice))


def _ends(tokens: int | list[int] | None) -> set[int]:
    return {tokens} if isinstance(tokens, int) else set(tokens or ())
