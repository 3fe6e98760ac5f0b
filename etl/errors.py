"""The errors that Speck raises for the user.

SpeckError                 the run failed (exit code 1)
├── SourceError            too much of the source is unusable
├── StoreError             a file of the store is missing, damaged or locked by another run
├── TaskError              a task of a distributed run failed or was cancelled
└── ConfigError            the command or the configuration is wrong (exit code 2)
"""

from __future__ import annotations

from etl.credentials import hide
from etl.one_line import one_line

_SHOWN = 1000  # characters of each part of a message, which may quote a file of any size


class SpeckError(Exception):
    """The run cannot continue; the message gives the reason to the user."""

    exit_code = 1

    def __str__(self) -> str:
        return hide(super().__str__())


class SourceError(SpeckError):
    """The source is unusable as a whole, for example too many broken images."""


class StoreError(SpeckError):
    """A file of the store is missing, damaged or locked by another run; the message is one line."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class TaskError(SpeckError):
    """A task of a distributed run failed, was cancelled, or repeatedly killed its worker."""


class ConfigError(SpeckError):
    """The command or the configuration is wrong; the message is one line with file, key, found, expected."""

    exit_code = 2

    def __init__(self, where: object, key: str, found: object, expected: str) -> None:
        self.where, self.key, self.found, self.expected = str(where), key, found, expected
        super().__init__(str(self))

    def __str__(self) -> str:
        key = f" {_start(self.key)}:" if self.key else ""
        where = f"{self.where}:" if self.where else ""
        return one_line(hide(f"{where}{key} found {_start(self.found)}, expected {_start(self.expected)}".lstrip()))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, str, object, str]]:
        return type(self), (self.where, self.key, self.found, self.expected)


def _start(value: object) -> str:
    text = hide(str(value))  # before a credential is cut in two
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
