"""The simulated server over real sockets, as raw bytes."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.sim_profile import PROFILES
from loadbench.sim.server import MOST_BODY_BYTES, serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from loadbench.plan.sim_profile import Profile

# Steps of some 2 ms: long enough to be seen, short enough for tests.
QUICK = PROFILES["slot-server"].faster(20)
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


class Connection:
    """A client of raw bytes on one connection."""

    def __init__(self, port: int, stop: anyio.Event | None = None) -> None:
        self._port = port
        self.stop = stop or anyio.Event()

    async def __aenter__(self) -> Connection:
        self.reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        await asyncio.wait([asyncio.ensure_future(self._writer.wait_closed())])

    def send(self, data: bytes) -> None:
        """Write as it is."""
        self._writer.write(data)

    def ask(self, method: str, path: str, body: Any = None, *, headers: str = "") -> None:
        """Send one request; a body that is not bytes goes as JSON."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.send(
            f"{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {len(data)}\r\n\r\n".encode() + data
        )

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next response."""
        line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        return int(line.split()[1]), dict(each.split(": ", 1) for each in lines)

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next response, to its end."""
        status, headers = await self.head()
        if "content-length" in headers:
            return status, headers, await self.reader.readexactly(int(headers["content-length"]))
        chunks = []
        while chunk := await self.chunk():
            chunks.append(chunk)
        return status, headers, b"".join(chunks)

    async def get(self, path: str) -> bytes:
        """The body of a GET."""
        self.ask("GET", path)
        return (await self.answer())[2]

    async def chat(self, **fields: Any) -> tuple[int, Any]:
        """A chat that is not streamed: status and JSON."""
        self.ask("POST", CHAT, question(**fields))
        status, _, body = await self.answer()
        return status, json.loads(body)

    async def metrics(self) -> dict[str, int]:
        """The numbers of /metrics by name, without their prefix."""
        lines = (await self.get("/metrics")).decode().splitlines()
        numbers = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name.removeprefix("loadbench_sim:"): int(number) for name, number in numbers.items()}


def question(**fields: Any) -> dict[str, Any]:
    """A chat's body: 3 words and so 7 tokens, 5 of answer."""
    message = {"role": "user", "content": "three short words"}
    return {"model": "sim-chat", "messages": [message], "max_tokens": 5} | fields


def events(body: bytes) -> list[Any]:
    """The data of each event, `[DONE]` as text."""
    assert body.endswith(b"\n\n")
    data = [event.removeprefix(b"data: ").decode() for event in body.split(b"\n\n")[:-1]]
    return [json.loads(each) if each.startswith("{") else each for each in data]


def served(test: Callable[[Connection], Awaitable[None]], *, profile: Profile = QUICK, **options: Any) -> None:
    """Run the test's client against a server of its own."""

    async def main() -> None:
        stop, ready, urls = anyio.Event(), anyio.Event(), []

        def on_ready(url: str) -> None:
            urls.append(url)
            ready.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(serve, profile, **options, on_ready=on_ready, stop=stop))
            await ready.wait()
            async with Connection(int(urls[0].rsplit(":", 1)[1]), stop) as connection:
                await test(connection)
            stop.set()

    anyio.run(main)


