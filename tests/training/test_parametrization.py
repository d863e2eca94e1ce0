"""Multipliers are those of the published tables, and a model of the base's size does not notice them."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from scaling import axes
from scaling.core.errors import UserError
from scaling.training.optimizer import OptimizerConfig, make_optimizer
from scaling.training.parametrization import Multipliers, ParametrizationConfig, initial, multipliers
from tests.models.sizes import halves, small
from tests.training.train_steps import assert_trees_equal, losses, train, train_step

BASE = {"width": 32, "heads": 2, "mlp": 64, "depth": 2}
WIDE = {"width": 128, "heads": 8, "mlp": 256, "depth": 6}  # four times as wide, three times as deep
MUP, COMPLETEP = ParametrizationConfig("mup", **BASE), ParametrizationConfig("completep", **BASE)


def networks(**fields):
    """A small encoder, and its decoder with what is masked."""
    return tuple(halves(small(**fields)).values())


def by_path(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}


# path: learning rate, epsilon of Adam under mup and under completep, standard deviation of the start over the base's
TABLE = {
    "encoder/patch/kernel": (1, 1 / 4, 1 / 4, 1),  # an input layer
    "encoder/patch/bias": (1, 1 / 4, 1 / 4, None),
    "encoder/cls/token": (1, 1 / 4, 1 / 4, None),
    "encoder/blocks/attention_norm/scale": (1, 1 / 4, 1 / 12, None),
    "encoder/blocks/qkv/kernel": (1 / 4, 1 / 4, 1 / 12, 1 / 2),  # hidden layers
    "encoder/blocks/qkv/bias": (1, 1 / 4, 1 / 12, None),
    "encoder/blocks/attention_out/kernel": (1 / 4, 1 / 4, 1 / 12, 1 / 2),
    "encoder/blocks/mlp_in/kernel": (1 / 4, 1 / 4, 1 / 12, 1 / 2),
    "encoder/blocks/mlp_out/kernel": (1 / 4, 1 / 4, 1 / 12, 1 / 2),
    "encoder/norm/scale": (1, 1 / 4, 1 / 4, None),
    "decoder/embed/kernel": (1 / 4, 1, 1, 1 / 4),  # the encoder's output layer: the decoder does not grow
    "decoder/blocks/mlp_in/kernel": (1, 1, 1, 1),
    "decoder/pixels/kernel": (1, 1, 1, 1),
}


@pytest.mark.parametrize("path", TABLE)
def test_multipliers_are_those_of_the_papers(path):
    lr, mup_eps, completep_eps, _ = TABLE[path]
    for c, eps in ((MUP, mup_eps), (COMPLETEP, completep_eps)):
        found = multipliers(c, *networks(**WIDE))
        assert by_path(found.learning_rate)[path] == pytest.approx(lr)
        assert 1 / by_path(found.gradient)[path] == pytest.approx(eps)


def test_the_start_has_the_spread_of_the_base_reduced_by_what_grows():
    wide, base = train_step(model=small(**WIDE), parametrization=MUP), train_step(model=small(**BASE))
    drawn, tuned = (by_path(jax.device_get(t.init().params)) for t in (wide, base))
    for path, (*_, spread) in TABLE.items():
        if spread is not None:
            assert np.std(drawn[path]) == pytest.approx(spread * np.std(tuned[path]), rel=0.12), path


def test_between_input_and_output_the_smaller_side_decides():
    model, objective = networks(width=128, heads=8, mlp=128)  # the width grows four times, the hidden layer twice
    ones = jax.tree.map(lambda x: np.ones(x.shape, np.float32), objective.abstract(model)[0])
    factors = by_path(initial(ones, MUP, model, objective))
    fans = {"mlp_in": ((128, 128), (32, 64)), "mlp_out": ((128, 128), (64, 32))}
    rules = {"mlp_in": 4**-0.5 * (2 / 4) ** 0.5, "mlp_out": 2**-0.5}
    for group, (large, tuned) in fans.items():
        xavier = math.sqrt(sum(large) / sum(tuned))
        got = np.unique(factors[f"encoder/blocks/{group}/kernel"])
        np.testing.assert_allclose(got, xavier * rules[group], rtol=1e-6)


def test_the_forward_pass_takes_its_scales_and_taking_them_twice_changes_nothing():
    parts = model, _ = networks(**WIDE, decoder_depth=4)
    (mup, _), (completep, decoder) = MUP.resolve(*parts), COMPLETEP.resolve(*parts)
    assert mup.scale == model.head_dim**-0.5  # more heads, not wider ones
    assert dataclasses.replace(MUP, head_dim=8).resolve(*parts)[0].scale == pytest.approx(8**-0.5 * 8 / 16)
    assert (mup.residual_scale, completep.residual_scale) == (1.0, pytest.approx(1 / 3))
    assert decoder.decoder_residual_scale == 1.0
    _, shallow = dataclasses.replace(COMPLETEP, decoder_depth=1).resolve(*parts)
    assert shallow.decoder_residual_scale == 0.25
    assert COMPLETEP.resolve(completep, decoder) == (completep, decoder)
    assert ParametrizationConfig().resolve(*parts) == parts


@pytest.mark.parametrize("c", [MUP, pytest.param(COMPLETEP, marks=pytest.mark.long)], ids=lambda c: c.name)
def test_at_the_size_of_the_base_nothing_changes(c):
    model = small(**BASE)
    parts = dict(zip(("model", "objective"), c.resolve(*networks(**BASE)), strict=True))
    standard, other = train_step(model=model), train_step(**parts, parametrization=c)
    assert_trees_equal(jax.device_get(standard.init().params), jax.device_get(other.init().params))
    np.testing.assert_allclose(losses(train(other, 3)[1]), losses(train(standard, 3)[1]), rtol=1e-6)


def test_a_multiplier_changes_the_learning_rate_and_epsilon_of_adam_but_not_decay():
    names, params = {"kernel": ("embed", "mlp")}, {"kernel": np.full((2, 2), 3.0, np.float32)}
    gradient = {"kernel": np.full((2, 2), 1e-8, np.float32)}  # as large as epsilon
    c = OptimizerConfig(weight_decay=0.1)
    optimizer = make_optimizer(c, lambda step: 0.01, names, multipliers=Multipliers({"kernel": 4.0}, {"kernel": 0.25}))
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.01 * (0.25 * 4 / (4 + 1) + 0.1 * 3.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("c", "message"),
    [
        (ParametrizationConfig("mu"), "parametrization.name='mu': must be one of standard, mup, completep"),
        (ParametrizationConfig("mup"), "needs the sizes of the base, the model that was tuned"),
        (ParametrizationConfig(width=64), "standard has no base"),
        (ParametrizationConfig("mup", width=30), "model.width=30: must be a multiple of 4"),
    ],
    ids=str,
)
def test_a_parametrization_that_cannot_be_is_refused(c, message):
    with pytest.raises(UserError, match=message):
        c.check(*networks())


NARROW = {
    "width alone": (
        {"width": 32},
        "parametrization.width=32: .* they are: parametrization.heads=2 parametrization.mlp=64",
    ),
    "without heads": ({"width": 32, "mlp": 64}, "in proportion to the width they are: parametrization.heads=2$"),
    "without mlp": ({"width": 32, "heads": 2}, "in proportion to the width they are: parametrization.mlp=64$"),
    "heads of another width": (
        {"width": 32, "heads": 4, "mlp": 64},
        "parametrization.heads=4 of head_dim=16 make 64, but the width of the base is 32",
    ),
    "fewer heads, the same width": (
        {"heads": 2},
        "parametrization.heads=2 of head_dim=16 make 32, but the width .* 128",
    ),
    "all": (BASE, None),
    "narrower heads": ({"width": 32, "head_dim": 4, "mlp": 64}, None),
    "the same mlp, said": ({"width": 32, "heads": 2, "mlp": 256}, None),
    "depth alone": ({"depth": 2}, None),
    "mlp alone": ({"mlp": 64}, None),
    "a decoder of its own": ({"decoder_width": 8, "depth": 2}, None),
}


@pytest.mark.parametrize(("sizes", "message"), NARROW.values(), ids=NARROW)
def test_a_narrower_base_says_all_that_is_narrower(sizes, message):
    base = ParametrizationConfig("mup", **sizes)
    if message is None:
        base.check(*networks(**WIDE))
    else:
        with pytest.raises(UserError, match=message):
            base.check(*networks(**WIDE))


@pytest.mark.parametrize("name", [f"{a}{b}" for a in ("", "decoder_") for b in ("attention_scale", "residual_scale")])
def test_a_scale_of_ones_own_is_refused(name):
    part = "objective" if name.startswith("decoder") else "model"
    with pytest.raises(UserError, match=rf"{part}.{name} follows from parametrization.name=mup; leave it as it is"):
        MUP.check(*networks(**{name: 0.1}))
    MUP.check(*MUP.resolve(*networks()))


def test_growth_is_counted_by_side():
    grown = axes.growth(
        ("layers", "embed", "branch", "qkv", "heads", "head_dim"), (6, 8, 1, 3, 4, 16), (2, 4, 1, 3, 1, 8)
    )
    assert (grown.inputs, grown.outputs, grown.layers) == (2, 8, 3)
    assert axes.growth(("layers", "embed"), (6, 8), (2, 4)) == axes.Growth(1, 2, 3)
