"""Features from the command line."""

import csv
import shutil

import numpy as np
import pytest

from scaling.data.sources.registry import open_source
from scaling.encoders.loading import load_encoder
from scaling.encoders.slimmed import slim
from scaling.encoders.splits import read_split
from tests.commands import call, command, error_of, run
from tests.data.examples import class_folders, truncate


def images(n=5):
    return np.random.default_rng(0).normal(size=(n, 16, 16, 3)).astype(np.float32)


def features(tmp_path, workdir, **flags):
    done = call(command("features", checkpoint=workdir, output=tmp_path / "y.npy", **flags))
    assert done.returncode == 0, done.stderr
    return np.load(tmp_path / "y.npy"), done.stdout


def test_features_of_an_array(uninterrupted_run, tmp_path):
    np.save(tmp_path / "x.npy", images())
    got, out = features(tmp_path, uninterrupted_run[0], input=tmp_path / "x.npy", pool="tokens")
    assert out == f"[5, 17, 32] features in {tmp_path}/y.npy\n"
    np.testing.assert_allclose(
        got, load_encoder(uninterrupted_run[0]).features(images(), "tokens", normalised=True), atol=1e-5
    )


def test_features_and_labels_of_a_source(uninterrupted_run, tmp_path):
    labels = tmp_path / "labels.npy"
    got, _ = features(tmp_path, uninterrupted_run[0], source="scenes?size=16&count=30", split="test", labels=labels)
    assert (got.shape, got.dtype) == ((30, 32), np.float32)
    assert set(np.load(labels)) <= set(range(32))
    assert np.load(labels).shape == (30,)
    assert len(set(np.load(labels))) > 4
    rows = list(csv.DictReader((tmp_path / "y.csv").open()))
    assert [int(row["index"]) for row in rows] == list(range(30))
    assert [int(row["label"]) for row in rows] == np.load(labels).tolist()
    classes = open_source("scenes?size=16&count=30", "test").info.classes
    assert [row["class"] for row in rows] == [classes[label] for label in np.load(labels)]


def test_every_row_of_a_folder_says_which_file_it_is(uninterrupted_run, tmp_path):
    root = class_folders(tmp_path / "set", 3)
    truncate(root / "river" / "001.jpg")
    got, out = features(tmp_path, uninterrupted_run[0], source=f"folder:{root}/")
    assert out.splitlines()[1:] == [f"rows in {tmp_path}/y.csv"]
    rows = list(csv.DictReader((tmp_path / "y.csv").open()))
    assert len(rows) == len(got) == 5
    encoder = load_encoder(uninterrupted_run[0])
    for row, vector in zip(rows, got, strict=True):
        assert row["name"].startswith(row["class"])
        one = tmp_path / row["name"].replace("/", "-") / "x"
        one.mkdir(parents=True)
        shutil.copy(root / row["name"], one)
        images = next(read_split(encoder, f"folder:{one.parent}", "train"))[0]
        np.testing.assert_allclose(encoder.features(images, normalised=True)[0], vector, atol=1e-4)
    assert not [row for row in rows if row["name"] == "river/001.jpg"]
    for spelling in ({"input": root}, {"input": f"folder:{root}"}, {"source": root}):
        np.testing.assert_array_equal(features(tmp_path, uninterrupted_run[0], **spelling)[0], got)
    run = uninterrupted_run[0]
    done = call(command("features", checkpoint=run, output=tmp_path / "z.npy", source=f"folder:{run}"))
    assert f"folder:{run}: must be a folder of images, not the working directory of a run" in error_of(done, 2)


def test_the_bands_of_the_training_are_taken_however_the_folder_is_written(uninterrupted_run, tmp_path):
    root = class_folders(tmp_path / "set", 3)
    plain, _ = features(tmp_path, uninterrupted_run[0], source=f"folder:{root}")
    turned, _ = features(tmp_path, uninterrupted_run[0], source=f"folder:{root}", bands="2,1,0")
    encoder = load_encoder(uninterrupted_run[0])
    images = np.concatenate([x for x, _ in read_split(encoder, f"folder:{root}", "train", bands=(2, 1, 0))])
    np.testing.assert_allclose(turned, encoder.features(images, normalised=True), atol=1e-4)
    assert not np.allclose(turned, plain, atol=1e-2)


