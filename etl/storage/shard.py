"""Shards: tar files of samples in the WebDataset convention, divided by a hash of the image ids."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from etl.ids import fraction

VERSION = 1
END = b"\0" * 1024  # two empty blocks close a tar
_BLOCK = 512
IMAGE_OFFSET = _BLOCK  # bytes from the start of a sample's blocks to its image


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A finished shard on the local disk; `size` is in bytes."""

    path: Path
    sha256: str
    size: int


def member(name: str, data: bytes) -> bytes:
    """Return one file as tar blocks, without owner or time: equal files give equal bytes."""
    return b"".join(_pieces(name, data))


def _pieces(name: str, data: bytes) -> tuple[bytes, bytes, bytes]:
    return _header(name, len(data)), data, b"\0" * (-len(data) % _BLOCK)


def _full_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


_EMPTY = _full_header("", 0)
_NAME, _SIZE, _CHECKSUM = slice(0, 100), slice(124, 135), slice(148, 154)  # fields of a header
_EMPTY_SUM = int(_EMPTY[_CHECKSUM], 8) - sum(_EMPTY[_SIZE])


def _header(name: str, size: int) -> bytes:
    """Return the header that tarfile writes for a name and a size, in a tenth of the time."""
    field, digits = name.encode("ascii", "replace"), b"%011o" % size
    if len(field) > 100 or len(digits) > 11 or not name.isascii():
        return _full_header(name, size)
    header = bytearray(_EMPTY)
    header[_NAME] = field.ljust(100, b"\0")
    header[_SIZE] = digits
    header[_CHECKSUM] = b"%06o" % (_EMPTY_SUM + sum(field) + sum(digits))
    return bytes(header)


def sample_blocks(key: str, image: bytes, record: bytes) -> tuple[bytes, int]:
    """Return the tar blocks of a sample, `<key>.jpg` and `<key>.json`, and the offset of the image in bytes."""
    return b"".join(sample_pieces(key, image, record)), _BLOCK


def sample_pieces(key: str, image: bytes, record: bytes) -> tuple[bytes, ...]:
    """Return the tar blocks of a sample in pieces; the image is not copied."""
    return *_pieces(f"{key}.jpg", image), *_pieces(f"{key}.json", record)


def shard_starts(image_sizes: Iterable[tuple[str, int]], max_bytes: int) -> Iterator[bool]:
    """Yield for each (image_id, bytes of its samples), in order, whether a new shard starts with this image.

    The hash of its id decides whether an image starts a shard, with a probability that gives shards of half of
    `max_bytes` on average: new images change only the shards next to them. A new shard also starts where the current
    one would exceed `max_bytes`.
    """
    shard_size = 0
    for number, (image_id, size) in enumerate(image_sizes):
        starts_by_hash = fraction(f"border/{image_id}") < size / (max_bytes / 2)
        starts = number == 0 or starts_by_hash or shard_size + size + len(END) > max_bytes
        shard_size = size if starts else shard_size + size
        yield starts


class ShardWriter:
    """Writes one shard to a local file and computes its SHA-256."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self.size = 0

    def add(self, blocks: bytes | memoryview) -> int:
        """Append the tar blocks of samples and return their offset in bytes."""
        offset = self.size
        self._file.write(blocks)
        self._hash.update(blocks)
        self.size += len(blocks)
        return offset

    def close(self) -> WrittenShard:
        """Close the tar file and return its path, SHA-256 and size."""
        self.add(END)
        self._file.close()
        return WrittenShard(self._path, self._hash.hexdigest(), self.size)


def read_members(data: bytes) -> dict[str, bytes]:
    """Return the content of each file in a shard, by name."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {info.name: file.read() for info in tar if (file := tar.extractfile(info)) is not None}
