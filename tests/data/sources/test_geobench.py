"""GEO-Bench folders, written here in their layout on disk, are read band by band and label by label."""

import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.data.images import CorruptImage
from scaling.data.prepare import Preparation, convert
from scaling.data.sources.registry import open_source
from scaling.data.statistics import band_statistics
from tests.drills.hostile import BY_NAME

SENTINEL2 = [
    "01 - Coastal aerosol",
    "02 - Blue",
    "03 - Green",
    "04 - Red",
    "05 - Vegetation Red Edge",
    "06 - Vegetation Red Edge",
    "07 - Vegetation Red Edge",
    "08 - NIR",
    "08A - Vegetation Red Edge",
    "09 - Water vapour",
    "10 - SWIR - Cirrus",
    "11 - SWIR",
    "12 - SWIR",
]
SENTINEL1 = [
    "01 - VH.Real",
    "02 - VH.Imaginary",
    "03 - VV.Real",
    "04 - VV.Imaginary",
    "05 - VH.LEE Filtered",
    "06 - VV.LEE Filtered",
    "07 - VH.LEE Filtered.Real",
    "08 - VV.LEE Filtered.Imaginary",
]


class Unreadable:
    """Stands for the content of a sample's pickled attribute: reading it would fail."""

    def __reduce__(self):
        return exec, ("raise RuntimeError('the pickled attribute was read')",)


def pixels(sample: int, band: int, side: int, dtype: type = np.int16) -> np.ndarray:
    return np.full((side, side), 100 * sample + band, dtype) + np.arange(side, dtype=dtype)


def write_set(folder: Path, keys: list[str], labels: dict, splits: dict, dtype: type = np.int16, side: int = 8) -> Path:
    """One data set: samples id_0000 …, of which band b of sample i holds the values of `pixels(i, b)`."""
    folder.mkdir(parents=True)
    names = sorted({name for part in splits.values() for name in part})
    for i, name in enumerate(names):
        with h5py.File(folder / f"{name}.hdf5", "w") as file:
            for b, key in enumerate(keys):
                file.create_dataset(key, data=pixels(i, b, side, dtype))
            file.attrs["pickle"] = str(pickle.dumps({"bands_order": keys, "label": Unreadable()}))
    for partition, parts in (("default", splits), ("0.01x_train", {**splits, "train": splits["train"][:1]})):
        (folder / f"{partition}_partition.json").write_text(json.dumps(parts))
    for file, content in labels.items():
        (folder / file).write_text(json.dumps(content))
    stats = {key: {"min": 0, "max": 9, "mean": 10.0 + b, "std": 1.0 + b} for b, key in enumerate(keys)}
    (folder / "band_stats.json").write_text(json.dumps({**stats, "label": {"mean": 3.0, "std": 1.0}}))
    return folder


SPLITS = {"train": ["id_0003", "id_0000"], "valid": ["id_0001"], "test": ["id_0002", "id_0004"]}
CLASSES = {"0": ["id_0000"], "1": ["id_0001", "id_0003"], "9": ["id_0002", "id_0004"]}


def single_label_set(root: Path, name: str = "m-eurosat", keys: list[str] = SENTINEL2, **options) -> Path:
    return write_set(root / "classification_v1.0" / name, keys, {"label_map.json": CLASSES}, SPLITS, **options)


def multi_label_set(root: Path) -> Path:
    """Twelve bands, 43 labels, four samples in each split."""
    splits = {split: [f"id_{4 * s + i:04d}" for i in range(4)] for s, split in enumerate(("train", "valid", "test"))}
    names = [name for part in splits.values() for name in part]
    vectors = {name: [float((i + j) % 5 == 0) for j in range(43)] for i, name in enumerate(names)}
    keys = [key for key in SENTINEL2 if not key.startswith("10")]
    return write_set(root / "m-bigearthnet", keys, {"label_stats.json": vectors}, splits, dtype=np.float32)


@pytest.fixture(scope="module")
def eurosat(tmp_path_factory):
    return single_label_set(tmp_path_factory.mktemp("geobench"))


def test_samples_come_in_the_order_of_the_partition_with_their_labels(eurosat):
    train = open_source(f"geobench:{eurosat}", "train")
    assert (len(train), train.info.multi_label) == (2, False)
    assert [train[i]["label"] for i in range(2)] == [1, 0]
    assert train.info.classes[1] == "Forest"
    assert train[0]["image"].shape == (8, 8, 13)
    assert train[0]["image"].dtype == np.float32  # int16 as stored
    for band in range(13):
        np.testing.assert_array_equal(train[0]["image"][..., band], pixels(3, band, 8))
    assert train.name(0).endswith("m-eurosat/id_0003.hdf5")
    assert len(open_source(f"geobench:{eurosat}", "test")) == 2


