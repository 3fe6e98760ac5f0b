"""The evaluation page in a real Chromium: it has content, and the console stays empty."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.etl.reports.test_audit_page_browser import CHROMIUM, PHONE, WIDE, chromium
from tests.train.evaluation.test_run import built
from train.evaluation import run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_has_content_and_the_console_is_clean(tmp_path: Path, size: tuple[int, int], scheme: str) -> None:
    answer = run.evaluate(*built(tmp_path), detections="truth")
    shot = tmp_path / "page.png"
    preferred = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    ran = chromium(Path(answer.html), f"--window-size={size[0]},{size[1]}", f"--screenshot={shot}", preferred)
    assert "CONSOLE" not in ran.stderr
    pixels = cv2.imread(str(shot), cv2.IMREAD_GRAYSCALE)
    assert pixels.shape == size[::-1]
    background = np.bincount(pixels.ravel()).argmax()
    assert (background > 128) == (scheme == "light")
    assert (pixels != background).mean() > 0.03
