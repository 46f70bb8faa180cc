"""The progress: what it says, where it is written, and that it disturbs nobody."""

from __future__ import annotations

import io
import os
import shutil
import time
from dataclasses import dataclass, field

import anyio
import pytest

from loadbench.core.text import display_width
from loadbench.core.virtual import run_virtual
from loadbench.live.progress import Progress, is_behind
from loadbench.live.screen import fitted
from loadbench.live.time_left import Left
from loadbench.plan.load import Closed, LevelDuration, Phases
from loadbench.record.outcome import Outcome
from loadbench.record.recorder import SoFar
from tests.building import S

MS = 1_000_000


@dataclass
class FakeLevel:
    """A level that stands still."""

    begin_ns: int = 100 * S
    now_ns: int = 105 * S
    done: int = 12
    failed: int = 1
    gave_up: int = 0
    in_flight: int = 3
    tokens_so_far: int = 500
    measured_left: int | None = None
    answers_left: int = 0
    label: str = "users=4"
    load: Closed = field(default_factory=lambda: Closed(4))
    lag_ns: int | None = 300_000
    failures: dict = field(default_factory=lambda: {Outcome.TIMEOUT_IDLE: 1})
    figures: SoFar = field(default_factory=lambda: SoFar(9, 120 * MS, 310 * MS, 21 * MS, 900e6, S, 0.0))
    duration: LevelDuration = field(
        default_factory=lambda: LevelDuration(duration_ns=10 * S, warm_up_ns=2 * S, cool_down_ns=S)
    )
    looks: int = 0

    def __post_init__(self) -> None:
        self.phases = Phases(self.duration, self.begin_ns)

    def so_far(self) -> SoFar:
        self.looks += 1
        return self.figures


class FakeTime:
    """Knows the time left."""

    def __init__(self, left: Left | None) -> None:
        self.said = left

    def level_begins(self, level, begin_ns) -> None:
        pass

    def left(self, level) -> Left | None:
        return self.said


class FakeStream(io.StringIO):
    """A stream that may be a terminal, and may be closed at its other end."""

    def __init__(self, *, terminal: bool = False, broken: bool = False) -> None:
        super().__init__()
        self.terminal, self.broken = terminal, broken

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        if self.broken:
            raise BrokenPipeError
        return super().write(text)


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A terminal of 120 columns."""
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((120, 24)))


def watching(progress: Progress, *, seconds: float, level: FakeLevel | None = None) -> None:
    """Let the line be kept for so long, in virtual time, while one level is under way."""

    async def main() -> None:
        progress.level_begins(level or FakeLevel(), "m", 0)
        with anyio.move_on_after(seconds):
            await progress.run()

    run_virtual(main)


def the_line(level: FakeLevel, *, levels: int = 2, number: int = 0) -> str:
    """The line on a level."""
    progress = Progress(FakeStream(), levels=levels)
    progress.level_begins(level, "m", number)
    return progress.line(level)


# What it says.


def test_line_tells_where_the_level_stands():
    """Which of how many, the model, the load, elapsed, in flight, done, failed, tokens/s."""
    line = the_line(FakeLevel())
    assert line == "[1/2] users=4  0:05 · in flight 3 · done 12 · failed 1 · 100 tok/s · m"


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (Left(66 * S, 60 * S), " · 1:03 left · m"),  # the ends are close together
        (Left(120 * S, 60 * S), " · 1:00 to 2:00 left · m"),
        (Left(3661 * S, 0, at_most=True), " · at most 1:01:01 left · m"),
        (None, " · 100 tok/s · m"),  # nobody knows yet
    ],
)
def test_time_left_is_one_time_or_a_range(left, text):
    """As it is known: a time, a range where that depends on what nobody can know, or the most that it can be."""
    progress = Progress(FakeStream(), levels=1)
    progress.expect(1, time_left=FakeTime(left))
    progress.level_begins(FakeLevel(), "m", 0)
    assert progress.line(FakeLevel()).endswith(text)


def test_level_that_has_just_begun_has_no_rate_yet():
    """No division by no time."""
    assert "0 tok/s" in the_line(FakeLevel(now_ns=100 * S, tokens_so_far=0))


def test_model_name_gives_no_orders_to_the_terminal():
    """An escape sequence in it is shown, not obeyed."""
    stream = FakeStream()
    progress = Progress(stream, levels=1)
    progress.level_begins(FakeLevel(), "m\x1b[31m\n", 0)
    assert stream.getvalue() == "[1/1] users=4 of m?[31m? begins\n"


# Where it is written.


def test_elsewhere_plain_lines_come_every_ten_seconds():
    """A log gets whole lines, no control characters, and few of them."""
    stream = FakeStream()
    watching(Progress(stream, levels=2), seconds=25)
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["[1/2] users=4 of m begins", "[1/2] users=4", "[1/2] users=4"]
    assert "\r" not in stream.getvalue()


def test_no_live_means_plain_lines_on_a_terminal_too():
    """For those who keep what they see."""
    stream = FakeStream(terminal=True)
    watching(Progress(stream, levels=1, live=False), seconds=11)
    assert stream.getvalue().count("\n") == 2
    assert "\r" not in stream.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_writes_nothing(terminal):
    """Neither the line nor how a level ended."""
    stream = FakeStream(terminal=terminal)
    progress = Progress(stream, levels=1, quiet=True)
    watching(progress, seconds=30)
    progress.level_ended("well")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_reader_who_left_disturbs_nobody(terminal):
    """A pipe that is closed ends the progress and not the measurement; nothing is written after it."""
    stream = FakeStream(terminal=terminal, broken=True)
    progress = Progress(stream, levels=1)
    watching(progress, seconds=30)
    progress.say("lost")
    stream.broken = False
    progress.level_ended("well")
    assert stream.getvalue() == ""


def test_between_levels_there_is_no_line():
    """What has ended is not told as if it went on."""
    stream = FakeStream()
    progress = Progress(stream, levels=2)
    progress.level_begins(FakeLevel(), "m", 0)
    progress.level_ended("well")
    before = stream.getvalue()

    async def main() -> None:
        with anyio.move_on_after(30):
            await progress.run()

    run_virtual(main)
    assert stream.getvalue() == before


@pytest.mark.parametrize(("works", "fewest", "most"), [(False, 30, 40), (True, 2, 12)])
def test_frames_are_rare_where_they_cost_much_and_not_where_the_core_is_taken(works, fewest, most):
    """Ten seconds of frames whose writing lasts 20 ms each: of CPU time, or without any."""

    class Slow(FakeStream):
        def write(self, text: str) -> int:
            clock = time.thread_time if works else time.monotonic
            ends_s = clock() + 0.02
            while clock() < ends_s:
                if not works:
                    time.sleep(0.005)
            return super().write(text)

    stream = Slow(terminal=True)
    watching(Progress(stream, levels=1), seconds=10)
    assert fewest <= stream.getvalue().count("in flight") <= most


def test_number_of_levels_may_become_known_later():
    """Once the models are known."""
    stream = FakeStream()
    progress = Progress(stream, levels=2)
    progress.expect(6)
    progress.level_begins(FakeLevel(), "m", 4)
    assert stream.getvalue().startswith("[5/6] ")


def test_a_search_says_what_is_tested_and_where_it_is():
    """The load, the range so far and the time left in the whole search stand in place of the level's own times."""
    stream = FakeStream()
    progress = Progress(stream, levels=1)
    progress.expect(None, standing=lambda: ["8 to 20 so far", "11 of 20 min left"])
    progress.level_begins(FakeLevel(label="users=12"), "m", 4)
    assert stream.getvalue() == "probe at users=12 of m begins\n"
    line = progress.line(FakeLevel(label="users=12"))
    assert line.startswith("probe at users=12 · 8 to 20 so far · 11 of 20 min left · in flight 3 · ")
    assert line.count("left") == 1


