"""The command: wrong input, and the config that it compiles."""

import json

import pytest

import tpu.preflight
from tests.commands import error_of
from tests.tpu.examples import ROW, preflight
from tpu.compiler.step import train_step_for


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=vit_b.py"], "give --config=FILE and --topology=CHIP:SHAPE or --smallest=CHIP, or --table=FOLDER"),
        (["--config=vit_b.py", "--smallest=v5"], "--smallest=v5: the chips are v4, v5e, v5p, v6e, tpu7x"),
        (["--config=vit_b.py", "--smallest=v5e", "--fit"], "--smallest: chooses the slice itself; leave out"),
        (["--config=vit_b.py", "v5e:2x2"], "v5e:2x2: is not a flag"),
        (["--config=vit_b.py", "--topology=v5e:2x2", "--price=-1"], "--price=-1: "),
        (["--config=vit_b.py", "--topology=v5e:2x2", "--price=inf"], "--price=inf: must be a finite number"),
        (["--config=vit_b.py", "--topology=v5e:2x2", "--mfu=0"], "--mfu=0.0: must be above 0"),
        (["--table=x", "--topologies=v5e:8x8", "--json=y"], "leave out --config, --topology and --json"),
        (["--table=x", "--configs=vit_b", "--fit"], "--table with --fit: searches take hours; name the --configs and"),
        (["--table=x", "--configs=vit_b,vit_hh"], "no config file 'vit_hh.py'"),
        (["--config=vit_b.py", "--topology=v5e:16x16", "--config.batch_size=100"], "the nearest that is: 256"),
        (["--config=segment_g12x4.py", "--topology=v5e:16x16"], "needs an encoder; give one, as --model=vit_g12x4"),
        (
            ["--config=vit_b.py", "--model=vit_b", "--topology=v5e:16x16"],
            "--model=vit_b: only for a fine-tuning recipe",
        ),
        (["--config=segment_g12x4.py", "--model=vit_g12", "--topology=v5e:16x16"], "unknown model 'vit_g12'"),
        (
            ["--config=segment_g12x4.py", "--model=vit_g12x4", "--topology=v5e:16x16", "--config.image_size=500"],
            "image_size=500 is not divisible by model.patch_size=16",
        ),
    ],
    ids=[
        "no slice",
        "chip",
        "two searches",
        "no flag",
        "a price below nothing",
        "a price without end",
        "no MFU",
        "two tasks",
        "a search of everything",
        "a config of many",
        "batch",
        "a recipe of no encoder",
        "an encoder twice",
        "no such encoder",
        "an image of no patches",
    ],
)
def test_wrong_input_is_one_line_before_anything_is_compiled(arguments, message):
    assert message in error_of(preflight(*arguments), 2)


@pytest.mark.usefixtures("compiler")
def test_a_recipe_of_fine_tuning_is_compiled_with_its_encoder_and_head(monkeypatch, tmp_path):
    seen = {}

    def stand_in(name, c, place):
        seen["config"], seen["step"] = c, train_step_for(c, place)
        return ROW | {"config": name, "topology": place.name}

    monkeypatch.setattr(tpu.preflight, "preflight", stand_in)
    recipe = ["--config=segment_g12x4.py", "--model=vit_g12x4", "--topology=v5e:16x16"]
    done = preflight(*recipe, "--config.model.window=16", f"--json={tmp_path / 'row.json'}")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "row.json").read_text())["config"] == "segment_g12x4"
    c, train_step = seen["config"], seen["step"]
    assert (c.steps, c.optimizer.warmup, len(c.task.classes)) == (2500, 47, 8)
    assert (c.model.width, c.model.grid, c.model.global_blocks) == (2048, (32, 32), (3, 6, 9, 12))
    assert dict(train_step.mesh.shape) == {"replica": 4, "fsdp": 64, "tensor": 1}
    fusion = 3 * 2 * 9 * 4 * 512 * 512 * 128**2  # of one image, forward and backward
    assert 2 * fusion < train_step.flops_per_image() < 40 * fusion
