"""A small OpenAI-compatible server of a randomly initialised Llama, on a GPU or on the CPU: the same work on both.

    python -m tests.gpu.serve --device cuda --port 8001

The model is `LlamaForCausalLM` of transformers, initialised with a fixed seed; nothing is downloaded. Requests are
batched continuously: each has a slot of a static KV cache, every step decodes all slots in use, and a new request is
prefilled between two steps. The batch has 1, 2, 4 … slots; on a GPU the step of each size is a CUDA graph. Decoding is
greedy, whatever the temperature. A prompt's tokens are its words, and so are those of a response.

Prints `READY http://127.0.0.1:PORT`, and ends when its standard input does, or on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import queue
import re
import signal
import sys
import threading
import time
import zlib
from contextlib import suppress
from http import HTTPStatus
from typing import Any

# A context longer than this is refused.
CONTEXT = 512
EOS = 1
SHAPES = {
    # 325 million parameters.
    "325m": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24, "num_attention_heads": 16},
    # For machines without time.
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}
VOCABULARY = 8192


class Decoder:
    """The model over `slots` places of a static KV cache; one thread calls it."""

    def __init__(self, shape: str, device: str, dtype: str, slots: int, threads: int = 0) -> None:
        import torch  # noqa: PLC0415 - takes seconds, and is nowhere else needed
        from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415

        self._torch = torch
        if threads:
            torch.set_num_threads(threads)
        self._device = torch.device(device)
        config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, **SHAPES[shape])
        torch.manual_seed(0)
        self.model = LlamaForCausalLM(config).to(getattr(torch, dtype)).to(self._device).eval()
        self.parameters = sum(weights.numel() for weights in self.model.parameters())
        self._heads = config.num_attention_heads
        self._width = config.hidden_size // self._heads
        self._eps = config.rms_norm_eps
        angles = torch.arange(CONTEXT)[:, None] / 10_000 ** (torch.arange(0, self._width, 2) / self._width)
        angles = torch.cat((angles, angles), dim=-1)
        self._cos, self._sin = (of(angles).to(self.model.dtype).to(self._device) for of in (torch.cos, torch.sin))
        kept = (config.num_hidden_layers, slots, self._heads, CONTEXT, self._width)
        self._keys, self._values = (torch.zeros(kept, dtype=self.model.dtype, device=self._device) for _ in range(2))
        self._tokens, self._positions = (torch.zeros(slots, dtype=torch.long, device=self._device) for _ in range(2))
        self._next = torch.zeros(slots, dtype=torch.long, device=self._device)
        self._slots = slots
        self._graphs: dict[int, Any] = {}

    def warm_up(self) -> None:
        """Run every size of batch once; on a GPU record its graph."""
        torch = self._torch
        with torch.inference_mode():
            self.prefill(0, [2, 3, 4])
            for size in (2**power for power in range(self._slots.bit_length())):
                if self._device.type == "cuda":
                    stream = torch.cuda.Stream()
                    stream.wait_stream(torch.cuda.current_stream())
                    with torch.cuda.stream(stream):
                        self._step(size)
                    torch.cuda.synchronize()
                    self._graphs[size] = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(self._graphs[size]):
                        self._step(size)
                else:
                    self._step(size)

    def prefill(self, slot: int, prompt: list[int]) -> int:
        """Fill a slot with a prompt; the first token of the response."""
        torch = self._torch
        with torch.inference_mode():
            tokens = torch.tensor([prompt], device=self._device)
            positions = torch.arange(len(prompt), device=self._device)[None]
            return int(self._forward(tokens, positions, slot).argmax())

    def step(self, active: dict[int, tuple[int, int]]) -> dict[int, int]:
        """The next token of each slot, from its last one and its position."""
        torch = self._torch
        size = 1 << max(active).bit_length()
        rows = [active.get(slot, (0, 0)) for slot in range(size)]
        with torch.inference_mode():
            for target, column in ((self._tokens, 0), (self._positions, 1)):
                target[:size].copy_(torch.tensor([row[column] for row in rows]))
            if size in self._graphs:
                self._graphs[size].replay()
            else:
                self._step(size)
            found = self._next[:size].tolist()
        return {slot: found[slot] for slot in active}

    def _step(self, size: int) -> None:
        logits = self._forward(self._tokens[:size, None], self._positions[:size, None], None)
        self._next[:size].copy_(logits[:, -1].argmax(-1))

    def _forward(self, tokens: Any, positions: Any, slot: int | None) -> Any:
        """The logits after the last token of each row. One row goes to a `slot`; many, of one token, to the first."""
        functional = self._torch.nn.functional
        model, (rows, length) = self.model.model, tokens.shape
        hidden = model.embed_tokens(tokens)
        cos, sin = self._cos[positions][:, None], self._sin[positions][:, None]
        visible = self._torch.arange(CONTEXT, device=self._device) <= positions[:, None, :, None]

        def turned(vectors: Any) -> Any:
            left, right = vectors.chunk(2, dim=-1)
            return vectors * cos + self._torch.cat((-right, left), dim=-1) * sin

        for number, layer in enumerate(model.layers):
            keys, values = self._keys[number], self._values[number]
            normed = functional.rms_norm(hidden, hidden.shape[-1:], layer.input_layernorm.weight, self._eps)
            asked, key, value = (
                project(normed).view(rows, length, self._heads, self._width).transpose(1, 2)
                for project in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
            )
            asked, key = turned(asked), turned(key)
            if slot is not None:
                keys[slot, :, :length], values[slot, :, :length] = key[0], value[0]
                seen = functional.scaled_dot_product_attention(asked, key, value, is_causal=True)
            else:
                row = self._torch.arange(rows, device=self._device)
                keys[row, :, positions[:, 0]], values[row, :, positions[:, 0]] = key[:, :, 0], value[:, :, 0]
                seen = functional.scaled_dot_product_attention(asked, keys[:rows], values[:rows], attn_mask=visible)
            hidden = hidden + layer.self_attn.o_proj(seen.transpose(1, 2).reshape(rows, length, -1))
            normed = functional.rms_norm(hidden, hidden.shape[-1:], layer.post_attention_layernorm.weight, self._eps)
            hidden = hidden + layer.mlp(normed)
        hidden = functional.rms_norm(hidden[:, -1:], hidden.shape[-1:], model.norm.weight, self._eps)
        return self.model.lm_head(hidden)


class Job:
    """One request: its prompt, how long its response may be, and where its tokens go."""

    def __init__(self, prompt: list[int], most: int, *, ignore_eos: bool) -> None:
        self.prompt, self.most, self.ignore_eos = prompt, most, ignore_eos
        self.produced = 0
        self.last = 0
        self.gone = False
        self.tokens: asyncio.Queue[tuple[int, str | None]] = asyncio.Queue()


class Batcher(threading.Thread):
    """Continuous batching in a thread of its own: admits one waiting request, then decodes all."""

    def __init__(self, decoder: Decoder, slots: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(daemon=True)
        self._decoder, self._slots, self._loop = decoder, slots, loop
        self.waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def run(self) -> None:
        """Until the process ends."""
        jobs: dict[int, Job] = {}
        while True:
            produced: list[tuple[Job, int, str | None]] = []
            if len(jobs) < self._slots and (not jobs or not self.waiting.empty()):
                job = self.waiting.get()
                slot = min(set(range(self._slots)) - jobs.keys())
                jobs[slot] = job
                produced.append(self._count(job, self._decoder.prefill(slot, job.prompt)))
                self._deliver(produced, jobs)
                produced = []
            jobs = {slot: job for slot, job in jobs.items() if not job.gone}
            if jobs:
                where = {slot: (job.last, len(job.prompt) + job.produced - 1) for slot, job in jobs.items()}
                found = self._decoder.step(where)
                produced += [self._count(jobs[slot], token) for slot, token in found.items()]
                self._deliver(produced, jobs)

    @staticmethod
    def _count(job: Job, token: int) -> tuple[Job, int, str | None]:
        if job.ignore_eos and token == EOS:
            token = EOS + 1
        job.produced, job.last = job.produced + 1, token
        full = job.produced >= job.most or len(job.prompt) + job.produced >= CONTEXT
        return job, token, "stop" if token == EOS else "length" if full else None

    def _deliver(self, produced: list[tuple[Job, int, str | None]], jobs: dict[int, Job]) -> None:
        for job, _, end in produced:
            job.gone = job.gone or end is not None
        for slot in [slot for slot, job in jobs.items() if job.gone]:
            del jobs[slot]

        def hand_over() -> None:
            for job, token, end in produced:
                job.tokens.put_nowait((token, end))

        self._loop.call_soon_threadsafe(hand_over)


def encode(text: str) -> list[int]:
    """A token for each word and sign."""
    return [2 + zlib.crc32(part.encode()) % (VOCABULARY - 2) for part in re.findall(r"\w+|[^\w\s]", text)] or [2]


def decode(token: int) -> str:
    """A word of three syllables, after a space."""
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    word = "".join(syllables[token // 20**place % 20] for place in range(3))
    return f" {word}"


class Api:
    """The HTTP side: `/health`, `/v1/models`, `/v1/chat/completions`."""

    def __init__(self, model: str, batcher: Batcher) -> None:
        self._model, self._batcher = model, batcher

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for as long as it is kept."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                method, path, _ = head[0].split(" ")
                if (method, path) == ("POST", "/v1/chat/completions"):
                    await self._chat(body, writer)
                elif path == "/v1/models":
                    self._reply(writer, 200, {"object": "list", "data": [self._listed()]})
                elif path == "/health":
                    self._reply(writer, 200, {"status": "ok"})
                else:
                    self._reply(writer, 404, {"error": {"message": f"no {path} here", "type": "not_found"}})
                await writer.drain()
        writer.close()

    def _listed(self) -> dict[str, object]:
        return {"id": self._model, "object": "model", "owned_by": "loadbench", "max_model_len": CONTEXT}

    @staticmethod
    def _reply(writer: asyncio.StreamWriter, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def _chat(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            asked = json.loads(body)
            prompt = encode(" ".join(str(message["content"]) for message in asked["messages"]))
            most = int(asked.get("max_completion_tokens") or asked.get("max_tokens") or 64)
        except (KeyError, TypeError, ValueError):
            self._reply(writer, 400, {"error": {"message": "no messages in it", "type": "invalid_request_error"}})
            return
        if len(prompt) + most > CONTEXT:
            message = f"maximum context length is {CONTEXT} tokens, this is {len(prompt)} and {most}"
            self._reply(writer, 400, {"error": {"message": message, "type": "invalid_request_error"}})
            return
        job = Job(prompt, most, ignore_eos=bool(asked.get("ignore_eos")))
        self._batcher.waiting.put(job)
        about = {"id": f"chatcmpl-{id(job):x}", "created": int(time.time()), "model": self._model}
        try:
            if asked.get("stream"):
                await self._stream(job, about, writer)
            else:
                text, end = "", None
                while end is None:
                    token, end = await job.tokens.get()
                    text += decode(token)
                message = {"role": "assistant", "content": text}
                choice = {"index": 0, "message": message, "finish_reason": end}
                document = {**about, "object": "chat.completion", "choices": [choice], "usage": self._usage(job)}
                self._reply(writer, 200, document)
        finally:
            job.gone = True  # its reader may have left

    async def _stream(self, job: Job, about: dict[str, object], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

        def send(data: str) -> None:
            event = f"data: {data}\n\n".encode()
            writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")

        about = {**about, "object": "chat.completion.chunk"}
        end = None
        while end is None:
            token, end = await job.tokens.get()
            choice = {"index": 0, "delta": {"content": decode(token)}, "finish_reason": None}
            send(json.dumps({**about, "choices": [choice]}))
            await writer.drain()
        send(json.dumps({**about, "choices": [{"index": 0, "delta": {}, "finish_reason": end}]}))
        send(json.dumps({**about, "choices": [], "usage": self._usage(job)}))
        send("[DONE]")
        writer.write(b"0\r\n\r\n")

    @staticmethod
    def _usage(job: Job) -> dict[str, int]:
        counts = {"prompt_tokens": len(job.prompt), "completion_tokens": job.produced}
        return {**counts, "total_tokens": sum(counts.values())}


async def serve(options: argparse.Namespace) -> None:
    """Load the model, listen, and answer until standard input ends."""
    decoder = Decoder(options.shape, options.device, options.dtype, options.slots, options.threads)
    decoder.warm_up()
    loop = asyncio.get_running_loop()
    batcher = Batcher(decoder, options.slots, loop)
    batcher.start()
    suffix = "cuda-gpu" if options.device == "cuda" else "cpu"
    api = Api(options.alias or f"llama-{options.shape}-{suffix}", batcher)
    server = await asyncio.start_server(api.serve, "127.0.0.1", options.port)
    port = server.sockets[0].getsockname()[1]
    print(f"READY http://127.0.0.1:{port}", flush=True)  # noqa: T201 - for who started it
    about = f"{decoder.parameters:,} parameters, {options.dtype}, {options.device}"
    print(about, file=sys.stderr, flush=True)  # noqa: T201
    await loop.run_in_executor(None, lambda: [None for _ in iter(lambda: os.read(0, 4096), b"")])
    os._exit(0)


def main() -> None:
    """The options, and the server."""
    parser = argparse.ArgumentParser(description="Serve a randomly initialised Llama on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--shape", default="325m", choices=sorted(SHAPES))
    parser.add_argument("--slots", type=int, default=16, help="requests that are answered together")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0 leaves it to torch")
    parser.add_argument("--alias", default="", help="the model's name on the wire")
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
