"""Processes: the choice of backend, and the start and stop of several processes together."""

import atexit
import contextlib
import ctypes
import errno
import functools
import importlib.util
import logging
import multiprocessing
import os
import pkgutil
import re
import signal
import socket
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

STOPPED = 128 + signal.SIGTERM  # 143, which schedulers read as "preempted, restart me"
INTERRUPTED = 128 + signal.SIGINT  # 130
LOST = TemporaryError.exit_code  # another process is gone; the same command on all hosts resumes
HEARTBEAT = 100  # seconds of silence after which a process counts as gone
FAREWELL = 20  # seconds that a failed process waits for the others, which may have failed in the same way
_patience = 0  # seconds to wait for the others at the end
_heartbeat = 0  # seconds after which another process counts as gone; 0 for a single process


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
    """Joins the processes of a run into one program. Call it before any device is used; returns once all have joined.

    Args:
      coordinator: `host:port` of process 0; `auto` or `auto:port` on a cluster that provides it (Cloud TPU, SLURM);
        empty for one process.
      processes, process: number of processes and index of this one; not used with `auto`.
      timeout: seconds to wait for the others, at the start and at the end.

    From then on, if a process dies the others end too, with one sentence and exit code LOST, within the smaller of
    `timeout` and HEARTBEAT seconds. A process that fails with a message waits at most FAREWELL seconds first.

    Exits with LOST if the others do not join within the timeout: they may be booting, and running the same command
    again finds them.

    Raises:
      UserError: the processes are numbered wrongly, or the coordinator cannot be used.
      TemporaryError: the cluster service that knows the other processes does not respond, or the port of process 0
        is in use.
    """
    global _patience, _heartbeat
    if not coordinator:
        return
    match = re.fullmatch(r"(?P<auto>auto)(:(?P<port>\d+))?|.+:(?P<its>\d+)", coordinator)
    if match is None or not 0 < int(match["port"] or match["its"] or 1) < 2**16:
        raise UserError(f"--coordinator={coordinator}: give host:port of process 0, auto or auto:port")
    if match["auto"]:
        coordinator, processes, process = _detect(match["port"], timeout)
    elif not 0 <= process < processes:
        raise UserError(f"--process={process}: must be from 0 to {processes - 1}, with --processes={processes}")
    if process == 0:
        _require_free_port(coordinator)
    print(f"process {process} of {processes}, coordinator {coordinator}", flush=True)
    heartbeat = min(timeout, HEARTBEAT)
    _meet(coordinator, processes, process, timeout, heartbeat)
    _patience, _heartbeat = timeout, heartbeat
    sys.excepthook = functools.partial(_uncaught, sys.excepthook)
    atexit.register(lambda: _leave(_patience))


def _require_free_port(coordinator: str) -> None:
    """Raises TemporaryError if another program has the port of this process 0: JAX would say that nobody came."""
    port, both = int(coordinator.rpartition(":")[2]), socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        with socket.create_server(("", port), family=family, dualstack_ipv6=both):
            pass
    except OSError as e:
        if e.errno != errno.EADDRINUSE:
            return  # JAX listens in another way and has its own message
        raise TemporaryError(
            f"--coordinator={coordinator}: another program on this machine uses the port; end it if it is a process of "
            "an earlier start, or give another port on every host"
        ) from e


def _meet(coordinator: str, processes: int, process: int, timeout: int, heartbeat: int) -> None:
    """Returns once all processes have joined. At its own deadline JAX aborts with a stack trace, so ours is earlier."""
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
    """Address of process 0, number of processes and index of this one, from the cluster."""
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
    not expose. jaxlib 0.10.2 cannot convert that function's argument to Python and throws an uncaught std::bad_cast.
    The handler of std::terminate therefore calls `end` too, for that one type.
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


_kept: list[Any] = []  # objects that C++ holds a pointer to


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
    """Ends this process if its error was caused by the loss of another one; otherwise returns.

    An operation with a lost process fails before the loss is detected, and its error would hide the cause. This waits
    until the loss must have been detected, upon which the process ends in `_when_others_are_lost`.
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
    """Notes that this process is about to end with an error: it then waits for the others for a shorter time than
    after success.
    """
    global _patience
    _patience = min(_patience, FAREWELL)


def _leave(timeout: int) -> None:
    """At the end of the program: waits for the others, and if they do not come ends with its own exit code.

    JAX would also wait, but abort if they do not come: a process with wrong data would be reported as lost.
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
    """Whether this is the process that writes files which are written once."""
    return jax.process_index() == 0


def of_first_process(values: Any) -> Any:
    """Nested sequences of floats from process 0, exact to the last bit: compiled constants must not differ between
    hosts.
    """
    if jax.process_count() == 1:
        return values
    floats, structure = jax.tree.flatten(values)
    sent = multihost_utils.broadcast_one_to_all(np.array(floats, np.float64).view(np.uint8))  # float64 would be cut
    return jax.tree.unflatten(structure, np.asarray(sent, np.uint8).view(np.float64).tolist())


def text_of_first_process(text: str) -> str:
    """A text of process 0; bytes after the first 1,000 are cut off. Every process has to call it."""
    if jax.process_count() == 1:
        return text
    sent = np.frombuffer(text.encode()[:1000].ljust(1000, b"\0"), np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(sent), np.uint8)).rstrip(b"\0").decode(errors="ignore")
