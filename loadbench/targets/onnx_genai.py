"""A model of ONNX Runtime GenAI in this process: the folder that its builder makes (`--adapter onnx-genai:FOLDER`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import onnxruntime_genai as og
import orjson

from loadbench.client.adapter import Delta, Finish, in_thread
from loadbench.core.errors import TargetUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from loadbench.client.adapter import AdapterRequest


class OnnxGenai:
    """One model; it makes one answer at a time."""

    parallel = 1

    def __init__(self, folder: str) -> None:
        self.name = Path(folder).name
        self._folder = Path(folder)
        self._model: Any = None
        self._tokenizer: Any = None
        self.context: int | None = None

    async def load(self) -> None:
        """Read the folder, in a thread; raises `TargetUnavailable` where it holds no model."""
        config = self._folder / "genai_config.json"
        if not config.is_file():
            raise TargetUnavailable(f"{self._folder} holds no genai_config.json", hint="name the folder of a model")
        self.context = orjson.loads(config.read_bytes()).get("model", {}).get("context_length")
        await anyio.to_thread.run_sync(self._read)

    def _read(self) -> None:
        self._model = og.Model(str(self._folder))
        self._tokenizer = og.Tokenizer(self._model)

    def generate(self, asked: AdapterRequest) -> AsyncIterator[Delta | Finish]:
        """The answer, token by token."""
        return in_thread(lambda: self._tokens(asked))

    def _tokens(self, asked: AdapterRequest) -> Iterator[Delta | Finish]:
        prompt = self._tokenizer.encode(self._text(asked))
        params = og.GeneratorParams(self._model)
        longest = len(prompt) + asked.max_tokens
        if self.context is not None and longest > self.context:
            raise ValueError(f"{longest} tokens are more than the context of {self.context}")
        params.set_search_options(max_length=longest, **_sampling(asked))
        generator = og.Generator(self._model, params)
        generator.append_tokens(prompt)
        stream = self._tokenizer.create_stream()
        ends = set(self._tokenizer.eos_token_ids)
        made = 0
        while not generator.is_done():
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            if token in ends:
                break
            made += 1
            yield Delta(stream.decode(token))
        yield Finish("length" if made >= asked.max_tokens else "stop", input_tokens=len(prompt))

    def _text(self, asked: AdapterRequest) -> str:
        """The conversation in the model's own template; where it has none, the texts one below the other."""
        try:
            text: str = self._tokenizer.apply_chat_template(
                orjson.dumps(asked.messages).decode(), add_generation_prompt=True
            )
        except RuntimeError:
            return "\n".join(message["content"] for message in asked.messages)
        return text

    async def aclose(self) -> None:
        """Let go of the model."""
        self._model = self._tokenizer = None


def _sampling(asked: AdapterRequest) -> dict[str, Any]:
    if not asked.temperature:
        return {"do_sample": False}
    seed = {} if asked.seed is None else {"random_seed": asked.seed % 2**31}
    return {"do_sample": True, "temperature": asked.temperature, **seed}
