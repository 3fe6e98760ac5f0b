"""The simulator counts the labels that augmented samples have when they are really made."""

from __future__ import annotations

from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pytest

from etl import boxes, schema
from etl.config import Augment, Config
from etl.ids import fraction
from etl.plan import Plan, Policy, Rate, TilePlan
from etl.stages.augment.donor_reader import DonorReader, select_donors
from etl.stages.augment.donors import SETS, choose_donors
from etl.stages.augment.labelled_image import train_region
from etl.stages.augment.sample import choose_recipe
from etl.stages.image_annotations import AnnotatedImages, boxes_of
from etl.stages.planning.simulate import AugmentationSimulator
from etl.stages.planning.tile_stats import Tables, TileStats
from etl.stages.samples import augmented_samples, base_samples

TILES = TilePlan(size=96, overlap=0.25, min_visibility=0.4, scales=(1.0, 0.5))
RATE = Rate(base=1.5, slope=0.4, most=4.0)


def tables(images: int = 5) -> Tables:
    """Images of 200 x 150 px with seven boxes of 4 to 60 px each, one of them ignored."""
    rng = np.random.default_rng(7)
    image_rows: list[dict[str, Any]] = []
    box_rows: list[dict[str, Any]] = []
    for number in range(images):
        name = f"{number:016x}"
        image_rows.append({"image_id": name, "width": 200, "height": 150, "split": "val" if number == 0 else "train"})
        for box, side in enumerate((4, 6, 9, 12, 20, 40, 60)):
            x0, y0 = rng.uniform(0, 200 - side), rng.uniform(0, 150 - side)
            corners = dict(zip(boxes.XYXY, (x0, y0, x0 + side, y0 + side), strict=True))
            box_rows.append(
                {"annotation_id": f"{name}-{box}", "image_id": name, "category": "car", "ignore": box == 6, **corners}
            )
    return Tables(
        schema.table(schema.IMAGES, image_rows),
        partial(boxes_of, annotations=schema.table(schema.ANNOTATIONS, box_rows)),
    )


def config_of(**augment: Any) -> Config:
    source = {"format": "yolo", "images": "images"}
    return Config.model_validate({"name": "d", "store": "store", "source": source, "augment": augment})


def plan_of(rate: Rate) -> Plan:
    policy = Policy(settings="", rate=rate, sizes={})
    return Plan(
        split_salt=0, near_duplicates=True, categories=("car",), tile=TILES, negatives=1.0, policy=policy, codec=""
    )


def simulator_of(dataset: Tables, config: Config) -> tuple[AugmentationSimulator, TileStats]:
    stats = TileStats(dataset, TILES, config.source.held_out)
    return AugmentationSimulator(stats.augmentable, dataset, TILES, config), stats


def made_samples(dataset: Tables, augment: Augment, rate: Rate) -> list[tuple[str, int, np.ndarray]]:
    """The base sample, the number and the label sizes of each augmented sample, made of images with noise."""

    def noise(image: Any) -> np.ndarray:
        return np.random.default_rng(3).integers(0, 255, (image["height"], image["width"], 3)).astype(np.uint8)

    annotations = dataset.boxes_of(dataset.images)
    donors = choose_donors(dataset.images, [annotations], augment)
    reader = DonorReader(
        select_donors(donors, dataset.images, dataset.images, dataset.boxes_of),
        noise,
    )
    samples = []
    for name, annotated in AnnotatedImages(dataset.images, annotations).items():
        own = cache(lambda annotated=annotated: train_region(annotated, noise(annotated.image), 0.4, (0.1, 0.1)))
        for base, number in product(base_samples(annotated, plan_of(rate), (0.1, 0.1)), range(SETS)):
            sides = [*annotated.sides, *reader.sides(name, number)]
            lent = reader.images(name, number, len(annotated.rows))
            window = base.tile.window
            copies = {choose_recipe(name, window, copy, augment).sample_id: copy for copy in range(50)}
            for sample, _ in augmented_samples(base, annotated, own, lent, number, plan_of(rate), augment):
                counts = [0] * len(boxes.BUCKETS)
                for row in sample.rows:
                    counts[sum(sides[row] >= edge for edge in boxes.BUCKET_EDGES)] += 1
                samples.append((base.sample_id, copies[sample.sample_id], np.array(counts)))
    return samples


@pytest.mark.parametrize("mosaic", [0.0, 0.5, 1.0])
def test_a_simulation_of_all_samples_counts_the_labels_they_have(mosaic: float) -> None:
    config = config_of(mosaic=mosaic, copy_paste=0, rotate=20, quality=False)
    dataset = tables()
    simulator, _ = simulator_of(dataset, config)
    made = made_samples(dataset, config.augment, RATE)
    assert len(made) > 20
    assert simulator.run(RATE, len(made)).tolist() == sum(counts for *_, counts in made).tolist()


def test_corruptions_change_no_forecast() -> None:
    dataset = tables()
    with_quality, without = (simulator_of(dataset, config_of(quality=quality))[0] for quality in (True, False))
    assert with_quality.run(RATE).tolist() == without.run(RATE).tolist()


@pytest.mark.parametrize("limit", [1, 7, 20])
def test_some_samples_stand_for_all_by_their_share(limit: int) -> None:
    config = config_of(mosaic=0.5, copy_paste=0, quality=False)
    dataset = tables()
    simulator, _ = simulator_of(dataset, config)
    made = made_samples(dataset, config.augment, RATE)
    some = sorted(made, key=lambda one: fraction(f"forecast:{one[1]}:{one[0]}"))[:limit]
    expected = sum(counts for *_, counts in some) * (len(made) / limit)
    assert simulator.run(RATE, limit) == pytest.approx(expected)


def test_without_copies_nothing_is_simulated() -> None:
    simulator, stats = simulator_of(tables(), config_of(copies=0))
    rate = simulator.choose_rate(stats.sizes)
    assert rate.base == 0
    assert simulator.run(rate).tolist() == [0] * len(boxes.BUCKETS)


@pytest.mark.parametrize("oversample_small", [1.0, 1.5, 2.0])
def test_the_chosen_rate_makes_small_objects_as_frequent_as_asked(oversample_small: float) -> None:
    config = config_of(oversample_small=oversample_small, copies=1)
    simulator, stats = simulator_of(tables(12), config)
    total = stats.sizes + simulator.run(simulator.choose_rate(stats.sizes), 10_000)
    small, other = stats.sizes[: boxes.SMALL_BUCKETS].sum(), stats.sizes[boxes.SMALL_BUCKETS :].sum()
    asked = np.array([small * (1 + oversample_small), other * 2])
    found = total[: boxes.SMALL_BUCKETS].sum() / total.sum()
    assert found == pytest.approx(asked[0] / asked.sum(), abs=0.02)
