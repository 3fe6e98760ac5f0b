"""Files that people give: COCO results to evaluate, and answers about suspected label errors."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

from etl.errors import SpeckError
from etl.lifecycle import review
from etl.snapshots.ground_truth import ALL, load_ground_truth
from etl.storage import store
from tests.fuzz import valid_store
from tests.fuzz.case import RIGHT, Case, Target, Targets, require
from tests.fuzz.mutations import mutate_bytes, mutate_json, one_of

_MUTATE = one_of(mutate_json, mutate_json, mutate_json, mutate_bytes)


def results(folder: Path) -> Target:
    """Return the target of COCO results."""
    from train.evaluation.results import coco_results
    from train.evaluation.results.known_dataset import known_dataset

    made, file = valid_store.make(folder), folder / "results.json"
    valid, known = made.detections(), known_dataset(made.config, made.snapshot)
    images, _ = load_ground_truth(made.snapshot, ALL)

    def read(data: bytes) -> str:
        file.write_bytes(data)
        found = coco_results.read_results(str(file), images, known)
        require(found.reading.detections >= 0, "no count")
        return RIGHT

    def case(rng: random.Random) -> Case:
        data = _MUTATE(rng, valid)
        return Case("results.json", data, partial(read, data))

    return case


def answers(folder: Path) -> Target:
    """Return the target of files of answers: all of one are imported, or none."""
    made, file = valid_store.make(folder), folder / "answers.json"
    valid, reviews = made.answers(), f"{made.config.home}/reviews"

    def read(data: bytes) -> str:
        file.write_bytes(data)
        try:
            imported = review.import_answers(made.config, review.read_file(str(file)), str(file))
            require(len(review.load_answers(made.config.home)) == imported.answers, "answers were lost")
            return RIGHT
        except SpeckError:
            require(not store.exists(reviews), "an answer of a refused file was imported")
            raise
        finally:
            store.delete(reviews)

    def case(rng: random.Random) -> Case:
        data = _MUTATE(rng, valid)
        return Case("answers.json", data, partial(read, data))

    return case


TARGETS: Targets = {"results": (6, results), "answers": (6, answers)}
