"""What goes out computes what it did inside, or does not go out."""

import json
import subprocess
import sys

import numpy as np
import pytest
from jax import export
from safetensors.numpy import load_file

from scaling.errors import UserError
from scaling.evaluation.slimmed import slim
from scaling.interop.exporting import export_program, export_weights
from scaling.interop.importing import import_weights
from tests.commands import command, error_of, run
from tests.evaluation.examples import blank_encoder, small_encoder
from tests.interop.torch_layout import tokens

IMAGES = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)


@pytest.mark.parametrize("position", ["sincos", "learned"])
def test_timms_layout_computes_the_same_in_torchs_order(tmp_path, position):
    encoder = small_encoder(position=position)
    export_weights(encoder, "timm_vit", tmp_path / "w.safetensors")
    arrays = load_file(tmp_path / "w.safetensors")
    expected = np.stack([tokens(arrays, image.transpose(2, 0, 1), encoder.config.heads) for image in IMAGES])
    np.testing.assert_allclose(encoder.features(IMAGES, "tokens"), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("layout", ["timm_vit", "hf_vit_mae"])
def test_what_went_out_comes_back_to_the_last_bit(tmp_path, layout):
    encoder = slim(small_encoder(position="learned"), 0.5)
    export_weights(encoder, layout, tmp_path / "w.safetensors")
    back = import_weights(tmp_path / "w.safetensors", layout, encoder.config.heads).params["encoder"]
    for group, name in (("patch", "kernel"), ("position", "embedding"), ("cls", "token"), ("norm", "scale")):
        np.testing.assert_array_equal(back[group][name], encoder.params[group][name])
    for group, values in encoder.params["blocks"].items():
        for name, x in values.items():
            np.testing.assert_array_equal(back["blocks"][group][name], x)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"branches": 2}, "it has parallel branches; --to=stablehlo can"),
        ({"gated": True}, "it has a gated MLP"),
        ({"qk_norm": True}, "it has norms of queries and keys"),
        ({"class_token": False}, "it has no class token"),
        ({"layer_scale": 0.1}, "it has LayerScale"),
        ({"attention_scale": 0.5}, "it has another scale of the logits"),
        ({"registers": 2}, "it has registers"),
        ({"channel_width": 32, "channel_heads": 4}, "it has attention over channels"),
        ({"patch_offset": 1}, "it has patches that begin beside their place"),
        ({"final_norm": "pooled"}, "it has no norm of its tokens"),
    ],
    ids=str,
)
def test_what_their_classes_cannot_hold_is_refused(tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        export_weights(blank_encoder(**fields), "hf_vit_mae", tmp_path / "w.safetensors")


def test_a_slimmed_encoder_runs_without_this_package_on_any_number_of_images(tmp_path):
    encoder = slim(small_encoder(), 0.5)
    export_program(encoder, "mean", tmp_path / "program")
    program = export.deserialize((tmp_path / "program").read_bytes())
    for n in (1, 3):
        np.testing.assert_allclose(program.call(IMAGES[:n]), encoder.features(IMAGES[:n]), atol=1e-5)
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    alone = "import sys; from jax import export; import numpy as np; "
    alone += "p = export.deserialize(open(sys.argv[1], 'rb').read()); "
    alone += "print(p.call(np.zeros((2, 16, 16, 3), np.float32)).shape, 'scaling' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", alone, tmp_path / "program"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "(2, 32) False\n", done.stderr


def test_the_command(straight, tmp_path):
    line = {"checkpoint": straight[0], "to": "timm_vit", "output": tmp_path / "w.safetensors"}
    done = run(command("convert", **line))
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "w.safetensors")["cls_token"].shape == (1, 1, 32)
    line |= {"to": "hf_vit_mae", "width": 0.5}
    assert run(command("convert", **line)).returncode == 0
    assert json.loads((tmp_path / "config.json").read_text())["head_dim"] == 8
    assert "config.json is there already; choose another folder" in error_of(run(command("convert", **line)), 2)
    line |= {"to": "stablehlo", "output": tmp_path / "program", "width": 0.5}
    assert run(command("convert", **line)).returncode == 0
    assert (tmp_path / "program").stat().st_size > 1000
    assert "either --input=FILE" in error_of(run(command("convert", output=tmp_path)), 2)
