"""Foundry Local's three dialects, byte for byte as its services wrote them: heads, chunks, keys and their order.

What 1.2.4 and 2.2.1 write is as captured (tests/data/foundry, and `test_fakes.py` holds the fakes against it). What 0.8
writes is by its documentation and its users' reports: as 1.x, without usage and without finish_reason.

A prompt with `BREAK` in it makes the answer fail half-way, in the dialect's manner; `broken_after` so fails all
answers after so many. Prompts count a token a word, so that one that is too long can be made.
"""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CREATED = 1767225600
DATE = "Mon, 23 Nov 2026 09:05:07 GMT"
WORDS = [" Hello", " wörld", " 日本,", " done", ".", " And", " so", " on"]
CONTEXT = 512
# Short enough that a sweep is soon over, long enough that tokens come one by one.
_TOKEN_S = 0.001


@dataclass
class Request:
    """What a client asked."""

    method: str
    path: str
    close: bool
    body: dict[str, Any]


class Memory(set[str]):
    """The loaded models, and the most that there were at one moment."""

    most = 0

    def add(self, element: str) -> None:
        """Load one more."""
        super().add(element)
        self.most = max(self.most, len(self))


@dataclass
class Fake:
    """A service of one dialect: what it has, and what it has in memory. `url` is there while it is served."""

    dialect: str
    variants: dict[str, list[str]] = field(default_factory=lambda: {"nano": ["nano-generic-cpu:1"], "mini": _MINI})
    cache: Path | None = None
    loaded: set[str] = field(default_factory=Memory)
    broken_after: int | None = None
    answered: int = 0
    asked: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def ids(self) -> list[str]:
        """All variants, with their versions."""
        return [one for many in self.variants.values() for one in many]

    def alias_of(self, model_id: str) -> str:
        """The alias that a variant belongs to."""
        return next(alias for alias, many in self.variants.items() if model_id in many)

    def breaks(self, request: Request) -> bool:
        """Whether this answer is to fail half-way."""
        self.answered += 1
        return "BREAK" in prompt_of(request) or (self.broken_after is not None and self.answered > self.broken_after)


_MINI = ["mini-cuda-gpu:2", "mini-generic-cpu:2", "mini-generic-cpu:1"]
Writes = "Iterator[bytes | None]"  # None: the connection is dropped here


def prompt_of(request: Request) -> str:
    """All that was said."""
    return " ".join(message["content"] for message in request.body.get("messages", []))


def tokens_of(request: Request) -> tuple[int, int]:
    """(of the prompt, asked for)."""
    return len(prompt_of(request).split()) + 8, request.body.get("max_tokens", 2048)


def unversioned(model_id: str) -> str:
    """Without its version."""
    return model_id.partition(":")[0]


