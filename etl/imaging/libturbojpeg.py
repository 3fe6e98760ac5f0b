"""libturbojpeg, the shared library that crops JPEGs and decodes their planes: where it is, and how to call it."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from turbojpeg import TurboJPEG

_WRAPPER = "PyTurboJPEG"


@dataclass(frozen=True)
class Library:
    """A loaded libturbojpeg."""

    path: str
    wrapper: TurboJPEG
    version: str  # of PyTurboJPEG

    @cached_property
    def functions(self) -> ctypes.CDLL:
        """The library's functions that PyTurboJPEG does not wrap."""
        library = ctypes.CDLL(self.path)
        pointer, integer = ctypes.c_void_p, ctypes.c_int
        library.tjInitDecompress.restype = pointer
        library.tjDestroy.argtypes = [pointer]
        library.tjDecodeYUVPlanes.argtypes = [
            pointer, pointer, pointer, integer, pointer, integer, integer, integer, integer, integer,
        ]  # fmt: skip
        library.tjInitTransform.restype = pointer
        library.tjFree.argtypes = [pointer]
        library.tjTransform.argtypes = [
            pointer, ctypes.c_char_p, ctypes.c_ulong, integer, pointer, pointer, pointer, integer,
        ]  # fmt: skip
        return library


@cache
def load() -> Library | None:
    """Return the first libturbojpeg that PyTurboJPEG can use, None if there is none."""
    wrapper = _load_wrapper()
    if wrapper is None:
        return None
    version = importlib.metadata.version(_WRAPPER)
    for path in find_libraries():
        try:
            return Library(path, wrapper.TurboJPEG(path), version)
        except (OSError, AttributeError):  # missing, or without the functions that PyTurboJPEG needs
            continue
    return None


@cache
def _load_wrapper() -> ModuleType | None:
    """Load PyTurboJPEG's module from its file, None if it is not installed.

    An `import turbojpeg` loads the module of another package, `turbojpeg` on PyPI, where both are installed.
    """
    try:
        files = importlib.metadata.files(_WRAPPER) or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.name == "turbojpeg.py"]
    spec = importlib.util.spec_from_file_location("pyturbojpeg", paths[0]) if paths else None
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_libraries() -> Iterator[str]:
    """Yield paths where libturbojpeg may be: in the wheel pylibjxl, then in the system.

    The extension module of pylibjxl exports all functions of a current libjpeg-turbo. Both give equal bytes
    (tests/etl/imaging/test_libturbojpeg.py).
    """
    wheel = importlib.util.find_spec("pylibjxl")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        yield from sorted(map(str, Path(folder).glob("_pylibjxl*.so")))
    yield from _system_libraries()


def _system_libraries() -> Iterator[str]:
    name = ctypes.util.find_library("turbojpeg")
    if name is not None:
        yield name
    wrapper = _load_wrapper()
    if wrapper is not None:
        yield from wrapper.DEFAULT_LIB_PATHS.get(platform.system(), ())
