"""Checkpoints: complete or absent, restored onto anything that has the same architecture."""

import dataclasses
import errno
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from scaling.core.errors import TemporaryError, TrainingError, UserError
from scaling.encoders.writing import write_parameters
from scaling.slimming.cutting import cut
from scaling.training.checkpoints import CheckpointConfig, Checkpoints
from scaling.training.config import RunConfig
from scaling.training.optimizer import OptimizerConfig
from scaling.training.stored import StoredCheckpoints
from tests.commands import isolated
from tests.models.sizes import small
from tests.training.train_steps import MESHES, assert_trees_equal, losses, train, train_step

CONFIG = {"seed": 3, "model": {"width": 32}, "data": {"mean": [0.5, 1.0], "bands": []}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A training step on one device and its state, saved after two steps."""
    workdir, t = tmp_path_factory.mktemp("saved"), train_step(ema_decay=0.5)
    state, _ = train(t, 2)
    checkpoints = Checkpoints(workdir)
    checkpoints.save(2, state, CONFIG)
    checkpoints.close()
    return workdir, t, state


def restore(workdir, t, step=2):
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.restore(step, t.abstract, t.shardings, t.names)
    finally:
        checkpoints.close()


@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_a_checkpoint_restores_onto_any_mesh(saved, mesh):
    workdir, _, state = saved
    t = train_step(mesh, ema_decay=0.5)
    restored = restore(workdir, t)
    assert_trees_equal(restored, state)
    assert jax.tree.map(lambda x: x.sharding, restored) == t.shardings


@pytest.mark.long
def test_a_sharded_checkpoint_restores_onto_one_device_and_trains_on_as_if_never_stopped(tmp_path):
    many, one = train_step((1, 4, 2)), train_step()
    state, _ = train(many, 2)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, state, CONFIG)
    checkpoints.close()
    restored = restore(tmp_path, one)
    assert_trees_equal(restored, state)
    _, on_one = train(one, 3, restored, start=2)
    _, on_many = train(many, 3, state, start=2)
    np.testing.assert_allclose(losses(on_one), losses(on_many), rtol=1e-5)


def test_moments_of_another_type_are_converted(tmp_path):
    half = train_step(optimizer=OptimizerConfig(first_moment_dtype="bfloat16"))
    state, _ = train(half, 2)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, state, CONFIG)
    checkpoints.close()
    restored = restore(tmp_path, train_step((1, 4, 1)))
    assert {x.dtype for x in jax.tree.leaves(restored.opt_state[0].mu)} == {jnp.dtype("float32")}
    assert_trees_equal(restored.opt_state[0].mu, jax.tree.map(lambda x: x.astype("float32"), state.opt_state[0].mu))
    assert_trees_equal(restored.params, state.params)


def test_the_configuration_comes_back_as_it_was(saved):
    checkpoints = Checkpoints(saved[0])
    assert checkpoints.config(2) == CONFIG
    checkpoints.close()


def test_parameters_can_be_read_alone(saved):
    workdir, t, state = saved
    checkpoints = Checkpoints(workdir)
    params = checkpoints.restore_params(2, t.abstract.params, t.shardings.params, t.names)
    checkpoints.close()
    assert_trees_equal(params, state.params)


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (CheckpointConfig(keep_last=2), [8, 10]),
        (CheckpointConfig(keep_last=1, keep_every=4), [4, 8, 10]),
        (CheckpointConfig(keep_last=2, asynchronous=False), [8, 10]),
    ],
    ids=str,
)
def test_the_newest_are_kept_and_those_at_multiples(tmp_path, saved, config, kept):
    checkpoints = Checkpoints(tmp_path, config)
    for step in (2, 4, 6, 8, 10):
        checkpoints.save(step, saved[2], CONFIG)
    checkpoints.wait()
    assert checkpoints.latest() == 10
    checkpoints.close()
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == kept


def test_a_step_that_is_saved_is_not_saved_again(tmp_path, saved):
    checkpoints = Checkpoints(tmp_path)
    for config in (CONFIG, {"other": 1}):
        checkpoints.save(2, saved[2], config)
    checkpoints.wait()
    assert checkpoints.config(2) == CONFIG
    checkpoints.close()


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"width": 48}, "axis embed of .* is 32 in it, 48 in the model"),
        ({"depth": 3}, "axis layers of .* is 2 in it, 3 in the model"),
        ({"branches": 1}, "axis branch of .* is 2 in it, 1 in the model"),
    ],
)
def test_another_architecture_is_refused_by_the_axis_that_differs(saved, theirs, message):
    other = train_step(ema_decay=0.5, model=small(**{"branches": 2, **theirs}))
    with pytest.raises(UserError, match=rf"checkpoints/2 is of another architecture: {message}; use the model of"):
        restore(saved[0], other)


@pytest.mark.parametrize(
    "fields", [{"ema_decay": 0.5, "optimizer": OptimizerConfig(name="adafactor")}, {"ema_decay": 0.0}], ids=str
)
def test_another_optimizer_or_average_is_refused(saved, fields):
    with pytest.raises(UserError, match=r"checkpoints/2 was written with another optimizer or moving average; set opt"):
        restore(saved[0], train_step(**fields))


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_write_that_fails_surfaces_at_the_next_save_or_wait(tmp_path, saved, asynchronous):
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(asynchronous=asynchronous))
    checkpoints.save(2, saved[2], CONFIG)
    checkpoints.wait()
    folder = tmp_path / "checkpoints"
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("a file where the folder was")
    with pytest.raises(TrainingError, match=r"a checkpoint could not be written to .*checkpoints: .*; make room"):
        save_and_wait(checkpoints, saved[2])
    checkpoints.close()


@pytest.mark.parametrize(
    ("why", "kind", "remedy"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            TrainingError,
            "; make room or get permission there and start",
        ),
        (OSError(errno.EACCES, "Permission denied"), TrainingError, "; make room"),
        (ValueError("PERMISSION_DENIED: HTTP response code: 403"), TrainingError, "; make room"),
        (OSError(errno.EIO, "Input/output error"), TemporaryError, "; start the same command again"),
        (ConnectionResetError("Connection reset by peer"), TemporaryError, "; start the same command again"),
        (ValueError("UNAVAILABLE: HTTP response code: 503"), TemporaryError, "; start the same command again"),
    ],
    ids=str,
)
def test_what_may_pass_has_another_exit_code_than_what_will_not(tmp_path, saved, monkeypatch, why, kind, remedy):
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())

    def fails(*_, **__):
        raise RuntimeError("while saving") from why

    monkeypatch.setattr(ocp.CheckpointManager, "save", fails)
    with pytest.raises(UserError, match=re.escape(remedy)) as e:
        checkpoints.save(4, saved[2], CONFIG)
    assert type(e.value) is kind


def save_and_wait(checkpoints, state):
    checkpoints.save(4, state, CONFIG)
    checkpoints.wait()


def test_reading_leaves_alone_what_another_process_is_writing(saved):
    workdir, t, _ = saved
    half = workdir / "checkpoints" / "4.orbax-checkpoint-tmp"
    half.mkdir()
    checkpoints = StoredCheckpoints(workdir)
    assert checkpoints.steps() == [2]
    checkpoints.restore_params(2, t.abstract.params, t.shardings.params, t.names)
    checkpoints.close()
    assert half.is_dir()
    half.rmdir()


def test_a_checkpoint_that_was_never_finished_does_not_exist(tmp_path, saved):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, saved[2], CONFIG)
    checkpoints.close()
    torn = tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp"
    torn.mkdir()
    (torn / "params").write_text("half of it")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() == 2
    assert_trees_equal(checkpoints.restore(2, saved[1].abstract, saved[1].shardings, saved[1].names), saved[2])
    checkpoints.close()


def test_a_part_of_the_parameters_can_be_read(saved):
    workdir, t, state = saved
    checkpoints = Checkpoints(workdir)
    encoder = {"encoder": t.abstract.params["encoder"]}, {"encoder": t.shardings.params["encoder"]}
    names, plan = {"encoder": t.names["encoder"]}, {"head_dim": 5, "mlp": 9, "embed": 12}
    whole = checkpoints.restore_params(2, *encoder, names)
    part = checkpoints.restore_params(2, *encoder, names, plan)
    with pytest.raises(UserError, match="cannot keep 65 of axis mlp: it has 64"):
        checkpoints.restore_params(2, *encoder, names, {"mlp": 65})
    checkpoints.close()
    assert_trees_equal(whole, {"encoder": state.params["encoder"]})
    assert_trees_equal(part, cut({"encoder": state.params["encoder"]}, names, plan))


@pytest.mark.long
def test_a_slimmed_encoder_is_read_without_the_memory_of_the_full_one(tmp_path):
    """A ViT-L of 1.2 GB cut to a tenth: memory is 1.3 times that of the cut, and 150 MB for the process."""
    written = f"""
        import dataclasses, json, jax, jax.numpy as jnp, numpy as np
        from scaling.core.config import config_dict
        from scaling.models.mae import abstract_mae
        from tests.models.sizes import halves, mae
        from scaling.training.checkpoints import Checkpoints
        from scaling.training.config import TrainConfig
        from scaling.training.state import State

        c = mae("vit_l", decoder_width=64, decoder_depth=1, decoder_heads=2)
        random = np.random.default_rng(0)
        params = jax.tree.map(lambda x: jnp.asarray(random.random(x.shape, np.float32)), abstract_mae(c)[0])
        checkpoints = Checkpoints("{tmp_path}")
        config = config_dict(dataclasses.replace(TrainConfig(), **halves(c))).to_dict()
        checkpoints.save(1, State(jnp.int32(1), params, {{}}, {{}}), config)
        checkpoints.close()
        print(json.dumps(sum(x.nbytes for x in jax.tree.leaves(params["encoder"]))))
    """
    assert isolated(written, devices=1) > 1.2e9
    read = f"""
        import json, resource, jax
        from scaling.encoders.loading import load_encoder

        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        jax.block_until_ready(jax.numpy.zeros(8) + 1)
        before = peak()
        params = jax.block_until_ready(load_encoder("{tmp_path}", width_ratio=0.1).params)
        print(json.dumps([peak() - before, sum(x.nbytes for x in jax.tree.leaves(params))]))
    """
    peak, size = isolated(read, devices=1)
    assert size < 0.11 * 1.2e9
    assert peak < 1.3 * size + 150e6
    shutil.rmtree(tmp_path / "checkpoints")


@pytest.mark.parametrize(("fields", "least"), [({"keep_last": 0}, 1), ({"keep_last": -1}, 1), ({"keep_every": -5}, 0)])
def test_a_run_keeps_at_least_its_newest_checkpoint(fields, least):
    ((name, value),) = fields.items()
    with pytest.raises(UserError, match=f"checkpoint.{name}={value}: must be at least {least}"):
        RunConfig(checkpoint=CheckpointConfig(**fields)).check()


def altered(tree, number):
    """A tree with this number in the last of its arrays."""
    leaves, structure = jax.tree.flatten(tree)
    last = max(i for i, x in enumerate(leaves) if x.ndim)
    leaves[last] = leaves[last].at[(0,) * leaves[last].ndim].set(number)
    return jax.tree.unflatten(structure, leaves)


@pytest.mark.parametrize(
    ("part", "number", "where"),
    [("params", np.nan, "encoder/"), ("opt_state", np.inf, "opt_state/"), ("extra", np.nan, "average/")],
)
def test_numbers_that_are_not_finite_are_refused_by_name_wherever_they_are(saved, tmp_path, part, number, where):
    _, t, state = saved
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, state, CONFIG)
    checkpoints.save(4, dataclasses.replace(state, **{part: altered(getattr(state, part), number)}), CONFIG)
    checkpoints.close()
    with pytest.raises(UserError, match=rf"checkpoints/4: all numbers must be finite, and {where}.* take step 2") as e:
        restore(tmp_path, t, 4)
    assert "\n" not in str(e.value)
    assert_trees_equal(restore(tmp_path, t, 2), state)


def test_a_checkpoint_of_such_numbers_is_not_written(tmp_path):
    with pytest.raises(TrainingError, match="all numbers of a checkpoint must be finite, and encoder/kernel has"):
        write_parameters({"encoder": {"kernel": np.array([1.0, np.inf])}}, 1, CONFIG, tmp_path / "out")
    assert not (tmp_path / "out").exists()
