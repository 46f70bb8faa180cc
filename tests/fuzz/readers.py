"""Every reader of what comes from outside, as a function of bytes that may fail only with an error for its user.

`READERS` has what a server, a file or another program may send. Any exception but `LoadbenchError` is a bug, and so is
an input that takes seconds. `corpus/NAME/` has what a reader can read, to be changed, and inputs that once broke it;
`python -m tests.fuzz` adds to these.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from loadbench.analyze.compare.compare import compare
from loadbench.analyze.grid.in_folder import grid_in
from loadbench.analyze.imports.read import imported_run
from loadbench.analyze.level.by_prompt import by_prompt
from loadbench.analyze.level.fairness import fairness
from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.client.connection import Connection
from loadbench.core.errors import LoadbenchError
from loadbench.core.units import NS_PER_S
from loadbench.plan.data_sets import read_data_set
from loadbench.plan.judging import read_reply
from loadbench.plan.load import Phase
from loadbench.plan.models import read_models
from loadbench.plan.pattern import parse_pattern
from loadbench.plan.server_url import ServerUrl, normal_url, redirect_target, shown_url
from loadbench.plan.setting_types import JSON_OBJECTS
from loadbench.plan.sources import resolve
from loadbench.plan.trace_files import read_trace
from loadbench.record.histogram import Histogram
from loadbench.record.request import Request
from loadbench.report.by_prompt import by_prompt_document
from loadbench.report.by_user import by_user_document
from loadbench.report.capacities import capacities_document
from loadbench.report.capacity import capacity_document
from loadbench.report.formats import render, render_comparison, render_grid
from loadbench.report.grid import with_conclusion
from loadbench.report.hgrm import hgrm
from loadbench.report.render_text import render_text
from loadbench.report.tool_comparison import tool_comparison_document
from loadbench.results.capacity import FILE, SEVERAL_FILE, read_capacities, read_capacity
from loadbench.results.folder import contradictions_in, read_run
from loadbench.results.grid import GRID_FILE
from loadbench.results.hlog import hlog
from loadbench.results.quality import read_annotation, read_quality
from loadbench.results.requests import line, read_requests
from loadbench.results.run import to_json
from loadbench.results.saved import read_side
from loadbench.targets import catalogue
from loadbench.targets.context import listed_context
from loadbench.targets.error_hints import advice_for, known_error
from loadbench.targets.foundry_cli import first_object, from_table
from loadbench.targets.http_get import Response, parse_json
from loadbench.targets.model_list import entries_of, generates_text, has_more
from loadbench.targets.openai import Target, choose_models
from loadbench.targets.refusals import refusals
from loadbench.targets.scrape import parse_gauges, parse_histograms, parse_metrics, rise
from loadbench.wire.openai import Api, clean, error_text, quoted
from tests.building import a_level, a_run, a_sample
from tests.coverage.grids import a_grid
from tests.foreign_results import aiperf, aiperf_records, guidellm, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadbench.client.transport import HttpRequest
    from loadbench.results.run import Run

CORPUS = Path(__file__).parent / "corpus"
DATA = Path(__file__).parents[1] / "data"
_BODY = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8, "seed": 1})


@dataclass(frozen=True)
class Reader:
    """`read` takes one input; `seeds` makes those that are changed."""

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]] = list  # besides those in its folder


# What a server sends.


class _Sent(asyncio.Transport):
    """A socket that takes all that is written."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """None are needed."""

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: object) -> None:
        """It is gone."""

    def close(self) -> None:
        """Nothing is open."""

    abort = close


class _Clock:
    """Time since the response began, as a clock and as the one who stamps what arrives."""

    def __init__(self) -> None:
        self._began_ns = time.perf_counter_ns()

    def now_ns(self) -> int:
        return time.perf_counter_ns() - self._began_ns

    def arrived(self, sock: object) -> int:
        return self.now_ns()


class _Replying:
    """A transport whose server sends these bytes, in pieces of this size, over our own connection."""

    def __init__(self, data: bytes, piece: int, clock: _Clock) -> None:
        self._clock = clock
        self._pieces = [data[at : at + piece] for at in range(0, len(data), piece)]

    async def exchange(self, request: HttpRequest, sink: Any) -> None:
        connection = Connection(self._clock, None)
        connection.connection_made(_Sent())
        sink.connected(self._clock.now_ns(), reused=False, connect_ns=1)
        ended = connection.begin(request.body, sink)
        for piece in self._pieces:
            connection.get_buffer(-1)[: len(piece)] = piece
            if not connection.closed and not ended.done():
                connection.buffer_updated(len(piece))
        if not ended.done():
            connection.connection_lost(None)
        await ended


def _response(api: Api, data: bytes) -> None:
    """A response in pieces of several sizes is a sample like any other, which is recorded and judged."""
    for piece in (65_536, 7) if len(data) < 4096 else (65_536,):
        asyncio.run(sample_of(api, data, piece))


async def sample_of(api: Api, data: bytes, piece: int) -> None:
    clock = _Clock()
    client = Client(
        Endpoint(base_url="http://127.0.0.1:1/v1", model="m", api=api),
        _Replying(data, piece, clock),
        clock=clock,
        timeouts=Timeouts(total_ns=60 * NS_PER_S),
    )
    request = Request(number=0, phase=Phase.MEASURED, due_ns=0, max_tokens=8, keep_text=piece == 7)
    sample = await client.send(request, _BODY)
    assert sample.detail.isprintable()
    assert (sample.model or "").isprintable()
    advice_for(sample.detail)
    refusals(sample.detail, orjson.loads(_BODY))
    render(a_run(a_level([sample])), "text")


def _head(status: str = "200 OK", kind: str = "text/event-stream", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{more}\r\n".encode()


def _responses(*beginnings: str, kind: str = "text/event-stream") -> list[bytes]:
    bodies = [
        body.partition(b"\r\n\r\n")[2] if body.startswith(b"HTTP/") else body
        for begin in beginnings
        for path in sorted((DATA / "captures").glob(f"{begin}*.txt"))
        if len(body := path.read_bytes()) < 20_000
    ]
    framed = [b"%x\r\n%b\r\n0\r\nx-trailer: 1\r\n\r\n" % (len(body), body) for body in bodies]
    chunked = "transfer-encoding: chunked\r\n"
    return [
        *(_head(kind=kind) + body for body in bodies),
        *(_head(kind=kind, more=chunked) + body for body in framed),
        _head("500 Internal Server Error", "text/html") + b"<html><head><title>Oops</title></head></html>",
        _head("404 Not Found", "application/json") + b'{"error": {"message": "no such model", "code": 404}}',
        _head("307 Moved", more="location: //u:p@[::1/x\r\nretry-after: 1\r\n"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + _head(kind="application/json") + b'{"choices": [{"text": "x"}]}',
    ]


def _listing(data: bytes) -> None:
    """A list of models as `loadbench models` and the choice of a model read it."""
    document = parse_json(Response(200, {}, data))
    entries = entries_of(document) or []
    has_more(document)
    target = Target(base_url="http://127.0.0.1:1/v1", models=tuple(entry["id"] for entry in entries), listing=entries)
    for wanted in (("m",), ("all",), None):
        with suppress(LoadbenchError):
            choose_models(target, wanted)
    for entry in entries:
        generates_text(entry)
        listed_context(entry)
    sources = (
        catalogue.from_listing(entries, foundry=True),
        catalogue.from_catalogue(document),
        catalogue.from_ollama(document, document),
    )
    models = catalogue.with_loaded(catalogue.merged(*sources), [model.id for model in sources[0][:5]])
    catalogue.resolve("m", models)
    msgspec.json.encode(models)


def _metrics(data: bytes) -> None:
    text = data.decode(errors="replace")
    counted = parse_metrics(text) | parse_histograms(text)
    parse_gauges(text)
    rise(counted, counted)


def _words(data: bytes) -> None:
    """The words of an error, in each place that looks at them."""
    text = data.decode(errors="replace")
    for words in (error_text(data), clean(text), quoted(data)):
        assert words.isprintable()
        assert len(words) < 5000
        known_error(words)
        refusals(words, orjson.loads(_BODY))
    known_error(text)
    refusals(text, orjson.loads(_BODY))
    redirect_target("http://127.0.0.1:1/v1", clean(text))
    with suppress(ValueError):
        read_reply(text, ["helpful"])


def _output(data: bytes) -> None:
    text = data.decode(errors="replace")
    first_object(text)
    from_table(text)


# Files.

# What is computed from these may show that they are no results of ours.
RESULTS = frozenset({"run.json", "baseline.json", "requests.jsonl", "quality.json", FILE, SEVERAL_FILE, GRID_FILE})
_SUFFIXES = ("jsonl", "json", "csv", "txt")


def _file(name: str, read: Callable[[Path], object], data: bytes) -> None:
    """A file of this name with this content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        with contradictions_in(path) if name in RESULTS else nullcontext():
            read(path)


