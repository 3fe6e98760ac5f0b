"""Name the label format that a file looks like, by its first bytes, whether or not it is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from etl.formats.text import decode, lines, numbers

HEAD_BYTES = 65_536  # of a file, from which its format is recognised
_LINES = 50  # of a text file that are looked at
_KEY = re.compile(r'"([^"\\]{1,80})"\s*:')
_TAG = re.compile(r"<([A-Za-z_][\w.-]*)")
_SEQUENCE = "one file holds a whole sequence"
_CONVERT = "convert it to COCO, or read it with a function of your own (`source.format: package.module:function`)"


class Look(NamedTuple):
    """The format that a file looks like."""

    name: str
    format: str | None = None  # the `source.format` that reads it
    cure: str = _CONVERT  # what to do if there is none
    is_label: bool = True  # false for files without boxes of objects

    def __str__(self) -> str:
        return self.name

    @property
    def advice(self) -> str:
        """What to do to have such a file read."""
        return f"set source.format: {self.format}" if self.format is not None else self.cure


ARRAY = Look("NumPy array")
_COCO = Look("COCO JSON", "coco")
_VOC = Look("Pascal VOC XML", "voc")
_CVAT = "export the task from CVAT as COCO 1.0, PASCAL VOC 1.1 or YOLO 1.1"
_LABEL_STUDIO = "export the project from Label Studio as COCO, YOLO or Pascal VOC XML"
_VIA = "export the project from VIA as COCO"


class _Json(NamedTuple):
    """The beginning of a JSON file: its keys at any depth, and its text."""

    keys: frozenset[str]
    text: str
    is_list: bool

    def has(self, *keys: str) -> bool:
        return self.keys.issuperset(keys)

    def has_any(self, *keys: str) -> bool:
        return not self.keys.isdisjoint(keys)


_JSON_LOOKS: tuple[tuple[Look, Callable[[_Json], bool]], ...] = (
    (Look("COCO panoptic JSON"), lambda json: json.has("segments_info")),
    (
        Look("COCO results, detections of a model", is_label=False),
        lambda json: json.is_list and json.has("image_id", "bbox", "score"),
    ),
    (
        Look("COCO captions without boxes", is_label=False),
        lambda json: json.has("image_id", "caption") and not json.has("bbox"),
    ),
    (_COCO, lambda json: not json.is_list and json.has("images", "annotations")),
    (_COCO, lambda json: not json.is_list and json.has("annotations", "image_id", "bbox")),
    (_COCO, lambda json: not json.is_list and json.has("images", "id") and json.has_any("file_name", "coco_url")),
    (
        Look("labelme JSON", None, "export it as COCO (labelme2coco) or YOLO (labelme2yolo)"),
        lambda json: json.has("shapes") and json.has_any("imagePath", "imageData", "shape_type"),
    ),
    (
        Look("VIA project JSON", None, _VIA),
        lambda json: json.has_any("_via_img_metadata", "_via_settings", "shape_attributes"),
    ),
    (
        Look("Supervisely JSON", None, "export the project from Supervisely as COCO, YOLO or Pascal VOC"),
        lambda json: json.has("objects") and json.has_any("classTitle", "geometryType"),
    ),
    (
        Look("Label Studio JSON", None, _LABEL_STUDIO),
        lambda json: json.has_any("rectanglelabels", "polygonlabels") or json.has("from_name", "to_name"),
    ),
    (Look("xView GeoJSON"), lambda json: json.has("features") and json.has_any("bounds_imcoords", "type_id")),
    (Look("GeoJSON"), lambda json: json.has("features", "geometry")),
    (Look("VoTT JSON", None, "export the project from VoTT as Pascal VOC"), lambda json: json.has("asset", "regions")),
    (Look("CreateML JSON"), lambda json: json.has("annotations", "coordinates")),
    (Look("BDD100K or Scalabel JSON"), lambda json: json.has("labels", "box2d")),
    (Look("Datumaro JSON"), lambda json: json.has("items", "categories") and not json.has("image_id")),
    (Look("Cityscapes JSON"), lambda json: json.has("imgHeight", "imgWidth", "objects")),
    (Look("Labelbox JSON"), lambda json: json.has_any("Labeled Data", "data_row")),
    (Look("SageMaker manifest"), lambda json: json.has("source-ref")),
    (Look("Hugging Face image folder metadata"), lambda json: json.has("file_name", "objects")),
)

_XML_LOOKS: tuple[tuple[str, str, Look], ...] = (  # root element, text within, look
    ("annotations", "<track", Look("CVAT for video 1.1 XML", None, _CVAT)),
    ("annotations", "<image", Look("CVAT for images 1.1 XML", None, _CVAT)),
    ("annotations", "<meta", Look("CVAT XML", None, _CVAT)),
    ("annotation", "<robndbox", Look("roLabelImg XML", "voc")),
    ("annotation", "<pt>", Look("LabelMe XML with polygons")),
    ("annotation", "<object", _VOC),
    ("annotation", "<filename", _VOC),
    ("annotation", "<size", _VOC),
    ("annotation", "", _VOC),
    ("dataset", "<images", Look("dlib imglab XML")),
    ("sequence", "<frame", Look("UA-DETRAC XML", None, f"{_SEQUENCE}; {_CONVERT}")),
    ("HRSC_Image", "", Look("HRSC2016 XML")),
    ("Annotations", "<Annotation", Look("Aperio XML")),
    ("tagset", "<image", Look("ICDAR XML")),
)

_CSV_LOOKS: tuple[tuple[Look, frozenset[str]], ...] = (  # look, and what its header holds in lower case
    (Look("Open Images CSV"), frozenset({"imageid", "labelname", "xmin"})),
    (Look("VIA CSV", None, _VIA), frozenset({"region_shape_attributes"})),
    (Look("VoTT CSV", None, "export the project from VoTT as Pascal VOC"), frozenset({"image", "xmin", "label"})),
    (Look("TensorFlow object detection CSV"), frozenset({"filename", "class", "xmin"})),
    (Look("DeepForest CSV"), frozenset({"image_path", "xmin"})),
    (Look("CSV with a box a row"), frozenset({"xmin", "ymin", "xmax", "ymax"})),
    (Look("CSV with a box a row"), frozenset({"x1", "y1", "x2", "y2"})),
    (Look("CSV with a box a row"), frozenset({"x", "y", "width", "height"})),
    (Look("CSV with a box a row"), frozenset({"x", "y", "w", "h"})),
    (Look("CSV with a box a row"), frozenset({"bbox"})),
)
_STARTS = (
    (b"MATLAB 5.0", Look("MATLAB file")),
    (b"\x89HDF\r\n", Look("HDF5 file")),
    (b"\x93NUMPY", ARRAY),
    (b"PAR1", Look("Parquet file")),
    (b"SQLite format 3", Look("SQLite database")),
)


def recognise(head: bytes) -> Look | None:
    """Return the format that a file with these first bytes looks like; None if it looks like no label file."""
    for start, look in _STARTS:
        if head.startswith(start):
            return look
    text = decode_start(head)
    if text is None or not (start_text := text.lstrip()):
        return None
    if start_text[0] in "{[":
        return _json(start_text)
    if start_text[0] == "<":
        return _xml(start_text)
    rows = [line for _, line in lines(text)][:_LINES]
    if len(head) == HEAD_BYTES and len(rows) > 1:
        rows.pop()  # it may be cut off
    return _table(rows[0]) or _rows(rows)


def decode_start(head: bytes) -> str | None:
    """Return the text of a beginning of a file, which may end within a character."""
    return next((text for cut in range(4) if (text := decode(head[: len(head) - cut])) is not None), None)


def _json(text: str) -> Look | None:
    document = _Json(frozenset(_KEY.findall(text)), text, text[0] == "[")
    return next((look for look, fits in _JSON_LOOKS if fits(document)), None)


def _xml(text: str) -> Look | None:
    first, *parts = text.split("<!--")
    match = _TAG.search(first + "".join(part.partition("-->")[2] for part in parts))
    if match is None:
        return None
    return next((look for root, within, look in _XML_LOOKS if match[1] == root and within in text), None)


def _table(header: str) -> Look | None:
    """Return the look of a CSV file by its first line."""
    columns = {word.strip(" \"'").lower() for word in re.split(r"[,;\t]", header)}
    return next((look for look, needed in _CSV_LOOKS if columns >= needed), None)


def _rows(rows: Sequence[str]) -> Look | None:
    """Return the look of a text file whose rows are objects; of a mix, that of most rows."""
    looks = [look for row in rows if (look := _row(row)) is not None]
    if 2 * len(looks) <= len(rows):
        return None
    return max(looks, key=lambda look: (looks.count(look), look.name))


def _row(row: str) -> Look | None:
    words = row.split(",") if "," in row and " " not in row.strip(", ").replace(", ", ",") else row.split()
    words = [word.strip(" ,") for word in words]
    words = words[:-1] if words[-1] == "" else words
    values = numbers(words)
    if values is not None:
        return _comma_row(values) if "," in row else _blank_row(values)
    if re.match(r"(imagesource|gsd)\s*:", row, re.IGNORECASE):
        return Look("DOTA", "dota")
    if len(words) in (9, 10, 11) and "," not in row and numbers(words[:8]) is not None:
        return Look("DOTA", "dota")
    if len(words) in (15, 16) and numbers(words[1:]) is not None:
        return Look("KITTI")
    if "," in row and len(words) >= 6 and numbers(words[:2]) is not None:
        return Look("DarkLabel", None, f"{_SEQUENCE}; export it as Pascal VOC or YOLO")
    if "," in row and len(words) >= 6 and numbers(words[1:5]) is not None:
        return Look("CSV with a box a row")
    if len(words) > 1 and all(word.count(",") == 4 and numbers(word.split(",")) for word in words[1:]):
        return Look("a list of images with their boxes, as keras-yolo3 reads it")
    return None


def _comma_row(values: Sequence[float]) -> Look | None:
    if len(values) == 8:
        return Look("VisDrone-DET", "visdrone")
    if len(values) in (6, 7, 9, 10) and values[0] >= 0 and values[0].is_integer() and values[1].is_integer():
        name = "VisDrone-VID or MOT" if len(values) == 10 else "UAVDT or MOT" if len(values) == 9 else "MOT"
        return Look(f"{name}, rows of frame, id, x, y, w, h", None, f"{_SEQUENCE}; {_CONVERT}")
    return None


def _blank_row(values: Sequence[float]) -> Look | None:
    first, *places = values
    if not first.is_integer() or len(values) < 5 or min(places) < -1:
        return None
    if max(places[:4]) > 2:
        if len(values) in (6, 7, 9, 10) and places[0].is_integer():
            return Look("rows of frame, id, x, y, w, h", None, f"{_SEQUENCE}; {_CONVERT}")
        return Look("rows of a class and a box in pixels", "yolo") if len(values) == 5 else None
    kinds = {5: "boxes", 6: "boxes with a confidence", 9: "oriented boxes or outlines"}
    kind = kinds.get(len(values), "outlines or poses")
    return Look(f"YOLO {kind}", "yolo")
