"""ISPRS Potsdam, written here in its layout on disk, except for the size of its tiles."""

import pickle

import numpy as np
import pytest
import tifffile

from scaling.core.errors import UserError
from scaling.data.prepare import Preparation, convert
from scaling.data.sources.registry import open_source

TRAIN = [(row, column) for row in (2, 3, 4, 5) for column in (10, 11, 12)]
TRAIN += [(row, column) for row in (6, 7) for column in range(7, 13)]
TEST = [(2, 13), (2, 14), (3, 13), (3, 14), (4, 13), (4, 14), (4, 15), (5, 13), (5, 14), (5, 15)]
TEST += [(6, 13), (6, 14), (6, 15), (7, 13)]
# As the contest says: impervious surfaces, building, low vegetation, tree, car, clutter.
COLOURS = np.array(
    [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0)], np.uint8
)


def classes_of(row, column):
    return np.random.default_rng((row, column)).integers(6, size=(20, 18))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("potsdam")
    folders = ("2_Ortho_RGB", "3_Ortho_IRRG", "4_Ortho_RGBIR", "5_Labels_all", "5_Labels_all_noBoundary")
    for folder in folders:
        (root / folder).mkdir()
    for row, column in TRAIN + TEST:
        pixels = np.random.default_rng((row, column)).integers(256, size=(20, 18, 4), dtype=np.uint8)
        name, labels = f"top_potsdam_{row}_{column}", classes_of(row, column)
        for folder, bands in zip(folders[:3], ([0, 1, 2], [3, 0, 1], [0, 1, 2, 3]), strict=True):
            tifffile.imwrite(root / folder / f"{name}_{folder.split('_')[2]}.tif", pixels[..., bands])
        tifffile.imwrite(root / f"5_Labels_all/{name}_label.tif", COLOURS[labels])
        eroded = np.where(np.arange(18) % 5 == 0, 6, labels)
        tifffile.imwrite(root / f"5_Labels_all_noBoundary/{name}_label_noBoundary.tif", COLOURS[eroded])
    (root / "2_Ortho_RGB/top_potsdam_2_10_RGB.tfw").write_text("0.05\n")
    return root


def test_the_published_splits(root):
    for split, tiles in (("train", TRAIN), ("test", TEST)):
        source = open_source(f"potsdam:{root}", split)
        assert [source.name(i) for i in range(len(source))] == [f"top_potsdam_{r}_{c}_RGB.tif" for r, c in tiles]
    assert len(open_source(f"potsdam:{root}?without=7_10")) == 23


def test_colours_are_classes_and_clutter_is_ignored_unless_it_is_wanted(root):
    source = open_source(f"potsdam:{root}", "test")
    assert source.info.target("mask").classes == ("impervious surfaces", "building", "low vegetation", "tree", "car")
    labels = classes_of(*TEST[3])
    np.testing.assert_array_equal(source[3]["mask"], np.where(labels == 5, 255, labels))
    source = open_source(f"potsdam:{root}?clutter=class", "test")
    assert source.info.target("mask").classes[5] == "clutter"
    np.testing.assert_array_equal(source[3]["mask"], labels)


def test_eroded_borders_do_not_count(root):
    mask = open_source(f"potsdam:{root}?labels=eroded&clutter=class")[0]["mask"]
    np.testing.assert_array_equal(mask, np.where(np.arange(18) % 5 == 0, 255, classes_of(2, 10)))


@pytest.mark.parametrize(
    ("images", "bands", "of"),
    [
        ("RGB", ("red", "green", "blue"), [0, 1, 2]),
        ("IRRG", ("near infrared", "red", "green"), [3, 0, 1]),
        ("RGBIR", ("red", "green", "blue", "near infrared"), [0, 1, 2, 3]),
    ],
)
def test_bands_are_those_of_the_folder(root, images, bands, of):
    source = open_source(f"potsdam:{root}?images={images}")
    assert source.info.bands == bands
    pixels = np.random.default_rng((2, 10)).integers(256, size=(20, 18, 4), dtype=np.uint8)
    np.testing.assert_array_equal(source[0]["image"], pixels[..., of])


