"""Preemptions: `tpu.launch run` in the fake cloud of tests/tpu, with the real training on its workers and a bucket as
its working directory. The machines are shut down at a random moment as systemd does it: every process gets SIGTERM and
SIGHUP at once, and SIGKILL ten seconds later. All workers have then saved the step that they were at and ended with
143; `run` creates the slice again, and the run that resumes is the undisturbed one to the last bit.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

from scaling.training.goodput import STARTS, read_starts
from tests.bucket import Bucket, serve
from tests.commands import environment, free_port, train_command
from tests.drills.buckets import copied
from tests.drills.cases import DEFECT, FINE, MISSED, Outcome, Part, differing, random_of
from tests.drills.kills import Results, trained
from tests.tpu.cloud import Cloud

COUNT = 20
WORKDIR = "gs://bucket/out"
STEPS, EVERY = 60, 10
_RUN = {"steps": STEPS, "checkpoint_every": EVERY, "eval_every": STEPS, "checkpoint.keep_last": 3}
_ACCELERATORS = {1: "v5litepod-8", 2: "v4-16"}  # by number of workers
_LIFE = {"states": ["PROVISIONING", "ACTIVE"]}
_LIMIT = 240.0  # seconds of a case


@dataclasses.dataclass
class Shutdown:
    """One case: what is shut down, and when.

    Attributes:
      workers: machines of the slice.
      tmux: whether the job is started from a tmux on its worker.
      after: step of the checkpoint after which it happens; 0 for while the job starts.
      delay: seconds from then on, or from the start of the job.
    """

    workers: int
    tmux: bool
    after: int
    delay: float

    @classmethod
    def drawn(cls, rng: random.Random) -> "Shutdown":
        after = rng.choice((0, *range(EVERY, STEPS - EVERY, EVERY)))
        tmux = shutil.which("tmux") is not None and rng.random() < 0.5
        return cls(rng.choice((1, 1, 2)), tmux, after, rng.uniform(0, 5) if not after else rng.uniform(0, 0.3))

    def __str__(self) -> str:
        when = f"{self.delay:.2f} s after " + (f"step {self.after}" if self.after else "the start")
        return f"{self.workers} worker{'s' if self.workers > 1 else ''}{', tmux' if self.tmux else ''}, {when}"


def run(cases: Iterable[int]) -> Iterator[Outcome]:
    """Shuts machines down in every case."""
    with (
        tempfile.TemporaryDirectory(prefix="drills-preempted-", dir=_memory()) as folder,
        serve() as bucket,
        mock.patch.dict(os.environ, environment() | bucket.variables),
    ):
        whole: dict[int, Results] = {}
        for case in cases:
            shutdown = Shutdown.drawn(random_of("preempted:train", case))
            if shutdown.workers not in whole:
                whole[shutdown.workers] = _undisturbed(bucket, Path(folder), shutdown.workers)
            yield _case(case, shutdown, Path(folder) / str(case), bucket, whole[shutdown.workers])
            shutil.rmtree(Path(folder) / str(case), ignore_errors=True)


def _memory() -> str | None:
    """A folder in memory: a disk may take minutes to delete the code of a slice."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _undisturbed(bucket: Bucket, folder: Path, workers: int) -> Results:
    """What a run computes that nobody disturbs; the programs that it compiles stay in the bucket."""
    with _launched(folder / f"whole-{workers}", bucket, workers, tmux=False) as (_, running):
        out, err = running.communicate(timeout=_LIMIT)
    if running.returncode:
        raise RuntimeError(f"the undisturbed run failed: {err[-1000:]} {out[-1000:]}")
    return _found(bucket, folder / f"found-{workers}")


def _case(case: int, shutdown: Shutdown, folder: Path, bucket: Bucket, expected: Results) -> Outcome:
    with _launched(folder, bucket, shutdown.workers, shutdown.tmux) as (cloud, running):
        seconds = _shut_down(shutdown, cloud, bucket, running)
        try:
            out, err = running.communicate(timeout=_LIMIT)
        except subprocess.TimeoutExpired:
            return Outcome(case, DEFECT, f"{shutdown}: `run` has not ended {_LIMIT:.0f} s later")
    if seconds is None:
        return Outcome(case, DEFECT if running.returncode else MISSED, f"{shutdown}: too late {err[-300:]!r}")
    wrong = _judged(bucket, shutdown)
    if running.returncode:
        wrong = f"run ended with {running.returncode}: {err[-300:]!r} … {out[-600:]!r}"
    if not wrong:
        names = differing(expected, _found(bucket, folder / "found"))
        wrong = f"{len(names)} other results: {', '.join(names[:3])}" if names else ""
    said = f"{shutdown}, codes noted after {seconds:.1f} s, steps of the starts {[x['step'] for x in _starts(bucket)]}"
    return Outcome(case, DEFECT if wrong else FINE, f"{said}: {wrong}" if wrong else said)


