"""Hosts apart: network namespaces on a bridge, each process with a small disk of its own; needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

_SUBNET = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"  # another one for each process that has hosts
_DISK = "48m"
_SUPERVISED_SECONDS = 0.5
# All that a process of a host sees at the folder of the runs is an empty disk, on which its temporary files lie, too.
_ON_OWN_DISK = 'mount -t tmpfs -o size="$1" tmpfs "$2" && cd "$2" && export TMPDIR="$2" && shift 2 && exec "$@"'


def missing() -> str | None:
    """Return why this machine cannot have hosts apart, None if it can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    if shutil.which("ip") is None:
        return "ip, of the package iproute2, is not installed"
    probe = f"speck-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return "this machine allows no network namespaces"
    _ip("netns", "del", probe)
    return None


class Host:
    """A network namespace with one link to the bridge."""

    def __init__(self, number: int, bridge: str, folder: Path) -> None:
        self.name, self.address = f"{bridge}-{number}", f"{_SUBNET}.{number + 1}"
        self._link, self.folder = f"{bridge}v{number}", folder
        inner = f"{bridge}i{number}"
        _ip("netns", "add", self.name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", inner)
        _ip("link", "set", inner, "netns", self.name)
        _ip("link", "set", self._link, "master", bridge, "up")
        for words in (("addr", "add", f"{self.address}/24", "dev", inner), ("link", "set", inner, "up")):
            _ip("-n", self.name, *words)
        _ip("-n", self.name, "link", "set", "lo", "up")

    def line(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a command on this host."""
        return ["ip", "netns", "exec", self.name, "sh", "-c", _ON_OWN_DISK, "sh", _DISK, str(self.folder), *command]

    def cut(self) -> None:
        """Cut the link: nothing arrives and nothing is refused."""
        _ip("link", "set", self._link, "down")

    def join(self) -> None:
        """Join the link again."""
        _ip("link", "set", self._link, "up")

    def remove(self) -> None:
        """Remove the namespace and its link."""
        _ip("netns", "del", self.name)


@contextmanager
def hosts(number: int, folder: Path) -> Iterator[tuple[str, list[Host]]]:
    """Yield this machine's address on a bridge, and so many hosts on it that do not see what a folder holds."""
    bridge = f"sp{os.getpid()}"
    with ExitStack() as stack:
        _ip("link", "add", bridge, "type", "bridge")
        stack.callback(_ip, "link", "del", bridge)
        _ip("addr", "add", f"{_SUBNET}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        made = []
        for each in range(1, number + 1):
            made.append(Host(each, bridge, folder))
            stack.callback(made[-1].remove)
        yield f"{_SUBNET}.1", made


class Service:
    """A process of a host that is started again when it has ended, as Docker and Kubernetes do."""

    def __init__(self, host: Host, command: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.host = host
        self._line, self._environ, self._log = host.line(command), environ, log
        self._ended = threading.Event()
        self.process = self._start()
        self._watch = threading.Thread(target=self._supervise, daemon=True)
        self._watch.start()

    def kill(self) -> None:
        """Kill the process and those that it started; another one takes its place."""
        with suppress(psutil.NoSuchProcess):
            for process in (
                psutil.Process(self.process.pid),
                *psutil.Process(self.process.pid).children(recursive=True),
            ):
                process.kill()

    def fill_disk(self) -> None:
        """Fill the disk of the process."""
        with suppress(OSError), Path(f"/proc/{self.process.pid}/root{self.host.folder}/filler").open("wb") as file:
            while True:
                file.write(b"\0" * 2**20)

    def end(self) -> None:
        """Kill the process for good."""
        self._ended.set()
        self._watch.join()
        self.kill()
        self.process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._line, env=os.environ | self._environ, stdout=log, stderr=log)

    def _supervise(self) -> None:
        while not self._ended.wait(_SUPERVISED_SECONDS):
            if self.process.poll() is not None:
                self.process = self._start()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
