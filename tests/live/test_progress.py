"""The progress line: what it says, where it is written, and that it disturbs nobody."""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import dataclass, field

import anyio
import pytest

from loadbench.core.virtual import run_virtual
from loadbench.live.progress import Progress
from loadbench.plan.load import LevelDuration, Phases
from tests.building import S


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
    label: str = "users=4"
    duration: LevelDuration = field(
        default_factory=lambda: LevelDuration(duration_ns=10 * S, warm_up_ns=2 * S, cool_down_ns=S)
    )


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
    """Which of how many, the model, the load, elapsed, in flight, done, failed, tokens/s, time left."""
    line = the_line(FakeLevel())
    assert line == "[1/2] users=4  0:05 · in flight 3 · done 12 · failed 1 · 100 tok/s · 0:21 left · m"


@pytest.mark.parametrize(
    ("elapsed_s", "number", "left"),
    [
        (0, 0, "0:26"),  # two levels of 13 s
        (5, 0, "0:21"),
        (5, 1, "0:08"),
        (13, 1, "0:00"),
        (20, 1, "0:00"),  # draining: never negative
        (20, 0, "0:13"),
    ],
)
def test_time_left_by_duration(elapsed_s, number, left):
    """The rest of this level and all of those to come; drains, which nobody can foresee, apart."""
    assert the_line(FakeLevel(now_ns=(100 + elapsed_s) * S), number=number).endswith(f" {left} left · m")


@pytest.mark.parametrize(
    ("elapsed_s", "measured_left", "left"),
    [
        (12, 75, "1:12"),  # 25 in the 10 s after the warm-up: 30 s to go, then a level of 2 + 40 s
        (42, 0, "0:42"),
        (1, 100, None),  # nothing measured yet: nobody knows
    ],
)
def test_time_left_by_number(elapsed_s, measured_left, left):
    """At the pace so far."""
    duration = LevelDuration(requests=100, warm_up_ns=2 * S)
    line = the_line(FakeLevel(now_ns=(100 + elapsed_s) * S, measured_left=measured_left, duration=duration))
    assert line.endswith(f" {left} left · m") if left else "left" not in line


def test_level_that_has_just_begun_has_no_rate_yet():
    """No division by no time."""
    assert "0 tok/s" in the_line(FakeLevel(now_ns=100 * S, tokens_so_far=0))


def test_hours_are_shown_from_the_first_on():
    """59:59 becomes 1:00:00."""
    duration = LevelDuration(duration_ns=3600 * S)
    assert the_line(FakeLevel(now_ns=100 * S, duration=duration), levels=1).endswith(" 1:00:00 left · m")
    assert the_line(FakeLevel(now_ns=101 * S, duration=duration), levels=1).endswith(" 59:59 left · m")


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


def test_on_a_terminal_the_line_is_written_over_itself():
    """Four times a second, without a line end; a lasting line first clears it away."""
    stream = FakeStream(terminal=True)
    progress = Progress(stream, levels=2)
    watching(progress, seconds=1.1)
    shown = stream.getvalue()
    assert shown.count("\r[1/2] users=4") == 4
    assert "\n" not in shown
    progress.level_ended("well")
    rest = stream.getvalue()[len(shown) :]
    width = len(shown.split("\r")[-1])
    assert rest == "\r" + " " * width + "\r[1/2] users=4: well\n"


def test_shorter_line_covers_the_longer_one_before_it():
    """Nothing of what stood there is left."""
    stream = FakeStream(terminal=True)
    progress = Progress(stream, levels=1)
    progress.show("a long line")
    progress.show("short")
    assert stream.getvalue() == "\ra long line\rshort      "


def test_line_is_no_wider_than_the_terminal(monkeypatch):
    """A line that wraps could not be written over."""
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((40, 24)))
    stream = FakeStream(terminal=True)
    watching(Progress(stream, levels=1), seconds=0.3)
    assert len(stream.getvalue()) == 1 + 39


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


def test_number_of_levels_may_become_known_later():
    """Once the models are known."""
    stream = FakeStream()
    progress = Progress(stream, levels=2)
    progress.expect(6)
    progress.level_begins(FakeLevel(), "m", 4)
    assert stream.getvalue().startswith("[5/6] ")


def test_a_search_counts_its_probes_without_a_total():
    """Nobody knows how many will follow: the number alone, and the time left in this probe."""
    stream = FakeStream()
    progress = Progress(stream, levels=1)
    progress.expect(None)
    progress.level_begins(FakeLevel(), "m", 4)
    assert stream.getvalue() == "[5] users=4 of m begins\n"
    assert progress.line(FakeLevel()).endswith(" 0:08 left · m")


def test_a_search_says_what_is_tested_and_where_it_is():
    """The load, the range so far and the time left in the whole search stand in place of the level's own times."""
    stream = FakeStream()
    progress = Progress(stream, levels=1)
    progress.expect(None, standing=lambda: ["8 to 20 so far", "11 of 20 min left"])
    progress.level_begins(FakeLevel(label="users=12"), "m", 4)
    assert stream.getvalue() == "testing users=12 of m begins\n"
    line = progress.line(FakeLevel(label="users=12"))
    assert line.startswith("testing users=12 · 8 to 20 so far · 11 of 20 min left · in flight 3 · ")
    assert line.count("left") == 1


def test_users_who_gave_up_are_counted_apart():
    """Where there are any, they have a number of their own, next to the failures."""
    assert " · failed 1 · gave up 7 · " in the_line(FakeLevel(gave_up=7))
    assert "gave up" not in the_line(FakeLevel())


def test_a_level_that_waits_for_responses_says_so():
    """Where nobody gave a length the end is known once there are enough responses; until then, what is missing."""
    duration = LevelDuration(duration_ns=10 * S, warm_up_ns=2 * S, most_ns=60 * S, answers=20)
    level = FakeLevel(now_ns=107 * S, duration=duration)
    level.phases, level.answers_left = Phases(duration, 100 * S), 13
    assert the_line(level, levels=1).endswith(" 0:05 left · m")
    level.now_ns = 130 * S
    assert "waiting for 13 more responses · m" in the_line(level, levels=1)
    level.answers_left, level.now_ns = 13, 112 * S
    assert "left" not in the_line(level, levels=1)
    level.answers_left, level.now_ns = 0, 130 * S
    level.phases.close(133 * S)
    assert the_line(level, levels=1).endswith(" 0:03 left · m")
