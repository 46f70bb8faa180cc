"""How much time is left of a run: of the level that runs, and of those to come.

The plan says how long a level measures. What it does not say is learned as the run goes: how long responses take at a
load, by which warm-up, window and drain of a level to come are estimated, and what passes between two levels and before
a model's first.

Some of it nobody can know: with n times the users a response takes n times as long on a server that is full, and as
long as before on one that is not; a sweep that finds its levels itself ends where throughput stops growing. So the time
left has two ends, which are close together where these do not matter, and come together as the run goes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from loadbench.core.units import NS_PER_S
from loadbench.engine.level_length import open_window_ns
from loadbench.engine.sweep import LastLevel, level_duration, share_ns
from loadbench.plan.load import Closed, Open, answers_wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.engine.observers import RunningLevel
    from loadbench.plan.load import Load
    from loadbench.plan.scenario import Scenario
    from loadbench.record.recorder import LevelRecording

# From one level's last response to the next one's first request, until one was seen.
_USUAL_GAP_NS = 300_000_000
# Fewer responses say little about how long they take.
_FEW = 5
# A gain in throughput that counts, and one that is none by chance.
_WORTHWHILE, _BY_CHANCE = 0.05, 0.15
# Of the growth of response times between the last two loads, what may be left of it at the next.
_KEPT_GROWTH = 0.5
# The doublings of a sweep that finds its levels end when the users are this many times those at the knee.
_BEYOND = 4


class Left(NamedTuple):
    """The time left of a run, from the least to the most that it can be; with `at_most` nobody knows the least."""

    ns: int
    least_ns: int
    at_most: bool = False

    @property
    def span_ns(self) -> tuple[int, int]:
        """What is worth showing: twice the middle, where the ends are so close that it is right within an eighth."""
        middle = (self.least_ns + self.ns) // 2
        return (middle, middle) if self.ns - self.least_ns <= middle // 4 else (self.least_ns, self.ns)


class _Response(NamedTuple):
    """How long responses take at a load: the mean, and the 95th percentile, in ns."""

    mean_ns: float
    p95_ns: float


class PlannedLevel(NamedTuple):
    """A level to come: of which model, or of which side of a comparison; whether that side is started before it."""

    model: str
    load: Load
    after_start: bool = False


@dataclass(slots=True)
class _Pause:
    """What passes before a level: the pauses that were seen, and what is assumed until then."""

    seen: list[int]
    usual_ns: int

    @property
    def ns(self) -> int:
        return round(fmean(self.seen)) if self.seen else self.usual_ns


class RunTime:
    """The time left of one run. `to_come` are its levels; `most_ns` what all levels together may take at most.

    A sweep that finds its levels itself has none in `to_come` but a model's first, and `most_users`. `may_end_early`: a
    run that ends as soon as it knows enough. `settle_ns` is the rest before each level, `budget_ns` the time after
    which no level begins. With `in_order` a model's levels come after those of the model before, else by turns.
    """

    def __init__(
        self,
        scenario: Scenario,
        to_come: Sequence[PlannedLevel],
        *,
        now_ns: Callable[[], int],
        most_ns: int | None = None,
        most_users: int = 0,
        settle_ns: int = 0,
        may_end_early: bool = False,
        budget_ns: int | None = None,
        in_order: bool = True,
    ) -> None:
        self._scenario = scenario
        self._to_come = list(to_come)
        self._now_ns = now_ns
        self._most_ns = most_ns
        self._most_users = most_users
        self._may_end_early = may_end_early
        self._in_order = in_order
        self._budget_ns = budget_ns
        self.then_ns: Callable[[int], int] = lambda _: 0
        self._spent_ns = 0  # in warm-ups and windows
        self._began_ns = self._ended_ns = now_ns()
        self._gap = _Pause([], settle_ns + _USUAL_GAP_NS)
        self._model_gap = _Pause([], 0)
        self._start_gap = _Pause([], 0)  # with the start of a side
        self._starts: list[int] = []
        self._model = ""
        self._responses: dict[tuple[str, float], _Response] = {}
        self._curve: list[tuple[int, float]] = []  # users, and output tokens/s, of this model's levels
        self._running: PlannedLevel | None = None
        self._is_full = False
        self._first_done: tuple[int, int] | None = None  # of the running level: when some had ended, and how many

    # What it is told.

    def responded(self, model: str, response_ns: int) -> None:
        """A model has responded with no other load."""
        self._responses.setdefault((model, 1.0), _Response(response_ns, response_ns))

    def level_begins(self, level: PlannedLevel, begin_ns: int) -> None:
        """A level begins: those of an earlier model that were to come do not any more."""
        pause_ns = max(0, begin_ns - self._ended_ns)
        label = level.load.label  # a trace is not compared with another
        same = next((one for one in self._to_come if (one.model, one.load.label) == (level.model, label)), None)
        if same is not None and same.after_start:
            # Before the first level both sides were prepared, which is more than a start.
            self._start_gap.seen += [pause_ns] * bool(self._model)
        elif level.model == self._model or not self._in_order:
            self._gap.seen.append(pause_ns)
        else:
            self._model_gap.seen.append(pause_ns)
            self._curve = []
        if same is not None:
            self._to_come.remove(same)
        models = [one.model for one in self._to_come]
        if self._in_order and level.model in models:
            del self._to_come[: models.index(level.model)]
        self._model, self._running, self._first_done = level.model, level, None

    def level_ended(self, recording: LevelRecording) -> None:
        """The level is over."""
        self._ended_ns = self._now_ns()
        level, self._running = self._running, None
        self._spent_ns += recording.warm_up_ns + recording.window[1] - recording.window[0]
        if level is None:
            return
        e2e = recording.histograms["e2e_response"]
        mean_ns, p95_ns = e2e.mean, e2e.percentile(95)
        if mean_ns is not None and p95_ns is not None:
            self._responses[level.model, _amount(level.load)] = _Response(mean_ns, p95_ns)
        if isinstance(level.load, Closed):
            per_slice = recording.tokens_by_slice
            self._curve.append((level.load.users, fmean(per_slice) / recording.slice_ns if per_slice else 0.0))
        if recording.aborted and self._in_order:
            self._to_come = [one for one in self._to_come if one.model != level.model]

    def started(self, took_ns: int) -> None:
        """A side of a comparison was started, which took so long; before the first level that is all that is known."""
        if not self._model:
            self._starts.append(took_ns)
            self._start_gap.usual_ns = round(fmean(self._starts)) + self._gap.usual_ns

    def model_failed(self, model: str) -> None:
        """A model cannot be tested."""
        self._to_come = [one for one in self._to_come if one.model != model]

    # What it says.

    def left(self, level: RunningLevel | None) -> Left | None:
        """The time left now; `None` where nothing is known yet."""
        now_ns, running = self._now_ns(), self._running
        if level is not None and running is not None:
            self._watch(level, running, now_ns)
        if not self._responses:
            return None
        sums = []
        for is_full, coming in enumerate(self._coming()):
            self._is_full = bool(is_full)
            left_ns, most_ns = 0, None if self._most_ns is None else self._most_ns - self._spent_ns
            waited_ns = now_ns - self._ended_ns
            if level is not None and running is not None:
                ends_ns, drain_ns = self._ends_ns(level, running, now_ns), self._drain_ns(running)
                if now_ns > ends_ns:  # what is still in flight is anywhere in its response
                    in_flight_ns = (
                        self._response(running.model, running.load).p95_ns * level.in_flight / (level.in_flight + 1)
                    )
                    drain_ns = round(min(max(0, drain_ns - (now_ns - ends_ns)), in_flight_ns))
                left_ns, waited_ns = max(ends_ns - now_ns, 0) + drain_ns, 0
                most_ns = None if most_ns is None else most_ns - (ends_ns - level.begin_ns)
            model, least_ns = self._model, self._scenario.extent.warm_up_ns + (self._scenario.extent.duration_ns or 0)
            for place, planned in enumerate(coming):
                if self._most_users and most_ns is not None and most_ns < least_ns:
                    break
                pause_ns = self._start_gap.ns if planned.after_start else self._gap.ns
                if planned.model != model and self._in_order:
                    pause_ns, model = self._model_gap.ns or self._gap.ns, planned.model
                left_ns += max(0, pause_ns - waited_ns)
                waited_ns = 0
                length_ns = self._length_ns(planned)
                if most_ns is not None:
                    length_ns = min(length_ns, max(least_ns, share_ns(most_ns, len(coming) - place, least_ns)))
                    most_ns -= length_ns
                left_ns += length_ns + self._scenario.extent.cool_down_ns + self._drain_ns(planned)
            if self._budget_ns is not None:  # a repeat begins only if there is time for all of it
                left_ns = min(left_ns, max(0, self._budget_ns - (now_ns - self._began_ns)))
            sums.append(round(left_ns + self.then_ns(round(now_ns - self._began_ns + left_ns))))
        return Left(max(sums), min(sums), at_most=self._may_end_early)

    def _watch(self, level: RunningLevel, running: PlannedLevel, now_ns: int) -> None:
        """Learn from the running level how long responses take."""
        soon, key, self._is_full = level.so_far(), (running.model, _amount(running.load)), False
        if soon.requests >= 2 * _FEW and soon.e2e_mean is not None and soon.e2e_p95 is not None:
            self._responses[key] = _Response(soon.e2e_mean, soon.e2e_p95)
            return
        if self._first_done is None:
            self._first_done = (now_ns, level.done) if level.done else None
            before = self._response(running.model, running.load)
            if not level.done and before.mean_ns < now_ns - level.begin_ns:
                # None has come though it should have.
                self._responses[key] = _Response(now_ns - level.begin_ns, now_ns - level.begin_ns)
            return
        since_ns, done = now_ns - self._first_done[0], level.done - self._first_done[1]
        if isinstance(running.load, Closed) and running.load.think is None and done >= max(_FEW, running.load.users):
            mean_ns = running.load.users * since_ns / done  # Little's law
            self._responses[key] = _Response(mean_ns, 1.2 * mean_ns)

    def _ends_ns(self, level: RunningLevel, running: PlannedLevel, now_ns: int) -> int:
        """When the load of the running level is likely to end."""
        duration, left = level.duration, level.measured_left
        closes_ns = level.expected_closes_ns()
        if closes_ns is not None:
            return closes_ns + (duration.cool_down_ns if duration.requests is None else 0)
        if left is not None and self._first_done is not None:
            since_ns, done = now_ns - self._first_done[0], level.done - self._first_done[1]
            if done >= max(_FEW, running.load.users if isinstance(running.load, Closed) else 0):
                return round(max(now_ns, level.phases.opens_ns) + since_ns * left / done)
        length_ns = self._length_ns(running)
        if duration.most_ns is not None:  # its share of the time for all levels, which it is given as it begins
            length_ns = min(length_ns, duration.most_ns)
        return max(level.begin_ns + length_ns + duration.cool_down_ns, now_ns)

    def _coming(self) -> list[list[PlannedLevel]]:
        """The levels to come, at least and at most: a sweep that finds its levels itself needs fewer or more."""
        if not self._most_users or not self._model:
            return [self._to_come, self._to_come]
        think, curve = self._scenario.think, list(self._curve)
        users, rates = [one for one, _ in curve], [rate for _, rate in curve]
        top = users[-1] if users else 1
        if self._running is not None and isinstance(self._running.load, Closed):
            top = self._running.load.users
        others = [one.model for one in self._to_come if one.model != self._model]
        if users and top < max(users):  # the last one is between two that were measured
            ladders: list[list[Closed]] = [[], []]
        else:
            # Two doublings beyond the knee show that nothing is gained there.
            knee = next((at for at, rate in curve if max(rates) <= (1 + _BY_CHANCE) * rate), top)
            least = min(self._most_users, _BEYOND * knee)
            tried = [*rates, 0.0] if top > max(users, default=0) else rates
            if len(tried) > 2 and max(tried[-2:]) <= (1 + _WORTHWHILE) * max(tried[:-2]):
                least = top  # two doublings in a row without a gain are the last
            is_flat = len(rates) > 1 and rates[-1] <= (1 + _WORTHWHILE) * max(rates[:-1])
            most = min(self._most_users, 2 * max(users[-1], top) if is_flat else self._most_users)
            ladders = [
                [Closed(2**power, think) for power in range(1, end.bit_length()) if 2**power > top]
                for end in (least, most)
            ]
            ladders[1].append(Closed(max(1, 3 * knee // 4), think))
        whole = [[*(Closed(at, think) for at in users), *ladder] for ladder in ladders]
        return [
            [
                *(PlannedLevel(self._model, load) for load in ladder),
                *(PlannedLevel(model, load) for model in others for load in of_another),
            ]
            for ladder, of_another in zip(ladders, whole, strict=True)
        ]

    def _length_ns(self, planned: PlannedLevel) -> int:
        """Warm-up and window of a level to come."""
        scenario, model, load = self._scenario, planned.model, planned.load
        duration, response = scenario.extent, self._response(model, load)
        think_ns = load.think.mean if isinstance(load, Closed) and load.think is not None else 0.0
        cycle_ns = response.mean_ns + think_ns
        warm_up_ns = duration.warm_up_ns
        if scenario.waits_for_first_responses and isinstance(load, Closed):
            warm_up_ns = max(warm_up_ns, round(1.25 * response.p95_ns))
        elif scenario.load.warm_up is None:
            warm_up_ns = level_duration(scenario, load, LastLevel(round(response.p95_ns), load)).warm_up_ns
        if duration.requests is not None:
            pace_ns = NS_PER_S / load.rate_per_s if isinstance(load, Open) else cycle_ns / load.users
            return round(warm_up_ns + duration.requests * pace_ns)
        window_ns = duration.duration_ns or 0
        if isinstance(load, Open) and load.arrivals.request_count:
            window_ns = min(window_ns, round(load.arrivals.request_count / load.rate_per_s * NS_PER_S))
        if scenario.waits_for_answers:
            if isinstance(load, Open):
                window_ns = max(window_ns, open_window_ns(load))
            else:
                window_ns = max(window_ns, round(math.ceil(1.25 * answers_wanted(load) / load.users) * cycle_ns))
        return warm_up_ns + window_ns

    def _drain_ns(self, planned: PlannedLevel) -> int:
        """From a load's end to its last response: of n requests in flight, which are anywhere in theirs, the latest."""
        (mean_ns, p95_ns), load = self._response(planned.model, planned.load), planned.load
        if isinstance(load, Open):
            in_flight = load.rate_per_s * mean_ns / NS_PER_S
        else:
            think_ns = 0.0 if load.think is None else load.think.mean
            in_flight = load.users * mean_ns / max(1.0, mean_ns + think_ns)
        # The latest of many is one of the long ones.
        longest_ns = mean_ns + (p95_ns - mean_ns) * in_flight / (in_flight + 20)
        return min(self._scenario.extent.drain_ns, round(longest_ns * in_flight / (in_flight + 1)))

    def _response(self, model: str, load: Load) -> _Response:
        """How long responses of a model take at a load; at more users than were measured, by whether the server is
        full."""
        amount = _amount(load)
        own = {at: seen for (of, at), seen in self._responses.items() if of == model}
        if amount in own:
            return own[amount]
        models = {of: {at for other, at in self._responses if other == of} for of, _ in self._responses}
        other = max(models, key=lambda of: max(models[of]), default=None)
        if other is None:
            return _Response(0.0, 0.0)
        if max(models[other]) > max(own, default=0.0):
            # Another model was measured at more: this one is slower than that by as much as where both were measured.
            theirs = self._response(other, load)
            shared = max((at for at in own if at in models[other]), default=None)
            times = 1.0
            if shared is not None:
                times = own[shared].mean_ns / max(1.0, self._responses[other, shared].mean_ns)
            return _Response(theirs.mean_ns * times, theirs.p95_ns * times)
        lower = [at for at in sorted(own) if at < amount]
        if not lower:
            return own[min(own)]
        last, growth = own[lower[-1]], float(self._is_full)
        if isinstance(load, Open):
            growth = 0.0
        elif len(lower) > 1 and not self._is_full:
            ratio = math.log(max(1.0, last.mean_ns) / max(1.0, own[lower[-2]].mean_ns))
            growth = _KEPT_GROWTH * min(1.0, max(0.0, ratio / math.log(lower[-1] / lower[-2])))
        times = (amount / lower[-1]) ** growth
        return _Response(last.mean_ns * times, last.p95_ns * times)


def _amount(load: Load) -> float:
    return load.rate_per_s if isinstance(load, Open) else float(load.users)
