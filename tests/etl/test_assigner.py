"""What boxes get from the assigners: equal to the installed ones, and to a count over many positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import assigner
from etl.boxes import NWD_SCALE
from etl.stages.anchors import fit

P3 = (8, 16, 32)
P2 = (4, 8, 16, 32)


def squares(sides: list[float]) -> np.ndarray:
    return np.repeat(np.array(sides, dtype=float)[:, None], 2, axis=1)


def test_the_share_of_squares_without_a_cell_centre_is_the_known_one() -> None:
    by_p3 = 1 - assigner.coverage_of("point_in_box", squares([2, 3, 4, 5, 6, 7, 8]), P3).covered
    assert by_p3 == pytest.approx([0.917, 0.814, 0.670, 0.503, 0.336, 0.169, 0], abs=0.005)
    by_p2 = 1 - assigner.coverage_of("point_in_box", squares([2, 3, 4]), P2).covered
    assert by_p2 == pytest.approx([0.668, 0.333, 0], abs=0.005)


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 60), st.floats(1, 60), st.sampled_from([P3, P2, (4, 8)]), st.sampled_from(["point_in_box", "tal"]))
def test_chances_by_centres_are_those_of_many_positions(
    w: float, h: float, strides: tuple[int, ...], name: str
) -> None:
    rng = np.random.default_rng(int(1000 * w + h))
    corner = rng.uniform(64, 96, (4000, 2))
    held = assigner.candidate_mask(
        name, np.hstack([corner, corner + np.array([w, h])]), assigner.cell_centres((192, 192), strides), strides
    ).sum(axis=1)
    found = assigner.coverage_of(name, np.array([[w, h]]), strides)
    for counted, expected in (((held > 0), found.covered[0]), (held, found.candidates[0])):
        assert expected == pytest.approx(counted.mean(), abs=6 * counted.std() / len(held) ** 0.5 + 0.003)


@pytest.mark.parametrize("strides", [P3, P2])
def test_tal_takes_the_candidates_of_the_installed_assigner(strides: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    tal = pytest.importorskip("ultralytics.utils.tal")
    rng = np.random.default_rng(4)
    corner, side = rng.uniform(0, 200, (300, 2)), np.exp(rng.uniform(0, 5, (300, 2)))
    boxes = np.hstack([corner, corner + side]).astype(np.float32)
    points = assigner.cell_centres((256, 256), strides)
    installed = tal.TaskAlignedAssigner(stride=list(strides)).select_candidates_in_gts(
        torch.tensor(points, dtype=torch.float32), torch.tensor(boxes)[None], torch.ones(1, 300, 1)
    )
    assert np.array_equal(assigner.candidate_mask("tal", boxes.astype(float), points, strides), installed[0].numpy())
    assert installed.any()


def test_ratio_agrees_with_best_possible_recall_and_anchors_past_the_threshold() -> None:
    wh = np.exp(np.random.default_rng(1).normal(3, 1.2, (2000, 2)))
    levels = [[(10, 13), (16, 30), (33, 23)], [(30, 61), (62, 45), (59, 119)], [(116, 90), (156, 198), (373, 326)]]
    found = assigner.coverage_of("ratio", wh, P3, levels)
    bpr, past, _ = fit.measure_anchors([pair for level in levels for pair in level], wh)
    assert found.covered.mean() == pytest.approx(bpr, abs=1e-4)
    assert found.candidates.mean() == pytest.approx(assigner.RATIO_CELLS * past, abs=1e-4)


def overlap(box: np.ndarray, other: np.ndarray) -> float:
    shared = np.maximum(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0).prod()
    return float(shared / ((box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


def nwd(box: np.ndarray, other: np.ndarray) -> float:
    apart = ((box[:2] + box[2:]) / 2 - (other[:2] + other[2:]) / 2) ** 2
    sides = ((box[2:] - box[:2]) - (other[2:] - other[:2])) ** 2 / 4
    return float(np.exp(-np.sqrt(apart.sum() + sides.sum()) / NWD_SCALE))


@pytest.mark.parametrize(("name", "metric", "least"), [("max_iou", overlap, 0.5), ("nwd", nwd, 0.7)])
@pytest.mark.parametrize("wh", [(9.0, 7.0), (14.0, 20.0), (5.0, 5.0)])
def test_anchors_reach_a_box_as_often_as_counted_over_positions(
    name: str, metric: object, least: float, wh: tuple[float, float]
) -> None:
    rng = np.random.default_rng(2)
    cells = assigner.cell_centres((96, 96), (8,))
    shapes = np.array([10.0, 12.0])
    hits = []
    for corner in rng.uniform(40, 48, (100, 2)):
        box = np.concatenate([corner, corner + wh])
        hits.append(sum(metric(box, np.concatenate([c - shapes / 2, c + shapes / 2])) >= least for c in cells))  # type: ignore[operator]
    found = assigner.coverage_of(name, np.array([wh]), (8,), [[tuple(shapes)]])
    assert found.candidates[0] == pytest.approx(np.mean(hits), rel=0.1, abs=0.1)
    assert found.covered[0] == pytest.approx(np.mean(np.array(hits) > 0), abs=0.1)


def test_an_unknown_assigner_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no assigner hungarian; there are point_in_box"):
        assigner.coverage_of("hungarian", squares([4]), P3)
    with pytest.raises(ValueError, match="not an assigner by cell centres"):
        assigner.candidate_mask("ratio", np.zeros((1, 4)), np.zeros((1, 2)), P3)


@pytest.mark.parametrize(("name", "metric", "least"), [("max_iou", overlap, 0.5), ("nwd", nwd, 0.7)])
@pytest.mark.parametrize("wh", [(9.0, 7.0), (13.0, 11.0), (8.0, 16.0), (40.0, 22.0)])
def test_a_box_is_covered_wherever_any_anchor_of_any_level_reaches_it(
    name: str, metric: Callable[[np.ndarray, np.ndarray], float], least: float, wh: tuple[float, float]
) -> None:
    levels = {8: [(7.0, 12.0), (14.0, 8.0)], 16: [(9.0, 9.0), (18.0, 14.0)], 32: [(12.0, 10.0), (34.0, 26.0)]}
    hits = []
    for corner in np.random.default_rng(5).uniform(64, 96, (600, 2)):
        box = np.concatenate([corner, corner + wh])
        hits.append(
            any(
                metric(box, np.concatenate([cell - np.array(anchor) / 2, cell + np.array(anchor) / 2])) >= least
                for stride, anchors in levels.items()
                for cell in [(np.floor((box[:2] + box[2:]) / 2 / stride) + 0.5) * stride]  # others overlap less
                for anchor in anchors
            )
        )
    found = assigner.coverage_of(name, np.array([wh]), tuple(levels), list(levels.values())).covered[0]
    assert found == pytest.approx(np.mean(hits), abs=0.05)
