"""Values of flags, and the fields of a config as they are printed."""

import importlib
import re
import runpy

import pytest
from flax.traverse_util import flatten_dict

from scaling import cli
from scaling.__main__ import commands
from scaling.core.config import find_config
from scaling.core.errors import UserError
from tests.commands import call, command, error_of


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
def test_a_number_is_finite(value, capfd):
    assert cli.call("scaling.laws", [f"--delta={value}"]) == 2
    assert "--delta=" in (error := capfd.readouterr().err)
    assert "must be a finite number" in error


def printed(*arguments, **flags):
    """The lines of --print_config, by the field that each is of: type, value, default, origin."""
    done = call(command(*arguments, print_config=True, **flags))
    assert done.returncode == 0, done.stderr
    header, *lines = ([cell.strip() for cell in re.split("  +", line)] for line in done.stdout.splitlines())
    assert header == ["field", "type", "value", "default", "from"]
    return {path: cells for path, *cells in lines}


def test_the_fields_of_a_config_are_printed_with_types_defaults_and_origins():
    found = printed("train", config="quickstart.py", **{"config.steps": 7, "config.objective.decoder_depth": 2})
    assert found["steps"] == ["int", "7", "1000", "command line"]
    assert found["batch_size"] == ["int", "128", "256", "config file"]
    assert found["data.crop_scale"] == ["tuple[float, float]", "(0.2, 1.0)", "(0.2, 1.0)", "default"]
    assert found["objective.decoder_depth"] == ["int", "2", "8", "command line"]
    contrast = printed("train", config="moco_b.py")
    assert contrast["objective.name"] == ["str", "'moco'", "'moco'", "default"]


@pytest.mark.parametrize(
    ("name", "config", "of_file"),
    [
        ("train", "vit_h.py", "steps"),
        ("finetune", "segment_scenes.py", "task.name"),
        ("slim", "slim.py", "datasets.scenes.source"),
        ("efficiency", "efficiency.py", "recipe.epochs"),
        ("sweep", "sweeps/width.py", "vary.width"),
        ("coordcheck", "small.py", "steps"),
        ("describe", "vit_h.py", "steps"),
    ],
)
def test_every_command_with_a_config_prints_all_of_its_fields(name, config, of_file):
    values = runpy.run_path(str(find_config(config)))["get_config"]().to_dict()
    expected = {path for path, value in flatten_dict(values, sep=".", keep_empty_nodes=True).items()}
    found = printed(name, config=config)
    assert set(found) == expected
    assert of_file in expected


def test_a_config_that_is_printed_is_given_and_of_the_right_types():
    assert error_of(call(command("train", print_config=True)), 2).startswith("--print_config: needs a config")
    wrong = call(command("finetune", config="quickstart.py", print_config=True))
    assert "objective" in wrong.stdout + wrong.stderr


@pytest.mark.parametrize("name", ["laws", "report"])
def test_files_beside_the_flags_are_paths_too(name):
    assert error_of(call(command(name, "s3://b/x.jsonl")), 2).startswith("s3://b/x.jsonl: only local paths and gs://…")
    assert "/rows.jsonl: there is no such file" in error_of(call(command(name, "~/nowhere/rows.jsonl")), 2)


def test_every_flag_that_takes_a_path_takes_it_as_a_shell_does(monkeypatch):
    def takes_paths(flag):
        try:
            flag.parser.parse("s3://user/x")
        except UserError:
            return flag.parser.parse("~/x") == "/home/me/x"
        except Exception:
            pass
        return False

    monkeypatch.setenv("HOME", "/home/me")
    found = {}
    for module in [f"scaling.{name}" for name in commands()] + ["tpu.preflight"]:
        taken = importlib.import_module(module).main.flags()
        found[module] = sorted(name for name in taken if takes_paths(taken[name]))
    assert found == {
        "scaling.convert": ["checkpoint", "input", "output", "rows"],
        "scaling.coordcheck": ["output"],
        "scaling.describe": ["against", "checkpoint"],
        "scaling.efficiency": ["checkpoint", "output"],
        "scaling.features": ["checkpoint", "input", "labels", "output"],
        "scaling.finetune": ["checkpoint", "workdir"],
        "scaling.laws": ["figure", "json"],
        "scaling.predict": ["checkpoint", "input", "output", "pictures", "truth"],
        "scaling.prune": ["checkpoint", "json", "output"],
        "scaling.similarity": ["checkpoint", "other", "output"],
        "scaling.prepare": ["output"],
        "scaling.probe": ["checkpoint"],
        "scaling.report": ["output"],
        "scaling.reproduce": ["output", "weights"],
        "scaling.search": ["checkpoint", "json", "output"],
        "scaling.score": ["images", "json", "predictions", "truth"],
        "scaling.slim": ["checkpoint", "output"],
        "scaling.sweep": ["workdir"],
        "scaling.train": ["init_from", "workdir"],
        "tpu.preflight": ["json", "table"],
    }


@pytest.mark.parametrize(("old", "new"), [("width", "width_ratio"), ("slim", "mode")])
def test_a_flag_that_was_called_otherwise_says_so(old, new):
    done = call(command("features", checkpoint="somewhere", input="x.npy", output="y.npy", **{old: 0.5}))
    assert error_of(done, 2) == f"--{old} is now called --{new}; use that"
