"""Detections in a georeferenced image as GeoJSON, in the coordinate system of the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etl.imaging.tiff import GeoReference
from train.detections import Detections

_WGS84 = 4326  # what GeoJSON without a coordinate system is in


def to_geojson(name: str, detections: Detections, categories: Sequence[str], reference: GeoReference) -> dict[str, Any]:
    """Return a FeatureCollection with a polygon for each box; its properties are category, score and box in pixels.

    `crs` names the coordinate system by its EPSG code, as GDAL and QGIS read it; the order is always x, y.
    """
    rows = zip(detections.xyxy.tolist(), detections.category.tolist(), detections.score.tolist(), strict=True)
    system = f"urn:ogc:def:crs:EPSG::{reference.epsg}"
    return {
        "type": "FeatureCollection",
        "name": name,
        **({} if reference.epsg == _WGS84 else {"crs": {"type": "name", "properties": {"name": system}}}),
        "features": [
            {
                "type": "Feature",
                "properties": {"category": categories[category], "score": round(score, 5), "box": box},
                "geometry": {"type": "Polygon", "coordinates": [_ring(box, reference)]},
            }
            for box, category, score in rows
        ],
    }


def _ring(box: Sequence[float], reference: GeoReference) -> list[list[float]]:
    """Return the corners of a box, the first one again at the end, counter-clockwise in an image with north up."""
    x0, y0, x1, y1 = box
    return [list(reference.place(x, y)) for x, y in ((x0, y0), (x0, y1), (x1, y1), (x1, y0), (x0, y0))]