def test_a_level_without_think_time_is_not_called_a_probe():
    """Of a search whose users think; where nobody thinks, each level is one."""
    for think, head in ((True, "without think time, users=1"), (False, "probe at users=1")):
        stream = FakeStream()
        progress = Progress(stream, levels=1)
        progress.expect(None, standing=list, think=think)
        progress.level_begins(FakeLevel(label="users=1", load=Closed(1)), "m", 0)
        assert stream.getvalue() == f"{head} of m begins\n"


def test_users_who_gave_up_are_counted_apart():
    """Where there are any, they have a number of their own, next to the failures."""
    assert " · failed 1 · gave up 7 · " in the_line(FakeLevel(gave_up=7))
    assert "gave up" not in the_line(FakeLevel())


def test_a_level_that_waits_for_responses_says_so():
    """Where nobody gave a length the end is known once there are enough responses; until then, what is missing."""
    duration = LevelDuration(duration_ns=10 * S, warm_up_ns=2 * S, most_ns=60 * S, answers=20)
    level = FakeLevel(now_ns=107 * S, duration=duration, answers_left=13)
    assert "waiting" not in the_line(level)
    level.now_ns = 130 * S
    assert "waiting for 13 more responses · m" in the_line(level)


# What a terminal shows.


def texts(progress: Progress, columns: int) -> list[str]:
    """The lines of the frame as they fit into so many columns."""
    return [" · ".join(part.text for part in fitted(parts, columns)) for parts in progress.frame(columns) if parts]


def shown(
    level: FakeLevel, columns: int = 200, *, left: Left | None = None, where: str = "", model: str = "m"
) -> list[str]:
    """The frame of a level."""
    progress = Progress(FakeStream(), levels=4, now_s=lambda: 0.0)
    progress.expect(4, time_left=FakeTime(left) if left else None)
    progress.level_begins(level, model, 1, where)
    return texts(progress, columns)


def test_a_frame_has_the_level_the_run_the_rates_the_figures_and_the_client():
    """A line each; the whole run where its time is known."""
    assert shown(FakeLevel(), left=Left(60 * S, 60 * S)) == [
        "[2/4] users=4 · measuring 0:03 of 0:10 · m",
        "1:00 left · " + "░" * 30 + " 0 % · 0:00 so far",
        "100 tok/s · failed 1 · in flight 3 · done 12 · 1 timeout_idle",
        "TTFT p50 120 ms p95 310 ms · TPOT p50 21 ms · 9 measured",
        "load generator: ok · late reads 0 % · lag p99 0.3 ms",
    ]