@pytest.mark.parametrize("split", ["validation", "valid"])
def test_the_validation_split_goes_by_both_names(eurosat, split):
    source = open_source(f"geobench:{eurosat}", split)
    assert (len(source), source[0]["label"]) == (1, 1)


@pytest.mark.parametrize("partition", ["0.01x_train", "0.01x"])
def test_a_partition_is_a_part_of_the_training_split(eurosat, partition):
    assert len(open_source(f"geobench:{eurosat}?partition={partition}", "train")) == 1
    assert len(open_source(f"geobench:{eurosat}?partition={partition}", "test")) == 2


def test_bands_are_taken_by_name_in_the_order_given(eurosat):
    source = open_source(f"geobench:{eurosat}?bands=B04,B03,B02")
    assert source.info.bands == ("B04", "B03", "B02")
    for place, band in enumerate((3, 2, 1)):
        np.testing.assert_array_equal(source[0]["image"][..., place], pixels(3, band, 8))


def test_the_wrong_names_of_eurosat_are_corrected_unless_the_stored_ones_are_wanted(eurosat):
    corrected = open_source(f"geobench:{eurosat}")
    assert " ".join(corrected.info.bands) == "B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A"
    stored = open_source(f"geobench:{eurosat}?names=stored")
    assert " ".join(stored.info.bands) == "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12"
    for spec, place in (("bands=B8A", 12), ("bands=B8A&names=stored", 8), ("bands=B09", 8)):
        image = open_source(f"geobench:{eurosat}?{spec}")[0]["image"]
        np.testing.assert_array_equal(image[..., 0], pixels(3, place, 8))


def test_the_wrong_names_of_brick_kiln(tmp_path):
    folder = single_label_set(tmp_path, "m-brick-kiln")
    (folder / "label_map.json").write_text(json.dumps({"0": CLASSES["0"], "1": CLASSES["1"] + CLASSES["9"]}))
    source = open_source(f"geobench:{folder}")
    assert " ".join(source.info.bands) == "B01 B02 B03 B04 B05 B07 B8A B08 B11 B12 TCI_R TCI_G TCI_B"
    assert source.info.classes == ("not brick kiln", "brick kiln")
    with pytest.raises(UserError, match="no band 'B06'; the bands are B01"):
        open_source(f"geobench:{folder}?bands=B06")


def test_radar_bands_keep_their_stored_names_and_reflectances_can_be_scaled(tmp_path):
    keys = SENTINEL1 + SENTINEL2[1:9] + SENTINEL2[11:]
    folder = single_label_set(tmp_path, "m-so2sat", keys, dtype=np.float32)
    source = open_source(f"geobench:{folder}?bands=B02,03 - VV.Real,B12&scale=10000")
    assert source.info.bands == ("B02", "03 - VV.Real", "B12")
    for place, band in enumerate((8, 2, 17)):
        np.testing.assert_allclose(source[0]["image"][..., place], 1e4 * pixels(3, band, 8))
        assert source.info.statistics[0][place] == pytest.approx(1e4 * (10 + band))
    assert len(open_source(f"geobench:{folder}").info.bands) == 18


def test_rows_with_several_labels(tmp_path):
    source = open_source(f"geobench:{multi_label_set(tmp_path)}", "test")
    assert source.info.multi_label
    assert len(source.info.classes) == 43
    assert source.info.classes[20].startswith("Land principally occupied by agriculture, with")
    np.testing.assert_array_equal(source[1]["label"], [int((9 + j) % 5 == 0) for j in range(43)])


def test_several_labels_survive_conversion(tmp_path):
    source = f"geobench:{multi_label_set(tmp_path)}"
    convert(Preparation(source, ("train",), str(tmp_path / "records")), 1, lambda done: None, lambda total: None)
    stored, converted = open_source(source, "train"), open_source(f"arrayrecord:{tmp_path / 'records'}", "train")
    assert converted.info.multi_label
    for i in range(len(stored)):
        np.testing.assert_array_equal(converted[i]["label"], stored[i]["label"])


def test_statistics_are_those_of_the_folder_or_else_measured(eurosat, tmp_path, monkeypatch):
    spec = f"geobench:{eurosat}?bands=B04,B8A"
    config = DataConfig(source=spec)
    assert band_statistics(open_source(spec), config) == ((13.0, 22.0), (4.0, 13.0))
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "cache"))
    folder = single_label_set(tmp_path)
    (folder / "band_stats.json").unlink()
    spec = f"geobench:{folder}?bands=B04,B8A"
    source = open_source(spec)
    images = np.stack([source[i]["image"] for i in range(2)])
    mean, std = band_statistics(source, DataConfig(source=spec))
    np.testing.assert_allclose((mean, std), (images.mean((0, 1, 2)), images.std((0, 1, 2))), rtol=1e-6)


