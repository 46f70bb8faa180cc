"""Results of other load testers as runs: `vllm bench serve`, SGLang's `bench_serving`, guidellm, aiperf.

What a tool's figures mean is not what ours of the same name mean. A value goes into the metric of `run.json` whose
definition is nearest, with the tool's own definition in `imported`, and into none if none is near. Values of single
requests make histograms; a summary makes a metric only if it has every point of one. Nothing is known about the client
that measured: no level is VALID.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from loadbench import __version__
from loadbench.analyze.imports.aiperf import aiperf, is_record, is_summary, records_name
from loadbench.analyze.imports.guidellm import guidellm
from loadbench.analyze.imports.serving import serving
from loadbench.core.errors import BadInput
from loadbench.core.text import printable
from loadbench.plan.json_text import parse_json
from loadbench.results.folder import read_plain
from loadbench.results.imported import Imported
from loadbench.results.run import ModelStatus, Run, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadbench.analyze.imports.part import Part

# Files with the texts of many requests are large; more is no result of a load test.
_MOST_BYTES = 512 << 20
_HINT = (
    "name a file of `vllm bench serve --save-result`, of SGLang's bench_serving --output-file, guidellm's JSON, or "
    "aiperf's profile_export_aiperf.json"
)
_DAMAGED = (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError)


class _ResultFile:
    """A file and its objects, each with its place."""

    def __init__(self, path: Path, *, named: bool = True) -> None:
        try:
            raw = read_plain(path, named=named, most_bytes=_MOST_BYTES)
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror or error}", hint=_HINT) from None
        self.path, self.digest = path, hashlib.sha256(raw).hexdigest()
        self.documents = _documents(path, raw)

    @property
    def has_records(self) -> bool:
        return is_record(self.documents[0][1])


def imported_run(paths: Sequence[Path], *, name: str) -> Run:
    """The results in these files, all of one tool, as a run with a level for each.

    Raises `BadInput` for a file that is not such a result, for one with values that no measurement has, for the same
    result twice, and for results of several tools.
    """
    files: list[_ResultFile] = []
    for path in paths:
        file = _ResultFile(path)
        same = next((one.path for one in files if one.digest == file.digest), None)
        if same is not None:
            raise BadInput(f"{path}: the same result as {same}", hint="name each result once")
        files.append(file)
    # aiperf writes its requests beside its summary: they are one level.
    records = {file.path: file for file in files if file.has_records}
    for file in list(files):
        beside = file.path.with_name(records_name(file.path.name))
        if is_summary(file.documents[0][1]) and beside not in records and beside.is_file():
            files.append(_ResultFile(beside, named=False))
            records[beside] = files[-1]
    parts: list[Part] = []
    for file in files:
        if file.has_records:
            continue
        seen: dict[bytes, str] = {}
        for place, document in file.documents:
            same_place = seen.setdefault(msgspec.json.encode(document), place)
            if same_place != place:
                raise BadInput(f"{place}: the same result as {same_place}", hint="leave each result in the file once")
            try:
                if isinstance(document.get("benchmarks"), list) and "metadata" in document:
                    parts += guidellm(document)
                elif is_summary(document):
                    own = records.pop(file.path.with_name(records_name(file.path.name)), None)
                    parts.append(aiperf(document, own.documents if own else ()))
                elif {"duration", "completed", "request_throughput"} <= document.keys():
                    parts.append(serving(document))
                else:
                    raise BadInput(f"{place}: not a result that can be imported", hint=_HINT)
            except _DAMAGED as error:
                raise _damaged(error, place) from None
    for file in records.values():
        try:
            parts.append(aiperf({}, file.documents))
        except _DAMAGED as error:
            raise _damaged(error, str(file.path)) from None
    tools = {part.tool for part in parts}
    if len(tools) != 1:
        found = f"results of {' and '.join(sorted(tools))}" if tools else "no result"
        raise BadInput(f"{paths[0]}: {found}", hint="import the files of each tool for itself" if tools else _HINT)
    figures = [
        msgspec.structs.replace(figure, level=number) for number, part in enumerate(parts) for figure in part.figures
    ]
    tool = parts[0].tool
    names = [file.path.name for file in files]
    run = Run(
        name=name,
        started_at=min(part.started_at for part in parts),
        loadbench_version=__version__,
        simulated=False,
        complete=True,
        scenario={},
        environment={"measured_by": f"{tool} {parts[0].version}".strip()},
        models=[ModelStatus(model, "ok") for model in dict.fromkeys(part.level.model for part in parts)],
        levels=[part.level for part in parts],
        imported=Imported(
            tool=tool,
            version=parts[0].version,
            files={
                printable(file.path.name if names.count(file.path.name) == 1 else str(file.path)): file.digest
                for file in files
            },
            figures=figures,
            missing=list(dict.fromkeys(text for part in parts for text in part.missing)),
        ),
    )
    try:
        to_json(run)
    except (ValueError, OverflowError) as error:
        raise _damaged(error, str(paths[0])) from None
    return run


def _damaged(error: Exception, place: str) -> BadInput:
    return BadInput(f"{getattr(error, 'place', place)}: a damaged result: {error}", hint="export it again")


def _documents(path: Path, raw: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON file, or one of each line, with their places."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not UTF-8", hint=_HINT) from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    # Results that were appended have a line each.
    if len(lines) > 1 and all(line.startswith("{") and line.rstrip().endswith("}") for _, line in lines):
        found = [(f"{path}, line {number}", parse_json(line, path, number)) for number, line in lines]
    else:
        found = [(str(path), parse_json(text, path))]
    for place, document in found:
        if not isinstance(document, dict):
            raise BadInput(f"{place}: not a result that can be imported", hint=_HINT)
    return found
