"""Requests to save and stop: signals, and notices from the metadata server of Google Cloud about this machine."""

import ctypes
import http.client
import itertools
import logging
import os
import signal
import threading
from pathlib import Path
from types import FrameType

import jax
from jax.experimental import multihost_utils

log = logging.getLogger(__name__)

METADATA = "metadata.google.internal"  # overridden by `GCE_METADATA_HOST`, as in Google's own libraries
# Keys below `instance/`, and the value that announces the end of this machine ("Compute Engine: metadata keys")
NOTICES = {"preempted": "TRUE", "maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE"}
POLL = 3.0  # seconds between polls; a spot machine has 30 from its notice to its end
_asked = itertools.count(1)  # number of times this process has asked whether to stop, over all its runs


class StopRequest:
    """Turns SIGTERM, SIGINT (Ctrl-C) and notices of the metadata server into a flag that the loop checks between two
    steps. A second SIGINT interrupts at once.

    With several processes JAX's preemption service receives SIGTERM on whichever host gets it, and raises the flag in
    all of them at the same check; a SIGINT or a notice is forwarded to it. The service looks once a second, whatever
    number of steps that is. The first process that it then tells waits at its next check, so the others stop at most
    one step behind those that they have dispatched by then.

    Attributes:
      by: signal received on this host; SIGTERM if another host got it, and after a notice.
    """

    def __init__(self) -> None:
        self.by, self._received, self._closed = signal.SIGTERM, False, threading.Event()
        self._previous = {signal.SIGINT: signal.signal(signal.SIGINT, self._interrupt)}
        if jax.process_count() == 1:
            self._previous[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._receive)
        else:
            threading.Thread(target=_outlive_repeats, args=[self._closed], daemon=True).start()
        if on_google_cloud():
            threading.Thread(target=_watch_metadata, args=[self._closed], daemon=True).start()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = True

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.by = signal.SIGINT
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.write(2, b"\nstopping after this step and saving; Ctrl-C again ends at once\n")
        os.kill(os.getpid(), signal.SIGTERM)

    def received(self) -> bool:
        """Whether to save and stop. All processes must ask equally often."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(next(_asked))
        return self._received

    def close(self) -> None:
        self._closed.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def on_google_cloud() -> bool:
    """Whether this machine runs on Google Cloud and so has a metadata server."""
    product = Path("/sys/class/dmi/id/product_name")
    with_name = product.read_text() if product.is_file() else ""
    return "GCE_METADATA_HOST" in os.environ or "Google" in with_name


def notice(timeout: float = 2.0) -> str:
    """The announced event of this machine, such as `preempted=TRUE`; empty if there is none, or no server."""
    host = os.environ.get("GCE_METADATA_HOST", METADATA)
    for key, value in NOTICES.items():
        connection = http.client.HTTPConnection(host, timeout=timeout)
        try:
            connection.request("GET", f"/computeMetadata/v1/instance/{key}", headers={"Metadata-Flavor": "Google"})
            response = connection.getresponse()
            if response.status == 200 and response.read().decode().strip() == value:
                return f"{key}={value}"
        except (OSError, http.client.HTTPException):
            return ""
        finally:
            connection.close()
    return ""


def _watch_metadata(closed: threading.Event) -> None:
    """Sends this process a SIGTERM once there is a notice: other senders come too late or not at all."""
    while not closed.wait(POLL):
        if said := notice():
            log.warning("this machine is about to be preempted or shut down (%s): saving and stopping", said)
            if jax.process_count() == 1 or _caught(signal.SIGTERM):
                os.kill(os.getpid(), signal.SIGTERM)
            return


def _outlive_repeats(closed: threading.Event) -> None:
    """Ignores SIGTERM as soon as JAX has received one: JAX then restores the default, and a second signal, sent
    when a machine shuts down, would end the process before it has saved.
    """
    while _caught(signal.SIGTERM):
        if closed.wait(0.1):
            return
    ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(signal.SIG_IGN.value))  # Python does in its main thread


def _caught(number: signal.Signals) -> bool:
    """Whether this process handles a signal, in Python or in native code; see signal(7) of Linux."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return True
    masks = dict(line.split(":\t") for line in status.read_text().splitlines() if line.startswith("Sig"))
    return bool(int(masks["SigCgt"], 16) >> (number - 1) & 1)
