"""What is measured, as the engine sees it: a session with a target, and a model of it that has responded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from loadbench.core.errors import TargetUnavailable
from loadbench.plan.distribution import Constant
from loadbench.plan.prompt_source import prompt_source
from loadbench.plan.prompts import BLOCK, Prompt
from loadbench.plan.settings import DEFAULT_INPUT_TOKENS
from loadbench.record.request import ONLY_DESTINATION
from loadbench.targets.openai import first_response

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock
    from loadbench.engine.health import HealthProbe
    from loadbench.engine.keep_warm import KeepWarm
    from loadbench.engine.worker_pool import WorkerPool
    from loadbench.plan.prompts import Calibration
    from loadbench.plan.scenario import Scenario
    from loadbench.record.request import Destination
    from loadbench.record.sample import Sample

# Prompts by which a length is corrected: the first shows the error, and one or two more a nearer one.
_MOST_CORRECTIONS = 3


class WatchedServer(Protocol):
    """A server that was started for this run, and may end by itself."""

    @property
    def why_ended(self) -> str:
        """How it ended; empty while it runs."""
        ...

    async def until_ended(self) -> None:
        """Wait until it has ended by itself."""
        ...

    async def look(self) -> None:
        """Notice an end that nobody reports, as that of a server which something else starts again."""
        ...

    async def raise_if_ended(self, *, soon: bool = False) -> None:
        """Raise `TargetEnded` if it has; `soon` leaves a moment for that to be known."""
        ...


class TargetSession(Protocol):
    """A target and what measures it, for the length of a run."""

    @property
    def clock(self) -> Clock:
        """The run's clock."""
        ...

    @property
    def mix(self) -> tuple[str, ...]:
        """The models of a mix, as requests name them; empty if one model is tested at a time."""
        ...

    @property
    def server(self) -> WatchedServer | None:
        """The server, where it was started for this run."""
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

    async def counters(self) -> Sequence[Mapping[str, float]] | None:
        """The own counters of each server; `None` unless all have some."""
        ...

    async def ready(self, model: str) -> None:
        """See that the model is loaded, before anything is sent to it; raises `TargetUnavailable` where it is not."""
        ...

    @property
    def swaps_models(self) -> bool:
        """Whether `ready` loads a model in place of another, so that models are used one after the other."""
        ...

    async def exact_lengths(self, model: str, destination: Destination = ONLY_DESTINATION) -> Sample | None:
        """Where responses of exact lengths are wanted, find out how; returns the first response that shows it."""
        ...

    async def first_response(
        self, model: str, *, prompt: Prompt, max_tokens: int, destination: Destination = ONLY_DESTINATION
    ) -> Sample:
        """The response to a request, which is adapted to what the server accepts; so are all clients made after it.

        Raises `TargetUnavailable` where there is none.
        """
        ...

    async def settled(self, closes_ns: int) -> None:
        """Wait until all that is sampled alongside a level is known, up to the moment at which its window closed."""
        ...


@dataclass(slots=True)
class ModelUnderTest:
    """A model that has responded, or a mix of them under one name. `samples` are its first responses, `calibration`
    what they show of its tokens.

    `cold` is the very first of all, which may be that of a trial. `warm` is the response to another prompt of the same
    length, for its first token alone; `None` where that failed. Of a mix these are about its first model; `further` has
    the calibrations of the others.
    """

    model: str
    client: Client
    calibration: Calibration | None
    samples: list[Sample]
    cold: Sample
    warm: Sample | None = None
    keep_warm: KeepWarm | None = None
    further: tuple[Calibration | None, ...] = ()

    @property
    def response_ns(self) -> int:
        """How long a response takes with no other load, as far as the first ones show."""
        return self.samples[-1].end_ns - self.samples[-1].due_ns


class Contact(NamedTuple):
    """The very first response of a model, which may be that of a trial, and those to its first prompts."""

    cold: Sample
    responses: list[Sample]


async def first_contact(session: TargetSession, model: str, scenario: Scenario) -> Contact:
    """Load the model where that is needed, and send requests until the server accepts them.

    Raises `TargetUnavailable` where it does not respond.
    """
    await session.ready(model)
    destination = session.client(model).destinations[0]
    trial = await session.exact_lengths(model, destination)
    prompts = prompt_source(scenario.work, key="first", calibration=None).calibration_prompts()
    responses = await _respond(session, model, prompts, scenario, destination)
    return Contact(trial or responses[0], responses)


