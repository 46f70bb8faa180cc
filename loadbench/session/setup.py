"""One way to put a measurement together, for every command that talks to a server.

`check` refuses what cannot be measured before anything starts; a dry run calls it as well as the run. `open_session`
then has all that a measurement needs of one target: the server located and prepared, its models, the transport, worker
processes, telemetry, and the record of the environment. It closes them in order, whatever happens.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import signal
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import anyio

from loadbench.client.addresses import keep_addresses
from loadbench.client.descriptors import ensure_descriptors
from loadbench.client.local_ports import check_ports, check_sources
from loadbench.core import collector
from loadbench.core.alongside import run_alongside
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput
from loadbench.core.signals import ending_signals
from loadbench.core.units import format_duration
from loadbench.engine.health import LoopHealth
from loadbench.engine.worker_pool import Records, WorkerPool
from loadbench.engine.workers import workers_for
from loadbench.plan.cluster import MOST_LOCAL_NODES, is_loopback
from loadbench.plan.load import Open, Phase
from loadbench.plan.load_generator import MOST_PORTS, PORTS_OF_A_MACHINE, busiest_per_s, has_metrics, reads_requests
from loadbench.plan.prompt_source import data_set, prompt_source
from loadbench.plan.server_url import UNVERIFIED, origin_of, shown_url
from loadbench.plan.settings import settings
from loadbench.plan.sim_profile import profile_named
from loadbench.record.figures import MANY_A_REQUEST
from loadbench.record.request import ONLY_DESTINATION
from loadbench.report.values import byte_size, counted
from loadbench.results.ceiling import known_ceiling, sure_connections
from loadbench.results.environment import environment as describe_environment
from loadbench.results.environment import usable_cores
from loadbench.results.folder import RESULTS, check_folder, free_bytes
from loadbench.results.space import expected_bytes
from loadbench.session.consent import confirm_command, confirm_load
from loadbench.session.export import metrics_feed
from loadbench.session.telemetry import RunTelemetry
from loadbench.sim.process import SimProcess
from loadbench.targets import adapt
from loadbench.targets.adapters import make_adapter
from loadbench.targets.clients import make_client, make_transport
from loadbench.targets.discovery import locate
from loadbench.targets.openai import credentials
from loadbench.targets.prepare import prepare
from loadbench.targets.scrape import counters
from loadbench.targets.server_command import StartedServer, check_command, port_of, url_with
from loadbench.targets.server_version import server_infos
from loadbench.telemetry.sampler import check_pid, cores_in_use, is_local
from loadbench.wire.openai import Api
from loadbench.wire.translation import translated_fields, translated_messages

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from loadbench.client.client import Client
    from loadbench.core.clock import Clock
    from loadbench.live.metrics_feed import MetricsFeed
    from loadbench.plan.cluster import Cluster
    from loadbench.plan.prompts import Prompt
    from loadbench.plan.scenario import Scenario
    from loadbench.record.request import Destination
    from loadbench.record.sample import Sample
    from loadbench.results.run import ServerInfo
    from loadbench.targets.adapt import Connect
    from loadbench.targets.clients import MeasuringTransport
    from loadbench.targets.prepare import Prepared
    from loadbench.targets.target import Target

    Say = Callable[[str], None]

_log = logging.getLogger(__name__)


def _silent(_: str) -> None:
    """Say nothing."""


_IN_PROCESS = {"temperature", "seed"}  # the fields of a request that an adapter takes


def check(scenario: Scenario, environment: Mapping[str, str]) -> None:
    """Refuse what cannot be measured: every file, name, process and limit that can be checked without the server.

    Raises `BadInput`.
    """
    urls = scenario.target.url or ()
    if scenario.is_set("telemetry.server_pid") and urls:
        place = scenario.place("telemetry.server_pid")
        if len(urls) > 1:
            hint = "leave it out: the first server's process is found by its port"
            raise BadInput(f"{place}: names one process, and there are {len(urls)} servers", hint=hint)
        if not is_local(urls[0]):
            raise BadInput(f"{place}: has no effect: the server is on another machine", hint="leave it out")
    check_command(scenario, environment)
    try:
        if scenario.simulated:
            profile_named(scenario.target.profile)
        if scenario.target.adapter is not None:
            make_adapter(scenario.target.adapter)
        for url in urls or ("",):
            credentials(scenario, environment, url=url)
        prompt_source(scenario.work, key="check", calibration=None)
        check_data_set(scenario)
        check_sources(scenario.target.source_address, hosts=[origin_of(url)[1] for url in urls])
        check_pid(scenario.telemetry.server_pid)
        workers_for(scenario, usable_cores())
        if scenario.load.cluster is not None:
            from loadbench.cluster.connection import check_cluster  # noqa: PLC0415 - only a cluster needs it

            check_cluster(scenario.load.cluster, insecure=scenario.load.insecure_cluster)
            check_cluster_size(scenario, scenario.load.cluster)
        check_total(scenario)
        check_folder(scenario.report.out or RESULTS, name=scenario.report.name)
        check_space(scenario)
        # Users have a request in flight each. A rate may need as many connections as are allowed, but rarely does.
        most, required = scenario.most_in_flight, scenario.load.users is not None and not scenario.finds_levels
        check_connections(scenario, most, required=required)
    except BadInput as error:
        # These know a setting's flag only, but its value may be from a variable, a file, or one side of a comparison.
        flag = re.split(r"[: ]", error.message, maxsplit=1)[0]
        for key in [one.key for one in settings(scenario.command) if one.flag == flag]:
            raise BadInput(error.message.replace(flag, scenario.place(key), 1), hint=error.hint) from None
        raise


def check_connections(scenario: Scenario, connections: int, *, required: bool) -> None:
    """Refuse more connections at one time than there can be; raises `BadInput`."""
    cluster = scenario.load.cluster
    if cluster is not None and not cluster.local_nodes:
        return  # its nodes have them, and their own limits
    ensure_descriptors(connections, required=required)
    if scenario.load.users is None and not scenario.is_set("load.max_in_flight"):
        # Nobody expects as many at one time as are allowed. A minute's arrivals each have a port if the server is that
        # slow, or if it closes connections, which keep their ports for as long.
        busiest = max(one.peak_per_s for one in scenario.loads if isinstance(one, Open))
        connections = min(connections, math.ceil(busiest * 60))
    if scenario.target.adapter is None:
        sources, urls = scenario.target.source_address, scenario.target.url or ()
        # httpx takes a port from all servers at once where it is given an address.
        shared = sources and scenario.target.transport == "httpx"
        origins = () if shared else tuple(origin_of(url)[1:] for url in urls)
        check_ports(connections, sources=sources, origins=origins, required=required)


def check_cluster_size(scenario: Scenario, cluster: Cluster) -> None:
    """Refuse a load that the workers of a cluster cannot make, whatever its machines are; raises `BadInput`."""
    nodes, workers = cluster.local_nodes, scenario.load.workers
    if nodes and workers is not None and workers > nodes:
        raise BadInput(
            f"--workers {workers}: each worker needs a core, and --cluster {cluster} has {nodes}",
            hint=f"give --cluster local:{workers}" if workers <= MOST_LOCAL_NODES else "give fewer workers",
        )
    # Each worker may be on a machine of its own, and no machine has more ports than that.
    connections, servers = sure_connections(scenario), len(scenario.target.url or ("",))
    if not nodes and workers is not None and connections > MOST_PORTS * servers * workers:
        needed = math.ceil(connections / (PORTS_OF_A_MACHINE * servers))
        raise BadInput(
            f"--workers {workers}: {connections:,} connections at one time need more source ports than as many "
            f"machines have: {MOST_PORTS:,} at most on each, for each server",
            hint=f"give --workers {needed} or more, on as many machines",
        )
    # Measured here, with a chunk in each response: nothing is quicker.
    ceiling = known_ceiling()
    busiest, most = busiest_per_s(scenario), ceiling.requests_per_s * min(nodes, usable_cores())
    if nodes and ceiling.measured_at and not ceiling.is_lower_bound and busiest > most:
        place = scenario.place("load.rate" if scenario.load.trace is None else "load.trace")
        raise BadInput(
            f"{place}: {busiest:,.0f} requests/s, and this machine sends {most:,.0f} short ones at most from "
            f"{cluster}, as `loadbench selfcheck` measured on {ceiling.measured_at[:10]}",
            hint="use a cluster of more machines, lower the rate, or measure again with `loadbench selfcheck`",
        )


def check_space(scenario: Scenario) -> None:
    """Refuse a disk on which not even the result of one level has room; raises `BadInput`."""
    out = scenario.report.out or RESULTS
    free, (least, _) = free_bytes(out), expected_bytes(scenario)
    if free is not None and free < least:
        raise BadInput(
            f"{out}: {byte_size(free)} free, and a run needs {byte_size(least)} at least",
            hint="free some space, or name another folder with --out",
        )


def check_total(scenario: Scenario) -> None:
    """Refuse a time for all levels in which they cannot even have their least; raises `BadInput`."""
    extent, levels = scenario.extent, scenario.fewest_levels
    least_ns = levels * (extent.warm_up_ns + (extent.duration_ns or 0))
    if scenario.waits_for_answers and scenario.is_set("load.max_total") and scenario.load.max_total < least_ns:
        given, least = format_duration(scenario.load.max_total), format_duration(least_ns)
        raise BadInput(
            f"--max-total {given}: the {levels} levels take {least} at least",
            hint="allow more time, measure fewer levels, or set their length with --duration",
        )


def check_data_set(scenario: Scenario) -> None:
    """Refuse rows that the endpoint cannot have; raises `BadInput` with the place of the first."""
    given, api = data_set(scenario.work), Api(scenario.target.api)
    if given is None:
        return
    # Chats are sent as messages to every endpoint that takes some.
    routes = {
        "/chat/completions": set(Api) - {Api.COMPLETIONS},
        "/completions": {Api.COMPLETIONS},
        "/responses": {Api.RESPONSES},
    }
    for url, number in given.urls:
        fitting = next((apis for route, apis in routes.items() if url.split("?")[0].rstrip("/").endswith(route)), set())
        if api not in fitting:
            hint = f"give --api {min(fitting)}" if fitting else "loadbench measures chats, completions and responses"
            raise BadInput(
                f"{given.name}, {given.unit} {number}: this request is for {url}, not for --api {api}", hint=hint
            )
    for position, prompt in enumerate(given.prompts):
        turns = (prompt, *prompt.then) if scenario.plays_turns else (prompt,)
        fields, problem = prompt.fields or {}, ""
        try:
            for turn in turns:
                translated_messages(api, turn.sent)
            translated_fields(api, fields)
        except ValueError as error:
            problem = str(error)
        except (AttributeError, TypeError):  # lines of a batch are as they are
            problem = "this is no request of the chat endpoint, and cannot be translated from it"
        if api is Api.COMPLETIONS and len(turns) > 1:
            problem = "the completions endpoint takes one text, and no turns"
        elif scenario.target.adapter is not None:
            texts = all(isinstance(message.get("content"), str) for turn in turns for message in turn.sent)
            if prompt.extra or not texts or fields.keys() - _IN_PROCESS:
                problem = "a model in this process takes messages of text, a temperature and a seed, and nothing else"
        if problem:
            raise BadInput(f"{given.place(position)}: {problem}", hint="remove the row, or use another server or --api")


@contextmanager
def server_of(
    scenario: Scenario, environment: Mapping[str, str], *, say: Say, models: Sequence[str] = ()
) -> Iterator[tuple[Scenario, str]]:
    """(the scenario with the server's address in it, that address). The simulated server runs while the context lasts;
    one that a command starts does not run yet, and its address is not in the scenario: it may be another the next time.

    The simulated server lists these `models`, or those of the scenario's models file or mix, or its own one.
    Raises `TargetUnavailable` if Foundry Local is wanted and cannot be found.
    """
    scenario, note = locate(scenario, environment)
    if note:
        say(f"the server is {note}")
    if not scenario.simulated:
        if scenario.target.insecure:
            _log.warning(UNVERIFIED)  # also with --quiet
        started = scenario.target.server_cmd is not None
        yield scenario, url_with(scenario, port_of(scenario)) if started else scenario.url or ""
        return
    if not models and scenario.target.model_set is not None:
        models = scenario.target.model or ()
    models = models or [share.name for share in scenario.target.mix_models or ()]
    profile = profile_named(scenario.target.profile).name
    with SimProcess(profile, seed=scenario.work.seed, models=models) as server:
        yield scenario, server.url


def _or_end_of(server: StartedServer | None) -> AbstractAsyncContextManager[None]:
    """A context in which the end of a server that loadbench has started is raised instead of what it makes fail."""
    return nullcontext() if server is None else server.or_its_end()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One target, ready to be measured, and what measures it: `loadbench.engine.target.TargetSession`."""

    scenario: Scenario
    prepared: Prepared
    clock: Clock
    transport: MeasuringTransport
    telemetry: RunTelemetry
    servers: tuple[ServerInfo, ...]
    environment: Mapping[str, object]
    workers: WorkerPool | None = None
    doing: Say = _silent
    feed: MetricsFeed | None = None  # of all sessions of a command
    server: StartedServer | None = None  # where loadbench has started it

    @property
    def target(self) -> Target:
        """The endpoint."""
        return self.prepared.target

    @property
    def models(self) -> tuple[str, ...]:
        """The models to test, as requests name them; a mix of them is one, with a name of its own."""
        return self.prepared.models

    @property
    def mix(self) -> tuple[str, ...]:
        """The models of a mix, as requests name them; empty if one model is tested at a time."""
        return self.prepared.mix

    def client(self, model: str) -> Client:
        """The client that measures this model, or the mix, at every server."""
        target, *others = self.prepared.targets
        return make_client(
            self.scenario, target, self.transport, model=model, mix=self.mix, others=others, clock=self.clock
        )

    def _connect(self, destination: Destination) -> Connect:
        """What makes the client of one model at one server, since requests are adapted to what each accepts."""

        def alone(model: str) -> Client:
            targets = self.prepared.targets
            index, server = divmod(destination.endpoint, len(targets))
            name = self.mix[index] if self.mix else model
            return make_client(self.scenario, targets[server], self.transport, model=name, clock=self.clock)

        return alone if self.mix or self.prepared.others else self.client

    def health(self) -> LoopHealth:
        """What watches the load generator during one level."""
        return LoopHealth(self.transport)

    async def counters(self) -> Sequence[Mapping[str, float]] | None:
        """The own counters of each server; `None` unless all have some."""
        found = [await counters(target) for target in self.prepared.targets]
        return [one for one in found if one] if all(found) else None

    async def ready(self, model: str) -> None:
        """Load the model if it is not loaded; raises `TargetUnavailable` if it cannot be."""
        self.doing(f"loading {model}" if self.swaps_models or self.scenario.target.adapter else f"contacting {model}")
        async with _or_end_of(self.server):
            await self.prepared.ready(model)

    @property
    def swaps_models(self) -> bool:
        """Whether a model is loaded in place of another."""
        return self.prepared.service is not None

    async def exact_lengths(self, model: str, destination: Destination = ONLY_DESTINATION) -> Sample | None:
        """Find out how responses of exact lengths are requested, if they are wanted."""
        async with _or_end_of(self.server):
            trial = await adapt.exact_lengths(self.prepared, destination.model or model, self._connect(destination))
        if self.server is not None and trial is not None:
            self.server.responded(trial)
        return trial

    async def first_response(
        self, model: str, *, prompt: Prompt, max_tokens: int, destination: Destination = ONLY_DESTINATION
    ) -> Sample:
        """The response to a request that is adapted to the server; raises `TargetUnavailable` if there is none."""
        name, connect = destination.model or model, self._connect(destination)
        self.doing(f"sending the first requests to {name}")
        async with _or_end_of(self.server):
            sample = await adapt.first_response(self.prepared, name, connect, prompt, max_tokens=max_tokens)
        if self.server is not None:
            self.server.responded(sample)
        return sample

    async def answer(self, model: str, prompt: str | Prompt, *, max_tokens: int) -> Sample:
        """The response to a request that is not measured, with its text, however it ended; it is adapted as well."""
        return await adapt.respond(
            self.prepared, model, self.client, prompt, max_tokens=max_tokens, phase=Phase.MEASURED, keep_text=True
        )

    async def settled(self, closes_ns: int) -> None:
        """Wait until the telemetry of a window that closed at this moment is complete."""
        await self.telemetry.caught_up(closes_ns)


@asynccontextmanager
async def open_session(
    scenario: Scenario,
    environment: Mapping[str, str],
    *,
    say: Say,
    doing: Say = _silent,
    models: Sequence[str] = (),
    server: StartedServer | None = None,
    confirmed: bool = False,
    addresses: Mapping[str, Sequence[str]] | None = None,
) -> AsyncIterator[Session]:
    """A session with the scenario's target while the context lasts; `models` as for `server_of`. So far the server has
    only been asked for its list of models. `doing` has a word about each thing that may take a while. A `server` that
    runs already goes on after it. With `confirmed` the user has let the command run, and `addresses` of hosts are those
    that the user has let be loaded.

    Raises `TargetUnavailable` or `BadInput` if there is nothing to measure.
    """
    async with AsyncExitStack() as stack:
        feed = stack.enter_context(metrics_feed(scenario, environment, say=say))
        collector.after_imports()
        doing("starting the simulated server" if scenario.simulated else "finding the server")
        scenario, url = stack.enter_context(server_of(scenario, environment, say=say, models=models))
        if addresses is None or not {origin_of(one)[1] for one in scenario.target.url or ()} <= addresses.keys():
            addresses = await confirm_load(scenario, say=say)
        keep_addresses(addresses)
        if server is not None:
            url = server.url
        elif scenario.target.server_cmd is not None:
            if not confirmed:
                confirm_command(scenario, say=say)
            server = StartedServer(scenario, environment, port=origin_of(url)[2], say=say, doing=doing)
            stack.push_async_callback(server.stop)
            await server.start()
        doing(f"asking {shown_url(url)} for its models" if url else "preparing the model")
        async with _or_end_of(server):
            prepared = await prepare(scenario, environment, url=url, say=say)
        if server is not None:
            prepared.still_loads = server.still_loads
        scenario, servers = prepared.scenario, []
        if not scenario.simulated and scenario.target.adapter is None:
            servers = await server_infos(prepared.targets, prepared.service, scenario.limits)
        clock = MonotonicClock()
        transport = make_transport(scenario, prepared.target, clock, *prepared.others)

        async def close_transport() -> None:
            with anyio.CancelScope(shield=True):
                await transport.aclose()

        stack.push_async_callback(close_transport)
        count = workers_for(scenario, usable_cores())
        workers, cluster = None, scenario.load.cluster
        about_cluster: Mapping[str, object] | None = None
        if cluster is not None:
            doing(f"starting workers on the cluster {cluster}")

            def waiting(text: str) -> None:
                say(text)
                doing(f"waiting for cores of the cluster {cluster}")

            workers, about_cluster = await stack.enter_async_context(
                cluster_pool(scenario, cluster, prepared, addresses, waiting=waiting)
            )
            count = len(workers.links)
            say(f"{counted(count, 'worker')} on the cluster {cluster}")
        elif count > 1 and scenario.load.workers is None:
            # A server on this machine is about to need a core, at least.
            taken = await cores_in_use() + any(is_local(target.base_url) for target in prepared.targets)
            count = workers_for(scenario, usable_cores(), taken=taken)
        if workers is None and count > 1:
            doing(f"starting {count} worker processes")
            workers = await stack.enter_async_context(WorkerPool.of(count, lambda: prepared.targets, addresses))
        links = None if workers is None else workers.links
        telemetry = RunTelemetry(scenario, *prepared.targets, clock=clock, say=say, workers=links)
        await stack.enter_async_context(telemetry.sampling())
        about = describe_environment(event_loop="asyncio", stamp_source=transport.stamp_source)
        yield Session(
            scenario=scenario,
            prepared=prepared,
            clock=clock,
            transport=transport,
            telemetry=telemetry,
            servers=tuple(servers),
            environment={
                **about,
                "workers": count,
                **({} if about_cluster is None else {"cluster": about_cluster}),
                "telemetry": telemetry.about,
            },
            workers=workers,
            feed=feed,
            doing=doing,
            server=server,
        )


@asynccontextmanager
async def cluster_pool(
    scenario: Scenario,
    cluster: Cluster,
    prepared: Prepared,
    addresses: Mapping[str, Sequence[str]] | None = None,
    *,
    waiting: Say = _silent,
) -> AsyncIterator[tuple[WorkerPool, Mapping[str, object]]]:
    """(the workers on a cluster, what a result says of it) while the context lasts.

    Raises `BadInput` where the cluster cannot be used for this, or `LoadbenchError` where it does not work.
    """
    from loadbench.cluster.connection import cluster_workers  # noqa: PLC0415 - only a cluster needs it

    load = scenario.load
    using = cluster_workers(
        cluster,
        load.workers,
        most=scenario.most_in_flight,
        sides=2 if scenario.command == "compare" else 1,
        insecure=load.insecure_cluster,
        waiting=waiting,
    )
    async with using as found:
        away = next((link for link in found.links if not link.is_here), None)
        near = next((target.base_url for target in prepared.targets if is_local(target.base_url)), None)
        if away is not None and near is not None and is_loopback(origin_of(near)[1]):
            raise BadInput(
                f"--cluster {cluster}: {shown_url(near)} is another machine for {away.name}",
                hint="give the server's address in the network with --url",
            )
        if away is not None and scenario.target.cacert is not None:
            raise BadInput(
                f"{scenario.place('target.cacert')}: is a file of this machine, and {away.name} has another",
                hint="add the certificate to those that every node trusts, and leave it out",
            )
        with TemporaryDirectory(prefix="loadbench-", ignore_cleanup_errors=True) as folder:
            pool = await WorkerPool.over(
                found.links, lambda: prepared.targets, Path(folder), addresses, _records(scenario)
            )
            yield pool, found.about


def _records(scenario: Scenario) -> Records:
    """What the workers of a cluster report besides what they record."""
    by_event = any(objective.metric in MANY_A_REQUEST for objective in scenario.objectives)
    return Records(samples=reads_requests(scenario), whole=has_metrics(scenario) or by_event)


async def run_observed(work: Callable[[], Awaitable[None]], *sessions: Session) -> None:
    """Measure the idle power, then do the work. Alongside goes the telemetry of each session."""

    async def measured() -> None:
        for session in sessions:
            await session.telemetry.measure_idle()
        await run_alongside(work, *(session.telemetry.poll_page for session in sessions))

    feeds = {session.feed for session in sessions if session.feed is not None}
    helpers = [*(session.telemetry.listen for session in sessions), *(feed.poll for feed in feeds)]
    await run_alongside(measured, *helpers)


@contextmanager
def stopping(stop: Callable[[], None], say: Say | None = None) -> Iterator[None]:
    """Call `stop` in the event loop on Ctrl-C, SIGTERM and the end of the terminal while the context lasts, so that a
    run can end in order. Where a second one ends more than the first, `say` says so once."""
    loop = asyncio.get_running_loop()
    unsaid = [] if say is None else [say]

    def ended(number: int) -> None:
        if unsaid:
            name = signal.Signals(number).name
            again = "press Ctrl-C again to cancel them" if name == "SIGINT" else f"a second {name} cancels them"
            unsaid.pop()(f"interrupted: requests in flight are awaited, results are kept; {again}")
        stop()

    def on_signal(number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(ended, number)

    before = {number: signal.signal(number, on_signal) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def until_stopped(work: Callable[[], Awaitable[None]]) -> bool:
    """Do the work; returns whether it came to its end. Ctrl-C cancels it, and what it did until then stands."""
    with anyio.CancelScope() as scope, stopping(scope.cancel):
        await work()
    return not scope.cancelled_caught
