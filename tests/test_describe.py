"""The description of every architecture, without building it."""

import json

import pytest

from scaling import describe as module
from scaling.core.errors import UserError
from scaling.encoders.slimmed import slim
from scaling.models.variants import ALIASES, PUBLIC, VARIANTS, architecture
from scaling.objectives import objective_config
from scaling.slimming.widths import PUBLISHED_WIDTHS
from scaling.training.stored_config import CutConfig
from tests.commands import ROOT, call, command, error_of, run
from tests.encoders.examples import small_encoder

CONVENTIONS = {"full", "published"}
PUBLISHED = ROOT / "tests" / "compute" / "published_axis.json"


def describe(name, **overrides):
    return module.describe(name, architecture(name, **overrides), module.pretrained_by(name))


@pytest.mark.parametrize("name", [*VARIANTS, *ALIASES])
def test_every_architecture_is_described(name):
    d = json.loads(json.dumps(describe(name)))
    assert {"model", "params", "flops"} <= set(d)
    assert d["model"] == name
    params = d["params"]
    assert params["encoder"] + params["decoder"] == params["total"] > 0
    for kind in ("flops", "pretraining"):
        assert set(d[kind]) == CONVENTIONS
        for convention in CONVENTIONS:
            assert {"encoder", "decoder"} <= set(d[kind][convention])
        assert d[kind]["full"]["encoder"] > 1.9 * d[kind]["published"]["encoder"]  # 2 a product, and the attention
    for convention in CONVENTIONS:  # a quarter of the patches is encoded in pretraining
        assert 3.5 < d["flops"][convention]["encoder"] / d["pretraining"][convention]["encoder"] < 4.5


@pytest.mark.parametrize(
    ("name", "part", "count"), [("mae_vit_base", "total", 111_655_680), ("vit_l12x4", "encoder", 605_261_824)]
)
def test_counts_of_the_references(name, part, count):
    assert describe(name)["params"][part] == count


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_the_names_of_the_reference_implementation_are_understood(alias, name):
    assert describe(alias) | {"model": name} == describe(name)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_models_are_encoders(name):
    d = json.loads(json.dumps(describe(name)))
    assert "pretraining" not in d
    assert d["params"]["decoder"] == d["flops"]["full"]["decoder"] == 0
    assert d["params"]["encoder"] == d["params"]["total"] > 2e7
    assert d["explicit_attention"] == [n or "encoder" for n in PUBLIC[name].explicit_attention]


def test_a_chip_is_set_beside_a_model():
    d = describe("vit_l")
    found = module.on_chip(d, "NVIDIA H100 80GB HBM3")
    assert found["memory_gib"] == 80
    assert found["state_gib"] == pytest.approx(12 * d["params"]["total"] / 2**30)
    whole, pretraining = d["flops"]["full"]["encoder"], d["pretraining"]["full"]
    assert found["features_per_second"] * whole == pytest.approx(989e12)
    step = 3 * (pretraining["encoder"] + pretraining["decoder"])
    assert found["pretraining_per_second"] * step == pytest.approx(989e12)
    encoder = module.on_chip(describe("dofa_base"), "TPU v5 lite")
    assert "pretraining_per_second" not in encoder


def test_keys_cost_a_forward_pass_beside_the_three_of_a_contrast():
    model = architecture("vit_ti", image_size=32)
    contrast = objective_config("moco", frozen_patches=False)
    d = json.loads(json.dumps(module.describe("a", model, contrast)))
    queries, keys = d["pretraining"]["full"], d["forward_only"]["full"]
    assert queries["encoder"] == keys["encoder"] == 2 * d["flops"]["full"]["encoder"]
    assert keys["predictor"] == 0
    step = 3 * (queries["encoder"] + queries["projector"] + queries["predictor"]) + keys["encoder"] + keys["projector"]
    found = module.on_chip(d, "NVIDIA H100 80GB HBM3")
    assert found["pretraining_per_second"] * step == pytest.approx(989e12)


def test_an_unknown_chip_is_answered_with_those_that_are_known():
    with pytest.raises(UserError, match=r"^--chip=H100: must be the name that JAX gives a device, .*NVIDIA H200"):
        module.on_chip(describe("vit_b"), "H100")


def test_the_command_prints_json_on_one_line():
    done = run(command("describe", "--json", model="vit_l12x4"))
    assert json.loads(done.stdout) == describe("vit_l12x4")


def test_the_command_prints_a_table_for_a_config_with_overrides():
    done = call(command("describe", config="vit_b.py", **{"config.model.bands": 10}))
    expected = describe("vit_b", bands=10)
    assert "10 bands, patch 16" in done.stdout
    assert f"{expected['params']['total']:,}" in done.stdout
    assert f"{expected['flops']['published']['encoder'] / 1e9:,.3f}" in done.stdout


def test_widths_in_json_are_relative_to_full_width():
    done = call(command("describe", "--json", model="vit_b", bands=10, widths="published"))
    described = json.loads(done.stdout)
    rows = described.pop("widths")
    assert described == describe("vit_b", bands=10)
    assert [row["s"] for row in rows] == list(PUBLISHED_WIDTHS)
    assert all(set(row) == {"s", "compute"} and set(row["compute"]) == CONVENTIONS for row in rows)
    assert rows[-1] == {"s": 1.0, "compute": {"published": 1.0, "full": 1.0}}
    assert rows[0]["compute"]["published"] == pytest.approx(0.0293, abs=2e-4)


def test_the_command_compares_with_published_values():
    done = call(command("describe", model="prithvi_eo_v2_300", widths="0.001,0.02,0.1", against=PUBLISHED))
    lines = [line.split() for line in done.stdout.replace("│", " ").splitlines()]
    rows = {cells[0]: cells[1:] for cells in lines if cells and cells[0] in {"0.001", "0.02", "0.1"}}
    assert rows["0.001"][1:3] == ["0.0118", "0.0118"]
    assert abs(float(rows["0.1"][3])) < 2e-4
    assert len(rows["0.02"]) == 2  # no published value in the file


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "give either --model=NAME or --config=FILE"),
        ({"model": "vit_b", "config": "vit_b.py"}, "give either --model=NAME or --config=FILE"),
        ({"model": "vit_x"}, "unknown model 'vit_x'; the models are vit_ti, "),
        ({"config": "vit_b.py", "config.model.image_size": 100}, "image_size=100 is not divisible by"),
        ({"config": "vit_b.py", "bands": 10}, "--bands: with --config=FILE, use --config.model.bands"),
        ({"model": "vit_b", "widths": "all"}, "--widths=all: must be `published`, or numbers"),
        ({"model": "vit_b", "against": PUBLISHED}, "--against: needs widths; give --widths"),
    ],
    ids=["neither", "both", "unknown", "impossible", "bands", "widths", "against"],
)
def test_wrong_input_is_one_line(flags, message):
    assert message in error_of(call(command("describe", **flags)), 2)


def test_a_checkpoint_says_in_words_how_it_was_cut(tmp_path):
    slim(small_encoder(), 0.5, ordering="svd").after(CutConfig(width_ratio=0.5, ordering="svd")).save(tmp_path / "cut")
    done = call(command("describe", checkpoint=tmp_path / "cut"))
    assert done.returncode == 0, done.stderr
    assert "\ncuts           width 0.5 inner svd\n" in done.stdout
    assert "family" not in done.stdout