def _trace(path: Path) -> None:
    trace = read_trace.__wrapped__(path)
    assert len(trace) > 0


def _scenario(path: Path) -> None:
    scenario = resolve(flags={}, environment={}, file=path, command="sweep")
    orjson.dumps(scenario.effective(), default=str)


def _settings(data: bytes) -> None:
    """Texts as flags and variables have them: URLs, patterns, bodies."""
    text = data.decode(errors="replace")
    for read in (normal_url, parse_pattern, JSON_OBJECTS.read):
        with suppress(ValueError, OSError):
            value = read(text)
            if read is normal_url:
                ServerUrl.parse(value)
                shown_url(value)
    with suppress(LoadbenchError):
        Histogram.decode(text)


def _run(path: Path) -> None:
    run = read_run(path)
    for form in ("text", "markdown", "csv", "junit", "json"):
        render(run, form)
    with suppress(LoadbenchError):
        hgrm(run)
    for compared in ([run], [run, run]):
        comparison = compare(read_side([str(path)]), compared)
        for form in ("text", "markdown", "json"):
            render_comparison(comparison, form)


def _baseline(path: Path) -> None:
    runs = read_side([str(path)])
    compare(runs, runs)


def _requests(path: Path) -> None:
    run = _trial()
    for report in (
        lambda rows: by_prompt_document(run, by_prompt(rows)),
        lambda rows: by_user_document(run, fairness(rows)),
        *(partial(tool_comparison_document, run, tool) for tool in ("vllm", "guidellm", "aiperf", "loadgen")),
    ):
        with suppress(LoadbenchError):
            render_text(report(read_requests(path)))


