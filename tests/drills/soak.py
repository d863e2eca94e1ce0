"""Soak: training with evaluation and checkpoints, and reading of a folder again and again, for minutes to hours.
Memory, open files, threads and temporary files are flat once the process is warm.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
from scipy import stats

from tests.commands import ROOT, environment, train_command
from tests.data.examples import class_folders
from tests.drills.cases import DEFECT, FINE, Outcome, Part
from tests.drills.forks import Fresh, finished

MINUTES = ((1, 3), (5, 25), (10, 95))  # of each case: to get warm, at least, and measured
_SLOW = 10  # times the minutes to get warm after which a command is stuck
_EVERY = 2.0  # seconds between two looks
_BLOCKS = 20  # the measured time is cut into these; looks in one of them are correlated
_MEMORY = 0.02  # share of the memory by which it may grow, and MiB; counts may not
_LEAST_MEMORY = 8.0

# Reads all images of a folder again and again: features, and the classes that a fine-tuned model tells.
READING = """
import sys
from scaling import cli
module, *arguments = sys.argv[1:]
for k in range(10**9):
    code = cli.call(module, [argument.replace("NUMBER", f"told-{k}") for argument in arguments])
    assert code == 0, code
    print(k, flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Soak:
    """A command that runs until it is ended.

    Attributes:
      name: of the command.
      about: what it does meanwhile.
      line: the command, given a folder of its own.
      progress: number of what it has done so far.
      unit: unit of that number.
      warm: that number after which it has done everything twice: what it imports and compiles late is there.
      codes: exit codes after SIGTERM.
    """

    name: str
    about: str
    line: Callable[[Path], list[str]]
    progress: Callable[[Path], int]
    unit: str
    warm: int
    codes: tuple[int, ...]

    def run(self, cases: Iterable[int]) -> Iterator[Outcome]:
        """Runs the command for the minutes of each case."""
        for case in cases:
            with tempfile.TemporaryDirectory(prefix="drills-soak-") as folder:
                yield self._case(case, Path(folder))

    def _case(self, case: int, folder: Path) -> Outcome:
        warm, minutes = MINUTES[case]
        temporary, line = folder / "temporary", self.line(folder)
        temporary.mkdir()
        with (folder / "said").open("w") as said, mock.patch.dict(os.environ, {"TMPDIR": str(temporary)}):
            # into a file: a pipe that nobody empties would stop the process
            process = subprocess.Popen(line, cwd=ROOT, env=environment(), stdout=said, stderr=said)
        warmed = self._warmed(process, 60 * warm, folder)
        began, looks, progress = time.monotonic(), [], []
        while process.poll() is None and time.monotonic() - began < 60 * minutes:
            time.sleep(_EVERY)
            looks.append((time.monotonic() - began, *_look(psutil.Process(process.pid), temporary)))
            progress.append(self.progress(folder))
        alive = process.poll() is None
        process.send_signal(signal.SIGTERM)
        code = process.wait(600)
        if not alive or code not in self.codes:
            end = (folder / "said").read_text()[-300:]
            return Outcome(case, DEFECT, f"code {code} after {len(looks)} looks: {end!r}")
        began_with = f"{minutes} minutes after {warmed / 60:.1f}, {progress[0]:,} to {progress[-1]:,} {self.unit}: "
        return ended(case, began_with, np.array(looks), progress)

    def _warmed(self, process: "subprocess.Popen[bytes]", least: float, folder: Path) -> float:
        """Waits until a command is warm, or is gone or stuck; returns the seconds that it took."""
        began = time.monotonic()
        while process.poll() is None and (seconds := time.monotonic() - began) < _SLOW * least:
            if seconds >= least and self.progress(folder) >= self.warm:
                break
            time.sleep(_EVERY)
        return time.monotonic() - began

    def part(self) -> Part:
        return Part(f"soak:{self.name}", self.about, self.run, len(MINUTES), 1, 1, kept=True)


def _look(process: psutil.Process, temporary: Path) -> tuple[float, int, int, int]:
    """MiB of memory, open files, threads and temporary files of a process and its children."""
    memory, files, threads = 0.0, 0, 0
    for each in (process, *process.children(recursive=True)):
        try:
            with each.oneshot():
                found = own_memory(each.pid), each.num_fds(), each.num_threads()
        except (psutil.Error, ProcessLookupError, FileNotFoundError):  # a child that has ended
            continue
        memory, files, threads = memory + found[0], files + found[1], threads + found[2]
    return memory, files, threads, sum(len(names) for _, _, names in os.walk(temporary))


def own_memory(pid: int) -> float:
    """MiB of memory without what is read from files; of pages that processes share, each has a part.

    A page of a library would count more as soon as some other program that uses it ends.
    """
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {name: int(size) for name, size, *_ in map(str.split, rows[1:])}
    return (sizes["Pss_Anon:"] + sizes["Pss_Shmem:"]) / 2**10


def ended(case: int, about: str, looks: np.ndarray, progress: list[int]) -> Outcome:
    """The outcome of looks at a command that ran to the end of the time: a defect if it grows, or did nothing in some
    quarter of it.
    """
    report, grows = judge(looks)
    quarters = np.linspace(0, len(progress) - 1, 5).astype(int)
    stuck = any(more <= 0 for more in np.diff(np.array(progress)[quarters]))
    wrong = [name for name, found in (("stuck: ", stuck), ("grows: ", grows)) if found]
    return Outcome(case, DEFECT if wrong else FINE, f"{''.join(wrong)}{about}{report}")


def judge(looks: np.ndarray) -> tuple[str, bool]:
    """Growth over the measured time with 95 % intervals, by the Theil-Sen slope of blocks' means.

    Args:
      looks: [n, 5], seconds, and the four of `_look`.

    Returns:
      The report, and whether something grows: by its lower bound, memory by more than two hundredths and 8 MiB, a count
      by more than a half.
    """
    blocks = [part.mean(0) for part in np.array_split(looks, min(_BLOCKS, len(looks)))]
    seconds, *measured = np.array(blocks).T
    said, grows = [], False
    for name, values in zip(("MiB", "open files", "threads", "temporary files"), measured, strict=True):
        slope, _, low, high = np.array(stats.theilslopes(values, seconds, 0.95)) * (seconds[-1] - seconds[0])
        allowed = max(_LEAST_MEMORY, _MEMORY * values.mean()) if name == "MiB" else 0.5
        grows |= bool(low > allowed)
        said.append(f"{values.mean():,.1f} {name}, growth {slope:+.1f} ({low:+.1f} to {high:+.1f})")
    return "; ".join(said), grows


_TRAINING = {"eval_every": 50, "checkpoint_every": 25, "log_every": 10}


def _training(folder: Path) -> list[str]:
    return train_command(folder / "run", {"steps": 10_000_000, "checkpoint.keep_last": 2, **_TRAINING})


def _reading(folder: Path, *line: str) -> list[str]:
    class_folders(folder / "images", 40)
    return [sys.executable, "-c", READING, *line]


def _features(folder: Path) -> list[str]:
    finished(Fresh(train_command(folder / "run")))
    given = f"--checkpoint={folder}/run", f"--input={folder}/images", f"--output={folder}/NUMBER.npy"
    return _reading(folder, "scaling.features", *given)


def _predict(folder: Path) -> list[str]:
    from tests.test_finetune import finetune

    finished(Fresh(train_command(folder / "run")))
    finished(Fresh(finetune(folder / "run", folder / "tuned")))
    given = f"--checkpoint={folder}/tuned", f"--input={folder}/images", f"--output={folder}/NUMBER"
    return _reading(folder, "scaling.predict", *given)


def _steps(folder: Path) -> int:
    file = folder / "run" / "metrics.jsonl"
    rows = file.read_text().splitlines() if file.exists() else []
    return int(json.loads(rows[-2])["step"]) if len(rows) > 1 else 0  # the last may be being written


def _times(folder: Path) -> int:
    return len([path for path in folder.iterdir() if path.name.startswith("told-")])


_ENDED = (143, -15)  # by a handler, or before there is one
SOAKS = (
    Soak("train", "training with evaluation and checkpoints", _training, _steps, "steps", 100, (143,)),
    Soak("features", "features of a folder again and again in one process", _features, _times, "folders", 20, _ENDED),
    Soak("predict", "predictions for a folder again and again in one process", _predict, _times, "folders", 20, _ENDED),
)
PARTS = tuple(soak.part() for soak in SOAKS)
