"""Two sides measured in turn, repeat by repeat, under the same load, prompts and warm-up, one at a time.

`loadbench.plan.pairs` says in which order. A block is a level as a sweep runs it. A pair of blocks warms up for the
same time on both sides, before each block both sides rest, and a repeat starts only if the budget has room for one as
long as the longest so far. A level that an abort rule ends on one side (`loadbench.engine.abort`) is the last of its
repeat, and later repeats leave it out.

If the two sides count tokens differently, both get the texts that were made for A.

Where only one side is up at a time, a `SideSwitch` is asked to bring a side up before each of its turns. The side then
gets its first requests again, which are not measured: nothing is in the caches of a server that has just started, and
the warm-up of its levels comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import anyio

from loadbench.core.errors import TargetEnded, TargetUnavailable
from loadbench.engine.level import LevelSpec
from loadbench.engine.level_runner import LevelRunner
from loadbench.engine.sweep import LastLevel, level_duration
from loadbench.engine.target import first_contact, prepare_model
from loadbench.plan.pairs import SIDES, Pairing, at_repeat, blocks, check_budget, planned_ns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.core.clock import Clock
    from loadbench.engine.observers import RunObserver
    from loadbench.engine.target import ModelUnderTest, TargetSession
    from loadbench.plan.load import LevelDuration, Load
    from loadbench.plan.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedSide:
    """One side: in each repeat its scenario differs by the seed alone."""

    scenario: Scenario
    model: str
    session: TargetSession


class SideSwitch(Protocol):
    """Two sides of which one is up at a time: servers that are started, or models that one server loads."""

    async def bring_up(self, side: int) -> int:
        """Take the other side down, start this one afresh, and wait until it is ready; returns how many ns that took.
        A side that is up and was not used yet stays as it is.

        Raises `TargetUnavailable` where it does not become ready. Cancelled, it leaves no process behind.
        """
        ...


class PairObserver(Protocol):
    """Follows a comparison. As with a `RunObserver`, no call may take long."""

    def sides_prepared(self, subjects: Sequence[ModelUnderTest]) -> None:
        """Both sides, A before B, have responded to their first requests."""
        ...

    def brought_up(self, side: int, took_ns: int) -> None:
        """This side is up in place of the other, has had its first requests, and all of that took so long."""
        ...

    def repeat_begins(self, repeat: int) -> tuple[RunObserver, RunObserver]:
        """A repeat is about to start; returns the observers of its levels on A and on B."""
        ...

    def repeat_ended(self, repeat: int) -> bool:
        """Every level of this repeat is complete on both sides; returns whether the result needs no other."""
        ...


class EarlierRepeats(NamedTuple):
    """What a comparison that is resumed has already: whole repeats, the levels that are still measured, and for each
    side the last repeat's levels by their place."""

    repeats: int = 0
    levels: int | None = None
    last: tuple[Mapping[int, LastLevel], ...] = ({}, {})


