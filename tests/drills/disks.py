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
import random
import re
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
        kill, moment = rng.random() < 0.5, rng.uniform(0, 0.8) * duration
        first = self._on(place)
        while first.alive() and time.monotonic() - first.began < moment:
            time.sleep(0.01)
        if kill:
            first.process.kill()
        one_after_the_other, second = not first.alive(), self._on(place)
        done = [second.end(), first.end()]
        codes = [one.code for one in done]
        if one_after_the_other and codes == [0, 0]:
            wrong = ""
        elif kill and codes[1]:
            wrong = "" if codes == [0, -9] else f"after a killed one code {codes[0]}: {done[0].err[-300:]!r}"
        else:
            refused = next((one for one in done if one.code), done[0])
            fine = sorted(codes) == [0, 2] and re.search(_BUSY, refused.err)
            wrong = "" if fine and not _further_lines(refused) else f"codes {codes}: {refused.err[:300]!r}"
        if not wrong:
            found = self._found(place)
            wrong = ", ".join(differing(expected, found)[:3])
        said = done[0].err.strip().splitlines()[-1][:200] if done[0].err.strip() else ""
        return Outcome(case, DEFECT if wrong else FINE if codes[0] == 0 else REFUSED, wrong or said)

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