async def prepare_model(
    session: TargetSession, model: str, scenario: Scenario, contact: Contact | None = None
) -> ModelUnderTest:
    """Get a model's first responses: proof that it works, what its tokens are like, how long a response takes, and how
    long the first token takes cold and warm. `contact` is what `first_contact` returned, if it was called before.

    Raises `TargetUnavailable` where the model does not respond.
    """
    contact = contact or await first_contact(session, model, scenario)
    work = scenario.work
    prompts = prompt_source(work, key="first", calibration=None)
    first = prompts.calibration_prompts()
    client = session.client(model)
    # A mix's other models are calibrated too; where further servers have the same model, one response shows it works.
    servers = len(scenario.target.url or ()) or 1
    samples = contact.responses
    calibration = prompts.calibrate([sample.input_tokens for sample in samples])
    calibrations = [await _corrected(client, calibration, scenario, client.destinations[0])]
    for number, destination in enumerate(client.destinations[1:], 1):
        await session.exact_lengths(model, destination)
        of_model = number % servers == 0
        responses = await _respond(session, model, first if of_model else first[:1], scenario, destination)
        if of_model:
            calibration = prompts.calibrate([sample.input_tokens for sample in responses])
            calibrations.append(await _corrected(client, calibration, scenario, destination))
    client = session.client(model)

    # Another prompt, so that no prefix is cached.
    again = prompt_source(work, key="again", calibration=None).calibration_prompts()[0]
    if again == first[0] and work.unique and not again.messages:
        # A calibration's words are the same for all, and mean nothing.
        again = Prompt(" ".join(reversed(again.text.split())))
    try:
        warm = await first_response(client, prompt=again, max_tokens=1, destination=client.destinations[0])
    except TargetUnavailable:
        # The model has responded before; a single token that shows no text, say, is no reason to leave it out.
        warm = None
    return ModelUnderTest(
        model, client, calibrations[0], samples, cold=contact.cold, warm=warm, further=tuple(calibrations[1:])
    )


async def _corrected(
    client: Client, calibration: Calibration | None, scenario: Scenario, destination: Destination
) -> Calibration | None:
    """The calibration, corrected by prompts of the requested length where all have the same one.

    Words may differ in their tokens, so that a calibration by other lengths is some tokens off. This is not corrected
    while a level runs: its requests would not be alike.
    """
    work = scenario.work
    lengths = work.input_tokens or Constant(DEFAULT_INPUT_TOKENS)
    generated = work.prompt is None and work.prompts is None and work.cast is None
    if not generated or scenario.load.trace is not None or not isinstance(lengths, Constant):
        return calibration
    for attempt in range(_MOST_CORRECTIONS):
        if calibration is None or calibration.foreign or calibration.tokens_per_word == 1.0:  # each word is one token
            break
        prompt = prompt_source(work, key=f"length {attempt}", calibration=calibration).next(0, None)
        words = len(prompt.text.split())
        if words in dict(calibration.known) or words % BLOCK == 0:  # whole blocks are on the calibration's line
            break
        try:
            sample = await first_response(client, prompt=prompt, max_tokens=1, destination=destination)
        except TargetUnavailable:
            break
        if sample.input_tokens is None:
            break
        calibration = calibration._replace(known=(*calibration.known, (words, sample.input_tokens)))
    return calibration


async def _respond(
    session: TargetSession, model: str, prompts: Sequence[Prompt], scenario: Scenario, destination: Destination
) -> list[Sample]:
    """The responses to the first prompts; raises `TargetUnavailable` with the name of what does not respond.

    Only the first has to succeed among those with fields of their own: the load will show how many fail.
    """
    responses: list[Sample] = []
    for prompt in prompts:
        max_tokens = prompt.output_tokens or scenario.work.max_tokens
        try:
            responses.append(
                await session.first_response(model, prompt=prompt, max_tokens=max_tokens, destination=destination)
            )
        except TargetUnavailable as error:
            if responses and (prompt.fields or prompt.extra):
                continue
            where = " at ".join(filter(None, (destination.model, destination.server)))
            error.message = f"{where}: {error.message}" if where else error.message
            raise
    return responses
