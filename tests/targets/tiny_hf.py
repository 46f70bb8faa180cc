"""A language model of a few thousand random weights, as the transformers library keeps one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("the", "cat", "sat", "on", "a", "mat", "dog", "and")
_CORPUS = ["the cat sat on the mat", "a dog and a cat", "it was not for the dog"] * 20


def make_model(folder: Path, *, seed: int = 0) -> None:
    """Write tokenizer and weights; it has no end token, so that every answer is as long as it may be."""
    PreTrainedTokenizerFast(tokenizer_object=_of_bytes()).save_pretrained(folder)
    _weigh(folder, seed=seed)


def make_spaced_model(folder: Path) -> None:
    """The same of whole words, whose tokens carry the space before them, with a token that begins each prompt.

    Its chat template has that token in it, as those of the Llama family have.
    """
    made = _of_words()
    template = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}"
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", chat_template=template).save_pretrained(folder)
    _weigh(folder, seed=0)


def _of_words() -> Tokenizer:
    words = ["<s>", *(f"▁{word}" for word in WORDS)]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def _of_bytes() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def _weigh(folder: Path, *, seed: int) -> None:
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    size = len(AutoTokenizer.from_pretrained(folder))
    config = LlamaConfig(vocab_size=size, max_position_embeddings=256, **shape, **ends)
    LlamaForCausalLM(config).save_pretrained(folder)
