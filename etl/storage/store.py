"""Read, write and list the files of the store and the source on any fsspec file system; writes are atomic."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from etl import json_text
from etl.credentials import restore
from etl.errors import ConfigError, StoreError

_THREADED_BYTES = 2**22  # of a Parquet file whose reading is worth several threads
ROW_GROUP = 100_000
TEMPORARY = {"compression": "lz4", "use_dictionary": False, "write_statistics": False}  # Parquet of the work folder
_MAX_IN_MEMORY = 64 * 2**20  # bytes; a larger local file is opened by its path
_PIECE = 2**20  # bytes; smaller ones take more time to write, larger ones no less
_EXISTS = ("PreconditionFailed", "ConditionalRequestConflict")  # S3: the file existed, or another writer was faster


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file in a listing; equal stamps (mtime on a disk, ETag in an object store) mean unchanged bytes."""

    path: str  # posix, relative to the listed folder
    size: int  # bytes
    stamp: str


def _check_regular(local: Path) -> int:
    """Return the size of a local file; OSError for a pipe or device, which is not opened."""
    status = local.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise OSError("not a regular file")
    return status.st_size


def unavailable_errors() -> tuple[type[Exception], ...]:
    """Return the errors of file systems: disk full, permission denied, object store unreachable."""
    s3 = sys.modules.get("botocore.exceptions")
    return (OSError,) if s3 is None else (OSError, s3.BotoCoreError)


def join(uri: str, *parts: str) -> str:
    """Return the URI of a file or folder below a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def local_path(uri: str) -> Path | None:
    """Return the path of a URI on the local disk, None for any other file system."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return None if "://" in uri else Path(uri)


def exists(uri: str) -> bool:
    """Return whether a file or folder exists."""
    fs, path = _open(uri)
    return bool(fs.exists(path))


def is_folder(uri: str) -> bool:
    """Return whether the URI is a folder (in an object store: a prefix of at least one file)."""
    fs, path = _open(uri)
    return bool(fs.isdir(path))


def glob(uri: str) -> list[str]:
    """Return the URIs that match a pattern, sorted."""
    fs, path = _open(uri)
    return sorted(_to_uri(uri, path, match) for match in fs.glob(path))


def list_matching(pattern: str) -> list[FileInfo]:
    """Return the files that match a pattern, sorted; their paths are URIs."""
    fs, path = _open(pattern)
    entries = sorted(fs.glob(path, detail=True).items())
    return [_info(_to_uri(pattern, path, name), entry) for name, entry in entries if entry["type"] == "file"]


def list_files(uri: str) -> list[FileInfo]:
    """Return all files below a folder, sorted by path, without hidden files and folders."""
    if (local := local_path(uri)) is not None:
        return sorted(_walk(str(local), ""), key=lambda file: file.path)
    fs, root = _open(uri)
    root = root.rstrip("/")
    files = []
    for path, entry in fs.find(root, detail=True).items():
        relative = path[len(root) + 1 :]
        if any(part.startswith(".") for part in relative.split("/")):
            continue
        files.append(_info(relative, entry))
    return sorted(files, key=lambda file: file.path)


def file_info(uri: str) -> FileInfo:
    """Return name, size and stamp of one file; StoreError if it does not exist."""
    fs, path = _open(uri)
    with _store_errors(uri):
        return _info(uri.rpartition("/")[2], fs.info(path))


def modified_time(uri: str) -> datetime:
    """Return when a file was last written; StoreError if it does not exist."""
    fs, path = _open(uri)
    with _store_errors(uri):
        time: datetime = fs.modified(path)
    return time


def read_bytes(uri: str) -> bytes:
    """Return a file's content; StoreError if it does not exist."""
    with _store_errors(uri):
        if (local := local_path(uri)) is not None:
            _check_regular(local)
            return local.read_bytes()
        fs, path = _open(uri)
        content: bytes = fs.cat_file(path)
    return content


def read_start(uri: str, size: int) -> bytes:
    """Return the first bytes of a file, at most `size`; StoreError if it does not exist."""
    with _store_errors(uri):
        if (local := local_path(uri)) is not None:
            _check_regular(local)
            with local.open("rb") as file:
                return file.read(size)
        fs, path = _open(uri)
        try:
            content: bytes = fs.cat_file(path, start=0, end=size)
        except OSError as error:
            if error.errno != errno.EINVAL:  # S3 has no range of an empty file
                raise
            return b""
    return content


def read_or_path(uri: str) -> bytes | Path:
    """Return a file's content, or the path of a local file larger than 64 MiB; StoreError if it does not exist."""
    local = local_path(uri)
    if local is None:
        return read_bytes(uri)
    with _store_errors(uri):
        return local if _check_regular(local) > _MAX_IN_MEMORY else local.read_bytes()


def read_range(uri: str, offset: int, size: int) -> bytes:
    """Return `size` bytes from `offset` on; StoreError if the file does not exist or is too short."""
    fs, path = _open(uri)
    with _store_errors(uri):
        content: bytes = fs.cat_file(path, start=offset, end=offset + size)
    if len(content) != size:
        raise StoreError(f"{uri}: the file ends before byte {offset + size}")
    return content


@contextmanager
def open_file(uri: str) -> Iterator[BinaryIO]:
    """Yield a file to read from; StoreError if it does not exist."""
    fs, path = _open(uri)
    with _store_errors(uri), fs.open(path, "rb") as file:
        yield file


