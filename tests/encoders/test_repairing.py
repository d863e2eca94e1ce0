"""Missing blocks: the projection before them is an ordinary least-squares fit to their output."""

import numpy as np
import pytest

from scaling.core.errors import UserError
from scaling.encoders.pruned import prune
from scaling.encoders.slimmed import Slimmer, slim
from scaling.slimming.recovery import DAMPING
from tests.models.reference import gelu
from tests.slimming import reference
from tests.slimming.encoders import encoder, images, structured


def states(e, image):
    """States of one image, float64: the input of the first block, and the output of every sublayer."""
    c, found = e.config, []
    p = {g: {k: np.asarray(x, np.float64) for k, x in v.items()} for g, v in e.params.items() if g != "blocks"}
    blocks = {g: {k: np.asarray(x, np.float64) for k, x in v.items()} for g, v in e.params["blocks"].items()}
    kept = {"embed": c.width, "heads": c.heads, "head_dim": c.head_dim, "mlp": c.mlp, "branch": c.branches}
    whole = {**p, "blocks": blocks, "norm": {"scale": np.ones(c.width), "bias": np.zeros(c.width)}}
    x = reference.patches(image, c.patch_size) @ p["patch"]["kernel"] + p["patch"]["bias"]
    x = np.concatenate([p["cls"]["token"][None], x + reference.sincos(c.grid, c.width)])
    for i in range(c.depth):
        layer = {g: {k: x[i] for k, x in v.items()} for g, v in whole["blocks"].items()}
        y = reference.norm(layer["attention_norm"], x, c.width)
        x = x + reference.attention(layer, y, c, kept, c.head_dim**-0.5)
        attended, y = x, reference.norm(layer["mlp_norm"], x, c.width)
        x = x + reference.mlp(layer, y, c, kept)
        units = gelu(y @ layer["mlp_in"]["kernel"][:, 0] + layer["mlp_in"]["bias"][0])
        found.append((attended, units, x))
    return found


def test_the_projection_before_missing_blocks_is_numpys_least_squares():
    e = structured(depth=4)
    fitted = images(32, e.config, seed=1)
    small = prune(e, (0, 3), images=fitted)
    assert (small.config.depth, small.config.mlp) == (2, e.config.mlp)
    rows = [states(e, image) for image in fitted]
    attended, units = (np.concatenate([r[0][j] for r in rows]) for j in (0, 1))
    target = np.concatenate([r[2][2] for r in rows])  # behind block 2, the last that is missing
    out = e.params["blocks"]["mlp_out"]
    kernel, bias = (np.asarray(out[k][0, 0], np.float64) for k in ("kernel", "bias"))
    error, mean = target - attended - units @ kernel - bias, units.mean(0)
    penalty = DAMPING * units.var(0).mean() * len(units)
    left = np.concatenate([units - mean, np.sqrt(penalty) * np.eye(len(mean))])
    right = np.concatenate([error - error.mean(0), np.zeros((len(mean), error.shape[1]))])
    change = np.linalg.lstsq(left, right, rcond=None)[0]
    got = small.params["blocks"]["mlp_out"]
    scale = np.abs(kernel + change).max()
    np.testing.assert_allclose(got["kernel"][0, 0], kernel + change, atol=2e-3 * scale)
    np.testing.assert_allclose(got["bias"][0, 0], bias + error.mean(0) - mean @ change, atol=2e-3 * scale)


def test_several_sets_of_blocks_are_repaired_as_each_by_itself():
    e = structured(depth=4, mlp=32)
    fitted, held_out = images(64, e.config, seed=1), images(8, e.config, seed=2)
    sets = [(0, 1, 2, 3), (0, 1), (0, 3), (1, 2)]
    slimmer = Slimmer(e, fitted)
    found = {
        blocks: (make(), features("mean")) for blocks, make, features in slimmer.repaired({}, "svd", sets, held_out)
    }
    assert sorted(found) == sorted(sets)
    full = e.features(held_out, normalised=True)
    for blocks, (made, features) in found.items():
        alone = slimmer({}, ordering="svd", recovery="ridge", blocks=blocks)
        np.testing.assert_allclose(
            made.features(held_out, normalised=True), alone.features(held_out, normalised=True), atol=1e-4
        )
        np.testing.assert_allclose(features, made.features(held_out, normalised=True), atol=1e-4)
        if len(blocks) < 4:
            cut = slim(e, {}, blocks=blocks)
            assert np.linalg.norm(features - full) < 0.9 * np.linalg.norm(
                cut.features(held_out, normalised=True) - full
            )


def test_what_does_not_fit_is_refused():
    e = encoder()
    with pytest.raises(UserError, match="there is no block 2; the encoder has 0 to 1"):
        slim(e, {}, blocks=(0, 2))
    with pytest.raises(UserError, match="needs recovery none or ridge, and layers must not be among the axes"):
        slim(e, 0.5, "layers", blocks=(0,))
    with pytest.raises(UserError, match="needs calibration images"):
        slim(e, {}, recovery="ridge", blocks=(0,))
