"""Dask's TLS settings are checked before a client connects: wrong ones are one error at once, not a hanging client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from etl.errors import ConfigError
from etl.execution import cluster

pytest.importorskip("distributed")
TLS, TCP = "tls://127.0.0.1:1", "tcp://127.0.0.1:1"
VARIABLES = "DASK_DISTRIBUTED__COMM__TLS__CA_FILE and DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT"
REQUIRED = {"require-encryption": True}


def tls(authority: Path | None, certificate: Path | None) -> dict[str, str | None]:
    return {"tls.ca-file": authority and str(authority), "tls.client.cert": certificate and str(certificate)}


def refused(address: str | None, settings: Mapping[str, object]) -> str:
    """Return the error of a client with this address and these settings below `distributed.comm`."""
    import dask

    comm = {f"distributed.comm.{name}": value for name, value in settings.items()}
    with dask.config.set(comm), pytest.raises(ConfigError) as caught, cluster.connect(address, 1):
        pass
    return str(caught.value)


def test_an_encrypted_address_needs_an_authority_and_a_certificate(tmp_path: Path) -> None:
    file = tmp_path / "any.pem"
    file.write_text("")
    assert refused(TLS, {}).startswith(VARIABLES)
    assert refused(TLS, tls(file, None)).startswith(VARIABLES)
    assert refused(TLS, tls(None, file)).startswith(VARIABLES)


def test_certificates_that_cannot_be_read_are_named_by_their_variables(tmp_path: Path) -> None:
    file, none = tmp_path / "any.pem", tmp_path / "none.pem"
    file.write_text("no certificate")
    assert "No such file" in refused(TLS, tls(none, none))
    assert refused(TLS, tls(file, file)).startswith(VARIABLES)


def test_where_encryption_is_required_a_plain_address_is_an_error() -> None:
    assert "expected tls://" in refused(TCP, REQUIRED)


def test_where_encryption_is_required_a_local_cluster_needs_certificates_too() -> None:
    assert refused(None, REQUIRED).startswith(VARIABLES)
