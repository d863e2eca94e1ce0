"""Processes: which backend to use, how several of them start together and how they stop."""

import importlib.util
import logging
import os
import pkgutil
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import jax
from jax.experimental import multihost_utils

from scaling.errors import UserError

log = logging.getLogger(__name__)

STOPPED = 143  # 128 + SIGTERM: what schedulers take for "preempted, start me again"


def choose_platform() -> None:
    """Keeps JAX from looking for a TPU where libtpu is installed only as a compiler: it would warn and wait."""
    chips = [p for pattern in ("accel*", "vfio/*") for p in Path("/dev").glob(pattern)]
    other = importlib.util.find_spec("jax_plugins")
    has_plugin = other is not None and any(pkgutil.iter_modules(other.submodule_search_locations))
    if importlib.util.find_spec("libtpu") and not chips and not has_plugin and not os.environ.get("JAX_PLATFORMS"):
        jax.config.update("jax_platforms", "cpu")


def keep_compilations() -> None:
    """Keeps compiled programs between runs: in JAX_COMPILATION_CACHE_DIR, else `$SCALING_CACHE`/xla.

    On a pod, point either at storage that all hosts share.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = os.environ.get("SCALING_CACHE") or "~/.cache/scaling"
        jax.config.update("jax_compilation_cache_dir", os.path.join(os.path.expanduser(cache), "xla"))


def start(coordinator: str, processes: int, process: int, timeout: int) -> None:
    """Joins the other processes of a run, before anything touches a device.

    Args:
      coordinator: `host:port` of process 0, `auto` where the cluster tells (Cloud TPU, SLURM), empty for one process.
      processes, process: how many there are and which one this is; not used with `auto`.
      timeout: seconds to wait for the others.

    Exits with the code of a UserError where the others do not come within the timeout: at its own deadline JAX aborts
    the process with a stack trace, so ours is earlier.

    Raises:
      UserError: the processes are numbered wrongly, or the coordinator cannot be used.
    """
    if not coordinator:
        return
    arguments: dict[str, object] = {"initialization_timeout": 2 * timeout}
    if coordinator != "auto":
        if not 0 <= process < processes:
            raise UserError(f"--process={process} is not one of --processes={processes}")
        arguments |= {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
        print(f"process {process} of {processes}, coordinator {coordinator}", flush=True)
    missing = (
        f"process {process} of {processes} did not meet the others at {coordinator} within {timeout} s; start the same "
        "command on every host and open the port"
    )
    deadline = threading.Timer(timeout, _exit, [missing])
    deadline.start()
    try:
        jax.distributed.initialize(**arguments)  # type: ignore[arg-type]
    except (RuntimeError, ValueError) as e:
        raise UserError(f"{missing} ({str(e).splitlines()[0]})") from e
    finally:
        deadline.cancel()
    if coordinator == "auto":
        print(f"process {jax.process_index()} of {jax.process_count()}", flush=True)
    multihost_utils.sync_global_devices("start")


def _exit(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(UserError.exit_code)


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


class StopRequest:
    """Turns SIGTERM into a question the loop can ask between two steps.

    With several processes JAX's preemption service receives the signal on whichever host gets it, and makes all of them
    answer yes at the same step.
    """

    def __init__(self) -> None:
        self._received = False
        if jax.process_count() == 1:
            self._previous = signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = True

    def at(self, step: int) -> bool:
        """Whether to save and stop after this step. Every process must ask at every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received

    def close(self) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._previous)
