"""The versions of everything that affects the bytes of a build: Speck's code and the libraries it calls."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from functools import cache
from pathlib import Path

CODE = "etl"
_DIGITS = 16  # of the digest of the code: 64 bits
_LIBRARIES = (
    "albucore",
    "albumentations",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "pillow",
    "pillow-heif",
    "pyarrow",
    "pylibjxl",
    "pyturbojpeg",
    "pyvips",
    "pyvips-binary",
    "scipy",
    "simplejpeg",
)


@cache
def code_version() -> Mapping[str, str]:
    """Return the digest of the package `etl` of this process and the versions of its libraries, by name."""
    return {CODE: tree_digest(Path(__file__).parents[1]), **_installed()}


def tree_digest(folder: Path) -> str:
    """Return a hex digest of the paths and bytes of the Python files in a folder."""
    total = hashlib.sha256()
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*.py")):
        total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:_DIGITS]


def differences(worker: Mapping[str, str], client: Mapping[str, str]) -> list[str]:
    """Return a phrase for each version that differs.

    A library that only one side has installed is ignored: the Airflow image has no albumentations, the workers do.
    """
    return [
        f"{name} is {worker[name]} on the worker and {client[name]} on the client"
        for name in client
        if worker.get(name, client[name]) != client[name]
    ]


def _installed() -> dict[str, str]:
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
