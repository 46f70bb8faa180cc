"""Foundry Local's command line: where the service is, and which models it has.

There are two programs, both called `foundry`. The newer one (from 0.10) understands `-o json`, sometimes with a banner
around the JSON. The older one prints text with emoji that changes from release to release. So only what can be found
reliably is used: the first `{` to the last `}`, a URL, the columns under a heading.

The output goes to a file and never to a pipe, because some commands block for ever on a pipe. Commands that show their
progress inherit the terminal instead.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson

from loadbench.core.bounded import parse_json
from loadbench.core.children import child_environment, find_program
from loadbench.results.models import Model
from loadbench.targets.catalogue import from_catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping

# A cold start of the command line takes seconds; a command that takes longer than this hangs.
_WITHIN_S = 30.0
_MOST_BYTES = 16 * 1024 * 1024
# A row of its tables is as wide as a terminal.
_LONGEST_ROW = 1000
_URL = re.compile(r"https?://[\w.\-]+(?::\d{1,5})?|https?://\[[0-9a-fA-F:]+\](?::\d{1,5})?")
# Terminal colours and cursor movements, which some releases also write to files.
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*\x07")
_SIZE = re.compile(r"([0-9]+(?:[.,][0-9]+)?)\s*(MB|GB)", re.IGNORECASE)
_UNITS = {"MB": 1024**2, "GB": 1024**3}


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """The output of a command and its exit status, `None` if it had to be killed."""

    text: str
    status: int | None


@dataclass(frozen=True, slots=True)
class FoundryCli:
    """The `foundry` program on the PATH."""

    path: str

    def run(self, *words: str, within_s: float = _WITHIN_S) -> CommandOutput:
        """Run a command that changes nothing, and return its output."""
        with tempfile.TemporaryFile() as out:
            try:
                done = subprocess.run(  # noqa: S603 - the user's own program, our own arguments
                    [self.path, *words],
                    env=self._environment,
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
        """Start a command that shows its progress on the terminal; `stdout` is a descriptor to use instead."""
        command = [self.path, *words]
        return subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL, stdout=stdout)  # noqa: S603

    @property
    def _environment(self) -> dict[str, str]:
        """It is a .NET program with settings of its own, and downloads models."""
        return child_environment("DOTNET_", "FOUNDRY_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


def find_cli(environment: Mapping[str, str]) -> FoundryCli | None:
    """The command line, if it is installed."""
    path = find_program("foundry", environment)
    return None if path is None else FoundryCli(path)


def server_status(cli: FoundryCli) -> tuple[str | None, str]:
    """(URL, finding) of `foundry server status -o json`."""
    output = cli.run("server", "status", "-o", "json")
    status = first_object(output.text)
    if not isinstance(status, dict):
        return None, _unusable(output)
    urls = [status.get("webUrl"), status.get("url")]
    for key in ("webUrls", "urls"):
        several = status.get(key)
        urls += several if isinstance(several, list) else []
    url = next((normal_url(text) for text in urls if isinstance(text, str) and text.strip()), None)
    is_state = isinstance(status.get("state"), str)
    state = f"state {status['state']}" if is_state else f"running: {status.get('running')}"
    # `running` may be out of date, but a URL is given for a reason: the check of the endpoint decides.
    return url, f"{url}, {state}" if url else f"no URL, {state}"


def service_status(cli: FoundryCli) -> tuple[str | None, str]:
    """(URL, finding) of the older `foundry service status`: the first URL, unless the text says that it is stopped."""
    output = cli.run("service", "status")
    match = _URL.search(output.text)
    if match is None or re.search(r"not (?:running|started)|\bstopped\b", output.text, re.IGNORECASE):
        return None, _unusable(output)
    return normal_url(match[0]), normal_url(match[0])


def normal_url(text: str) -> str:
    """The server's address without its routes."""
    parts = urlsplit(text.strip())
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else text.strip()


def _unusable(output: CommandOutput) -> str:
    if output.status is None:
        return "no output in time"
    line = next((line.strip() for line in output.text.splitlines() if line.strip()), "no output")
    return line if len(line) <= 120 else line[:119] + "…"


def first_object(text: str) -> object:
    """The JSON object between the first `{` and the last `}`; `None` if there is none."""
    begins, ends = text.find("{"), text.rfind("}")
    try:
        document: object = parse_json(text[begins : ends + 1]) if 0 <= begins < ends else None
    except orjson.JSONDecodeError:
        return None
    return document


def list_cli_models(cli: FoundryCli) -> list[Model]:
    """All variants, by the first command that this release supports; empty if none works."""
    for words in (("model", "list", "--variants"), ("model", "list")):
        models = from_catalogue(first_object(cli.run(*words, "-o", "json").text))
        if models:
            return models
    return from_table(cli.run("model", "list").text)


def from_table(text: str) -> list[Model]:
    """The rows under `Alias Device Task File Size License Model ID`; columns begin where the words of the heading do.

    An empty alias is that of the row above. Lines of dashes, blank lines and messages are not rows.
    """
    models: list[Model] = []
    columns: dict[str, slice] = {}
    alias = ""
    for line in text.splitlines():
        if len(line) > _LONGEST_ROW:
            continue
        if re.search(r"\bAlias\b.*\bModel ID\b", line):
            heads = list(re.finditer(r"Alias|Device|Task|File Size|License|Model ID", line))
            ends = [*(head.start() for head in heads[1:]), None]
            columns = {head[0]: slice(head.start(), end) for head, end in zip(heads, ends, strict=True)}
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


def _size(text: str) -> int | None:
    match = _SIZE.search(text)
    return round(float(match[1].replace(",", ".")) * _UNITS[match[2].upper()]) if match else None
