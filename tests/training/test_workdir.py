"""What a run says at its start."""

import dataclasses
import logging

from scaling.training.recipes import mae_recipe
from scaling.training.workdir import amount_of_data


def test_images_that_are_held_out_are_no_part_of_an_epoch():
    c = dataclasses.replace(mae_recipe("vit_b"), steps=103, batch_size=4)
    assert amount_of_data(c, 420).endswith(", 412 images and 8 held out; 1.0 epochs")


def test_a_recipe_for_many_more_images_than_there_are_is_a_warning(caplog):
    recipe = mae_recipe("vit_b")
    with caplog.at_level(logging.WARNING):
        assert amount_of_data(recipe, 1_000_848).endswith("400.4 epochs")
        assert not caplog.records
        amount_of_data(recipe, 10_000)
    assert "data.split=train" in caplog.text
    assert "epochs of its 9,800 images" in caplog.text
