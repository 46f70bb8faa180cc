"""Two sides measured in turn, repeat by repeat, under the same load, prompts and warm-up, one at a time.

`loadbench.plan.pairs` says in which order; a block is a level as a sweep has it (`loadbench.engine.sweep`), so that all
that a level is and does is the same here. What is of its own: a pair warms up for equally long on both sides, before
each block both rest, and a repeat is begun only if the budget has room for one as long as the longest so far. A level
that is given up on one side (`loadbench.engine.abort`) is the last of its repeat, and no later repeat comes to it.

Where both sides count tokens in different ways, both are asked the texts that were made for A.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import anyio

from loadbench.core.errors import TargetUnavailable
from loadbench.engine.sweep import first_answers
from loadbench.plan.pairs import SIDES, Block, Pairing, at_repeat, blocks, planned_ns
from loadbench.record.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock
    from loadbench.engine.sweep import ModelUnderTest, RunObserver, Sweep
    from loadbench.plan.load import LevelDuration, Load
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import LevelRecording


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedSide:
    """One side: `sweep` makes what measures it under a scenario, which is its own but for the repeat's seed."""

    scenario: Scenario
    model: str
    client: Client
    sweep: Callable[[Scenario, RunObserver], Sweep]


class PairObserver(Protocol):
    """Who wants to know how it goes. As with a sweep's observer, none of these may take long."""

    def checked(self, subjects: Sequence[ModelUnderTest]) -> None:
        """Both sides, A before B, have answered their first requests."""
        ...

    def repeat_begins(self, repeat: int) -> tuple[RunObserver, RunObserver]:
        """A repeat is about to start; who observes its levels on A, and who on B."""
        ...

    def repeat_ended(self, repeat: int) -> None:
        """Every level of this repeat is complete on both sides."""
        ...


class Paired:
    """One comparison, run once. `same` says that both sides are one server and model, which may keep prompts."""

    def __init__(
        self,
        sides: tuple[PairedSide, PairedSide],
        *,
        pairing: Pairing,
        clock: Clock,
        observer: PairObserver,
        same: bool = False,
    ) -> None:
        self._sides = sides
        self._pairing = pairing
        self._clock = clock
        self._observer = observer
        self._same = same
        self._loads: tuple[Load, ...] = sides[0].scenario.loads
        self._known: list[dict[int, ModelUnderTest]] = []
        self._sweeps: list[Sweep] = []
        self._under_way: Sweep | None = None
        self._scope = anyio.CancelScope()
        self.stopped = False

    async def run(self) -> None:
        """Measure all repeats; raises `TargetUnavailable` where a side does not answer, at first or any more."""
        with self._scope:
            await self._run()

    async def _run(self) -> None:
        began_ns = self._clock.now_ns()
        self._known = [{-1: subject} for subject in await self._first()]
        self._observer.checked([known[-1] for known in self._known])
        longest_ns = planned_ns(self._sides[0].scenario, self._pairing) or 0
        for repeat in range(self._pairing.most):
            begins_ns = self._clock.now_ns()
            if self.stopped or not self._pairing.fits(spent_ns=begins_ns - began_ns, repeat_ns=longest_ns):
                return
            if not self._loads:
                return
            await self._repeat(repeat)
            longest_ns = max(longest_ns, self._clock.now_ns() - begins_ns)

    async def _first(self) -> list[ModelUnderTest]:
        """The first answers of both sides, and one way to make prompts for the two."""
        found = []
        for name, side in zip(SIDES, self._sides, strict=True):
            try:
                found.append(await first_answers(side.client, side.model, scenario=side.scenario))
            except TargetUnavailable as error:
                raise TargetUnavailable(f"{name.upper()}: {error.message}", hint=error.hint) from None
        a, b = found
        if a.calibration != b.calibration:
            b.calibration = None if a.calibration is None else a.calibration._replace(foreign=True)
        return found

    async def _repeat(self, repeat: int) -> None:
        observers = self._observer.repeat_begins(repeat)
        self._sweeps = [
            side.sweep(at_repeat(side.scenario, repeat), observer)
            for side, observer in zip(self._sides, observers, strict=True)
        ]
        extent: LevelDuration | None = None
        for place, block in enumerate(blocks(repeat, len(self._loads), seed=self._sides[0].scenario.work.seed)):
            await self._rest()
            extent = extent if place % 2 else self._extent(block.level)
            recording = await self._measure(block, extent)
            if self.stopped:
                return
            self._refuse_silence(block, recording)
            if recording.aborted:
                # Of what one side is not asked any more, the other's figures are of no use.
                self._loads = self._loads[: block.level]
                break
        self._observer.repeat_ended(repeat)

    async def _rest(self) -> None:
        await self._clock.sleep_until(self._clock.now_ns() + self._pairing.settle_ns, anyio.Event())

    async def _measure(self, block: Block, extent: LevelDuration | None) -> LevelRecording:
        key = f"pair/{block.level}" + ("/again" if self._same and block.side else "")
        self._under_way = self._sweeps[block.side]
        try:
            return await self._under_way.measure(
                self._known[block.side][block.level],
                self._loads[block.level],
                number=block.level,
                key=key,
                extent=extent,
            )
        finally:
            self._under_way = None

    def _extent(self, level: int) -> LevelDuration:
        """How long a level goes on, on either side: with the warm-up of the one that needs the longer."""
        extents = []
        for known, sweep in zip(self._known, self._sweeps, strict=True):
            # The first time round, it is reckoned by the level before.
            known.setdefault(level, replace(known[level - 1]))
            extents.append(sweep.extent(known[level], self._loads[level]))
        return max(extents, key=lambda extent: extent.warm_up_ns)

    def _refuse_silence(self, block: Block, recording: LevelRecording) -> None:
        """A side of which every request failed has most likely gone."""
        if not recording.outcomes or recording.outcomes.get(Outcome.OK):
            return
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in recording.outcomes.items())
        raise TargetUnavailable(
            f"{SIDES[block.side].upper()} answered nothing at {self._loads[block.level].label} (requests: {outcomes})",
            hint="does it still run? see `loadbench doctor`",
        )

    def stop(self) -> None:
        """End the block under way, keeping what it measured, and begin no other. Twice: cut its requests too."""
        self.stopped = True
        if self._under_way is not None and self._under_way.measuring:
            self._under_way.stop()
        else:
            self._scope.cancel()
