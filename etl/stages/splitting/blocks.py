"""Cut a video into blocks of consecutive frames that go to different splits, with guard bands between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl.plan import Cut
from etl.schema import SPLITS
from etl.stages.splitting.draws import draw

GUARDED = len(SPLITS)  # the code of a frame in a guard band, after those of the splits

Codes = NDArray[np.int64]  # index into SPLITS, or GUARDED


class Shares(NamedTuple):
    """Shares of the splits, in the order of SPLITS."""

    train: float
    val: float
    test: float

    @classmethod
    def of(cls, val: float, test: float) -> Shares:
        """Return the shares that val and test leave."""
        return cls(1 - val - test, val, test)

    @property
    def asked(self) -> list[int]:
        """The codes of the splits that are asked for."""
        return [code for code, share in enumerate(self) if share > 0]


def block_codes(frames: NDArray[np.int64], sequence: str, cut: Cut, salt: int, shares: Shares) -> Codes:
    """Return the split of each frame of a video, by its number alone: frames that come later move no other frame.

    The blocks of train, val and test repeat every `period` numbers, each followed by a guard band of `guard` numbers;
    the salt decides where they start.
    """
    places = (frames - block_start(sequence, cut, salt)) % cut.period
    edges, codes = _layout(cut, shares)
    return codes[np.searchsorted(edges, places, side="right")]


def block_names(frames: NDArray[np.int64], sequence: str, cut: Cut, salt: int, codes: Codes) -> list[str]:
    """Return the names of the blocks and guard bands that frames with these codes lie in."""
    repeats = (frames - block_start(sequence, cut, salt)) // cut.period
    kinds = (*SPLITS, "guard")
    return [f"{sequence}#{repeat}.{kinds[code]}" for repeat, code in zip(repeats.tolist(), codes.tolist(), strict=True)]


def block_start(sequence: str, cut: Cut, salt: int) -> int:
    """Return a number at which blocks of train start."""
    return int(draw(sequence, salt) * cut.period)


def _layout(cut: Cut, shares: Shares) -> tuple[NDArray[np.int64], Codes]:
    """Return the end of each block and guard band in a period but the last, and the codes of all."""
    asked = shares.asked
    room = cut.period - cut.guard * len(asked)
    held_out = [max(1, round(room * shares[code])) for code in asked[1:]]
    lengths = [room - sum(held_out), *held_out]
    ends = np.cumsum([value for length in lengths for value in (length, cut.guard)])
    return ends[:-1], np.array([value for code in asked for value in (code, GUARDED)], np.int64)
