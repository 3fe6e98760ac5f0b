"""Pair the label files of a source with its images, and account for the files that stay without a partner."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from etl.codes import FINDINGS
from etl.config import Config
from etl.findings import Finding, finding
from etl.formats.companions import is_companion
from etl.formats.name_hints import matching_hint
from etl.formats.pairing import Ambiguity, Pairing, pair_labels
from etl.formats.recognise import HEAD_BYTES, Look, recognise
from etl.formats.second_keys import SecondPairs, pair_by_second_keys
from etl.numbers import count_of
from etl.schema import reject
from etl.sources.image_files import reject_undecodable
from etl.sources.label_files import LabelFiles, printable
from etl.sources.unread_files import expected_file, reject_unread
from etl.storage import store

_SHOWN = 3  # partners that a reject names
_SAME_NAME = "exactly the same name, or source.match: one name is a part of the other"


@dataclass(slots=True)
class SourcePairs:
    """The label file of each image, and the rejects of the label files and images that have no partner."""

    pairs: dict[str, str]  # image -> label file
    rejects: list[dict[str, str]] = field(default_factory=list)
    guesses: tuple[str, ...] = ()
    findings: list[Finding] = field(default_factory=list)


def pair_source(
    config: Config,
    reader: Any,
    files: LabelFiles,
    images: Sequence[str],
    aliases: Mapping[str, str],
    guesses: Collection[str] | None,
) -> SourcePairs:
    """Pair label files and images by name, then the rest by the names of links, then by second keys.

    `guesses` are the codes of the second keys that may be used, None stands for all. With `source.match` none is.
    """
    labels = list(files.uris)
    pairing = pair_labels(labels, images, config.source.match)
    if aliases or files.aliases:
        pairing = _pair_by_links(pairing, images, aliases, files.aliases, config.source.match)
    left = _Unmatched(config, reader, files.uris, pairing.unmatched_labels)
    tied = {path for tie in pairing.ambiguous for path in tie.images}
    free = [image for image in images if image not in pairing.pairs and image not in tied]
    if config.source.match is None:
        second = pair_by_second_keys(left.labels, free, left.declared, guesses)
    else:
        second = SecondPairs(unmatched_labels=left.labels)
    pairs = pairing.pairs | {image: label for image, (label, _) in second.pairs.items()}
    result = SourcePairs(pairs)
    result.rejects += _rejects_of_ties([*pairing.ambiguous, *second.ambiguous], second.parts)
    result.rejects += _rejects_of_unmatched(second, [image for image in free if image not in pairs], files.uris)
    result.rejects += left.rejects
    result.rejects += reject_unread(config, reader, {**files.others, **left.unknown}, pairs)
    result.findings += _findings_of_guesses(second)
    result.guesses = tuple(sorted({code for _, code in second.pairs.values()}))
    return result


class _Unmatched:
    """The unmatched label files by what their content looks like."""

    def __init__(self, config: Config, reader: Any, uris: Mapping[str, str], paths: Sequence[str]) -> None:
        self.labels: list[str] = []
        self.declared: dict[str, str] = {}  # the image names that label files hold
        self.rejects: list[dict[str, str]] = []  # of files that look like another format
        self.unknown: dict[str, str] = {}  # URIs of files that do not look like labels
        name_of = getattr(reader, "image_name", None)
        for path in paths:
            data = store.read_bytes(uris[path])
            look = recognise(data[:HEAD_BYTES])
            if _is_foreign(config, look) and look is not None:
                expected = expected_file(config, reader, path, look)
                self.rejects.append(reject("file", path, "unread_label", look, expected))
            elif is_companion(path) or not reader.is_label(data):
                self.unknown[path] = uris[path]
            else:
                self.labels.append(path)
                if name_of is not None and (name := name_of(data)) is not None:
                    self.declared[path] = name


def _is_foreign(config: Config, look: Look | None) -> bool:
    return look is not None and look.format != config.source.format


def _pair_by_links(
    pairing: Pairing,
    images: Sequence[str],
    image_aliases: Mapping[str, str],
    label_aliases: Mapping[str, str],
    match: str | None,
) -> Pairing:
    """Return the pairing with unmatched and ambiguous files paired by the paths of the links that lead to them."""
    tied = {path for tie in pairing.ambiguous for path in (*tie.labels, *tie.images)}
    labels = {*pairing.unmatched_labels, *(label for tie in pairing.ambiguous for label in tie.labels)}
    free = {image for image in images if image not in pairing.pairs}
    names = [{**{path: path for path in paths}, **{link: path for link, path in aliases.items() if path in paths}}
             for paths, aliases in ((labels, label_aliases), (free, image_aliases))]  # fmt: skip
    again = pair_labels([*names[0]], [*names[1]], match)
    found = [(names[1][image], names[0][label]) for image, label in again.pairs.items()]
    once = [Counter(side) for side in zip(*set(found), strict=True)] if found else []
    pairs = {image: label for image, label in set(found) if once[0][image] == 1 == once[1][label]}
    used = {*pairs, *pairs.values()}
    ties = [tie for tie in pairing.ambiguous if not used.issuperset(tie.labels) or not used.issuperset(tie.images)]
    ambiguous = [
        Ambiguity(tie.key, *(tuple(path for path in side if path not in used) for side in (tie.labels, tie.images)))
        for tie in ties
    ]
    kept = [tie for tie in ambiguous if tie.labels and tie.images]
    loose = {label for tie in ambiguous if not tie.images for label in tie.labels}
    unmatched = [label for label in labels if label not in used and (label not in tied or label in loose)]
    return Pairing(dict(sorted({**pairing.pairs, **pairs}.items())), sorted(unmatched), kept)


def _rejects_of_ties(ties: Sequence[Ambiguity], parts: Sequence[Ambiguity]) -> list[dict[str, str]]:
    """Return the rejects of label files and images of which several fit; an image without its labels is unusable."""
    sets = _label_sets(ties)
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for number, tie in enumerate([*ties, *parts]):
        for kind, paths, others in (("file", tie.labels, tie.images), ("image", tie.images, tie.labels)):
            several = ", ".join(others[:_SHOWN]) + ", ..." * (len(others) > _SHOWN)
            row = ("ambiguous_label", several, "exactly one of the same name" if number < len(ties) else _SAME_NAME)
            reason, found, expected = sets.get(tie.key, row)
            for path in paths:
                rows.setdefault((kind, path), reject(kind, path, reason, found, expected))
    return list(rows.values())


def _label_sets(ties: Sequence[Ambiguity]) -> dict[str, tuple[str, str, str]]:
    """Return reason, found and expected, by key, of the images that several folders of labels have a file for."""
    members: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for tie in ties:
        if len(tie.images) == 1:
            folders = [PurePosixPath(label).parent.parts for label in tie.labels]
            while len({*folders}) > 1 and all(folders) and len({folder[-1] for folder in folders}) == 1:
                folders = [folder[:-1] for folder in folders]
            names = tuple(sorted({"/".join(folder) or "." for folder in folders}))
            if len(names) > 1:
                members[names].append(tie.key)
    return {
        key: (
            "several_label_sets",
            f"{count_of(len(names), 'label set')} of {count_of(len(keys), 'image')}: {', '.join(names)}",
            f"source.annotations: {' or '.join(names)}",
        )
        for names, keys in members.items()
        for key in keys
    }


def _rejects_of_unmatched(second: SecondPairs, images: Sequence[str], uris: Mapping[str, str]) -> list[dict[str, str]]:
    hint = matching_hint(second.unmatched_labels, images) if images and second.unmatched_labels else None
    rows = []
    for label in second.unmatched_labels:
        if printable(uris[label]) != uris[label]:
            rows.append(reject_undecodable("file", label))
            continue
        expected = "an image of the same name" + (f"; {hint}" if hint is not None else "")
        if label in second.refused:
            image, code = second.refused[label]
            expected = f"an image of the same name; {image} fits as {code}, which `speck plan --update` allows"
        rows.append(reject("file", label, "label_without_image", label, expected))
    return rows


def _findings_of_guesses(second: SecondPairs) -> list[Finding]:
    uses: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for image, (label, code) in sorted(second.pairs.items()):
        uses[code].append((label, image))
    return [
        finding(
            code,
            f"{FINDINGS[code].advice} For example {pairs[0][0]} with {pairs[0][1]}.",
            [image for _, image in pairs],
            count=len(pairs),
        )
        for code, pairs in sorted(uses.items())
    ]
