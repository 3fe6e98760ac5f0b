"""The imported reviews of a dataset: check a file of answers, keep it, and list the answers that hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from math import isfinite

import pyarrow as pa
import pyarrow.compute as pc

from etl.boxes import area, as_boxes, clip, from_table
from etl.config import Config
from etl.document import Document
from etl.enumeration import enumerate_first
from etl.errors import ConfigError
from etl.review import KINDS, Answered, Box, ReviewAnswer, ReviewFile, at_place, collect_answered, latest, suspect_id
from etl.snapshots.snapshot import Snapshot, head
from etl.storage import store
from etl.storage.paths import DatasetPaths

_AGAIN = "run `speck find-errors` again and answer on its page"
_EXAMPLES = 3
_ID = re.compile(r"[0-9a-f]{16}")


class ImportedReview(Document):
    """The answer of `speck import-review`; counts are of answers."""

    review: str  # URI of the entry
    answers: int
    errors: dict[str, int]  # by kind; the next build corrects these labels
    correct: dict[str, int]  # by kind; these labels are not suspected again
    replaced: int  # that differ from an earlier answer about the same suspect
    repeated: int  # that equal it
    stale: int  # about labels that the newest snapshot no longer has


def load_answers(home: str) -> tuple[ReviewAnswer, ...]:
    """Return the answers that hold for the dataset at `home`: of each suspect the last one."""
    folder = DatasetPaths(home).reviews
    entries = [f"{folder}/{file.path}" for file in store.list_files(folder)] if store.exists(folder) else []
    files = (ReviewFile.from_json(uri, store.read_bytes(uri)) for uri in entries)
    return latest(answer for file in files for answer in file.answers)


def load_errors(home: str) -> tuple[ReviewAnswer, ...]:
    """Return the answers that correct labels."""
    return tuple(answer for answer in load_answers(home) if answer.answer == "error")


def answered(home: str) -> Answered:
    """Return what has been answered for the dataset at `home`, which is not suspected again."""
    return collect_answered(load_answers(home))


def import_answers(config: Config, content: bytes | str, where: str) -> ImportedReview:
    """Keep the answers of a file, after all of them are checked; `where` names it in errors.

    ConfigError if one of the answers is not about the dataset's labels: nothing is imported then.
    """
    file = ReviewFile.from_json(where, content)
    if file.dataset != config.name:
        raise ConfigError(where, "dataset", repr(file.dataset), repr(config.name))
    if not file.answers:
        raise ConfigError(where, "answers", "none", "at least one answer")
    given = latest(file.answers)
    newest, reviewed = _open_snapshots(config, file.snapshot, where)
    current = _Labels(newest)
    labels = current if reviewed is None or reviewed.id == newest.id else _Labels(reviewed)
    _check(given, labels, where, exact=reviewed is not None)
    checked = tuple(labels.with_overlapping(answer) for answer in given)
    uri, before = _keep(config.home, file.model_copy(update={"answers": checked}))
    return ImportedReview(
        review=uri,
        answers=len(given),
        errors=_by_kind(answer for answer in given if answer.answer == "error"),
        correct=_by_kind(answer for answer in given if answer.answer == "correct"),
        replaced=sum(before.get(row.suspect_id, row) != row for row in checked),
        repeated=sum(before.get(row.suspect_id) == row for row in checked),
        stale=sum(not current.has(answer) for answer in given),
    )


def _by_kind(answers: Iterable[ReviewAnswer]) -> dict[str, int]:
    counts = Counter(answer.kind for answer in answers)
    return {kind: counts[kind] for kind in KINDS}


def _open_snapshots(config: Config, reviewed: str, where: str) -> tuple[Snapshot, Snapshot | None]:
    """Return the newest snapshot, and the one that was reviewed; None if that was deleted since."""
    uri = head(config)
    if uri is None or not _ID.fullmatch(reviewed):
        raise ConfigError(where, "snapshot", repr(reviewed), f"the id of a snapshot of {config.name}")
    paths = DatasetPaths(config.home).snapshot(reviewed)
    return Snapshot.open(uri), Snapshot.open(paths.uri) if store.exists(paths.manifest) else None


class _Labels:
    """The images, labels and trained classes of a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        images, self._annotations = snapshot.table("images"), snapshot.table("annotations")
        columns = (images[name].to_pylist() for name in ("image_id", "path", "width", "height"))
        self._images = {name: (path, (0, 0, width, height)) for name, path, width, height in zip(*columns, strict=True)}
        names = (self._annotations[name].to_pylist() for name in ("annotation_id", "image_id"))
        self._image_of = dict(zip(*names, strict=True))
        self.snapshot, self.categories = snapshot.id, snapshot.categories

    def has_image(self, answer: ReviewAnswer) -> bool:
        """Return whether the image of an answer is there, under the path of the answer."""
        return answer.image_id in self._images and self._images[answer.image_id][0] == answer.path

    def has(self, answer: ReviewAnswer) -> bool:
        """Return whether the image and the label of an answer are there."""
        known = answer.annotation_id is None or self._image_of.get(answer.annotation_id) == answer.image_id
        return known and self.has_image(answer)

    def holds(self, box: Box | None, image: str) -> bool:
        """Return whether a box has an area within its image, or, of an image that is not there, anywhere."""
        if box is None or not all(map(isfinite, box)) or box[2] <= box[0] or box[3] <= box[1]:
            return False
        window = self._images[image][1] if image in self._images else box
        return bool(area(clip(as_boxes([box]), window))[0] > 0)

    def with_overlapping(self, answer: ReviewAnswer) -> ReviewAnswer:
        """Return an answer about a missing label with the labels that are at its place."""
        if answer.kind != "missing":
            return answer
        of_image = self._annotations.filter(pc.equal(self._annotations["image_id"], answer.image_id))
        there = of_image.filter(pa.array(at_place(answer.box, from_table(of_image)), pa.bool_()))
        return answer.model_copy(update={"overlapping": tuple(sorted(there["annotation_id"].to_pylist()))})


