"""Errors of a command are one line and an exit code, whatever went wrong."""

import importlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
from absl import flags

from scaling.__main__ import COMMANDS, commands, main
from scaling.core.errors import TrainingError, UserError
from tests.commands import ROOT, call, command, environment, error_of, run


def of(body: str) -> str:
    """The module of a command whose main is the given body."""
    code = "from scaling import cli\nfrom scaling.core import errors\nimport logging\n"
    code += "@cli.command(lambda define: define.integer('number', 1, ''))\ndef main(argv, flags):\n"
    return code + textwrap.indent(textwrap.dedent(body), "    ") + "\n"


def with_main(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command whose main is the given body, as a process."""
    return run([sys.executable, "-c", of(body) + "cli.run(main)", *arguments])


@pytest.fixture
def within(tmp_path, monkeypatch):
    """Such a command in this process."""

    def called(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "a_command.py").write_text(of(body))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "a_command", raising=False)
        return call([sys.executable, "-m", "a_command", *arguments])

    return called


@pytest.mark.parametrize(("error", "code"), [(UserError, 2), (TrainingError, 3)])
def test_an_error_for_the_user_is_one_line_and_its_code(error, code):
    done = with_main(f"raise errors.{error.__name__}('the folder is not there')")
    assert done.stderr == "error: the folder is not there\n"
    assert done.returncode == code


def test_a_bug_shows_its_traceback():
    done = with_main("1 / 0")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_bucket_without_its_library_is_one_line(within):
    done = within("raise ImportError('Please install gcsfs to access Google Storage')")
    assert "needs gcsfs: pip install gcsfs" in error_of(done, 2)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("raise KeyboardInterrupt", 130, "interrupted; what is finished is kept"),
        ("raise OSError(28, 'No space left on device', 'out.npy')", 3, "error: out.npy: No space left on device; make"),
        ("raise PermissionError(13, 'Permission denied', 'x')", 3, "error: x: Permission denied; make room or get"),
        ("raise RuntimeError('write() failed: No space left on device')", 3, "error: No space left on device; make"),
        (
            "from gcsfs.retry import HttpError; raise HttpError({'code': 503, 'message': 'Backend Error'})",
            75,
            "error: the bucket: its server does not respond (Backend Error, 503); start the same command again",
        ),
        (
            "import importlib.metadata as m; raise m.PackageNotFoundError('libtpu')",
            2,
            "this needs libtpu: pip install libtpu, or the extra [tpu]",
        ),
        ("raise errors.UserError('caf\\udce9.png')", 2, r"error: caf\udce9.png"),
    ],
)
def test_what_is_no_bug_is_one_line(within, body, code, message):
    done = within(body)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert message in done.stderr


def test_words_that_are_no_flags_are_refused(within):
    assert error_of(within("return 0", "number=3"), 2) == "number=3: is not a flag; write it as --flag=value"


def test_the_package_lists_its_commands():
    assert set(commands()) <= set(COMMANDS)  # every command says which question it answers
    first = run([sys.executable, "-m", "scaling"])
    assert first.returncode == 0
    listed = [line.split(maxsplit=1) for line in first.stdout.splitlines() if re.match(r"  \w", line)]
    assert [tuple(pair) for pair in listed] == [(n, c.question) for n, c in COMMANDS.items() if n in commands()]
    assert all(c.question.endswith("?") for c in COMMANDS.values())
    assert error_of(run(command("train", workdir="s3://b/x", config="quickstart.py")), 2).startswith(
        "--workdir=s3://b/x: only local paths"
    )


@pytest.mark.parametrize("help", ["--help", "-h", "help"])
def test_the_console_script_lists_them_too(help, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scaling", help])
    main()
    assert "train       How do I pretrain an encoder?" in capsys.readouterr().out


def test_the_console_script_runs_them(monkeypatch, capsys):
    done = run([sys.executable, "-m", "scaling", "describe", "--model=vit_s"])
    assert done.stdout == run(command("describe", model="vit_s")).stdout
    monkeypatch.setattr(sys, "argv", ["scaling", "trian"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == "error: 'trian' is not a command; did you mean train?\n"


@pytest.mark.parametrize("module", [*(f"scaling.{name}" for name in commands()), "tpu.preflight", "tpu.launch"])
def test_a_command_is_interrupted_in_one_line_while_it_is_imported(module, tmp_path):
    for name in ("absl", "numpy", "jax", "etils"):  # whichever is first, as if Ctrl-C came then
        (tmp_path / f"{name}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env=environment() | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_second_interruption_ends_at_once():
    body = "import atexit, os, signal\natexit.register(os.kill, os.getpid(), signal.SIGINT)\nraise KeyboardInterrupt"
    done = with_main(body)
    assert done.returncode == 130
    assert [line.split(";")[0] for line in done.stderr.splitlines()] == ["interrupted", "interrupted"]


def test_an_interruption_does_not_wait_for_threads():
    body = "import threading\nthreading.Thread(target=threading.Event().wait).start()\nraise KeyboardInterrupt"
    assert with_main(body).returncode == 130


def test_threads_that_lose_what_they_were_writing_to_are_not_heard():
    body = """
        import threading
        def lose():
            raise OSError(28, "No space left on device")
        thread = threading.Thread(target=lose)
        thread.start()
        thread.join()
        raise errors.TrainingError("x: no room")"""
    assert with_main(textwrap.dedent(body)).stderr == "error: x: no room\n"


def test_a_thread_with_a_bug_is_heard():
    body = """
        import threading
        thread = threading.Thread(target=lambda: {}["a bug"])
        thread.start()
        thread.join()"""
    assert "KeyError: 'a bug'" in with_main(textwrap.dedent(body)).stderr


def test_the_code_of_main_is_that_of_the_command(within):
    assert with_main("return 143").returncode == within("return 143").returncode == 143
    assert with_main("return None").returncode == within("return None").returncode == 0


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
def test_a_wrong_flag_is_one_line_and_code_2(within, flag, message):
    done = within("return 0", flag)
    assert error_of(done, 2) == message
    assert len(done.stderr.splitlines()) == 1


MODULES = [*(f"scaling.{name}" for name in commands()), "tpu.preflight", "tpu.launch"]


@pytest.mark.parametrize("module", MODULES)
def test_every_command_has_help_that_names_its_flags(module):
    done = call([sys.executable, "-m", module, "-h"])
    assert f"python -m {module} " in done.stdout
    assert done.stdout.endswith("\nTry --helpfull to get a list of all flags.\n")
    assert done.returncode == 0
    taken = set(importlib.import_module(module).main.flags()) - set(flags.FLAGS) - HELP
    assert taken <= set(re.findall(r"--(?:\[no\])?([\w-]+)", done.stdout))


HELP = {"help", "?", "helpshort", "helpfull", "helpxml", "only_check_flags"}


def test_help_is_the_same_in_a_process_of_its_own():
    for line in (command("report", "--help"), command("describe", "-h")):
        done, here = run(line), call(line)
        assert (done.stdout, done.stderr, done.returncode) == (here.stdout, here.stderr, 0)


@pytest.mark.parametrize("module", [m for m in MODULES if m not in ("scaling.laws", "scaling.report", "tpu.launch")])
def test_words_are_refused_by_every_command_that_takes_none(module):
    done = call([sys.executable, "-m", module, "config.steps=5"])
    assert error_of(done, 2) == "config.steps=5: is not a flag; write it as --flag=value"


def test_commands_are_called_in_one_process_one_after_another(tmp_path):
    shared = set(flags.FLAGS)
    rows = [json.loads(call(command("describe", "--json", model=name)).stdout) for name in ("vit_s", "vit_b")]
    assert [row["model"] for row in rows] == ["vit_s", "vit_b"]
    assert "give a file of rows" in error_of(call(command("laws", json=tmp_path / "law.json")), 2)
    assert "vit_s" in call(command("describe", model="vit_s")).stdout.splitlines()[0]  # a table again, not JSON
    assert set(flags.FLAGS) == shared


def test_a_call_leaves_the_process_as_it_was(within):
    def state():
        root = logging.getLogger()
        levels = [logging.getLogger(name).level for name in (None, "absl", "asyncio", "scaling", "__main__")]
        hooks = (threading.excepthook, sys.unraisablehook, sys.stdout.errors, sys.stderr.errors)
        values = {name: (flags.FLAGS[name].value, flags.FLAGS[name].present) for name in flags.FLAGS}
        signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return [levels, list(root.handlers), hooks, signals, values, list(sys.argv)]

    before = state()
    for body, code in (("return 0", 0), ("raise KeyboardInterrupt", 130), ("raise errors.TrainingError('x')", 3)):
        assert within(body, "--number=2", "--verbosity=1").returncode == code
        assert state() == before
    with pytest.raises(ZeroDivisionError):
        within("1 / 0")
    assert state() == before


def test_what_a_call_says_is_heard_where_it_is_called(within):
    body = "logging.getLogger('scaling.x').info('a step')\nprint(flags.number)"
    for number in ("3", "4"):
        done = within(body, f"--number={number}")
        assert done.stdout == f"{number}\n"
        assert done.stderr.endswith(" a step\n")
        assert len(done.stderr.splitlines()) == 1
