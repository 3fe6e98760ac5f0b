"""Know the files that accompany images and labels without holding any box: documents, class names, lists of images."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from etl.formats.recognise import decode_start
from etl.formats.text import lines

_LINES = 50  # of a list that are looked at
_DOCUMENTS = frozenset(
    {
        ".md", ".rst", ".pdf", ".html", ".htm", ".doc", ".docx", ".py", ".ipynb", ".sh", ".bat", ".cfg", ".ini",
        ".toml", ".log", ".cache", ".names", ".data", ".yaml", ".yml", ".pbtxt", ".pt", ".pth", ".onnx", ".weights",
        ".lock", ".labels", ".bib", ".whl", ".dvc",
    }
)  # fmt: skip
_COMPANIONS = re.compile(
    r"(readme|licen[sc]e|citation|changelog|copying|authors)\b.*|"
    r"(predefined_)?(class(es)?|names|category|categories|obj|label_?map|class_names|meta|notes|dataset_infos?|"
    r"obj_class_to_machine_color)\.(txt|json|names|data|csv)|labels\.txt|"
    r".*\.cache\.npy|thumbs\.db|desktop\.ini|manifest\.txt|_darknet\.labels"
)
_LISTED = re.compile(r"[^,;]*\.(jpe?g|png|bmp|tiff?|webp|heic|avif)", re.IGNORECASE)
_SET_NAMES = re.compile(
    r"(train|val|valid|validation|test|trainval|all|images?)([_-].*)?\.(txt|csv|lst)", re.IGNORECASE
)


def is_companion(path: str) -> bool:
    """Return whether a file of this name accompanies labels without holding any: a README, class names, code."""
    name = PurePosixPath(path.lower()).name
    return PurePosixPath(name).suffix in _DOCUMENTS or _COMPANIONS.fullmatch(name) is not None


def is_image_list(path: str, head: bytes) -> bool:
    """Return whether a text file lists images: a path a line, or a stem a line if it is named after a split."""
    text = decode_start(head)
    rows = [line for _, line in lines(text)][:_LINES] if text is not None else []
    if not rows:
        return False
    if all(_LISTED.fullmatch(row) for row in rows):
        return True
    is_set = "imagesets" in path.lower() or _SET_NAMES.fullmatch(PurePosixPath(path).name) is not None
    return is_set and all(len(row.split()) <= 2 and "," not in row for row in rows)