class Native:
    """2.2.1: oatpp, keys in alphabetical order, ids with versions in chats, aliases for loading."""

    status_path = "/status"

    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def json(self, request: Request, document: Any, status: str = "200 OK") -> Writes:
        """A whole answer; bytes are sent as they are."""
        body = document if isinstance(document, bytes) else self.text(document)
        kind = b"" if isinstance(document, bytes) else b"Content-Type: application/json\r\n"
        connection = b"close" if request.close or isinstance(document, bytes) else b"keep-alive"
        yield (
            b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: %s\r\nServer: oatpp/1.3.0\r\n%s\r\n%s"
            % (status.encode(), len(body), connection, kind, body)
        )

    @staticmethod
    def text(document: Any) -> bytes:
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def answer(self, request: Request) -> Writes:
        fake, path = self.fake, request.path.partition("?")[0]
        if path == "/status":
            cache = str(fake.cache or "somewhere/cache")
            return self.json(request, {"endpoints": [fake.url], "modelCachePath": cache, "pid": 999_999_999})
        if path == "/v1/models":
            data = [{"created": CREATED, "id": one, "object": "model", "owned_by": "lab"} for one in fake.ids]
            return self.json(request, {"data": data, "object": "list"})
        if path == "/models/loaded":
            return self.json(request, sorted(fake.loaded))
        if path.startswith(("/models/load/", "/models/unload/")):
            return self.move(request, *path.removeprefix("/models/").split("/", 1))
        if path == "/v1/chat/completions":
            return self.chat(request)
        said = (
            "server=oatpp/1.3.0\ncode=404\ndescription=Not Found\n"
            f"message=No mapping for HTTP-method: '{request.method}', URL: '{path}'\n"
        )
        return self.json(request, said.encode(), "404 Not Found")

    def error(self, request: Request, message: str, status: str) -> Writes:
        return self.json(request, {"error": self.words(message)}, status)

    @staticmethod
    def words(message: str) -> dict[str, Any]:
        return {"code": None, "message": message, "param": None, "type": "invalid_request_error"}

    def move(self, request: Request, what: str, name: str) -> Writes:
        """Load or unload by alias alone: which of its variants is the service's choice, the first here."""
        if name not in self.fake.variants:
            return self.error(request, f"Model not found: No model matching '{name}'", "404 Not Found")
        model = self.fake.variants[name][0]
        there = model in self.fake.loaded
        if what == "load":
            self.fake.loaded.add(model)
            return self.json(request, {"status": "already_loaded" if there else "loaded"})
        self.fake.loaded.discard(model)
        return self.json(request, {"status": "unloaded" if there else "not_loaded"})

    def chat(self, request: Request) -> Writes:
        model, (given, wanted) = request.body["model"], tokens_of(request)
        if model not in self.fake.ids:
            return self.error(request, f"Model not found: No model matching '{model}'", "404 Not Found")
        if model not in self.fake.loaded:
            words = f"Model not loaded: Model '{model}' must be loaded before inference"
            return self.error(request, words, "400 Bad Request")
        return self.stream(request, model, given, wanted)

    def stream(self, request: Request, model: str, given: int, wanted: int) -> Writes:
        connection = b"close" if request.close else b"keep-alive"
        yield (
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: %s\r\nTransfer-Encoding: chunked\r\n"
            b"Server: oatpp/1.3.0\r\nCache-Control: no-cache\r\nCache-Control: no-cache\r\n"
            b"Content-Type: text/event-stream\r\nContent-Type: text/event-stream\r\n\r\n" % connection
        )
        if given + wanted > CONTEXT:
            words = (
                "search_options.cc:108 int fl::ValidateGeneratorRequestBudget(int64_t, int, int) request requires "
                f"{given + wanted} total tokens ({given} input + {wanted} output), which exceeds the model's maximum "
                f"context length of {CONTEXT} tokens"
            )
            yield self.chunk({"error": self.words(words)})
            yield b"0\r\n\r\n"
            return
        breaks = self.fake.breaks(request)
        yield self.event(model, [self.choice({"content": "", "role": "assistant"})])
        for number in range(wanted):
            if breaks and number == wanted // 2:
                yield self.chunk({"error": self.words("Inference failed: the generator stopped")})
                yield b"0\r\n\r\n"
                return
            yield self.event(model, [self.choice({"content": WORDS[number % len(WORDS)]})])
        yield self.event(model, [self.choice({}, "length")])
        if request.body.get("stream_options", {}).get("include_usage"):
            usage = {
                "completion_tokens": wanted,
                "completion_tokens_details": {"reasoning_tokens": 0},
                "prompt_tokens": given,
                "prompt_tokens_details": {"cached_tokens": 0},
                "total_tokens": given + wanted,
            }
            yield self.event(model, [], usage=usage)
        yield b"E\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

    @staticmethod
    def choice(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        return {"delta": delta, "finish_reason": finish, "index": 0, "logprobs": None}

    def event(self, model: str, choices: list[dict[str, Any]], **more: Any) -> bytes:
        frame = {
            "choices": choices,
            "created": CREATED,
            "id": "chatcmpl-46cc134eb433ee4b",
            "model": model,
            "object": "chat.completion.chunk",
            "system_fingerprint": None,
            **more,
        }
        return self.chunk(frame)

    def chunk(self, frame: dict[str, Any]) -> bytes:
        data = b"data: " + self.text(frame) + b"\n\n"
        return b"%X\r\n%s\r\n" % (len(data), data)


class Core:
    """1.2.4: Kestrel, ids without versions in its list, failures that drop the connection after the head."""

    status_path = "/status"
    counts, finishes = True, True

    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def head(self, request: Request, *fields: str, status: str = "200 OK") -> bytes:
        known = {"Date": DATE, "Server": "Kestrel", **({"Connection": "close"} if request.close else {})}
        lines = [*fields, *(f"{name}: {text}" for name, text in known.items())]
        # In the order of the alphabet, but for the length, which stands first.
        lines.sort(key=lambda line: (not line.startswith("Content-Length"), line))
        return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()

    def json(self, request: Request, document: Any, status: str = "200 OK") -> Writes:
        """A whole answer; bytes are sent as they are."""
        body = document if isinstance(document, bytes) else self.text(document)
        fields = [f"Content-Length: {len(body)}", *(["Content-Type: application/json"] if body else [])]
        yield self.head(request, *fields, status=status) + body

    @staticmethod
    def text(document: Any) -> bytes:
        return json.dumps(document, separators=(",", ":")).encode()

    def status(self) -> dict[str, Any]:
        return {
            "endpoints": [self.fake.url],
            "modelDirPath": str(self.fake.cache or "somewhere/cache"),
            "pipeName": None,
            "isAutoRegistrationResolved": True,
            "autoRegistrationStatus": "No EP bootstrappers configured.",
        }

    def answer(self, request: Request) -> Writes:
        path = request.path.partition("?")[0]
        if path == "/status":
            return self.json(request, json.dumps(self.status(), indent=2).encode())
        if path == "/models/loaded":
            return self.listed(request, sorted(self.fake.loaded))
        if path.startswith(("/models/load/", "/models/unload/")):
            return self.move(request, *path.removeprefix("/models/").split("/", 1))
        return self.common(request, path)

    def common(self, request: Request, path: str) -> Writes:
        if path == "/v1/models":
            return self.json(request, {"data": self.models(), **self.odd(), "object": "list"})
        if path == "/v1/chat/completions":
            return self.chat(request)
        return self.json(request, b"", "404 Not Found")

    def listed(self, request: Request, names: list[str]) -> Writes:
        body = self.text(names)
        fields = ("Content-Type: application/json; charset=utf-8", "Transfer-Encoding: chunked")
        yield self.head(request, *fields) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)

    @staticmethod
    def odd() -> dict[str, Any]:
        return {"IsDelta": False, "Successful": True, "HttpStatusCode": 0}

    def models(self) -> list[dict[str, Any]]:
        names = dict.fromkeys(unversioned(one) for one in self.fake.ids)
        alias = {unversioned(one): self.fake.alias_of(one) for one in self.fake.ids}
        return [
            {
                "id": name,
                "owned_by": "lab",
                "permission": [],
                "created": CREATED,
                "CreatedTime": "2026-01-01T00:00:00+00:00",
                "parent": alias[name],
                **self.odd(),
                "object": "model",
            }
            for name in names
        ]

    def meant(self, name: str) -> str | None:
        """Id, id without its version, or alias; the first that fits."""
        return next((one for one in self.fake.ids if name in {one, unversioned(one), self.fake.alias_of(one)}), None)

    def move(self, request: Request, what: str, name: str) -> Writes:
        model = self.meant(name)
        if model is None:
            return self.json(request, b"", "500 Internal Server Error")
        if what == "load":
            self.fake.loaded.add(model)
        else:
            self.fake.loaded.discard(model)
        return self.json(request, b"")

    def chat(self, request: Request) -> Writes:
        name = request.body["model"]
        model = self.meant(name)
        if model is not None and not any(self.meant(name) == one for one in self.fake.loaded):
            words = f"Model {name} is not loaded. Please load the model before use."
            return self.json(request, {"error": {"message": words}}, "400 Bad Request")
        return self.stream(request, name, known=model is not None)

    def stream(self, request: Request, name: str, *, known: bool) -> Writes:
        given, wanted = tokens_of(request)
        yield self.head(request, "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        if not known or given + wanted > CONTEXT:
            yield None
            return
        breaks = self.fake.breaks(request)
        for number in range(1, wanted + 1):
            if breaks and number > wanted // 2:
                yield None
                return
            said = {"role": "assistant", "content": WORDS[number % len(WORDS)], "tool_calls": []}
            choice: dict[str, Any] = {"delta": said, "message": said, "index": 0}
            if self.finishes and number == wanted:
                choice["finish_reason"] = "length"
            yield self.event(name, [choice], given, number)
        if self.counts:
            yield self.event(name, [], given, wanted)
        yield b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

    def event(self, name: str, choices: list[dict[str, Any]], given: int, number: int) -> bytes:
        usage = {"prompt_tokens": given, "completion_tokens": number, "total_tokens": given + number}
        frame = {
            "model": name,
            "choices": choices,
            **({"usage": usage} if self.counts else {}),
            "created": CREATED,
            "CreatedAt": "2026-11-23T09:05:01+00:00",
            "id": "chat.id.1",
            **self.odd(),
            "object": "chat.completion.chunk",
        }
        data = b"data: " + self.text(frame) + b"\n\n"
        return b"%x\r\n%s\r\n" % (len(data), data)


class Legacy(Core):
    """0.8: the service of `foundry service`, with routes of its own, without usage and without finish_reason."""

    counts, finishes = False, False

    def answer(self, request: Request) -> Writes:
        path = request.path.partition("?")[0]
        if path == "/openai/status":
            return self.json(request, {key: self.status()[key] for key in ("endpoints", "modelDirPath", "pipeName")})
        if path == "/openai/loadedmodels":
            return self.listed(request, sorted(map(unversioned, self.fake.loaded)))
        if path.startswith(("/openai/load/", "/openai/unload/")):
            return self.move(request, *path.removeprefix("/openai/").split("/", 1))
        return self.common(request, path)

    def models(self) -> list[dict[str, Any]]:
        more = {"vision": False, "toolCalling": False, "maxInputTokens": CONTEXT, "maxOutputTokens": CONTEXT}
        return [{**one, **more} for one in super().models()]


class Ollama(Core):
    """Ollama, by its API reference: a chat loads its model, a request to generate without a prompt loads or unloads
    one, which is still listed for a moment after that."""

    def __init__(self, fake: Fake) -> None:
        super().__init__(fake)
        self.leaving: set[str] = set()

    def answer(self, request: Request) -> Writes:
        path = request.path.partition("?")[0]
        if path == "/api/version":
            return self.json(request, {"version": "0.9.1"})
        if path == "/api/tags":
            return self.json(request, {"models": [{"name": one, "model": one, "size": 1000} for one in self.fake.ids]})
        if path == "/api/ps":
            listed = [{"name": one, "model": one, "size": 1000, "size_vram": 0} for one in sorted(self.fake.loaded)]
            self.fake.loaded -= self.leaving
            self.leaving.clear()
            return self.json(request, {"models": listed})
        if path == "/api/generate":
            return self.generate(request)
        return self.common(request, path)

    def models(self) -> list[dict[str, Any]]:
        return [{"id": one, "object": "model", "created": CREATED, "owned_by": "library"} for one in self.fake.ids]

    def meant(self, name: str) -> str | None:
        return next((one for one in self.fake.ids if one in {name, f"{name}:latest"}), None)

    def generate(self, request: Request) -> Writes:
        model = self.meant(request.body["model"])
        if model is None:
            return self.json(request, {"error": f"model '{request.body['model']}' not found"}, "404 Not Found")
        if request.body.get("keep_alive") == 0:
            self.leaving.add(model)
        else:
            self.leaving.discard(model)
            self.fake.loaded.add(model)
        done = {"model": request.body["model"], "response": "", "done": True, "done_reason": "load"}
        return self.json(request, done)

    def chat(self, request: Request) -> Writes:
        model = self.meant(request.body["model"])
        if model is not None:
            self.leaving.discard(model)
            self.fake.loaded.add(model)
        return self.stream(request, request.body["model"], known=model is not None)


def write_cache(folder: Path, fake: Fake) -> None:
    """A model cache as Foundry Local leaves it: its catalogue file, and a folder for each variant that is on this disk.

    Of the catalogue the first variant of each alias is not on the disk, unless it is the only one.
    """
    entries = []
    for alias, variants in fake.variants.items():
        for model_id in variants:
            name, _, version = model_id.partition(":")
            device = name.rpartition("-")[2].upper()
            provider = "CUDAExecutionProvider" if device == "GPU" else "CPUExecutionProvider"
            entries.append(
                {
                    "id": model_id,
                    "name": name,
                    "version": int(version),
                    "alias": alias,
                    "license": "MIT",
                    "fileSizeMb": 3,
                    "runtime": {"deviceType": device, "executionProvider": provider},
                    "intProperties": {"context_length": 4 * CONTEXT, "filesize_mb": 3},
                }
            )
            if model_id != variants[0] or len(variants) == 1:
                where = folder / "Lab" / model_id.replace(":", "-")
                where.mkdir(parents=True)
                (where / "inference_model.json").write_text(json.dumps({"Name": model_id}))
                (where / "model.onnx.data").write_bytes(bytes(1_000_000))
    document = {"version": 1, "savedAtUnix": CREATED, "models": entries}
    (folder / "foundry.modelinfo.json").write_text(json.dumps(document))
    fake.cache = folder


DIALECTS = {"foundry-2.x": Native, "foundry-1.x": Core, "foundry-0.x": Legacy}
SERVED = {**DIALECTS, "ollama": Ollama}


@contextmanager
def serving(fake: Fake) -> Iterator[Fake]:
    """Serve it in a thread while the context lasts."""
    dialect = SERVED[fake.dialect](fake)
    loop = asyncio.new_event_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            while (request := await _request(reader)) is not None:
                fake.asked.append(f"{request.method} {request.path}")
                if not await _write(writer, dialect.answer(request)) or request.close:
                    break
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            tasks.discard(task)
            writer.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(play, "127.0.0.1", 0, limit=1 << 24)

    async def stop() -> None:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tuple(tasks), timeout=5)

    server = loop.run_until_complete(start())
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield fake
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    fields = {name.lower(): text for name, text in (line.split(": ", 1) for line in head[1:])}
    body = await reader.readexactly(int(fields.get("content-length", 0)))
    method, path, _ = head[0].split()
    close = fields.get("connection", "").lower() == "close"
    return Request(method, unquote(path), close, json.loads(body) if body else {})


async def _write(writer: asyncio.StreamWriter, writes: Writes) -> bool:
    """Write each piece by itself; whether the connection is kept."""
    for number, piece in enumerate(writes):
        if piece is None:
            await writer.drain()
            return False
        if number:
            await asyncio.sleep(_TOKEN_S)
        writer.write(piece)
        await writer.drain()
    return True
