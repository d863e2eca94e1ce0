"""What the drills of hostile input found, each as the smallest file that did it."""

import io
import json
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest

from scaling import cli
from scaling.core.errors import UserError
from scaling.data.dota_text import parse_objects
from scaling.data.images import CorruptImage, decode
from scaling.data.masks import decode_mask
from scaling.data.rasters import open_raster
from scaling.data.sources.registry import open_source
from scaling.interop.settings import read_settings
from scaling.interop.weights import read_weights
from scaling.models.config import ViTConfig
from scaling.training.stored_config import stored_config
from tests.data.examples import jpeg, png, smooth
from tests.drills.hostile import BY_NAME, images
from tests.drills.hostile.archives import archive, zeros


def endless():
    inside = {}
    inside["a"] = inside
    return pickle.dumps(inside)


def doubled(levels=40):
    inside = {"x": 1}
    for _ in range(levels):
        inside = {"a": inside, "b": inside}
    return pickle.dumps(inside)


PICKLES = {
    "a far place in the memo": (b"\x80\x02Nr" + struct.pack("<I", 2**31 - 1) + b".", "memo"),
    "a long array of bytes": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "is damaged"),
    "a name of two lines": (b"\x80\x04\x8c\x02os\x8c\x03a\nb\x93.", r"os\.a\\nb"),
    "a mapping in itself": (endless(), "nested without end"),
    "a mapping in two places, forty times": (doubled(), "nested without end"),
}


@pytest.mark.parametrize(("content", "message"), PICKLES.values(), ids=PICKLES)
def test_a_pickle_of_few_bytes_takes_little_memory_and_time(tmp_path, content, message):
    (tmp_path / "w.pth").write_bytes(archive([("w/data.pkl", content, None)]))
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["data.pkl", "byteorder"])
def test_entries_of_weights_that_unpack_to_gigabytes_are_refused(tmp_path, name):
    entries = {"data.pkl": (pickle.dumps({}), None), name: (zeros(64), 64 << 20)}
    (tmp_path / "w.pth").write_bytes(archive([(f"w/{key}", *entry) for key, entry in entries.items()]))
    with pytest.raises(UserError, match=f"{name} is compressed"):
        read_weights(tmp_path / "w.pth")


def test_json_that_is_nested_without_end_is_refused(tmp_path):
    deep = '{"weight_map": ' + "[" * 100_000
    (tmp_path / "model.index.json").write_text(deep)
    with pytest.raises(UserError, match="is text, and no weights"):
        read_weights(tmp_path / "model.index.json")
    (tmp_path / "config.json").write_text(deep)
    with pytest.raises(UserError, match=r"config\.json: must be JSON \(it is nested too deeply\)"):
        read_settings(tmp_path / "w.safetensors")


DECLARED = {
    "png": images._declared_png(60_000, 60_000),
    "png of a palette": images._declared_png(40_000, 40_000, kind=3),
    "tiff": images._declared_tiff(60_000, 60_000, compression=8),
    "jpeg": images._sized(jpeg(smooth(0)), 65_500, 65_500),
    "npy": b"\x93NUMPY\x01\0\x4a\0{'descr': '|u1', 'fortran_order': False, 'shape': (300000, 300000), }".ljust(84),
}


@pytest.mark.parametrize("data", DECLARED.values(), ids=DECLARED)
def test_an_image_that_declares_gigabytes_is_refused_before_they_are_allocated(data):
    for read in (decode, decode_mask):
        with pytest.raises(CorruptImage, match=r"GiB of pixels, which .* cannot hold|is cut short|a JPEG"):
            read(data, "x")


def test_large_images_that_are_there_are_read():
    assert decode(png(np.zeros((2000, 2000, 3), np.uint8)), "x").shape == (2000, 2000, 3)  # 12 MB of 36 kB


def test_a_description_of_other_files_is_not_a_scene(tmp_path):
    pytest.importorskip("rasterio")
    (tmp_path / "secret.png").write_bytes(png(np.zeros((24, 32, 3), np.uint8)))
    for file, content in enumerate(images._crafted_scenes()[:5]):
        (tmp_path / f"{file}.tif").write_bytes(content)
        with pytest.raises(UserError, match="cannot be read"):
            open_raster(str(tmp_path / f"{file}.tif"), 3)


