"""What is looked at: image files, folders, patterns, URIs and videos, as one stream of frames read ahead."""

from __future__ import annotations

import glob
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar, cast

import cv2
import numpy as np

from etl.errors import ConfigError
from etl.imaging import codec
from etl.imaging.codec import Pixels
from etl.imaging.image_file import ImageFile
from etl.storage import store

VIDEOS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})
_MEGAPIXELS = 400.0  # of an image; larger ones are refused before they fill the memory
_AHEAD = 2  # frames read while others are looked at
_RATE = 25.0  # frames a second of a video that does not say
_WHOLE = 0.95  # share of the promised frames from which on a video counts as whole: headers are not exact

_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture to look at, or why it cannot be: `name` as it was given, of a video with `#frame` from 0."""

    name: str
    stem: str
    found: Pixels | codec.UnreadableImageError
    video: str | None = None
    rate: float = _RATE  # frames a second of the video


def listed(paths: Sequence[str]) -> list[str]:
    """Return the files that paths, folders, patterns and URIs stand for; ConfigError for what is not there."""
    files: list[str] = []
    known = codec.EXTENSIONS | VIDEOS
    expected = "image files, videos, folders, patterns or URIs of them"
    for path in paths:
        local = store.local_path(path)
        if local is not None and local.is_file():
            files.append(path)
            continue
        if local is not None and local.is_dir():
            found = [str(file) for file in sorted(local.iterdir()) if file.suffix.lower() in known]
        elif glob.has_magic(path):
            found = [uri for uri in store.glob(path) if _suffix(uri) in known]
        elif local is None and store.exists(path):
            folder = store.listing(path) if PurePosixPath(path).suffix.lower() not in known else []
            within = [
                store.join(path, file.path) for file in folder if PurePosixPath(file.path).suffix.lower() in known
            ]
            found = within or [path]
        else:
            raise ConfigError("speck predict", "IMAGE", f"{path}, which is not there", expected)
        if not found:
            raise ConfigError("speck predict", "IMAGE", f"{path}, where no image or video is", expected)
        files += found
    return files


def frames(files: Iterable[str]) -> Iterator[Frame]:
    """Yield every image, and every frame of each video, read while the ones before are looked at."""
    return ahead(frame for file in files for frame in _of(file))


def count(files: Iterable[str]) -> int:
    """Return how many frames there are to be, as far as the videos say."""
    return sum(_length(file) if _suffix(file) in VIDEOS else 1 for file in files)


def ahead(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items, made in a thread that is a few of them ahead; what it raises is raised here."""
    ready: queue.Queue[tuple[str, object]] = queue.Queue(_AHEAD)
    over = threading.Event()

    def put(kind: str, value: object) -> None:
        while not over.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return
            except queue.Full:
                continue

    def run() -> None:
        try:
            for item in items:
                put("item", item)
                if over.is_set():
                    return
            put("end", None)
        except BaseException as error:  # noqa: BLE001 - handed on to who waits
            put("error", error)

    threading.Thread(target=run, daemon=True).start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise cast(BaseException, value)
            yield cast(_Item, value)
    finally:
        over.set()


def read(uri: str) -> Pixels:
    """Return an image [H, W, 3] RGB, upright; UnreadableImageError with the reason when it is none."""
    try:
        file = ImageFile(store.content(uri))
    except OSError as error:
        raise codec.UnreadableImageError("unreadable_file", error.strerror, "a file that can be read") from error
    return file.pixels(file.header(_MEGAPIXELS).orientation)


def _of(file: str) -> Iterator[Frame]:
    path = PurePosixPath(file)
    if path.suffix.lower() not in VIDEOS:
        try:
            yield Frame(file, path.stem, read(file))
        except codec.UnreadableImageError as error:
            yield Frame(file, path.stem, error)
        return
    video = cv2.VideoCapture(file)
    rate, number, promised = video.get(cv2.CAP_PROP_FPS) or _RATE, 0, _promised(video)
    try:
        while (step := video.read())[0]:
            pixels = np.asarray(cv2.cvtColor(step[1], cv2.COLOR_BGR2RGB), dtype=np.uint8)
            yield Frame(f"{file}#{number}", path.stem, pixels, file, rate)
            number += 1
    finally:
        video.release()
    if number < promised * _WHOLE:
        found, expected = f"{number} of {promised} frames", "a whole video that OpenCV decodes, on a local disk"
        yield Frame(file, path.stem, codec.UnreadableImageError("broken_video", found, expected))


def _length(file: str) -> int:
    """Return the frames that a video's header promises, at least 1."""
    video = cv2.VideoCapture(file)
    try:
        return _promised(video)
    finally:
        video.release()


def _promised(video: cv2.VideoCapture) -> int:
    return max(1, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


class Film:
    """An MP4 that is written frame by frame."""

    def __init__(self, path: Path, rate: float, size_wh: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, size_wh)
        self.path, self._size = path, size_wh

    def add(self, image: Pixels) -> None:
        """Append a frame [H, W, 3] RGB of the film's size."""
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Finish the file."""
        self._writer.release()
