"""Text files that users write: read within a limit of size, with errors that name the place and a remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path


def read_text(path: Path, contents: str, *, max_bytes: int, hint: str) -> str:
    """The text of a file that holds `contents`, such as "prompts"; a byte order mark is removed.

    Raises `BadInput` if the file cannot be read, is too large (with `hint`), or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as error:
        reason = error.strerror or error
        raise BadInput(f"cannot read the {contents} in {path}: {reason}", hint="name a file that exists") from None
    if len(raw) > max_bytes:
        raise BadInput(f"{path} is larger than {max_bytes >> 20} MiB", hint=hint)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line}: this is not UTF-8", hint="save the file as UTF-8") from None


def parse_json(text: str, path: Path, first_line: int = 1) -> object:
    """The value of a JSON text that begins at a line of the file; raises `BadInput` with the line of the error."""
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        line = first_line + text.count("\n", 0, error.pos)
        raise BadInput(
            f"{path}, line {line}: this is not JSON: {error.msg}", hint="fix the file at this line"
        ) from None
    return value
