"""The classifier is the encoder with a linear head, and knows the distance of its parameters from the head."""

import dataclasses

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from scaling.core.errors import UserError
from scaling.models.classifier import Classifier, ClassifierConfig, init_head, layers_below_head
from scaling.models.parameters import abstract_params
from scaling.models.vit import image_input
from scaling.training.optimizer import OptimizerConfig, make_optimizer
from tests.models import reference

CONFIG = ClassifierConfig(
    image_size=16, patch_size=4, width=32, depth=3, heads=2, head_dim=16, mlp=64, classes=5, position="learned"
)


def drawn(c):
    """Parameters of which none is zero or one, and the names of their axes."""
    shapes, names = abstract_params(Classifier(c), image_input(c))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), shapes), names


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_logits_are_those_of_the_pooled_tokens(pool):
    c = dataclasses.replace(CONFIG, position="sincos", pool=pool)
    params, _ = drawn(c)
    images = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype(np.float32)
    logits = jax.jit(Classifier(c).apply)({"params": params}, images)
    tokens = np.stack([reference.encode(params["encoder"], image, c) for image in images])
    pooled = tokens[:, 0] if pool == "cls" else tokens[:, 1:].mean(1)
    np.testing.assert_allclose(logits, pooled @ params["head"]["kernel"] + params["head"]["bias"], rtol=1e-4, atol=1e-4)


def test_layers_are_counted_as_in_the_reference_implementation():
    # facebookresearch/mae, util/lr_decay.py: layer 0 is what precedes the blocks, depth + 1 the norm and the head
    _, names = drawn(CONFIG)
    below = layers_below_head(names, CONFIG)
    assert {int(x) for x in jax.tree.leaves(below["head"])} == {0}
    assert {int(x) for x in jax.tree.leaves(below["encoder"]["norm"])} == {0}
    for group in ("patch", "cls", "position"):
        assert {int(x) for x in jax.tree.leaves(below["encoder"][group])} == {4}
    for x in jax.tree.leaves(below["encoder"]["blocks"]):
        assert x.ravel().tolist() == [3, 2, 1]


@pytest.mark.parametrize("stem", [{}, {"channel_width": 16, "channel_heads": 2}], ids=["patches", "channels"])
def test_whatever_stands_before_the_blocks_is_below_them(stem):
    c = dataclasses.replace(CONFIG, registers=1, **stem)
    below = layers_below_head(drawn(c)[1], c)["encoder"]
    before = {group: {int(x) for x in jax.tree.leaves(tree)} for group, tree in below.items() if group != "blocks"}
    assert before.pop("norm") == {0}
    assert set(map(frozenset, before.values())) == {frozenset({4})}


FIXED = {  # what is not trained, and the same where it is
    "alibi": ("blocks/alibi/slope", {"alibi": True, "class_token": False, "position": "none", "registers": 0}),
    "positions": ("position/embedding", {"fixed_positions": True}),
    "learned positions": ("", {}),
}


@pytest.mark.parametrize(("path", "fields"), FIXED.values(), ids=FIXED)
def test_what_is_fixed_in_the_published_model_is_not_trained(path, fields):
    c = dataclasses.replace(CONFIG, **fields)
    params, names = drawn(c)
    images = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype(np.float32)

    @jax.jit
    def change(params):
        gradients = jax.grad(lambda p: (Classifier(c).apply({"params": p}, images) ** 2).sum())(params)
        rules = [OptimizerConfig(name=name, weight_decay=0.5) for name in ("adamw", "adafactor")]
        made = [make_optimizer(rule, lambda step: 0.1, names) for rule in rules]
        return [rule.update(gradients, rule.init(params), params)[0] for rule in made]

    for updates in change(params):
        moved = {key: np.any(x) for key, x in flatten_dict(updates["encoder"], sep="/").items()}
        assert {key for key, has_moved in moved.items() if not has_moved} == ({path} if path else set())


def test_a_head_begins_at_almost_nothing_and_is_drawn_by_its_seed():
    first, again, other = (init_head(CONFIG, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first["kernel"], again["kernel"])
    assert not np.array_equal(first["kernel"], other["kernel"])
    assert 0 < np.abs(first["kernel"]).max() < 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": 1}, "task.classes=1: needs at least two classes"),
        ({"pool": "max"}, "task.pool='max' is not supported"),
        ({"pool": "cls", "class_token": False}, "task.pool='cls' is not supported"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(CONFIG, **fields).check()
