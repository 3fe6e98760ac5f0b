"""Read the images of a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from etl.config import Config
from etl.errors import SourceError, StoreError
from etl.imaging import codec
from etl.imaging.image_file import ImageFile
from etl.imaging.wide import PixelSettings, Range
from etl.storage import store


class ChangedImageError(SourceError):
    """An image is not the one that the build has read before."""

    def __init__(self, path: str, found: str) -> None:
        super().__init__(f"{path}: {found} while the build was running; start it again")
        self.path, self._found = path, found

    def __reduce__(self) -> tuple[type[ChangedImageError], tuple[str, str]]:
        return type(self), (self.path, self._found)


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
    """Return the file of a row of the table images; ChangedImageError if its content is another one."""
    known = image["width"], image["height"], image["format"]
    try:
        file = open_image(config, image["path"], value_range, known)
        sha256 = file.sha256
    except (StoreError, OSError) as error:
        raise ChangedImageError(image["path"], f"removed or unreadable ({error})") from error
    if sha256 != image["sha256"]:
        raise ChangedImageError(image["path"], "changed")
    return file


def read_image(config: Config, image: Mapping[str, Any], value_range: Range | None, orientation: int) -> codec.Pixels:
    """Return the pixels of a row of the table images; ChangedImageError if they are not those of the ingest."""
    file = read_image_file(config, image, value_range)
    with unchanged(config, image, file):
        return file.pixels(orientation)


@contextmanager
def unchanged(config: Config, image: Mapping[str, Any], file: ImageFile) -> Iterator[None]:
    """Raise ChangedImageError if a file that the block reads from the disk changes meanwhile."""
    try:
        yield
    except codec.UnreadableImageError as error:
        raise ChangedImageError(image["path"], f"changed ({error})") from error
    if file.is_by_path:
        read_image_file(config, image, None)


def applied_orientation(image: Mapping[str, Any]) -> int:
    """Return the EXIF orientation 1..8 to apply to an image of the table images; 1 if its labels do not use it."""
    return int(image["exif_orientation"]) if image["exif_applied"] else 1
