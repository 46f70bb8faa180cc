"""Kills loadbench at random moments, and looks at what is left: `nox -s kills`, or `nox -s kills -- 40` for fewer.

Sweeps in one process and with workers, comparisons and capacity searches measure a server in this process, which knows
when each response was complete. Each is ended in one of these ways, most while it measures:

*   SIGKILL, SIGTERM, SIGHUP, or SIGINT once or twice, at a random moment;
*   SIGKILL from within, at one of its first writes, syncs and renames: in the moment of saving;
*   SIGKILL of one of its workers.

Then:

*   all of its processes end;
*   `loadbench report` reads what is there;
*   each level that was announced is in run.json, and every figure of it follows from the requests;
*   each response that was complete a second before a SIGKILL has its line, and with the other signals every one;
*   every fourth is continued, every second time by its folder alone. Half of these are ended once more first, with the
    same checks. Then it is what an undisturbed run is: complete, with every level once, those from before unchanged,
    and every figure as its requests say.
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

KILLS = 300
# Two at a time: more would measure how the machine shares its cores.
AT_ONCE = 2
RESUMED_EVERY = 4
MEASURING = 0.85
# On a machine that is busy with other things everything takes long; this is for a hang.
ENDS_WITHIN_S = 1200
# A worker hears of the end of its commands from a pipe, and ends a request or two later.
CHILDREN_END_WITHIN_S = 120
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
# How it is ended, and how often of ten.
ENDS = {"SIGKILL": 3, "SIGTERM": 2, "SIGHUP": 1, "SIGINT": 1, "SIGINT twice": 1, "SIGKILL as it saves": 2}
OF_WORKERS = {**ENDS, "SIGKILL of a worker": 2}
# Run by `python -c` with a number: it kills itself at that one of the calls that put something on disk.
AS_IT_SAVES = """
import itertools, os, signal, sys
at, calls = int(sys.argv.pop(1)), itertools.count(1)
def killing(real):
    def call(*arguments, **options):
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call
for name in ("write", "fsync", "replace", "ftruncate", "rename"):
    setattr(os, name, killing(getattr(os, name)))