def test_pixels_that_nobody_normalised_are_refused(uninterrupted_run, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).uniform(0, 1, (5, 16, 16, 3)).astype(np.float32))
    line = {"checkpoint": uninterrupted_run[0], "output": tmp_path / "y.npy"}
    said = error_of(call(command("features", input=tmp_path / "x.npy", **line)), 2)
    assert "/x.npy: values from " in said
    assert (
        "normalised means (x - mean) / std of the training, as encoder.normalise gives; multiply fractions by" in said
    )
    how = {"source": "scenes?size=16&count=8", "width_ratio": 0.4, "recovery": "ridge"}
    assert "/x.npy: values from " in error_of(
        call(command("features", **line, **how, calibration=tmp_path / "x.npy")), 2
    )


def test_images_far_from_normalised_are_said_once(uninterrupted_run, tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).uniform(-255, 255, (1100, 16, 16, 3)).astype(np.float32))
    done = run(
        command("features", checkpoint=uninterrupted_run[0], input=tmp_path / "x.npy", output=tmp_path / "y.npy")
    )
    assert (done.returncode, done.stderr.count("where normalised ones have about 0 and 1")) == (0, 1)
    assert np.load(tmp_path / "y.npy").shape == (1100, 32)
    assert f"--input={tmp_path}/x.npy: images of mean" in done.stderr
    assert "give their files as a source" in done.stderr


def test_reflectances_for_an_encoder_of_eight_bits_are_refused(uninterrupted_run, tmp_path):
    flags = {"checkpoint": uninterrupted_run[0], "output": tmp_path / "y.npy", "bands": "0,1,2", "pool": "tokens"}
    said = error_of(call(command("features", source="scenes:ms?size=16&count=8", **flags)), 2)
    assert "scenes:ms?size=16&count=8, split train: pixels up to" in said
    assert not (tmp_path / "y.npy").exists()


def test_a_source_of_fractions_is_refused(uninterrupted_run, tmp_path):
    flags = {"checkpoint": uninterrupted_run[0], "output": tmp_path / "y.npy"}
    (tmp_path / "set" / "a").mkdir(parents=True)
    np.save(tmp_path / "set" / "a" / "0.npy", np.random.default_rng(0).random((16, 16, 3), np.float32))
    assert "these are other units" in error_of(call(command("features", source=f"folder:{tmp_path}/set", **flags)), 2)
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize("labels", ["y.npy", "y.csv"])
def test_labels_do_not_replace_what_is_written(uninterrupted_run, tmp_path, labels):
    where = {"checkpoint": uninterrupted_run[0], "source": "scenes?size=16&count=8", "output": tmp_path / "y.npy"}
    said = error_of(call(command("features", labels=tmp_path / labels, **where)), 2)
    assert f"--labels={tmp_path / labels} is the --output or its table" in said


def test_a_limit_is_of_rows_and_of_their_table(uninterrupted_run, tmp_path):
    where = {"checkpoint": uninterrupted_run[0], "source": "scenes?size=16&count=30", "output": tmp_path / "y.npy"}
    assert "[7, 32] features" in call(command("features", limit=7, **where)).stdout
    assert (tmp_path / "y.csv").read_text().count("\n") == 8


def test_a_table_that_is_not_ours_is_left_alone(uninterrupted_run, tmp_path):
    (tmp_path / "y.csv").write_text("name,price\n")
    where = {"checkpoint": uninterrupted_run[0], "source": "scenes?size=16&count=8", "output": tmp_path / "y.npy"}
    assert "the table of its rows would replace" in error_of(call(command("features", **where)), 2)
    assert (tmp_path / "y.csv").read_text() == "name,price\n"
    assert not (tmp_path / "y.npy").exists()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (images().astype(np.int32), "x.npy: is int32; give normalised float images, or the files as --source"),
        (images()[..., :2], "images of shape [5, 16, 16, 2], but the encoder takes [N, 16, 16, 3]"),
        (np.full_like(images(), np.nan), "the images contain NaN or infinity"),
        (None, "x.npy: there is no such file"),
    ],
    ids=["integers", "wrong bands", "NaN", "missing"],
)
def test_an_array_that_does_not_fit(uninterrupted_run, tmp_path, array, message):
    if array is not None:
        np.save(tmp_path / "x.npy", array)
    done = call(
        command("features", checkpoint=uninterrupted_run[0], input=tmp_path / "x.npy", output=tmp_path / "y.npy")
    )
    assert message in error_of(done, 2)
    assert not (tmp_path / "y.npy").exists()


