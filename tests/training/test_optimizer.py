"""Learning rates over time, and one update by hand."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from scaling.core.errors import UserError
from scaling.training.optimizer import OptimizerConfig, lr_schedule, make_optimizer, peak_lr

PEAK = 3e-4  # base_lr 1.5e-4 at batch 512


@pytest.mark.parametrize(
    ("fields", "step", "value"),
    [
        ({"warmup": 20}, 0, 0.0),
        ({"warmup": 20}, 5, PEAK / 4),
        ({"warmup": 20}, 20, PEAK),
        ({"warmup": 20}, 60, PEAK / 2),
        ({"warmup": 20}, 80, PEAK * (1 + np.cos(0.75 * np.pi)) / 2),
        ({"warmup": 20}, 100, 0.0),
        ({}, 0, PEAK),
        ({"warmup": 1000}, 50, PEAK / 2),  # never longer than the run
        ({"schedule": "cooldown", "warmup": 20, "cooldown": 0.25}, 10, PEAK / 2),
        ({"schedule": "cooldown", "warmup": 20, "cooldown": 0.25}, 20, PEAK),
        ({"schedule": "cooldown", "warmup": 20, "cooldown": 0.25}, 79, PEAK),
        ({"schedule": "cooldown", "warmup": 20, "cooldown": 0.25}, 90, PEAK / 2),
        ({"schedule": "cooldown", "warmup": 20, "cooldown": 0.25}, 100, 0.0),
    ],
)
def test_learning_rate(fields, step, value):
    c = OptimizerConfig(**fields)
    assert peak_lr(c, 512) == pytest.approx(PEAK)
    assert float(lr_schedule(c, peak_lr(c, 512), 100)(step)) == pytest.approx(value, rel=1e-5, abs=1e-12)


def test_two_lengths_of_a_cooldown_run_share_their_beginning():
    c = OptimizerConfig(schedule="cooldown", warmup=10)
    long, short = (lr_schedule(c, 1e-4, steps) for steps in (1000, 500))
    assert [float(long(s)) for s in range(400)] == [float(short(s)) for s in range(400)]


NAMES = {"kernel": ("embed", "mlp"), "bias": ("mlp",), "token": ("embed",)}


def tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 5), "bias": (5,), "token": (3,)}
    return {name: (scale * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


def update(c, params, gradients):
    """Parameters after one update for each of some gradients."""
    optimizer = make_optimizer(c, lambda step: 0.01 * (step + 1), NAMES)
    params = {name: jnp.asarray(x) for name, x in params.items()}
    state = optimizer.init(params)
    for each in gradients:
        updates, state = optimizer.update(each, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_adamw_is_the_published_rule_and_decays_kernels_only():
    c = OptimizerConfig(beta1=0.9, beta2=0.95, weight_decay=0.1)
    params, gradients = tree(0), [tree(1), tree(2)]
    got = update(c, params, gradients)
    for name, p in params.items():
        mean, variance, p = np.zeros(p.shape), np.zeros(p.shape), p.astype(np.float64)
        for i, g in enumerate(each[name] for each in gradients):
            mean, variance = 0.9 * mean + 0.1 * g, 0.95 * variance + 0.05 * g**2
            adam = mean / (1 - 0.9 ** (i + 1)) / (np.sqrt(variance / (1 - 0.95 ** (i + 1))) + 1e-8)
            p = p - 0.01 * (i + 1) * (adam + (0.1 * p if name == "kernel" else 0))
        np.testing.assert_allclose(got[name], p, rtol=1e-5)


def test_clipping_bounds_the_norm_of_all_gradients_together():
    c = OptimizerConfig(clip_norm=0.5)
    large = tree(1, scale=10.0)
    norm = np.sqrt(sum((x**2).sum() for x in large.values()))
    clipped = {name: x * 0.5 / norm for name, x in large.items()}
    plain = OptimizerConfig()
    gradients, expected = [large, tree(2, 0.01)], [clipped, tree(2, 0.01)]
    got, want = update(c, tree(0), gradients), update(plain, tree(0), expected)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5)
        assert not np.allclose(want[name], update(plain, tree(0), gradients)[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "sgd"}, "optimizer.name='sgd': must be one of adamw, adafactor"),
        ({"schedule": "linear"}, "optimizer.schedule='linear': must be one of cosine, cooldown"),
        ({"first_moment_dtype": "float16"}, "optimizer.first_moment_dtype='float16': must be one of float32, bfloat16"),
        ({"warmup": -1}, "optimizer.warmup=-1: must be at least 0"),
        ({"clip_norm": float("nan")}, "optimizer.clip_norm=nan: must be at least 0"),
        ({"base_lr": float("inf")}, "optimizer.base_lr=inf: must be above 0 and finite"),
        ({"weight_decay": -0.1}, "optimizer.weight_decay=-0.1: must be at least 0"),
        ({"cooldown": 1.5}, "optimizer.cooldown=1.5: must be a fraction of the steps"),
        ({"beta1": 1.0}, "optimizer.beta1=1.0: must be"),
        ({"beta2": -0.5}, "optimizer.beta2=-0.5: must be"),
    ],
)
def test_what_is_not_offered_is_refused_with_what_is(fields, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**fields).check()


def test_layers_far_below_the_head_learn_more_slowly():
    params, gradients = tree(0), tree(1)
    below = {"kernel": np.array([[2], [1], [0]]), "bias": np.array(0), "token": np.array(3)}
    changes = []
    for decay in (1.0, 0.5):
        optimizer = make_optimizer(OptimizerConfig(layer_decay=decay), lambda step: 0.01, NAMES, below)
        changes.append(optimizer.update(gradients, optimizer.init(params), params)[0])
    for name, n in below.items():
        np.testing.assert_allclose(changes[1][name], changes[0][name] * 0.5**n, rtol=1e-6)
