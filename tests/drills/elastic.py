"""Elastic runs: a run that is stopped several times, and resumes with another number of devices and processes, another
mesh and other microbatches every time. Its losses are those of a run that was left alone on one device, to the
tolerance of float32 sums in another order, and every step is given the same images to the last bit.
"""

import collections
import dataclasses
import functools
import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.commands import command, finish, free_port, rows_of, start, train_command
from tests.drills.cases import DEFECT, FINE, Outcome, Part, differing, inputs_folder, random_of
from tests.drills.forks import Fresh, finished

COUNT = 60
STEPS, BATCH = 24, 16
_RTOL = 1e-5
_LAG = 10.0  # seconds: JAX looks for the signal once a second, and a spot machine has 30 from its notice to its end
_CODES = {"SIGTERM": (143,), "SIGKILL": (-9,)}
_SIZES = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a part of a run is computed.

    Attributes:
      processes: number of processes.
      mesh: sizes of replica, fsdp and tensor.
      accumulate: microbatches.
      threads: threads that read images.
    """

    processes: int = 1
    mesh: tuple[int, int, int] = (1, 1, 1)
    accumulate: int = 1
    threads: int = 2

    @property
    def devices(self) -> int:
        """Devices of each process."""
        return int(np.prod(self.mesh)) // self.processes

    def fields(self) -> dict[str, Any]:
        """Its fields in a config."""
        sizes = dict(zip(("replica", "fsdp", "tensor"), self.mesh, strict=True))
        sizes = {f"mesh.{axis}": size for axis, size in sizes.items()}
        return {**sizes, "accumulate": self.accumulate, "data.threads": self.threads}

    def __str__(self) -> str:
        mesh = "x".join(map(str, self.mesh))
        return f"{self.processes} process{'es' if self.processes > 1 else ''} {mesh} acc {self.accumulate}"


def drawn_layout(rng: random.Random, divisible: bool) -> Layout:
    """A random layout of 1, 2 or 8 devices that the batch can be divided over."""
    devices = rng.choice((1, 2, 8, 8))
    replica = rng.choice([n for n in _SIZES if devices % n == 0])
    fsdp = rng.choice([n for n in _SIZES if devices // replica % n == 0])
    parts = [n for n in (1, 2, 4) if BATCH % (replica * fsdp * n) == 0] if divisible else [1]
    processes = rng.choice([n for n in (1, 2, 4) if n <= devices])
    mesh = replica, fsdp, devices // replica // fsdp
    return Layout(processes, mesh, rng.choice(parts), rng.choice((1, 2, 3)))


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that is stopped and moved.

    Attributes:
      name, about: name, and what is trained.
      line: the command, given its working directory and fields of its config.
      divisible: whether it can be computed in microbatches.
    """

    name: str
    about: str
    line: Callable[[Path, dict[str, Any]], list[str]]
    divisible: bool = True

    def run(self, cases: Iterable[int]) -> Iterator[Outcome]:
        with tempfile.TemporaryDirectory(prefix="drills-elastic-") as folder:
            for case in cases:
                yield self._case(case, Path(folder) / str(case), *_undisturbed(self))
                shutil.rmtree(Path(folder) / str(case), ignore_errors=True)

    def _leg(
        self, layout: Layout, workdir: Path, record: Path, stop: int, how: str, asked: int
    ) -> list[subprocess.CompletedProcess[str]]:
        """Continues a run in a layout until one of its processes is told to stop at a step, or to its end."""
        python, _, module, *flags = self.line(workdir, layout.fields())
        if layout.processes > 1:
            flags += [f"--coordinator=localhost:{free_port()}", f"--processes={layout.processes}"]
        running = []
        for k in range(layout.processes):
            own = [f"--process={k}"] if layout.processes > 1 else []
            told = [str(stop if k == asked else 0), how]
            line = [python, "-m", "tests.drills.recorded", str(record), *told, module, *flags, *own]
            running.append(start(line, layout.devices))
        try:
            return [finish(process) for process in running]
        finally:
            for process in running:
                process.kill()

    def _case(self, case: int, folder: Path, rows: list[dict[str, Any]], images: dict[str, str]) -> Outcome:
        rng, workdir, said = random_of(f"elastic:{self.name}", case), folder / "run", list[str]()
        stops = [*sorted(rng.sample(range(2, STEPS - 3, 3), rng.choice((2, 2, 3, 4)))), 0]
        records = [folder / f"images-{i}" for i in range(len(stops))]
        for stop, record in zip(stops, records, strict=True):
            layout = drawn_layout(rng, self.divisible)
            how = rng.choice(("SIGTERM", "SIGTERM", "SIGKILL") if layout.processes == 1 else ("SIGTERM",))
            said.append(f"{layout}" + (f" until {how} at {stop}" if stop else ""))
            ended = self._leg(layout, workdir, record, stop, how, rng.randrange(layout.processes))
            codes = _CODES[how] if told(record, stop) else (0,)
            steps, seconds = lag(record, stop)
            if steps:
                said[-1] += f" ({steps} steps and {seconds:.1f} s later)"
            if stop and seconds > _LAG:
                return Outcome(case, DEFECT, f"{', '.join(said)}: stopped too late")
            for done in ended:
                if done.returncode not in codes or "Traceback" in done.stderr:
                    return Outcome(case, DEFECT, f"{', '.join(said)}: {done.returncode}: {done.stderr[-400:]!r}")
        wrong = differences(rows, rows_of(workdir)) or _other_images(images, records)
        return Outcome(case, DEFECT if wrong else FINE, f"{', '.join(said)}{': ' if wrong else ''}{wrong}")

    def part(self) -> Part:
        return Part(f"elastic:{self.name}", self.about, self.run, COUNT, 1)


