"""The TLS context of a run."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path


def tls_context(*, cacert: Path | None = None, insecure: bool = False) -> ssl.SSLContext:
    """The TLS context of a run: it trusts the system's CAs or those of the file, or verifies nothing (`insecure`).

    Raises `BadInput` if the file cannot be read or has no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=cacert)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"--cacert {cacert}: {error.strerror or error}", hint="name a readable PEM file") from None
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
