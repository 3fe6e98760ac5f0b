"""A snapshot as a Torch dataset: what an item holds, workers, and torchvision's own detection model on it."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from etl.errors import ConfigError, StoreError
from etl.imaging import codec
from etl.imaging.mask import GREY
from train import SnapshotDataset, compat


def test_an_item_is_an_image_and_its_target_in_pixels_with_labels_from_1(published):
    snapshot = published(train=6, val=2)
    dataset = SnapshotDataset(snapshot, "train")
    rows = [row for row in snapshot.table("samples").sort_by("sample_id").to_pylist() if row["split"] == "train"]
    assert len(dataset) == len(rows) == 6
    assert dataset.categories == ("blue", "red")
    shard = snapshot.shard_uri(rows[0]["shard"])
    with open(shard, "rb") as file:
        content = file.read()
    for index, row in enumerate(rows):
        image, target = dataset[index]
        assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 64, 64))
        pixels = codec.decode(content[row["offset"] : row["offset"] + row["size"]])
        assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)
        (box,) = row["boxes"]
        assert target["boxes"].tolist() == [[box["x0"], box["y0"], box["x1"], box["y1"]]]
        assert target["labels"].tolist() == [{"blue": 1, "red": 2}[box["category"]]]
        assert target["weights"].tolist() == [1.0], "an augmented sample has no weight of its own"
        assert [target[name].dtype for name in ("boxes", "labels", "weights")] == [
            torch.float32, torch.int64, torch.float32,
        ]  # fmt: skip
        assert target["image_id"] == index


def test_ignore_regions_are_painted_outside_labelled_boxes_unless_asked_not_to(published):
    box = {"x0": 8.0, "y0": 8.0, "x1": 20.0, "y1": 20.0, "category": "red", "weight": 0.25}
    region = {"x0": 0.0, "y0": 0.0, "x1": 16.0, "y1": 64.0}
    snapshot = published(train=2, val=1, boxes=[box], ignore=[region])
    painted, target = SnapshotDataset(snapshot.uri, "train")[0]
    plain, _ = SnapshotDataset(snapshot.uri, "train", paint_ignore=False)[0]
    assert target["weights"].tolist() == [0.25]
    changed = (painted != plain).any(dim=0)
    assert (painted[:, :8, :16] == GREY).all()
    assert changed[:, :16].any() and not changed[8:20, 8:20].any() and not changed[:, 16:].any()


def test_samples_without_boxes_have_empty_tensors_of_the_same_form(published):
    _, target = SnapshotDataset(published(train=2, val=1, boxes=[]), "train")[1]
    assert {name: tuple(target[name].shape) for name in ("boxes", "labels", "weights")} == {
        "boxes": (0, 4), "labels": (0,), "weights": (0,),
    }  # fmt: skip


def test_workers_read_what_the_process_itself_reads(published):
    dataset = SnapshotDataset(published(train=10), "train")
    dataset[0]  # an open shard must not hinder a copy of the dataset
    batches = list(DataLoader(dataset, batch_size=4, num_workers=2, collate_fn=SnapshotDataset.collate))
    items = [item for images, targets in batches for item in zip(images, targets, strict=True)]
    assert [len(images) for images, _ in batches] == [4, 4, 2]
    for (image, target), index in zip(items, range(10), strict=True):
        expected_image, expected = dataset[index]
        assert torch.equal(image, expected_image)
        assert torch.equal(target["boxes"], expected["boxes"]) and target["image_id"] == index


def test_a_detection_model_of_torchvision_trains_one_step(published):
    compat.install()
    from torchvision.models import detection

    dataset = SnapshotDataset(published(train=4), "train")
    images, targets = next(iter(DataLoader(dataset, batch_size=4, collate_fn=SnapshotDataset.collate)))
    torch.manual_seed(0)
    model = detection.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=len(dataset.categories) + 1
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    losses = model([image.float() / 255 for image in images], targets)
    sum(losses.values()).backward()
    optimizer.step()
    assert set(losses) == {"bbox_regression", "classification"}
    assert all(loss.isfinite() for loss in losses.values())
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_split_without_samples_and_a_uri_without_a_snapshot_are_refused(published, tmp_path):
    with pytest.raises(ConfigError, match=r"no samples in 'test'"):
        SnapshotDataset(published(), "test")
    with pytest.raises(StoreError, match="nowhere: not a snapshot"):
        SnapshotDataset(str(tmp_path / "nowhere"), "train")


def test_the_dataset_needs_no_ultralytics():
    code = "import sys, train; train.SnapshotDataset; print({'torch', 'ultralytics'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "{'torch'}\n"
