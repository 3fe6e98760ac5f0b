"""File names in label files find the listed image they mean, or none: a name that fits several is never guessed."""

import pytest

from etl.formats.image_index import ImageIndex
from etl.formats.image_names import (
    BESIDE,
    CASE,
    GUESS_OF,
    MATCH,
    PREFIX,
    ROOT,
    STEM,
    TAIL,
    NameRules,
    explain_missing,
    match_names,
)


def matched(names, images, file="labels.json", **rules):
    return match_names(file, names, ImageIndex(images), NameRules(**rules))


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("images/x.jpg", TAIL),
        ("images\\x.jpg", TAIL),
        ("D:\\sets\\spring\\x.jpg", TAIL),
        ("/home/me/x.jpg", TAIL),
        ("../../media/upload/4/x.jpg", TAIL),
        ("http://localhost:8080/data/upload/4/x.jpg", TAIL),
        ("https://bucket.example/a/x.jpg?X-Signature=abc&t=1", TAIL),
        ("https://store.example/v0/o/images%2Fx.jpg?alt=media", TAIL),
        ("s3://bucket/deep/x.jpg", TAIL),
        ("file:///data/x.jpg", TAIL),
        ("/data/local-files/?d=drone/images/x.jpg", TAIL),
        ("/data/local-files/?d=drone%5Cx.jpg", TAIL),
        ("images/X.JPG", CASE),
        ("upload/1a2b3c4d-x.jpg", PREFIX),
        ("0123456789abcdef0123456789abcdef_x.jpg", PREFIX),
        ("x.png", STEM),
        ("labels/x.tif", STEM),
    ],
)
def test_a_name_finds_the_only_image_it_can_mean(name, way):
    found = matched([name], ["flight/x.jpg", "flight/y.jpg"])
    assert (found.found, found.ways) == ({name: "flight/x.jpg"}, {name: way})


def test_a_name_with_a_percent_sign_or_a_question_mark_is_taken_as_written_first():
    images = ["a%20b.jpg", "a b.jpg", "c?d=e.jpg", "e.jpg"]
    assert matched(["in/a%20b.jpg", "in/c?d=e.jpg"], images).found == {
        "in/a%20b.jpg": "a%20b.jpg",
        "in/c?d=e.jpg": "c?d=e.jpg",
    }


def test_the_longest_common_end_decides_between_images_of_one_name():
    images = ["north/1/x.jpg", "south/1/x.jpg", "south/2/x.jpg"]
    assert matched(["D:/all/south/1/x.jpg"], images).found == {"D:/all/south/1/x.jpg": "south/1/x.jpg"}
    unclear = matched(["D:/all/1/x.jpg"], images)
    assert (unclear.found, unclear.ambiguous) == ({}, {"D:/all/1/x.jpg": ("north/1/x.jpg", "south/1/x.jpg")})


@pytest.mark.parametrize("names", [["a/x.jpg", "b/x.jpg"], ["x.jpg", "old/x.jpg"], ["x.png", "x.tif"]])
def test_two_names_never_get_one_image_by_a_guess(names):
    found = matched(names, ["x.jpg"])
    assert found.found == ({"x.jpg": "x.jpg"} if "x.jpg" in names else {})
    assert set(found.ambiguous) == set(names) - {"x.jpg"}


def test_images_of_one_stem_are_not_guessed():
    assert matched(["x.tif"], ["x.jpg", "x.png"]).ambiguous == {"x.tif": ("x.jpg", "x.png")}


def test_the_path_itself_comes_first_and_is_no_guess():
    images = ["set/x.jpg", "x.jpg"]
    beside = matched(["x.jpg"], images, file="set/labels.json", guesses=())
    assert (beside.found, beside.ways) == ({"x.jpg": "set/x.jpg"}, {"x.jpg": BESIDE})
    root = matched(["set/x.jpg"], images, file="other/labels.json", guesses=())
    assert (root.found, root.ways) == ({"set/x.jpg": "set/x.jpg"}, {"set/x.jpg": ROOT})


def test_the_users_rule_sees_the_extension_and_comes_before_guesses():
    images = ["000405.jpg", "000406.jpg", "old/frame_000405.png"]
    found = matched(["frame_000405.png", "in\\frame_000406.png"], images, match=r"^(?:in/)?(?:frame_)?(\d+)\.")
    assert found.found == {"frame_000405.png": "000405.jpg", "in\\frame_000406.png": "000406.jpg"}
    assert set(found.ways.values()) == {MATCH}


