"""Processes: which backend to use, how several of them start together and how they stop."""

import atexit
import contextlib
import ctypes
import functools
import importlib.util
import logging
import multiprocessing
import os
import pkgutil
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jax._src import clusters, distributed
from jax.experimental import multihost_utils

from scaling.core.errors import TemporaryError, UserError, first_line
from scaling.core.paths import cache_folder

log = logging.getLogger(__name__)

STOPPED = 128 + signal.SIGTERM  # 143: what schedulers take for "preempted, start me again"
INTERRUPTED = 128 + signal.SIGINT  # 130
LOST = TemporaryError.exit_code  # another process is gone; the same command on all hosts resumes
HEARTBEAT = 100  # seconds of silence after which a process counts as gone
FAREWELL = 20  # seconds that a process which failed waits for the others, who may have failed in the same way
_patience = 0  # seconds to wait for the others at the end
_heartbeat = 0  # seconds after which one of them counts as gone, here; 0 for one process


def choose_platform() -> None:
    """Keeps JAX from looking for a TPU where libtpu is installed only as a compiler: it would warn and wait."""
    chips = [p for pattern in ("accel*", "vfio/*") for p in Path("/dev").glob(pattern)]
    other = importlib.util.find_spec("jax_plugins")
    has_plugin = other is not None and any(pkgutil.iter_modules(other.submodule_search_locations))
    if importlib.util.find_spec("libtpu") and not chips and not has_plugin and not os.environ.get("JAX_PLATFORMS"):
        jax.config.update("jax_platforms", "cpu")


