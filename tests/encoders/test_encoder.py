"""A checkpoint as a function from images to features."""

import dataclasses
import logging
import sys
import textwrap

import jax
import numpy as np
import pytest

from scaling.analysis.laws.pooling import mixed
from scaling.core.errors import TrainingError, UserError
from scaling.encoders import controls
from scaling.encoders import encoder as encoder_module
from scaling.encoders.loading import load_encoder
from scaling.encoders.slimmed import slim
from scaling.models.vit import ViT
from scaling.training.config import FinetuneConfig, TrainConfig
from scaling.training.stored_config import ImportConfig
from tests.commands import finish, free_port, start
from tests.encoders.examples import images, pixels_of, small_encoder
from tests.models import reference
from tests.rows import ROW
from tests.slimming.encoders import images as images_of
from tests.slimming.encoders import structured


@pytest.fixture(scope="module")
def encoder(uninterrupted_run):
    return load_encoder(uninterrupted_run[0])


def test_features_are_those_of_the_reference_encoder(encoder):
    c, x = encoder.config, images(3)
    exact = jax.tree.map(lambda p: np.asarray(p, np.float64), encoder.params)
    tokens = np.stack([reference.encode(exact, image, c) for image in x])
    expected = {"tokens": tokens, "cls": tokens[:, 0], "mean": tokens[:, 1:].mean(1)}
    assert tokens.shape == (3, 17, 32)
    for pool, features in expected.items():
        got = encoder.features(x, pool, normalised=True)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, features, atol=1e-4)


@pytest.mark.parametrize(("pool", "shape"), [("cls", (32,)), ("mean", (32,)), ("tokens", (17, 32))])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_any_number_of_images_in_any_batches(encoder, pool, shape, n):
    features = encoder.features(images(n), pool, normalised=True)
    assert features.shape == (n, *shape)
    np.testing.assert_allclose(encoder.features(images(n), pool, batch_size=2, normalised=True), features, atol=1e-5)


def test_normalisation_is_that_of_the_training(encoder):
    data = encoder.train.data
    x = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_allclose(encoder.normalise(x), (x - np.array(data.mean)) / np.array(data.std), atol=1e-5)


def test_the_newest_checkpoint_is_read_unless_one_is_named(uninterrupted_run, encoder):
    workdir = uninterrupted_run[0]
    earlier, last = load_encoder(workdir, step=5), load_encoder(workdir, step=40)
    x = images(2)
    np.testing.assert_array_equal(last.features(x, normalised=True), encoder.features(x, normalised=True))
    assert not np.allclose(earlier.features(x, normalised=True), encoder.features(x, normalised=True), atol=1e-3)


def test_a_checkpoint_that_is_not_there(uninterrupted_run, tmp_path):
    with pytest.raises(UserError, match="has no folder `checkpoints`; give the --workdir of a training run"):
        load_encoder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="has no complete checkpoint yet"):
        load_encoder(tmp_path)
    with pytest.raises(UserError, match=r"has no checkpoint of step 7; there are 5, 10, .*40"):
        load_encoder(uninterrupted_run[0], step=7)


@pytest.mark.parametrize("mode", ["inner", "token", "heads", "head_dim+embed"])
def test_a_slimmed_encoder_is_read_as_if_it_were_cut_after_reading(uninterrupted_run, encoder, mode):
    got, expected = load_encoder(uninterrupted_run[0], width_ratio=0.3, mode=mode), slim(encoder, 0.3, mode)
    assert got.config == expected.config
    assert jax.tree.structure(got.params) == jax.tree.structure(expected.params)
    jax.tree.map(np.testing.assert_array_equal, got.params, expected.params)


def compiled(monkeypatch, module, name):
    """Programs that a jitted function of a module is run as, as they are run."""
    function, programs = getattr(module, name), []

    def spy(*arguments):
        programs.append(function.lower(*arguments).compile())
        return function(*arguments)

    monkeypatch.setattr(module, name, spy)
    return programs


def test_every_device_encodes_its_share_of_a_batch(monkeypatch):
    e = small_encoder()
    x = images(256).astype(np.float32)
    alone = jax.jit(lambda p, x: ViT(e.config).apply({"params": p}, x)).lower(e.params, x[:128]).compile()
    programs = compiled(monkeypatch, encoder_module, "_encode")
    e.features(x, normalised=True)
    assert jax.device_count() == 8
    assert len(programs) == 2
    for program in programs:
        assert program.cost_analysis()["flops"] < alone.cost_analysis()["flops"] / 7
        assert program.input_shardings[0][-1].shard_shape((128, 16, 16, 3)) == (16, 16, 16, 3)


@pytest.mark.parametrize("name", ["patch_embedding", "depth_0"])
def test_so_it_is_with_the_controls(monkeypatch, name):
    programs = compiled(monkeypatch, controls, "_embed")
    controls.CONTROLS[name](small_encoder(), "mean", 0)(images(128))
    assert programs[0].input_shardings[0][-1].shard_shape((128, 16, 16, 3)) == (16, 16, 16, 3)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_a_batch_that_does_not_divide_by_the_devices(batch_size):
    e, x = small_encoder(), images(11)
    np.testing.assert_allclose(
        e.features(x, batch_size=batch_size, normalised=True), e.features(x, normalised=True), atol=1e-5
    )


