"""The README is true: its Python runs, its commands and flags exist, its tables match the code."""

import contextlib
import importlib
import inspect
import json
import re
import shlex

import jax
import jax.export
import numpy as np
import pytest

import scaling
from scaling import axes
from scaling.__main__ import COMMANDS, commands
from scaling.core.config import find_config
from tests.commands import call, command
from tests.front_door import ROOT, code_blocks, image_folder, tiny_run

README = (ROOT / "README.md").read_text()


def command_lines(page):
    """The commands of a page's shell blocks as words."""
    for block in code_blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words[:2] == ["python", "-m"] or words[:1] == ["scaling"]:
                yield [words[2].removeprefix("scaling."), *words[3:]] if words[0] == "python" else words[1:]


def test_its_python_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(inspect.unwrap(scaling.fit_law).__kwdefaults__, "resamples", 20)
    (block,) = code_blocks("README.md")
    tiny_run(tmp_path, "quickstart", depth=6)
    image_folder(tmp_path)
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8))
    (tmp_path / "results").symlink_to(ROOT / "results")
    names: dict = {}
    with contextlib.chdir(tmp_path):
        exec(compile(block, "README.md", "exec"), names)
    assert names["found"].features.shape == (40, 32)
    assert set(names["found"].names[0].split("/")) & {"field", "water"}
    assert names["features"].shape == (5, 32)
    assert names["small"].config.mlp == 16
    assert 1 <= names["shallow"].config.depth < 6
    assert names["law"].fit.constants["b"] > 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert len(block.splitlines()) <= 14

    given = {"checkpoint": tmp_path / "runs" / "quarter", "to": "stablehlo", "output": tmp_path / "quarter.stablehlo"}
    done = call(command("convert", **given))  # as the page does it
    assert done.returncode == 0, done.stderr
    program = jax.export.deserialize(bytearray((tmp_path / "quarter.stablehlo").read_bytes()))
    about = json.loads((tmp_path / "quarter.stablehlo.json").read_text())
    fed = ((names["images"] - about["mean"]) / about["std"]).astype(np.float32)
    np.testing.assert_allclose(program.call(fed), names["small"].features(names["images"]), atol=1e-4)


def test_its_commands_and_their_flags_exist():
    seen = set()
    for name, *words in command_lines("README.md"):
        module = name if name.startswith("tpu.") else f"scaling.{name}"
        seen.add(name)
        if name == "tpu.launch":  # whose flags are of its subcommands and of what it starts
            continue
        flags = importlib.import_module(module).main.flags()
        given = [word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")]
        unknown = [flag for flag in given if flag not in flags and not flag.startswith("config.")]
        assert not unknown, (name, unknown)
        for word in words:
            if word.startswith("--config=") and word.endswith(".py"):
                find_config(word.removeprefix("--config="))
    assert seen >= set(commands()) | {"tpu.preflight", "tpu.launch"}


def test_its_table_of_commands_is_that_of_the_help():
    rows = re.findall(r"^\| `(\w+)` \| (.*?\?) \| (.*?) \|$", README, re.MULTILINE)
    assert rows == [(name, about.question, about.writes) for name, about in COMMANDS.items()]


def test_its_table_of_axes_is_that_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z]) \| (.*?) \| (.*?)\|", README, re.MULTILINE)
    assert len(rows) == 10
    for name, letter, meaning, mesh in rows:
        axis = axes.AXES[name]
        assert (letter, meaning, mesh.strip()) == (axis.letter, axis.meaning, ", ".join(axis.mesh))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tpu/README.md"])
def test_what_is_linked_exists(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or ((ROOT / page).parent / target).exists(), target
