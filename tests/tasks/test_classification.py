"""Classification: its loss is the one of the books, and neither mesh nor microbatches change it."""

import jax
import numpy as np
import pytest
from sklearn.metrics import log_loss

from scaling.core.errors import UserError
from scaling.models.config import ViTConfig
from scaling.tasks.classification import Labelling
from tests.training.train_steps import BATCH, images, on, train_step

SIZES = {"image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "heads": 2, "head_dim": 16, "mlp": 64}
ONE = np.arange(BATCH, dtype=np.int32) % 3
SEVERAL = np.random.default_rng(0).integers(0, 2, (BATCH, 4)).astype(np.int32)


def classifier(mesh=(1, 1, 1), accumulate=1, **fields):
    task = Labelling(**{"classes": 3, **fields})
    return train_step(mesh, model=ViTConfig(**SIZES), objective=task, accumulate=accumulate)


def some_params(t):
    """The first ones with a head that says something."""
    rng = np.random.default_rng(1)
    params = jax.device_get(t.init().params)
    params["head"] = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params["head"])
    return params


def test_evaluation_is_cross_entropy_and_accuracy_of_the_images_that_count():
    t = classifier(label_smoothing=0.1, mixup=1.0)  # of which evaluation knows nothing
    params, weight = some_params(t), (np.arange(BATCH) < 10).astype(np.float32)
    logits = np.asarray(jax.jit(t.objective.logits)(params, images(0)), np.float64)
    sums = t.evaluate(params, {}, on(t, image=images(0), label=ONE, weight=weight, index=np.arange(BATCH)))
    expected = log_loss(ONE[:10], jax.nn.softmax(logits[:10]), labels=[0, 1, 2])
    assert float(sums["loss"]) / 10 == pytest.approx(expected, rel=1e-5)
    assert float(sums["accuracy"]) == (logits.argmax(1) == ONE)[:10].sum()
    assert float(sums["weight"]) == 10


def test_several_labels_are_binary_decisions():
    t = classifier(classes=4, multi_label=True)
    params, weight = some_params(t), np.ones(BATCH, np.float32)
    p = 1 / (1 + np.exp(-np.asarray(jax.jit(t.objective.logits)(params, images(0)), np.float64)))
    sums = t.evaluate(params, {}, on(t, image=images(0), label=SEVERAL, weight=weight, index=np.arange(BATCH)))
    expected = np.mean([log_loss(SEVERAL[:, k], p[:, k], labels=[0, 1]) for k in range(4)])
    assert float(sums["loss"]) / BATCH == pytest.approx(expected, rel=1e-5)
    assert "accuracy" not in sums


def test_smoothing_and_mixing_make_the_targets_of_their_papers():
    t = classifier(label_smoothing=0.3, mixup=0.8)
    batch = {"image": images(0), "label": ONE}
    mixed = jax.jit(t.objective.inputs)
    inputs = jax.device_get(mixed(t.config.seed, 4, batch))
    smooth = 0.7 * np.eye(3)[ONE] + 0.1
    share = (inputs["image"] - images(0)[::-1]) / (images(0).astype(np.float32) - images(0)[::-1] + 1e-9)
    share = np.median(share.reshape(BATCH, -1), axis=1)[:, None]
    assert ((share >= 0) & (share <= 1)).all()
    assert len(np.unique(share.round(3))) > BATCH // 2  # a share of its own for each image
    np.testing.assert_allclose(inputs["target"], share * smooth + (1 - share) * smooth[::-1], atol=1e-3)
    later = mixed(t.config.seed, 5, batch)
    assert not np.array_equal(later["target"], inputs["target"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label_smoothing": 1.0}, "task.label_smoothing=1.0"),
        ({"mixup": -1.0}, "task.mixup=-1.0"),
        ({"classes": 1}, "task.classes=1"),
        ({"pool": "max"}, "task.pool='max' is not supported"),
    ],
    ids=str,
)
def test_a_recipe_that_cannot_be_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Labelling(**fields).check(ViTConfig(**SIZES))


@pytest.mark.parametrize(
    ("mesh", "accumulate"), [((1, 4, 2), 1), pytest.param((1, 1, 1), 4, marks=pytest.mark.long)], ids=str
)
def test_neither_mesh_nor_microbatches_change_the_step(mesh, accumulate):
    rows = []
    for t in (classifier(mixup=0.8), classifier(mesh, accumulate, mixup=0.8)):
        state, seen = t.start(jax.device_put(some_params(t), t.shardings.params)), []
        for step in range(3):
            state, metrics = t.step(state, on(t, image=images(step), label=ONE))
            seen.append([float(metrics[name]) for name in ("loss", "grad_norm", "param_norm")])
        rows.append(seen)
    np.testing.assert_allclose(rows[1], rows[0], rtol=2e-5)
