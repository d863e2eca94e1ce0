"""The real TPU compiler on small programs, for the smallest slice it supports."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from scaling.models.config import ViTConfig
from scaling.objectives import objective_config
from scaling.parallel.mesh import MeshConfig, make_mesh
from scaling.training.config import TrainConfig
from scaling.training.state import bytes_per_device
from tests.objectives.test_seam import Toy
from tests.tpu.examples import preflight
from tpu.compiler import hlo
from tpu.compiler.collectives import collectives, totals
from tpu.compiler.floor import floor
from tpu.compiler.preflight_rows import preflight as row_of
from tpu.compiler.roofline import roofline
from tpu.compiler.step import compile_step, fsdp_bytes, train_step_for
from tpu.compiler.table import load
from tpu.compiler.topology import parse
from tpu.compiler.traffic import hbm_bytes

pytestmark = pytest.mark.usefixtures("compiler")

# Heads of 128 and parts of 128 rows fill tiles: nothing is padded.
SMALL = TrainConfig(
    batch_size=64,
    model=ViTConfig(width=512, depth=3, heads=4, head_dim=128, mlp=2048, image_size=64, remat="full"),
    objective=objective_config("mae", decoder_width=512, decoder_depth=2, decoder_heads=4),
)


def test_a_scan_over_split_layers_gathers_and_scatters_each_once():
    """Two passes gather a kernel of [layers, 512, 512]: forward, and for the gradient of the activations."""
    layers, width, devices = 6, 512, 4
    place = parse("v5e:2x2")
    mesh = make_mesh(MeshConfig(), place.devices)
    split = NamedSharding(mesh, PartitionSpec(None, "fsdp"))

    def loss(kernels, x):
        x = jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel.astype(x.dtype)), None), x, kernels)[0]
        return x.astype(jnp.float32).sum()

    kernels = jax.ShapeDtypeStruct((layers, width, width), jnp.float32)
    images = jax.ShapeDtypeStruct((4096, width), jnp.bfloat16)
    rows = NamedSharding(mesh, PartitionSpec("fsdp"))
    step = jax.jit(jax.grad(loss), in_shardings=(split, rows), out_shardings=split)
    with jax.set_mesh(mesh):
        module = hlo.parse(step.lower(kernels, images).compile().as_text())
    found = totals(collectives(module, devices))
    once = layers * width * width * 2 * (devices - 1) // devices
    assert found["all-gather"] == {"count": 2 * layers, "bytes": 2 * once}
    assert found["reduce-scatter"] == {"count": layers, "bytes": once}


@functools.cache
def compiled():
    place = parse("v5e:2x2")
    return compile_step(train_step_for(SMALL, place), place), place


@pytest.mark.long
def test_arguments_take_what_the_axes_say():
    """Fake devices cannot show it: the state of the compiled step is split as planned, and nothing is stored twice."""
    program, place = compiled()
    images = SMALL.batch_size * 64 * 64 * 3 // 4
    planned = bytes_per_device(program.train_step.abstract, program.train_step.shardings) + images
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(program.train_step.abstract.params))
    assert planned < 1.1 * parameters * 12 / 4 + images
    assert planned <= program.arguments < 1.05 * planned  # small arrays are padded to tiles
    assert program.arguments + program.temporaries < place.hbm_limit


@pytest.mark.long
def test_gathers_and_scatters_are_those_of_fsdp():
    """On four chips the compiler keeps some gradients whole: an all-reduce is a scatter and a gather."""
    program, _ = compiled()
    found = {kind: x["bytes"] for kind, x in totals(collectives(program.module, 4)).items()}
    once = fsdp_bytes(program.train_step) / 3
    assert found["all-gather"] + found["reduce-scatter"] == pytest.approx(3 * once, rel=0.15)
    assert found["all-gather"] == pytest.approx(2 * once, rel=0.15)
    assert found["reduce-scatter"] + found["all-reduce"] / 2 == pytest.approx(once, rel=0.15)


@pytest.mark.long
@pytest.mark.parametrize("sizes", [(4, 4, 1), (4, 2, 2)], ids=["replicas", "and parts of a layer"])
def test_kernels_are_gathered_over_the_parts_of_one_replica_and_no_step_is_below_its_floor(sizes):
    """The compiler lists such groups in an order of its own (`device_ids`)."""
    place = parse("v5e:4x4")
    c = dataclasses.replace(SMALL, mesh=MeshConfig(*sizes))
    program = compile_step(train_step_for(c, place), place)
    found, moved = collectives(program.module, 16), hbm_bytes(program.module)
    gathers = [x for x in found if x.kind == "all-gather"]
    assert {len(x.group) for x in gathers if x.bytes > 2**16} <= {sizes[1], sizes[1] * sizes[2]}
    bound = roofline(program.train_step, found, moved, place)
    assert floor(program.train_step, place) < 1.05 * bound.seconds


@pytest.mark.long
def test_kernels_that_are_split_over_rings_are_gathered():
    """ViT-6B on v4:4x4x8, a cell of results/preflight; were it an open mesh, its gathers would be all-reduces."""
    c, place = load("vit_6b.py"), parse("v4:4x4x8")
    never = dataclasses.replace(place.chip, ring=10**6)
    rings, lines = (row_of("vit_6b", c, x) for x in (place, dataclasses.replace(place, chip=never)))
    assert rings["wrap"] == [True] * 3
    assert lines["wrap"] == [False] * 3
    assert "all-gather" not in lines["collectives"]
    gathered = rings["collectives"]["all-gather"]["bytes"]
    assert gathered > rings["fsdp_bytes"] * 2 / 3  # forward and backward
    assert rings["collective_bytes"] < 0.7 * lines["collective_bytes"]


def test_a_config_made_too_large_ends_with_the_compilers_figures_and_code_2(tmp_path):
    file = tmp_path / "row.json"
    done = preflight(
        "--config=vit_h.py",
        "--topology=v5e:2x2",
        "--config.model.remat=none",
        "--config.model.depth=2",
        f"--json={file}",
    )
    assert done.returncode == 2, done.stderr
    assert "error: vit_h does not fit on v5e:2x2: the compiler needs " in done.stderr
    row = json.loads(file.read_text())
    assert not row["fits"]
    assert row["hbm_per_chip_bytes"] > row["hbm_limit_bytes"] == 15.75 * 2**30
    assert row["flops_per_step"] > 0
    assert row["mfu_bound"] is None


@pytest.mark.long
def test_an_objective_of_ones_own_is_compiled_with_its_auxiliary_tree():
    c = dataclasses.replace(SMALL, objective=Toy(), mesh=MeshConfig(tensor=2))
    row = row_of("toy", c, parse("v5e:2x2"))
    assert row["fits"]
    train_step = train_step_for(c, parse("v5e:2x2"))
    with_copy, without = (bytes_per_device(x, s) for x, s in (
        (train_step.abstract, train_step.shardings),
        (dataclasses.replace(train_step.abstract, extra={}), dataclasses.replace(train_step.shardings, extra={})),
    ))  # fmt: skip
    assert with_copy == pytest.approx(4 / 3 * without, rel=0.01)


@pytest.mark.long
def test_the_row_of_a_config_that_fits_has_what_it_promises():
    row = row_of("small", SMALL, parse("v5e:2x2"))
    assert json.loads(json.dumps(row)) == row
    assert row["fits"]
    assert row["chips"] == 4
    assert 0 < row["mfu_bound"] <= row["flops_per_step"] / row["executed_flops_per_step"] < 1
    assert row["binding"] in ("compute", "hbm", "ici")
    assert row["collective_bytes"] == sum(x["bytes"] for x in row["collectives"].values())
    assert row["compile_seconds"] > 0
