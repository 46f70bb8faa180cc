"""Local addresses that take turns, and the limit on local ports, which is known before it is met."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from loadbench.client import local_ports
from loadbench.client.local_ports import bind_source, check_ports, check_sources
from loadbench.core.errors import BadInput
from loadbench.plan.server_url import normal_url
from loadbench.plan.setting_types import LOCAL_ADDRESSES
from tests.cli.running import COMMAND, loadbench, networks, with_few_ports
from tests.cli.typed import typed
from tests.client.test_fast_transport import has_ipv6

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%b" % (len(_CHUNK), _CHUNK)
_LIST = b'{"data":[{"id":"m"}]}'
_MODELS = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_LIST), _LIST)


@contextmanager
def server() -> Iterator[tuple[str, Counter[str]]]:
    """Its URL, and how many connections it had from each address."""
    peers: Counter[str] = Counter()

    def converse(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while data := sock.recv(1 << 16):
                sock.sendall(_MODELS if data.startswith(b"GET") else _STREAM)

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                sock, (peer, _) = listener.accept()
            except OSError:
                return
            peers[peer] += 1
            threading.Thread(target=converse, args=(sock,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", peers
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
@pytest.mark.parametrize("more", ["--transport=fast", "--transport=httpx", "--workers=2"])
def test_local_addresses_take_turns(more, tmp_path):
    """All that is sent comes from them, the list of models too; what was given is in run.json."""
    sources = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    flags = [f"--source-address={one}" for one in sources]
    with server() as (url, peers):
        load = ["--users=12", "--requests=48", "--warm-up=0s", "--json"]
        done = loadbench("sweep", f"--url={url}", *load, *flags, more, cwd=tmp_path)
    assert done.returncode in {0, 4}, done.stderr
    run = json.loads(done.stdout)
    assert run["levels"][0]["outcomes"] == {"ok": 48}
    assert run["scenario"]["target"]["source_address"] == sources
    assert set(peers) == set(sources)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")
@pytest.mark.parametrize(("users", "workers", "sources"), [(4, 4, 4), (4, 2, 4), (6, 3, 2)])
def test_worker_processes_share_the_turns(users, workers, sources, tmp_path):
    """Each address has as many connections as in one process, up to one."""
    given = [f"127.0.0.{2 + number}" for number in range(sources)]
    flags = [f"--source-address={one}" for one in given]
    load = [f"--users={users}", f"--workers={workers}", "--duration=1s", "--warm-up=0s", "--telemetry=off"]
    with server() as (url, peers):
        done = typed("sweep", f"--url={url}", *load, "--json", *flags, cwd=tmp_path)
    assert set(json.loads(done.stdout)["levels"][0]["outcomes"]) == {"ok"}, done.stderr
    # The list of models and the first request come from the first.
    measured = peers - Counter({given[0]: peers.total() - users})
    assert measured == dict.fromkeys(given, users // sources)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
@pytest.mark.parametrize("command", ["models", "sweep"])
def test_server_without_an_address_of_that_kind_is_named(command, monkeypatch, tmp_path):
    """The name is right, and the address of this machine is; they do not fit."""
    resolve = socket.getaddrinfo

    def resolve_to_ipv4(host, port, family=0, **options):
        return resolve("127.0.0.1" if host == "localhost" else host, port, family=family, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_to_ipv4)
    with server() as (url, peers):
        named = url.replace("127.0.0.1", "localhost")
        done = typed(command, f"--url={named}", "--source-address=::1", cwd=tmp_path)
    assert (done.returncode, not peers) == (6, True)
    assert "localhost has no IPv6 address, and --source-address is one" in done.stderr
    assert "give an IPv4 address of this machine, or the server's IPv6 address" in done.stderr


def test_address_of_another_machine_is_refused_before_anything_is_sent(tmp_path):
    """With what to do; 192.0.2.0/24 is nobody's."""
    address = "--source-address=192.0.2.7"
    done = loadbench("sweep", "--url=http://127.0.0.1:9", address, "--dry-run", "--verbose", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2), done.stderr
    assert "--source-address 192.0.2.7: this machine cannot send from it" in done.stderr


