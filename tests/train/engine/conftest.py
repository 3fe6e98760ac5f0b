from __future__ import annotations

from typing import Any, Protocol

import pytest

from etl.stages.audit.conclude import conclude
from etl.stages.audit.context import Context
from etl.stages.audit.counts import Summary
from etl.stages.audit.model import AssignerCoverage, Audit, Tiny


class AuditMaker(Protocol):
    def __call__(
        self,
        *,
        under_16: float = 0.0,
        covered: float = 1.0,
        needed: int = 320,
        image_size: int = 640,
        classes: dict[str, dict[str, int]] | None = None,
        coverage: AssignerCoverage | None = None,
    ) -> Audit: ...


@pytest.fixture
def audit_with() -> AuditMaker:
    """An audit of nothing, with the few values that a recipe reads."""

    def make(
        *,
        under_16: float = 0.0,
        covered: float = 1.0,
        needed: int = 320,
        image_size: int = 640,
        classes: dict[str, dict[str, int]] | None = None,
        coverage: AssignerCoverage | None = None,
    ) -> Audit:
        empty = conclude(Summary(), Context(tile_size=image_size, image_size=image_size))
        tiny = empty.tiny.model_copy(update={"network": Tiny(under_8=0.0, under_16=under_16)})
        configured = empty.coverage.configured.model_copy(update={"covered": covered})
        px_8 = empty.resolution.px_8.model_copy(update={"tiled": needed})
        changes: dict[str, Any] = {
            "tiny": tiny,
            "coverage": coverage or empty.coverage.model_copy(update={"configured": configured}),
            "resolution": empty.resolution.model_copy(update={"px_8": px_8}),
            "classes": classes or {"car": {"train": 50, "val": 5}},
        }
        return empty.model_copy(update=changes)

    return make
