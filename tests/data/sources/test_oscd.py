"""OSCD, written here in its layout on disk, except for the size of its cities."""

import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from scaling.core.errors import UserError
from scaling.data.sources.registry import open_source

NAME = "Onera Satellite Change Detection dataset - "
BANDS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
CITIES = {"Train": {"beirut": (30, 24), "abudhabi": (20, 26)}, "Test": {"dubai": (22, 18)}}


def pixels_of(city, date, band, size):
    seed = sum(map(ord, city)) * 100 + date * 50 + BANDS.index(band)
    return np.random.default_rng(seed).integers(10_000, size=size, dtype=np.uint16)


def changes_of(city, size):
    return np.random.default_rng(len(city)).random(size) < 0.2


def map_of(root, split, city):
    return root / f"{NAME}{split} Labels" / city / "cm" / "cm.png"


@pytest.fixture
def root(tmp_path):
    for split, cities in CITIES.items():
        for city, size in cities.items():
            for date in (1, 2):
                folder = tmp_path / f"{NAME}Images" / city / f"imgs_{date}_rect"
                folder.mkdir(parents=True)
                for band in BANDS:
                    tifffile.imwrite(folder / f"{band}.tif", pixels_of(city, date, band, size))
            map_of(tmp_path, split, city).parent.mkdir(parents=True)
            Image.fromarray(np.uint8(255) * changes_of(city, size)).save(map_of(tmp_path, split, city))
    for split in ("train", "test"):
        (tmp_path / f"{NAME}Images" / f"{split}.txt").write_text(",".join(CITIES[split.title()]))
    return tmp_path


def test_both_dates_are_bands_the_earlier_first(root):
    source = open_source(f"oscd:{root}")
    assert [source.name(i) for i in range(len(source))] == ["abudhabi", "beirut"]
    assert source.info.bands == (*(f"{b} before" for b in BANDS), *(f"{b} after" for b in BANDS))
    assert source.info.target("mask").classes == ("no change", "change")
    for i, city in enumerate(("abudhabi", "beirut")):
        size, example = CITIES["Train"][city], pickle.loads(pickle.dumps(source))[i]
        expected = [pixels_of(city, date, band, size) for date in (1, 2) for band in BANDS]
        np.testing.assert_array_equal(example["image"], np.stack(expected, 2))
        np.testing.assert_array_equal(example["mask"], changes_of(city, size))
        assert (example["image"].dtype, example["mask"].dtype) == (np.uint16, np.uint8)
    assert len(open_source(f"oscd:{root}", "test")) == 1
    assert len(open_source(f"oscd:{root}", "train+test")) == 3


def test_bands_are_chosen_for_both_dates(root):
    example = open_source(f"oscd:{root}?bands=B04,B02", "test")
    expected = [pixels_of("dubai", date, band, (22, 18)) for date in (1, 2) for band in ("B04", "B02")]
    np.testing.assert_array_equal(example[0]["image"], np.stack(expected, 2))
    assert example.info.bands == ("B04 before", "B02 before", "B04 after", "B02 after")


def test_a_band_of_coarser_pixels_is_brought_to_the_grid_of_the_map(root):
    file = root / f"{NAME}Images/dubai/imgs_2_rect/B11.tif"
    tifffile.imwrite(file, np.full((11, 9), 777, np.uint16))
    example = open_source(f"oscd:{root}?bands=B11", "test")[0]
    assert example["image"].shape == (22, 18, 2)
    assert (example["image"][..., 1] == 777).all()
    tifffile.imwrite(file, np.full((11, 18), 777, np.uint16))
    with pytest.raises(UserError, match=r"B11\.tif: has 11 x 18 pixels, the map of changes 22 x 18"):
        open_source(f"oscd:{root}?bands=B11", "test")


@pytest.mark.parametrize("kind", ["0 and 1", "1 and 2", "three channels", "with alpha"])
def test_labels_of_other_distributions_mean_the_same(root, kind):
    changes = changes_of("dubai", (22, 18))
    grey = np.repeat(np.uint8(255) * changes[..., None], 3, 2)
    written = {
        "0 and 1": changes.astype(np.uint8),
        "1 and 2": changes.astype(np.uint8) + np.uint8(1),
        "three channels": grey,
        "with alpha": np.concatenate(
            [np.repeat(np.uint8(255) * changes[..., None], 3, 2), np.full((22, 18, 1), 255, np.uint8)], 2
        ),
    }
    Image.fromarray(written[kind]).save(map_of(root, "Test", "dubai"))
    np.testing.assert_array_equal(open_source(f"oscd:{root}", "test")[0]["mask"], changes)


def test_other_folders_and_labels_are_refused(root):
    file = map_of(root, "Test", "dubai")
    for labels, message in ((np.full((22, 18), 1), "1 .396 pixels."), (np.arange(396).reshape(22, 18) % 3, "0 .132")):
        Image.fromarray(labels.astype(np.uint8)).save(file)
        with pytest.raises(UserError, match=f"cm.png: has labels that are not 0 and 255, nor 1 and 2: {message}"):
            open_source(f"oscd:{root}", "test")
    with pytest.raises(UserError, match="no folder 'Onera Satellite Change Detection dataset - Images' there"):
        open_source(f"oscd:{root}/{NAME}Images")
    with pytest.raises(UserError, match="no split 'validation'; there is train, test"):
        open_source(f"oscd:{root}", "validation")
    with pytest.raises(UserError, match="no band 'B13'; there is B01,"):
        open_source(f"oscd:{root}?bands=B13")
    (root / f"{NAME}Images/beirut/imgs_2_rect/B8A.tif").unlink()
    with pytest.raises(UserError, match=r"1 of 54 files are not there, first '.*Images/beirut/imgs_2_rect/B8A.tif'"):
        open_source(f"oscd:{root}")
