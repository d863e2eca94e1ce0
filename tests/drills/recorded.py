"""Runs a command and records which images each step was given, and when; can end it after a step.

    python -m tests.drills.recorded FOLDER STEP HOW COMMAND [ARGUMENT …]

`HOW` is the name of a signal that the process sends itself when it is given the images of `STEP`; `STEP` 0 for none.
"""

import hashlib
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from scaling import cli
from scaling.training import loop

_NO_IMAGE = ("id", "index", "skipped")  # of the arrays of a batch


def main(folder: Path, stop: int, how: str, module: str, arguments: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = loop.training_feed

    def training_feed(*given: Any, start: int = 0, **named: Any) -> Any:
        return _Recorded(made(*given, start=start, **named), start, folder / f"{os.getpid()}.jsonl", stop, how)

    sys.argv = [module, *arguments]
    with mock.patch.object(loop, "training_feed", training_feed):
        cli.run(importlib.import_module(module).main)


class _Recorded:
    """A feed that writes down what it hands out."""

    def __init__(self, feed: Any, start: int, file: Path, stop: int, how: str):
        self._feed, self._step, self._file, self._stop, self._how = feed, start, file, stop, how

    def __next__(self) -> Any:
        host, batch = next(self._feed)
        self._step += 1
        with self._file.open("a") as f:
            f.write(json.dumps([self._step, rows_of(host), time.monotonic()]) + "\n")
        if self._step == self._stop:
            os.kill(os.getpid(), signal.Signals[self._how])
        return host, batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)


def rows_of(host: dict[str, np.ndarray]) -> dict[int, str]:
    """The images of a batch by their position in the order of the run: record, and checksum of all its arrays."""
    arrays = [host[name] for name in sorted(host) if name not in _NO_IMAGE]
    sums = [hashlib.sha256(b"".join(np.asarray(x[i]).tobytes() for x in arrays)) for i in range(len(host["index"]))]
    rows = zip(host["index"], host["id"], sums, strict=True)
    return {int(index): f"{record} {digest.hexdigest()[:16]}" for index, record, digest in rows}


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:5], sys.argv[5:])
