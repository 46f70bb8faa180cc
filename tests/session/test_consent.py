"""Whose machine is loaded without a question, and what answers the question."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time

import anyio
import pytest

from loadbench.core.errors import BadInput, Interrupted, TargetUnavailable
from loadbench.plan.sources import resolve
from loadbench.session.consent import confirm_load
from tests.cli.any_server import any_server
from tests.cli.running import LIMIT_S, environment, loadbench
from tests.cli.typed import typed

# Reserved for documentation (RFC 5737, RFC 3849): nobody's, and not private. Nothing is sent there.
NOBODYS = "192.0.2.7"
OURS = ["127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.31.0.9", "192.168.7.7", "169.254.1.1", "::1", "fe80::1"]
OURS += ["fd00::5", "::ffff:10.0.0.1"]
THEIRS = [
    NOBODYS,
    "8.8.8.8",
    "172.32.0.1",
    "100.64.0.1",
    "11.0.0.1",
    "2001:db8::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


def asked(*urls: str, say=lambda _: None, **flags: object) -> dict[str, tuple[str, ...]]:
    """What a session does before anything is sent."""
    return anyio.run(lambda: confirm_load(resolve(flags={"url": urls, **flags}, environment={}), say=say))


@pytest.fixture
def names(monkeypatch):
    """Addresses by name, in place of the system's."""
    known: dict[str, list[str]] = {}

    async def look_up(host, port, **_):
        return [(0, 0, 0, "", (address, port)) for address in known.get(host, [host])]

    monkeypatch.setattr("anyio.getaddrinfo", look_up)
    return known


@pytest.mark.parametrize("address", OURS)
def test_this_machine_and_private_networks_are_not_asked_about(names, address):
    """By address and by name."""
    names["box.example"] = [address]
    asked(f"http://[{address}]:8080" if ":" in address else f"http://{address}:8080")
    asked("https://box.example/v1")


@pytest.mark.parametrize("address", THEIRS)
def test_any_other_address_is_asked_about(names, address):
    """One such address of a name is enough; the message has it, and the flag that allows it."""
    names["box.example"] = ["10.0.0.1", address]
    with pytest.raises(BadInput) as caught:
        asked("http://box.example")
    assert address.replace("::ffff:8.8.8.8", "::ffff:") in caught.value.message
    assert "--yes-load box.example" in caught.value.hint
    asked("http://box.example", yes_load=("BOX.example.",))
    with pytest.raises(BadInput, match="no server that is measured has this host"):
        asked("http://box.example", yes_load=("example",))


@pytest.mark.parametrize("host", ["api.openai.com", "openai.com", "NAME.openai.azure.com", "api.openai.com."])
def test_a_public_api_is_asked_about_wherever_its_name_leads(names, host):
    """Also to a private address, and to this machine; a name that only ends alike is none."""
    names[host.lower().rstrip(".")] = ["10.0.0.1"]
    with pytest.raises(BadInput, match="is a public API"):
        asked(f"https://{host}/v1")
    said: list[str] = []
    asked(f"https://{host}/v1", yes_load=(host,), say=said.append)
    assert "10.0.0.1" in said[0]
    names["notopenai.com"] = ["10.0.0.1"]
    asked("https://notopenai.com/v1")


def test_the_addresses_that_were_confirmed_are_kept(names):
    """Of each host, each once and in their order: the requests go to these."""
    names["box.example"] = ["10.0.0.2", "10.0.0.1", "10.0.0.2"]
    names["api.openai.com"] = ["10.0.0.3"]
    assert asked("http://box.example", "http://127.0.0.1:1") == {
        "box.example": ("10.0.0.2", "10.0.0.1"),
        "127.0.0.1": ("127.0.0.1",),
    }
    assert asked("https://api.openai.com", yes_load=("api.openai.com",)) == {"api.openai.com": ("10.0.0.3",)}


class Terminal(io.StringIO):
    """A stream at a terminal, or not; its reader may be interrupted."""

    def __init__(self, text: str = "", *, is_tty: bool = True, interrupted: bool = False) -> None:
        super().__init__(text)
        self.is_tty, self.interrupted, self.shown = is_tty, interrupted, ""

    def flush(self) -> None:
        self.shown = self.getvalue()

    def isatty(self) -> bool:
        return self.is_tty

    def readline(self, *_) -> str:
        if self.interrupted:
            raise KeyboardInterrupt
        return super().readline()


