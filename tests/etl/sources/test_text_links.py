from __future__ import annotations

from pathlib import Path

from tests.etl.sources.listing import BOX, laid_out, scanned, told


def test_a_text_file_with_the_path_of_a_file_or_folder_is_a_link_to_it(tmp_path: Path) -> None:
    files = {
        "real/a/0001.jpg": bytes(999),
        "real/b/0001.jpg": bytes(999),
        "labels/a/0001.txt": BOX,
        "labels/b/0001.txt": BOX,
    }
    laid_out(tmp_path, {**files, "images/a": b"../real/a", "images/b/0001.jpg": b"../../real/b/0001.jpg\n"})
    found = scanned(tmp_path)
    assert found.paired == {"real/a/0001.jpg": ("labels/a/0001.txt",), "real/b/0001.jpg": ("labels/b/0001.txt",)}
    assert [image.path for image in found.images] == ["real/a/0001.jpg", "real/b/0001.jpg"]
    assert [(row.code, row.count, row.files) for row in found.findings] == [
        ("text_links", 2, ("images/a", "images/b/0001.jpg"))
    ]
    assert found.rejects == ()


def test_other_small_files_stay_what_they_are(tmp_path: Path) -> None:
    laid_out(
        tmp_path,
        {"a.jpg": b"./nowhere.jpg", "b.jpg": b"\xff\xd8\xff", "notes": b"see a.jpg/b", "a.txt": BOX, "b.txt": BOX},
    )
    found = scanned(tmp_path)
    assert [image.path for image in found.images] == ["a.jpg", "b.jpg"]
    assert (found.findings, told(found)) == ((), set())