def test_flags_that_are_missing_are_named(uninterrupted_run):
    message = "--input and --source: exactly one must be given; give either --input=FILE or --source=SPEC"
    assert error_of(call(command("features", checkpoint=uninterrupted_run[0], output="y.npy")), 2) == message


def test_the_input_is_not_written_over(uninterrupted_run, tmp_path):
    np.save(tmp_path / "x.npy", images())
    (tmp_path / "link.npy").symlink_to(tmp_path / "x.npy")
    for output in ("x.npy", "link.npy"):
        flags = {"checkpoint": uninterrupted_run[0], "input": tmp_path / "x.npy", "output": tmp_path / output}
        assert "is the --input, which would be lost" in error_of(call(command("features", **flags)), 2)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), images())


def test_features_of_a_slimmed_encoder(uninterrupted_run, tmp_path):
    np.save(tmp_path / "x.npy", images())
    for mode, width in (("inner", 32), ("token", 12)):
        got, out = features(tmp_path, uninterrupted_run[0], input=tmp_path / "x.npy", width_ratio=0.4, mode=mode)
        assert out.startswith(f"[5, {width}] features in ")
        np.testing.assert_allclose(
            got, slim(load_encoder(uninterrupted_run[0]), 0.4, mode).features(images(), normalised=True), atol=1e-5
        )


def test_ordering_and_recovery_use_the_training_data_or_the_images_named(uninterrupted_run, tmp_path):
    np.save(tmp_path / "x.npy", images())
    np.save(tmp_path / "unlabelled.npy", images(20))
    how = {
        "input": tmp_path / "x.npy",
        "width_ratio": 0.4,
        "ordering": "svd",
        "recovery": "ridge",
        "calibration_images": 16,
    }
    encoder = load_encoder(uninterrupted_run[0])
    named, _ = features(tmp_path, uninterrupted_run[0], **how, calibration=tmp_path / "unlabelled.npy")
    expected = slim(encoder, 0.4, "inner", "svd", "ridge", images(20)[:16]).features(images(), normalised=True)
    np.testing.assert_allclose(named, expected, atol=1e-3)
    default, _ = features(tmp_path, uninterrupted_run[0], **how)
    batches = list(read_split(encoder, encoder.train.data.source, "train", limit=16))
    own = slim(encoder, 0.4, "inner", "svd", "ridge", np.concatenate([b[0] for b in batches]))
    np.testing.assert_allclose(default, own.features(images(), normalised=True), atol=1e-3)
    assert not np.allclose(default, named, atol=1e-2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"width_ratio": 1.5}, "width_ratio=1.5: must be above 0 and at most 1"),
        (
            {"width_ratio": 0.5, "mode": "depth"},
            "unknown slimming mode 'depth'; the modes are inner, token, heads, branch, or",
        ),
        (
            {"width_ratio": 0.5, "ordering": "best"},
            "unknown ordering 'best'; choose one of: first, last, random, energy, svd",
        ),
        (
            {"width_ratio": 0.5, "recovery": "mean", "calibration_images": 0},
            "'mean' needs calibration images, a few hundred",
        ),
        (
            {"width_ratio": 0.5, "ordering": "svd", "calibration": "no.npy"},
            "--calibration=no.npy: there is no such file",
        ),
    ],
)
def test_slimming_that_cannot_be_done(uninterrupted_run, tmp_path, flags, message):
    np.save(tmp_path / "x.npy", images())
    where = {"checkpoint": uninterrupted_run[0], "input": tmp_path / "x.npy", "output": tmp_path / "y.npy"}
    assert message in error_of(call(command("features", **where, **flags)), 2)
    assert not (tmp_path / "y.npy").exists()
