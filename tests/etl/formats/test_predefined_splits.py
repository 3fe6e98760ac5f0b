"""The split a dataset came with is read from its own lists, files or folders."""

import json

import pytest

from etl.config import SplitLists
from etl.errors import ConfigError
from etl.formats.predefined_splits import find_split, read_split, split_by_folder

IMAGES = ["images/train/a.jpg", "images/train/b.jpg", "images/val/c.jpg"]


@pytest.mark.parametrize(
    "yaml",
    [
        "train: images/train\nval: images/val\n",
        "path: .\ntrain: images/train/\nval: [images/val]\n",
        "path: /home/pi/datasets/x\ntrain: ../images/train\nval: ../images/val\n",
        "train: train.txt\nval: val.txt\n",
    ],
)
def test_a_data_yaml_gives_folders_or_lists(yaml):
    files = {
        "data.yaml": yaml.encode(),
        "train.txt": b"./images/train/a.jpg\r\n./images/train/b.jpg\r\n",
        "val.txt": b"/home/pi/datasets/x/images/val/c.jpg\n",
    }
    assert find_split("yolo", files, IMAGES) == dict(zip(IMAGES, ["train", "train", "val"], strict=True))


def test_a_data_yaml_below_the_root_is_seen_from_its_folder():
    images = [f"x/{image}" for image in IMAGES]
    found = find_split("yolo", {"x/data.yaml": b"train: images/train\nval: images/val"}, images)
    assert list(found.values()) == ["train", "train", "val"]


def test_a_data_yaml_above_the_images_root_is_understood():
    found = find_split(
        "yolo", {"data.yaml": b"train: images/train\nval: images/val/\ntest: x/test/"}, ["train/a.jpg", "val/c.jpg"]
    )
    assert found == {"train/a.jpg": "train", "val/c.jpg": "val"}


def test_plain_darknet_lists_count_where_there_is_no_data_yaml():
    files = {
        "train.txt": b"aerial/a.jpg\naerial/b.jpg\naerial/gone.jpg\n",
        "test.txt": b"aerial/c.jpg\n",
        "train1.txt": b"c.jpg",
    }
    assert find_split("yolo", files, ["a.jpg", "b.jpg", "c.jpg"]) == {
        "a.jpg": "train",
        "b.jpg": "train",
        "c.jpg": "test",
    }


def test_an_image_in_two_lists_is_held_out():
    files = {"train.txt": b"a.jpg\nb.jpg\nc.jpg\n", "val.txt": b"b.jpg\nc.jpg\n", "test.txt": b"c.jpg\n"}
    assert find_split("yolo", files, ["a.jpg", "b.jpg", "c.jpg"]) == {"a.jpg": "train", "b.jpg": "val", "c.jpg": "test"}


def test_voc_image_sets_name_stems():
    files = {
        "V/ImageSets/Main/train.txt": b"a\n",
        "V/ImageSets/Main/trainval.txt": b"a\nb\nd e\n",
        "V/ImageSets/Main/val.txt": b"b\n",
        "V/ImageSets/Main/car_val.txt": b"a -1\n",
    }
    images = [
        "V/JPEGImages/a.jpg",
        "V/JPEGImages/b.jpg",
        "V/JPEGImages/c.jpg",
        "V/JPEGImages/d e.jpg",
        "W/JPEGImages/a.jpg",
    ]
    assert find_split("voc", files, images) == {
        "V/JPEGImages/a.jpg": "train",
        "V/JPEGImages/b.jpg": "val",
        "V/JPEGImages/d e.jpg": "train",
    }


def test_coco_splits_are_named_by_file_or_folder():
    def listing(*names):
        rows = [{"id": number, "file_name": name} for number, name in enumerate(names)]
        return json.dumps({"images": rows, "annotations": []}).encode()

    files = {"annotations/instances_train2017.json": listing("a.jpg"), "valid/_annotations.coco.json": listing("b.jpg")}
    assert find_split("coco", files, ["train2017/a.jpg", "valid/b.jpg"]) == {
        "train2017/a.jpg": "train",
        "valid/b.jpg": "val",
    }


def test_folders_decide_where_nothing_is_listed():
    images = [
        "VisDrone2019-DET-train/images/a.jpg",
        "VisDrone2019-DET-val/images/b.jpg",
        "trainyard/c.jpg",
        "d_test.jpg",
    ]
    assert find_split("visdrone", {}, images) == split_by_folder(images)
    assert split_by_folder(images) == {images[0]: "train", images[1]: "val"}


def test_configured_lists_are_folders_or_files_below_the_images():
    lists = SplitLists(train="/data/x/images", val="/data/x/val.txt")
    found = read_split(lists, "/data/x", IMAGES, {"/data/x/val.txt": b"images/val/c.jpg\n"})
    assert found == dict(zip(IMAGES, ["train", "train", "val"], strict=True))


def test_a_configured_folder_elsewhere_is_a_config_error():
    with pytest.raises(ConfigError, match=r"source\.split\.train"):
        read_split(SplitLists(train="/elsewhere", val="/data/x/val"), "/data/x", IMAGES, {})


def test_a_configured_folder_without_an_image_is_a_config_error():
    with pytest.raises(ConfigError, match=r"source\.split\.val: found no image in '/data/x/vla'"):
        read_split(SplitLists(train="/data/x/images", val="/data/x/vla"), "/data/x", IMAGES, {})
