"""Assign every image to a split under a grouping and a salt, and find what must be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from etl.plan import Cut, Grouping
from etl.schema import SPLITS
from etl.stages import leakage
from etl.stages.leakage import Looks
from etl.stages.splitting.blocks import GUARDED, Codes, Shares, block_codes, block_names
from etl.stages.splitting.candidates import Matrix, Measures, Video, codes_of
from etl.stages.splitting.draws import draws, keys_of
from etl.stages.splitting.frame_names import FrameName
from etl.stages.splitting.hashes import Mask
from etl.stages.splitting.report import GroupKind


@dataclass(frozen=True, eq=False)
class Images:
    """What the split knows of the images."""

    names: Sequence[FrameName]
    fixed: Sequence[str | None]  # the group that `source.group` gives
    looks: Looks
    measures: Measures
    fixed_kind: GroupKind = "pattern"

    @property
    def sequences(self) -> list[str]:
        """The sequence of each image."""
        return [name.sequence for name in self.names]

    @property
    def numbers(self) -> list[int | None]:
        """The number of each image in its sequence."""
        return [name.number for name in self.names]

    def units(self, photos: Sequence[str]) -> list[str]:
        """Return the photo or video of each image, given the numbered names that are photos."""
        separate = set(photos)
        return [name.photo if name.sequence in separate else name.sequence for name in self.names]

    def videos(self, cuts: Mapping[str, Cut]) -> dict[str, NDArray[np.intp]]:
        """Return the positions of the frames of every cut video, by name."""
        places: dict[str, list[int]] = {name: [] for name in sorted(cuts)}
        for place, (name, fixed) in enumerate(zip(self.names, self.fixed, strict=True)):
            if fixed is None and name.number is not None and name.sequence in places:
                places[name.sequence].append(place)
        return {name: np.array(found, np.intp) for name, found in places.items()}

    def video(self, places: NDArray[np.intp]) -> Video:
        """Return the frames of a cut video and what they hold."""
        frames = np.array([self.names[place].number for place in places.tolist()], np.int64)
        return Video(frames, self.measures.matrix[places])


@dataclass(frozen=True, eq=False)
class Assignment:
    """The split and group of every image, before anything is left out."""

    codes: Codes
    groups: list[str]
    kinds: dict[str, GroupKind]
    looks: Looks  # with the cut videos


class Groups:
    """The images grouped: whole groups, which a draw assigns, and cut videos."""

    def __init__(self, images: Images, grouping: Grouping) -> None:
        units = images.units(grouping.photos)
        self.names = [
            fixed if fixed is not None else grouping.links.get(unit, unit)
            for fixed, unit in zip(images.fixed, units, strict=True)
        ]
        unique, self.owner = np.unique(np.array(self.names, dtype=object), return_inverse=True)
        self.unique: list[str] = unique.tolist()
        self.keys = keys_of(self.unique)
        self.grouping, self.places = grouping, images.videos(grouping.cuts)
        self.videos = {name: images.video(places) for name, places in self.places.items()}
        cut = np.full(len(self.names), -1)
        for number, places in enumerate(self.places.values()):
            cut[places] = number
        self.images, self.looks = images, replace(images.looks, cut=cut)

    def codes(self, salt: int, shares: Shares) -> Codes:
        """Return the split of each image: of its group, by a draw, or of its block."""
        codes = codes_of(draws(self.keys, salt), shares)[self.owner].astype(np.int64)
        for name, places in self.places.items():
            codes[places] = block_codes(self.videos[name].frames, name, self.grouping.cuts[name], salt, shares)
        return codes


def assign(images: Images, grouping: Grouping, salt: int, shares: Shares) -> Assignment:
    """Return split and group of each image."""
    grouped = Groups(images, grouping)
    codes, groups, photos = grouped.codes(salt, shares), [*grouped.names], set(grouping.photos)
    kinds: dict[str, GroupKind] = {}
    for group, fixed, name in zip(groups, images.fixed, images.names, strict=True):
        is_photo = name.number is None or name.sequence in photos
        kinds[group] = images.fixed_kind if fixed is not None else "photo" if is_photo else "video"
    for video, places in grouped.places.items():
        frames = grouped.videos[video].frames
        blocks = block_names(frames, video, grouping.cuts[video], salt, codes[places])
        for place, block in zip(places.tolist(), blocks, strict=True):
            groups[place] = block
            kinds[block] = "cut"
    return Assignment(codes, groups, kinds, grouped.looks)


@dataclass(frozen=True, eq=False)
class Remainder:
    """What is left of an assignment: rules by which images are left out, and leaks that stay."""

    rules: dict[int, str]  # position of an image -> ledger rule
    near_duplicates: bool  # near-duplicates of train images are left out
    leaks: Mask  # near-duplicates of train images that stay
    alike: dict[str, Mask]  # val and test frames like a train frame of their cut video, where these stay

    def codes(self, codes: Codes) -> Codes:
        """Return the codes with those that are left out as GUARDED."""
        left = codes.copy()
        left[[*self.rules]] = GUARDED
        return left


def leave_out(
    images: Images,
    codes: Codes,
    looks: Looks,
    grouping: Grouping,
    *,
    near_duplicates: bool | None = None,
    pinned: bool = False,
    unusable: Mapping[int, str] | None = None,
) -> Remainder:
    """Return what is left out of an assignment: guard bands, duplicates, near-duplicates and `unusable` images.

    Duplicates are val and test images that repeat a train image, near-duplicates those that look like one. These stay
    as leaks if they are more than NEAR_SHARE of a split, unless `near_duplicates` is pinned. Those within a cut video
    stay if its cut says so, for a new plan if they are more than that share of its blocks.
    """
    guarded = codes == GUARDED
    if images.fixed_kind == "every":
        guarded |= leakage.guard_frames(images.sequences, images.numbers, codes)
    rules = dict.fromkeys(np.flatnonzero(guarded).tolist(), "frame_guard")
    rules |= dict.fromkeys(np.flatnonzero(leakage.duplicates(looks, codes)).tolist(), "duplicate_of_train")
    rules |= unusable or {}
    codes = codes.copy()
    codes[[*rules]] = GUARDED
    near = leakage.near_duplicates(looks, codes, grouping.near)
    drop = near_duplicates
    if drop is None:
        drop = leakage.largest_share(near, codes) <= leakage.NEAR_SHARE
    within, alike = np.zeros_like(near), {}
    for number, name in enumerate(sorted(grouping.cuts)):
        found = leakage.near_duplicates_in_cut(looks, codes, number, grouping.near)
        share = leakage.largest_share(found, codes, looks.cut == number)
        if not grouping.cuts[name].near_duplicates if pinned else share > leakage.NEAR_SHARE:
            alike[name] = found
        else:
            within |= found
    dropped = (near & drop) | within
    rules |= dict.fromkeys(np.flatnonzero(dropped).tolist(), "near_duplicate_of_train")
    return Remainder(rules, bool(drop), near & ~dropped, alike)


def sums_of(codes: Codes, matrix: Matrix) -> Matrix:
    """Return what each split holds [splits, measures]."""
    sums: Matrix = (codes == np.arange(len(SPLITS))[:, None]).astype(np.float64) @ matrix
    return sums
