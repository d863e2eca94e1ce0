"""A single process, and the joining and ending of several; training with several is in `tests/test_train.py`."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from scaling.core.errors import TemporaryError, UserError
from scaling.parallel.hosts import FAREWELL, HEARTBEAT, LOST, is_first, start
from scaling.parallel.stopping import StopRequest
from tests.commands import ROOT, environment, free_port


def test_one_process_needs_no_coordinator_and_is_the_first():
    start("", processes=1, process=0, timeout=1)
    assert is_first()


@pytest.mark.parametrize("process", [-1, 2])
def test_a_process_that_is_not_one_of_them_is_refused(process):
    with pytest.raises(UserError, match=f"--process={process}: must be from 0 to 1, with --processes=2"):
        start("localhost:1", processes=2, process=process, timeout=1)


@pytest.mark.parametrize(
    "coordinator",
    ["localhost", "localhost:", "localhost:0", "localhost:65536", "automatic", "auto:", "auto:port", "auto:70000"],
)
def test_a_coordinator_without_a_port_is_refused(coordinator):
    with pytest.raises(UserError, match=f"--coordinator={coordinator}: give host:port of process 0, auto or auto:port"):
        start(coordinator, processes=2, process=0, timeout=1)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_another_program_has_is_named_at_once(address):
    with socket.create_server((address, 0)) as other:
        where = f"localhost:{other.getsockname()[1]}"
        with pytest.raises(TemporaryError, match=f"--coordinator={where}: another program on this machine uses the"):
            start(where, processes=2, process=0, timeout=60)


def test_auto_where_no_cluster_tells_is_refused():
    with pytest.raises(UserError, match="--coordinator=auto finds neither Cloud TPU nor SLURM here; give --coord"):
        start("auto", processes=1, process=0, timeout=1)


PROCESS = """
import os, signal, sys, time
from scaling.core.errors import TemporaryError, UserError
from scaling.parallel import hosts

where, k, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
timeout, hosts.FAREWELL, hosts.HEARTBEAT = (int(each) for each in sys.argv[4:])
hosts.start(where, 3, k, timeout=timeout)
if what == "wait":
    time.sleep(120)
elif what == "die":
    os.kill(os.getpid(), signal.SIGKILL)
elif what == "wrong":
    raise ValueError("a bug")
elif what == "late":
    time.sleep(3)
elif what.isdigit() and int(what):
    hosts.failed()  # as scaling.cli says for a UserError
sys.exit(int(what) if what.isdigit() else 0)
"""


def together(*what, where=None, more=None, timeout=15, farewell=FAREWELL, heartbeat=HEARTBEAT):
    """Three processes that meet and then do something each."""
    where = where or f"localhost:{free_port()}"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, where, str(k), each, *map(str, (timeout, farewell, heartbeat))],
            cwd=ROOT,
            env={**environment(), **(more(k) if more else {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for k, each in enumerate(what)
    ]
    try:
        outputs = [process.communicate(timeout=150) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(running, outputs, strict=True)]


@pytest.mark.long
class TestSeveral:
    @pytest.mark.parametrize("killed", [0, 2], ids=["the coordinator", "another"])
    def test_all_end_with_one_sentence_when_one_is_killed(self, killed):
        ends = together(*["die" if k == killed else "wait" for k in range(3)])
        assert ends.pop(killed)[0] == -signal.SIGKILL
        for code, _, err in ends:
            assert code == LOST, err
            errors = [line for line in err.splitlines() if "error:" in line]
            assert len(errors) == 1, err
            assert re.match(r"error: process \d of 3 lost the others: one of them ended", errors[0])
            assert "terminate called" not in err
            assert "Traceback" not in err
            assert "stack trace" not in err

    def test_those_that_end_well_wait_for_each_other(self):
        assert [code for code, *_ in together("0", "late", "0")] == [0, 0, 0]

    def test_one_that_ends_on_its_own_keeps_its_code_and_takes_the_others_along(self):
        ends = together("3", "wait", "wait")
        assert [code for code, *_ in ends] == [3, LOST, LOST], ends
        assert not ends[0][2].count("error:")

    def test_one_that_fails_does_not_hold_the_others_until_the_timeout(self):
        """Seen on a pod: wrong input on one host kept all others for the 900 s allowed for joining."""
        began = time.monotonic()
        ends = together("2", "wait", "wait", timeout=100, farewell=3, heartbeat=10)
        assert [code for code, *_ in ends] == [2, LOST, LOST], ends
        assert time.monotonic() - began < 90

    def test_a_bug_in_one_is_shown_there_and_takes_the_others_along(self):
        ends = together("wait", "wrong", "wait")
        assert [code for code, *_ in ends] == [LOST, 1, LOST], ends
        assert ends[1][2].rstrip().endswith("ValueError: a bug")

    def test_auto_finds_the_others_where_a_cluster_tells(self):
        port = free_port()
        slurm = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "3", "SLURM_LOCALID": "0"}
        ends = together("0", "0", "0", where=f"auto:{port}", more=lambda k: {**slurm, "SLURM_PROCID": str(k)})
        for k, (code, out, err) in enumerate(ends):
            assert code == 0, err
            assert out.startswith(f"process {k} of 3, coordinator localhost:{port}\n")


def test_sigterm_becomes_a_question_until_the_request_is_closed():
    before = signal.getsignal(signal.SIGTERM)
    stop = StopRequest()
    assert not stop.received()
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.received()
    assert stop.received()
    assert stop.by == signal.SIGTERM
    stop.close()
    assert signal.getsignal(signal.SIGTERM) == before
