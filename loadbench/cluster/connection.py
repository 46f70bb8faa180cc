"""The connection to a Ray cluster, and the workers on its nodes.

Whoever can use a cluster of Ray can run any program on all of its nodes, and read what is sent to them: also keys of
the server under test. So a cluster that other machines can reach must request a token, unless the user says otherwise.
What actors run is loadbench as it is installed on their nodes, in the same version; they get the scenario as data.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
import warnings
from contextlib import AsyncExitStack, asynccontextmanager, chdir, contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import anyio.lowlevel

from loadbench import __version__
from loadbench.cluster.local_nodes import local_nodes
from loadbench.cluster.relay import Node, machine, pid_namespace
from loadbench.core.errors import BadInput, ClusterUnavailable, LoadbenchError
from loadbench.core.event_loop import in_daemon_thread, reply_from_thread
from loadbench.core.signals import is_stuck, take_signals_back
from loadbench.core.text import some
from loadbench.engine.worker_link import SAME_CLOCK, ClockOffset
from loadbench.plan.cluster import Cluster, is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

# What an actor waits for a report before it says that there is none: all of many workers are asked so often together.
_ASKS_FOR_S, _MOST_ASKED_PER_S = 0.5, 200
# A reply that takes so much longer will not come: the node is gone, is stopped, or cannot be reached any more. A level
# that has lost workers does not wait as long for the number of their requests.
_LATE_S, _COUNTED_WITHIN_S = 3.0, 1.0
# A data set of a gigabyte takes a slow network a minute and a half.
_GIVEN_WITHIN_S = 300.0
_LOOKS_AGAIN_S = 0.5
# Ray knows of a node's end by its connections, which may be sooner.
_LOOKS_EVERY_S = 0.5
# The tightest of so many round trips says how far a clock is ahead; on one host each takes about a millisecond.
_ROUND_TRIPS = 15
# Workers of one node have one clock, which is measured once for a level; of so many nodes at one time, as calls that
# wait for each other take longer.
_SAME_LEVEL_S, _NODES_AT_ONCE = 2.0, 8
# One look at the nodes is for all workers that are about to begin a level.
_SAME_LOOK_S = 0.2
# By more than round trips can be wrong, and this, a clock is another one.
_SAME_NS = 1_000_000
_REACHED_WITHIN_S = 5.0
_CONNECTS_WITHIN_S = 40.0
_STARTS_WITHIN_S = 60.0
_ENDS_WITHIN_S = 3.0
# Ray's own place for a token, which `ray get-auth-token --generate` fills.
_TOKEN_FILE = Path("~/.ray/auth_token")
_TRUST = "whoever reaches a cluster of Ray can run programs on all of its nodes and read what they are sent"


class NodeClock:
    """What is known of a node's clock; `turns` are of all nodes."""

    def __init__(self, turns: anyio.CapacityLimiter) -> None:
        self.offset, self.is_known = SAME_CLOCK, False  # as it was measured last, if it ever was
        self._turns = turns
        self._one = anyio.Lock()
        self._measured_s = -math.inf

    async def measured(self, read: Callable[[], Awaitable[int]]) -> ClockOffset:
        """Measure it, unless a worker of this node has just done so; `read` asks a worker there what it shows.

        It was read between a call and its reply, in the middle as far as one knows; the tightest of the round trips
        counts. A node that does not answer keeps what was known; its reports show that it is gone.
        """
        async with self._one:
            if time.monotonic() - self._measured_s < _SAME_LEVEL_S:
                return self.offset
            found: list[tuple[int, int]] = []
            async with self._turns:
                with suppress(Exception):
                    with anyio.fail_after(_LATE_S):
                        for _ in range(_ROUND_TRIPS):
                            asked_ns = time.perf_counter_ns()
                            there_ns = await read()
                            took_ns = time.perf_counter_ns() - asked_ns
                            found.append((took_ns, there_ns - asked_ns - took_ns // 2))
            if found:
                took_ns, ahead_ns = min(found)
                self.offset, self.is_known = ClockOffset(ahead_ns, took_ns // 2), True
            self._measured_s = time.monotonic()
            return self.offset


def _reply(call: Any) -> asyncio.Future[Any]:
    """The result of a call, by Ray's reference to it. Who does not wait for it any more cancels it as any future.

    A future of Ray's own must not be cancelled: a thread of Ray gives it a result or an error all the same, and prints
    the error that this is.
    """
    reply, pass_on = reply_from_thread()
    reply.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody has to look at it

    def has_ended(done: Any) -> None:
        """In a thread of Ray."""
        error = ConnectionError("cancelled") if done.cancelled() else done.exception()
        pass_on(None if error else done.result(), error)

    call.future().add_done_callback(has_ended)
    return reply


async def _is_done(called: asyncio.Future[Any], within_s: float) -> bool:
    """Whether a call has its reply within this time."""
    # The second look is for a process that was stopped meanwhile: its timers are the first to go on.
    for look_s in (within_s, _LOOKS_AGAIN_S):
        if not called.done():
            await asyncio.wait({called}, timeout=look_s)
    return called.done()


class RayLink:
    """A worker on a node: `loadbench.engine.worker_link.WorkerLink`."""

    shares_count = False

    def __init__(
        self,
        name: str,
        actor: Any,
        node: Node,
        clock: NodeClock,
        *,
        put: Callable[[Path], Awaitable[Any]],
        is_here: bool,
        pid: int | None = None,
        by_client: bool = False,
        asks_for_s: float,
    ) -> None:
        self.name = name
        self.node = node
        self._clock = clock
        self._actor = actor
        self._put, self._by_client = put, by_client
        self.is_here = is_here  # on this machine, whose clock it has
        self.pid = pid
        self._asks_for_s = asks_for_s
        self._bodies: list[bytes] = []
        self._gone = anyio.Event()
        self.look: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint  # whether the nodes are still there

    def _call(self, method: str, *values: object) -> asyncio.Future[Any]:
        """Call a method of the actor, after those that were called before it in the same group."""
        return _reply(getattr(self._actor, method).remote(*values))

    def _tell(self, method: str, *values: object) -> None:
        """Call a method whose end nobody waits for; what becomes of it, the reports show."""
        # By Ray's client a call would wait for the head; others reach an actor whose head has ended.
        if self._gone.is_set() and self._by_client:
            return
        with suppress(Exception):  # whatever Ray raises: the actor is gone
            self._call(method, *values)

    def begin(self, left: int) -> None:
        """On the node."""
        self._tell("begin", left)

    def send(self, frame: bytes) -> None:
        """By a call of the actor; those that come first are done first."""
        self._tell("send", frame)

    async def receive(self) -> bytes | None:
        """Ask the actor for reports until it has some."""
        while not self._bodies:
            if self._gone.is_set():
                return None
            found: list[bytes] | None = None
            with suppress(Exception):  # whatever Ray raises, no report will come
                asked = self._call("reports", self._asks_for_s)
                found = asked.result() if await _is_done(asked, self._asks_for_s + _LATE_S) else None
            if found is None:
                return None
            self._bodies = found
        return self._bodies.pop(0)

    async def sent(self) -> int | None:
        """The actor knows, if it lives."""
        with suppress(Exception):
            if not self._gone.is_set():
                with anyio.fail_after(_COUNTED_WITHIN_S):
                    return int(await self._call("sent"))
        return None

    @property
    def offset(self) -> ClockOffset:
        """How far its clock is ahead, as it was measured last."""
        return self._clock.offset

    async def clock_offset(self) -> ClockOffset:
        """By round trips. A worker on this machine has the run's clock: what was measured is recorded, and not used.

        Where the cluster has ended since the level before, that is seen here: its workers would still answer.
        """
        await self.look()
        if self._gone.is_set():
            return self.offset

        async def read() -> int:
            return int(await self._call("now_ns"))

        measured = await self._clock.measured(read)
        # Machines that were restored from one image may call themselves the same.
        if self.is_here and abs(measured.ahead_ns) <= measured.error_ns + _SAME_NS:
            return SAME_CLOCK
        if not self._clock.is_known:
            self.lose()  # nobody can tell it when to begin
        return measured

    async def give(self, path: Path) -> None:
        """Have the node get a copy of the file, which is sent to each node once. One that does not get it is lost."""

        async def copy() -> None:
            await self._call("give", path.name, await self._put(path))

        copied, gone = asyncio.ensure_future(copy()), asyncio.ensure_future(self._gone.wait())
        try:
            await asyncio.wait({copied, gone}, timeout=_GIVEN_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            if not copied.done() or copied.cancelled() or copied.exception() is not None:
                self.lose()
        finally:
            gone.cancel()
            copied.cancel()

    def kill(self) -> None:
        """Have the actor kill the worker."""
        self._tell("kill")

    def lose(self) -> None:
        """Ray says that the node is gone: no report will come."""
        self._gone.set()

    async def aclose(self) -> None:
        """Have the worker leave; the actor ends later."""
        with suppress(Exception), anyio.move_on_after(_LATE_S):
            await self._call("close")


class Workers(NamedTuple):
    """The workers of a cluster, and what a result says of it."""

    links: Sequence[RayLink]
    about: Mapping[str, object]


def check_cluster(cluster: Cluster, *, insecure: bool) -> None:
    """Refuse a cluster that cannot be used, as far as that is known without it; raises `BadInput`."""
    if find_spec("ray") is None:
        raise BadInput("--cluster: needs Ray, which is not installed", hint="pip install 'loadbench[ray]'")
    if cluster.address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
        if address and not Cluster(address).host:
            raise BadInput(f"--cluster auto: RAY_ADDRESS is {address!r}, want HOST:PORT or ray://HOST:PORT")
    near = cluster.local_nodes or (cluster.host and is_loopback(cluster.host))
    if not near and not insecure and not _uses_token():
        raise _no_token(cluster, "RAY_AUTH_MODE is not token in this environment")


def _uses_token() -> bool:
    """Whether Ray sends a token from here: it is told to, or nobody says and it has one, by which nodes decide too."""
    mode = os.environ.get("RAY_AUTH_MODE")
    if mode is not None:
        return mode.lower() == "token"
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return True
    with suppress(RuntimeError, OSError):  # a user without a home
        return _TOKEN_FILE.expanduser().is_file()
    return False


@asynccontextmanager
async def cluster_workers(
    cluster: Cluster,
    workers: int | None,
    *,
    most: int,
    sides: int,
    insecure: bool,
    waiting: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Workers]:
    """Workers on the nodes of a cluster while the context lasts: this many, or one for each core, and never more than
    `most`. As many as `sides` groups of them share the cores, of which one works at a time. `waiting` is told where
    other work has the cores that they wait for.

    Raises `BadInput`, or `ClusterUnavailable` where the cluster cannot be used.
    """
    check_cluster(cluster, insecure=insecure)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(_connected(cluster, insecure=insecure))
        ray = connection.ray
        with _one_error(cluster):
            try:
                with anyio.fail_after(_CONNECTS_WITHIN_S):
                    nodes = await in_daemon_thread(ray.nodes)
            except TimeoutError:
                connection.lose()
                raise ClusterUnavailable(
                    f"--cluster {cluster}: no answer within {_CONNECTS_WITHIN_S:.0f} s", hint="see that it still runs"
                ) from None
        alive = [node for node in nodes if node["Alive"]]
        cores = int(sum(node["Resources"].get("CPU", 0) for node in alive))
        count = min(workers or max(1, cores), most)
        if count > cores:
            raise BadInput(
                f"--workers {count}: each worker needs a core, and the cluster has {cores}",
                hint="add nodes, or give fewer workers",
            )
        with _one_error(cluster):
            if not cluster.local_nodes:
                with suppress(Exception), anyio.fail_after(_LATE_S):  # it is a word for who waits, and no more
                    free = (await in_daemon_thread(ray.available_resources)).get("CPU", 0)
                    if free < count / sides:
                        text = (
                            f"waiting up to {_STARTS_WITHIN_S:.0f} s for cores of the cluster {cluster}: {free:g} of "
                        )
                        needing = "1 worker needs" if count == 1 else f"{count} workers need"
                        waiting(f"{text}{cores} are free, and {needing} {count / sides:g}")
            links = await _start(connection, stack, count, sides=sides, insecure=insecure, cluster=cluster)
        stack.push_async_callback(_close, connection, links)
        nodes_watch = NodeWatch(connection, links)
        stack.callback(asyncio.create_task(nodes_watch.watch()).cancel)
        for link in links:
            link.look = nodes_watch.look
        await asyncio.gather(*(link.clock_offset() for link in links))
        head = ""
        with suppress(Exception):
            if not connection.is_client:  # which would ask the head, for as long as that takes
                head = str(ray.get_runtime_context().gcs_address)
        about: dict[str, object] = {
            "address": str(cluster),
            **({"head": head} if head else {}),
            "ray": ray.__version__,
            "nodes": len({link.node.node for link in links}),
            "workers": [
                {
                    "name": link.name,
                    "host": link.node.host,
                    "python": link.node.python,
                    "clock_ahead_s": link.offset.ahead_ns / 1e9,
                    "clock_error_s": link.offset.error_ns / 1e9,
                }
                for link in links
            ],
            "token_authentication": all(link.node.has_token for link in links),
        }
        yield Workers(links, about)


def _say_nothing(*_: object, **__: object) -> None:
    """In place of what prints."""


def _one_line(error: Exception, at: int = 0) -> str:
    """The first line of an error of Ray, or another one: where an actor failed the last says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[at][:300]


@contextmanager
def _one_error(cluster: Cluster) -> Iterator[None]:
    """Whatever Ray raises here is a `LoadbenchError`: a head that ends meanwhile, for example."""
    try:
        yield
    except LoadbenchError:
        raise
    except Exception as error:  # noqa: BLE001 - Ray raises errors of many kinds
        raise ClusterUnavailable(
            f"--cluster {cluster}: {_one_line(error)}", hint="see that the cluster still runs"
        ) from None


class _Connection:
    """That of this process, which can have one; the sides of a comparison share it."""

    def __init__(self) -> None:
        self.users = 0
        self.stack = AsyncExitStack()
        self.ray: Any = None
        self.is_client = False  # by Ray's client server
        self.is_lost = False  # the cluster has ended, or does not answer: nothing of it can be ended

    def lose(self) -> None:
        """Ask nothing of Ray any more."""
        if not self.is_lost:
            self.is_lost = True
            ours = threading.excepthook

            def hook(raised: threading.ExceptHookArgs) -> None:
                """Ray's threads say with a traceback that nobody answers."""
                if not raised.exc_type.__module__.startswith(("ray", "grpc")):
                    ours(raised)

            threading.excepthook = hook
            is_stuck()

    async def end(self, work: Callable[[], object]) -> None:
        """End something of the cluster, for as long as that may take."""
        if not self.is_lost:
            with anyio.move_on_after(_ENDS_WITHIN_S, shield=True) as scope, suppress(Exception):
                await in_daemon_thread(work)
            if scope.cancelled_caught:
                self.lose()


_connections: dict[Cluster, _Connection] = {}


@asynccontextmanager
async def _connected(cluster: Cluster, *, insecure: bool) -> AsyncIterator[_Connection]:
    """Ray, connected to the cluster while the context lasts; raises `ClusterUnavailable` where that fails."""
    held = _connections.setdefault(cluster, _Connection())
    held.users += 1
    try:
        if held.users == 1:
            address = cluster.address
            if cluster.local_nodes:
                address = await held.stack.enter_async_context(local_nodes(cluster.local_nodes))
        # Ray reads these as it is imported. A call after the connection has ended would start a cluster of its own.
        os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
        if not insecure and _uses_token():
            os.environ["RAY_AUTH_MODE"] = "token"
        with _one_error(cluster):
            import ray  # noqa: PLC0415 - it is large, and an extra

        held.ray = ray
        if held.users == 1:
            await _connect(held, address, cluster)
            take_signals_back()  # Ray prints where its own threads are when one comes
            held.stack.push_async_callback(held.end, ray.shutdown)
        yield held
    finally:
        held.users -= 1
        if not held.users:
            del _connections[cluster]
            try:
                await held.stack.aclose()
            finally:
                take_signals_back()  # without Ray each would end the process at once


async def _connect(connection: _Connection, address: str, cluster: Cluster) -> None:
    """Connect this process to the cluster; raises `ClusterUnavailable` where that fails."""

    def connect() -> None:
        # Ray prints what happens to nodes, and what is printed there, on the standard output, which is for results.
        driver: Any = import_module("ray._private.worker")
        driver.print_to_stdstream = _say_nothing  # there is no API for it
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": False}
        if address.startswith("ray://"):
            client: Any = import_module("ray.util.client.logsclient").LogstreamClient
            client.stdstream = client.log = _say_nothing
            options = {}
        # Ray puts the current folder first on the path of the actors: no module in it may stand for another.
        with TemporaryDirectory(prefix="loadbench-") as empty, chdir(empty):
            connection.ray.init(address=address, **options)
        connection.is_client = import_module("ray.util.client").ray.is_connected()

    # Ray itself asks for a minute and more whether somebody is there.
    known = Cluster(os.environ.get("RAY_ADDRESS", "") if address == "auto" else address)
    if known.host:
        try:
            with anyio.fail_after(_REACHED_WITHIN_S):
                await (await anyio.connect_tcp(known.host, known.port)).aclose()
        except OSError as error:  # TimeoutError is one
            problem = (
                getattr(error.__cause__ or error, "strerror", None) or f"no answer within {_REACHED_WITHIN_S:.0f} s"
            )
            hint = "see that the cluster runs, and that this address can be reached from here"
            raise ClusterUnavailable(f"--cluster {cluster}: cannot reach {known}: {problem}", hint=hint) from None
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # else it would upload the current folder
    logging.disable(logging.WARNING)  # what Ray has to say about its own start
    warnings.filterwarnings("ignore", module=r"ray\.")  # and about its use
    try:
        with anyio.fail_after(_CONNECTS_WITHIN_S):
            await in_daemon_thread(connect)
    except TimeoutError:
        problem = f"no answer within {_CONNECTS_WITHIN_S:.0f} s"
        connection.lose()
    except Exception as error:  # noqa: BLE001 - Ray raises errors of many kinds
        problem = _one_line(error)
    except BaseException:  # the user does not wait for it
        connection.lose()
        raise
    else:
        return
    finally:
        logging.disable(logging.NOTSET)
    hint = "see that the cluster runs, is of the same version of Ray and Python, and has the same RAY_AUTH_TOKEN"
    raise ClusterUnavailable(f"--cluster {cluster}: cannot connect: {problem}", hint=hint)


async def _start(
    connection: _Connection, stack: AsyncExitStack, count: int, *, sides: int, insecure: bool, cluster: Cluster
) -> list[RayLink]:
    """Start actors, spread over the nodes; those that started end with the stack. Raises `ClusterUnavailable`."""
    from ray.util.placement_group import placement_group, remove_placement_group  # noqa: PLC0415
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy  # noqa: PLC0415

    from loadbench.cluster.actor import GROUPS, RelayActor  # noqa: PLC0415 - it imports ray

    ray = connection.ray
    group = placement_group([{"CPU": 1 / sides}] * count, strategy="SPREAD")
    stack.push_async_callback(connection.end, lambda: remove_placement_group(group))
    make = ray.remote(num_cpus=1 / sides, max_restarts=0, max_task_retries=0, concurrency_groups=GROUPS)(RelayActor)
    puts: dict[Path, asyncio.Future[Any]] = {}

    async def put(path: Path) -> Any:
        """A reference to what is in the file, in the object store."""
        if path not in puts:
            puts[path] = asyncio.ensure_future(in_daemon_thread(lambda: ray.put(path.read_bytes())))
        try:
            return await asyncio.shield(puts[path])
        except Exception:
            puts.pop(path, None)  # the next level may try again
            raise

    actors = []
    for index in range(count):
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        actors.append(make.options(scheduling_strategy=strategy).remote())

    def end_all() -> None:
        for actor in actors:
            with suppress(Exception):  # it is gone
                ray.kill(actor)

    stack.push_async_callback(connection.end, end_all)
    try:
        with anyio.fail_after(_STARTS_WITHIN_S):
            nodes: list[Node] = await asyncio.gather(*(_reply(actor.about.remote()) for actor in actors))
    except TimeoutError:
        hint = "see whether other work has the cores of the cluster (ray status), or give fewer workers"
        raise ClusterUnavailable(
            f"--cluster {cluster}: {count} worker{'s' * (count > 1)} did not start within {_STARTS_WITHIN_S:.0f} s",
            hint=hint,
        ) from None
    except Exception as error:  # noqa: BLE001 - Ray raises errors of many kinds
        hint = f"install loadbench[ray] {__version__} for the same Python on every node, and give all the same "
        hint += "RAY_AUTH_MODE and RAY_AUTH_TOKEN"
        raise ClusterUnavailable(
            f"--cluster {cluster}: a worker did not start: {_one_line(error, -1)}", hint=hint
        ) from None
    others = sorted({f"{node.loadbench} on {node.host}" for node in nodes if node.loadbench != __version__})
    if others:
        hint = f"install {__version__} on every node"
        raise ClusterUnavailable(
            f"--cluster {cluster}: this is loadbench {__version__}, and there is {some(others)}", hint=hint
        )
    if not insecure and not all(node.has_token for node in nodes):
        raise _no_token(cluster, "its nodes request none")
    # Local nodes are here also where a machine has no name of its own.
    here, asks_for_s = machine(), max(_ASKS_FOR_S, count / _MOST_ASKED_PER_S)
    turns = anyio.CapacityLimiter(_NODES_AT_ONCE)
    clocks = {node.node: NodeClock(turns) for node in nodes}
    return [
        RayLink(
            f"worker {index + 1} on {node.host}",
            actor,
            node,
            clocks[node.node],
            put=put,
            by_client=connection.is_client,
            is_here=is_here,
            pid=node.pid if is_here and node.pids_of == pid_namespace() else None,
            asks_for_s=asks_for_s,
        )
        for index, (actor, node) in enumerate(zip(actors, nodes, strict=True))
        for is_here in [bool(cluster.local_nodes) or (bool(node.machine) and node.machine == here)]
    ]


class NodeWatch:
    """Has the workers of a node that Ray has lost be lost at once.

    So are all where nobody answers, twice or for long: the head has ended. A driver is also a part of a node of its
    machine: Ray ends a process some ten seconds after that node. Until then what was measured must be kept.
    """

    def __init__(self, connection: _Connection, links: Sequence[RayLink]) -> None:
        self._connection, self._links = connection, links
        self._own = ""
        with suppress(Exception):
            if not connection.is_client:
                self._own = connection.ray.get_runtime_context().get_node_id()
        self._one = anyio.Lock()
        self._looked_s = -math.inf

    async def watch(self) -> None:
        """Look again and again, until the cluster has ended."""
        while not self._connection.is_lost:
            await anyio.sleep(_LOOKS_EVERY_S)
            await self.look()
        await self.look()  # another side of the comparison may have seen it

    async def look(self) -> None:
        """Look now; for all who ask at one time, once."""
        asked_s = time.monotonic()
        async with self._one:
            alive: set[str] | None = None
            if not self._connection.is_lost:
                if self._looked_s > asked_s - _SAME_LOOK_S:
                    return
                alive = await self._alive()
                if alive is not None and not alive:
                    await anyio.sleep(_LOOKS_EVERY_S)
                    alive = await self._alive()
                self._looked_s = time.monotonic()
                if not alive or (self._own and self._own not in alive):
                    self._connection.lose()
            for link in self._links:
                if self._connection.is_lost or link.node.node not in (alive or ()):
                    link.lose()

    async def _alive(self) -> set[str] | None:
        """The nodes that Ray knows to be there; none where that is an error, `None` without an answer."""
        looked = asyncio.ensure_future(in_daemon_thread(self._connection.ray.nodes))
        looked.add_done_callback(lambda done: done.cancelled() or done.exception())
        if not await _is_done(looked, _LATE_S):
            looked.cancel()
            return None
        with suppress(Exception):
            return {node["NodeID"] for node in looked.result() if node["Alive"]}
        return set()


async def _close(connection: _Connection, links: Sequence[RayLink]) -> None:
    if connection.is_lost:
        return
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as ends:
            for link in links:
                ends.start_soon(link.aclose)


def _no_token(cluster: Cluster, why: str) -> BadInput:
    return BadInput(
        f"--cluster {cluster}: without token authentication ({why}) {_TRUST}",
        hint="start every node with RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN, which this environment needs too; or "
        "give --insecure-cluster for a network where everybody is trusted",
    )
