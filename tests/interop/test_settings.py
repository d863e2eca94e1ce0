"""The settings beside a file of weights are used, compared with the weights, or refused by name."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from scaling.core.errors import UserError
from scaling.interop.importing import import_weights
from tests.interop.examples import assert_close, beside, expected, features
from tests.interop.torch_layout import draw, vit_mae


@pytest.mark.parametrize("age", ["old", "new"])
def test_transformers_keys_of_either_age_and_the_heads_of_its_config(tmp_path, age):
    arrays = draw()
    save_file(vit_mae(arrays, age), tmp_path / "w.safetensors")
    beside(tmp_path, num_attention_heads=8, layer_norm_eps=1e-3)
    ours = features(tmp_path / "w.safetensors", tmp_path)
    assert_close(ours, expected(arrays, 8, 1e-3))
    with pytest.raises(AssertionError):
        assert_close(ours, expected(arrays, 8, 1e-6))
    with pytest.raises(AssertionError):
        assert_close(ours, expected(arrays, 4, 1e-3))


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
    save_file(vit_mae(draw()), tmp_path / "w.safetensors")
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
    save_file(vit_mae(draw()), tmp_path / "w.safetensors")
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
