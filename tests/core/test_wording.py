"""Messages that are written for commands, in the words of Python."""

import pytest

from scaling.core.errors import UserError
from scaling.core.wording import for_python, in_command, in_python


@pytest.mark.parametrize(
    ("said", "names", "wanted"),
    [
        ("--checkpoint=a/b has no folder `checkpoints`", ["path"], "path=a/b has no folder `checkpoints`"),
        ("take another (--step): there are 2", ["path", "step"], "take another (step): there are 2"),
        ("--workdir=r was started with x", ["workdir"], "workdir=r was started with x"),
        ("name it: --change=data.source,seed", ["change"], "name it: change=['data.source', 'seed']"),
        ("--keep=0,7: there is no block 7", ["keep"], "keep=[0, 7]: there is no block 7"),
        ("--axes=mlp, --widths=0.5,1.0: nothing", ["axes"], "axes=['mlp'], widths=[0.5, 1.0]: nothing"),
        ("give --bands=… too", ["bands"], "give bands=… too"),
        (
            "set --config.model.position=learned --config.model.width=64; or",
            ["fields"],
            "set fields={'model.position': 'learned', 'model.width': 64}; or",
        ),
        ("set --config.model.registers=(1, 2).", [], "set fields={'model.registers': (1, 2)}."),
        (
            "set --config.data.source=folder:my tiles/a, then",
            [],
            "set fields={'data.source': 'folder:my tiles/a'}, then",
        ),
        (
            "set --config.data.split=train[:80%,stratified] and --config.name=a b.c: no",
            [],
            "set fields={'data.split': 'train[:80%,stratified]'} and fields={'name': 'a b.c'}: no",
        ),
        ("--checkpoint=/tmp/a-b/--x: no", ["checkpoint"], "checkpoint=/tmp/a-b/--x: no"),
        ("--output=my --data/x: there (`--output`)", [], "output=my --data/x: there (`output`)"),
        ("write e.g. a--b, 1 -- 2 and -v", [], "write e.g. a--b, 1 -- 2 and -v"),
        ("stopped; the same command resumes", [], "stopped; the same call resumes"),
        ("and 2 more; --print_config lists all", [], "and 2 more; the command with --print_config lists all"),
    ],
)
def test_flags_are_said_as_arguments(said, names, wanted):
    assert in_python(said, names) == wanted


def test_only_python_is_answered_in_its_words():
    @for_python
    def load(path):
        raise UserError(f"--checkpoint={path}: is not there")

    with pytest.raises(UserError, match=r"^path=x: is not there$"):
        load("x")
    with in_command(), pytest.raises(UserError, match=r"^--checkpoint=x: is not there$"):
        load("x")
