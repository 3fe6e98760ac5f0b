"""The command that creates the certificates of Dask in docker/."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cryptography")
KEY = b"-----BEGIN PRIVATE"
PROGRAM = Path(__file__).resolve().parents[2] / "docker" / "certificates.py"


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with certificates."""
    path = tmp_path / "certificates"
    path.mkdir()
    assert run(path).returncode == 0
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_certificates_are_made_once_and_made_again_when_they_are_deleted(folder: Path) -> None:
    before = contents(folder)
    assert run(folder).stdout.startswith(f"{folder}: certificates for Dask, valid until 20")
    assert contents(folder) == before
    for name in before:
        (folder / name).unlink()
    assert run(folder).returncode == 0
    assert contents(folder).keys() == before.keys()
    assert contents(folder) != before


def test_their_owner_alone_reads_the_key_and_no_file_has_that_of_the_authority(folder: Path) -> None:
    files = contents(folder)
    assert files.keys() == {"ca.pem", "dask.pem"}
    assert b"PRIVATE KEY" not in files["ca.pem"] and files["dask.pem"].count(b"BEGIN PRIVATE KEY") == 1
    assert (folder / "dask.pem").stat().st_mode & 0o777 == 0o600


def test_an_interrupted_first_start_is_completed(folder: Path) -> None:
    (folder / "dask.pem").rename(folder / "dask.tmp")
    assert run(folder).returncode == 0
    assert contents(folder).keys() == {"ca.pem", "dask.pem"}


def test_a_strict_check_accepts_them(folder: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    command = ["openssl", "verify", "-x509_strict", "-CAfile", folder / "ca.pem", folder / "dask.pem"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("damage", ["no authority", "another authority", "no key", "another key", "garbage"])
def test_certificates_that_do_not_fit_together_are_an_error_that_names_the_remedy(folder: Path, damage: str) -> None:
    other = folder.parent / "other"
    other.mkdir()
    assert run(other).returncode == 0
    authority, certificate = folder / "ca.pem", folder / "dask.pem"
    public, key = certificate.read_bytes().split(KEY)
    if damage == "no authority":
        authority.unlink()
    elif damage == "another authority":
        authority.write_bytes((other / "ca.pem").read_bytes())
    elif damage == "no key":
        certificate.write_bytes(public)
    elif damage == "another key":
        certificate.write_bytes(
            public + b"-----BEGIN PRIVATE" + (other / "dask.pem").read_bytes().split(b"PRIVATE", 1)[1]
        )
    else:
        certificate.write_bytes(key[:40])
    done = run(folder)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "delete ca.pem and dask.pem there" in done.stderr


def test_expired_certificates_are_an_error(folder: Path) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("certificates", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module._DAYS = 0
    module.create(folder)
    with pytest.raises(SystemExit, match="the certificates expired on"):
        module._main(folder)
