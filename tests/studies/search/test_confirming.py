"""The probe of a winner, against the probe itself."""

import dataclasses

import pytest

from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.encoders.splits import labelled_features
from scaling.evaluation.knn import knn_probe
from scaling.studies.search.confirming import ConfirmJob, Labelled
from scaling.training.config import TrainConfig
from tests.rows import ROW
from tests.slimming.encoders import structured

SOURCE = "scenes?size=8&count=60"


def test_features_are_pooled_as_those_that_were_compared():
    e = structured()
    e = dataclasses.replace(e, train=TrainConfig(e.config, data=DataConfig(SOURCE, mean=(100.0,) * 3, std=(50.0,) * 3)))
    found = {}
    for pool in ("mean", "cls"):
        job = ConfirmJob("job", Labelled(SOURCE), pool, e, lambda: e, {"winner": ROW})
        (found[pool],) = (one.value for one in job.run() if one.metric == "macro_accuracy")
        functions = {"x": lambda x, pool=pool: e.features(x, pool, normalised=True)}
        splits = [labelled_features(e, SOURCE, split, functions) for split in ("train", "test")]
        probed = knn_probe(*((features["x"], labels) for features, labels in splits))
        assert found[pool] == pytest.approx(probed.scores()["macro_accuracy"])
    assert found["mean"] != found["cls"]


def test_images_with_other_bands_are_refused_before_the_search():
    e = structured(bands=4)
    mean, std = (100.0,) * 4, (50.0,) * 4
    e = dataclasses.replace(e, train=TrainConfig(e.config, data=DataConfig("folder:/data", mean=mean, std=std)))
    with pytest.raises(UserError, match=r"^--confirm=scenes.*bands"):
        Labelled(SOURCE).checked(e)