from loadbench.cli import main
main()
"""
MOST_SAVES = 60
CONTINUED = {130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT}


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


@dataclass(frozen=True)
class End:
    """How a run is ended: so long after its start, or after its first level began."""

    way: str = ""
    after_s: float = 0.0
    from_begin: bool = False
    save: int = 0  # which write, sync or rename

    @classmethod
    def drawn(cls, rng: random.Random, ways: dict[str, int], *, begun_s: float, took_s: float) -> End:
        """Most while it measures, some while it starts; of a worker and twice only while it measures."""
        (way,) = rng.choices([*ways], [*ways.values()])
        from_begin = rng.random() < MEASURING or way.endswith(("worker", "twice"))
        after_s = rng.uniform(0, took_s - begun_s) if from_begin else rng.uniform(0, begun_s)
        return cls(way, after_s, from_begin, rng.randint(1, MOST_SAVES) if way.endswith("saves") else 0)

    def __str__(self) -> str:
        if self.save:
            return f"{self.way} for the {self.save}. time"
        return f"{self.way} {self.after_s:.2f} s after {'the first level began' if self.from_begin else 'its start'}"


@dataclass
class Killed:
    """One run and its end."""

    kind: str
    folder: Path  # where it ran
    servers: list[Server]
    command: list[str] = field(default_factory=list)
    lines: list[tuple[float, str]] = field(default_factory=list)  # of stderr, with the moment
    ended_at: float = 0.0  # by SIGKILL; what it had a second before must be there
    lost_at: float = 0.0  # when a worker was killed
    code: int | None = None
    took_s: float = 0.0
    begun: asyncio.Event = field(default_factory=asyncio.Event)  # its first level
    begun_s: float = 0.0
    left: list[str] = field(default_factory=list)  # its processes that did not end

    async def run(self, end: End, *, more: tuple[str, ...] = (), command: list[str] | None = None) -> None:
        """Run to the end, or until it is ended."""
        urls = [await server.serve() for server in self.servers] if not self.command else []
        self.command = self.command or [part.format(*urls) for part in KINDS[self.kind]]
        self.lines, self.begun, self.ended_at, self.lost_at = [], asyncio.Event(), 0.0, 0.0
        began = time.monotonic()
        by = [sys.executable, "-c", AS_IT_SAVES, str(end.save)] if end.save else COMMAND
        process = await asyncio.create_subprocess_exec(
            *by,
            *(command or self.command),
            *more,
            cwd=self.folder,
            env={**environment(), "XDG_STATE_HOME": str(self.folder)},
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

        def send(number: signal.Signals) -> None:
            with suppress(ProcessLookupError):
                process.send_signal(number)

        reading, ending = asyncio.create_task(read()), asyncio.create_task(process.wait())
        if end.from_begin:
            # It may also end without one.
            begins = asyncio.create_task(self.begun.wait())
            await asyncio.wait({begins, ending}, timeout=ENDS_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            begins.cancel()
        if end.way and not end.save:
            await asyncio.wait({ending}, timeout=end.after_s)
        if end.way.endswith("worker") and not ending.done():
            workers = [pid for pid in self.processes() if "engine.worker" in command_of(pid)]
            if workers:
                os.kill(workers[0], signal.SIGKILL)
                self.lost_at = time.monotonic()
        elif end.way and not end.save and not ending.done():
            send(signal.Signals[end.way.split()[0]])
            self.ended_at = time.monotonic() if end.way == "SIGKILL" else 0.0
            if end.way.endswith("twice"):
                await asyncio.wait({ending}, timeout=end.after_s % 0.5)
                send(signal.SIGINT)
                # What a server sends from now on may be cut.
                self.ended_at = time.monotonic() + 0.7
        await asyncio.wait({ending}, timeout=ENDS_WITHIN_S)
        if not ending.done():
            self.left.append(f"it hangs after {end}")
            send(signal.SIGKILL)
        self.code, self.took_s = await ending, time.monotonic() - began
        if not self.ended_at:
            self.ended_at = time.monotonic() + (0 if self.code == -signal.SIGKILL else 1)
        await reading
        until = time.monotonic() + CHILDREN_END_WITHIN_S
        while self.processes() and time.monotonic() < until:
            await asyncio.sleep(0.05)
        self.left += [f"a process is left: {command_of(pid)}" for pid in self.processes()]

    def processes(self) -> list[int]:
        """Those of this process's descendants that run in the folder; it adopts what its children leave behind."""
        found, waiting = [], [os.getpid()]
        while waiting:
            for file in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
                with suppress(OSError):
                    waiting += map(int, file.read_text().split())
                    found += [pid for pid in waiting if pid not in found]
        return [pid for pid in found if folder_of(pid) == self.folder]

    @property
    def run_folder(self) -> Path | None:
        """The only folder in results/."""
        found = sorted((self.folder / "results").glob("*"))
        return found[0] if found else None

    def runs(self) -> list[dict]:
        """Every run.json, and capacity.json at the end if there is one."""
        found = self.run_folder
        files = [] if found is None else [*sorted(found.rglob("run.json")), *found.glob("capacity.json")]
        return [json.loads(file.read_bytes()) for file in files]

    async def problems(self, counts: Counter[str], *, before: int = 0) -> list[str]:
        """What is wrong with what is left, where so many whole levels were there already."""
        found = self.run_folder
        begun = next((at for at, line in self.lines if " begins" in line), None)
        wrong, self.left = self.left, []
        counts["processes left, or hanging"] += len(wrong)
        said = [line for _, line in self.lines]
        wrong += [" / ".join(["a traceback", *said[at - 1 :]]) for at, line in enumerate(said) if "Traceback" in line][
            :1
        ]
        if found is None:
            counts["no folder yet"] += 1
            return wrong if begun is None else [*wrong, "a level began, and there is no folder"]
        report = await asyncio.create_subprocess_exec(
            *COMMAND,
            *("report", str(found)),
            cwd=self.folder,
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await report.communicate()
        if (report.returncode or not out.strip() or b"Traceback" in errors) and any(found.iterdir()):
            counts["folders that cannot be read"] += 1
            wrong.append(f"report: exit {report.returncode}: {errors.decode().strip()[:300]}")
        counts["empty folders"] += not any(found.iterdir())
        runs = [json.loads(file.read_bytes()) for file in sorted(found.rglob("run.json"))]
        kept = sum(len(run["levels"]) for run in runs)
        announced = before + sum(
            at < self.ended_at and re.match(r"(\[\d+/\d+\]|testing) .*: .* tok/s, TTFT", line) is not None
            for at, line in self.lines
        )
        counts["levels announced"] += announced
        if kept < announced:
            counts["levels lost"] += announced - kept
            wrong.append(f"{announced} levels were announced, and {kept} kept")
        logged = set()
        for file in found.rglob("requests*.jsonl"):
            for text in file.read_bytes().split(b"\n")[:-1]:
                line = json.loads(text)
                logged.add((line["url"], line["input_tokens"]))
        numbers = {number for _, number in logged}
        lost = 0
        for server in self.servers:
            # What a killed worker had not yet reported is counted in its level, and has no lines.
            due = {
                number
                for number, at in server.done.items()
                if begun is not None and begun < at < self.ended_at - 1 and not abs(at - self.lost_at) < 1
            }
            counts["responses"] += len(due)
            lost += len(due - numbers)
        counts["responses lost"] += lost
        if lost:
            wrong.append(f"{lost} responses of more than a second before the end have no line")
        for file in found.rglob("run.json"):
            differ = levels_that_differ(file.parent)
            counts["levels whose figures do not follow from their requests"] += len(differ)
            wrong += differ
        return wrong

    def problems_resumed(self, before: list[dict]) -> list[str]:
        """What is wrong after it was resumed and ended by itself."""
        found = self.run_folder
        assert found is not None
        wrong, self.left = self.left, []
        if self.code not in {0, 3, 4, 5}:
            wrong.append(f"resumed: exit {self.code}: {self.lines[-3:]}")
        folders = [file.parent for file in sorted(found.rglob("run.json")) if "interrupted" not in file.parts]
        runs = [json.loads((folder / "run.json").read_bytes()) for folder in folders]
        if not runs or not all(run["complete"] for run in runs):
            wrong.append("resumed: not complete")
        for folder in folders:
            wrong += [f"resumed: {one}" for one in levels_that_differ(folder)]
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
        for level in whole_levels(self.kind, before):
            # What later levels show may change its verdict.
            if not any(measured(level) == measured(one) for run in runs for one in run["levels"]):
                wrong.append("resumed: a whole level was measured again")
        return wrong


def whole_levels(kind: str, runs: list[dict]) -> list[dict]:
    """Those that are not measured again: of a comparison the levels of repeats that both sides have."""
    levels = []
    if kind == "compare":
        sides: dict[str, list[dict]] = {}
        for run in runs:
            sides.setdefault(run["name"][-1], []).append(run)
        runs = [
            run for pair in sides.values() if len(pair) == 2 and all(one["complete"] for one in pair) for run in pair
        ]
    for run in runs:
        for level in run.get("levels", ()):
            if level["interrupted"] and kind != "capacity":
                break
            levels.append(level)
    return levels


def measured(level: dict) -> dict:
    """A level without its verdict, and what is said of it."""
    return {key: value for key, value in level.items() if key not in {"verdict", "caveats"}}


def levels_that_differ(folder: Path) -> list[str]:
    """What of the levels in run.json does not follow from their requests, those of a level under way left out."""
    run = json.loads((folder / "run.json").read_bytes())
    of_level: dict[int, list[dict]] = {}
    log = folder / "requests.jsonl"
    for text in log.read_bytes().split(b"\n")[:-1] if log.exists() else ():
        one = json.loads(text)
        of_level.setdefault(one["level"], []).append(one)
    extra = [f"{folder.name}: requests of level {number}" for number in of_level if number >= len(run["levels"])]
    return (extra if run["complete"] else []) + [
        f"{folder.name}, level {number}: {difference}"
        for number, level in enumerate(run["levels"])
        for difference in recompute.level_differences(level, of_level.get(number, []))
    ]


def command_of(pid: int) -> str:
    """The command line of a process; empty for one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def folder_of(pid: int) -> Path | None:
    """Where a process runs; `None` for one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cwd").readlink()
    return None


async def one(
    index: int, seed: str, usual_s: dict[str, tuple[float, float]], counts: Counter[str], place: Path
) -> list[str]:
    """One kill; what is wrong."""
    rng = random.Random(f"{seed}/{index}")
    kind = list(KINDS)[index % len(KINDS)]
    begun_s, took_s = usual_s[kind]
    end = End.drawn(rng, OF_WORKERS if kind == "workers" else ENDS, begun_s=begun_s, took_s=took_s)
    folder = place / f"{index:03}-{kind}"
    folder.mkdir()
    killed = Killed(kind, folder, [Server() for _ in range(2 if kind == "compare" else 1)])
    await killed.run(end)
    counts[f"kills: {kind}"] += 1
    counts[f"kills: {end.way}"] += 1
    counts["kills that came after the end"] += killed.code not in CONTINUED and not killed.lost_at
    wrong = await killed.problems(counts)
    found, happened = killed.run_folder, [str(end)]
    if index // len(KINDS) % RESUMED_EVERY == 0 and killed.runs() and not wrong and killed.code in CONTINUED:
        before = killed.runs()
        alone = rng.random() < 0.5 and (kind != "compare" or (found / "b" / "01" / "run.json").exists())
        command, resume = [killed.command[0]] if alone else None, ("--resume", str(found))
        if rng.random() < 0.5:
            again = End.drawn(rng, ENDS, begun_s=begun_s, took_s=took_s)
            await killed.run(again, more=resume, command=command)
            counts["kills: of a run that was continued"] += 1
            wrong += await killed.problems(counts, before=len(whole_levels(kind, before)))
            happened.append(str(again))
        await killed.run(End(), more=resume, command=command)
        counts["continued to the end" + ", by the folder alone" * alone] += 1
        right = killed.problems_resumed(before)
        counts["continued and right"] += not right
        wrong += right
    return [f"kill {index}: {kind}, {', and then '.join(happened)}: {one} ({folder})" for one in wrong]


async def main(kills: int, seed: str) -> int:
    """All kills; the number of problems."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    place = Path(tempfile.mkdtemp(prefix="loadbench-kills-"))
    usual_s: dict[str, tuple[float, float]] = {}
    for kind in KINDS:
        (place / kind).mkdir()
        whole = Killed(kind, place / kind, [Server(), Server()])
        await whole.run(End())
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
    sys.stdout.write(f"{kills} kills, seed {seed}: {len(problems)} problems\n")
    sys.stdout.writelines(f"  {count:6} {name}\n" for name, count in sorted(counts.items()))
    sys.stdout.writelines(f"{line}\n" for line in problems)
    return len(problems)


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else KILLS
    sys.exit(min(1, asyncio.run(main(wanted, sys.argv[2] if len(sys.argv) > 2 else str(random.getrandbits(32))))))
