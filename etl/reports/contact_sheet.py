"""The contact sheet: a page of augmented samples with their boxes and ignore regions, and of the anchors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.boxes import corners
from etl.by_size import BySize
from etl.ids import fraction
from etl.imaging import codec
from etl.numbers import count_of, percent
from etl.reports.audit_page import anchor_figures
from etl.reports.page import render
from etl.size_names import bucket_name

_MOST = 12  # samples on the sheet
_SIDE = 480  # px: smaller samples are enlarged
_QUALITY = 85
_LABEL, _PASTED, _HATCH = (60, 255, 60), (255, 214, 10), (150, 150, 150)
_HAS_PASTED = r'"pasted":\s*\[\s*\{'  # in the parameters of a recipe
_STEP = 6  # px between hatch lines


def choose_samples(samples: pa.Table, base: str) -> list[dict[str, Any]]:
    """Return up to 12 rows of augmented samples, as many of each recipe kind with and without pasted objects.

    `base` is the kind of plain tiles.
    """
    kinds = pc.struct_field(samples["recipe"], "kind").to_pylist()
    pasted = pc.match_substring_regex(pc.struct_field(samples["recipe"], "parameters"), _HAS_PASTED).to_pylist()
    places = [place for place, kind in enumerate(kinds) if kind != base]
    names = samples["sample_id"].to_pylist()
    order = sorted(places, key=lambda place: fraction(f"sheet:{names[place]}"))  # stable when samples are added
    by_kind: dict[tuple[str, bool], list[int]] = {}
    for place in order:
        by_kind.setdefault((kinds[place], pasted[place]), []).append(place)
    per_kind = -(-_MOST // max(len(by_kind), 1))
    chosen = [place for kind in sorted(by_kind) for place in by_kind[kind][:per_kind]]
    chosen += [place for place in order if place not in chosen][: max(_MOST - len(chosen), 0)]
    return list(samples.take(pa.array(chosen[:_MOST], pa.int64())).to_pylist())


def render_sheet(
    title: str,
    samples: Iterable[tuple[dict[str, Any], bytes]],
    anchors: Mapping[str, Any],
    asked: BySize[float],
    found: BySize[float],
) -> bytes:
    """Return the HTML of samples, as pairs of row and JPEG, and of the snapshot's anchors.

    `asked` and `found` are the shares of the train labels by size: the target of the configuration, and those reached.
    """
    pictures = [(_caption(row), codec.encode(draw_sample(codec.decode(data), row), _QUALITY)) for row, data in samples]
    figures = list(anchor_figures(anchors))
    shares = [[bucket_name(name), percent(share), percent(found[name])] for name, share in asked.items()]
    return render(
        "samples.html.j2", title=title, pictures=pictures, shares=shares, anchors=anchors, figures=figures
    ).encode()


def draw_sample(pixels: codec.Pixels, row: dict[str, Any]) -> codec.Pixels:
    """Return a sample with its ignore regions hatched grey, its boxes green and those of pasted objects yellow."""
    zoom = max(-(-_SIDE // max(pixels.shape[:2])), 1)
    drawn: codec.Pixels = np.repeat(np.repeat(pixels, zoom, axis=0), zoom, axis=1)
    for box in row["ignore"]:
        _hatch(drawn, _corners(box, zoom))
    pasted = len(json.loads(row["recipe"]["parameters"]).get("pasted", ()))
    for number, box in enumerate(row["boxes"]):
        colour = _PASTED if number >= len(row["boxes"]) - pasted else _LABEL
        x0, y0, x1, y1 = _corners(box, zoom)
        cv2.rectangle(drawn, (x0 - 1, y0 - 1), (x1, y1), colour, 1)  # around its pixels, not over them
    return drawn


def _corners(box: dict[str, float], zoom: int) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (round(side * zoom) for side in corners(box))
    return x0, y0, x1, y1


def _hatch(pixels: codec.Pixels, region: Sequence[int]) -> None:
    x0, y0, x1, y1 = region
    part = pixels[y0:y1, x0:x1]
    place = np.add.outer(np.arange(y0, y1), np.arange(x0, x1))
    part[:] = part // 2 + 57  # blended with the grey of the trainer
    part[place % _STEP < 2] = _HATCH


def _caption(row: dict[str, Any]) -> str:
    parameters = json.loads(row["recipe"]["parameters"])
    notes = [row["recipe"]["kind"], count_of(len(row["boxes"]), "box")]
    for name, noun in (("pasted", "pasted box"), ("cutouts", "cutout")):
        number = parameters.get(name) or 0
        number = len(number) if isinstance(number, list) else number
        notes += [count_of(number, noun)] if number else []
    notes += [f"{len(row['ignore'])} ignored"] if row["ignore"] else []
    return f"{', '.join(notes)} ({row['sample_id']})"
