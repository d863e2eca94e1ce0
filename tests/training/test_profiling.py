"""A trace of some steps, where TensorBoard looks for it."""

import jax.numpy as jnp
import pytest
from etils import epath

from scaling.core.errors import UserError
from scaling.training.profiling import Trace, parsed, traced


@pytest.mark.parametrize("where", ["local", pytest.param("bucket", marks=pytest.mark.long)])
def test_steps_are_traced_where_tensorboard_looks(tmp_path, request, where, capsys):
    if where == "bucket":
        request.getfixturevalue("bucket")
    workdir = epath.Path(tmp_path if where == "local" else "gs://bucket/run")
    trace = Trace(workdir, 3, 4)
    for step in range(1, 7):
        jnp.ones(8).sum().block_until_ready()
        trace.advance(step)
    trace.close()
    (run,) = (workdir / "tensorboard" / "plugins" / "profile").iterdir()
    (file,) = [path for path in run.iterdir() if path.name.endswith(".xplane.pb")]
    assert len(file.read_bytes()) > 100
    assert capsys.readouterr().out.startswith("trace of steps 3 to 4: tensorboard --logdir=")


@pytest.mark.parametrize("steps", ["5", "5:3", "0:3", "a:b", "-1:4"])
def test_other_steps_are_refused(steps):
    with pytest.raises(UserError, match=f"--profile={steps}: give the first and the last step"):
        parsed(steps, 100)


def test_steps_that_the_run_does_not_take_are_refused():
    with pytest.raises(UserError, match="--profile=100:110: the run has 109 steps"):
        parsed("100:110", 109)


def test_hosts_without_rows_and_later_starts_trace_nothing(tmp_path):
    run = (None, None, 10, epath.Path(tmp_path))
    assert traced(lambda *_: [], "3:4", 9)(*run, 0) == []
    assert traced(lambda *_: ["rows"], "3:4", 9)(*run, 4) == ["rows"]
    assert len(traced(lambda *_: ["rows"], "3:4", 9)(*run, 3)) == 2
