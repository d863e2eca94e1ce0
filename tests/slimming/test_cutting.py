"""Cutting a tree along named axes."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from scaling.core.errors import UserError
from scaling.models.mae import abstract_mae
from scaling.parallel.mesh import MeshConfig, make_mesh
from scaling.parallel.sharding import parameter_shardings
from scaling.slimming.cutting import axis_sizes, cut, cut_shapes
from tests.models.sizes import small

NAMES = {"a": {"kernel": ("embed", "mlp"), "bias": ("mlp",)}, "square": ("embed", "embed"), "other": ("decoder/mlp",)}


def tree(embed, mlp):
    sizes = {"embed": embed, "mlp": mlp, "decoder/mlp": 5}
    shapes = jax.tree.map(lambda n: [sizes[x] for x in n], NAMES, is_leaf=lambda n: isinstance(n, tuple))
    return jax.tree.map(lambda s: np.arange(np.prod(s)).reshape(s), shapes, is_leaf=lambda s: isinstance(s, list))


@given(st.data())
def test_the_first_k_or_the_indices_of_every_dimension_with_that_name(data):
    sizes = {"embed": data.draw(st.integers(1, 6)), "mlp": data.draw(st.integers(1, 6))}
    full, plan, kept = tree(**sizes), {}, {name: list(range(n)) for name, n in sizes.items()}
    for name in data.draw(st.sets(st.sampled_from(sorted(sizes)))):
        if data.draw(st.booleans()):
            plan[name] = data.draw(st.integers(1, sizes[name]))
            kept[name] = kept[name][: plan[name]]
        else:
            plan[name] = data.draw(st.lists(st.sampled_from(kept[name]), min_size=1, unique=True))
            kept[name] = plan[name]
    got = cut(full, NAMES, plan)
    np.testing.assert_array_equal(got["a"]["kernel"], full["a"]["kernel"][np.ix_(kept["embed"], kept["mlp"])])
    np.testing.assert_array_equal(got["a"]["bias"], full["a"]["bias"][kept["mlp"]])
    np.testing.assert_array_equal(got["square"], full["square"][np.ix_(kept["embed"], kept["embed"])])
    np.testing.assert_array_equal(got["other"], full["other"])


@pytest.fixture(scope="module")
def network():
    """Parameters of a whole autoencoder, and a plan that takes something of every axis of its encoder."""
    c = small(branches=2, gated=True, depth=3, position="learned", qk_norm=True)
    shapes, names = abstract_mae(c)
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)
    plan = {"layers": (2, 0), "branch": 1, "embed": 24, "heads": [1], "head_dim": 5, "mlp": np.array([9, 3, 60])}
    return params, names, plan


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_cutting_under_jit_and_of_sharded_arrays_is_plain_cutting(network):
    params, names, plan = network
    expected = cut(params, names, plan)
    assert_same(jax.jit(lambda p: cut(p, names, plan))(params), expected)
    mesh = make_mesh(MeshConfig(replica=1, fsdp=4, tensor=2))
    sharded = jax.device_put(params, parameter_shardings(names, params, mesh))
    kernel = sharded["encoder"]["blocks"]["mlp_in"]["kernel"].sharding
    assert kernel == NamedSharding(mesh, PartitionSpec(None, "fsdp", "tensor", None, None))
    assert_same(cut(sharded, names, plan), expected)
    assert_same(jax.jit(lambda p: cut(p, names, plan))(sharded), expected)


def test_other_networks_are_left_alone_except_where_they_read_the_encoder(network):
    params, names, plan = network
    got = cut(params, names, plan)
    decoder = params["decoder"]
    assert_same(got["decoder"] | {"embed": 0}, decoder | {"embed": 0})
    assert_same(got["decoder"]["embed"], decoder["embed"] | {"kernel": decoder["embed"]["kernel"][:24]})


def test_shapes_are_cut_without_arrays(network):
    params, names, plan = network
    shapes = cut_shapes(jax.eval_shape(lambda: params), names, plan)
    assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(lambda x: x.shape, cut(params, names, plan))
    assert axis_sizes(shapes, names) == axis_sizes(params, names) | {
        "layers": 2, "branch": 1, "embed": 24, "heads": 1, "head_dim": 5, "mlp": 3
    }  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"heads": 1}, "cannot cut axis 'heads': the network has decoder/mlp, embed, mlp"),
        ({"mlp": 0}, "cannot keep 0 of axis mlp: it has 4, keep 1 to 4"),
        ({"mlp": 5}, "cannot keep 5 of axis mlp: it has 4, keep 1 to 4"),
        ({"mlp": [4]}, r"cannot keep the indices \[4\] of axis mlp: give one or more distinct ones from 0 to 3"),
        ({"mlp": [-1]}, r"cannot keep the indices \[-1\] of axis mlp"),
        ({"mlp": [1, 1]}, r"cannot keep the indices \[1, 1\] of axis mlp"),
        ({"mlp": np.array([], int)}, r"cannot keep the indices \[\] of axis mlp"),
        ({"mlp": 0.5}, "cannot keep 0.5 of axis mlp: give a number or a list of indices"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_by_its_axis(plan, message):
    with pytest.raises(UserError, match=message):
        cut(tree(3, 4), NAMES, plan)


def test_an_axis_with_two_sizes_is_a_bug():
    with pytest.raises(ValueError, match="axis embed of b is 4, elsewhere it is 3"):
        axis_sizes({"a": np.zeros(3), "b": np.zeros(4)}, {"a": ("embed",), "b": ("embed",)})
