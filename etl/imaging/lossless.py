"""Crop windows out of a JPEG without decoding it: the DCT coefficients are copied, so nothing is lost."""

from __future__ import annotations

import logging
import platform
import warnings
from collections.abc import Sequence
from typing import Literal

import simplejpeg

from etl.errors import TaskError
from etl.imaging import codec, libturbojpeg
from etl.imaging.jpeg_segments import FRAMES, segments
from etl.imaging.mend import mend
from etl.imaging.yuv import YuvImage, decode
from etl.plan import Window

log = logging.getLogger("speck")

_NAME = "lossless-turbojpeg-"
_YUV = "planes-turbojpeg-"  # tiles are encoded from the YUV planes of their image
_BASELINE = 0xC0  # SOF0: a sequential, Huffman-coded frame of 8 bits
# their MCUs are at most 16 px wide, so that every window starts on one; those of 4:1:1 are 32 px wide
_SAMPLINGS = frozenset({"444", "422", "420", "440", "Gray"})
_AT_ONCE = 256  # windows of one call; the coefficients of all are in memory


def choose_codec(jpeg: Literal["lossless", "encode"], pinned: str | None) -> str:
    """Return name and version of the codec that makes samples: the pinned one, else the best of this machine.

    Codecs of one name give equal bytes. With `encode` no tile is cropped losslessly, whatever is pinned.
    """
    if pinned is not None:
        return pinned if jpeg == "lossless" else pinned.replace(_NAME, _YUV)
    library, prefix = libturbojpeg.load(), _NAME if jpeg == "lossless" else _YUV
    return codec.codec_name() if library is None else f"{prefix}{library.version}+{codec.codec_name()}"


def is_lossless(name: str) -> bool:
    """Return whether the codec of this name crops JPEGs without decoding them."""
    return name.startswith(_NAME)


def log_codec(jpeg: Literal["lossless", "encode"], name: str, quality: int) -> None:
    """Log how tiles are made and, if they should be lossless but are not, the remedy."""
    if is_lossless(name):
        log.info("tile: tiles of baseline JPEGs are lossless, others encoded at quality %d (%s)", quality, name)
    elif jpeg == "encode":
        log.info("tile: shard.jpeg is encode, tiles are encoded at quality %d (%s)", quality, name)
    else:
        log.warning("tile: tiles are re-encoded at quality %d (%s): %s", quality, name, remedy(jpeg, name))


def remedy(jpeg: Literal["lossless", "encode"], name: str) -> str | None:
    """Return what makes tiles lossless where the configuration asks for it but the codec of this name re-encodes."""
    if jpeg == "encode" or is_lossless(name):
        return None
    if libturbojpeg.load() is None:
        return (
            "no libturbojpeg was found; install it (`apt-get install libturbojpeg0`, `brew install jpeg-turbo`) on the "
            "client and on every worker, and run `speck plan --update` if the dataset has a plan"
        )
    return "the pinned plan was made without lossless cropping; run `speck plan --update`"


def check_codec(name: str) -> None:
    """Raise TaskError, with the host name and what is missing, unless this machine has the codec of this name."""
    installed = choose_codec("lossless" if is_lossless(name) else "encode", None) if "+" in name else codec.codec_name()
    if name != installed:
        missing = "; PyTurboJPEG or libturbojpeg is missing" if "+" in name and "+" not in installed else ""
        raise TaskError(f"the plan needs the codec {name}; {platform.node()} has {installed}{missing}")


def cut(data: bytes, windows: Sequence[Window]) -> dict[Window, bytes]:
    """Return each window of an image as stored as a JPEG without metadata; empty if the image cannot be cropped so.

    Decoded with fast upsampling, a window has exactly the pixels of the image. A JPEG with stray bytes is mended first.
    """
    library = libturbojpeg.load()
    if library is None or not windows or not can_be_cut(data):
        return {}
    tiles: dict[Window, bytes] = {}
    try:
        for start in range(0, len(windows), _AT_ONCE):
            chunk = windows[start : start + _AT_ONCE]
            places = [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in chunk]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                tiles |= zip(chunk, library.wrapper.crop_multiple(data, places, copynone=True), strict=True)
    except UserWarning:
        mended = mend(data)
        return {} if mended is None or mended == data else cut(mended, windows)
    except OSError as error:  # libturbojpeg refuses the JPEG
        log.warning("tile: the tiles of an image are re-encoded, libturbojpeg cannot crop it: %s", error)
        return {}
    return tiles


def decode_yuv(data: bytes, name: str) -> YuvImage | None:
    """Return the YUV planes from which the codec of this name encodes tiles; None if it encodes from RGB pixels."""
    library = libturbojpeg.load() if name.startswith((_NAME, _YUV)) else None
    return None if library is None else decode(data, library)


def can_be_cut(data: bytes) -> bool:
    """Return whether an image file as stored is a JPEG whose tiles can be lossless."""
    if _frame(data) != _BASELINE:
        return False
    _, _, colours, sampling = simplejpeg.decode_jpeg_header(data)
    return colours in ("YCbCr", "Gray") and sampling in _SAMPLINGS


def _frame(data: bytes) -> int | None:
    """Return the SOF marker of a JPEG, None if there is none."""
    return next((segment.marker for segment in segments(data) if segment.marker in FRAMES), None)
