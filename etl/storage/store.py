"""Files of the store and the source, on any fsspec file system: whole files in, whole files out."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import ConfigError, StoreError

_ROW_GROUP = 100_000
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}")  # as `_partial` names them
_BIG = 64 * 2**20  # bytes of a file that is not taken into memory as a whole
_PIECE = 2**16  # bytes that stay in a core's cache
_EXISTS = ("PreconditionFailed", "ConditionalRequestConflict")  # S3: it was there before, or another writer was faster


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file found in a listing; equal stamps mean unchanged bytes (time on a disk, etag in an object store)."""

    path: str  # posix, relative to the listed folder
    size: int
    stamp: str


def unavailable_errors() -> tuple[type[Exception], ...]:
    """Return what file systems raise: a full disk, a place one may not write to, an object store out of reach."""
    s3 = sys.modules.get("botocore.exceptions")
    return (OSError,) if s3 is None else (OSError, s3.BotoCoreError)


def join(uri: str, *parts: str) -> str:
    """Return the URI of something below a URI."""
    return "/".join([uri.rstrip("/"), *parts])


def local_path(uri: str) -> Path | None:
    """Return the path of a URI on this machine's disk, None for any other store."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    return None if "://" in uri else Path(uri)


def exists(uri: str) -> bool:
    """Return whether a file or folder is there now."""
    fs, path = _open(uri)
    return bool(fs.exists(path))


def is_folder(uri: str) -> bool:
    """Return whether the URI is a folder (in an object store: a prefix that holds something)."""
    fs, path = _open(uri)
    return bool(fs.isdir(path))


def glob(uri: str) -> list[str]:
    """Return the URIs that match a pattern, sorted."""
    fs, path = _open(uri)
    return sorted(_full(uri, found) for found in fs.glob(path))


def list_matching(pattern: str) -> list[FileInfo]:
    """Return the files that match a pattern, by URI, sorted."""
    fs, path = _open(pattern)
    found = fs.glob(path, detail=True)
    return [_info(_full(pattern, name), found[name]) for name in sorted(found) if found[name]["type"] == "file"]


def list_files(uri: str) -> list[FileInfo]:
    """Return all files below a folder, sorted by path; hidden files and folders are passed over."""
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
    """Return what a listing of its folder says of one file; StoreError when it is not there."""
    fs, path = _open(uri)
    with _found(uri):
        return _info(uri.rpartition("/")[2], fs.info(path))


def modified_time(uri: str) -> datetime:
    """Return when a file was last written; StoreError when it is not there."""
    fs, path = _open(uri)
    with _found(uri):
        time: datetime = fs.modified(path)
    return time


def read_bytes(uri: str) -> bytes:
    """Return a file's content; StoreError when it is not there."""
    fs, path = _open(uri)
    with _found(uri):
        content: bytes = fs.cat_file(path)
    return content


def read_or_path(uri: str) -> bytes | Path:
    """Return a file's content, or the place of a big file that lies on this machine's disk; StoreError when it is not
    there."""
    local = local_path(uri)
    if local is None:
        return read_bytes(uri)
    with _found(uri):
        return local if local.stat().st_size > _BIG else local.read_bytes()


def read_range(uri: str, offset: int, size: int) -> bytes:
    """Return `size` bytes from `offset` on; StoreError when they are not there."""
    fs, path = _open(uri)
    with _found(uri):
        content: bytes = fs.cat_file(path, start=offset, end=offset + size)
    if len(content) != size:
        raise StoreError(f"{uri}: ends before byte {offset + size}")
    return content


def read_pieces(uri: str, offset: int, size: int) -> Iterator[bytes | memoryview]:
    """Yield `size` bytes from `offset` on in pieces that are to be used at once: the next one takes their place."""
    if (local := local_path(uri)) is None:
        yield read_range(uri, offset, size)
        return
    buffer = memoryview(bytearray(min(size, _PIECE)))
    with _found(uri), local.open("rb", buffering=0) as file:
        file.seek(offset)
        while size and (count := file.readinto(buffer[: min(size, _PIECE)])):
            yield buffer[:count]
            size -= count
    if size:
        raise StoreError(f"{uri}: the file is {size} bytes too short")


def write_bytes(uri: str, data: bytes) -> None:
    """Write a whole file: a reader sees the old content or the new, never a part."""
    if local_path(uri) is None:
        fs, path = _open(uri)
        fs.pipe_file(path, data)
        return
    with open_atomic(uri) as file:
        file.write(data)


