"""The memory of a run: every device holds its part of parameters and optimizer, and no more."""

import math
import re

import jax
import pytest

from scaling.models.mae import abstract_mae
from scaling.parallel.mesh import MESH_AXES, MeshConfig, make_mesh
from scaling.training.config import StepConfig
from scaling.training.optimizer import OptimizerConfig
from scaling.training.state import describe_mismatch
from scaling.training.step import TrainStep
from tests.commands import isolated
from tests.models.sizes import halves, mae, small


def large(name, mesh, **fields):
    """The training step of a named architecture; nothing is allocated."""
    sizes = MeshConfig(**dict(zip(MESH_AXES, mesh, strict=True)))
    return TrainStep(
        StepConfig(
            **halves(mae(name, **fields.pop("model", {}))),
            optimizer=OptimizerConfig(**fields.pop("optimizer", {})),
            mesh=sizes,
            seed=0,
            steps=10,
            batch_size=8,
            dtype="float32",
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            **fields,
        ),
        make_mesh(sizes, jax.devices()[: math.prod(mesh)]),
    )


def bytes_per_device(t):
    leaves = zip(jax.tree.leaves(t.abstract), jax.tree.leaves(t.shardings), strict=True)
    return sum(math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize for x, s in leaves)


def total_bytes(t):
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(t.abstract))


@pytest.mark.parametrize(
    ("name", "mesh", "fields"),
    [
        ("vit_l12x4", (1, 8, 1), {}),
        ("vit_l12x4", (1, 8, 1), {"ema_decay": 0.999}),
        ("vit_l12x4", (1, 8, 1), {"optimizer": {"name": "adafactor"}}),
        ("vit_l12x4", (1, 8, 1), {"optimizer": {"first_moment_dtype": "bfloat16"}}),
        ("vit_l12x4", (1, 2, 4), {}),
        ("vit_gg", (1, 8, 1), {}),
        ("vit_g12x4", (1, 2, 4), {}),
    ],
)
def test_a_device_holds_at_most_a_tenth_more_than_its_part(name, mesh, fields):
    t = large(name, mesh, **fields)
    split = mesh[1] * mesh[2]
    assert bytes_per_device(t) <= 1.1 * total_bytes(t) / split


@pytest.mark.parametrize(
    ("fields", "copies"),
    [({}, 2), ({"first_moment_dtype": "bfloat16"}, 1.5), ({"name": "adafactor"}, 0.5)],
    ids=["adamw", "adamw with a bfloat16 moment", "adafactor"],
)
def test_the_optimizer_keeps_so_many_copies_of_the_parameters(fields, copies):
    state = large("vit_b", (1, 1, 1), optimizer=fields).abstract
    kept, params = (sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(s)) for s in (state.opt_state, state.params))
    assert kept / params == pytest.approx(copies, rel=0.05)


def test_replicas_hold_copies():
    assert bytes_per_device(large("vit_b", (2, 4, 1))) == bytes_per_device(large("vit_b", (1, 4, 1)))


@pytest.mark.long
def test_a_step_of_vit_l12x4_on_eight_devices_keeps_to_the_bound():
    """Really allocated: 7.6 GB of parameters and moments, created and updated in their parts."""
    report = isolated(
        """
        import json
        import jax, numpy as np
        from scaling.parallel.mesh import batch_sharding
        from tests.training.test_state import large

        t = large("vit_l12x4", (1, 8, 1), model={"image_size": 64})

        def held(state):
            shards = [s for x in jax.tree.leaves(state) for s in x.addressable_shards]
            return [sum(s.data.nbytes for s in shards if s.device == d) for d in jax.devices()]

        state = t.init()
        born, total = held(state), sum(x.nbytes for x in jax.tree.leaves(state))
        image = np.random.default_rng(0).normal(size=(8, 64, 64, 3)).astype(np.float32)
        state, metrics = t.step(state, {"image": jax.device_put(image, batch_sharding(t.mesh))})
        print(json.dumps({"loss": float(metrics["loss"]), "total": total, "born": born, "after": held(state)}))
        """,
    )
    assert report["total"] > 12 * 605_261_824
    for held in (report["born"], report["after"]):
        assert len(held) == 8
        assert max(held) <= 1.1 * report["total"] / 8
    assert math.isfinite(report["loss"])


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({}, None),
        ({"width": 48}, r"axis embed of .* is 48 in it, 32 in the model"),
        ({"depth": 3}, r"axis layers of encoder/blocks/attention_norm/bias is 3 in it, 2 in the model"),
        ({"heads": 4}, r"axis heads of encoder/blocks/attention_out/kernel is 4 in it, 2 in the model"),
        ({"head_dim": 8}, r"axis head_dim of encoder/.* is 8 in it, 16 in the model"),
        ({"mlp": 128}, r"axis mlp of encoder/blocks/mlp_in/bias is 128 in it, 64 in the model"),
        ({"branches": 2}, r"axis branch of encoder/.* is 2 in it, 1 in the model"),
        ({"bands": 6}, r"axis decoder/patch of decoder/pixels/bias is 96 in it, 48 in the model"),
        ({"decoder_width": 32}, r"axis decoder/embed of decoder/.* is 32 in it, 16 in the model"),
        ({"gated": True}, r"encoder/blocks/mlp_in/bias has shape \[2, 1, 2, 64\] in it, \[2, 1, 64\] in the model"),
        ({"class_token": False}, r"encoder/cls/token is not in it"),
        ({"position": "learned"}, r"encoder/position/embedding is in it, not in the model"),
    ],
)
def test_another_architecture_is_told_by_the_first_axis_that_differs(theirs, message):
    ours, names = abstract_mae(small())
    stored, _ = abstract_mae(small(**theirs))
    told = describe_mismatch(names, ours, stored)
    assert told == message if message is None else re.fullmatch(message, told)
