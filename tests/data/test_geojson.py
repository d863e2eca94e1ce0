"""GeoJSON as RFC 7946 has it."""

import json

import numpy as np

from scaling.data.geojson import outlines_as_geojson

SQUARE = np.array([[(2.0, 1.0), (6, 1), (6, 4), (2, 4)]])


def test_pixels_are_said_to_be_pixels():
    said = json.loads(outlines_as_geojson(SQUARE, [{"class": "ship", "score": 0.5}]))
    assert said["type"] == "FeatureCollection"
    assert said["coordinates"].startswith("pixels of the image")
    (feature,) = said["features"]
    assert feature["properties"] == {"class": "ship", "score": 0.5}
    assert feature["geometry"]["type"] == "Polygon"
    assert feature["geometry"]["coordinates"] == [[[2, 1], [6, 1], [6, 4], [2, 4], [2, 1]]]


def test_rings_on_earth_go_round_counter_clockwise_and_keep_their_pixels():
    on_earth = SQUARE * [0.5, -0.5] + [10, 50]  # north is up
    for corners, places in ((SQUARE, on_earth), (SQUARE[:, ::-1], on_earth[:, ::-1])):
        said = json.loads(outlines_as_geojson(corners, [{}], places))
        assert "coordinates" not in said
        (ring,) = said["features"][0]["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert {tuple(point) for point in ring} == {tuple(point) for point in on_earth[0].tolist()}
        x, y = np.array(ring).T
        assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0
        assert said["features"][0]["properties"]["pixels"] == corners[0].tolist()


def test_an_outline_across_the_180th_meridian_does_not_go_round_the_earth():
    on_earth = np.array(
        [[(179.9, 1.0), (-179.9, 1), (-179.9, 2), (179.9, 2)], [(-179, 1), (-178, 1), (-178, 2), (-179, 2)]]
    )
    said = json.loads(outlines_as_geojson(np.concatenate([SQUARE] * 2), [{}, {}], on_earth))
    across, west = (np.array(f["geometry"]["coordinates"][0])[:, 0] for f in said["features"])
    assert sorted(set(across.round(6).tolist())) == [179.9, 180.1]
    assert west.min() == -179


def test_nothing_is_an_empty_collection():
    said = json.loads(outlines_as_geojson(SQUARE[:0], [], SQUARE[:0]))
    assert said["features"] == []
