"""Every token of every family against the published implementation: random weights, none of them zero or one."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.encoders.encoder import Encoder
from scaling.encoders.pruned import prune
from scaling.encoders.slimmed import slim
from scaling.interop.acquisition import Acquisition
from scaling.interop.exporting import export_weights
from scaling.interop.importing import Imported, import_weights
from scaling.models.config import encoder_config
from scaling.models.resampling import resize_kernel
from scaling.models.vit import ViT
from tests.encoders.examples import small_encoder
from tests.torch_only import needs

pytestmark = pytest.mark.parity
torch = needs("timm", "transformers", "torchgeo", "terratorch")

from safetensors.torch import load_file  # noqa: E402  needs torch

from tests.interop.references import CASES  # noqa: E402  needs torch


def imported(reference, folder) -> Imported:
    """The import of the reference's file."""
    torch.save(reference.arrays, folder / "weights.pth")
    if reference.settings:
        (folder / "config.json").write_text(json.dumps(reference.settings))
    fields = {field.name for field in dataclasses.fields(Acquisition)}
    given = Acquisition(**{name: x for name, x in reference.options.items() if name in fields})
    options = {name: x for name, x in reference.options.items() if name not in fields}
    return import_weights(folder / "weights.pth", given=given, **options)


def tokens(params, c, images, dtype=jnp.float32):
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    return np.asarray(jax.jit(ViT(c, dtype).apply)({"params": params}, jnp.asarray(images, dtype)))


def relative(ours, theirs):
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    reference = CASES[request.param]()
    made = imported(reference, tmp_path_factory.mktemp("file"))
    return reference, made.params["encoder"], encoder_config(made.config.model)


def test_all_tokens_agree(pair):
    reference, params, c = pair
    images = reference.images()
    assert relative(tokens(params, c, images), reference.expected(images)) < 1e-5


def test_all_tokens_agree_in_float64(pair):
    reference, params, c = pair
    if not reference.exact:
        pytest.skip("the reference computes its embedding in float32")
    assert distance_in_float64(reference, params, c) < 1e-9


def distance_in_float64(reference, params, c):
    images = reference.images()
    reference.model.double()
    theirs = reference.expected(images)
    reference.model.float()
    with jax.enable_x64(True):
        return relative(tokens(params, c, images, jnp.float64), theirs)


@pytest.mark.parametrize("blocks", [(0, 1), (0, 2, 3)])
def test_a_pruned_encoder_is_the_one_whose_layers_were_deleted(blocks, tmp_path):
    from transformers import ViTModel

    whole = CASES["transformers ViT"](num_hidden_layers=4)
    made = imported(whole, tmp_path)
    pruned = prune(Encoder(encoder_config(made.config.model), made.params["encoder"], made.config), blocks)
    assert isinstance(whole.model, ViTModel)
    layers = whole.model.encoder.layer if hasattr(whole.model, "encoder") else whole.model.layers
    for i in sorted(set(range(4)) - set(blocks), reverse=True):
        del layers[i]
    images = whole.images()
    assert relative(tokens(pruned.params, pruned.config, images), whole.expected(images)) < 1e-5


def swapped(params):
    qkv = {name: jnp.asarray(x) for name, x in params["blocks"]["qkv"].items()}
    swapped = {name: jnp.stack([x.take(i, -3) for i in (1, 0, 2)], -3) for name, x in qkv.items()}
    return {**params, "blocks": {**params["blocks"], "qkv": swapped}}


def transposed(params, c):
    kernel = params["patch"]["kernel"].reshape(c.patch_size, c.patch_size, c.bands, -1)
    kernel = kernel.swapaxes(0, 1).reshape(params["patch"]["kernel"].shape)
    return {**params, "patch": {**params["patch"], "kernel": kernel}}


@pytest.mark.parametrize("broken", ["query and key", "patch", "GELU", "epsilon"])
def test_the_comparison_notices(broken, tmp_path, monkeypatch):
    reference = CASES["timm"]()
    made = imported(reference, tmp_path)
    params, c = made.params["encoder"], encoder_config(made.config.model)
    if broken == "query and key":
        params = swapped(params)
    elif broken == "patch":
        params = transposed(params, c)
    elif broken == "GELU":
        monkeypatch.setattr("scaling.models.transformer.gelu", lambda x: jax.nn.gelu(x, approximate=True))
    else:
        c = dataclasses.replace(c, norm_eps=1e-5)
    assert distance_in_float64(reference, params, c) > 1e-6


def images_of(c):
    images = np.random.default_rng(3).normal(size=(2, c.image_size, c.image_size, c.bands)).astype(np.float32)
    return images, torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_timm_runs_what_goes_out(tmp_path, width):
    from timm.layers import Attention
    from timm.models.vision_transformer import VisionTransformer

    encoder = slim(small_encoder(position="learned"), width)
    c = encoder.config
    export_weights(encoder, "timm_vit", tmp_path / "model.safetensors")

    class Narrow(Attention):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, attn_head_dim=c.head_dim, **kwargs)

    fields = {"img_size": c.image_size, "patch_size": c.patch_size, "embed_dim": c.width, "depth": c.depth}
    fields |= {"num_heads": c.heads, "mlp_ratio": c.mlp / c.width, "num_classes": 0, "attn_layer": Narrow}
    model = VisionTransformer(**fields).eval()
    model.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images, theirs = images_of(c)
    with torch.no_grad():
        assert (
            relative(encoder.features(images, "tokens", normalised=True), model.forward_features(theirs).numpy()) < 1e-5
        )


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_transformers_runs_what_goes_out(tmp_path, width):
    from transformers import ViTModel

    encoder = slim(small_encoder(), width)
    export_weights(encoder, "hf_vit_mae", tmp_path / "model.safetensors")
    model = ViTModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    images, theirs = images_of(encoder.config)
    with torch.no_grad():
        assert (
            relative(encoder.features(images, "tokens", normalised=True), model(theirs).last_hidden_state.numpy())
            < 1e-5
        )


def test_kernels_are_resized_as_by_torchgeo():
    from torchgeo.models.copernicusfm import pi_resize_patch_embed

    kernel = np.random.default_rng(0).normal(size=(3, 2, 8, 8)).astype(np.float32)
    for patch in (4, 6, 12):
        theirs = pi_resize_patch_embed(torch.from_numpy(kernel), (patch, patch)).numpy()
        assert relative(resize_kernel(kernel, patch), theirs) < 1e-4
