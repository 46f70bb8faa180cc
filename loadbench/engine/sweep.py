"""The sweep: every model at every load, one level after another.

A model that does not answer a first request is marked and the rest go on. Each level's recording is handed out as soon
as it is complete, so that it can be saved before the next begins. Stopped, the sweep ends with the level under way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import anyio

from loadbench.core.errors import TargetUnavailable
from loadbench.engine.level import Level
from loadbench.engine.parts import level_plan
from loadbench.plan.prompts import prompt_source
from loadbench.targets.openai import first_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock
    from loadbench.engine.crew import Crew, CrewLevel
    from loadbench.engine.health import HealthProbe
    from loadbench.plan.load import Load
    from loadbench.plan.prompts import Calibration
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import LevelRecording
    from loadbench.record.sample import Sample


class Observer(Protocol):
    """Who wants to know how the sweep goes. None of these may take long: the load is running, or is about to."""

    def level_begins(self, level: Level | CrewLevel, model: str, number: int) -> None:
        """A level is about to start; `number` counts all levels of the run from 0."""
        ...

    def sample_ended(self, sample: Sample, number: int) -> None:
        """A request of level `number` has ended."""
        ...

    def level_ended(self, recording: LevelRecording, model: str, load: Load) -> None:
        """A level is complete; the next begins when this returns."""
        ...

    def model_failed(self, model: str, reason: str) -> None:
        """A model cannot be tested."""
        ...


class Sweep:
    """One sweep, run once. `client_for` makes the client of a model, `health` the probe of a level."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        models: Sequence[str],
        client_for: Callable[[str], Client],
        clock: Clock,
        health: Callable[[], HealthProbe],
        observer: Observer,
        missing: Mapping[str, str] | None = None,
        crew: Crew | None = None,
    ) -> None:
        self._scenario = scenario
        self._models = models
        self._missing = missing or {}
        self._client_for = client_for
        self._clock = clock
        self._health = health
        self._observer = observer
        self._crew = crew
        self._level: Level | CrewLevel | None = None
        self._scope = anyio.CancelScope()
        self.stopped = False

    async def run(self) -> None:
        """Run every level of every model; raises `TargetUnavailable` if no model at all could be tested."""
        with self._scope:
            await self._run()

    async def _run(self) -> None:
        reasons = []
        tested = 0
        for model in self._models:
            if self.stopped:
                return
            try:
                await self._test(model, first_level=tested * len(self._scenario.loads))
                tested += 1
            except TargetUnavailable as error:
                reasons.append(f"{model}: {error}")
                self._observer.model_failed(model, str(error))
        if not tested:
            raise TargetUnavailable("; ".join(reasons), hint="see `loadbench doctor`")

    async def _test(self, model: str, *, first_level: int) -> None:
        if model in self._missing:
            raise TargetUnavailable(self._missing[model])
        client = self._client_for(model)
        calibration = await self._warm(client)
        for position, load in enumerate(self._scenario.loads):
            if self.stopped:
                return
            number = first_level + position
            self._level = self._make_level(load, client, calibration, model=model, number=number)
            self._observer.level_begins(self._level, model, number)
            try:
                recording = await self._level.run()
            finally:
                self._level = None
            self._observer.level_ended(recording, model, load)

    async def _warm(self, client: Client) -> Calibration | None:
        """The first answers of a model: proof that it works, and what its tokens are like."""
        prompts = prompt_source(self._scenario.work, key="first", calibration=None)
        probes = prompts.calibration_prompts()
        samples = [await first_answer(client, self._clock, prompt=probe.text, max_tokens=8) for probe in probes]
        return prompts.calibrated([sample.input_tokens for sample in samples])

    def _make_level(
        self, load: Load, client: Client, calibration: Calibration | None, *, model: str, number: int
    ) -> Level | CrewLevel:
        key = f"{model}/{number}"

        def on_sample(sample: Sample) -> None:
            self._observer.sample_ended(sample, number)

        if self._crew is not None:
            return self._crew.level(
                load, model=model, key=key, calibration=calibration, clock=self._clock, on_sample=on_sample
            )
        return Level(
            level_plan(self._scenario, load, key=key, calibration=calibration),
            client=client,
            clock=self._clock,
            health=self._health(),
            on_sample=on_sample,
        )

    def stop(self) -> None:
        """End the level under way, keeping what it measured, and start no other. Twice: cut its requests too."""
        self.stopped = True
        if self._level is not None:
            self._level.stop()
        else:
            self._scope.cancel()
