"""The contract of a build's answer: that of 0.1 round-trips, later keys are ignored, a bad key is named."""

from __future__ import annotations

import json
import tarfile
from typing import Any

import pytest

from etl.boxes import BUCKETS
from etl.errors import StoreError
from etl.snapshots.answer import BuildAnswer
from tests.test_store_of_0_1 import ARCHIVE


def build_answer(**keys: Any) -> BuildAnswer:
    """The answer of a first build without images; `keys` replace some of its keys or add others."""
    counts, shares = dict.fromkeys(BUCKETS, 0), dict.fromkeys(BUCKETS, 0.0)
    difference = {"added": 0, "removed": 0}
    document = {
        "snapshot": "/store/made/snapshots/1", "published": True, "images": 0, "annotations": 0, "added": 0,
        "rejects": {}, "ledger": {}, "samples": {}, "base_tiles": {}, "shards": 0, "reused_samples": 0,
        "negatives": {"asked": 0.25, "found": None},
        "sizes": {"base_tiles": counts, "asked": shares, "forecast": shares, "found": shares},
        "change": {"images": difference, "boxes": difference, "share": 1.0},
        "anchors": {"anchors": [[[8.0, 8.0]]], "strides": [8], "bpr": None, "aat": None, "fitness": None},
        "mended": [], "stages": {"ingest": 0.5, "publish": 0.25}, "seconds": 0.75, "cpu_seconds": 0.7,
        **keys,
    }  # fmt: skip
    return BuildAnswer.from_dict("answer", document)


def test_the_log_of_0_1_loads_and_is_written_back_with_the_same_keys_and_values() -> None:
    with tarfile.open(ARCHIVE) as archive:
        entries = {
            name: json.load(file)
            for name in archive.getnames()
            if "/log/" in name and (file := archive.extractfile(name)) is not None
        }
    answers = [BuildAnswer.from_dict(name, entry["answer"]) for name, entry in entries.items()]
    assert [answer.to_dict() for answer in answers] == [entry["answer"] for entry in entries.values()]
    assert [(answer.images, answer.change.images.added, answer.anchors.strides) for answer in answers] == [
        (6, 6, (8,)), (8, 2, (8,)),
    ]  # fmt: skip


def test_the_snapshot_is_the_first_key_and_the_durations_are_the_last() -> None:
    keys = list(BuildAnswer.model_fields)
    assert (keys[:2], keys[-3:]) == (["snapshot", "published"], ["stages", "seconds", "cpu_seconds"])
    assert list(build_answer().to_dict()) == keys


def test_an_unknown_key_of_a_later_version_is_ignored() -> None:
    assert build_answer(later=1) == build_answer()


def test_a_wrong_value_is_an_error_with_file_key_found_and_expected() -> None:
    with pytest.raises(StoreError, match=r"^answer: images: found '4', expected a valid integer$"):
        build_answer(images="4")
    with pytest.raises(StoreError, match=r"^answer: change\.boxes: found nothing, expected a value \(and 1 more\)$"):
        build_answer(change={"images": {"added": 1, "removed": 0}})
