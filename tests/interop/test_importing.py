"""An imported encoder computes what its file describes, or nothing is imported."""

import sys
import time

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
from tests.interop.examples import IMAGES, assert_close, expected, features
from tests.interop.records import RECORDS, acquisition, arrays_of
from tests.interop.torch_files import save, tensor
from tests.interop.torch_layout import draw


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
    record = np.load(RECORDS[name])
    save_file(arrays_of(record), tmp_path / "w.safetensors")
    given, options = acquisition(record)
    imported = import_weights(tmp_path / "w.safetensors", given=given, **options)
    assert (imported.config.model.fixed_positions, imported.config.objective) == SAID[name]
    write_checkpoint(imported, epath.Path(tmp_path / "run"))
    assert load_encoder(tmp_path / "run").config.fixed_positions == SAID[name][0]
    assert objective_of(load_encoder(tmp_path / "run").train) == (SAID[name][1] or imported.config.family)


def test_the_channels_tell_plain_encoders_apart(tmp_path):
    for bands, family in ((3, "timm_vit"), (13, "ssl4eo_s12")):
        save_file(draw(bands=bands), tmp_path / f"{bands}.safetensors")
        config = import_weights(tmp_path / f"{bands}.safetensors", heads=4).config
        assert (config.family, len(config.band_names), len(config.data.mean)) == (family, bands, bands)
    save_file(draw(bands=5), tmp_path / "5.safetensors")
    with pytest.raises(UserError, match="fits timm_vit, prithvi_v1, ssl4eo_s12; give --from, one of timm_vit"):
        import_weights(tmp_path / "5.safetensors", heads=4)
    assert import_weights(tmp_path / "5.safetensors", "timm_vit", 4).config.band_names == ()


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
