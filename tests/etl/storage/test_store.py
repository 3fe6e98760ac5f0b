from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from etl.errors import StoreError
from etl.storage import store
from etl.storage.table_pieces import write_final
from tests.etl.conftest import BUCKET


@pytest.fixture(params=["folder", "file", "s3"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder in a store of each kind."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return f"s3://{BUCKET}/{tmp_path.name}"
    return str(tmp_path) if request.param == "folder" else f"file://{tmp_path}"


def test_a_file_is_read_back_whole_and_in_ranges(home: str) -> None:
    uri = store.join(home, "a", "b.bin")
    assert not store.exists(uri)
    store.write_bytes(uri, b"0123456789")
    assert store.exists(uri)
    assert store.is_folder(store.join(home, "a"))
    assert store.read_bytes(uri) == b"0123456789"
    assert store.read_range(uri, 3, 4) == b"3456"
    store.write_bytes(uri, b"new")
    assert store.read_bytes(uri) == b"new"


def test_a_missing_file_is_a_store_error(home: str) -> None:
    uri = store.join(home, "none.bin")
    for read in (store.read_bytes, store.read_json, store.read_table, lambda uri: store.read_range(uri, 0, 1)):
        with pytest.raises(StoreError, match=r"none.bin: no such file"):
            read(uri)


@pytest.mark.parametrize("offset", [2, 100])
def test_a_range_past_the_end_is_a_store_error(home: str, offset: int) -> None:
    store.write_bytes(store.join(home, "a.bin"), b"12345")
    with pytest.raises(StoreError, match=r"a\.bin: "):
        store.read_range(store.join(home, "a.bin"), offset, 4)


def test_a_damaged_file_is_a_store_error_that_names_it(home: str) -> None:
    uri = store.join(home, "damaged")
    store.write_bytes(uri, b"PAR1 {not this")
    for read, format_name in ((store.read_json, "JSON"), (store.read_table, "Parquet")):
        with pytest.raises(StoreError, match=f"damaged: not a valid {format_name} file"):
            read(uri)


def test_only_the_first_writer_creates_a_file(home: str) -> None:
    uri = store.join(home, "lock.json")
    assert store.create_if_absent(uri, b"first")
    assert not store.create_if_absent(uri, b"second")
    assert store.read_bytes(uri) == b"first"


class FailingS3(MemoryFileSystem):
    """A file system whose writes fail like those of s3fs with a response of the server."""

    protocol = "failings3"
    response: object = None

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: object) -> None:
        error = RuntimeError("ClientError")
        error.response = self.response
        raise OSError(errno.EINVAL, "refused") from error


@pytest.fixture
def failing_s3() -> type[FailingS3]:
    fsspec.register_implementation("failings3", FailingS3, clobber=True)
    return FailingS3


@pytest.mark.parametrize("code", ["PreconditionFailed", "ConditionalRequestConflict"])
def test_a_failed_condition_of_an_s3_server_means_the_file_exists(
    failing_s3: type[FailingS3], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(failing_s3, "response", {"Error": {"Code": code}})
    assert store.create_if_absent("failings3://bucket/lock.json", b"") is False


@pytest.mark.parametrize("code", ["InvalidRequest", "AccessDenied"])
def test_any_other_error_of_an_s3_server_is_raised(
    failing_s3: type[FailingS3], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(failing_s3, "response", {"Error": {"Code": code}})
    with pytest.raises(OSError, match="refused"):
        store.create_if_absent("failings3://bucket/lock.json", b"")


@pytest.mark.parametrize("response", [None, {}, {"Error": None}, object()])
def test_an_error_whose_response_has_no_code_is_raised_as_it_is(
    failing_s3: type[FailingS3], monkeypatch: pytest.MonkeyPatch, response: object
) -> None:
    monkeypatch.setattr(failing_s3, "response", response)
    with pytest.raises(OSError, match="refused"):
        store.create_if_absent("failings3://bucket/lock.json", b"")


def test_one_of_many_concurrent_writers_creates_a_file(home: str) -> None:
    uri, won = store.join(home, "lock.json"), []
    barrier = threading.Barrier(6)

    def create(number: int) -> None:
        barrier.wait()
        if store.create_if_absent(uri, str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read_bytes(uri) == str(won[0]).encode()


def test_a_listing_is_sorted_and_relative_and_skips_hidden_files(home: str) -> None:
    for name in ("b.txt", "a/z.txt", "a/y.txt", ".hidden", ".git/config", "a/.partial.txt.123"):
        store.write_bytes(store.join(home, *name.split("/")), name.encode())
    files = store.list_files(home)
    assert [file.path for file in files] == ["a/y.txt", "a/z.txt", "b.txt"]
    assert [file.size for file in files] == [7, 7, 5]
    assert all(file.stamp for file in files)
    assert store.list_files(home + "/") == files
    assert store.list_files(store.join(home, "nothing")) == []


def test_a_stamp_changes_only_with_the_content(home: str) -> None:
    uri = store.join(home, "a.txt")
    store.write_bytes(uri, b"one")
    before = store.list_files(home)
    assert store.list_files(home) == before
    store.write_bytes(uri, b"two")
    if (path := store.local_path(uri)) is not None:
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))
    assert store.list_files(home) != before


def test_glob_returns_uris_that_can_be_read(home: str) -> None:
    for name in ("labels/a.txt", "labels/b.txt", "labels/c.xml"):
        store.write_bytes(store.join(home, name), name.encode())
    uris = store.glob(store.join(home, "labels", "*.txt"))
    assert [store.read_bytes(uri) for uri in uris] == [b"labels/a.txt", b"labels/b.txt"]


def test_delete_removes_a_folder_and_ignores_a_missing_one(home: str) -> None:
    store.write_bytes(store.join(home, "work", "x", "a.txt"), b"a")
    store.write_bytes(store.join(home, "keep.txt"), b"a")
    store.delete(store.join(home, "work"))
    store.delete(store.join(home, "work"))
    assert not store.exists(store.join(home, "work"))
    assert [file.path for file in store.list_files(home)] == ["keep.txt"]


def test_upload_moves_a_local_file_to_the_store(home: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    local = tmp_path_factory.mktemp("made") / "shard.tar"
    local.write_bytes(b"samples")
    store.upload(local, store.join(home, "shards", "a.tar"))
    assert not local.exists()
    assert store.read_bytes(store.join(home, "shards", "a.tar")) == b"samples"
    assert [file.path for file in store.list_files(home)] == ["shards/a.tar"]


def test_tables_and_json_are_read_back_equal_and_have_one_form(home: str) -> None:
    table = pa.table({"a": pa.array([1, None], pa.int32()), "b": [[{"x": 1.5}], []]})
    store.write_table(store.join(home, "t.parquet"), table)
    assert store.read_table(store.join(home, "t.parquet")).equals(table)
    store.write_json(store.join(home, "t.json"), {"b": "é", "a": [1, None]})
    assert store.read_json(store.join(home, "t.json")) == {"a": [1, None], "b": "é"}
    assert store.to_json({"b": 1, "a": 2}) == store.to_json({"a": 2, "b": 1})


def test_modified_time_is_when_the_file_was_written(home: str) -> None:
    store.write_bytes(store.join(home, "a"), b"a")
    assert abs(datetime.now(UTC) - store.modified_time(store.join(home, "a"))) < timedelta(minutes=1)


def test_writes_of_other_clients_to_a_bucket_are_visible_at_once(s3, tmp_path: Path) -> None:
    home = f"s3://{BUCKET}/{tmp_path.name}"
    store.write_bytes(f"{home}/a/one", b"1")
    assert [file.path for file in store.list_files(home)] == ["a/one"]
    s3.put_object(Bucket=BUCKET, Key=f"{tmp_path.name}/a/two", Body=b"2")
    assert store.exists(f"{home}/a/two")
    assert [file.path for file in store.list_files(home)] == ["a/one", "a/two"]
    s3.delete_object(Bucket=BUCKET, Key=f"{tmp_path.name}/a/one")
    assert not store.exists(f"{home}/a/one")


def test_a_failed_write_leaves_the_old_file_and_no_partial_file(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.txt")
    store.write_bytes(uri, b"old")
    for write in (store.write_bytes, store.create_if_absent):
        with pytest.raises(TypeError):
            write(uri, "text is not bytes")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"old"


def test_a_reader_never_sees_a_partial_file(tmp_path: Path) -> None:
    uri, contents = str(tmp_path / "a.bin"), [b"a" * 300_000, b"b" * 200_000]
    store.write_bytes(uri, contents[0])
    done = threading.Event()

    def rewrite() -> None:
        for number in range(20):
            store.write_bytes(uri, contents[number % 2])
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    reads = 0
    while not done.is_set() or not reads:
        assert store.read_bytes(uri) in contents
        reads += 1
    writer.join()


def test_a_file_can_be_uploaded_from_another_disk_than_that_of_the_store(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk on this machine")
    local = memory / f"{tmp_path.name}-{os.getpid()}.tar"
    local.write_bytes(b"samples")
    store.upload(local, str(tmp_path / "shards" / "a.tar"))
    assert not local.exists()
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["a.tar"]


def test_only_paths_and_file_uris_have_a_local_path() -> None:
    assert store.local_path("/a/b") == Path("/a/b")
    assert store.local_path("file:///a/b") == Path("/a/b")
    assert store.local_path("s3://bucket/a") is None


def test_a_file_written_in_pieces_appears_whole_or_not_at_all(home: str) -> None:
    uri = store.join(home, "sub", "a.tar")
    with store.open_atomic(uri) as file:
        file.write(b"one ")
        assert not store.exists(uri)
        file.write(b"two")
    assert store.read_bytes(uri) == b"one two"
    with pytest.raises(ZeroDivisionError), store.open_atomic(uri) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert store.read_bytes(uri) == b"one two"
    if (folder := store.local_path(home)) is not None:
        assert [path.name for path in (folder / "sub").iterdir()] == ["a.tar"]


def test_a_small_table_is_read_without_starting_threads(tmp_path: Path) -> None:
    path = tmp_path / "small.parquet"
    table = pa.table({"number": [1, 2], "name": ["a", "b"]})
    write_final(path, table.schema, [table])
    program = (
        "import os, sys\nfrom etl.storage import store\n"
        "before = len(os.listdir('/proc/self/task'))\nstore.read_table(sys.argv[1])\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    if not Path("/proc/self/task").is_dir():
        pytest.skip("this system does not list the threads of a process")
    done = subprocess.run([sys.executable, "-P", "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_local_files_are_listed_as_fsspec_lists_them(tmp_path: Path) -> None:
    for name in ("x.txt", "a/y", "a/b/z", ".hidden/q", "a/.s"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "x.txt")
    (tmp_path / "folder").symlink_to(tmp_path / "a")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    found = fsspec.filesystem("file").find(str(tmp_path), detail=True)
    expected = [
        store.FileInfo(path, entry["size"], str(entry["mtime"]))
        for name, entry in sorted(found.items())
        if "/." not in f"/{(path := name.removeprefix(f'{tmp_path}/'))}"
    ]
    assert store.list_files(str(tmp_path)) == expected
    assert [file.path for file in expected] == ["a/b/z", "a/link", "a/y", "broken", "folder", "x.txt"]
    assert store.list_files(str(tmp_path / "nothing")) == []
