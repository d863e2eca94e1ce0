"""How much of a vision transformer do we need? Scaling studies of remote-sensing foundation models."""

import os
import signal
import sys
from typing import NoReturn

__version__ = "0.1.0"


def end_at_once(*_: object) -> NoReturn:
    """Ends the process in one line: the handler of SIGINT (Ctrl-C) where there is nothing to keep."""
    os.write(2, b"interrupted\n")
    os._exit(130)


# As `python -m scaling.NAME` the imports alone take seconds, in which an exception can end anywhere. `cli.run` takes it
# over; a shell that starts a job with SIGINT ignored has meant it.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end_at_once)
