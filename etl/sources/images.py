"""Read the images of a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etl.config import Config
from etl.errors import SourceError
from etl.imaging import codec
from etl.imaging.image_file import ImageFile
from etl.imaging.wide import PixelSettings, Range
from etl.storage import store


def pixel_settings(config: Config, value_range: Range | None) -> PixelSettings:
    """Return how the values of a source's images become pixels; the range is that of the plan."""
    return PixelSettings(value_range, config.source.bands)


def open_image(
    config: Config, path: str, value_range: Range | None, known: tuple[int, int, str] | None = None
) -> ImageFile:
    """Return the file of a source image; `known` are its width, height and format as stored."""
    return image_file(config, path, pixel_settings(config, value_range), known)


def image_file(
    config: Config, path: str, settings: PixelSettings, known: tuple[int, int, str] | None = None
) -> ImageFile:
    """Return the file of a source image, whose values become pixels by these settings."""
    return ImageFile(store.read_or_path(store.join(config.source.images, path)), known, settings)


def read_image_file(config: Config, image: Mapping[str, Any], value_range: Range | None) -> ImageFile:
    """Return the file of a row of the table images; SourceError if its content is not the one that was ingested."""
    known = image["width"], image["height"], image["format"]
    file = open_image(config, image["path"], value_range, known)
    if file.sha256 != image["sha256"]:
        raise SourceError(f"{image['path']}: changed while the build was running; start it again")
    return file


def applied_orientation(image: Mapping[str, Any]) -> int:
    """Return the EXIF orientation 1..8 to apply to an image of the table images; 1 if its labels do not use it."""
    return int(image["exif_orientation"]) if image["exif_applied"] else 1


def read_image(config: Config, path: str, orientation: int, settings: PixelSettings) -> codec.Pixels:
    """Return a source image uint8 [H, W, 3] RGB with an EXIF orientation applied."""
    return image_file(config, path, settings).pixels(orientation)
