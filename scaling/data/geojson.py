"""Outlines of objects as GeoJSON (RFC 7946), which every map program reads."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaling.boxes.polygons import polygon_area

_DEGREES, _PIXELS = 8, 3  # decimals; a millimetre, and a thousandth of a pixel
IN_PIXELS = "pixels of the image: x to the right, y down, the upper left corner of the first pixel is 0, 0"


def outlines_as_geojson(
    corners: np.ndarray, properties: Sequence[Mapping[str, Any]], on_earth: np.ndarray | None = None
) -> str:
    """A collection of polygons.

    Args:
      corners: [n, 4, 2] of (x, y) in pixels; stored as the property `pixels` if `on_earth` gives the coordinates.
      properties: properties of each polygon.
      on_earth: the same corners as longitude and latitude in degrees (WGS 84). None for an image without a known
        location: the coordinates are then pixels, as the member `coordinates` of the collection states.
    """
    places = corners if on_earth is None else _on_one_side(on_earth)
    decimals = _PIXELS if on_earth is None else _DEGREES
    features = []
    for outline, pixels, own in zip(places, corners, properties, strict=True):
        shown = dict(own) if on_earth is None else {**own, "pixels": pixels.round(_PIXELS).tolist()}
        ring = outline if polygon_area(outline) >= 0 else outline[::-1]  # counter-clockwise, where y points up
        closed = np.concatenate([ring, ring[:1]]).round(decimals).tolist()
        features.append(
            {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [closed]}, "properties": shown}
        )
    said = {} if on_earth is not None else {"coordinates": IN_PIXELS}
    whole = {"type": "FeatureCollection", **said, "features": features}
    return json.dumps(whole, allow_nan=False) + "\n"


def _on_one_side(on_earth: np.ndarray) -> np.ndarray:
    """Outlines that cross the 180th meridian, with longitudes beyond it, so that they do not wrap around the Earth."""
    across = np.ptp(on_earth[..., 0], axis=1) > 180
    shifted = on_earth + np.array([360.0, 0.0]) * (on_earth[..., :1] < 0)
    return np.where(across[:, None, None], shifted, on_earth)
