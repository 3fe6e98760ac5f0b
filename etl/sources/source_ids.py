"""The ids that a source's own COCO files give their images and categories, for detections that use these ids."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etl import formats
from etl.config import Config
from etl.errors import SpeckError
from etl.formats import coco
from etl.formats.coco_categories import read_categories
from etl.formats.coco_content import Content, Skipped, read_content
from etl.formats.coco_numbers import same_id
from etl.formats.image_index import ImageIndex
from etl.formats.image_names import NameRules, match_names
from etl.sources.class_names import configured_names
from etl.sources.label_files import LabelContents, find_label_files, list_source_folder

log = logging.getLogger("speck")

Id = int | str


@dataclass(frozen=True)
class FileIds:
    """The ids of one COCO file, as `same_id` gives them; an id of several images or categories is left out."""

    file: str
    images: Mapping[Id, str | None]  # path of the listed image, None for one that is not listed
    categories: Mapping[Id, str]  # names


def read_source_ids(config: Config, images: Sequence[str]) -> list[FileIds]:
    """Return the ids in the label files of a COCO source; files that cannot be read are skipped, as are other formats.

    `images` are the listed images.
    """
    if formats.get_reader(config.source.format, config.name) is not coco:
        return []
    try:
        folder = list_source_folder(config, config.source.images)
        contents = LabelContents(find_label_files(config, coco.SUFFIX, folder).uris)
        names = configured_names(config)
    except SpeckError as error:
        log.warning("the ids of the source's label files are unknown: %s", error)
        return []
    index, rules = ImageIndex(images), NameRules(config.source.match)
    found = []
    for file in contents:
        try:
            content = read_content(file, contents[file])
            if not isinstance(content, Skipped):
                found.append(_ids_of(file, content, index, rules, names))
        except SpeckError as error:
            log.warning("the ids of a label file of the source are unknown: %s", error)
    return found


def join_images(files: Sequence[FileIds]) -> Mapping[Id, str | None] | None:
    """Return the image ids of all files, None if one id means different images."""
    images: dict[Id, str | None] = {}
    for file in files:
        if any(images.setdefault(key, path) != path for key, path in file.images.items()):
            return None
    return images


def _ids_of(file: str, content: Content, index: ImageIndex, rules: NameRules, names: Sequence[str] | None) -> FileIds:
    paths = match_names(file, (row.name for row in content.images), index, rules).found
    images: dict[Id, str | None] = {}
    repeated = set[Id]()
    for row in content.images:
        key, path = same_id(row.key), paths.get(row.name)
        if images.setdefault(key, path) != path:
            repeated.add(key)
    declared = read_categories(file, content.categories, content.annotations.category_ids, names)
    categories = {same_id(key): name for key, name in declared.names.items()}
    return FileIds(file, {key: path for key, path in images.items() if key not in repeated}, categories)
