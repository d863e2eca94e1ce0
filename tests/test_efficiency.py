"""The command trains on nested fractions, as long each, draws, and resumes."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from etils import epath

from scaling.analysis.efficiency import efficiency_tables
from scaling.core.errors import UserError
from scaling.core.rows import read_rows
from scaling.data.config import DataConfig
from scaling.encoders.controls import CONTROLS
from scaling.objectives import objective_config
from scaling.studies.efficiency.run import efficiency_jobs, made
from scaling.studies.efficiency.settings import EfficiencyConfig, EncoderChoice, lengthened
from scaling.training.config import FinetuneConfig
from tests.commands import call, command, error_of
from tests.encoders.examples import small_encoder
from tests.rows import ROW

DATA = DataConfig(source="scenes?size=16&count=60", eval_split="test[:16]", threads=1)
RECIPE = FinetuneConfig(
    epochs=1.0, warmup_epochs=0.0, batch_size=16, data=DATA, test_split="test[:32]",
    task=objective_config("classification"),
)  # fmt: skip
FLAGS = {
    "config": "efficiency.py",
    "config.recipe.data.source": DATA.source,
    "config.recipe.data.split": "train",
    "config.recipe.data.eval_split": DATA.eval_split,
    "config.recipe.test_split": RECIPE.test_split,
    "config.recipe.batch_size": 16,
    "config.recipe.epochs": 1.0,
    "config.recipe.warmup_epochs": 0.0,
    "config.fractions": "(0.4,1.0)",
    "config.seeds": "(0,)",
}


def jobs(tmp_path, **fields):
    c = EfficiencyConfig(recipe=RECIPE, **fields)
    c.check()
    return efficiency_jobs(small_encoder(), "m", c, epath.Path(tmp_path))


def test_rows_tables_and_figures_come_out_and_a_second_run_trains_nothing(uninterrupted_run, tmp_path):
    line = command("efficiency", "--name=tiny", checkpoint=uninterrupted_run[0], output=tmp_path, **FLAGS)
    planned = call([*line, "--plan", "--config.encoders.random.weights=random"])
    assert "6 of 6 fine-tunings to run" in planned.stdout
    one = [*line, "--config.encoders.cut.weights=random", "--config.encoders.cut.width_ratio=0.5",
           "--config.encoders.cut.ordering=first", "--config.encoders.cut.recovery=none",
           "--task=0", "--tasks=6"]  # fmt: skip
    first = call(one)
    assert first.returncode == 0, first.stderr
    rows = read_rows(tmp_path / "rows.jsonl")
    assert {(row.model, row.images, row.seed, row.study) for row in rows} == {("tiny cut", 24, 0, "efficiency")}
    assert {"accuracy", "macro_accuracy", "classes"} == {row.metric for row in rows}
    assert json.loads((tmp_path / "config.json").read_text())["fractions"] == [0.4, 1.0]
    assert not list((tmp_path / "runs").iterdir())
    assert "|  | 24 images |" in (tmp_path / "tables.md").read_text()
    assert (tmp_path / "figures" / "efficiency.svg").exists()
    again = call(one)
    assert "0 of 1 fine-tunings to run" in again.stdout
    assert read_rows(tmp_path / "rows.jsonl") == rows


def test_every_fine_tuning_has_as_many_steps(tmp_path):
    found = jobs(tmp_path, fractions=(0.2, 1.0), seeds=(0, 1))
    steps = {lengthened(job.recipe, job.images, job.of).epochs * job.images for job in found}
    assert steps == {60.0}
    assert [(job.images, job.recipe.seed) for job in found] == [(12, 0), (12, 1), (60, 0), (60, 1)]


def test_fractions_that_are_the_same_images_are_trained_once(tmp_path):
    found = jobs(tmp_path, fractions=(0.01, 0.02, 1.0), seeds=(0,))
    assert [job.images for job in found] == [10, 60]  # every class once


def test_a_changed_recipe_is_another_fine_tuning_and_more_seeds_are_not(tmp_path):
    (before,) = jobs(tmp_path, fractions=(1.0,), seeds=(0,))
    more = jobs(tmp_path, fractions=(1.0,), seeds=(0, 1))
    assert before.name in {job.name for job in more}
    other = EfficiencyConfig(recipe=dataclasses.replace(RECIPE, batch_size=8), fractions=(1.0,), seeds=(0,))
    (changed,) = efficiency_jobs(small_encoder(), "m", other, epath.Path(tmp_path))
    assert changed.name != before.name


def test_the_control_has_what_enters_the_blocks():
    encoder = small_encoder()
    embedding = made(encoder, EncoderChoice(weights="embedding", frozen=True), RECIPE)
    images = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
    expected = CONTROLS["depth_0"](encoder, "mean", 0)(images)
    np.testing.assert_allclose(embedding.features(images, normalised=True), expected, atol=1e-6)
    assert not np.allclose(encoder.features(images, normalised=True), expected, atol=1e-2)


def test_random_weights_follow_the_seed_and_are_cut():
    choice = EncoderChoice(weights="random", width_ratio=0.5)
    encoder, recipe = small_encoder(), dataclasses.replace(RECIPE, width_ratio=0.5)
    first, second = (made(encoder, choice, dataclasses.replace(recipe, seed=seed)) for seed in (0, 1))
    assert first.config.mlp == encoder.config.mlp // 2
    pairs = zip(jax.tree.leaves(first.params), jax.tree.leaves(second.params), strict=True)
    assert any(not np.allclose(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"encoders": {}}, "encoders is empty"),
        ({"fractions": (0.0,)}, "above 0 and at most 1"),
        ({"encoders": {"a": EncoderChoice(weights="noise")}}, "encoders.a.weights='noise': must be one of pretrained"),
        ({"encoders": {"a": EncoderChoice(width_ratio=2.0)}}, "encoders.a.width_ratio=2.0"),
        ({"encoders": {"a": EncoderChoice(weights="embedding")}}, "set frozen=True, without a cut"),
        (
            {"encoders": {"a": EncoderChoice(frozen=True)}},
            "the task classification cannot be trained with a frozen encoder",
        ),
        ({"recipe": dataclasses.replace(RECIPE, data=DataConfig())}, "recipe.data.eval_split=''"),
        ({"recipe": dataclasses.replace(RECIPE, seed=5)}, "recipe: seed follows from"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(fields, words):
    with pytest.raises(UserError, match=words):
        EfficiencyConfig(**{"recipe": RECIPE, **fields}).check()


def test_settings_survive_the_way_through_a_config_file(uninterrupted_run, tmp_path):
    line = command("efficiency", checkpoint=uninterrupted_run[0], output=tmp_path, **FLAGS)
    assert "encoders.cut.weights='all'" in error_of(call([*line, "--config.encoders.cut.weights=all"]), 2)


def test_tables_have_the_range_over_seeds():
    rows = [
        dataclasses.replace(ROW, model="m a", probe="finetune", metric="miou", images=10, seed=s, value=v)
        for s, v in enumerate((0.2, 0.4))
    ]
    rows.append(dataclasses.replace(rows[0], images=100, value=0.5, low=0.4, high=0.6))
    assert "| m a (finetune) | 0.300 (0.200 to 0.400, 2 seeds) | 0.500 (0.400 to 0.600) |" in efficiency_tables(rows)
    other = efficiency_tables([*rows, dataclasses.replace(rows[0], value=0.9, config_hash="def")])
    assert "| m a (finetune), config abc | 0.300 (0.200 to 0.400, 2 seeds)" in other
    assert "| m a (finetune), config def | 0.900" in other
