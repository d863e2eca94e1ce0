"""Preflight of every objective and task: it builds the step of each config, and refuses what has none in one line.

Compiling them takes minutes each; `tests/tpu/test_compiled.py` does it for small ones, results/preflight for the large.
"""

import math

import jax
import pytest

import tpu.preflight
from scaling.parallel.mesh import mesh_shape
from tests.commands import error_of
from tests.tpu.examples import ROW, preflight
from tpu.compiler.step import fsdp_bytes, state_bytes, train_step_for
from tpu.compiler.topology import parse

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture
def built(monkeypatch):
    """The steps that preflight would compile."""
    steps = []

    def stand_in(name, c, place):
        steps.append(train_step_for(c, place))
        return ROW | {"config": name, "topology": place.name}

    monkeypatch.setattr(tpu.preflight, "preflight", stand_in)
    return steps


PRETRAINING = {"moco_b.py": (2, 1), "slimmable_l.py": (1, 0), "slimmable_moco_ti8.py": (2, 1), "quickstart.py": (1, 0)}
SCENES = "--config.data.source=scenes?size=64&targets="
RECIPES = {
    "classification": ("finetune.py", "vit_b", ()),
    "slimmable classification": ("finetune_slimmable.py", "vit_b", ()),
    "segmentation": ("segment.py", "vit_b", (f"{SCENES}mask",)),
    "detection": ("detect.py", "vit_b", (f"{SCENES}boxes",)),
}


@pytest.mark.parametrize(
    "config", [pytest.param(x, marks=[pytest.mark.long] * (x == "slimmable_moco_ti8.py")) for x in PRETRAINING]
)
def test_the_step_of_an_objective_has_its_views_and_auxiliary_trees(built, config):
    done = preflight(f"--config={config}", "--topology=v5e:4x4")
    assert done.returncode == 0, done.stderr
    (step,) = built
    views, beside = PRETRAINING[config]
    images = [name for name in step.objective.abstract_batch(step.config.batch_size) if name.startswith("image")]
    assert (len(images), len(step.abstract.extra)) == (views, beside)
    assert math.prod(mesh_shape(step.config.mesh, 16)) == 16
    assert fsdp_bytes(step) > 0
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(step.abstract.params))
    assert state_bytes(step) >= parameters * 4 / 16


@pytest.mark.parametrize(
    ("config", "model", "more"),
    [
        *(pytest.param(*recipe, id=name) for name, recipe in RECIPES.items()),
        pytest.param("detect_g12x4.py", "vit_g12x4", (), marks=pytest.mark.long),
    ],
)
def test_the_step_of_a_task_has_its_head(built, config, model, more):
    place = "v5e:4x4" if "g12x4" in config else "v5e:2x2"
    done = preflight(f"--config={config}", f"--model={model}", f"--topology={place}", *more)
    assert done.returncode == 0, done.stderr
    (step,) = built
    assert len(step.abstract.params) > 1
    assert step.flops_per_image() > 0
    assert state_bytes(step) < parse(place).hbm_limit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=slim.py"], "--config: is a config of scaling.slim; give one of scaling.train"),
        (["--config=sweeps/width.py"], "--config: is a config of scaling.sweep; give one of scaling.train"),
        (["--config=efficiency.py"], "--config: is a config of scaling.efficiency; give one of scaling.train"),
        (["--config=moco_b.py", "--model=vit_b"], "--model=vit_b: only for a fine-tuning recipe"),
        (["--config=moco_b.py", "--config.accumulate=2"], "accumulate=2: the loss of moco needs the whole batch"),
        (
            ["--config=moco_b.py", "--config.model.bands=4"],
            "data.photometric=byol: needs three 8-bit colours, not model.bands=4; byol_bands is for any bands",
        ),
        (["--config=vit_b.py", "--config.objective.mask_ratio=1.5"], "objective.mask_ratio=1.5 leaves -98 of 196"),
        (["--config=moco_b.py", "--config.mesh.tensor=5"], "mesh.tensor=5"),
        (["--config=segment.py", "--model=vit_b"], "pairs:DIR"),
        (["--config=segment.py", "--model=vit_b", f"{SCENES}boxes"], "no masks, from which segmentation learns"),
        (["--config=detect.py", "--model=vit_b", f"{SCENES}mask"], "no boxes, from which detection learns"),
        (["--config=finetune.py", "--model=vit_b", "--config.batch_size=30"], "batch_size=30"),
    ],
)
def test_what_has_no_step_is_one_line(built, arguments, message):
    assert message in error_of(preflight(*arguments, "--topology=v5e:4x4"), 2)
    assert not built
