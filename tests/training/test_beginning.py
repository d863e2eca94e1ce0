"""Pretraining that begins with the parameters of another checkpoint."""

import dataclasses
import json
import logging
import shutil

import jax
import numpy as np
import pytest
from etils import epath
from flax.traverse_util import flatten_dict

from scaling.core.config import config_dict
from scaling.core.errors import UserError
from scaling.encoders.loading import load_encoder
from scaling.encoders.writing import write_parameters
from scaling.models.positions import resample_positions
from scaling.training.beginning import read_beginning
from scaling.training.config import step_config
from scaling.training.open_run import open_mesh
from scaling.training.pretraining import pretrain, rehearse
from scaling.training.step import TrainStep
from tests.commands import rows_of
from tests.training.test_pretraining import CONFIG

PARAMETRIZED = dataclasses.replace(CONFIG.parametrization, name="mup")


@pytest.fixture(autouse=True)
def everything_is_heard(caplog):
    caplog.set_level(logging.INFO, "scaling")


def with_model(**fields):
    return dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, **fields))


def step_of(c):
    data = dataclasses.replace(c.data, mean=(0.0,) * 3, std=(1.0,) * 3)
    return TrainStep(step_config(dataclasses.replace(c, data=data), "cpu"), open_mesh(c))


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A checkpoint with learned positions."""
    folder, c = epath.Path(tmp_path_factory.mktemp("learned") / "run"), with_model(position="learned")
    params = jax.device_get(step_of(c).init().params)
    write_parameters(params, 2, config_dict(c).to_dict(), folder)
    return folder, params


def began(c, folder):
    """Parameters that a run begins with."""
    c = dataclasses.replace(c, init_from=str(folder))
    step = step_of(c)
    state = read_beginning(c)(step)
    assert int(state.step) == 0
    placed = zip(*map(jax.tree.leaves, (state.params, step.shardings.params)), strict=True)
    assert all(x.sharding == at for x, at in placed)
    return jax.device_get(state.params)


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("scaling")]


def assert_equal(one, other):
    one, other = flatten_dict(one, sep="/"), flatten_dict(other, sep="/")
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_all_that_is_there_is_taken_to_the_last_bit(learned, caplog):
    folder, params = learned
    assert_equal(began(dataclasses.replace(with_model(position="learned"), seed=5), folder), params)
    assert said(caplog) == [f"the encoder is that of {folder}, step 2", "decoder: loaded"]


def test_of_an_encoder_alone_the_decoder_is_drawn_as_ever(learned, tmp_path, caplog):
    folder, params = learned
    load_encoder(folder).save(tmp_path / "kept")
    found = began(with_model(position="learned"), tmp_path / "kept")
    assert_equal(found, params)  # of the same seed
    assert "decoder: initialised at random (it has none)" in said(caplog)


def test_positions_and_the_embedding_are_resampled_by_name(learned, caplog):
    folder, params = learned
    size, patch = (2 * side for side in (CONFIG.model.image_size, CONFIG.model.patch_size))
    found = began(with_model(position="learned", image_size=2 * size, patch_size=patch), folder)
    table = resample_positions(params["encoder"]["position"]["embedding"], (4, 4), (8, 8), antialias=False)
    np.testing.assert_array_equal(found["encoder"]["position"]["embedding"], table)
    changed = {"patch": 0, "position": 0}
    assert_equal({**found["encoder"], **changed}, {**params["encoder"], **changed})
    image = np.random.default_rng(0).normal(size=(patch // 2, patch // 2, 3))
    larger = np.asarray(jax.image.resize(image, (patch, patch, 3), "bicubic"))
    before = image.reshape(-1) @ params["encoder"]["patch"]["kernel"]
    np.testing.assert_allclose(larger.reshape(-1) @ found["encoder"]["patch"]["kernel"], before, rtol=1e-4, atol=1e-5)
    assert said(caplog)[1:3] == [
        "patch_size 4 -> 8: the embedding is resampled",
        "patches 4 x 4 -> 8 x 8: positions are resampled",
    ]
    assert said(caplog)[3].startswith("decoder: initialised at random (axis decoder/patch of decoder/pixels/")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 64}, r"encoder of another kind: model\.width=32 \(now 64\); set --config\.model\.width=32"),
        ({"norm_eps": 1e-5}, r"model\.norm_eps=1e-06 \(now 1e-05\)"),
        ({"position": "sincos"}, r"model\.position='learned' \(now 'sincos'\); set --config\.model\.position=learned"),
        ({"parametrization": PARAMETRIZED}, r"parametrization\.name=mup initialises parameters at its own scales"),
        ({"init_from": "nowhere"}, r"--init_from=nowhere has no folder `checkpoints`"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(learned, change, message, tmp_path):
    asked = dataclasses.replace(with_model(position="learned"), init_from=str(learned[0]))
    of_run = {name: x for name, x in change.items() if hasattr(asked, name)}
    model = {"model": dataclasses.replace(asked.model, **change)} if not of_run else {}
    with pytest.raises(UserError, match=message):
        rehearse(dataclasses.replace(asked, **of_run, **model), tmp_path / "run")
    with pytest.raises(UserError, match="encoder follows from init_from"):
        dataclasses.replace(CONFIG, encoder="5a96ace01dec").check()


@pytest.mark.long
def test_a_resumed_run_never_reads_it_again(learned, tmp_path, caplog):
    shutil.copytree(learned[0], tmp_path / "from")
    c = dataclasses.replace(with_model(position="learned"), init_from=str(tmp_path / "from"))
    rehearse(c, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert "decoder: loaded" in said(caplog)
    first = pretrain(dataclasses.replace(c, steps=2), tmp_path / "run")
    assert (first.start, int(first.state.step)) == (0, 2)
    shutil.rmtree(tmp_path / "from")
    caplog.clear()
    assert pretrain(c, tmp_path / "run").start == 2
    assert not [line for line in said(caplog) if "loaded" in line or "is that of" in line]
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [1, 2, 3, 4]
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (written["init_from"], written["encoder"][-8:]) == (str(tmp_path / "from"), ", step 2")
    with pytest.raises(UserError, match=r"was started with init_from=.*encoder="):
        pretrain(dataclasses.replace(c, init_from=""), tmp_path / "run")
