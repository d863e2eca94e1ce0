"""Buckets: real commands that read and write a bucket which answers slowly, refuses, resets connections or sends too
little (`tests/bucket.py`). Through what passes, a run ends with the numbers of an undisturbed one to the last bit; from
what lasts it ends in time, with one line that names the object or folder and what the server said, and the same command
resumes once the bucket is back.
"""

import dataclasses
import random
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.bucket import Bucket, Fault, serve
from tests.commands import command, train_command
from tests.data.examples import class_folders
from tests.drills import kills
from tests.drills.cases import DEFECT, FINE, MISSED, REFUSED, Outcome, Part, differing, random_of
from tests.drills.disks import computed
from tests.drills.forks import Done, Running, commands_imported, finished

COUNT = 60
# Seconds of retrying after which a command gives up: of gcsfs, which tries six times, and of PATIENCE for rows, for
# which a run waits at its end too.
LIMIT = 37 + 60
_LATE = 60.0  # seconds beyond it
_SHORT = {"steps": 12, "checkpoint_every": 6, "eval_every": 12, "checkpoint.keep_last": 2}
_SAID = "refused|403|404|429|50[0-9]|[Rr]eset|[Dd]isconnected|[Cc]onnect|UNAVAILABLE|PERMISSION_DENIED"
_PASSING = (
    *(Fault(status=code) for code in (503, 503, 500, 502, 429, 408)),
    *(Fault(reset=where) for where in ("before", "amid", "after")),
    Fault(seconds=2.5),
)
_LASTING = (Fault(status=503), Fault(status=429), Fault(status=403), Fault(reset="before"))

# Requests of ArrayRecord and tensorstore, which retry for 15 minutes where that may help; no setting changes it.
_PATIENT = re.compile(r"\.arrayrecord\?|ocdbt|_sharding|%2Fd%2F|/d/")


_OTHERS = 40  # requests of a command that are not among these


class Plan:
    """Which requests of one case go wrong.

    Args:
      rng: random numbers of the case.
      requests: about the number of requests of an undisturbed run.

    Attributes:
      kind: `some` single requests, a `stretch` of time, `short` answers, or a fault that is `lasting`.
      given: number of requests that went wrong.
    """

    def __init__(self, rng: random.Random, requests: int):
        self.kind = rng.choice(("some", "some", "stretch", "short", "lasting"))
        self._rng, self._lock, self._seen, self._began = rng, threading.Lock(), 0, 0.0
        self._first, self._seconds = rng.randrange(requests), rng.uniform(1, 6)
        self.given = 0
        self._chosen = {rng.randrange(requests) for _ in range(rng.randrange(1, 7))}
        self._faults = [rng.choice(_PASSING) for _ in range(requests)]
        self.fault = {
            "stretch": rng.choice((Fault(status=503), Fault(reset="before"))),
            "short": Fault(short=True),
            "lasting": rng.choice(_LASTING),
        }.get(self.kind)
        if self.kind == "lasting" and self.fault != Fault(status=403):
            self._first %= _OTHERS

    def __call__(self, verb: str, path: str) -> Fault | None:
        fault = self._of_request(verb, path)
        self.given += fault is not None
        return fault

    def _of_request(self, verb: str, path: str) -> Fault | None:
        if self.kind == "lasting" and self.fault != Fault(status=403) and _PATIENT.search(path):
            return None
        with self._lock:
            number, self._seen = self._seen, self._seen + 1
            if number == self._first:
                self._began = time.monotonic()
        if self.kind == "some":
            return self._faults[number] if number in self._chosen else None
        if self.kind == "short":
            return self.fault if number in self._chosen and verb == "GET" else None
        if not self._began or (self.kind == "stretch" and time.monotonic() - self._began > self._seconds):
            return None
        return self.fault


