"""The pixels of unchanged images are not measured again, and the audit equals that of measuring every image."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etl.jobs import audit_cache, audit_images, build
from etl.snapshots.snapshot import Snapshot, load_plan
from etl.storage import mended


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images whose pixels are measured."""
    names: list[str] = []
    real = audit_images._measure

    def noting(part: audit_images.PixelPart, image: audit_images.Row) -> Any:
        names.append(Path(image["path"]).stem)
        return real(part, image)

    monkeypatch.setattr(audit_images, "_measure", noting)
    return names


def audit_of(answer: dict[str, Any]) -> dict[str, Any]:
    """An audit without its comparison with the snapshot before."""
    return {**Snapshot.open(answer["snapshot"]).audit.to_dict(), "since": None}


def add(dataset: Any) -> None:
    dataset.put("n_5", dataset.boxes(21), 21)


def change_pixels(dataset: Any) -> None:
    dataset.put("c_5", dataset.boxes(2), 99)


def change_boxes(dataset: Any) -> None:
    dataset.label("c_5", [*dataset.boxes(2), (1, 40, 40, 12, 9)])


def remove(dataset: Any) -> None:
    dataset.remove("c_5")


@pytest.mark.parametrize(
    ("change", "again"), [(add, ["n_5"]), (change_pixels, ["c_5"]), (change_boxes, ["c_5"]), (remove, [])]
)
def test_only_changed_images_are_measured_and_the_audit_is_that_of_measuring_all(
    dataset: Any, measured: list[str], change: Callable[[Any], None], again: list[str], tmp_path: Path
) -> None:
    config = dataset.config(tmp_path / "store")
    dataset.build(config)
    assert len(measured) == 10
    measured.clear()
    change(dataset)
    second = dataset.build(config)
    assert measured == again
    fresh = config.model_copy(update={"store": str(tmp_path / "fresh")})
    assert audit_of(second) == audit_of(dataset.build(fresh, load_plan(config.home)))
    assert audit_of(second)["quality"]["images"] == 10 + (change is add) - (change is remove)


def test_a_new_ontology_measures_the_images_whose_trained_boxes_it_changes(
    dataset: Any, measured: list[str], tmp_path: Path
) -> None:
    dataset.build(dataset.config(tmp_path / "store"))
    measured.clear()
    config = dataset.config(tmp_path / "store", ontology={"drop": ["bus"]})
    second = dataset.build(config)
    with_bus = [f"{chr(97 + n)}_5" for n in range(10) if any(row[0] == 1 for row in dataset.boxes(n))]
    assert measured == with_bus and 0 < len(with_bus) < 10
    fresh = config.model_copy(update={"store": str(tmp_path / "fresh")})
    assert audit_of(second) == audit_of(dataset.build(fresh, load_plan(config.home)))


def test_a_damaged_audit_cache_costs_time_only(
    dataset: Any, measured: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataset.config(tmp_path / "store")
    expected = audit_of(dataset.build(config))
    measured.clear()
    Path(config.home, "pixels.parquet").write_bytes(b"PAR1 no more")
    with caplog.at_level(logging.WARNING, mended.log.name):
        assert audit_of(dataset.build(config)) == expected
    assert len(measured) == 10
    assert "pixels.parquet cannot be read, measuring every image" in caplog.text


def test_a_full_build_measures_every_image(dataset: Any, measured: list[str], tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store")
    dataset.build(config)
    measured.clear()
    build.build(config, full=True)
    assert len(measured) == 10


def test_measurements_are_read_back_as_they_were(dataset: Any, measured: list[str], tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store")
    snapshot = Snapshot.open(dataset.build(config)["snapshot"])
    images, annotations = snapshot.table("images"), snapshot.table("annotations")
    [part] = audit_images.pixel_parts(config, images.slice(0, 4), annotations)
    expected = audit_images.measure_pixels(part)
    keys = audit_cache.image_keys(images, annotations)
    audit_cache.save(config, keys, expected)
    assert audit_cache.load(config, keys) == expected
    assert any(len(summary.descriptors) == 2 for summary in expected.values())
    assert audit_cache.load(config, dict.fromkeys(keys, "another")) == {}
