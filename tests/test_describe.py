"""What is said about every architecture, without building it."""

import json

import pytest

from scaling.describe import describe
from scaling.models.variants import ALIASES, VARIANTS, mae
from tests.commands import command, error_of, run

CONVENTIONS = {"full", "published"}


@pytest.mark.parametrize("name", [*VARIANTS, *ALIASES])
def test_every_architecture_is_described(name):
    d = json.loads(json.dumps(describe(name, mae(name))))
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
    assert describe(name, mae(name))["params"][part] == count


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_the_names_of_the_reference_implementation_are_understood(alias, name):
    assert describe(alias, mae(alias)) | {"model": name} == describe(name, mae(name))


def test_the_command_prints_json_on_one_line():
    done = run(command("describe", "--json", model="vit_l12x4"))
    assert json.loads(done.stdout) == describe("vit_l12x4", mae("vit_l12x4"))


def test_the_command_prints_a_table_for_a_config_with_overrides():
    done = run(command("describe", config="vit_b.py", **{"config.model.bands": 10}))
    expected = describe("", mae("vit_b", bands=10))
    assert "10 bands, patch 16" in done.stdout
    assert f"{expected['params']['total']:,}" in done.stdout
    assert f"{expected['flops']['published']['encoder'] / 1e9:,.3f}" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "give either --model=NAME or --config=FILE"),
        ({"model": "vit_b", "config": "vit_b.py"}, "give either --model=NAME or --config=FILE"),
        ({"model": "vit_x"}, "unknown model 'vit_x'; the models are vit_ti, "),
        ({"config": "vit_b.py", "config.model.image_size": 100}, "image_size=100 is not divisible by"),
    ],
    ids=["neither", "both", "unknown", "impossible"],
)
def test_wrong_input_is_one_line(flags, message):
    assert message in error_of(run(command("describe", **flags)), 2)
