"""The codes of findings. Every reject reason is one too, reported as a warning."""

from __future__ import annotations

from etl.codes.entry import FindingCode
from etl.codes.rejects import REASONS
from etl.codes.split_findings import SPLIT_AND_PLAN

_LABELS = (
    FindingCode(
        "sorted_corners", ("warning",),
        "Boxes are written with left and right or top and bottom exchanged; their corners were sorted.",
        "Check an example: were they drawn from the other corner, or are the last numbers width and height?",
    ),
    FindingCode(
        "clipped", ("info",),
        "These boxes reach outside their image and are cut at its border.",
        "Look at a few: are they shifted?",
    ),
    FindingCode(
        "under_3px", ("warning",),
        "One side of these boxes is under 3 source pixels: too small to learn; a one-pixel labelling error halves the "
        "overlap.",
        "Check whether they are labelling errors; ontology.min_side drops them.",
    ),
    FindingCode(
        "duplicate_boxes", ("warning",),
        "Pairs of boxes of one class overlap with an IoU above 0.8: the same object labelled twice, so that one of the "
        "two is counted as missed.",
        "Delete one of each.",
    ),
    FindingCode(
        "nested_boxes", ("info",),
        "Boxes that lie almost wholly in a larger one of their class: parts and the whole, or members and their group?",
        "Label one or the other.",
    ),
    FindingCode(
        "several_classes", ("warning",),
        "Boxes of two classes on one object (IoU above 0.5): each is a false positive of the other.",
        "Keep one of them, or merge the classes (ontology.merge).",
    ),
    FindingCode(
        "size_outliers", ("info",),
        "Boxes are far larger or smaller than the others of their class.",
        "Look at them: labelling errors, groups, or another class?",
    ),
    FindingCode(
        "shape_outliers", ("info",),
        "Boxes are far wider, taller or longer than the others of their class.",
        "Look at them: labelling errors, groups, or another class?",
    ),
    FindingCode(
        "reviewed_labels", ("info",),
        "Labels that differ from their files by answers of the review: added, moved, removed, or of another class.",
        "",
    ),
    FindingCode(
        "stale_answers", ("info",),
        "Answers of the review that are not applied, because the label or the image has changed since.",
        "If the labels were corrected in their files, nothing is left to do; if not, run `speck find-errors` again.",
    ),
    FindingCode(
        "whole_image_boxes", ("warning", "info"),
        "Boxes cover at least 90 % of their image: tags of the image, not objects in it; a warning if they are more "
        "than 5 % of all boxes.",
        "Draw boxes around the objects, delete these boxes, or drop the class (ontology.drop).",
    ),
    FindingCode("difficult", ("info",), "Boxes marked difficult are trained on and ignored in evaluation.", ""),
    FindingCode(
        "ignore_regions", ("info",),
        "Crowd and ignore regions are painted out in training and ignored in evaluation.",
        "",
    ),
    FindingCode("empty_labels", ("info",), "A label file exists and holds no box: used as background images.", ""),
    FindingCode(
        "unlabelled_images", ("critical", "warning", "info"),
        "Images without a label file are used as background.",
        "Check that they were labelled at all: an unlabelled object teaches the detector to miss it.",
    ),
    FindingCode(
        "image_names", ("warning", "info"),
        "Label files name images by other paths than where they are.",
        "Look at a few images with their boxes; source.match sets a rule for names.",
    ),
    FindingCode(
        "files_without_boxes", ("info",),
        "Label files hold no labelled boxes and are not used.",
        "Name the files to use in source.annotations.",
    ),
    FindingCode(
        "repeated_by_keypoints", ("info",),
        "Keypoint files repeat boxes of other label files: each is used once, from the other file.",
        "",
    ),
    FindingCode(
        "loose_types", ("info",),
        "Boxes have ids, numbers or flags of another type than elsewhere in their file, such as \"1\" for 1: they are "
        "read as what they say.",
        "",
    ),
    FindingCode(
        "too_many_rejects", ("critical",),
        "More images are unusable than source.max_rejects allows: a build of all images fails.",
        "Repair the images, or raise source.max_rejects.",
    ),
)  # fmt: skip

_NAMES = (
    FindingCode(
        "paired_by_filename", ("warning",),
        "Label files belong to the image that their <filename> names, because no image has their own name.",
        "Check an example; source.match sets how names are joined.",
    ),
    FindingCode(
        "paired_by_suffix", ("warning",),
        "Label files and images are paired although their names have a different number of suffixes, as a.jpg.txt.",
        "Check an example; source.match sets how names are joined.",
    ),
    FindingCode(
        "paired_by_case", ("warning",),
        "Label files and images are paired although their names differ in upper and lower case.",
        "Check an example; source.match sets how names are joined.",
    ),
    FindingCode(
        "paired_by_spelling", ("warning",),
        "Label files and images are paired although their names differ in blanks, percent encoding or Unicode forms.",
        "Check an example; source.match sets how names are joined.",
    ),
    FindingCode(
        "paired_by_affix", ("warning",),
        "Label files and images are paired although one side has a prefix or suffix more.",
        "Check an example; source.match sets how names are joined.",
    ),
    FindingCode(
        "text_links", ("warning",),
        "Files of text with the path of another file are taken for links to it: a copy has lost its symbolic links.",
        "Copy the source again with its links, for example with `cp -a`, `tar` or `git config core.symlinks true`.",
    ),
    FindingCode(
        "names_above", ("warning",),
        "The class names were found in a folder above images and labels.",
        "Set source.categories to the file.",
    ),
)  # fmt: skip