@dataclasses.dataclass(frozen=True)
class Job:
    """A command that uses a bucket.

    Attributes:
      name: of the part.
      about: what it does, for the table.
      requests: about as many as it makes, among which those that go wrong are drawn.
      line: the command, given a local folder for what it writes there; it writes gs://bucket/out or this folder.
      results: everything it computed, given a folder with what it wrote.
    """

    name: str
    about: str
    requests: int
    line: Callable[[Path], list[str]]
    results: Callable[[Path], kills.Results]

    def run(self, cases: Iterable[int]) -> Iterator[Outcome]:
        """Disturbs the bucket in every case."""
        with (
            tempfile.TemporaryDirectory(prefix="drills-buckets-") as folder,
            serve() as bucket,
            commands_imported(),
        ):
            root = Path(folder)
            _fill(bucket, root)
            expected = self._undisturbed(bucket, root)
            for case in cases:
                (root / str(case)).mkdir()
                yield self._case(case, root / str(case), bucket, expected)

    def _undisturbed(self, bucket: Bucket, root: Path) -> kills.Results:
        finished(self._on(bucket, root / "first"))  # compiles what all others reuse
        _empty(bucket)
        finished(self._on(bucket, root / "whole"))
        return self._found(bucket, root / "whole")

    def _on(self, bucket: Bucket, folder: Path) -> Running:
        return Running(self.line(folder), bucket.variables)

    def _found(self, bucket: Bucket, folder: Path) -> kills.Results:
        copied(bucket, folder)
        return computed(self.results, folder)

    def _case(self, case: int, folder: Path, bucket: Bucket, expected: kills.Results) -> Outcome:
        _empty(bucket)
        plan = Plan(random_of(f"buckets:{self.name}", case), self.requests)
        bucket.fault = plan
        done = self._on(bucket, folder).end(LIMIT + _LATE)
        bucket.fault = lambda verb, path: None
        wrong = _judged(done, plan) if done.code else ""
        if not wrong and done.code:
            again = self._on(bucket, folder).end()
            wrong = f"then code {again.code}: {again.err[-300:]!r}" if again.code else ""
        if not wrong:
            found = self._found(bucket, folder)
            names = differing(expected, found)
            wrong = f"code {done.code}, other results: {', '.join(names[:3])}" if names else ""
        said = done.err.strip().splitlines()[-1][:200] if done.err.strip() else ""
        verdict = DEFECT if wrong else REFUSED if done.code else FINE if plan.given else MISSED
        return Outcome(case, verdict, f"{plan.kind} {plan.fault or ''} {done.seconds:.0f} s: {wrong or said}")

    def part(self, short: int = 1) -> Part:
        return Part(f"buckets:{self.name}", self.about, self.run, COUNT, short, 5)


def _judged(done: Done, plan: Plan) -> str:
    """What is wrong with the way in which a command ended that could not use its bucket; empty if nothing is."""
    if done.code == -9:
        return f"still running after {done.seconds:.0f} s"
    if plan.kind in ("some", "stretch"):
        return f"code {done.code} though it passed: {done.err[:300]!r}"
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    if done.code not in (2, 3, 75) or "Traceback" in done.err or len(errors) != 1:
        return f"code {done.code}, not one line: {done.err[:300]!r} … {done.err[-500:]!r}"
    if "bucket" not in errors[0] or not (plan.kind == "short" or re.search(_SAID, errors[0])):
        return f"code {done.code}, without object or answer: {errors[0][:300]!r}"
    if plan.kind == "lasting" and plan.fault and (plan.fault.status == 403) == (done.code == 75):
        return f"code {done.code} for {plan.fault}: {errors[0][:300]!r}"
    return ""


def _fill(bucket: Bucket, root: Path) -> None:
    """Puts prepared data into the bucket, at gs://bucket/data."""
    class_folders(root / "images", 40)
    finished(Running(command("prepare", source=f"folder:{root}/images", output=root / "data", size=16, shard_size=7)))
    for file in (root / "data").iterdir():
        bucket.put(f"data/{file.name}", file.read_bytes())


def copied(bucket: Bucket, folder: Path) -> None:
    """Writes what a run left in the bucket into a folder."""
    for name in [name for name in bucket.objects if name.startswith("out/")]:
        file = folder / name.removeprefix("out/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bucket.read(name))


def _empty(bucket: Bucket) -> None:
    for name in [name for name in bucket.objects if name.startswith("out/")]:
        del bucket.objects[name]
    bucket.fault = lambda verb, path: None


def _train_line(folder: Path) -> list[str]:
    return train_command("gs://bucket/out", _SHORT | {"data.source": "arrayrecord:gs://bucket/data"})  # type: ignore[arg-type]


def _read_line(folder: Path) -> list[str]:
    return command("prepare", source="arrayrecord:gs://bucket/data", output=folder, shard_size=9, workers=1)


def _write_line(folder: Path) -> list[str]:
    images = folder.parent / "images"
    return command("prepare", source=f"folder:{images}", output="gs://bucket/out", size=16, shard_size=7, workers=1)


_OF_KILLS = {job.name: job for job in kills.JOBS}
JOBS = (
    Job("read", "prepared data read from a bucket that fails", 300, _read_line, _OF_KILLS["prepare"].results),
    Job("write", "`prepare` to a bucket that fails", 150, _write_line, _OF_KILLS["prepare"].results),
    Job("train", "`train` from and to a bucket that fails", 300, _train_line, _OF_KILLS["train"].results),
)
PARTS = tuple(job.part() for job in JOBS)
