"""What a broken connection means: one cause and one remedy, found in the whole chain of exceptions."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
import pytest
import trustme

from loadbench.client.fast_transport import FastTransport
from loadbench.client.faults import causes, explain
from loadbench.client.transport import HttpRequest, TransportError


def chained(*errors: BaseException) -> BaseException:
    """The first error, caused by the second, caused by the third …"""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def tls_error(reason: str, kind: type[ssl.SSLError] = ssl.SSLError) -> ssl.SSLError:
    """As OpenSSL's errors come."""
    error = kind(1, f"[SSL: {reason}] something (_ssl.c:1006)")
    error.reason = reason
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ECONNREFUSED, "connection refused"),
        (errno.ENETUNREACH, "network cannot be reached"),
        (errno.EHOSTUNREACH, "host cannot be reached"),
        (errno.ETIMEDOUT, "no response to the connection attempt"),
        (errno.ECONNRESET, "connection reset"),
        (errno.EPIPE, "closed by the server"),
        (errno.EMFILE, "no more sockets"),
        (errno.EADDRNOTAVAIL, "no local port"),
    ],
)
def test_system_error_is_told_in_words(number, what):
    """However deep it lies under what httpx and anyio say, the system's error is what is told, with no address."""
    deep = chained(
        httpx.ConnectError("All connection attempts failed"),
        OSError("All connection attempts failed"),
        OSError(number, os.strerror(number), "10.1.2.3"),
    )
    told, _ = explain(deep)
    assert what in told
    assert "10.1.2.3" not in told


def test_cause_in_a_group_is_found():
    """Several attempts, to several addresses, come as a group."""
    group = ExceptionGroup("all failed", [OSError("?"), ConnectionRefusedError(errno.ECONNREFUSED, "refused")])
    assert explain(chained(httpx.ConnectError("failed"), group))[0] == "connection refused"


def test_unknown_name_is_told_before_anything_else():
    """A name error is an OSError with a number of its own, which means something else there."""
    told, hint = explain(chained(httpx.ConnectError("x"), socket.gaierror(socket.EAI_NONAME, "unknown")))
    assert (told, bool(hint)) == ("no such host", True)


@pytest.mark.parametrize("name", ["ö" * 60, "y" * 64, "a..b"])
def test_name_that_cannot_exist_is_no_such_host(name):
    """Python cannot encode it, which is an error of a kind of its own."""
    with pytest.raises(UnicodeError) as caught:
        socket.getaddrinfo(name, 80)
    assert explain(chained(httpx.ConnectError("x"), caught.value))[0] == "no such host"


@pytest.mark.parametrize(
    ("days", "name", "what", "hint"),
    [
        ((-9, -1), "127.0.0.1", "has expired", "renewed"),
        ((1, 9), "127.0.0.1", "not yet valid", "clocks"),
        ((-1, 9), "127.0.0.2", "not valid for '127.0.0.1'", "address that the certificate is for"),
    ],
)
def test_certificate_that_no_ca_can_mend_has_its_own_remedy(days, name, what, hint):
    """Seen: `--cacert` was the advice for a certificate that had expired."""
    authority, now = trustme.CA(), datetime.now(UTC)
    begin, end = (now + timedelta(days=one) for one in days)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(name, not_before=begin, not_after=end).configure_cert(server)
    authority.configure_trust(client)
    sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(received, sent, server_hostname="127.0.0.1")
    theirs = server.wrap_bio(sent, received, server_side=True)
    failure = None
    for side in (ours, theirs, ours):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            failure = error
    told, remedy = explain(failure)
    assert what in told
    assert hint in remedy
    assert "--cacert" not in remedy


@pytest.mark.parametrize(
    ("error", "what", "hint"),
    [
        (tls_error("WRONG_VERSION_NUMBER"), "does not speak TLS", "http://"),
        (tls_error("RECORD_LAYER_FAILURE"), "does not speak TLS", "http://"),
        (tls_error("HTTP_REQUEST"), "does not speak TLS", "http://"),
        (tls_error("PACKET_LENGTH_TOO_LONG"), "does not speak TLS", "http://"),
        (tls_error("record layer failure"), "does not speak TLS", "http://"),
        (tls_error("NO_SHARED_CIPHER"), "handshake failed: no_shared_cipher", "TLS set-up"),
        (tls_error("CERTIFICATE_VERIFY_FAILED", ssl.SSLCertVerificationError), "not trusted: self-signed", "--cacert"),
        (tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "wants a client certificate", "proxy"),
        (tls_error("SSLV3_ALERT_BAD_CERTIFICATE"), "wants a client certificate", "proxy"),
        (tls_error("SSLV3_ALERT_HANDSHAKE_FAILURE"), "refused the TLS handshake", "proxy"),
        (tls_error("TLSV1_ALERT_PROTOCOL_VERSION"), "TLS 1.1 or older", "TLS 1.2"),
        (ConnectionResetError(), "closed the connection in the TLS handshake", "TLS"),
    ],
)
def test_tls_error_says_which(error, what, hint):
    """No TLS there, no trust, or no agreement: each has its own words, and its own remedy."""
    told, remedy = explain(chained(httpx.ConnectError("failed"), error))
    assert what in told
    assert hint in remedy


def test_what_is_not_known_is_told_as_it_is():
    """An error without a known cause keeps its own words, and one without words its name; there is no remedy then."""
    assert explain(httpx.RemoteProtocolError("illegal status line")) == ("illegal status line", "")
    assert explain(httpx.ReadError("")) == ("ReadError", "")


def test_chain_is_walked_once_and_to_its_end():
    """Each error of a chain comes once, outermost first, even where the chain bites its tail."""
    outer, middle, inner = ValueError("a"), TypeError("b"), KeyError("c")
    outer.__cause__ = middle
    outer.__context__ = middle
    middle.__context__ = inner
    inner.__context__ = outer
    assert list(causes(outer)) == [outer, middle, inner]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"verify_mode": ssl.CERT_REQUIRED, "maximum_version": ssl.TLSVersion.TLSv1_2}, "client certificate"),
        ({"verify_mode": ssl.CERT_REQUIRED}, "client certificate"),
        ({"minimum_version": ssl.TLSVersion.TLSv1, "maximum_version": ssl.TLSVersion.TLSv1_1}, "TLS 1.1 or older"),
    ],
    ids=["certificate", "certificate with TLS 1.3", "TLS 1.1"],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_server_says_in_an_alert_what_it_wants(changes, what):
    """Over a real connection: the server refuses the handshake, waits until its alert has been read, and closes."""
    context, ca = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), trustme.CA()
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.configure_trust(context)
    context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL refuses TLS 1.1 above it
    for name, value in changes.items():
        setattr(context, name, value)
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        raw, _ = listener.accept()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = context.wrap_bio(incoming, outgoing, server_side=True)
        with raw, contextlib.suppress(OSError):
            while part := raw.recv(65536):
                incoming.write(part)
                with contextlib.suppress(ssl.SSLError):
                    secure.do_handshake()
                raw.sendall(outgoing.read())

    async def refused() -> TransportError:
        transport = FastTransport(tls=trusting)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        try:
            with pytest.raises(TransportError) as error:
                await transport.exchange(HttpRequest("GET", url), _Deaf())
        finally:
            await transport.aclose()
        return error.value

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        error = asyncio.run(refused())
        thread.join(10)
    assert what in error.detail


class _Deaf:
    """A sink that does not listen."""

    def __getattr__(self, name: str):
        return lambda *_, **__: None
