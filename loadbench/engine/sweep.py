"""The sweep: every model at every load, one level after another.

A model that does not respond is marked as failed and the others go on. Each level's recording is handed to the observer
as soon as it is complete, so that it can be saved before the next level begins. Stopped, the sweep ends with the level
that is running.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import anyio

from loadbench.core.alongside import run_alongside
from loadbench.core.errors import TargetEnded, TargetUnavailable
from loadbench.core.units import NS_PER_S
from loadbench.engine.keep_warm import KeepWarm
from loadbench.engine.level import LevelSpec
from loadbench.engine.level_length import open_window_ns
from loadbench.engine.level_runner import LevelRunner
from loadbench.engine.target import first_contact, prepare_model
from loadbench.plan.load import Closed, Open, answers_wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from loadbench.engine.observers import RunObserver
    from loadbench.engine.target import Contact, ModelUnderTest, TargetSession
    from loadbench.plan.load import LevelDuration, Load
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import LevelRecording

# Of the time that a response is expected to take: some take longer.
_WARM_UP_SHARE = 1.25
# Where responses take longer than this, the user should say how long to warm up.
_LONGEST_WARM_UP_NS = 120 * NS_PER_S
# An open loop's warm-up with the responses that it waits for, in warm-ups, and room for a window that has to go on.
_WARM_UPS_OPEN = 3
# Where a sweep finds its levels itself, so many more are reckoned with at most, when the time that is left is shared.
_EXPECTED_LEVELS = 4


class LastLevel(NamedTuple):
    """The level before, by which the next one's warm-up is estimated; before the first one, a single request."""

    response_ns: int
    load: Load = Closed(1)

    def then(self, load: Load, recording: LevelRecording) -> LastLevel:
        """After this level; the response time is its 95th percentile."""
        return LastLevel(recording.histograms["e2e_response"].percentile(95) or self.response_ns, load)


class EarlierLevels(NamedTuple):
    """What a sweep that is resumed has already, by model: its last level, the number of its levels, and whether it
    needs no other. `spent_ns` is the time of all windows."""

    last: Mapping[str, LastLevel] = {}
    counts: Mapping[str, int] = {}
    complete: Container[str] = ()
    spent_ns: int = 0


def level_duration(scenario: Scenario, load: Load, last: LastLevel) -> LevelDuration:
    """How long a level lasts. Where no warm-up is set it is a whole response, so that every user has had one.

    How long a response will take is not known; with n times the users it takes at most about n times as long.
    """
    duration = scenario.extent
    if scenario.load.warm_up is not None:
        return duration
    growth = load.users / last.load.users if isinstance(load, Closed) and isinstance(last.load, Closed) else 1.0
    expected_ns = round(_WARM_UP_SHARE * max(1.0, growth) * last.response_ns)
    return replace(duration, warm_up_ns=max(duration.warm_up_ns, min(expected_ns, _LONGEST_WARM_UP_NS)))


def sweep_duration(scenario: Scenario, load: Load, last: LastLevel, *, most_ns: int) -> LevelDuration:
    """How long a level of a sweep lasts, `most_ns` being its share of the time for all levels.

    What nobody set is decided by the responses (`loadbench.engine.level_length`); the drain is long enough for those
    that the level before makes expected.
    """
    expected = level_duration(scenario, load, last)
    duration = scenario.extent
    if not scenario.is_set("load.drain"):
        duration = replace(duration, drain_ns=max(duration.drain_ns, expected.warm_up_ns))
    if not scenario.waits_for_first_responses or isinstance(load, Open):
        # Of few arrivals none may come in the first two seconds.
        duration = replace(duration, warm_up_ns=expected.warm_up_ns)
    if scenario.waits_for_answers:
        most_ns = max(most_ns, duration.warm_up_ns + (duration.duration_ns or 0))
        duration = replace(duration, answers=answers_wanted(load), most_ns=most_ns)
    if scenario.waits_for_first_responses:
        longest_ns = _LONGEST_WARM_UP_NS if duration.most_ns is None else most_ns // 2
        duration = replace(duration, most_warm_up_ns=max(duration.warm_up_ns, longest_ns))
    return duration


