"""Kills loadbench at random moments, and looks at what is left: `nox -s kills`, or `nox -s kills -- 40` for fewer.

Sweeps in one process and with workers, comparisons and capacity searches measure a server in this process, which knows
when each response was complete. Each is killed with SIGKILL or SIGTERM. Then:

*   no process of it is left;
*   `loadbench report` reads what is there;
*   each level that was announced is in run.json;
*   each response that was complete a second before a SIGKILL has its line, and with SIGTERM every one;
*   some are resumed, and are then what an undisturbed run is: complete, with every level once, and every figure follows
    from the requests.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests import recompute
from tests.cli.running import COMMAND, environment
from tests.cli.typed import typed

KILLS = 300
# Two at a time: more would measure how the machine shares its cores.
AT_ONCE = 2
RESUMED_EVERY = 4
MEASURING = 0.85
# On a machine that is busy with other things everything takes long; this is for a hang.
ENDS_WITHIN_S = 300
TOKENS = 5
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
SHORT = ("--max-tokens", str(TOKENS), "--prompt", "Hi", "--drain", "3s")
KINDS = {
    "sweep": ("sweep", "--url", "{0}", "--users", "1,2,3", "--duration", "800ms", "--warm-up", "200ms", *SHORT),
    "compare": (
        *("compare", "{0}", "{1}", "--users", "1,3", "--duration", "400ms", "--warm-up", "100ms", "--settle", "0s"),
        *("--repeats", "2", *SHORT),
    ),
    "capacity": (
        *("capacity", "--url", "{0}", "--slo", "e2e_p90<5s", "--at-most", "8", "--budget", "5s", "--think", "50ms"),
        *("--no-curve", *SHORT),
    ),
}
KINDS["workers"] = (*KINDS["sweep"], "--workers", "2")


class Server:
    """Answers chats with a few tokens over 60 ms; the number of each is its count of prompt tokens."""

    def __init__(self) -> None:
        self.done: dict[int, float] = {}
        self._count = 0

    async def serve(self) -> str:
        """Start; returns the URL."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                await reader.readexactly(int(length[1]) if length else 0)
                if head.startswith(b"POST"):
                    await self._answer(writer)
                else:
                    body = b'{"object": "list", "data": [{"id": "m"}]}'
                    writer.write(HEAD % (b"application/json", len(body), body))
                    await writer.drain()
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        number = self._count
        writer.write(STREAM)
        for token in range(TOKENS):
            last = token == TOKENS - 1
            await asyncio.sleep(0.06 / TOKENS)
            choice = {"index": 0, "delta": {"content": " a"}, "finish_reason": "stop" if last else None}
            self._event(writer, json.dumps({"model": "m", "choices": [choice]}))
        usage = {"prompt_tokens": number, "completion_tokens": TOKENS, "total_tokens": number + TOKENS}
        self._event(writer, json.dumps({"model": "m", "choices": [], "usage": usage}))
        self._event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        self.done[number] = time.monotonic()

    @staticmethod
    def _event(writer: asyncio.StreamWriter, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))


