"""What model.json must hold before anything of it is used; the same of the metadata of an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from etl.config import Evaluate
from etl.errors import StoreError
from etl.plan import TilePlan
from train.models.limits import MOST_CATEGORIES

_MOST_PIXELS = 16_384  # of a side of the network's input


class _Settings(BaseModel):
    model_config = ConfigDict(extra="allow")

    evaluate: Evaluate = Evaluate()
    source: dict[str, Any] = {}


class _Meta(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    categories: Annotated[list[str], Field(min_length=1, max_length=MOST_CATEGORIES)]
    image_size: Annotated[int, Field(gt=0, le=_MOST_PIXELS, strict=True)]
    tile: TilePlan
    nms_free: Annotated[bool, Field(strict=True)]
    architecture: dict[str, Any]
    config: _Settings = _Settings()
    pixel_range: tuple[float, float] | None = None
    thresholds: dict[str, float] = {}


def check_meta(where: str, meta: Any) -> None:
    """Raise StoreError with the file, key, found and expected value unless the data are those of a model."""
    try:
        _Meta.model_validate(meta)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the whole"
        found = "nothing" if first["type"] == "missing" else repr(first["input"])[:80]
        expected = "a value" if first["type"] == "missing" else first["msg"].removeprefix("Input should be ")
        raise StoreError(f"{where}: {key}: found {found}, expected {expected}") from error


def read_tensors(where: str, data: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file; StoreError for any other file, and for weights that are not finite."""
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise StoreError(f"{where}: found no safetensors ({error}), expected the weights of a model") from error
    check_finite(where, tensors)
    return tensors


def check_finite(where: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise StoreError if a weight is not a finite number."""
    for name, values in tensors.items():
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise StoreError(f"{where}: {name}: found NaN or infinite weights, expected finite numbers")
