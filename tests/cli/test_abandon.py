"""Users who give up, on the command line and real sockets: against servers that stop when a client leaves, and not."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from loadbench.sim.process import SimProcess
from tests.cli.running import loadbench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

TOKENS = 40
_PACE_S = 0.02
_TOKEN = b'data: {"choices":[{"delta":{"content":"x"}}],"model":"m"}\n\n'
_END = (
    b'data: {"choices":[{"delta":{},"finish_reason":"length"}],"model":"m"}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":%d}}\n\ndata: [DONE]\n\n'
)


class PacedServer:
    """A token every 20 ms for everybody, and vLLM's counter of them; `stops`: not for those who have left."""

    def __init__(self, *, stops: bool, counter: str) -> None:
        self.stops, self.counter = stops, counter
        self.generated = self.left = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                line, _, rest = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
                length = [field.split(b":")[1] for field in rest.lower().split(b"\r\n") if b"content-length" in field]
                body = json.loads(await reader.readexactly(int(length[0]))) if length else {}
                if line.startswith(b"GET"):
                    self._document(writer, page=b"/metrics" in line)
                    continue
                await self._respond(reader, writer, tokens=body["max_tokens"])
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _document(self, writer: asyncio.StreamWriter, *, page: bool) -> None:
        text = '{"data":[{"id":"m"}]}'
        if page:
            text = f"# TYPE {self.counter} counter\n{self.counter} {self.generated}\n" if self.counter else "# none\n"
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {len(text)}\r\n\r\n"
        writer.write((head + text).encode())

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, tokens: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        begun_s = time.monotonic()
        gone = False
        for number in range(tokens):
            await asyncio.sleep(max(0.0, begun_s + (number + 1) * _PACE_S - time.monotonic()))
            # A close, or a reset where tokens had arrived that the client did not read any more.
            if not gone and (reader.at_eof() or reader.exception() is not None):
                gone = True
                self.left += 1
            if gone and self.stops:
                raise ConnectionResetError
            self.generated += 1
            if not gone:
                writer.write(b"%x\r\n%b\r\n" % (len(_TOKEN), _TOKEN))
        end = _END % tokens
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))


@contextmanager
def paced(*, stops: bool, counter: str = "vllm:generation_tokens_total") -> Iterator[PacedServer]:
    """Serve in a thread of its own."""
    server = PacedServer(stops=stops, counter=counter)
    ready, over = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def listen() -> None:
        loops.append(asyncio.get_running_loop())
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await over.wait()
        listener.close()

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join(10)


def swept(folder: Path, *arguments: str) -> tuple[dict[str, Any], list[dict[str, Any]], Any]:
    """A sweep to its end: its first level, the lines of its requests, and the process."""
    done = loadbench("sweep", "--telemetry", "off", "--out", ".", "--quiet", *arguments, cwd=folder)
    (kept,) = (path.parent for path in folder.rglob("run.json"))
    run = json.loads((kept / "run.json").read_text())
    lines = [json.loads(line) for line in (kept / "requests.jsonl").read_text().splitlines()]
    return run["levels"][0], lines, done


SHORT = ("--users", "12", "--duration", "2500ms", "--warm-up", "500ms", "--max-tokens", str(TOKENS), "--prompt", "Hi")


@pytest.mark.parametrize(("stops", "word", "went_on"), [(True, "stopped", False), (False, "went on", True)])
def test_what_the_server_did_is_told_by_its_counter(tmp_path, stops, word, went_on):
    """40 tokens in 800 ms, of which users who leave get about 15: the rest was generated, or it was not."""
    with paced(stops=stops) as server:
        level, lines, done = swept(tmp_path, "--url", server.url, *SHORT, "--abandon", "50%@320ms")
    gave_up = [line for line in lines if line["outcome"] == "gave_up"]
    after = level["gave_up"]["server"]
    assert server.left == len(gave_up) > 10
    assert after["went_on"] is went_on, after
    assert after["received"] == sum(line["output_tokens"] or 0 for line in lines)
    assert after["counter"] == "vllm:generation_tokens_total"
    assert after["counted"] == level["server"][after["counter"]]
    to_come = sum(TOKENS - (line["output_tokens"] or 0) for line in gave_up)
    assert after["remaining"] == to_come
    # The last to leave are still being served when the counter is read.
    assert (0.6 * to_come < after["unread"] <= to_come) if went_on else after["unread"] <= 3 * len(gave_up)
    assert f"by its counter: users=12 {word} (" in done.stdout
    assert ("generated_unread" in {caveat["code"] for caveat in level["caveats"]}) is went_on
    for line in gave_up:
        assert line["patience_ns"] == 320_000_000
        assert 320_000_000 <= line["end_ns"] - line["due_ns"] < 800_000_000
        assert line["detail"] == "no complete response within 320ms"
        assert line["finish_reason"] is None


