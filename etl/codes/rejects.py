"""The reasons of the rejects table."""

from __future__ import annotations

from etl.codes.entry import RejectReason

_REASONS = (
    # names and pairing
    RejectReason(
        "undecodable_name",
        ("file", "image"),
        "The name of the file is not UTF-8.",
        "Rename the file.",
    ),
    RejectReason(
        "ambiguous_name",
        ("image",),
        "Two images have the same name except for how its accents are encoded (Unicode NFC or NFD).",
        "Rename one of them.",
    ),
    RejectReason(
        "ambiguous_label",
        ("file", "image", "annotation"),
        "Several images or label files have the same name, so that it is unknown which belong together.",
        "Give each image and its label file a name of their own, or set source.match.",
    ),
    RejectReason(
        "label_without_image",
        ("file",),
        "Label files without an image.",
        "Check that source.images is the right folder, or set source.match.",
    ),
    RejectReason(
        "several_label_sets",
        ("file", "image"),
        "Several folders hold label files of the same images.",
        "Set source.annotations to one of the folders.",
    ),
    RejectReason(
        "other_filename",
        ("file",),
        "Label files have the name of one image, and name another existing image in <filename>.",
        "Check which one they belong to. source.match: '([^/]+)\\.' keeps to the names of the files.",
    ),
    RejectReason(
        "unread_label",
        ("file",),
        "Files that may hold labels are not read.",
        "Export the labels in the format of source.format, or set source.format; move other files away.",
    ),
    RejectReason(
        "second_label",
        ("file",),
        "Label files of another format, for images whose labels are read.",
        "Check that source.format and source.annotations name the labels that you mean.",
    ),
    RejectReason(
        "unknown_file",
        ("file",),
        "Files below source.annotations of no known label format are not read.",
        "Move them away, or set source.annotations to the folder of the label files.",
    ),
    RejectReason(
        "unlabelled_image",
        ("file",),
        "Images without labels are not used, because source.unlabelled is reject.",
        "Label them, or set source.unlabelled to background.",
    ),
    RejectReason(
        "link_outside",
        ("file", "image"),
        "Links lead out of source.images and source.annotations.",
        "Set source.follow_links to true, or source.images to the folder that they lead to.",
    ),
    RejectReason(
        "broken_link",
        ("file", "image"),
        "Links lead to files that do not exist.",
        "Restore the files, or delete the links.",
    ),
    RejectReason(
        "special_file",
        ("file", "image"),
        "Named pipes, sockets and devices are not opened.",
        "Delete them, or copy their content to a regular file.",
    ),
    RejectReason(
        "unreadable_folder",
        ("file",),
        "A folder cannot be listed.",
        "Give its read permission to the user who runs Speck.",
    ),
    RejectReason(
        "unlisted_image",
        ("file",),
        "No label file lists these images, so they are not used, not even as background.",
        "Add an entry for each image, without boxes if it is background.",
    ),
    RejectReason(
        "missing_image",
        ("image", "annotation"),
        "Images that the labels name do not exist, so their boxes are not used.",
        "Check source.images, set source.match, or remove their labels.",
    ),
    # images
    RejectReason(
        "broken_image",
        ("image", "annotation"),
        "Images that do not decode to their end are left out.",
        "Copy them again from their origin.",
    ),
    RejectReason(
        "unsupported_format",
        ("image", "annotation"),
        "Images of a format that is not read, whose library is not installed, or with another suffix are left out.",
        "Convert them to JPEG or PNG, install the library that the reject names, or rename them by their format.",
    ),
    RejectReason(
        "too_many_pixels",
        ("image", "annotation"),
        "Images with more pixels than source.max_megapixels allows are left out.",
        "Raise source.max_megapixels, or check that the file is not damaged.",
    ),
    RejectReason(
        "unsupported_pixels",
        ("image", "annotation"),
        "An image has samples of a kind that is not read, or bands of which it is unknown which are colours.",
        "Name the red, green and blue band in source.bands, or convert the image to grey or RGB of 8 or 16 bits.",
    ),
    RejectReason(
        "size_mismatch",
        ("image", "annotation"),
        "The labels give the image another width and height than its file has.",
        "Check that labels and image belong together.",
    ),
    # label files and their entries
    RejectReason(
        "unreadable_label",
        ("image", "annotation"),
        "Nothing could be read from the label file, so its image is not used: wrong encoding or syntax.",
        "Save it as UTF-8 in the format of source.format.",
    ),
    RejectReason(
        "malformed_line",
        ("annotation",),
        "A line of a label file is not a box in its format.",
        "Correct or delete the line.",
    ),
    RejectReason(
        "pose_row",
        ("annotation",),
        "A row of a YOLO label file is no polygon but a box with keypoints, a confidence or a track id.",
        "For keypoints write `kpt_shape: [points, 2 or 3]` into data.yaml; delete confidences and track ids.",
    ),
    RejectReason(
        "malformed_box",
        ("annotation",),
        "The coordinates of a box are missing or not finite numbers.",
        "Correct or delete the box.",
    ),
    RejectReason(
        "misplaced_object",
        ("annotation",),
        "An <object> of a VOC file is not directly in <annotation>, or a <bndbox> is in no <object>.",
        "Write each as an <object> directly in <annotation>, or delete it.",
    ),
    RejectReason(
        "repeated_key",
        ("file", "image", "annotation"),
        "A key or element stands twice in an entry of a label file, so that it is unknown which value is meant.",
        "Delete the wrong one.",
    ),
    RejectReason(
        "malformed_flag",
        ("annotation",),
        "It is unclear whether a box is a crowd or an ignore region.",
        "Write 1 or 0.",
    ),
    RejectReason(
        "malformed_image",
        ("image",),
        "An image entry of a dataset file has no id or no file name.",
        "Add both, or delete the entry.",
    ),
    RejectReason(
        "missing_category",
        ("annotation",),
        "An object has no class name.",
        "Name its class, or delete it.",
    ),
    RejectReason(
        "unknown_category_id",
        ("annotation",),
        "A box has a class id that is not in the list of classes.",
        "Correct the id, or add the class.",
    ),
    RejectReason(
        "unknown_image_id",
        ("annotation",),
        "A box has an image id that its file does not define.",
        "Correct the id, or delete the box.",
    ),
    RejectReason(
        "ambiguous_image_id",
        ("image", "annotation"),
        "Several images of one file have the same id, so that it is unknown which one a box belongs to.",
        "Give each image an id of its own.",
    ),
    RejectReason(
        "duplicate_annotation",
        ("annotation",),
        "Two entries of one image repeat the same box.",
        "Write each box in one file, for one image id.",
    ),
    # boxes
    RejectReason(
        "not_finite",
        ("annotation",),
        "Boxes with a coordinate that is not a finite number are dropped.",
        "Correct them.",
    ),
    RejectReason(
        "zero_size",
        ("annotation",),
        "These boxes have no width or no height as written (in VOC, which includes both ends, one pixel at most) and "
        "are dropped.",
        "Correct or delete them.",
    ),
    RejectReason(
        "outside_image",
        ("annotation",),
        "These boxes lie wholly outside their image and are dropped.",
        "Check whether the labels were drawn on another size of the image.",
    ),
    RejectReason(
        "shares_for_pixels",
        ("annotation",),
        "The coordinates of these boxes are shares of the image's size, from 0 to 1, in a format with pixels.",
        "Multiply x by the image's width and y by its height; or set source.format to the format that they are in.",
    ),
    RejectReason(
        "corners_for_size",
        ("annotation",),
        "These boxes seem to be written as two corners in a format with width and height: many leave their image.",
        "Write x y width height, for YOLO cx cy width height.",
    ),
    RejectReason(
        "size_for_corners",
        ("annotation",),
        "These boxes seem to be written with width and height in a format with two corners.",
        "Add x to the width and y to the height.",
    ),
    RejectReason(
        "unknown_category",
        ("annotation",),
        "Boxes of a class that is not in the list of classes are dropped.",
        "Add it to the class list: in source.categories, or by `speck plan CONFIG --update` if the plan pins the list.",
    ),
    # input files of `speck predict`
    RejectReason("unreadable_file", (), "The file cannot be opened or read.", "Check its path and permissions."),
    RejectReason("broken_video", (), "The video does not decode to its end.", "Copy it again from its origin."),
)

REASONS = {entry.reason: entry for entry in _REASONS}


def check_reason(kind: str, reason: str) -> None:
    """Raise KeyError unless the reason is registered for this kind of reject."""
    if reason not in REASONS or kind not in REASONS[reason].kinds:
        raise KeyError(f"no such reject reason of kind {kind}: {reason}")
