"""Where the store of a run lies: on a disk that can fill up, or behind a faulty S3."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.chaos import faults, proxy
from tests.etl.conftest import BUCKET


class Surroundings:
    """The URI of a run's store, and the faults of what the store lies on."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.uri = str(folder / "store")
        self.environ = {"OMP_NUM_THREADS": "1"}  # of the disturbed commands
        self.disk: faults.FullDisk | None = None
        self.clock: faults.Clock | None = None
        self.weather = proxy.Weather(seed)

    def disturb(self, rng: random.Random) -> None:
        """Let a share of the requests to S3 fail."""
        self.weather.share = rng.choice([0.02, 0.1, 0.4])

    def calm(self) -> None:
        """Let everything work again."""
        self.weather.share = 0.0
        if self.disk is not None:
            self.disk.empty()


@contextmanager
def surroundings(folder: Path, name: str, kinds: Sequence[str], s3: str | None, seed: int) -> Iterator[Surroundings]:
    """Yield the surroundings that faults of these kinds need."""
    place = Surroundings(folder, seed)
    with ExitStack() as stack:
        if "clock jump" in kinds:
            place.clock = faults.Clock(folder)
            place.environ |= place.clock.environ()
        if "full disk" in kinds:
            place.disk = faults.FullDisk(folder / "disk", 24)
            stack.callback(place.disk.close)
            place.uri = str(place.disk.folder / "store")
        if "S3" in kinds:
            assert s3 is not None
            place.environ |= s3_environ(stack.enter_context(proxy.serve(s3, place.weather)))
            os.environ.update(s3_environ(s3))  # this process asks the server itself
            place.uri = f"s3://{BUCKET}/{name}"
        yield place


def s3_environ(address: str) -> dict[str, str]:
    """Return the variables that lead a store to this S3."""
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "test")
    return {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1", **keys}
