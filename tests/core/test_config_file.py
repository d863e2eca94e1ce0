"""The config file of a command line is found, or an error in it is one line."""

import pytest

from scaling import cli
from tests.commands import call, command, error_of


@pytest.mark.parametrize("flag", [["--config=vit_ti.py"], ["--config", "vit_ti.py"]], ids=str)
def test_a_config_is_found_by_its_bare_name(flag, tmp_path):
    done = call([*command("train", workdir=tmp_path), *flag, "--config.batch_size=-1"])
    assert "batch_size=-1" in error_of(done, 2)


@pytest.mark.parametrize("scheme", ["s3", "gs", "file"])
def test_a_config_file_is_of_this_machine(scheme, tmp_path):
    done = call(command("train", config=f"{scheme}://b/x.py", workdir=tmp_path / "run"))
    assert error_of(done, 2) == f"--config={scheme}://b/x.py: must be a file on this machine; copy it here"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "line 1: invalid syntax"),
        ("get_config = 3\n", ".py: TypeError: 'int' object is not callable"),
        ("x = " + "(" * 300, "too many nested parentheses"),
        ("x = " + "[" * 5000, "too many nested parentheses"),
        ("import nowhere\n", "line 1: ModuleNotFoundError: No module named 'nowhere'"),
        (
            "steps = 3\n",
            "has no get_config(); a config must be a Python file whose get_config() returns config_dict(…)",
        ),
        ("from scaling.config import config_dict\n", "line 1: scaling.config is scaling.core.config now"),
        (
            "from scaling.training.stored_config import CutConfig\n"
            "def get_config():\n    return CutConfig(slim='token')\n",
            "line 3: slim is called mode now",
        ),
        ("from scaling.sweeps.plan import SweepConfig\n", "scaling.sweeps.plan is scaling.studies.sweeps.plan now"),
        *(
            (
                f"from {old} import SweepConfig\n",
                f"{old} is scaling.studies.slimming.cells now, where SweepConfig is SlimmingStudyConfig",
            )
            for old in ("scaling.evaluation.cells", "scaling.studies.slimming.grid")
        ),
        (
            "from scaling.studies.slimming.cells import SweepConfig\n",
            "line 1: SweepConfig is called SlimmingStudyConfig now",
        ),
        ("\nfrom scaling.studies.sweeps.variation import Run, product\n", "line 2: Run is called NamedConfig now"),
        ("from scaling.studies.sweeps.plan import make_plan\n", "line 1: make_plan is called planned_runs now"),
        ("from scaling.studies.sweeps.plan import Runs\n", "line 1: ImportError: cannot import name 'Runs' from"),
        ("\ndef get_config():\n    return steps\n", "line 3: NameError: name 'steps' is not defined"),
        ("def get_config():\n    return 3\n", "get_config() of --config returns config_dict(…), not 3"),
    ],
)
def test_an_error_in_a_config_file_is_one_line(text, message, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(text)
    done = call(command("train", config=file, workdir=tmp_path / "run"))
    assert message in error_of(done, 2)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("configs", [("quickstart.py", "broken.py"), ("broken.py", "quickstart.py")])
def test_of_several_configs_the_broken_one_is_named(configs, tmp_path, capfd):
    (tmp_path / "broken.py").write_text("root:x:0:0\n")
    given = [f"--config={tmp_path / name if name == 'broken.py' else name}" for name in configs]
    assert cli.call("scaling.train", [*given, "--workdir=/nowhere"]) == 2
    assert capfd.readouterr().err == f"error: --config={tmp_path / 'broken.py'}, line 1: invalid syntax\n"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("lr", "unknown config field lr; did you mean optimizer.base_lr?"),
        ("optimizer.learning_rate", "unknown config field optimizer.learning_rate; did you mean optimizer.base_lr?"),
        ("opt.base_lr", "unknown config field opt.base_lr; did you mean optimizer.base_lr?"),
        ("patch", "unknown config field patch; did you mean model.patch_offset or model.patch_size?"),
        ("zzz", "unknown config field zzz; the fields are accumulate, batch_size, "),
        ("base_lr", "unknown config field base_lr; did you mean optimizer.base_lr?"),
        ("model.widht", "unknown config field model.widht; did you mean model.width or parametrization.width?"),
        ("average", "unknown config field average; it is called ema_decay now"),
    ],
)
def test_an_unknown_config_field_says_what_there_is(field, message, tmp_path):
    done = call(command("train", config="quickstart.py", workdir=tmp_path / "run", **{f"config.{field}": 1}))
    assert error_of(done, 2).startswith(message)