def test_a_source_survives_pickling(eurosat):
    source = open_source(f"geobench:{eurosat}")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[1]["image"], source[1]["image"])


def test_classes_without_numbers_are_counted_in_the_order_of_the_file(tmp_path):
    folder = single_label_set(tmp_path, "m-pv4ger", ["Blue", "Green", "Red"])
    (folder / "label_map.json").write_text(json.dumps({"solar": SPLITS["train"][:1], "none": SPLITS["train"][1:]}))
    source = open_source(f"geobench:{folder}?bands=Red,Blue")
    assert (source.info.classes, source[0]["label"], source[1]["label"]) == (("solar", "none"), 0, 1)


def test_a_dated_band_goes_by_its_name_and_several_dates_are_not_guessed(tmp_path):
    folder = single_label_set(tmp_path, "m-forestnet", [f"{key}_2018-05-01" for key in SENTINEL2[1:4]])
    (folder / "band_stats.json").unlink()
    source = open_source(f"geobench:{folder}?bands=B04")
    np.testing.assert_array_equal(source[0]["image"][..., 0], pixels(3, 2, 8))
    with h5py.File(folder / "id_0003.hdf5", "a") as file:
        file["04 - Red_2019-05-01"] = pixels(0, 0, 8)
    with pytest.raises(CorruptImage, match="several dates of one band"):
        source[0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:500]), r"id_0003.hdf5: "),
        (lambda file: edit(file, "04 - Red", None), "has no band .*04 - Red"),
        (lambda file: edit(file, "04 - Red", np.zeros((4, 4))), r"shapes \[4, 4\], \[8, 8\], not all"),
        (lambda file: edit(file, "04 - Red", np.full((8, 8), np.nan)), "not finite"),
    ],
    ids=["truncated", "band missing", "other size", "NaN"],
)
def test_a_damaged_sample_is_one_corrupt_image(tmp_path, damage, message):
    source = open_source(f"geobench:{single_label_set(tmp_path)}?bands=B04,B03")
    damage(Path(source.name(0)))
    with pytest.raises(CorruptImage, match=message):
        source[0]
    assert source[1]["image"].shape == (8, 8, 2)


def edit(file: Path, key: str, data: np.ndarray | None) -> None:
    with h5py.File(file, "a") as opened:
        del opened[key]
        if data is not None:
            opened[key] = data


@pytest.mark.parametrize(
    ("spec", "split", "message"),
    [
        ("?partition=0.50x", "train", "no partition '0.50x'; the partitions are 0.01x_train, default"),
        (
            "",
            "testing",
            "no split 'testing' in partition default; the splits are train, valid, test; parts of one are",
        ),
        ("?bands=B04,B99", "train", "no band 'B99'; the bands are B01, B02"),
        ("?bands=", "train", None),
        ("?names=guessed", "train", "names='guessed': must be one of corrected, stored"),
        ("?scale=0", "train", "scale=0: must be a number above 0"),
        ("?scale=big", "train", "scale=big: must be a number above 0"),
        ("?band=B04", "train", "unknown option 'band'; geobench takes bands, partition, names, scale"),
    ],
)
def test_a_wrong_spec_is_named(eurosat, spec, split, message):
    if message is None:
        assert len(open_source(f"geobench:{eurosat}{spec}", split).info.bands) == 13
        return
    with pytest.raises(UserError) as error:
        open_source(f"geobench:{eurosat}{spec}", split)
    assert message in str(error.value)


def without(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def label_map(content):
    return lambda folder: (folder / "label_map.json").write_text(json.dumps(content))


def label_stats(content):
    def change(folder):
        (folder / "label_map.json").unlink()
        (folder / "label_stats.json").write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("default_partition.json"), "no partition 'default'; the partitions are 0.01x_train"),
        (without("id_0000.hdf5"), "1 of 2 samples of split train have no file, first id_0000.hdf5"),
        (without("label_map.json"), "neither label_map.json nor label_stats.json there"),
        (label_map({"0": ["id_0003"]}), "label_map.json has no label for 1 samples, first id_0000"),
        (label_map({"0": ["id_0003"], "1": ["id_0003"]}), "label_map.json: id_0003 has two classes"),
        (label_stats({"id_0003": [0.2, 0.8], "id_0000": [1, 0]}), "is this a segmentation set?"),
        (lambda folder: (folder / "label_map.json").write_text("{"), "label_map.json is damaged"),
        (lambda folder: (folder / "band_stats.json").write_text("{}"), "band_stats.json has no mean and std"),
        (lambda folder: [file.write_bytes(b"") for file in folder.glob("*.hdf5")], "no readable sample"),
        (lambda folder: folder.rename(folder.parent / "eurosat"), "no such folder"),
    ],
)
def test_an_incomplete_folder_is_one_sentence(tmp_path, change, message):
    folder = single_label_set(tmp_path)
    change(folder)
    with pytest.raises(UserError) as error:
        open_source(f"geobench:{folder}")
    assert message in str(error.value)