def read_pieces(uri: str, offset: int, size: int) -> Iterator[bytes | memoryview]:
    """Yield `size` bytes from `offset` on in pieces; a piece is valid only until the next one is read."""
    if (local := local_path(uri)) is None:
        yield read_range(uri, offset, size)
        return
    buffer = memoryview(bytearray(min(size, _PIECE)))
    with _store_errors(uri), local.open("rb", buffering=0) as file:
        file.seek(offset)
        while size and (count := file.readinto(buffer[: min(size, _PIECE)])):
            yield buffer[:count]
            size -= count
    if size:
        raise StoreError(f"{uri}: missing bytes at the end of the file: {size}")


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part."""
    if local_path(uri) is None:
        fs, path = _open(uri)
        fs.pipe_file(path, data)
        return
    with open_atomic(uri) as file:
        file.write(data)


@contextmanager
def open_atomic(uri: str, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a file to write to; it appears at the URI when the block ends, and not at all if the block fails.

    With `durable` false the content can be lost or incomplete after a power failure before `sync`.
    """
    if (local := local_path(uri)) is None:
        with tempfile.NamedTemporaryFile(prefix="speck-") as file:
            yield cast(BinaryIO, file)
            file.flush()
            fs, path = _open(uri)
            fs.put_file(file.name, path)
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(local)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        partial.replace(local)
    finally:
        partial.unlink(missing_ok=True)


def create_if_absent(uri: str, data: bytes) -> bool:
    """Write a file unless it exists; return whether it was written."""
    fs, path = _open(uri)
    if (local := local_path(uri)) is None:
        try:
            fs.pipe_file(path, data, mode="create")
        except OSError as error:
            if isinstance(error, FileExistsError) or _s3_code(error) in _EXISTS:
                return False
            raise
        return True
    local.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(local)
    try:
        partial.write_bytes(data)
        os.link(partial, local)
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True


def upload(local: Path, uri: str) -> None:
    """Move a local file to a URI of the store; it survives a power failure."""
    fs, path = _open(uri)
    if (target := local_path(uri)) is None:
        fs.put_file(str(local), path)
        local.unlink()
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial_path(target)
    try:
        shutil.move(local, partial)  # the store may be on another disk than the temporary files
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def delete(uri: str) -> None:
    """Remove a file, or a folder with its content; does nothing if the URI does not exist."""
    fs, path = _open(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def read_json(uri: str) -> Any:
    """Return the value of a JSON file; StoreError if it does not exist or is not valid."""
    try:
        return json_text.parse(read_bytes(uri))
    except ValueError as error:
        raise StoreError(f"{uri}: not a valid JSON file: {error}") from error


def to_json(value: Any) -> bytes:
    """Return a value as canonical JSON: sorted keys, UTF-8, one final newline."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_json(uri: str, value: Any) -> None:
    """Write a value as a JSON file, atomically."""
    write_bytes(uri, to_json(value))


def read_table(uri: str) -> pa.Table:
    """Return the table of a Parquet file; StoreError if it does not exist or is not valid."""
    try:
        content = read_bytes(uri)
        # A command that ends while Arrow's threads are starting aborts: small tables are read without them.
        threads = len(content) > _THREADED_BYTES
        return pq.ParquetFile(pa.BufferReader(content), pre_buffer=threads).read(use_threads=threads)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{uri}: not a valid Parquet file: {' '.join(str(error).split())}") from error


def write_table(uri: str, table: pa.Table, *, durable: bool = True) -> None:
    """Write a temporary table as Parquet: larger than that of a snapshot, in a third of the time."""
    with open_atomic(uri, durable=durable) as file:
        pq.write_table(table, file, row_group_size=ROW_GROUP, **TEMPORARY)


def sync(uri: str) -> None:
    """Flush everything written below a URI to the disk."""
    if local_path(uri) is not None:
        os.sync()


def _partial_path(local: Path) -> Path:
    """Return a new path next to a file, to write to before the rename; `partials` knows it by its form."""
    return local.with_name(f".{local.name}.{uuid.uuid4().hex}")


def _s3_code(error: OSError) -> str | None:
    """Return the code of the S3 response that caused this error of s3fs, None if there is none."""
    response = getattr(error.__cause__, "response", None)
    details = response.get("Error") if isinstance(response, dict) else None
    return cast(str | None, details.get("Code")) if isinstance(details, dict) else None


def _walk(folder: str, prefix: str) -> Iterator[FileInfo]:
    """Yield the files below a local folder as fsspec lists them: links are files, unreadable folders are empty."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
                continue
            with suppress(FileNotFoundError):  # deleted meanwhile
                own = entry.stat(follow_symlinks=False)
                size = own.st_size if not entry.is_symlink() else _size_of_target(entry)
                yield FileInfo(prefix + entry.name, size, str(own.st_mtime or ""))


def _size_of_target(link: os.DirEntry[str]) -> int:
    with suppress(OSError):
        return link.stat().st_size
    return 0


def _info(path: str, entry: Mapping[str, Any]) -> FileInfo:
    stamp = entry.get("ETag") or entry.get("etag") or entry.get("mtime") or entry.get("LastModified") or ""
    return FileInfo(path, int(entry["size"]), str(stamp))


def _open(uri: str) -> tuple[Any, str]:
    try:
        fs, path = fsspec.core.url_to_fs(restore(uri), use_listings_cache=False)  # other processes write here too
    except (ValueError, ImportError) as error:  # unknown protocol; its package is not installed
        raise ConfigError("", "", f"{uri} ({error})", "a path, or a URI of a file system that fsspec opens") from error
    return fs, str(path)


@contextmanager
def _store_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"{uri}: no such file") from error
    except OSError as error:
        raise StoreError(f"{uri}: {error}") from error


def _to_uri(uri: str, of_uri: str, path: str) -> str:
    """Return a path of a file system as a URI with the scheme and host of `uri`, whose path is `of_uri`."""
    scheme, mark, _ = uri.partition("://")
    return path if not mark else f"{uri.removesuffix(of_uri) if uri.endswith(of_uri) else f'{scheme}://'}{path}"
