"""Windows of a JPEG cut out in its compressed domain: the coefficients as they are, no second loss."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Literal

import simplejpeg

from etl.errors import TaskError
from etl.imaging import codec
from etl.imaging.yuv import Planes, decode
from etl.plan import Window

if TYPE_CHECKING:
    from turbojpeg import TurboJPEG

log = logging.getLogger("speck")

_NAME = "lossless-turbojpeg-"
_PLANES = "planes-turbojpeg-"  # nothing is lossless, but tiles are encoded from the planes of their image
_BASELINE = 0xC0  # start of a frame that is sequential, Huffman-coded and of 8 bits
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # those three are tables and a reserved marker
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length
# blocks of at most 16 px, so that every window starts on one; those of 4:1:1 are 32 px wide
_SAMPLINGS = frozenset({"444", "422", "420", "440", "Gray"})
_AT_ONCE = 256  # windows of one call, whose coefficients are all in memory together


@cache
def _library() -> tuple[TurboJPEG, str] | None:
    """Return the library and its version, None where it is not installed."""
    try:
        from turbojpeg import TurboJPEG

        return TurboJPEG(), importlib.metadata.version("PyTurboJPEG")
    except (ImportError, OSError, RuntimeError, AttributeError):  # no package, no libturbojpeg, or one it cannot use
        return None


def choose(jpeg: Literal["lossless", "encode"], pinned: str | None) -> str:
    """Return the name and version of what makes samples: the pinned one, or what this machine has; equal names give
    equal bytes. With `encode` nothing is cut losslessly, whatever is pinned."""
    if pinned is not None:
        return pinned if jpeg == "lossless" else pinned.replace(_NAME, _PLANES)
    library, prefix = _library(), _NAME if jpeg == "lossless" else _PLANES
    return codec.codec_name() if library is None else f"{prefix}{library[1]}+{codec.codec_name()}"


def is_lossless(name: str) -> bool:
    """Return whether a codec cuts JPEGs without decoding them."""
    return name.startswith(_NAME)


def announce(jpeg: Literal["lossless", "encode"], name: str, quality: int) -> None:
    """Say in the log how tiles are made, and how to have them lossless where they were asked for and are not."""
    if is_lossless(name):
        log.info("tile: baseline JPEGs are cut losslessly, other tiles encoded at quality %d (%s)", quality, name)
    elif jpeg == "encode":
        log.info("tile: tiles are encoded at quality %d (%s), as shard.jpeg says", quality, name)
    elif _library() is None:
        log.warning(
            "tile: tiles are encoded again at quality %d (%s): lossless ones need PyTurboJPEG (pip install "
            "'speck[lossless]') and libturbojpeg (apt-get install libturbojpeg0)", quality, name,
        )  # fmt: skip
    else:
        log.warning("tile: tiles are encoded again at quality %d: the plan was made with %s", quality, name)


def require(name: str) -> None:
    """Raise TaskError, naming this machine and what it lacks, unless it makes the bytes of this codec."""
    here = choose("lossless" if is_lossless(name) else "encode", None) if "+" in name else codec.codec_name()
    if name != here:
        lack = "; PyTurboJPEG or libturbojpeg is missing" if "+" in name and "+" not in here else ""
        raise TaskError(f"the plan makes samples with {name}, {platform.node()} has {here}{lack}")


def cut(data: bytes, windows: Sequence[Window]) -> dict[Window, bytes]:
    """Return the windows of an image as stored, each a JPEG without metadata that decodes, with fast upsampling, to
    the very pixels of the image; empty when the image has to be decoded for them."""
    library = _library()
    if library is None or not windows or not _can_be_cut(data):
        return {}
    found: dict[Window, bytes] = {}
    try:
        for start in range(0, len(windows), _AT_ONCE):
            some = windows[start : start + _AT_ONCE]
            places = [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in some]
            found |= zip(some, library[0].crop_multiple(data, places, copynone=True), strict=True)
    except OSError as error:  # what libturbojpeg refuses
        log.warning("tile: an image is encoded again, libturbojpeg cannot cut it: %s", error)
        return {}
    return found


def planes(data: bytes, name: str) -> Planes | None:
    """Return the planes to encode tiles of an image as stored from, where a codec does so; None: from its pixels."""
    library = _library() if name.startswith((_NAME, _PLANES)) else None
    return None if library is None else decode(data, library[0])


def _can_be_cut(data: bytes) -> bool:
    if _frame(data) != _BASELINE:
        return False
    _, _, colours, sampling = simplejpeg.decode_jpeg_header(data)
    return colours in ("YCbCr", "Gray") and sampling in _SAMPLINGS


def _frame(data: bytes) -> int | None:
    """Return the marker of a JPEG's frame, None for what is no JPEG."""
    if data[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _FRAMES:
            return marker
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _BARE:
            place += 2
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
