from __future__ import annotations

import hashlib
import io
import tarfile
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st

from etl.storage import shard

IMAGES = st.lists(st.integers(600, 40_000), min_size=1, max_size=60)
LIMIT = 100_000


def divide(sizes: list[int], limit: int = LIMIT, prefix: str = "image") -> list[list[int]]:
    """Return the sizes of the images of each shard."""
    shards: list[list[int]] = []
    named = [(f"{prefix} {number}", size) for number, size in enumerate(sizes)]
    for size, starts in zip(sizes, shard.shard_starts(named, limit), strict=True):
        if starts:
            shards.append([])
        shards[-1].append(size)
    return shards


@given(IMAGES)
def test_every_image_is_in_one_shard_and_no_shard_exceeds_the_limit(sizes: list[int]) -> None:
    shards = divide(sizes)
    assert list(chain(*shards)) == sizes
    assert all(sum(members) + len(shard.END) <= LIMIT for members in shards)


@given(IMAGES, IMAGES)
def test_images_added_at_the_end_change_only_the_last_shard(old: list[int], new: list[int]) -> None:
    before, after = divide(old), divide(old + new)
    assert after[: len(before) - 1] == before[:-1]
    assert after[len(before) - 1][: len(before[-1])] == before[-1]


def test_an_image_added_in_the_middle_changes_only_the_shards_near_it() -> None:
    sizes = [(f"image {number}", 3_000) for number in range(400)]
    starts = [name for (name, _), first in zip(sizes, shard.shard_starts(sizes, LIMIT), strict=True) if first]
    more = [*sizes[:100], ("new", 3_000), *sizes[100:]]
    moved = [name for (name, _), first in zip(more, shard.shard_starts(more, LIMIT), strict=True) if first]
    assert len(set(starts) ^ set(moved)) <= 4
    assert starts[-5:] == moved[-5:]


def test_an_image_larger_than_the_limit_has_a_shard_of_its_own() -> None:
    assert divide([10, 5 * LIMIT, 10]) == [[10], [5 * LIMIT], [10]]


def test_no_images_need_no_shard() -> None:
    assert list(shard.shard_starts([], LIMIT)) == []


def test_shards_are_about_half_the_limit() -> None:
    shards = divide([2_000] * 3000)
    assert 0.3 * LIMIT < sum(map(sum, shards)) / len(shards) < 0.7 * LIMIT


@pytest.mark.parametrize("image", [b"", b"x", b"x" * 512, b"x" * 100_001])
def test_a_sample_can_be_read_at_its_offset_and_with_tar(tmp_path: Path, image: bytes) -> None:
    writer = shard.ShardWriter(tmp_path / "a.tar")
    writer.add(shard.sample_blocks("first", b"other", b"{}")[0])
    blocks, offset = shard.sample_blocks("0a1b", image, b'{"a": 1}')
    start = writer.add(blocks) + offset
    written = writer.close()
    data = (tmp_path / "a.tar").read_bytes()
    assert data[start : start + len(image)] == image
    assert (written.size, written.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == ["first.jpg", "first.json", "0a1b.jpg", "0a1b.json"]
    assert shard.read_members(data)["0a1b.jpg"] == image
    assert shard.read_members(data)["0a1b.json"] == b'{"a": 1}'


def test_a_member_has_no_owner_and_no_time() -> None:
    with tarfile.open(fileobj=io.BytesIO(shard.member("a.jpg", b"abc") + shard.END)) as tar:
        (info,) = tar.getmembers()
    assert (info.mtime, info.uid, info.gid, info.uname, info.gname, info.mode) == (0, 0, 0, "", "", 0o644)
    assert shard.member("a.jpg", b"abc") == shard.member("a.jpg", b"abc")


def test_equal_samples_give_equal_shards(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        writer = shard.ShardWriter(tmp_path / name)
        writer.add(shard.sample_blocks("k", b"image", b"{}")[0])
        digests.append(writer.close().sha256)
    assert digests[0] == digests[1]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40), st.binary(max_size=600))
@example("a" * 100, b"a name that just fits")
def test_a_member_is_what_tarfile_writes(name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    padding = b"\0" * (-len(data) % 512)
    assert shard.member(name, data) == info.tobuf(tarfile.USTAR_FORMAT) + data + padding