@functools.cache
def _undisturbed(job: Job) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows and images of a run that is left alone on one device, run once for all its cases."""
    with tempfile.TemporaryDirectory(prefix="drills-elastic-") as folder:
        workdir, images = Path(folder) / "run", Path(folder) / "images"
        ended = job._leg(Layout(), workdir, images, 0, "SIGTERM", 0)
        if any(done.returncode for done in ended):
            raise RuntimeError(f"the undisturbed run failed: {ended[0].stderr[-2000:]}")
        return rows_of(workdir), images_of([images])[0]


def differences(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> str:
    """The first loss that is not that of the undisturbed run; empty if all are."""
    if [row["step"] for row in found] != [row["step"] for row in expected]:
        return f"rows of the steps {[row['step'] for row in found]}"
    for one, other in zip(expected, found, strict=True):
        for name in [name for name in one if "loss" in name]:
            if not np.isclose(float(other.get(name, "nan")), float(one[name]), rtol=_RTOL, atol=0):
                return f"{name} {other.get(name)} of step {one['step']} is not {one[name]}"
    return ""


def images_of(folders: Iterable[Path]) -> tuple[dict[str, str], str]:
    """The images of every step, by `STEP/POSITION`, and the first of which two were given; every process of every
    start has written some.
    """
    images: dict[str, str] = {}
    for file in (file for folder in folders for file in folder.glob("*.jsonl")):
        for step, rows, *_ in map(json.loads, file.read_text().splitlines()):
            for at, image in rows.items():
                if images.setdefault(f"{step}/{at}", image) != image:
                    return images, f"{step}/{at} is {image} and {images[f'{step}/{at}']}"
    return images, ""


def told(folder: Path, stop: int) -> bool:
    """Whether a start was given the images of the step at which it is to stop. Several processes agree on a stop a few
    steps later, so that a later start may begin behind its own.
    """
    return any(json.loads(line)[0] == stop for file in folder.glob("*.jsonl") for line in file.open())


def lag(folder: Path, stop: int) -> tuple[int, float]:
    """Steps and seconds between the step at which a start was to stop and the last one that it was given."""
    rows = [json.loads(line) for file in folder.glob("*.jsonl") for line in file.open()]
    asked = [at for step, _, at in rows if step == stop]
    if not asked:
        return 0, 0.0
    return max(row[0] for row in rows) - stop, max(row[2] for row in rows) - min(asked)


def _other_images(expected: dict[str, str], folders: list[Path]) -> str:
    found, twice = images_of(folders)
    wrong = differing(expected, found)
    counts = collections.Counter(at.partition("/")[0] for at in found)
    if not (twice or wrong or set(counts.values()) != {BATCH}):
        return ""
    return twice or f"other images at {', '.join(wrong[:3])} of step/position"


_RUN = {"steps": STEPS, "batch_size": BATCH, "checkpoint_every": 4, "log_every": 1, "eval_every": 8, "dtype": "float32"}
# TINY is of quickstart.py, with a decoder: these configs have other objectives
_SMALL = {
    "image_size": 16, "patch_size": 4, "width": 32, "depth": 2, "heads": 2, "head_dim": 16, "mlp": 64,
}  # fmt: skip


def _train_line(workdir: Path, fields: dict[str, Any]) -> list[str]:
    return train_command(workdir, {**_RUN, "optimizer.base_lr": 5e-3, **fields})


def _other_line(config: str, objective: dict[str, Any], workdir: Path, fields: dict[str, Any]) -> list[str]:
    own = {
        **_RUN,
        **{f"model.{name}": value for name, value in _SMALL.items()},
        **{f"objective.{name}": value for name, value in objective.items()},
        "data.source": "scenes?size=16&count=512", "data.eval_split": "", "data.eval_examples": 32,
        "optimizer.warmup": 5, "mesh.min_shard_elements": 0,
        **fields,
    }  # fmt: skip
    flags = {f"config.{name}": value for name, value in own.items()}
    return command("train", config=config, workdir=workdir, **flags)


@functools.cache
def _encoder() -> Path:
    folder = inputs_folder("elastic") / "run"
    finished(Fresh(train_command(folder, {"steps": 5})))
    return folder


def _segment_line(workdir: Path, fields: dict[str, Any]) -> list[str]:
    from tests.test_finetune import SEGMENTING, finetune

    own = {**SEGMENTING, "epochs": 24 / 5, "checkpoint_every": 4, "eval_every": 8, "dtype": "float32"}
    return finetune(_encoder(), workdir, "segment.py", **own, **fields)


_MOCO = {"hidden": 32, "outputs": 16}
_SLIMMABLE = {"number": 3, "random": 1, "wraps.decoder_width": 16, "wraps.decoder_depth": 1, "wraps.decoder_heads": 2}
JOBS = (
    Job("mae", "MAE moved to another mesh two to four times", _train_line),
    Job("moco", "MoCo v3 moved", functools.partial(_other_line, "moco_ti8.py", _MOCO), divisible=False),
    Job("slimmable", "slimmable MAE moved", functools.partial(_other_line, "slimmable_ti8.py", _SLIMMABLE)),
    Job("segmentation", "fine-tuning with batch norm moved", _segment_line, divisible=False),
)
PARTS = tuple(job.part() for job in JOBS)