@dataclass
class Killed:
    """One run and its end."""

    kind: str
    folder: Path  # where it ran
    servers: list[Server]
    command: list[str] = field(default_factory=list)
    lines: list[tuple[float, str]] = field(default_factory=list)  # of stderr, with the moment
    ended_at: float = 0.0
    code: int | None = None
    took_s: float = 0.0
    begun: asyncio.Event = field(default_factory=asyncio.Event)  # its first level
    begun_s: float = 0.0

    async def run(
        self,
        *,
        kill_after_s: float | None = None,
        from_begin: bool = False,
        number: int = signal.SIGKILL,
        more: tuple = (),
    ) -> None:
        """Run to the end, or until it is killed, so long after its start or after its first level began."""
        urls = [await server.serve() for server in self.servers] if not self.command else []
        self.command = self.command or [part.format(*urls) for part in KINDS[self.kind]]
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *self.command,
            *more,
            cwd=self.folder,
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )

        async def read() -> None:
            assert process.stderr is not None
            async for line in process.stderr:
                self.lines.append((time.monotonic(), line.decode().rstrip()))
                if b" begins" in line and not self.begun.is_set():
                    self.begun_s = time.monotonic() - began
                    self.begun.set()

        reading = asyncio.create_task(read())
        if from_begin:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.begun.wait(), ENDS_WITHIN_S)
        try:
            await asyncio.wait_for(process.wait(), ENDS_WITHIN_S if kill_after_s is None else kill_after_s)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.send_signal(number if kill_after_s is not None else signal.SIGKILL)
            self.ended_at = time.monotonic()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), ENDS_WITHIN_S)
        if number != signal.SIGKILL or not self.ended_at:
            self.ended_at = time.monotonic() + 1
        await reading
        self.code, self.took_s = process.returncode, time.monotonic() - began

    @property
    def run_folder(self) -> Path | None:
        """The only folder in results/."""
        found = sorted((self.folder / "results").glob("*"))
        return found[0] if found else None

    def problems(self, counts: Counter[str]) -> list[str]:
        """What is wrong with what is left."""
        found = self.run_folder
        begun = next((at for at, line in self.lines if line.endswith(" begins") or " begins" in line), None)
        if found is None:
            counts["no folder yet"] += 1
            return [] if begun is None else ["a level began, and there is no folder"]
        wrong = []
        report = typed("report", str(found), cwd=self.folder)
        if report.returncode or not report.stdout.strip() or "Traceback" in report.stderr:
            wrong.append(f"report: exit {report.returncode}: {report.stderr.strip()[:300]}")
        runs = [json.loads(file.read_bytes()) for file in sorted(found.rglob("run.json"))]
        kept = sum(len(run["levels"]) for run in runs)
        announced = sum(
            at < self.ended_at and re.match(r"(\[\d+/\d+\]|testing) .*: .* tok/s, TTFT", line) is not None
            for at, line in self.lines
        )
        counts["levels announced"] += announced
        counts["levels kept"] += kept
        if kept < announced:
            wrong.append(f"{announced} levels were announced, and {kept} kept")
        logged = set()
        for file in found.rglob("requests*.jsonl"):
            for text in file.read_bytes().split(b"\n")[:-1]:
                line = json.loads(text)
                logged.add((line["url"], line["input_tokens"]))
        numbers = {number for _, number in logged}
        lost = 0
        for server in self.servers:
            due = {number for number, at in server.done.items() if begun is not None and begun < at < self.ended_at - 1}
            counts["responses"] += len(due)
            lost += len(due - numbers)
        counts["responses lost"] += lost
        if lost:
            wrong.append(f"{lost} responses of more than a second before the end have no line")
        return wrong

    def problems_resumed(self, before: list[dict]) -> list[str]:
        """What is wrong after it was resumed and ended by itself."""
        found = self.run_folder
        assert found is not None
        wrong = []
        if self.code not in {0, 3, 4, 5}:
            wrong.append(f"resumed: exit {self.code}: {self.lines[-1:]}")
        folders = [file.parent for file in sorted(found.rglob("run.json")) if "interrupted" not in file.parts]
        runs = [json.loads((folder / "run.json").read_bytes()) for folder in folders]
        if not runs or not all(run["complete"] for run in runs):
            wrong.append("resumed: not complete")
        for folder in folders:
            wrong += [f"resumed: {one}" for one in recompute.differences(folder)]
        loads = [[level["load"]["users"] for level in run["levels"]] for run in runs]
        if self.kind in {"sweep", "workers"} and loads != [[1, 2, 3]]:
            wrong.append(f"resumed: levels {loads}")
        if self.kind == "compare" and (loads != [[1, 3]] * 4 or not (found / "compare.json").is_file()):
            wrong.append(f"resumed: levels {loads}")
        if self.kind == "capacity":
            now = json.loads((found / "capacity.json").read_bytes())
            probes = before[-1].get("probes", []) if before else []
            if not now["complete"] or now["probes"][: len(probes)] != probes:
                wrong.append("resumed: the search is not complete, or lost probes")
        # Whole levels are not measured again.
        for run in before:
            for level in run.get("levels", ()):
                is_whole = not level["interrupted"] or self.kind == "capacity"
                if is_whole and run.get("complete", True) and not any(level in one["levels"] for one in runs):
                    wrong.append("resumed: a whole level was measured again")
        return wrong