def test_parameters_may_lie_anywhere():
    e, x = small_encoder(), images(3)
    for params in (jax.tree.map(np.asarray, e.params), jax.device_put(e.params, jax.devices()[3])):
        moved = dataclasses.replace(e, params=params)
        np.testing.assert_array_equal(moved.features(x, normalised=True), e.features(x, normalised=True))
        np.testing.assert_array_equal(
            controls.CONTROLS["depth_0"](moved, "mean", 0)(x), controls.CONTROLS["depth_0"](e, "mean", 0)(x)
        )


PROCESS = """
    import sys, jax, numpy as np
    from scaling.encoders.slimmed import slim
    from scaling.parallel import hosts
    from tests.slimming.encoders import structured, images
    hosts.start(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 60)
    e = structured(image_size=16)
    x = images(40, e.config)
    small = slim(e, 0.5, "inner", "svd", "ridge", x)
    np.savez(sys.argv[4], full=e.features(x, "tokens", normalised=True), slimmed=small.features(x, normalised=True))
"""


@pytest.mark.long
def test_several_processes_encode_together(tmp_path):
    where = f"localhost:{free_port()}"
    code = textwrap.dedent(PROCESS)
    both = [start([sys.executable, "-c", code, where, "2", str(k), str(tmp_path / f"{k}.npz")], 4) for k in range(2)]
    assert [(done.returncode, done.stderr[-2000:]) for done in map(finish, both) if done.returncode] == []
    e = structured(image_size=16)
    x = images_of(40, e.config)
    for k in range(2):
        with np.load(tmp_path / f"{k}.npz") as got:
            np.testing.assert_allclose(got["full"], e.features(x, "tokens", normalised=True), atol=1e-5)
            np.testing.assert_allclose(
                got["slimmed"], slim(e, 0.5, "inner", "svd", "ridge", x).features(x, normalised=True), atol=1e-4
            )


def test_one_image_has_one_row_of_features(encoder):
    x = images(2)
    for pool in ("mean", "tokens"):
        both = encoder.features(x, pool, normalised=True)
        np.testing.assert_allclose(encoder.features(x[1], pool, normalised=True), both[1], atol=1e-5)


def test_a_saved_encoder_is_the_same_when_it_is_loaded(tmp_path):
    e = small_encoder()
    e.save(tmp_path / "kept")
    np.testing.assert_array_equal(load_encoder(tmp_path / "kept").features(pixels_of(3)), e.features(pixels_of(3)))
    with pytest.raises(UserError, match="has checkpoints already"):
        e.save(tmp_path / "kept")


def test_an_encoder_that_was_not_saved_to_the_end_is_saved_again(tmp_path, monkeypatch):
    """Full at the last file, and left by a kill."""
    e, full = small_encoder(), OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr("scaling.training.checkpoints.write_checksums", lambda folder: (_ for _ in ()).throw(full))
        with pytest.raises(TrainingError, match="No space left on device"):
            e.save(tmp_path / "kept")
    (tmp_path / "kept" / "checkpoints" / f"{e.step}.orbax-checkpoint-tmp").mkdir()
    e.save(tmp_path / "kept")
    np.testing.assert_array_equal(load_encoder(tmp_path / "kept").features(pixels_of(3)), e.features(pixels_of(3)))


def test_an_encoder_is_one_line_in_a_notebook(encoder):
    assert repr(encoder).count("\n") == 0
    assert len(repr(encoder)) < 200
    assert "16 x 16 pixels, 3 bands -> 32" in repr(encoder)


def test_reading_says_nothing(uninterrupted_run, caplog):
    with caplog.at_level(logging.WARNING):
        load_encoder(uninterrupted_run[0])
    assert [record.getMessage() for record in caplog.records] == []


def test_rows_say_what_made_the_encoder(encoder):
    def objective(train):
        return dataclasses.replace(encoder, train=train).row_fields("e", {})["objective"]

    assert encoder.row_fields("e", {})["objective"] == objective(TrainConfig()) == "mae"
    assert objective(FinetuneConfig()) == "finetune"
    assert "moco" in objective(ImportConfig(family="moco_v3"))
    rows = [
        dataclasses.replace(ROW, objective=objective(train))
        for train in (TrainConfig(), ImportConfig(family="moco_v3"))
    ]
    assert "different objective" in "".join(mixed(rows))
    assert mixed(rows[:1] * 2) == []


def test_features_that_are_not_finite_are_refused():
    """They would be a score in silence: of NaNs the first class is the likeliest."""
    encoder = small_encoder()
    norm = encoder.params["norm"]
    large = dataclasses.replace(encoder, params={**encoder.params, "norm": {**norm, "scale": norm["scale"] * 3e38}})
    pixels = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3)).astype(np.uint8)
    with pytest.raises(
        UserError, match="the features of 3 of 3 images are not finite, the first of image 0; give other"
    ):
        large.features(pixels)
