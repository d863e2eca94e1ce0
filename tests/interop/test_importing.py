"""An imported encoder computes what its file describes, or nothing is imported."""

import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import save_file

from scaling.core.errors import UserError
from scaling.encoders.loading import load_encoder
from scaling.interop.acquisition import Acquisition
from scaling.interop.importing import import_weights, write_checkpoint
from scaling.training.stored_config import objective_of
from tests.commands import call, command, error_of, isolated, run
from tests.interop.test_recorded import acquisition
from tests.interop.torch_files import save, tensor
from tests.interop.torch_layout import draw, tokens

IMAGES = np.random.default_rng(5).normal(size=(2, 16, 16, 3)).astype(np.float32)


def expected(arrays, heads, eps=1e-6):
    return np.stack([tokens(arrays, image.transpose(2, 0, 1), heads, eps) for image in IMAGES])


def features(file, tmp_path, **options):
    """Features of the written checkpoint, read back as by every command."""
    write_checkpoint(import_weights(file, **options), epath.Path(tmp_path / "run"))
    return load_encoder(tmp_path / "run").features(IMAGES, "tokens", normalised=True)


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("variant", [{}, {"layer_scale": True}, {"fixed": True}], ids=str)
def test_timm(tmp_path, variant):
    arrays = draw(**variant)
    save_file(arrays | {"head.weight": np.ones((3, 32), np.float32)}, tmp_path / "w.safetensors")
    ours = features(tmp_path / "w.safetensors", tmp_path, family="timm_vit", heads=4)
    assert_close(ours, expected(arrays, 4))
    c = import_weights(tmp_path / "w.safetensors", "timm_vit", 4).config
    assert c.model.position == ("sincos" if variant.get("fixed") else "learned")
    assert (c.model.image_size, c.model.patch_size, c.model.depth, c.model.mlp) == (16, 4, 2, 48)


def test_the_original_mae_and_moco_are_told_by_their_wrappers(tmp_path):
    arrays = draw(fixed=True)
    wrapped = {key: tensor(x) for key, x in arrays.items()}
    mae = save(tmp_path / "mae.pth", {"model": wrapped, "epoch": 800})
    assert import_weights(mae, heads=4).config.family == "fb_mae"
    prefixed = {f"module.base_encoder.{key}": x for key, x in wrapped.items()}
    other = {f"module.momentum_encoder.{key}": x for key, x in wrapped.items()}
    moco = save(tmp_path / "moco.pth", {"state_dict": prefixed | other, "optimizer": {"lr": 0.1}})
    assert import_weights(moco, heads=4).config.family == "moco_v3"
    assert_close(features(moco, tmp_path, heads=4), expected(arrays, 4))
    small = {key: tensor(x) for key, x in draw(width=384).items()}
    small = save(tmp_path / "s.pth", {"state_dict": {f"module.base_encoder.{key}": x for key, x in small.items()}})
    assert import_weights(small).config.model.heads == 12  # not the 6 of others


@pytest.mark.parametrize("fixed", [True, False])
def test_the_fixed_positions_of_moco_stay_fixed_under_any_name(tmp_path, fixed):
    arrays = draw()
    if fixed:  # rows before columns
        rows_first = np.roll(draw(fixed=True)["pos_embed"], 16, axis=2)
        arrays = arrays | {"pos_embed": rows_first}
    save_file(arrays, tmp_path / "w.safetensors")
    for size in (0, 24):
        model = import_weights(tmp_path / "w.safetensors", "timm_vit", 4, Acquisition(image_size=size)).config.model
        assert (model.position, model.fixed_positions) == ("learned", fixed)
    prefixed = {f"module.base_encoder.{key}": tensor(x) for key, x in draw().items()}
    moco = import_weights(save(tmp_path / "moco.pth", {"state_dict": prefixed}), heads=4)
    assert moco.config.model.fixed_positions


# record: whether a table of positions is there and is not trained, what made the encoder
SAID = {
    "croma": (False, "croma"),
    "dofa": (True, "dofa"),
    "galileo": (True, "galileo"),
    "hf_dinov2": (False, "dinov2"),
    "panopticon": (False, "dinov2"),
    "prithvi": (True, "mae"),
    "satmae": (False, "mae"),
    "scale_mae": (True, "scale_mae"),
    "spectralgpt": (False, "mae"),
    "terramind_gated": (True, "terramind"),
    "timm_registers": (False, ""),
}