@contextlib.contextmanager
def _launched(
    folder: Path, bucket: Bucket, workers: int, tmux: bool
) -> Iterator[tuple[Cloud, "subprocess.Popen[str]"]]:
    """`tpu.launch run` of the tiny model in a new cloud, which deletes its slice at the end."""
    for name in list(bucket.objects):
        if not name.startswith("out/cache/"):
            del bucket.objects[name]
    folder.mkdir()
    cloud = Cloud(folder)
    cloud.plan(_LIFE, _LIFE, workers=workers, tmux=tmux, real=free_port())
    slice_ = ["--name=vit", "--zone=us-central1-a", f"--accelerator={_ACCELERATORS[workers]}", "--spot"]
    training = train_command(WORKDIR, _RUN)[3:]  # type: ignore[arg-type]
    running = cloud.start("run", *slice_, "--allow-dirty", "--delete-when=end", "--poll=1", *training)
    try:
        yield cloud, running
    finally:
        running.kill()
        cloud.play("end")


def _shut_down(shutdown: Shutdown, cloud: Cloud, bucket: Bucket, running: "subprocess.Popen[str]") -> float | None:
    """Waits for the moment and takes the slice away; returns the seconds until all workers had noted how they ended,
    10 if one never did, and None if the run had ended before.
    """
    deadline = time.monotonic() + _LIMIT
    while not (_newest(bucket) >= shutdown.after if shutdown.after else _begun(cloud, shutdown.workers)):
        if running.poll() is not None or time.monotonic() > deadline:
            return None
        time.sleep(0.005)
    time.sleep(shutdown.delay)
    if running.poll() is not None or _newest(bucket) == STEPS:
        return None
    began, noted = time.monotonic(), 10.0
    with concurrent.futures.ThreadPoolExecutor() as pool:
        played = pool.submit(cloud.play, "preempt")
        while not played.done():
            if noted == 10.0 and len(_codes(bucket)) == shutdown.workers:
                noted = time.monotonic() - began
            time.sleep(0.02)
    played.result()
    return noted


def _begun(cloud: Cloud, workers: int) -> bool:
    return len(list(cloud.folder.glob("workers/*/scaling/pid"))) == workers


def _newest(bucket: Bucket) -> int:
    """Step of the newest finished checkpoint in the bucket."""
    names = [name.split("/") for name in list(bucket.objects) if name.startswith("out/checkpoints/")]
    return max((int(parts[2]) for parts in names if parts[2].isdigit()), default=0)


def _starts(bucket: Bucket) -> list[dict]:
    return read_starts(bucket.read(f"out/{STARTS}").decode())


def _judged(bucket: Bucket, shutdown: Shutdown) -> str:
    """What was wrong with the first end; empty if all workers saved the step they were at, or had made none."""
    starts = _starts(bucket)
    if not shutdown.after and (len(starts) < 2 or not starts[1]["step"]):
        return ""  # without a step; where compiling takes longer than ten seconds it is ended by SIGKILL
    if lost := [start["lost"] for start in starts if start.get("lost")]:
        return f"steps of {lost[0]} s were lost"
    if starts[1]["step"] < shutdown.after:
        return f"it resumed from step {starts[1]['step']}"
    codes = _codes(bucket)
    return "" if codes == ["143"] * shutdown.workers else f"the workers ended with {codes}"


def _codes(bucket: Bucket) -> list[str]:
    """Exit codes of the first start, of the workers that noted one."""
    names = sorted(name for name in list(bucket.objects) if name.startswith("out/logs/"))
    return [bucket.read(x).decode().strip() for x in names if x.endswith(".result") and x[:24] == names[0][:24]]


def _found(bucket: Bucket, folder: Path) -> Results:
    copied(bucket, folder)
    return trained(folder)


PARTS = (
    Part(
        "preempted:train",
        "slices shut down under `tpu.launch run` in a fake cloud: saved, 143 (after the first step), created, resumed",
        run,
        COUNT,
        1,
    ),
)
