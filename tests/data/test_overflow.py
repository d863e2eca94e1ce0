"""Objects without room are counted, and the first image that has too many is named once."""

import logging
from types import SimpleNamespace

import numpy as np

from scaling.data.overflow import Overflow

SOURCE = SimpleNamespace(name=lambda record: f"P{record:04}.png")


def batch(*over):
    return {
        "box_overflow": np.array(over),
        "box_valid": np.ones((len(over), 256), bool),
        "id": np.arange(len(over)) + 7,
    }


def test_the_first_image_is_named_with_the_room_that_it_needs(caplog):
    account = Overflow()
    with caplog.at_level(logging.WARNING):
        for each in (batch(0, 0), batch(0, 2744, 3), batch(5, 0)):
            account.update(each, SOURCE)
    assert (account.images, account.objects) == (3, 2752)
    (record,) = caplog.records
    assert record.getMessage().startswith("P0008.png has 3000 objects, but a batch has room for only 256 per image; ")
    assert "set task.most=3000," in record.getMessage()


def test_batches_without_objects_are_left_alone(caplog):
    account = Overflow()
    account.update({"image": np.zeros(3), "id": np.arange(3)}, SOURCE)
    account.update(batch(0, 0), SOURCE)
    assert not account.images
    assert not caplog.records
