"""Images read in parts: what GDAL cannot do with a file is one line."""

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.data.rasters import open_raster
from tests.drills.hostile import BY_NAME

pytest.importorskip("rasterio", reason="needs the extra [geo]")


@pytest.mark.parametrize("case", [1184, 1443], ids=["no path to degrees", "beyond the projection"])
def test_a_place_that_cannot_be_computed_is_named(case, tmp_path):
    """Cases of the drills: a reference system that GDAL knows nothing of, and a place that its own does not reach."""
    scenes = BY_NAME["scene"]
    path = tmp_path / "scene.tif"
    path.write_bytes(scenes.content(case))
    with open_raster(str(path), 3) as raster, pytest.raises(UserError, match=r"^.*scene\.tif: "):
        raster.on_earth(np.array([[1.0, 2.0]]))


def test_a_block_larger_than_its_file_can_hold_is_refused_before_gdal_allocates_it(tmp_path):
    """A case of the drills: blocks of 16 GiB in a file of a few hundred bytes."""
    scenes = BY_NAME["scene"]
    path = tmp_path / "scene.tif"
    path.write_bytes(scenes.content(15947))
    with pytest.raises(UserError, match=r"scene\.tif: cannot be read \(declares 16\.0 GiB of pixels"):
        open_raster(str(path), 3)
