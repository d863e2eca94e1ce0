"""Classes of images by a run of classification, beside the network applied by hand."""

import csv
import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

import scaling
from scaling.data.config import DataConfig
from scaling.data.sources.registry import open_source
from scaling.parallel.mesh import MeshConfig
from scaling.tasks.finetuning import Finetuning
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig
from tests.commands import call, command, error_of
from tests.data.sources.test_geobench import multi_label_set
from tests.encoders.examples import small_encoder

RECIPE = FinetuneConfig(
    epochs=3.0,
    warmup_epochs=0.5,
    batch_size=16,
    data=DataConfig(source="scenes?size=16", split="train[:64]", flips="dihedral"),
    test_split="test[:16]",
    optimizer=OptimizerConfig(base_lr=2e-2),
    mesh=MeshConfig(replica=1, fsdp=-1, min_shard_elements=0),
)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("classify") / "run"
    return workdir, Finetuning(small_encoder(), RECIPE).run(workdir)


@pytest.fixture(scope="module")
def images():
    source = open_source("scenes?size=16", "test")
    return np.stack([source[i]["image"] for i in range(20)])


def written(folder, images):
    for i, image in enumerate(images):
        (folder / "in" / f"part{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "in" / f"part{i % 2}" / f"{i:02d}.png")
    return folder / "in"


def predict(workdir, folder, output, **flags):
    return call(command("predict", checkpoint=workdir, input=folder, output=output, **flags))


def table(output):
    with (output / "predictions.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def by_hand(tuned, images):
    logits = jax.jit(tuned.task.logits)(jax.device_get(tuned.trained.state.params), images)
    return np.asarray(jax.nn.softmax(logits))


def test_every_image_has_its_class_and_probabilities(tuned, images, tmp_path):
    workdir, outcome = tuned
    done = predict(workdir, written(tmp_path, images), tmp_path / "out", batch_size=3)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"20 images; their classes in {tmp_path / 'out' / 'predictions.csv'}\n"
    rows, classes = table(tmp_path / "out"), open_source("scenes?size=16").info.classes
    assert [row["file"] for row in rows] == sorted(f"part{i % 2}/{i:02d}.png" for i in range(20))
    assert list(rows[0]) == ["file", "class", *(f"p_{name}" for name in classes)]
    expected = by_hand(outcome, images)
    for row in rows:
        mine = expected[int(row["file"][-6:-4])]
        np.testing.assert_allclose([float(row[f"p_{name}"]) for name in classes], mine, rtol=2e-3, atol=1e-5)
        assert row["class"] == classes[mine.argmax()]
    assert len({row["class"] for row in rows}) > 1


def test_python_says_the_same_of_arrays_and_of_a_folder(tuned, images, tmp_path):
    expected = by_hand(tuned[1], images)
    found = scaling.predict(tuned[0], images)
    np.testing.assert_allclose(found.probabilities, expected, rtol=2e-3, atol=1e-5)
    assert found.predicted == [found.classes[k] for k in expected.argmax(1)]
    assert found.names == list(map(str, range(20)))
    in_files = scaling.predict(tuned[0], written(tmp_path, images))
    rows = [int(name[-6:-4]) for name in in_files.names]
    np.testing.assert_allclose(in_files.probabilities, found.probabilities[rows], rtol=2e-3, atol=1e-5)
    for wrong, message in (
        (images / 255, "images: has pixels of float64, the training had uint8"),
        (images[0], r"must be \[N, h, w, C\]; one image is image\[None\]"),
        (tmp_path / "none", "images=.*none: no such file or folder"),
    ):
        with pytest.raises(scaling.UserError, match=message):
            scaling.predict(tuned[0], wrong)
    with pytest.raises(scaling.UserError, match=r"path=.*nowhere has no folder `checkpoints`"):
        scaling.predict(tmp_path / "nowhere", images)


def test_what_finetune_returned_is_applied_as_it_was_scored(tuned, images):
    assert tuned[1].path == tuned[0]
    found, named = scaling.predict(tuned[1], images), scaling.predict(tuned[0], images)
    np.testing.assert_array_equal(found.probabilities, named.probabilities)
    with pytest.raises(scaling.UserError, match=r"has no checkpoint of step 3"):
        scaling.predict(tuned[1], images, step=3)
    earlier = dataclasses.replace(tuned[1].trained, state=dataclasses.replace(tuned[1].trained.state, step=np.int32(5)))
    with pytest.raises(scaling.UserError, match=r"step 5"):
        scaling.predict(dataclasses.replace(tuned[1], trained=earlier), images)


def test_images_that_cannot_be_read_are_named_and_counted(tuned, images, tmp_path):
    folder = written(tmp_path, images[:4])
    (folder / "part0" / "00.png").write_bytes(b"\x89PNG broken")
    done = predict(tuned[0], folder, tmp_path / "out")
    assert "skipped an unreadable image: part0/00.png" in done.stderr
    assert "3 images, 1 could not be read; " in done.stdout
    assert [row["file"] for row in table(tmp_path / "out")] == ["part0/02.png", "part1/01.png", "part1/03.png"]


def test_classes_are_named_without_their_table_too(tuned, images, tmp_path, monkeypatch):
    monkeypatch.setattr("scaling.tasks.classification_run.CLASSES", "gone.csv")
    folder = written(tmp_path, images[:2])
    assert predict(tuned[0], folder / "part0" / "00.png", tmp_path / "out").returncode == 0
    (row,) = table(tmp_path / "out")
    assert row["file"] == "00.png"
    assert row["class"] in open_source("scenes?size=16").info.classes


def test_wrong_input_is_one_line(tuned, images, tmp_path):
    folder = written(tmp_path, images[:2])
    asked = {"stride": 4, "rates": "1,2"}
    for name, value in asked.items():
        message = error_of(predict(tuned[0], folder, tmp_path / "out", **{name: value}), 2)
        assert f"--{name} is for runs of " in message
    np.save(folder / "part0" / "x.npy", images[0])
    (folder / "part0" / "00.png").unlink()
    np.save(folder / "part0" / "x.npy", images[0].astype(np.uint16) * 100)
    message = error_of(predict(tuned[0], folder / "part0", tmp_path / "out"), 2)
    assert "has pixels of uint16, the training had uint8" in message
    for dtype in ("bool", "int8", "int16", "int32", "int64", "uint32", "uint64", "float16", "float64"):
        np.save(folder / "part0" / "x.npy", images[0].astype(dtype))
        message = error_of(predict(tuned[0], folder / "part0", tmp_path / "out"), 2)
        assert f"has pixels of {dtype}, the training had uint8; give images as those" in message
    assert "--bands=0,1" in error_of(predict(tuned[0], folder / "part1", tmp_path / "out", bands="0,1"), 2)
    assert not (tmp_path / "out").exists()
    assert predict(tuned[0], folder / "part1", tmp_path / "out").returncode == 0
    message = error_of(predict(tuned[0], folder / "part1", tmp_path / "out"), 2)
    assert "predictions.csv is there already; choose another folder" in message


def test_of_several_labels_those_above_one_half_are_told(tmp_path):
    folder = multi_label_set(tmp_path / "set")
    data = DataConfig(
        source=f"geobench:{folder}", split="train", eval_split="valid", mean=(500.0,) * 12, std=(1000.0,) * 12
    )
    recipe = dataclasses.replace(RECIPE, data=data, test_split="test", batch_size=8)
    outcome = Finetuning(small_encoder(bands=12), recipe).run(tmp_path / "run")
    source = open_source(data.source, "train")
    pixels = np.stack([source[i]["image"] for i in range(3)])
    for i, image in enumerate(pixels):
        (tmp_path / "in").mkdir(exist_ok=True)
        np.save(tmp_path / "in" / f"{i}.npy", image)
    done = predict(tmp_path / "run", tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows, names = table(tmp_path / "out"), source.info.classes
    for row in rows:
        chances = [float(row[f"p_{name}"]) for name in names]
        assert row["class"] == ";".join(name for name, p in zip(names, chances, strict=True) if p > 0.5)
    assert outcome.task.task.multi_label
