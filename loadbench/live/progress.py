"""What a run says on stderr while it goes on.

On a terminal a few lines are drawn again four times a second, below the lines that stay, one of which ends each level:

    [3/6] users=8 · measuring 0:12 of 0:30 · qwen2.5:3b
    ████████████░░░░░░░░░░░░░ 48 % · 1:45 left · 1:37 so far
    512 tok/s ▂▃▅▆▇▇▇▆ · failed 2 (1 timeout_idle, 1 http_error) · in flight 8 · done 120
    TTFT p50 120 ms p95 310 ms · TPOT p50 21.3 ms · 112 measured
    load generator: ok · late reads 0 % · lag p99 0.3 ms

Elsewhere (a pipe, a log, `TERM=dumb`, --no-live) a plain line comes every ten seconds. A search has the range so far
and the most that is left of its budget, a comparison the side and the repeat.

The load runs in the same event loop. So a frame reads counts and quantiles that are there anyway, some of them once a
second, and its work does not grow with the streams; if a frame takes long all the same, the next one comes later. If
the stream is closed, nothing more is written: a measurement does not end because its progress cannot be shown.
"""

from __future__ import annotations

import io
import signal
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Self, TextIO

from loadbench.core.units import NS_PER_S
from loadbench.live.screen import BOLD, DIM, RED, YELLOW, Part, Screen, fitted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType, TracebackType

    from loadbench.engine.observers import RunningLevel
    from loadbench.live.time_left import Left, RunTime
    from loadbench.record.recorder import LevelRecording, SoFar
    from loadbench.results.run import LevelResult

_TERMINAL_PERIOD_S, _PLAIN_PERIOD_S = 0.25, 10.0
# A stage before or between the levels that takes this long has its plain line at once.
_LONG_STAGE_S = 3.0
# Of a core, what frames may take at most.
_MOST_SHARE = 0.01
# From one look at what has to be counted to the next; a bar of the sparkline is as long.
_COUNTED_EVERY_NS = NS_PER_S
_BARS = "▁▂▃▄▅▆▇█"
# Columns from which on there is room for what is less important.
_WIDE = 60
# The kinds of failures that a line has room for.
_MOST_KINDS = 3


class _Counted(NamedTuple):
    """What is read once a second."""

    at_ns: int
    tokens: int
    so_far: SoFar
    lag_ns: int | None
    left: Left | None


