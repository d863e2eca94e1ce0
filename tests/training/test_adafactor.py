"""Adafactor's second moments: those of every layer by themselves, and forgotten within some thousand steps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scaling import axes
from scaling.core.errors import UserError
from scaling.models.mae import abstract_mae
from scaling.training import adafactor
from scaling.training.optimizer import OptimizerConfig, make_optimizer
from tests.models.sizes import mae

DEPTHS = (31, 32, 33)
# name: axes, and their sizes without those that count copies
LEAVES = {
    "kernel": (("layers", "embed", "branch", "mlp"), {"embed": 32, "mlp": 48}),
    "qkv": (("layers", "embed", "branch", "qkv", "heads", "head_dim"), {"embed": 40, "heads": 2, "head_dim": 32}),
    "out": (("layers", "branch", "heads", "head_dim", "embed"), {"heads": 2, "head_dim": 16, "embed": 40}),
    "bias": (("layers", "branch", "mlp"), {"mlp": 48}),
    "scale": (("layers", "embed"), {"embed": 64}),
    "positions": (("tokens", "embed"), {"tokens": 36, "embed": 32}),
    "norm": (("embed",), {"embed": 64}),
}
NAMES = {name: names for name, (names, _) in LEAVES.items()}


def gradients(depth, steps, branches=2):
    rng = np.random.default_rng(depth)
    shapes = {
        leaf: tuple(({"layers": depth, "branch": branches, "qkv": 3} | sizes)[name] for name in names)
        for leaf, (names, sizes) in LEAVES.items()
    }
    return [{leaf: rng.normal(size=shape).astype(np.float32) for leaf, shape in shapes.items()} for _ in range(steps)]


def copies(leaf, x):
    """The index of every layer and branch of a leaf."""
    counted = [n if name in ("layers", "branch") else 1 for name, n in zip(NAMES[leaf], x.shape, strict=True)]
    for index in np.ndindex(*counted):
        pairs = zip(NAMES[leaf], index, strict=True)
        yield tuple(i if name in ("layers", "branch") else slice(None) for name, i in pairs)


def by_hand(series):
    """The updates of one copy, in float64: the formulas of the papers."""
    own = sorted(range(series[0].ndim), key=lambda i: series[0].shape[i])[-2:]
    factored = len(own) == 2 and series[0].shape[own[0]] >= 32
    first = second = 0.0
    for t, g in enumerate(series, start=1):
        beta, squared = min(0.999, 1 - t**-0.8), g.astype(np.float64) ** 2 + 1e-30
        if not factored:
            first = beta * first + (1 - beta) * squared
            yield g / np.sqrt(first)
            continue
        first = beta * first + (1 - beta) * squared.mean(own[1], keepdims=True)
        second = beta * second + (1 - beta) * squared.mean(own[0], keepdims=True)
        yield g / np.sqrt(first * second / first.mean(own[0], keepdims=True))


def run(transformation, series):
    state, updates, step = transformation.init(series[0]), [], jax.jit(transformation.update)
    for g in series:
        update, state = step(g, state, g)
        updates.append(update)
    return updates, state


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_layer_and_branch_has_the_published_update(depth):
    series = gradients(depth, 3)
    updates, _ = run(adafactor.scale_by_factored_rms(NAMES), series)
    for leaf, x in series[0].items():
        for copy in copies(leaf, x):
            expected = by_hand([g[leaf][copy] for g in series])
            for update, wanted in zip(updates, expected, strict=True):
                np.testing.assert_allclose(np.asarray(update[leaf])[copy], wanted, rtol=2e-5)


def test_one_layer_is_that_of_optax():
    series = gradients(33, 3, branches=1)
    theirs = optax.scale_by_factored_rms(min_dim_size_to_factor=32)
    updates, _ = run(adafactor.scale_by_factored_rms(NAMES), series)
    for leaf, x in series[0].items():
        for copy in list(copies(leaf, x))[-1:]:
            wanted, _ = run(theirs, [g[leaf][copy] for g in series])
            for update, expected in zip(updates, wanted, strict=True):
                np.testing.assert_allclose(np.asarray(update[leaf])[copy], expected, rtol=1e-6)


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_outlier_in_one_layer_leaves_the_others_alone(depth):
    series = gradients(depth, 2)
    loud = [{leaf: x.copy() for leaf, x in g.items()} for g in series]
    for g in loud:
        for leaf, names in NAMES.items():
            if "layers" in names:
                g[leaf][0] *= 1000
    plain, changed = (run(adafactor.scale_by_factored_rms(NAMES), s)[0][-1] for s in (series, loud))
    for leaf, names in NAMES.items():
        if "layers" in names:
            np.testing.assert_array_equal(plain[leaf][1:], changed[leaf][1:])


def test_the_moments_are_of_the_last_thousand_steps_at_most():
    t = np.array([1, 2, 10, 5_000, 5_623, 5_700, 97_739])
    decay = np.array([adafactor.decay(jnp.asarray(i - 1)) for i in t])
    np.testing.assert_allclose(decay, np.minimum(0.999, 1 - t**-0.8), rtol=1e-6)
    assert decay[0] == 0
    assert decay[-1] == np.float32(0.999)
    # where the gradients grow at a step late in the run, their size is known a few thousand steps later
    state = optax.FactoredState(jnp.asarray(90_000), jnp.zeros(1), jnp.zeros(1), jnp.ones(5))
    step = adafactor.scale_by_factored_rms(("embed",)).update

    def later(state, _):
        return step(jnp.full(5, 10.0), state)[1], None

    late = jax.lax.scan(later, state, length=5_000)[0]
    np.testing.assert_allclose(late.v, 1 + 99 * (1 - 0.999**5_000), rtol=1e-3)


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_moments_of_the_kernels_are_as_large_as_those_of_optax(name):
    """So that a run begun with optax's moments resumes: their shapes were right for kernels."""
    shapes, names = abstract_mae(mae(name))
    ours = jax.eval_shape(adafactor.scale_by_factored_rms(names).init, shapes)
    theirs = jax.eval_shape(optax.scale_by_factored_rms(min_dim_size_to_factor=32).init, shapes)

    def same(n, x, *moments):
        pairs = zip(moments[:3], moments[3:], strict=True)
        shared = not axes.is_kernel(n) and x.ndim > 1 and x.shape[0] >= 32
        assert shared or all(a.shape == b.shape for a, b in pairs), (n, x.shape)

    axes.map_named(same, names, shapes, *ours[1:], *theirs[1:])


def test_beta2_is_not_adafactors_to_choose():
    OptimizerConfig(name="adafactor").check()
    OptimizerConfig(beta2=0.999).check()
    with pytest.raises(UserError, match=r"optimizer.beta2=0.999: adafactor's second moments decay by min\(0.999"):
        OptimizerConfig(name="adafactor", beta2=0.999).check()


def test_the_whole_optimizer_has_a_first_moment_of_it_in_bfloat16():
    c = OptimizerConfig(name="adafactor", weight_decay=0.0)
    series = gradients(33, 2)
    optimizer = make_optimizer(c, lambda step: 1.0, NAMES)
    updates, state = run(optimizer, series)
    directions, _ = run(adafactor.scale_by_factored_rms(NAMES), series)
    mean = functools.partial(np.asarray, dtype=np.float32)
    for leaf in NAMES:
        first = 0.1 * mean(directions[0][leaf])
        np.testing.assert_allclose(mean(updates[0][leaf]), -first, rtol=1e-2)
        np.testing.assert_allclose(mean(updates[1][leaf]), -(0.9 * first + 0.1 * mean(directions[1][leaf])), atol=2e-2)
    assert {x.dtype.name for x in jax.tree.leaves(state) if x.size > 1} == {"float32", "bfloat16"}
