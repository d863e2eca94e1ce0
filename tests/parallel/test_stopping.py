"""Notices that a machine is about to be taken away, from a metadata server on this machine."""

import contextlib
import http.server
import os
import signal
import threading
import time

import pytest

from scaling.parallel import stopping
from scaling.parallel.stopping import StopRequest, notice
from tests.commands import finish, rows_of, start_together


@pytest.fixture
def metadata(monkeypatch):
    """Replies of the metadata server, by key; GCE_METADATA_HOST names it."""
    values = {"preempted": "FALSE", "maintenance-event": "NONE"}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            key = self.path.removeprefix("/computeMetadata/v1/instance/")
            known = self.headers["Metadata-Flavor"] == "Google" and key in values
            self.send_response(200 if known else 403)
            self.end_headers()
            self.wfile.write(values.get(key, "").encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_port}")
    yield values
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("preempted", "TRUE", "preempted=TRUE"),
        ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE", "maintenance-event=TERMINATE_ON_HOST_MAINTENANCE"),
        ("maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE", ""),  # it comes back as it was
    ],
)
def test_a_notice_is_a_request_to_stop(metadata, monkeypatch, key, value, said):
    monkeypatch.setattr(stopping, "POLL", 0.01)
    stop = StopRequest()
    with contextlib.closing(stop):
        assert notice() == ""
        time.sleep(0.1)
        assert not stop.received()
        metadata[key] = value
        assert notice() == said
        deadline = time.monotonic() + (5 if said else 0.2)
        while not stop.received() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stop.received() == bool(said)


def test_a_server_that_does_not_answer_tells_nothing(monkeypatch):
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    assert notice() == ""


@pytest.mark.long
@pytest.mark.parametrize("how", ["a notice", "signals again and again"])
def test_what_one_host_is_told_makes_all_save_the_same_step(metadata, tmp_path, how):
    """A machine that shuts down sends SIGTERM after the notice, too: JAX would end at the second."""
    metadata["preempted"] = "FALSE"
    running = start_together(tmp_path, {"steps": 100_000, "checkpoint_every": 100_000}, 2, 2)
    try:
        log = tmp_path / "metrics.jsonl"
        while all(p.poll() is None for p in running) and (not log.exists() or log.read_text().count("\n") < 12):
            time.sleep(0.01)
        if how == "a notice":
            metadata["preempted"] = "TRUE"
        for _ in range(0 if how == "a notice" else 30):
            with contextlib.suppress(ProcessLookupError):
                os.kill(running[1].pid, signal.SIGTERM)
            time.sleep(0.1)
        ends = [finish(process, 120) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [done.returncode for done in ends] == [143, 143], ends[1].stderr
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    assert saved == rows_of(tmp_path)[-1]["step"]