def _import(path: Path) -> None:
    """As `loadbench import` does: what is saved is read again."""
    with contradictions_in(path):
        run = imported_run([path], name="x")
        for form in ("text", "markdown"):
            render(run, form)
        hlog(run, datetime.now(UTC))
    path.write_bytes(to_json(run))
    read_run(path)


def _foreign_results() -> list[bytes]:
    lines = [*aiperf_records(3, failed=1, warmup=1), *aiperf_records(1)]
    single = (serving(requests=5), serving(detailed=False), guidellm(), aiperf(requests=5))
    return [*map(orjson.dumps, single), b"\n".join(map(orjson.dumps, lines))]


def _capacity(path: Path) -> None:
    render_text(capacity_document(read_capacity(path.parent)))


def _capacities(path: Path) -> None:
    render_text(capacities_document(read_capacities(path.parent)))


def _grid(path: Path) -> None:
    grid, runs = grid_in(path.parent)
    for form in ("text", "markdown", "line", "junit"):
        render_grid(with_conclusion(grid), runs, form)


def _quality(path: Path) -> None:
    render(_trial(), "text", quality=read_quality(path.parent))


@cache
def _trial() -> Run:
    return a_run(a_level())


@cache
def saved_run() -> bytes:
    return to_json(a_run(a_level(a_sample(n, due_ns=n * NS_PER_S, persona="p") for n in range(60)), a_level()))


READERS: Mapping[str, Reader] = {
    "chat": Reader(partial(_response, Api.CHAT), partial(_responses, "vllm-n", "llamacpp-n", "hfserve-usage")),
    "completions": Reader(partial(_response, Api.COMPLETIONS), partial(_responses, "vllm-comp", "lcppython-comp")),
    "responses": Reader(partial(_response, Api.RESPONSES), partial(_responses, "llamacpp-responses")),
    "ollama": Reader(partial(_response, Api.OLLAMA)),
    "models-list": Reader(
        _listing,
        lambda: [
            *(path.read_bytes().partition(b"\r\n\r\n")[2] for path in sorted(DATA.glob("captures/*-models.txt"))),
            *(path.read_bytes() for path in sorted(DATA.glob("foundry/*.json"))),
        ],
    ),
    "metrics-page": Reader(_metrics),
    "error-words": Reader(_words),
    "cli-output": Reader(_output),
    **{f"prompts-{suffix}": Reader(partial(_file, f"a.{suffix}", read_data_set)) for suffix in _SUFFIXES},
    **{f"trace-{suffix}": Reader(partial(_file, f"a.{suffix}", _trace)) for suffix in ("jsonl", "csv")},
    **{f"scenario-{suffix}": Reader(partial(_file, f"a.{suffix}", _scenario)) for suffix in ("toml", "json")},
    "models-json": Reader(partial(_file, "models.json", read_models)),
    "settings": Reader(_settings),
    "run-json": Reader(partial(_file, "run.json", _run), lambda: [saved_run()]),
    "baseline": Reader(
        partial(_file, "baseline.json", _baseline),
        lambda: [b'{"schema": "loadbench.baseline/1", "runs": [' + saved_run() + b"]}"],
    ),
    "requests-jsonl": Reader(
        partial(_file, "requests.jsonl", _requests),
        lambda: [b"".join(line(a_sample(number), level=0, origin_ns=0) for number in range(30))],
    ),
    "import": Reader(partial(_file, "result.json", _import), _foreign_results),
    "capacity-json": Reader(partial(_file, FILE, _capacity)),
    "capacities-json": Reader(partial(_file, SEVERAL_FILE, _capacities)),
    "grid-json": Reader(partial(_file, GRID_FILE, _grid), lambda: [to_json(a_grid(["1", "2"]))]),
    "annotation-json": Reader(partial(_file, "annotation.json", read_annotation)),
    "quality-json": Reader(partial(_file, "quality.json", _quality)),
}
