"""Disks: real commands on one that is full, read-only, not theirs, or loses files under them. Expected is one line that
names the path and the reason, with an exit code other than those that a launcher retries; nothing half-written that a
reader takes for whole; and that the same command, once there is room, ends with the results of an undisturbed run.

As root the full disk is a small tmpfs, and the command gives up the capabilities by which permissions do not bind root.
Without root no file system can be mounted, and what is full is the quota of one file (RLIMIT_FSIZE).
"""

import contextlib
import dataclasses
import functools
import json
import os
import random
import re
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from scaling.core.rows import read_rows
from scaling.data.sources.registry import open_source
from scaling.training.checksums import damaged_file
from tests.commands import command, train_command
from tests.data.examples import class_folders
from tests.drills import kills
from tests.drills.cases import DEFECT, FINE, MISSED, REFUSED, Outcome, Part, differing, inputs_folder, random_of
from tests.drills.forks import Done, Running, commands_imported, finished
from tests.drills.troubles import Deleted, Filled, Place, Withdrawn, drawn

COUNT = 60
_LOG = re.compile(r"\d\d:\d\d:\d\d ")  # how a line of the log begins
_REASONS = "No space left|read-only|Read-only|Permission denied|not permitted|File too large|No such file|was removed"
_BUSY = "is being written to by another process|is already finished"


@dataclasses.dataclass(frozen=True)
class Job:
    """A command whose disk fails.

    Attributes:
      name: of the command.
      reads: makes what the command reads, once.
      line: the command, given a folder with inputs and the folder to write.
      results: everything it computed, given that folder.
    """

    name: str
    reads: Callable[[], None]
    line: Callable[[Path, Path], list[str]]
    results: Callable[[Path], kills.Results]

    def run(self, cases: Iterable[int]) -> Iterator[Outcome]:
        with tempfile.TemporaryDirectory(prefix="drills-disks-") as folder, commands_imported():
            root = Path(folder)
            duration, size, expected = _undisturbed(self)
            for case in cases:
                with Place(root / str(case)) as place:
                    yield self._case(case, place, duration, size, expected)

    def _found(self, place: Place) -> kills.Results:
        return computed(self.results, place.here)

    def _on(self, place: Place, largest: int = 0) -> Running:
        self.reads()
        return Running(self.line(inputs_folder("disks"), place.here), bound=True, largest=largest)

    def _case(self, case: int, place: Place, duration: float, size: int, expected: kills.Results) -> Outcome:
        rng = random_of(f"disks:{self.name}", case)
        trouble = drawn(place, rng, size)
        kind, moment = type(trouble).__name__, rng.uniform(0.1, 1.0) * duration
        trouble.before()
        running, whole = self._on(place, trouble.largest), 0
        while running.alive() and time.monotonic() - running.began < moment:
            whole = max(whole, len(_steps(place.here)))
            time.sleep(0.01)
        late = not running.alive() and isinstance(trouble, (Filled, Withdrawn, Deleted))
        trouble.during()
        done = running.end(120)
        wrong = judged(done, place) if done.code else ""
        wrong = wrong or (_half_written(place.here) if not trouble.loses else "")
        if not wrong and whole and not trouble.loses and not _steps(place.here):
            wrong = f"code {done.code}: no checkpoint is left of {whole}"
        trouble.mend()
        if not wrong and (done.code or trouble.loses):
            again = self._on(place).end()
            if again.code and not trouble.loses:
                wrong = f"with room again code {again.code}: {again.err[-300:]!r}"
        if not wrong and not trouble.loses:
            found = self._found(place)
            wrong = ", ".join(differing(expected, found)[:3])
            wrong = wrong and f"code {done.code}, other results: {wrong}"
        said = done.err.strip().splitlines()[-1][:200] if done.err.strip() else ""
        verdict = DEFECT if wrong else REFUSED if done.code else MISSED if late else FINE
        return Outcome(case, verdict, f"{kind}: {wrong or said}")

    def run_pairs(self, cases: Iterable[int]) -> Iterator[Outcome]:
        """Runs two of the command in one folder, and one after a killed one."""
        with tempfile.TemporaryDirectory(prefix="drills-pairs-") as folder, commands_imported():
            root = Path(folder)
            duration, _, expected = _undisturbed(self)
            for case in cases:
                with Place(root / str(case)) as place:
                    yield self._pair(random_of(f"disks:two_{self.name}", case), case, place, duration, expected)

    def _pair(self, rng: random.Random, case: int, place: Place, duration: float, expected: kills.Results) -> Outcome:
        """The first is killed, or stands still while the second runs, or both run at once."""
        kind, moment = rng.choice(("killed", "killed", "still", "still", "at once")), rng.uniform(0, 0.8) * duration
        first = self._on(place)
        while kind != "at once" and first.alive() and time.monotonic() - first.began < moment:
            time.sleep(0.01)
        if kind != "at once" and first.alive():
            os.kill(first.process.pid, signal.SIGKILL if kind == "killed" else signal.SIGSTOP)
        before = self._wrong(place, expected) if kind == "still" else ""  # empty if the first had written everything
        mine = kind == "still" and bool(before) and any(place.here.rglob("*"))  # it has begun to write
        done = [self._on(place).end()]
        if kind == "still" and first.alive():
            os.kill(first.process.pid, signal.SIGCONT)
        done.append(first.end())
        codes = [one.code for one in done]
        # A trained run is scored again without a claim: its rows are the same.
        mine = mine and "is finished" not in done[0].err
        allowed = {"killed": ([0, -9], [0, 0])}.get(kind, ([2, 0],) if mine else ([2, 0], [0, 2], [0, 0]))
        refused = next((one for one in done if one.code == 2), None)
        unclear = refused and (not re.search(_BUSY, refused.err) or _further_lines(refused))
        wrong = (
            f"{kind} ({before[:200]}): codes {codes}: {done[0].err[-300:]!r}" if codes not in allowed or unclear else ""
        )
        wrong = wrong or self._wrong(place, expected)
        said = done[0].err.strip().splitlines()[-1][:200] if done[0].err.strip() else ""
        return Outcome(case, DEFECT if wrong else FINE if codes[0] == 0 else REFUSED, wrong or said)

    def _wrong(self, place: Place, expected: kills.Results) -> str:
        """Names of results that are others than expected; empty if there are none."""
        try:
            return ", ".join(differing(expected, self._found(place))[:3])
        except Exception as e:  # of a folder that is not complete, readers raise anything
            return f"{type(e).__name__}: {e}"

    def pairs(self, short: int) -> Part:
        about = f"two of `{self.name}` in one folder, and one after a killed one"
        return Part(f"disks:two_{self.name}", about, self.run_pairs, COUNT, short, 5)

    def part(self, short: int) -> Part:
        return Part(f"disks:{self.name}", f"`{self.name}` on a disk that fails", self.run, COUNT, short, 5)


