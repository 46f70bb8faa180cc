"""Requests that are too long for the context that a server lists: refused where that is sure, else a warning."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.request_lengths import request_lengths
from loadbench.plan.sources import resolve
from loadbench.targets.context import Context, check_context, listed_context
from loadbench.targets.prepare import prepare
from loadbench.targets.target import Target
from tests.client.server import ASK, CLOSE, serving, whole

if TYPE_CHECKING:
    from pathlib import Path

    from loadbench.plan.scenario import Scenario

VLLM = {"id": "m", "max_model_len": 4096}
LLAMA = {"id": "m", "meta": {"n_ctx": 2048, "n_ctx_train": 8192}}
ADVICE = {"id": "m", "context_length": 4096}


def scenario(command: str = "sweep", **flags: Any) -> Scenario:
    """The scenario of these flags."""
    return resolve(command=command, flags=flags, environment={})


def checked(entry: dict[str, Any], *, catalogued: int | None = None, more: tuple = (), **flags: Any) -> list[str]:
    """The warnings about model `m` of a server with this entry; an error is raised."""
    said: list[str] = []
    target = Target(base_url="http://127.0.0.1:9/v1", models=("m",), listing=(entry, *more))
    known = None if catalogued is None else Context(catalogued, "by its catalogue")
    anyio.run(partial(check_context, scenario(**flags), target, {"m": known}, said.append))
    return said


def refusal(entry: dict[str, Any], **flags: Any) -> BadInput:
    """Why requests are refused."""
    with pytest.raises(BadInput) as caught:
        checked(entry, **flags)
    return caught.value


@pytest.mark.parametrize(
    ("entry", "tokens", "is_limit"),
    [
        (VLLM, 4096, True),
        (LLAMA, 2048, True),
        ({"meta": {"n_ctx_train": 8192}}, 8192, False),
        ({"loaded_context_length": 4096, "max_context_length": 131072}, 4096, True),
        ({"max_context_length": 131072}, 131072, False),
        ({"context_window": "8192"}, 8192, False),
        ({"maxInputTokens": 4096, "maxOutputTokens": 9}, 4096, False),
        ({"max_model_len": None, "context_length": 32768}, 32768, False),
        ({"max_model_len": -1}, None, None),
        ({"max_model_len": True, "meta": 7, "context_length": [1], "context_window": "long"}, None, None),
        ({}, None, None),
    ],
)
def test_context_is_listed_under_many_names(entry, tokens, is_limit):
    """What a server says of itself as it runs comes first; what is no number is passed over."""
    found = listed_context(entry)
    assert (None if found is None else found[0], None if found is None else found.is_limit) == (tokens, is_limit)


@pytest.mark.parametrize(
    ("entry", "flags", "words"),
    [
        (VLLM, {"input_tokens": "5000"}, "--input-tokens: prompts of 5,000 tokens with responses of up to 64"),
        (VLLM, {"input_tokens": "4000", "max_tokens": "97"}, "prompts of 4,000 tokens with responses of up to 97"),
        (LLAMA, {"input_tokens": "2048"}, "prompts of 2,048 tokens"),
        (VLLM, {"input_tokens": "uniform:3000,5000"}, "% of the requests (prompts of up to 4,9"),
        (VLLM, {"persona": "rag"}, "persona rag: "),
        (VLLM, {"input_tokens": "1500", "turns": "4"}, "(prompts of up to 6,000 tokens"),
        ({"id": "m", "parent": "base"}, {"input_tokens": "5000", "more": (VLLM | {"id": "base"},)}, "5,000"),
    ],
)
def test_what_cannot_fit_is_refused(entry, flags, words):
    """vLLM counts the most that may be generated, llama.cpp only the prompt; the message has place, numbers, remedy."""
    error = refusal(entry, **flags)
    assert words in error.message
    assert "http://127.0.0.1:9/v1 lists" in error.message
    assert "--max-model-len" in error.hint


@pytest.mark.parametrize(
    ("entry", "flags", "words"),
    [
        # It fits, exactly; or the lengths of given prompts are not known.
        (VLLM, {"input_tokens": "4000", "max_tokens": "96"}, None),
        (LLAMA, {"input_tokens": "1984", "max_tokens": "64"}, None),
        (VLLM, {"prompt": "Hello."}, None),
        ({"id": "m"}, {"input_tokens": "5000000"}, None),
        (VLLM | {"id": "other"}, {"input_tokens": "5000"}, None),
        # Responses are cut, few requests are too long or many may be, or the list says what the model is made for.
        (
            LLAMA,
            {"input_tokens": "2000", "max_tokens": "100"},
            "do not fit the context, which cuts the responses short",
        ),
        (VLLM, {"input_tokens": "uniform:3000,4040"}, "% of the requests"),
        (VLLM, {"input_tokens": "5000", "failures": "100%"}, "are too long for the context"),
        (ADVICE, {"input_tokens": "5000"}, "continuing, as the server may take more"),
        ({"id": "m"}, {"input_tokens": "5000", "catalogued": 4096}, "lists 4,096 tokens for m (by its catalogue)"),
    ],
)
def test_what_may_fail_is_a_warning(entry, flags, words):
    """Nothing is said where all fits."""
    said = checked(entry, **flags)
    assert [line.startswith("warning: ") and words in line for line in said] == ([] if words is None else [True])


@pytest.mark.parametrize(("longest", "share_ok"), [(4000, True), (5000, False)])
def test_lengths_of_a_trace_are_known(tmp_path: Path, longest, share_ok):
    """Each request counts; a trace of which more would fail than is allowed is not begun."""
    trace = tmp_path / "trace.jsonl"
    rows = [{"timestamp": n * 1000, "input_length": 100, "output_length": 10} for n in range(20)]
    trace.write_bytes(b"\n".join(map(orjson.dumps, [*rows, {**rows[0], "timestamp": 9, "input_length": longest}])))
    flags = {"command": "replay", "trace": str(trace)}
    assert max(request_lengths(scenario(**flags))) == (longest, 10)
    if share_ok:
        assert checked(VLLM, **flags) == []
    else:
        error = refusal(VLLM, **flags)
        assert error.message.startswith("TRACE: 4.8 % of the requests (prompts of up to 5,000 tokens")
        assert "leave such requests out" in error.hint
        assert len(checked(VLLM, failures="5%", **flags)) == 1


def test_servers_that_say_it_elsewhere_are_asked_there():
    """llama.cpp's context as it runs is in /props, LM Studio's in its own list; nobody else is asked."""
    pages = {
        "/v1/models": {"data": [{"id": "m", "meta": {"n_ctx_train": 32768}}]},
        "/props": {"default_generation_settings": {"n_ctx": 2048}},
    }
    of_studio = {
        "/v1/models": {"data": [{"id": "m", "owned_by": "organization_owner"}]},
        "/api/v0/models": {"data": [{"id": "n"}, {"id": "m", "loaded_context_length": 2048}]},
    }
    plain = {"/v1/models": {"data": [{"id": "m", "owned_by": "me"}]}}

    async def prepared(documents: dict[str, Any]) -> tuple[list[str], str]:
        answers = [[ASK, whole("200 OK", orjson.dumps(document)), CLOSE] for document in documents.values()]
        async with serving(*answers) as server:
            message = ""
            try:
                await prepare(scenario(url=server.url(), input_tokens="3000"), {}, url=server.url())
            except BadInput as error:
                message = error.message
            return [request.line.split()[1] for request in server.requests], message

    for documents in (pages, of_studio, plain):
        paths, message = asyncio.run(prepared(documents))
        assert paths == list(documents)
        assert ("lists 2,048 tokens for m" in message) is (documents is not plain)