@pytest.mark.parametrize(
    ("sources", "hosts", "words"),
    [
        (["127.0.0.1", "::1"], [], "IPv6, and 127.0.0.1 is IPv4"),
        (["127.0.0.1"], ["::1"], "does not reach ::1"),
        (["127.0.0.1"], ["127.0.0.1", "192.0.2.7"], "does not reach 192.0.2.7"),
    ],
)
def test_address_that_cannot_reach_the_server_is_refused(sources, hosts, words):
    """As far as the server's address is known by then."""
    with pytest.raises(BadInput, match=words):
        check_sources(sources, hosts=hosts)


def test_address_that_reaches_the_server_is_not_refused():
    """A name may be anything."""
    check_sources(["127.0.0.1"], hosts=["127.0.0.1", "localhost", ""])


def own_address() -> str:
    """An address of this machine that is not a loopback one; empty if it has none."""
    found = [entry.address for entries in psutil.net_if_addrs().values() for entry in entries if entry.family == 2]
    return next((address for address in found if not address.startswith("127.")), "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux connects so")
@pytest.mark.parametrize("host", ["0.0.0.0", own_address()])
def test_loopback_address_reaches_all_of_this_machine(host):
    """As a TCP connection does."""
    if not host:
        pytest.skip("this machine has no other address")
    with socket.create_server((host, 0)) as listener, socket.socket() as sock:
        bind_source(sock, "127.0.0.2")
        sock.connect((host, listener.getsockname()[1]))
    check_sources(["127.0.0.2"], hosts=[host])


def test_ipv4_address_in_the_form_of_ipv6_is_that_address():
    """In the URL and as a local address."""
    assert normal_url("http://[::ffff:127.0.0.1]:8080/v1") == "http://127.0.0.1:8080/v1"
    assert normal_url("http://[::1]:8080/v1") == "http://[::1]:8080/v1"
    assert LOCAL_ADDRESSES.read(["::ffff:127.0.0.1"]) == ("127.0.0.1",)


@pytest.mark.parametrize(
    ("origins", "servers"),
    [
        ([("127.0.0.1", 80), ("localhost", 80)], 1),
        ([("127.0.0.1", 80), ("localhost", 81)], 2),
        ([("127.0.0.1", 80), ("127.0.0.2", 80), ("0.0.0.0", 80)], 2),
        ([("192.0.2.1", 80), ("192.0.2.2", 80)], 2),
    ],
)
def test_one_server_by_two_urls_is_one(origins, servers, monkeypatch):
    """Its ports are there once, whatever it is called."""
    monkeypatch.setattr(local_ports, "local_ports", lambda: 1000)
    with pytest.raises(BadInput, match=f"allow {1000 * servers:,}:"):
        check_ports(5000, sources=("127.0.0.1",), origins=origins)


@pytest.mark.parametrize(
    ("text", "reserved", "ports"),
    [
        ("32768\t60999\n", "\n", 28_232),
        ("1000 1019\n", "900-1004,1010,1019-1030\n", 13),
        ("1000 1019\n", "1000-1019\n", 0),
        ("", "", None),
    ],
)
def test_ports_are_those_of_the_system_without_the_reserved(text, reserved, ports, monkeypatch, tmp_path):
    """Where the system does not say, nobody knows."""
    for name, content in (("_RANGE", text), ("_RESERVED", reserved)):
        (tmp_path / name).write_text(content)
        monkeypatch.setattr(local_ports, name, tmp_path / name)
    assert local_ports.local_ports() == ports


def test_limit_of_ports_is_told_before_it_is_met(monkeypatch, caplog):
    """Quiet up to half of it, a warning up to all of it, and a refusal beyond, unless the number is only a bound."""
    monkeypatch.setattr(local_ports, "local_ports", lambda: 1000)
    with caplog.at_level(logging.WARNING):
        check_ports(500, sources=())
        check_ports(2000, sources=("127.0.0.1", "127.0.0.2"), origins=[("192.0.2.1", 80), ("192.0.2.2", 80)])
        assert not caplog.records
        check_ports(1000, sources=())
        check_ports(1001, sources=(), required=False)
    assert len(caplog.records) == 2
    assert "up to 1,000 connections at one time, and this machine's local ports allow 1,000" in caplog.text
    with pytest.raises(BadInput, match="allow 1,000") as refused:
        check_ports(4000, sources=())
    assert "8 addresses of this machine with --source-address" in (refused.value.hint or "")
    assert "a closed one keeps its port for a minute or more" in refused.value.message


