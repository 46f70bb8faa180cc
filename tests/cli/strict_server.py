"""A server that refuses fields, and generates as many tokens as a test wants: for commands that run in this process."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from tests.cli.any_server import Reply, any_server, chat, ollama, responses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.any_server import Got

    # (status, error) for a body that is refused, with 200 inside of a stream, or the number of tokens of its response.
    Answer = Callable[[dict[str, Any]], tuple[int, Any] | int]

# A level of a given time has so many requests at most.
_RESPONDS_S = 0.01
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")


def requested(body: dict[str, Any]) -> int:
    """The limit of a request, under any name."""
    limits = [body[name] for name in _LIMITS if name in body]
    return int(limits[0] if limits else body.get("options", {}).get("num_predict", 1))


class StrictServer:
    """`bodies` are those that were posted, each with whether it was refused."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.bodies: list[tuple[dict[str, Any], bool]] = []
        self.url = ""  # the base of its API

    @property
    def accepted(self) -> list[dict[str, Any]]:
        """The bodies of the requests that were answered, the first ones before measuring included."""
        return [body for body, refused in self.bodies if not refused]

    def reply(self, got: Got) -> Reply | None:
        """A refusal, or a response in the form of the route."""
        answer = self.answer(got.body)
        self.bodies.append((got.body, not isinstance(answer, int)))
        time.sleep(_RESPONDS_S)
        if not isinstance(answer, int):
            status, error = answer
            if status != HTTPStatus.OK:
                return Reply(error, status)
            return Reply(b"data: %s\n\n" % json.dumps(error).encode(), kind="text/event-stream")
        model, words, end = got.body["model"], ["x "] * answer, "length" if answer >= requested(got.body) else "stop"
        if got.path.endswith("/api/chat"):
            return ollama(model, words, end)
        if got.path.endswith("/responses"):
            return responses(model, words)
        return chat(model, words, end, counted="stream_options" in got.body)


@contextmanager
def strict_server(answer: Answer, *models: str) -> Iterator[StrictServer]:
    """It answers while the context lasts."""
    strict = StrictServer(answer)

    def listed(path: str) -> Reply | None:
        return Reply({"data": [{"id": name} for name in models or ("m",)]}) if path.endswith("/models") else None

    with any_server(listed, strict.reply) as server:
        strict.url = f"{server.root}/v1"
        yield strict