@functools.cache
def _undisturbed(job: Job) -> tuple[float, int, kills.Results]:
    """Seconds, bytes and results of a command that nothing befalls, run once for all its cases."""
    with tempfile.TemporaryDirectory(prefix="drills-disks-") as folder:
        with Place(Path(folder) / "first") as place:
            finished(job._on(place))  # compiles what all others reuse
        with Place(Path(folder) / "whole") as place:
            done = finished(job._on(place))
            size = sum(path.lstat().st_size for path in place.here.rglob("*"))
            return done.seconds, size, job._found(place)


def computed(results: Callable[[Path], kills.Results], folder: Path) -> kills.Results:
    """The results in a folder, without Orbax's warnings of reading without a sharding."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return results(folder)


def judged(done: Done, place: Place) -> str:
    """What is wrong with the way in which a command ended that could not write; empty if nothing is."""
    if done.code not in (2, 3):
        return f"code {done.code}: {done.err[:300]!r} … {done.err[-300:]!r}"
    if further := _further_lines(done):
        return f"code {done.code}, further lines: {further[:300]!r}"
    error = done.err.strip().splitlines()[-1]
    if str(place.here) not in error or not re.search(_REASONS, error):
        return f"code {done.code}, without path or reason: {error[:300]!r}"
    return ""


def _further_lines(done: Done) -> str:
    """What a refused command said beside one line at its end and the lines of its log; empty for nothing."""
    *before, last = [line for line in done.err.splitlines() if line.strip()] or [""]
    stray = [line for line in before if not _LOG.match(line)]
    return stray[0] if stray else "" if last.startswith("error: ") else last or "nothing"


def _steps(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [path for path in (folder / "checkpoints").iterdir() if path.name.isdigit()]
    return []


def _half_written(folder: Path) -> str:
    """What in a folder a reader would take for whole, though it is not; empty if nothing is."""
    for step in _steps(folder):
        if wrong := damaged_file(step, ("params", "optimizer", "config")):
            return f"half-written: {wrong} of checkpoint {step.name}"
    if (folder / "rows.jsonl").exists():
        read_rows(folder / "rows.jsonl")
    if (folder / "manifest.json").exists():
        source = open_source(f"arrayrecord:{folder}", "train")
        if len(source) != len([source[i] for i in range(len(source))]):
            return "half-written: the prepared folder"
    return ""


@functools.cache
def _trained() -> None:
    """Adds a trained checkpoint to the inputs."""
    finished(Running(train_command(inputs_folder("disks") / "run", kills.SHORT)))


@functools.cache
def _images() -> None:
    """Adds images in folders to the inputs."""
    class_folders(inputs_folder("disks") / "images", 40)


def _file(file: Path) -> kills.Results:
    return {"file": file.read_bytes().hex(), "card": json.dumps(file.with_suffix(".safetensors.md").exists())}


def _convert_line(given: Path, folder: Path) -> list[str]:
    return command("convert", checkpoint=given / "run", to="timm_vit", output=folder / "encoder.safetensors")


def _jobs() -> tuple[Job, ...]:
    of_kills = {job.name: job for job in kills.JOBS}
    reads = {"finetune": _trained, "slim": _trained, "sweep": lambda: None, "prepare": _images, "prune": _trained}
    return (
        Job("train", lambda: None, lambda given, folder: train_command(folder, kills.SHORT), of_kills["train"].results),
        *(Job(name, made, of_kills[name].line, of_kills[name].results) for name, made in reads.items()),
        Job("convert", _trained, _convert_line, lambda folder: _file(folder / "encoder.safetensors")),
    )


JOBS = _jobs()
_PAIRED = ("train", "finetune", "slim", "prepare")
_BRIEF = ("train", "prepare", "prune")  # with a case of `make drill-short`
PARTS = (
    *(job.part(int(job.name in _BRIEF)) for job in JOBS),
    *(job.pairs(int(job.name in _BRIEF)) for job in JOBS if job.name in _PAIRED),
)