class Progress:
    """Writes progress to `stream`; `levels` is the number of levels in the run, `None` if nobody knows it.

    Enter it for as long as something may be shown: then what others print on stderr goes above the frame, and the
    terminal is left as it was, however the run ends.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        levels: int | None,
        quiet: bool = False,
        live: bool = True,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen = Screen(stream, is_terminal=live and not quiet and stream.isatty())
        self._stream = stream
        self._levels = levels
        self._quiet = quiet
        self._now_s = now_s
        self._began_s = now_s()
        self._level: RunningLevel | None = None
        self._standing: Callable[[], Sequence[str]] | None = None
        self._time: RunTime | None = None
        self._head = self._model = self._where = self._part = ""
        self._number, self._thinks = 0, False
        self._stage, self._stage_began_s, self._is_stage_said = "", now_s(), True
        self._interrupted = ""
        self._counted: _Counted | None = None
        self._rates: deque[float] = deque(maxlen=120)
        self._stderr: TextIO | None = None
        self._on_continue: signal.Handlers | Callable[[int, FrameType | None], object] | int | None = None

    def __enter__(self) -> Self:
        if self._screen.is_terminal:
            self._stderr, sys.stderr = sys.stderr, _Above(self._screen, self._stream)
            if sys.platform != "win32" and threading.current_thread() is threading.main_thread():
                # After Ctrl-Z and fg the shell's lines are where the frame was.
                self._on_continue = signal.signal(signal.SIGCONT, lambda _number, _frame: self._screen.fresh())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Show no more; what is on the terminal is what stays."""
        self._level, self._stage = None, ""
        if self._stderr is not None:
            sys.stderr.flush()
            sys.stderr, self._stderr = self._stderr, None
            if sys.platform != "win32" and self._on_continue is not None:
                signal.signal(signal.SIGCONT, self._on_continue)
        if not self._quiet:
            self._screen.erase()

    # What is told.

    def expect(
        self,
        levels: int | None,
        *,
        standing: Callable[[], Sequence[str]] | None = None,
        think: bool = False,
        time_left: RunTime | None = None,
    ) -> None:
        """Set the number of levels in the run, and what knows how long they take. For a search, whose levels nobody
        knows, `standing` says where it is, and whether users `think` in its probes: its other levels are none."""
        self._levels, self._standing, self._time, self._thinks = levels, standing, time_left, think

    def doing(self, text: str) -> None:
        """Say what happens now, before or between levels: nothing that stays. The time is since this began, whatever is
        said meanwhile in parentheses at the end."""
        if text.partition(" (")[0] != self._stage.partition(" (")[0]:
            self._stage_began_s, self._is_stage_said = self._now_s(), False
        self._stage = text
        self._draw()

    def part_begins(self, part: str, text: str) -> None:
        """One of several runs of the command begins: `part` stands before its levels, and `text` stays."""
        self._part = part
        self.say(text)

    def responded(self, model: str, response_ns: int) -> None:
        """A model has responded with no other load, in so long."""
        if self._time is not None:
            self._time.responded(model, response_ns)

    def model_failed(self, model: str) -> None:
        """A model cannot be tested."""
        if self._time is not None:
            self._time.model_failed(model)

    def level_begins(self, level: RunningLevel, model: str, number: int, where: str = "") -> None:
        """Show this level from now on; `where` has the side of a comparison and the repeat."""
        self._level, self._number, self._model, self._where = level, number, model, where
        self._stage, self._counted = "", None
        self._rates.clear()
        total = "" if self._levels is None else f"/{self._levels}"
        is_probe = not self._thinks or bool(getattr(level.load, "think", None))
        head = f"probe at {level.label}" if is_probe else f"without think time, {level.label}"
        self._head = f"[{number + 1}{total}] {level.label}" if self._standing is None else head
        self._head = f"{self._part} {self._head}" if self._part else self._head
        if self._time is not None:
            from loadbench.live.time_left import PlannedLevel  # noqa: PLC0415 - it is there by now

            self._time.level_begins(PlannedLevel(where[:1] or model, level.load), level.begin_ns)
        if not self._screen.is_terminal:
            self.say(f"{self._head} of {self._model}{f' ({where})' if where else ''} begins")

    def level_ended(
        self, text: str, recording: LevelRecording | None = None, result: LevelResult | None = None
    ) -> None:
        """The level is over; `text` says how it went, and so does `result` where a line must be short."""
        self._level = None
        if self._time is not None and recording is not None:
            self._time.level_ended(recording)
        self._stage = "between two levels" * self._screen.is_terminal
        self._stage_began_s = self._now_s()
        if self._screen.is_terminal and result is not None and not self._quiet:
            columns = self._screen.size[0] - 1
            # Where it is narrow, the figures are worth more than which of the levels it was.
            head = self._head if columns >= _WIDE else result.load.label
            parts = fitted(_finished(head, self._where, result), columns)
            self._screen.print_as_it_is(self._screen.line(parts) + "\n")
        else:
            self.say(f"{self._head}: {text}")

    def interrupted(self, text: str) -> None:
        """The user ends the run: say so, and that the results are kept."""
        self._interrupted = "stopping: results are kept"
        self.say(text)

    def say(self, text: str) -> None:
        """Print a line that stays; where little is wanted, only an error."""
        if not self._quiet or text.startswith("error: "):
            self._screen.print(text)

    # What is shown.

    async def run(self) -> None:
        """Keep it up to date until cancelled."""
        import anyio  # noqa: PLC0415 - the first word does not wait for it

        since_s, period_s = 0.0, _TERMINAL_PERIOD_S
        while not self._quiet and not self._screen.is_closed:
            period_s = period_s if self._screen.is_terminal else 1.0
            await anyio.sleep(period_s)
            if self._screen.is_terminal:
                # CPU time: while other programs have the core, frames must not become rare.
                began_s = time.thread_time()
                self._draw()
                period_s = max(_TERMINAL_PERIOD_S, (time.thread_time() - began_s) / _MOST_SHARE)
                continue
            since_s += period_s
            if self._level is None:
                lasts_s = self._now_s() - self._stage_began_s
                if self._stage and (
                    since_s >= _PLAIN_PERIOD_S or (lasts_s >= _LONG_STAGE_S and not self._is_stage_said)
                ):
                    self._is_stage_said, since_s = True, 0.0
                    self.say(f"{self._stage}: {_clock(round(lasts_s * NS_PER_S))}")
            elif since_s >= _PLAIN_PERIOD_S:
                since_s = 0.0
                self.say(self.line(self._level))

    def _draw(self) -> None:
        if self._screen.is_terminal and not self._quiet:
            columns, lines = self._screen.size
            # A line as wide as the terminal would put the cursor in a place that terminals do not agree on.
            frame = [fitted(parts, columns - 1) for parts in self.frame(columns - 1) if parts]
            self._screen.draw(frame[: lines - 1])

    def frame(self, columns: int) -> list[list[Part]]:
        """The lines as they stand now, each in parts, the most important ones first."""
        level, head = self._level, [Part(self._head, BOLD)]
        if level is None:
            lasts_ns = round((self._now_s() - self._stage_began_s) * NS_PER_S)
            stage, _, why = (self._interrupted or self._stage or "starting").partition(" (")
            parts = [Part(stage, BOLD), Part(_clock(lasts_ns)), *[Part(why.removesuffix(")"))] * bool(why)]
            return [parts, self._whole(columns)]
        counted = self._look(level)
        if self._interrupted:
            waits = f"{self._interrupted}; waiting for {level.in_flight} in flight"
            head = [Part(waits, YELLOW), Part("Ctrl-C again cancels them"), *head]
        else:
            head += [Part(self._where)] * bool(self._where) + [Part(_phase(level, self._waits(level)))]

        # How fast it goes, and what goes wrong.
        since_s = max(1e-9, (counted.at_ns - level.begin_ns) / NS_PER_S)
        now = self._rates[-1] if self._rates else counted.tokens / since_s
        bars = list(self._rates)[-min(40, columns // 4) :]
        highest = max(bars, default=0.0)
        spark = "".join(_BARS[min(7, int(8 * rate / highest))] if highest else _BARS[0] for rate in bars)
        kinds = sorted(level.failures.items(), key=lambda item: -item[1])
        named = ", ".join(f"{count} {kind}" for kind, count in kinds[:_MOST_KINDS]) + ", …" * (len(kinds) > _MOST_KINDS)
        rates = [Part(f"{_rate(now)} tok/s {spark}".rstrip())]
        counts = [Part(f"in flight {level.in_flight}"), Part(f"done {level.done}")]
        if level.failed:
            rates += [Part(f"failed {level.failed}", RED)]
            counts += [Part(named, RED)]
        if level.gave_up:
            counts.append(Part(f"gave up {level.gave_up}"))

        # What is measured, and whether the load generator keeps up.
        so_far, figures = counted.so_far, []
        if so_far.requests:
            figures.append(Part(f"TTFT p50 {_ms(so_far.ttft_p50)} p95 {_ms(so_far.ttft_p95)}"))
            figures.append(Part(f"TPOT p50 {_ms(so_far.tpot_p50)}"))
            figures.append(Part(f"{so_far.requests} measured", DIM))
        else:
            figures.append(Part("no measured response yet", DIM))
        behind = is_behind(so_far, counted.lag_ns)
        health = [Part("load generator: behind" if behind else "load generator: ok", YELLOW if behind else "")]
        if so_far.requests:
            health.append(Part(f"late reads {100 * so_far.late:.2g} %"))
        if counted.lag_ns is not None:
            health.append(Part(f"lag p99 {_ms(counted.lag_ns)}"))
        return [[*head, Part(self._model)], self._whole(columns), [*rates, *counts], figures, health]

    def _whole(self, columns: int) -> list[Part]:
        """The whole run: how far it is and what is left, or where a search is."""
        if self._standing is not None:
            return [Part(text) for text in self._standing()]
        left = None if self._counted is None else self._counted.left
        gone_s = self._now_s() - self._began_s
        if left is None or self._time is None:
            return [Part(f"{_clock(round(gone_s * NS_PER_S))} so far", DIM)] if self._time is not None else []
        least_ns, most_ns = left.span_ns
        share = gone_s / max(1e-9, gone_s + (least_ns + most_ns) / 2 / NS_PER_S)
        cells = min(30, columns // 3)
        filled = round(share * cells)
        bar = "█" * filled + "░" * (cells - filled)
        return [
            Part(_left_text(left) + " left", BOLD),
            Part(f"{bar} {100 * share:.0f} %"),
            Part(f"{_clock(round(gone_s * NS_PER_S))} so far", DIM),
        ]

    def _look(self, level: RunningLevel) -> _Counted:
        """What is read once a second, with the tokens per second since the last time."""
        before, now_ns = self._counted, level.now_ns
        if before is not None and now_ns - before.at_ns < _COUNTED_EVERY_NS:
            return before
        tokens = level.tokens_so_far
        if before is not None:
            # Where a response ends, its tokens by the server's count replace its events.
            self._rates.append(max(0, tokens - before.tokens) * NS_PER_S / (now_ns - before.at_ns))
        left = None if self._time is None else self._time.left(level)
        self._counted = _Counted(now_ns, tokens, level.so_far(), level.lag_ns, left)
        return self._counted

    def line(self, level: RunningLevel) -> str:
        """A plain line for this level, as it stands now."""
        elapsed_ns = level.now_ns - level.begin_ns
        tokens_per_s = level.tokens_so_far / max(elapsed_ns / NS_PER_S, 1e-9)
        parts = [
            *([f"{self._head}  {_clock(elapsed_ns)}"] if self._standing is None else [self._head, *self._standing()]),
            f"in flight {level.in_flight}",
            f"done {level.done}",
            f"failed {level.failed}",
            *([f"gave up {level.gave_up}"] if level.gave_up else []),
            f"{tokens_per_s:.0f} tok/s",
            *([f"waiting for {level.answers_left} more responses"] if self._waits(level) else []),
        ]
        left = None if self._time is None else self._time.left(level)
        if left is not None and self._standing is None:
            parts.append(f"{_left_text(left)} left")
        return " · ".join([*parts, self._model + (f" ({self._where})" if self._where else "")])

    @staticmethod
    def _waits(level: RunningLevel) -> bool:
        """Whether the window goes on beyond its duration, since it has too few responses yet."""
        duration = level.duration
        if duration.most_ns is None or level.now_ns < level.phases.opens_ns + (duration.duration_ns or 0):
            return False
        return level.answers_left > 0


class _Above(io.TextIOBase):
    """Stands for stderr while there is a frame: whole lines go above it."""

    def __init__(self, screen: Screen, stream: TextIO) -> None:
        self._screen = screen
        self._real = stream
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        if lines:
            self._screen.print_as_it_is("".join(f"{line}\n" for line in lines))
        return len(text)

    def flush(self) -> None:
        """A line that is not complete waits for its end, or for that of the frame."""
        if sys.stderr is not self and self._begun:
            self._screen.print_as_it_is(f"{self._begun}\n")
            self._begun = ""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._real.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override] # a property in the class above, too
        return self._real.encoding


def is_behind(so_far: SoFar, lag_ns: int | None) -> bool:
    """Whether the load generator is likely to be too slow for this load, by the bounds of the verdict."""
    from loadbench.analyze.level.verdict import DELAY_NS, MAX_LATE  # noqa: PLC0415 - not before a level runs

    stamped = sys.platform == "linux"
    return so_far.late > MAX_LATE or (not stamped and lag_ns is not None and lag_ns > DELAY_NS)


def _finished(head: str, where: str, level: LevelResult) -> list[Part]:
    """A level that is over, the most important first."""
    from loadbench.report.values import duration, significant  # noqa: PLC0415 - not before a level has ended

    ttft, failed = level.metrics.get("ttft_s"), sum(level.outcomes.values()) - level.outcomes.get("ok", 0)
    parts = [
        Part(head + (f" {where}" if where else "")),
        Part(f"{significant(level.throughput.output_tokens_per_s)} tok/s"),
    ]
    if ttft is not None:
        parts.append(Part(f"TTFT p95 {duration(ttft.p95)}"))
    status = level.verdict.status
    parts.append(Part(status, "" if status == "VALID" else YELLOW))
    if failed:
        parts.append(Part(f"failed {failed}", RED))
    if ttft is not None:
        parts.append(Part(f"p50 {duration(ttft.p50)}"))
    return [*parts, Part(f"{level.outcomes.get('ok', 0)} ok")]


def _phase(level: RunningLevel, waits: bool) -> str:  # noqa: FBT001 - one of its own
    """What the level is doing: `measuring 0:12 of 0:30`."""
    phases, now_ns = level.phases, level.now_ns
    opens_ns, ends_ns = phases.opens_ns, phases.load_ends_ns
    if now_ns < opens_ns:
        ahead = "" if phases.moves else f" of {_clock(phases.warm_up_ns)}"
        return f"warming up {_clock(now_ns - level.begin_ns)}{ahead}"
    if ends_ns is not None and now_ns >= ends_ns:
        return f"waiting for the last {level.in_flight} in flight"
    if waits:
        return f"waiting for {level.answers_left} more responses {_clock(now_ns - opens_ns)}"
    if phases.closes_ns is not None and now_ns >= phases.closes_ns:
        return "cooling down"
    left, wanted = level.measured_left, level.duration.requests
    if left is not None and wanted is not None:
        return f"measuring {wanted - left} of {wanted} requests"
    whole_ns = level.duration.duration_ns if phases.moves or phases.closes_ns is None else phases.closes_ns - opens_ns
    return f"measuring {_clock(now_ns - opens_ns)} of {_clock(whole_ns or 0)}"


def _left_text(left: Left) -> str:
    least_ns, most_ns = left.span_ns
    if left.at_most:
        return f"at most {_clock(left.ns)}"
    return _clock(most_ns) if least_ns == most_ns else f"{_clock(least_ns)} to {_clock(most_ns)}"


def _rate(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"


def _ms(ns: int | None) -> str:
    if ns is None:
        return "-"
    return f"{ns / 1e9:.3g} s" if ns >= NS_PER_S else f"{ns / 1e6:.3g} ms"


def _clock(ns: int) -> str:
    seconds = max(0, ns) // NS_PER_S
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
