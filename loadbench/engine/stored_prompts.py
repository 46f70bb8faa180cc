"""Given prompts in a file of their own, for worker processes: a data set is read once, by the main process.

Each worker reads a prompt from the file when a request needs it, which takes some 20 µs. So a worker starts at once and
needs no memory for a large data set, whose pages all workers share. The file lasts as long as the workers.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import orjson

from loadbench.plan.prompts import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class StoredPrompts(Sequence[Prompt]):
    """Prompts in a file, in order; without their facets, by which only the main process rates."""

    def __init__(self, path: Path, ends: array[int]) -> None:
        self._path = path
        self._ends = ends

    @classmethod
    def written(cls, prompts: Iterable[Prompt], path: Path) -> StoredPrompts:
        """These prompts, written to a new file that only this user can read."""
        ends = array("Q", [0])
        with path.open("xb") as file:
            path.chmod(0o600)
            for prompt in prompts:
                # Prompts and their later turns become arrays of their fields.
                ends.append(ends[-1] + file.write(orjson.dumps(prompt._replace(facets=()), default=tuple)))
        return cls(path, ends)

    def in_folder(self, folder: Path) -> StoredPrompts:
        """The same in another folder, where the file was copied to under its name."""
        return StoredPrompts(folder / self._path.name, self._ends)

    def __reduce__(self) -> tuple[type[StoredPrompts], tuple[Path, array[int]]]:
        return StoredPrompts, (self._path, self._ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, at: int) -> Prompt: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Prompt]: ...
    def __getitem__(self, at: int | slice) -> Prompt | Sequence[Prompt]:
        if isinstance(at, slice):
            return [self[one] for one in range(len(self))[at]]
        at = range(len(self))[at]
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._ends[at])
            return _prompt(orjson.loads(file.read(self._ends[at + 1] - self._ends[at])))


def _prompt(fields: Iterable[Any]) -> Prompt:
    prompt = Prompt(*fields)
    return prompt._replace(messages=tuple(prompt.messages), facets=(), then=tuple(map(_prompt, prompt.then)))
