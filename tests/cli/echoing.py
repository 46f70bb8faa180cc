"""An adapter in a few lines, installed for a test: it says the words of what it is asked, one by one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest import mock

from loadbench.client.adapter import Delta, Finish
from loadbench.targets import adapters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from loadbench.client.adapter import AdapterRequest


class Echo:
    """A model that repeats what it was asked last."""

    parallel = 1

    def __init__(self, name: str) -> None:
        self.name = name
        self.loaded = False

    async def load(self) -> None:
        """At once."""
        self.loaded = True

    async def generate(self, asked: AdapterRequest) -> AsyncIterator[Delta | Finish]:
        """Word by word, up to the limit."""
        if not self.loaded:
            raise RuntimeError("not loaded")
        words = asked.messages[-1]["content"].split()
        for word in words[: asked.max_tokens]:
            yield Delta(f"{word} ")
        yield Finish("length" if len(words) > asked.max_tokens else "stop", input_tokens=len(words))

    async def aclose(self) -> None:
        """It is gone."""
        self.loaded = False


class Point:
    """An entry point, as installed packages have them."""

    def __init__(self, name: str, made: Any) -> None:
        self.name = name
        self._made = made

    def load(self) -> Any:
        """What it stands for, or the error that importing it ends in."""
        if isinstance(self._made, Exception):
            raise self._made
        return self._made


@contextmanager
def installed(**made: Any) -> Iterator[None]:
    """These adapters and no others, while the context lasts; `--adapter echo:NAME` where none are named."""
    points = [Point(name, one) for name, one in (made or {"echo": Echo}).items()]
    with mock.patch.object(adapters, "entry_points", lambda group: points if group == adapters.GROUP else ()):
        yield
