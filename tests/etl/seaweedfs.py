"""SeaweedFS's real server, the S3 server of docker/compose.yaml, as a child process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_ports

WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@contextmanager
def serve(folder: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """Yield the address of a SeaweedFS on free ports of this machine, which keeps its files in a folder."""
    services = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(services), host)
    address = f"http://{host}:{ports[-2]}"
    line = [str(WEED), "server", f"-dir={folder}", f"-ip={host}", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    line += ["-volume.max=0", "-master.volumePreallocate=false", "-master.telemetry=false"]
    line += ["-master.volumeSizeLimitMB=64"]  # by default a volume counts as 30 GB, which does not fit a small disk
    line += [f"-{name}.localSocket={folder}/{name}.sock" for name in ("filer", "s3")]
    for name, port, grpc in zip(services, ports[::2], ports[1::2], strict=True):
        line += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(line, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_healthy(f"{address}/healthz", process)
            yield address
        finally:
            process.kill()  # SIGTERM takes half a minute
            process.wait()
            for grpc in ports[1::2]:
                for socket_left in Path("/tmp").glob(f"seaweedfs-*-grpc-{grpc}.sock"):
                    socket_left.unlink()


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"no SeaweedFS at {url}")
