"""Values by size bucket, as JSON documents hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Self, TypeVar

from etl.boxes import BUCKETS
from etl.document import Document

T = TypeVar("T")


class BySize(Document, Generic[T]):
    """One value for each size bucket."""

    very_tiny: T
    tiny: T
    small: T
    medium: T
    large: T

    @classmethod
    def of(cls, values: Iterable[T]) -> Self:
        """Return the values given in the order of BUCKETS."""
        return cls(**dict(zip(BUCKETS, values, strict=True)))

    def __getitem__(self, bucket: str) -> T:
        value: T = getattr(self, bucket)
        return value

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield name and value of each bucket, the smallest first."""
        return ((bucket, self[bucket]) for bucket in BUCKETS)

    def values(self) -> list[T]:
        """Return the value of each bucket, the smallest first."""
        return [self[bucket] for bucket in BUCKETS]
