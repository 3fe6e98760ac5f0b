"""The positives of boxes are those of the installed assigner; a change is advised where boxes gain by it, else none."""

from __future__ import annotations

import re
from math import inf
from typing import Any

import numpy as np
import pytest

from etl import boxes as bx, schema
from etl.stages.audit import learning
from etl.stages.audit.conclude import conclude
from etl.stages.audit.context import Context
from etl.stages.audit.counts import LabelPart, count_labels
from etl.stages.audit.model import Audit, Configuration

SIDE = 448  # px of the images, at the network too
P3, P2 = "as configured", "a P2 level"


def audited(images: list[bx.Boxes], **context: Any) -> Audit:
    """The audit of images with these boxes, each one tile at the network's size."""
    rows, annotations = [], []
    for number, boxes in enumerate(images):
        row = {"image_id": f"{number}", "path": f"{number}.jpg", "sha256": f"{number}", "format": "JPEG"}
        more = {"split": "train", "exif_orientation": 1, "exif_applied": False, "labelled": True}
        rows.append({**row, **more, "width": SIDE, "height": SIDE})
        for line, box in enumerate(boxes.tolist()):
            place = {"annotation_id": f"{number}-{line}", "image_id": f"{number}", "file": "a.txt", "line": line}
            flags = {"category": "car", "crowd": False, "ignore": False, "difficult": 0}
            annotations.append({**place, **flags, **dict(zip(bx.XYXY, box, strict=True))})
    table = schema.table(schema.IMAGES, rows)
    strides = context.get("strides", (8, 16, 32)) if context.get("assigner", "tal") == "tal" else ()
    part = LabelPart(table, schema.table(schema.ANNOTATIONS, annotations), SIDE, SIDE, strides=strides)
    summary = count_labels(part)
    return conclude(summary, Context(tile_size=SIDE, image_size=SIDE, images=table, **context))


def scattered(number: int, low: float, high: float, seed: int = 0, room: float = SIDE) -> bx.Boxes:
    """Boxes with sides between two limits at random places; they may overlap."""
    rng = np.random.default_rng(seed)
    side = np.exp(rng.uniform(np.log(low), np.log(high), (number, 2)))
    corner = rng.uniform(0, 1, (number, 2)) * (room - side)
    return np.hstack([corner, corner + side])


