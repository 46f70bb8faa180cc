"""A small llama model, made here and now: no download, the same bytes on every machine.

A load test needs an engine that does real work, not one that says anything wise. So the model costs what a model of
its shape costs (attention, feed-forward and output layer run in full), but what it says comes from a trick in two of
its matrices, and the layers between add only a whisper of noise.

The trick is an associative memory. Every token `u` gets a random vector of signs as its embedding, nearly orthogonal to
all others. The output row of token `v` is the sum of the embeddings of the tokens that `v` may follow, each weighted by
how often it did in the training text. So the logit of `v` after `u` is about that weight, the model speaks the pairs of
words of its text, and it reads like language. Dimension 0 is +1 in every embedding: its column in the output is a bias,
and is where the tokens that must never be said are silenced. The end of turn is one of those: an answer always runs to
`max_tokens`, so that its length is known beforehand. A shape with `ends` says it after each sentence instead.

Signs and small whole numbers make every sum exact in float32, whatever order a BLAS adds in: the file does not depend
on the machine. Its bytes do depend on the versions of `tokenizers` (the merges) and `gguf` (the layout).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

BOS, TURN, END, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIAL = (BOS, TURN, END, PAD)

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# e^-60 of the share of a usual token: not in the lifetime of this project, at any sane temperature.
SILENCED = -60
# Logits per e-fold of a pair's count; and how far a pair seen once stands above one never seen.
WEIGHT_PER_FOLD = 1
WEIGHT_OF_ONE = 6
# That the turn ends after a sentence: above all pairs of the text.
WEIGHT_OF_END = 40
# Residual branches are scaled to this, against embeddings of 1: real arithmetic, no say in the answer.
WHISPER = 2.0**-14
# Weights of the projections inside a layer: uniform whole numbers up to this, times 2^-12, so about ±0.03.
GRAIN, GRAIN_SCALE = 127, 2.0**-12

PEOPLE = "the keeper|the pilot|an old sailor|the harbour master|a young baker|the gardener|my neighbour|the clockmaker"
PLACES = "under the bridge|near the lighthouse|behind the mill|at the station|in the orchard|on the deck|by the river"
DEEDS = "repairs|carries|paints|weighs|borrows|forgets|remembers|unpacks|counts|polishes|hides|follows"
THINGS = "a brass lamp|the green boat|seven letters|the heavy rope|a map of the coast|some bread|a ticket|two bells"
TIMES = "before dawn|after the rain|every winter|at noon|once a week|when the fog lifts|until the bell rings|in silence"
TURNS = "and then|but|so|because|although|while"
# Every language model has a token for each of these, with a space before it and without: so must this one, or prompts
# made of them could not be made to a length.
SMALL_WORDS = "the of and to in is that for it as was with be on not he"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The size of a model. The default has 0.43 million parameters and makes a file of less than 2 MB."""

    dim: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 256
    ctx: int = 8192
    vocab: int = 1024
    seed: int = 0
    ends: bool = False

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.heads % self.kv_heads or (self.dim // self.heads) % 2:
            raise ValueError(f"heads must divide dim into even parts, and kv-heads must divide heads: {self}")


TINY = Shape()
# About 25 million parameters: some 10 ms a token on one core, the pace of a small model on a small device.
M25 = Shape(dim=512, layers=8, heads=8, kv_heads=4, ffn=1536)


def write_tiny_gguf(path: Path, shape: Shape = TINY) -> int:
    """Write the model of `shape` to `path` and return its number of parameters."""
    texts = list(_paragraphs(random.Random(shape.seed), count=800))
    tokenizer = _train(texts, shape.vocab)
    tensors = dict(_tensors(tokenizer, texts, shape))
    _write(path, tokenizer, tensors, shape)
    return sum(tensor.size for tensor in tensors.values())


def _paragraphs(dice: random.Random, *, count: int) -> Iterator[str]:
    """Invented text of short sentences, five to a paragraph, with some lists, and some small words in any order."""
    people, places, deeds, things, times, turns = (
        words.split("|") for words in (PEOPLE, PLACES, DEEDS, THINGS, TIMES, TURNS)
    )

    def clause() -> str:
        tail = dice.choice((places, times))
        return f"{dice.choice(people)} {dice.choice(deeds)} {dice.choice(things)} {dice.choice(tail)}"

    def sentence() -> str:
        words = clause() if dice.random() < 0.6 else f"{clause()}, {dice.choice(turns)} {clause()}"
        return words[0].upper() + words[1:] + dice.choice("....!?")

    for number in range(count):
        if number % 10 == 8:
            small = dice.sample(SMALL_WORDS.split(), k=16)
            yield "\n".join(" ".join(small[turn:] + small[:turn]) for turn in range(16)) + "\n"
        elif number % 10 == 9:
            yield "\n".join(f"- {dice.choice(things)} {dice.choice(places)}" for _ in range(4)) + "\n"
        else:
            yield " ".join(sentence() for _ in range(5)) + "\n"


def _train(texts: Sequence[str], vocab: int) -> Tokenizer:
    """A byte-level BPE tokenizer in the manner of GPT-2, which llama.cpp knows by that name."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # noqa: PLC0415 (Linux wheels only)

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _tensors(tokenizer: Tokenizer, texts: Sequence[str], shape: Shape) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The weights by their GGUF names, in the order in which llama.cpp reads them."""
    dice = np.random.default_rng(shape.seed)
    embedding = dice.integers(0, 2, (tokenizer.get_vocab_size(), shape.dim)).astype(np.float32) * 2 - 1
    embedding[:, 0] = 1

    def matrix(rows: int, columns: int, scale: float = GRAIN_SCALE) -> NDArray[np.float32]:
        return dice.integers(-GRAIN, GRAIN + 1, (rows, columns)).astype(np.float32) * np.float32(scale)

    yield "token_embd.weight", embedding
    yield "output_norm.weight", np.ones(shape.dim, np.float32)
    yield "output.weight", _output(embedding, _pair_weights(tokenizer, texts, ends=shape.ends))
    kv_dim = shape.dim // shape.heads * shape.kv_heads
    for layer in range(shape.layers):
        yield f"blk.{layer}.attn_norm.weight", np.ones(shape.dim, np.float32)
        yield f"blk.{layer}.attn_q.weight", matrix(shape.dim, shape.dim)
        yield f"blk.{layer}.attn_k.weight", matrix(kv_dim, shape.dim)
        yield f"blk.{layer}.attn_v.weight", matrix(kv_dim, shape.dim)
        yield f"blk.{layer}.attn_output.weight", matrix(shape.dim, shape.dim, WHISPER / GRAIN)
        yield f"blk.{layer}.ffn_norm.weight", np.ones(shape.dim, np.float32)
        yield f"blk.{layer}.ffn_gate.weight", matrix(shape.ffn, shape.dim)
        yield f"blk.{layer}.ffn_up.weight", matrix(shape.ffn, shape.dim)
        yield f"blk.{layer}.ffn_down.weight", matrix(shape.dim, shape.ffn, WHISPER / GRAIN)


def _pair_weights(tokenizer: Tokenizer, texts: Sequence[str], *, ends: bool) -> NDArray[np.float32]:
    """Whole-numbered weights [before, after] of the pairs of tokens in `texts`; 0 for a pair that never stood there."""
    size = tokenizer.get_vocab_size()
    counts = np.zeros((size, size), np.int64)
    for encoding in tokenizer.encode_batch(list(texts)):
        np.add.at(counts, (encoding.ids[:-1], encoding.ids[1:]), 1)
    # Whole folds, by comparison with a table: no logarithm whose last bit a library decides.
    folds = np.searchsorted([3, 8, 21, 55, 149, 404, 1097, 2981], counts, side="right")
    weights = np.where(counts, WEIGHT_OF_ONE + WEIGHT_PER_FOLD * folds, 0).astype(np.float32)
    if ends:
        ids = tokenizer.get_vocab()
        weights[[ids["."], ids["!"], ids["?"]], ids[END]] = WEIGHT_OF_END
    return weights


def _output(embedding: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows that answer an embedding `u` with about `weights[u, v]`; silent for each token that no text had."""
    dim = embedding.shape[1]
    output = (weights.T @ embedding) / np.float32(dim)
    output[:, 0] = np.where(weights.any(axis=0), 0, SILENCED)
    return output


def _write(path: Path, tokenizer: Tokenizer, tensors: dict[str, NDArray[np.float32]], shape: Shape) -> None:
    import gguf  # noqa: PLC0415 (comes with the `engine` extra)

    ids = tokenizer.get_vocab()
    vocabulary = sorted(ids, key=ids.__getitem__)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    kinds = gguf.TokenType

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("loadbench-tiny")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(vocabulary))
    writer.add_context_length(shape.ctx)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.dim // shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([kinds.CONTROL if token in SPECIAL else kinds.NORMAL for token in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(ids[BOS])
    writer.add_eos_token_id(ids[END])
    writer.add_pad_token_id(ids[PAD])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)

    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m tests.llamacpp.tiny_gguf OUT [--dim N ...]`."""
    parser = argparse.ArgumentParser(description="Write a small random llama model as a GGUF file.")
    parser.add_argument("out", type=Path)
    for field in dataclasses.fields(Shape):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    parameters = write_tiny_gguf(out, Shape(**options))
    sys.stdout.write(f"{out}: {parameters / 1e6:.2f} M parameters, {out.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
