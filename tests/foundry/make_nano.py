"""The model that Foundry Local is tested with: it says the same words to everybody, and is some kB large.

    pip install onnx tokenizers; python -m tests.foundry.make_nano tests/data/foundry_model/nano.tar.gz [ROWS]

A language model maps each token to the scores of the next. Here that is a table of successors: a word of the script is
followed by the next one, the last by the end of turn, and whatever else by the first. So text, number of tokens and end
are known beforehand. No attention is needed for that; what stands for its memory holds the tokens themselves, so that
the runtime has something to keep that grows as it does for any model. And each token, of the prompt as of the answer,
costs a product of two matrices whose result counts for nothing: a prompt takes time by its length, as with any model.
"""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
from pathlib import Path

CONTEXT = 1024
START, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# 48 tokens; with one of two bytes a letter and one of three, for whoever cuts bytes into characters.
SCRIPT = [
    " Hello",
    " wörld",
    " 日本",
    *(f" {word}{n}" for n in range(1, 10) for word in ["one", "two", "three", "four", "five"]),
]
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Matrices of so many rows: some 14 million multiplications and additions a token, about a millisecond.
_ROWS = 192
# The score of the successor, against 0 of all others: certain at any temperature that is sane.
_SURE = 50.0


def tokenizer() -> tuple[str, dict[str, int]]:
    """(tokenizer.json, ids by token): bytes, the marks of a chat, and each word of the script as one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 - only who makes it needs it

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = [START, TURN, END]
    vocabulary = {token: number for number, token in enumerate([*marks, *alphabet])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(marks)
    made.add_tokens(SCRIPT)
    return made.to_str(pretty=True), made.get_vocab()


def network(ids: dict[str, int], rows: int) -> bytes:
    """The table of successors as an ONNX model with the inputs and outputs of a decoder."""
    import numpy as np  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    successor = np.full(len(ids), ids[SCRIPT[0]], dtype=np.int64)
    for word, following in zip(SCRIPT, [*SCRIPT[1:], END], strict=True):
        successor[ids[word]] = ids[following]
    known = {
        "successor": successor,
        "size": np.array(len(ids), dtype=np.int64),
        "scores": np.array([0, _SURE], dtype=np.float32),
        "around": np.array([1, 3], dtype=np.int64),
        "behind": np.array([2, 3], dtype=np.int64),
        "last": np.array([2], dtype=np.int64),
        "square": np.array([1, 1, rows, rows], dtype=np.int64),
        "nothing": np.array(0, dtype=np.float32),
    }
    whole, real = TensorProto.INT64, TensorProto.FLOAT
    memory = {part: ["batch", 1, f"{part}_length", 1] for part in ("past", "present")}
    nodes = [
        helper.make_node("Gather", ["successor", "input_ids"], ["next"]),
        helper.make_node("OneHot", ["next", "size", "scores"], ["certain"]),
        helper.make_node("Cast", ["input_ids"], ["numbers"], to=real),
        helper.make_node("Unsqueeze", ["numbers", "around"], ["added"]),
        *(
            helper.make_node(kind, inputs, [output], **options)
            for kind, inputs, output, options in (
                ("Unsqueeze", ["numbers", "behind"], "points", {}),
                ("Expand", ["points", "square"], "matrices", {}),
                ("MatMul", ["matrices", "matrices"], "products", {}),
                ("ReduceMax", ["products"], "largest", {"axes": [2, 3], "keepdims": 0}),
                ("Mul", ["largest", "nothing"], "zeros", {}),
                ("Unsqueeze", ["zeros", "last"], "column", {}),
                ("Add", ["certain", "column"], "logits", {}),
            )
        ),
        *(
            helper.make_node("Concat", [f"past_key_values.0.{one}", "added"], [f"present.0.{one}"], axis=2)
            for one in ("key", "value")
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "nano",
        [
            helper.make_tensor_value_info("input_ids", whole, ["batch", "length"]),
            helper.make_tensor_value_info("attention_mask", whole, ["batch", "present_length"]),
            *(
                helper.make_tensor_value_info(f"past_key_values.0.{one}", real, memory["past"])
                for one in ("key", "value")
            ),
        ],
        [
            helper.make_tensor_value_info("logits", real, ["batch", "length", len(ids)]),
            *(helper.make_tensor_value_info(f"present.0.{one}", real, memory["present"]) for one in ("key", "value")),
        ],
        [numpy_helper.from_array(value, name) for name, value in known.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    raw: bytes = made.SerializeToString()
    return raw


def settings(ids: dict[str, int]) -> dict[str, object]:
    """`genai_config.json`: how the runtime is to treat the network."""
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": "model.onnx",
        "head_size": 1,
        "hidden_size": 1,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "num_key_value_heads": 1,
    }
    model = {
        "bos_token_id": ids[START],
        "context_length": CONTEXT,
        "decoder": decoder,
        "eos_token_id": ids[END],
        "pad_token_id": ids[START],
        "type": "qwen2",
        "vocab_size": len(ids),
    }
    search = {"do_sample": False, "max_length": CONTEXT, "num_beams": 1, "past_present_share_buffer": False}
    return {"model": model, "search": search}


def files(rows: int) -> dict[str, bytes]:
    """The model's folder."""
    text, ids = tokenizer()
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": START,
        "eos_token": END,
        "pad_token": START,
        "model_max_length": CONTEXT,
        "chat_template": _TEMPLATE,
    }
    documents = {"tokenizer_config.json": config, "genai_config.json": settings(ids)}
    return {
        "model.onnx": network(ids, rows),
        "tokenizer.json": text.encode(),
        "chat_template.jinja": _TEMPLATE.encode(),
        **{name: json.dumps(document, indent=1).encode() for name, document in documents.items()},
    }


def pack(where: Path, rows: int = _ROWS) -> None:
    """Write the folder as an archive, the same bytes each time."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, content in sorted(files(rows).items()):
            entry = tarfile.TarInfo(f"nano/{name}")
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_bytes(gzip.compress(raw.getvalue(), 9, mtime=0))


if __name__ == "__main__":
    pack(Path(sys.argv[1]), *map(int, sys.argv[2:]))
