"""Encoders with fewer blocks: the remaining ones compute what they did before."""

import dataclasses

import jax
import numpy as np
import pytest

from scaling.compute.counting import parameter_counts
from scaling.core.errors import UserError
from scaling.encoders.loading import load_encoder
from scaling.encoders.pruned import decide, features_of_depths, prune, stability
from scaling.encoders.similarity import measure
from scaling.encoders.slimmed import slim
from scaling.models.activations import layer_tokens
from scaling.models.transformer import norm, run
from scaling.models.variants import architecture
from scaling.models.vit import abstract_vit, stem
from scaling.training.config import TrainConfig
from tests.encoders.examples import small_encoder
from tests.slimming.encoders import encoder, images

STEM, RUN, NORM = (jax.jit(function, static_argnums=2) for function in (stem, run, norm))


@pytest.mark.parametrize("blocks", [(0,), (0, 1, 2), (3,), (0, 2, 3)])
def test_only_the_blocks_that_stay_are_passed(blocks):
    e = encoder(depth=4)
    x = images(3, e.config)
    tokens = STEM(e.params, x, e.config)
    for i in blocks:
        one = jax.tree.map(lambda p, i=i: p[i : i + 1], e.params["blocks"])
        tokens, _ = RUN(one, tokens, dataclasses.replace(e.config, depth=1))
    expected = NORM(e.params["norm"], tokens, e.config.norm_eps)
    np.testing.assert_allclose(prune(e, blocks).features(x, "tokens", normalised=True), expected, rtol=1e-5, atol=1e-5)


def test_the_first_blocks_end_in_the_state_behind_them():
    e = encoder(depth=4)
    x = images(3, e.config)
    expected = NORM(e.params["norm"], layer_tokens(e.params, x, e.config, (2,))[0], e.config.norm_eps)
    np.testing.assert_allclose(prune(e, (0, 1)).features(x, "tokens", normalised=True), expected, rtol=1e-5, atol=1e-5)
    by_axis = slim(e, 0.5, mode="layers")
    np.testing.assert_array_equal(by_axis.features(x, normalised=True), prune(e, (0, 1)).features(x, normalised=True))


def test_depth_and_width_are_cut_in_either_order():
    e = encoder(depth=4)
    x = images(3, e.config)
    first, then = prune(slim(e, 0.5), (0, 3)), slim(prune(e, (0, 3)), 0.5)
    np.testing.assert_array_equal(first.features(x, normalised=True), then.features(x, normalised=True))
    told = dataclasses.replace(e, train=TrainConfig(model=e.config))
    assert prune(told, (0, 3)).cut_fields(0.5, "inner", "first", "none") == {
        "width_ratio": 0.5, "depth_ratio": 0.5, "mode": "layers then inner", "ordering": "first then first",
        "recovery": "none then none",
    }  # fmt: skip


def test_blocks_keep_their_windows():
    c = small_encoder(depth=4, window=2, class_token=False, global_blocks=(2, 4)).config
    assert c.with_blocks((0, 1, 3)).global_blocks == (2, 3)
    assert [block.window for block in c.with_blocks((0, 1, 3)).of_blocks] == [2, 0, 0]
    with pytest.raises(UserError, match="all of these have windows; keep one that attends to all tokens"):
        c.with_blocks((0, 2))
    default = dataclasses.replace(c, global_blocks=())  # the last of every quarter: all four
    assert default.resized({"layers": 3}).attending_to_all == (1, 2, 3)


def test_it_is_kept_and_read_as_any_other(tmp_path):
    e = small_encoder(depth=4)
    pruned = prune(e, (0, 2), "shortgpt")
    pruned.save(tmp_path)
    again = load_encoder(tmp_path)
    assert again.config.depth == 2
    assert again.cuts == pruned.cuts
    assert str(again.cuts[0]) == "blocks 0,2 of 4, shortgpt"
    x = images(2, e.config)
    np.testing.assert_array_equal(again.features(x, normalised=True), pruned.features(x, normalised=True))


def test_another_block_is_another_encoder_however_deep_it_is(tmp_path):
    e, found = small_encoder(depth=11), {}
    for last in (8, 9, 10):
        prune(e, (*range(8), last)).save(tmp_path / str(last))
        again = load_encoder(tmp_path / str(last))
        found[again.identity] = again.row_fields("e", {})["model"]
    assert list(found.values()) == [
        "e (blocks 0-8 of 11, keep)",
        *(f"e (blocks 0,1,2,3,4,5,6,7,{i} of 11, keep)" for i in (9, 10)),
    ]


def test_rows_of_what_is_pruned_say_no_more_than_that():
    e = encoder(depth=4)
    told = prune(dataclasses.replace(e, train=TrainConfig(model=e.config)), (0, 1, 2))
    fields = told.cut_fields(1.0, "", "first", "none")
    assert fields == {"width_ratio": 1, "depth_ratio": 0.75, "mode": "layers", "ordering": "first", "recovery": "none"}


def test_a_decision_is_tried_on_other_draws():
    e = encoder(depth=6)
    parts = measure([e], [[images(4000, e.config)]], "mean")
    steady = stability(parts, "simpler", 0, "debiased", False, draws=10)
    assert sum(steady.draws.values()) == 10
    assert list(steady.growing) == [128, 256, 512, 1024, 2048]
    half = decide(parts.some(np.arange(8)), "simpler", 0, "debiased", False)
    assert steady.growing[1024] == half.keep
    assert stability(parts.some([0, 1, 2]), "simpler", 0, "debiased", False) is None


def test_a_rule_that_is_not_known():
    e = encoder(depth=4)
    with pytest.raises(UserError, match="must be one of simpler, shortgpt, angular, cka_interval; or name"):
        decide(measure([e], [[images(8, e.config)]]), "best", 2, "debiased", False)


def test_what_is_left_of_prithvi_is_what_was_published():
    """64.57 million parameters with a linear decoder for the 15 classes of MADOS: five of 24 blocks."""
    c = architecture("prithvi_eo_v2_300").config
    shapes, names = abstract_vit(c.with_blocks(range(5)))
    left = parameter_counts(names, shapes)["encoder"] + 15 * (c.width + 1)
    assert f"{left / 1e6:.2f}" == "64.57"


WINDOWS = {"window": 1, "global_blocks": (1,), "class_token": False}


@pytest.mark.parametrize(
    ("pool", "fields"),
    [pytest.param("mean", {}, marks=pytest.mark.long), ("cls", {"branches": 2}), ("mean", WINDOWS)],
)
def test_one_pass_has_the_features_of_every_depth(pool, fields):
    e = encoder(depth=4, **fields)
    x = images(3, e.config)
    found = features_of_depths(e, x, pool)
    assert found.shape == (4, 3, e.config.width)
    for depth in range(1, 5):
        alone = prune(e, range(depth)) if depth < 4 else e
        np.testing.assert_allclose(found[depth - 1], alone.encode(x, pool), rtol=1e-5, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-2