@pytest.mark.parametrize("sources", [(), ("127.0.0.1", "127.0.0.2")])
def test_no_port_at_all_is_refused(sources, monkeypatch):
    """However few connections there are, and whether they are all needed."""
    monkeypatch.setattr(local_ports, "local_ports", lambda: 0)
    with pytest.raises(BadInput, match="all local ports are reserved") as refused:
        check_ports(1, sources=sources, required=False)
    assert "ip_local_reserved_ports" in (refused.value.hint or "")


def test_number_of_ports_that_is_not_known_refuses_nothing(monkeypatch, caplog):
    """Somebody may have changed it."""
    monkeypatch.setattr(local_ports, "local_ports", lambda: None)
    check_ports(8192, sources=())
    assert not caplog.records
    check_ports(20_000, sources=())
    assert "16,384 from each local address to each server, unless its range was changed" in caplog.text


@pytest.mark.parametrize(
    ("load", "warned"),
    [
        (["--rate=1"], False),
        (["--rate=1,130"], False),
        (["--rate=1,140"], True),
        (["--rate=1", "--max-in-flight=9000"], True),
        (["--users=8000"], False),
        (["--users=9000"], True),
    ],
)
def test_rate_is_warned_where_it_may_need_so_many_ports(load, warned, monkeypatch, caplog, tmp_path):
    """By its arrivals of a minute, and by what somebody allowed; the limit that nobody gave says nothing."""
    monkeypatch.setattr(local_ports, "local_ports", lambda: 16_384)
    monkeypatch.setattr("loadbench.session.setup.ensure_descriptors", lambda *_, **__: None)
    typed("sweep", *load, "--dry-run", "--verbose", cwd=tmp_path)
    assert ("local ports allow 16,384" in caplog.text) == warned


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port is taken as the address is")
def test_port_is_taken_from_one_server_only():
    """Bound before it connects, as many sockets as there are ports would use them up for every server."""
    with socket.socket() as sock:
        bind_source(sock, "127.0.0.1")
        assert sock.getsockname()[1] == 0


@pytest.mark.slow
@pytest.mark.skipif(bool(networks()), reason=networks() or "-")
@pytest.mark.parametrize("sources", [0, 3])
def test_more_users_than_ports(sources, tmp_path):
    """30 users and 20 ports: refused with what to do, and with that done, every request is sent."""
    given = [f"--source-address=127.0.0.{2 + number}" for number in range(sources)]
    load = ["--users=30", "--duration=1s", "--warm-up=300ms", "--max-tokens=5", "--json"]
    done = with_few_ports(*COMMAND, "sweep", *load, *given, cwd=tmp_path)
    if not sources:
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 2), done.stderr
        assert "send from 3 addresses of this machine with --source-address" in done.stderr
    else:
        assert "Traceback" not in done.stderr
        assert set(json.loads(done.stdout)["levels"][0]["outcomes"]) == {"ok"}, done.stderr


_HELD = """
import socket, subprocess, sys
from tests.client.test_local_ports import bind_source, server
with server() as (url, peers):
    held = []
    try:
        while True:
            held.append(socket.socket())
            bind_source(held[-1], "127.0.0.2")
            held[-1].connect(("127.0.0.1", int(url.rpartition(":")[2])))
    except OSError:
        assert len(held) > 10
    sys.exit(subprocess.run([*sys.argv[1:], f"--url={url}"]).returncode)
"""


@pytest.mark.slow
@pytest.mark.skipif(bool(networks()), reason=networks() or "-")
@pytest.mark.parametrize("transport", ["fast", "httpx"])
def test_address_without_a_port_left_is_passed_over(transport, tmp_path):
    """Another program has all of one address: no request fails while the others have some."""
    given = [f"--source-address=127.0.0.{2 + number}" for number in range(3)]
    sweep = ["sweep", "--users=6", "--requests=12", "--warm-up=0s", "--json", *given]
    held = [sys.executable, "-c", _HELD, *COMMAND, *sweep, f"--transport={transport}"]
    done = with_few_ports(*held, cwd=tmp_path, PYTHONPATH=str(Path(__file__).parents[2]))
    assert set(json.loads(done.stdout)["levels"][0]["outcomes"]) == {"ok"}, done.stderr
