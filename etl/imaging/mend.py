"""JPEGs whose end is damaged although their picture is complete, mended so that a strict decoder reads them.

A decoder that skips damage reads them as they are, but it also fills a missing part of a picture with grey. So the
damage is removed, and the rest is decoded strictly.
"""

from __future__ import annotations

import ctypes

import numpy as np
import simplejpeg

from etl.imaging import libturbojpeg
from etl.imaging.jpeg_segments import EOI, FRAMES, SCAN, segments

_COPY_NOTHING, _OPTIMIZE = 64, 256  # libturbojpeg's TJXOPT_COPYNONE and TJXOPT_OPTIMIZE
_JUDGED = 4096  # stray bytes that are looked at
_LEAST_BITS = 4  # of a block
_PERIOD = 16  # bytes after which padding repeats itself, at most


class _Transform(ctypes.Structure):
    """libturbojpeg's tjtransform: no crop, no operation."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("x", "y", "w", "h", "operation", "options")),
        ("data", ctypes.c_void_p),
        ("filter", ctypes.c_void_p),
    )


def mend(data: bytes) -> bytes | None:
    """Return the JPEG without the stray bytes before its end marker, or with the missing marker; None if it is broken.

    Only the bytes behind the entropy-coded data of a whole picture are removed: encoded again, the coefficients are the
    file's own bytes up to there. Damage within the data can have the same effect, as a decoder that has lost its place
    may find it again some blocks later; the bytes left over are then more blocks of the picture, which stray bytes are
    not.
    """
    if _is_flawless(whole := data + EOI):
        return whole
    start = _scan_start(data)
    for encode in (_COPY_NOTHING, _COPY_NOTHING | _OPTIMIZE):
        own = _entropy_coded(data, encode)
        stray = data[start + len(own) : data.find(EOI, start + len(own))]
        if not own or not data.startswith(own, start) or not stray:
            continue
        mended = data[: start + len(own)] + EOI
        if not _is_picture(stray, mended, encode) and _is_flawless(mended):
            return mended
    return None


def _is_flawless(data: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, min_factor=8)
    except ValueError:
        return False
    return True


def _scan_start(data: bytes) -> int:
    """Return where the entropy-coded data of the first scan start."""
    return next((segment.end for segment in segments(data) if segment.marker == SCAN), len(data))


def _entropy_coded(data: bytes, options: int) -> bytes:
    """Return the entropy-coded data of the coefficients that can be read, encoded again as the usual encoders do."""
    encoded = _encode_again(data, options)
    return encoded[_scan_start(encoded) :].removesuffix(EOI)


def _is_picture(stray: bytes, mended: bytes, options: int) -> bool:
    """Return whether bytes are the blocks of more rows of a picture: a decoder that expects those rows reads them.

    Padding may happen to be read too. It repeats itself, as do only the blocks of one flat colour in a picture.
    """
    frame = next(segment for segment in segments(mended) if segment.marker in FRAMES)
    height, width = (int.from_bytes(mended[frame.start + at : frame.start + at + 2], "big") for at in (1, 3))
    stray = stray[:_JUDGED]
    more = 8 * (len(stray) * 8 // _LEAST_BITS // (width // 16 + 1) + 2)
    taller = min(height + more, 0xFFFF).to_bytes(2, "big")
    data = mended[: frame.start + 1] + taller + mended[frame.start + 3 :].removesuffix(EOI) + stray + EOI
    if not _entropy_coded(data, options).startswith(data[_scan_start(data) : -len(EOI) - 1]):
        return False
    return not _repeats(stray) or _is_flat(data, -(-height // 16) * 16)


def _repeats(data: bytes) -> bool:
    return any(len(data) >= 4 * period and data[period:] == data[:-period] for period in range(1, _PERIOD + 1))


def _is_flat(data: bytes, top: int) -> bool:
    """Return whether each block of a picture below a row is of one colour."""
    luma = simplejpeg.decode_jpeg(data, "GRAY", strict=False)[top:, :, 0]
    blocks = luma[: len(luma) // 8 * 8, : luma.shape[1] // 8 * 8].reshape(len(luma) // 8, 8, -1, 8)
    return not np.ptp(blocks, axis=(1, 3)).any()


def _encode_again(data: bytes, options: int) -> bytes:
    """Return the JPEG with its coefficients encoded again; empty without libturbojpeg, or if none can be read."""
    library = libturbojpeg.load()
    if library is None:
        return b""
    functions = library.functions
    transform = _Transform(options=options)
    buffer, size = ctypes.c_void_p(), ctypes.c_ulong()
    handle = functions.tjInitTransform()
    try:
        functions.tjTransform(  # it fails because of the stray bytes, after it has written the image
            handle, data, len(data), 1, ctypes.byref(buffer), ctypes.byref(size), ctypes.byref(transform), 0
        )
        return ctypes.string_at(buffer, size.value) if buffer.value else b""
    finally:
        functions.tjFree(buffer)
        functions.tjDestroy(handle)
