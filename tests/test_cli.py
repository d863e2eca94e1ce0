"""Errors of a command are one line and an exit code, whatever went wrong."""

import subprocess
import sys
import textwrap

import pytest

from scaling.__main__ import commands
from scaling.errors import TrainingError, UserError
from tests.commands import ROOT, command, environment, error_of, run


def with_main(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command whose main is the given body, as a process."""
    code = "from absl import flags\nfrom scaling import cli, errors\nimport logging\n"
    code += "flags.DEFINE_integer('number', 1, '')\ndef main(argv):\n" + textwrap.indent(body, "    ")
    code += "\ncli.run(main)\n"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("error", "code"), [(UserError, 2), (TrainingError, 3)])
def test_an_error_for_the_user_is_one_line_and_its_code(error, code):
    done = with_main(f"raise errors.{error.__name__}('the folder is not there')")
    assert done.stderr == "error: the folder is not there\n"
    assert done.returncode == code


@pytest.mark.parametrize("flag", [["--config=vit_ti.py"], ["--config", "vit_ti.py"]], ids=str)
def test_a_config_is_found_by_its_bare_name(flag, tmp_path):
    done = run([*command("train", workdir=tmp_path), *flag, "--config.batch_size=-1"])
    assert "batch_size=-1" in error_of(done, 2)


def test_a_bug_shows_its_traceback():
    done = with_main("1 / 0")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_bucket_without_its_library_is_one_line():
    done = with_main("raise ImportError('Please install gcsfs to access Google Storage')")
    assert "needs gcsfs: pip install gcsfs" in error_of(done, 2)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("raise KeyboardInterrupt", 130, "interrupted; what is finished is kept"),
        ("raise OSError(28, 'No space left on device', 'out.npy')", 3, "error: out.npy: No space left on device; make"),
        ("raise PermissionError(13, 'Permission denied', 'x')", 3, "error: x: Permission denied; make room or get"),
        (
            "import importlib.metadata as m; raise m.PackageNotFoundError('libtpu')",
            2,
            "this needs libtpu: pip install libtpu, or the extra [tpu]",
        ),
        ("raise errors.UserError('caf\\udce9.png')", 2, r"error: caf\udce9.png"),
    ],
)
def test_what_is_no_bug_is_one_line(body, code, message):
    done = with_main(body)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "line 1: invalid syntax"),
        ("import nowhere\n", "line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("\ndef get_config():\n    return steps\n", "line 3: NameError: name 'steps' is not defined"),
        ("def get_config():\n    return 3\n", "get_config() of --config returns config_dict(…), not 3"),
    ],
)
def test_an_error_in_a_config_file_is_one_line(text, message, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(text)
    done = run(command("train", config=file, workdir=tmp_path / "run"))
    assert message in error_of(done, 2)
    assert len(done.stderr.splitlines()) == 1


def test_words_that_are_no_flags_are_refused():
    assert error_of(with_main("return 0", "number=3"), 2) == "number=3 is no flag; flags are --flag=value"


def test_the_package_lists_its_commands():
    done = run([sys.executable, "-m", "scaling"])
    assert {"train", "slim", "laws", "report", "coordcheck"} <= {
        line.split()[0] for line in done.stdout.splitlines()[2:]
    }
    assert error_of(run(command("train", workdir="s3://b/x", config="quickstart.py")), 2).startswith(
        "--workdir=s3://b/x: only local paths"
    )


def test_the_code_of_main_is_that_of_the_command():
    assert with_main("return 143").returncode == 143
    assert with_main("return None").returncode == 0


def test_this_package_and_its_commands_are_heard_and_libraries_only_when_they_warn():
    names = ("scaling.training", "__main__", "orbax")
    body = "\n".join(f"logging.getLogger({name!r}).info('from %s', {name!r})" for name in names)
    done = with_main(body + "\nlogging.getLogger('orbax').warning('a warning')")
    said = [line.split(" ", 1)[1] for line in done.stderr.splitlines()]
    assert said == ["from scaling.training", "from __main__", "a warning"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--nothing=3", "Unknown command line flag 'nothing'"),
        ("--numbre=3", "Unknown command line flag 'numbre'. Did you mean: number ?"),
        ("--number=many", "flag --number=many: invalid literal for int() with base 10: 'many'"),
    ],
)
def test_a_wrong_flag_is_one_line_and_code_2(flag, message):
    done = with_main("return 0", flag)
    assert error_of(done, 2) == message
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help(name):
    done = run(command(name, "--help"))
    assert f"python -m scaling.{name} " in done.stdout