def lattice(side: float, gap: float, room: float = SIDE) -> bx.Boxes:
    """Squares in rows and columns."""
    number = int((room - 20) // (side + gap))
    corner = 10.3 + (side + gap) * np.stack(np.meshgrid(*[np.arange(number)] * 2), axis=-1).reshape(-1, 2)
    return np.hstack([corner, corner + side])


def cells_of_installed(boxes: bx.Boxes, row: Configuration) -> tuple[Any, Any, np.ndarray]:
    """The installed assigner, the centres of all cells, and which of them [N, P] are candidates of each box."""
    torch = pytest.importorskip("torch")
    tal = pytest.importorskip("ultralytics.utils.tal")
    size = int(SIDE * row.input_factor)
    levels = [torch.zeros(1, 1, size // stride, size // stride) for stride in row.strides]
    points, strides = tal.make_anchors(levels, torch.tensor(row.strides), 0.5)
    assigner = tal.TaskAlignedAssigner(topk=10, num_classes=1, alpha=0.5, beta=6.0, stride=list(row.strides))
    truth, every = torch.tensor(boxes * row.input_factor, dtype=torch.float32)[None], torch.ones(1, len(boxes), 1)
    return assigner, points * strides, assigner.select_candidates_in_gts(points * strides, truth, every)[0].numpy()


def by_installed(boxes: bx.Boxes, row: Configuration) -> np.ndarray:
    """The positives [N] of the installed assigner if each cell predicts the nearest of the boxes that want it.

    Scores differ by little, as chance has it: they decide between cells that predict one box.
    """
    assigner, points, candidate = cells_of_installed(boxes, row)
    torch = pytest.importorskip("torch")
    scaled = boxes * row.input_factor
    truth, every = torch.tensor(scaled, dtype=torch.float32)[None], torch.ones(1, len(boxes), 1)
    middle = (scaled[:, :2] + scaled[:, 2:]) / 2
    apart = ((points.numpy()[None] - middle[:, None]) ** 2).sum(axis=2)
    nearest = np.where(candidate, apart, np.inf).argmin(axis=0)
    predicted = truth[0][torch.tensor(nearest)]
    predicted[torch.tensor(~candidate.any(axis=0))] = torch.tensor([-99.0, -99.0, -98.0, -98.0])
    scores = torch.tensor(0.5 + 1e-4 * np.random.default_rng(0).uniform(size=(1, len(points), 1)))
    _, _, _, positive, owner = assigner(scores, predicted[None], points, torch.zeros(1, len(boxes), 1), truth, every)
    return np.bincount(owner[0][positive[0]].numpy(), minlength=len(boxes))


SCENES = {
    "few": [scattered(30, 3, 60, seed) for seed in range(10)],
    "crowded": [scattered(450, 3, 30, seed) for seed in range(2)],
    "crowded tiny": [scattered(700, 4, 10, seed, room=300) for seed in range(2)],
    "touching": [lattice(8.2, 0.8, room=200) + shift for shift in np.linspace(0, 1, 8)],
    "large": [scattered(4, 80, 200, seed) for seed in range(6)],
}


@pytest.mark.parametrize("scene", SCENES)
def test_positives_by_size_are_those_of_the_installed_assigner(scene: str) -> None:
    for row in audited(SCENES[scene]).coverage.configurations:
        if row.input_factor > 1 and "crowded" in scene:
            continue  # one input size is enough for the largest scenes
        positives = np.concatenate([by_installed(boxes, row) for boxes in SCENES[scene]])
        size = bx.bucket(np.concatenate([bx.side_length(boxes) for boxes in SCENES[scene]]))
        for index, (_, mean) in enumerate(row.by_size.items()):
            assert mean.boxes == (size == index).sum()
            if mean.boxes >= 20:
                assert mean.positives == pytest.approx(positives[size == index].mean(), rel=0.12)
        assert row.all.positives == pytest.approx(positives.mean(), rel=0.12)
        assert row.all.taught == pytest.approx((positives > 0).mean(), abs=0.06)


@pytest.mark.parametrize("strides", [(8, 16, 32), (4, 8, 16, 32)])
def test_the_best_iou_is_that_of_boxes_which_distances_in_bins_can_express(strides: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    tal = pytest.importorskip("ultralytics.utils.tal")
    from etl import assigner

    levels = [torch.zeros(1, 1, 512 // stride, 512 // stride) for stride in strides]
    points, steps = tal.make_anchors(levels, torch.tensor(strides), 0.5)
    rng = np.random.default_rng(0)
    for side in (2.0, 3.0, 5.0, 7.0, 12.0, 60.0, 300.0):
        corner = rng.uniform(64, 96, (200, 2))
        truth = torch.tensor(np.hstack([corner, corner + side]), dtype=torch.float32)
        installed = tal.TaskAlignedAssigner(stride=list(strides))
        candidate = installed.select_candidates_in_gts(points * steps, truth[None], torch.ones(1, 200, 1))[0]
        best = []
        for box, cells in zip(truth, candidate, strict=True):
            distances = tal.bbox2dist(points, (box / steps), 15)  # as DFL of 16 bins is taught
            drawn = (tal.dist2bbox(distances, points, xywh=False) * steps)[cells].numpy().astype(float)
            best.append(bx.iou(box[None].numpy().astype(float), drawn).max())
        wh = np.full((1, 2), side)
        for reach, expected in ((15.0, np.mean(best)), (inf, 1.0)):
            found = assigner.best_iou(wh, strides, reach, np.ones((1, len(strides))))[0]
            assert found == pytest.approx(expected, abs=0.03), side


FRAME = np.array([[0.0, 0, SIDE, SIDE]])
ENCLOSING = np.array([[30.0, 30, 190, 190]])  # one large box around rows of small ones
ROW = np.array([[20.3 + 7 * n, 40.7, 32.3 + 7 * n, 52.7] for n in range(25)])  # equal boxes, each over the next


def alone_and_together(images: list[bx.Boxes], row: Configuration) -> tuple[np.ndarray, np.ndarray]:
    """The positives of each box by the installed assigner, without and with its neighbours.

    Alone, a box is what all of its candidates predict: TOPK of them become positives.
    """
    alone = [np.minimum(cells_of_installed(boxes, row)[2].sum(axis=1), 10) for boxes in images]
    return np.concatenate(alone), np.concatenate([by_installed(boxes, row) for boxes in images])


@pytest.mark.parametrize(
    "images",
    [
        [np.vstack([FRAME, lattice(40, 8)[::2]])],
        [np.vstack([lattice(20, 26), FRAME])],
        [np.vstack([lattice(16, 6, room=200), ENCLOSING])],
        [np.vstack([ENCLOSING + shift, lattice(24, 12, room=200) + shift]) for shift in (0, 3.3)],
    ],
)
def test_large_boxes_around_others_take_no_positives(images: list[bx.Boxes]) -> None:
    audit = audited(images)
    first = audit.coverage.configurations[0]
    alone, together = alone_and_together(images, first)
    assert together.mean() > 0.93 * alone.mean()
    assert first.all.positives == pytest.approx(together.mean(), rel=0.06)
    assert not [finding for finding in audit.findings if finding.code == "contested_boxes"]


def nearly_again(boxes: bx.Boxes, px: float, times: int = 1) -> bx.Boxes:
    """Boxes, and others whose edges differ from theirs by so much at most."""
    rng = np.random.default_rng(5)
    return np.vstack([boxes, *(boxes + rng.uniform(-px, px, boxes.shape) for _ in range(times))])


CROWDS = {
    "a dense row": [ROW + shift for shift in np.linspace(0, 6, 4)],
    "scattered": SCENES["crowded"][:1],
    "small ones among large": [np.vstack([scattered(150, 4, 12, 1, room=200), scattered(15, 40, 120, 1, room=200)])],
    "repeated": [np.repeat(lattice(20, 60), 2, axis=0)],
    "nearly repeated": [nearly_again(lattice(12, 40), 1)],
    "nearly repeated, larger": [nearly_again(lattice(28, 40), 2)],
    "a stack": [nearly_again(np.array([[50.0, 50, 90, 90]]), 4, times=29)],
    "nested": [np.vstack([lattice(24, 40), lattice(24, 40) + np.array([6.1, 6.2, -6.0, -6.3])])],
    "tiny ones in a frame": [np.vstack([FRAME, lattice(6, 4, room=200)])],
    "long and thin": [np.array([[20.0 + 5 * n, 20, 26 + 5 * n, 200] for n in range(40)])],
}


@pytest.mark.parametrize("crowd", CROWDS)
def test_neighbours_take_the_positives_that_the_installed_assigner_gives_them(crowd: str) -> None:
    images = CROWDS[crowd]
    audit = audited(images)
    for row in audit.coverage.configurations[: 4 if crowd == "a dense row" else 2]:
        alone, together = alone_and_together(images, row)
        assert row.all.lost == pytest.approx(1 - together.sum() / alone.sum(), abs=0.02)
        assert row.all.taught == pytest.approx((together > 0).mean(), abs=0.12 if crowd == "a stack" else 0.02)
        assert row.all.contested == pytest.approx((2 * together <= alone).mean(), abs=0.04)
    first, second = audit.coverage.configurations[:2]
    found = [finding for finding in audit.findings if finding.code == "contested_boxes"]
    assert bool(found) == (first.all.lost > 0.1)
    for finding in found:
        alone, together = alone_and_together(images, first)
        shares = [float(share) for share in re.findall(r"([\d.]+) %", finding.advice)]
        assert shares[0] == pytest.approx(100 * (1 - together.sum() / alone.sum()), abs=2)
        losing = (2 * together <= alone).sum()
        assert ("lose half or more" in finding.advice) == (losing > 0)
        assert finding.count == pytest.approx(losing or shares[0] / 100 * len(alone), abs=0.04 * len(alone))
        alone, together = alone_and_together(images, second)
        assert shares[-1] == pytest.approx(100 * (1 - together.sum() / alone.sum()), abs=2)


def test_two_boxes_divide_their_cells_by_the_nearer_centre() -> None:
    of_size = audited([np.array([[100.0, 100, 110, 110], [105, 100, 115, 110], [300, 300, 320, 320]])])
    wanted, kept = 0, 0
    for own, other in ((105, 110), (110, 105)):  # sides count as 16 px
        for stride in (8, 16, 32):
            xs, ys = ([at for at in np.arange(stride / 2, 160, stride) if abs(at - to) < 8] for to in (own, 105))
            wanted += len(xs) * len(ys)
            kept += len([x for x in xs if abs(x - other) >= 8 or abs(x - own) < abs(x - other)]) * len(ys)
    row = of_size.coverage.configurations[0].by_size
    assert row.tiny.lost == pytest.approx(1 - kept / wanted, abs=1e-5)
    assert 0 < kept < wanted
    assert row.small.lost == 0


def test_boxes_apart_take_nothing_from_each_other() -> None:
    assert [row.all.lost for row in audited([lattice(20, 4)]).coverage.configurations] == [0.0] * 4


def test_a_box_without_a_candidate_loses_none_to_neighbours() -> None:
    between_centres = [4.0, 4, 12, 12]  # of cells of stride 8
    row = audited([np.array([between_centres, [100, 100, 140, 140]])], strides=(8,)).coverage.configurations[0]
    assert (row.all.taught, row.all.contested, row.all.lost) == (0.5, 0.0, 0.0)


def test_boxes_of_an_assigner_that_lets_them_share_cells_lose_nothing() -> None:
    audit = audited([np.repeat(lattice(20, 60), 2, axis=0)], assigner="ratio")
    assert [row.all.lost for row in audit.coverage.configurations] == [None, None]
    assert not [finding for finding in audit.findings if finding.code == "contested_boxes"]


@pytest.mark.parametrize("boxes", [lattice(5, 24), lattice(8, 20), lattice(12, 12), lattice(6, 1), lattice(12, 0)])
def test_a_p2_level_is_advised_for_tiny_boxes_and_crowds(boxes: bx.Boxes) -> None:
    audit = audited([boxes])
    advice = audit.coverage.advice
    assert advice is not None
    assert (advice.name, advice.p2, advice.input_factor, advice.boxes) == (P2, True, 1.0, len(boxes))
    before, after = audit.coverage.configurations[:2]
    gained = after.all.iou * after.all.taught - before.all.iou * before.all.taught
    assert gained >= learning.GAIN * 0.56
    (row,) = [finding for finding in audit.findings if finding.code == "coarse_levels"]
    assert (row.count, row.severity) == (len(boxes), "warning")
    assert f"from {before.all.iou:.2f} to {after.all.iou:.2f}" in row.advice
    assert f"gets {before.all.positives:.1f} positive cells on average." in row.advice


@pytest.mark.parametrize(
    "images",
    [
        [lattice(18, 6)],
        [lattice(24, 0)],
        [lattice(40, 1)],
        [lattice(100, 5)],
        SCENES["large"],
        [lattice(8, 20)[:19]],
        [],
    ],
)
def test_nothing_is_advised_for_larger_boxes_or_too_few(images: list[bx.Boxes]) -> None:
    audit = audited(images)
    assert audit.coverage.advice is None
    assert not [finding for finding in audit.findings if finding.code == "coarse_levels"]


def test_a_model_with_a_p2_level_or_anchors_is_not_given_another() -> None:
    for context in ({"strides": (4, 8, 16, 32)}, {"assigner": "ratio"}):
        rows = audited([lattice(8, 20)], **context).coverage
        assert [row.input_factor for row in rows.configurations] == [1.0, 2.0]
        assert rows.advice is None


def test_a_recipe_that_chooses_the_level_makes_the_finding_an_information() -> None:
    context = {"p2_variant": "yolo26n-p2", "recipe": "auto"}
    (row,) = [one for one in audited([lattice(8, 20)], **context).findings if one.code == "coarse_levels"]
    assert row.severity == "info"
    assert row.advice.endswith("train.recipe: auto trains yolo26n-p2.")
    (row,) = [one for one in audited([lattice(8, 20)], p2_variant="yolo26n-p2").findings if one.code == "coarse_levels"]
    assert row.advice.endswith("Set train.model to yolo26n-p2.")


def test_the_imbalance_between_sizes_is_one_sentence_with_the_figures_of_its_ends() -> None:
    large = [scattered(1, 120, 180, seed) for seed in range(25)]
    images = [np.vstack([boxes, lattice(6, 60)[:4]]) for boxes in large]
    first = audited(images).coverage.configurations[0]
    few, many = first.by_size.very_tiny.positives, first.by_size.large.positives
    assert learning.imbalance(first) == (
        f"A very tiny box (< 8 px) gets {few:.1f} positive cells on average, a large one (≥ 96 px) {many:.1f}."
    )
    assert many == 10
    assert learning.imbalance(audited([lattice(6, 60)[:10]]).coverage.configurations[0]) is None