class Paired:
    """One comparison, run once. `same`: both sides are one server and model, which may have prompts cached. `earlier`
    is what it continues from. `switch` is there if only one side is up at a time, as the pairing then says."""

    def __init__(
        self,
        sides: tuple[PairedSide, PairedSide],
        *,
        pairing: Pairing,
        clock: Clock,
        observer: PairObserver,
        same: bool = False,
        earlier: EarlierRepeats | None = None,
        switch: SideSwitch | None = None,
    ) -> None:
        self.stopped = False
        self.ended = ""  # why there was no further repeat, if not by the plan
        self._sides = sides
        self._pairing = pairing
        self._clock = clock
        self._observer = observer
        self._same = same
        self._switch = switch
        self._fresh: int | None = None  # the side that is up and has had no more than its first requests
        self._earlier = earlier or EarlierRepeats()
        self._loads: tuple[Load, ...] = sides[0].scenario.loads[: self._earlier.levels]
        self._subjects: list[ModelUnderTest] = []
        # By side: the level before each level, and before the first repeat's first.
        self._last: list[dict[int, LastLevel]] = []
        self._runners: list[LevelRunner] = []
        self._scope = anyio.CancelScope()

    async def run(self) -> None:
        """Run all repeats; raises `TargetUnavailable` where a side does not respond, at first or any more, and
        `BadInput` where the budget turns out to have no room for even one repeat."""
        with self._scope:
            began_ns = self._clock.now_ns()
            await self._prepare()
            longest_ns = planned_ns(self._sides[0].scenario, self._pairing) or 0
            # About what the earlier repeats took.
            began_ns -= self._earlier.repeats * longest_ns
            for repeat in range(self._earlier.repeats, self._pairing.most):
                begins_ns = self._clock.now_ns()
                # That there is room for one was checked: the first has it, however long the preparation took.
                fits = not repeat or self._pairing.fits(spent_ns=begins_ns - began_ns, repeat_ns=longest_ns)
                if not fits:
                    self.ended = "the budget has no room for another"
                if self.stopped or not fits or not self._loads or await self._repeat(repeat):
                    return
                longest_ns = max(longest_ns, self._clock.now_ns() - begins_ns)
            self.ended = "all that were allowed"

    async def _prepare(self) -> None:
        """Get the first responses of both sides, and one way to make prompts for the two."""
        seed, repeat = self._sides[0].scenario.work.seed, self._earlier.repeats
        # Where one side is up at a time, the one that is measured first comes last: then it is up.
        first = next(blocks(repeat, 1, seed=seed)).side
        subjects: dict[int, ModelUnderTest] = {}
        starts_ns = 0
        for which in (0, 1) if self._switch is None else (1 - first, first):
            side, took_ns = self._sides[which], 0
            try:
                if self._switch is not None:
                    took_ns = await self._switch.bring_up(which)
                began_ns = self._clock.now_ns()
                subjects[which] = await prepare_model(side.session, side.model, side.scenario)
            except TargetUnavailable as error:
                raise _of_side(which, error) from None
            if self._switch is not None:
                self._fresh = which
                took_ns += self._clock.now_ns() - began_ns
                starts_ns += took_ns
                self._observer.brought_up(which, took_ns)
        self._subjects = [subjects[0], subjects[1]]
        a, b = self._subjects
        if a.calibration != b.calibration:
            b.calibration = None if a.calibration is None else a.calibration._replace(foreign=True)
        self._last = [
            {-1: LastLevel(subject.response_ns), **last}
            for subject, last in zip(self._subjects, self._earlier.last, strict=True)
        ]
        if self._switch is not None:
            self._pairing = replace(self._pairing, starts_ns=starts_ns)
            check_budget(self._sides[0].scenario, self._pairing)
        self._observer.sides_prepared(self._subjects)

    async def _repeat(self, repeat: int) -> bool:
        """Measure every level once on both sides; returns whether that is enough."""
        scenarios = [at_repeat(side.scenario, repeat) for side in self._sides]
        observers = self._observer.repeat_begins(repeat)
        self._runners = []
        for side, scenario, observer, subject in zip(self._sides, scenarios, observers, self._subjects, strict=True):
            self._runners.append(LevelRunner(scenario, side.session, observer))
            if self._switch is None:
                observer.model_prepared(subject)

        durations: dict[int, LevelDuration] = {}
        turn: int | None = None
        seed, one_up = self._sides[0].scenario.work.seed, self._switch is not None
        for block in blocks(repeat, len(self._loads), seed=seed, one_up=one_up):
            which, level = block.side, block.level
            if level >= len(self._loads):  # one before it was aborted on the other side
                continue
            load, subject = self._loads[level], self._subjects[which]
            if one_up and turn != which:
                turn = which
                await self._bring_up(which, scenarios[which])
                observers[which].model_prepared(subject)
                self._fresh = None
            await self._clock.sleep_until(self._clock.now_ns() + self._pairing.settle_ns, anyio.Event())
            if level not in durations:
                # For both sides, with the warm-up of the one that needs the longer. In the first repeat it is
                # estimated by the level before, then by the same level in the repeat before.
                for last in self._last:
                    last.setdefault(level, last[level - 1])
                durations[level] = max(
                    (
                        level_duration(scenario, load, last[level])
                        for scenario, last in zip(scenarios, self._last, strict=True)
                    ),
                    key=lambda one: one.warm_up_ns,
                )
            key = f"pair/{level}" + ("/again" if self._same and which else "")
            spec = LevelSpec(load=load, key=key, calibration=subject.calibration, duration=durations[level])
            try:
                recording = await self._runners[which].run(subject, spec, number=level)
            except TargetEnded as error:
                raise _of_side(which, error) from None
            self._last[which][level] = self._last[which][level].then(load, recording)
            if self.stopped:
                return True
            if recording.outcomes and all(outcome.failed for outcome in recording.outcomes):
                outcomes = ", ".join(f"{count} {outcome}" for outcome, count in recording.outcomes.items())
                raise TargetUnavailable(
                    f"{SIDES[which].upper()} responded to nothing at {load.label} (requests: {outcomes})",
                    hint="does it still run? see `loadbench doctor`",
                )
            if recording.aborted:
                # What one side is not measured at any more is of no use for the other.
                self._loads = self._loads[:level]
        return self._observer.repeat_ended(repeat)

    async def _bring_up(self, which: int, scenario: Scenario) -> None:
        """Have this side up in place of the other, with its first requests behind it."""
        assert self._switch is not None  # noqa: S101 - there are turns only with one
        if self._fresh == which:
            return
        side, subject, began_ns = self._sides[which], self._subjects[which], self._clock.now_ns()
        try:
            await self._switch.bring_up(which)
            contact = await first_contact(side.session, side.model, scenario)
        except TargetUnavailable as error:
            raise _of_side(which, error) from None
        subject.cold, subject.samples = contact.cold, contact.responses
        self._observer.brought_up(which, self._clock.now_ns() - began_ns)

    def stop(self) -> None:
        """End the block that is running, keep what it measured, and start no other. Twice: cut its requests too."""
        self.stopped = True
        runner = next((runner for runner in self._runners if runner.is_running), None)
        if runner is not None:
            runner.stop(self._scope)
        else:
            self._scope.cancel()


def _of_side(which: int, error: TargetUnavailable) -> TargetUnavailable:
    """The error with the name of its side."""
    error.message = f"{SIDES[which].upper()}: {error.message}"
    error.hint = error.hint.replace("--model", f"--{SIDES[which]}-model")
    return error