def test_few_pixels_of_other_colours_do_not_count_and_many_are_refused(root):
    file = root / "5_Labels_all/top_potsdam_2_13_label.tif"
    whole = tifffile.imread(file)
    try:
        few = whole.copy()
        few[0, :3] = (252, 255, 0)
        tifffile.imwrite(file, few)
        mask = open_source(f"potsdam:{root}?clutter=class", "test")[0]["mask"]
        assert (mask == 255).sum() == 3
        tifffile.imwrite(file, np.full_like(whole, 7))
        with pytest.raises(UserError, match=r"colours that are not in the table of colours: #070707 \(360 pixels\)"):
            open_source(f"potsdam:{root}", "test")
    finally:
        tifffile.imwrite(file, whole)


def test_wrong_folders_and_options_are_refused(root, tmp_path):
    for options, message in (
        ("images=NDVI", "images=NDVI: must be one of RGB, IRRG, RGBIR"),
        ("labels=all", "labels=all: must be one of full, eroded"),
        ("clutter=no", "clutter=no: must be one of ignored, class"),
        ("without=tile", "without=tile: must be the name of a tile, such as 2_10"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(f"potsdam:{root}?{options}")
    with pytest.raises(UserError, match="no split 'val'; there is train, test"):
        open_source(f"potsdam:{root}", "val")
    with pytest.raises(UserError, match=r"no folder 2_Ortho_RGB there; unpack 2_Ortho_RGB.zip"):
        open_source(f"potsdam:{tmp_path}")
    file = root / "2_Ortho_RGB/top_potsdam_7_13_RGB.tif"
    file.rename(tmp_path / "away.tif")
    try:
        with pytest.raises(UserError, match=r"2_Ortho_RGB lacks 1 of the 14 tiles of test, first 7_13; .*=7_13"):
            open_source(f"potsdam:{root}", "test")
        assert len(open_source(f"potsdam:{root}?without=7_13", "test")) == 13
    finally:
        (tmp_path / "away.tif").rename(file)


def test_clips_cover_every_tile_and_the_last_ones_end_with_it(root):
    whole, clips = open_source(f"potsdam:{root}"), open_source(f"potsdam:{root}?clip=8")
    assert len(clips) == 24 * 3 * 3
    assert clips.info == whole.info
    tops = [0, 8, 12]
    lefts = [0, 8, 10]
    for index in (0, 5, 8, 9, 211):
        tile, (down, right) = index // 9, divmod(index % 9, 3)
        part = np.s_[tops[down] : tops[down] + 8, lefts[right] : lefts[right] + 8]
        for key in ("image", "mask"):
            np.testing.assert_array_equal(clips[index][key], whole[tile][key][part])
        assert clips.name(index) == f"{whole.name(tile)} at {tops[down]}, {lefts[right]}"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(clips))[5]["mask"], clips[5]["mask"])
    assert len(open_source(f"potsdam:{root}?clip=50")) == 24
    assert open_source(f"potsdam:{root}?clip=50")[0]["image"].shape == (20, 18, 3)
    with pytest.raises(UserError, match="clip=half: must be a number of pixels"):
        open_source(f"potsdam:{root}?clip=half")


def test_a_tile_is_read_once_for_its_clips(root, monkeypatch):
    clips, reads = open_source(f"potsdam:{root}?clip=8"), []
    read = clips.whole.kept
    monkeypatch.setattr(clips.whole, "kept", lambda index: reads.append(index) or read(index))
    for index in range(27):
        clips[index]
    assert reads == [1, 2]  # the first was looked at when they were opened


def test_prepared_clips_are_the_clips(root, tmp_path):
    spec = f"potsdam:{root}?clip=8&without={','.join(f'{r}_{c}' for r, c in TRAIN[2:])}"
    convert(Preparation(spec, ("train",), str(tmp_path / "out")), 1, lambda done: None, lambda total: None)
    prepared, clips = open_source(f"arrayrecord:{tmp_path}/out"), open_source(spec)
    assert len(prepared) == len(clips) == 18
    pairs = [sorted((s[i]["image"].tobytes(), s[i]["mask"].tobytes()) for i in range(18)) for s in (prepared, clips)]
    assert pairs[0] == pairs[1]
