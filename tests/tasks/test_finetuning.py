"""Fine-tuning follows the encoder and the data set, and scores the result on the test split."""

import dataclasses
import os
import signal

import numpy as np
import pytest
from etils import epath

from scaling.core.errors import TrainingError, UserError
from scaling.data.config import DataConfig
from scaling.encoders.controls import random_weights
from scaling.encoders.loading import load_encoder
from scaling.models.config import ViTConfig
from scaling.parallel.mesh import MeshConfig
from scaling.tasks.classification import Labelling
from scaling.tasks.finetuning import Finetuning, finetune
from scaling.training.checkpoints import CheckpointConfig
from scaling.training.config import FinetuneConfig
from scaling.training.loop import Stopped, Trainer
from scaling.training.optimizer import OptimizerConfig
from scaling.training.writers import Writer
from tests.data.examples import class_folders
from tests.encoders.examples import small_encoder

RECIPE = FinetuneConfig(
    epochs=6,
    warmup_epochs=1,
    batch_size=32,
    data=DataConfig(source="scenes?size=16", split="train[:256]", flips="dihedral"),
    test_split="test[:200]",
    optimizer=OptimizerConfig(base_lr=2e-2, layer_decay=0.75),
    mesh=MeshConfig(replica=1, fsdp=-1),
)


def test_the_recipe_takes_its_sizes_from_the_encoder_and_the_data():
    encoder = small_encoder()
    c = Finetuning(encoder, RECIPE).config
    assert (c.model.width, c.model.depth, c.task.classes, c.task.multi_label) == (32, 2, 10, False)
    assert (c.steps, c.optimizer.warmup) == (48, 8)
    assert c.data.mean == encoder.train.data.mean
    own = Finetuning(encoder, dataclasses.replace(RECIPE, normalise="source")).config
    assert own.data.mean != encoder.train.data.mean


def test_class_folders_without_splits_are_parted_once_and_it_is_said(tmp_path, caplog):
    spec = f"folder:{class_folders(tmp_path / 'images')}"
    recipe = dataclasses.replace(RECIPE, data=DataConfig(source=spec), test_split="test", batch_size=8)
    with caplog.at_level("INFO", logger="scaling"):
        tuning = Finetuning(small_encoder(), recipe)
    learned, scored = "train[:80%,stratified]", "train[80%:,stratified]"
    said = (
        f"{spec} has no split test: {learned} is learned from, {scored} is scored (always the same): "
        "16 and 4 images (forest 8 + 2, river 8 + 2)"
    )
    assert [record.getMessage() for record in caplog.records] == [said]
    assert (tuning.config.data.split, tuning.config.test_split) == (learned, scored)
    trained, tested = ({part.name(i) for i in range(len(part))} for part in (tuning.source, tuning.test))
    assert (len(trained), len(tested), len(trained | tested)) == (16, 4, 20)
    parts = dataclasses.replace(recipe, data=DataConfig(source=spec, split=learned), test_split=scored)
    assert Finetuning(small_encoder(), parts).config == tuning.config
    asked = dataclasses.replace(recipe, data=DataConfig(source=spec, split="train[:50%]"))
    with pytest.raises(UserError, match="no split 'test'; there is only train"):
        Finetuning(small_encoder(), asked)


def test_images_in_other_units_than_those_of_the_pretraining_are_said(tmp_path, caplog):
    """They do not begin a run; one that was begun, when they were not refused, resumes."""
    reflectances = dataclasses.replace(RECIPE, data=DataConfig(source="scenes:ms?size=16", bands=(0, 1, 2)))
    tuning, *_ = (
        Finetuning(small_encoder(), recipe)
        for recipe in (reflectances, dataclasses.replace(reflectances, normalise="source"), RECIPE)
    )
    (said,) = [record.getMessage() for record in caplog.records if " units " in record.getMessage()]
    assert said.startswith("scenes:ms?size=16, split train: pixels up to ")
    assert said.endswith("these are other units (16 bits, reflectances); if they are, set normalise=source")
    for start in (tuning.rehearse, tuning.run):
        with pytest.raises(UserError, match=r"these are other units .*; set normalise=source"):
            start(tmp_path / "new")
    (tmp_path / "begun" / "checkpoints" / "3").mkdir(parents=True)
    with pytest.raises(UserError, match=r"^(?!.*other units)"):
        tuning.run(tmp_path / "begun")


