"""Check Dask's TLS settings and a scheduler's address before a client connects, which would hang or log tracebacks."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from etl.errors import ConfigError, TaskError

_CONNECT_SECONDS = 10.0
_TLS = "DASK_DISTRIBUTED__COMM__TLS__"


def check(address: str) -> None:
    """Raise ConfigError if the address does not fit Dask's TLS settings, TaskError if nothing listens at it."""
    url = urlsplit(address)
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if host is None or port is None:
        raise ConfigError("", "scheduler", repr(address), "an address such as tcp://127.0.0.1:8786")
    if address.startswith("tls://"):
        _check_certificate("client")
    elif _encryption_is_required():
        raise ConfigError("", "scheduler", repr(address), "tls://, because Dask's settings require encryption")
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise TaskError(f"no Dask scheduler answers at {address}: {error}") from error


def check_local() -> None:
    """Raise ConfigError if Dask's settings require encryption of a local cluster too, and it has no certificates."""
    if _encryption_is_required():
        for role in ("client", "scheduler", "worker"):
            _check_certificate(role)


def _encryption_is_required() -> bool:
    from distributed.security import Security

    return bool(Security().require_encryption)


def _check_certificate(role: str) -> None:
    from distributed.security import Security

    variables = f"{_TLS}CA_FILE and {_TLS}{role.upper()}__CERT"
    try:
        context = Security().get_connection_args(role).get("ssl_context")
    except OSError as error:
        raise ConfigError("", variables, str(error), "files with certificates") from error
    if context is None:
        raise ConfigError("", variables, "not both", "the certificates of the authority that the scheduler trusts")