@contextmanager
def open_atomic(uri: str, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a file to write piece by piece; it takes its place when the block ends, and not at all if it fails.

    What is not durable may be lost or torn when the machine loses power before `sync`.
    """
    if (local := local_path(uri)) is None:
        with tempfile.NamedTemporaryFile(prefix="speck-") as file:
            yield cast(BinaryIO, file)
            file.flush()
            fs, path = _open(uri)
            fs.put_file(file.name, path)
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(local)
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
    """Write a file unless it is there already; return whether it was written."""
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
    partial = _partial(local)
    try:
        partial.write_bytes(data)
        os.link(partial, local)
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    return True


def upload(local: Path, uri: str) -> None:
    """Move a finished local file to its place in the store, to outlast a loss of power."""
    fs, path = _open(uri)
    if (target := local_path(uri)) is None:
        fs.put_file(str(local), path)
        local.unlink()
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(target)
    try:
        shutil.move(local, partial)  # the store may be another disk than the one of temporary files
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def delete(uri: str) -> None:
    """Remove a file or a folder with all it holds; nothing happens where nothing is."""
    fs, path = _open(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def read_json(uri: str) -> Any:
    """Return the value of a JSON file; StoreError when it is damaged."""
    try:
        return json.loads(read_bytes(uri))
    except ValueError as error:
        raise StoreError(f"{uri}: not a valid JSON file: {error}") from error


def to_json(value: Any) -> bytes:
    """Return the one JSON form in which Speck writes a value."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_json(uri: str, value: Any) -> None:
    """Write a JSON file whole."""
    write_bytes(uri, to_json(value))


def read_table(uri: str) -> pa.Table:
    """Return the table of a Parquet file; StoreError when it is damaged."""
    try:
        return pq.read_table(pa.BufferReader(read_bytes(uri)))
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{uri}: not a valid Parquet file: {error}") from error


def table_bytes(table: pa.Table) -> bytes:
    """Return the table as a Parquet file: the same bytes for the same rows."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", row_group_size=_ROW_GROUP, write_page_index=True)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def write_table(uri: str, table: pa.Table, *, durable: bool = True) -> None:
    """Write a table of work in progress as Parquet, in a third of the time that the smallest form takes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="lz4", use_dictionary=False, write_statistics=False)
    with open_atomic(uri, durable=durable) as file:
        file.write(sink.getvalue())


def clear_partials(folder: str) -> None:
    """Delete the partial files that killed writers left in a folder and below; no writer may be running."""
    if (local := local_path(folder)) is not None:
        _delete_partials(local.rglob(".*"))


def clear_partials_of(uri: str) -> None:
    """Delete the partial files that killed writers of one file left; no writer may be running."""
    if (local := local_path(uri)) is not None:
        _delete_partials(local.parent.glob(f".{local.name}.*"))


def sync(uri: str) -> None:
    """Have everything written below a URI outlast a loss of power."""
    if local_path(uri) is not None:
        os.sync()


def _delete_partials(paths: Iterable[Path]) -> None:
    for path in paths:
        if _PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _partial(local: Path) -> Path:
    """Return where a file is written before it takes its place."""
    return local.with_name(f".{local.name}.{uuid.uuid4().hex}")


def _s3_code(error: OSError) -> str | None:
    """Return the code of the S3 response that s3fs raised this error for, None if there is none."""
    response = getattr(error.__cause__, "response", {})
    return cast(str | None, response.get("Error", {}).get("Code"))


def _info(path: str, found: Mapping[str, Any]) -> FileInfo:
    stamp = found.get("ETag") or found.get("etag") or found.get("mtime") or found.get("LastModified") or ""
    return FileInfo(path, int(found["size"]), str(stamp))


def _open(uri: str) -> tuple[Any, str]:
    try:
        fs, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)  # others write here, too
    except (ValueError, ImportError) as error:  # no such protocol; one whose package is not installed
        expected = "a path, or a URI of a file system that fsspec opens"
        raise ConfigError("", "", f"{uri} ({error})", expected) from error
    return fs, str(path)


@contextmanager
def _found(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StoreError(f"{uri}: no such file") from error
    except OSError as error:
        raise StoreError(f"{uri}: {error}") from error


def _full(uri: str, path: str) -> str:
    scheme, mark, _ = uri.partition("://")
    return f"{scheme}://{path}" if mark else path
