"""The announcement of a run, and the destination of its rows."""

import dataclasses
import json
import logging
import sys
import types

import jax
import pytest
from etils import epath

from scaling.training.config import TrainConfig
from scaling.training.loss_curve import loss_curve
from scaling.training.recipes import mae_recipe
from scaling.training.workdir import amount_of_data, amount_of_memory, course, losses, open_writers


def test_images_that_are_held_out_are_no_part_of_an_epoch():
    c = dataclasses.replace(mae_recipe("vit_b"), steps=103, batch_size=4)
    assert amount_of_data(c, 420).endswith(", 412 images and 8 held out; 1.0 epochs")


def test_a_recipe_that_names_no_images_says_which_it_takes():
    recipe = mae_recipe("vit_b")
    assert amount_of_data(recipe, 2_000_000).startswith(
        f"{recipe.data.source} (rendered, built in; data.source=folder:DIR is for your own), 1,998,976 images"
    )
    named = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, source="folder:x"))
    assert amount_of_data(named, 2_000_000).startswith("folder:x, 1,998,976 images and")


def test_a_recipe_for_many_more_images_than_there_are_is_a_warning(caplog):
    recipe = mae_recipe("vit_b")
    with caplog.at_level(logging.WARNING):
        assert amount_of_data(recipe, 1_000_848).endswith("400.4 epochs")
        assert not caplog.records
        amount_of_data(recipe, 10_000)
    assert "data.split=train" in caplog.text
    assert "epochs of its 9,800 images" in caplog.text


def test_memory_is_set_beside_that_of_a_chip_that_is_known(monkeypatch):
    state = "3.00 GiB per device for parameters and optimizer"
    assert amount_of_memory(3 * 2**30) == state
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")])
    assert amount_of_memory(3 * 2**30) == f"{state}, of 80"
    assert amount_of_memory(81 * 2**30).endswith(", of 80: they do not fit; split them over more devices")


@pytest.fixture
def known(monkeypatch):
    """The ids of the runs that are asked for, in order."""
    ids = []
    run = types.SimpleNamespace(log=lambda row, step: None, finish=lambda: None)
    wandb = types.SimpleNamespace(init=lambda **fields: ids.append((fields["project"], fields["id"])) or run)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    return ids


def resumed(workdir, project, begun_with=None):
    """A run in a directory, as begun (None) or from a checkpoint of step 10 that was trained with a project."""
    if begun_with is not None:
        file = workdir / "checkpoints" / "10" / "config" / "metadata"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"wandb": begun_with}))
    workdir.mkdir(parents=True, exist_ok=True)
    for writer in open_writers(TrainConfig(wandb=project), epath.Path(workdir), 0 if begun_with is None else 10):
        writer.close()


def test_a_run_keeps_its_wandb_id_and_shares_it_with_no_other_of_its_name(tmp_path, known):
    resumed(tmp_path / "a" / "vit", "mine")
    resumed(tmp_path / "b" / "vit", "mine")
    resumed(tmp_path / "a" / "vit", "mine", begun_with="mine")
    resumed(tmp_path / "old" / "vit", "mine", begun_with="mine")  # of before ids were kept
    first, second, again, old = (run for _, run in known)
    assert first == again != second
    assert first.startswith("vit-")
    assert old == "vit"


@pytest.mark.parametrize("before", ["", "another project"])
def test_a_run_that_is_new_to_a_wandb_project_is_no_other_there(tmp_path, known, before):
    workdir = tmp_path / "vit"
    resumed(workdir, "mine", begun_with=before)
    resumed(workdir, "mine", begun_with="mine")
    (_, run), (_, again) = known
    assert run == again
    assert run.startswith("vit-")


def test_a_held_out_loss_that_is_not_finite_is_said_and_not_the_last_that_was(tmp_path):
    rows = [{"step": 1, "loss": 2.0, "eval_loss": 1.5}, {"step": 2, "loss": 1.0, "eval_loss": "nan"}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "held out 1.5000 to nan;" in course(epath.Path(tmp_path))
    loss_curve(epath.Path(tmp_path / "loss.png"), losses(epath.Path(tmp_path)))
