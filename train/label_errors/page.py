"""The page to click through: every suspect with a close-up and a question; it gives a file of answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etl.config import Config
from etl.reports import page
from etl.review import KINDS
from etl.snapshots.snapshot import Snapshot
from train.label_errors.close_ups import CloseUp, Images, ReadPixels, take_close_ups
from train.label_errors.suspects import Suspect

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_UNSEEN = 2000  # suspects without a close-up that a group of look-alikes adds to the page


def suspects_page(
    config: Config,
    snapshot: Snapshot,
    suspects: Sequence[Suspect],
    images: Images,
    judged: Sequence[str],
    read: ReadPixels,
) -> bytes:
    """Return the page of ranked suspects in the labels of a snapshot, with as many close-ups as it can hold.

    `judged` are the categories of the images' labels.
    """
    close_ups = take_close_ups(suspects, images, judged, read)
    html = render(suspects, close_ups, dataset=config.name, snapshot=snapshot.id, categories=snapshot.categories)
    return html.encode()


def render(
    suspects: Sequence[Suspect],
    close_ups: Mapping[str, CloseUp],
    *,
    dataset: str,
    snapshot: str,
    categories: Sequence[str],
) -> str:
    """Return the page of ranked suspects; those with a close-up are shown, by suspect id.

    Suspects without one are on the page only if they look like one that is shown, so that one answer can be given for
    all of them. `snapshot` is the id of the snapshot whose labels are suspected, `categories` the trained classes.
    """
    shown = [suspect for suspect in suspects if suspect.suspect_id in close_ups]
    groups = {suspect.lookalike for suspect in shown} - {None}
    unseen = [row for row in suspects if row.suspect_id not in close_ups and row.lookalike in groups][:_MOST_UNSEEN]
    counts = Counter(suspect.kind for suspect in shown)
    content = {
        "dataset": dataset,
        "snapshot": snapshot,
        "categories": list(categories),
        "suspects": [_row(suspect, close_ups.get(suspect.suspect_id)) for suspect in (*shown, *unseen)],
    }
    return page.render(
        "suspects.html.j2",
        _TEMPLATES,
        dataset=dataset,
        snapshot=snapshot,
        kinds={kind: counts[kind] for kind in KINDS if counts[kind]},
        shown=len(shown),
        total=len(suspects),
        content=content,
    )


def _row(suspect: Suspect, close_up: CloseUp | None) -> dict[str, Any]:
    """Return a suspect as the script of the page reads it."""
    row = {
        "suspect_id": suspect.suspect_id,
        "kind": suspect.kind,
        "image_id": suspect.image_id,
        "path": suspect.path,
        "annotation_id": suspect.annotation_id,
        "box": suspect.box,
        "category": suspect.category,
        "suggested_category": suspect.suggested_category,
        "suggested_box": suspect.suggested_box,
        "rank": suspect.rank,
        "split": suspect.split,
        "score": round(suspect.score, 4),
        "chance": round(suspect.chance, 4),
        "size": suspect.size.replace("_", " "),
        "lookalike": suspect.lookalike,
    }
    if close_up is None:
        return row
    labels = [[category, [round(side, 2) for side in box]] for category, box in close_up.labels]
    return row | {"picture": page.jpeg(close_up.jpeg), "window": close_up.window, "labels": labels}
