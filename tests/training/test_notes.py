"""Settings without effect are noted, and there are no notes for a run without them."""

import pytest

from scaling.training.checkpoints import CheckpointConfig
from scaling.training.config import RunConfig
from scaling.training.notes import notes
from scaling.training.optimizer import OptimizerConfig
from scaling.training.recipes import mae_recipe

EVERY = {"log_every": 1, "eval_every": 10, "checkpoint_every": 10}


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        (
            {"optimizer": OptimizerConfig(warmup=35)},
            "optimizer.warmup=35 is not shorter than steps=20: the learning rate only rises",
        ),
        ({"optimizer": OptimizerConfig(warmup=20)}, "optimizer.warmup=20 is not shorter than steps=20"),
        ({"optimizer": OptimizerConfig(cooldown=0.5)}, "optimizer.cooldown=0.5 does nothing"),
        (
            {"optimizer": OptimizerConfig(name="adafactor", first_moment_dtype="bfloat16")},
            "optimizer.first_moment_dtype=bfloat16 does nothing",
        ),
        ({"log_every": 21}, "log_every=21: more than steps=20, so that only the last step is logged"),
        (
            {"eval_every": 50, "checkpoint_every": 40},
            "eval_every=50, checkpoint_every=40: more than steps=20, so that only the last step is evaluated and saved",
        ),
        (
            {"log_every": 25, "eval_every": 50, "checkpoint_every": 40},
            "log_every=25, eval_every=50, checkpoint_every=40: more than steps=20, so that only the last step is "
            "logged, evaluated and saved",
        ),
        ({"checkpoint": CheckpointConfig(keep_every=30)}, "checkpoint.keep_every=30 keeps none for good"),
        (
            {"checkpoint": CheckpointConfig(keep_every=5)},
            "checkpoint.keep_every=5 is not a multiple of checkpoint_every=10: those of every 10 steps are kept",
        ),
        (
            {"ema_decay": 0.99},
            "ema_decay=0.99 looks back over 100 steps: after steps=20 it still is 82% what the run began with",
        ),
    ],
)
def test_what_a_run_of_its_length_does_not_do_is_said_in_one_line(fields, note):
    (said,) = notes(RunConfig(steps=20, **(EVERY | fields)))
    assert said.startswith(note)
    assert "\n" not in said


def test_a_batch_that_repeats_images_is_said():
    c = RunConfig(steps=20, batch_size=128, **EVERY)
    (said,) = notes(c, 3)
    assert said.startswith("batch_size=128: more than the 2 images to train on, so that every batch repeats images")
    assert notes(c, 200) == notes(c) == []


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"optimizer": OptimizerConfig(warmup=19)},
        {"optimizer": OptimizerConfig(schedule="cooldown", cooldown=0.5)},
        {"log_every": 20, "eval_every": 20, "checkpoint_every": 20},
        {"checkpoint": CheckpointConfig(keep_every=20)},
        {"ema_decay": 0.7},
    ],
)
def test_a_run_that_does_all_that_it_says_has_no_notes(fields):
    assert notes(RunConfig(steps=20, **(EVERY | fields))) == []
    assert notes(mae_recipe("vit_b")) == []
