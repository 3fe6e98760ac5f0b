"""Labels and images are joined by key, then by folder; a real tie is said, never guessed."""

from hypothesis import given, strategies as st

from etl.formats.pairing import pair_labels


def test_the_stem_joins_whatever_the_extension():
    found = pair_labels(["DJI_1.txt", "b.c.txt"], ["DJI_1.JPG", "b.c.png", "alone.jpg"], None)
    assert found.pairs == {"DJI_1.JPG": "DJI_1.txt", "b.c.png": "b.c.txt"}
    assert not found.unmatched_labels
    assert not found.ambiguous


def test_a_label_without_image_is_unmatched():
    assert pair_labels(["a.txt", "b.txt"], ["b.jpg"], None).unmatched_labels == ["a.txt"]


def test_twin_folders_belong_together():
    images = ["images/train/a.jpg", "images/val/a.jpg"]
    assert pair_labels(["labels/train/a.txt", "labels/val/a.txt"], images, None).pairs == {
        "images/train/a.jpg": "labels/train/a.txt",
        "images/val/a.jpg": "labels/val/a.txt",
    }


def test_twin_folders_inside_the_splits_belong_together():
    images = ["train/JPEGImages/a.jpg", "val/JPEGImages/a.jpg"]
    assert pair_labels(["train/Annotations/a.xml", "val/Annotations/a.xml"], images, None).pairs == {
        "train/JPEGImages/a.jpg": "train/Annotations/a.xml",
        "val/JPEGImages/a.jpg": "val/Annotations/a.xml",
    }


def test_the_same_folder_comes_before_its_twin():
    found = pair_labels(["labels/a.txt", "images/a.txt"], ["images/a.jpg"], None)
    assert found.pairs == {"images/a.jpg": "images/a.txt"}
    assert found.unmatched_labels == ["labels/a.txt"]


def test_the_longest_common_end_of_the_folders_decides():
    images = ["Sequences/s1/0001.jpg", "Sequences/s2/0001.jpg"]
    assert pair_labels(["gt/s1/0001.txt", "gt/s2/0001.txt"], images, None).pairs == {
        "Sequences/s1/0001.jpg": "gt/s1/0001.txt",
        "Sequences/s2/0001.jpg": "gt/s2/0001.txt",
    }


def test_two_images_of_one_stem_in_one_folder_are_ambiguous():
    found = pair_labels(["a.txt"], ["a.jpg", "a.png"], None)
    assert not found.pairs
    assert [(tie.labels, tie.images) for tie in found.ambiguous] == [(("a.txt",), ("a.jpg", "a.png"))]


def test_two_labels_in_foreign_folders_are_ambiguous():
    found = pair_labels(["x/a.txt", "y/a.txt"], ["z/a.jpg"], None)
    assert not found.pairs
    assert found.ambiguous[0].labels == ("x/a.txt", "y/a.txt")


def test_what_is_left_over_is_not_paired_by_exhaustion():
    found = pair_labels(["x/a.txt", "z/a.txt"], ["x/a.jpg", "y/a.jpg"], None)
    assert found.pairs == {"x/a.jpg": "x/a.txt"}
    assert [(tie.labels, tie.images) for tie in found.ambiguous] == [(("z/a.txt",), ("y/a.jpg",))]


def test_an_image_whose_namesake_took_the_label_has_none():
    found = pair_labels(["train/a.txt"], ["train/a.jpg", "val/a.jpg"], None)
    assert found.pairs == {"train/a.jpg": "train/a.txt"}
    assert not found.ambiguous


def test_a_pattern_gives_the_key_by_its_group_or_as_a_whole():
    assert pair_labels(["gt_0012.txt"], ["img_0012.jpg"], r"_(\d+)$").pairs == {"img_0012.jpg": "gt_0012.txt"}
    assert pair_labels(["gt_0012.txt"], ["img_0012.jpg"], r"\d+").pairs == {"img_0012.jpg": "gt_0012.txt"}
    assert pair_labels(["s1/gt.txt", "s2/gt.txt"], ["s2/frame.jpg"], r"s\d/").pairs == {"s2/frame.jpg": "s2/gt.txt"}


def test_a_label_the_pattern_does_not_find_is_unmatched():
    assert pair_labels(["gt.txt"], ["gt.jpg"], r"\d+").unmatched_labels == ["gt.txt"]


def test_composed_and_decomposed_letters_are_the_same():
    assert pair_labels(["e\u0301.txt"], ["\u00e9.jpg"], None).pairs == {"\u00e9.jpg": "e\u0301.txt"}


PATHS = st.lists(
    st.tuples(st.lists(st.sampled_from(["images", "labels", "train", "val", "x"]), max_size=3), st.sampled_from("ab")),
    max_size=8,
    unique_by=str,
)


@given(PATHS, PATHS, st.randoms())
def test_every_label_is_used_once_or_reported_whatever_the_order(label_parts, image_parts, random):
    labels = ["/".join([*folder, f"{stem}.txt"]) for folder, stem in label_parts]
    images = ["/".join([*folder, f"{stem}.jpg"]) for folder, stem in image_parts]
    found = pair_labels(labels, images, None)
    tied = [label for tie in found.ambiguous for label in tie.labels]
    assert sorted([*found.pairs.values(), *found.unmatched_labels, *tied]) == sorted(labels)
    tied_images = [image for tie in found.ambiguous for image in tie.images]
    assert len({*found.pairs, *tied_images}) == len(found.pairs) + len(tied_images)
    random.shuffle(labels)
    random.shuffle(images)
    assert pair_labels(labels, images, None) == found
