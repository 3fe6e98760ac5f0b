"""Image files of every kind: header, measures and pixels, as in a build."""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from etl.imaging import lossless, tiff
from etl.imaging.image_file import ImageFile
from etl.imaging.wide import PixelSettings
from etl.stages.ingest import probe_image
from tests.fuzz.case import RIGHT, Case, Target, Targets, require
from tests.fuzz.mutations import mutate_bytes, one_of

_MAX_MEGAPIXELS = 20.0
_ODD = (0, 1, 2, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def valid_images() -> dict[str, bytes]:
    """Return small images of many kinds, by name."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    grey, deep = pixels[..., 0], (pixels[..., 0].astype(np.uint16) * 257)
    images = {}
    for suffix, options in (
        ("jpg", {}), ("jpeg", {"progressive": True}), ("png", {}), ("bmp", {}), ("webp", {}), ("avif", {}),
        ("tif", {}), ("lzw.tif", {"compression": "tiff_lzw"}), ("zip.tif", {"compression": "tiff_adobe_deflate"}),
        ("tiff", {"compression": "jpeg"}), ("heic", {}),
    ):  # fmt: skip
        buffer = io.BytesIO()
        kind = {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "tiff": "TIFF", "heic": "HEIF"}.get(suffix.split(".")[-1])
        try:
            Image.fromarray(pixels).save(buffer, kind or suffix.upper(), **options)
        except (OSError, KeyError, ValueError):  # this Pillow does not write it
            continue
        images[suffix] = buffer.getvalue()
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
    images["turned.jpg"] = buffer.getvalue()
    for name, array in (("16.png", deep), ("16.tif", deep), ("grey.png", grey), ("float.tif", deep.astype(np.float32))):
        images[name] = cv2.imencode(f".{name.split('.')[-1]}", array)[1].tobytes()
    return images


def mutate_fields(rng: random.Random, data: bytes) -> bytes:
    """Change numbers of the structure: a PNG header with a valid checksum, TIFF tags, sizes of other formats."""
    content = bytearray(data)
    if data[:4] == b"\x89PNG":
        place = rng.choice([16, 20]) if rng.random() < 0.7 else rng.randrange(24, 29)
        new = struct.pack(">I", rng.choice(_ODD)) if place < 24 else bytes([rng.randrange(256)])
        content[place : place + len(new)] = new
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif data[:2] in (b"II", b"MM"):
        order = "<" if data[:2] == b"II" else ">"
        start = struct.unpack(f"{order}I", data[4:8])[0]
        tags = struct.unpack(f"{order}H", data[start : start + 2])[0]
        place = start + 2 + 12 * rng.randrange(max(tags, 1)) + rng.choice([0, 2, 4, 8])
        width = 2 if rng.random() < 0.4 else 4
        content[place : place + width] = struct.pack(f"{order}{'HI'[width // 4]}", rng.choice(_ODD) % 2 ** (8 * width))
    else:
        place = rng.randrange(2, min(len(content), 700))
        content[place : place + 2] = struct.pack(">H", rng.choice(_ODD) % 65536)
    return bytes(content)


def read(data: bytes, large: Path | None) -> str:
    """Read a file as a build does; large files are given as a path."""
    if large is not None:
        large.write_bytes(data)
    settings = PixelSettings(value_range=(0.0, 60000.0))
    file = ImageFile(data if large is None else large, None, settings)
    header, row = probe_image("a.img", file, _MAX_MEGAPIXELS)
    if header.kind != "uint8":  # as the first build does, which chooses the range
        probe_image("a.img", ImageFile(file.data, None, PixelSettings()), _MAX_MEGAPIXELS)
    _ = file.georeference
    pixels = ImageFile(data, None, settings).pixels(header.orientation)
    wh = (pixels.shape[1], pixels.shape[0])
    require(
        wh == header.upright_wh == (row["width"], row["height"]), f"{wh} pixels, the header has {header.upright_wh}"
    )
    require(pixels.dtype == np.uint8 and pixels.shape[2] == 3, f"pixels of {pixels.dtype}, {pixels.shape}")
    if header.format == "JPEG" and lossless.can_be_cut(data):
        lossless.cut(data, [(0, 0, 16, 16)])
    tiff.read_layout(io.BytesIO(data))
    return RIGHT


def prepare(folder: Path) -> Target:
    """Return the target of images."""
    images = valid_images()
    mutate = one_of(mutate_bytes, mutate_fields)

    def case(rng: random.Random) -> Case:
        name = rng.choice(sorted(images))
        data = mutate(rng, images[name])
        large = folder / "large.img" if rng.random() < 0.2 else None
        return Case(name, data, partial(read, data, large))

    return case


TARGETS: Targets = {"images": (16, prepare)}
