"""Pretraining that begins with other people's weights, converted without torch."""

import ast
import dataclasses
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from scaling.core.config import read_config
from scaling.core.errors import UserError
from scaling.encoders.loading import load_encoder
from scaling.models.positions import resample_positions
from scaling.models.resampling import resize_kernel
from scaling.models.vit import ViT
from scaling.training.beginning import read_beginning
from scaling.training.config import TrainConfig
from scaling.training.pretraining import pretrain
from tests.commands import call, command
from tests.interop.records import RECORDS, arrays_of, options_of
from tests.interop.torch_layout import draw, tokens
from tests.training.test_beginning import assert_equal, began
from tests.training.test_pretraining import CONFIG

IMAGES = np.random.default_rng(5).normal(size=(2, 16, 16, 3)).astype(np.float32)


def converted(tmp_path, arrays, **flags):
    """A file as others keep it, after `scaling.convert`."""
    save_file(arrays, tmp_path / "w.safetensors")
    done = call(command("convert", input=tmp_path / "w.safetensors", output=tmp_path / "theirs", **flags))
    assert done.returncode == 0, done.stderr
    return tmp_path / "theirs"


def advised(c, checkpoint):
    """The configuration that the refusal of a checkpoint advises."""
    c = dataclasses.replace(c, init_from=str(checkpoint))
    with pytest.raises(UserError, match=r"^--init_from=\S+ holds an encoder of another kind: [^\n]+$") as refused:
        read_beginning(c)
    fields = {}
    for name, value in re.findall(r"--config\.([\w.]+)=(\S+)", str(refused.value)):
        try:
            fields[name] = ast.literal_eval(value)
        except ValueError:
            fields[name] = value
    c = read_config(TrainConfig, c, fields)
    c.check()
    return c


@pytest.mark.parametrize("variant", [{}, {"fixed": True}], ids=str)
def test_a_run_begins_where_others_have_ended(tmp_path, variant):
    arrays = draw(**variant)
    c = advised(CONFIG, converted(tmp_path, arrays, **{"from": "timm_vit"}, heads=4))
    assert c.model.position == ("sincos" if variant.get("fixed") else "learned")
    params = began(c, c.init_from)["encoder"]
    wanted = np.stack([tokens(arrays, image.transpose(2, 0, 1), 4) for image in IMAGES])
    found = jax.jit(ViT(c.model).apply)({"params": params}, IMAGES)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_their_positions_and_patches_are_resampled_to_ours(tmp_path):
    arrays = draw()
    c = advised(CONFIG, converted(tmp_path, arrays, heads=4))
    c = dataclasses.replace(c, model=dataclasses.replace(c.model, image_size=48, patch_size=8))
    params = began(c, c.init_from)["encoder"]
    kernel = resize_kernel(arrays["patch_embed.proj.weight"], 8)  # [D, C, 8, 8]
    np.testing.assert_allclose(
        params["patch"]["kernel"].reshape(8, 8, 3, 32), kernel.transpose(2, 3, 1, 0), rtol=1e-5, atol=1e-6
    )
    theirs = load_encoder(c.init_from).params["position"]["embedding"]
    table = resample_positions(np.asarray(theirs), (4, 4), (6, 6), antialias=False)
    np.testing.assert_array_equal(params["position"]["embedding"], table)


def recorded(tmp_path, name):
    """The file of a published implementation, converted."""
    record = np.load(RECORDS[name])
    flags = {name: ",".join(map(str, x)) if isinstance(x, list) else x for name, x in options_of(record).items()}
    return converted(tmp_path, arrays_of(record), **{"from": flags.pop("family")}, **flags)


@pytest.mark.parametrize("name", ["hf_dinov2", pytest.param("prithvi", marks=pytest.mark.long)])
def test_what_is_advised_is_taken(tmp_path, name):
    checkpoint = recorded(tmp_path, name)
    c, theirs = advised(CONFIG, checkpoint), load_encoder(checkpoint)
    size = {"image_size": theirs.config.image_size, "patch_size": theirs.config.patch_size}
    c = dataclasses.replace(c, model=dataclasses.replace(c.model, **size))
    assert_equal(began(c, checkpoint)["encoder"], jax.device_get(theirs.params))


def test_encoders_that_cannot_be_pretrained_here_are_refused_at_once(tmp_path):
    c = dataclasses.replace(CONFIG, init_from=str(recorded(tmp_path, "galileo")))
    with pytest.raises(UserError, match=r"^--init_from=\S+ holds an encoder that cannot be pretrained here: groups"):
        read_beginning(c)


@pytest.mark.long
def test_a_run_that_began_elsewhere_is_trained(tmp_path):
    c = advised(CONFIG, converted(tmp_path, draw(layer_scale=True), heads=4))
    trained = pretrain(c, tmp_path / "run")
    assert int(trained.state.step) == c.steps
    before, after = (load_encoder(folder).params["blocks"] for folder in (c.init_from, tmp_path / "run"))
    assert not np.array_equal(before["mlp_in"]["kernel"], after["mlp_in"]["kernel"])
