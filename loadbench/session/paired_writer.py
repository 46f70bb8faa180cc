"""What becomes of each level of a comparison: a run folder for each side of each repeat, one progress line for all."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from loadbench.core.errors import ExitCode
from loadbench.plan.pairs import SIDES, at_repeat
from loadbench.plan.prompts import given_prompts
from loadbench.results.recorded_prompts import recorded_prompts
from loadbench.results.requests import RequestLog
from loadbench.results.run import Reason, Run
from loadbench.session.setup import RunWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.core.clock import Clock
    from loadbench.engine.level import Level
    from loadbench.engine.sweep import ModelUnderTest, RunObserver
    from loadbench.engine.workers import DistributedLevel
    from loadbench.live.progress import Progress
    from loadbench.plan.scenario import Scenario
    from loadbench.record.sample import Sample
    from loadbench.results.folder import RunFolder
    from loadbench.session.telemetry import RunTelemetry
    from loadbench.targets.prepare import Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSide:
    """What is recorded of a side with each of its runs."""

    scenario: Scenario
    prepared: Prepared
    watch: RunTelemetry
    environment: Mapping[str, object]


class PairedRunWriter:
    """`loadbench.engine.paired.PairObserver`: a keeper for each side of each repeat, and the progress line for all."""

    def __init__(
        self, sides: tuple[RecordedSide, RecordedSide], *, folder: RunFolder, progress: Progress, clock: Clock
    ) -> None:
        self.folder = folder
        self.runs: tuple[list[Run], list[Run]] = ([], [])
        self.caveats: list[Reason] = []
        self.unwritten = False
        self._sides = sides
        self._progress = progress
        self._clock = clock
        self._logs = ExitStack()
        self._keepers: list[RunWriter] = []
        self._blocks = 0

    def checked(self, subjects: Sequence[ModelUnderTest]) -> None:
        """Say what the first answers show of either side."""
        for name, side, subject in zip(SIDES, self._sides, subjects, strict=True):
            self.caveats += first_answer_caveats(name.upper(), subject.samples[-1], most=side.scenario.work.max_tokens)
        for caveat in self.caveats:
            self._progress.say(f"note: {caveat.message}; {caveat.advice}")

    def repeat_begins(self, repeat: int) -> tuple[RunObserver, RunObserver]:
        """A run folder for each side."""
        a, b = (self._keeper(name, side, repeat) for name, side in zip(SIDES, self._sides, strict=True))
        self._keepers = [a, b]
        return a, b

    def _keeper(self, name: str, side: RecordedSide, repeat: int) -> RunWriter:
        folder = self.folder.inside(name, f"{repeat + 1:02}")
        scenario = at_repeat(side.scenario, repeat)
        title = f"{scenario.report.name} {name.upper()}{repeat + 1}"
        prompts = recorded_prompts(given_prompts(scenario.work), keep_texts=scenario.report.keep_texts)
        origin_ns = self._clock.now_ns()
        side.watch.keep_in(folder, origin_ns=origin_ns)
        log = RequestLog(
            folder.path / "requests.jsonl",
            origin_ns=origin_ns,
            prompts=[prompt.hash for prompt in prompts],
            keep_texts=scenario.report.keep_texts,
        )
        return RunWriter(
            replace(scenario, report=replace(scenario.report, name=title)),
            side.prepared.target,
            folder=folder,
            log=self._logs.enter_context(log),
            progress=_SideProgress(self, f"{name.upper()}, repeat {repeat + 1}"),
            started_at=datetime.now(UTC),
            environment=dict(side.environment),
            prompts=prompts,
            prepared=side.prepared,
            watch=side.watch,
        )

    def tell_begin(self, level: Level | DistributedLevel, model: str) -> None:
        """A block begins."""
        self._progress.level_begins(level, model, self._blocks)
        self._blocks += 1

    def tell_end(self, text: str) -> None:
        """A block is over."""
        self._progress.level_ended(text)

    def say(self, text: str) -> None:
        """One lasting line."""
        self._progress.say(text)

    def repeat_ended(self, repeat: int) -> None:  # noqa: ARG002 - they end in their order
        """Both runs of it are complete."""
        for runs, keeper in zip(self.runs, self._keepers, strict=True):
            keeper.close(stopped=False)
            runs.append(keeper.run)
        self._end_repeat()

    def close(self) -> None:
        """Keep what an unfinished repeat has."""
        for keeper in self._keepers:
            keeper.close(stopped=True)
        self._end_repeat()

    def _end_repeat(self) -> None:
        self.unwritten |= any(keeper.exit_code() is ExitCode.BAD_INPUT for keeper in self._keepers)
        self._keepers = []
        self._logs.close()


class _SideProgress:
    """`loadbench.session.setup.Teller` of one side of one repeat: says which it is, and counts blocks over all."""

    def __init__(self, keeper: PairedRunWriter, where: str) -> None:
        self._keeper = keeper
        self._where = where
        self.say = keeper.say
        self.level_ended = keeper.tell_end

    def level_begins(self, level: Level | DistributedLevel, model: str, number: int) -> None:  # noqa: ARG002 - all are counted
        """A block begins."""
        self._keeper.tell_begin(level, f"{model} ({self._where})")


def first_answer_caveats(side: str, sample: Sample, *, most: int) -> list[Reason]:
    """Whether the side does as it is told about lengths; where not, the two may do unequal work."""
    tokens = sample.output_tokens
    if tokens is not None and tokens > most:
        return [
            Reason(
                "max_tokens_ignored",
                f"{side} was asked for {most} tokens at most and answered {tokens}",
                "let it honour max_tokens, or compare time per token only",
            )
        ]
    if tokens is not None and tokens < most and sample.finish_reason != "length":
        return [
            Reason(
                "ends_early",
                f"{side} ended its first answer after {tokens} of {most} tokens by itself",
                "compare time per token, or ask for fewer --max-tokens",
            )
        ]
    return []