def _check(answers: Sequence[ReviewAnswer], labels: _Labels, where: str, *, exact: bool) -> None:
    """Raise ConfigError, with examples, for answers that do not fit a snapshot; `exact`: it is the reviewed one."""

    def require(fits: Callable[[ReviewAnswer], bool], what: str, expected: str) -> None:
        if wrong := [answer for answer in answers if not fits(answer)]:
            named = enumerate_first((f"{row.suspect_id} ({row.kind}, {row.path})" for row in wrong), _EXAMPLES)
            raise ConfigError(where, "answers", f"{len(wrong)} {what}: {named}", f"{expected}; nothing was imported")

    def has_class(answer: ReviewAnswer) -> bool:
        return answer.new_category in labels.categories or not _needs(answer, "missing", "swapped")

    def has_box(answer: ReviewAnswer) -> bool:
        box = answer.new_box if _needs(answer, "misplaced") else answer.box
        return labels.holds(box, answer.image_id) or not _needs(answer, "missing", "misplaced")

    source = f"snapshot {labels.snapshot}"
    require(_is_consistent, "whose suspect_id is not that of their label or box", f"answers as written; {_AGAIN}")
    if exact:
        require(labels.has_image, f"about images that {source} does not have", f"answers about {source}; {_AGAIN}")
        require(labels.has, f"about labels that {source} does not have", f"answers about {source}; {_AGAIN}")
    require(has_class, "without a trained class as new_category", f"one of {enumerate_first(labels.categories)}")
    require(has_box, "without a box inside their image", "x0, y0, x1, y1 in pixels of the image")


def _is_consistent(answer: ReviewAnswer) -> bool:
    own = suspect_id(answer.kind, answer.image_id, answer.annotation_id, answer.box)
    return answer.suspect_id == own and (answer.annotation_id is None) == (answer.kind == "missing")


def _needs(answer: ReviewAnswer, *kinds: str) -> bool:
    """Return whether an answer corrects a label of one of these kinds."""
    return answer.answer == "error" and answer.kind in kinds


def _keep(home: str, file: ReviewFile) -> tuple[str, dict[str, ReviewAnswer]]:
    """Add the entry of a review; return its URI and the answers that held before, by suspect."""
    paths = DatasetPaths(home)
    entry = {**file.to_dict(), "time": datetime.now(UTC).isoformat(timespec="seconds")}
    while True:
        before = {answer.suspect_id: answer for answer in load_answers(home)}
        sequence = 1 + _last_sequence(paths.reviews)
        if store.create_if_absent(paths.review(sequence), store.to_json(entry)):
            return paths.review(sequence), before


def _last_sequence(folder: str) -> int:
    """Return the highest number of an entry, 0 without any; entries may have been deleted."""
    names = [file.path for file in store.list_files(folder)] if store.exists(folder) else []
    return max((int(name.removesuffix(".json")) for name in names), default=0)
