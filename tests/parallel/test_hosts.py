"""What a process does alone; how several meet is tested through the command line, in `tests/test_train.py`."""

import os
import signal

import pytest

from scaling.errors import UserError
from scaling.parallel.hosts import StopRequest, is_first, start


def test_one_process_needs_no_coordinator_and_is_the_first():
    start("", processes=1, process=0, timeout=1)
    assert is_first()


@pytest.mark.parametrize("process", [-1, 2])
def test_a_process_that_is_not_one_of_them_is_refused(process):
    with pytest.raises(UserError, match=f"--process={process} is not one of --processes=2"):
        start("localhost:1", processes=2, process=process, timeout=1)


def test_sigterm_becomes_a_question_until_the_request_is_closed():
    before = signal.getsignal(signal.SIGTERM)
    stop = StopRequest()
    assert not stop.at(1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.at(2)
    assert stop.at(3)
    stop.close()
    assert signal.getsignal(signal.SIGTERM) == before
