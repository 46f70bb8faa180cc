"""What events carry beside their text: the forms of events that servers send, for `python -m tests.bench events`."""

from __future__ import annotations

import random
from typing import Any

import orjson

WORDS = (" the", " of", " quick", " brown", "ness", " over", ".", " lazy", " answer", ",")


def _chunk(number: int, text: str, **more: Any) -> dict[str, Any]:
    delta = more.pop("delta", {"content": text})
    choice = {"index": 0, "delta": delta, **more.pop("choice", {}), "finish_reason": None}
    return {
        "id": "chatcmpl-7c1f0b6d2a",
        "object": "chat.completion.chunk",
        "created": more.pop("created", 1_700_000_000),
        "model": "some-model",
        "choices": [choice],
        **more,
    }


def _plain(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text)


def _numbered(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text, seq=n)


def _created(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text, created=1_700_000_000 + n)


def _padded(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text, obfuscation="".join(random.Random(n).choices("abcdefghijkABCDEFGH0123456789", k=n * 7 % 16)))


def _ids(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text, choice={"logprobs": None, "token_ids": [1000 + n]})


def _escapes(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text + '\n\t"' + "é"[n % 2 :])


def _reasoning(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text, delta={"content": None, "reasoning_content": text}, seq=n)


def _usage(n: int, text: str) -> dict[str, Any]:
    usage = {"prompt_tokens": 30, "completion_tokens": n + 1, "total_tokens": 31 + n}
    return _chunk(n, text, usage=usage)


def _logprobs(n: int, text: str) -> dict[str, Any]:
    entry = {"token": text, "logprob": -0.125 * (n % 50), "bytes": list(text.encode()), "top_logprobs": []}
    return _chunk(n, text, choice={"logprobs": {"content": [entry], "refusal": None}})


def _calls(n: int, text: str) -> dict[str, Any]:
    return _chunk(n, text, delta={"tool_calls": [{"index": 0, "function": {"arguments": f'{text}"'}}]})


FORMS = {
    "plain": _plain,
    "numbered (seq)": _numbered,
    "numbered (created)": _created,
    "padded (obfuscation)": _padded,
    "token ids": _ids,
    "escapes in the text": _escapes,
    "reasoning": _reasoning,
    "running usage": _usage,
    "log-probabilities": _logprobs,
    "tool calls": _calls,
}


def frames(form: str, events: int) -> list[bytes]:
    """So many frames of this form, as JSON."""
    return [orjson.dumps(FORMS[form](number, WORDS[number % len(WORDS)])) for number in range(events)]