@pytest.mark.parametrize(
    ("stdin", "stderr"),
    [
        (Terminal("yes\n", is_tty=False), Terminal()),
        (Terminal("yes\n"), Terminal(is_tty=False)),
        (None, Terminal()),
        (Terminal("yes\n"), None),
    ],
)
def test_nobody_is_asked_where_nobody_reads_the_question(monkeypatch, stdin, stderr):
    """Both the question and the answer need a terminal; without one the flag is named."""
    monkeypatch.setattr("sys.stdin", stdin)
    monkeypatch.setattr("sys.stderr", stderr)
    with pytest.raises(BadInput, match=f"--url: {NOBODYS}") as caught:
        asked(f"http://{NOBODYS}:1")
    assert caught.value.hint == f"if you may load it, and pay for it, add --yes-load {NOBODYS}"
    assert stderr is None or stderr.getvalue() == ""


@pytest.fixture
def own_handler():
    """A handler of Ctrl-C, as an event loop has one."""

    def handler(*_) -> None:
        """Nothing."""

    before = signal.signal(signal.SIGINT, handler)
    yield handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("typed_in", "is_yes"), [("yes\n", True), (" Y \n", True), ("no\n", False), ("", False)])
def test_only_a_yes_begins(monkeypatch, own_handler, typed_in, is_yes):
    """The question has each host with its address; Ctrl-C works afterwards as before."""
    monkeypatch.setattr("sys.stdin", Terminal(typed_in))
    monkeypatch.setattr("sys.stderr", Terminal())
    if is_yes:
        assert asked(f"http://{NOBODYS}:1") == {NOBODYS: (NOBODYS,)}
    else:
        with pytest.raises(BadInput, match=f"--url: not confirmed: {NOBODYS}") as caught:
            asked(f"http://{NOBODYS}:1")
        assert caught.value.hint == f"type yes, or add --yes-load {NOBODYS}"
    assert f"{NOBODYS} ({NOBODYS}) is neither this machine nor in a private network." in sys.stderr.shown
    assert "Type yes to begin" in sys.stderr.shown
    assert signal.getsignal(signal.SIGINT) is own_handler


def test_ctrl_c_at_the_question_sends_nothing(monkeypatch, own_handler):
    """It ends the command in order, and works afterwards as before."""
    monkeypatch.setattr("sys.stdin", Terminal(interrupted=True))
    monkeypatch.setattr("sys.stderr", Terminal())
    with pytest.raises(Interrupted, match="before any request"):
        asked(f"http://{NOBODYS}:1")
    assert signal.getsignal(signal.SIGINT) is own_handler


def test_each_of_several_servers_is_asked_about(names):
    """A local one in front confirms nothing, and a confirmed one only itself."""
    with pytest.raises(BadInput) as caught:
        asked("http://127.0.0.1:1", f"http://{NOBODYS}:1", "http://192.0.2.8:1", yes_load=(NOBODYS,))
    assert "192.0.2.8" in caught.value.message
    assert NOBODYS not in caught.value.message


def test_a_host_that_is_not_found_is_not_loaded():
    """Its name might lead somewhere at the next try."""
    with pytest.raises(TargetUnavailable, match="no such host"):
        asked("http://nosuch.invalid")


@pytest.mark.parametrize(
    "command",
    [
        ["sweep"],
        ["replay", "t.csv"],
        ["capacity", "--slo", "e2e_p95<1s"],
        ["compare", "--b", "http://127.0.0.1:1"],
        ["workshop"],
        ["score", "stub", "--prompt", "hi"],
        ["sweep", "s.toml"],
    ],
)
def test_every_command_that_measures_asks(tmp_path, command):
    """Without a terminal that is an error before anything is sent, whoever names the address."""
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2026-01-01 00:00:00,5,5\n")
    (tmp_path / "s.toml").write_text(f'[target]\nurl = "http://{NOBODYS}:9"\n')
    given = {"compare": [f"--a=http://{NOBODYS}:9"], "sweep": [] if "s.toml" in command else None}.get(command[0])
    done = typed(*command, *([f"--url=http://{NOBODYS}:9"] if given is None else given), "--model=m", cwd=tmp_path)
    assert (done.returncode, f"{NOBODYS} ({NOBODYS}) is neither" in done.stderr) == (2, True), done.stderr
    assert f"--yes-load {NOBODYS}" in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_file_confirms_nothing(tmp_path):
    """A scenario may be somebody else's."""
    (tmp_path / "s.toml").write_text(f'[target]\nurl = "http://{NOBODYS}:9"\nyes_load = ["{NOBODYS}"]\n')
    done = typed("sweep", "s.toml", cwd=tmp_path)
    assert (done.returncode, "s.toml:3: target.yes_load: only you can confirm this" in done.stderr) == (2, True)