_IMAGES = (
    FindingCode("mpo", ("info",), "Multi-picture JPEGs, as some cameras write: their first picture is used.", ""),
    FindingCode(
        "extension_mismatch", ("info",),
        "The actual format differs from the file extension; the extension is ignored.",
        "Rename the files to be safe.",
    ),
    FindingCode(
        "exif_not_applied", ("warning",),
        "EXIF rotates these images, but their labels fit the images as stored, or source.exif is ignore: they are not "
        "rotated.",
        "Viewers that apply EXIF show them rotated: remove the tag.",
    ),
    FindingCode(
        "unknown_rotation", ("warning",),
        "EXIF rotates these images, and their labels declare no size that tells whether the boxes were drawn on the "
        "rotated picture.",
        "Look at both readings on the audit page, and set source.exif.",
    ),
    FindingCode(
        "mended_jpegs", ("info",),
        "JPEGs whose picture is whole, but with stray bytes before the end marker or without it.",
        "Save them again: other programs may refuse them.",
    ),
    FindingCode(
        "unread_bands", ("info",),
        "Images have more bands than the three that are used.",
        "source.bands chooses others, counted from 1.",
    ),
    FindingCode(
        "unread_pages", ("warning",),
        "Files hold several pictures (pages or frames), of which the first is used.",
        "Save each picture as a file of its own if it should be used.",
    ),
    FindingCode(
        "pixel_range", ("info",),
        "Images of more than 8 bits: one range of values is shown as 0 to 255.",
        "Set source.pixel_range to another range if details are lost.",
    ),
    FindingCode(
        "outside_pixel_range", ("warning",),
        "Most values of these images of more than 8 bits lie outside the range that is shown as 0 to 255, or within a "
        "small part of it, so that they look black, white or flat.",
        "Check the files; set source.pixel_range, or choose the range again with `speck plan --update`.",
    ),
    FindingCode(
        "crowded_images", ("info",),
        "These images hold more than 300 boxes, the usual limit of detections per image.",
        "evaluate.max_detections: auto follows them; other frameworks need a higher limit (max_det).",
    ),
    FindingCode(
        "dark_images", ("warning", "info"),
        "Images have a mean luma under 40 of 255 after decoding; a warning if they are more than a tenth of all.",
        "Compare a few with another viewer; source.pixel_range sets the values of images of more than 8 bits.",
    ),
    FindingCode(
        "bright_images", ("info",),
        "Images have a mean luma above 215 of 255.",
        "Look at a few: are they overexposed, or on a white ground?",
    ),
    FindingCode(
        "one_colour_images", ("critical", "warning"),
        "Images are black or of one colour after decoding; critical if they are more than a tenth of all images.",
        "Open a few of them: are the files whole? source.pixel_range sets the values of images of more than 8 bits.",
    ),
    FindingCode(
        "flat_images", ("info",),
        "Images with little contrast: the standard deviation of their luma is under 15 of 255.",
        "Check for fog, a lens cap or plain ground.",
    ),
    FindingCode(
        "blurred_images", ("info",),
        "Images without fine detail: out of focus, shaken, or of plain ground.",
        "Look at a few: can their small objects be seen?",
    ),
    FindingCode(
        "duplicate_images", ("critical", "warning"),
        "Images with the same bytes: they count twice in their split, or make the metrics too high where the copies "
        "are in several splits.",
        "Delete the copies.",
    ),
    FindingCode(
        "near_duplicates", ("info",),
        "Pairs of images that look alike, such as neighbouring frames, are in different splits.",
        "Keep each such scene in one split (source.group).",
    ),
    FindingCode(
        "faint_objects", ("warning",),
        "The median small object differs from its surroundings by few levels of luma.",
        "Set augment.quality and augment.copies; more contrast at capture helps more.",
    ),
    FindingCode(
        "noisy_images", ("info",),
        "More than half of the measured images carry noise, or fine texture, that hides objects of few pixels.",
        "Less gain at capture helps.",
    ),
    FindingCode(
        "heavy_compression", ("warning",),
        "More than half of the measured images were saved at a low JPEG quality.",
        "Store new images at quality 90 or more.",
    ),
    FindingCode(
        "clipped_exposure", ("info",),
        "In more than half of the measured images many pixels are black or white without detail.",
        "Expose for what is labelled.",
    ),
    FindingCode(
        "reencoded_tiles", ("warning",),
        "Tiles of JPEGs that can be cut without loss are re-encoded, because libturbojpeg is missing or the plan was "
        "made without it.",
        "Install libturbojpeg, then run `speck plan --update`; or set shard.jpeg to encode.",
    ),
)  # fmt: skip

