from __future__ import annotations

import numpy as np
import pytest

from etl.stages.audit import crowding


@pytest.mark.parametrize("most", [3, 100], ids=["few boxes an image", "many boxes in one image"])
def test_the_nearest_box_is_the_nearest_one_of_the_same_image(most: int) -> None:
    rng = np.random.default_rng(most)
    owner = rng.permutation(np.repeat([4, 9, 2, 7], [1, 2, 3, most]))
    centres = rng.uniform(0, 50, (len(owner), 2))
    apart = np.linalg.norm(centres[:, None] - centres, axis=2)
    apart[(owner[:, None] != owner) | np.eye(len(owner), dtype=bool)] = np.inf
    np.testing.assert_allclose(crowding.nearest_distances(centres, owner), apart.min(axis=1))


def test_without_boxes_there_are_no_distances() -> None:
    assert crowding.nearest_distances(np.empty((0, 2)), np.empty(0, np.int64)).shape == (0,)