def test_a_streamed_chat_is_one_chunk_for_each_token() -> None:
    """The first chunk has role and first word, the last one the last word, the reason, the usage and [DONE]."""

    async def test(c: Connection) -> None:
        c.ask("POST", CHAT, question(stream=True, stream_options={"include_usage": True}))
        status, headers = await c.head()
        assert (status, headers["server"]) == (200, "loadbench-sim")
        assert headers["content-type"].startswith("text/event-stream")
        chunks = [events(await c.chunk()) for _ in range(5)]
        assert await c.chunk() == b""
        assert [len(chunk) for chunk in chunks] == [2, 1, 1, 1, 4]
        assert chunks[0][0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        _, finish, usage, done = chunks[-1]
        assert finish["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
        assert usage["choices"] == []
        assert usage["usage"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        assert done == "[DONE]"
        frames = [frame for chunk in chunks for frame in chunk if frame != "[DONE]"]
        assert {(f["object"], f["model"], f["system_fingerprint"]) for f in frames} == {
            ("chat.completion.chunk", "sim-chat", "simulated")
        }
        assert len({f["id"] for f in frames}) == 1

    served(test)


def test_the_words_of_an_answer_are_its_tokens() -> None:
    """Streamed or whole, chat or completion, the text splits into as many words as usage states, and is the same."""

    async def test(c: Connection) -> None:
        c.ask("POST", CHAT, question(stream=True, max_tokens=20))
        streamed = events((await c.answer())[2])
        text = "".join(frame["choices"][0]["delta"].get("content", "") for frame in streamed[:-1])
        _, whole = await c.chat(max_tokens=20)
        assert whole["choices"][0]["message"] == {"role": "assistant", "content": text}
        assert whole["choices"][0]["finish_reason"] == "length"
        assert whole["usage"]["completion_tokens"] == len(text.split()) == 20
        assert "usage" not in streamed[-2]
        c.ask("POST", COMPLETIONS, {"model": "sim-chat", "prompt": "three short words", "max_tokens": 20})
        completed = json.loads((await c.answer())[2])
        assert completed["object"] == "text_completion"
        assert completed["choices"][0]["text"] == text
        assert completed["usage"]["prompt_tokens"] == 3

    served(test)


def test_a_streamed_completion_has_text_and_no_role() -> None:
    """Its events hold `text`; the finish reason comes with an empty one."""

    async def test(c: Connection) -> None:
        c.ask("POST", COMPLETIONS, {"model": "sim-chat", "prompt": "a b", "max_tokens": 3, "stream": True})
        *frames, done = events((await c.answer())[2])
        choices = [frame["choices"][0] for frame in frames]
        assert done == "[DONE]"
        assert len("".join(choice["text"] for choice in choices).split()) == 3
        assert [choice["finish_reason"] for choice in choices] == [None, None, None, "length"]

    served(test)


def test_a_seed_and_a_question_decide_the_words() -> None:
    """The same question gets the same text again; another question or another seed gets another."""
    texts: dict[int, list[str]] = {}

    def asking(seed: int) -> Callable[[Connection], Awaitable[None]]:
        async def test(c: Connection) -> None:
            other = [{"role": "user", "content": "something else"}]
            answers = [await c.chat(max_tokens=12, **more) for more in ({}, {}, {"messages": other})]
            texts[seed] = [answer["choices"][0]["message"]["content"] for _, answer in answers]

        return test

    served(asking(1), seed=1)
    served(asking(2), seed=2)
    first, again, other = texts[1]
    assert first == again
    assert len({first, other, texts[2][0]}) == 3


def test_content_in_parts_counts_like_text() -> None:
    """A message of text parts has the tokens of its words; one without content has none."""

    async def test(c: Connection) -> None:
        parts = [{"type": "text", "text": "three short"}, {"type": "text", "text": "words"}]
        messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]
        _, answer = await c.chat(messages=messages)
        assert answer["usage"]["prompt_tokens"] == 7

    served(test)


def test_max_completion_tokens_counts_before_max_tokens_and_128_without_either() -> None:
    """Both spellings are understood."""

    async def test(c: Connection) -> None:
        for fields, tokens in (({"max_completion_tokens": 2}, 2), ({"max_tokens": None}, 128)):
            _, answer = await c.chat(**fields)
            assert answer["usage"]["completion_tokens"] == tokens

    served(test, profile=QUICK.faster(10))


@pytest.mark.parametrize(
    ("fields", "status", "message", "code"),
    [
        ({"model": "gpt"}, 404, "'gpt' does not exist; there are: one, two", "model_not_found"),
        ({"model": None}, 400, "model", None),
        ({"messages": []}, 400, "'messages' is empty", None),
        ({"messages": "hello"}, 400, r"messages", None),
        ({"messages": [{"role": "user", "content": 7}]}, 400, "content", None),
        ({"max_tokens": 0}, 400, "at least 1, not 0", None),
        ({"max_tokens": "5"}, 400, "max_tokens", None),
        ({"max_tokens": True}, 400, "max_tokens", None),
        ({"max_tokens": 8186}, 400, "8192 tokens. However, you requested 8193", "context_length_exceeded"),
        ({"n": 2}, 400, "'n'", None),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(fields: dict[str, Any], status: int, message: str, code: str) -> None:
    """Each has its status and an error object whose message names the place; the connection is kept."""

    async def test(c: Connection) -> None:
        found, answer = await c.chat(**{"model": "one"} | fields)
        assert found == status
        assert message in answer["error"]["message"]
        assert answer["error"]["code"] == code
        assert (await c.chat(model="two"))[0] == 200

    served(test, models=("one", "two"))


def test_other_wrong_requests() -> None:
    """Bad JSON and an empty prompt are 400, an unknown path 404, the wrong method 405 with the right one named."""

    async def test(c: Connection) -> None:
        c.ask("POST", CHAT, b'{"model": ')
        assert (await c.answer())[0] == 400
        c.ask("POST", COMPLETIONS, {"model": "sim-chat", "prompt": " \n"})
        assert (await c.answer())[0] == 400
        c.ask("POST", "/v1/embeddings", {})
        status, _, body = await c.answer()
        assert status == 404
        assert CHAT in json.loads(body)["error"]["message"]
        for method, path, allowed in (("GET", CHAT, "POST"), ("POST", "/health", "GET")):
            c.ask(method, path)
            status, headers, _ = await c.answer()
            assert (status, headers["allow"]) == (405, allowed)

    served(test)


def test_health_and_models() -> None:
    """/health says ok, /v1/models lists the names it answers to, whatever the query."""

    async def test(c: Connection) -> None:
        assert json.loads(await c.get("/health")) == {"status": "ok"}
        assert [m["id"] for m in json.loads(await c.get("/v1/models?all=1"))["data"]] == ["one", "two"]

    served(test, models=("one", "two"))


def test_metrics_count_what_was_sent() -> None:
    """Tokens and requests by outcome are those of the requests made; at the end nothing runs."""

    async def test(c: Connection) -> None:
        for _ in range(3):
            await c.chat()
        await c.chat(max_tokens=0)
        numbers = await c.metrics()
        assert numbers["prompt_tokens_total"] == 3 * 7
        assert numbers["output_tokens_total"] == 3 * 5
        assert numbers['requests_total{outcome="ok"}'] == 3
        assert numbers['requests_total{outcome="refused"}'] == 1
        assert numbers["requests_running"] == numbers["requests_waiting"] == numbers["kv_tokens_reserved"] == 0

    served(test)


def test_a_client_that_goes_away_frees_its_slots() -> None:
    """With every slot taken by streams of clients that then disconnect, the next request is answered."""

    async def test(c: Connection) -> None:
        async with anyio.create_task_group() as clients:

            async def leave() -> None:
                async with Connection(c._port) as other:
                    other.ask("POST", CHAT, question(stream=True, max_tokens=8000))
                    await other.head()
                    await other.chunk()

            for _ in range(QUICK.slots):
                clients.start_soon(leave)
        assert (await c.chat())[0] == 200
        numbers = await c.metrics()
        assert numbers['requests_total{outcome="cancelled"}'] == QUICK.slots
        assert (numbers["requests_running"], numbers['requests_total{outcome="ok"}']) == (0, 1)

    served(test)


def test_running_and_waiting_are_told_apart() -> None:
    """With more requests than slots, the rest are said to wait."""

    async def test(c: Connection) -> None:
        others = [Connection(c._port) for _ in range(QUICK.slots + 2)]
        for other in others:
            await other.__aenter__()
            other.ask("POST", CHAT, question(stream=True, max_tokens=8000))
        for other in others[: QUICK.slots]:
            await other.head()
            await other.chunk()
        numbers = await c.metrics()
        assert (numbers["requests_running"], numbers["requests_waiting"]) == (QUICK.slots, 2)
        for other in others:
            await other.__aexit__()

    served(test)


def test_a_request_may_come_byte_by_byte() -> None:
    """However it is split, it is answered once, when it is complete."""

    async def test(c: Connection) -> None:
        body = json.dumps(question()).encode()
        for byte in b"POST %b HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body):
            c.send(bytes([byte]))
            await anyio.lowlevel.checkpoint()
        assert (await c.answer())[0] == 200
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:])) + b"0\r\n\r\n"
        c.send(b"POST %b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n%b" % (CHAT.encode(), body))
        assert (await c.answer())[0] == 200

    served(test)


def test_a_body_that_is_too_long_is_413() -> None:
    """It is refused by its stated length, before it is sent, and the connection is closed."""

    async def test(c: Connection) -> None:
        c.send(f"POST {CHAT} HTTP/1.1\r\ncontent-length: {MOST_BODY_BYTES + 1}\r\n\r\n".encode())
        status, headers, _ = await c.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert await c.reader.read() == b""

    served(test)


def test_who_expects_a_continue_gets_it() -> None:
    """`Expect: 100-continue` is answered before the body is sent."""

    async def test(c: Connection) -> None:
        body = json.dumps(question()).encode()
        c.send(f"POST {CHAT} HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        assert (await c.head())[0] == 100
        c.send(body)
        assert (await c.answer())[0] == 200

    served(test)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b" 400 "),
        (b"GET /health HTTP/1.0\r\n\r\n", b" 200 "),
        (b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n", b" 200 "),
    ],
)
def test_after_some_answers_the_connection_ends(request_bytes: bytes, status: bytes) -> None:
    """What is not HTTP/1.1, or asks for it, has its answer and then the end of the connection."""

    async def test(c: Connection) -> None:
        c.send(request_bytes)
        assert status in (await c.reader.read()).split(b"\r\n")[0]

    served(test)


