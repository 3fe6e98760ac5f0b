"""The class list of a dataset: pinned classes keep their numbers, later ones are added at the end."""

from __future__ import annotations

from collections.abc import Sequence


def extend_categories(pinned: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the pinned classes in their order, then the new names in theirs.

    A pinned class keeps its place even if it no longer occurs, so that no other class changes its number.
    """
    return list(dict.fromkeys([*pinned, *names]))