_CLASSES = (
    FindingCode(
        "unused_categories", ("info",),
        "Trained classes have no box: the model would carry outputs that it cannot learn.",
        "Drop them (ontology.drop), or take them out of ontology.keep; the finding names the key.",
    ),
    FindingCode(
        "root_category", ("info",),
        "A class that is the supercategory of all others and has no box is not trained on; some exports add one.",
        "To keep it, list the classes in source.categories.",
    ),
    FindingCode(
        "digit_categories", ("warning",),
        "Trained classes have a number instead of a name.",
        "Give source.categories the file or the list that names them, or rename them (ontology.rename).",
    ),
    FindingCode(
        "similar_classes", ("warning",),
        "Classes differ only by case, blanks, separators or a plural, and are trained as different ones.",
        "Merge them (ontology.merge); the finding has the setting.",
    ),
    FindingCode(
        "class_imbalance", ("warning",),
        "Classes have less than a hundredth of the boxes of the largest class.",
        "Label more of them, merge them or drop them.",
    ),
    FindingCode(
        "class_not_in_train", ("warning",),
        "Classes are in val and not in train: they are evaluated but never trained on.",
        "Split by other groups (source.group), or label more.",
    ),
    FindingCode(
        "class_not_in_val", ("warning",),
        "Classes are in train and not in val: their metrics will be empty.",
        "Split by other groups (source.group), or label more.",
    ),
    FindingCode(
        "class_overlap", ("warning",),
        "Two classes often label the same object.",
        "Drop the class that repeats the other (ontology.drop), or merge them (ontology.merge).",
    ),
    FindingCode(
        "enclosing_classes", ("warning",),
        "The boxes of a class hold nearly all boxes of another class.",
        "Drop classes that frame a scene (ontology.drop); merge classes that differ by place only (ontology.merge).",
    ),
    FindingCode(
        "lookalike_classes", ("info",),
        "Objects of two classes look alike in colour, size and gradients.",
        "Merge the classes (ontology.merge), or give them more pixels per object and review their labels.",
    ),
)  # fmt: skip

_DETECTOR = (
    FindingCode(
        "tiny_labels", ("critical", "warning", "info"),
        "Boxes are under 16 px at the network's input.",
        "Raise train.image_size or lower tile.size; coarse_levels says when a P2 level or a larger input is worth it.",
    ),
    FindingCode(
        "coarse_levels", ("warning", "info"),
        "The cells of the model's levels are coarse for the boxes: a change of levels or input size is worth its cost.",
        "Use the P2 level or input size that the finding names; train.recipe: auto does.",
    ),
    FindingCode(
        "uncovered_boxes", ("warning",),
        "The model's assigner is expected to give some boxes no candidate: it never trains on them.",
        "Use a P2 level or a larger input size; the finding names the cheapest change that suffices.",
    ),
    FindingCode(
        "shared_cells", ("warning",),
        "Boxes have their centre in one stride-8 cell with another box, where one cell must tell two objects apart.",
        "Use a P2 level or a larger image size; review the labels if the boxes nest or repeat each other.",
    ),
    FindingCode(
        "contested_boxes", ("info",),
        "Neighbouring boxes take part of the positive cells that the assigner would give a box alone.",
        "A P2 level or a larger input size gives crowded boxes more cells: the finding has the share with it.",
    ),
    FindingCode(
        "nms_ceiling", ("warning", "info"),
        "NMS, and the merging of detections of overlapping views, would remove true boxes that overlap.",
        "Raise evaluate.merge.threshold to the value that the finding names.",
    ),
    FindingCode(
        "stale_anchors", ("warning",),
        "The anchors of the last snapshot, or those of anchors.preset, fit the boxes worse than new ones.",
        "This build fits new anchors: train again with them. Change anchors.preset, or leave it out.",
    ),
    FindingCode(
        "drifted_images", ("warning",),
        "Images that are new since the snapshot of the champion, or since the last one, differ from those it holds in "
        "the sizes or classes of their objects, in brightness or in contrast.",
        "Look at a few: another place, height, season, camera or way of labelling?",
    ),
    FindingCode(
        "upsampled", ("info",),
        "Tiles are enlarged to the input size: more cells per object, but no more detail than the source images have.",
        "Lower train.image_size or raise tile.size if training time matters.",
    ),
    FindingCode(
        "tight_labels", ("info",),
        "Half of the boxes are so small that a labelling error of one pixel costs much of the IoU.",
        "Evaluate by AP50 and NWD rather than AP75, and label on enlarged images.",
    ),
)  # fmt: skip

_OF_REJECTS = tuple(
    FindingCode(entry.reason, ("warning",), entry.meaning, entry.cure) for entry in REASONS.values() if entry.kinds
)

_ALL = (*_OF_REJECTS, *_NAMES, *_LABELS, *_IMAGES, *_CLASSES, *_DETECTOR, *SPLIT_AND_PLAN)

FINDINGS = {entry.code: entry for entry in _ALL}