@pytest.mark.parametrize("name", ["/", ".", "..", "//", " ", "\\"])
def test_a_name_without_a_last_part_meets_no_image(name):
    assert not matched([name], ["x.jpg", "etc.jpg"], match=r"(x)").found


def test_a_rule_for_paths_without_extension_works_too():
    assert matched(["frame_7.png"], ["7.jpg"], match=r"(\d+)$").found == {"frame_7.png": "7.jpg"}


def test_a_rule_that_fits_several_images_or_names_decides_nothing():
    assert not matched(["frame_7.png"], ["a/7.jpg", "b/7.jpg"], match=r"(\d+)\.").found
    assert not matched(["a_7.png", "b_7.png"], ["7.jpg"], match=r"(\d+)\.").found


@pytest.mark.parametrize(
    ("way", "name"), [(TAIL, "in/x.jpg"), (CASE, "X.jpg"), (PREFIX, "1a2b3c4d-x.jpg"), (STEM, "x.png")]
)
def test_a_guess_that_is_not_pinned_is_not_made(way, name):
    assert not matched([name], ["x.jpg"], guesses=()).found
    assert matched([name], ["x.jpg"], guesses=[GUESS_OF[way]]).ways == {name: way}


def test_what_would_join_missing_names_is_said():
    names, index = [f"frame_{n:06d}.png" for n in range(9)], ImageIndex([f"{n:06d}.jpg" for n in range(7)])
    found, expected = explain_missing(names, index, NameRules())
    assert found == "no such image: tried its path, path ends, letter case, upload prefixes and stems"
    assert expected.startswith("an image file; source.match: '") and expected.endswith("' joins 7 of 9")
    assert explain_missing(["x.png"], ImageIndex(["y.jpg"]), NameRules())[1] == "an image file"


def test_guesses_that_the_plan_does_not_allow_are_offered():
    _, expected = explain_missing(["in/x.jpg"], ImageIndex(["x.jpg"]), NameRules(guesses=()))
    assert expected == "an image file; 1 of 1 name can be guessed: `speck plan --update` allows it"


def test_many_label_files_look_at_the_names_of_all_images_once():
    seen = []

    def first_letter(name):
        seen.append(name)
        return name[0]

    index = ImageIndex(["a/x.jpg", "b/y.jpg"])
    for _ in range(3):
        assert index.by_name(first_letter) == {"x": ["a/x.jpg"], "y": ["b/y.jpg"]}
    assert seen == ["x.jpg", "y.jpg"]


@pytest.mark.parametrize(
    ("file", "name", "image"),
    [
        ("annotations/instances_train.json", "x.jpg", "images/val/x.jpg"),
        ("all.json", "train2017/x.jpg", "val/x.jpg"),
        ("all.json", "north/x.jpg", "south/x.jpg"),  # another name shows what the file calls the folder south
    ],
)
def test_an_image_of_another_split_or_folder_is_not_guessed(file, name, image):
    found = matched([name, "south/y.jpg"], [image, "south/y.jpg"], file)
    assert (found.found, found.elsewhere) == ({"south/y.jpg": "south/y.jpg"}, {name: image})


@pytest.mark.parametrize(
    ("file", "name", "image"),
    [
        ("lvis_v1_val.json", "http://images.example/train2017/x.jpg", "train2017/x.jpg"),
        ("trainval.json", "x.jpg", "test/x.jpg"),
        ("all.json", "D:/set/south/x.jpg", "south/x.jpg"),
        ("all.json", "old/x.jpg", "x.jpg"),
    ],
)
def test_a_split_or_folder_that_fits_or_is_unknown_allows_the_guess(file, name, image):
    assert matched([name, "south/y.jpg"], [image, "south/y.jpg"], file).ways[name] == TAIL


def test_the_nearest_folder_of_several_projects_is_that_of_the_file():
    images = [f"{project}/images/x.jpg" for project in ("one", "two")]
    assert matched(["x.jpg"], images, "two/annotations/all.json").found == {"x.jpg": "two/images/x.jpg"}
    assert matched(["x.jpg"], images, "all.json").found == {}
