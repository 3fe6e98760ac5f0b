"""Run `speck` commands as a user does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SPECK = (sys.executable, "-m", "train.cli")


def speck(*arguments: object) -> dict[str, Any]:
    """Return the answer of a command; its log goes to that of the step."""
    command = [*SPECK, *map(str, arguments), "--json"]
    print(" ".join(command[2:]), flush=True)
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(process.stdout, flush=True)
    if process.returncode:
        raise RuntimeError(f"speck {arguments[0]} ended with exit code {process.returncode}")
    answer: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return answer