def geobench(folder, make):
    folder = folder / "m-eurosat"
    folder.mkdir(exist_ok=True)
    (folder / "default_partition.json").write_text(json.dumps({"train": ["x"]}))
    (folder / "label_map.json").write_text(json.dumps({"0": ["x"]}))
    with h5py.File(folder / "x.hdf5", "w") as file:
        make(file)
    return open_source(f"geobench:{folder}", "train")


def test_hdf5_reads_no_other_file_and_no_more_than_is_there(tmp_path):
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["x"] = np.ones((8, 8), np.int16)
    for make, message in (
        (lambda f: f.__setitem__("B02", h5py.ExternalLink(str(tmp_path / "other.hdf5"), "x")), "in another file"),
        (lambda f: f.create_dataset("B02", (8, 8), "u1", external=[("/etc/passwd", 0, 64)]), "not an array in this"),
        (lambda f: f.create_dataset("B02", (99_000, 99_000), "i2", chunks=(9, 9)), "GiB of pixels"),
    ):
        with pytest.raises(CorruptImage, match=message):
            geobench(tmp_path, make)[0]


def test_entries_of_an_archive_that_unpack_to_gigabytes_are_refused(tmp_path):
    small = png(smooth(0, 8, 8))
    for size in (3 << 30, 1000):  # it says how large it is, and it does not
        file = tmp_path / f"{size}.zip"
        file.write_bytes(archive([("1.png", zeros(3 << 10), size), ("2.png", small, None)]))
        source = open_source(f"zip:{file}", "train")
        with pytest.raises(CorruptImage, match=r"would unpack from|checksum"):
            source[0]
        assert source[1]["image"].shape == (8, 8, 3)
    (tmp_path / "dota").mkdir()
    labels = archive([("images/1.png", small, None), ("labelTxt/1.txt", zeros(3 << 10), 3 << 30)])
    (tmp_path / "dota" / "train.zip").write_bytes(labels)
    with pytest.raises(UserError, match=r"would unpack from .* fetch the archive again"):
        open_source(f"dota:{tmp_path}/dota", "train")


def test_positions_beyond_an_archive_are_named(tmp_path):
    data = bytearray(archive([("1.png", png(smooth(0, 8, 8)), None)]))
    at = data.rfind(b"PK\1\2")
    data[at + 42 : at + 46] = b"\xff\xff\xff\x7f"  # where the entry begins
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(CorruptImage, match="the archive is truncated"):
        open_source(f"zip:{tmp_path}/x.zip", "train")[0]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as whole:
        whole.writestr("1.png", "x")
    (tmp_path / "y.zip").write_bytes(file.getvalue().replace(b"PK\x05\x06\0\0\0\0", b"PK\x05\x06\0\0\1\0"))
    open_source(f"zip:{tmp_path}/y.zip", "train")


def test_a_manifest_without_its_fields_is_damaged(tmp_path):
    for content in ({"format": 1}, [], {"format": 1, "splits": {"train": {}}, "class_names": []}):
        (tmp_path / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"manifest\.json is damaged"):
            open_source(f"arrayrecord:{tmp_path}", "train")


def test_a_difficulty_of_many_digits_is_read():
    line = f"1 2 9 2 9 9 1 9 ship {'9' * 5000}"
    assert parse_objects(line, "x").difficult.tolist() == [True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(): return 3\n", "returns config_dict(…), not 3"),
        ("def get_config():\n  raise OSError('gone')\n", "cannot be loaded: gone"),
        ("\0", "null bytes"),
    ],
)
def test_a_config_file_that_holds_no_config_is_one_line(tmp_path, capsys, text, message):
    (tmp_path / "c.py").write_text(text)
    assert cli.call("scaling.train", [f"--config={tmp_path}/c.py", "--print_config"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_stored_model_that_is_no_model_is_refused():
    with pytest.raises(UserError, match="config field model takes fields"):
        stored_config({"model": []})
    with pytest.raises(UserError, match="must be at most"):
        ViTConfig(width=2**40).check()


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (1688, r"config field epochs takes float, not a whole number beyond 1e308"),
        (2134, r"step 3, is of no network \('head_dim'\); copy it again"),
        (3306, r"step 3, is of no network \(integer division or modulo by zero\); copy it again"),
    ],
)
def test_a_stored_configuration_of_no_network_is_one_line(case, why, tmp_path):
    """Cases of the drills that were tracebacks."""
    configs = BY_NAME["checkpoint_config"]
    path = tmp_path / "input"
    path.write_bytes(configs.content(case))
    with pytest.raises(UserError, match=why):
        configs.read(path)