def test_with_early_stopping_the_best_step_is_scored(tmp_path, caplog, monkeypatch):
    losses = {8: 0.5, 16: 0.6}
    monkeypatch.setattr(Trainer, "evaluate", lambda self, state, step: {"eval_loss": losses[step]})
    kept = CheckpointConfig(best="eval_loss")
    c = dataclasses.replace(RECIPE, eval_every=8, early_stopping=1, checkpoint=kept)
    with caplog.at_level("INFO", logger="scaling"):
        tuned = finetune(small_encoder(), c, tmp_path / "run")
    assert "ended early after step 16 of 48" in caplog.text
    assert "scored with the parameters of step 8, the best by eval_loss" in caplog.text
    assert [int(tuned.trained.state.step), load_encoder(tmp_path / "run").step] == [8, 16]
    best = load_encoder(tmp_path / "run" / "best").params["patch"]["kernel"]
    np.testing.assert_array_equal(tuned.trained.state.params["encoder"]["patch"]["kernel"], best)
    other = dataclasses.replace(c, checkpoint=CheckpointConfig(best="eval_accuracy"))
    message = r"^checkpoint\.best=eval_accuracy: the best step in .*best was chosen by eval_loss; set that, set"
    for start in (Finetuning.rehearse, Finetuning.run):
        with pytest.raises(UserError, match=message):
            start(Finetuning(small_encoder(), other), epath.Path(tmp_path / "run"))


def test_the_outcome_is_of_every_test_image_and_better_than_chance(tmp_path):
    tuning = Finetuning(small_encoder(), RECIPE)
    tuned = tuning.run(tmp_path)
    outcome = tuned.predictions
    truth = [tuning.test[i]["label"] for i in range(200)]
    assert sorted(outcome.truth) == sorted(truth)
    assert (tuned.images, tuned.scores()) == (256, outcome.scores())
    assert tuned.trained.metrics["eval_accuracy"] > 0
    assert outcome.intervals()["accuracy"][0] > outcome.chance()["accuracy"]
    again = tuning.run(tmp_path)  # finished: nothing is trained, the same is measured
    np.testing.assert_array_equal(again.predictions.predicted, outcome.predicted)
    for encoder, fields, named in (
        (random_weights(small_encoder(), 5), {}, "encoder="),
        (small_encoder(), {"seed": 3, "test_split": "test[:100]"}, r"seed=0 \(now 3\), test_split="),
    ):
        with pytest.raises(UserError, match=rf"was started with {named}.*--change="):
            Finetuning(encoder, dataclasses.replace(RECIPE, **fields)).run(epath.Path(tmp_path))


class Interruption(Writer):
    """Sends a signal to this process as soon as there is a row."""

    def write(self, step, row):
        os.kill(os.getpid(), signal.SIGTERM)

    def close(self):
        pass


def test_a_signal_stops_it_after_saving_and_it_resumes_to_the_same_predictions(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=0.5, warmup_epochs=0.0, log_every=1, test_split="test[:64]")
    stopped = Finetuning(small_encoder(), recipe).run(tmp_path / "run", watch=lambda *_: [Interruption()])
    assert stopped == Stopped(signal.SIGTERM, 2)
    resumed, straight = (finetune(small_encoder(), recipe, tmp_path / name) for name in ("run", "straight"))
    assert (resumed.trained.start, straight.trained.start, resumed.config.steps) == (2, 0, 4)
    assert resumed.trained.metrics["eval_loss"] == straight.trained.metrics["eval_loss"]
    np.testing.assert_array_equal(resumed.predictions.predicted, straight.predictions.predicted)


@pytest.mark.long
def test_a_training_that_diverges_in_its_last_step_has_no_outcome(tmp_path):
    optimizer = OptimizerConfig(base_lr=1e14)
    recipe = dataclasses.replace(RECIPE, epochs=0.1, warmup_epochs=0, optimizer=optimizer, test_split="test[:8]")
    tuning = Finetuning(small_encoder(), recipe)
    assert tuning.config.steps == 1
    with pytest.raises(TrainingError, match="NaN or infinity for 8 of 8 test images"):
        tuning.run(epath.Path(tmp_path))


def test_what_does_not_fit_is_refused_before_anything_is_compiled(tmp_path):
    flat = tmp_path / "flat"
    class_folders(flat, classes=("only",))
    for fields, message in (
        ({"model": ViTConfig(width=64)}, "model.width follows from the checkpoint and the data"),
        ({"task": Labelling(classes=3)}, "task.classes follows from"),
        (
            {"data": DataConfig(source=f"folder:{flat}"), "test_split": "train"},
            "all images have the same class, only; a score needs at least two classes",
        ),
        ({"data": DataConfig(source="scenes:ms?size=16")}, "but the model takes 3"),
        ({"test_split": "nowhere"}, "nowhere"),
        ({"epochs": 0.0}, "epochs=0.0"),
        ({"epochs": float("inf")}, "epochs=inf: must be above 0 and finite"),
        ({"steps": 10}, "steps and optimizer.warmup follow from epochs"),
        ({"warmup_epochs": 7.0}, "warmup_epochs=7.0"),
        ({"normalise": "none"}, "normalise='none'"),
        ({"optimizer": OptimizerConfig(layer_decay=0.0)}, "layer_decay=0.0"),
        ({"batch_size": 30}, "batch_size=30 is not divisible"),
    ):
        with pytest.raises(UserError, match=message):
            Finetuning(small_encoder(), dataclasses.replace(RECIPE, **fields))
