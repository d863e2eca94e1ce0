"""Features from the command line."""

import numpy as np
import pytest

from scaling.evaluation.encoder import load_encoder
from tests.commands import command, error_of, run


def images(n=5):
    return np.random.default_rng(0).normal(size=(n, 16, 16, 3)).astype(np.float32)


def features(tmp_path, workdir, **flags):
    done = run(command("features", checkpoint=workdir, output=tmp_path / "y.npy", **flags))
    assert done.returncode == 0, done.stderr
    return np.load(tmp_path / "y.npy"), done.stdout


def test_features_of_an_array(straight, tmp_path):
    np.save(tmp_path / "x.npy", images())
    got, out = features(tmp_path, straight[0], input=tmp_path / "x.npy", pool="tokens")
    assert out == f"[5, 17, 32] features in {tmp_path}/y.npy\n"
    np.testing.assert_allclose(got, load_encoder(straight[0]).features(images(), "tokens"), atol=1e-5)


def test_features_and_labels_of_a_source(straight, tmp_path):
    labels = tmp_path / "labels.npy"
    got, _ = features(tmp_path, straight[0], source="scenes?size=16&count=30", split="test", labels=labels)
    assert (got.shape, got.dtype) == ((30, 32), np.float32)
    assert set(np.load(labels)) <= set(range(32))
    assert np.load(labels).shape == (30,)
    assert len(set(np.load(labels))) > 4


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (images().astype(np.int32), "x.npy is int32; give normalised float images, or the files as --source"),
        (images()[..., :2], "images of shape [5, 16, 16, 2], the encoder takes [N, 16, 16, 3]"),
        (np.full_like(images(), np.nan), "the images contain NaN or infinity"),
        (None, "x.npy cannot be read as .npy: "),
    ],
    ids=["integers", "wrong bands", "NaN", "missing"],
)
def test_an_array_that_does_not_fit(straight, tmp_path, array, message):
    if array is not None:
        np.save(tmp_path / "x.npy", array)
    done = run(command("features", checkpoint=straight[0], input=tmp_path / "x.npy", output=tmp_path / "y.npy"))
    assert message in error_of(done, 2)
    assert not (tmp_path / "y.npy").exists()


def test_flags_that_are_missing_are_named(straight):
    message = "give --checkpoint=DIR, --output=FILE and either --input=FILE or --source=SPEC"
    assert error_of(run(command("features", checkpoint=straight[0], output="y.npy")), 2) == message
