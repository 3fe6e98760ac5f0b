from __future__ import annotations

import json
from typing import Any

import pytest

from etl.formats.companions import is_companion, is_image_list
from etl.formats.recognise import HEAD_BYTES, recognise

COCO_IMAGE = {"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}
DOCUMENTS: dict[str, Any] = {
    "COCO JSON": {"info": {}, "images": [COCO_IMAGE], "annotations": [], "categories": []},
    "labelme JSON": {"version": "5.4", "shapes": [{"label": "car", "points": []}], "imagePath": "a.jpg"},
    "VIA project JSON": {"_via_settings": {}, "_via_img_metadata": {}},
    "Label Studio JSON": [{"id": 1, "annotations": [{"result": [{"from_name": "l", "to_name": "i"}]}]}],
    "Supervisely JSON": {"size": {}, "objects": [{"classTitle": "car", "points": {"exterior": []}}]},
    "xView GeoJSON": {"type": "FeatureCollection", "features": [{"properties": {"bounds_imcoords": "1,2,3,4"}}]},
    "GeoJSON": {"type": "FeatureCollection", "features": [{"geometry": {"type": "Point"}}]},
    "VoTT JSON": {"asset": {"name": "a.jpg"}, "regions": []},
    "CreateML JSON": [{"image": "a.jpg", "annotations": [{"label": "car", "coordinates": {"x": 1}}]}],
    "BDD100K or Scalabel JSON": [{"name": "a.jpg", "labels": [{"category": "car", "box2d": {"x1": 1}}]}],
    "Cityscapes JSON": {"imgHeight": 1, "imgWidth": 2, "objects": []},
    "COCO results, detections of a model": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}],
    "COCO captions without boxes": {"images": [COCO_IMAGE], "annotations": [{"image_id": 1, "caption": "a car"}]},
    "COCO panoptic JSON": {"images": [COCO_IMAGE], "annotations": [{"image_id": 1, "segments_info": []}]},
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_is_recognised_by_its_keys(name: str) -> None:
    look = recognise(json.dumps(DOCUMENTS[name]).encode())
    assert look is not None
    assert look.name == name


def test_a_coco_file_is_recognised_by_its_beginning() -> None:
    many = {"images": [COCO_IMAGE] * 3000, "annotations": []}
    boxes = {"annotations": [{"id": n, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]} for n in range(3000)]}
    for document in (many, boxes):
        head = json.dumps(document).encode()[:HEAD_BYTES]
        assert len(head) == HEAD_BYTES
        look = recognise(head)
        assert look is not None
        assert look.format == "coco"


@pytest.mark.parametrize(
    ("text", "name", "format"),
    [
        ("<?xml version='1.0'?>\n<annotation><object/></annotation>", "Pascal VOC XML", "voc"),
        ("<!-- <annotations> --><annotation><filename>a.jpg</filename></annotation>", "Pascal VOC XML", "voc"),
        ("<annotation><object><robndbox/></object></annotation>", "roLabelImg XML", "voc"),
        ("<annotations><meta/><image id='0'><box/></image></annotations>", "CVAT for images 1.1 XML", None),
        ("<annotations><meta/><track id='0'/></annotations>", "CVAT for video 1.1 XML", None),
        ("<dataset><images><image file='a.jpg'/></images></dataset>", "dlib imglab XML", None),
    ],
)
def test_xml_is_recognised_by_its_elements(text: str, name: str, format: str | None) -> None:
    look = recognise(text.encode())
    assert look is not None
    assert (look.name, look.format) == (name, format)


@pytest.mark.parametrize(
    ("text", "name", "format"),
    [
        ("0 0.5 0.5 0.1 0.1\n1 0.2 0.2 0.1 0.1\n", "YOLO boxes", "yolo"),
        ("0 0.5 0.5 0.1 0.1 0.93\n", "YOLO boxes with a confidence", "yolo"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n", "YOLO oriented boxes or outlines", "yolo"),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2\n", "YOLO outlines or poses", "yolo"),
        ("0 120 80 31 22\n", "rows of a class and a box in pixels", "yolo"),
        ("684,8,273,116,0,0,0,0,\n", "VisDrone-DET", "visdrone"),
        ("1,0,593,43,174,190,0,0,0,0\n", "VisDrone-VID or MOT, rows of frame, id, x, y, w, h", None),
        ("1,1,912,484,97,109,0,7,1\n", "UAVDT or MOT, rows of frame, id, x, y, w, h", None),
        ("1, -1, 912, 484, 97, 109, 0.9, -1, -1, -1\n", "VisDrone-VID or MOT, rows of frame, id, x, y, w, h", None),
        ("imagesource:GoogleEarth\ngsd:0.1\n1 2 3 2 3 4 1 4 small-vehicle 0\n", "DOTA", "dota"),
        ("Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.7 -1.59\n", "KITTI", None),
        ("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n", "Open Images CSV", None),
        ('"image","xmin","ymin","xmax","ymax","label"\n', "VoTT CSV", None),
        ("filename,width,height,class,xmin,ymin,xmax,ymax\n", "TensorFlow object detection CSV", None),
        ("a.jpg,1,2,3,4,car\n", "CSV with a box a row", None),
        ("a.jpg 1,2,3,4,0 5,6,7,8,1\n", "a list of images with their boxes, as keras-yolo3 reads it", None),
    ],
)
def test_text_is_recognised_by_its_rows(text: str, name: str, format: str | None) -> None:
    look = recognise(text.encode())
    assert look is not None
    assert (look.name, look.format) == (name, format)
    assert (look.advice == f"set source.format: {format}") == (format is not None)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"car\nbus\n", b"images/a.jpg\nimages/b.jpg\n", b"a\nb\n", b"\xff\xd8\xff\xe0", b"{}", b'{"year": 2024}',
        b"<svg><path/></svg>", b"The boxes were drawn by hand.\n", b'{"categories": [{"id": 0, "name": "car"}]}',
        b"not json {", b"<", b"1 2\n3 4\n",
    ],
)  # fmt: skip
def test_what_holds_no_boxes_is_not_recognised(data: bytes) -> None:
    assert recognise(data) is None


def test_a_head_cut_within_a_character_is_recognised() -> None:
    text = json.dumps(DOCUMENTS["labelme JSON"], ensure_ascii=False)[:-1] + ', "note": "é'
    assert recognise(text.encode()[:-1]) is not None


@pytest.mark.parametrize(
    "path",
    ["README", "data/readme.txt", "README.roboflow.txt", "LICENSE.md", "classes.txt", "x/data.yaml", "notes.json",
     "labels.cache", "obj.names", "train.py", "labels.txt"],
)  # fmt: skip
def test_companions_are_known_by_name(path: str) -> None:
    assert is_companion(path)


@pytest.mark.parametrize("path", ["labels.json", "a.txt", "annotations.xml", "labels.csv", "x.mat", "reading.txt"])
def test_what_may_hold_labels_is_no_companion(path: str) -> None:
    assert not is_companion(path)


def test_lists_of_images_are_told_from_labels() -> None:
    assert is_image_list("x.txt", b"images/a.jpg\nimages/b c.PNG\n")
    assert is_image_list("ImageSets/Main/car_train.txt", b"a  1\nb -1\n")
    assert is_image_list("train.txt", b"a\nb\n")
    assert not is_image_list("train.txt", b"0 0.5 0.5 0.1 0.1\n")
    assert not is_image_list("x.txt", b"car\n")
    assert not is_image_list("x.txt", b"")
