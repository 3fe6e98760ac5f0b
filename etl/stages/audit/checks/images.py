"""Checks of what images show after decoding, and of boxes that are as large as their image."""

from __future__ import annotations

from collections.abc import Iterator

from etl.codes import Severity
from etl.enumeration import enumerate_first
from etl.findings import Finding, finding
from etl.numbers import count, count_of
from etl.stages.audit.checks.remedies import how_to_drop
from etl.stages.audit.context import CheckInput
from etl.stages.audit.counts import DARK, NEARLY_BLACK

_MANY = 0.1  # share of the images
_MANY_BOXES = 0.05  # share of the boxes
_DEEP = ("pixel_range", "outside_pixel_range")  # findings of images of more than 8 bits


def one_colour_images(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if images show nothing; critical if many do."""
    affected = data.counted("one_colour_images")
    if affected:
        severity: Severity = "critical" if affected > _MANY * data.audit.images else "warning"
        advice = (
            f"{_of_images(data, affected)} {'is' if affected == 1 else 'are'} black or of one colour after decoding. "
            f"Open a few of them: are the files whole?{_range_of_values(data)}"
        )
        yield finding("one_colour_images", advice, _files(data, "one_colour_images"), count=affected, severity=severity)


def dark_images(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if images are dark after decoding; a warning if many are."""
    affected = data.counted("dark_images")
    if affected:
        severity: Severity = "warning" if affected > _MANY * data.audit.images else "info"
        black = data.summary.counts.get(("nearly_black",), 0)
        of_black = f", {black} of them under {NEARLY_BLACK} (nearly black)" if black else ""
        advice = (
            f"{_of_images(data, affected)} {'has' if affected == 1 else 'have'} a mean luma under {DARK} of 255 after "
            f"decoding{of_black}. Compare a few with another viewer: are they dark there too? If so, are there "
            f"enough of them to learn from?{_range_of_values(data)}"
        )
        yield finding("dark_images", advice, _files(data, "dark_images"), count=affected, severity=severity)


def _range_of_values(data: CheckInput) -> str:
    """Return what decides the values of images of more than 8 bits, if there are any."""
    if any(row.code in _DEEP for row in data.context.findings):
        return " Of images of more than 8 bits, source.pixel_range sets the values that are shown as 0 to 255."
    return ""


def whole_image_boxes(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if boxes cover nearly all of their image; a warning if many do."""
    boxes = {str(key[1]): number for key, number in data.summary.counts.items() if key[0] == "whole"}
    affected, objects = sum(boxes.values()), data.audit.objects_by_class
    if not affected:
        return
    ranked = sorted(boxes, key=lambda name: (-boxes[name], name))
    shown = enumerate_first([f"{boxes[name]} of {objects[name]} {name}" for name in ranked])
    tags = [name for name in ranked if boxes[name] == objects[name]]
    dropped = ""
    if tags and len(tags) < len(objects):
        dropped = f" Classes without other boxes ({enumerate_first(tags)}): {how_to_drop(data.context, tags)}."
    advice = (
        f"{count(affected)} of {count_of(data.audit.objects, 'box')} {'covers' if affected == 1 else 'cover'} at "
        f"least 90 % of their image ({shown}): a tag of the image, not an object in it. Draw boxes around the objects, "
        f"or delete these boxes.{dropped}"
    )
    severity: Severity = "warning" if affected > _MANY_BOXES * data.audit.objects else "info"
    yield finding("whole_image_boxes", advice, _files(data, "whole_image_boxes"), count=affected, severity=severity)


def _of_images(data: CheckInput, affected: int) -> str:
    return f"{count(affected)} of {count_of(data.audit.images, 'image')}"


def _files(data: CheckInput, code: str) -> tuple[str, ...]:
    return data.summary.files.get(code, ())
