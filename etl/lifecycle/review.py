"""The imported reviews of a dataset: check a file of answers, keep it, and list the answers that hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from datetime import UTC, datetime
from math import isfinite

import pyarrow as pa
import pyarrow.compute as pc

from etl.boxes import area, as_boxes, clip, from_table
from etl.config import Config
from etl.document import Document
from etl.enumeration import enumerate_first, shorten
from etl.errors import ConfigError, StoreError
from etl.formats.text import decode
from etl.numbers import count, count_of
from etl.review import KINDS, Answered, Box, ReviewAnswer, ReviewFile, at_place, collect_answered, latest, suspect_id
from etl.snapshots.snapshot import Snapshot, head, history
from etl.storage import store
from etl.storage.paths import DatasetPaths

MOST_BYTES = 20_000_000  # of a file of answers
_FROM_PAGE = "the file of answers that suspects.html gives"
_AGAIN = "run `speck find-errors` again and answer on its page"
_EXAMPLES, _SHOWN = 3, 120  # answers that an error names, and characters of each
_ID = re.compile(r"[0-9a-f]{16}")
_ENTRY = re.compile(r"(\d{8})\.json")


class ImportedReview(Document):
    """The answer of `speck import-review`; counts are of answers."""

    review: str  # URI of the entry
    answers: int
    errors: dict[str, int]  # by kind; the next build corrects these labels
    correct: dict[str, int]  # by kind; these labels are not suspected again
    replaced: int  # that differ from an earlier answer about the same suspect
    repeated: int  # that equal it
    stale: int  # whose image, label or class the newest snapshot no longer has


def load_answers(home: str) -> tuple[ReviewAnswer, ...]:
    """Return the answers that hold for the dataset at `home`: of each suspect the last one."""
    paths = DatasetPaths(home)
    files = (_read_entry(paths.review(sequence)) for sequence in _sequences(paths.reviews))
    return latest(answer for file in files for answer in file.answers)


def _read_entry(uri: str) -> ReviewFile:
    try:
        return ReviewFile.from_json(uri, store.read_bytes(uri))
    except StoreError as error:
        raise StoreError(f"{error}; restore the file, or delete it and import its answers again") from error


def load_errors(home: str) -> tuple[ReviewAnswer, ...]:
    """Return the answers that correct labels."""
    return tuple(answer for answer in load_answers(home) if answer.answer == "error")


def answered(home: str) -> Answered:
    """Return what has been answered for the dataset at `home`, which is not suspected again."""
    return collect_answered(load_answers(home))


def read_file(uri: str) -> bytes:
    """Return the content of a file of answers; ConfigError if it is too large to be one."""
    if (size := store.file_info(uri).size) > MOST_BYTES:
        raise _refusal(uri, "", count_of(size, "byte"), f"at most {count(MOST_BYTES)}: {_FROM_PAGE}")
    return store.read_bytes(uri)


def import_answers(config: Config, content: bytes | str, where: str) -> ImportedReview:
    """Keep the answers of a file, after all of them are checked; `where` names it in errors.

    SpeckError, with nothing imported, if it is no file of answers, or one of them is not about the dataset's labels.
    """
    file = _parse(config, content, where)
    given = latest(file.answers)
    newest = Snapshot.open(_newest(config, file.snapshot, where))
    reviewed = DatasetPaths(config.home).snapshot(file.snapshot)
    exists = store.exists(reviewed.manifest)
    is_deleted = not exists and any(row["snapshot"] == file.snapshot for row in history(config.home))
    current = _Labels(newest)
    labels = _Labels(Snapshot.open(reviewed.uri)) if exists and newest.id != file.snapshot else current
    _check(given, _ambiguous(file.answers), labels, where, exact=not is_deleted)
    checked = tuple(labels.with_overlapping(answer, known=exists) for answer in given)
    uri, before = _keep(config.home, file.model_copy(update={"answers": checked}))
    return ImportedReview(
        review=uri,
        answers=len(given),
        errors=_by_kind(answer for answer in given if answer.answer == "error"),
        correct=_by_kind(answer for answer in given if answer.answer == "correct"),
        replaced=sum(not _repeats(row, before.get(row.suspect_id, row)) for row in checked),
        repeated=sum(_repeats(row, before.get(row.suspect_id)) for row in checked),
        stale=sum(not (current.has(answer) and current.has_class(answer)) for answer in given),
    )


def _parse(config: Config, content: bytes | str, where: str) -> ReviewFile:
    """Return a file of answers about the dataset; SpeckError for any other file."""
    text = decode(content) if isinstance(content, bytes) else content
    if text is None:
        raise _refusal(where, "", "no text in UTF-8", _FROM_PAGE)
    try:
        file = ReviewFile.from_json(where, text)
    except StoreError as error:
        raise StoreError(f"{error}; give {_FROM_PAGE}; nothing was imported") from error
    if file.dataset != config.name:
        raise _refusal(where, "dataset", shorten(repr(file.dataset), _SHOWN), repr(config.name))
    if not file.answers:
        raise _refusal(where, "answers", "none", "at least one answer")
    return file


def _refusal(where: str, key: str, found: str, expected: str) -> ConfigError:
    """Return the error about a file of answers that is not imported."""
    return ConfigError(where, key, found, f"{expected}; nothing was imported")


def _repeats(answer: ReviewAnswer, earlier: ReviewAnswer | None) -> bool:
    """Return whether an answer is the earlier one, whatever labels were at its place then."""
    return earlier is not None and earlier.model_copy(update={"overlapping": answer.overlapping}) == answer


def _ambiguous(answers: Iterable[ReviewAnswer]) -> frozenset[str]:
    """Return the suspects with different answers in one file."""
    counts = Counter(answer.suspect_id for answer in set(answers))
    return frozenset(name for name, count in counts.items() if count > 1)


def _by_kind(answers: Iterable[ReviewAnswer]) -> dict[str, int]:
    counts = Counter(answer.kind for answer in answers)
    return {kind: counts[kind] for kind in KINDS}


def _newest(config: Config, reviewed: str, where: str) -> str:
    """Return the URI of the newest snapshot; ConfigError without one, or if the reviewed one has no valid id."""
    if (uri := head(config)) is None or not _ID.fullmatch(reviewed):
        expected = f"the id of a snapshot of {config.name}"
        raise _refusal(where, "snapshot", shorten(repr(reviewed), _SHOWN), expected)
    return uri


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

    def has_class(self, answer: ReviewAnswer) -> bool:
        """Return whether the class that an answer gives a label is trained."""
        return answer.new_category in self.categories or not _needs(answer, "missing", "swapped")

    def with_overlapping(self, answer: ReviewAnswer, *, known: bool) -> ReviewAnswer:
        """Return an answer about a missing label with the labels that are at its place, none if they are not `known`.

        Labels that are newer than the review may be of the missing object.
        """
        if answer.kind != "missing" or not known:
            return answer.model_copy(update={"overlapping": ()})
        of_image = self._annotations.filter(pc.equal(self._annotations["image_id"], answer.image_id))
        there = of_image.filter(pa.array(at_place(answer.box, from_table(of_image)), pa.bool_()))
        return answer.model_copy(update={"overlapping": tuple(sorted(there["annotation_id"].to_pylist()))})


def _check(
    answers: Sequence[ReviewAnswer], ambiguous: Container[str], labels: _Labels, where: str, *, exact: bool
) -> None:
    """Raise ConfigError, with examples, for answers that do not fit a snapshot or are `ambiguous`.

    With `exact` the snapshot must have every image and label; else it is newer than the reviewed one, which is deleted.
    """

    def require(fits: Callable[[ReviewAnswer], bool], what: str, expected: str) -> None:
        if wrong := [answer for answer in answers if not fits(answer)]:
            texts = (shorten(f"{row.suspect_id} ({row.kind}, {row.path})", _SHOWN) for row in wrong)
            raise _refusal(where, "answers", f"{len(wrong)} {what}: {enumerate_first(texts, _EXAMPLES)}", expected)

    def has_box(answer: ReviewAnswer) -> bool:
        box = answer.new_box if _needs(answer, "misplaced") else answer.box
        return labels.holds(box, answer.image_id) or not _needs(answer, "missing", "misplaced")

    def changes(answer: ReviewAnswer) -> bool:
        if _needs(answer, "swapped"):
            return answer.new_category != answer.category
        return answer.new_box != answer.box or not _needs(answer, "misplaced")

    source = f"snapshot {labels.snapshot}"
    require(lambda row: row.suspect_id not in ambiguous, "with different answers", "one answer about each suspect")
    require(_is_consistent, "whose suspect_id is not that of their label or box", f"answers as written; {_AGAIN}")
    if exact:
        require(labels.has_image, f"about images that {source} does not have", f"answers about {source}; {_AGAIN}")
        require(labels.has, f"about labels that {source} does not have", f"answers about {source}; {_AGAIN}")
    classes = enumerate_first(labels.categories)
    require(labels.has_class, "without a trained class as new_category", f"one of {classes}")
    require(has_box, "without a box inside their image", "x0, y0, x1, y1 in pixels of the image")
    require(changes, "whose error keeps class and box of the label", "another class or box, or the answer correct")


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
        sequence = max(_sequences(paths.reviews), default=0) + 1  # earlier entries may have been deleted
        if store.create_if_absent(paths.review(sequence), store.to_json(entry)):
            store.sync(paths.reviews)
            return paths.review(sequence), before


def _sequences(folder: str) -> list[int]:
    """Return the numbers of the entries, in order; other files in the folder are none."""
    names = [file.path for file in store.list_files(folder)] if store.exists(folder) else []
    return [int(found[1]) for name in names if (found := _ENTRY.fullmatch(name))]
