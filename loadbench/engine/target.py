"""What is measured, as the engine sees it: a session with a target, and a model of it that has responded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from loadbench.core.errors import TargetUnavailable
from loadbench.plan.prompt_source import prompt_source
from loadbench.targets.openai import first_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock
    from loadbench.engine.health import HealthProbe
    from loadbench.engine.keep_warm import KeepWarm
    from loadbench.engine.workers import WorkerPool
    from loadbench.plan.prompts import Calibration
    from loadbench.plan.scenario import Scenario
    from loadbench.record.sample import Sample


class TargetSession(Protocol):
    """A target and what measures it, for the length of a run."""

    @property
    def clock(self) -> Clock:
        """The run's clock."""
        ...

    @property
    def workers(self) -> WorkerPool | None:
        """The worker processes that send the load; `None` where this process does."""
        ...

    def client(self, model: str) -> Client:
        """The client of a model."""
        ...

    def health(self) -> HealthProbe:
        """A probe of the load generator for one level."""
        ...

    async def counters(self) -> Mapping[str, float] | None:
        """The server's own counters; `None` where it has none."""
        ...

    async def ready(self, model: str) -> None:
        """See that the model is loaded, before anything is sent to it; raises `TargetUnavailable` where it is not."""
        ...

    async def settled(self, closes_ns: int) -> None:
        """Wait until all that is sampled alongside a level is known, up to the moment at which its window closed."""
        ...


@dataclass(slots=True)
class ModelUnderTest:
    """A model that has responded. `samples` are its first responses, `calibration` what they show of its tokens.

    `warm` is the response to another prompt of the same length, for its first token alone; `None` where that failed.
    """

    model: str
    client: Client
    calibration: Calibration | None
    samples: list[Sample]
    warm: Sample | None = None
    keep_warm: KeepWarm | None = None

    @property
    def response_ns(self) -> int:
        """How long a response takes with no other load, as far as the first ones show."""
        return self.samples[-1].end_ns - self.samples[-1].due_ns


async def prepare_model(session: TargetSession, model: str, scenario: Scenario) -> ModelUnderTest:
    """Load the model where that is needed, and get its first responses: proof that it works, what its tokens are like,
    how long a response takes, and how long the first token takes cold and warm.

    Raises `TargetUnavailable` where it does not respond.
    """
    await session.ready(model)
    client, work = session.client(model), scenario.work
    prompts = prompt_source(work, key="first", calibration=None)
    first = [prompt.text for prompt in prompts.calibration_prompts()]
    samples = [await first_response(client, prompt=text, max_tokens=work.max_tokens) for text in first]
    calibration = prompts.calibrate([sample.input_tokens for sample in samples])

    # Another prompt, so that no prefix is cached.
    again = prompt_source(work, key="again", calibration=None).calibration_prompts()[0].text
    if again == first[0] and work.unique:
        again = " ".join(reversed(first[0].split()))  # a calibration's words are the same for all, and mean nothing
    try:
        warm = await first_response(client, prompt=again, max_tokens=1)
    except TargetUnavailable:
        # The model has responded before; a single token that shows no text, say, is no reason to leave it out.
        warm = None
    return ModelUnderTest(model, client, calibration, samples, warm)
