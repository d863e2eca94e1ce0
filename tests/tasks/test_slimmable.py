"""A slimmable classifier: its gradient, its scores at every width, and its use at one of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import scaling
from scaling import axes
from scaling.core.config import config_dict, from_config_dict
from scaling.core.errors import UserError
from scaling.core.rows import read_rows
from scaling.data.arrays import normalise
from scaling.data.config import DataConfig
from scaling.data.sources.registry import open_source
from scaling.evaluation.scores import Predictions
from scaling.finetune import rows_of
from scaling.models.classifier import Classifier, ClassifierConfig
from scaling.models.config import ViTConfig
from scaling.objectives import Inputs, objective_config
from scaling.tasks.classification import Labelling
from scaling.tasks.slimmable import SlimmableLabelling, WidthPredictions
from scaling.training.config import FinetuneConfig
from scaling.training.optimizer import OptimizerConfig
from scaling.training.stored_config import stored_config
from tests.commands import call, command
from tests.encoders.examples import small_encoder
from tests.models.sizes import encoder_config, small
from tests.training.train_steps import images

MODEL = encoder_config(small(width=16, depth=1, heads=4, head_dim=4, mlp=8, position="learned"))
LABELS = Labelling(classes=3, label_smoothing=0.1)
MEAN, STD = (128.0,) * 3, (64.0,) * 3
KEPT = {"inner": ("head_dim", "mlp"), "token": ("head_dim", "mlp", "embed")}


def network(mode, width):
    """The classifier of one width, said by hand, and how many of each axis it keeps."""
    sizes, fields = {"head_dim": 4, "mlp": 8, "embed": 16}, {"embed": "width"}
    kept = {axis: int(sizes[axis] * width) for axis in KEPT[mode]}
    values = {f.name: getattr(MODEL, f.name) for f in dataclasses.fields(ViTConfig)}
    own = {"classes": 3, "pool": "mean", **{fields.get(axis, axis): k for axis, k in kept.items()}}
    return ClassifierConfig(**{**values, **own}), kept


@pytest.mark.parametrize(("mode", "distillation"), [("token", "logits"), ("inner", "none")])
def test_the_gradient_is_the_sum_of_those_of_separately_cut_classifiers(mode, distillation):
    c = SlimmableLabelling(wraps=LABELS, mode=mode, widths=(0.5,), random=0, distillation=distillation, distilled=0.25)
    with jax.enable_x64():
        objective = c.make(MODEL, Inputs(MEAN, STD, jnp.float64, 10))
        rng = np.random.default_rng(0)
        params = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape), jax.jit(objective.init)(0))
        batch = {"image": images(0)[:4], "label": np.array([0, 2, 1, 1])}
        inputs = jax.jit(objective.inputs)(0, jnp.int32(4), batch)
        (loss, _), gradient = jax.jit(jax.value_and_grad(objective.loss, has_aux=True))(params, {}, inputs)
        targets, wanted, total = np.eye(3)[batch["label"]] * 0.9 + 0.1 / 3, None, 0.0
        expected = jax.tree.map(np.zeros_like, jax.device_get(params))
        for width in (1.0, 0.5):
            config, kept = network(mode, width)

            def cut(names, x, kept=kept):
                return x[tuple(slice(kept.get(axis)) for axis in names)]

            def of(p, config=config, wanted=wanted):
                logits = Classifier(config, jnp.float64).apply({"params": p}, normalise(batch["image"], MEAN, STD))
                own = -(targets * jax.nn.log_softmax(logits)).sum(1).mean()
                if wanted is None or distillation == "none":
                    return own, logits
                apart = (jax.nn.softmax(wanted) * (jax.nn.log_softmax(wanted) - jax.nn.log_softmax(logits))).sum(1)
                return 0.75 * own + 0.25 * apart.mean(), logits

            part = axes.map_named(cut, objective.names, params)
            (value, logits), g = jax.jit(jax.value_and_grad(of, has_aux=True))(part)
            wanted, total = logits if wanted is None else wanted, total + float(value)

            def add(names, whole, x, kept=kept):
                whole[tuple(slice(kept.get(axis)) for axis in names)] += np.asarray(x)

            axes.map_named(add, objective.names, expected, g)
    exact = distillation == "none"  # logits are float32, and the divergence is written in another way
    assert float(loss) == pytest.approx(total, rel=1e-12 if exact else 1e-7)
    rtol, atol = (1e-9, 1e-14) if exact else (1e-5, 1e-8)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), gradient, expected)
    assert np.abs(expected["encoder"]["blocks"]["mlp_in"]["kernel"]).max() > 0


def test_several_labels_are_distilled_by_their_own_probabilities():
    objective = Labelling(classes=2, multi_label=True).make(MODEL, Inputs(MEAN, STD))
    found, wanted = jnp.array([[0.3, -1.0]]), jnp.array([[2.0, -1.0]])
    p, q = 1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(-0.3))
    apart = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    np.testing.assert_allclose(objective.apart("logits", found, wanted), [apart / 2], rtol=1e-5)
    assert objective.apart("logits", wanted, wanted) == pytest.approx(0, abs=1e-6)
    one = LABELS.make(MODEL, Inputs(MEAN, STD))
    logits = jnp.array([[0.3, -1.0, 0.1]]), jnp.array([[2.0, -1.0, 0.5]])
    divergence = optax.kl_divergence(jax.nn.log_softmax(logits[0]), jax.nn.softmax(logits[1]))
    np.testing.assert_allclose(one.apart("logits", *logits), divergence, rtol=1e-5)


RECIPE = FinetuneConfig(
    epochs=4.0,
    warmup_epochs=0.5,
    batch_size=16,
    task=objective_config("slimmable_classification", widths=(0.25, 0.5), random=1, distillation="logits"),
    data=DataConfig(source="scenes?size=16", split="train[:64]", flips="dihedral"),
    test_split="test[:40]",
    optimizer=OptimizerConfig(base_lr=2e-2),
)


def test_every_width_is_scored_and_told_as_it_was_scored(tmp_path):
    small_encoder().save(tmp_path / "encoder")
    recipe = {
        "task.widths": "(0.25,0.5)", "task.random": 1, "epochs": 4.0, "warmup_epochs": 0.5, "batch_size": 16,
        "data.source": RECIPE.data.source, "data.split": RECIPE.data.split, "test_split": RECIPE.test_split,
        "optimizer.base_lr": 2e-2,
    }  # fmt: skip
    fields = {f"config.{name}": value for name, value in recipe.items()}
    line = command(
        "finetune", checkpoint=tmp_path / "encoder", config="finetune_slimmable.py", workdir=tmp_path / "run", **fields
    )
    done = call(line)
    assert done.returncode == 0, done.stderr
    rows = [row for row in read_rows(tmp_path / "run" / "rows.jsonl") if row.metric == "accuracy"]
    assert [(row.width_ratio, row.mode) for row in rows] == [(1.0, "inner"), (0.25, "inner"), (0.5, "inner")]
    assert rows[1].compute < rows[2].compute < rows[0].compute
    assert rows[1].params < rows[2].params < rows[0].params
    for row in rows:
        assert f"  width {row.width_ratio:g}" in done.stdout
    source = open_source(RECIPE.data.source, RECIPE.test_split)
    pixels, truth = np.stack([source[i]["image"] for i in range(40)]), [source[i]["label"] for i in range(40)]
    told = {}
    for row in rows:
        found = scaling.predict(tmp_path / "run", pixels, width_ratio=row.width_ratio)
        told[row.width_ratio] = found.probabilities
        assert np.mean(found.probabilities.argmax(1) == truth) == pytest.approx(row.value, abs=1e-6)
    assert np.abs(told[0.25] - told[0.5]).max() > 1e-3
    with pytest.raises(UserError, match=r"^width_ratio=0.3: must be one of the trained widths 0.25, 0.5, 1$"):
        scaling.predict(tmp_path / "run", pixels, width_ratio=0.3)


def test_only_widths_that_are_trained_are_scored_and_offered():
    def widths(**fields):
        c = SlimmableLabelling(wraps=LABELS, widths=(0.25, 0.5, 0.75), **fields)
        objective = c.make(MODEL, Inputs(MEAN, STD))
        params = jax.jit(objective.init)(0)
        rows = jax.jit(objective.predict)(params, {}, {"image": images(0)[:4], "label": np.array([0, 2, 1, 1])})
        scored = [cut.width for cut, _ in objective.predictions(jax.device_get(rows)).narrower]
        assert scored == [cut.width for cut in c.trained(MODEL)]
        return scored

    assert widths() == [0.25, 0.5, 0.75]
    assert widths(random=0) == [0.25]
    assert widths(with_smallest=False) == [0.5, 0.75]


def test_rows_of_cuts_in_depth_say_how_many_blocks_are_left():
    encoder = small_encoder()
    task = SlimmableLabelling(wraps=LABELS, mode="layers", widths=(0.5,), random=0)
    c = dataclasses.replace(RECIPE, task=task, model=encoder.config)
    truth = np.array([0, 1, 2, 0])
    narrower = tuple((cut, Predictions(truth, truth)) for cut in task.cuts(encoder.config))
    found = WidthPredictions(truth, truth, mode="layers", narrower=narrower)
    rows = rows_of("m", c, found, dataclasses.replace(encoder, train=FinetuneConfig(model=encoder.config)))
    assert {(row.width_ratio, row.depth_ratio) for row in rows} == {(1.0, 1.0), (0.5, 0.5)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"wraps": objective_config("segmentation")}, "task.wraps.name=segmentation: cannot be cut; choose classific"),
        ({"wraps": Labelling(label_smoothing=1.0)}, "task.wraps.label_smoothing=1.0"),
        ({"distillation": "tokens"}, "task.distillation=tokens: must be one of none, logits"),
        ({"widths": (1.5,)}, "task.widths=1.5"),
        ({"decoder": True}, "task.decoder=True: classification has none"),
    ],
    ids=str,
)
def test_a_recipe_that_cannot_be_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        SlimmableLabelling(**fields).check(MODEL)


def test_it_is_stored_and_what_follows_from_the_data_is_left_out():
    assert from_config_dict(FinetuneConfig, config_dict(RECIPE)) == RECIPE
    assert stored_config(config_dict(RECIPE).to_dict()) == RECIPE
    source = open_source("scenes?size=16", "test[:8]")
    with pytest.raises(UserError, match=r"^task.wraps.classes follows from the data"):
        SlimmableLabelling(wraps=Labelling(classes=7)).with_data(source.info)
    assert SlimmableLabelling().with_data(source.info).labelling.classes == len(source.info.classes)
