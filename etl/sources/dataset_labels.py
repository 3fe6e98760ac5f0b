"""Read label files that list their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etl.formats.coco import NO_IMAGE
from etl.formats.labels import ImageLabels
from etl.schema import reject, reject_bad_box


def read_datasets(
    reader: Any, contents: Mapping[str, bytes], images: Sequence[str]
) -> tuple[dict[str, tuple[ImageLabels, ...]], list[str] | None, list[dict[str, str]]]:
    """Return the labels by listed image, the declared class names, and rejects."""
    files = dict(contents)
    listed: dict[str, tuple[ImageLabels, ...]] = {}
    rejects = []
    for path, written, labels in reader.read_dataset(files, images):
        if written == NO_IMAGE:  # entries that belong to no image at all
            rejects += [reject_bad_box(labels.file, bad.reason, bad.found, bad.expected) for bad in labels.bad]
        elif path is None:
            rejects.append(
                reject("image", f"{labels.file}: {written}", "missing_image", "no such file", "an image file")
            )
        else:
            listed[path] = (*listed.get(path, ()), labels)
    rejects += [
        reject("file", path, "unlisted_image", "in no label file", "an entry that lists the image")
        for path in images
        if path not in listed
    ]
    declared = reader.categories(files) if hasattr(reader, "categories") else None
    return listed, declared, rejects
