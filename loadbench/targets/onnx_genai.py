"""A model of ONNX Runtime GenAI in this process: a folder of its model builder (`--adapter onnx-genai:FOLDER`)."""

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
    """One model; it generates one response at a time."""

    parallel = 1

    def __init__(self, folder: str) -> None:
        self.name = Path(folder).name
        self._folder = Path(folder)
        if not (self._folder / "genai_config.json").is_file():
            raise TargetUnavailable(f"{folder} has no genai_config.json", hint="name the folder of a model")
        self._model: Any = None
        self._tokenizer: Any = None
        self.context: int | None = None

    async def load(self) -> None:
        """Read the folder, in a thread."""
        config = (self._folder / "genai_config.json").read_bytes()
        self.context = orjson.loads(config).get("model", {}).get("context_length")
        await anyio.to_thread.run_sync(self._read)

    def _read(self) -> None:
        self._model = og.Model(str(self._folder))
        self._tokenizer = og.Tokenizer(self._model)

    def generate(self, request: AdapterRequest) -> AsyncIterator[Delta | Finish]:
        """The response, token by token."""
        return in_thread(lambda: self._tokens(request))

    def _tokens(self, request: AdapterRequest) -> Iterator[Delta | Finish]:
        prompt = self._tokenizer.encode(self._text(request))
        params = og.GeneratorParams(self._model)
        longest = len(prompt) + request.max_tokens
        if self.context is not None and longest > self.context:
            raise ValueError(f"{longest} tokens are more than the context of {self.context}")
        params.set_search_options(max_length=longest, **_sampling(request))
        generator = og.Generator(self._model, params)
        generator.append_tokens(prompt)
        stream = self._tokenizer.create_stream()
        ends = set(self._tokenizer.eos_token_ids)
        generated = 0
        while not generator.is_done():
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            if token in ends:
                break
            generated += 1
            yield Delta(stream.decode(token))
        yield Finish("length" if generated >= request.max_tokens else "stop", input_tokens=len(prompt))

    def _text(self, request: AdapterRequest) -> str:
        """The conversation in the model's chat template; without a template, the texts joined by newlines."""
        try:
            text: str = self._tokenizer.apply_chat_template(
                orjson.dumps(request.messages).decode(), add_generation_prompt=True
            )
        except RuntimeError:
            return "\n".join(message["content"] for message in request.messages)
        return text

    async def aclose(self) -> None:
        """Release the model."""
        self._model = self._tokenizer = None


def _sampling(request: AdapterRequest) -> dict[str, Any]:
    if not request.temperature:
        return {"do_sample": False}
    seed = {} if request.seed is None else {"random_seed": request.seed % 2**31}
    return {"do_sample": True, "temperature": request.temperature, **seed}
