"""Data sets prepared by TensorFlow Datasets, read without TensorFlow."""

import pickle
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tensorflow_datasets as tfds

from scaling.core.errors import UserError
from scaling.data.sources.registry import open_source
from tests.data.examples import smooth

CLASSES = ["forest", "river"]


def write(folder: Path, features: dict, examples: list[dict], file_format: str = "array_record") -> str:
    """Prepares a small data set in the library's own way; returns its spec."""

    class Tiles(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "tiles"
        url_infos = None  # nothing to download

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {"train": enumerate(examples)}

        def _generate_examples(self):
            raise NotImplementedError

    Tiles(data_dir=folder, file_format=file_format).download_and_prepare()
    return f"tfds:tiles?data_dir={folder}"


def write_colours(folder: Path) -> str:
    """Five labelled images, encoded."""
    features = {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
        "label": tfds.features.ClassLabel(names=CLASSES),
    }
    examples = [{"image": imagecodecs.png_encode(smooth(i)), "label": CLASSES[i % 2]} for i in range(5)]
    return write(folder, features, examples)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("tfds"))


def test_encoded_images(colours):
    source = open_source(colours)
    assert (len(source), source.info.classes) == (5, tuple(CLASSES))
    for i in range(5):
        np.testing.assert_array_equal(source[i]["image"], smooth(i))
        assert source[i]["label"] == i % 2
    assert source.stored(0)[0].startswith(b"\x89PNG")
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[3]["image"], smooth(3))


def test_tensors_of_many_bands(tmp_path):
    features = {"sentinel2": tfds.features.Tensor(shape=(6, 6, 13), dtype=np.float32), "place": tfds.features.Text()}
    image = np.random.default_rng(0).random((6, 6, 13), np.float32)
    source = open_source(write(tmp_path, features, [{"sentinel2": image, "place": "here"}]))
    np.testing.assert_array_equal(source[0]["image"], image)
    assert source[0]["label"] == -1


def test_a_slice_of_a_split(colours):
    last = open_source(colours, "train[3:]")
    assert len(last) == 2
    for i in range(2):
        np.testing.assert_array_equal(last[i]["image"], smooth(3 + i))
        assert last[i]["label"] == (3 + i) % 2


def test_unknown_name_and_split(colours, tmp_path):
    with pytest.raises(UserError, match="no split 'test'; there is train"):
        open_source(colours, "test")
    for split in ("test[:50%]", "train[:x%]", "train["):
        with pytest.raises(UserError, match=r"no split .*; there is train"):
            open_source(colours, split)
    with pytest.raises(UserError, match="tfds:nothing_like_this"):
        open_source(f"tfds:nothing_like_this?data_dir={tmp_path}")


def test_registered_but_not_prepared(tmp_path):
    with pytest.raises(UserError, match=r"not prepared in .*tfds build eurosat/rgb"):
        open_source(f"tfds:eurosat/rgb?data_dir={tmp_path}")


def test_tensorflow_is_not_imported(colours):
    code = (
        "import sys; from scaling.data.sources.registry import open_source; "
        f"open_source({colours!r})[0]; assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