def keep_compilations() -> None:
    """Keeps compiled programs between runs: in JAX_COMPILATION_CACHE_DIR, else in `xla` of the cache folder
    (`scaling.core.paths`).

    On a pod, have either in storage that all hosts share, as `tpu.launch` has.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))


def start(coordinator: str, processes: int, process: int, timeout: int) -> None:
    """Joins the other processes of a run, before anything touches a device; returns when all of them are there.

    Args:
      coordinator: `host:port` of process 0; `auto` or `auto:port` where the cluster tells (Cloud TPU, SLURM); empty for
        one process.
      processes, process: how many there are and which one this is; not used with `auto`.
      timeout: seconds to wait for the others, at the start and at the end.

    From here on a process that dies takes the others with it: they end with one sentence and exit code LOST, within
    `timeout` seconds or HEARTBEAT, whichever is less. One that fails with a message waits at most FAREWELL before.

    Exits with LOST where the others do not come within the timeout: they may be booting, and the same command started
    again finds them.

    Raises:
      UserError: the processes are numbered wrongly, or the coordinator cannot be used.
      TemporaryError: the cluster that would tell where the others are does not answer.
    """
    global _patience, _heartbeat
    if not coordinator:
        return
    if match := re.fullmatch(r"auto(?::(\d+))?", coordinator):
        coordinator, processes, process = _detect(match[1], timeout)
    elif not re.fullmatch(r".+:\d+", coordinator):
        raise UserError(f"--coordinator={coordinator}: give host:port of process 0, auto or auto:port")
    elif not 0 <= process < processes:
        raise UserError(f"--process={process} is not one of --processes={processes}")
    print(f"process {process} of {processes}, coordinator {coordinator}", flush=True)
    heartbeat = min(timeout, HEARTBEAT)
    _meet(coordinator, processes, process, timeout, heartbeat)
    _patience, _heartbeat = timeout, heartbeat
    sys.excepthook = functools.partial(_uncaught, sys.excepthook)
    atexit.register(lambda: _leave(_patience))


def _meet(coordinator: str, processes: int, process: int, timeout: int, heartbeat: int) -> None:
    """Returns when all processes are there. At its own deadline JAX aborts with a stack trace, so ours is earlier."""
    this = f"process {process} of {processes}"
    missing = (
        f"{this} did not meet the others at {coordinator} within {timeout} s; start the same command on every host and "
        "open the port"
    )
    lost = (
        f"{this} lost the others: one of them ended or cannot be reached, see its output; start the same command on "
        "every host again, it resumes from the newest checkpoint"
    )
    deadline = threading.Timer(timeout, end, [missing, LOST])
    deadline.start()
    try:
        with _when_others_are_lost(functools.partial(end, lost, LOST)):
            jax.distributed.initialize(
                coordinator,
                processes,
                process,
                initialization_timeout=2 * timeout,
                heartbeat_timeout_seconds=heartbeat,
            )
        multihost_utils.sync_global_devices("start")
    except (RuntimeError, ValueError) as e:
        end(f"{missing} ({first_line(e)})", LOST)  # JAX would end with a stack trace
    finally:
        deadline.cancel()


def _detect(port: str | None, timeout: int) -> tuple[str, int, int]:
    """Address of process 0, number of processes and number of this one, as the cluster tells them."""
    if port:
        os.environ["JAX_COORDINATOR_PORT"] = port
    try:
        found = clusters.ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, timeout)
    except (OSError, RuntimeError) as e:
        raise TemporaryError(
            f"--coordinator=auto: the cluster does not answer ({first_line(e)}); start the same command on "
            "every host again"
        ) from e
    address, processes, process, _ = found
    if address is None or processes is None or process is None:
        raise UserError(
            "--coordinator=auto finds neither Cloud TPU nor SLURM here; give --coordinator=HOST:PORT --processes=N "
            "--process=K, or leave it out for one process"
        )
    return address, processes, process


@contextlib.contextmanager
def _when_others_are_lost(end: Any) -> Iterator[None]:
    """Makes the client that `jax.distributed.initialize` builds in here call `end()` when another process is gone.

    By default the client then aborts with a C++ stack trace. It can call a function instead, which `initialize` does
    not expose. jaxlib 0.10.2 cannot convert that function's argument to Python: std::bad_cast, thrown where nothing
    catches it. So the handler of std::terminate calls `end` too, for that one type.
    """
    make = distributed._jax.get_distributed_runtime_client
    if sys.platform == "linux":
        _on_bad_cast(end)
    distributed._jax.get_distributed_runtime_client = functools.partial(
        make, missed_heartbeat_callback=lambda status: end()
    )
    try:
        yield
    finally:
        distributed._jax.get_distributed_runtime_client = make


_kept: list[Any] = []  # what C++ holds a pointer to


def _on_bad_cast(end: Any) -> None:
    library = ctypes.CDLL("libstdc++.so.6")
    bad_cast = ctypes.addressof(ctypes.c_char.in_dll(library, "_ZTISt8bad_cast"))
    library.__cxa_current_exception_type.restype = ctypes.c_void_p
    handler = ctypes.CFUNCTYPE(None)
    set_terminate = library._ZSt13set_terminatePFvvE  # std::set_terminate
    set_terminate.restype = handler

    @handler
    def terminate() -> None:
        if library.__cxa_current_exception_type() == bad_cast:
            end()
        previous()

    previous = set_terminate(terminate)
    _kept.append(terminate)


_UNREACHABLE = re.compile(r"(ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION|INTERNAL|UNAVAILABLE|UNKNOWN): ")


def await_loss(error: BaseException) -> None:
    """Ends this process if an error comes from another one that is gone; returns where it does not.

    An operation with a process that is gone fails before it is known that it is gone. What it says would hide what
    happened, so this waits until that must be known: then the process ends in `_when_others_are_lost`.
    """
    if _heartbeat and any(_UNREACHABLE.match(str(e)) for e in causes(error)):
        log.warning("an operation with the other processes failed, waiting to hear whether one of them is gone")
        time.sleep(2 * _heartbeat)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those it was raised from: Orbax makes a TimeoutError of a barrier that another did not reach."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _uncaught(show: Any, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ends a process of several on an exception, without waiting for the others."""
    await_loss(error)
    show(kind, error, trace)
    end("", 1)


def failed() -> None:
    """This process is about to end with a message: the others are not waited for as long as after a success."""
    global _patience
    _patience = min(_patience, FAREWELL)


def _leave(timeout: int) -> None:
    """At the end of the program: waits for the others, and where they do not come leaves with its own exit code.

    JAX would wait for them too, and abort where they do not come: one process with wrong data would be reported as lost
    by itself.
    """
    state: Any = distributed.global_state
    try:
        state.client.wait_at_barrier("end", timeout * 1000)
    except jax.errors.JaxRuntimeError:
        for each in (state.client, state.service, state.preemption_sync_manager):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))  # destroying them would wait again
        state.client = state.service = state.preemption_sync_manager = None


def end(message: str, code: int) -> None:
    """Ends the process at once, from any thread."""
    if message:
        print(f"error: {message}", file=sys.stderr, flush=True)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(code)


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def of_first_process(values: Any) -> Any:
    """Nested sequences of floats as process 0 has them, to the last bit: what is compiled must not differ by host."""
    if jax.process_count() == 1:
        return values
    floats, structure = jax.tree.flatten(values)
    sent = multihost_utils.broadcast_one_to_all(np.array(floats, np.float64).view(np.uint8))  # float64 would be cut
    return jax.tree.unflatten(structure, np.asarray(sent, np.uint8).view(np.float64).tolist())
