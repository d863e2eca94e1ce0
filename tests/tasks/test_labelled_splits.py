"""Splits of a recipe: all images have labels, and those of the test choose nothing."""

import dataclasses
import re

import pytest
from etils import epath

from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.data.prepare import Preparation, convert
from scaling.tasks.finetuning import Finetuning
from scaling.training.checkpoints import CheckpointConfig
from tests.data.examples import class_folders
from tests.encoders.examples import small_encoder
from tests.tasks.test_finetuning import RECIPE


@pytest.mark.parametrize(
    ("chosen", "test", "refused"),
    [
        ("test", "test", True),
        ("test[:200]", "test[:300]", True),
        ("test[:50%]", "test", True),
        ("test[:50%]", "test[50%:]", False),
        ("", "train[:100]", True),  # a part of data.split is held out
        ("", "test", False),
    ],
)
def test_the_best_step_is_not_chosen_by_test_images(chosen, test, refused):
    data = dataclasses.replace(RECIPE.data, eval_split=chosen)
    recipe = dataclasses.replace(RECIPE, data=data, test_split=test, checkpoint=CheckpointConfig(best="eval_loss"))
    if not refused:
        Finetuning(small_encoder(), recipe)
        return
    where = rf"data\.eval_split={re.escape(chosen)}:" if chosen else r"data\.split=train\[:256\]: its held-out part"
    with pytest.raises(UserError, match=rf"^{where} may have images of test_split={re.escape(test)}, .* must not use"):
        Finetuning(small_encoder(), recipe)


def test_nor_by_those_of_a_default_split_but_by_all_of_another_source(tmp_path):
    for name in ("mine", "other"):
        class_folders(tmp_path / name)
    data = DataConfig(source=f"folder:{tmp_path / 'mine'}", eval_split="train[50%:]")
    best = CheckpointConfig(best="eval_loss")
    recipe = dataclasses.replace(RECIPE, data=data, test_split="test", batch_size=8, checkpoint=best)
    same = dataclasses.replace(data, eval_source=f"folder:{tmp_path}/other/../mine")
    for held_out in (data, same):
        with pytest.raises(UserError, match=r"may have images of test_split=train\[80%:,stratified\]"):
            Finetuning(small_encoder(), dataclasses.replace(recipe, data=held_out))
    other = dataclasses.replace(data, eval_source=f"folder:{tmp_path / 'other'}", eval_split="train[80%:,stratified]")
    Finetuning(small_encoder(), dataclasses.replace(recipe, data=other))


def test_images_without_a_label_are_refused_before_training_or_when_they_are_read(tmp_path):
    root = class_folders(tmp_path / "set", 12)
    (root / "preview.jpg").write_bytes((root / "forest" / "000.jpg").read_bytes())
    recipe = dataclasses.replace(RECIPE, test_split="train", data=DataConfig(source=f"folder:{root}"))
    with pytest.raises(UserError, match=r"1 of 25 images have no label, first preview.jpg"):
        Finetuning(small_encoder(), recipe)
    prepared = tmp_path / "prepared"
    convert(Preparation(f"folder:{root}", ("train",), str(prepared)), 1, lambda n: None, lambda n: None)
    data = DataConfig(source=f"arrayrecord:{prepared}")
    tuning = Finetuning(small_encoder(), dataclasses.replace(recipe, data=data, batch_size=8))
    with pytest.raises(UserError, match=r"an image has no label, preview.jpg"):
        tuning.run(epath.Path(tmp_path / "run"))
