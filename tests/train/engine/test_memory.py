"""Free memory as Linux reports it, in and outside a container."""

import pytest

from train.engine import memory


@pytest.mark.parametrize(
    ("limit", "used", "files", "free"),
    [
        ("max", 0, 0, 8000 * 1024),
        ("6000000", 2_000_000, 500_000, 4_500_000),
        ("99999999", 9, 0, 8000 * 1024),
        ("5", 9, 0, 0),
    ],
)
def test_the_free_memory_is_that_of_the_machine_or_of_the_container(tmp_path, limit, used, files, free):
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:  9000 kB\nMemFree:  100 kB\nMemAvailable:  8000 kB\n")
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 7\nactive_file 3\ninactive_file {files}\n")
    assert memory.free_bytes(tmp_path) == free


def test_a_system_without_these_files_has_no_known_free_memory(tmp_path):
    assert memory.free_bytes(tmp_path) == 0
