"""The declared stems can be filled from the public checkpoints, and their parameters take part like any others."""

import math

import pytest

from scaling import axes
from scaling.models.config import ViTConfig
from scaling.models.stems.channels import panopticon
from scaling.models.stems.wavelengths import copernicus_fm, dofa
from scaling.models.variants import abstract_model, architecture
from scaling.slimming.cutting import axis_sizes, cut_shapes
from scaling.slimming.widths import mode_plan

LARGE = ViTConfig(width=1024, depth=24, heads=16, mlp=4096, bands=10)
B14 = ViTConfig(patch_size=14, bands=13)


def generator(ours, theirs, d):
    """Our group -> name: torch's key and shape of one kernel generator (torchgeo, `TransformerWeightGenerator`)."""
    layer = f"{theirs}weight_generator.transformer_encoder.layers.0."
    table = {
        "encoding_in/kernel": (f"{theirs}fclayer.w1.weight", (128, 128)),
        "encoding_in/bias": (f"{theirs}fclayer.w1.bias", (128,)),
        "encoding_out/kernel": (f"{theirs}fclayer.w2.weight", (128, 128)),
        "encoding_out/bias": (f"{theirs}fclayer.w2.bias", (128,)),
        "tokens/weight": (f"{theirs}weight_generator.weight_tokens", (128, 128)),
        "tokens/bias": (f"{theirs}weight_generator.bias_token", (1, 128)),
        "qkv/kernel": (f"{layer}self_attn.in_proj_weight", (384, 128)),
        "qkv/bias": (f"{layer}self_attn.in_proj_bias", (384,)),
        "attention_out/kernel": (f"{layer}self_attn.out_proj.weight", (128, 128)),
        "attention_out/bias": (f"{layer}self_attn.out_proj.bias", (128,)),
        "mlp_in/kernel": (f"{layer}linear1.weight", (2048, 128)),
        "mlp_in/bias": (f"{layer}linear1.bias", (2048,)),
        "mlp_out/kernel": (f"{layer}linear2.weight", (128, 2048)),
        "mlp_out/bias": (f"{layer}linear2.bias", (128,)),
        "attention_norm/scale": (f"{layer}norm1.weight", (128,)),
        "attention_norm/bias": (f"{layer}norm1.bias", (128,)),
        "mlp_norm/scale": (f"{layer}norm2.weight", (128,)),
        "mlp_norm/bias": (f"{layer}norm2.bias", (128,)),
        "make_kernel/kernel": (f"{theirs}weight_generator.fc_weight.weight", (256 * d, 128)),
        "patch/kernel": (f"{theirs}weight_generator.fc_weight.bias", (256 * d,)),
        "make_bias/kernel": (f"{theirs}weight_generator.fc_bias.weight", (d, 128)),
        "patch/bias": (f"{theirs}weight_generator.fc_bias.bias", (d,)),
    }
    return {f"{ours}_{name}": key for name, key in table.items()}


def metadata(ours, theirs):
    return {
        f"{ours}/token": (f"{theirs}_token", (1, 1, 768)),
        f"{ours}/kernel": (f"{theirs}_fc.weight", (768, 768)),
        f"{ours}/bias": (f"{theirs}_fc.bias", (768,)),
    }


PANOPTICON = {
    "patch/kernel": [("patch_embed.conv3d.conv3d.weight", (2304, 1, 1, 14, 14))],
    "patch/bias": [("patch_embed.conv3d.conv3d.bias", (2304,))],
    "radar/embedding": [(f"patch_embed.chnfus.chnemb.embed_{x}", (2, 768)) for x in ("transmit", "receive", "orbit")],
    "query/token": [("patch_embed.chnfus.query", (1, 1, 2304))],
    "key_value/kernel": [(f"patch_embed.chnfus.xattn.inproj_{x}.weight", (2304, 2304)) for x in "kv"],
    "out/kernel": [("patch_embed.proj.weight", (768, 2304))],
    "out/bias": [("patch_embed.proj.bias", (768,))],
}
COPERNICUS_FM = {
    **generator("spectral", "patch_embed_spectral.", 768),
    **generator("variable", "patch_embed_variable.", 768),
    "variable_name/kernel": ("patch_embed_variable.language_proj.weight", (128, 2048)),
    "variable_name/bias": ("patch_embed_variable.language_proj.bias", (128,)),
    **metadata("coordinates", "coord"),
    **metadata("area", "scale"),
    **metadata("time", "time"),
}
KEYS = {
    "dofa": (dofa(LARGE), generator("spectral", "patch_embed.", 1024)),
    "copernicus_fm": (copernicus_fm(ViTConfig(bands=13)), COPERNICUS_FM),
    "panopticon": (panopticon(B14), PANOPTICON),
}


@pytest.mark.parametrize(("stem", "keys"), KEYS.values(), ids=KEYS)
def test_every_parameter_has_its_keys_in_the_public_checkpoint(stem, keys):
    """As many numbers and, for a linear map, as many inputs: torch stores it as [outputs, inputs]."""
    shapes, names = stem.abstract_params()
    ours = {p.path: p for p in axes.parameters(names, shapes)}
    assert set(ours) == set(keys)
    for path, found in keys.items():
        found = found if isinstance(found, list) else [found]
        p = ours[path]
        assert math.prod(p.shape) == sum(math.prod(shape) for _, shape in found), path
        if axes.is_kernel(p.names) and len(found[0][1]) == 2:
            assert axes.fans(p.names, p.shape)[0] == found[0][1][1], path


@pytest.mark.parametrize(("stem", "keys"), KEYS.values(), ids=KEYS)
def test_the_use_of_every_kernel_and_norm_is_stated(stem, keys):
    shapes, names = stem.abstract_params()
    used = {p.path.split("/")[0] for p in axes.parameters(names, shapes) if axes.is_kernel(p.names) or "norm" in p.path}
    assert used == set(stem.uses)


def test_a_matrix_that_makes_kernels_is_a_kernel_and_has_the_fans_of_the_linear_map_that_it_is():
    names, shape = ("spectral/embed", "patch", "embed"), (128, 256, 768)
    assert axes.is_kernel(names)
    assert axes.fans(names, shape) == (128, 256 * 768)


@pytest.mark.parametrize("name", ["dofa_base", "panopticon_vitb14", "copernicus_fm_base"])
def test_the_published_slimming_leaves_the_stem_whole_and_a_narrower_token_cuts_only_what_it_reads(name):
    shapes, names = abstract_model(architecture(name))
    sizes = axis_sizes(shapes, names)
    inner = cut_shapes(shapes, names, mode_plan(sizes, 0.25))
    assert inner["encoder"]["stem"] == shapes["encoder"]["stem"]
    token = cut_shapes(shapes, names, mode_plan(sizes, 0.25, "token"))
    cut, whole = (axes.parameters(names["encoder"]["stem"], tree["encoder"]["stem"]) for tree in (token, shapes))
    for p, q in zip(cut, whole, strict=True):
        assert math.prod(q.shape) == math.prod(p.shape) * 4 ** ("embed" in q.names), p.path
    assert any("embed" in p.names for p in cut)
