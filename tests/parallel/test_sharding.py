"""Axis names to partitions: the table if sizes divide, the fallback if they do not."""

import functools
import logging
import math

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, PartitionSpec

from scaling import axes
from scaling.models.mae import abstract_mae
from scaling.models.variants import VARIANTS
from scaling.parallel.mesh import MESH_AXES, MeshConfig
from scaling.parallel.sharding import parameter_shardings, parameter_spec
from tests.models.sizes import mae

PLAIN = [name for name in axes.AXES if name != "batch"]  # batch is of activations only
LEAST = MeshConfig().min_shard_elements
NAMES = st.lists(st.sampled_from(PLAIN + [f"decoder/{name}" for name in PLAIN]), min_size=0, max_size=6, unique=True)
MESHES = st.fixed_dictionaries({axis: st.sampled_from([1, 2, 3, 4, 8, 256]) for axis in MESH_AXES})


@st.composite
def parameters(draw):
    names = tuple(draw(NAMES))
    return names, tuple(draw(st.sampled_from([1, 2, 3, 12, 16, 48, 64, 1664, 8192])) for _ in names)


def parts_of(spec):
    """One tuple of mesh axes per dimension."""
    return [() if part is None else part if isinstance(part, tuple) else (part,) for part in spec]


@given(parameters(), MESHES, st.sampled_from([0, 2**12, 2**16]))
def test_every_partition_is_possible(parameter, mesh, least):
    names, shape = parameter
    spec, _ = parameter_spec(names, shape, mesh, least)
    parts = parts_of(spec)
    used = [m for part in parts for m in part]
    assert len(used) == len(set(used))
    assert all(mesh[m] > 1 for m in used)
    for name, size, part in zip(names, shape, parts, strict=True):
        assert size % math.prod(mesh[m] for m in part) == 0
        assert not (part and axes.split(name)[1] == "layers")
    if math.prod(size for name, size in zip(names, shape, strict=True) if axes.split(name)[1] != "layers") < least:
        assert "fsdp" not in used


@given(parameters(), MESHES)
def test_nothing_is_left_whole_that_could_be_split_over_fsdp(parameter, mesh):
    names, shape = parameter
    parts = parts_of(parameter_spec(names, shape, mesh)[0])
    if mesh["fsdp"] > 1 and ("fsdp",) not in parts:
        for name, size, part in zip(names, shape, parts, strict=True):
            assert part or axes.split(name)[1] == "layers" or size % mesh["fsdp"]


@given(parameters(), MESHES)
def test_a_fallback_is_reported_when_a_mesh_axis_divides_none_of_its_own_dimensions(parameter, mesh):
    names, shape = parameter
    real = [(name, size) for name, size in zip(names, shape, strict=True) if size > 1]  # one branch is no branches
    own = {m: [size for name, size in real if m in axes.axis(name).mesh] for m in MESH_AXES}
    expected = any(mesh[m] > 1 and sizes and all(size % mesh[m] for size in sizes) for m, sizes in own.items())
    assert parameter_spec(names, shape, mesh)[1] == expected


@pytest.mark.parametrize(
    ("names", "shape", "mesh", "spec"),
    [
        (("layers", "embed", "mlp"), (12, 768, 3072), (1, 8, 1), (None, "fsdp", None)),
        (("layers", "embed", "mlp"), (12, 768, 3072), (1, 4, 2), (None, "fsdp", "tensor")),
        (("embed", "branch", "mlp"), (1024, 4, 4096), (1, 1, 4), (None, "tensor", None)),
        (("embed", "branch", "mlp"), (1024, 1, 4096), (1, 1, 4), (None, None, "tensor")),
        (("embed", "decoder/embed"), (768, 512), (1, 8, 1), ("fsdp", None)),
        (("layers", "embed", "mlp"), (48, 1664, 8192), (1, 256, 1), (None, None, "fsdp")),  # falls back
        (("layers", "branch", "mlp"), (12, 4, 4096), (1, 8, 1), (None, None, "fsdp")),  # has no axis of its own
        (("layers", "embed"), (256, 100), (1, 256, 1), (None, None)),  # never over layers
    ],
)
def test_examples(names, shape, mesh, spec):
    got, _ = parameter_spec(names, shape, dict(zip(MESH_AXES, mesh, strict=True)))
    assert parts_of(got) == parts_of(PartitionSpec(*spec))


@functools.cache
def abstract(name):
    return abstract_mae(mae(name))


def placed(name, mesh, least=LEAST):
    """Path -> (shape, shape of one device's part) of every parameter of an architecture; nothing is allocated."""
    shapes, names = abstract(name)
    shardings = parameter_shardings(names, shapes, AbstractMesh(mesh, MESH_AXES), least)
    parts = axes.map_named(
        lambda _, x, s: jax.ShapeDtypeStruct(s.shard_shape(x.shape), x.dtype), names, shapes, shardings
    )
    whole, part = axes.parameters(names, shapes), axes.parameters(names, parts)
    return {p.path: (p.shape, q.shape) for p, q in zip(whole, part, strict=True)}


def share(arrays):
    """The part of all elements that one device holds."""
    return sum(math.prod(part) for _, part in arrays.values()) / sum(math.prod(shape) for shape, _ in arrays.values())


@pytest.mark.parametrize(
    ("name", "mesh"),
    [(name, mesh) for name in VARIANTS for mesh in ((1, 8, 1), (2, 4, 1), (1, 4, 2))] + [("vit_gg", (2, 128, 1))],
)
def test_each_device_holds_little_more_than_its_part(name, mesh):
    _, fsdp, tensor = mesh
    arrays = placed(name, mesh)
    assert share(arrays) * fsdp < 1.1
    assert share(placed(name, mesh, least=0)) <= share(arrays)
    blocks = {path: x for path, x in arrays.items() if path.startswith("encoder/blocks")}
    assert share(blocks) * fsdp * tensor < 1.1


def test_tensor_splits_branches_where_there_are_four_and_heads_where_there_is_one():
    parallel, plain = placed("vit_l12x4", (1, 1, 4)), placed("vit_b", (1, 1, 4))
    assert parallel["encoder/blocks/qkv/kernel"] == ((12, 1024, 4, 3, 16, 64), (12, 1024, 1, 3, 16, 64))
    assert parallel["encoder/blocks/mlp_in/kernel"] == ((12, 1024, 4, 4096), (12, 1024, 1, 4096))
    assert plain["encoder/blocks/qkv/kernel"] == ((12, 768, 1, 3, 12, 64), (12, 768, 1, 3, 3, 64))
    assert plain["encoder/blocks/mlp_out/kernel"] == ((12, 1, 3072, 768), (12, 1, 768, 768))


def test_a_width_that_does_not_divide_falls_back_and_is_logged_once(caplog):
    with caplog.at_level(logging.INFO, logger="scaling"):
        arrays = placed("vit_gg", (1, 256, 1))
    assert arrays["encoder/blocks/mlp_in/kernel"] == ((48, 1664, 1, 8192), (48, 1664, 1, 32))
    assert arrays["encoder/blocks/qkv/kernel"][0] == arrays["encoder/blocks/qkv/kernel"][1]  # 256 divides none of it
    assert len(caplog.records) == 1
    assert "encoder/blocks/mlp_in/kernel [48, 1664, 1, 8192] -> " in caplog.text


def test_sizes_that_divide_are_not_reported(caplog):
    with caplog.at_level(logging.INFO, logger="scaling"):
        placed("vit_l12x4", (1, 8, 4))
    assert not caplog.records
