"""The recipes of CONTRIBUTING.md are complete: each is run as written, and its result is used."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file, save_file

import scaling
from scaling.data.sources import registry
from scaling.interop.exporting import export_weights
from scaling.interop.families import FAMILIES
from scaling.interop.importing import import_weights
from scaling.objectives import OBJECTIVES, TASKS, Inputs, objective_config
from scaling.slimming import widths
from tests.encoders.examples import small_encoder
from tests.front_door import code_blocks, tiny_run

OBJECTIVE, TASK, SOURCE, FAMILY, CUT = range(5)
OF = Inputs((100.0,) * 3, (50.0,) * 3)


@pytest.fixture
def recipe(tmp_path):
    """Runs a recipe next to runs/quickstart; the registries are restored afterwards."""
    tables = (OBJECTIVES._known, TASKS._known, registry.SCHEMES, FAMILIES, widths.MODES)
    before = [dict(table) for table in tables]
    tiny_run(tmp_path, "quickstart", depth=3)

    def run(number):
        names = {"__name__": "recipe"}
        exec(compile(code_blocks("CONTRIBUTING.md")[number], "CONTRIBUTING.md", "exec"), names)
        return names

    with contextlib.chdir(tmp_path):
        yield run
    for table, was in zip(tables, before, strict=True):
        table.clear()
        table.update(was)


def test_there_are_five():
    assert len(code_blocks("CONTRIBUTING.md")) == 5


def test_the_objective_is_trained_by_its_name(recipe):
    recipe(OBJECTIVE)
    c, model = (
        objective_config("robust_mae", decoder_width=16, decoder_depth=1, decoder_heads=2),
        small_encoder().config,
    )
    c.check(model)
    robust, plain = c.make(model, OF), objective_config("mae", **_fields(c)).make(model, OF)
    params, images = jax.jit(plain.init)(0), np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    inputs = jax.jit(robust.inputs)(0, jnp.int32(0), {"image": images})
    losses = [float(jax.jit(o.loss)(params, {}, inputs)[0]) for o in (robust, plain)]
    assert losses[0] == pytest.approx(np.log1p(losses[1]), rel=1e-5)


def _fields(c):
    return {name: value for name, value in dataclasses.asdict(c).items() if name not in ("name", "gamma")}


def test_the_task_differs_from_classification_as_it_says(recipe):
    recipe(TASK)
    logits, targets = jnp.array([[4.0, 0.0], [0.0, 0.5]]), jnp.array([[1.0, 0.0], [1.0, 0.0]])
    model = small_encoder().config
    (plain, focal), cross = [
        [objective_config(name, **fields).make(model, OF)._losses(logits, targets) for name, fields in cases]
        for cases in ([("classification", {}), ("focal", {})], [("focal", {"gamma": 0.0})])
    ]
    np.testing.assert_allclose(cross[0], plain, rtol=1e-6)
    np.testing.assert_allclose(focal, (1 - np.exp(-plain)) ** 2 * plain, rtol=1e-5)


def test_the_source_is_read_by_every_command(recipe):
    recipe(SOURCE)
    found = scaling.features(scaling.load("runs/quickstart"), "squares?count=10")
    assert sorted(found.names) == sorted(f"square {i}" for i in range(10))
    assert [int(name.split()[1]) % 2 for name in found.names] == found.labels.tolist()
    dark = found.features[found.labels == 0]
    np.testing.assert_array_equal(dark[0], dark[1])
    assert np.abs(dark[0] - found.features[found.labels == 1][0]).max() > 0


def test_the_family_is_read_token_by_token(recipe, tmp_path):
    recipe(FAMILY)
    encoder = small_encoder(width=192, heads=3, head_dim=64, depth=1)
    export_weights(encoder, "timm_vit", epath.Path(tmp_path / "timm.safetensors"))
    theirs = {f"student.{key}": x for key, x in load_file(tmp_path / "timm.safetensors").items()}
    save_file(theirs, tmp_path / "student.safetensors")
    imported = import_weights(tmp_path / "student.safetensors", "student")
    assert imported.config.licence == "that of the weights"
    again = dataclasses.replace(encoder, config=imported.config.model, params=imported.params["encoder"])
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3))
    tokens = [e.features(images, "tokens", normalised=True) for e in (again, encoder)]
    np.testing.assert_allclose(*tokens, atol=1e-4)


def test_the_cut_is_made_by_every_way_in(recipe):
    names = recipe(CUT)
    thin = names["thin"].config
    assert (thin.head_dim, thin.mlp, thin.heads, thin.width, thin.depth) == (8, 32, 1, 32, 3)
    kernel = names["parameters"]["blocks"]["mlp_in"]["kernel"]
    assert (kernel.shape[0], kernel.shape[-1]) == (2, 16)