@pytest.mark.parametrize("columns", [*range(10, 60), 79, 80, 120, 200])
def test_no_line_is_wider_than_there_is_room(columns):
    """At any width, with a long name of a model, wide letters and many kinds of failures."""
    level = FakeLevel(failed=900, failures=dict.fromkeys(Outcome, 100), gave_up=7, in_flight=12_345, done=9_999_999)
    for line in shown(level, columns, left=Left(900 * S, 60 * S), where="A, repeat 12", model="日本語" * 40):
        assert display_width(line) <= columns


@pytest.mark.parametrize(
    ("now_s", "phase"),
    [
        (101, "warming up 0:01 of 0:02"),
        (105, "measuring 0:03 of 0:10"),
        (112.5, "cooling down"),
        (114, "waiting for the last 3 in flight"),
    ],
)
def test_a_level_says_what_it_is_doing(now_s, phase):
    """From its warm-up to its drain."""
    assert shown(FakeLevel(now_ns=int(now_s * S)))[0] == f"[2/4] users=4 · {phase} · m"


def test_a_comparison_names_the_side_and_the_repeat():
    """Before what the level is doing."""
    assert shown(FakeLevel(), where="B, repeat 2")[0].startswith("[2/4] users=4 · B, repeat 2 · measuring ")


def test_an_interrupted_run_says_what_it_waits_for_and_what_ends_that():
    """Once Ctrl-C was pressed, in place of the level's phase."""
    progress = Progress(FakeStream(), levels=4)
    progress.level_begins(FakeLevel(), "m", 1)
    progress.interrupted("interrupted")
    assert texts(progress, 120)[0].startswith(
        "stopping: results are kept; waiting for 3 in flight · Ctrl-C again cancels them · [2/4] users=4"
    )


def test_the_load_generator_is_behind_where_the_verdict_would_say_so():
    """Where more events than the verdict allows were read late, or with no kernel stamps, where the loop lags."""
    late = SoFar(9, 120 * MS, 310 * MS, 21 * MS, 900e6, S, 0.02)
    assert "load generator: behind · late reads 2 %" in shown(FakeLevel(figures=late))[-1]
    assert not is_behind(SoFar(), 300_000)


def test_what_takes_counting_is_looked_at_once_a_second():
    """However many frames there are in one."""
    level = FakeLevel()
    progress = Progress(FakeStream(), levels=1)
    progress.level_begins(level, "m", 0)
    for tenths in range(25):
        level.now_ns = (1050 + tenths) * S // 10
        progress.frame(80)
    assert level.looks == 3


def test_tokens_per_second_are_those_of_the_last_second():
    """Not those since the level began; the sparkline has a bar a second."""
    level = FakeLevel()
    progress = Progress(FakeStream(), levels=1)
    progress.level_begins(level, "m", 0)
    for second, tokens in ((5, 500), (6, 900), (7, 1700)):
        level.now_ns, level.tokens_so_far = (100 + second) * S, tokens
        rates = texts(progress, 80)[1]
    assert rates.startswith("800 tok/s ▅█ · failed 1 · ")


def test_before_the_first_level_there_is_a_word_about_what_happens():
    """With how long it has taken."""
    now = [0.0]
    progress = Progress(FakeStream(), levels=1, now_s=lambda: now[0])
    progress.doing("loading a-model")
    now[0] = 12.4
    assert texts(progress, 80) == ["loading a-model · 0:12"]


def test_a_reason_for_waiting_may_change_and_gives_way_to_the_time():
    """What is waited for is the same, so the time goes on; where it is narrow the reason has no room."""
    now = [0.0]
    progress = Progress(FakeStream(), levels=1, now_s=lambda: now[0])
    progress.doing("waiting for the server")
    now[0] = 4.0
    progress.doing("waiting for the server (nothing listens at its port)")
    now[0] = 9.0
    progress.doing("waiting for the server (HTTP 503)")
    assert texts(progress, 80) == ["waiting for the server · 0:09 · HTTP 503"]
    assert texts(progress, 36) == ["waiting for the server · 0:09"]
    progress.doing("asking for its models")
    assert texts(progress, 80) == ["asking for its models · 0:00"]


def test_a_long_stage_has_a_plain_line():
    """In a log too nothing is silent for long; what is over soon has none."""
    stream = FakeStream()
    now = [0.0]
    progress = Progress(stream, levels=1, now_s=lambda: now[0])

    async def main() -> None:
        progress.doing("short")
        async with anyio.create_task_group() as group:
            group.start_soon(progress.run)
            for second in range(30):
                if second == 2:
                    progress.doing("loading m\x1b[2J")
                await anyio.sleep(1)
                now[0] += 1
            group.cancel_scope.cancel()

    run_virtual(main)
    lines = stream.getvalue().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["loading m?[2J"] * 3
