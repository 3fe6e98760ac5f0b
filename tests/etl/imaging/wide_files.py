"""TIFFs and PNGs of any samples and bands, written by hand: Pillow writes only some of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

Entry = tuple[int, str, tuple[int, ...] | str]  # tag, type and value
_TIFF_FORMATS = {"u": 1, "i": 2, "f": 3}


def tiff(
    values: np.ndarray,
    *,
    photometric: int = 1,
    extra: Sequence[int] | None = None,
    nodata: str | None = None,
    orientation: int = 1,
    more_pages: Sequence[tuple[np.ndarray, int]] = (),
) -> bytes:
    """A TIFF of values [H, W] or [H, W, C]; `more_pages` are values with their NewSubfileType."""
    data = b"II*\0" + bytes(4)
    link = 4
    for page, (pixels, subfile) in enumerate([(values, 0), *more_pages]):
        cube = pixels if pixels.ndim == 3 else pixels[..., None]
        height, width, bands = cube.shape
        colours = 3 if photometric == 2 else 1
        unused = tuple(extra) if extra is not None else (0,) * (bands - colours)
        entries: list[Entry] = [
            (254, "I", (subfile,)), (256, "I", (width,)), (257, "I", (height,)),
            (258, "H", (cube.dtype.itemsize * 8,) * bands), (259, "H", (1,)), (262, "H", (photometric,)),
            (273, "I", (0,)), (274, "H", (orientation,)), (277, "H", (bands,)), (278, "I", (height,)),
            (279, "I", (cube.nbytes,)), (284, "H", (1,)),
            *([(338, "H", unused)] if unused else []),
            (339, "H", (_TIFF_FORMATS[cube.dtype.kind],) * bands),
            *([(42113, "s", nodata)] if nodata is not None and page == 0 else []),
        ]  # fmt: skip
        strip = len(data)
        data += cube.astype(cube.dtype.newbyteorder("<")).tobytes()
        data, directory = _append_directory(data, entries, strip)
        data = data[:link] + struct.pack("<I", directory) + data[link + 4 :]
        link = directory + 2 + 12 * len(entries)
    return data


def _append_directory(
    data: bytes, entries: list[tuple[int, str, tuple[int, ...] | str]], strip: int
) -> tuple[bytes, int]:
    rows = b""
    for tag, kind, given in entries:
        value = (strip,) if tag == 273 else given
        raw = value.encode() + b"\0" if isinstance(value, str) else struct.pack(f"<{len(value)}{kind}", *value)
        number = len(raw) if isinstance(value, str) else len(value)
        if len(raw) > 4:
            data += bytes(len(data) % 2)
            raw, data = struct.pack("<I", len(data)), data + raw
        rows += struct.pack("<HHI", tag, {"H": 3, "I": 4, "s": 2}[kind], number) + raw.ljust(4, b"\0")
    data += bytes(len(data) % 2)
    return data + struct.pack("<H", len(entries)) + rows + bytes(4), len(data)


def png16(values: np.ndarray) -> bytes:
    """A PNG of values uint16 [H, W] or [H, W, C]."""
    cube = values if values.ndim == 3 else values[..., None]
    height, width, bands = cube.shape

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in cube)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
