"""One run of chaos on hosts apart: scheduler, workers and build share a network and an S3, no disk."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etl.storage import store
from tests.chaos import faults, network
from tests.chaos.builds import build_undisturbed, check_build, make_dataset, write_config
from tests.chaos.outcome import Outcome, Play
from tests.etl import seaweedfs
from tests.etl.conftest import BUCKET, s3_client
from tests.ports import wait_until_listening

KINDS = (
    "cut worker", "cut scheduler", "cut build", "restart scheduler", "kill worker", "fill worker's disk", "kill build",
    "source change",
)  # fmt: skip
_SECONDS = 900.0  # that a build may take on a busy machine
_TYPICAL = 4.0  # seconds within which faults strike, most often counted from when the workers are at work
_AT_WORK = "Dask dashboard"
_CUTS = (1.0, 5.0, 20.0, 60.0)  # seconds
_PORT = 8786


def missing() -> str | None:
    """Return why this machine cannot have hosts apart with a store on S3, None if it can."""
    return "SeaweedFS is not installed" if seaweedfs.WEED is None else network.missing()


class Hosts:
    """The hosts of a share, and the S3 that all of them reach."""

    def __init__(self, here: list[network.Host]) -> None:
        self.scheduler, self.builder, *self.workers = here

    def play(self, seed: int, number: int, folder: Path, kinds: tuple[str, ...], _: str | None) -> Outcome:
        """Play one run in an empty folder."""
        return Run(self, seed, number, folder, kinds).play()


@contextmanager
def prepare(folder: Path) -> Iterator[Play]:
    """Yield what plays a run on four hosts that do not see the folder of temporary files, and start the S3."""
    if (reason := missing()) is not None:
        raise SystemExit(f"no hosts apart: {reason}")
    with (
        network.hosts(4, folder.parent) as (address, here),
        seaweedfs.serve(folder, address) as s3,
        s3_client(s3) as client,
    ):
        client.create_bucket(Bucket=BUCKET)
        yield Hosts(here).play


class Run:
    """The dataset, the store and the faults of one run; all follow from seed and number."""

    def __init__(self, hosts: Hosts, seed: int, number: int, folder: Path, kinds: tuple[str, ...]) -> None:
        self._rng = random.Random(f"apart/{seed}/{number}")
        self.outcome = Outcome(number, faults.choose(kinds, number, self._rng))
        self._hosts, self._folder = hosts, folder
        self._space = f"s3://{BUCKET}/{folder.name}"
        self._dataset = make_dataset(folder / "data", number)
        self._delivered: dict[str, bytes] = {}

    def play(self) -> Outcome:
        """Disturb a build, make one undisturbed on this machine, and check what must hold."""
        self._deliver()
        config = write_config(self._folder / "d.yaml", f"{self._space}/store", f"{self._space}/data")
        whole = write_config(self._folder / "whole.yaml", str(self._folder / "whole"), f"{self._space}/data")
        for each in (config, whole):  # the plan is that of the first build
            build_undisturbed(self.outcome, each)
        self._change_source()
        self._disturb()
        start = time.monotonic()
        last = build_undisturbed(self.outcome, config)
        self.outcome.recovery = round(time.monotonic() - start, 2)
        build_undisturbed(self.outcome, whole)
        if last:
            check_build(self.outcome, config, whole.home, self._dataset)
        return self.outcome

    def _disturb(self) -> None:
        hosts, services = self._hosts, self._start_services()
        options = ["--scheduler", f"tcp://{hosts.scheduler.address}:{_PORT}", "--json"]
        text = (self._folder / "d.yaml").read_text()
        write = f"import pathlib, sys; pathlib.Path('d.yaml').write_text({text!r}); from train.cli import app; app()"
        line = hosts.builder.line([sys.executable, "-c", write, "build", "d.yaml", *options])
        wait_until_listening(_PORT, hosts.scheduler.address)
        strikes = [(self._rng.uniform(0, _TYPICAL), self._strike(kind, services)) for kind in self.outcome.faults]
        sign, log = self._rng.choice([_AT_WORK, _AT_WORK, _AT_WORK, ""]), self._folder / "build.log"
        try:
            disturbed = faults.run_disturbed(line, environ(), log, strikes, self._rng, _SECONDS, sign)
        finally:
            for service in services.values():
                service.end()
            for host in (hosts.scheduler, hosts.builder, *hosts.workers):
                host.join()
        self.outcome.add("speck build", disturbed, log)

    def _start_services(self) -> dict[str, network.Service]:
        """Start the scheduler and the workers."""
        hosts, dask = self._hosts, [sys.executable, "-P", "-m", "dask"]
        address = hosts.scheduler.address
        lines = {
            "scheduler": (hosts.scheduler, ["scheduler", "--host", address, "--port", str(_PORT), "--no-dashboard"])
        }
        for number, host in enumerate(hosts.workers, 1):
            options = [f"tcp://{address}:{_PORT}", "--host", host.address, "--nthreads", "1", "--no-dashboard"]
            lines[f"worker {number}"] = (host, ["worker", *options])
        return {
            name: network.Service(host, [*dask, *words], environ(), self._folder / f"{name}.log")
            for name, (host, words) in lines.items()
        }

    def _strike(self, kind: str, services: dict[str, network.Service]) -> faults.Injection:
        worker = services[self._rng.choice(["worker 1", "worker 2"])]
        seconds = self._rng.choice(_CUTS)
        cut = {"cut worker": worker.host, "cut scheduler": self._hosts.scheduler, "cut build": self._hosts.builder}
        if kind in cut:
            return lambda process, _: self._cut(cut[kind], process, seconds)
        actions = {
            "restart scheduler": services["scheduler"].kill, "kill worker": worker.kill,
            "fill worker's disk": worker.fill_disk, "source change": self._change_source,
        }  # fmt: skip
        return faults.kill_build if kind == "kill build" else lambda *_: actions[kind]()

    @staticmethod
    def _cut(host: network.Host, process: faults.Process, seconds: float) -> None:
        host.cut()
        faults.wait(process, seconds)
        host.join()

    def _change_source(self) -> None:
        faults.change_source(self._dataset, self._rng)
        self._deliver()

    def _deliver(self) -> None:
        """Let the bucket hold what the folder holds."""
        files = {path.name: path.read_bytes() for path in self._dataset.folder.iterdir()}
        for name in self._delivered.keys() - files.keys():
            store.delete(f"{self._space}/data/{name}")
        for name, content in files.items():
            if self._delivered.get(name) != content:
                store.write_bytes(f"{self._space}/data/{name}", content)
        self._delivered = files


def environ() -> dict[str, str]:
    """Return the variables of the processes of all hosts."""
    return {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
