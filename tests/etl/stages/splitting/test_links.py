from __future__ import annotations

from collections import Counter

import numpy as np

from etl.stages.splitting.links import find_links, join_links

NAMES = ["a", "b", "c", "d"]
FAR = [0, 0xFFFF_FFFF, 0xFFFF_0000_FFFF_0000, 0x0F0F_0F0F_0F0F_0F0F]


def groups(units: list[str], contents: list[int], hashes: list[int | None], most: int = 100) -> dict[str, str]:
    return join_links(find_links(units, contents, hashes, 3), Counter(units), (), most)


def test_photos_with_equal_bytes_are_one_group_even_without_a_hash() -> None:
    assert groups(NAMES, [1, 2, 1, 3], [None] * 4) == {"c": "a"}


def test_photos_that_look_the_same_are_one_group() -> None:
    assert groups(NAMES, [1, 2, 3, 4], [FAR[0], FAR[1], FAR[0] ^ 0b111, FAR[2]]) == {"c": "a"}
    assert groups(NAMES, [1, 2, 3, 4], [*FAR]) == {}


def test_links_join_in_chains() -> None:
    assert groups(NAMES, [1, 2, 3, 4], [0, 0b111, 0b111111, FAR[1]]) == {"b": "a", "c": "a"}


def test_the_closest_links_join_first_and_no_group_outgrows_its_limit() -> None:
    hashes = [0, 0b111, 0b1111, FAR[1]]
    assert groups(NAMES, [1, 2, 3, 4], hashes, most=2) == {"c": "b"}


def test_units_kept_apart_are_not_joined() -> None:
    links = find_links(NAMES, [1, 1, 1, 2], [None] * 4, 3)
    assert join_links(links, Counter(NAMES), {"a"}, 10) == {}
    assert join_links(links, Counter(NAMES), {"d"}, 10) == {"b": "a", "c": "a"}


def test_videos_are_linked_by_a_share_of_their_frames_not_by_one() -> None:
    rng = np.random.default_rng(0)
    one, other = ([int(value) for value in rng.integers(0, 2**63, 40)] for _ in range(2))
    units = ["one"] * 40 + ["other"] * 40
    contents = [*range(80)]
    assert groups(units, contents, [*one, *other[:-1], one[0]]) == {}
    assert groups(units, contents, [*one, *other[:-10], *one[:10]]) == {"other": "one"}


def test_nothing_is_linked_where_almost_all_photos_look_alike() -> None:
    hashes: list[int | None] = [1 << a | 1 << b for a in range(30) for b in range(a)]
    units = [str(number) for number in range(len(hashes))]
    assert groups(units, [*range(len(hashes))], hashes) == {}