def test_http_1_0_gets_its_stream_without_chunks() -> None:
    """The events come as they are, and the end of the connection is their end."""

    async def test(c: Connection) -> None:
        body = json.dumps(question(stream=True)).encode()
        c.send(b"POST %b HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body))
        head, stream = (await c.reader.read()).split(b"\r\n\r\n", 1)
        assert b"transfer-encoding" not in head
        assert events(stream)[-1] == "[DONE]"

    served(test)


def test_who_pipelines_is_cut_off() -> None:
    """A second request before the first has its answer ends the connection, and frees the slot."""

    async def test(c: Connection) -> None:
        async with Connection(c._port) as hasty:
            hasty.ask("POST", CHAT, question(stream=True, max_tokens=8000))
            await hasty.head()
            hasty.ask("GET", "/health")
            assert not (await hasty.reader.read()).endswith(b"[DONE]\n\n\r\n0\r\n\r\n")
        assert (await c.chat())[0] == 200
        assert (await c.metrics())['requests_total{outcome="cancelled"}'] == 1

    served(test)


def test_a_port_in_use_is_bad_input() -> None:
    """The message names the port, the hint says what to do."""

    async def test(c: Connection) -> None:
        with pytest.raises(BadInput, match=f":{c._port}: the port is in use") as caught:
            await serve(QUICK, port=c._port, on_ready=lambda _: None, stop=anyio.Event())
        assert "--port" in caught.value.hint

    served(test)


@pytest.mark.parametrize(
    "place", [{"host": "192.0.2.1"}, {"port": 70_000}, {"host": "ü" * 64}, {"host": "gpu..example"}, {"host": "\udc80"}]
)
def test_an_impossible_address_is_bad_input(place: dict[str, Any]) -> None:
    """An address that is not this machine's, a port or a name that there is not, is named."""
    with pytest.raises(BadInput, match="cannot listen on"):
        anyio.run(lambda: serve(QUICK, **place, on_ready=lambda _: None, stop=anyio.Event()))


def test_stopping_cuts_what_is_in_flight() -> None:
    """The server ends though a stream is under way, and its client sees the connection end."""

    async def test(c: Connection) -> None:
        c.ask("POST", CHAT, question(stream=True, max_tokens=8000))
        await c.head()
        c.stop.set()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await c.reader.readuntil(b"[DONE]")

    served(test)
