"""The real command line, in processes of its own and in this one, with a model that trains in seconds."""

import contextlib
import functools
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any
from unittest import mock

from scaling import cli
from tests import QUICK

ROOT = Path(__file__).resolve().parents[1]

TINY = {
    "steps": 40,
    "batch_size": 16,
    "checkpoint_every": 5,
    "log_every": 1,
    "eval_every": 40,
    "model.image_size": 16,
    "model.width": 32,
    "model.depth": 2,
    "model.heads": 2,
    "model.head_dim": 16,
    "model.mlp": 64,
    "objective.decoder_width": 16,
    "objective.decoder_depth": 1,
    "objective.decoder_heads": 2,
    "data.source": "scenes?size=16&count=512",
    "optimizer.base_lr": 2e-2,
    "optimizer.warmup": 5,
    "mesh.min_shard_elements": 0,
    "checkpoint.keep_last": 100,
}

_OPTIMISED = "SCALING_TESTS_OPTIMISED"


@functools.cache
def _caches() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="scaling-tests-")


def cache_folder() -> str:
    """The cache folder shared by all processes of a test session."""
    return _caches().name


def optimised_programs() -> Any:
    """A context in which the processes that are started compile their programs as a user's do."""
    return mock.patch.dict(os.environ, {_OPTIMISED: "1"})


def environment(devices: int = 1) -> dict[str, str]:
    """Fake CPU devices; programs compiled and band statistics measured once for all processes of a test session.

    Programs are compiled as those of the tests are, fast rather than well, but for `optimised_programs`.
    """
    optimised = _OPTIMISED in os.environ
    flags = [f"--xla_force_host_platform_device_count={devices}", QUICK]
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join(flags[:1] if optimised else flags),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": str(not optimised),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "SCALING_CACHE": cache_folder(),
        "COLUMNS": "200",
    }


def command(name: str, *arguments: str, **flags: Any) -> list[str]:
    """`python -m scaling.NAME ARGUMENTS --flag=value …`."""
    return [sys.executable, "-m", f"scaling.{name}", *arguments, *[f"--{k}={v}" for k, v in flags.items()]]


def train_command(workdir: Path, overrides: dict[str, Any] | None = None, **flags: Any) -> list[str]:
    """Training of the tiny model; `overrides` are config fields by their dotted path."""
    fields = {f"config.{field}": value for field, value in {**TINY, **(overrides or {})}.items()}
    return command("train", config="quickstart.py", workdir=workdir, **fields, **flags)


def start(arguments: list[str], devices: int = 1) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Waits for the end; a process that does not come to one is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(arguments: list[str], devices: int = 1) -> subprocess.CompletedProcess[str]:
    return finish(start(arguments, devices))


def call(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Like `run`, in this process and on its devices, which saves the imports. A bug is raised."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    python, dash, module, *given = arguments
    assert (python, dash) == (sys.executable, "-m")
    with (
        mock.patch.dict(os.environ, {"SCALING_CACHE": cache_folder(), "COLUMNS": "200"}),
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = cli.call(module, given)
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, code, *said)


def train(workdir: Path, overrides: dict[str, Any] | None = None, devices: int = 1) -> subprocess.CompletedProcess[str]:
    """Trains to the end; fails the test where that fails."""
    done = run(train_command(workdir, overrides), devices)
    assert done.returncode == 0, done.stderr
    return done


def start_together(
    workdir: Path, overrides: dict[str, Any] | None = None, processes: int = 2, devices: int = 4, **flags: Any
) -> list[subprocess.Popen[str]]:
    """Starts the same run in several processes that find each other on this machine."""
    where = f"localhost:{free_port()}"
    together = {"coordinator": where, "processes": processes, **flags}
    return [start(train_command(workdir, overrides, process=k, **together), devices) for k in range(processes)]


def train_together(
    workdir: Path, overrides: dict[str, Any] | None = None, processes: int = 2, devices: int = 4
) -> None:
    """Trains to the end in several processes; fails the test if one of them fails."""
    finish_together(start_together(workdir, overrides, processes, devices))


def finish_together(running: list[subprocess.Popen[str]]) -> None:
    """Waits for the processes of one run; fails the test if one of them fails, and leaves none behind."""
    try:
        for done in [finish(process) for process in running]:
            assert done.returncode == 0, done.stderr
    finally:
        for process in running:
            process.kill()


def interrupt_together(
    workdir: Path, rows: int, how: signal.Signals, which: int, processes: int, devices: int, **flags: Any
) -> list[subprocess.CompletedProcess[str]]:
    """Trains in several processes until a number of rows is written, then sends a signal to one of them."""
    running, log = start_together(workdir, None, processes, devices, **flags), workdir / "metrics.jsonl"
    try:
        while all(p.poll() is None for p in running) and (not log.exists() or log.read_text().count("\n") < rows):
            time.sleep(0.002)
        running[which].send_signal(how)
        return [finish(process) for process in running]
    finally:
        for process in running:
            process.kill()


def interrupt(workdir: Path, rows: int, how: signal.Signals) -> subprocess.CompletedProcess[str]:
    """Trains until so many rows are written, then sends a signal."""
    process, log = start(train_command(workdir)), workdir / "metrics.jsonl"
    while process.poll() is None and (not log.exists() or log.read_text().count("\n") < rows):
        time.sleep(0.002)
    process.send_signal(how)
    return finish(process)


def rows_of(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def isolated(code: str, devices: int = 8) -> Any:
    """Runs Python code in a process of its own and returns the JSON it prints last."""
    done = run([sys.executable, "-c", textwrap.dedent(code)], devices)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def error_of(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The message of a command that failed as promised: its last line, the only error, without a traceback."""
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], done.stderr
    return lines[-1].removeprefix("error: ")
