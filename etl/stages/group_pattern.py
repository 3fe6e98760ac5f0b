"""Groups of images by a `source.group` pattern, and a pattern to suggest for the paths of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from etl.formats.folders import names_kind, without_split
from etl.ids import normal_path
from etl.pattern import Pattern

ENOUGH = 5  # groups from which no finer pattern is sought
_CANDIDATES = (
    r"^([^/]+)/",  # the first folder
    r"^(.*)/",  # all folders
    r"(\d{4}-?[01]\d-?[0-3]\d)",  # a date
    r"^(?:.*/)?([A-Za-z]+)",  # the letters that a name starts with
    r"^(?:.*/)?([^/_-]+)[_-]",  # a name up to its first _ or -
    r"^(?:.*/)?([A-Za-z]+[_-]?\d+)[_-]",  # letters and a number, such as DJI_0040
    r"^(.*)[_-][^/_-]*$",  # everything but the last part of a name
    r"^(.*?)(?:_jpe?g|_png|_bmp|_tiff?)?\.rf\.",  # the photo of Roboflow's copies
    r"^(.*)\.\w+$",  # every image
)


class GroupPattern(NamedTuple):
    """A pattern, and how many groups it makes."""

    pattern: str
    groups: int


def suggest_group(paths: Sequence[str], alike: Iterable[tuple[str, str]], least: int) -> GroupPattern | None:
    """Return a pattern that makes at least so many groups and separates no two images that look alike.

    Of several it is the one of fewest groups from ENOUGH on, else the one of most; None without any.
    """
    pairs = list(alike)
    suited = []
    for pattern in _CANDIDATES:
        group_of = find_groups(paths, pattern)
        names = set(group_of.values())
        groups = len(names)
        if len(group_of) < len(paths) or groups < least or any(map(_names_no_scene, names)):
            continue
        if all(group_of[one] == group_of[other] for one, other in pairs):
            suited.append(GroupPattern(pattern, groups))
    enough = [found for found in suited if found.groups >= ENOUGH]
    if enough:
        return min(enough, key=lambda found: found.groups)
    return max(suited, key=lambda found: found.groups, default=None)


def _names_no_scene(group: str) -> bool:
    """Return whether a group consists of folders for splits and kinds of files, such as `train/images`."""
    return all(names_kind(folder) or not without_split(folder) for folder in group.split("/"))


def find_groups(paths: Iterable[str], pattern: str) -> Mapping[str, str]:
    """Return the group that a pattern finds in each path: its first group, else all it matches; no empty text."""
    found, scene = {}, Pattern(pattern, "source.group")
    for path in paths:
        if (match := scene.search(normal_path(path))) is not None:
            group = match[1] if scene.groups and match[1] is not None else match[0]
            if group:
                found[path] = group
    return found
