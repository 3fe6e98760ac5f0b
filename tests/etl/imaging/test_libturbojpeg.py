"""Every libturbojpeg that is found gives the bytes that pinned plans rely on, and the wheel's comes first."""

from __future__ import annotations

import ctypes.util
import hashlib
import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from turbojpeg import TurboJPEG

from etl.imaging import codec, libturbojpeg, lossless, yuv
from etl.imaging.libturbojpeg import Library
from etl.plan import Window

IN_WHEEL = sys.platform == "linux" and platform.machine() == "x86_64"
SAMPLINGS = ("444", "422", "420", "440")
WINDOWS = (Window(0, 0, 320, 320), Window(64, 32, 384, 352), Window(80, 31 * 16, 613, 807), Window(0, 0, 613, 807))
# as cut by libjpeg-turbo 2.1.5, the library of the first lossless builds
DIGEST = "28d3f94c0b3089b3aa028b2288ddbc8dcd0337ba9d13c45de6f59293dcb77467"


def ripples(width: int, height: int) -> np.ndarray:
    """Smooth waves and a fine grid, the same on every machine: integer arithmetic only."""
    y, x = np.mgrid[:height, :width]
    planes = (x * x // 97 + y * 3, x * 5 + y * y // 89, x * y // 61)
    return np.stack([plane % 256 for plane in planes], axis=-1).astype(np.uint8)


def is_usable(path: str) -> bool:
    try:
        TurboJPEG(path)
    except (OSError, AttributeError):
        return False
    return True


USABLE = [path for path in libturbojpeg.find_libraries() if is_usable(path)]


@pytest.mark.parametrize("path", USABLE)
def test_each_library_here_gives_the_same_bytes(path: str) -> None:
    library = Library(path, TurboJPEG(path), "any")
    total = hashlib.sha256()
    for sampling in SAMPLINGS:
        data = simplejpeg.encode_jpeg(ripples(613, 807), 90, "RGB", sampling)
        places = [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in WINDOWS]
        for tile in library.wrapper.crop_multiple(data, places, copynone=True):
            total.update(tile)
        image = yuv.decode(data, library)
        assert image is not None
        for plane in (*image.planes, image.rgb):
            total.update(plane.tobytes())
    assert total.hexdigest() == DIGEST


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    libturbojpeg.load.cache_clear()
    libturbojpeg._load_wrapper.cache_clear()
    yield
    libturbojpeg.load.cache_clear()
    libturbojpeg._load_wrapper.cache_clear()


@pytest.mark.skipif(not IN_WHEEL, reason="the wheel is installed on Linux x86-64 only")
def test_the_wheel_serves_without_a_library_in_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libturbojpeg, "_system_libraries", lambda: iter(()))
    library = libturbojpeg.load()
    assert library is not None
    assert Path(library.path).parent.name == "pylibjxl"
    assert lossless.is_lossless(lossless.choose_codec("lossless", None))
    lossless.check_codec("lossless-turbojpeg-1.8.3+simplejpeg-1.9.0")  # of plans that were made with Debian's library


@pytest.mark.skipif(not IN_WHEEL, reason="the wheel is installed on Linux x86-64 only")
def test_the_wheel_comes_before_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libturbojpeg, "_system_libraries", lambda: iter(["libturbojpeg.so.0"]))
    wheel, system = libturbojpeg.find_libraries()
    assert Path(wheel).parent.name == "pylibjxl"
    assert system == "libturbojpeg.so.0"


def test_a_library_that_lacks_functions_or_is_missing_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    unusable = [ctypes.util.find_library("c"), "no/such.so"]
    monkeypatch.setattr(libturbojpeg, "find_libraries", lambda: iter([*unusable, *USABLE]))
    library = libturbojpeg.load()
    assert ([] if library is None else [library.path]) == USABLE[:1]
    monkeypatch.setattr(libturbojpeg, "find_libraries", lambda: iter(unusable))
    libturbojpeg.load.cache_clear()
    assert libturbojpeg.load() is None
    assert lossless.choose_codec("lossless", None) == codec.codec_name()


@pytest.mark.parametrize("name", ["turbojpeg.py", "turbojpeg.so"])
def test_another_package_with_the_module_name_of_pyturbojpeg_does_not_hide_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text("def compress(): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "turbojpeg", raising=False)
    libturbojpeg._load_wrapper.cache_clear()
    library = libturbojpeg.load()
    assert ([] if library is None else [library.path]) == USABLE[:1]


def test_without_pyturbojpeg_there_is_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.files", missing)
    libturbojpeg._load_wrapper.cache_clear()
    assert libturbojpeg.load() is None
    assert lossless.choose_codec("lossless", None) == codec.codec_name()
