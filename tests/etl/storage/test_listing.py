from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from etl.storage import store
from etl.storage.listing import FolderListing, is_special, list_folder


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def link(folder: Path, name: str, target: Path | str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(target)


def paths(listing: FolderListing) -> list[str]:
    return [file.path for file in listing.files]


def skipped(listing: FolderListing) -> dict[str, str]:
    return {entry.path: entry.reason for entry in listing.skipped}


def test_files_are_listed_as_the_store_lists_them_without_hidden_ones(tmp_path: Path) -> None:
    write(tmp_path, "a/y.txt", "x.jpg", ".hidden/q", "a/.s")
    listing = list_folder(str(tmp_path))
    assert listing == FolderListing(tuple(store.list_files(str(tmp_path))))
    assert paths(listing) == ["a/y.txt", "x.jpg"]


def test_a_file_that_a_link_leads_to_is_listed_once_under_its_own_path(tmp_path: Path) -> None:
    write(tmp_path, "real/a.jpg", "real/b.jpg")
    link(tmp_path, "images/a.jpg", "../real/a.jpg")
    link(tmp_path, "folder", "real")
    listing = list_folder(str(tmp_path))
    assert paths(listing) == ["real/a.jpg", "real/b.jpg"]
    assert listing.aliases == {
        "folder/a.jpg": "real/a.jpg",
        "folder/b.jpg": "real/b.jpg",
        "images/a.jpg": "real/a.jpg",
    }
    assert not listing.skipped


def test_a_link_gives_a_file_its_suffix_and_a_hidden_file_its_path(tmp_path: Path) -> None:
    write(tmp_path, "blobs/0a1b", ".annex/2c3d.jpg", ".annex/deep/c.jpg")
    link(tmp_path, "a.jpg", "blobs/0a1b")
    link(tmp_path, "b.jpg", ".annex/2c3d.jpg")
    link(tmp_path, "more", ".annex/deep")
    assert paths(list_folder(str(tmp_path))) == ["a.jpg", "b.jpg", "blobs/0a1b", "more/c.jpg"]


@pytest.mark.parametrize("target", [".", "..", "../b"])
def test_cycles_of_links_end(tmp_path: Path, target: str) -> None:
    write(tmp_path, "a/x.jpg", "b/y.jpg")
    link(tmp_path, "a/loop", target)
    link(tmp_path, "b/loop", "../a")
    assert paths(list_folder(str(tmp_path))) == ["a/x.jpg", "b/y.jpg"]


def test_a_link_out_of_the_folder_names_what_lies_behind_it(tmp_path: Path) -> None:
    write(tmp_path, "data/x.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg", "single.jpg")
    link(tmp_path, "data/folder", "../elsewhere")
    link(tmp_path, "data/s.jpg", "../single.jpg")
    listing = list_folder(str(tmp_path / "data"))
    assert paths(listing) == ["x.jpg"]
    assert skipped(listing) == dict.fromkeys(("folder/b.jpg", "folder/deep/c.jpg", "s.jpg"), "link_outside")
    assert listing.skipped[0].found == f"a link to {tmp_path / 'elsewhere'}"


def test_a_link_into_another_root_or_with_follow_links_anywhere_is_followed(tmp_path: Path) -> None:
    write(tmp_path, "data/x.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg")
    link(tmp_path, "data/folder", "../elsewhere")
    link(tmp_path, "data/again", "../elsewhere/deep")
    link(tmp_path, "elsewhere/back", "../data")
    link(tmp_path, "elsewhere/deep/up", "..")
    followed = ["again/c.jpg", "folder/b.jpg", "x.jpg"]
    for listing in (
        list_folder(str(tmp_path / "data"), [str(tmp_path / "elsewhere")]),
        list_folder(str(tmp_path / "data"), follow_links=True),
    ):
        assert paths(listing) == followed
        assert not listing.skipped


def test_the_stamp_of_a_linked_file_changes_with_its_target(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/a", "elsewhere/b", "data/x")
    link(tmp_path, "data/l.jpg", "../elsewhere/a")

    def listed() -> FolderListing:
        return list_folder(str(tmp_path / "data"), follow_links=True)

    seen = [listed()]
    os.utime(tmp_path / "elsewhere" / "a", ns=(0, 1))
    seen.append(listed())
    (tmp_path / "data" / "l.jpg").unlink()
    os.utime(tmp_path / "elsewhere" / "b", ns=(0, 1))
    link(tmp_path, "data/l.jpg", "../elsewhere/b")
    seen.append(listed())
    assert len({listing.files for listing in seen}) == 3


def test_pipes_sockets_devices_and_broken_links_are_named_and_never_opened(tmp_path: Path) -> None:
    write(tmp_path, "x.jpg")
    os.mkfifo(tmp_path / "pipe.txt")
    link(tmp_path, "zero.jpg", "/dev/zero")
    link(tmp_path, "broken.jpg", "nowhere.jpg")
    link(tmp_path, "itself.jpg", "itself.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s.jpg"))
        listing = list_folder(str(tmp_path))
    assert paths(listing) == ["x.jpg"]
    assert skipped(listing) == {
        "broken.jpg": "broken_link",
        "itself.jpg": "broken_link",
        "pipe.txt": "special_file",
        "s.jpg": "special_file",
        "zero.jpg": "special_file",
    }
    assert {entry.found for entry in listing.skipped if entry.reason == "special_file"} == {
        "a named pipe",
        "a socket",
        "a link to a character device",
    }


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "x.jpg", "secret/y.jpg")
    scandir = os.scandir

    def refuse(folder: str) -> object:
        if folder.endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    listing = list_folder(str(tmp_path))
    assert (paths(listing), skipped(listing)) == (["x.jpg"], {"secret": "unreadable_folder"})


def test_a_missing_folder_is_empty(tmp_path: Path) -> None:
    assert list_folder(str(tmp_path / "nowhere")) == FolderListing(())


def test_a_special_file_is_told_from_files_folders_and_nothing(tmp_path: Path) -> None:
    write(tmp_path, "x")
    os.mkfifo(tmp_path / "pipe")
    assert [is_special(str(tmp_path / name)) for name in ("pipe", "x", ".", "nowhere")] == [True, False, False, False]
    assert is_special("/dev/zero")
    assert not is_special("memory://bucket/x")