@pytest.mark.parametrize("name", SAID)
def test_an_import_says_what_is_fixed_and_what_made_it(tmp_path, name):
    record = np.load(Path(__file__).parent / "recorded" / f"{name}.npz")
    file = {key.removeprefix("file/"): record[key] for key in record.files if key.startswith("file/")}
    save_file({key: np.ascontiguousarray(x) for key, x in file.items()}, tmp_path / "w.safetensors")
    given, options = acquisition(json.loads(str(record["about"]))["options"])
    imported = import_weights(tmp_path / "w.safetensors", given=given, **options)
    assert (imported.config.model.fixed_positions, imported.config.objective) == SAID[name]
    write_checkpoint(imported, epath.Path(tmp_path / "run"))
    assert load_encoder(tmp_path / "run").config.fixed_positions == SAID[name][0]
    assert objective_of(load_encoder(tmp_path / "run").train) == (SAID[name][1] or imported.config.family)


def several_dates(width, dates, grid):
    """Prithvi's positions: three eighths of the width for the column, as many for the row, a quarter for the date."""

    def encode(values, size):
        angles = np.outer(values, 1 / 10_000 ** (np.arange(size // 2) / (size / 2)))
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    t, y, x = (axis.ravel() for axis in np.meshgrid(*map(np.arange, (dates, grid, grid)), indexing="ij"))
    parts = [encode(x, width * 6 // 16), encode(y, width * 6 // 16), encode(t, width * 4 // 16)]
    return np.concatenate([np.zeros((1, width)), np.concatenate(parts, axis=1)])[None].astype(np.float32)


def test_prithvi_sees_one_date(tmp_path):
    arrays = draw(bands=6, patch=16, grid=14)
    kernel = arrays["patch_embed.proj.weight"][:, :, None]  # one frame
    stored = arrays | {"patch_embed.proj.weight": kernel, "pos_embed": several_dates(32, 4, 14)}
    stored = {f"encoder.{key}": tensor(x) for key, x in stored.items()}
    stored |= {"encoder.location_embed_enc.scale": tensor(np.ones(1, np.float32)), "decoder.mask_token": tensor(kernel)}
    imported = import_weights(save(tmp_path / "p.pt", stored), heads=4)
    assert imported.config.family == "prithvi_v2"
    assert imported.config.band_names == ("B02", "B03", "B04", "B8A", "B11", "B12")
    write_checkpoint(imported, epath.Path(tmp_path / "run"))
    image = np.random.default_rng(6).normal(size=(1, 224, 224, 6)).astype(np.float32)
    theirs = tokens(arrays | {"pos_embed": several_dates(32, 1, 14)}, image[0].transpose(2, 0, 1), 4)
    assert_close(load_encoder(tmp_path / "run").features(image, "tokens", normalised=True)[0], theirs)


def test_the_channels_tell_plain_encoders_apart(tmp_path):
    for bands, family in ((3, "timm_vit"), (13, "ssl4eo_s12")):
        save_file(draw(bands=bands), tmp_path / f"{bands}.safetensors")
        config = import_weights(tmp_path / f"{bands}.safetensors", heads=4).config
        assert (config.family, len(config.band_names), len(config.data.mean)) == (family, bands, bands)
    save_file(draw(bands=5), tmp_path / "5.safetensors")
    with pytest.raises(UserError, match="fits timm_vit, prithvi_v1, ssl4eo_s12; give --from, one of timm_vit"):
        import_weights(tmp_path / "5.safetensors", heads=4)
    assert import_weights(tmp_path / "5.safetensors", "timm_vit", 4).config.band_names == ()


NAMES = {  # of transformers before version 5, and since
    "old": ("encoder.layer", "attention.attention.{}", ("query", "key", "value"), "attention.output.dense"),
    "new": ("layers", "attention.{}_proj", ("q", "k", "v"), "attention.o_proj"),
}
MLP = {"old": ("intermediate.dense", "output.dense"), "new": ("mlp.fc1", "mlp.fc2")}


def renamed(arrays, age):
    """timm's arrays by the keys of transformers' ViTMAE."""
    stack, pattern, parts, out = NAMES[age]
    fixed = {
        "cls_token": "vit.embeddings.cls_token",
        "pos_embed": "vit.embeddings.position_embeddings",
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "norm": "vit.layernorm",
    }
    modules = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": out}
    modules |= dict(zip(("mlp.fc1", "mlp.fc2"), MLP[age], strict=True))
    result = {}
    for key, x in arrays.items():
        stem, _, kind = key.rpartition(".")
        if not key.startswith("blocks."):
            result[f"{fixed[stem]}.{kind}" if stem in fixed else fixed[key]] = x
            continue
        _, i, module = stem.split(".", 2)
        if module == "attn.qkv":
            for part, third in zip(parts, np.split(x, 3), strict=True):
                result[f"vit.{stack}.{i}.{pattern.format(part)}.{kind}"] = third
        else:
            result[f"vit.{stack}.{i}.{modules[module]}.{kind}"] = x
    return result


@pytest.mark.parametrize("age", NAMES)
def test_transformers_keys_of_either_age_and_the_heads_of_its_config(tmp_path, age):
    arrays = draw()
    save_file({key: np.ascontiguousarray(x) for key, x in renamed(arrays, age).items()}, tmp_path / "w.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 8, "layer_norm_eps": 1e-3}))
    ours = features(tmp_path / "w.safetensors", tmp_path)
    assert_close(ours, expected(arrays, 8, 1e-3))
    with pytest.raises(AssertionError):
        assert_close(ours, expected(arrays, 8, 1e-6))
    with pytest.raises(AssertionError):
        assert_close(ours, expected(arrays, 4, 1e-3))


def beside(folder, **settings):
    (folder / "config.json").write_text(json.dumps(settings))


VIT = {
    "model_type": "vit",
    "architectures": ["ViTModel"],
    "hidden_act": "gelu",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 3,
    "qkv_bias": True,
    "layer_norm_eps": 1e-6,
    "hidden_dropout_prob": 0.1,
    "pooler_act": "tanh",
}
ANOTHER = {
    "relu": ({"hidden_act": "relu"}, "hidden_act='relu': the blocks here have the exact GELU"),
    "quick": ({"hidden_act": "quick_gelu"}, "hidden_act='quick_gelu': the blocks here have the exact GELU"),
    "tanh": ({"hidden_act": "gelu_pytorch_tanh"}, "hidden_act='gelu_pytorch_tanh'"),
    "new": ({"hidden_act": "gelu_new"}, "hidden_act='gelu_new'"),
    "silu": ({"hidden_act": "silu"}, "hidden_act='silu'"),
    "text": ({"num_attention_heads": "4"}, "num_attention_heads='4': must be a whole number above 0"),
    "part": ({"num_attention_heads": 4.5}, "num_attention_heads=4.5: must be a whole number"),
    "five heads": ({"num_attention_heads": 5}, "num_attention_heads=5: they do not divide the 32 columns"),
    "no heads": ({"num_attention_heads": 0}, "num_attention_heads=0: must be a whole number above 0"),
    "heads of another size": ({"head_dim": 16}, "head_dim=16: 8 in the weights"),
    "epsilon": ({"layer_norm_eps": "1e-6"}, "layer_norm_eps='1e-6': must be a number"),
    "wide": ({"hidden_size": 64}, "hidden_size=64: 32 in the weights; move config.json away if it is of another model"),
    "deep": ({"num_hidden_layers": 12}, "num_hidden_layers=12: 2 in the weights"),
    "mlp": ({"intermediate_size": 128}, "intermediate_size=128: 48 in the weights"),
    "patch": ({"patch_size": 8}, "patch_size=8: 4 in the weights"),
    "image": ({"image_size": 32}, "image_size=32: 16 in the weights"),
    "oblong": ({"image_size": [16, 32]}, r"image_size=\[16, 32\]: must be a whole number above 0 \(a square"),
    "bands": ({"num_channels": 6}, "num_channels=6: 3 in the weights"),
    "biases": ({"qkv_bias": False}, "qkv_bias=False: True in the weights"),
    "registers": ({"num_register_tokens": 4}, "num_register_tokens=4: 0 in the weights"),
    "gates": ({"use_swiglu_ffn": True}, "use_swiglu_ffn=True: False in the weights"),
    "pruned": ({"pruned_heads": {"0": [1]}}, "pruned_heads=.*: the blocks here do not have that"),
    "swin": ({"model_type": "swin"}, "model_type='swin': the keys of the weights are of vit, vit_mae, vit_msn"),
}


@pytest.mark.parametrize(("change", "message"), ANOTHER.values(), ids=ANOTHER)
def test_settings_of_another_function_are_refused_by_name(tmp_path, change, message):
    save_file({key: np.ascontiguousarray(x) for key, x in renamed(draw(), "old").items()}, tmp_path / "w.safetensors")
    beside(tmp_path, **VIT)
    import_weights(tmp_path / "w.safetensors")
    beside(tmp_path, **(VIT | change))
    with pytest.raises(UserError, match=f"config.json: {message}"):
        import_weights(tmp_path / "w.safetensors")


TIMM = {
    "architecture": "vit_tiny",
    "num_classes": 0,
    "num_features": 32,
    "global_pool": "token",
    "pretrained_cfg": {"tag": "mae", "input_size": [3, 16, 16], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5]},
    "model_args": {"num_heads": 4, "img_size": 16, "mlp_ratio": 1.5, "act_layer": None},
}
ANOTHER_TIMM = {
    "quick": ({"act_layer": "quick_gelu"}, "act_layer='quick_gelu': the blocks here have the exact GELU"),
    "tanh": ({"act_layer": "gelu_tanh"}, "act_layer='gelu_tanh'"),
    "norm": ({"norm_layer": "rmsnorm"}, "norm_layer='rmsnorm': the blocks here do not have that"),
    "before": ({"pre_norm": True}, "pre_norm=True: the blocks here do not have that"),
    "queries": ({"qk_norm": True}, "qk_norm=True"),
    "blocks": ({"block_fn": "ParallelThingsBlock"}, "block_fn='ParallelThingsBlock'"),
    "heads": ({"num_heads": "4"}, "num_heads='4': must be a whole number"),
    "five": ({"num_heads": 5}, "num_heads=5: they do not divide"),
    "ratio": ({"mlp_ratio": 4}, "mlp_ratio=4: 1.5 in the weights"),
    "class": ({"class_token": False}, "class_token=False: True in the weights"),
    "registers": ({"reg_tokens": 4}, "reg_tokens=4: 0 in the weights"),
    "size": ({"img_size": 32}, "img_size=32: 16 in the weights"),
}


@pytest.mark.parametrize("place", ["model_args", "pretrained_cfg", ""])
@pytest.mark.parametrize(("change", "message"), ANOTHER_TIMM.values(), ids=ANOTHER_TIMM)
def test_so_they_are_in_every_part_of_timms(tmp_path, change, message, place):
    save_file(draw(), tmp_path / "w.safetensors")
    said = {name: dict(x) if isinstance(x, dict) else x for name, x in TIMM.items()}
    said["model_args"] = {name: x for name, x in said["model_args"].items() if name not in change}
    (said[place] if place else said).update(change)
    beside(tmp_path, **said)
    with pytest.raises(UserError, match=f"config.json: {message}"):
        import_weights(tmp_path / "w.safetensors", "timm_vit")


GATED = {  # what is said of a gated MLP, and what is wrong with it
    "nothing": ({}, None),
    "packed": ({"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}, None),
    "transformers": ({"use_swiglu_ffn": True, "hidden_act": "gelu"}, None),
    "gelu": ({"act_layer": "gelu"}, "act_layer='gelu': the blocks here have SwiGLU"),
    "second half": ({"mlp_layer": "GluMlp", "act_layer": "silu"}, "mlp_layer='GluMlp': the blocks here have SwiGLU"),
    "not gated": ({"mlp_layer": "Mlp"}, "mlp_layer='Mlp': the blocks here have SwiGLU"),
}


@pytest.mark.parametrize(("said", "message"), GATED.values(), ids=GATED)
def test_a_gated_mlp_is_that_of_the_settings(tmp_path, said, message):
    rng = np.random.default_rng(1)
    wide = {f"blocks.{i}.mlp.fc1.{kind}": x for i in range(2) for kind, x in (("weight", (96, 32)), ("bias", (96,)))}
    gated = {key: rng.normal(size=shape).astype(np.float32) for key, shape in wide.items()}
    save_file(draw() | gated, tmp_path / "w.safetensors")
    beside(tmp_path, num_heads=4, **said)
    if message is None:
        assert import_weights(tmp_path / "w.safetensors", "timm_vit").config.model.gated
    else:
        with pytest.raises(UserError, match=f"config.json: {message}"):
            import_weights(tmp_path / "w.safetensors", "timm_vit")


@pytest.mark.parametrize(
    ("architecture", "ours"),
    [
        ("vit_base_patch32_siglip_gap_256", False),
        ("vit_large_patch16_siglip_gap_512", False),
        ("vit_so400m_patch16_siglip_gap_384", False),
        ("vit_giantopt_patch16_siglip_gap_256", False),
        ("vit_base_patch32_clip_quickgelu_224", False),
        ("vit_large_patch16_siglip_gap_384", True),
        ("vit_so400m_patch14_siglip_gap_224", True),
        ("vit_base_patch16_224", True),
    ],
)
def test_what_only_the_name_of_a_model_says_is_read(tmp_path, architecture, ours):
    save_file(draw(), tmp_path / "w.safetensors")
    beside(tmp_path, architecture=architecture, num_heads=4)
    if ours:
        import_weights(tmp_path / "w.safetensors", "timm_vit")
    else:
        with pytest.raises(UserError, match=f"architecture='{architecture}': the blocks here are not those"):
            import_weights(tmp_path / "w.safetensors", "timm_vit")


NONSENSE = ["4", "", -1, 0, 4.5, [], {}, [[4, 4]], [{}, {}], float("inf"), float("nan"), 10**400, {"a": 1}]


@pytest.mark.parametrize("field", ["num_heads", "img_size", "patch_size", "mlp_ratio", "layer_norm_eps", "act_layer"])
def test_a_setting_that_cannot_be_is_one_error(tmp_path, field):
    save_file(draw(), tmp_path / "w.safetensors")
    for value in NONSENSE:
        beside(tmp_path, **({"num_heads": 4} | {field: value}))
        with pytest.raises(UserError, match=rf"^[^\n]*config.json: {field}=[^\n]*$"):
            import_weights(tmp_path / "w.safetensors", "timm_vit")


def test_settings_that_are_of_the_weights_are_read(tmp_path):
    save_file(draw(), tmp_path / "w.safetensors")
    beside(tmp_path, **TIMM)
    c = import_weights(tmp_path / "w.safetensors", "timm_vit").config
    assert (c.model.heads, c.model.image_size) == (4, 16)
    np.testing.assert_allclose(c.data.mean, [127.5] * 3)
    np.testing.assert_allclose(c.data.std, [63.75, 127.5, 127.5])
    assert import_weights(tmp_path / "w.safetensors", "timm_vit", 8).config.model.heads == 8
    with pytest.raises(UserError, match=r"--heads=5: must divide the 32 columns of attention"):
        import_weights(tmp_path / "w.safetensors", "timm_vit", 5)
    beside(tmp_path, **VIT)
    with pytest.raises(
        UserError, match=r"model_type='vit': the keys of the weights are not of a model of transformers"
    ):
        import_weights(tmp_path / "w.safetensors", "timm_vit")
    for content in ("[]", "{", "\xff"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"config.json: must be"):
            import_weights(tmp_path / "w.safetensors", "timm_vit", 4)


def test_the_processor_of_transformers_says_how_images_are_normalised(tmp_path):
    save_file({key: np.ascontiguousarray(x) for key, x in renamed(draw(), "old").items()}, tmp_path / "w.safetensors")
    beside(tmp_path, **VIT)
    said = {"do_normalize": True, "image_mean": [0.5, 0.25, 0.5], "image_std": [0.5, 0.5, 1.0], "do_rescale": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    data = import_weights(tmp_path / "w.safetensors").config.data
    np.testing.assert_allclose(data.mean, [127.5, 63.75, 127.5])
    np.testing.assert_allclose(data.std, [127.5, 127.5, 255])
    said |= {"do_normalize": False}  # from 0 to 1, and no more
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    data = import_weights(tmp_path / "w.safetensors").config.data
    np.testing.assert_allclose([data.mean, data.std], [[0] * 3, [255] * 3])


@pytest.mark.parametrize("field", ["image_mean", "image_std", "rescale_factor", "do_normalize"])
def test_a_processor_that_cannot_be_is_one_error(tmp_path, field):
    save_file(draw(), tmp_path / "w.safetensors")
    plain = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    for value in NONSENSE:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(plain | {field: value}))
        with pytest.raises(UserError, match=r"^[^\n]*preprocessor_config.json: [^\n]*$"):
            import_weights(tmp_path / "w.safetensors", "timm_vit", 4)


def test_no_biases_of_queries_and_keys_are_zero_where_the_settings_say_so(tmp_path):
    arrays = {key: x for key, x in draw().items() if not key.endswith("attn.qkv.bias")}
    save_file(arrays, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="nothing in the file fills encoder/blocks/qkv/bias"):
        import_weights(tmp_path / "w.safetensors", "timm_vit", 4)
    beside(tmp_path, architecture="vit", model_args={"qkv_bias": False})
    zero = {f"blocks.{i}.attn.qkv.bias": np.zeros(96, np.float32) for i in range(2)}
    ours = features(tmp_path / "w.safetensors", tmp_path, family="timm_vit", heads=4)
    assert_close(ours, expected(arrays | zero, 4))


def prithvi(folder, size, dates, stated=0):
    grid = size // 16
    arrays = draw(bands=6, patch=16, grid=grid)
    kernel = arrays["patch_embed.proj.weight"][:, :, None]
    stored = arrays | {"patch_embed.proj.weight": kernel, "pos_embed": several_dates(32, dates, grid)}
    if stated:
        beside(folder, architecture="prithvi_eo_v2_300", pretrained_cfg={"img_size": stated, "patch_size": [1, 16, 16]})
    file = save(folder / "p.pt", {f"encoder.{key}": tensor(x) for key, x in stored.items()})
    return import_weights(file, heads=4)


@pytest.mark.parametrize(("size", "dates"), [(512, 1), (512, 4), (128, 1), (128, 4), (448, 1), (224, 3)])
def test_prithvi_of_another_size_is_read_where_that_is_stated(tmp_path, size, dates):
    imported = prithvi(tmp_path, size, dates, size)
    assert imported.config.model.image_size == size
    first = several_dates(32, dates, size // 16)[0, 1 : 1 + (size // 16) ** 2]
    np.testing.assert_allclose(imported.params["encoder"]["position"]["embedding"], first, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "dates", "stated"), [(512, 1, 0), (512, 4, 0), (128, 1, 0), (128, 4, 0), (448, 1, 0), (224, 4, 448)]
)
def test_positions_that_are_not_whole_frames_are_one_error(tmp_path, size, dates, stated):
    with pytest.raises(UserError, match=rf"positions, which are not those of whole frames of {stated or 224} pixels"):
        prithvi(tmp_path, size, dates, stated)


@pytest.mark.parametrize("family", ["fb_mae", "moco_v3"])
def test_patches_that_are_a_square_only_with_the_class_token_are_not_one(tmp_path, family):
    arrays = {key: tensor(x) for key, x in draw().items()}
    arrays["pos_embed"] = tensor(np.ones((1, 1 + 3 * 5, 32), np.float32))
    prefix = "module.base_encoder." if family == "moco_v3" else ""
    wrapper = "state_dict" if family == "moco_v3" else "model"
    file = save(tmp_path / "w.pth", {wrapper: {prefix + key: x for key, x in arrays.items()}})
    with pytest.raises(
        UserError, match="pos_embed: has 16 positions, which is not a square number beside that of the class token"
    ):
        import_weights(file, family, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("key", ["blocks.1.mlp.fc1.weight", "norm.bias", "pos_embed", "patch_embed.proj.weight"])
def test_numbers_that_are_not_finite_are_one_error(tmp_path, bad, key):
    arrays = draw()
    arrays[key] = arrays[key].copy()
    arrays[key].reshape(-1)[-1] = bad
    save_file(arrays, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r": 1 of [\d,]+ numbers are not finite"):
        import_weights(tmp_path / "w.safetensors", "timm_vit", 4)


def test_codes_of_a_quantised_file_are_not_weights(tmp_path):
    arrays = draw()
    codes = {"blocks.1.mlp.fc1.weight": np.ones((48, 32), np.int8)}
    save_file(arrays | codes, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"blocks.1.mlp.fc1.weight: is int8: not weights but their codes"):
        import_weights(tmp_path / "w.safetensors", "timm_vit", 4)


def without(arrays, key):
    return {name: x for name, x in arrays.items() if name != key}


QKV = "blocks.0.attn.qkv.weight"
# case: what is done to the arrays, the message
BROKEN = {
    "a missing key": (
        lambda a: without(a, "blocks.1.attn.proj.bias"),
        "nothing in the file fills encoder/blocks/attention_out/bias",
    ),
    "an unknown key": (
        lambda a: a | {"blocks.0.attn.extra": np.ones(3)},
        r"blocks.0.attn.extra: \[3\] is not a key of this family",
    ),
    "a transposed matrix": (
        lambda a: a | {QKV: a[QKV].T},
        r"shape \[32, 96\], embed 32 x branch 1 x qkv 3 x heads 4 x head_dim 8 wants \[96, 32\]",
    ),
    "a shorter vector": (
        lambda a: a | {"norm.weight": np.ones(31, np.float32)},
        r"norm.weight: has shape \[31\], embed 32 wants \[32\]",
    ),
    "positions of no square": (
        lambda a: a | {"pos_embed": np.ones((1, 19, 32), np.float32)},
        "pos_embed: has 19 positions, which is not a square number",
    ),
    "no positions": (lambda a: without(a, "pos_embed"), "the file has no position embeddings"),
    "another family": (lambda a: without(a, "patch_embed.proj.weight"), "is not timm_vit: its first key is"),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_not_exactly_the_family_is_one_error(tmp_path, change, message):
    arrays = {key: np.ascontiguousarray(x) for key, x in change(draw()).items()}
    save_file(arrays, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=message):
        import_weights(tmp_path / "w.safetensors", "timm_vit", 4)


MISUSED = {
    "timm_vit": ({"resolution": 10.0}, "timm_vit does not use --resolution; leave it out"),
    "timm_vit, odd size": ({"image_size": 18}, "--image_size=18: must be divisible by the patch size 4"),
    "timm_vit, negative size": (
        {"image_size": -4},
        "--bandwidths, --resolution, --image_size and --patch_size: must not be negative",
    ),
}


@pytest.mark.parametrize(("given", "message"), MISUSED.values(), ids=MISUSED)
def test_what_is_said_of_the_images_must_mean_something(tmp_path, given, message):
    save_file(draw(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=message):
        import_weights(tmp_path / "w.safetensors", "timm_vit", 4, Acquisition(**given))


@pytest.mark.parametrize(
    ("family", "given", "message"),
    [
        ("dofa", {}, "dofa needs --wavelengths"),
        ("galileo", {"image_size": 16}, "galileo needs --time"),
        ("galileo", {"image_size": 16, "time": "July"}, "--time=July: must be a time; give one like 2021-07-15"),
        ("prithvi", {"location": (100.0, 0.0)}, "--location: must be a latitude, up to 90 degrees"),
        ("galileo", {"image_size": 20, "time": "2021-07-15"}, "--image_size=20: must be divisible by the patch size 8"),
        (
            "galileo",
            {"image_size": 16, "time": "2021-07-15", "bands": ("B02", "B03")},
            "galileo takes whole groups of VV, VH; B02",
        ),
        ("dofa", {"wavelengths": (665.0,), "bands": ("B04", "B03")}, "must list the same channels in order"),
    ],
    ids=str,
)
def test_what_a_family_needs_is_asked_for(tmp_path, family, given, message):
    record = np.load(Path(__file__).parent / "recorded" / f"{family}.npz")
    file = {key.removeprefix("file/"): record[key] for key in record.files if key.startswith("file/")}
    save_file({key: np.ascontiguousarray(x) for key, x in file.items()}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=message):
        import_weights(tmp_path / "w.safetensors", heads=4, given=Acquisition(**given))


@pytest.mark.parametrize("fixed", [True, False])
def test_positions_are_resampled_only_where_another_size_is_asked_for(tmp_path, fixed):
    save_file(draw(fixed=fixed), tmp_path / "w.safetensors")
    small = import_weights(tmp_path / "w.safetensors", "timm_vit", 4)
    large = import_weights(tmp_path / "w.safetensors", "timm_vit", 4, Acquisition(image_size=24))
    assert (small.config.model.image_size, large.config.model.image_size) == (16, 24)
    if fixed:
        assert large.config.model.position == "sincos"
    else:
        square = small.params["encoder"]["position"]["embedding"].reshape(4, 4, -1)
        expected = jax.image.resize(square, (6, 6, square.shape[2]), "bicubic").reshape(36, -1)
        np.testing.assert_allclose(large.params["encoder"]["position"]["embedding"], expected, atol=1e-6)


def test_heads_that_nobody_knows_are_asked_for(tmp_path):
    save_file(draw(), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"--heads: is not in the weights \(width 32"):
        import_weights(tmp_path / "w.safetensors", "timm_vit")


def test_the_command(tmp_path):
    arrays = draw(width=192)
    save_file(arrays, tmp_path / "w.safetensors")
    line = command("convert", input=tmp_path / "w.safetensors", output=tmp_path / "run")
    done = run(line)
    assert done.returncode == 0, done.stderr
    assert "timm_vit: encoder, " in done.stdout
    assert f"{sum(x.size for x in arrays.values()) - 192:,} encoder" in done.stdout
    assert "has checkpoints already" in error_of(call(line), 2)
    assert "--from=vgg: must be one of timm_vit, fb_mae" in error_of(call([*line, "--from=vgg"]), 2)
    assert "give --output and either --input=FILE" in error_of(call(command("convert")), 2)
    encoder = load_encoder(tmp_path / "run")
    assert_close(encoder.features(IMAGES, "tokens", normalised=True), expected(arrays, 3))
    assert encoder.train.band_names == ("red", "green", "blue")


@pytest.mark.long
def test_a_file_of_630m_parameters_takes_seconds_and_half_more_memory_than_its_size(tmp_path):
    """Once for the parameters, once for what is being written."""
    rng, arrays = np.random.default_rng(0), draw(width=1280, depth=1, mlp=5120, patch=14, grid=16)
    block = {key: x for key, x in arrays.items() if key.startswith("blocks.0.")}
    for i in range(1, 32):
        arrays |= {key.replace(".0.", f".{i}."): x + np.float32(rng.normal()) for key, x in block.items()}
    size = sum(x.nbytes for x in arrays.values())
    save_file(arrays, tmp_path / "w.safetensors")
    last = arrays["blocks.31.mlp.fc1.weight"].copy()
    del arrays
    line = command("convert", input=tmp_path / "w.safetensors", output=tmp_path / "run", heads=16)
    begun = time.monotonic()
    done = run([sys.executable, "-c", PEAK, *map(str, line)])
    seconds, peak = time.monotonic() - begun, int(done.stdout.splitlines()[-1]) * 1024
    print(f"{size / 1e9:.2f} GB in {seconds:.0f} s, peak {peak / 1e9:.2f} GB")
    assert peak < 1.6 * size
    np.save(tmp_path / "last.npy", last)
    there = f"""
        import json, numpy as np
        from scaling.encoders.loading import load_encoder
        kernel = load_encoder({str(tmp_path / "run")!r}).params["blocks"]["mlp_in"]["kernel"]
        print(json.dumps(bool((np.asarray(kernel[31, :, 0]).T == np.load({str(tmp_path / "last.npy")!r})).all())))
    """
    assert isolated(there, devices=1)  # here it would lie on eight


PEAK = """
import os, resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, env={**os.environ, "XLA_FLAGS": ""})  # one device
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_images_of_unknown_channels_need_a_normalisation(tmp_path):
    save_file(draw(bands=5), tmp_path / "5.safetensors")
    write_checkpoint(import_weights(tmp_path / "5.safetensors", "timm_vit", 4), epath.Path(tmp_path / "run"))
    with pytest.raises(UserError, match="does not say how its images are normalised"):
        load_encoder(tmp_path / "run").normalise(np.zeros((1, 16, 16, 5)))