def children() -> list[int]:
    """All that this process started, directly or not: it adopts what its children leave behind."""
    found, waiting = [], [os.getpid()]
    while waiting:
        for file in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with suppress(OSError):
                pids = [int(pid) for pid in file.read_text().split()]
                found += pids
                waiting += pids
    return found


def left_over() -> list[str]:
    """The commands of processes that do not end by themselves."""
    ends = time.monotonic() + 10
    while children() and time.monotonic() < ends:
        time.sleep(0.1)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    return [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in children()]


async def one(
    index: int, seed: str, usual_s: dict[str, tuple[float, float]], counts: Counter[str], place: Path
) -> list[str]:
    """One kill; what is wrong."""
    rng = random.Random(f"{seed}/{index}")
    kind = list(KINDS)[index % len(KINDS)]
    number = rng.choice([signal.SIGKILL, signal.SIGTERM])
    # Most while it measures, some while it starts.
    from_begin, (begun_s, took_s) = rng.random() < MEASURING, usual_s[kind]
    after_s = rng.uniform(0, took_s - begun_s) if from_begin else rng.uniform(0, begun_s)
    folder = place / f"{index:03}-{kind}"
    folder.mkdir()
    killed = Killed(kind, folder, [Server() for _ in range(2 if kind == "compare" else 1)])
    await killed.run(kill_after_s=after_s, from_begin=from_begin, number=number)
    counts[f"{kind}, {signal.Signals(number).name}"] += 1
    counts["ended before"] += killed.code not in {-number, 130}
    wrong = killed.problems(counts)
    found = killed.run_folder
    files = [] if found is None else sorted(found.rglob("run.json"))
    if index // len(KINDS) % RESUMED_EVERY == 0 and files and not wrong and killed.code in {-number, 130}:
        before = [json.loads(file.read_bytes()) for file in files]
        if kind == "capacity" and (found / "capacity.json").exists():
            before.append(json.loads((found / "capacity.json").read_bytes()))
        killed.ended_at, killed.lines = 0.0, []
        await killed.run(more=("--resume", str(found)))
        counts["resumed"] += 1
        wrong += killed.problems_resumed(before)
        counts["resumed right"] += not wrong
    what = f"kill {index}: {kind}, {signal.Signals(number).name} {after_s:.2f} s after " + (
        "the first level began" if from_begin else "its start"
    )
    return [f"{what}: {one} ({folder})" for one in wrong]


async def main(kills: int, seed: str) -> int:
    """All kills; the number of problems."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    place = Path(tempfile.mkdtemp(prefix="loadbench-kills-"))
    usual_s: dict[str, tuple[float, float]] = {}
    for kind in KINDS:
        (place / kind).mkdir()
        whole = Killed(kind, place / kind, [Server(), Server()])
        await whole.run()
        usual_s[kind] = whole.begun_s, whole.took_s
        if whole.code not in {0, 4, 5}:
            sys.stderr.write(f"{kind} does not run: exit {whole.code}: {whole.lines[-3:]}\n")
            return 1
    sys.stderr.write(f"undisturbed: {', '.join(f'{kind} {took:.1f} s' for kind, (_, took) in usual_s.items())}\n")

    counts: Counter[str] = Counter()
    problems: list[str] = []
    indices = iter(range(kills))

    async def work() -> None:
        for index in indices:
            wrong = await one(index, seed, usual_s, counts, place)
            problems.extend(wrong)
            sys.stderr.writelines(f"{line}\n" for line in wrong)
            if index % 20 == 19:
                so_far = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
                sys.stderr.write(f"{index + 1} of {kills}: {so_far}; {len(problems)} problems\n")

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    left = await asyncio.to_thread(left_over)
    problems += [f"a process is left: {command}" for command in left]
    counts["processes left"] = len(left)
    sys.stdout.write(f"{kills} kills, seed {seed}: {len(problems)} problems\n")
    sys.stdout.writelines(f"  {count:6} {name}\n" for name, count in sorted(counts.items()))
    sys.stdout.writelines(f"{line}\n" for line in problems)
    return len(problems)


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    sys.exit(min(1, asyncio.run(main(wanted, sys.argv[2] if len(sys.argv) > 2 else str(random.getrandbits(32))))))