# The command line, for which no address is its own: 127.0.0.1 is asked about.
_STRICT = "import loadbench.session.consent as c; c._OURS = (); from loadbench.cli import main; main()"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("typed_in", "codes", "requests"),
    [("yes\n", {0, 4, 5}, True), ("no\n", {2}, False), ("\n", {2}, False), ("", {130}, False)],
)
def test_an_answer_at_the_terminal_decides(tmp_path, typed_in, codes, requests):
    """Yes, no, and Ctrl-C, which ends it at once."""
    import pty  # noqa: PLC0415 - not on Windows

    leader, follower = pty.openpty()
    with any_server() as server:
        arguments = ("sweep", "--url", server.root, "--users=1", "--requests=1", "--warm-up=0s", "--telemetry=off")
        child = subprocess.Popen(
            [sys.executable, "-c", _STRICT, *arguments],
            cwd=tmp_path, env=environment(), stdin=follower, stdout=subprocess.DEVNULL, stderr=follower,
        )  # fmt: skip
        seen, until = "", time.monotonic() + LIMIT_S
        try:
            while "Type yes" not in seen and child.poll() is None and time.monotonic() < until:
                if select.select([leader], [], [], 0.2)[0]:
                    seen += os.read(leader, 4096).decode()
            assert "127.0.0.1 (127.0.0.1)" in seen
            assert server.got == []
            if typed_in:
                os.write(leader, typed_in.encode())
            else:
                time.sleep(0.2)  # until it waits for the answer
                child.send_signal(signal.SIGINT)
            while child.poll() is None and time.monotonic() < until:
                if select.select([leader], [], [], 0.2)[0]:
                    seen += os.read(leader, 4096).decode()
        finally:
            child.kill()
            child.wait()
            os.close(leader)
            os.close(follower)
        assert (child.returncode in codes, bool(server.posts)) == (True, requests), seen


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs several addresses of this machine")
@pytest.mark.parametrize("transport", ["fast", "httpx"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_name_that_is_led_elsewhere_takes_no_request_along(tmp_path, transport, workers):
    """Seen without the mend: the second look-up, that of the requests, went to the other server."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, socket\n"
        "real = socket.getaddrinfo\n"
        "def look_up(host, port, *more, **options):\n"
        "    name = host.decode() if isinstance(host, bytes) else host\n"
        "    if name == 'moving.example':\n"
        f"        first = not os.path.exists({str(tmp_path / 'asked')!r})\n"
        f"        open({str(tmp_path / 'asked')!r}, 'w').close()\n"
        "        host = '127.0.0.1' if first else '127.0.0.2'\n"
        "    return real(host, port, *more, **options)\n"
        "socket.getaddrinfo = look_up\n",
        encoding="utf-8",
    )
    with any_server() as confirmed, socket.socket() as other:
        port = confirmed.server_address[1]
        other.bind(("127.0.0.2", port))
        other.listen()
        other.setblocking(False)
        flags = f"--users 2 --requests 4 --warm-up 0s --workers {workers} --transport {transport} --telemetry off"
        url = f"http://Moving.example.:{port}/v1"
        done = loadbench("sweep", "--url", url, *flags.split(), cwd=tmp_path, PYTHONPATH=str(site))
        with pytest.raises(BlockingIOError):
            other.accept()
    assert done.returncode in {0, 4, 5}, done.stderr
    assert len(confirmed.posts) >= 4


def test_a_run_that_is_continued_is_asked_about_where_its_name_leads_now(tmp_path, monkeypatch):
    """What was private when it began says nothing of another address, nor does its record confirm any."""
    real, leads_to = socket.getaddrinfo, ["127.0.0.1"]

    def look_up(host, *arguments, **options):
        return real(leads_to[0] if host in {"box.example", b"box.example"} else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with any_server() as server:
        url = server.root.replace("127.0.0.1", "box.example")
        load = ("--requests=2", "--warm-up=0s", "--telemetry=off", "--quiet")
        first = typed("sweep", "--url", url, "--users=1", *load, cwd=tmp_path)
        assert first.returncode in {0, 4, 5}, first.stderr
        (run,) = (tmp_path / "results").iterdir()
        more = ("sweep", "--resume", str(run), "--users=1,2")
        leads_to[0], sent = NOBODYS, len(server.got)
        refused = typed(*more, cwd=tmp_path)
        assert (refused.returncode, f"box.example ({NOBODYS})" in refused.stderr) == (2, True), refused.stderr
        text = (run / "run.json").read_text()
        document = json.loads(text)
        document["scenario"]["target"]["yes_load"] = ["box.example"]
        document["origins"]["target.yes_load"] = "flag --yes-load"
        (run / "run.json").write_text(json.dumps(document))
        assert typed(*more, cwd=tmp_path).returncode == 2
        assert len(server.got) == sent
        (run / "run.json").write_text(text)
        leads_to[0] = "127.0.0.1"
        assert "resumed after 1 whole level" in typed(*more, cwd=tmp_path).stderr
