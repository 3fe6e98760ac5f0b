"""Compare the perceptual hashes of many images: unsigned 64-bit integers, alike if they differ in few bits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]

NEAR = 3  # bits by which the perceptual hashes of near-duplicates differ at most
_BANDS = (0, 16, 32, 48)  # two hashes at most NEAR bits apart agree in at least one of four 16-bit bands
_PAIRS = 4_000_000  # compared at once
_SHIFT = 3  # cells of the grid of 8 x 8 that overlapping images may be shifted by


def distance(ones: Hashes, others: Hashes) -> NDArray[np.int64]:
    """Return the number of bits in which the hashes differ."""
    bits: NDArray[np.int64] = np.bitwise_count(ones ^ others).astype(np.int64)
    return bits


def overlap_distance(ones: Hashes, others: Hashes) -> NDArray[np.float64]:
    """Return the distances of the hashes in bits, each the least over shifts of up to 3 of the 8 cells of their grid.

    The camera of a flight moves on between frames, so that one shows in other cells what the other shows. The fewer
    cells overlap, the less their agreement counts: unrelated images keep a distance of about 25.
    """
    best = np.full(len(ones), 64.0)
    for rows, columns in product(range(-_SHIFT, _SHIFT + 1), repeat=2):
        mask, by = _overlap(rows, columns), 8 * rows + columns
        moved = ones << np.uint64(by) if by >= 0 else ones >> np.uint64(-by)
        cells = mask.bit_count()
        differing = np.bitwise_count((moved ^ others) & np.uint64(mask))
        best = np.minimum(best, 32 - (0.5 - differing / cells) * 8 * cells**0.5)
    return best


def _overlap(rows: int, columns: int) -> int:
    """Return the bits of the cells that overlap when one of two grids moves so many rows up and columns left."""
    return sum(
        1 << (63 - 8 * row - column)
        for row in range(max(-rows, 0), 8 - max(rows, 0))
        for column in range(max(-columns, 0), 8 - max(columns, 0))
    )


def similar_pairs(hashes: Hashes, bits: int = NEAR) -> Iterator[tuple[Index, Index]]:
    """Yield the positions of all pairs of hashes at most `bits` apart (up to NEAR), each pair once, in pieces."""
    for number, shift in enumerate(_BANDS):
        band = _band(hashes, shift)
        order = np.argsort(band, kind="stable")
        ends = np.searchsorted(band[order], band[order], side="right")
        places = np.arange(len(order))
        for first, second in _expand(places + 1, ends - places - 1):
            a, b = order[first], order[second]
            found = distance(hashes[a], hashes[b]) <= bits
            for earlier in _BANDS[:number]:
                found &= _band(hashes[a], earlier) != _band(hashes[b], earlier)
            if found.any():
                yield np.minimum(a, b)[found], np.maximum(a, b)[found]


def similar_to(hashes: Hashes, others: Hashes, bits: int = NEAR) -> Mask:
    """Return which of the hashes are at most `bits` (up to NEAR) from any of the others."""
    values, inverse = np.unique(hashes, return_inverse=True)
    others = np.unique(others)
    similar = np.isin(values, others)
    for shift in _BANDS:
        open_ = np.flatnonzero(~similar)
        band = _band(others, shift)
        order = np.argsort(band, kind="stable")
        wanted = _band(values[open_], shift)
        starts = np.searchsorted(band[order], wanted, side="left")
        ends = np.searchsorted(band[order], wanted, side="right")
        for first, second in _expand(starts, ends - starts):
            near = distance(values[open_[first]], others[order[second]]) <= bits
            similar[open_[first[near]]] = True
    return similar[inverse]


def connect_similar(hashes: Hashes) -> Index:
    """Return a number for each hash, equal for those that a chain of hashes at most NEAR bits apart connects."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number: Index = np.arange(len(hashes))
    for ones, others in similar_pairs(hashes):
        first, second = number[ones], number[others]
        new = first != second
        if new.any():
            links = coo_array((new[new], (first[new], second[new])), shape=(len(hashes), len(hashes)))
            number = connected_components(links, directed=False)[1][number].astype(np.intp)
    return number


def _band(hashes: Hashes, shift: int) -> Hashes:
    return (hashes >> np.uint64(shift)) & np.uint64(0xFFFF)


def _expand(starts: Index, counts: Index) -> Iterator[tuple[Index, Index]]:
    """Yield each position with the `count` positions from its start, in pieces of about _PAIRS pairs."""
    total = np.concatenate([[0], np.cumsum(counts)])
    low = 0
    while low < len(counts):
        high = max(low + 1, int(np.searchsorted(total, total[low] + _PAIRS, side="right")) - 1)
        owner = np.repeat(np.arange(low, high), counts[low:high])
        offset = np.arange(len(owner)) - np.repeat(total[low:high] - total[low], counts[low:high])
        if len(owner):
            yield owner, np.repeat(starts[low:high], counts[low:high]) + offset
        low = high
