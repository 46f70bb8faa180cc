"""The server that a GPU is tested with: skipped where torch or transformers is not installed."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.gpu.serve import Decoder
from tests.gpu.serving import started

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


def test_slots_decode_as_the_model_does_alone():
    """Three prompts of different lengths in one batch have the tokens that `generate` has for each by itself."""
    decoder = Decoder("tiny", "cpu", "float32", 4)
    decoder.warm_up()
    prompts = [[5, 6, 7, 8], [100, 200, 300, 400, 500, 601], [9]]
    limits = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    alone = [decoder.model.generate(torch.tensor([prompt]), **limits)[0, len(prompt) :].tolist() for prompt in prompts]
    together = [[decoder.prefill(slot, prompt)] for slot, prompt in enumerate(prompts)]
    for _ in range(11):
        where = {slot: (made[-1], len(prompts[slot]) + len(made) - 1) for slot, made in enumerate(together)}
        for slot, token in decoder.step(where).items():
            together[slot].append(token)
    assert together == alone


def test_response_has_the_requested_length(tmp_path):
    """With `ignore_eos` exactly `max_tokens`, and usage says so."""
    with started("tests.gpu.serve", "--shape", "tiny", "--threads", "1", log=tmp_path / "log") as (_, url):
        body = {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 7, "ignore_eos": True}
        request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode())
        with urllib.request.urlopen(request) as response:
            answer = json.load(response)
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}
    assert len(answer["choices"][0]["message"]["content"].split()) == 7
