"""What run.sh relies on; the run itself takes too long for a test."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
DOCKER = HERE.parents[1] / "docker"
SCRIPTS = sorted([*HERE.glob("*.sh"), *HERE.glob("images/*.sh")])
WALK = (HERE / "walk.sh").read_text(encoding="utf-8")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_can_be_run_and_read_by_its_shell(script):
    shell = script.read_text(encoding="utf-8").splitlines()[0].removeprefix("#!")
    assert script.stat().st_mode & 0o111, f"{script.name} is not executable"
    subprocess.run([shell, "-n", script], check=True)


def commands_on_one_host():
    """Return the Docker commands of README.md for one host without a GPU."""
    text = (DOCKER / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## One host") : text.index("### Why SeaweedFS")]
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
    lines = [re.sub(r"\s+# .*", "", line) for line in blocks.splitlines()]
    return [line for line in lines if line.startswith("docker ") and "compose.gpu.yaml" not in line]


def test_the_commands_of_the_readme_are_those_that_are_run():
    commands = commands_on_one_host()
    assert len(commands) > 6
    run = WALK.replace("exec -T ", "exec ").replace('"$dag"', "demo_build")
    for command in commands:
        if "compose ps" not in command:  # run.sh waits in a loop
            assert command.replace("exec -T ", "exec ") in run, command


def test_every_image_of_a_registry_has_a_stand_in(services):
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", (HERE / "images" / "Dockerfile").read_text("utf-8"), re.MULTILINE))
    foreign = {service["image"].partition(":")[0] for service in services.values() if "build" not in service}
    assert {name.rpartition("/")[2] for name in foreign} | {"python", "wheels"} == targets