def test_without_counters_nothing_is_claimed(tmp_path):
    """A server that has none, as most proxies."""
    with paced(stops=False, counter="") as server:
        level, _, done = swept(tmp_path, "--url", server.url, *SHORT, "--abandon", "50%@320ms")
    assert level["gave_up"]["server"] is None
    assert "by its counter: users=12 unknown" in done.stdout


def test_a_connection_that_was_given_up_is_not_used_again(tmp_path):
    """The next request of that user has a new one, whose set-up is told of; the others keep theirs."""
    with SimProcess("slot-server") as server:
        _, lines, _ = swept(tmp_path, "--url", server.url, *SHORT, "--workers", "1", "--abandon", "30%@250ms")
    ended = {line["outcome"] for line in lines}
    assert ended == {"ok", "gave_up"}
    gone = sum(line["outcome"] == "gave_up" for line in lines)
    # A user of a client that was held up may give up before there is a connection.
    connected = [line for line in lines if line["reused"] is not None]
    fresh = sum(not line["reused"] for line in connected)
    assert 0 < fresh <= 12 + gone
    assert all((line["connect_ns"] is None) is line["reused"] for line in connected)


def test_the_same_users_give_up_on_two_workers(tmp_path):
    """By number, whichever process sends the request."""
    impatient = []
    for workers in ("1", "2"):
        folder = tmp_path / workers
        folder.mkdir()
        with SimProcess("slot-server") as server:
            flags = ("--users", "6", "--requests", "90", "--warm-up", "0s", "--max-tokens", "40", "--workers", workers)
            level, lines, _ = swept(folder, "--url", server.url, *flags, "--abandon", "40%@120ms", "--prompt", "Hi")
        assert level["outcomes"].keys() == {"ok", "gave_up"}
        assert sum(level["outcomes"].values()) == 90
        assert level["gave_up"]["impatient"] == sum("patience_ns" in line for line in lines)
        impatient.append({line["number"]: "patience_ns" in line for line in lines})
    one, two = impatient
    both = one.keys() & two.keys()
    assert len(both) > 60
    assert {number: one[number] for number in both} == {number: two[number] for number in both}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sweep", "--abandon", "0%@2s"), "--abandon: found '0%@2s', want a share above 0%"),
        (("sweep", "--abandon", "150%@2s"), "--abandon: found '150%@2s', want a share above 0%"),
        (("sweep", "--abandon", "5%"), "as in 5%@2s or 5%@first:2s"),
        (("sweep", "--abandon", "5%@soon"), "'soon' is not a duration"),
        (("workshop", "--abandon", "5%@2s"), "--abandon: the workshop's benchmark is one user"),
        (("score", "stub", "--abandon", "5%@2s"), "--abandon: each response is collected once, without load"),
        (
            ("capacity", "--slo", "e2e_p95<3s", "--abandon", "100%@2s"),
            "--abandon: all users would give up before e2e_p95<3s can be decided",
        ),
        (("capacity", "--slo", "tpot_p95<1s", "--abandon", "100%@2s"), "before tpot_p95<1s can be decided"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path, arguments, message):
    """With its place, and the remedy."""
    done = loadbench(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_scenario_and_a_variable_set_it(tmp_path):
    """The same text, with its origin; the plan shows it."""
    (tmp_path / "s.toml").write_text('[load]\nusers = [1]\nabandon = "5%@first:2s"\n')
    done = loadbench("sweep", "s.toml", "--dry-run", "--verbose", cwd=tmp_path)
    assert "load.abandon" in done.stdout
    assert "5%@first:2s" in done.stdout
    done = loadbench("sweep", "--dry-run", "--verbose", cwd=tmp_path, LOADBENCH_ABANDON="7%@3s")
    assert "7%@3s" in done.stdout
    assert "LOADBENCH_ABANDON" in done.stdout
