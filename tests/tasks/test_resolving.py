"""The effect of a recipe on the encoder's architecture."""

import dataclasses

import pytest

from scaling.core.errors import UserError
from scaling.tasks.resolving import encoder_for
from scaling.training.config import FinetuneConfig
from tests.encoders.examples import small_encoder

RELATIVE = dataclasses.replace(small_encoder(class_token=False).config, relative=True)


@pytest.mark.parametrize(
    ("fields", "relative", "message"),
    [
        ({}, False, "model.relative=False: the encoder was trained with relative positions; set it to True"),
        ({"image_size": 32}, True, r"image_size=32: the relative positions are those of 16"),
        ({"image_size": 16, "image_width": 32}, True, r"the relative positions are those of 16"),
    ],
)
def test_relative_positions_are_neither_dropped_nor_of_other_images(fields, relative, message):
    c = FinetuneConfig(**fields)
    recipe = dataclasses.replace(c, model=dataclasses.replace(c.model, relative=relative))
    with pytest.raises(UserError, match=message):
        encoder_for(RELATIVE, recipe)


def test_an_encoder_with_relative_positions_keeps_them():
    c = FinetuneConfig(image_size=16)
    recipe = dataclasses.replace(c, model=dataclasses.replace(c.model, relative=True))
    assert encoder_for(RELATIVE, recipe) == RELATIVE
