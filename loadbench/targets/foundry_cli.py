"""Foundry Local's command line, as far as it can be asked: where the service is, which models it knows.

There are two of them, both called `foundry`. The newer (0.10 on) answers `-o json`, with a banner around it at times;
the older writes lines for people, with emoji, and its words change from release to release. So nothing is taken
for more than what can be found in it: the first `{` to the last `}`, a URL, the columns under a heading.

What it prints is caught in a file and never in a pipe: some of its commands wait for ever on a pipe that nobody reads
as they wish. Those that show progress inherit the terminal instead.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson

from loadbench.results.models import Model
from loadbench.targets.catalogue import from_cli_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# A cold start of the command line takes seconds; what takes longer than this has hung.
_WITHIN_S = 30.0
_MOST_BYTES = 16 * 1024 * 1024
_URL = re.compile(r"https?://[\w.\-]+(?::\d{1,5})?|https?://\[[0-9a-fA-F:]+\](?::\d{1,5})?")
# Terminal colours and cursor movements, which some releases write into files as well.
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
_SIZE = re.compile(r"([0-9]+(?:[.,][0-9]+)?)\s*(MB|GB)", re.IGNORECASE)
_UNITS = {"MB": 1024**2, "GB": 1024**3}


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """What a command printed, and how it ended: `None` where it had to be ended."""

    text: str
    status: int | None


@dataclass(frozen=True, slots=True)
class FoundryCli:
    """The `foundry` on the path."""

    path: str

    def ask(self, *words: str, within_s: float = _WITHIN_S) -> CommandOutput:
        """Run a command that only tells something, and catch what it prints."""
        with tempfile.TemporaryFile() as out:
            try:
                done = subprocess.run(  # noqa: S603 - the user's own program, our own words
                    [self.path, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    timeout=within_s,
                    check=False,
                )
                status: int | None = done.returncode
            except subprocess.TimeoutExpired:
                status = None
            except OSError as error:
                return CommandOutput(error.strerror or str(error), 127)
            out.seek(0)
            return CommandOutput(_ESCAPES.sub("", out.read(_MOST_BYTES).decode("utf-8", "replace")), status)

    def show(self, *words: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
        """Start a command that shows its progress on the terminal; `stdout` is a descriptor to take instead."""
        return subprocess.Popen([self.path, *words], stdin=subprocess.DEVNULL, stdout=stdout)  # noqa: S603


def find_cli(environment: Mapping[str, str]) -> FoundryCli | None:
    """The command line, where it is installed."""
    path = shutil.which("foundry", path=environment.get("PATH", os.defpath))
    return None if path is None else FoundryCli(path)


# Where the service is.


def server_status(cli: FoundryCli) -> tuple[str | None, str]:
    """(URL, finding) of `foundry server status -o json`."""
    said = cli.ask("server", "status", "-o", "json")
    found = first_object(said.text)
    if not isinstance(found, dict):
        return None, _unusable(said)
    urls = [found.get("webUrl"), found.get("url"), *_texts(found.get("webUrls")), *_texts(found.get("urls"))]
    url = next((normal_url(one) for one in urls if isinstance(one, str) and one.strip()), None)
    state = f"state {found['state']}" if isinstance(found.get("state"), str) else f"running: {found.get('running')}"
    # `running` may be out of date, a URL is not given for nothing: the endpoint's own check will tell.
    return url, f"{url}, {state}" if url else f"no URL, {state}"


def service_status(cli: FoundryCli) -> tuple[str | None, str]:
    """(URL, finding) of the older `foundry service status`: the first URL in its words, where it speaks of running."""
    said = cli.ask("service", "status")
    found = _URL.search(said.text)
    if found is None or re.search(r"not (?:running|started)|\bstopped\b", said.text, re.IGNORECASE):
        return None, _unusable(said)
    return normal_url(found[0]), normal_url(found[0])


def normal_url(text: str) -> str:
    """The server's address without any of its routes."""
    parts = urlsplit(text.strip())
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else text.strip()


def _unusable(said: CommandOutput) -> str:
    if said.status is None:
        return "no answer in time"
    line = next((line.strip() for line in said.text.splitlines() if line.strip()), "it said nothing")
    return line if len(line) <= 120 else line[:119] + "…"


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def first_object(text: str) -> object:
    """The JSON object between the first `{` and the last `}`; `None` where there is none."""
    begins, ends = text.find("{"), text.rfind("}")
    try:
        found: object = orjson.loads(text[begins : ends + 1]) if 0 <= begins < ends else None
    except orjson.JSONDecodeError:
        return None
    return found


# Which models it knows.


def list_cli_models(cli: FoundryCli) -> list[Model]:
    """All variants with what is known of them, from whichever command this release has; nothing where none works."""
    asked: tuple[tuple[tuple[str, ...], Callable[[str], list[Model]]], ...] = (
        (("model", "list", "--variants", "-o", "json"), _from_json),
        (("model", "list", "-o", "json"), _from_json),
        (("model", "list"), from_table),
    )
    for words, read in asked:
        models = read(cli.ask(*words).text)
        if models:
            return models
    return []


def _from_json(text: str) -> list[Model]:
    return from_cli_json(first_object(text))


def from_table(text: str) -> list[Model]:
    """The rows under `Alias Device Task File Size License Model ID`; columns are where the heading's words begin.

    An alias that is left out is that of the row above. Rules, blank lines and words to the user are no rows.
    """
    models: list[Model] = []
    columns: dict[str, slice] = {}
    alias = ""
    for line in text.splitlines():
        if re.search(r"\bAlias\b.*\bModel ID\b", line):
            columns = _columns(line)
        elif columns and (cells := {name: line[where].strip() for name, where in columns.items()})["Model ID"]:
            model_id = cells["Model ID"].split()[-1]
            if not re.fullmatch(r"[\w.\-]+(:\d+)?", model_id) or set(model_id) <= set("-"):
                continue
            alias = cells["Alias"] or alias
            models.append(
                Model(
                    id=model_id,
                    alias=alias or None,
                    device=cells.get("Device", "").upper() or None,
                    size_bytes=_size(cells.get("File Size", "")),
                    license=cells.get("License") or None,
                )
            )
    return models


def _columns(heading: str) -> dict[str, slice]:
    found = list(re.finditer(r"Alias|Device|Task|File Size|License|Model ID", heading))
    ends: Iterable[int | None] = [*(one.start() for one in found[1:]), None]
    return {one[0]: slice(one.start(), end) for one, end in zip(found, ends, strict=True)}


def _size(text: str) -> int | None:
    found = _SIZE.search(text)
    return round(float(found[1].replace(",", ".")) * _UNITS[found[2].upper()]) if found else None