def test_a_folder_of_another_name_is_not_guessed(tmp_path):
    folder = single_label_set(tmp_path).rename(tmp_path / "eurosat")
    with pytest.raises(UserError, match="which determines its bands; use m-eurosat, m-bigearthnet"):
        open_source(f"geobench:{folder}")


def segmentation_set(root: Path, name: str = "m-cashew-plant", dtype: type = np.uint8) -> Path:
    """Twelve dated bands, a cloud probability and a mask, as the two sets of segmentation have them."""
    keys = [f"{key}_2019-11-05" for key in SENTINEL2 if "B10" not in key and "10 -" not in key]
    folder = write_set(
        root / "segmentation_v1.0" / name,
        [*keys, "CLD - Cloud Probability_2019-11-05"],
        {"label_stats.json": {}},
        SPLITS,
    )
    for i in range(5):
        with h5py.File(folder / f"id_{i:04d}.hdf5", "a") as file:
            file.create_dataset("label", data=np.random.default_rng(i).integers(7, size=(8, 8)).astype(dtype))
    stats = json.loads((folder / "band_stats.json").read_text())
    (folder / "band_stats.json").write_text(json.dumps({key.partition("_")[0]: v for key, v in stats.items()}))
    return folder


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_masks_of_a_segmentation_set(tmp_path, dtype):
    source = open_source(f"geobench:{segmentation_set(tmp_path, dtype=dtype)}", "test")
    target = source.info.target("mask")
    assert target.classes[1:4] == ("well-managed plantation", "poorly-managed plantation", "non-plantation")
    assert len(target.classes) == 7
    assert source.info.bands == (
        *("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"),
        "CLD - Cloud Probability",
    )
    for index, sample in enumerate((2, 4)):
        example = source[index]
        np.testing.assert_array_equal(example["mask"], np.random.default_rng(sample).integers(7, size=(8, 8)))
        np.testing.assert_array_equal(example["image"][..., 3], pixels(sample, 3, 8))
        target.check(example["mask"], 8, 8)
        assert example["label"] == -1


def test_no_data_is_ignored_where_that_is_asked_for(tmp_path):
    folder = segmentation_set(tmp_path)
    source = open_source(f"geobench:{folder}?no_data=ignored&bands=B04,B03,B02")
    assert source.info.target("mask").classes[0] == "well-managed plantation"
    stored = np.random.default_rng(3).integers(7, size=(8, 8))
    np.testing.assert_array_equal(source[0]["mask"], np.where(stored == 0, 255, stored - 1))
    assert source[0]["image"].shape == (8, 8, 3)
    with pytest.raises(UserError, match="no_data=maybe: class or ignored"):
        open_source(f"geobench:{folder}?no_data=maybe")
    with pytest.raises(UserError, match="no_data=class: only a set of segmentation has it"):
        open_source(f"geobench:{single_label_set(tmp_path)}?no_data=class")


def test_the_other_segmentation_set_and_a_sample_without_a_mask(tmp_path):
    folder = segmentation_set(tmp_path, "m-SA-crop-type")
    with h5py.File(folder / "id_0001.hdf5", "a") as file:
        del file["label"]
    source = open_source(f"geobench:{folder}", "validation")
    assert len(source.info.target("mask").classes) == 10
    with pytest.raises(CorruptImage, match="label"):
        source[0]
    with h5py.File(folder / "id_0003.hdf5", "a") as file:
        del file["label"]
        file["label"] = np.full((8, 8), 0.5)
    with pytest.raises(CorruptImage, match="not whole numbers"):
        open_source(f"geobench:{folder}")[0]


@pytest.mark.parametrize(("case", "why"), [(1347, "has no bands"), (4828, "has a part that is longer than the file")])
def test_files_without_bands_and_parts_longer_than_their_file_are_refused(case, why, tmp_path):
    """Cases of the drills: the first was a traceback, the second allocated what it declares."""
    files = BY_NAME["hdf5"]
    path = tmp_path / f"input{files.suffix}"
    path.write_bytes(files.content(case))
    with pytest.raises((UserError, CorruptImage), match=why):
        files.read(path)
