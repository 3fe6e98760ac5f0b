"""Findings on rejects name the key of the dataset file that allows so many of them."""

from __future__ import annotations

import pytest

from etl.stages.audit.checks import source
from tests.etl.stages.audit.test_checks import given, images, rejects


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (0.75, "source.max_rejects: 0.75 allows that 3 of 4 images are unusable; its default, 0.05, does not."),
        (0.7, ""),
    ],
)
def test_rejects_that_only_the_key_of_the_file_allows_name_it(limit: float, text: str) -> None:
    lost = rejects(*[("image", "broken_image")] * 3)
    (found,) = source.counted_faults(given(rejects=lost, images=images(("a", "1", "train")), max_rejects=limit))
    assert found.advice.partition("source.max_rejects")[1:] == (text[:18], text[18:])


def test_rejects_that_every_file_may_have_name_no_key() -> None:
    many = images(*[(f"{number}", f"{number}", "train") for number in range(19)])
    (found,) = source.counted_faults(given(rejects=rejects(("image", "broken_image")), images=many, max_rejects=0.75))
    assert "max_rejects" not in found.advice
