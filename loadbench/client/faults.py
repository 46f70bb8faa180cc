"""The reason of a broken connection, in words that a user can act on.

httpx and anyio wrap the error with the reason in several errors without it ("All connection attempts failed"), so the
whole chain of causes is searched.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_CLIENT_CERTIFICATE = "loadbench has no client certificate: connect through a proxy that has one"
# Parts of OpenSSL's reasons, what they mean, and what to do. An alert is what the server says of us.
_TLS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("CERTIFICATE_REQUIRED", "ALERT_BAD_CERTIFICATE", "ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE_UNKNOWN"),
        "it wants a client certificate",
        _NO_CLIENT_CERTIFICATE,
    ),
    (
        ("ALERT_HANDSHAKE_FAILURE",),
        "it refused the TLS handshake: it wants a client certificate, or ciphers that are not safe any more",
        _NO_CLIENT_CERTIFICATE,
    ),
    (
        ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"),
        "it speaks TLS 1.1 or older, which is not safe any more",
        "let it speak TLS 1.2 or newer",
    ),
    (
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"),
        "it does not speak TLS on this port",
        "write http:// instead of https://",
    ),
)
# By OpenSSL's X509_V_ERR codes: not yet valid, expired, for another name, for another address.
_BY_VERIFY_CODE = {
    9: "compare the clocks of both machines",
    10: "have the certificate renewed",
    62: "use the name that the certificate is for",
    64: "use the name or address that the certificate is for",
}


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all its causes and contexts, outermost first."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(current.exceptions)
        waiting.extend((current.__cause__, current.__context__))


class WrongFamilyError(OSError):
    """A host has no address of the family of the local address."""

    def __init__(self, host: str, family: int) -> None:
        self.wanted, self.other = ("IPv6", "IPv4") if family == socket.AF_INET6 else ("IPv4", "IPv6")
        super().__init__(f"{host} has no {self.wanted} address, and --source-address is one")


def is_out_of_ports(error: BaseException) -> bool:
    """Whether a connection failed because its local address has no port left."""
    return any(isinstance(cause, OSError) and cause.errno in _NO_PORT for cause in causes(error))


def is_shortage(error: BaseException) -> bool:
    """Whether this machine, or a limit of this process, is to blame, and nobody at the other end."""
    return any(
        isinstance(cause, MemoryError)
        or (isinstance(cause, socket.gaierror) and cause.errno in _NO_RESOLVER)
        or (isinstance(cause, OSError) and not isinstance(cause, socket.gaierror) and cause.errno in _SHORTAGES)
        for cause in causes(error)
    )


def explain(error: BaseException) -> tuple[str, str]:
    """(what happened, what to do), both without the address, which the caller knows; the latter may be empty."""
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, WrongFamilyError):
            return str(cause), f"give an {cause.other} address of this machine, or the server's {cause.wanted} address"
        if isinstance(cause, UnicodeError) or (isinstance(cause, socket.gaierror) and not is_shortage(cause)):
            return "no such host", "check the name, or give an IP address"
        if isinstance(cause, ssl.SSLCertVerificationError):
            reason = cause.verify_message or "verification failed"
            remedy = _BY_VERIFY_CODE.get(getattr(cause, "verify_code", 0), "give its CA with --cacert FILE")
            hint = f"{remedy}, or turn verification off with --insecure"
            return f"its certificate is not trusted: {reason}", hint
        if isinstance(cause, ssl.SSLError):
            reason = cause.reason or ""
            for words, what, hint in _TLS:
                if any(word in reason.replace(" ", "_").upper() for word in words):
                    return what, hint
            return f"the TLS handshake failed: {(reason or str(cause)).lower()}", "check its TLS set-up"
    for cause in chain:
        if isinstance(cause, OSError) and cause.errno in _BY_ERRNO:
            return _BY_ERRNO[cause.errno]
        if isinstance(cause, ConnectionResetError) and cause.errno is None:
            # From asyncio, not from the system: it raises this in a TLS handshake only.
            return "it closed the connection in the TLS handshake", "does it speak TLS on this port?"
    return str(error) or type(error).__name__, ""


# The system's limits, and what a resolver says that met one of them.
# No port is left: as it connects; or as it is bound, for which Linux has the second and Windows the third.
_NO_PORT = frozenset({errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.ENOBUFS})
_SHORTAGES = _NO_PORT | {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
_NO_RESOLVER = frozenset({getattr(socket, "EAI_SYSTEM", None), socket.EAI_MEMORY} - {None})
_BY_ERRNO: dict[int | None, tuple[str, str]] = {
    errno.ECONNREFUSED: ("connection refused", "is the server running, and is this its port?"),
    errno.ENETUNREACH: ("the network cannot be reached", "check the address"),
    errno.EHOSTUNREACH: ("the host cannot be reached", "check the address"),
    errno.ETIMEDOUT: ("no response to the connection attempt", "check the address and the firewall"),
    errno.ECONNRESET: ("connection reset by the server", "does it expect https://?"),
    errno.EPIPE: ("connection closed by the server while the request was sent", ""),
    errno.EMFILE: ("this process may open no more sockets", "raise the limit: ulimit -n"),
    errno.ENFILE: ("this machine may open no more files", "raise fs.file-max"),
    **dict.fromkeys(
        (errno.EADDRNOTAVAIL, errno.EADDRINUSE),
        ("no local port is left", "use fewer users, more local addresses (--source-address), or a wider port range"),
    ),
    errno.ENOBUFS: ("the system has no room for another socket", "reduce the load"),
    errno.ENOMEM: ("the system has no memory for another socket", "reduce the load"),
    errno.EAGAIN: (
        "the system allows no further process or connection",
        "raise its limits (ulimit -u), reduce the load",
    ),
}
