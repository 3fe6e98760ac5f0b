"""Find the `kpt_shape` of YOLO labels with keypoints in the data.yaml that lies with them."""

from __future__ import annotations

from collections.abc import Iterator
from glob import escape

from etl.config import Config
from etl.formats import categories
from etl.sources.class_names import folders_above
from etl.storage import store
from etl.storage.listing import is_special

_PATTERNS = ("*.yaml", "*.yml")


def find_kpt_shape(config: Config) -> tuple[int, int] | None:
    """Return the number of keypoints and of the numbers of each; None if no YAML file declares them.

    Read are the file of `source.categories`, then those in the folders of images and labels and in the folders above.
    """
    if config.source.format != "yolo":
        return None
    for uri in _yaml_files(config):
        if not is_special(uri) and (shape := categories.read_kpt_shape(store.read_bytes(uri), uri)) is not None:
            return shape
    return None


def _yaml_files(config: Config) -> Iterator[str]:
    source = config.source
    if isinstance(source.categories, str) and store.exists(source.categories):
        yield source.categories
    own = [place.rstrip("/") for place in (source.images, *source.annotations)]
    for folder in dict.fromkeys([*own, *folders_above(config)]):
        yield from (uri for pattern in _PATTERNS for uri in store.glob(f"{escape(folder)}/{pattern}"))