def share_ns(left_ns: int, levels: int, least_ns: int) -> int:
    """Of the time that is left for so many levels, what the next one may take: up to twice an equal share, since most
    need less than theirs, and what leaves the others their least.
    """
    return max(least_ns, min(left_ns - (levels - 1) * least_ns, 2 * left_ns // (levels + 1)))


def open_share_ns(left_ns: int, needed_ns: Sequence[int], least_ns: int) -> int:
    """What the first of several open loops, which need so long each, may take of the time that is left.

    Max-min fairness: whoever needs less than an equal share gets that, and the others share the rest evenly. A rate
    that is too low for any share takes nothing from those that can have enough.
    """
    rest_ns, equal_ns = left_ns, left_ns // len(needed_ns)
    for served, needed in enumerate(sorted(needed_ns)):
        most_ns = rest_ns // (len(needed_ns) - served)
        if needed > most_ns:
            break
        rest_ns -= needed
        most_ns = max(needed, most_ns)
    # By chance it may take longer than it should: an equal share is its own in any case.
    return max(least_ns, equal_ns, min(needed_ns[0], most_ns))


class Sweep:
    """One sweep, run once. `missing` has, by model, why it cannot be tested. `next_users` is asked for the users of a
    model's next level where the sweep finds its levels itself; `None` ends them. `earlier` is what it continues from.
    """

    def __init__(
        self,
        scenario: Scenario,
        session: TargetSession,
        *,
        models: Sequence[str],
        observer: RunObserver,
        missing: Mapping[str, str] | None = None,
        next_users: Callable[[str], int | None] | None = None,
        earlier: EarlierLevels | None = None,
    ) -> None:
        self.stopped = False
        self._scenario = scenario
        self._session = session
        self._models = models
        self._missing = missing or {}
        self._observer = observer
        self._runner = LevelRunner(scenario, session, observer)
        self._scope = anyio.CancelScope()
        self._next_users = next_users
        self._earlier = earlier = earlier or EarlierLevels()
        self._spent_ns = earlier.spent_ns  # in warm-ups and windows
        self._number = sum(earlier.counts.values())  # of the next level

    async def run(self) -> None:
        """Run every level of every model; raises `TargetUnavailable` if no model at all could be tested."""
        failed: list[tuple[str, TargetUnavailable]] = []
        tested = 0
        with self._scope:
            contacts = await self._contact_all()
            for model in self._models:
                if self.stopped:
                    return
                try:
                    if model not in self._earlier.complete:
                        await self._test(model, contacts)
                    tested += 1
                except TargetEnded as error:
                    # What was measured is kept, and nothing else can be.
                    for rest in self._models[self._models.index(model) :]:
                        self._observer.model_failed(rest, str(error))
                    if tested or self._number:
                        return
                    raise
                except TargetUnavailable as error:
                    failed.append((model, error))
                    self._observer.model_failed(model, str(error))
            if not tested:
                hint = "see `loadbench doctor`"
                if len(failed) == 1:
                    ((only, reason),) = failed
                    raise TargetUnavailable(f"{only}: {reason.message}", hint=reason.hint or hint)
                raise TargetUnavailable("; ".join(f"{name}: {reason}" for name, reason in failed), hint=hint)

    async def _contact_all(self) -> dict[str, Contact | TargetUnavailable]:
        """The first responses of every model, or why there are none.

        What one model refuses, no level of any other may have sent, so all are asked before the first level. A single
        model is asked when its turn comes, and so are those that are loaded one in place of another.
        """
        known = self._earlier.complete
        models = [model for model in self._models if model not in self._missing and model not in known]
        contacts: dict[str, Contact | TargetUnavailable] = {}
        for model in models if len(models) > 1 and not self._session.swaps_models else ():
            try:
                contacts[model] = await first_contact(self._session, model, self._scenario)
            except TargetUnavailable as error:
                contacts[model] = error
        return contacts

    async def _test(self, model: str, contacts: Mapping[str, Contact | TargetUnavailable]) -> None:
        if model in self._missing:
            raise TargetUnavailable(self._missing[model])
        contact = contacts.get(model)
        if isinstance(contact, TargetUnavailable):
            raise contact
        subject = await prepare_model(self._session, model, self._scenario, contact)
        keep_warm = None
        if self._scenario.load.keep_warm is not None:
            runner, every_ns = self._runner, self._scenario.load.keep_warm
            keep_warm = subject.keep_warm = KeepWarm(
                subject.client,
                self._session.clock,
                every_ns=every_ns,
                busy=lambda: runner.level is not None and runner.level.in_flight > 0,
            )
        self._observer.model_prepared(subject)
        levels = partial(self._levels, subject)
        await (levels() if keep_warm is None else run_alongside(levels, keep_warm.keep))

    async def _levels(self, subject: ModelUnderTest) -> None:
        last, scenario = self._earlier.last.get(subject.model, LastLevel(subject.response_ns)), self._scenario
        loads = list(scenario.loads)[self._earlier.counts.get(subject.model, 0) :]
        least_ns = scenario.extent.warm_up_ns + (scenario.extent.duration_ns or 0)
        models = len(self._models) - self._models.index(subject.model)
        left_ns = (scenario.load.max_total - self._spent_ns) // models
        while loads and not self.stopped:
            load = loads.pop(0)
            levels = 1 + len(loads)
            if self._next_users is not None:
                users = self._next_users(subject.model)
                if users is None or (scenario.waits_for_answers and left_ns < least_ns):
                    return
                load, levels = Closed(users, scenario.think), min(levels, _EXPECTED_LEVELS)
            number, self._number = self._number, self._number + 1
            most_ns = share_ns(left_ns, levels, least_ns)
            if isinstance(load, Open):
                warm_up_ns = _WARM_UPS_OPEN * level_duration(scenario, load, last).warm_up_ns
                lasts_ns = scenario.extent.duration_ns or 0
                needed = [max(lasts_ns, open_window_ns(one)) for one in (load, *loads) if isinstance(one, Open)]
                most_ns = open_share_ns(left_ns, [warm_up_ns + one for one in needed], least_ns)
            spec = LevelSpec(
                load=load,
                key=f"{subject.model}/{number}",
                calibration=subject.calibration,
                further=subject.further,
                duration=sweep_duration(scenario, load, last, most_ns=most_ns),
            )
            recording = await self._runner.run(subject, spec, number=number, is_last=not loads)
            took_ns = recording.warm_up_ns + recording.window[1] - recording.window[0]
            self._spent_ns += took_ns
            left_ns -= took_ns
            if recording.aborted:
                return
            last = last.then(load, recording)

    def stop(self) -> None:
        """End the level that is running, keep what it measured, and start no other. Twice: cut its requests too."""
        self.stopped = True
        self._runner.stop(self._scope)
