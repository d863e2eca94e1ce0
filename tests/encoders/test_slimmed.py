"""Slimmed encoders: the published cut, the same function at full width, and the benefit of ordering and repair."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend import core

from scaling.core.errors import UserError
from scaling.encoders import calibration
from scaling.encoders.slimmed import Slimmer, slim, uses_images
from scaling.models.activations import moments
from scaling.models.vit import abstract_vit
from scaling.slimming.cutting import axis_sizes
from scaling.slimming.orderings import ORDERINGS
from scaling.slimming.recovery import RECOVERIES
from scaling.slimming.widths import MODES, PUBLISHED_WIDTHS, mode_plan
from tests.models import reference as whole
from tests.slimming import reference
from tests.slimming.encoders import encoder, images, structured

AXES = ("branch", "embed", "heads", "head_dim", "mlp")


def exact(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def sizes_of(e):
    return axis_sizes(*abstract_vit(e.config))


def by_hand(e, plan, x, scale):
    """Tokens [N, T, kept embed] of the numpy implementation."""
    kept = {axis: plan.get(axis, sizes_of(e)[axis]) for axis in AXES}
    return np.stack([reference.encode(exact(e.params), image, e.config, kept, scale) for image in x])


@settings(max_examples=20)
@given(
    mode=st.sampled_from([*MODES, "heads+mlp", "branch+embed"]),
    width=st.one_of(st.sampled_from(PUBLISHED_WIDTHS), st.floats(0.001, 1)),
    sizes=st.fixed_dictionaries(
        {
            "branches": st.integers(2, 3),
            "heads": st.integers(2, 4),
            "head_dim": st.integers(2, 9),
            "mlp": st.integers(2, 30),
            "width": st.sampled_from([8, 16, 24]),
            "gated": st.booleans(),
            "qk_norm": st.booleans(),
            "layer_scale": st.sampled_from([0.0, 0.3]),
            "position": st.sampled_from(["sincos", "learned"]),
            "class_token": st.booleans(),
        }
    ),
    seed=st.integers(0, 99),
)
def test_a_slimmed_encoder_is_that_of_the_paper(mode, width, sizes, seed):
    """Our smaller network, run as the network it claims to be, against index sets on the full one."""
    e = encoder(seed, **sizes)
    small, plan, x = slim(e, width, mode), mode_plan(sizes_of(e), width, mode), images(2, e.config, seed)
    scale = plan.get("head_dim", e.config.head_dim) ** -0.5
    got = np.stack([whole.encode(exact(small.params), image, small.config) for image in x])
    np.testing.assert_allclose(got, by_hand(e, plan, x, scale), atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_features_of_a_slimmed_encoder(mode):
    e = encoder(branches=2, gated=True)
    plan, x = mode_plan(sizes_of(e), 0.4, mode), images(3, e.config)
    tokens = by_hand(e, plan, x, plan.get("head_dim", 8) ** -0.5)
    assert tokens.shape[-1] == {"token": 6}.get(mode, 16)
    small = slim(e, 0.4, mode)
    np.testing.assert_allclose(small.features(x, "tokens", normalised=True), tokens, atol=1e-5)
    np.testing.assert_allclose(small.features(x, normalised=True), tokens[:, 1:].mean(1), atol=1e-5)


def test_every_axis_can_have_a_width_of_its_own():
    e = encoder()
    small = slim(e, {"heads": 0.7, "mlp": 0.25, "embed": 0.5})
    assert (small.config.heads, small.config.mlp, small.config.width, small.config.head_dim) == (2, 5, 8, 8)
    assert axis_sizes(small.params, abstract_vit(small.config)[1]) == sizes_of(small)


@pytest.mark.parametrize("own", [0.0, 0.2])
def test_the_scale_of_the_logits(own):
    """Follows the kept head size as published; unchanged if the kept dimensions approximate all of them."""
    e = encoder(attention_scale=own)
    full = own or 8**-0.5
    for ordering in ORDERINGS:
        small = slim(e, 0.5, "inner", ordering, images=images(8, e.config))
        expected = full if ordering in ("energy", "svd") else full * 2**0.5
        assert small.config.scale == pytest.approx(expected)
        assert slim(e, 0.5, "heads", ordering, images=images(8, e.config)).config.scale == pytest.approx(full)


@pytest.mark.parametrize("mode", ["inner", "heads+mlp"])
def test_at_full_width_every_ordering_and_recovery_is_the_encoder_itself(mode):
    e = encoder(branches=2, layer_scale=0.5)
    x = images(4, e.config)
    slimmer, features = Slimmer(e, images(40, e.config, seed=1)), e.features(x, "tokens", normalised=True)
    for ordering in ORDERINGS:
        for recovery in RECOVERIES:
            got = slimmer(1.0, mode, ordering, recovery).features(x, "tokens", normalised=True)
            np.testing.assert_allclose(got, features, atol=1e-5, err_msg=f"{ordering} {recovery}")


def test_heads_that_use_few_of_their_dimensions_survive_a_rotation():
    e = encoder(heads=4)
    kernel, bias = (np.copy(e.params["blocks"]["qkv"][k]) for k in ("kernel", "bias"))
    kernel[:, :, :, :, 1, 1:], bias[:, :, :, 1, 1:] = kernel[:, :, :, :, 1, :1], bias[:, :, :, 1, :1]  # one
    kernel[:, :, :, 0, 2], bias[:, :, 0, 2] = 0, 0  # no query at all
    kernel[:, :, :, 1, 3], kernel[:, :, :, 2, 3] = 0, 0  # keys and values that are constant
    e, x = replaced(e, "qkv", kernel=kernel, bias=bias), images(4, e.config)
    got = slim(e, 1.0, ordering="svd", images=images(64, e.config, seed=1))
    np.testing.assert_allclose(
        got.features(x, "tokens", normalised=True), e.features(x, "tokens", normalised=True), atol=1e-5
    )
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(got.params))


def error(small, e, x):
    """Error of the features relative to their variation."""
    full = e.features(x, "tokens", normalised=True)
    return np.linalg.norm(small.features(x, "tokens", normalised=True) - full) / np.linalg.norm(
        full - full.mean((0, 1))
    )


@pytest.fixture(scope="module")
def trained():
    """An encoder whose units matter unequally, its slimmer, and images it has not seen."""
    e = structured(width=32, heads=2, head_dim=16, mlp=64, image_size=16)
    return e, Slimmer(e, images(64, e.config, seed=1)), images(32, e.config, seed=2)


@pytest.mark.parametrize("width", [0.02, pytest.param(0.25, marks=pytest.mark.long), 0.75])
def test_svd_and_ridge_beat_the_first_units(trained, width):
    e, slimmer, x = trained
    first, best = slimmer(width), slimmer(width, ordering="svd", recovery="ridge")
    assert jax.tree.map(np.shape, best.params) == jax.tree.map(np.shape, first.params)
    assert error(best, e, x) < 0.6 * error(first, e, x)


def test_each_part_of_it_helps(trained):
    e, slimmer, x = trained
    errors = {(o, r): error(slimmer(0.25, "inner", o, r), e, x) for o in ("first", "energy", "svd") for r in RECOVERIES}
    for recovery in ("none", "ridge"):
        assert errors["svd", recovery] < errors["energy", recovery] < errors["first", recovery]
    for ordering in ("first", "energy", "svd"):
        assert errors[ordering, "ridge"] < errors[ordering, "none"]
    without_images = error(slim(e, 0.25, ordering="svd"), e, x)
    assert errors["svd", "none"] < without_images < errors["first", "none"]


@pytest.mark.parametrize("mode", ["token", "heads", "branch"])
def test_repair_helps_in_every_mode(mode):
    e = structured(branches=2, heads=4, mlp=32, layer_scale=0.5)
    slimmer, x = Slimmer(e, images(128, e.config, seed=1)), images(32, e.config, seed=2)
    if mode == "token":  # the features of the full encoder in the channels that are left
        small, repaired = slimmer(0.5, mode), slimmer(0.5, mode, recovery="ridge")
        full = e.features(x, "tokens", normalised=True)[..., :8]
        assert (
            np.square(repaired.features(x, "tokens", normalised=True) - full).mean()
            < np.square(small.features(x, "tokens", normalised=True) - full).mean()
        )
    else:
        plain, repaired = (error(slimmer(0.5, mode, "energy", r), e, x) for r in ("none", "ridge"))
        assert repaired < 0.8 * plain


@pytest.mark.parametrize("scale", [0.5, pytest.param(0.25, marks=pytest.mark.long)])
def test_repair_does_not_depend_on_how_the_residual_sum_is_written(trained, scale):
    e, slimmer, x = trained
    config, same = dataclasses.replace(e.config, residual_scale=scale), e
    for group in ("attention_out", "mlp_out"):  # f(x) = scale * (f(x) / scale)
        same = replaced(same, group, **{k: v / scale for k, v in e.params["blocks"][group].items()})
    same = dataclasses.replace(same, config=config)
    np.testing.assert_allclose(same.features(x, normalised=True), e.features(x, normalised=True), atol=1e-5)
    again = Slimmer(same, images(64, e.config, seed=1))
    for recovery in ("mean", "ridge"):
        expected = slimmer(0.5, "inner", "svd", recovery).features(x, "tokens", normalised=True)
        got = again(0.5, "inner", "svd", recovery).features(x, "tokens", normalised=True)
        assert np.linalg.norm(got - expected) < 2e-3 * np.linalg.norm(expected)


def products(function, *arguments):
    """Precisions of the products in a function."""
    jaxpr = jax.make_jaxpr(function)(*arguments)
    return [eqn.params["precision"] for eqn in equations(jaxpr.jaxpr) if eqn.primitive.name == "dot_general"]


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in core.jaxprs_in_params(eqn.params):
            yield from equations(inner)


def test_what_is_solved_with_is_summed_at_full_precision():
    # a TPU takes float32 products in bfloat16 unless told otherwise; the squares of rounded units are not positive
    e = encoder()
    exact = [p for p in products(lambda x: moments(e.params, x, e.config), images(8, e.config)) if exactly(p)]
    assert len(exact) == 3  # of queries, keys and what attention mixed


def exactly(precision):
    return precision is not None and set(np.ravel(precision)) == {jax.lax.Precision.HIGHEST}


def replaced(e, group, **values):
    blocks = e.params["blocks"]
    new = {name: values[name].astype(np.float32) for name in values}
    return dataclasses.replace(e, params=e.params | {"blocks": blocks | {group: blocks[group] | new}})


def test_mean_restores_units_that_are_constant():
    e = encoder(branches=2)
    kernel = e.params["blocks"]["mlp_in"]["kernel"].copy()
    kernel[..., 10:] = 0  # the second half of the hidden units is what its bias makes of it
    e, x = replaced(e, "mlp_in", kernel=kernel), images(4, encoder().config)
    slimmer = Slimmer(e, images(8, e.config, seed=1))
    assert error(slimmer(0.5, "mlp"), e, x) > 0.1
    np.testing.assert_allclose(
        slimmer(0.5, "mlp", recovery="mean").features(x, "tokens", normalised=True),
        e.features(x, "tokens", normalised=True),
        atol=1e-4,
    )


def test_mean_restores_branches_that_are_constant():
    e = encoder(branches=2)
    silent = {group: np.copy(e.params["blocks"][group]["kernel"]) for group in ("attention_out", "mlp_out")}
    for group, kernel in silent.items():
        kernel[:, 1] = 0  # the second branch adds its output bias
        e = replaced(e, group, kernel=kernel)
    x, slimmer = images(4, e.config), Slimmer(e, images(8, e.config, seed=1))
    assert error(slimmer(0.5, "branch"), e, x) > 0.05
    np.testing.assert_allclose(
        slimmer(0.5, "branch", recovery="mean").features(x, "tokens", normalised=True),
        e.features(x, "tokens", normalised=True),
        atol=1e-4,
    )


def test_ridge_restores_units_that_others_can_stand_for():
    e = encoder()
    half = e.params["blocks"]["mlp_in"]
    kernel, bias = (np.concatenate([half[k][..., :10]] * 2, axis=-1) for k in ("kernel", "bias"))
    e = replaced(e, "mlp_in", kernel=kernel, bias=bias)
    x, slimmer = images(4, e.config), Slimmer(e, images(256, e.config, seed=1))
    assert error(slimmer(0.5, "mlp", recovery="mean"), e, x) > 0.1
    assert error(slimmer(0.5, "mlp", recovery="ridge"), e, x) < 0.02


def test_the_full_encoder_is_measured_once_for_all_widths(monkeypatch):
    calls = []

    def counted(name):
        function = getattr(calibration, name)
        monkeypatch.setattr(calibration, name, lambda *a: calls.append(name) or function(*a))

    counted("moments")
    counted("residual_streams")
    e = encoder()
    slimmer = Slimmer(e, images(70, e.config))
    for width in (0.5, 0.25):
        for ordering in ("energy", "svd"):
            slimmer(width, "inner", ordering, "ridge")
    assert calls == ["moments"] * 2 + ["residual_streams"] * 2  # two batches of 32 each


def test_images_that_fill_no_batch_are_left_out_of_all_classes_alike():
    e = encoder()
    dark, light = images(2, e.config)[:, None]
    by_class = calibration.Calibration(e, np.concatenate([dark] * 24 + [light] * 24))  # 32 of 48 are used
    alike = calibration.Calibration(e, np.concatenate([dark] * 16 + [light] * 16))
    for found, expected in zip(*(jax.tree.leaves(c.moments) for c in (by_class, alike)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_random_depends_on_the_seed():
    e = encoder()
    bias = lambda seed: slim(e, 0.5, ordering="random", seed=seed).params["blocks"]["mlp_in"]["bias"]  # noqa: E731
    np.testing.assert_array_equal(bias(1), bias(1))
    assert (np.asarray(bias(1)) != np.asarray(bias(2))).any()


def test_which_methods_use_images():
    assert [o for o in ORDERINGS if uses_images(o, "none")] == ["energy", "svd"]
    assert [r for r in RECOVERIES if uses_images("first", r)] == ["mean", "ridge"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ordering": "best"}, "unknown ordering 'best'; choose one of: first, last, random, energy, svd"),
        ({"recovery": "all"}, "unknown recovery 'all'; choose one of: none, mean, ridge"),
        ({"mode": "depth"}, "unknown slimming mode 'depth'"),
        ({"mode": "branch"}, "the network has one branch, which cannot be cut; choose"),
        ({"width_ratio": 0}, r"width_ratio=0: must be above 0 and at most 1"),
        (
            {"width_ratio": {"head": 0.5}},
            "unknown slimming mode 'head'; .* axes joined by \\+, out of layers, branch, embed, heads, head_dim, mlp",
        ),
        ({"ordering": "energy"}, "'energy' needs calibration images, a few hundred without labels"),
        ({"recovery": "ridge"}, "'ridge' needs calibration images"),
        (
            {"mode": "layers", "ordering": "svd"},
            "ordering=svd, recovery=none: a cut of layers keeps the first ones unchanged; leave both at first and none",
        ),
        ({"mode": "layers+mlp", "recovery": "mean"}, "recovery=mean: works only for cuts in width"),
        ({"images": np.zeros((0, 8, 8, 3)), "recovery": "mean"}, "there are no calibration images; give a few hundred"),
        ({"images": np.zeros((2, 8, 8, 4)), "recovery": "mean"}, r"but the encoder takes \[N, 8, 8, 3\]"),
        ({"images": np.full((2, 8, 8, 3), np.nan), "recovery": "mean"}, "NaN or infinity"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        slim(encoder(), **{"width_ratio": 0.5, **arguments})


def test_units_that_share_relative_positions_keep_their_order():
    e = encoder(relative=True, class_token=False)
    for ordering in ("last", "random", "energy", "svd"):
        with pytest.raises(UserError, match=f"ordering={ordering}: relative positions have one order for all heads"):
            slim(e, 0.5, ordering=ordering, images=images(4, e.config))
    assert slim(e, 0.5, mode="heads", ordering="last").config.heads == 1
