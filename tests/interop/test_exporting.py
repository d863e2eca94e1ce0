"""An exported encoder computes the same as before, or is not exported."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from etils import epath
from jax import export
from safetensors.numpy import load_file

from scaling.core.errors import UserError
from scaling.data.config import DataConfig
from scaling.encoders.loading import load_encoder
from scaling.encoders.slimmed import slim
from scaling.encoders.splits import read_split
from scaling.interop.exporting import export_program, export_weights
from scaling.interop.importing import import_weights
from scaling.training.config import TrainConfig
from scaling.training.stored_config import CutConfig
from tests.commands import call, command, error_of
from tests.encoders.examples import blank_encoder, small_encoder
from tests.interop.torch_layout import tokens

IMAGES = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)


@pytest.mark.parametrize("position", ["sincos", "learned"])
def test_timms_layout_computes_the_same_in_torchs_order(tmp_path, position):
    encoder = small_encoder(position=position)
    export_weights(encoder, "timm_vit", tmp_path / "w.safetensors")
    arrays = load_file(tmp_path / "w.safetensors")
    expected = np.stack([tokens(arrays, image.transpose(2, 0, 1), encoder.config.heads) for image in IMAGES])
    np.testing.assert_allclose(
        encoder.features(IMAGES, "tokens", normalised=True), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("layout", ["timm_vit", "hf_vit_mae"])
@pytest.mark.parametrize("ordering", ["first", "svd"])
def test_cuts_of_every_ordering_go_out(tmp_path, layout, ordering):
    """Includes cuts that keep the scale of the full encoder's logits, which the layouts' classes do not have."""
    encoder = slim(small_encoder(position="learned"), 0.5, "inner", ordering)
    export_weights(encoder, layout, tmp_path / "w.safetensors")
    params = import_weights(tmp_path / "w.safetensors", layout, encoder.config.heads).params["encoder"]
    back = dataclasses.replace(encoder, config=dataclasses.replace(encoder.config, attention_scale=0.0), params=params)
    ours = encoder.features(IMAGES, "tokens", normalised=True)
    np.testing.assert_allclose(
        back.features(IMAGES, "tokens", normalised=True), ours, rtol=0, atol=1e-5 * np.abs(ours).max()
    )


def test_another_scale_of_the_logits_goes_out_with_the_queries(tmp_path):
    encoder = small_encoder(position="learned", attention_scale=0.5)
    export_weights(encoder, "timm_vit", tmp_path / "w.safetensors")
    expected = tokens(load_file(tmp_path / "w.safetensors"), IMAGES[0].transpose(2, 0, 1), encoder.config.heads)
    (ours,) = encoder.features(IMAGES[:1], "tokens", normalised=True)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


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
        ({"branches": 2}, "which has parallel branches; give --to=stablehlo"),
        ({"gated": True}, "which has a gated MLP"),
        ({"qk_norm": True}, "which has norms of queries and keys"),
        ({"class_token": False}, "which has no class token"),
        ({"layer_scale": 0.1}, "which has LayerScale"),
        ({"registers": 2}, "which has registers"),
        ({"channel_width": 32, "channel_heads": 4}, "which has attention over channels"),
        ({"patch_offset": 1}, "which has patches that begin beside their place"),
        ({"final_norm": "pooled"}, "which has no norm of its tokens"),
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
        np.testing.assert_allclose(program.call(IMAGES[:n]), encoder.features(IMAGES[:n], normalised=True), atol=1e-5)
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    alone = "import sys; from jax import export; import numpy as np; "
    alone += "p = export.deserialize(open(sys.argv[1], 'rb').read()); "
    alone += "print(p.call(np.zeros((2, 16, 16, 3), np.float32)).shape, 'scaling' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", alone, tmp_path / "program"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "(2, 32) False\n", done.stderr


def test_beside_a_file_it_is_written_how_to_feed_it(tmp_path):
    data = DataConfig(source="folder:tiles", bands=(2, 1, 0), mean=(9.0, 8.0, 7.0), std=(3.0, 2.0, 1.0))
    encoder = dataclasses.replace(small_encoder(), train=TrainConfig(data=data))
    export_program(encoder, "cls", tmp_path / "program")
    export_weights(encoder, "timm_vit", tmp_path / "w.safetensors")
    about = json.loads((tmp_path / "program.json").read_text())
    expected = {"mean": [9, 8, 7], "std": [3, 2, 1], "bands": [2, 1, 0], "image_size": 16, "pooling": "cls"}
    assert expected.items() <= about.items()
    assert about["normalisation"] == "(pixels - mean) / std, of each band"
    weights = json.loads((tmp_path / "w.safetensors.json").read_text())
    assert {**weights, "file": "", "input": "", "pooling": ""} == {**about, "file": "", "input": "", "pooling": ""}
    # fed by nothing but what is written there
    program = export.deserialize((tmp_path / "program").read_bytes())
    pixels = np.random.default_rng(1).integers(0, 20, (2, 16, 16, 5))
    x = (pixels[..., about["bands"]] - about["mean"]) / about["std"]
    ours = encoder.features(pixels[..., [2, 1, 0]], "cls")
    np.testing.assert_allclose(program.call(x.astype(np.float32)), ours, atol=1e-5)


def test_into_a_bucket(bucket):
    encoder, path = small_encoder(), epath.Path("gs://bucket/program")
    export_program(encoder, "mean", path)
    program = export.deserialize(path.read_bytes())
    np.testing.assert_allclose(program.call(IMAGES), encoder.features(IMAGES, normalised=True), atol=1e-5)
    assert json.loads(epath.Path("gs://bucket/program.json").read_text())["pooling"] == "mean"


def test_what_lies_beside_it_is_not_replaced(uninterrupted_run, tmp_path):
    (tmp_path / "program.json").write_text("{}")
    line = command("convert", checkpoint=uninterrupted_run[0], to="stablehlo", output=tmp_path / "program")
    assert "how to feed it would replace" in error_of(call(line), 2)
    assert (tmp_path / "program.json").read_text() == "{}"


def test_others_may_read_what_was_written(tmp_path):
    export_weights(small_encoder(), "timm_vit", tmp_path / "w.safetensors")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_features_that_the_encoder_does_not_have_are_not_exported(tmp_path):
    with pytest.raises(UserError, match="pool='cls' is not supported by this encoder"):
        export_program(small_encoder(class_token=False), "cls", tmp_path / "program")


REPAIRED = {"width_ratio": 0.4, "ordering": "svd", "recovery": "ridge", "calibration_images": 16}


@pytest.fixture(scope="module")
def kept(uninterrupted_run, tmp_path_factory):
    """A checkpoint of a cut and repaired encoder, written by the command."""
    folder = tmp_path_factory.mktemp("kept") / "run"
    done = call(command("convert", checkpoint=uninterrupted_run[0], output=folder, **REPAIRED))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"written  {folder}\n")
    return folder


def test_a_cut_is_kept_to_the_last_bit(uninterrupted_run, kept, tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    where = {"input": tmp_path / "x.npy", "output": tmp_path / "y.npy"}
    features = []
    for flags in ({"checkpoint": uninterrupted_run[0], **REPAIRED}, {"checkpoint": kept}):
        done = call(command("features", **where, **flags))
        assert done.returncode == 0, done.stderr
        features.append(np.load(tmp_path / "y.npy"))
    np.testing.assert_array_equal(*features)


def test_a_kept_cut_says_where_it_comes_from(uninterrupted_run, kept):
    (cut,) = load_encoder(kept).cuts
    assert cut == CutConfig(
        checkpoint=str(uninterrupted_run[0]),
        step=40,
        width_ratio=0.4,
        ordering="svd",
        recovery="ridge",
        calibration="scenes?size=16&count=512",
        calibration_split="train",
        calibration_images=16,
    )
    about = json.loads(call(command("describe", "--json", checkpoint=kept)).stdout)["origin"]
    assert about["cuts"] == [json.loads(json.dumps(dataclasses.asdict(cut)))]
    assert (about["step"], about["objective"], about["source"]) == (40, "mae", "scenes?size=16&count=512")
    row = load_encoder(kept).row_fields("small", {})
    assert (row["model"], row["step"]) == ("small (width 0.4 inner svd ridge)", 40)
    assert row["samples_seen"] == load_encoder(uninterrupted_run[0]).row_fields("full", {})["samples_seen"]


def test_commands_read_a_kept_cut_like_any_other(uninterrupted_run, kept, tmp_path):
    source = {"source": "scenes?size=16&count=64", "limit": 32}
    full, small = (
        json.loads(call(command("probe", "--json", checkpoint=c, **source)).stdout)
        for c in (uninterrupted_run[0], kept)
    )
    assert full["chance"] == small["chance"]
    assert full["accuracy"]["raw pixels"] == small["accuracy"]["raw pixels"]
    done = call(command("convert", checkpoint=kept, to="timm_vit", output=tmp_path / "w"))
    assert done.returncode == 0, done.stderr
    encoder = load_encoder(kept)
    expected = tokens(load_file(tmp_path / "w"), IMAGES[0].transpose(2, 0, 1), encoder.config.heads)
    (ours,) = encoder.features(IMAGES[:1], "tokens", normalised=True)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    again = command("convert", checkpoint=uninterrupted_run[0], output=kept, width_ratio=0.5)
    assert "has checkpoints already; choose another folder" in error_of(call(again), 2)


@pytest.mark.parametrize("mode", ["inner", "token", pytest.param("heads", marks=pytest.mark.long)])
def test_every_kind_of_cut_comes_back(uninterrupted_run, tmp_path, mode):
    encoder = load_encoder(uninterrupted_run[0])
    for name, e in (("full", encoder), ("cut", slim(encoder, 0.5, mode, "svd"))):
        e.after(CutConfig(width_ratio=0.5, mode=mode)).save(tmp_path / name)
        back = load_encoder(tmp_path / name)
        assert (back.config, back.train, back.step) == (e.config, encoder.train, 40)
        np.testing.assert_array_equal(
            back.features(IMAGES, "tokens", normalised=True), e.features(IMAGES, "tokens", normalised=True)
        )
    twice, read = slim(load_encoder(tmp_path / "cut"), 0.5, "mlp"), load_encoder(tmp_path / "cut", None, 0.5, "mlp")
    np.testing.assert_array_equal(read.features(IMAGES, normalised=True), twice.features(IMAGES, normalised=True))


def test_rows_of_a_cut_of_a_kept_cut_say_what_is_left_of_the_whole(uninterrupted_run):
    encoder = load_encoder(uninterrupted_run[0])
    kept = encoder.after(CutConfig(width_ratio=0.5, ordering="svd", recovery="ridge"))
    nothing = (1.0, "inner", "first", "none")
    names = ("width_ratio", "mode", "ordering", "recovery")
    assert encoder.cut_fields(*nothing) == dict(zip(names, nothing, strict=True)) | {"depth_ratio": 1.0}
    assert kept.cut_fields(*nothing) == {
        "width_ratio": 0.5,
        "depth_ratio": 1.0,
        "mode": "inner",
        "ordering": "svd",
        "recovery": "ridge",
    }
    assert kept.cut_fields(0.5, "heads", "first", "none") == {
        "width_ratio": 0.25,
        "depth_ratio": 1.0,
        "mode": "inner then heads",
        "ordering": "svd then first",
        "recovery": "ridge then none",
    }


def test_the_repaired_cut_goes_out_where_their_classes_can_hold_it(uninterrupted_run, tmp_path):
    flags = {"checkpoint": uninterrupted_run[0], "width_ratio": 0.5, "recovery": "ridge", "calibration_images": 32}
    assert call(command("convert", to="hf_vit_mae", output=tmp_path / "w.safetensors", **flags)).returncode == 0
    source = read_split(load_encoder(uninterrupted_run[0]), "scenes?size=16&count=512", "train", 32)
    images = np.concatenate([images for images, _ in source])
    repaired = slim(load_encoder(uninterrupted_run[0]), 0.5, "inner", "first", "ridge", images)
    back = import_weights(tmp_path / "w.safetensors", "hf_vit_mae", 2).params["encoder"]
    np.testing.assert_allclose(
        back["blocks"]["mlp_out"]["kernel"], repaired.params["blocks"]["mlp_out"]["kernel"], atol=1e-3
    )
    about = json.loads((tmp_path / "w.safetensors.json").read_text())
    assert [cut["recovery"] for cut in about["cuts"]] == ["ridge"]


def test_the_command(uninterrupted_run, tmp_path):
    line = {"checkpoint": uninterrupted_run[0], "to": "timm_vit", "output": tmp_path / "w.safetensors"}
    done = call(command("convert", **line))
    assert done.returncode == 0, done.stderr
    assert load_file(tmp_path / "w.safetensors")["cls_token"].shape == (1, 1, 32)
    assert (tmp_path / "w.safetensors.md").read_text().startswith("---\nlibrary_name: scaling")
    assert f"--output={tmp_path}/w.safetensors already exists" in error_of(call(command("convert", **line)), 2)
    line |= {"to": "hf_vit_mae", "width_ratio": 0.5, "output": tmp_path / "hf.safetensors"}
    assert call(command("convert", **line)).returncode == 0
    line["output"] = tmp_path / "other.safetensors"
    assert json.loads((tmp_path / "config.json").read_text())["head_dim"] == 8
    assert "config.json is there already; choose another folder" in error_of(call(command("convert", **line)), 2)
    line |= {"to": "stablehlo", "output": tmp_path / "program", "width_ratio": 0.5}
    assert call(command("convert", **line)).returncode == 0
    assert (tmp_path / "program").stat().st_size > 1000
    line = {"checkpoint": uninterrupted_run[0], "output": tmp_path / "kept"}
    assert "or the --width_ratio, --ordering and --recovery of a cut to save" in error_of(
        call(command("convert", **line)), 2
    )
    assert "either --input=FILE" in error_of(call(command("convert", output=tmp_path)), 2)
